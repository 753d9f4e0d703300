"""Calls of those who own baskets: redeem shares, buy shares, and the least payout.

    claim_root, claim_root_with_hotkey    shares become TAO, staked on root for the claimant
    stake_into_basket                     TAO becomes shares, by buying more of everything the fund holds
    sudo_set_root_claim_threshold         payouts below it are left to grow

A claim sells its part of each holding but pays no more than that part of what the whole holding would fetch; what a
small sale fetches above that stays with the fund. Claims say nothing when there is nothing to pay: they succeed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localnet.errors import DispatchError
from localnet.rules import baskets as rules
from localnet.runtime.framework import Origin, call, ensure_signed
from localnet.runtime.subtensor import basket_money, baskets, beta_index, networks, positions, staking
from localnet.runtime.subtensor.basket_values import escrow_account, held, holdings, nav, realizable, valued

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

ROOT = staking.ROOT
CLAIM_WEIGHT = 10_150_000_000
"""Picoseconds of a claim on one fund with one holding. The chain declares 256 of both and refunds what was not needed;
here nothing is refunded and every claim costs this."""


# -- claims ---------------------------------------------------------------------------------------------------------


@call(ref_time=CLAIM_WEIGHT)
def claim_root(p: Subtensor, origin: Origin, subnets: list[int]) -> None:
    """On every validator with root stake or bought shares. `subnets` means nothing since funds are claimed whole."""
    coldkey = ensure_signed(origin)
    known = p.StakingHotkeys[coldkey]
    if len(known) > rules.MAX_CLAIM_WORK:
        raise p.error("RootClaimTooHeavy")
    _claim(p, coldkey, [hotkey for hotkey in known if _concerns(p, hotkey, coldkey)])


@call(ref_time=CLAIM_WEIGHT)
def claim_root_with_hotkey(p: Subtensor, origin: Origin, hotkey: bytes) -> None:
    _claim(p, ensure_signed(origin), [hotkey])


def _concerns(p: Subtensor, hotkey: bytes, coldkey: bytes) -> bool:
    return bool(staking.stake_of(p, hotkey, coldkey, ROOT)) or p.BasketClaimed[hotkey, coldkey] < 0


def _claim(p: Subtensor, coldkey: bytes, hotkeys: Sequence[bytes]) -> None:
    escrow, work = escrow_account(p), len(hotkeys)
    for hotkey in hotkeys:
        work += sum(1 for entries in (p.Alpha, p.AlphaV2) for _ in entries.keys(hotkey, escrow))
    if work > rules.MAX_CLAIM_WORK:
        raise p.error("RootClaimTooHeavy")
    paid = sum(redeem(p, hotkey, coldkey) for hotkey in hotkeys)
    p.emit("RootClaimed", coldkey=coldkey, tao=paid)
    baskets.index_staker(p, coldkey)


@dataclass(frozen=True)
class _Holding:
    """One holding before the sale. `value` None: its pool is too small for any trade."""

    netuid: int
    alpha: int
    value: int | None


@dataclass
class _Proceeds:
    """Rao: reassigned in the fund's root slot, sold for the claimant, kept by the fund; holdings written off."""

    reassigned: int = 0
    sold: int = 0
    kept: int = 0
    written_off: int = 0


def redeem(p: Subtensor, hotkey: bytes, coldkey: bytes) -> int:
    """Pay out all shares that a coldkey owns of a fund; the rao. 0, and nothing changes, below the threshold.

    What lies in the queue is deposited first, and holdings that are too small to pay anybody become TAO. Raises the
    Swap pallet's errors other than ReservesTooLow.
    """
    baskets.flush(p, hotkey)
    outstanding = p.BasketShares[hotkey]
    shares = min(baskets.owed_shares(p, hotkey, coldkey), outstanding)
    if not shares:
        return 0
    _sweep_dust(p, hotkey)
    fund = [_Holding(netuid, alpha, realizable(p, netuid, alpha)) for netuid, alpha in holdings(p, hotkey)]
    worth = rules.payout(shares, sum(one.value or 0 for one in fund), outstanding)
    if all(one.value is not None for one in fund) and (not worth or worth < baskets.claim_threshold(p)):
        return 0
    try:
        with p.rt.transaction():
            return _settle(p, hotkey, coldkey, fund, shares)
    except _NothingRealized:
        return 0


class _NothingRealized(Exception):
    """All takes were rounded away: the shares must not be spent for that."""


def _sweep_dust(p: Subtensor, hotkey: bytes) -> None:
    threshold = baskets.claim_threshold(p)
    for netuid, alpha in holdings(p, hotkey) if threshold else ():
        if netuid == ROOT:
            continue
        try:
            value = realizable(p, netuid, alpha)
        except DispatchError:  # a market that fails today may trade tomorrow: the holding stays
            continue
        if value is None or value < threshold:
            baskets.convert_holding(p, hotkey, netuid)


def _settle(p: Subtensor, hotkey: bytes, coldkey: bytes, fund: Sequence[_Holding], shares: int) -> int:
    outstanding, got = p.BasketShares[hotkey], _Proceeds()
    for one in fund:
        _take(p, hotkey, one, shares, outstanding, got)
    paid = got.reassigned + got.sold
    if not paid and not got.written_off:
        raise _NothingRealized
    if got.kept:
        basket_money.credit_root_slot(p, hotkey, got.kept)
    if paid:
        staking.increase_stake(p, hotkey, coldkey, ROOT, paid)
        basket_money.credit_root_reserves(p, got.sold)
        p.LastColdkeyHotkeyStakeBlock[coldkey, hotkey] = p.rt.number
        baskets.after_root_change(p, hotkey, coldkey, paid)
    p.BasketShares[hotkey] = outstanding - shares
    if outstanding == shares:
        beta_index.retire(p, hotkey)
    baskets.shift_claimed(p, hotkey, coldkey, shares)
    p.BasketRedeemedTao[hotkey] = p.BasketRedeemedTao[hotkey] + paid
    p.emit("BasketClaimed", hotkey=hotkey, coldkey=coldkey, tao=paid)
    return paid


