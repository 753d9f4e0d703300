"""Headers and blocks.

A block's hash is blake2b-256 of its SCALE header (clients recompute it). The digest opens with the Aura slot the block
was authored in and closes with a seal. Two things differ from a released node and are visible here on purpose:

* `state_root` and `extrinsics_root` are filled in by the node when the runtime leaves them zero. They are digests that
  chain over all changes (`state_digest`) and all extrinsics (`extrinsics_digest`), deterministic and binding, but not
  Merkle-trie roots: nothing can be proven against them.
* the seal is a digest of the sealed header, not a signature: there is one author and nobody to convince.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import overload

from localnet.codec.scale import compact, opaque, read_compact
from localnet.errors import ScaleError

ZERO = bytes(32)
ENGINE_ITEMS = (4, 5, 6)  # digest items of the form: kind, engine id of 4 bytes, Vec<u8>
SEAL, PRE_RUNTIME = 5, 6
AURA = bytes((PRE_RUNTIME,)) + b"aura"
SLOT_AT = len(AURA) + 1  # behind the compact length of 8


def blake2_256(data: bytes) -> bytes:
    return blake2b(data, digest_size=32).digest()


@dataclass(frozen=True, slots=True)
class Header:
    """A block header; `digest` holds SCALE-encoded digest items."""

    parent_hash: bytes
    number: int
    state_root: bytes = ZERO
    extrinsics_root: bytes = ZERO
    digest: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        roots = self.state_root + self.extrinsics_root
        return b"".join((self.parent_hash, compact(self.number), roots, compact(len(self.digest)), *self.digest))

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """Raises ScaleError."""
        number, offset = read_compact(data, 32)
        state_root, extrinsics_root = data[offset : offset + 32], data[offset + 32 : offset + 64]
        count, offset = read_compact(data, offset + 64)
        items = []
        for _ in range(count):
            end = _digest_item_end(data, offset)
            items.append(data[offset:end])
            offset = end
        if offset != len(data):
            raise ScaleError(f"{len(data) - offset} bytes left over after the header")
        return cls(data[:32], number, state_root, extrinsics_root, tuple(items))

    def hash(self) -> bytes:
        return blake2_256(self.encode())

    def json(self) -> dict[str, object]:
        """The header as JSON-RPC shows it."""
        return {
            "parentHash": "0x" + self.parent_hash.hex(),
            "number": hex(self.number),
            "stateRoot": "0x" + self.state_root.hex(),
            "extrinsicsRoot": "0x" + self.extrinsics_root.hex(),
            "digest": {"logs": ["0x" + item.hex() for item in self.digest]},
        }


def _digest_item_end(data: bytes, offset: int) -> int:
    if offset >= len(data):
        raise ScaleError("header ends inside its digest")
    kind = data[offset]
    if kind == 8:  # RuntimeEnvironmentUpdated
        return offset + 1
    if kind == 0:  # Other(Vec<u8>)
        start = offset + 1
    elif kind in ENGINE_ITEMS:
        start = offset + 5
    else:
        raise ScaleError(f"unknown kind of digest item: {kind}")
    size, start = read_compact(data, start)
    if start + size > len(data):
        raise ScaleError("header ends inside its digest")
    return start + size


@dataclass(slots=True)
class Block:
    """A sealed block: header, its hash, its extrinsics with their length prefixes, its time in ms (0 for genesis).

    `extrinsics` is None when the body is older than the history the node keeps.
    """

    header: Header
    extrinsics: list[bytes] | None
    timestamp: int
    hash: bytes = field(default=b"")

    def __post_init__(self) -> None:
        self.hash = self.hash or self.header.hash()

    @property
    def number(self) -> int:
        return self.header.number

    def json(self) -> dict[str, object]:
        """The signed block as `chain_getBlock` shows it."""
        extrinsics = ["0x" + raw.hex() for raw in self.extrinsics or ()]
        return {"block": {"header": self.header.json(), "extrinsics": extrinsics}, "justifications": None}


class Blocks(Sequence[Block]):
    """All blocks by number, genesis first. Those below the kept history are bytes until somebody asks: a long chain is
    mostly old headers, and an object takes three times as much.

    A chain that goes on from somebody else's has none below number `first`; its length counts them all the same.
    """

    def __init__(self, blocks: Iterable[Block] = (), first: int = 0) -> None:
        self.first = first
        self._old: list[bytes] = []  # timestamp (8), header
        self._recent = list(blocks)

    def __len__(self) -> int:
        return self.first + len(self._old) + len(self._recent)

    def __iter__(self) -> Iterator[Block]:
        return (self[number] for number in range(self.first, len(self)))

    def __reversed__(self) -> Iterator[Block]:
        return (self[number] for number in range(len(self) - 1, self.first - 1, -1))

    @overload
    def __getitem__(self, index: int) -> Block: ...

    @overload
    def __getitem__(self, index: slice) -> list[Block]: ...

    def __getitem__(self, index: int | slice) -> Block | list[Block]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = (index if index >= 0 else index + len(self)) - self.first
        if number < 0:
            raise IndexError(f"there is no block {index}")
        if number >= len(self._old):
            return self._recent[number - len(self._old)]
        record = self._old[number]
        return Block(Header.decode(record[8:]), None, int.from_bytes(record[:8], "little"))

    def append(self, block: Block) -> None:
        self._recent.append(block)

    def truncate(self, length: int) -> None:
        """Drop the newest blocks. Those that are bytes already stay: nobody goes back below the kept history."""
        del self._recent[max(length - self.first - len(self._old), 0) :]

    def fold(self, below: int) -> None:
        """Keep only header and time of the blocks before number `below`; their bodies are gone."""
        count = max(below - self.first - len(self._old), 0)
        for block in self._recent[:count]:
            self._old.append(block.timestamp.to_bytes(8, "little") + block.header.encode())
        del self._recent[:count]


def slot_item(slot: int) -> bytes:
    """PreRuntime digest item that names the Aura slot."""
    return AURA + opaque(slot.to_bytes(8, "little"))


def slot_of(header: Header) -> int:
    """The Aura slot that a block was authored in; 0 when its digest names none."""
    for item in header.digest:
        if item.startswith(AURA) and len(item) == SLOT_AT + 8:
            return int.from_bytes(item[SLOT_AT:], "little")
    return 0


def sealed(header: Header) -> Header:
    """The header with its seal as last digest item."""
    seal = blake2b(header.encode(), digest_size=64).digest()
    return replace(header, digest=(*header.digest, bytes((SEAL,)) + b"aura" + opaque(seal)))


def state_digest(previous: bytes, diff: Mapping[bytes, bytes | None]) -> bytes:
    """Stands in for the state root: blake2b-256 over the previous one and the block's changes, sorted by key."""
    digest = blake2b(previous, digest_size=32)
    for key in sorted(diff):
        value = diff[key]
        digest.update(opaque(key))
        digest.update(b"\0" if value is None else b"\1" + opaque(value))
    return digest.digest()


def extrinsics_digest(extrinsics: Sequence[bytes]) -> bytes:
    """Stands in for the extrinsics root: blake2b-256 over the extrinsics' hashes, in order."""
    digest = blake2b(digest_size=32)
    for raw in extrinsics:
        digest.update(blake2_256(raw))
    return digest.digest()
