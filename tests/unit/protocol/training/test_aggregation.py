"""One update, the same bits in any order; nobody counts for more than the median."""

import itertools

import numpy as np
import pytest

from protocol.training.aggregation import aggregate, clip_factor, outer_step
from protocol.training.payload import CHUNK, Contribution, compress

SIZE = 2 * CHUNK + 10


def contribution(seed: int, times: float = 1.0) -> Contribution:
    return compress((times * 1e-3 * np.random.default_rng(seed).standard_normal(SIZE)).astype(np.float32))


def test_the_mean_of_contributions_of_equal_norm() -> None:
    found = aggregate({"a": contribution(1), "b": contribution(1)})
    assert np.array_equal(found, contribution(1).dense().astype(np.float64))


def test_the_order_of_arrival_does_not_matter() -> None:
    given = {name: contribution(seed) for seed, name in enumerate("abcde")}
    results = {
        outer_step(np.ones(SIZE, np.float32), aggregate(dict(order)), 0.7).tobytes()
        for order in itertools.islice(itertools.permutations(given.items()), 20)
    }
    assert len(results) == 1


def test_a_hundredfold_contribution_counts_as_much_as_a_median_one() -> None:
    honest = {name: contribution(seed) for seed, name in enumerate("abcd")}
    big = aggregate({**honest, "e": contribution(9, times=100)})
    plain = aggregate({**honest, "e": contribution(9)})
    assert np.linalg.norm(big - plain) < 0.05 * np.linalg.norm(plain)
    assert clip_factor(2.0, 1.0) == 0.5 and clip_factor(1.0, 2.0) == 1.0 and clip_factor(3.0, 0.0) == 0.0


def test_the_outer_step_subtracts_and_stays_in_range() -> None:
    model, update = np.ones(3, np.float32), np.array([0.5, -0.25, 0.0])
    assert list(outer_step(model, update, 0.5)) == [0.75, 1.125, 1.0]
    with pytest.raises(ValueError, match="leaves the range"):
        outer_step(np.full(3, 3e38, np.float32), np.full(3, -1e39), 1.0)
    for wrong in ((model, update[:2], 0.5), (model.astype(np.float64), update, 0.5), (model, update, float("nan"))):
        with pytest.raises(ValueError, match="one entry"):
            outer_step(*wrong)


def test_nothing_and_contributions_to_different_models_make_no_update() -> None:
    with pytest.raises(ValueError, match="at least one"):
        aggregate({})
    with pytest.raises(ValueError, match="one model"):
        aggregate({"a": contribution(1), "b": compress(np.ones(5, np.float32))})
