"""The Merkle tree of RFC 6962, section 2.1, over SHA-256: one root for a list, and a short proof for each entry.

    root(hashes)                            32 bytes; hashes come from `leaf_hash`
    path(index, hashes)                     the sibling hashes from a leaf upwards (RFC 6962, section 2.1.1)
    follows(root, leaf, index, size, path)  whether a leaf is entry `index` of `size` (RFC 9162, section 2.1.3.2)

A leaf is H(0x00 || data), an inner node H(0x01 || left || right), and n leaves split at the largest power of two below
n. The two prefixes keep an inner node from being passed off as a leaf. Callers put a tag of their own before a leaf's
data, so that no other tree has the same leaves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def root(hashes: Sequence[bytes]) -> bytes:
    """The root over at least one leaf hash. Raises ValueError for none."""
    if not hashes:
        raise ValueError("a tree has at least one leaf")
    if len(hashes) == 1:
        return hashes[0]
    middle = _split(len(hashes))
    return _inner(root(hashes[:middle]), root(hashes[middle:]))


def path(index: int, hashes: Sequence[bytes]) -> list[bytes]:
    """Sibling hashes of leaf `index`, from the leaf upwards. Raises ValueError when there is no such leaf."""
    if not 0 <= index < len(hashes):
        raise ValueError(f"there is no leaf {index} of {len(hashes)}")
    if len(hashes) == 1:
        return []
    middle = _split(len(hashes))
    if index < middle:
        return [*path(index, hashes[:middle]), root(hashes[middle:])]
    return [*path(index - middle, hashes[middle:]), root(hashes[:middle])]


def follows(top: bytes, leaf: bytes, index: int, size: int, siblings: Sequence[bytes]) -> bool:
    """Whether `leaf` (its hash) is entry `index` of the `size` entries under the root `top`."""
    if not 0 <= index < size:
        return False
    at, last, node = index, size - 1, leaf
    for step in siblings:
        if last == 0:
            return False
        if at & 1 or at == last:
            node = _inner(step, node)
            while at and not at & 1:  # this node has no sibling on these levels: it moves up as it is
                at, last = at >> 1, last >> 1
        else:
            node = _inner(node, step)
        at, last = at >> 1, last >> 1
    return last == 0 and node == top


def _inner(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(count: int) -> int:
    """The largest power of two below `count`; the left subtree is that wide."""
    return 1 << ((count - 1).bit_length() - 1)
