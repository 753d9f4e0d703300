"""Distribution: a subnet's pending alpha, divided over owner, miners, validators and their nominators after an epoch.

    owner cut     staked on the owner's hotkey, and locked there if the subnet says so
    incentive     to each miner (or where its coldkey auto-stakes) past its collateral; the owner's own miners get none
    dividends     split between a validator and its parents, then each hotkey's take to its owner and the rest to all
                  nominators
    root's part   of the dividends: the take likewise, the rest waits to be put into the validator's basket (`baskets`);
                  for validators with a seat on root only, and recycled when there is none with root stake

The arithmetic is `localnet.rules.stake` and `localnet.rules.coinbase`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localnet.rules import coinbase
from localnet.rules import stake as stake_rules
from localnet.rules.fixed import U96F32, to_u64, u64_proportion
from localnet.runtime.subtensor import collateral, delegation, leasing, locks, networks, staking

if TYPE_CHECKING:
    from localnet.runtime.subtensor.epochs import Earned
    from localnet.runtime.subtensor.pallet import Subtensor


@dataclass(frozen=True)
class Pending:
    """What a subnet collected since its last epoch, alpha-rao."""

    server: int
    validator: int
    root: int
    owner: int


def recycle(p: Subtensor, netuid: int, alpha: int) -> None:
    """Take alpha out of circulation; the subnet's issuance falls."""
    p.rt.alpha_assets.recycle(netuid, alpha)


def queue_root_dividend(p: Subtensor, hotkey: bytes, netuid: int, alpha: int) -> None:
    """A dividend for the validator's root stakers, to be deposited later. It counts as issued, nobody holds it yet."""
    if alpha:
        p.PendingBasketDeposits[hotkey, netuid] = p.PendingBasketDeposits[hotkey, netuid] + alpha


def run(p: Subtensor, netuid: int, pending: Pending) -> None:
    """Run the subnet's epoch on the pending alpha and pay it out."""
    from localnet.runtime.subtensor import epochs  # brings numpy: 80 ms and 10 MB that a chain's start can do without

    earned = epochs.run(p, netuid, pending.server + pending.validator + pending.root)
    pool = coinbase.validator_pool(pending.validator, pending.server, sum(one.server for one in earned))
    weight = stake_rules.tao_weight(p.TaoWeight.get())
    gross = _dividends(p, netuid, earned, weight)
    stakes = {hotkey: _stakes(p, netuid, hotkey) for hotkey in gross}
    without_seat = {hotkey for hotkey in gross if p.Uids[networks.ROOT, hotkey] is None}
    dividends = coinbase.distribute(gross, stakes, pool, pending.root, weight, without_seat)
    if not any(to_u64(dividend.root, 32) for dividend in dividends.values()):  # nobody who could have root's part
        recycle(p, netuid, pending.root)
    if p.watch_dividends is not None:
        p.watch_dividends(netuid, dividends)
    _pay_owner(p, netuid, pending.owner)
    _pay_incentive(p, netuid, earned)
    _pay_dividends(p, netuid, dividends)


def _stakes(p: Subtensor, netuid: int, hotkey: bytes) -> tuple[int, int]:
    """(alpha on the subnet, TAO on root) of a hotkey."""
    return p.TotalHotkeyAlpha[hotkey, netuid], p.TotalHotkeyAlpha[hotkey, networks.ROOT]


# -- owner and miners -----------------------------------------------------------------------------------------------


def _pay_owner(p: Subtensor, netuid: int, alpha: int) -> None:
    if netuid in p.SubnetOwner and netuid in p.SubnetOwnerHotkey:
        staking.increase_stake(p, p.SubnetOwnerHotkey[netuid], p.SubnetOwner[netuid], netuid, alpha)
        leasing.on_owner_cut(p, netuid, alpha)
        locks.auto_lock_owner_cut(p, netuid, alpha)


def owner_hotkeys(p: Subtensor, netuid: int) -> set[bytes]:
    """The owner hotkey and every hotkey of the owner coldkey that is registered on the subnet."""
    owned = {hotkey for hotkey in p.OwnedHotkeys[p.SubnetOwner[netuid]] if p.Uids[netuid, hotkey] is not None}
    if networks.owner_uid(p, netuid) is not None:
        owned.add(p.SubnetOwnerHotkey[netuid])
    return owned


