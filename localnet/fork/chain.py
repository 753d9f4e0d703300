"""A chain on top of a block of another node.

Its genesis hash is the remote chain's, because extrinsics are signed for it; its first block is the one forked from;
hashes of older blocks are the remote node's to know. A read that the remote node does not answer breaks the block off
that needed it, whatever the runtime made of the failure, and leaves the pool as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localnet.abi import Runtime, State
from localnet.codec.document import twox128
from localnet.errors import ConfigError, ForkError, RuntimeTimeout, UnknownBlock
from localnet.fork.base import Base
from localnet.fork.state import ForkState
from localnet.node.blocks import Block, Blocks, slot_of
from localnet.node.chain import Chain
from localnet.node.clock import LATEST

NOW = twox128(b"Timestamp") + twox128(b"Now")


class ForkedChain(Chain):
    def __init__(self, runtime: Runtime, base: Base, **options: Any) -> None:
        """Raises ConfigError for a genesis patch, ForkError, ChainError."""
        self.base = base
        super().__init__(runtime, **options)
        self._date_origin()
        self.listeners.append(lambda block, diff: base.save())

    def _create(self, genesis: Mapping[str, Any]) -> None:
        if genesis:
            raise ConfigError("a forked chain has its genesis already: change storage after the start instead")
        point = self.base.point
        self.state = self._author.state = ForkState(self.base, point.number, point.header.state_root)
        self.blocks = Blocks(first=point.number)
        self._append(Block(point.header, point.body, self._now()))

    def _now(self) -> int:
        """Chain time of the block forked from, ms since 1970; 0 when the runtime keeps none."""
        now = int.from_bytes(self.base.get(NOW) or b"", "little")
        if now >= LATEST:
            raise ForkError(f"the time of block {self.base.point.number} cannot be: {now} ms since 1970")
        return now

    def _date_origin(self) -> None:
        """The next block needs a later slot than that of the block forked from, whatever its time says."""
        origin = self.blocks[-1]
        begin = slot_of(origin.header) * self.slot_ms
        if begin < LATEST:
            origin.timestamp = max(origin.timestamp, begin)

    @property
    def genesis_hash(self) -> bytes:
        return self.base.point.genesis

    def block(self, number: int) -> Block:
        origin = self.base.point.number
        if 0 <= number < origin:
            raise UnknownBlock(f"block {number} is older than the fork, which starts at block {origin}")
        return super().block(number)

    def hash_of(self, number: int) -> bytes:
        point = self.base.point
        if not 0 <= number < point.number:
            return super().hash_of(number)
        if number == 0:
            return point.genesis
        known = self.base.cache.hash_of(point.url, point.genesis, number)
        if known is None and self.base.remote is not None:
            known = self.base.remote.block_hash(number)
            if known is not None:
                self.base.cache.keep_hash(point.url, point.genesis, number, known)
        if known is None:
            raise UnknownBlock(f"the hash of block {number} is not known: it is older than the fork")
        return known

    def run(self, method: str, data: bytes, state: State) -> bytes:
        """As `Chain.run`. Raises ForkError when a read was not answered, even where the runtime went on."""
        self.base.take_failure()
        asked = self.base.stats.requests
        try:
            return super().run(method, data, state)
        except RuntimeTimeout as error:
            if self.base.stats.requests == asked:
                raise
            raise ForkError(
                f"{error}. It waited for the node forked from, which is slow; what it read is kept, so try again"
            ) from error
        finally:
            failure = self.base.take_failure()
            if failure is not None:
                raise failure
