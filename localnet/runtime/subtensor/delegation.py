"""Takes: what part of its nominators' and parents' dividends a hotkey keeps. Shares of 65535.

    increase_take, decrease_take    of all nominators (free of charge)
    set_childkey_take               of the parents on one subnet
    sudo_set_*childkey_take*        the bounds, by root

Lowering is always possible; raising is rate limited.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localnet.rules.fixed import sub_floor0
from localnet.runtime.framework import Origin, call, ensure_root, ensure_signed
from localnet.runtime.subtensor import limits, staking

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor


def _check_owner(p: Subtensor, coldkey: bytes, hotkey: bytes) -> None:
    if not staking.hotkey_exists(p, hotkey):
        raise p.error("HotKeyAccountNotExists")
    if not staking.owns(p, coldkey, hotkey):
        raise p.error("NonAssociatedColdKey")


def _last_key(hotkey: bytes) -> Any:
    return ("LastTxBlockDelegateTake", hotkey)


def _take_limited(p: Subtensor, hotkey: bytes) -> bool:
    limit, last = p.TxDelegateTakeRateLimit.get(), p.LastRateLimitedBlock[_last_key(hotkey)]
    return limit != 0 and last != 0 and sub_floor0(p.rt.number, last) <= limit


def _store(p: Subtensor, hotkey: bytes, take: int) -> None:
    p.LastRateLimitedBlock[_last_key(hotkey)] = p.rt.number
    p.Delegates[hotkey] = take


@call(pays=False, ref_time=35_000_000)
def increase_take(p: Subtensor, origin: Origin, hotkey: bytes, take: int) -> None:
    coldkey = ensure_signed(origin)
    _check_owner(p, coldkey, hotkey)
    if hotkey in p.Delegates and take <= p.Delegates[hotkey]:
        raise p.error("DelegateTakeTooLow")
    if take > p.MaxDelegateTake.get():
        raise p.error("DelegateTakeTooHigh")
    if _take_limited(p, hotkey):
        raise p.error("DelegateTxRateLimitExceeded")
    _store(p, hotkey, take)
    p.emit("TakeIncreased", coldkey, hotkey, take)


@call(pays=False, ref_time=30_000_000)
def decrease_take(p: Subtensor, origin: Origin, hotkey: bytes, take: int) -> None:
    coldkey = ensure_signed(origin)
    _check_owner(p, coldkey, hotkey)
    if hotkey in p.Delegates and take >= p.Delegates[hotkey]:
        raise p.error("DelegateTakeTooLow")
    if take < p.MinDelegateTake.get():
        raise p.error("DelegateTakeTooLow")
    _store(p, hotkey, take)
    p.emit("TakeDecreased", coldkey, hotkey, take)


def ensure_take_allowed(p: Subtensor, who: bytes, hotkey: bytes, take: int) -> None:
    """What is checked before either call, wherever it comes from (`guards`): the calls look at one bound each.

    Raises DelegateTakeTooLow, DelegateTakeTooHigh, HotKeyAccountNotExists, NonAssociatedColdKey.
    """
    if take < p.MinDelegateTake.get():
        raise p.error("DelegateTakeTooLow")
    if take > p.MaxDelegateTake.get():
        raise p.error("DelegateTakeTooHigh")
    _check_owner(p, who, hotkey)


# -- child keys -----------------------------------------------------------------------------------------------------


def least_childkey_take(p: Subtensor, netuid: int) -> int:
    return max(p.MinChildkeyTake.get(), p.MinChildkeyTakePerSubnet[netuid])


def childkey_take(p: Subtensor, hotkey: bytes, netuid: int) -> int:
    """What a child keeps of its parents' dividends on a subnet: what it set, at least the minimum."""
    return max(p.ChildkeyTake[hotkey, netuid], least_childkey_take(p, netuid))


@call(ref_time=40_000_000)
def set_childkey_take(p: Subtensor, origin: Origin, hotkey: bytes, netuid: int, take: int) -> None:
    coldkey = ensure_signed(origin)
    if not staking.owns(p, coldkey, hotkey):
        raise p.error("NonAssociatedColdKey")
    if not least_childkey_take(p, netuid) <= take <= p.MaxChildkeyTake.get():
        raise p.error("InvalidChildkeyTake")
    if take > childkey_take(p, hotkey, netuid):
        limits.SET_CHILDKEY_TAKE.ensure(p, hotkey, netuid, "TxChildkeyTakeRateLimitExceeded")
    limits.SET_CHILDKEY_TAKE.record(p, hotkey, netuid)
    p.ChildkeyTake[hotkey, netuid] = take
    p.emit("ChildKeyTakeSet", hotkey, take)


@call(ref_time=6_000_000)
def sudo_set_tx_childkey_take_rate_limit(p: Subtensor, origin: Origin, tx_rate_limit: int) -> None:
    ensure_root(origin)
    p.TxChildkeyTakeRateLimit.put(tx_rate_limit)
    p.emit("TxChildKeyTakeRateLimitSet", tx_rate_limit)


@call(ref_time=6_000_000)
def sudo_set_min_childkey_take(p: Subtensor, origin: Origin, take: int) -> None:
    ensure_root(origin)
    p.MinChildkeyTake.put(take)
    p.emit("MinChildKeyTakeSet", take)


@call(ref_time=6_000_000)
def sudo_set_max_childkey_take(p: Subtensor, origin: Origin, take: int) -> None:
    ensure_root(origin)
    p.MaxChildkeyTake.put(take)
    p.emit("MaxChildKeyTakeSet", take)