def _take(p: Subtensor, hotkey: bytes, one: _Holding, shares: int, outstanding: int, got: _Proceeds) -> None:
    """Take the claimant's part out of one holding: reassigned on root, written off on a dead pool, else sold."""
    entitled = rules.payout(shares, one.value or 0, outstanding)
    part = rules.slice_taken(one.alpha, shares, outstanding, 0 if one.netuid == ROOT else entitled)
    if not part:
        return
    staking.decrease_stake(p, hotkey, escrow_account(p), one.netuid, part)
    if one.netuid == ROOT:
        got.reassigned += part
        return
    tao = None if one.value is None else _sell(p, one.netuid, part)
    if tao is None:
        baskets.write_off(p, hotkey, one.netuid, part)
        got.written_off += 1
        return
    p.SubnetRootSellTao[one.netuid] = p.SubnetRootSellTao[one.netuid] + tao
    mine = tao if shares == outstanding else min(tao, entitled)  # the last one out leaves nothing behind
    got.sold += mine
    got.kept += tao - mine


def _sell(p: Subtensor, netuid: int, alpha: int) -> int | None:
    try:
        with p.rt.transaction():
            return basket_money.sell_for_root(p, netuid, alpha)
    except DispatchError as error:
        if basket_money.is_terminal(p, error):
            return None
        raise


@call(ref_time=10_000_000)
def sudo_set_root_claim_threshold(p: Subtensor, origin: Origin, netuid: int, new_value: int) -> None:
    """Only root's own entry means anything; the owner of root's entry is whoever owns subnet 0."""
    networks.ensure_owner_or_root(p, origin, netuid)
    if netuid != ROOT or new_value > rules.MAX_CLAIM_THRESHOLD:
        raise p.error("InvalidRootClaimThreshold")
    p.RootClaimableThreshold[netuid] = {"bits": new_value << 32}


# -- buying shares --------------------------------------------------------------------------------------------------


@call(ref_time=1_000_000_000)
def stake_into_basket(p: Subtensor, origin: Origin, hotkey: bytes, amount_staked: int) -> None:
    """The fund's own mix is bought, so composition stays; shares are the buyer's whatever it stakes on root."""
    coldkey = ensure_signed(origin)
    if not staking.hotkey_exists(p, hotkey):
        raise p.error("HotKeyAccountNotExists")
    if p.Uids[ROOT, hotkey] is None:
        raise p.error("HotKeyNotRegisteredInSubNet")
    if amount_staked < positions.min_stake(p):
        raise p.error("AmountTooLow")
    if p.rt.balances.reducible(coldkey, keep_alive=False) < amount_staked:
        raise p.error("NotEnoughBalanceToStake")
    baskets.flush(p, hotkey)
    _buy_shares(p, hotkey, coldkey, amount_staked)
    beta_index.stamp(p, hotkey)


def _buy_shares(p: Subtensor, hotkey: bytes, coldkey: bytes, tao: int) -> None:
    fund, outstanding = valued(p, hotkey), p.BasketShares[hotkey]
    before = sum(value for _, _, value in fund)
    _deploy(p, hotkey, coldkey, tao, fund)
    added = max(nav(p, hotkey) - before, 0)
    shares = rules.shares_for_value(added, before, outstanding)
    if outstanding:
        # Shares redeem the same part of every holding: no more of them than the deposit bought of the least one.
        bought = [rules.mul_div(held(p, hotkey, netuid) - alpha, outstanding, alpha) for netuid, alpha, _ in fund]
        shares = min([shares, *bought])
    if not shares:
        raise p.error("AmountTooLow")
    baskets.begin_life(p, hotkey, before, outstanding)
    p.BasketShares[hotkey] = outstanding + shares
    baskets.shift_claimed(p, hotkey, coldkey, -shares)
    p.BasketDepositedTao[hotkey] = p.BasketDepositedTao[hotkey] + added
    if hotkey not in p.StakingHotkeys[coldkey]:
        p.StakingHotkeys[coldkey] = [*p.StakingHotkeys[coldkey], hotkey]
    baskets.index_staker(p, coldkey)
    p.emit("BasketStakedIn", hotkey=hotkey, coldkey=coldkey, tao=tao, value=added, shares=shares)


def _deploy(p: Subtensor, hotkey: bytes, coldkey: bytes, tao: int, fund: Sequence[tuple[int, int, int]]) -> None:
    """Buy each holding in proportion to its value; an empty fund keeps the TAO in its root slot.

    Raises AmountTooLow when a part is too small to buy anything, which a holding on a dead pool makes of every deposit.
    """
    netuids = [netuid for netuid, _, _ in fund] or [ROOT]
    parts = rules.deployment(tao, [value for _, _, value in fund] or [1])
    for netuid, part in zip(netuids, parts, strict=True):
        if not part:
            raise p.error("AmountTooLow")
        if positions.pay_subnet(p, netuid, coldkey, part) != part:
            raise p.error("InsufficientTaoBalance")
        if netuid == ROOT:
            basket_money.credit_root_slot(p, hotkey, part)
            continue
        alpha = basket_money.buy(p, netuid, part)
        if not alpha:
            raise p.error("AmountTooLow")
        basket_money.record_flow(p, netuid, part)
        staking.increase_stake(p, hotkey, escrow_account(p), netuid, alpha)
