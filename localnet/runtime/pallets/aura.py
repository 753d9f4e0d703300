"""Aura: who may author, and in which slot. The local chain has one author; the slot comes from the block's digest.

The author is the account that swap fees go to (`positions`). A block whose digest names no slot has none.
"""

from __future__ import annotations

from localnet.runtime.framework import Pallet, StorageValue

ENGINE = b"aura"


class Aura(Pallet):
    name = "Aura"

    Authorities = StorageValue[list[bytes]]()
    CurrentSlot = StorageValue[int]()

    def on_initialize(self, number: int) -> None:
        slot = self._slot()
        if slot is not None:
            self.CurrentSlot.put(slot)

    def author(self) -> bytes | None:
        """Who authors the open block."""
        slot, authorities = self._slot(), self.Authorities.get()
        return None if slot is None or not authorities else authorities[slot % len(authorities)]

    def _slot(self) -> int | None:
        for item in self.rt.system.Digest.get()["logs"]:
            if isinstance(item, tuple) and item[0] == "PreRuntime" and item[1][0] == ENGINE:
                return int.from_bytes(item[1][1], "little")
        return None
