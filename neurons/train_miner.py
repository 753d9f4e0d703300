"""A miner of mechanism 1: trains the shared model on the data it is given, window by window.

    python neurons/train_miner.py --netuid 2 --wallet mine        (same as `touchstone train miner ...`)

One window: read the block hash that assigns the data; train in a thread, saving as it goes; commit to the result on
chain; when the commit phase has closed, upload it; open the error buffers when a validator asks, and the states on the
way when one disputes them (train_traces.py); compute the next model from what the validators accepted. Everything is on
disk before it is promised, so a miner that is killed loses at most the window it was in.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from neurons.axon import Publisher
from neurons.joining import join
from neurons.runtime import run, together
from neurons.train_traces import Traces, works_of
from neurons.training import Training, by_the_clock, help_training, helps, join_training
from protocol.artifacts import Manifest
from protocol.errors import Refusal, RefusalCode
from protocol.metagraph import TRAINING, Metagraph
from protocol.training.opening import TRAIN_OPEN, TRAIN_STATE, TRAIN_TRACE, AskOpen, OpenAnswer
from protocol.training.payload import Floats
from protocol.training.statement import COMMITMENT_PREFIX, Statement, TrainCommitment
from protocol.training.windows import Phase, Tick
from template.chain import ChainError
from template.limits import Limits, ReplayStore, StakePolicy
from template.ops import Ops
from template.server import Caller, SynapseServer
from template.settings import TrainMinerSettings

if TYPE_CHECKING:
    from template.training.following import Settled
    from template.training.windows import Batches
    from template.training.work_state import Kept, WorkState
    from template.training.workbench import Workbench

log = logging.getLogger(__name__)


class WindowOver(Exception):
    """The window ended, or the miner stops, before the training was done."""


def start(settings: TrainMinerSettings) -> int:
    """Run until SIGTERM or SIGINT; the exit status. Under torchrun all processes but the first only help to train."""
    if helps():
        return help_training(settings)
    return run(lambda stop: mine(settings, stop), level=settings.log_level)


async def mine(
    settings: TrainMinerSettings,
    stop: asyncio.Event,
    miner_of: Callable[[Training, WorkState, float], TrainMiner] | None = None,
) -> None:
    """The miner's life; `miner_of` makes another one than the honest. Raises TemplateError when it cannot start."""
    from template.training.work_state import WorkState

    async with AsyncExitStack() as stack:
        joined = await join(settings, "train-miner", stop, stack)
        training = await join_training(settings, joined, stop, stack)
        work = WorkState(training.folder / "work", training.follower.layout.size)
        miner = (miner_of or TrainMiner)(training, work, settings.chain_poll)
        limits = Limits(concurrency=8, queue=128, concurrency_per_hotkey=2)  # every validator asks at the same time
        server = SynapseServer(
            joined.hotkey,
            policy=StakePolicy(lambda: joined.watch.metagraph),
            limits=limits,
            replay=ReplayStore(
                retention=limits.max_age + limits.allowed_skew, path=settings.state_dir / "training-nonces"
            ),
            ops=Ops(joined.watch.health),
            host=settings.host,
            port=settings.port,
        )
        server.attach(TRAIN_OPEN, miner.open)
        server.attach(TRAIN_TRACE, miner.traces.trace)
        server.attach(TRAIN_STATE, miner.traces.state)
        await stack.enter_async_context(server)
        log.info("serving %s on %s:%d", TRAIN_OPEN.route, settings.host, server.port)
        where = (server.port, settings.external_ip, settings.external_port)
        publisher = Publisher(joined.chain, settings.netuid, joined.hotkey, *where, protocol=TRAINING)

        async def refreshed(graph: Metagraph) -> None:
            await publisher.check(graph)

        await together(joined.watch.run(stop, refreshed), miner.run(stop))


