"""Hash functions: data as a span in, a pointer to the digest out. Those of storage keys, twox and blake2, are the
companion's own (companion_hashes.py)."""

from __future__ import annotations

from hashlib import sha256

from Crypto.Hash import keccak

from localnet.wasm.host.interface import Functions, Host


def keccak_256(data: bytes) -> bytes:
    """Keccak as Ethereum has it, before it became SHA-3."""
    return bytes(keccak.new(digest_bits=256, data=data).digest())


def functions(host: Host) -> Functions:
    """`ext_hashing_*`."""
    read, give = host.read, host.give
    return {
        "ext_hashing_keccak_256_version_1": lambda data: give(keccak_256(read(data))),
        "ext_hashing_keccak_512_version_1": lambda data: give(keccak.new(digest_bits=512, data=read(data)).digest()),
        "ext_hashing_sha2_256_version_1": lambda data: give(sha256(read(data)).digest()),
    }