def _pay_incentive(p: Subtensor, netuid: int, earned: Sequence[Earned]) -> None:
    owners = owner_hotkeys(p, netuid)
    bonded = collateral.is_used(p, netuid)
    total = withheld = 0
    for one in sorted(earned, key=lambda one: one.hotkey):
        if not one.server:
            continue
        total += one.server
        if one.hotkey not in owners:
            _pay_miner(p, netuid, one.hotkey, one.server, bonded)
            continue
        withheld += one.server
        if p.RecycleOrBurn[netuid] == "Recycle":
            recycle(p, netuid, one.server)
        else:
            p.rt.alpha_assets.burn(netuid, one.server)
    p.MinerBurned[netuid] = {"bits": coinbase.miner_burned(withheld, total)}


def _pay_miner(p: Subtensor, netuid: int, hotkey: bytes, alpha: int, bonded: bool) -> None:
    """`bonded`: somebody on the subnet has collateral; a payout may then go into it."""
    owner = p.Owner[hotkey]
    if bonded:
        alpha -= collateral.settle(p, netuid, hotkey, owner, alpha, alpha)
        if not alpha:
            return
    destination = p.AutoStakeDestination[owner, netuid]
    if destination is not None:
        p.emit(
            "AutoStakeAdded", netuid=netuid, destination=destination, hotkey=hotkey, owner=owner, incentive=alpha
        )  # fmt: skip
    staking.increase_stake(p, destination or hotkey, owner, netuid, alpha)


# -- validators -----------------------------------------------------------------------------------------------------


def _dividends(p: Subtensor, netuid: int, earned: Sequence[Earned], weight: int) -> dict[bytes, int]:
    """Per hotkey what it is owed before the pool decides the amounts: its own part and its parts as a parent."""
    owed: dict[bytes, int] = defaultdict(int)
    burn = u64_proportion(p.CKBurn.get())
    for one in earned:
        if not one.validator:  # nothing to split, but entries all the same: TotalHotkeyAlphaLastEpoch is of them too
            for hotkey in (*(parent for _, parent in staking.parents_of(p, one.hotkey, netuid)), one.hotkey):
                owed[hotkey] += 0
            continue
        split = _split(p, netuid, one, weight, burn)
        recycle(p, netuid, split.burned)
        for hotkey, amount in (*split.parents, (one.hotkey, split.own)):
            owed[hotkey] += amount
    return dict(sorted(owed.items()))


def _split(p: Subtensor, netuid: int, one: Earned, weight: int, burn: int) -> stake_rules.DividendSplit[bytes]:
    hotkey = one.hotkey
    given = [share for share, _ in staking.children_of(p, hotkey, netuid)]
    own = stake_rules.self_contribution(*_stakes(p, netuid, hotkey), given, weight)
    parents = [
        stake_rules.Parent(parent, *_stakes(p, netuid, parent), share, p.Owner[parent] == p.Owner[hotkey])
        for share, parent in staking.parents_of(p, hotkey, netuid)
    ]
    take = delegation.childkey_take(p, hotkey, netuid)
    return stake_rules.split_dividend(one.validator, own, parents, take, weight, burn)


def _pay_take(p: Subtensor, netuid: int, hotkey: bytes, dividend: U96F32, take: int, bonded: bool) -> None:
    """A delegate's take, to its owner; the whole dividend counts as earned by collateral, the take may go into it."""
    owner = p.Owner[hotkey]
    if bonded:
        take -= collateral.settle(p, netuid, hotkey, owner, to_u64(dividend, 32), take)
    staking.increase_stake(p, hotkey, owner, netuid, take)


def _pay_dividends(p: Subtensor, netuid: int, dividends: Mapping[bytes, coinbase.Dividends]) -> None:
    bonded = collateral.is_used(p, netuid)
    p.AlphaDividendsPerSubnet.clear(netuid)
    for hotkey, dividend in dividends.items():
        take, rest = coinbase.take_split(dividend.alpha, p.Delegates[hotkey])
        _pay_take(p, netuid, hotkey, dividend.alpha, take, bonded)
        staking.distribute_to_hotkey(p, hotkey, netuid, rest)
        if rest:
            p.AlphaDividendsPerSubnet[netuid, hotkey] = rest
        p.TotalHotkeyAlphaLastEpoch[hotkey, netuid] = p.TotalHotkeyAlpha[hotkey, netuid]
    p.RootAlphaDividendsPerSubnet.clear(netuid)
    for hotkey, dividend in dividends.items():
        take, rest = coinbase.take_split(dividend.root, p.Delegates[hotkey])
        _pay_take(p, netuid, hotkey, dividend.root, take, bonded)
        queue_root_dividend(p, hotkey, netuid, rest)
        if rest:
            p.RootAlphaDividendsPerSubnet[netuid, hotkey] = rest
