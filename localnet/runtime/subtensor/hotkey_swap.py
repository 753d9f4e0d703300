"""Hotkey swap: a new hotkey takes the old one's place, on one subnet or on all.

    swap_hotkey, swap_hotkey_v2     check, charge, move (`hotkey_moves`), remember
    forget_old_swaps                every block: records that no longer bind anybody go
    root_of                         the first hotkey of a line of renamed ones

Both keys belong to the coldkey that calls. With `keep_stake` the seats and what belongs to them move, while stake and
dividends stay; the old hotkey then keeps its owner. A coldkey swaps once in HotkeySwapOnSubnetInterval blocks on each
subnet; its first swap there is always allowed. Root is swapped with all subnets (or by its own netuid), and only onto
a hotkey that has nothing on root.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from localnet.runtime.framework import Origin, call, ensure_signed
from localnet.runtime.subtensor import collateral, hotkey_moves, locks, networks, positions, registration, staking

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

REF_TIME = 275_300_000  # picoseconds of swap_hotkey_v2 on one subnet, from the public chain


@call(ref_time=REF_TIME)
def swap_hotkey(p: Subtensor, origin: Origin, hotkey: bytes, new_hotkey: bytes, netuid: int | None) -> None:
    """The older form: stake always moves."""
    _swap(p, ensure_signed(origin), hotkey, new_hotkey, netuid, False)


@call(ref_time=REF_TIME)
def swap_hotkey_v2(
    p: Subtensor, origin: Origin, hotkey: bytes, new_hotkey: bytes, netuid: int | None, keep_stake: bool
) -> None:
    _swap(p, ensure_signed(origin), hotkey, new_hotkey, netuid, keep_stake)


def _swap(p: Subtensor, coldkey: bytes, old: bytes, new: bytes, netuid: int | None, keep_stake: bool) -> None:
    _check(p, coldkey, old, new, netuid, keep_stake)
    for kind in ("LastTxBlockDelegateTake", "LastTxBlockChildKeyTake"):
        p.LastRateLimitedBlock[_limit(kind, new)] = p.LastRateLimitedBlock[_limit(kind, old)]
    if netuid is None:
        _swap_everywhere(p, coldkey, old, new, keep_stake)
    else:
        _swap_on_subnet(p, coldkey, old, new, netuid, keep_stake)


def _limit(kind: str, hotkey: bytes) -> Any:
    return (kind, hotkey)


# -- checks ---------------------------------------------------------------------------------------------------------


def _check(p: Subtensor, coldkey: bytes, old: bytes, new: bytes, netuid: int | None, keep_stake: bool) -> None:
    """Raises what it names, in the chain's order."""
    if netuid is not None:
        networks.ensure_exists(p, netuid)
    if not staking.owns(p, coldkey, old):
        raise p.error("NonAssociatedColdKey")
    if staking.hotkey_exists(p, new) and not staking.owns(p, coldkey, new):
        raise p.error("NonAssociatedColdKey")
    if old == new:
        raise p.error("NewHotKeyIsSameWithOld")
    subnets = networks.netuids(p) if netuid is None else [netuid]
    if keep_stake and any((one, old, coldkey) in p.MinerCollateral for one in subnets):
        raise p.error("KeepStakeBlockedByCollateral")
    if _is_registered(p, new, netuid):
        raise p.error("HotKeyAlreadyRegisteredInSubNet")
    if networks.ROOT in subnets and not _is_clean_on_root(p, new):
        raise p.error("NewHotKeyNotCleanForRootSwap")
    for one in () if keep_stake else subnets:
        collateral.ensure_movable(p, one, old, new, coldkey)


def _is_registered(p: Subtensor, hotkey: bytes, netuid: int | None) -> bool:
    """On one subnet the mere entry counts, as on chain: a swap leaves entries that say False behind."""
    if netuid is not None:
        return (hotkey, netuid) in p.IsNetworkMember
    return any(member for _, member in p.IsNetworkMember.items(hotkey))


def _is_clean_on_root(p: Subtensor, hotkey: bytes) -> bool:
    """No fund, no stake and no claim of the former kind: nothing that the move would have to merge."""
    if hotkey in p.BasketRate or p.BasketShares[hotkey] or p.TotalHotkeyAlpha[hotkey, networks.ROOT]:
        return False
    return not p.RootClaimable[hotkey] and next(iter(p.RootClaimed.keys(networks.ROOT, hotkey)), None) is None


def _ensure_interval(p: Subtensor, coldkey: bytes, netuids: Sequence[int]) -> None:
    """Raises HotKeySwapOnSubnetIntervalNotPassed."""
    for netuid in netuids:
        last = p.LastHotkeySwapOnNetuid[netuid, coldkey]
        if last and last + _interval(p) >= p.rt.number:
            raise p.error("HotKeySwapOnSubnetIntervalNotPassed")


def _interval(p: Subtensor) -> int:
    return int(p.rt.document.constants[p.name, "HotkeySwapOnSubnetInterval"])


def _charge(p: Subtensor, coldkey: bytes, cost: int) -> None:
    """Raises NotEnoughBalanceToPaySwapHotKey; InsufficientTaoBalance when it would take the existential deposit."""
    if p.rt.balances.reducible(coldkey, keep_alive=False) < cost:
        raise p.error("NotEnoughBalanceToPaySwapHotKey")
    positions.recycle_tao(p, coldkey, cost)


