"""Coldkey swap: everything an account has and owns passes to another one.

    announce_coldkey_swap             commits to the new coldkey's hash and pays; from then on the account is bound
    swap_coldkey_announced            after ColdkeySwapAnnouncementDelay blocks shows the new coldkey and swaps
    dispute_coldkey_swap              stops it; only root can help then
    clear_coldkey_swap_announcement   withdraws it, ColdkeySwapReannouncementDelay blocks after it could have been used
    reset_coldkey_swap, swap_coldkey  root: forget announcement and dispute; swap at once

While an announcement stands its account may only call what is listed in `guards.SWAP_CALLS`; a disputed one nothing.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from localnet.errors import DispatchError
from localnet.rules.fixed import U32_MAX
from localnet.runtime.framework import Origin, call, ensure_root, ensure_signed
from localnet.runtime.subtensor import (
    baskets,
    collateral,
    fund_moves,
    hotkey_moves,
    leasing,
    locks,
    networks,
    positions,
    staking,
)

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor


def hash_of(coldkey: bytes) -> bytes:
    """What an announcement commits to: blake2b-256 of the account."""
    return blake2b(coldkey, digest_size=32).digest()


# -- announcing -----------------------------------------------------------------------------------------------------


@call(ref_time=55_700_000)
def announce_coldkey_swap(p: Subtensor, origin: Origin, new_coldkey_hash: bytes) -> None:
    """The first announcement costs KeySwapCost; another one may replace it some time after it became due."""
    who = ensure_signed(origin)
    standing = p.ColdkeySwapAnnouncements[who]
    if standing is None:
        charge(p, who, p.rt.document.constants[p.name, "KeySwapCost"])
    elif p.rt.number < standing[0] + p.ColdkeySwapReannouncementDelay.get():
        raise p.error("ColdkeySwapReannouncedTooEarly")
    due = min(p.rt.number + p.ColdkeySwapAnnouncementDelay.get(), U32_MAX)
    p.ColdkeySwapAnnouncements[who] = (due, new_coldkey_hash)
    p.emit("ColdkeySwapAnnounced", who=who, new_coldkey_hash=new_coldkey_hash)


def charge(p: Subtensor, who: bytes, cost: int) -> None:
    """Raises NotEnoughBalanceToPaySwapColdKey."""
    try:
        positions.recycle_tao(p, who, cost)
    except DispatchError as error:
        raise p.error("NotEnoughBalanceToPaySwapColdKey") from error


@call(ref_time=110_700_000)
def swap_coldkey_announced(p: Subtensor, origin: Origin, new_coldkey: bytes) -> None:
    who = ensure_signed(origin)
    due, digest = _announcement(p, who)
    if digest != hash_of(new_coldkey):
        raise p.error("AnnouncedColdkeyHashDoesNotMatch")
    if p.rt.number < due:
        raise p.error("ColdkeySwapTooEarly")
    del p.ColdkeySwapAnnouncements[who]
    swap(p, who, new_coldkey)


def _announcement(p: Subtensor, who: bytes) -> tuple[int, bytes]:
    """(first block in which it may be used, hash). Raises ColdkeySwapAnnouncementNotFound."""
    standing = p.ColdkeySwapAnnouncements[who]
    if standing is None:
        raise p.error("ColdkeySwapAnnouncementNotFound")
    return standing


@call(ref_time=20_000_000)
def dispute_coldkey_swap(p: Subtensor, origin: Origin) -> None:
    who = ensure_signed(origin)
    _announcement(p, who)
    if p.ColdkeySwapDisputes[who] is not None:
        raise p.error("ColdkeySwapAlreadyDisputed")
    p.ColdkeySwapDisputes[who] = p.rt.number
    p.emit("ColdkeySwapDisputed", coldkey=who)


@call(ref_time=20_000_000)
def clear_coldkey_swap_announcement(p: Subtensor, origin: Origin) -> None:
    who = ensure_signed(origin)
    due, _ = _announcement(p, who)
    if p.rt.number < due + p.ColdkeySwapReannouncementDelay.get():
        raise p.error("ColdkeySwapClearTooEarly")
    del p.ColdkeySwapAnnouncements[who]
    p.emit("ColdkeySwapCleared", who=who)


@call(ref_time=20_000_000)
def reset_coldkey_swap(p: Subtensor, origin: Origin, coldkey: bytes) -> None:
    ensure_root(origin)
    del p.ColdkeySwapAnnouncements[coldkey]
    del p.ColdkeySwapDisputes[coldkey]
    p.emit("ColdkeySwapReset", who=coldkey)


@call(ref_time=183_600_000)
def swap_coldkey(p: Subtensor, origin: Origin, old_coldkey: bytes, new_coldkey: bytes, swap_cost: int) -> None:
    """Any coldkey, at once; the old one pays `swap_cost`."""
    ensure_root(origin)
    if swap_cost:
        charge(p, old_coldkey, swap_cost)
    swap(p, old_coldkey, new_coldkey)
    del p.ColdkeySwapAnnouncements[old_coldkey]
    del p.ColdkeySwapDisputes[old_coldkey]


@call(ref_time=125_000_000)
def schedule_swap_coldkey(p: Subtensor, origin: Origin, new_coldkey: bytes) -> None:
    """The call of an earlier design."""
    raise p.error("Deprecated")


# -- swapping -------------------------------------------------------------------------------------------------------


def swap(p: Subtensor, old: bytes, new: bytes) -> None:
    """Raises ColdKeyAlreadyAssociated, NewColdKeyIsHotkey, and what locks and collateral raise."""
    if p.StakingHotkeys[new]:
        raise p.error("ColdKeyAlreadyAssociated")
    if staking.hotkey_exists(p, new):
        raise p.error("NewColdKeyIsHotkey")
    identity = p.IdentitiesV2[old]
    if identity is not None and p.IdentitiesV2[new] is None:
        del p.IdentitiesV2[old]
        p.IdentitiesV2[new] = identity
    p.AccountFlags[new] = p.AccountFlags[new] | locks.ACCEPTS_LOCKED_ALPHA  # the old one's choice comes with its locks
    _move_leases(p, old, new)
    for netuid in networks.netuids(p):
        if p.SubnetOwner[netuid] == old:
            p.SubnetOwner[netuid] = new
        _move_auto_stake(p, old, new, netuid)
        _move_stake(p, old, new, netuid)
        collateral.move_to_coldkey(p, netuid, old, new)
    _move_staking_hotkeys(p, old, new)
    _move_owned_hotkeys(p, old, new)
    locks.move_to_coldkey(p, old, new)
    _move_balance(p, old, new)
    _extend_line(p, old, new)
    p.emit("ColdkeySwapped", old_coldkey=old, new_coldkey=new)


def _move_leases(p: Subtensor, old: bytes, new: bytes) -> None:
    """Shares in leased subnets, and the beneficiary's role with its proxy."""
    for lease_id in [lease_id for _, lease_id in p.SubnetUidToLeaseId.items() if lease_id is not None]:
        share = p.SubnetLeaseShares[lease_id, old]["bits"]
        if share:
            del p.SubnetLeaseShares[lease_id, old]
            p.SubnetLeaseShares[lease_id, new] = {"bits": p.SubnetLeaseShares[lease_id, new]["bits"] + share}
        lease = p.SubnetLeases[lease_id]
        if lease is not None and lease["beneficiary"] == old:
            p.rt.proxy.remove(lease["coldkey"], old, leasing.PROXY_TYPE, 0)
            p.rt.proxy.add(lease["coldkey"], new, leasing.PROXY_TYPE, 0)
            p.SubnetLeases[lease_id] = {**lease, "beneficiary": new}


