"""Conviction locks: alpha that a coldkey binds to a hotkey of a subnet, and the conviction that grows out of it.

    lock_stake, move_lock, set_perpetual_lock, set_reject_locked_alpha    the calls
    availability, ensure_available    what of a coldkey's alpha on a subnet can leave it
    touch, force_reduce, transfer     what staking does to a lock on its way
    auto_lock_owner_cut               the owner's cut, locked as it is paid
    move_to_coldkey, move_to_hotkey   the lock follows a swapped key

A coldkey has at most one lock on a subnet. How locks and their sums are stored is in `lock_store`, who wins a subnet
by conviction in `conviction`; the arithmetic is `localnet.rules.locks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from localnet.errors import DispatchError
from localnet.rules import locks as rules
from localnet.rules.fixed import sub_floor0
from localnet.rules.locks import LockState, Mode
from localnet.runtime.framework import Origin, call, ensure_signed
from localnet.runtime.subtensor import lock_store, networks, staking

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

ACCEPTS_LOCKED_ALPHA = 1  # bit of AccountFlags; accounts refuse locked alpha until they set it


# -- what can leave -------------------------------------------------------------------------------------------------


def current(p: Subtensor, coldkey: bytes, netuid: int) -> LockState | None:
    """The coldkey's lock on a subnet as of now, None when it has none."""
    entry = lock_store.existing(p, coldkey, netuid)
    return None if entry is None else rules.roll(entry.lock, p.rt.number, lock_store.rates(p), entry.mode)


def total_alpha(p: Subtensor, coldkey: bytes, netuid: int) -> int:
    """A coldkey's alpha on a subnet, over all hotkeys."""
    return sum(staking.stake_of(p, hotkey, coldkey, netuid) for hotkey in p.StakingHotkeys[coldkey])


@dataclass(frozen=True)
class Availability:
    """Alpha of a coldkey on a subnet; `locked` by conviction only, `available` without collateral too."""

    total: int
    locked: int
    available: int


def availability(p: Subtensor, coldkey: bytes, netuid: int) -> Availability:
    total, lock = total_alpha(p, coldkey, netuid), current(p, coldkey, netuid)
    mass = 0 if lock is None else lock.locked_mass
    bonded = p.ColdkeyMinerCollateral[netuid, coldkey]
    return Availability(total, mass, sub_floor0(sub_floor0(total, mass), bonded))


def ensure_available(p: Subtensor, coldkey: bytes, netuid: int, alpha: int) -> None:
    """Raises StakeUnavailable when locks and collateral need some of this alpha."""
    free = lock_store.locked_hotkey(p, coldkey, netuid) is None and not p.ColdkeyMinerCollateral[netuid, coldkey]
    if not free and availability(p, coldkey, netuid).available < alpha:
        raise p.error("StakeUnavailable")


# -- calls ----------------------------------------------------------------------------------------------------------


@call(ref_time=100_000_000)
def lock_stake(p: Subtensor, origin: Origin, hotkey: bytes, netuid: int, amount: int) -> None:
    """Lock alpha the coldkey has on the subnet; a second time it adds to the lock and is for the same hotkey."""
    lock(p, ensure_signed(origin), netuid, hotkey, amount)


def lock(p: Subtensor, coldkey: bytes, netuid: int, hotkey: bytes, amount: int) -> None:
    """lock_stake without the origin."""
    networks.ensure_exists(p, netuid)
    if not amount:
        raise p.error("AmountTooLow")
    if not staking.hotkey_exists(p, hotkey):
        raise p.error("HotKeyAccountNotExists")
    bound = lock_store.locked_hotkey(p, coldkey, netuid)
    if bound not in (None, hotkey):
        raise p.error("LockHotkeyMismatch")
    entry = lock_store.entry_of(p, coldkey, netuid, hotkey).roll()
    if total_alpha(p, coldkey, netuid) < entry.lock.locked_mass + amount:
        raise p.error("InsufficientStakeForLock")
    grown = entry.lock.plus(amount, 0)
    entry.set_lock(rules.roll(grown, p.rt.number, lock_store.rates(p), entry.mode))
    entry.roll_sum().save()
    p.emit("StakeLocked", coldkey=coldkey, hotkey=hotkey, netuid=netuid, amount=amount)


