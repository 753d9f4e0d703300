"""What a miner of mechanism 1 shows of a finished training when somebody disputes it: digests, and whole states.

    traces = Traces(training, work, finished)
    server.attach(TRAIN_TRACE, traces.trace)
    server.attach(TRAIN_STATE, traces.state)
    async with traces.resting(): ...             the trainer is free here, and nothing is computed for others

Digests are on disk. A state is not: it is trained again, from the model that the window began with, and so is the
window of another miner that somebody wants repeated. The one is computed at a time, in a thread, and only while the
miner does not train: its own window comes first, and what is under way gives up at its next step. Until something is
there the answer is `busy`, and who asks comes back.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from neurons.training import Training
from protocol.artifacts import Manifest
from protocol.errors import Refusal, RefusalCode
from protocol.training.assignment import Work, assign
from protocol.training.opening import AskState, StateAnswer, TraceAnswer
from protocol.training.trace import open_state, trace_root
from protocol.training.windows import Phase
from template.server import Caller

if TYPE_CHECKING:
    from template.training.retrace import Retrace
    from template.training.windows import Batches
    from template.training.work_state import WorkState

log = logging.getLogger(__name__)

WAIT = 2.0  # seconds that an answer waits for what is being computed: it holds a place that an audit may need
AGAIN, LATER = 5.0, 30.0  # seconds until it is worth asking again: while it is computed, while the miner trains
STATES_SHOWN = 16  # of one window and miner; bisecting 2^14 states takes as many
STATES_IN_ALL = 32  # of one window, of whomever: they stay in this miner's bucket
REPEATED = 2  # windows of others whose digests are kept; the oldest goes

Asked = tuple[int, str, int | None]  # window, miner, state; None: all digests


class GaveWay(Exception):
    """The trainer is needed for something else."""


async def works_of(training: Training, window: int, miners: Collection[str]) -> dict[str, Work]:
    """What each of `miners` trains on in a window; the data is here afterwards. Raises ChainError and TemplateError."""
    seed = await training.follower.view.seed(window, Phase.ASSIGN)
    tokens, plan = training.dataset.tokens_of(), training.recipe.tasks.plan
    found = {miner: assign(seed, miner, tokens, plan) for miner in miners}
    await training.dataset.fetch({shard for work in found.values() for shard in work.shards})
    return found


@dataclass
class Traces:
    """`finished(window)`: the statement about a window whose commit phase is over; it raises Refusal for another."""

    training: Training
    work: WorkState
    finished: Callable[[int], Awaitable[bytes]]
    _room: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)  # whoever has it has the trainer
    _needed: threading.Event = field(default_factory=threading.Event, init=False)
    _job: tuple[Asked, asyncio.Task[Any]] | None = field(default=None, init=False)
    _retrace: tuple[int, str, Retrace] | None = field(default=None, init=False)  # of the window asked for last
    _repeated: dict[tuple[int, str], tuple[bytes, ...]] = field(default_factory=dict, init=False)
    _shown: dict[tuple[int, str, int], str] = field(default_factory=dict, init=False)  # artifacts of states

    async def trace(self, request: AskState, caller: Caller) -> TraceAnswer:
        """One digest, and its way to the root."""
        digests, statement = await self._digests(request)
        found = open_state(digests, request.index)
        return TraceAnswer(
            trace=trace_root(digests).hex(), states=len(digests), statement=statement, digest=found.digest.hex(),
            path=tuple(node.hex() for node in found.path),
        )  # fmt: skip

    async def state(self, request: AskState, caller: Caller) -> StateAnswer:
        """Train up to one state, and upload it."""
        digests, statement = await self._digests(request)
        key = (request.window, request.miner, request.index)
        if key not in self._shown:
            self._shown = {old: cid for old, cid in self._shown.items() if old[0] >= request.window - 2}
            of_window = [shown for shown in self._shown if shown[0] == request.window]
            of_miner = sum(shown[1] == request.miner for shown in of_window)
            if of_miner >= STATES_SHOWN or len(of_window) >= STATES_IN_ALL:
                raise Refusal(RefusalCode.NOT_PERMITTED, "this miner has shown enough states of that window")
            wanted = digests[request.index]
            self._shown[key] = await self._computed(key, lambda: self._upload(request, wanted))
            log.info("window %d: state %d shown to %s", request.window, request.index, caller.hotkey)
        return StateAnswer(trace=trace_root(digests).hex(), statement=statement, state=self._shown[key])

    @asynccontextmanager
    async def resting(self) -> AsyncIterator[None]:
        """Whatever is being computed for others gives up; nothing is begun before the block ends."""
        self._needed.set()
        try:
            async with self._room:
                self._retrace = None  # the memory is needed too
                yield
        finally:
            self._needed.clear()

    async def close(self) -> None:
        """End what is under way."""
        self._needed.set()
        if self._job is not None:
            await asyncio.wait({self._job[1]}, timeout=WAIT)
            self._job[1].cancel()  # an upload may take longer

    async def _digests(self, request: AskState) -> tuple[tuple[bytes, ...], str | None]:
        """Of the window that is asked about, and the statement that has their root."""
        window, miner = request.window, request.miner
        said, statement = await self.finished(window), None
        if miner == self.training.joined.hotkey.ss58:
            digests = await asyncio.to_thread(self.work.trace, window)
            statement = Manifest.of(said).cid
            if digests is None:
                raise Refusal(RefusalCode.NOT_PERMITTED, "this miner has no trace of that window")
        else:
            if miner not in self.training.joined.watch.metagraph.by_hotkey:
                raise Refusal(RefusalCode.NOT_PERMITTED, "nobody is registered with that hotkey")
            if (window, miner) not in self._repeated:
                found = await self._computed((window, miner, None), lambda: self._repeat(window, miner))
                newest = list(self._repeated.items())[-(REPEATED - 1) :]
                self._repeated = {**dict(newest), (window, miner): found}
            digests = self._repeated[window, miner]
        if request.index >= len(digests):
            raise Refusal(RefusalCode.MALFORMED, f"that trace has {len(digests)} states")
        return digests, statement

    async def _computed(self, asked: Asked, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """The result of the one job, which is begun when there is none. Raises Refusal while it is not there."""
        if self._job is not None and self._job[0] != asked and not self._job[1].done():
            raise Refusal(RefusalCode.BUSY, "something else is being computed", retry_after=AGAIN)
        if self._job is None or self._job[0] != asked:
            if self._needed.is_set():
                raise Refusal(RefusalCode.BUSY, "this miner is training", retry_after=LATER)
            self._job = (asked, asyncio.create_task(make()))
        task = self._job[1]
        await asyncio.wait({task}, timeout=WAIT)
        if not task.done():
            raise Refusal(RefusalCode.BUSY, "it is being computed", retry_after=AGAIN)
        if self._job is not None and self._job[1] is task:
            self._job = None
        try:
            return task.result()
        except GaveWay:
            raise Refusal(RefusalCode.BUSY, "this miner is training", retry_after=LATER) from None
        except FloatingPointError:
            raise Refusal(RefusalCode.NOT_PERMITTED, "the training of that window has no result") from None

    async def _repeat(self, window: int, miner: str) -> tuple[bytes, ...]:
        work = await self._work_of(window, miner)
        async with self._room:
            retrace = await self._retraced(window, miner, work)
            digests = await asyncio.to_thread(retrace.digests)
        log.info("window %d: repeated that of %s", window, miner)
        return digests

    async def _upload(self, request: AskState, wanted: bytes) -> str:
        from template.training.retrace import to_bytes

        work = await self._work_of(request.window, request.miner)
        async with self._room:
            retrace = await self._retraced(request.window, request.miner, work)
            state = await asyncio.to_thread(retrace.state, request.index)
            if await asyncio.to_thread(state.digest) != wanted:  # another machine, or one that is not deterministic
                log.warning("window %d: state %d comes out otherwise than before", request.window, request.index)
                raise Refusal(RefusalCode.INTERNAL, "this miner cannot train that state again to the bit")
            data = await asyncio.to_thread(to_bytes, state)
        return await self.training.peers.own.put_bytes(data)

    async def _work_of(self, window: int, miner: str) -> Work:
        """Fetches, which may take long, and so is done while nobody waits for the trainer."""
        return (await works_of(self.training, window, [miner]))[miner]

    async def _retraced(self, window: int, miner: str, work: Work) -> Retrace:
        from template.training.retrace import Retrace

        if self._needed.is_set():
            raise GaveWay
        if self._retrace is None or self._retrace[:2] != (window, miner):
            self._retrace = None
            base = await asyncio.to_thread(self.work.base, window)
            if base is None:
                raise Refusal(RefusalCode.NOT_PERMITTED, "this miner has not kept what that window began from")
            batches, recipe = self._batches(work), self.training.recipe
            self._retrace = (window, miner, Retrace(self.training.trainer, base, batches, recipe, window))
        return self._retrace[2]

    def _batches(self, work: Work) -> Batches:
        def batches(step: int) -> npt.NDArray[np.int64]:
            if self._needed.is_set():
                raise GaveWay
            return self.training.dataset.batch(work.batch(step), self.training.recipe.tasks.length)

        return batches
