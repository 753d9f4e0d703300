"""Hashes and tries against published values."""

from __future__ import annotations

from contextlib import suppress
from hashlib import blake2b

import pytest
from Crypto.Hash import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from localnet.codec.scale import compact, opaque
from localnet.wasm.host.interface import HostTrap
from tests.support.wasm_memory import MemoryHost

VECTORS = [  # Keccak, FIPS 180-4; twox and blake2 are the companion's, see test_wasm_runtime.py
    ("keccak_256", b"", "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"),
    (
        "keccak_512",
        b"",
        "0eab42de4c3ceb9235fc91acffe746b29c29a8c366b7c60e4e67c466f36a4304"
        "c00fa9caf9d87976ba469bcbe06713b435f091ef2769fb160cdab33d3670680e",
    ),
    ("sha2_256", b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
]


@pytest.mark.parametrize(("name", "data", "digest"), VECTORS)
def test_known_answers(name: str, data: bytes, digest: str) -> None:
    host = MemoryHost()
    pointer = host.call(f"ext_hashing_{name}_version_1", host.span(data))
    assert host.read_at(pointer, len(digest) // 2).hex() == digest


# -- tries: node encodings of sp-trie's own tests (codec_trie_*, lib.rs), so the root is their hash

ONE_PAIR = ([(b"\xaa", b"\xbb")], bytes((0x42, 0xAA, 4, 0xBB)))
TWO_PAIRS = (
    [(b"\x48\x19", b"\xfe"), (b"\x13\x14", b"\xff")],
    bytes((0x80, 0x12, 0, 5 << 2, 0x43, 0x03, 0x14, 4, 0xFF, 5 << 2, 0x43, 0x08, 0x19, 4, 0xFE)),
)
HASHERS = {
    "blake2_256": lambda data: blake2b(data, digest_size=32).digest(),
    "keccak_256": lambda data: keccak.new(digest_bits=256, data=data).digest(),
}


def of_pairs(pairs: list[tuple[bytes, bytes]]) -> bytes:
    return compact(len(pairs)) + b"".join(opaque(key) + opaque(value) for key, value in pairs)


def call(name: str, data: bytes, *version: int) -> bytes:
    host = MemoryHost()
    return host.read_at(host.call(f"ext_trie_{name}", host.span(data), *version), 32)


@pytest.mark.parametrize("hasher", HASHERS)
@pytest.mark.parametrize(("pairs", "node"), [([], b"\0"), ONE_PAIR, TWO_PAIRS])
def test_roots_of_pairs(hasher: str, pairs: list[tuple[bytes, bytes]], node: bytes) -> None:
    expected = HASHERS[hasher](node)
    assert call(f"{hasher}_root_version_1", of_pairs(pairs)) == expected
    for version in (0, 1):
        assert call(f"{hasher}_root_version_2", of_pairs(pairs[::-1]), version) == expected


def test_of_two_values_for_a_key_the_last_counts() -> None:
    assert call("blake2_256_root_version_1", of_pairs([(b"\xaa", b"x"), (b"\xaa", b"\xbb")])) == HASHERS["blake2_256"](
        ONE_PAIR[1]
    )


@pytest.mark.parametrize("hasher", HASHERS)
def test_roots_of_lists_have_compact_positions_as_keys(hasher: str) -> None:
    items = [bytes((at,)) * at for at in range(70)]
    pairs = [(compact(at), item) for at, item in enumerate(items)]
    data = compact(len(items)) + b"".join(map(opaque, items))
    zero = call(f"{hasher}_ordered_root_version_1", data)
    assert (
        zero == call(f"{hasher}_ordered_root_version_2", data, 0) == call(f"{hasher}_root_version_1", of_pairs(pairs))
    )
    one = call(f"{hasher}_ordered_root_version_2", data, 1)
    assert one == call(f"{hasher}_root_version_2", of_pairs(pairs), 1) != zero


def test_the_root_of_no_extrinsics() -> None:
    digest = "03170a2e7597b7b7e3d84c05391d139a62b157e78786d8c082f29dcf4c111314"
    assert call("blake2_256_ordered_root_version_2", b"\0", 1).hex() == digest


@pytest.mark.parametrize("hasher", HASHERS)
@pytest.mark.parametrize("version", [1, 2])
def test_a_proof_is_not_waved_through(hasher: str, version: int) -> None:
    host = MemoryHost()
    arguments = (host.pointer(bytes(32)), host.span(b"\0"), host.span(b"k"), host.span(b"v"), 1)
    with pytest.raises(HostTrap, match=f"{hasher}_verify_proof_version_{version} is not available"):
        host.call(f"ext_trie_{hasher}_verify_proof_version_{version}", *arguments[: 3 + version])


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=40) | st.integers(0, 1 << 40).map(compact))
def test_bytes_that_are_no_list_trap_or_are_read_to_their_end(data: bytes) -> None:
    for name in ("blake2_256_root_version_1", "blake2_256_ordered_root_version_1"):
        with suppress(HostTrap):
            assert len(call(name, data)) == 32


def test_a_list_that_ends_too_early_traps() -> None:
    data = of_pairs(TWO_PAIRS[0])
    for cut in range(len(data)):
        with pytest.raises(HostTrap):
            call("blake2_256_root_version_1", data[:cut])


def test_keys_nested_in_each_other_a_thousand_deep_trap() -> None:
    with pytest.raises(HostTrap, match="nested too deeply"):
        call("blake2_256_root_version_1", of_pairs([(b"k" * size, b"v") for size in range(2000)]))
