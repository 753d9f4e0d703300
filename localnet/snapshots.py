"""Snapshots: to come back to a block, as often and as deeply nested as one likes.

    before = net.snapshot()            # a number: that of the newest block
    await net.revert(before)

    async with net.snapshot():         # `with` on a SyncLocalnet
        ...                            # undone at the end, also after an exception

A snapshot also remembers how far chain time was from wall time, so time travel is undone with the blocks, and which
transactions were waiting: those that came later are dropped. Going back voids the snapshots that lie ahead: a block of
the same number made later is another block, and reverting to it by the old snapshot is refused instead of granted.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from localnet.errors import ChainError
from localnet.node.chain import Chain
from localnet.node.clock import ClockState


@dataclass
class Snapshots:
    """What a chain's snapshots remember. Keyed by block number; taken twice at one block they are the same."""

    chain: Chain
    _taken: dict[int, tuple[ClockState, frozenset[bytes]]] = field(default_factory=dict)  # clock, waiting transactions
    _void: set[int] = field(default_factory=set)  # numbers of snapshots whose block was reverted

    def take(self) -> int:
        """Number of the snapshot: that of the newest block."""
        head = self.chain.head
        self._taken[head.number] = (self.chain.clock.state(), frozenset(self.chain.pool.entries))
        self._void.discard(head.number)
        return head.number

    def check(self, number: int) -> None:
        """Raises ChainError for a snapshot whose block is gone."""
        if number in self._void:
            raise ChainError(
                f"snapshot {number} is gone: its block was reverted. Take a new one, "
                "or use dev_setHead to go to the block that has this number now"
            )

    def reverted(self, number: int) -> None:
        """The chain went back to block `number`: later snapshots are gone, clock and pool are as they were then."""
        gone = [taken for taken in self._taken if taken > number]
        for taken in gone:
            del self._taken[taken]
        self._void.update(gone)
        known = self._taken.get(number)
        if known is None:
            return
        self.chain.clock.restore(known[0])
        for digest, entry in list(self.chain.pool.entries.items()):
            if digest not in known[1]:
                self.chain.pool.drop(entry, "dropped")


class Snapshot(int):
    """A snapshot's number, and an asynchronous context manager that goes back to it."""

    _revert: Callable[[int], Coroutine[Any, Any, None]]

    def __new__(cls, number: int, revert: Callable[[int], Coroutine[Any, Any, None]]) -> Snapshot:
        snapshot = super().__new__(cls, number)
        snapshot._revert = revert
        return snapshot

    async def __aenter__(self) -> Snapshot:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._revert(int(self))


class SyncSnapshot(int):
    """The same for `SyncLocalnet`: `with net.snapshot():`."""

    _revert: Callable[[int], None]

    def __new__(cls, number: int, revert: Callable[[int], None]) -> SyncSnapshot:
        snapshot = super().__new__(cls, number)
        snapshot._revert = revert
        return snapshot

    def __enter__(self) -> SyncSnapshot:
        return self

    def __exit__(self, *error: object) -> None:
        self._revert(int(self))
