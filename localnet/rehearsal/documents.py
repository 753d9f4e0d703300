"""A runtime's metadata, and raw storage by name with it: what two runtimes are compared through.

    document_of(runtime, state)   the metadata that a runtime gives on a state
    Named                         storage items, their keys and values, by one document

Values are those of `localnet.codec.scale`: whatever the metadata calls it, an amount is an int and an account 32 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from localnet.abi import Runtime, State
from localnet.codec.document import Document, StorageEntry
from localnet.errors import ScaleError
from localnet.node.documents import Documents
from localnet.vocabulary import HASHERS


def document_of(runtime: Runtime, state: State) -> Document:
    """Raises MetadataError, RuntimeTrap."""
    return Documents(
        runtime, lambda method, data, _: runtime.call(method, data, state), lambda key, _: state.get(key)
    ).head


class Named:
    """Storage by name, through one document."""

    def __init__(self, document: Document) -> None:
        self.document, self.registry = document, document.registry

    @cached_property
    def by_prefix(self) -> dict[bytes, StorageEntry]:
        """Items by the 32 bytes that their keys start with."""
        return {entry.prefix: entry for entry in self.document.storage.values()}

    def entry(self, pallet: str, item: str) -> StorageEntry | None:
        return self.document.storage.get((pallet, item))

    def key(self, entry: StorageEntry, keys: Sequence[Any]) -> bytes:
        """The full key of an entry. Raises ScaleError."""
        out = entry.prefix
        for hasher, type_id, key in zip(entry.hashers, entry.keys, keys, strict=True):
            digest, _, follows = HASHERS[hasher]
            raw = self.registry.encode(type_id, key)
            out += digest(raw) + (raw if follows else b"")
        return out

    def keys_of(self, entry: StorageEntry, raw: bytes) -> tuple[Any, ...]:
        """The keys in a full key; a hash where the key does not follow it. Raises ScaleError."""
        keys, offset = [], len(entry.prefix)
        for hasher, type_id in zip(entry.hashers, entry.keys, strict=True):
            _, size, follows = HASHERS[hasher]
            if follows:
                key, offset = self.registry.decode_from(type_id, raw, offset + size)
            else:
                key, offset = raw[offset : offset + size], offset + size
            keys.append(key)
        if offset != len(raw):
            raise ScaleError(f"{len(raw) - offset} bytes left over in a key of {entry.pallet}.{entry.name}")
        return tuple(keys)

    def decode(self, entry: StorageEntry, raw: bytes | None) -> Any:
        """A stored value; without one the item's default, None where it is optional. Raises ScaleError."""
        if raw is None:
            return None if entry.optional else self.registry.decode(entry.value, entry.default)
        return self.registry.decode(entry.value, raw)
