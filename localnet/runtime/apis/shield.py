"""What a block's author asks about sealed extrinsics; see `localnet.runtime.pallets.mev_shield`.

    sealed = [twox128 of the public key, 16][u16 size][kem ciphertext][nonce, 24][ciphertext]

`try_unshield_tx` takes the author's private key; the author opens carriers itself here, so it is not exported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localnet.codec.document import twox128
from localnet.codec.scale import opaque
from localnet.errors import ScaleError
from localnet.runtime import extrinsic as xt
from localnet.runtime.apis.registry import api

if TYPE_CHECKING:
    from localnet.runtime.runtime import SpecRuntime

HASH_SIZE, LENGTH_SIZE, NONCE_SIZE = 16, 2, 24


def parse_sealed(data: bytes) -> dict[str, Any] | None:
    """The parts of a carrier's contents, or None when they do not have that form."""
    start = HASH_SIZE + LENGTH_SIZE
    if len(data) < start:
        return None
    end = start + int.from_bytes(data[HASH_SIZE:start], "little")
    if len(data) < end + NONCE_SIZE:
        return None
    nonce_end = end + NONCE_SIZE
    return {
        "key_hash": data[:HASH_SIZE],
        "kem_ct": data[start:end],
        "aead_ct": data[nonce_end:],
        "nonce": data[end:nonce_end],
    }


@api("ShieldApi_try_decode_shielded_tx")
def try_decode_shielded_tx(rt: SpecRuntime, uxt: bytes) -> dict[str, Any] | None:
    """The contents of a signed carrier; None for every other extrinsic."""
    try:
        extrinsic = xt.parse(opaque(uxt))
        pallet, function, arguments = rt.decode_call(extrinsic.call)
    except ScaleError:
        return None
    if extrinsic.who is None or (pallet, function) != ("MevShield", "submit_encrypted"):
        return None
    return parse_sealed(arguments["ciphertext"])


@api("ShieldApi_is_shielded_using_current_key")
def is_shielded_using_current_key(rt: SpecRuntime, key_hash: bytes) -> bool:
    """Is this the key that the current block's author can open?"""
    pending = rt.mev_shield.PendingKey.get()
    return pending is not None and twox128(pending) == key_hash
