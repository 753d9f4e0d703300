"""Extrinsics of format 4: what is inside, what was signed, and whether the signature holds.

A signed extrinsic is: address, signature, extensions, call. The extensions of spec 461 put four values on the wire
(era, nonce, tip, metadata-hash mode) and six into the signed payload only (spec version, transaction version, genesis
hash, hash of the era's first block, metadata hash). `EXTENSIONS` names them in order; the runtime compares the list
with its metadata at start, so a document with other extensions is refused instead of misread.

    extrinsic = parse(raw)                        # ScaleError on anything malformed
    payload = extrinsic.payload(context, birth)   # what was signed
    verify(payload, extrinsic)                    # sr25519 or ed25519
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from localnet.codec.scale import compact, read_compact
from localnet.errors import ScaleError
from localnet.signatures import ed25519_verify, sr25519_verify

EXTENSIONS = (
    "CheckNonZeroSender", "CheckSpecVersion", "CheckTxVersion", "CheckGenesis", "CheckMortality", "CheckNonce",
    "CheckWeight", "ChargeTransactionPayment", "SudoTransactionExtension", "CheckShieldedTxValidity",
    "SubtensorTransactionExtension", "DrandPriority", "CheckMetadataHash",
)  # fmt: skip
SIGNED_V4 = 0x84
BARE_V4, BARE_V5 = 0x04, 0x05
VERIFY = {0: ed25519_verify, 1: sr25519_verify}  # by MultiSignature variant
SIGNATURE_BYTES = 64


@dataclass(frozen=True)
class Era:
    """A mortal era: valid for `period` blocks from the block whose number is `phase` modulo `period`."""

    period: int
    phase: int

    def birth(self, current: int) -> int:
        """Number of the era's first block, seen from block `current`."""
        return (max(current, self.phase) - self.phase) // self.period * self.period + self.phase

    def left(self, current: int) -> int:
        """Blocks from `current` to the first one that may not carry the transaction any more."""
        return self.birth(current) + self.period - current


@dataclass(frozen=True)
class Extrinsic:
    """A parsed extrinsic; `who` is None for a bare one (an inherent)."""

    raw: bytes
    call: bytes
    who: bytes | None = None
    scheme: int = 1  # MultiSignature variant
    signature: bytes = b""
    era: Era | None = None
    nonce: int = 0
    tip: int = 0
    check_metadata: bool = False
    extra: bytes = b""

    def payload(self, spec: int, transaction: int, genesis: bytes, birth: bytes, metadata_hash: bytes) -> bytes:
        """Bytes that were signed. `birth`: hash of the era's first block (the genesis hash for an immortal one)."""
        checked = b"\1" + metadata_hash if self.check_metadata else b"\0"
        versions = spec.to_bytes(4, "little") + transaction.to_bytes(4, "little")
        whole = self.call + self.extra + versions + genesis + birth + checked
        return whole if len(whole) <= 256 else blake2b(whole, digest_size=32).digest()


def parse(raw: bytes) -> Extrinsic:
    """Split an extrinsic. Raises ScaleError."""
    length, offset = read_compact(raw, 0)
    if len(raw) - offset != length or length < 2:
        raise ScaleError("the extrinsic's length prefix does not match its length")
    version = raw[offset]
    offset += 1
    if version in (BARE_V4, BARE_V5):
        return Extrinsic(raw, raw[offset:])
    if version != SIGNED_V4:
        raise ScaleError(f"extrinsic format {version:#04x} is not supported, only signed format 4 and bare 4 or 5")
    return _parse_signed(raw, offset)


def _parse_signed(raw: bytes, offset: int) -> Extrinsic:
    if raw[offset] != 0:
        raise ScaleError("only the account-id form of an address is supported")
    who, offset = raw[offset + 1 : offset + 33], offset + 33
    if offset + 1 + SIGNATURE_BYTES >= len(raw):
        raise ScaleError("the extrinsic ends inside its signature")
    scheme = raw[offset]
    if scheme not in VERIFY:
        raise ScaleError("only ed25519 and sr25519 signatures are supported")
    signature, offset = raw[offset + 1 : offset + 1 + SIGNATURE_BYTES], offset + 1 + SIGNATURE_BYTES
    start = offset
    era, offset = _parse_era(raw, offset)
    nonce, offset = read_compact(raw, offset)
    tip, offset = read_compact(raw, offset)
    if offset >= len(raw) or raw[offset] > 1 or nonce >= 1 << 32 or tip >= 1 << 64:
        raise ScaleError("the extrinsic's nonce, tip or metadata mode is out of range")
    mode, offset = raw[offset], offset + 1
    return Extrinsic(raw, raw[offset:], who, scheme, signature, era, nonce, tip, mode == 1, raw[start:offset])


def _parse_era(raw: bytes, offset: int) -> tuple[Era | None, int]:
    if raw[offset] == 0:
        return None, offset + 1
    encoded = int.from_bytes(raw[offset : offset + 2], "little")
    period = 2 << (encoded & 15)
    phase = (encoded >> 4) * max(period >> 12, 1)
    if period < 4 or phase >= period:
        raise ScaleError("the extrinsic's era is not valid")
    return Era(period, phase), offset + 2


def verify(payload: bytes, extrinsic: Extrinsic) -> bool:
    """Does the extrinsic's signature cover `payload`?"""
    assert extrinsic.who is not None
    return VERIFY[extrinsic.scheme](extrinsic.signature, payload, extrinsic.who)


def bare(call: bytes) -> bytes:
    """An inherent extrinsic around an encoded call."""
    body = bytes((BARE_V5,)) + call
    return compact(len(body)) + body
