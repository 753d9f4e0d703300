"""BetaBasketRuntimeApi: what validators' baskets hold for root stakers.

There is no basket on a chain where nobody can open one, and this runtime implements no basket call, so the exact answer
is "none". Should storage hold a basket all the same (written by a developer), these reads fail and say so instead of
hiding it. Pricing, the index and the "beta" portfolio are left out altogether.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localnet.errors import RuntimeApiMissing
from localnet.runtime.apis.registry import api

if TYPE_CHECKING:
    from localnet.runtime.runtime import SpecRuntime


def _require_none(rt: SpecRuntime, name: str) -> None:
    p = rt.subtensor
    for entries in (p.BasketShares, p.BasketDepositedTao, p.PendingBasketDeposits):
        if next(iter(entries.keys()), None) is not None:
            raise RuntimeApiMissing(f"BetaBasketRuntimeApi_{name}: the specification runtime does not compute baskets")


@api("BetaBasketRuntimeApi_get_root_basket_owed")
def get_root_basket_owed(rt: SpecRuntime, _coldkey: bytes) -> int:
    _require_none(rt, "get_root_basket_owed")
    return 0


@api("BetaBasketRuntimeApi_get_basket_payout")
def get_basket_payout(rt: SpecRuntime, _hotkey: bytes, _coldkey: bytes) -> int:
    _require_none(rt, "get_basket_payout")
    return 0


@api("BetaBasketRuntimeApi_get_validator_basket_nav")
def get_validator_basket_nav(rt: SpecRuntime, _hotkey: bytes) -> int:
    _require_none(rt, "get_validator_basket_nav")
    return 0


@api("BetaBasketRuntimeApi_get_root_basket_total_nav")
def get_root_basket_total_nav(rt: SpecRuntime) -> int:
    _require_none(rt, "get_root_basket_total_nav")
    return 0


@api("BetaBasketRuntimeApi_get_validator_basket")
def get_validator_basket(rt: SpecRuntime, _hotkey: bytes) -> list[Any]:
    _require_none(rt, "get_validator_basket")
    return []


@api("BetaBasketRuntimeApi_get_all_validator_baskets")
def get_all_validator_baskets(rt: SpecRuntime) -> list[Any]:
    _require_none(rt, "get_all_validator_baskets")
    return []


@api("BetaBasketRuntimeApi_get_root_basket_positions")
def get_root_basket_positions(rt: SpecRuntime, _coldkey: bytes) -> list[Any]:
    _require_none(rt, "get_root_basket_positions")
    return []


@api("BetaBasketRuntimeApi_get_root_basket_portfolio")
def get_root_basket_portfolio(rt: SpecRuntime, _coldkey: bytes) -> list[Any]:
    _require_none(rt, "get_root_basket_portfolio")
    return []


@api("BetaBasketRuntimeApi_get_basket_position")
def get_basket_position(rt: SpecRuntime, _hotkey: bytes, _coldkey: bytes) -> None:
    _require_none(rt, "get_basket_position")


@api("BetaBasketRuntimeApi_get_validator_basket_summary")
def get_validator_basket_summary(rt: SpecRuntime, hotkey: bytes) -> dict[str, Any]:
    _require_none(rt, "get_validator_basket_summary")
    amounts = ("nav_tao", "spot_nav_tao", "shares", "deposited_tao", "redeemed_tao")
    return {"hotkey": hotkey, **dict.fromkeys(amounts, 0), "holdings": []}
