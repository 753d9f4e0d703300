"""Miner collateral: the part of a registration price that is locked instead of burned, and how it comes free.

    split_price      what a registration costs: the burned part and what has to be locked on top
    purchase_limit   worst price at which locked alpha may be bought
    lock_part        of the alpha bought in one swap, what is locked
    settle           a payout to the hotkey: below the miner's floor it fills the lock, above it the lock drains
    merge            two locks that become one when a key is swapped

`lock_share` is u16 of 65535, prices U64F64 TAO per alpha, amounts rao or alpha-rao.
Source: subnets/collateral.rs of the public chain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from localnet.rules.fixed import U16_MAX, U64_MAX, U64F64, div64, sub_floor0, to_u64

MAX_LOCK_SHARE = 62_258
"""95 %: some of the price is always burned."""
MAX_DRAIN_RATIO: U64F64 = 10 << 64
MAX_HOTKEYS = 32
"""Hotkeys of one coldkey that may hold collateral on a subnet."""
SLIPPAGE_PERCENT = 5  # above spot, for a purchase that the buyer gave no limit for
RAO_PER_TAO = 1_000_000_000


@dataclass(frozen=True)
class Collateral:
    """What a (hotkey, coldkey) position has locked on a subnet. `earned` counts all its payouts since it began.

    `drain_ratio` is the subnet's at the last registration; `min_locked` is the floor the miner set.
    """

    locked: int
    drain_ratio: U64F64
    min_locked: int = 0
    earned: int = 0

    @property
    def is_empty(self) -> bool:
        return not self.locked and not self.min_locked


@dataclass(frozen=True)
class Charge:
    """A registration's price in rao: `burned` buys alpha nobody gets, `topup` alpha that is locked."""

    burned: int
    topup: int

    @property
    def total(self) -> int:
        return self.burned + self.topup


def split_price(price: int, lock_share: int, locked: int, moving_price: U64F64) -> Charge:
    """The charge for a position that has `locked` alpha already, which counts at the moving price."""
    requirement = to_u64(price * div64(lock_share << 64, U16_MAX << 64), 64)
    return Charge(price - requirement, sub_floor0(requirement, value(locked, moving_price)) if requirement else 0)


def value(alpha: int, price: U64F64) -> int:
    """Rao, floored."""
    return to_u64(alpha * price, 64)


def purchase_limit(spot: U64F64) -> int:
    """Highest price for the purchase, TAO per alpha times 1e9: 5 % above spot."""
    return to_u64(div64(spot * (100 + SLIPPAGE_PERCENT), 100 << 64) * RAO_PER_TAO, 64)


def lock_part(alpha: int, charge: Charge) -> int:
    """Of what one swap bought, the part that is locked: in proportion to the TAO."""
    return alpha * charge.topup // charge.total if charge.total else 0


def settle(state: Collateral, emission: int, capturable: int) -> tuple[Collateral | None, int]:
    """(the lock after a payout of `emission`, alpha captured into it); None when nothing is left of it.

    Only `capturable` of the payout may be captured: what belongs to the hotkey's owner.
    """
    state = replace(state, earned=min(state.earned + emission, U64_MAX))
    shortfall = sub_floor0(state.min_locked, state.locked)
    if shortfall:
        captured = min(capturable, shortfall)
        return replace(state, locked=state.locked + captured), captured
    released = min(to_u64(emission * state.drain_ratio, 64), state.locked - state.min_locked)
    state = replace(state, locked=state.locked - released)
    return (None if state.is_empty else state), 0


def merge(one: Collateral | None, other: Collateral) -> Collateral:
    """Sums, and the slower drain."""
    if one is None:
        return other
    return Collateral(
        one.locked + other.locked,
        min(one.drain_ratio, other.drain_ratio),
        one.min_locked + other.min_locked,
        one.earned + other.earned,
    )


__all__ = ["Charge", "Collateral", "lock_part", "merge", "purchase_limit", "settle", "split_price", "value"]
