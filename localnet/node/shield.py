"""The author's side of the MEV shield: keys, and opening what was sealed to them.

A client seals a signed extrinsic to the chain's `NextKey` and sends it inside a carrier extrinsic. The author announces
its keys through an inherent (identifier "shieldpk"), asks the runtime which extrinsics are carriers
(`ShieldApi_try_decode_shielded_tx`), opens them, and puts the inner extrinsic right behind its carrier in the same
block.

    sealed = [twox128 of the public key, 16][kem ciphertext][XChaCha20-Poly1305 nonce, 24][ciphertext]

The cipher is ML-KEM-768 with XChaCha20-Poly1305 under the shared secret. Keys are derived from one secret and a
rotation number, so that a restarted or reverted chain can still open what it announced, and a chain with a fixed
secret repeats exactly. Making one takes 0.3-0.6 ms, three times an empty block: it rotates every `ROTATE_EVERY`
blocks, where the released chain does so in each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt
from nacl.exceptions import CryptoError

from localnet.codec.scale import opaque, read_compact
from localnet.errors import ScaleError

import xxhash  # isort: skip

INHERENT = b"shieldpk"
ROTATE_EVERY = 16  # blocks
KEPT_ROTATIONS = 8  # how far back an announced key still opens: 128 blocks, more than the SDK's era of 8
KEM_SIZE = 1088
MIN_CARRIER = KEM_SIZE + 16 + 24 + 16  # no extrinsic shorter than its ciphertext is a carrier


@dataclass(frozen=True)
class Sealed:
    """A carrier's contents, as the runtime's `ShieldedTransaction`."""

    key_hash: bytes
    kem: bytes
    ciphertext: bytes
    nonce: bytes


def twox_128(data: bytes) -> bytes:
    return b"".join(xxhash.xxh64_intdigest(data, seed).to_bytes(8, "little") for seed in (0, 1))


def decode_sealed(data: bytes) -> Sealed | None:
    """Decode an `Option<ShieldedTransaction>`. Raises ScaleError."""
    if data[:1] == b"\0":
        return None
    size, offset = read_compact(data, 17)
    kem, offset = data[offset : offset + size], offset + size
    size, offset = read_compact(data, offset)
    ciphertext, offset = data[offset : offset + size], offset + size
    if len(data) != offset + 24:
        raise ScaleError("a shielded transaction of the wrong length")
    return Sealed(data[1:17], kem, ciphertext, data[offset:])


class Shield:
    """The author's keys. `secret` is 32 bytes, private to the node."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._key = lru_cache(maxsize=KEPT_ROTATIONS + 2)(self._derive)

    def _derive(self, rotation: int) -> tuple[MLKEM768PrivateKey, bytes, bytes]:
        """Private key, public key, and the hash a carrier names it by."""
        seed = blake2b(rotation.to_bytes(8, "little"), key=self._secret, person=b"shield key", digest_size=64).digest()
        key = MLKEM768PrivateKey.from_seed_bytes(seed)
        public = key.public_key().public_bytes_raw()
        return key, public, twox_128(public)

    def announced(self, number: int) -> bytes:
        """The public key that block `number` announces."""
        return self._key(number // ROTATE_EVERY)[1]

    def inherent(self, number: int) -> bytes:
        """Inherent data for block `number`: Some(public key)."""
        return b"\1" + opaque(self.announced(number))

    def open(self, sealed: Sealed, number: int) -> bytes | None:
        """The inner extrinsic of a carrier in block `number`; None when it was not sealed to a recent key of ours."""
        newest = number // ROTATE_EVERY
        for rotation in range(newest, max(newest - KEPT_ROTATIONS, 0) - 1, -1):
            key, _, name = self._key(rotation)
            if name != sealed.key_hash:
                continue
            if len(sealed.kem) != KEM_SIZE:
                return None
            try:
                shared = key.decapsulate(sealed.kem)
                return crypto_aead_xchacha20poly1305_ietf_decrypt(sealed.ciphertext, b"", sealed.nonce, shared)
            except (CryptoError, ValueError):  # ValueError: a ciphertext shorter than its tag
                return None
        return None
