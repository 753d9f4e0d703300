"""Aura: who may author, and in which slot. The local chain has one author; the slot comes from the block's digest."""

from __future__ import annotations

from localnet.runtime.framework import Pallet, StorageValue

ENGINE = b"aura"


class Aura(Pallet):
    name = "Aura"

    Authorities = StorageValue[list[bytes]]()
    CurrentSlot = StorageValue[int]()

    def on_initialize(self, number: int) -> None:
        for item in self.rt.system.Digest.get()["logs"]:
            if isinstance(item, tuple) and item[0] == "PreRuntime" and item[1][0] == ENGINE:
                self.CurrentSlot.put(int.from_bytes(item[1][1], "little"))
