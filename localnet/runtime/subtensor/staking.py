"""Stake: who holds how much alpha, and how TAO becomes alpha and back.

Two layers; positions (money, market and shares in one step) are in `positions`, the calls in `stake_calls` and
`stake_moves`.

    share pools    stake_of, increase_stake, decrease_stake, distribute_to_hotkey: one pool per (hotkey, netuid); all
                   nominators hold shares of it. The arithmetic is `localnet.rules.shares`.
    the market     pool_of, spot_price, swap_tao_for_alpha, swap_alpha_for_tao: reserves, outstanding alpha, volume and
                   total stake move together. The arithmetic is `localnet.rules.swap`. Root trades one to one.

Amounts: `tao` in rao, `alpha` in 1e-9 alpha, both u64. A refused trade is a dispatch error of the Swap pallet with the
name the rule gave it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from localnet.rules import stake as stake_rules
from localnet.rules import swap as market
from localnet.rules.accounts import pallet_account
from localnet.rules.errors import SwapError
from localnet.rules.fixed import I64F64, I96F32, ONE32, ONE64, U64F64, sub_floor0, to_u64
from localnet.rules.shares import ZERO, SafeFloat, Shares, from_u64f64, update_all, update_is_visible, update_one

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

ROOT = 0  # netuid of the root network
STABLE = 0  # SubnetMechanism of a subnet without a market: alpha is TAO


# -- accounts -------------------------------------------------------------------------------------------------------


def subnet_account(p: Subtensor, netuid: int) -> bytes:
    """The account that holds a subnet's TAO."""
    return pallet_account(p.rt.document.constants[p.name, "SubtensorPalletId"], netuid.to_bytes(2, "little"))


def burn_account(p: Subtensor) -> bytes:
    """Where burned TAO goes: it stays issued and nobody can move it."""
    return pallet_account(p.rt.document.constants[p.name, "BurnAccountId"])


def hotkey_exists(p: Subtensor, hotkey: bytes) -> bool:
    """A hotkey has an account once somebody owns it; its balance does not matter."""
    return hotkey in p.Owner


def owns(p: Subtensor, coldkey: bytes, hotkey: bytes) -> bool:
    return hotkey_exists(p, hotkey) and p.Owner[hotkey] == coldkey


def become_delegate(p: Subtensor, hotkey: bytes) -> None:
    """Give a hotkey its default take when somebody else's stake arrives for the first time."""
    if hotkey_exists(p, hotkey) and hotkey not in p.Delegates:
        p.Delegates[hotkey] = p.MaxDelegateTake.get()


# -- share pools ----------------------------------------------------------------------------------------------------


def _pool_epoch(p: Subtensor, hotkey: bytes, netuid: int) -> int:
    return p.AlphaSharePoolEpoch[hotkey, netuid]


def share_of(p: Subtensor, hotkey: bytes, coldkey: bytes, netuid: int) -> SafeFloat:
    """A holder's shares. Shares of a pool that was emptied since count for nothing; legacy entries are still read."""
    epoch = _pool_epoch(p, hotkey, netuid)
    if epoch and p.AlphaShareEpoch[hotkey, coldkey, netuid] != epoch:
        return ZERO
    key = (hotkey, coldkey, netuid)
    if key not in p.AlphaV2 and key in p.Alpha:
        return from_u64f64(p.Alpha[key]["bits"])
    return SafeFloat(**p.AlphaV2[key])


def denominator_of(p: Subtensor, hotkey: bytes, netuid: int) -> SafeFloat:
    """All shares of a hotkey's pool together."""
    key = (hotkey, netuid)
    if key not in p.TotalHotkeySharesV2 and key in p.TotalHotkeyShares:
        return from_u64f64(p.TotalHotkeyShares[key]["bits"])
    return SafeFloat(**p.TotalHotkeySharesV2[key])