@call(ref_time=100_000_000)
def move_lock(p: Subtensor, origin: Origin, destination_hotkey: bytes, netuid: int) -> None:
    """Bind the lock to another hotkey; its conviction is lost unless one coldkey owns both."""
    coldkey = ensure_signed(origin)
    networks.ensure_exists(p, netuid)
    if not staking.hotkey_exists(p, destination_hotkey):
        raise p.error("HotKeyAccountNotExists")
    source = lock_store.existing(p, coldkey, netuid)
    if source is None:
        raise p.error("NoExistingLock")
    moved = source.roll().lock
    source.set_lock(rules.empty(moved.last_update))
    source.save()
    if p.Owner[source.hotkey] != p.Owner[destination_hotkey]:
        moved = replace(moved, conviction=0)
    _put_on(p, coldkey, netuid, destination_hotkey, moved.locked_mass, moved.conviction)
    p.emit(
        "LockMoved", coldkey=coldkey, origin_hotkey=source.hotkey, destination_hotkey=destination_hotkey, netuid=netuid
    )  # fmt: skip


def _put_on(p: Subtensor, coldkey: bytes, netuid: int, hotkey: bytes, mass: int, conviction: int) -> None:
    """Add mass and conviction that came from elsewhere to a coldkey's lock on a hotkey."""
    entry = lock_store.entry_of(p, coldkey, netuid, hotkey).roll()
    entry.set_lock(rules.roll(entry.lock.plus(mass, conviction), p.rt.number, lock_store.rates(p), entry.mode))
    entry.save()


@call(ref_time=100_000_000)
def set_perpetual_lock(p: Subtensor, origin: Origin, netuid: int, enabled: bool) -> None:
    """Whether the coldkey's locked mass on a subnet stays or decays."""
    coldkey = ensure_signed(origin)
    networks.ensure_exists(p, netuid)
    entry = lock_store.existing(p, coldkey, netuid)
    changes = lock_store.mode_of(p, coldkey, netuid, b"").perpetual != enabled
    if entry is not None:
        entry.roll().save()
        if changes:
            less = entry.roll_sum().sum.minus(entry.lock.locked_mass, entry.lock.conviction)
            lock_store.store_bucket(p, netuid, entry.hotkey, entry.mode, less)
    if enabled:
        p.DecayingLock[coldkey, netuid] = False
    else:
        del p.DecayingLock[coldkey, netuid]
    kept = lock_store.existing(p, coldkey, netuid) if changes else None
    if kept is not None:
        kept.add_to_sum(kept.lock)
        kept.save()
    p.emit("PerpetualLockUpdated", coldkey=coldkey, netuid=netuid, enabled=enabled)


@call(ref_time=30_000_000)
def set_reject_locked_alpha(p: Subtensor, origin: Origin, enabled: bool) -> None:
    """Accounts take no locked alpha from others unless they switch this off."""
    coldkey = ensure_signed(origin)
    flags = p.AccountFlags[coldkey]
    flags = flags & ~ACCEPTS_LOCKED_ALPHA if enabled else flags | ACCEPTS_LOCKED_ALPHA
    _store_flags(p, coldkey, flags)
    p.emit("RejectLockedAlphaUpdated", coldkey=coldkey, enabled=enabled)


def _store_flags(p: Subtensor, coldkey: bytes, flags: int) -> None:
    if flags:
        p.AccountFlags[coldkey] = flags
    else:
        del p.AccountFlags[coldkey]


def _ensure_accepts(p: Subtensor, coldkey: bytes, alpha: int) -> None:
    if alpha and not p.AccountFlags[coldkey] & ACCEPTS_LOCKED_ALPHA:
        raise p.error("AccountRejectsLockedAlpha")


# -- along with stake -----------------------------------------------------------------------------------------------


def touch(p: Subtensor, coldkey: bytes, netuid: int) -> None:
    """Bring the coldkey's lock up to date; one that has decayed to dust is forgotten."""
    entry = lock_store.existing(p, coldkey, netuid)
    if entry is not None:
        entry.roll().save()


def force_reduce(p: Subtensor, coldkey: bytes, netuid: int, amount: int) -> None:
    """The lock after alpha was taken from the coldkey whether locked or not."""
    entry = lock_store.existing(p, coldkey, netuid)
    if entry is not None:
        entry.roll().set_lock(rules.reduced(entry.lock, amount, p.rt.number))
        entry.save()


def transfer(p: Subtensor, source: bytes, target: bytes, hotkey: bytes, netuid: int, alpha: int) -> None:
    """Alpha that goes to another coldkey within a subnet takes the lock along as far as it is not free.

    `hotkey`: where it is staked then. Raises LockHotkeyMismatch when the other coldkey's lock is bound to a different
    hotkey, AccountRejectsLockedAlpha when it has not agreed to locked alpha.
    """
    entry = lock_store.existing(p, source, netuid) if source != target and alpha else None
    if entry is None:
        return
    held = entry.roll().lock
    bound = lock_store.locked_hotkey(p, target, netuid)
    beyond = sub_floor0(alpha, sub_floor0(total_alpha(p, source, netuid), held.locked_mass))
    if beyond and bound not in (None, hotkey):
        raise p.error("LockHotkeyMismatch")
    mass = min(beyond, held.locked_mass)
    conviction = rules.scaled(held.conviction, mass, held.locked_mass) if mass else 0
    _ensure_accepts(p, target, mass)
    entry.set_lock(rules.roll(held.minus(mass, conviction), p.rt.number, lock_store.rates(p), entry.mode))
    entry.save()
    if not mass and bound is None:
        return
    onto = hotkey if bound is None else bound
    survives = p.Owner[entry.hotkey] == p.Owner[onto]
    _put_on(p, target, netuid, onto, mass, conviction if survives else 0)


