"""The loss model: more contributions average their scatter away, parts of the work give parts of it, noise harms."""

import numpy as np
import pytest
from pydantic import ValidationError

from protocol.training.aggregation import measured_factor
from protocol.training.simulation.loss import LossModel, Power
from tests.support.losses import LOSSES

RNG = np.random.default_rng(0)
START = LOSSES.start


def test_a_step_of_one_is_that_contribution_alone_and_more_are_better() -> None:
    drops = [LOSSES.drop(START, np.ones(count)) for count in (1, 2, 8, 300)]
    assert drops[0] == pytest.approx(float(LOSSES.alone(START, np.ones(1))[0]))
    assert drops == sorted(drops) and drops[3] - drops[2] < drops[1] - drops[0]
    pull = LOSSES.pull.at(START - LOSSES.floor)
    assert drops[3] == pytest.approx(pull * (1 - LOSSES.bend), rel=0.01), "what is left is what is common"
    assert LOSSES.drop(START, np.array([])) == 0.0


def test_less_work_gives_less_and_noise_harms() -> None:
    whole, half, noise = LOSSES.alone(START, np.array([1.0, 0.5, 0.0]))
    assert whole > half > 0.0 > noise
    assert LOSSES.drop(START, np.array([1.0, 0.5])) < LOSSES.drop(START, np.ones(2))
    assert LOSSES.drop(START, np.array([1.0, 0.0])) < LOSSES.drop(START, np.ones(1))


def test_the_pull_fades_towards_the_floor() -> None:
    assert LOSSES.drop(5.0, np.ones(8)) < LOSSES.drop(6.0, np.ones(8)) < LOSSES.drop(7.0, np.ones(8))
    below = LOSSES.drop(LOSSES.floor - 1.0, np.ones(8))
    assert -0.01 < below < 0.0, "below the floor nothing is left to learn, and the scatter remains"


def test_work_shows_on_its_own_data_and_a_copy_does_not() -> None:
    count = 4000
    shares, source = np.ones(count), np.arange(count)
    source[count // 2 :] = source[: count // 2]  # the second half shows what the first has made
    shares[count // 2 :] = 0.0
    length = measured_factor(count)
    assigned, unassigned = (found / length for found in LOSSES.scores(START, shares, source, RNG))
    more = assigned - unassigned
    assert more[: count // 2].mean() == pytest.approx(LOSSES.own.at(1.0), abs=2e-3)
    assert more[count // 2 :].mean() == pytest.approx(0.0, abs=2e-3)
    assert np.corrcoef(unassigned[: count // 2], unassigned[count // 2 :])[0, 1] > 0.2, "it is the same contribution"
    alone = float(LOSSES.alone(START, np.ones(1), length)[0]) / length
    assert unassigned[count // 2 :].mean() == pytest.approx(alone, abs=2e-3)


def test_numbers_that_are_none_are_refused() -> None:
    for update in ({"bend": -0.1}, {"floor": float("nan")}, {"spread": float("inf")}, {"more": 1.0}):
        with pytest.raises(ValidationError):
            LossModel(**{**LOSSES.model_dump(), **update})
    with pytest.raises(ValidationError):
        Power(scale=1.0, exponent=99.0)
