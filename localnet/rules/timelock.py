"""Timelock: what is sealed to a round of a drand beacon opens with the pulse that the beacon publishes in that round.

A beacon of the scheme "bls-unchained-g1-rfc9380" signs SHA-256(round, 8 bytes big-endian) with BLS on BLS12-381: its
public key is a point of G2 (96 bytes), a pulse's signature one of G1 (48 bytes). Sealing is identity-based encryption
(Boneh and Franklin's FullIdent) with the round as identity, so that the pulse is the key that opens:

    k, sigma     32 random bytes each
    r            SHA-256(sigma | k), big-endian, modulo the group order
    U, V, W      r G2,  sigma xor SHA-256(e(H(round), key)^r),  k xor SHA-256(sigma)
    body         AES-256-GCM under k, and its nonce of 12 bytes

    ciphertext = U | V | W | body | b"AES_GCM_"        all but U behind a length of 8 bytes, little-endian

This is the format of the `tle` crate that the chain and its SDK are built with; the tests hold the two against each
other. Points that are not on their curve, or not in the right subgroup, are refused where they enter.

    round_at, round_time     rounds and seconds
    verify                   does a signature belong to this round of this beacon
    seal                     needs the beacon's public key
    read_sealed, unwrap      a ciphertext in its parts; unwrap also takes the SDK's envelope around it
    unseal                   needs the round's signature
    Beacon                   a beacon of one's own, for chains that nobody else publishes pulses for
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from types import ModuleType
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from localnet.codec.scale import read_compact
from localnet.errors import ConfigError, ScaleError
from localnet.rules.errors import TimelockError

SUITE = b"AES_GCM_"
DST = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"  # domain separation of hashing to G1, RFC 9380
SIGNATURE_SIZE, KEY_SIZE, HALF, NONCE_SIZE = 48, 96, 32, 12  # bytes
VERIFIED = 1024  # checks that are remembered: a pulse is looked at before it is sent, and again in its block


@lru_cache(maxsize=1)
def curve() -> ModuleType:
    """The BLS12-381 library, loaded when it is first needed. Raises ConfigError where it is not installed."""
    try:
        import py_arkworks_bls12381
    except ImportError as error:
        raise ConfigError(
            "drand pulses need the package py_arkworks_bls12381, which needs Python 3.11 or newer"
        ) from error
    return py_arkworks_bls12381


# -- rounds ---------------------------------------------------------------------------------------------------------


def round_time(round_number: int, genesis: int, period: int) -> int:
    """When a round is published, seconds since 1970. Round 1 comes at `genesis`, one more every `period` seconds."""
    return genesis + period * (round_number - 1)


def round_at(seconds: float, genesis: int, period: float) -> int:
    """The newest round that is published at this time; 0 before the first."""
    return 0 if seconds < genesis else int((seconds - genesis) // period) + 1


def message(round_number: int) -> bytes:
    """What the beacon signs in a round."""
    return sha256(round_number.to_bytes(8, "big")).digest()


def _identity(round_number: int) -> Any:
    return curve().G1Point.hash_to_curve(message(round_number), DST)


# -- points ---------------------------------------------------------------------------------------------------------


def _g1(data: bytes) -> Any:
    """A signature. Bytes behind the 48 of the point are not looked at, as on the chain."""
    try:
        return curve().G1Point.from_compressed_bytes(data[:SIGNATURE_SIZE])
    except ValueError as error:
        raise TimelockError("SignatureDeserialize", f"not a point of G1: {error}") from error


def _g2(data: bytes, reason: str) -> Any:
    try:
        return curve().G2Point.from_compressed_bytes(data[:KEY_SIZE])
    except ValueError as error:
        raise TimelockError(reason, f"not a point of G2: {error}") from error


@lru_cache(maxsize=8)
def _public_key(data: bytes) -> Any:
    return _g2(data, "SignatureDeserialize")


def verify(public_key: bytes, round_number: int, signature: bytes) -> bool:
    """Is this the beacon's signature of the round: e(signature, G2) = e(H(round), public key)?

    Raises TimelockError (SignatureDeserialize) for bytes that are no points.
    """
    return _verify(public_key[:KEY_SIZE], round_number, signature[:SIGNATURE_SIZE])  # nothing longer is remembered


@lru_cache(maxsize=VERIFIED)
def _verify(public_key: bytes, round_number: int, signature: bytes) -> bool:
    key, point, lib = _public_key(public_key), _g1(signature), curve()
    return bool(lib.GT.pairing_check([-point, _identity(round_number)], [lib.G2Point(), key]))


# -- ciphertexts ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sealed:
    """A ciphertext in its parts; `u` is a point of G2."""

    u: Any
    v: bytes
    w: bytes
    body: bytes


def _vector(data: bytes, at: int) -> tuple[bytes, int]:
    """Bytes behind their length, and where they end."""
    start = at + 8
    end = start + int.from_bytes(data[at:start], "little")
    if end > len(data) or start > len(data):
        raise ValueError(f"{len(data)} bytes are too few: {end} wanted")
    return data[start:end], end


def read_sealed(data: bytes) -> tuple[Sealed, int]:
    """A ciphertext at the start of `data`, and where it ends. Raises TimelockError (CiphertextDeserialize)."""
    try:
        v, at = _vector(data, KEY_SIZE)
        w, at = _vector(data, at)
        body, at = _vector(data, at)
        _, at = _vector(data, at)
    except ValueError as error:
        raise TimelockError("CiphertextDeserialize", str(error)) from error
    if not len(v) == len(w) == HALF:
        raise TimelockError("CiphertextDeserialize", f"V and W have {HALF} bytes, not {len(v)} and {len(w)}")
    return Sealed(_g2(data, "CiphertextDeserialize"), v, w, body), at


def unwrap(data: bytes, round_number: int) -> Sealed:
    """A ciphertext with nothing behind it, as it is or in the SDK's envelope (SCALE: bytes, round u64).

    Raises TimelockError: CiphertextDeserialize, or RoundMismatch when the envelope names another round.
    """
    try:
        sealed, end = read_sealed(data)
        if end == len(data):
            return sealed
    except TimelockError:
        pass  # not a bare ciphertext
    try:
        size, start = read_compact(data, 0)
    except ScaleError as error:
        raise TimelockError("CiphertextDeserialize", "neither a ciphertext nor an envelope around one") from error
    if start + size + 8 != len(data):
        raise TimelockError("CiphertextDeserialize", "neither a ciphertext nor an envelope around one")
    sealed, end = read_sealed(data[start : start + size])
    if end != size:
        raise TimelockError("CiphertextDeserialize", f"{size - end} bytes left over after the ciphertext")
    named = int.from_bytes(data[-8:], "little")
    if named != round_number:
        raise TimelockError("RoundMismatch", f"sealed to round {named}, not {round_number}")
    return sealed


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _digest(pairing: Any) -> bytes:
    """SHA-256 of an element of the target group in arkworks' compressed form, which its text shows as hex."""
    return sha256(bytes.fromhex(str(pairing))).digest()


