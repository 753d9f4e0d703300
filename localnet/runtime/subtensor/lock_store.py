"""Conviction locks as they are stored: a coldkey's lock on a hotkey, and the sums of all locks on it.

Beside each lock the chain keeps sums per hotkey, perpetual and decaying ones apart, and those on the subnet owner's
hotkey by themselves. `entry_of` reads a lock with the sum it belongs to; an `Entry` changes both together and writes
both back. Nothing moves by itself: a lock is brought up to date (`roll`) when something touches it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localnet.rules import locks as rules
from localnet.rules.locks import LockState, Mode, Rates

if TYPE_CHECKING:
    from localnet.runtime.framework import StorageMap
    from localnet.runtime.subtensor.pallet import Subtensor


def rates(p: Subtensor) -> Rates:
    return Rates(p.UnlockRate.get(), p.MaturityRate.get())


def decode(stored: dict[str, Any]) -> LockState:
    return LockState(stored["locked_mass"], stored["conviction"]["bits"], stored["last_update"])


def encode(lock: LockState) -> dict[str, Any]:
    return {
        "locked_mass": lock.locked_mass,
        "conviction": {"bits": lock.conviction},
        "last_update": lock.last_update,
    }


def mode_of(p: Subtensor, coldkey: bytes, netuid: int, hotkey: bytes) -> Mode:
    """How a coldkey's lock on a hotkey behaves."""
    return Mode(
        owner=p.SubnetOwnerHotkey[netuid] == hotkey,
        perpetual=p.DecayingLock[coldkey, netuid] is False,  # present and False; absent means that it decays
    )


def bucket(p: Subtensor, netuid: int, hotkey: bytes, mode: Mode) -> tuple[StorageMap[dict[str, Any] | None], Any]:
    """(storage item, key) of the sum that a lock of this mode belongs to."""
    if mode.owner:
        return (p.OwnerLock if mode.perpetual else p.DecayingOwnerLock), netuid
    return (p.HotkeyLock if mode.perpetual else p.DecayingHotkeyLock), (netuid, hotkey)


def store_bucket(p: Subtensor, netuid: int, hotkey: bytes, mode: Mode, lock: LockState) -> None:
    item, key = bucket(p, netuid, hotkey, mode)
    if lock.locked_mass or lock.conviction:
        item[key] = encode(lock)
    else:
        del item[key]


def store_lock(p: Subtensor, coldkey: bytes, netuid: int, hotkey: bytes, lock: LockState) -> None:
    if lock.is_dust:
        del p.LockingColdkeys[netuid, hotkey, coldkey]
        del p.Lock[coldkey, netuid, hotkey]
    else:
        p.LockingColdkeys[netuid, hotkey, coldkey] = ()
        p.Lock[coldkey, netuid, hotkey] = encode(lock)


@dataclass
class Entry:
    """A coldkey's lock on a hotkey, and the sum it is part of."""

    p: Subtensor
    coldkey: bytes
    netuid: int
    hotkey: bytes
    mode: Mode
    lock: LockState
    sum: LockState

    def roll(self) -> Entry:
        self.lock, self.sum = rules.roll_bucket(self.lock, self.sum, self.p.rt.number, rates(self.p), self.mode)
        return self

    def roll_sum(self) -> Entry:
        self.sum = rules.roll(self.sum, self.p.rt.number, rates(self.p), self.mode)
        return self

    def set_lock(self, lock: LockState) -> None:
        """The lock becomes `lock`; the sum changes by the difference."""
        self.sum = self.sum.minus(self.lock.locked_mass, self.lock.conviction).plus(lock.locked_mass, lock.conviction)
        self.lock = lock

    def add_to_sum(self, lock: LockState) -> None:
        """A lock that is not part of the sum yet."""
        self.roll_sum()
        self.sum = self.sum.plus(lock.locked_mass, lock.conviction)
        self.roll_sum()

    def save(self) -> None:
        store_lock(self.p, self.coldkey, self.netuid, self.hotkey, self.lock)
        store_bucket(self.p, self.netuid, self.hotkey, self.mode, self.sum)


def entry_of(p: Subtensor, coldkey: bytes, netuid: int, hotkey: bytes) -> Entry:
    """As stored, not brought up to date; nothing where there is no lock."""
    mode, none = mode_of(p, coldkey, netuid, hotkey), rules.empty(p.rt.number)
    item, key = bucket(p, netuid, hotkey, mode)
    stored, together = p.Lock[coldkey, netuid, hotkey], item[key]
    return Entry(
        p, coldkey, netuid, hotkey, mode,
        none if stored is None else decode(stored), none if together is None else decode(together),
    )  # fmt: skip


def locked_hotkey(p: Subtensor, coldkey: bytes, netuid: int) -> bytes | None:
    """The hotkey the coldkey's lock on a subnet is bound to."""
    return next(iter(p.Lock.keys(coldkey, netuid)), None)


def existing(p: Subtensor, coldkey: bytes, netuid: int) -> Entry | None:
    hotkey = locked_hotkey(p, coldkey, netuid)
    return None if hotkey is None else entry_of(p, coldkey, netuid, hotkey)