def _shares(p: Subtensor, hotkey: bytes, coldkey: bytes, netuid: int) -> Shares:
    value, whole = p.TotalHotkeyAlpha[hotkey, netuid], denominator_of(p, hotkey, netuid)
    return Shares(value, whole, share_of(p, hotkey, coldkey, netuid))


def stake_of(p: Subtensor, hotkey: bytes, coldkey: bytes, netuid: int) -> int:
    """A coldkey's alpha on a hotkey: its part of the pool, floored."""
    return _shares(p, hotkey, coldkey, netuid).holding


def _set_value(p: Subtensor, hotkey: bytes, netuid: int, value: int) -> None:
    p.TotalAlphaStaked[netuid] = p.TotalAlphaStaked[netuid] + value - p.TotalHotkeyAlpha[hotkey, netuid]
    if value:
        p.TotalHotkeyAlpha[hotkey, netuid] = value
    else:
        del p.TotalHotkeyAlpha[hotkey, netuid]


def _store_shares(p: Subtensor, hotkey: bytes, coldkey: bytes, netuid: int, pool: Shares) -> None:
    position, key = (hotkey, coldkey, netuid), (hotkey, netuid)
    _set_value(p, hotkey, netuid, pool.value)
    del p.Alpha[position]
    del p.TotalHotkeyShares[key]
    epoch = _pool_epoch(p, hotkey, netuid)
    if pool.share.is_zero:
        del p.AlphaV2[position]
        del p.AlphaShareEpoch[position]
    else:
        p.AlphaV2[position] = {"mantissa": pool.share.mantissa, "exponent": pool.share.exponent}
        if epoch:
            p.AlphaShareEpoch[position] = epoch
    if pool.denominator.is_zero:  # closed: shares that rounding left behind must not own what comes later
        del p.TotalHotkeySharesV2[key]
        p.AlphaSharePoolEpoch[key] = epoch + 1
    else:
        p.TotalHotkeySharesV2[key] = {"mantissa": pool.denominator.mantissa, "exponent": pool.denominator.exponent}


def _remember_hotkey(p: Subtensor, hotkey: bytes, coldkey: bytes) -> None:
    known = p.StakingHotkeys[coldkey]
    if hotkey not in known:
        p.StakingHotkeys[coldkey] = [*known, hotkey]


def can_credit(p: Subtensor, hotkey: bytes, netuid: int, alpha: int) -> bool:
    """False when `alpha` is too small to buy a single share of the pool as it is."""
    return update_is_visible(p.TotalHotkeyAlpha[hotkey, netuid], denominator_of(p, hotkey, netuid), alpha)


def increase_stake(p: Subtensor, hotkey: bytes, coldkey: bytes, netuid: int, alpha: int) -> None:
    """Credit one holder. Nothing else moves: no money, no reserves, no event."""
    if not alpha:
        return
    _remember_hotkey(p, hotkey, coldkey)
    _store_shares(p, hotkey, coldkey, netuid, update_one(_shares(p, hotkey, coldkey, netuid), alpha))


def decrease_stake(p: Subtensor, hotkey: bytes, coldkey: bytes, netuid: int, alpha: int) -> None:
    """Debit one holder. Raises NotEnoughStakeToWithdraw when the position is smaller."""
    pool = _shares(p, hotkey, coldkey, netuid)
    if pool.holding < alpha:
        raise p.error("NotEnoughStakeToWithdraw")
    if alpha:
        _store_shares(p, hotkey, coldkey, netuid, update_one(pool, -alpha))


def distribute_to_hotkey(p: Subtensor, hotkey: bytes, netuid: int, alpha: int) -> None:
    """A dividend for all holders pro rata: the pool's value grows, its shares stay.

    A pool without holders takes the value too, as on chain; the first depositor then owns it.
    """
    _set_value(p, hotkey, netuid, update_all(p.TotalHotkeyAlpha[hotkey, netuid], alpha))


