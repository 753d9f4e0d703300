"""What a remote node answers, checked before anything believes it.

Each function takes a JSON value and what was asked, and gives bytes or raises `Garbage`: hex that is none, keys that
nobody asked for, a page out of order, a header that does not hash to its block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from localnet.errors import ForkError, ScaleError
from localnet.node.blocks import Header, extrinsics_digest
from localnet.node.jsonrpc import hex_bytes, integer
from localnet.node.trie import ordered_root

MAX_KEY = 4096  # bytes; the longest keys of the released chain have about 200
MAX_VALUE = 32 * 2**20  # bytes; the largest value is the runtime's code, about 2 MiB
MAX_DIGEST = 64  # items in a header
MAX_BODY = 65_536  # extrinsics in a block
END = b"\xff" * 64  # above every key: hashes come first in a key, and none is all ones


class Garbage(ForkError):
    """An answer that cannot be."""


def raw(value: Any, what: str, limit: int = MAX_VALUE) -> bytes:
    """Bytes written as 0x and hex digits."""
    if not isinstance(value, str) or not value.startswith("0x"):
        raise Garbage(f"the node answers {shown(value)} where {what} should be")
    if len(value) > 2 * limit + 2:
        raise Garbage(f"the node answers {len(value) // 2} bytes for {what}, at most {limit} make sense")
    try:
        return hex_bytes(value)
    except ValueError as error:
        raise Garbage(f"the node answers {shown(value)} where {what} should be: {error}") from error


def raw_or_none(value: Any, what: str) -> bytes | None:
    return None if value is None else raw(value, what)


def block_hash(value: Any) -> bytes:
    digest = raw(value, "a block hash", 32)
    if len(digest) != 32:
        raise Garbage(f"the node answers a block hash of {len(digest)} bytes")
    return digest


def key(value: Any) -> bytes:
    found = raw(value, "a storage key", MAX_KEY)
    if found >= END:
        raise Garbage(f"the node answers the storage key {shown(value)}, which no chain has")
    return found


def header(value: Any, digest: bytes) -> Header:
    """The header whose hash is `digest`."""
    try:
        logs = value["digest"]["logs"]
        if not isinstance(logs, list) or len(logs) > MAX_DIGEST:
            raise Garbage("the node answers a header with a digest that is none")
        found = Header(
            block_hash(value["parentHash"]),
            integer(value["number"]),
            block_hash(value["stateRoot"]),
            block_hash(value["extrinsicsRoot"]),
            tuple(raw(item, "a digest item") for item in logs),
        )
        Header.decode(found.encode())  # digest items that are whole
    except (KeyError, TypeError, ValueError, ScaleError) as error:
        raise Garbage(f"the node answers {shown(value)} where a header should be: {error}") from error
    if found.hash() != digest:
        raise Garbage(f"the header the node answers hashes to 0x{found.hash().hex()}, not to 0x{digest.hex()}")
    return found


def body(value: Any, digest: bytes) -> list[bytes]:
    """The extrinsics of the block with this hash."""
    try:
        root = header(value["block"]["header"], digest).extrinsics_root
        extrinsics = value["block"]["extrinsics"]
    except (KeyError, TypeError) as error:
        raise Garbage(f"the node answers {shown(value)} where a block should be") from error
    if not isinstance(extrinsics, list) or len(extrinsics) > MAX_BODY:
        raise Garbage("the node answers a block with extrinsics that are none")
    found = [raw(item, "an extrinsic") for item in extrinsics]
    if root not in (ordered_root(found, 0), ordered_root(found, 1), extrinsics_digest(found)):
        raise Garbage("the node answers a block with other extrinsics than its header is about")
    return found


def page(value: Any, prefix: bytes, start: bytes | None, count: int) -> list[bytes]:
    """One page of keys: under the prefix, above `start`, ascending, no more than asked for."""
    if not isinstance(value, list) or len(value) > count:
        raise Garbage(f"the node answers {shown(value)} where at most {count} keys should be")
    keys = [key(item) for item in value]
    last = b"" if start is None else start
    for index, found in enumerate(keys):
        if not found.startswith(prefix):
            raise Garbage(f"asked for keys under 0x{prefix.hex()}, the node answers 0x{found.hex()}")
        if found < last or (found == last and (index or start is not None)):
            raise Garbage(f"the node's keys are out of order: 0x{found.hex()} does not follow 0x{last.hex()}")
        last = found
    return keys


def changes(value: Any, keys: Sequence[bytes], digest: bytes) -> dict[bytes, bytes | None]:
    """The answer of state_queryStorageAt: a value, or None, for each key and for no other."""
    if not isinstance(value, list) or len(value) != 1 or not isinstance(value[0], dict):
        raise Garbage(f"the node answers {shown(value)} where one block's storage should be")
    if block_hash(value[0].get("block")) != digest:
        raise Garbage("the node answers the storage of another block")
    pairs = value[0].get("changes")
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise Garbage(f"the node answers {shown(pairs)} where keys and values should be")
    found = {key(name): raw_or_none(stored, "a storage value") for name, stored in pairs}
    if len(pairs) != len(keys) or found.keys() != set(keys):
        raise Garbage(f"asked for {len(keys)} keys, the node answers {len(pairs)}, or others")
    return found


def proof(value: Any, digest: bytes) -> list[bytes]:
    """The items of a read proof."""
    if not isinstance(value, dict) or not isinstance(value.get("proof"), list):
        raise Garbage(f"the node answers {shown(value)} where a proof should be")
    if block_hash(value.get("at")) != digest:
        raise Garbage("the node answers a proof of another block")
    return [raw(item, "an item of a proof") for item in value["proof"]]


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + ".."
