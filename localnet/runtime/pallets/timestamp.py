"""Timestamp: the chain's clock, set by the first extrinsic of each block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localnet.errors import DispatchError
from localnet.runtime.framework import Origin, Pallet, StorageValue, call, ensure_none

INHERENT = b"timstap0"


class Timestamp(Pallet):
    name = "Timestamp"

    Now = StorageValue[int]()  # milliseconds since 1970

    def inherent(self, items: Mapping[bytes, bytes]) -> tuple[str, str, dict[str, Any]] | None:
        data = items.get(INHERENT)
        return None if data is None else ("Timestamp", "set", {"now": int.from_bytes(data, "little")})

    @call(dispatch_class="Mandatory", ref_time=213_816_000, proof_size=5691)
    def set(self, origin: Origin, now: int) -> None:
        ensure_none(origin)
        before = self.Now.get()
        if before and now < before + self.rt.document.constants["Timestamp", "MinimumPeriod"]:
            raise DispatchError("Other", "the block's timestamp is less than the minimum period after the last")
        self.Now.put(now)
