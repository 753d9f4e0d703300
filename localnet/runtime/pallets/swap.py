"""Swap: the market's settings and what it keeps beside the reserves, which are SubtensorModule's.

`SwapBalancer` holds the weight of TAO in each pool, `FeeRate` the fee of 65535; trades are in
`localnet.runtime.subtensor.staking`. The calls for users' own liquidity are disabled on the chain too.
"""

from __future__ import annotations

from typing import Any

from localnet.runtime.framework import Origin, Pallet, StorageMap, call, ensure_root


class Swap(Pallet):
    name = "Swap"

    FeeRate = StorageMap[int]()  # netuid
    SwapBalancer = StorageMap[dict[str, int]]()  # netuid; {"quote": weight of TAO in 10^-18}
    PalSwapInitialized = StorageMap[bool]()  # netuid
    BalancerTaoReservoir = StorageMap[int]()  # netuid; emission that could not be injected
    BalancerAlphaReservoir = StorageMap[int]()  # netuid
    ScrapReservoirAlpha = StorageMap[int]()  # netuid

    @call(ref_time=15_000_000)
    def set_fee_rate(self, origin: Origin, netuid: int, rate: int) -> None:
        ensure_root(origin)
        if not self.rt.subtensor.NetworksAdded[netuid]:
            raise self.error("MechanismDoesNotExist")
        if rate > self.rt.document.constants[self.name, "MaxFeeRate"]:
            raise self.error("FeeRateTooHigh")
        self.FeeRate[netuid] = rate
        self.emit("FeeRateSet", netuid=netuid, rate=rate)

    @call(ref_time=15_000_000)
    def toggle_user_liquidity(self, origin: Origin, netuid: int, enable: bool) -> None:
        raise self.error("Deprecated")

    @call(ref_time=15_000_000)
    def add_liquidity(
        self, origin: Origin, hotkey: bytes, netuid: int, tick_low: Any, tick_high: Any, liquidity: int
    ) -> None:
        raise self.error("Deprecated")

    @call(ref_time=15_000_000)
    def remove_liquidity(self, origin: Origin, hotkey: bytes, netuid: int, position_id: int) -> None:
        raise self.error("Deprecated")

    @call(ref_time=15_000_000)
    def modify_position(
        self, origin: Origin, hotkey: bytes, netuid: int, position_id: int, liquidity_delta: int
    ) -> None:
        raise self.error("Deprecated")

    @call(ref_time=15_000_000)
    def disable_lp(self, origin: Origin) -> None:
        raise self.error("Deprecated")
