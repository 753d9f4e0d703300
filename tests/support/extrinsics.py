"""Signed extrinsics made by hand, so that tests can also make wrong ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import bittensor_core

from localnet.codec.scale import compact
from localnet.runtime.extrinsic import Era, Extrinsic, _parse_era
from localnet.runtime.runtime import SpecRuntime


def keypair(uri: str) -> Any:
    return bittensor_core.Keypair.create_from_uri(uri)


def account(uri: str) -> bytes:
    """The 32-byte account of a development key, e.g. "//Alice"."""
    return bytes(keypair(uri).public_key)


@dataclass(frozen=True)
class Draft:
    """Everything that goes into a signed extrinsic; change a field to break it."""

    runtime: SpecRuntime
    uri: str
    call: bytes
    nonce: int
    genesis: bytes
    birth: bytes = b""  # hash of the era's first block; the genesis hash when immortal
    era: bytes = b"\0"
    tip: int = 0
    spec: int | None = None
    mode: int = 0
    metadata_hash: bytes = b""

    def sign(self) -> bytes:
        extra = self.era + compact(self.nonce) + compact(self.tip) + bytes((self.mode,))
        signed = Extrinsic(b"", self.call, check_metadata=self.mode == 1, extra=extra)
        spec = self.runtime.spec_version if self.spec is None else self.spec
        birth = self.birth or self.genesis
        payload = signed.payload(spec, self.runtime.transaction_version, self.genesis, birth, self.metadata_hash)
        key = keypair(self.uri)
        body = b"\x84\0" + bytes(key.public_key) + b"\1" + bytes(key.sign(payload)) + extra + self.call
        return compact(len(body)) + body


def era_bytes(period: int, current: int) -> bytes:
    """A mortal era of `period` (a power of two) that starts at block `current`."""
    factor = max(period >> 12, 1)
    encoded = min(15, max(1, period.bit_length() - 2)) | (current % period // factor) << 4
    data = encoded.to_bytes(2, "little")
    era, _ = _parse_era(data, 0)
    assert era == Era(period, current % period // factor * factor)
    return data
