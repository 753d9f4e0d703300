"""Hash functions: data as a span in, a pointer to the digest out."""

from __future__ import annotations

import struct
from hashlib import blake2b, sha256

import xxhash
from Crypto.Hash import keccak

from localnet.wasm.host.interface import Functions, Host

_twox = xxhash.xxh64_intdigest
_one = struct.Struct("<Q").pack
_two = struct.Struct("<QQ").pack
_four = struct.Struct("<QQQQ").pack


def keccak_256(data: bytes) -> bytes:
    """Keccak as Ethereum has it, before it became SHA-3."""
    return bytes(keccak.new(digest_bits=256, data=data).digest())


def functions(host: Host) -> Functions:
    """`ext_hashing_*`."""
    read, give = host.read, host.give

    def twox_64(data: int) -> int:
        return give(_one(_twox(read(data), 0)))

    def twox_128(data: int) -> int:
        raw = read(data)
        return give(_two(_twox(raw, 0), _twox(raw, 1)))

    def twox_256(data: int) -> int:
        raw = read(data)
        return give(_four(_twox(raw, 0), _twox(raw, 1), _twox(raw, 2), _twox(raw, 3)))

    return {
        "ext_hashing_twox_64_version_1": twox_64,
        "ext_hashing_twox_128_version_1": twox_128,
        "ext_hashing_twox_256_version_1": twox_256,
        "ext_hashing_blake2_128_version_1": lambda data: give(blake2b(read(data), digest_size=16).digest()),
        "ext_hashing_blake2_256_version_1": lambda data: give(blake2b(read(data), digest_size=32).digest()),
        "ext_hashing_keccak_256_version_1": lambda data: give(keccak_256(read(data))),
        "ext_hashing_keccak_512_version_1": lambda data: give(keccak.new(digest_bits=512, data=read(data)).digest()),
        "ext_hashing_sha2_256_version_1": lambda data: give(sha256(read(data)).digest()),
    }