@dataclass
class TrainMiner:
    """The loop and what it needs."""

    training: Training
    work: WorkState
    poll: float = 4.0  # seconds
    make: Callable[[Workbench], Kept] | None = None  # what is done at the bench; None: honest work
    others: tuple[str, ...] = ()  # hotkeys whose data is fetched too
    traces: Traces = field(init=False)
    _promised: int = field(default=-1, init=False)  # last window that was committed to
    _shown: int = field(default=-1, init=False)  # last window that was uploaded
    _opened: set[int] = field(default_factory=set, init=False)  # windows whose buffers are uploaded

    def __post_init__(self) -> None:
        self.traces = Traces(self.training, self.work, self.finished)

    async def run(self, stop: asyncio.Event) -> None:
        try:
            await by_the_clock(self.training, self.poll, stop, lambda now: self.step(now, stop))
        finally:
            await self.traces.close()

    async def step(self, now: Tick, stop: asyncio.Event) -> None:
        """Whatever is due in this phase and not done yet. Raises ChainError and TemplateError."""
        if not await self.training.follower.follow(now, self.close):
            return
        if now.phase in (Phase.TRAIN, Phase.COMMIT) and self._promised < now.window:
            await self.train(now, stop)
        elif now.phase in (Phase.REVEAL, Phase.SCORE) and self._shown < now.window:
            await self.reveal(now.window)

    async def close(self, settled: Settled) -> None:
        """Go on from a window that is over."""
        await self.training.follower.adopt(settled)
        mine = self.training.joined.hotkey.ss58 in settled.statements
        entered = len(settled.statements)
        log.info("window %d: %d entered%s", settled.record.window, entered, ", mine too" if mine else "")

    async def train(self, now: Tick, stop: asyncio.Event) -> None:
        """Work on the window until it is done or over, and commit to the result."""
        training, window = self.training, now.window
        kept = await asyncio.to_thread(self.work.kept, window)
        if kept is None or Statement.parse(kept.statement).base != training.follower.shared.root:
            me = training.joined.hotkey.ss58
            earlier = (await training.follower.recent_statements({me})).get(me)
            before = await asyncio.to_thread(self.work.buffer, earlier)
            if before is None:
                earlier = None
            base = training.follower.shared.vector
            try:
                async with self.traces.resting():
                    kept = await self._worked(window, before, earlier, stop)
            except (WindowOver, FloatingPointError) as error:
                log.warning("window %d is lost: %s", window, str(error) or "not done in time")
                self._promised = self._shown = window
                return
            await asyncio.to_thread(self.work.keep, window, kept, earlier.window if earlier else None, base)
        cid = Manifest.of(kept.statement).cid
        latest = await training.follower.view.now()
        if latest is None or latest.window != window or latest.phase not in (Phase.TRAIN, Phase.COMMIT):
            log.warning("window %d: done too late to be committed", window)
            self._promised = self._shown = window
            return
        await training.say((COMMITMENT_PREFIX, TrainCommitment(window, cid).encode()))
        self._promised = window
        log.info("window %d: committed to %s", window, cid)

    async def reveal(self, window: int) -> None:
        """Upload statement and payload; the commit phase has closed."""
        kept = await asyncio.to_thread(self.work.kept, window)
        if kept is not None:
            own = self.training.peers.own
            await own.put_bytes(kept.payload)
            await own.put_bytes(kept.statement)
            log.info("window %d: revealed %d bytes", window, len(kept.payload))
        self._shown = window

    async def open(self, request: AskOpen, caller: Caller) -> OpenAnswer:
        """Upload the error buffers of a window, for an audit."""
        statement = Manifest.of(await self.finished(request.window)).cid
        kept = await asyncio.to_thread(self.work.kept, request.window)
        if request.window in self._opened or kept is None:  # None: it has just become too old
            return OpenAnswer(statement=statement)
        own = self.training.peers.own
        for data in (kept.before, kept.after):
            if data is not None:
                await own.put_bytes(data)
        self._opened = {request.window, *(window for window in self._opened if window >= request.window - 2)}
        log.info("window %d: opened to %s", request.window, caller.hotkey)
        return OpenAnswer(statement=statement)

    async def finished(self, window: int) -> bytes:
        """The statement about a window whose commit phase is over. Raises Refusal for another."""
        statement = await asyncio.to_thread(self.work.statement, window)
        now = await self.training.follower.view.now()
        if statement is None or now is None:
            raise Refusal(RefusalCode.NOT_PERMITTED, "this miner has nothing of that window")
        if now.window == window and now.phase in (Phase.ASSIGN, Phase.TRAIN, Phase.COMMIT):
            raise Refusal(RefusalCode.NOT_PERMITTED, "the commit phase of that window is not over")
        return statement

    async def _worked(self, window: int, before: Floats | None, earlier: Statement | None, stop: asyncio.Event) -> Kept:
        """Work in a thread; raises WindowOver when the commit phase ends, or `stop` comes, before it is done."""
        view, dataset = self.training.follower.view, self.training.dataset
        plan, me = self.training.recipe.tasks.plan, self.training.joined.hotkey.ss58
        known = await works_of(self.training, window, (me, *self.others))
        over = threading.Event()

        def batches_of(miner: str) -> Batches:
            def batches(step: int) -> npt.NDArray[np.int64]:
                if over.is_set():
                    raise WindowOver
                return dataset.batch(known[miner].batch(step), plan.length)

            return batches

        work = asyncio.ensure_future(asyncio.to_thread(self._work, window, batches_of, before, earlier))
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=self.poll)
                if stop.is_set():
                    over.set()
                    continue
                try:
                    now = await view.now()
                except ChainError:
                    continue  # the work goes on; whether it is in time is seen before it is committed
                if now is None or now.window != window or now.phase not in (Phase.TRAIN, Phase.COMMIT):
                    over.set()
            return await work
        finally:
            over.set()

    def _work(
        self, window: int, batches_of: Callable[[str], Batches], before: Floats | None, earlier: Statement | None
    ) -> Kept:
        """Blocking."""
        from template.training.workbench import Workbench, honest

        training = self.training
        resumed = self.work.progress(window, training.trainer.device.type)
        if resumed is not None:
            log.info("window %d: going on at step %d", window, resumed.state.step)
        bench = Workbench(
            training.joined.hotkey.ss58,
            window,
            training.recipe,
            training.follower.shared,
            training.trainer,
            batches_of,
            before,
            earlier,
            resumed,
            lambda progress: self.work.save_progress(window, progress),
        )
        return (self.make or honest)(bench)


if __name__ == "__main__":
    from neurons.cli import run_command

    run_command("train", "miner")
