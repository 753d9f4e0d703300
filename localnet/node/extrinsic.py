"""The envelope of an extrinsic: everything around the call, sliced without decoding the call.

The node needs little of it: the hash clients know an extrinsic by, whether it is signed, and for people (logs, the pool
listing) who signed it with which nonce and for how long it lives. Ordering in the pool follows the tags the runtime's
`validate_transaction` gives, not these fields, and all checking is the runtime's.

    compact length | 0x84 | 0x00 account (32) | kind, signature | extensions | call
    compact length | 0x04 or 0x05 | call                                                  (inherents and unsigned)

What the extensions put there is the runtime's choice (`Layout`, see documents.py): era, compact nonce and compact tip
in all that are known, and one byte more since metadata hashes can be signed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from localnet.codec.scale import compact, opaque, read_compact
from localnet.errors import ExtrinsicFormat, ScaleError
from localnet.node.blocks import blake2_256

SIGNED, BARE = 0x84, (0x04, 0x05)
SIGNATURE_SIZE = {0: 64, 1: 64, 2: 65}  # ed25519, sr25519, ecdsa

Part: TypeAlias = "str | Callable[[bytes, int], int]"
Layout: TypeAlias = tuple[Part, ...]
"""Of a signed extrinsic, between signature and call: "era", "nonce", "tip", "mode" (one byte), or what passes over
another part: (data, offset) -> offset, ScaleError where it does not fit."""

USUAL: Layout = ("era", "nonce", "tip", "mode")


@dataclass(frozen=True)
class Era:
    """Mortality: valid for `period` blocks from the last block before now whose number is `phase` modulo `period`."""

    period: int
    phase: int

    def birth(self, current: int) -> int:
        """The block the signer referred to, for an extrinsic looked at on top of block `current`."""
        return (max(current, self.phase) - self.phase) // self.period * self.period + self.phase


@dataclass(frozen=True)
class Envelope:
    """What the node knows about an extrinsic. `who` is None for an unsigned one, `era` None for an immortal one."""

    raw: bytes
    hash: bytes
    who: bytes | None = None
    nonce: int = 0
    era: Era | None = None
    tip: int = 0
    call: bytes = b""


def frame(body: bytes) -> bytes:
    """An extrinsic from its body: the length prefix in front."""
    return opaque(body)


def split_vector(data: bytes) -> list[bytes]:
    """Extrinsics (with their length prefixes) of a SCALE `Vec<Extrinsic>`. Raises ExtrinsicFormat."""
    try:
        count, offset = read_compact(data, 0)
        out = []
        for _ in range(count):
            size, start = read_compact(data, offset)
            if start + size > len(data):
                raise ExtrinsicFormat("the list of extrinsics ends inside one of them")
            out.append(data[offset : start + size])
            offset = start + size
    except ScaleError as error:
        raise ExtrinsicFormat(f"not a list of extrinsics: {error}") from error
    if offset != len(data):
        raise ExtrinsicFormat(f"{len(data) - offset} bytes left over after the list of extrinsics")
    return out


def join_vector(extrinsics: list[bytes]) -> bytes:
    """Inverse of `split_vector`."""
    return compact(len(extrinsics)) + b"".join(extrinsics)


def parse(raw: bytes, layout: Layout | None = USUAL) -> Envelope:
    """Slice an extrinsic; without a layout only as far as the signature, what follows is not known then.

    Raises ExtrinsicFormat.
    """
    try:
        size, offset = read_compact(raw, 0)
        if len(raw) - offset != size:
            raise ExtrinsicFormat(f"the length prefix says {size} bytes, {len(raw) - offset} follow")
        if offset == len(raw):
            raise ExtrinsicFormat("the extrinsic is empty")
        version, digest = raw[offset], blake2_256(raw)
        if version in BARE:
            return Envelope(raw, digest, call=raw[offset + 1 :])
        if version != SIGNED:
            raise ExtrinsicFormat(f"extrinsic version byte {version:#04x} is not supported: 0x84, 0x04 or 0x05")
        return _parse_signed(raw, digest, offset + 1, layout)
    except (ScaleError, IndexError) as error:
        raise ExtrinsicFormat(f"the extrinsic ends inside its envelope: {error}") from error


def _parse_signed(raw: bytes, digest: bytes, offset: int, layout: Layout | None) -> Envelope:
    if raw[offset] != 0:
        raise ExtrinsicFormat(f"the signer must be an account id (MultiAddress::Id), not kind {raw[offset]}")
    who, offset = raw[offset + 1 : offset + 33], offset + 33
    size = SIGNATURE_SIZE.get(raw[offset])
    if size is None:
        raise ExtrinsicFormat(f"unknown kind of signature: {raw[offset]}")
    offset += 1 + size
    era, numbers = None, {"nonce": 0, "tip": 0}
    for part in layout or ():
        if part == "era":
            era, offset = _parse_era(raw, offset)
        elif part == "mode":
            offset += 1
        elif isinstance(part, str):
            numbers[part], offset = read_compact(raw, offset)
        else:
            offset = part(raw, offset)
    if offset >= len(raw):  # at least one byte of call
        raise ExtrinsicFormat("the extrinsic ends before its call")
    call = b"" if layout is None else raw[offset:]
    return Envelope(raw, digest, who, numbers["nonce"], era, numbers["tip"], call)


def _parse_era(raw: bytes, offset: int) -> tuple[Era | None, int]:
    if raw[offset] == 0:
        return None, offset + 1
    encoded = int.from_bytes((raw[offset], raw[offset + 1]), "little")
    period = 2 << (encoded & 0b1111)
    phase = (encoded >> 4) * max(period >> 12, 1)
    if period < 4 or phase >= period:
        raise ExtrinsicFormat(f"era {encoded:#06x} does not exist")
    return Era(period, phase), offset + 2
