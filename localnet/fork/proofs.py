"""Read proofs: what a state root says about keys, from the nodes of its trie that a remote node hands over.

A node is taken for the hash that it has, never for what it is said to be, so nothing here can be forged against a root
that is right: a proof holds, or it lacks a node and says nothing (`Unproven`). The same walk proves both that a key has
a value, or none, and that a stretch of key space holds these keys and no others: a branch names all of its children, so
whoever leaves a key out has to leave a node out.

Encodings are those of trie.py; values of 33 bytes and more may stand as their hash (state version 1) and come as items
of their own. Paths are hex digits here: text in the order of the keys, and a digit is a nibble.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from localnet.codec.scale import read_compact
from localnet.errors import ForkError, ScaleError
from localnet.node.blocks import blake2_256
from localnet.node.children import is_entry, root_key, split_entry
from localnet.node.trie import BRANCH, BRANCH_WITH_VALUE, EMPTY_ROOT, HASHED_BRANCH, HASHED_LEAF, LEAF

KINDS = (BRANCH_WITH_VALUE, BRANCH, LEAF, HASHED_LEAF, HASHED_BRANCH)  # the most high bits set first
HASH = 32  # bytes; a reference of this size is a hash, a shorter one is the node itself
MAX_PATH = 2 * 4096  # nibbles

Nodes = Mapping[bytes, bytes]  # by hash


class Unproven(ForkError):
    """The proof does not show what it should."""


@dataclass(frozen=True)
class Node:
    """`value`: the bytes, or their hash when `hashed`. `children`: nibble as a hex digit, reference."""

    partial: str
    value: bytes | None
    hashed: bool
    children: tuple[tuple[str, bytes], ...]


def collect(items: Iterable[bytes]) -> dict[bytes, bytes]:
    """The items of a proof by their hashes."""
    return {blake2_256(item): item for item in items}


def decode(data: bytes) -> Node:
    """Raises Unproven."""
    try:
        return _decode(data)
    except (IndexError, ScaleError) as error:
        raise Unproven(f"an item of the proof is no node of a trie: 0x{data[:40].hex()}") from error


def _decode(data: bytes) -> Node:
    kind = next((kind for kind in KINDS if data[0] & -(1 << kind[1]) & 0xFF == kind[0]), None)
    if kind is None:
        raise ScaleError("no kind of node")
    most = (1 << kind[1]) - 1
    count, at = data[0] & most, 1
    while count >= most and (at == 1 or data[at - 1] == 255):
        count += data[at]
        at += 1
        if count > MAX_PATH:
            raise ScaleError("a path longer than any key")
    digits = _take(data, at, (count + 1) // 2).hex()
    at += (count + 1) // 2
    if count & 1 and digits[0] != "0":
        raise ScaleError("a nibble too many")
    bitmap, hashed, value = 0, kind in (HASHED_LEAF, HASHED_BRANCH), None
    if kind not in (LEAF, HASHED_LEAF):
        bitmap, at = int.from_bytes(_take(data, at, 2), "little"), at + 2
    if kind != BRANCH:
        size, at = (HASH, at) if hashed else read_compact(data, at)
        value, at = _take(data, at, size), at + size
    children = []
    for digit in range(16):
        if bitmap >> digit & 1:
            size, at = read_compact(data, at)
            if not 0 < size <= HASH:
                raise ScaleError("a reference that is neither a hash nor a short node")
            children.append((f"{digit:x}", _take(data, at, size)))
            at += size
    if at != len(data):
        raise ScaleError("bytes left over")
    return Node(digits[count & 1 :], value, hashed, tuple(children))


def _take(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise ScaleError("the node ends early")
    return data[at : at + size]


def between(root: bytes, lo: bytes, hi: bytes, nodes: Nodes) -> Iterator[tuple[bytes, Node]]:
    """All keys from `lo` up to but without `hi` in the trie with this root, ascending, each with the node that holds
    its value. Raises Unproven when the proof leaves any of them open."""
    if root == EMPTY_ROOT:
        return
    low, high = lo.hex(), hi.hex()
    waiting = [("", root)]
    while waiting:
        path, reference = waiting.pop()
        if path + "g" <= low or path + "0" * (len(path) & 1) >= high:  # the largest key below, the smallest
            continue
        data = nodes.get(reference) if len(reference) == HASH else reference
        if data is None:
            raise Unproven(f"the proof leaves out what is below 0x{path}")
        node = decode(data)
        path += node.partial
        if len(path) > MAX_PATH or (node.value is not None and len(path) & 1):
            raise Unproven(f"the proof holds a path that no key has: 0x{path[:80]}")
        if node.value is not None and low <= path < high:
            yield bytes.fromhex(path), node
        waiting += [(path + digit, child) for digit, child in reversed(node.children)]


def keys(root: bytes, lo: bytes, hi: bytes, nodes: Nodes) -> list[bytes]:
    """All keys of a stretch. Raises Unproven."""
    return [key for key, _ in between(root, lo, hi, nodes)]


def value(root: bytes, key: bytes, nodes: Nodes) -> bytes | None:
    """What a key holds; None when it is shown to hold nothing. Raises Unproven."""
    for _, node in between(root, key, key + b"\0", nodes):
        assert node.value is not None
        found = nodes.get(node.value) if node.hashed else node.value
        if found is None:
            raise Unproven(f"the proof leaves out the value of 0x{key.hex()}")
        return found
    return None


def trie_of(root: bytes, key: bytes, nodes: Nodes) -> tuple[bytes, bytes]:
    """The root of the trie in which a key of the flat space lies, and its key there. Raises Unproven."""
    if not is_entry(key):
        return root, key
    name, inner = split_entry(key)
    return value(root, root_key(name), nodes) or EMPTY_ROOT, inner
