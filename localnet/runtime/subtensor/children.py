"""Children: a hotkey puts proportions of its stake behind other hotkeys on a subnet.

    set_children             checks and schedules; the proportions are u64, of 2^64-1
    apply_pending            called by the block step after an epoch: what has waited long enough comes into force
    set_pending_childkey_cooldown    root: how long that is

ChildKeys[parent, netuid] and ParentKeys[child, netuid] are the two sides of the same edges; `_connect` keeps them
equal. The lists are kept in the order of the accounts, as the chain's maps are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from localnet.rules.fixed import U64_MAX
from localnet.runtime.framework import Origin, StorageMap, call, ensure_root, ensure_signed
from localnet.runtime.subtensor import limits, staking

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

Edge = tuple[int, bytes]  # (proportion, the other hotkey)
MAX_CHILDREN = 5


def _first_problem(p: Subtensor, hotkey: bytes, netuid: int, children: Sequence[Edge]) -> str | None:
    """Name of the error that these edges would break, if any."""
    accounts = {child for _, child in children}
    if hotkey in accounts:
        return "InvalidChild"
    if len(accounts) > MAX_CHILDREN:
        return "TooManyChildren"
    if sum(share for share, _ in children) > U64_MAX:
        return "ProportionOverflow"
    if accounts & {parent for _, parent in p.ParentKeys[hotkey, netuid]}:
        return "ChildParentInconsistency"
    return None


@call(ref_time=120_000_000)
def set_children(p: Subtensor, origin: Origin, hotkey: bytes, netuid: int, children: list[Edge]) -> None:
    coldkey = ensure_signed(origin)
    limits.SET_CHILDREN.ensure(p, hotkey, netuid)
    if netuid == staking.ROOT:
        raise p.error("RegistrationNotPermittedOnRootSubnet")
    if not p.NetworksAdded[netuid]:
        raise p.error("SubnetNotExists")
    if not staking.owns(p, coldkey, hotkey):
        raise p.error("NonAssociatedColdKey")
    if len({child for _, child in children}) < len(children):
        raise p.error("DuplicateChild")
    problem = _first_problem(p, hotkey, netuid, children)
    if problem is not None:
        raise p.error(problem)
    if children and not _may_have_children(p, hotkey, netuid):
        raise p.error("NotEnoughStakeToSetChildkeys")
    limits.SET_CHILDREN.record(p, hotkey, netuid)
    _schedule(p, hotkey, netuid, children)


def _has_threshold(p: Subtensor, hotkey: bytes) -> bool:
    threshold = p.StakeThreshold.get()
    return not threshold or staking.total_stake_of_hotkey(p, hotkey) >= threshold


def _may_have_children(p: Subtensor, hotkey: bytes, netuid: int) -> bool:
    owner = netuid in p.SubnetOwnerHotkey and p.SubnetOwnerHotkey[netuid] == hotkey
    return owner or _has_threshold(p, hotkey)


def _schedule(p: Subtensor, hotkey: bytes, netuid: int, children: list[Edge]) -> None:
    """On a subnet that has not been started there is nothing to protect: the edges hold at once."""
    if not p.SubtokenEnabled[netuid]:
        _apply(p, hotkey, netuid, children)
        return
    due = min(p.rt.number + p.PendingChildKeyCooldown.get(), U64_MAX)
    p.PendingChildKeys[netuid, hotkey] = (children, due)
    p.emit("SetChildrenScheduled", hotkey, netuid, due, children)


def apply_pending(p: Subtensor, netuid: int) -> None:
    """Bring pending edges of a subnet into force whose cooldown block has passed; not those of a parent whose stake
    has fallen below the threshold meanwhile."""
    started = p.SubtokenEnabled[netuid]
    for hotkey, (children, due) in list(p.PendingChildKeys.items(netuid)):
        if due >= p.rt.number and started:
            continue
        del p.PendingChildKeys[netuid, hotkey]
        if children and not _may_have_children(p, hotkey, netuid):
            continue
        _apply(p, hotkey, netuid, children)
        if children and _has_threshold(p, hotkey):
            del p.ChildkeyThresholdSuspended[hotkey]


def recheck_parents(p: Subtensor) -> None:
    """The end of every block: parents whose stake has changed are suspended below the threshold, or count again."""
    for hotkey in list(p.ChildkeyThresholdChecks.keys()):
        del p.ChildkeyThresholdChecks[hotkey]
        if _has_threshold(p, hotkey):
            del p.ChildkeyThresholdSuspended[hotkey]
        else:
            p.ChildkeyThresholdSuspended[hotkey] = ()


def _apply(p: Subtensor, hotkey: bytes, netuid: int, children: list[Edge]) -> None:
    """Edges that became inconsistent while they waited are dropped without a word, as on chain."""
    if _first_problem(p, hotkey, netuid, children) is not None:
        return
    _connect(p, hotkey, netuid, children)
    p.emit("SetChildren", hotkey, netuid, children)


def _connect(p: Subtensor, hotkey: bytes, netuid: int, children: Sequence[Edge]) -> None:
    before = {child for _, child in p.ChildKeys[hotkey, netuid]}
    _store(p.ChildKeys, hotkey, netuid, sorted(children, key=lambda edge: edge[1]))
    for share, child in children:
        _store(p.ParentKeys, child, netuid, _with_edge(p.ParentKeys[child, netuid], share, hotkey))
    for child in before - {child for _, child in children}:
        left = [edge for edge in p.ParentKeys[child, netuid] if edge[1] != hotkey]
        _store(p.ParentKeys, child, netuid, left)
    _store(p.ParentKeys, hotkey, netuid, sorted(p.ParentKeys[hotkey, netuid], key=lambda edge: edge[1]))


def _with_edge(edges: Sequence[Edge], share: int, other: bytes) -> list[Edge]:
    if any(known == other for _, known in edges):
        return [(share, known) if known == other else (before, known) for before, known in edges]
    return [*edges, (share, other)]


def _store(side: StorageMap[list[Edge]], hotkey: bytes, netuid: int, edges: list[Edge]) -> None:
    if edges:
        side[hotkey, netuid] = edges
    else:
        del side[hotkey, netuid]


# -- root validators ------------------------------------------------------------------------------------------------


def follow_owner(p: Subtensor, validator: bytes, netuid: int) -> None:
    """Put all stake of a root validator behind a subnet's owner at once, unless it opted out or chose for itself."""
    if netuid == staking.ROOT or netuid not in p.SubnetOwnerHotkey or not p.AutoParentDelegationEnabled[validator]:
        return
    owner, chosen = p.SubnetOwnerHotkey[netuid], (netuid, validator) in p.PendingChildKeys
    if owner != validator and not chosen and not p.ChildKeys[validator, netuid]:
        _apply(p, validator, netuid, [(U64_MAX, owner)])


