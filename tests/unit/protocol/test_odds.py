"""What a cheat can expect: the formula, the simulation of the policy, and that the second never beats the first."""

import hashlib

import pytest

from protocol.audits import AuditRules, audit_floor, audit_rate
from protocol.draw import Draw
from protocol.inference import ModelIdentity, Outcome, Recomputed
from protocol.odds import Hunt, Tried, most_kept, rounds_until_caught, simulate, starts, until_caught
from protocol.scoring import ScoreRules, ScoreState
from protocol.verdicts import MARGIN_CLIP
from tests.support.plans import calibration_of

CALIBRATION = calibration_of(ModelIdentity("model", "source", "00" * 32, "float32", 100, (0,), 100))
FLOOR = audit_floor(1.0, 0.0)  # nothing locked
TOKENS = 64
ROUNDS = 2000


def answered(margin: float = 0.0) -> Tried:
    return Tried(Outcome.ACCEPT, TOKENS, Recomputed("", "float32", (), (margin,) * TOKENS, (), (), ()))


def caught_with(probability: float, of: int = 200) -> list[Tried]:
    """Answers of which this share is rejected."""
    rejected = round(probability * of)
    return [Tried(Outcome.REJECT, TOKENS)] * rejected + [answered()] * (of - rejected)


def seeded(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


def hunts(tried: list[Tried], count: int = 200, most: int = 512) -> list[Hunt]:
    return [until_caught(tried, CALIBRATION, Draw(seeded(index)), most) for index in range(count)]


def kept(tried: list[Tried], runs: int = 6, rounds: int = ROUNDS, **options) -> float:
    shares = [
        simulate(tried, CALIBRATION, floor=FLOOR, rounds=rounds, seed=seeded("run", run), **options)
        for run in range(runs)
    ]
    return sum(shares) / runs


def test_a_hunt_ends_at_the_first_reject_and_counts_what_it_took() -> None:
    (sure,) = hunts([Tried(Outcome.REJECT, 7)], 1)
    assert sure == Hunt(answers=1, tokens=7, caught=True)
    (never,) = hunts([answered()], 1, most=9)
    assert never == Hunt(answers=9, tokens=9 * TOKENS, caught=False)
    found = hunts(caught_with(0.25))
    assert sum(hunt.answers for hunt in found) / len(found) == pytest.approx(4.0, rel=0.15)


def test_small_margins_are_caught_by_the_pool_once_it_is_long_enough() -> None:
    small = 2 * CALIBRATION.pool_mean
    assert small < CALIBRATION.request_mean and small < MARGIN_CLIP, "no single answer shows it"
    (hunt,) = hunts([answered(small)], 1)
    assert hunt.caught and hunt.tokens == CALIBRATION.pool_tokens
    with pytest.raises(ValueError, match="without its recomputation"):
        hunts([Tried(Outcome.ACCEPT, TOKENS)], 1)


def test_rounds_until_caught_follow_the_audit_rate() -> None:
    rules = AuditRules()
    at_once = [Hunt(rules.trusted_after, 1, True)]
    assert rounds_until_caught(at_once, FLOOR) == rules.trusted_after, "everything is audited until then"
    late = [Hunt(200, 1, True)]
    rates = [audit_rate(ScoreState("x", audits=n, last_answered=0), 0, FLOOR) for n in range(200)]
    assert rounds_until_caught(late, FLOOR) == pytest.approx(sum(1 / rate for rate in rates))
    assert rounds_until_caught(late, FLOOR) == pytest.approx(200 / FLOOR, rel=0.25)
    assert rounds_until_caught([Hunt(200, 1, False)], FLOOR) is None


def test_cool_downs_alone_limit_the_fresh_starts() -> None:
    rules = ScoreRules()
    assert starts(1) == 1
    assert starts(1 + rules.cooldown_rounds) == 1 and starts(2 + rules.cooldown_rounds) == 2
    assert starts(ROUNDS) == 8
    assert starts(10 * rules.cooldown_limit) == pytest.approx(8 + 8, abs=1), "the longest one repeats"


def test_what_is_always_caught_keeps_nothing_and_what_never_is_keeps_all() -> None:
    assert kept(caught_with(1.0), runs=1) == 0.0 == most_kept(1.0, ROUNDS)
    assert kept([answered()], runs=1) == pytest.approx(1.0) == most_kept(None, ROUNDS)
    assert kept([Tried(None, 0)], runs=1) == 0.0, "no answer, no pay"


@pytest.mark.parametrize("probability", [0.02, 0.05, 0.1, 0.2, 0.5, 0.9])
def test_no_cheat_earns_more_than_its_odds_say(probability: float) -> None:
    """The simulation drives the real policy; the formula bounds its expectation, and not idly."""
    tried = caught_with(probability)
    limit = most_kept(rounds_until_caught(hunts(tried), FLOOR), ROUNDS)
    share = kept(tried)
    assert share <= limit * 1.1 + 1e-4  # six runs scatter
    if probability <= 0.2:
        assert share >= limit / 4, "a bound so far from the truth would say nothing"


def test_pooled_detection_obeys_the_same_bound() -> None:
    tried = [answered(2 * CALIBRATION.pool_mean)]
    limit = most_kept(rounds_until_caught(hunts(tried, 10), FLOOR), ROUNDS)
    assert 0.0 < kept(tried) <= limit < 0.1


def test_more_audits_leave_a_cheat_less() -> None:
    tried = caught_with(0.04)
    rare = kept(tried, audit_rules=AuditRules(trusted_after=1))
    often = kept(tried, audit_rules=AuditRules(trusted_after=10**6))
    assert often < rare / 2


def test_the_simulation_is_a_function_of_its_seed() -> None:
    tried = caught_with(0.05)
    first, again = (simulate(tried, CALIBRATION, floor=FLOOR, rounds=300, seed=b"one") for _ in range(2))
    other = simulate(tried, CALIBRATION, floor=FLOOR, rounds=300, seed=b"two")
    assert first == again != other
