"""The audit policy: nobody foresees a draw, cheating loses money at the floor, and trust is lost faster than won."""

import random

import pytest

from protocol.audits import AuditRules, audit_floor, audit_rate, drawn
from protocol.scoring import Observation, ScoreRules, ScoreState, fold_round
from protocol.verdicts import Outcome

SECRET = b"\x07" * 32


def digests(count: int) -> list[bytes]:
    rng = random.Random(1)
    return [rng.randbytes(32) for _ in range(count)]


@pytest.mark.parametrize("rate", [0.0, 0.03, 0.5, 1.0])
def test_the_share_drawn_is_the_rate(rate: float) -> None:
    share = sum(drawn(SECRET, digest, rate) for digest in digests(20_000)) / 20_000
    assert share == pytest.approx(rate, abs=0.01)


def test_another_secret_draws_other_answers() -> None:
    mine = [drawn(SECRET, digest, 0.5) for digest in digests(1000)]
    theirs = [drawn(b"\x08" * 32, digest, 0.5) for digest in digests(1000)]
    assert 400 < sum(a != b for a, b in zip(mine, theirs, strict=True)) < 600


@pytest.mark.parametrize("collateral_rounds", [0.0, 5.0, 50.0, 5000.0])
def test_at_the_floor_cheating_loses_at_least_what_it_gains(collateral_rounds: float) -> None:
    rules, scores, earned = AuditRules(), ScoreRules(), 3.0
    floor = audit_floor(earned, collateral_rounds * earned, rules, scores)
    gained = earned / (floor * rules.detection)  # until an audit meets it
    lost = earned * (scores.cooldown_rounds + 1 / scores.alpha) + collateral_rounds * earned
    assert lost >= gained and floor >= rules.least


def test_collateral_lowers_the_floor_and_earnings_raise_it() -> None:
    bare = audit_floor(1.0, 0.0)
    assert audit_floor(1.0, 20.0) < bare
    assert audit_floor(100.0, 20.0) > audit_floor(1.0, 20.0)
    assert audit_floor(0.0, 20.0) == bare == audit_floor(0.0, 0.0)
    assert audit_floor(1e-9, 1e9) == AuditRules().least
    for earned, collateral in ((-1.0, 0.0), (1.0, -1.0)):
        with pytest.raises(ValueError, match="negative"):
            audit_floor(earned, collateral)


def test_the_rate_falls_with_accepted_audits_and_comes_back_after_a_reject_or_an_absence() -> None:
    states: dict[str, ScoreState] = {}

    def rate(round: int) -> float:
        return audit_rate(states.get("m"), round, 0.05)

    seen = []
    for round in range(200):
        seen.append(rate(round))
        states = fold_round(states, [Observation("m", "k", Outcome.ACCEPT, 0.1, 50.0)], round)
    assert seen[0] == 1.0 and seen[8] == 1.0 and seen[16] == 0.5 and seen[-1] == 0.05
    assert seen == sorted(seen, reverse=True)
    assert rate(199 + AuditRules().absence_rounds) == 0.05 and rate(200 + AuditRules().absence_rounds) == 1.0
    for round in range(200, 200 + AuditRules().absence_rounds + 1):
        states = fold_round(states, [Observation("m", "k", None)], round)  # asked and silent is absent too
    assert rate(round) == 1.0

    states = fold_round(states, [Observation("m", "k", Outcome.REJECT)], 400)
    assert rate(401) == 1.0 and states["m"].audits == 0


def test_an_answer_that_was_not_drawn_earns_and_leaves_standing_as_it_was() -> None:
    start = {"m": ScoreState("m", score=0.5, audits=20, last_round=9, last_answered=9)}
    after = fold_round(start, [Observation("m", "k", None, 0.1, 50.0, unaudited=True)], 10)["m"]
    assert after.score > 0.5 and after.audits == 20 and after.failed == 0
    assert (after.unaudited, after.last_answered) == (1, 10)
