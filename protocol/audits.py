"""Which answers get the full check: drawn after the signed response is in hand, more where more could be gained.

    rate = audit_rate(standing, audit_floor(earned, collateral))     1 for a new hotkey, falling to the floor
    drawn(secret, response_digest, rate)                              whether this answer is audited

A miner cannot tell which answers will be: the draw is a keyed hash of what it has already signed, and the key never
leaves the validator. Form is checked on every answer; an answer that was not drawn has no verdict at all.

**The floor.** Write r for what a hotkey earns in one round, q for the probability that an audit shows a cheat, and p
for the share of answers audited. A cheat that costs nothing to run gains at most r in every round until an audit meets
it, r / (p q) in expectation. Being caught then costs the score, which takes 1 / alpha rounds to grow back, the
cool-down of C rounds, and the collateral K, which the chain returns only against emission that no longer comes:

    loss = r * (C + 1 / alpha) + K

Cheating loses money when p > r / (q * loss). The floor is that, times a factor of safety, within [least, 1]. So
collateral buys a miner fewer audits, and a hotkey that has put nothing at stake is audited more. r and K are in the
same unit (alpha); only their ratio counts.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Protocol

from protocol.scoring import ScoreRules


@dataclass(frozen=True)
class AuditRules:
    """Constants of the audit policy; each validator may choose its own."""

    trusted_after: int = 8  # accepted audits before the rate begins to fall
    absence_rounds: int = 128  # without a usable answer for so long: audited like a new hotkey
    detection: float = 0.95  # q; what an audit of one answer finds, from the detection table
    safety: float = 2.0  # factor on the break-even rate
    least: float = 0.03  # of any floor: what remains when the stake is very large


def audit_floor(
    earned: float, collateral: float, rules: AuditRules | None = None, scores: ScoreRules | None = None
) -> float:
    """Lowest share of answers to audit. `earned`: per round; `collateral`: locked; both in alpha, not negative.

    A hotkey that earns nothing yet has nothing to lose but its collateral and nothing to gain either; it is judged by
    ratio as if it earned with no collateral, and is new anyway.
    """
    rules, scores = rules or AuditRules(), scores or ScoreRules()
    if earned < 0 or collateral < 0:
        raise ValueError("earnings and collateral cannot be negative")
    rounds_lost = scores.cooldown_rounds + 1.0 / scores.alpha
    rounds_at_stake = rounds_lost + (collateral / earned if earned > 0 else 0.0)
    break_even = 1.0 / (rules.detection * rounds_at_stake)
    return min(1.0, max(rules.least, rules.safety * break_even))


class Standing(Protocol):
    """What a hotkey's standing is read from, in rounds of mechanism 0 or windows of mechanism 1."""

    @property
    def audits(self) -> int: ...  # accepted since the last reject

    @property
    def last_answered(self) -> int: ...  # round of the last work that was not rejected

    @property
    def cooldown_until(self) -> int: ...  # first round in which it may earn again


def audit_rate(state: Standing | None, round: int, floor: float, rules: AuditRules | None = None) -> float:
    """Share of a hotkey's answers to audit in `round`, in [floor, 1].

    1 until `trusted_after` audits were accepted since the last reject or long absence, then falling as their inverse:
    twice the audits, half the rate.
    """
    rules = rules or AuditRules()
    if state is None or round - state.last_answered > rules.absence_rounds or round < state.cooldown_until:
        return 1.0
    if state.audits <= rules.trusted_after:
        return 1.0
    return max(floor, rules.trusted_after / state.audits)


def drawn(secret: bytes, response_digest: bytes, rate: float) -> bool:
    """Whether the answer is audited: HMAC-SHA256 of the response digest, as a fraction, below `rate`."""
    tag = hmac.new(secret, b"touchstone/audit/v1|" + response_digest, hashlib.sha256).digest()
    return int.from_bytes(tag[:8], "big") < rate * 2.0**64
