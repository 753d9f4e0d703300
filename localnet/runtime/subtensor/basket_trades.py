"""swap_basket: a validator rearranges its fund. Shares and what stakers own of it stay as they are.

One holding is sold for TAO and another bought with it; netuid 0 on either side is the fund's TAO. Off until root
switches trading on. What a stolen key could do with it is bounded four times: each leg close to two moving prices and
the spot price, a daily turnover, a part of the bought pool's alpha, and a part of the fund.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from localnet.rules import baskets as rules
from localnet.runtime.framework import Origin, call, ensure_signed
from localnet.runtime.subtensor import basket_money, baskets, networks, positions, stake_calls, staking
from localnet.runtime.subtensor.basket_values import (
    escrow_account,
    guarded,
    held,
    holdings,
    marketable,
    realizable,
    slow_price,
    valued,
)

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

ROOT = staking.ROOT


@call(ref_time=1_000_000_000)
def swap_basket(
    p: Subtensor,
    origin: Origin,
    hotkey: bytes,
    origin_netuid: int,
    destination_netuid: int,
    amount: int,
    min_amount_out: int,
) -> None:
    coldkey = ensure_signed(origin)
    _check(p, coldkey, hotkey, origin_netuid, destination_netuid, amount)
    baskets.flush(p, hotkey)
    if amount > held(p, hotkey, origin_netuid):
        raise p.error("NotEnoughStakeToWithdraw")
    tao, bought = _trade(p, hotkey, origin_netuid, destination_netuid, amount, min_amount_out)
    p.emit(
        "BasketSwapped",
        hotkey=hotkey,
        origin_netuid=origin_netuid,
        destination_netuid=destination_netuid,
        alpha_sold=amount,
        tao_mid=tao,
        alpha_bought=bought,
    )


def _check(p: Subtensor, coldkey: bytes, hotkey: bytes, source: int, target: int, amount: int) -> None:
    if not p.BasketTradingEnabled.get():
        raise p.error("BasketTradingDisabled")
    if hotkey in p.BasketTradingFrozen:
        raise p.error("BasketTradingFrozen")
    if source == target:
        raise p.error("BasketSameSubnet")
    if not staking.owns(p, coldkey, hotkey):
        raise p.error("NonAssociatedColdKey")
    if p.Uids[ROOT, hotkey] is None:
        raise p.error("HotKeyNotRegisteredInSubNet")
    for netuid in (source, target):
        if netuid != ROOT:
            stake_calls.ensure_subnet(p, netuid)
    if target != ROOT:
        stake_calls.ensure_subtoken(p, target)
    if not amount:
        raise p.error("AmountTooLow")


def _trade(p: Subtensor, hotkey: bytes, source: int, target: int, amount: int, least: int) -> tuple[int, int]:
    """(TAO in the middle, alpha or TAO bought)."""
    marks = {netuid: guarded(p, netuid, alpha, value) for netuid, alpha, value in valued(p, hotkey)}
    before = sum(marks.values())
    tao = _sell_leg(p, hotkey, source, amount)
    if tao < positions.min_stake(p):
        raise p.error("AmountTooLow")
    _spend_budget(p, hotkey, before, tao)
    basket_money.move_cash(p, source, target, tao)
    bought = _buy_leg(p, hotkey, target, tao)
    if bought < least:
        raise p.error("BasketMinOutNotMet")
    if target != ROOT and not rules.within_cap(
        held(p, hotkey, target), p.SubnetAlphaIn[target], p.BasketLiquidityCap.get()
    ):
        raise p.error("BasketLiquidityCapExceeded")
    _ensure_spread(p, hotkey, source, target, before - marks.get(source, 0) - marks.get(target, 0))
    return tao, bought


def _ensure_spread(p: Subtensor, hotkey: bytes, source: int, target: int, others: int) -> None:
    """What was bought may not be more than its cap of the fund. Raises BasketConcentrationCapExceeded."""
    left, bought = held(p, hotkey, source), held(p, hotkey, target)
    left_value, bought_value = realizable(p, source, left) or 0, realizable(p, target, bought) or 0
    total = others + guarded(p, source, left, left_value) + guarded(p, target, bought, bought_value)
    cap = p.BasketConcentrationCap.get()
    if rules.concentration_binds(cap, len(networks.netuids(p))) and not rules.within_cap(bought_value, total, cap):
        raise p.error("BasketConcentrationCapExceeded")


def _spend_budget(p: Subtensor, hotkey: bytes, fund: int, tao: int) -> None:
    budget = rules.trade_budget(fund, p.BasketDailyTurnoverCap.get())
    available = rules.bucket_level(p.BasketTradeBucket[hotkey], p.rt.number, budget)
    if tao > available:
        raise p.error("BasketTurnoverBudgetExceeded")
    p.BasketTradeBucket[hotkey] = (available - tao, p.rt.number)


def _limit(p: Subtensor, netuid: int, *, buying: bool) -> int:
    fast = p.SubnetFastMovingPrice[netuid]
    spot = staking.spot_price(p, netuid)
    limit = rules.price_limit(spot, slow_price(p, netuid), 0 if fast is None else fast["bits"], buying=buying)
    if limit is None:
        raise p.error("SlippageTooHigh")
    return limit


def _sell_leg(p: Subtensor, hotkey: bytes, netuid: int, alpha: int) -> int:
    """The TAO; it lies on the subnet's account."""
    if netuid == ROOT:
        basket_money.debit_root_slot(p, hotkey, alpha)
        return alpha
    staking.decrease_stake(p, hotkey, escrow_account(p), netuid, alpha)
    swap = staking.swap_alpha_for_tao(p, netuid, alpha, _limit(p, netuid, buying=False))
    if swap.paid_in + swap.fee != alpha:
        raise p.error("SlippageTooHigh")
    if not swap.paid_out:
        raise p.error("AmountTooLow")
    basket_money.record_flow(p, netuid, -swap.paid_out - positions.settle_alpha_fee(p, netuid, swap.fee))
    return swap.paid_out


def _buy_leg(p: Subtensor, hotkey: bytes, netuid: int, tao: int) -> int:
    """What the fund got for TAO that lies on the subnet's account."""
    if netuid == ROOT:
        basket_money.credit_root_slot(p, hotkey, tao)
        return tao
    swap = staking.swap_tao_for_alpha(p, netuid, tao, _limit(p, netuid, buying=True))
    if swap.paid_in + swap.fee != tao:
        raise p.error("SlippageTooHigh")
    if not swap.paid_out:
        raise p.error("AmountTooLow")
    positions.settle_tao_fee(p, netuid, swap.fee)
    basket_money.record_flow(p, netuid, swap.paid_in)
    staking.increase_stake(p, hotkey, escrow_account(p), netuid, swap.paid_out)
    return swap.paid_out


def available(p: Subtensor, hotkey: bytes) -> tuple[int, int]:
    """(TAO a trade could move now, the whole budget) of a fund, rao."""
    fund = sum(guarded(p, netuid, alpha, marketable(p, netuid, alpha)) for netuid, alpha in holdings(p, hotkey))
    budget = rules.trade_budget(fund, p.BasketDailyTurnoverCap.get())
    return rules.bucket_level(p.BasketTradeBucket[hotkey], p.rt.number, budget), budget
