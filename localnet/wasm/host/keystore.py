"""Keys that a runtime may sign with: what a node keeps for its validator, and here nobody has unless it is given.

    insert(kind, scheme, uri)      a key from a secret URI: "//Alice", "0x" and a seed, a mnemonic with a path
    public_keys(kind, scheme)      in the order in which they came
    sign(kind, scheme, public, ..)  None for a key that is not there

`kind` is Substrate's KeyTypeId, four bytes such as b"aura". A signature of sr25519 holds randomness, as the scheme
wants it: a runtime that stores one is not deterministic, and none does outside off-chain workers.

Mnemonics and soft paths of ecdsa are not implemented: its keys come from a seed in hex or from the development phrase
that "//Alice" stands for.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import bittensor_core
import coincurve

from localnet.codec.scale import compact, opaque
from localnet.node.blocks import blake2_256

SR25519, ED25519, ECDSA = "sr25519", "ed25519", "ecdsa"
DEVELOPMENT_SEED = bytes.fromhex("fac7959dbfe72f052e5a0c3c8d6530f202b02fd8f9f5ca3580ec8deb7797479e")  # of DEV_PHRASE
HARD_JUNCTION = b"Secp256k1HDKD"
MAX_URI = 1000  # characters
MAX_KEYS = 1000
_ECDSA_URI = re.compile(r"(0x[0-9a-fA-F]{64})?((?://[^/]+)*)")

Signer = Callable[[bytes], bytes]


def _chain_code(junction: str) -> bytes:
    """sp_core's DeriveJunction: a number in 8 bytes, or text behind its length, made 32 bytes."""
    number = junction.isascii() and junction.isdigit() and int(junction) < 1 << 64
    raw = int(junction).to_bytes(8, "little") if number else opaque(junction.encode())
    return blake2_256(raw) if len(raw) > 32 else raw.ljust(32, b"\0")


def ecdsa_secret(uri: str) -> bytes:
    """32 bytes. Raises ValueError."""
    found = _ECDSA_URI.fullmatch(uri)
    if found is None:
        raise ValueError("an ecdsa key is made from //name/.. or from 0x and 32 bytes in hex")
    secret = bytes.fromhex(found[1][2:]) if found[1] else DEVELOPMENT_SEED
    for junction in filter(None, found[2].split("//")):
        secret = blake2_256(compact(len(HARD_JUNCTION)) + HARD_JUNCTION + secret + _chain_code(junction))
    return secret


def ecdsa_sign(key: coincurve.PrivateKey, digest: bytes) -> bytes:
    """r, s and the recovery id: 65 bytes."""
    return bytes(key.sign_recoverable(digest, hasher=None))


class Keystore:
    """Keys by kind and scheme."""

    def __init__(self) -> None:
        self._signers: dict[tuple[bytes, str], dict[bytes, Signer]] = {}

    def insert(self, kind: bytes, scheme: str, uri: str) -> bytes:
        """The public key. Raises ValueError for what is no secret URI, and for more than MAX_KEYS."""
        if len(uri) > MAX_URI:
            raise ValueError(f"a secret URI has at most {MAX_URI} characters")
        public, signer = self._ecdsa(uri) if scheme == ECDSA else self._edwards(scheme, uri)
        if sum(map(len, self._signers.values())) >= MAX_KEYS:
            raise ValueError(f"a keystore holds at most {MAX_KEYS} keys")
        self._signers.setdefault((kind, scheme), {})[public] = signer
        return public

    def _edwards(self, scheme: str, uri: str) -> tuple[bytes, Signer]:
        number = bittensor_core.CRYPTO_SR25519 if scheme == SR25519 else bittensor_core.CRYPTO_ED25519
        pair = bittensor_core.Keypair.create_from_uri(uri, number)
        return bytes(pair.public_key), lambda message: bytes(pair.sign(message))

    def _ecdsa(self, uri: str) -> tuple[bytes, Signer]:
        key = coincurve.PrivateKey(ecdsa_secret(uri))
        return key.public_key.format(), lambda digest: ecdsa_sign(key, digest)

    def public_keys(self, kind: bytes, scheme: str) -> list[bytes]:
        """32 bytes each, 33 of ecdsa."""
        return list(self._signers.get((kind, scheme), ()))

    def sign(self, kind: bytes, scheme: str, public: bytes, message: bytes) -> bytes | None:
        """64 bytes; of ecdsa 65, and `message` is the digest then."""
        signer = self._signers.get((kind, scheme), {}).get(public)
        return None if signer is None else signer(message)