def auto_lock_owner_cut(p: Subtensor, netuid: int, alpha: int) -> None:
    """Lock what the subnet's owner was just paid, if the subnet is set to; on the hotkey of the lock there is."""
    if not alpha or not p.OwnerCutAutoLockEnabled[netuid]:
        return
    owner = p.SubnetOwner[netuid]
    try:
        lock(p, owner, netuid, lock_store.locked_hotkey(p, owner, netuid) or p.SubnetOwnerHotkey[netuid], alpha)
    except DispatchError:  # no such hotkey, or more locked than there is: the cut is paid unlocked, as on chain
        return


# -- swapped keys ---------------------------------------------------------------------------------------------------


def ensure_none_active(p: Subtensor, coldkey: bytes) -> None:
    """Raises ActiveLockExists when the coldkey has mass locked anywhere."""
    for netuid, _ in list(p.Lock.keys(coldkey)):
        lock = current(p, coldkey, netuid)
        if lock is not None and lock.locked_mass:
            raise p.error("ActiveLockExists")


def move_to_coldkey(p: Subtensor, old: bytes, new: bytes) -> None:
    """All locks, their modes and the account's flags go to a swapped coldkey.

    Raises ActiveLockExists and AccountRejectsLockedAlpha.
    """
    ensure_none_active(p, new)
    moved = []
    for netuid, hotkey in list(p.Lock.keys(old)):
        entry = lock_store.entry_of(p, old, netuid, hotkey)
        entry.lock = rules.roll(entry.lock, p.rt.number, lock_store.rates(p), entry.mode)
        _ensure_accepts(p, new, entry.lock.locked_mass)
        moved.append((netuid, hotkey, entry.lock))
    for netuid, hotkey, held in moved:
        entry = lock_store.entry_of(p, old, netuid, hotkey).roll_sum()
        entry.sum = entry.sum.minus(held.locked_mass, held.conviction)
        entry.lock = rules.empty(p.rt.number)
        entry.save()
    for netuid, decaying in list(p.DecayingLock.items(old)):
        del p.DecayingLock[old, netuid]
        p.DecayingLock[new, netuid] = decaying
    _store_flags(p, new, p.AccountFlags[old])
    _store_flags(p, old, 0)
    for netuid, hotkey, held in moved:
        entry = lock_store.entry_of(p, new, netuid, hotkey)
        entry.lock = held
        entry.add_to_sum(held)
        entry.save()


def move_to_hotkey(p: Subtensor, old: bytes, new: bytes, netuids: Sequence[int]) -> None:
    """All locks on a swapped hotkey, with what they have built: both hotkeys have one owner."""
    for netuid in netuids:
        owner = p.SubnetOwnerHotkey[netuid]
        was, becomes = owner == old, owner in (old, new)
        for coldkey in list(p.LockingColdkeys.keys(netuid, old)):
            _rename(p, coldkey, netuid, old, new, becomes)
        for perpetual in (True, False):
            _rename_sum(p, netuid, old, new, Mode(was, perpetual), Mode(becomes, perpetual))


def _rename(p: Subtensor, coldkey: bytes, netuid: int, old: bytes, new: bytes, becomes_owner: bool) -> None:
    entry = lock_store.entry_of(p, coldkey, netuid, old)
    target = replace(entry.mode, owner=becomes_owner)
    held = rules.roll(entry.lock, p.rt.number, lock_store.rates(p), entry.mode)
    lock_store.store_lock(p, coldkey, netuid, old, rules.empty(p.rt.number))
    lock_store.store_lock(p, coldkey, netuid, new, rules.roll(held, p.rt.number, lock_store.rates(p), target))


def _rename_sum(p: Subtensor, netuid: int, old: bytes, new: bytes, source: Mode, target: Mode) -> None:
    item, key = lock_store.bucket(p, netuid, old, source)
    stored = item[key]
    if stored is not None:
        del item[key]
        rolled = rules.roll(lock_store.decode(stored), p.rt.number, lock_store.rates(p), source)
        rolled = rules.roll(rolled, p.rt.number, lock_store.rates(p), target)
        lock_store.store_bucket(p, netuid, new, target, rolled)
