"""What belongs to a hotkey on a subnet, and how it passes to the hotkey that takes its place.

    holders        who has stake on a hotkey, and where
    move           everything on one subnet: seat, service records, commits, relations, owner's role, and with the
                   stake: collateral, dividends, voting power, positions; on root also the fund of its dividends

Timelocked commits and what a hotkey earned last are keyed by the old hotkey and stay there, as on chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from localnet.rules.fixed import U64_MAX
from localnet.rules.weights import storage_index
from localnet.runtime.framework import StorageMap
from localnet.runtime.subtensor import collateral, fund_moves, networks, staking
from localnet.runtime.subtensor.basket_values import escrow_account
from localnet.runtime.subtensor.children import MAX_CHILDREN, Edge

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

Edges = dict[bytes, int]  # the other hotkey -> proportion


def holders(p: Subtensor, hotkey: bytes) -> list[tuple[bytes, int]]:
    """(coldkey, netuid) of every position on a hotkey that has shares, in the order of the accounts."""
    keys = sorted({*p.Alpha.keys(hotkey), *p.AlphaV2.keys(hotkey)})
    return [(coldkey, netuid) for coldkey, netuid in keys
            if not staking.share_of(p, hotkey, coldkey, netuid).is_zero]  # fmt: skip


def move(p: Subtensor, old: bytes, new: bytes, netuid: int, keep_stake: bool, coldkeys: Sequence[bytes]) -> None:
    """`coldkeys`: the holders of stake on the subnet. Raises InvalidChild, TooManyChildren, ProportionOverflow,
    ChildParentInconsistency, CannotUseSystemAccount."""
    member = p.IsNetworkMember[old, netuid]
    del p.IsNetworkMember[old, netuid]
    p.IsNetworkMember[new, netuid] = member
    if member:
        _move_seat(p, old, new, netuid)
    _rename(p.ChildkeyTake, (old, netuid), (new, netuid))
    if not keep_stake:
        collateral.move_to_hotkey(p, netuid, old, new, p.Owner[new])
    _move_relations(p, old, new, netuid)
    _rename_pending_child(p, old, new, netuid)
    _move_auto_stake(p, old, new, netuid)
    if netuid in p.SubnetOwnerHotkey and p.SubnetOwnerHotkey[netuid] == old:
        networks.set_owner_hotkey(p, netuid, new)
    if not keep_stake:
        _move_dividends(p, old, new, netuid)
        _move_stake(p, old, new, netuid, coldkeys)
        if netuid == networks.ROOT:
            fund_moves.move_fund(p, old, new)
            _rename(p.AutoParentDelegationEnabled, old, new)


def _rename(item: StorageMap[Any], old: Any, new: Any) -> None:
    if old in item:
        item[new] = item[old]
        del item[old]


def _move_seat(p: Subtensor, old: bytes, new: bytes, netuid: int) -> None:
    uid = p.Uids[netuid, old]
    if uid is not None:
        del p.Uids[netuid, old]
        p.Uids[netuid, new] = uid
        p.Keys[netuid, uid] = new
    for item in (p.Prometheus, p.Axons, p.NeuronCertificates):
        _rename(item, (netuid, old), (netuid, new))
    for mecid in range(p.MechanismCountCurrent[netuid]):
        index = storage_index(netuid, mecid)
        _rename(p.WeightCommits, (index, old), (index, new))
    loaded = p.LoadedEmission[netuid]
    if loaded is not None:
        p.LoadedEmission[netuid] = [(new if one == old else one, *rest) for one, *rest in loaded]  # type: ignore[misc]


# -- children and parents -------------------------------------------------------------------------------------------


def _edges(stored: Sequence[Edge], pivot: bytes) -> Edges:
    return {other: share for share, other in stored if other != pivot}


def _check_relations(p: Subtensor, pivot: bytes, children: Edges, parents: Edges) -> None:
    if pivot in children or pivot in parents:
        raise p.error("InvalidChild")
    if len(children) > MAX_CHILDREN:
        raise p.error("TooManyChildren")
    if sum(children.values()) > U64_MAX:
        raise p.error("ProportionOverflow")
    if children.keys() & parents.keys():
        raise p.error("ChildParentInconsistency")


def _move_relations(p: Subtensor, old: bytes, new: bytes, netuid: int) -> None:
    """The new hotkey gets the old one's children, parents and pending children in place of its own."""
    children, parents = _edges(p.ChildKeys[old, netuid], old), _edges(p.ParentKeys[old, netuid], old)
    _check_relations(p, old, children, parents)
    _connect(p.ChildKeys, p.ParentKeys, old, netuid, {})
    _connect(p.ParentKeys, p.ChildKeys, old, netuid, {})
    _check_relations(p, new, children, parents)
    if (netuid, old) in p.PendingChildKeys:
        _check_relations(p, new, _edges(p.PendingChildKeys[netuid, old][0], b""), parents)
        _rename(p.PendingChildKeys, (netuid, old), (netuid, new))
    _connect(p.ChildKeys, p.ParentKeys, new, netuid, children)
    _connect(p.ParentKeys, p.ChildKeys, new, netuid, parents)