def has_stake_anywhere(p: Subtensor, hotkey: bytes, coldkey: bytes) -> bool:
    held = p.AlphaV2.keys(hotkey, coldkey)
    return any(not share_of(p, hotkey, coldkey, netuid).is_zero for netuid in held) or any(
        not share_of(p, hotkey, coldkey, netuid).is_zero for netuid in p.Alpha.keys(hotkey, coldkey)
    )


def forget_hotkey(p: Subtensor, hotkey: bytes, coldkey: bytes) -> None:
    """Drop a hotkey from the coldkey's list once nothing is staked there any more."""
    if has_stake_anywhere(p, hotkey, coldkey) or p.BasketClaimed[hotkey, coldkey]:
        return
    left = [known for known in p.StakingHotkeys[coldkey] if known != hotkey]
    if left:
        p.StakingHotkeys[coldkey] = left
    else:
        del p.StakingHotkeys[coldkey]


# -- stake weight ---------------------------------------------------------------------------------------------------


def _is_suspended(p: Subtensor, parent: bytes, netuid: int) -> bool:
    """A parent below StakeThreshold keeps its children, and they count for nothing but on a subnet it owns."""
    return parent in p.ChildkeyThresholdSuspended and p.SubnetOwnerHotkey[netuid] != parent


def children_of(p: Subtensor, parent: bytes, netuid: int) -> list[tuple[int, bytes]]:
    """(proportion, child) of the children that count."""
    edges = p.ChildKeys[parent, netuid]
    return [] if edges and _is_suspended(p, parent, netuid) else edges


def parents_of(p: Subtensor, child: bytes, netuid: int) -> list[tuple[int, bytes]]:
    """(proportion, parent) of the parents that count."""
    return [edge for edge in p.ParentKeys[child, netuid] if not _is_suspended(p, edge[1], netuid)]


def queue_parent_check(p: Subtensor, hotkey: bytes) -> None:
    """A parent's stake has changed: whether its children count is looked at when the block ends (`children`)."""
    if hotkey in p.ChildkeyThresholdSuspended or next(p.ChildKeys.keys(hotkey), None) is not None:
        p.ChildkeyThresholdChecks[hotkey] = ()


def _inherited(p: Subtensor, hotkey: bytes, netuid: int, of: int) -> int:
    """Stake on subnet `of`, less what children got and plus what parents gave on `netuid`."""
    given = [share for share, _ in children_of(p, hotkey, netuid)]
    received = [(p.TotalHotkeyAlpha[parent, of], share) for share, parent in parents_of(p, hotkey, netuid)]
    return stake_rules.inherited(p.TotalHotkeyAlpha[hotkey, of], given, received)


def inherited_weights(p: Subtensor, netuid: int, hotkeys: Sequence[bytes]) -> list[tuple[I64F64, int, int]]:
    """(total weight, inherited alpha, inherited root TAO before the TAO weight) of each hotkey on a subnet."""
    weight = stake_rules.tao_weight(p.TaoWeight.get())
    rows = []
    for hotkey in hotkeys:
        alpha, tao = _inherited(p, hotkey, netuid, netuid), _inherited(p, hotkey, netuid, ROOT)
        rows.append((stake_rules.stake_weight(alpha, tao, weight), alpha, tao))
    return rows


def total_stake_of_hotkey(p: Subtensor, hotkey: bytes) -> int:
    """A hotkey's stake on all subnets, in rao at spot prices."""
    held = ((netuid, p.TotalHotkeyAlpha[hotkey, netuid]) for netuid in p.NetworksAdded.keys())
    return to_u64(sum(alpha * spot_price(p, netuid) for netuid, alpha in held if alpha), 64)


# -- the market -----------------------------------------------------------------------------------------------------


def is_stable(p: Subtensor, netuid: int) -> bool:
    """Root, and subnets without a market, trade one to one."""
    return netuid == ROOT or p.SubnetMechanism[netuid] == STABLE


