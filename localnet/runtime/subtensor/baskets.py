"""Baskets: the fund of each root validator.

    convert_holding, write_off   a holding becomes TAO, or nothing
    flush, deposit_next          root's part of epochs' dividends, queued by `distribution`, is deposited all at once
    before_root_change, after_root_change    what every change of root stake has to do

A dividend stays the alpha it came as: nothing is traded for a validator, who rearranges the fund with `swap_basket`
(`basket_trades`). What a fund is worth is in `basket_values`, trades in `basket_money`, redeeming and buying shares in
`root_claims`, what swapped keys and dissolved subnets do to funds in `fund_moves`, display prices in `beta_index`,
arithmetic in `localnet.rules.baskets`. Root weights no longer steer a fund as of spec 461, and no call sets them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from localnet.errors import DispatchError
from localnet.rules import baskets as rules
from localnet.rules.fixed import sub_floor0, to_u64
from localnet.runtime.subtensor import basket_money, beta_index, distribution, staking
from localnet.runtime.subtensor.basket_values import escrow_account, held, nav, realizable

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

ROOT = staking.ROOT


# -- holdings -------------------------------------------------------------------------------------------------------


def write_off(p: Subtensor, hotkey: bytes, netuid: int, alpha: int) -> None:
    """Alpha that left the fund unsold: nobody holds it, it still counts as issued."""
    p.rt.alpha_assets.burn(netuid, alpha)
    p.emit("BasketAlphaWrittenOff", hotkey=hotkey, netuid=netuid, alpha=alpha)


def convert_holding(p: Subtensor, hotkey: bytes, netuid: int) -> bool:
    """Sell a holding whole into the fund's root slot. False when nothing is held, or the sale failed and it stays."""
    alpha = held(p, hotkey, netuid)
    try:
        with p.rt.transaction():
            if not alpha:
                return False
            staking.decrease_stake(p, hotkey, escrow_account(p), netuid, alpha)
            if realizable(p, netuid, alpha) is None:
                write_off(p, hotkey, netuid, alpha)
                return True
            tao = basket_money.sell_for_root(p, netuid, alpha)
            basket_money.credit_root_slot(p, hotkey, tao)
            p.emit("BasketHoldingConverted", hotkey=hotkey, netuid=netuid, tao=tao)
    except DispatchError:  # any other failure may pass: the holding waits for the next attempt
        return False
    return True


def forget_sales(p: Subtensor) -> None:
    """SubnetRootSellTao counts what claims sold within a block."""
    if next(p.SubnetRootSellTao.keys(), None) is not None:
        p.SubnetRootSellTao.clear()


# -- the queue of dividends -----------------------------------------------------------------------------------------


def claim_threshold(p: Subtensor) -> int:
    """Least payout of a claim, and least value of a dividend worth depositing, rao."""
    return to_u64(p.RootClaimableThreshold[ROOT]["bits"], 32)


def flush(p: Subtensor, hotkey: bytes) -> bytes | None:
    """Deposit what is queued for a validator. Returns the storage key of its last entry, None without entries.

    Dividends below the threshold wait for more. Those of a subnet that is gone, and of a validator without a seat on
    root, are recycled.
    """
    threshold, seated = claim_threshold(p), p.Uids[ROOT, hotkey] is not None
    batch: list[tuple[int, int]] = []
    last = None
    for netuid, alpha in list(p.PendingBasketDeposits.items(hotkey)):
        last = p.PendingBasketDeposits.key((hotkey, netuid))
        if not seated or not p.NetworksAdded[netuid]:
            del p.PendingBasketDeposits[hotkey, netuid]
            distribution.recycle(p, netuid, alpha)
        elif to_u64(staking.spot_price(p, netuid) * alpha, 64) >= threshold:
            batch.append((netuid, alpha))
    for netuid, _ in batch:
        del p.PendingBasketDeposits[hotkey, netuid]
    if batch:
        _deposit(p, hotkey, batch)
    return last


def deposit_next(p: Subtensor) -> None:
    """One validator's queue a block, in turn; a block that finds the end of the queue only starts over."""
    entries, cursor = p.PendingBasketDeposits, p.PendingBasketFlushCursor.get()
    found = next(entries.keys_after(cursor), None)
    last = None if found is None else flush(p, found[0])
    if last is not None:
        p.PendingBasketFlushCursor.put(last)
    elif cursor is not None:
        p.PendingBasketFlushCursor.kill()


def _deposit(p: Subtensor, hotkey: bytes, batch: Sequence[tuple[int, int]]) -> None:
    """One mint for all queued dividends of a validator. One that fails goes back into the queue, alone if it can."""
    own = held(p, hotkey, ROOT)
    stakers = sub_floor0(p.TotalHotkeyAlpha[hotkey, ROOT], own)
    if not stakers:  # nobody it could belong to
        for netuid, alpha in batch:
            distribution.recycle(p, netuid, alpha)
        return
    try:
        with p.rt.transaction():
            before = nav(p, hotkey)
            added = [_accumulate(p, hotkey, netuid, alpha) for netuid, alpha in batch]
            values = [value for value in added if value is not None]
            if values:
                _mint_dividend(p, hotkey, before, sum(values), stakers, own)
    except DispatchError:  # too little for a share, or a market that fails: worth another try with what comes later
        for netuid, alpha in batch:
            distribution.queue_root_dividend(p, hotkey, netuid, alpha)
        return
    beta_index.stamp(p, hotkey)


