"""Drand: published randomness, one pulse a round, that timelocked weights and commitments are opened with.

Storage only. `write_pulse` and `set_beacon_config` would have to verify BLS signatures, which is not implemented: the
runtime refuses them by name. Pulses may be put into the state directly (development, `dev_setStorage`).
"""

from __future__ import annotations

from typing import Any

from localnet.runtime.framework import Origin, Pallet, StorageMap, StorageValue, call, ensure_root


class Drand(Pallet):
    name = "Drand"

    BeaconConfig = StorageValue[dict[str, Any]]()
    Pulses = StorageMap[dict[str, Any] | None]()  # round
    LastStoredRound = StorageValue[int]()
    OldestStoredRound = StorageValue[int]()
    NextUnsignedAt = StorageValue[int]()

    @call(ref_time=6_000_000)
    def set_oldest_stored_round(self, origin: Origin, oldest_round: int) -> None:
        ensure_root(origin)
        self.OldestStoredRound.put(oldest_round)
        self.emit("SetOldestStoredRound", oldest_round)
