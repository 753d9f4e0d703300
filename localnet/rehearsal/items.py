"""The storage items that two runtimes hold in comparable form, and whether two raw values say the same.

Comparable are items of one name, with keys and values of one shape (`codec.compare`); values are decoded by each
runtime's own metadata, and a missing one stands for its item's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localnet.client import public_key
from localnet.codec.compare import Types
from localnet.codec.document import StorageEntry
from localnet.codec.plain import Plain
from localnet.errors import ScaleError
from localnet.rehearsal.documents import Named
from localnet.rehearsal.subnet_states import PALLET

_HASHES, _EXTRINSICS = "hashes of headers, which hold state roots", "extrinsics, which each runtime encodes anew"
_BLOCKS, _FEES = "who makes blocks is the node's affair", "weights are benchmarked anew for every version"
NOT_COMPARED: Mapping[str, str] = {
    "System.BlockHash": _HASHES, "System.ParentHash": _HASHES, "System.Digest": _HASHES,
    "RandomnessCollectiveFlip": _HASHES, "System.Events": "compared by name, call by call",
    "System.EventCount": "as the events", "System.EventTopics": "as the events",
    "System.ExtrinsicData": _EXTRINSICS, "System.AllExtrinsicsLen": _EXTRINSICS, "System.BlockSize": _EXTRINSICS,
    "System.BlockWeight": _FEES, "TransactionPayment.NextFeeMultiplier": _FEES,
    "System.LastRuntimeUpgrade": "the runtime's own version", "System.InherentsApplied": "of one block only",
    "System.ExecutionPhase": "of one block only", "Aura": _BLOCKS, "Babe": _BLOCKS, "Grandpa": _BLOCKS,
    "Historical": _BLOCKS, "Session": _BLOCKS, "Ethereum": _HASHES, "EVM": _HASHES, "BaseFee": _FEES,
    "MevShield": _BLOCKS, "Drand": "filled by whoever runs the chain",
}  # fmt: skip
"""Items, and whole pallets, that are not compared, and why."""


class Items:
    """The storage items that two runtimes hold in comparable form."""

    def __init__(self, first: Named, second: Named) -> None:
        self.sides = (first, second)
        self.by_prefix: dict[bytes, tuple[StorageEntry, StorageEntry]] = {}
        self.apart: dict[str, str] = {}
        types = Types(first.document, second.document)
        for pallet, item in sorted({*first.document.storage, *second.document.storage}):
            name, entries = f"{pallet}.{item}", (first.entry(pallet, item), second.entry(pallet, item))
            reason = NOT_COMPARED.get(name) or NOT_COMPARED.get(pallet)
            if reason is None and None in entries:
                reason = f"only {('the other', 'the reference')[entries[1] is None]} has it"
            if reason is None and name == f"{PALLET}.WeightCommits" and self._epochs_differ():
                reason = "commits hold their epoch in one, a range of blocks in the other"
            if reason is None and not _alike(types, *entries):  # type: ignore[arg-type]
                reason = "keys or values have another shape"
            if reason is not None:
                self.apart[name] = reason
            else:
                self.by_prefix[entries[0].prefix] = entries  # type: ignore[union-attr, assignment]

    def _epochs_differ(self) -> bool:
        held = [side.entry(PALLET, "SubnetEpochIndex") is not None for side in self.sides]
        return held[0] != held[1]

    @property
    def names(self) -> list[str]:
        return [f"{entry.pallet}.{entry.name}" for entry, _ in self.by_prefix.values()]

    def same(self, pair: tuple[StorageEntry, StorageEntry], one: bytes | None, other: bytes | None) -> bool:
        """Do two stored values, or none, say the same?"""
        try:
            return bool(self.sides[0].decode(pair[0], one) == self.sides[1].decode(pair[1], other))
        except ScaleError:
            return False

    def same_under(self, key: bytes, one: bytes | None, other: bytes | None) -> bool:
        return one == other or self.same(self.by_prefix[key[:32]], one, other)

    def show(self, key: bytes, pair: tuple[bytes | None, bytes | None]) -> tuple[str, tuple[Any, ...], tuple[Any, Any]]:
        """Item, keys and values as JSON; what cannot be decoded as hex."""
        entries = self.by_prefix[key[:32]]
        values = tuple(_shown(side, entry, value) for side, entry, value in zip(self.sides, entries, pair, strict=True))
        plain = Plain(self.sides[0].document, public_key)
        try:
            raw = self.sides[0].keys_of(entries[0], key)
            keys = tuple(plain.show(type_id, one) for type_id, one in zip(entries[0].keys, raw, strict=True))
        except ScaleError:
            keys = ("0x" + key[32:].hex(),)
        return f"{entries[0].pallet}.{entries[0].name}", keys, (values[0], values[1])


def _alike(types: Types, first: StorageEntry, second: StorageEntry) -> bool:
    return (
        first.hashers == second.hashers
        and first.prefix == second.prefix
        and types.same(first.value, second.value)
        and all(types.same(a, b) for a, b in zip(first.keys, second.keys, strict=True))
    )


def _shown(side: Named, entry: StorageEntry, raw: bytes | None) -> Any:
    if raw is None and entry.optional:
        return None
    try:
        return Plain(side.document, public_key).show(entry.value, side.decode(entry, raw))
    except ScaleError:
        return None if raw is None else "0x" + raw.hex()