def pool_of(p: Subtensor, netuid: int) -> market.Pool:
    weight = p.rt.swap.SwapBalancer[netuid]["quote"]
    return market.Pool(p.SubnetTAO[netuid], p.SubnetAlphaIn[netuid], weight)


def spot_price(p: Subtensor, netuid: int) -> U64F64:
    """TAO per alpha."""
    return ONE64 if is_stable(p, netuid) else market.price(pool_of(p, netuid))


def moving_price(p: Subtensor, netuid: int) -> I96F32:
    """The spot price's slow average, TAO per alpha; a subnet without a market always counts as one."""
    return ONE32 if is_stable(p, netuid) else max(p.SubnetMovingPrice[netuid]["bits"], 0)


def fee_rate(p: Subtensor, netuid: int) -> int:
    """The subnet's swap fee, of 65535."""
    return p.rt.swap.FeeRate[netuid]


def simulate_buy(p: Subtensor, netuid: int, tao: int, limit: int | None = None, with_fee: bool = True) -> market.Swap:
    """What `tao` would buy. Raises SwapError."""
    if is_stable(p, netuid):
        return market.Swap(tao, tao, 0)
    rate = fee_rate(p, netuid) if with_fee else 0
    return market.buy(pool_of(p, netuid), tao, rate, market.MAX_PRICE if limit is None else limit)


def simulate_sell(
    p: Subtensor, netuid: int, alpha: int, limit: int | None = None, with_fee: bool = True
) -> market.Swap:
    """What `alpha` would fetch. Raises SwapError."""
    if is_stable(p, netuid):
        return market.Swap(alpha, alpha, 0)
    rate = fee_rate(p, netuid) if with_fee else 0
    return market.sell(pool_of(p, netuid), alpha, rate, market.MIN_PRICE if limit is None else limit)


def swap_tao_for_alpha(
    p: Subtensor, netuid: int, tao: int, limit: int | None = None, with_fee: bool = True
) -> market.Swap:
    """Buy alpha with TAO that is already on the subnet's account; the fee (in TAO) stays there for the caller to place.

    `limit`: highest price, TAO per alpha times 1e9; None for any. Raises the Swap pallet's errors.
    """
    try:
        swap = simulate_buy(p, netuid, tao, limit, with_fee)
    except SwapError as error:
        raise p.rt.swap.error(error.name) from error
    p.SubnetAlphaIn[netuid] = sub_floor0(p.SubnetAlphaIn[netuid], swap.paid_out)
    p.SubnetAlphaOut[netuid] = p.SubnetAlphaOut[netuid] + swap.paid_out
    p.SubnetTAO[netuid] = p.SubnetTAO[netuid] + swap.paid_in
    p.TotalStake.put(p.TotalStake.get() + swap.paid_in + swap.fee)  # the fee too, as on chain
    p.SubnetVolume[netuid] = p.SubnetVolume[netuid] + tao
    return swap


def swap_alpha_for_tao(
    p: Subtensor, netuid: int, alpha: int, limit: int | None = None, with_fee: bool = True
) -> market.Swap:
    """Sell alpha; the TAO is still on the subnet's account, the fee (in alpha) is for the caller to place.

    `limit`: lowest price, TAO per alpha times 1e9; None for any. Raises the Swap pallet's errors.
    """
    try:
        swap = simulate_sell(p, netuid, alpha, limit, with_fee)
    except SwapError as error:
        raise p.rt.swap.error(error.name) from error
    p.SubnetAlphaIn[netuid] = p.SubnetAlphaIn[netuid] + swap.paid_in
    p.SubnetAlphaOut[netuid] = sub_floor0(p.SubnetAlphaOut[netuid], swap.paid_in)
    p.SubnetTAO[netuid] = sub_floor0(p.SubnetTAO[netuid], swap.paid_out)
    p.TotalStake.put(sub_floor0(p.TotalStake.get(), swap.paid_out))
    p.SubnetVolume[netuid] = p.SubnetVolume[netuid] + swap.paid_out
    return swap
