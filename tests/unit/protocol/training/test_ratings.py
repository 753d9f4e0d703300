"""Steady work on one's own data is paid; copies, absence, luck and cheating are not."""

import math
import random

import pytest

from protocol.training.ratings import LossScore, RatingRules, TrainState, WindowSeen, fold_window, tables, weights
from protocol.verdicts import Outcome

RULES = RatingRules()


def worked(
    hotkey: str, rng: random.Random, skill: float = 0.02, own: float = 0.015, noise: float = 0.004
) -> WindowSeen:
    unassigned = skill + rng.gauss(0, noise)
    return WindowSeen(hotkey, Outcome.ACCEPT, LossScore(unassigned + own + rng.gauss(0, noise), unassigned))


def run(windows: int, window_of, states=None, first: int = 0) -> dict[str, TrainState]:
    states = dict(states or {})
    for window in range(first, first + windows):
        states = fold_window(states, window_of(window), window)
    return states


@pytest.mark.parametrize(("peers", "windows", "least"), [(3, 5, 0.7), (12, 5, 0.5), (12, 20, 0.8), (100, 20, 0.6)])
def test_equal_work_is_paid_about_equally(peers: int, windows: int, least: float) -> None:
    """Gains vary by 0.3 of their mean, as measured; nobody goes without."""
    rng = random.Random(1)
    states = run(windows, lambda _: [worked(f"m{n}", rng, noise=0.006) for n in range(peers)])
    shares = weights(states, windows, RatingRules(paid=peers))
    assert math.fsum(shares.values()) == pytest.approx(1.0) and len(shares) == peers
    ratings = [state.mu - 3 * state.sigma for state in states.values()]
    assert min(ratings) > least * sum(ratings) / peers


def test_work_that_gives_less_is_paid_less() -> None:
    rng = random.Random(2)
    states = run(40, lambda _: [*(worked(name, rng) for name in "abc"), worked("poor", rng, 0.006)])
    shares = weights(states, 40)
    assert min(shares[name] for name in "abc") > 0.25 and shares.get("poor", 0.0) < 0.05


def test_tables_hold_everybody_once_and_change() -> None:
    for count in (0, 1, 2, 8, 9, 17, 100):
        names = [f"m{n}" for n in range(count)]
        drawn = tables(names, 3, 8)
        assert sorted(name for table in drawn for name in table) == (sorted(names) if count > 1 else [])
        assert all(2 <= len(table) <= 8 for table in drawn)
    assert tables("abcdefghijkl", 1, 8) == tables("lkjihgfedcba", 1, 8) != tables("abcdefghijkl", 2, 8)


def test_work_on_other_data_than_assigned_is_worth_little() -> None:
    rng = random.Random(3)
    states = run(60, lambda _: [worked("a", rng), worked("b", rng), worked("lazy", rng, own=0.0)])
    assert states["lazy"].effort < 0.45 and states["a"].effort > 0.9
    assert weights(states, 60).get("lazy", 0.0) < 0.5 * weights(states, 60)["a"]


def test_what_does_not_help_is_not_paid_and_does_not_enter() -> None:
    for score in (LossScore(0.01, 0.0), LossScore(-0.01, 0.01), LossScore(math.nan, 0.1), LossScore(math.inf, 0.1)):
        assert not score.helps
    rng = random.Random(4)
    bad = WindowSeen("bad", Outcome.ACCEPT, LossScore(-0.3, -0.2))
    states = run(30, lambda _: [worked("a", rng), bad])
    assert states["bad"].value == 0.0 and weights(states, 30) == {"a": 1.0}


def test_a_reject_takes_everything_and_the_pause_doubles() -> None:
    rng = random.Random(5)
    states = run(20, lambda _: [worked("a", rng), worked("b", rng)])
    assert states["b"].value > 0
    states = fold_window(states, [worked("a", rng), WindowSeen("b", Outcome.REJECT)], 20)
    assert states["b"].value == 0.0 and states["b"].cooldown_until == 29
    states = run(8, lambda _: [worked("a", rng), worked("b", rng)], states, 21)
    assert "b" not in weights(states, 28)
    states = fold_window(states, [WindowSeen("b", Outcome.REJECT)], 29)
    assert states["b"].cooldown_until == 29 + 1 + 16


def test_absence_and_what_could_not_be_checked_never_gain() -> None:
    rng = random.Random(6)
    states = run(20, lambda _: [worked("a", rng), worked("b", rng)])
    left = states["b"].value
    for window in range(20, 40):
        states = fold_window(states, [worked("a", rng)], window, silent=["b"])
        assert states["b"].value < left
        left = states["b"].value
    before = states["b"]
    states = fold_window(states, [WindowSeen("b", Outcome.INCONCLUSIVE)], 40)
    assert (states["b"].value, states["b"].mu) == (before.value, before.mu)


def test_refusing_an_audit_takes_presence_and_trust_away() -> None:
    rng = random.Random(7)
    states = run(20, lambda _: [worked("a", rng), worked("b", rng)])
    refused = WindowSeen("b", Outcome.ACCEPT, LossScore(0.03, 0.02), unopened=True)
    states = fold_window(states, [worked("a", rng), refused], 20)
    assert states["b"].value == 0.0 and states["b"].audits == 0 and states["b"].rejects == 0


def test_a_rating_is_not_won_with_what_nobody_may_check() -> None:
    better = WindowSeen("closed", Outcome.ACCEPT, LossScore(0.09, 0.08), unopened=True)
    states = fold_window({}, [better, *(WindowSeen(n, Outcome.ACCEPT, LossScore(0.03, 0.02)) for n in "ab")], 0)
    assert states["closed"].mu == 25.0 and states["a"].mu == states["b"].mu == 25.0


def test_audits_are_counted_and_windows_fold_once() -> None:
    seen = WindowSeen("a", Outcome.ACCEPT, LossScore(0.02, 0.01), audited=True)
    states = fold_window({}, [seen], 3)
    assert states["a"].audits == 1 and states["a"].contributed == 1 and states["a"].last_answered == 3
    assert (states["a"].mu, states["a"].sigma) == (25.0, 25.0 / 3.0)  # nobody to be compared with
    with pytest.raises(ValueError, match="folded before"):
        fold_window(states, [seen], 3)
    with pytest.raises(ValueError, match="once in a window"):
        fold_window({}, [seen, seen], 3)


def test_only_the_best_are_paid() -> None:
    states = {str(n): TrainState(str(n), mu=30.0 + n, sigma=1.0, effort=1.0, presence=1.0) for n in range(5)}
    shares = weights(states, 10, RatingRules(paid=2))
    assert set(shares) == {"4", "3"} and shares["4"] > shares["3"]
    assert weights({}, 0) == {}
