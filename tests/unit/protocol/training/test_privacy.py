"""Noise is Gaussian, whole, and the same for everybody; no contribution is larger than the clip."""

import hashlib
import itertools
import math

import numpy as np
import pytest

from protocol.training import privacy as rules
from protocol.training.aggregation import aggregate, aggregate_noised
from protocol.training.payload import CHUNK, Contribution, compress
from protocol.training.privacy import BASE, DEVIATION, SPREAD, fitted, noise, step
from protocol.training.recipe import Privacy

SEED = hashlib.sha256(b"seed").digest()
SIZE = 2 * CHUNK + 10
PRIVACY = Privacy(clip=0.5, noise=0.25)


def contribution(seed: int, times: float = 1.0) -> Contribution:
    return compress((times * np.random.default_rng(seed).standard_normal(SIZE)).astype(np.float32))


def test_everybody_draws_the_same_numbers_however_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = noise(SEED, 10_000)
    monkeypatch.setattr(rules, "_BLOCK", 999)
    assert np.array_equal(noise(SEED, 10_000), whole) and np.array_equal(noise(SEED, 77), whole[:77])
    other = noise(hashlib.sha256(b"other").digest(), 10_000)
    assert abs(np.corrcoef(whole, other)[0, 1]) < 0.04
    for wrong in (b"", SEED[:-1], SEED + b"\0"):
        with pytest.raises(ValueError, match="32 bytes"):
            noise(wrong, 1)


def test_the_noise_is_gaussian() -> None:
    count = 2**18
    found = noise(SEED, count) / DEVIATION
    for power, moment in enumerate((0.0, 1.0, 0.0, 3.0, 0.0, 15.0), 1):
        spread = math.sqrt(math.prod(range(2 * power - 1, 0, -2)) / count)  # of the mean of x ** power
        assert abs(np.mean(found**power) - moment) < 4 * spread, power
    ordered = np.sort(found)
    expected = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in ordered[::64]])
    assert np.abs(expected - np.arange(0, count, 64) / count).max() < 1.95 / math.sqrt(count)  # Kolmogorov, one in 1000
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 4 / math.sqrt(count)
    assert len(np.unique(noise(SEED, count) % SPREAD)) == SPREAD, "no gaps"


def test_the_table_is_that_of_a_discrete_gaussian() -> None:
    weights = [math.exp(-(k**2) / (2 * BASE**2)) for k in range(20 * BASE)]
    chances = [weights[0], *(2 * weight for weight in weights[1:])]
    total = math.fsum(chances)
    table = rules._table()
    for most in (0, 1, 100, BASE, 4 * BASE):
        assert table.thresholds[most] / 2**127 == pytest.approx(math.fsum(chances[: most + 1]) / total, rel=1e-12)
    assert 2**127 - table.thresholds[-1] < 2**64, "the tail that is never drawn"
    assert all(one <= other for one, other in itertools.pairwise(table.thresholds))


def test_words_at_the_edge_of_the_table() -> None:
    table = rules._table()
    words = np.array([0, 1, 2**64 - 1, 2**64 - 2], dtype=np.uint64)
    drawn = rules._drawn(words, SEED, 0)
    assert list(drawn[:2]) == [0, 0]
    assert min(-drawn[2], drawn[3]) > 9 * BASE and max(-drawn[2], drawn[3]) <= len(table.thresholds)


@pytest.mark.parametrize("magnitude", [1, 300, 2000])
def test_a_word_that_equals_a_threshold_is_settled_by_another(magnitude: int) -> None:
    table = rules._table()
    word = np.array([int(table.high[magnitude]) << 1], dtype=np.uint64)
    drawn = [int(rules._drawn(word, SEED, place)[0]) for place in range(600)]
    assert set(drawn) <= {magnitude, magnitude + 1}
    below = (table.thresholds[magnitude] % 2**64) / 2**64  # the share of second words below the threshold's
    assert drawn.count(magnitude) / 600 == pytest.approx(below, abs=4 * math.sqrt(0.25 / 600))
    just_below = np.array([(int(table.high[magnitude]) - 1) << 1], dtype=np.uint64)
    assert rules._drawn(just_below, SEED, 0)[0] == magnitude


@pytest.mark.parametrize("times", [1e-6, 1e-3, 1.0, 1e30])
@pytest.mark.parametrize("clip", [1e-6, 0.5, 1e6])
def test_no_contribution_is_larger_than_the_clip(times: float, clip: float) -> None:
    privacy = Privacy(clip=clip, noise=0.01)
    for seed in range(5):
        given = contribution(seed, times)
        norm = math.sqrt(sum(int(entry) ** 2 for entry in fitted(given, privacy)))
        assert norm < clip / step(privacy)
        assert norm == pytest.approx(min(clip, given.norm) / step(privacy), rel=1e-3, abs=len(given.places) ** 0.5)


def test_a_small_contribution_enters_as_it_is_but_for_a_step() -> None:
    given = contribution(1, 1e-3)
    assert given.norm < PRIVACY.clip
    off = given.values() - fitted(given, PRIVACY) * step(PRIVACY)
    assert np.abs(off).max() < 1.001 * step(PRIVACY) and (off * given.values() >= 0).all(), "rounded toward zero"
    nothing = Contribution(given.size, 0 * given.low, 0 * given.high, given.places, given.codes)
    assert not fitted(nothing, PRIVACY).any()


def test_the_update_is_the_mean_of_what_fits_and_the_noise() -> None:
    given = {name: contribution(seed, 0.01 * 10**seed) for seed, name in enumerate("abc")}
    update = aggregate_noised(given, PRIVACY, SEED)
    total = noise(SEED, SIZE)
    for one in given.values():
        total[one.places] += fitted(one, PRIVACY)
    assert np.array_equal(np.rint(update * 3 / step(PRIVACY)).astype(np.int64), total)
    assert np.std(update) == pytest.approx(PRIVACY.noise * PRIVACY.clip / 3, rel=0.05)
    assert aggregate_noised(dict(reversed(given.items())), PRIVACY, SEED).tobytes() == update.tobytes()
    quiet = aggregate_noised(given, Privacy(clip=1e6, noise=0.01), SEED) - noise(SEED, SIZE) * (1e4 / DEVIATION / 3)
    plain = sum(one.dense().astype(np.float64) for one in given.values()) / 3
    assert np.abs(quiet - plain).max() < 0.1, "steps of 0.076"
    assert not np.allclose(plain, aggregate(given)), "no median is in it"


def test_nothing_makes_no_update() -> None:
    with pytest.raises(ValueError, match="at least one"):
        aggregate_noised({}, PRIVACY, SEED)
