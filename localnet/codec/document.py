"""A runtime's metadata, and what is looked up in it: storage entries with their key prefixes, calls, errors, constants,
transaction extensions and runtime APIs.

`Document.load(constants)` is the specification runtime's: the two files in `localnet/data` (see
scripts/build_metadata.py) with the given constants written into them. Changing a constant changes the document, and so
the chain's genesis hash: clients cache by it.

`Document.read(v14, v15)` is any other runtime's. Old ones have no version 15: then everything is indexed but the
runtime APIs, which version 14 does not describe.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any

import xxhash

from localnet.codec import metadata, sound
from localnet.codec.scale import Registry
from localnet.errors import MetadataError, ScaleError

PREFIX = 32  # bytes of pallet and item that a storage key starts with
KEY_BYTES = {"Identity": 0, "Twox64Concat": 8, "Blake2_128Concat": 16}  # of the hash in front of a key that follows it


def twox128(data: bytes) -> bytes:
    return b"".join(xxhash.xxh64_intdigest(data, seed).to_bytes(8, "little") for seed in (0, 1))


@dataclass(frozen=True)
class StorageEntry:
    """One storage item: `prefix` is the 32 bytes all its keys start with."""

    pallet: str
    name: str
    optional: bool
    hashers: tuple[str, ...]
    keys: tuple[int, ...]  # type ids, one per hasher
    value: int  # type id
    default: bytes
    prefix: bytes


@dataclass(frozen=True)
class ApiMethod:
    name: str  # Api_method
    inputs: tuple[int, ...]  # type ids
    output: int


@dataclass(frozen=True)
class Extension:
    """A transaction extension: the types of what it puts into an extrinsic and of what it adds to the signed bytes."""

    name: str
    extra: int  # type id
    additional: int  # type id


@dataclass
class Document:
    """Both versions of the metadata as bytes, and the newer one's tree indexed by name. `v15` is empty where the
    runtime has none."""

    v14: bytes
    v15: bytes
    tree: metadata.Tree

    def __post_init__(self) -> None:
        self.registry = Registry(self.tree["types"])
        self.pallet_index: dict[str, int] = {}
        self.storage: dict[tuple[str, str], StorageEntry] = {}
        self.errors: dict[str, dict[str, int]] = {}
        self.calls: dict[str, dict[str, tuple[str, ...]]] = {}
        self.call_index: dict[tuple[str, str], int] = {}
        self.constants: dict[tuple[str, str], Any] = {}
        for pallet in self.tree["pallets"]:
            self._index_pallet(pallet)
        self.apis = {
            f"{api['name']}_{method['name']}": ApiMethod(
                f"{api['name']}_{method['name']}", tuple(i["type"] for i in method["inputs"]), method["output"]
            )
            for api in self.tree.get("apis", ())
            for method in api["methods"]
        }
        extrinsic = self.tree["extrinsic"]
        self.call_type = self.extrinsic_type("call")
        self.extrinsic_version: int = extrinsic["version"]
        self.signed_extensions = tuple(Extension(e["id"], e["type"], e["additional"]) for e in extrinsic["extensions"])
        self.extensions = tuple(extension.name for extension in self.signed_extensions)

    @classmethod
    def load(cls, constants: Mapping[tuple[str, str], int] | None = None) -> Document:
        """The shipped document with some integer constants replaced, e.g. {("Aura", "SlotDuration"): 12000}."""
        return cls(*_parsed(tuple(sorted((constants or {}).items()))))

    @classmethod
    @lru_cache(maxsize=8)
    def read(cls, v14: bytes, v15: bytes = b"") -> Document:
        """The metadata that a runtime gave; the same bytes are parsed once. Raises MetadataError."""
        tree = metadata.decode(v15 or v14)
        sound.check(tree)
        try:
            return cls(v14, v15, tree)
        except (ScaleError, LookupError, TypeError, RecursionError) as error:
            raise MetadataError(f"the metadata is damaged: {error!r}") from error

    @cached_property
    def by_prefix(self) -> dict[bytes, StorageEntry]:
        """Storage items by the 32 bytes that their keys start with."""
        return {entry.prefix: entry for entry in self.storage.values()}

    def read_keys(self, entry: StorageEntry, raw: bytes, offset: int = PREFIX, skip: int = 0) -> tuple[Any, ...]:
        """The keys in a full storage key, from `offset` on and without the first `skip`.

        Raises ScaleError; MetadataError for an item that keeps hashes without the keys.
        """
        parts = []
        for hasher, type_id in zip(entry.hashers[skip:], entry.keys[skip:], strict=True):
            if hasher not in KEY_BYTES:
                raise MetadataError(f"{entry.pallet}.{entry.name}: keys cannot be read back from {hasher}")
            part, offset = self.registry.decode_from(type_id, raw, offset + KEY_BYTES[hasher])
            parts.append(part)
        if offset != len(raw):
            raise ScaleError(f"{len(raw) - offset} bytes left over in a key of {entry.pallet}.{entry.name}")
        return tuple(parts)

    @property
    def describes_apis(self) -> bool:
        """Whether `apis` is known: metadata of version 14 says nothing about runtime APIs."""
        return "apis" in self.tree

    def extrinsic_type(self, part: str) -> int:
        """The type of an extrinsic's "address", "call" or "signature". Raises MetadataError."""
        extrinsic = self.tree["extrinsic"]
        if part in extrinsic:
            return int(extrinsic[part])
        for name, type_id in self.tree["types"][extrinsic["type"]]["params"]:  # UncheckedExtrinsic<Address, Call, ..>
            if name.lower() == part and type_id is not None:
                return int(type_id)
        raise MetadataError(f"the metadata does not say what the {part} of an extrinsic is")

    def _index_pallet(self, pallet: metadata.Tree) -> None:
        name = pallet["name"]
        self.pallet_index[name] = pallet["index"]
        for constant in pallet["constants"]:
            self.constants[name, constant["name"]] = self.registry.decode(constant["type"], constant["value"])
        self.errors[name] = {v["name"]: v["index"] for v in self._variants(pallet["error"])}
        calls = self._variants(pallet["calls"])
        self.calls[name] = {v["name"]: tuple(f["name"] for f in v["fields"]) for v in calls}
        self.call_index |= {(name, v["name"]): v["index"] for v in calls}
        for entry in (pallet["storage"] or {"entries": []})["entries"]:
            self.storage[name, entry["name"]] = self._storage_entry(pallet["storage"]["prefix"], name, entry)

    def _variants(self, type_id: int | None) -> list[metadata.Tree]:
        return [] if type_id is None else list(self.tree["types"][type_id]["def"]["variant"])

    def _storage_entry(self, prefix: str, pallet: str, entry: metadata.Tree) -> StorageEntry:
        hashers = tuple(entry["hashers"])
        if len(hashers) > 1:
            keys = tuple(self.tree["types"][entry["key"]]["def"]["tuple"])
        else:
            keys = () if entry["key"] is None else (entry["key"],)
        if len(keys) != len(hashers):
            raise MetadataError(f"{pallet}.{entry['name']} has {len(keys)} keys and {len(hashers)} hashers")
        return StorageEntry(
            pallet=pallet,
            name=entry["name"],
            optional=entry["modifier"] == "Optional",
            hashers=hashers,
            keys=keys,
            value=entry["value"],
            default=entry["default"],
            prefix=twox128(prefix.encode()) + twox128(entry["name"].encode()),
        )

    def type_id(self, *path: str) -> int:
        """Id of the type with this path. Raises MetadataError when the document has none."""
        for index, entry in enumerate(self.tree["types"]):
            if tuple(entry["path"]) == path:
                return index
        raise MetadataError(f"the metadata has no type {'::'.join(path)}")


@lru_cache(maxsize=4)
def _parsed(constants: tuple[tuple[tuple[str, str], int], ...]) -> tuple[bytes, bytes, metadata.Tree]:
    """Both documents and the tree of the newer one; parsed once per process, since every chain in it has the same."""
    documents = [_read(version) for version in (14, 15)]
    if constants:
        documents = [_with_constants(document, dict(constants)) for document in documents]
    return documents[0], documents[1], metadata.decode(documents[1])


def _read(version: int) -> bytes:
    file = resources.files("localnet") / "data" / f"metadata_v{version}.bin.z"
    return zlib.decompress(file.read_bytes())


def _with_constants(document: bytes, constants: Mapping[tuple[str, str], int]) -> bytes:
    tree, wanted = metadata.decode(document), dict(constants)
    for pallet in tree["pallets"]:
        for constant in pallet["constants"]:
            value = wanted.pop((pallet["name"], constant["name"]), None)
            if value is not None:
                constant["value"] = value.to_bytes(len(constant["value"]), "little")
    if wanted:
        raise MetadataError(f"the metadata has no constant {sorted(wanted)}")
    return metadata.encode(tree)