def _exponent(sigma: bytes, key: bytes) -> Any:
    return curve().Scalar.from_be_bytes_mod_order(sha256(sigma + key).digest())


def unseal(sealed: Sealed, signature: bytes) -> bytes:
    """The plaintext. The signature may have b"0x" in front of it, as on the chain.

    Raises TimelockError: SignatureDeserialize, or Decrypt when the signature does not open it.
    """
    lib = curve()
    sigma = _xor(sealed.v, _digest(lib.GT.pairing(_g1(signature.removeprefix(b"0x")), sealed.u)))
    key = _xor(sealed.w, sha256(sigma).digest())
    if lib.G2Point() * _exponent(sigma, key) != sealed.u:
        raise TimelockError("Decrypt", "the signature is not that of the round it was sealed to")
    try:
        text, at = _vector(sealed.body, 0)
        nonce, _ = _vector(sealed.body, at)
        if len(nonce) != NONCE_SIZE:
            raise ValueError(f"a nonce has {NONCE_SIZE} bytes, not {len(nonce)}")
        return AESGCM(key).decrypt(nonce, text, None)
    except (InvalidTag, ValueError) as error:
        raise TimelockError("Decrypt", f"the sealed bytes are damaged: {error or 'wrong tag'}") from error


def seal(
    plaintext: bytes,
    public_key: bytes,
    round_number: int,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> bytes:
    """A ciphertext that opens with the beacon's signature of the round. `random` gives that many secret bytes.

    Raises TimelockError when the public key is not a point of G2.
    """
    lib, sigma, key, nonce = curve(), random(HALF), random(HALF), random(NONCE_SIZE)
    r = _exponent(sigma, key)
    shared = lib.GT.pairing(_identity(round_number) * r, _public_key(public_key))
    body = _counted(AESGCM(key).encrypt(nonce, plaintext, None)) + _counted(nonce)
    v, w = _xor(sigma, _digest(shared)), _xor(key, sha256(sigma).digest())
    u = bytes((lib.G2Point() * r).to_compressed_bytes())
    return u + b"".join(map(_counted, (v, w, body, SUITE)))


def _counted(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data


# -- a beacon of one's own ------------------------------------------------------------------------------------------


class Beacon:
    """Signs rounds with a key of its own: everybody who holds `seed` can open what is sealed to it, at any time."""

    def __init__(self, seed: bytes) -> None:
        """Raises ConfigError where the BLS12-381 library is missing."""
        lib = curve()
        self._key = lib.Scalar.from_be_bytes_mod_order(sha256(b"localnet drand beacon" + seed).digest())
        self.public_key = bytes((lib.G2Point() * self._key).to_compressed_bytes())
        self.hash = sha256(self.public_key).digest()  # names the beacon; drand's own is over more than the key

    def sign(self, round_number: int) -> bytes:
        """The round's signature, 48 bytes."""
        return bytes((_identity(round_number) * self._key).to_compressed_bytes())