def unfollow_owners(p: Subtensor, validator: bytes) -> None:
    """A validator that leaves root takes its stake back from the owners it was put behind."""
    for netuid in sorted(p.NetworksAdded.keys()):
        if netuid in p.SubnetOwnerHotkey and p.ChildKeys[validator, netuid] == [(U64_MAX, p.SubnetOwnerHotkey[netuid])]:
            _apply(p, validator, netuid, [])


@call(ref_time=6_000_000)
def set_pending_childkey_cooldown(p: Subtensor, origin: Origin, cooldown: int) -> None:
    ensure_root(origin)
    p.PendingChildKeyCooldown.put(cooldown)


@call(ref_time=30_000_000)
def set_auto_parent_delegation_enabled(p: Subtensor, origin: Origin, hotkey: bytes, enabled: bool) -> None:
    """A root validator's choice whether subnets' owners become its children: of new subnets, and when it takes its
    seat."""
    coldkey = ensure_signed(origin)
    if not staking.owns(p, coldkey, hotkey):
        raise p.error("NonAssociatedColdKey")
    if p.Uids[staking.ROOT, hotkey] is None:
        raise p.error("HotKeyNotRegisteredInSubNet")
    p.AutoParentDelegationEnabled[hotkey] = enabled
    p.emit("AutoParentDelegationEnabledSet", hotkey=hotkey, enabled=enabled)
