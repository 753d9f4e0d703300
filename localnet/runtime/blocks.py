"""Blocks: the state of block 0, and how a block opens and closes around its extrinsics.

    build_genesis    the state that a chain starts from
    initialize       the block's number, parent and digest; then what each pallet does at its start
    inherents        the extrinsics that the block's author puts in front
    finalize         what each pallet does at its end; the block's events go to storage

All take and give bytes, as `localnet.abi` lists them.
"""

from __future__ import annotations

import json
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING

from localnet.codec.scale import compact, opaque, read_compact
from localnet.errors import ConfigError
from localnet.runtime import extrinsic as xt
from localnet.runtime.framework import Pallet

if TYPE_CHECKING:
    from localnet.runtime.runtime import SpecRuntime


class Blocks:
    """The block functions of a runtime."""

    def __init__(self, runtime: SpecRuntime) -> None:
        self.rt = runtime

    def build_genesis(self, data: bytes) -> bytes:
        from localnet.runtime.subtensor.genesis import build_genesis

        # Clients cache metadata by genesis hash, so it has to be part of the state that the hash covers.
        self.rt.state.put(b":code", blake2b(self.rt.document.v15, digest_size=32).digest())
        patch = json.loads(data[read_compact(data, 0)[1] :])
        try:
            build_genesis(self.rt, patch)
        except ConfigError as error:
            return b"\1" + opaque(str(error).encode())
        return b"\0"

    def initialize(self, data: bytes) -> bytes:
        parent, (number, offset) = data[:32], read_compact(data, 32)
        digest = self.rt.document.registry.decode(self.rt._digest_type, data[offset + 64 :])
        self.rt.events = []
        self.rt.phase = "Initialization"
        self.rt.system.open_block(number, parent, digest)
        for pallet in self._initializing:
            pallet.on_initialize(number)
        return b""

    @cached_property
    def _initializing(self) -> list[Pallet]:
        return [p for p in self.rt.pallets.values() if type(p).on_initialize is not Pallet.on_initialize]

    @cached_property
    def _finalizing(self) -> list[Pallet]:
        return [p for p in self.rt.pallets.values() if type(p).on_finalize is not Pallet.on_finalize]

    def inherents(self, data: bytes) -> bytes:
        """InherentData: a list of (8-byte identifier, bytes)."""
        count, offset = read_compact(data, 0)
        items = {}
        for _ in range(count):
            identifier = data[offset : offset + 8]
            size, start = read_compact(data, offset + 8)
            items[identifier], offset = data[start : start + size], start + size
        calls = [c for c in (self.rt.timestamp.inherent(items), self.rt.mev_shield.inherent(items)) if c is not None]
        return compact(len(calls)) + b"".join(xt.bare(self.rt.encode_call(*c)) for c in calls)

    def finalize(self, data: bytes) -> bytes:
        self.rt.phase = "Finalization"
        number = self.rt.number
        for pallet in self._finalizing:
            pallet.on_finalize(number)
        self.rt.system.store_events(self.rt.events)
        digest = self.rt.document.registry.encode(self.rt._digest_type, self.rt.system.Digest.get())
        # The node owns state and body: it fills the two roots, which are left as zeros here.
        return self.rt.system.ParentHash.get() + compact(number) + bytes(64) + digest
