"""Accounts that nobody holds a key for: each is a hash of what it stands for.

    pallet_account       a pallet's own purse, or one of several
    derivative_account   an account's numbered child (Utility.as_derivative)
    multisig_account     what a set of signatories owns together at a threshold
    pure_account         an account made for its proxies (Proxy.create_pure)
    lease_account        coldkey or hotkey of a leased subnet

The derivations are those of Substrate's Utility, Multisig, Proxy and PalletId, and of Subtensor's leases.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from localnet.codec.scale import compact, opaque

PSEUDONYM = b"modlpy/utilisuba"  # Utility and Multisig share it
PURE = b"modlpy/proxy____"


def _hash(*parts: bytes) -> bytes:
    return blake2b(b"".join(parts), digest_size=32).digest()


def _int(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


def pallet_account(pallet_id: bytes, sub: bytes = b"") -> bytes:
    """`pallet_id`: its 8 bytes; `sub`: the encoded key of the sub-account."""
    return (b"modl" + pallet_id + sub).ljust(32, b"\0")


def derivative_account(who: bytes, index: int) -> bytes:
    return _hash(PSEUDONYM, who, _int(index, 2))


def multisig_account(signatories: Sequence[bytes], threshold: int) -> bytes:
    """`signatories`: all of them, ascending."""
    return _hash(PSEUDONYM, compact(len(signatories)), *signatories, _int(threshold, 2))


def pure_account(spawner: bytes, height: int, extrinsic: int, proxy_type: int, index: int) -> bytes:
    """`height`, `extrinsic`: where it was created; `proxy_type`: the variant's index; `index`: the caller's choice."""
    return _hash(PURE, spawner, _int(height, 4), _int(extrinsic, 4), _int(proxy_type, 1), _int(index, 2))


def lease_account(role: str, lease_id: int) -> bytes:
    """`role`: "coldkey" or "hotkey"."""
    return _hash(opaque(f"leasing/{role}".encode()), _int(lease_id, 4))
