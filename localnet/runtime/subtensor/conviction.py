"""Conviction: how much of it stands behind a hotkey, and the change of owner it can bring a subnet.

    of_hotkey, most_convicted    what the runtime APIs answer
    change_owner                 at each epoch: a hotkey with enough conviction makes its coldkey the subnet's owner

A takeover needs a subnet that is a year old, and one hotkey whose own conviction exceeds 18 % of the subnet's eligible
alpha: all outstanding alpha but the chain's own and what was burned.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from localnet.errors import DispatchError
from localnet.rules import locks as rules
from localnet.rules.fixed import U64F64, sub_floor0
from localnet.rules.locks import LockState, Mode
from localnet.runtime.subtensor import lock_store, registration

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

NOBODY = bytes(32)
MODES = (True, False)  # perpetual, decaying


def _rolled(p: Subtensor, stored: dict[str, Any] | None, mode: Mode) -> LockState:
    if stored is None:
        return rules.empty(p.rt.number)
    return rules.roll(lock_store.decode(stored), p.rt.number, lock_store.rates(p), mode)


def _sum_of(p: Subtensor, netuid: int, hotkey: bytes, mode: Mode) -> LockState:
    """One sum of locks as of now."""
    item, key = lock_store.bucket(p, netuid, hotkey, mode)
    return _rolled(p, item[key], mode)


def of_hotkey(p: Subtensor, netuid: int, hotkey: bytes) -> U64F64:
    """All conviction behind a hotkey on a subnet, by whomever."""
    owners = (False, True) if p.SubnetOwnerHotkey[netuid] == hotkey else (False,)
    return sum(_sum_of(p, netuid, hotkey, Mode(owner, kind)).conviction for owner in owners for kind in MODES)


def most_convicted(p: Subtensor, netuid: int) -> bytes | None:
    """The hotkey with the most conviction; among equals the one whose account is the largest number."""
    scores: dict[bytes, U64F64] = defaultdict(int)
    for perpetual in MODES:
        sums = p.HotkeyLock if perpetual else p.DecayingHotkeyLock
        for hotkey, stored in sums.items(netuid):
            scores[hotkey] += _rolled(p, stored, Mode(False, perpetual)).conviction
        of_owner = (p.OwnerLock if perpetual else p.DecayingOwnerLock)[netuid]
        if of_owner is not None:
            scores[p.SubnetOwnerHotkey[netuid]] += _rolled(p, of_owner, Mode(True, perpetual)).conviction
    return max(scores, key=lambda hotkey: (scores[hotkey], hotkey)) if scores else None


def eligible_alpha(p: Subtensor, netuid: int) -> int:
    """Outstanding alpha that somebody could have locked."""
    own = sub_floor0(p.SubnetAlphaOut[netuid], p.SubnetProtocolAlpha[netuid])
    return sub_floor0(own, p.rt.alpha_assets.AlphaBurned[netuid])


def change_owner(p: Subtensor, netuid: int) -> None:
    """Hand the subnet to the coldkey of its most convicted hotkey when that hotkey clears the gate."""
    if p.rt.number < p.NetworkRegisteredAt[netuid] + rules.ONE_YEAR:
        return
    eligible, king = eligible_alpha(p, netuid), most_convicted(p, netuid)
    if not eligible or king is None or not rules.clears_gate(of_hotkey(p, netuid, king), eligible):
        return
    before, after = p.SubnetOwner[netuid], p.Owner[king]
    if after in (NOBODY, before):
        return
    if p.Uids[netuid, king] is None:
        try:
            registration.seat(p, netuid, king)
        except DispatchError:  # the subnet is full of neurons that may not be replaced: the owner stays
            return
    swap_sums(p, netuid, p.SubnetOwnerHotkey[netuid], king)
    p.SubnetOwner[netuid] = after
    p.SubnetOwnerHotkey[netuid] = king
    p.emit("SubnetOwnerChanged", netuid=netuid, old_coldkey=before, new_coldkey=after)


def swap_sums(p: Subtensor, netuid: int, old: bytes, king: bytes) -> None:
    """The old owner's sums become an ordinary hotkey's, and the new owner's hotkey's the owner's."""
    for owner, hotkey in ((True, old), (False, king)):
        for perpetual in MODES:
            source, target = Mode(owner, perpetual), Mode(not owner, perpetual)
            item, key = lock_store.bucket(p, netuid, hotkey, source)
            if item[key] is None:
                continue
            moved = _sum_of(p, netuid, hotkey, source)
            del item[key]
            onto = _sum_of(p, netuid, hotkey, target).plus(moved.locked_mass, moved.conviction)
            if target.owner:
                onto = rules.roll(onto, p.rt.number, lock_store.rates(p), target)
            lock_store.store_bucket(p, netuid, hotkey, target, onto)
