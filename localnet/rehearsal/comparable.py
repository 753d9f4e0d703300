"""What makes the states of two runtimes comparable: which items can be, whether two raw values say the same, and what
one keeps that the other works out.

`Items` are those of one name, with keys and values of one shape (`codec.compare`); values are decoded by each runtime's
own metadata, and a missing one stands for its item's default. `Bridge` is what the other chain is given of the
reference's facts in every block, so that an epoch runs in the same block on both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localnet.codec.compare import Types
from localnet.codec.document import StorageEntry
from localnet.developer import in_rhythm
from localnet.errors import MetadataError, ScaleError
from localnet.net import Localnet
from localnet.rehearsal.subnet_states import PALLET
from localnet.rules.accounts import pallet_account
from localnet.vocabulary import Vocabulary

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

    def __init__(self, first: Vocabulary, second: Vocabulary) -> None:
        self.sides = (first, second)
        self.by_prefix: dict[bytes, tuple[StorageEntry, StorageEntry]] = {}
        self.apart: dict[str, str] = {}
        types = Types(first.document, second.document)
        for pallet, item in sorted({*first.document.storage, *second.document.storage}):
            name = f"{pallet}.{item}"
            entries = tuple(side.document.storage.get((pallet, item)) for side in self.sides)
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
        self.unwritten = {
            one.prefix: one.default for one, other in self.by_prefix.values()
            if not one.optional and not other.optional and one.default != other.default
        }  # fmt: skip
        """Items that say something else where neither has written them, by prefix, and what the first's then say."""
        self.plain = [prefix for prefix in self.unwritten if not self.by_prefix[prefix][0].keys]

    def _epochs_differ(self) -> bool:
        held = [(PALLET, "SubnetEpochIndex") in side.document.storage for side in self.sides]
        return held[0] != held[1]

    @property
    def names(self) -> list[str]:
        return [f"{entry.pallet}.{entry.name}" for entry, _ in self.by_prefix.values()]

    def same(self, pair: tuple[StorageEntry, StorageEntry], one: bytes | None, other: bytes | None) -> bool:
        """Do two stored values, or none, say the same?"""
        try:
            return bool(self.sides[0].stored(pair[0], one) == self.sides[1].stored(pair[1], other))
        except ScaleError:
            return False

    def same_under(self, key: bytes, one: bytes | None, other: bytes | None) -> bool:
        return one == other or self.same(self.by_prefix[key[:32]], one, other)

    def show(self, key: bytes, pair: tuple[bytes | None, bytes | None]) -> tuple[str, tuple[Any, ...], tuple[Any, Any]]:
        """Item, keys and values as JSON; what cannot be decoded as hex."""
        entries = self.by_prefix[key[:32]]
        values = tuple(_shown(side, entry, value) for side, entry, value in zip(self.sides, entries, pair, strict=True))
        words = self.sides[0]
        try:
            raw = words.document.read_keys(entries[0], key)
            keys = tuple(words.plain.show(type_id, one) for type_id, one in zip(entries[0].keys, raw, strict=True))
        except (ScaleError, MetadataError):  # bytes that are no key of it, or hashes without the key
            keys = ("0x" + key[32:].hex(),)
        return f"{entries[0].pallet}.{entries[0].name}", keys, (values[0], values[1])


def _alike(types: Types, first: StorageEntry, second: StorageEntry) -> bool:
    return (
        first.hashers == second.hashers
        and first.prefix == second.prefix
        and types.same(first.value, second.value)
        and all(types.same(a, b) for a, b in zip(first.keys, second.keys, strict=True))
    )


def _shown(side: Vocabulary, entry: StorageEntry, raw: bytes | None) -> Any:
    if raw is None and entry.optional:
        return None
    try:
        return side.plain.show(entry.value, side.stored(entry, raw))
    except ScaleError:
        return None if raw is None else "0x" + raw.hex()


# -- what only one of them keeps ------------------------------------------------------------------------------------


class Bridge:
    """Written into the other chain at the end of every block, and only where the reference does not have the item.

    LastEpochBlock, PendingEpochAt
                                runtimes without them run an epoch where the block's number says so
    ActivityCutoffFactorMilli   thousandths of a tempo, before that blocks
    LiquidAlphaConsensusMode    there was only the current consensus
    CommitRevealWeightsEnabled  weights were open
    the subnets' own accounts   hold the TAO of their pools, which older runtimes only count
    """

    def __init__(self, reference: Localnet, other: Localnet) -> None:
        self.reference, self.other = reference, other
        stores = [net.client.document.storage for net in (reference, other)]
        wanted = ("LastEpochBlock", "PendingEpochAt", "ActivityCutoffFactorMilli", "LiquidAlphaConsensusMode",
                  "CommitRevealWeightsEnabled")  # fmt: skip
        self.needed = [item for item in wanted if (PALLET, item) in stores[1] and (PALLET, item) not in stores[0]]
        constants = [net.client.document.constants for net in (reference, other)]
        self._purse = (
            constants[1].get((PALLET, "SubtensorPalletId"))
            if (PALLET, "SubtensorPalletId") not in constants[0]
            else None
        )

    def writes(self, block: int) -> dict[bytes, bytes | None]:
        """For the other, at the end of `block`."""
        if not self.needed and self._purse is None:
            return {}
        writes: dict[bytes, bytes | None] = {}
        read, words = self._read, self.other.client
        cutoffs, pools = read("ActivityCutoff"), read("SubnetTAO")
        for netuid, added in read("NetworksAdded").items():
            tempo = self.reference.query(PALLET, "Tempo", netuid)
            if not added or not netuid or not tempo:
                continue
            due = in_rhythm(netuid, tempo, block + 1)
            values = {
                "LastEpochBlock": max(due - tempo, 0),
                "PendingEpochAt": due if due < tempo and due == block + 1 else 0,  # the first: no block was a tempo ago
                "ActivityCutoffFactorMilli": -(-cutoffs.get(netuid, 5_000) * 1_000 // tempo),
                "LiquidAlphaConsensusMode": "Current",
                "CommitRevealWeightsEnabled": False,
            }
            writes |= dict(words.storage_write(PALLET, item, (netuid,), values[item]) for item in self.needed)
            if self._purse is not None:
                who = pallet_account(self._purse, netuid.to_bytes(2, "little"))
                account = self.other.query("System", "Account", who)
                data = {**account["data"], "free": 2 * pools.get(netuid, 0) + 10**15}
                writes |= [words.storage_write("System", "Account", (who,), {**account, "providers": 1, "data": data})]
        return writes

    def _read(self, item: str) -> dict[int, Any]:
        """A map of the reference's, empty where it has none of that name."""
        known = (PALLET, item) in self.reference.client.document.storage
        return self.reference.query_map(PALLET, item) if known else {}
