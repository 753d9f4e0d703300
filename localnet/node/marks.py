"""What a developer did in a block, written into its header for everybody to see.

A released chain has no such thing, so it stands in a digest item of kind Other, which every client decodes as bytes:
the text `localnet:` and a JSON object

    impersonated   [[index of the extrinsic, origin], ..]: nobody signed these; origin is "root", "none" or an address
    storage        how many storage values were written behind the chain's back, at the end of the block

An impersonated extrinsic of an account has that account as signer and `FAKE_SIGNATURE` as signature (the bytes that
chopsticks uses, too); one of root or of nobody is a bare extrinsic.

A Wasm runtime knows no such origin as root: it is given Sudo.sudo of the sudo key, which pays for it and whose nonce
grows. The block's body has the bare extrinsic that stands for it, the extrinsics root is of what the runtime was given.
Made again (replay.py), the block comes out the same, root and all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import bittensor_core

from localnet.codec.scale import compact, opaque, read_compact
from localnet.node.blocks import Header
from localnet.node.extrinsic import frame

TAG = b"localnet:"
OTHER = 0  # kind of digest item
FAKE_SIGNATURE = bytes.fromhex("deadbeef") + b"\xcd" * 60
SIGNED, BARE = 0x84, 0x04  # format 4, which every runtime with metadata of version 14 or 15 takes
SR25519 = 1

Origin: TypeAlias = "Literal['root', 'none'] | bytes"  # bytes: an account
KINDS = {"root": 1, "none": 2}  # first byte of what DevApi_apply_extrinsic takes; 0 for an account


@dataclass(frozen=True)
class Impersonated:
    """An extrinsic that nobody signed, and who is taken to have sent it."""

    origin: Origin
    raw: bytes

    @property
    def argument(self) -> bytes:
        """Of `DevApi_apply_extrinsic`."""
        kind = KINDS[self.origin] if isinstance(self.origin, str) else 0
        return bytes((kind,)) + self.raw

    @property
    def name(self) -> str:
        return self.origin if isinstance(self.origin, str) else str(bittensor_core.ss58_encode(self.origin, 42))


def unsigned(origin: Origin, call: bytes, nonce: int = 0, extra: bytes | None = None, bare: int = BARE) -> Impersonated:
    """The extrinsic of a call that `origin` did not sign. `extra`: the extensions' bytes; default: immortal, no tip.
    `bare`: the format of extrinsics that the runtime has."""
    if isinstance(origin, str):
        return Impersonated(origin, frame(bytes((bare,)) + call))
    signature = bytes((SR25519,)) + FAKE_SIGNATURE
    extensions = b"\0" + compact(nonce) + b"\0\0" if extra is None else extra
    return Impersonated(origin, frame(bytes((SIGNED, 0)) + origin + signature + extensions + call))


def mark(impersonated: Sequence[tuple[int, Impersonated]], written: int) -> tuple[bytes, ...]:
    """The digest item for extrinsics at these positions and `written` storage values; nothing when there are none."""
    facts: dict[str, Any] = {}
    if impersonated:
        facts["impersonated"] = [[index, one.name] for index, one in impersonated]
    if written:
        facts["storage"] = written
    return (bytes((OTHER,)) + opaque(TAG + json.dumps(facts).encode()),) if facts else ()


def marked(header: Header) -> Mapping[str, Any]:
    """What a header says; empty for a block that only the chain's rules made."""
    for item in header.digest:
        if item[0] == OTHER:
            size, start = read_compact(item, 1)
            text = item[start : start + size]
            if text.startswith(TAG):
                return dict(json.loads(text[len(TAG) :]))
    return {}


def impersonated_at(header: Header) -> dict[int, Origin]:
    """Position -> origin of the extrinsics that nobody signed."""
    found: dict[int, Origin] = {}
    for index, name in marked(header).get("impersonated", ()):
        found[index] = name if name in KINDS else bytes(bittensor_core.ss58_decode(name))
    return found
