"""Conviction locks: how locked alpha and the conviction behind it move with time.

    roll            a lock at a later block: what is still locked, and how much conviction it has built
    exp_decay       e^(-blocks/tau) as the chain computes it
    roll_bucket     a member and the sum of all members, brought to the same block together
    scaled          what a partly withdrawn lock keeps of its conviction
    clears_gate     does a hotkey's conviction take a subnet over?

Locked mass (alpha-rao) decays with the unlock rate unless the lock is perpetual. Conviction (U64F64 alpha-rao) decays
with the maturity rate and grows out of the mass; a lock on the subnet owner's hotkey has all its conviction at once.
Rates are time constants in blocks. Below 100 of both a lock is dust and counts as nothing.

Source: staking/lock.rs of the public chain; the gate's figures are those of its spec 447 and later.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from localnet.rules.fixed import I64F64, ONE64, U64F64, div64, mul64, sub_floor0

DUST = 100
"""Alpha-rao below which a lock is forgotten, in mass and in conviction."""
ONE_YEAR = 7_200 * 365 + 1_800
"""Blocks a subnet is safe from being taken over."""
TAKEOVER_PERCENT = 18
"""Of eligible alpha that one hotkey's own conviction has to exceed; the share of the owner's cut."""
_LOWEST_EXPONENT = -40 << 64
_TERMS = 64  # of the power series: the fraction bits of the type


@dataclass(frozen=True)
class LockState:
    """A coldkey's lock, or the sum of several. `conviction` in U64F64 bits; both hold for block `last_update`."""

    locked_mass: int
    conviction: U64F64
    last_update: int

    @property
    def is_dust(self) -> bool:
        return self.locked_mass < DUST and self.conviction < DUST << 64

    def plus(self, mass: int, conviction: U64F64) -> LockState:
        return replace(self, locked_mass=self.locked_mass + mass, conviction=self.conviction + conviction)

    def minus(self, mass: int, conviction: U64F64) -> LockState:
        """Less that much of each, never below nothing."""
        return replace(
            self,
            locked_mass=sub_floor0(self.locked_mass, mass),
            conviction=sub_floor0(self.conviction, conviction),
        )


@dataclass(frozen=True)
class Rates:
    """Time constants in blocks."""

    unlock: int
    maturity: int


@dataclass(frozen=True)
class Mode:
    """`owner`: the lock is on the subnet owner's hotkey. `perpetual`: its mass does not decay."""

    owner: bool
    perpetual: bool


def empty(block: int) -> LockState:
    """No lock, as of a block."""
    return LockState(0, 0, block)


def _exp(x: I64F64) -> I64F64:
    """e^x for x <= 0: the reciprocal of the power series, products and quotients cut to 64 fraction bits."""
    if x == 0:
        return ONE64
    magnitude = term = -x
    result = magnitude + ONE64
    for i in range(2, _TERMS):
        term = mul64(term, magnitude) // i
        result += term
    return div64(ONE64, result)


@lru_cache(maxsize=4096)
def exp_decay(blocks: int, tau: int) -> U64F64:
    """What is left of 1 after `blocks`; nothing is left at once when tau is 0. The exponent stops at -40."""
    if blocks == 0:
        return ONE64
    if tau == 0:
        return 0
    return _exp(max(div64(-blocks << 64, tau << 64), _LOWEST_EXPONENT))


def _matured(mass: int, blocks: int, rates: Rates, perpetual: bool) -> U64F64:
    """Conviction that a mass has built over `blocks`."""
    maturity = exp_decay(blocks, rates.maturity)
    if perpetual:
        return mass * (ONE64 - maturity)
    if rates.unlock == rates.maturity:
        return mass * mul64(div64(blocks << 64, rates.maturity << 64), maturity)
    if not rates.unlock or not rates.maturity:
        return 0
    gap = exp_decay(blocks, rates.unlock) - maturity
    return max(mass * div64(rates.unlock * gap, (rates.unlock - rates.maturity) << 64), 0)


def roll_with_dust(lock: LockState, now: int, rates: Rates, mode: Mode) -> LockState:
    """`roll` that keeps what is too small to matter: sums of locks are taken apart with it."""
    rolled = lock
    if now > lock.last_update:
        blocks = now - lock.last_update
        mass = (
            lock.locked_mass if mode.perpetual else mul64(exp_decay(blocks, rates.unlock), lock.locked_mass << 64) >> 64
        )
        kept = mul64(exp_decay(blocks, rates.maturity), lock.conviction)
        rolled = LockState(mass, kept + _matured(lock.locked_mass, blocks, rates, mode.perpetual), now)
    return replace(rolled, conviction=rolled.locked_mass << 64) if mode.owner else rolled


def roll(lock: LockState, now: int, rates: Rates, mode: Mode) -> LockState:
    """The lock at block `now`; dust becomes nothing. A block that is not later changes nothing but that."""
    rolled = roll_with_dust(lock, now, rates, mode)
    return LockState(0, 0, rolled.last_update) if rolled.is_dust else rolled


def roll_bucket(
    member: LockState, bucket: LockState, now: int, rates: Rates, mode: Mode
) -> tuple[LockState, LockState]:
    """(member, bucket) at block `now`, for a bucket that sums the member and others and may be newer or older.

    Both go to the later of their blocks first, where the member can be taken out of the sum; then the others and the
    member go on separately, and the new bucket is their sum.
    """
    anchor = max(bucket.last_update, member.last_update)
    own = roll_with_dust(member, anchor, rates, mode)
    others = roll(bucket, anchor, rates, mode).minus(own.locked_mass, own.conviction)
    others, own = roll_with_dust(others, now, rates, mode), roll(own, now, rates, mode)
    together = others.plus(own.locked_mass, own.conviction)
    return own, replace(together, last_update=max(others.last_update, own.last_update))


def scaled(conviction: U64F64, part: int, whole: int) -> U64F64:
    """The part of a lock's conviction that goes with `part` of its `whole` mass."""
    return mul64(conviction, div64(part << 64, whole << 64))


def reduced(lock: LockState, amount: int, now: int) -> LockState:
    """The lock after `amount` of its mass was taken by force; conviction falls in proportion."""
    left = sub_floor0(lock.locked_mass, amount)
    if not left:
        return empty(now)
    kept = sub_floor0(ONE64, div64(amount << 64, lock.locked_mass << 64))
    return LockState(left, mul64(lock.conviction, kept), now)


def clears_gate(conviction: U64F64, eligible_alpha: int) -> bool:
    """More than 18 % of eligible alpha; exactly 18 % is not enough."""
    return conviction * 100 > (eligible_alpha * TAKEOVER_PERCENT) << 64


__all__ = [
    "LockState",
    "Mode",
    "Rates",
    "clears_gate",
    "empty",
    "exp_decay",
    "reduced",
    "roll",
    "roll_bucket",
    "roll_with_dust",
    "scaled",
]
