"""BetaBasketRuntimeApi: what validators' baskets hold, what they are worth, and whose they are.

    owed, payout, NAV                 in rao, at what the holdings would fetch now
    holdings, summaries, positions    the same per fund and per coldkey, with values at spot prices beside
    beta pricing, index, positions    prices made comparable between funds (`localnet.runtime.subtensor.beta_index`)
    trading status                    what a validator could move with `swap_basket` now

For a view a holding that cannot be sold is worth nothing, whatever the reason; calls fail instead where it may pass.
Dividends that wait in the queue are in none of these figures until they are deposited.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from localnet.rules import baskets as rules
from localnet.runtime.apis.registry import api
from localnet.runtime.subtensor import basket_trades, baskets, beta_index
from localnet.runtime.subtensor.basket_values import holdings, marketable, spot_value

if TYPE_CHECKING:
    from localnet.runtime.runtime import SpecRuntime
    from localnet.runtime.subtensor.pallet import Subtensor

PREFIX = "BetaBasketRuntimeApi_"
Fields = dict[str, Any]


def _nav(p: Subtensor, hotkey: bytes) -> int:
    return sum(marketable(p, netuid, alpha) for netuid, alpha in holdings(p, hotkey))


def _spot_nav(p: Subtensor, hotkey: bytes) -> int:
    return sum(spot_value(p, netuid, alpha) for netuid, alpha in holdings(p, hotkey))


def _shares(p: Subtensor, hotkey: bytes, coldkey: bytes) -> int:
    """Shares that a coldkey could redeem."""
    return min(baskets.owed_shares(p, hotkey, coldkey), p.BasketShares[hotkey])


def _payout(p: Subtensor, hotkey: bytes, shares: int) -> int:
    return rules.payout(shares, _nav(p, hotkey), p.BasketShares[hotkey]) if shares else 0


def _owned(p: Subtensor, coldkey: bytes) -> Iterator[tuple[bytes, int]]:
    """(hotkey, shares) of each fund in which a coldkey could redeem something."""
    for hotkey in p.StakingHotkeys[coldkey]:
        shares = _shares(p, hotkey, coldkey)
        if shares:
            yield hotkey, shares


# -- owed and held --------------------------------------------------------------------------------------------------


@api(PREFIX + "get_root_basket_owed")
def get_root_basket_owed(rt: SpecRuntime, coldkey: bytes) -> int:
    p = rt.subtensor
    return sum(_payout(p, hotkey, shares) for hotkey, shares in _owned(p, coldkey))


@api(PREFIX + "get_basket_payout")
def get_basket_payout(rt: SpecRuntime, hotkey: bytes, coldkey: bytes) -> int:
    p = rt.subtensor
    return _payout(p, hotkey, _shares(p, hotkey, coldkey))


@api(PREFIX + "get_validator_basket_nav")
def get_validator_basket_nav(rt: SpecRuntime, hotkey: bytes) -> int:
    return _nav(rt.subtensor, hotkey)


@api(PREFIX + "get_validator_basket")
def get_validator_basket(rt: SpecRuntime, hotkey: bytes) -> list[tuple[int, int, int]]:
    p = rt.subtensor
    return [(netuid, alpha, marketable(p, netuid, alpha)) for netuid, alpha in holdings(p, hotkey)]


@api(PREFIX + "get_root_basket_total_nav")
def get_root_basket_total_nav(rt: SpecRuntime) -> int:
    p = rt.subtensor
    return sum(_nav(p, hotkey) for hotkey in p.BasketShares.keys())


@api(PREFIX + "get_root_basket_positions")
def get_root_basket_positions(rt: SpecRuntime, coldkey: bytes) -> list[tuple[bytes, int, int]]:
    """(hotkey, shares, what they would pay)."""
    p = rt.subtensor
    return [(hotkey, shares, _payout(p, hotkey, shares)) for hotkey, shares in _owned(p, coldkey)]


# -- with values at spot prices -------------------------------------------------------------------------------------


def _holding(p: Subtensor, netuid: int, alpha: int) -> Fields:
    spot, realizable = spot_value(p, netuid, alpha), marketable(p, netuid, alpha)
    return {"netuid": netuid, "alpha": alpha, "spot_tao": spot, "realizable_tao": realizable}


@api(PREFIX + "get_validator_basket_summary")
def get_validator_basket_summary(rt: SpecRuntime, hotkey: bytes) -> Fields:
    p = rt.subtensor
    held = [_holding(p, netuid, alpha) for netuid, alpha in holdings(p, hotkey)]
    return {
        "hotkey": hotkey,
        "nav_tao": sum(one["realizable_tao"] for one in held),
        "spot_nav_tao": sum(one["spot_tao"] for one in held),
        "shares": p.BasketShares[hotkey],
        "deposited_tao": p.BasketDepositedTao[hotkey],
        "redeemed_tao": p.BasketRedeemedTao[hotkey],
        "holdings": held,
    }


@api(PREFIX + "get_all_validator_baskets")
def get_all_validator_baskets(rt: SpecRuntime) -> list[Fields]:
    return [get_validator_basket_summary(rt, hotkey) for hotkey in rt.subtensor.BasketShares.keys()]


@api(PREFIX + "get_basket_position")
def get_basket_position(rt: SpecRuntime, hotkey: bytes, coldkey: bytes) -> Fields | None:
    """None for a coldkey that owns nothing of the fund."""
    p = rt.subtensor
    shares, outstanding = _shares(p, hotkey, coldkey), p.BasketShares[hotkey]
    if not shares:
        return None
    nav = _nav(p, hotkey)
    return {
        "hotkey": hotkey,
        "beta": shares,
        "beta_total": outstanding,
        "nav_tao": nav,
        "value_tao": rules.payout(shares, nav, outstanding),
        "spot_value_tao": rules.payout(shares, _spot_nav(p, hotkey), outstanding),
    }


@api(PREFIX + "get_root_basket_portfolio")
def get_root_basket_portfolio(rt: SpecRuntime, coldkey: bytes) -> list[Fields]:
    found = (get_basket_position(rt, hotkey, coldkey) for hotkey in rt.subtensor.StakingHotkeys[coldkey])
    return [position for position in found if position is not None]


# -- comparable prices ----------------------------------------------------------------------------------------------


def _marks(p: Subtensor, hotkey: bytes) -> tuple[int, int, rules.Marks]:
    """(spot NAV, shares, prices) of a fund."""
    nav, shares = _spot_nav(p, hotkey), p.BasketShares[hotkey]
    return nav, shares, beta_index.marks(p, hotkey, rules.raw_price(nav, shares))


@api(PREFIX + "get_beta_pricing")
def get_beta_pricing(rt: SpecRuntime, hotkey: bytes) -> Fields | None:
    """None for a fund without shares."""
    p = rt.subtensor
    nav, shares, marks = _marks(p, hotkey)
    if not shares:
        return None
    bag, stake = beta_index.levels(p)
    prices = {
        "spot_price": rules.raw_price(nav, shares),
        "display_price": marks.display,
        "stake_price": marks.stake,
        "staker_yield": marks.staker_yield,
        "staker_twr": p.BasketTwr[hotkey]["bits"],
        "bag_index": bag,
        "stake_index": stake,
    }
    return {
        "hotkey": hotkey,
        **{name: {"bits": bits} for name, bits in prices.items()},
        "first_block": marks.first_block,
        "provisional": marks.provisional,
        "spot_nav_tao": nav,
        "shares": shares,
        "display_shares": {"bits": rules.display_amount(shares, marks.divisor)},
    }


@api(PREFIX + "get_all_beta_pricing")
def get_all_beta_pricing(rt: SpecRuntime, cursor: bytes | None, limit: int) -> Fields:
    """The page after the fund `cursor`; `next` is the cursor of the page after it. Limit 0: as much as a page holds."""
    p = rt.subtensor
    size = min(limit, rules.PRICING_PAGE) or rules.PRICING_PAGE
    after = b"" if cursor is None else p.BasketShares.key(cursor)
    rows = [hotkey for hotkey in p.BasketShares.keys() if p.BasketShares.key(hotkey) > after]
    page = rows[:size]
    found = (get_beta_pricing(rt, hotkey) for hotkey in page)
    pricing = [one for one in found if one is not None]
    return {"pricing": pricing, "next": page[-1] if len(rows) > size else None}


@api(PREFIX + "get_beta_index")
def get_beta_index(rt: SpecRuntime) -> tuple[Fields, Fields]:
    bag, stake = beta_index.levels(rt.subtensor)
    return {"bits": bag}, {"bits": stake}


@api(PREFIX + "get_beta_position")
def get_beta_position(rt: SpecRuntime, hotkey: bytes, coldkey: bytes) -> Fields | None:
    """None for a coldkey that owns nothing of the fund."""
    p = rt.subtensor
    beta = _shares(p, hotkey, coldkey)
    if not beta:
        return None
    nav, shares, marks = _marks(p, hotkey)
    display = rules.display_amount(beta, marks.divisor)
    return {
        "hotkey": hotkey,
        "beta": beta,
        "display_beta": {"bits": display},
        "display_price": {"bits": marks.display},
        "value_tao": _payout(p, hotkey, beta),
        "spot_value_tao": rules.payout(beta, nav, shares),
        "provisional": marks.provisional,
    }


@api(PREFIX + "get_beta_portfolio")
def get_beta_portfolio(rt: SpecRuntime, coldkey: bytes) -> list[Fields]:
    found = (get_beta_position(rt, hotkey, coldkey) for hotkey in rt.subtensor.StakingHotkeys[coldkey])
    return [position for position in found if position is not None]


# -- trading --------------------------------------------------------------------------------------------------------


@api(PREFIX + "get_basket_trading_status")
def get_basket_trading_status(rt: SpecRuntime, hotkey: bytes) -> Fields:
    p = rt.subtensor
    tao, budget = basket_trades.available(p, hotkey)
    return {
        "enabled": p.BasketTradingEnabled.get(),
        "frozen": hotkey in p.BasketTradingFrozen,
        "refill_blocks": rules.REFILL_BLOCKS,
        "tao_available": tao,
        "budget_tao": budget,
    }
