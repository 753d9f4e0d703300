"""Snapshots: to come back to a block, as often and as deeply nested as one likes.

    before = net.snapshot()            # as a number: that of the newest block
    await net.revert(before)

    async with net.snapshot():         # `with` on a SyncLocalnet
        ...                            # undone at the end, also after an exception

A snapshot also remembers how far chain time was from wall time, so time travel is undone with the blocks, and which
transactions were waiting: those that came later are dropped, those that a block has taken since wait again. It is known
by a serial of its own, and by its block's hash: another block of the same number, made later, is not where it leads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from localnet.errors import ChainError, LocalnetError, PoolRejected
from localnet.node.chain import Chain
from localnet.node.clock import ClockState

log = logging.getLogger(__name__)

N = TypeVar("N", bound="Number")


@dataclass(frozen=True)
class Taken:
    """What a snapshot remembers. `waiting`: the pool's transactions, by hash."""

    number: int
    block: bytes
    clock: ClockState
    waiting: dict[bytes, bytes]


@dataclass
class Snapshots:
    """The snapshots of a chain, by serial."""

    chain: Chain
    _taken: list[Taken] = field(default_factory=list)

    def take(self) -> int:
        """The serial of a snapshot of what there is now: 1 for the first."""
        chain = self.chain
        waiting = {digest: entry.xt.raw for digest, entry in chain.pool.entries.items()}
        self._taken.append(Taken(chain.head.number, chain.head.hash, chain.clock.state(), waiting))
        return len(self._taken)

    def check(self, serial: int) -> Taken:
        """Raises ChainError when there is no such snapshot, or its block is gone."""
        if not 1 <= serial <= len(self._taken):
            raise ChainError(f"there is no snapshot {serial}: dev_setHead (Python: set_head) goes back to a block")
        taken = self._taken[serial - 1]
        if self.chain.by_hash.get(taken.block) != taken.number:
            raise ChainError(
                f"the snapshot of block {taken.number} is gone: its block was reverted. Take a new one, or use "
                "dev_setHead (Python: set_head) to go to the block that has this number now"
            )
        return taken

    def restore(self, taken: Taken) -> None:
        """The chain is back at the snapshot's block: clock and pool as they were, too."""
        chain, pool = self.chain, self.chain.pool
        chain.clock.restore(taken.clock)
        for digest, entry in list(pool.entries.items()):
            if digest not in taken.waiting:
                pool.drop(entry, "dropped")
        for digest, raw in taken.waiting.items():
            if digest not in pool.entries:
                try:
                    chain.submit(raw)
                except PoolRejected as error:
                    log.warning("extrinsic 0x%s waited at the snapshot and cannot any more: %s", digest.hex(), error)


class Number(int):
    """A snapshot, as a number its block's."""

    serial: int

    def __new__(cls: type[N], block: int, serial: int, *more: object) -> N:
        number = super().__new__(cls, block)
        number.serial = serial
        return number


class Snapshot(Number):
    """A snapshot, and an asynchronous context manager that goes back to it."""

    def __init__(self, block: int, serial: int, revert: Callable[[Number], Coroutine[Any, Any, None]]) -> None:
        self._revert = revert

    async def __aenter__(self) -> Snapshot:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            await self._revert(self)
        except LocalnetError as failure:
            _unless(error, failure)


class SyncSnapshot(Number):
    """The same for `SyncLocalnet`: `with net.snapshot():`."""

    def __init__(self, block: int, serial: int, revert: Callable[[Number], None]) -> None:
        self._revert = revert

    def __enter__(self) -> SyncSnapshot:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._revert(self)
        except LocalnetError as failure:
            _unless(error, failure)


def _unless(error: BaseException | None, failure: LocalnetError) -> None:
    """Raise what kept a snapshot from being restored, unless there is an error already: that one says more."""
    if error is None:
        raise failure
    log.warning("after %r: %s", error, failure)
