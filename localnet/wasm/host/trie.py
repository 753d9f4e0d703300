"""Roots of tries that a runtime builds itself, of pairs or of a list: headers have one over the block's extrinsics.

Verifying a proof is not implemented (no release of this chain does it): it breaks the call off.
"""

from __future__ import annotations

from collections.abc import Callable

from localnet.codec.scale import read_compact
from localnet.errors import ScaleError
from localnet.node.blocks import blake2_256
from localnet.node.trie import Hasher, ordered_root, root
from localnet.wasm.host.hashing import keccak_256
from localnet.wasm.host.interface import Functions, Host, HostTrap
from localnet.wasm.host.misc import refuse
from localnet.wasm.host.storage import rooted, state_version
from localnet.wasm.host.wire import read_vector

MAX_ITEMS = 1 << 18  # 12 us each; a block of 10 MiB has fewer extrinsics
HASHERS: dict[str, Hasher] = {"blake2_256": blake2_256, "keccak_256": keccak_256}


def read_vectors(data: bytes, each: int) -> list[bytes]:
    """Vec of tuples of `each` byte vectors as one flat list. Raises HostTrap."""
    try:
        count, at = read_compact(data, 0)
    except ScaleError as error:
        raise HostTrap(f"an argument is not a list: {error}") from error
    if count > MAX_ITEMS:
        raise HostTrap(f"a list of {count:,} items: roots are made of {MAX_ITEMS:,} at most")
    found = []
    for _ in range(count * each):
        item, at = read_vector(data, at)
        found.append(item)
    return found


def functions(host: Host) -> Functions:
    """`ext_trie_*`."""
    found: dict[str, Callable[..., int | None]] = {}
    for name, hasher in HASHERS.items():
        found.update(_roots(host, f"ext_trie_{name}", hasher))
        for number in (1, 2):
            proof = f"ext_trie_{name}_verify_proof_version_{number}"
            found[proof] = refuse(proof, "verifying trie proofs is not implemented")
    return found


def _roots(host: Host, group: str, hasher: Hasher) -> Functions:
    read, give = host.read, host.give

    def pairs(data: int, version: int = 0) -> int:
        flat, number = read_vectors(read(data), 2), state_version(version)
        values = dict(zip(flat[::2], flat[1::2], strict=True))
        return give(rooted(lambda: root(values, number, hasher)))

    def ordered(data: int, version: int = 0) -> int:
        return give(ordered_root(read_vectors(read(data), 1), state_version(version), hasher))

    return {
        f"{group}_root_version_1": lambda data: pairs(data),
        f"{group}_root_version_2": pairs,
        f"{group}_ordered_root_version_1": lambda data: ordered(data),
        f"{group}_ordered_root_version_2": ordered,
    }