def _connect(
    side: StorageMap[list[Edge]], other_side: StorageMap[list[Edge]], hotkey: bytes, netuid: int, edges: Edges
) -> None:
    """Make `edges` the hotkey's whole side of the relation, and the other hotkeys' lists agree with it."""
    before = {other for _, other in side[hotkey, netuid]}
    _store(side, hotkey, netuid, [(edges[other], other) for other in sorted(edges)])
    for other in sorted(before | edges.keys()):
        known = other_side[other, netuid]
        if other not in edges:
            known = [edge for edge in known if edge[1] != hotkey]
        elif any(one == hotkey for _, one in known):
            known = [(edges[other], one) if one == hotkey else (share, one) for share, one in known]
        else:
            known = [*known, (edges[other], hotkey)]
        _store(other_side, other, netuid, known)


def _store(side: StorageMap[list[Edge]], hotkey: bytes, netuid: int, edges: list[Edge]) -> None:
    if edges:
        side[hotkey, netuid] = edges
    else:
        del side[hotkey, netuid]


def _rename_pending_child(p: Subtensor, old: bytes, new: bytes, netuid: int) -> None:
    """Where the old hotkey was to become a child, the new one will; it goes to the end of the list."""
    for parent, (children, due) in list(p.PendingChildKeys.items(netuid)):
        at = next((index for index, (_, child) in enumerate(children) if child == old), None)
        if at is not None:
            renamed = [*children[:at], *children[at + 1 :], (children[at][0], new)]
            p.PendingChildKeys[netuid, parent] = (renamed, due)


# -- stake and what follows it --------------------------------------------------------------------------------------


def _move_auto_stake(p: Subtensor, old: bytes, new: bytes, netuid: int) -> None:
    if (old, netuid) not in p.AutoStakeDestinationColdkeys:
        return
    for coldkey in p.AutoStakeDestinationColdkeys[old, netuid]:
        p.AutoStakeDestination[coldkey, netuid] = new
    _rename(p.AutoStakeDestinationColdkeys, (old, netuid), (new, netuid))


def _move_dividends(p: Subtensor, old: bytes, new: bytes, netuid: int) -> None:
    last = p.TotalHotkeyAlphaLastEpoch[old, netuid] + p.TotalHotkeyAlphaLastEpoch[new, netuid]
    del p.TotalHotkeyAlphaLastEpoch[old, netuid]
    if last:
        p.TotalHotkeyAlphaLastEpoch[new, netuid] = last
    dividends = p.AlphaDividendsPerSubnet[netuid, old] + p.AlphaDividendsPerSubnet[netuid, new]
    del p.AlphaDividendsPerSubnet[netuid, old]
    p.AlphaDividendsPerSubnet[netuid, new] = dividends
    power = p.VotingPower[netuid, old]
    if power:
        p.VotingPower[netuid, new] = min(p.VotingPower[netuid, new] + power, U64_MAX)
    del p.VotingPower[netuid, old]


def _move_stake(p: Subtensor, old: bytes, new: bytes, netuid: int, coldkeys: Sequence[bytes]) -> None:
    """Position by position; a fund's holdings move with the fund."""
    escrow = escrow_account(p)
    for coldkey in coldkeys:
        if coldkey == escrow:
            continue
        alpha = staking.stake_of(p, old, coldkey, netuid)
        staking.decrease_stake(p, old, coldkey, netuid, alpha)
        staking.increase_stake(p, new, coldkey, netuid, alpha)
        if netuid == networks.ROOT:
            move_root_age(p, (coldkey, old), (coldkey, new))
        known = p.StakingHotkeys[coldkey]
        if old in known and new not in known:
            p.StakingHotkeys[coldkey] = [*known, new]


def move_root_age(p: Subtensor, source: tuple[bytes, bytes], target: tuple[bytes, bytes]) -> None:
    """How long root stake has rested, of one (coldkey, hotkey), passes to another; the younger of two counts."""
    last = p.LastColdkeyHotkeyStakeBlock[source]
    if last is not None:
        del p.LastColdkeyHotkeyStakeBlock[source]
        p.LastColdkeyHotkeyStakeBlock[target] = max(last, p.LastColdkeyHotkeyStakeBlock[target] or 0)
