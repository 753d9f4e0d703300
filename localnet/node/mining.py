"""When blocks are made, and that they are on disk before the next one.

    interval   every `block_time` seconds of wall time, late blocks are not made up for
    instant    as soon as the pool has something ready: what arrives meanwhile shares the block
    manual     only when asked (`mine`, `dev_newBlock`)

All changes to the chain go through this module's lock: `mine`, `overwrite`, `travel` and `revert`; whoever makes
several that belong together takes it first (`hold`). A block that cannot be built is logged and
tried again at the next occasion; a state file that cannot be written stops authoring, because a chain that goes on
without its file would lose blocks that clients have seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal, TypeAlias, get_args

from localnet.errors import ChainError, ConfigError, LocalnetError, StateFileError
from localnet.node.author import Changes
from localnet.node.blocks import Block
from localnet.node.chain import Chain
from localnet.node.marks import Impersonated
from localnet.node.state import Journal
from localnet.node.store import Store

log = logging.getLogger(__name__)

MiningMode = Literal["interval", "instant", "manual"]
MODES: tuple[str, ...] = get_args(MiningMode)
Senders: TypeAlias = "Sequence[Impersonated] | Callable[[], Sequence[Impersonated]]"
TURN = 0.005  # seconds of block building before other tasks get a turn
MIN_BLOCK_TIME = 0.01  # seconds


class Miner:
    def __init__(self, chain: Chain, mode: MiningMode, block_time: float, store: Store | None = None) -> None:
        """Raises ConfigError for an unknown mode or a block time below 10 ms."""
        if mode not in MODES:
            raise ConfigError(f"unknown mining mode {mode!r}: choose one of {', '.join(MODES)}")
        if not block_time >= MIN_BLOCK_TIME:
            raise ConfigError(f"a block time of {block_time} s is too short: at least {MIN_BLOCK_TIME} s")
        self.chain, self.mode, self.block_time, self.store = chain, mode, block_time, store
        self.failure: StateFileError | None = None
        self._lock = asyncio.Lock()
        self._holder: asyncio.Task[object] | None = None
        self._wake = asyncio.Event()
        self._diff: Journal = {}
        chain.listeners.insert(0, self._keep_diff)

    def _keep_diff(self, block: Block, diff: Journal) -> None:
        self._diff = diff

    def poke(self) -> None:
        """Something was submitted."""
        if self.mode == "instant":
            self._wake.set()

    @contextlib.asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Only this task makes or undoes blocks meanwhile; inside, it may hold again."""
        task = asyncio.current_task()
        if task is not None and self._holder is task:
            yield
            return
        async with self._lock:
            self._holder = task
            try:
                yield
            finally:
                self._holder = None

    async def mine(
        self,
        blocks: int = 1,
        changes: Changes | None = None,
        impersonated: Senders = (),
        *,
        alone: bool = False,
    ) -> Block:
        """Author that many blocks and return the last; `changes` (raw storage writes at its end) and `impersonated`
        (extrinsics that nobody signed, or a function that makes them when their block is next) go into the first.
        `alone`: the pool's transactions wait for a later block.

        Raises RuntimeTrap, ChainError or PoolRejected when a block cannot be built, StateFileError when it cannot be
        stored.
        """
        async with self.hold():
            turn = time.monotonic() + TURN
            for _ in range(blocks):
                await self._author(changes, impersonated, alone)
                changes, impersonated = None, ()
                if time.monotonic() > turn:
                    await asyncio.sleep(0)
                    turn = time.monotonic() + TURN
            return self.chain.head

    async def overwrite(self, number: int, timestamp: int, changes: Changes) -> Block:
        """Author blocks up to `number`; the last one is stamped `timestamp` (ms) unless that is too early, and ends
        with these writes. Raises ChainError when the chain is there already, and what `mine` raises."""
        async with self.hold():
            if self.chain.head.number >= number:
                raise ChainError(f"the chain is at block {self.chain.head.number} already, block {number} is past")
            while self.chain.head.number < number - 1:
                await self._author(None, ())
                if self.chain.head.number % 64 == 0:
                    await asyncio.sleep(0)
            if timestamp >= self.chain.head.timestamp + self.chain.slot_ms:
                await self._author_at(timestamp, changes)
            else:
                await self._author(changes, ())
            return self.chain.head

    async def _author_at(self, timestamp: int, changes: Changes | None = None) -> None:
        """A block stamped so. Raises ChainError; chain time is what it was then."""
        head, clock = self.chain.head, self.chain.clock
        before = clock.state()
        clock.travel(timestamp, head.timestamp, self.chain.slot_ms)
        try:
            await self._author(changes, ())
        finally:
            if self.chain.head is head:
                clock.restore(before)

    async def _author(self, changes: Changes | None, impersonated: Senders, alone: bool = False) -> None:
        if self.failure is not None:
            raise self.failure
        block = self.chain.author(changes, impersonated() if callable(impersonated) else impersonated, alone)
        if self.store is not None:
            undo = self.chain.state.before(block.number)
            await self._stored(self.store.write(block, self._diff, undo, self.chain.state.oldest))

    async def revert(self, number: int) -> None:
        """Back to block `number`. Raises UnknownBlock, StateDiscarded, StateFileError."""
        async with self.hold():
            if self.failure is not None:
                raise self.failure
            undone = self.chain.revert(number)
            if self.store is not None:
                await self._stored(self.store.revert(number, undone))

    async def travel(self, to: int) -> None:
        """Author a block stamped `to` (ms since 1970). Raises ChainError when that is less than a slot ahead."""
        async with self.hold():
            await self._author_at(to)

    async def _stored(self, write: object) -> None:
        try:
            # A stop cancels the miner; a block that clients have seen is written all the same.
            await asyncio.shield(write)  # type: ignore[arg-type]
        except StateFileError as error:
            self.failure = error
            log.critical("no more blocks are made: %s", error)
            raise

    async def run(self) -> None:
        """Make blocks until cancelled."""
        if self.mode == "interval":
            await self._run_interval()
        elif self.mode == "instant":
            await self._run_instant()

    async def _run_interval(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while self.failure is None:
            due = max(due + self.block_time, loop.time())
            await asyncio.sleep(due - loop.time())
            await self._try()

    async def _run_instant(self) -> None:
        while self.failure is None:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(0)  # let requests that came together share the block
            while self.chain.pool.has_ready and await self._try():
                pass

    async def _try(self) -> bool:
        """One block; False when it could not be made or changed nothing in the pool."""
        waiting = len(self.chain.pool)
        try:
            await self.mine()
        except LocalnetError as error:
            log.error("no block: %s", error)
            return False
        return len(self.chain.pool) < waiting
