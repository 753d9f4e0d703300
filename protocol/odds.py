"""What a cheat can expect: the formula, and a simulation of the whole policy that must not exceed it.

    Tried                              one answer of a cheat as the judge saw it: the material of everything here
    until_caught(tried, ...)           audited answers, drawn from the material, until the first reject
    rounds_until_caught(audits, floor) the same in rounds, when the audit rate falls as `audits.audit_rate` lets it
    most_kept(rounds_until, rounds)    the formula: the largest share of an honest miner's reward it keeps
    simulate(tried, ...)               the share it keeps under the real audit_rate, drawn, fold_round and weights

**The formula.** Write L for the expected rounds from a fresh start until a reject. A hotkey earns at most an honest
reward in all of them but the last, then sits out a cool-down that doubles with every reject. Let N be the number of
times it can start afresh in R rounds because of the cool-downs alone. A start begins a stretch of L rounds in
expectation whatever happened before (Wald), so

    rounds in which it earns <= N (L - 1)        share kept <= N (L - 1) / (R (1 - L / F))

where the last factor is for rejects that are forgiven: each costs F = `forgive_rounds` clean rounds and gives back at
most one start. The cheat is taken at its best: as fast as the honest, silent while it may not earn.

An audit that fails to see a cheat makes L longer: with q found per audited answer and the share p audited it is
1 / (p q), and p itself is 1 until a hotkey has `trusted_after` accepted audits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from protocol.audits import AuditRules, audit_rate, drawn
from protocol.calibration import Calibration
from protocol.draw import Draw
from protocol.scoring import Observation, ScoreRules, ScoreState, fold_round, weights
from protocol.verdicts import Outcome, Pool, Recomputed, judge_pool

CHEAT, HONEST = "cheat", "honest"


@dataclass(frozen=True)
class Tried:
    """One answer. `outcome` None: no usable answer came. `recomputed`: needed for an accepted one, pools add it up."""

    outcome: Outcome | None
    tokens: int
    recomputed: Recomputed | None = None


@dataclass(frozen=True)
class Hunt:
    """Audited answers and their tokens until a reject. `caught` False: given up after so many."""

    answers: int
    tokens: int
    caught: bool


def until_caught(tried: Sequence[Tried], calibration: Calibration, draw: Draw, most: int) -> Hunt:
    """Audit answers drawn from `tried` with replacement, pooled in order, until a reject or `most` answers."""
    pool, tokens = Pool(), 0
    for count in range(1, most + 1):
        found = draw.pick(tried)
        tokens += found.tokens
        outcome, pool = _audited(found, pool, calibration)
        if outcome is Outcome.REJECT:
            return Hunt(count, tokens, True)
    return Hunt(most, tokens, False)


def _audited(found: Tried, pool: Pool, calibration: Calibration) -> tuple[Outcome | None, Pool]:
    """Outcome and pool after one audit, as a validator makes them: a pool that was rejected starts anew."""
    if found.outcome is not Outcome.ACCEPT:
        return found.outcome, pool
    if found.recomputed is None:
        raise ValueError("an accepted answer without its recomputation cannot be pooled")
    pool = pool.add("", found.recomputed)
    if judge_pool(pool, calibration) is not None:
        return Outcome.REJECT, Pool(span=pool.span)
    return Outcome.ACCEPT, pool


def rounds_until_caught(hunts: Sequence[Hunt], floor: float, rules: AuditRules | None = None) -> float | None:
    """Expected rounds until a reject; None when no hunt caught anything.

    An audit after `i` accepted ones takes 1 / rate rounds to come, rate being `audit_rate` after i. All rounds are
    divided by the catches, which is right for hunts that were given up too as long as every answer is alike.
    """
    caught = sum(hunt.caught for hunt in hunts)
    if not caught:
        return None
    waits = [0.0]
    for audits in range(max(hunt.answers for hunt in hunts)):
        state = ScoreState(CHEAT, audits=audits, last_answered=0)
        waits.append(waits[-1] + 1.0 / audit_rate(state, 0, floor, rules))
    return sum(waits[hunt.answers] for hunt in hunts) / caught


def starts(rounds: int, rules: ScoreRules | None = None) -> int:
    """How often a hotkey can start afresh within `rounds`, for the cool-downs alone."""
    rules = rules or ScoreRules()
    count, at = 0, 0
    while at < rounds:
        at += 1 + min(rules.cooldown_limit, rules.cooldown_rounds * 2**count)
        count += 1
    return count


def most_kept(rounds_until: float | None, rounds: int, rules: ScoreRules | None = None) -> float:
    """Largest share of an honest miner's reward that a cheat keeps over `rounds`; 1 when it is never caught."""
    rules = rules or ScoreRules()
    if rounds_until is None or rounds_until >= rules.forgive_rounds:
        return 1.0
    earning = starts(rounds, rules) * (rounds_until - 1.0) / (1.0 - rounds_until / rules.forgive_rounds)
    return min(1.0, earning / rounds)


def simulate(
    tried: Sequence[Tried],
    calibration: Calibration,
    *,
    floor: float,
    rounds: int,
    seed: bytes,
    audit_rules: AuditRules | None = None,
    score_rules: ScoreRules | None = None,
) -> float:
    """Share of an honest miner's reward that the cheat keeps beside one honest miner of the same speed.

    1 means: as much as if it had been honest. Its answers are drawn from `tried`; a draw of an audit is the real one,
    over a stand-in for the signed response.
    """
    draw, secret = Draw(hashlib.sha256(b"answers|" + seed).digest()), hashlib.sha256(b"secret|" + seed).digest()
    states: dict[str, ScoreState] = {}
    pool, kept = Pool(), 0.0
    for number in range(rounds):
        seen = []
        for hotkey in (CHEAT, HONEST):
            state = states.get(hotkey)
            if state is not None and number < state.cooldown_until:
                continue  # at its best it rests: whatever it did now could only make the cool-down longer
            digest = hashlib.sha256(f"{number}|{hotkey}|".encode() + seed).digest()
            audited = drawn(secret, digest, audit_rate(state, number, floor, audit_rules))
            outcome: Outcome | None = Outcome.ACCEPT if audited else None
            if hotkey == CHEAT:
                found = draw.pick(tried)
                if found.outcome is None:
                    audited, outcome = True, None  # nothing to draw: a failure
                elif audited:
                    outcome, pool = _audited(found, pool, calibration)
            seen.append(Observation(hotkey, "one", outcome, 1.0, 1.0, unaudited=not audited))
        states = fold_round(states, seen, number, score_rules)
        kept += weights(states, number, score_rules).get(CHEAT, 0.0)
    return kept / (rounds / 2)  # beside one honest miner an honest one would have had a half
