"""Signatures as the chain checks them, for both runtimes.

`sp-core` verifies with schnorrkel, ed25519-zebra and libsecp256k1; so do these, with the same libraries.
`bittensor_core.verify` will not do: it also takes a signature of the message between <Bytes> and </Bytes>, which
wallets make and the chain refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ed25519_zebra  # type: ignore[import-untyped]
import sr25519  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from coincurve import PublicKey

GROUP_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141  # of secp256k1
BAD_RS, BAD_V, BAD_SIGNATURE = 0, 1, 2  # EcdsaVerifyError


def sr25519_verify(signature: bytes, message: bytes, public: bytes) -> bool:
    try:
        return bool(sr25519.verify(signature, message, public))
    except ValueError:  # no point, or no signature of this scheme
        return False


def ed25519_verify(signature: bytes, message: bytes, public: bytes) -> bool:
    try:
        return bool(ed25519_zebra.ed_verify(signature, message, public))
    except ValueError:
        return False


class Unrecoverable(Exception):
    """A signature names no key. `code`: EcdsaVerifyError."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def recover(signature: bytes, digest: bytes, overflowing: bool = False) -> PublicKey:
    """The secp256k1 key that signed. `signature`: r, s, and a recovery id of 0 to 3. `overflowing`: r and s count
    modulo the group order, as they once did. Raises Unrecoverable."""
    from coincurve import PublicKey  # here: a chain's start can do without

    if signature[64] > 3:
        raise Unrecoverable(BAD_V)
    r, s = (int.from_bytes(signature[at : at + 32], "big") for at in (0, 32))
    if not overflowing and max(r, s) >= GROUP_ORDER:
        raise Unrecoverable(BAD_RS)
    reduced = b"".join((n % GROUP_ORDER).to_bytes(32, "big") for n in (r, s))
    try:
        return PublicKey.from_signature_and_message(reduced + signature[64:65], digest, hasher=None)
    except Exception as error:  # coincurve raises Exception itself
        raise Unrecoverable(BAD_SIGNATURE) from error


def ecdsa_verify(signature: bytes, digest: bytes, public: bytes, overflowing: bool = False) -> bool:
    """Is the key that signed this one (33 bytes)? As sp-core's ecdsa, which takes s above half the order, too."""
    try:
        return recover(signature, digest, overflowing).format() == public
    except Unrecoverable:
        return False