# -- the two forms --------------------------------------------------------------------------------------------------


def _swap_on_subnet(p: Subtensor, coldkey: bytes, old: bytes, new: bytes, netuid: int, keep_stake: bool) -> None:
    """The old hotkey lives on: it keeps its owner, its take and its other subnets."""
    _ensure_interval(p, coldkey, [netuid])
    registration.ensure_not_system(p, new)
    _charge(p, coldkey, p.rt.document.constants[p.name, "KeySwapOnSubnetCost"])
    p.Owner[new] = coldkey
    if new not in p.OwnedHotkeys[coldkey]:
        p.OwnedHotkeys[coldkey] = [*p.OwnedHotkeys[coldkey], new]
    locks.move_to_hotkey(p, old, new, [netuid])
    holders = [] if keep_stake else [holder for holder, where in hotkey_moves.holders(p, old) if where == netuid]
    hotkey_moves.move(p, old, new, netuid, keep_stake, holders)
    _record(p, coldkey, old, new, netuid)
    _queue_parent_checks(p, old, new)
    p.emit("HotkeySwappedOnSubnet", coldkey=coldkey, old_hotkey=old, new_hotkey=new, netuid=netuid)


def _swap_everywhere(p: Subtensor, coldkey: bytes, old: bytes, new: bytes, keep_stake: bool) -> None:
    """Parents are bound by the interval, children are not: anybody can make a hotkey their child."""
    every = networks.netuids(p)
    active = [netuid for netuid in every if p.IsNetworkMember[old, netuid] or p.ChildKeys[old, netuid]]
    bonded = [netuid for netuid in every if netuid not in active and (netuid, old, coldkey) in p.MinerCollateral]
    _ensure_interval(p, coldkey, active)
    _charge(p, coldkey, p.rt.document.constants[p.name, "KeySwapCost"])
    positions_before = [] if keep_stake else hotkey_moves.holders(p, old)
    locks.move_to_hotkey(p, old, new, every)
    _hand_over(p, coldkey, old, new, keep_stake)
    for netuid in every:
        held = [holder for holder, where in positions_before if where == netuid]
        hotkey_moves.move(p, old, new, netuid, keep_stake, held)
    for kind in ("LastTxBlock", "LastTxBlockDelegateTake", "LastTxBlockChildKeyTake"):
        del p.LastRateLimitedBlock[_limit(kind, old)]
    if old in p.Delegates:
        p.Delegates[new] = p.Delegates[old]
        del p.Delegates[old]
    for holder, _ in positions_before:
        known = p.StakingHotkeys[holder]
        if old in known:
            p.StakingHotkeys[holder] = [*(one for one in known if one not in (old, new)), new]
    for netuid in active:
        _record(p, coldkey, old, new, netuid)
    for netuid in bonded:
        _extend_line(p, netuid, old, new)
    _queue_parent_checks(p, old, new)
    p.emit("HotkeySwapped", coldkey=coldkey, old_hotkey=old, new_hotkey=new)


def _hand_over(p: Subtensor, coldkey: bytes, old: bytes, new: bytes, keep_stake: bool) -> None:
    """Raises CannotUseSystemAccount."""
    registration.ensure_not_system(p, new)
    owned = p.OwnedHotkeys[coldkey]
    if new not in owned:
        owned = [*owned, new]
    if not keep_stake:  # stake that stays needs its hotkey's account
        del p.Owner[old]
        owned = [one for one in owned if one != old]
    p.Owner[new] = coldkey
    p.OwnedHotkeys[coldkey] = owned


# -- what is remembered ---------------------------------------------------------------------------------------------


def root_of(p: Subtensor, netuid: int, hotkey: bytes) -> bytes:
    """The first hotkey of the line that ends in this one on a subnet."""
    return p.HotkeyRoot[netuid, hotkey] or hotkey


def _queue_parent_checks(p: Subtensor, old: bytes, new: bytes) -> None:
    """Children move, and stake with them or not."""
    for hotkey in (old, new):
        staking.queue_parent_check(p, hotkey)


def _record(p: Subtensor, coldkey: bytes, old: bytes, new: bytes, netuid: int) -> None:
    p.LastHotkeySwapOnNetuid[netuid, coldkey] = p.rt.number
    _extend_line(p, netuid, old, new)


def _extend_line(p: Subtensor, netuid: int, old: bytes, new: bytes) -> None:
    """The new hotkey is the end of the line, whatever it was renamed to in an earlier life."""
    root = root_of(p, netuid, old)
    del p.HotkeySuccessor[netuid, new]
    p.HotkeySuccessor[netuid, old] = new
    p.HotkeyRoot[netuid, new] = root


def forget_old_swaps(p: Subtensor) -> None:
    """Drop the records of swaps whose interval is over, of the subnets whose turn it is in this block."""
    if next(iter(p.LastHotkeySwapOnNetuid.keys()), None) is None:
        return
    interval, block = _interval(p), p.rt.number
    for netuid in networks.netuids(p):
        if netuid % interval != block % interval:
            continue
        for coldkey, at in list(p.LastHotkeySwapOnNetuid.items(netuid)):
            if at + interval < block:
                del p.LastHotkeySwapOnNetuid[netuid, coldkey]