def _move_auto_stake(p: Subtensor, old: bytes, new: bytes, netuid: int) -> None:
    hotkey = p.AutoStakeDestination[old, netuid]
    if hotkey is None:
        return
    del p.AutoStakeDestination[old, netuid]
    p.AutoStakeDestination[new, netuid] = hotkey
    others = [known for known in p.AutoStakeDestinationColdkeys[hotkey, netuid] if known not in (old, new)]
    p.AutoStakeDestinationColdkeys[hotkey, netuid] = [*others, new]


def _move_stake(p: Subtensor, old: bytes, new: bytes, netuid: int) -> None:
    for hotkey in p.StakingHotkeys[old]:
        alpha = staking.stake_of(p, hotkey, old, netuid)
        staking.decrease_stake(p, hotkey, old, netuid, alpha)
        staking.increase_stake(p, hotkey, new, netuid, alpha)
        if netuid == networks.ROOT:
            fund_moves.move_claim(p, hotkey, old, new)
            hotkey_moves.move_root_age(p, (old, hotkey), (new, hotkey))
            if staking.stake_of(p, hotkey, new, netuid):
                baskets.index_staker(p, new)
    if netuid == networks.ROOT:
        baskets.unindex_staker(p, old)


def _move_staking_hotkeys(p: Subtensor, old: bytes, new: bytes) -> None:
    hotkeys = list(dict.fromkeys((*p.StakingHotkeys[new], *p.StakingHotkeys[old])))
    del p.StakingHotkeys[old]
    if hotkeys:
        p.StakingHotkeys[new] = hotkeys
    else:
        del p.StakingHotkeys[new]


def _move_owned_hotkeys(p: Subtensor, old: bytes, new: bytes) -> None:
    owned = p.OwnedHotkeys[old]
    for hotkey in owned:
        p.Owner[hotkey] = new
    del p.OwnedHotkeys[old]
    p.OwnedHotkeys[new] = list(dict.fromkeys((*p.OwnedHotkeys[new], *owned)))


def _move_balance(p: Subtensor, old: bytes, new: bytes) -> None:
    """All that can leave; deposits and what a queued subnet registration has locked stay behind."""
    free = p.rt.balances.reducible(old, keep_alive=False)
    if free:
        positions.transfer_tao(p, old, new, free)


def _extend_line(p: Subtensor, old: bytes, new: bytes) -> None:
    """ColdkeyRoot names the first account of a line of swapped ones, ColdkeySuccessor the next."""
    if old == new:
        return
    root = p.ColdkeyRoot[old] or old
    del p.ColdkeySuccessor[new]
    p.ColdkeySuccessor[old] = new
    p.ColdkeyRoot[new] = root
