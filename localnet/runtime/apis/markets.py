"""SwapRuntimeApi: prices, and what a swap would do. Nothing here changes a reserve.

Prices are rao per alpha (price times 10^9). A simulation that the pool would refuse is answered with zeros, as the
chain does: the caller learns the reason from the real call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from localnet.rules.errors import SwapError
from localnet.rules.fixed import div64, sub_floor0, to_u64
from localnet.rules.swap import PRICE_SCALE, Swap
from localnet.runtime.apis import common
from localnet.runtime.apis.registry import api
from localnet.runtime.subtensor import staking

if TYPE_CHECKING:
    from localnet.runtime.runtime import SpecRuntime

NOTHING = dict.fromkeys(("tao_amount", "alpha_amount", "tao_fee", "alpha_fee", "tao_slippage", "alpha_slippage"), 0)


@api("SwapRuntimeApi_current_alpha_price")
def current_alpha_price(rt: SpecRuntime, netuid: int) -> int:
    return to_u64(staking.spot_price(rt.subtensor, netuid) * PRICE_SCALE, 64)


@api("SwapRuntimeApi_current_alpha_price_all")
def current_alpha_price_all(rt: SpecRuntime) -> list[dict[str, int]]:
    return [{"netuid": netuid, "price": current_alpha_price(rt, netuid)} for netuid in common.netuids(rt.subtensor)]


@api("SwapRuntimeApi_sim_swap_tao_for_alpha")
def sim_swap_tao_for_alpha(rt: SpecRuntime, netuid: int, tao: int) -> dict[str, int]:
    p = rt.subtensor
    try:
        swap = staking.simulate_buy(p, netuid, tao) if common.exists(p, netuid) else Swap(0, 0, 0)
    except SwapError:
        return NOTHING
    ideal = to_u64(div64(tao << 64, staking.spot_price(p, netuid)), 64)
    return {
        **NOTHING,
        "tao_amount": swap.paid_in,
        "alpha_amount": swap.paid_out,
        "tao_fee": swap.fee,
        "alpha_slippage": sub_floor0(ideal, swap.paid_out),
    }


@api("SwapRuntimeApi_sim_swap_alpha_for_tao")
def sim_swap_alpha_for_tao(rt: SpecRuntime, netuid: int, alpha: int) -> dict[str, int]:
    p = rt.subtensor
    try:
        swap = staking.simulate_sell(p, netuid, alpha) if common.exists(p, netuid) else Swap(0, 0, 0)
    except SwapError:
        return NOTHING
    ideal = to_u64(alpha * staking.spot_price(p, netuid), 64)
    return {
        **NOTHING,
        "tao_amount": swap.paid_out,
        "alpha_amount": swap.paid_in,
        "alpha_fee": swap.fee,
        "tao_slippage": sub_floor0(ideal, swap.paid_out),
    }