def _accumulate(p: Subtensor, hotkey: bytes, netuid: int, alpha: int) -> int | None:
    """Credit a dividend to the holding of its own subnet. Returns the value it added, None when it was disposed of."""
    try:
        with p.rt.transaction():
            return _credit(p, hotkey, netuid, alpha)
    except DispatchError:  # only this one waits; the others are deposited
        distribution.queue_root_dividend(p, hotkey, netuid, alpha)
        return None


def _credit(p: Subtensor, hotkey: bytes, netuid: int, alpha: int) -> int | None:
    escrow, was = escrow_account(p), held(p, hotkey, netuid)
    before = realizable(p, netuid, was)
    if before is not None:
        staking.increase_stake(p, hotkey, escrow, netuid, alpha)
        now = held(p, hotkey, netuid)
        after = realizable(p, netuid, now)
        if after is not None:
            return sub_floor0(after, before)
        staking.decrease_stake(p, hotkey, escrow, netuid, sub_floor0(now, was))
    distribution.recycle(p, netuid, alpha)  # a dead pool: shares for it would be worth nothing
    return None


def _mint_dividend(p: Subtensor, hotkey: bytes, before: int, value: int, stakers: int, own: int) -> None:
    """Shares for the stakers' part of a dividend; the fund's own part raises the value of all shares.

    Raises Other when it is too small for a share or for the rate.
    """
    outstanding = p.BasketShares[hotkey]
    part = rules.stakers_part(value, stakers, own)
    shares = rules.shares_for_value(part, before, outstanding)
    increment = rules.rate_increment(shares, stakers)
    if not shares or not increment:
        raise DispatchError("Other", "basket deposit too small")
    begin_life(p, hotkey, before, outstanding)
    p.BasketShares[hotkey] = outstanding + shares
    p.BasketRate[hotkey] = {"bits": p.BasketRate[hotkey]["bits"] + increment}
    beta_index.accrue(p, hotkey, part, stakers)
    p.BasketDepositedTao[hotkey] = p.BasketDepositedTao[hotkey] + value
    p.emit("BasketDeposited", hotkey=hotkey, tao=value, shares=shares)


def begin_life(p: Subtensor, hotkey: bytes, before: int, outstanding: int) -> None:
    """A drained fund that takes a deposit again is a new one for those who look at its prices."""
    if not before and outstanding:
        beta_index.retire(p, hotkey)


# -- stakers --------------------------------------------------------------------------------------------------------


def owed_shares(p: Subtensor, hotkey: bytes, coldkey: bytes) -> int:
    """Shares that a coldkey may redeem."""
    stake = staking.stake_of(p, hotkey, coldkey, ROOT)
    return rules.owed_shares(p.BasketRate[hotkey]["bits"], stake, p.BasketClaimed[hotkey, coldkey])


def before_root_change(p: Subtensor, *hotkeys: bytes) -> None:
    """Dividends earned so far belong to those who are staked on root now."""
    for hotkey in dict.fromkeys(hotkeys):
        flush(p, hotkey)


def after_root_change(p: Subtensor, hotkey: bytes, coldkey: bytes, change: int) -> None:
    """The change itself neither earns nor costs a share; who stakes on root stands in an index."""
    rate = p.BasketRate[hotkey]["bits"]
    if rate:
        shift_claimed(p, hotkey, coldkey, rules.watermark_shift(rate, change))
    if change > 0:
        index_staker(p, coldkey)
    elif not any(staking.stake_of(p, known, coldkey, ROOT) for known in p.StakingHotkeys[coldkey]):
        unindex_staker(p, coldkey)


def shift_claimed(p: Subtensor, hotkey: bytes, coldkey: bytes, shares: int) -> None:
    """Move a staker's watermark. Below zero it stands for shares bought outright."""
    p.BasketClaimed[hotkey, coldkey] = p.BasketClaimed[hotkey, coldkey] + shares


def index_staker(p: Subtensor, coldkey: bytes) -> None:
    """Number a coldkey among those with root stake or a basket."""
    if p.StakingColdkeys[coldkey] is None:
        n = p.NumStakingColdkeys.get()
        p.StakingColdkeysByIndex[n] = coldkey
        p.StakingColdkeys[coldkey] = n
        p.NumStakingColdkeys.put(n + 1)


def unindex_staker(p: Subtensor, coldkey: bytes) -> None:
    """The last number fills the gap."""
    index = p.StakingColdkeys[coldkey]
    if index is None:
        return
    last = p.NumStakingColdkeys.get() - 1
    moved = p.StakingColdkeysByIndex[last]
    del p.StakingColdkeys[coldkey]
    del p.StakingColdkeysByIndex[last]
    if index != last and moved is not None:
        p.StakingColdkeysByIndex[index] = moved
        p.StakingColdkeys[moved] = index
    p.NumStakingColdkeys.put(last)
