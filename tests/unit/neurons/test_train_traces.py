"""A miner on loopback shows digests and states of what it trained, to a dispute that runs over the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from neurons.train_traces import STATES_SHOWN, Traces
from protocol.artifacts import Manifest
from protocol.errors import FailureCode, Refusal, RefusalCode
from protocol.training.assignment import assign
from protocol.training.dispute import Claim, Terms, Wrong
from protocol.training.opening import TRAIN_STATE, TRAIN_TRACE, AskState
from protocol.training.recipe import Clock, Inner, Recipe, Tasks
from protocol.training.statement import Statement
from protocol.training.transcripts import Transcript, check
from template.artifacts.directory import DirectoryBackend
from template.artifacts.store import ArtifactLimits, ArtifactStore
from template.client import SynapseClient, Target
from template.errors import CallFailed
from template.keys import Hotkey, verify
from template.limits import OpenPolicy
from template.server import Caller, SynapseServer
from template.training.checkpoint import build
from template.training.inner import Trainer
from template.training.parties import Line, NotShown, Own, Remote
from template.training.referee import Referee
from template.training.retrace import Retrace
from template.training.shared import Shared
from template.training.windows import Batches
from template.training.work_state import WorkState
from template.training.workbench import Workbench, honest
from tests.support.training import TINY, VOCABULARY, genesis

MINER, OTHER, VALIDATOR = (Hotkey.from_uri(f"//{name}") for name in ("miner", "other", "validator"))
CID, SIZE, BASE = Manifest.of(b"one").cid, genesis()[0].size, genesis()[1]
ROOT, WINDOW, STEPS = "22" * 32, 4, 12
RECIPE = Recipe(
    architecture=TINY, model=ROOT, model_file=CID, dataset=CID, clock=Clock(start=0),
    tasks=Tasks(steps=STEPS, batch=4, length=16, shards=1), inner=Inner(peak=1e-2, warmup=2), trace_every=1,
)  # fmt: skip


class Data:
    """Tokens that follow from their place."""

    def tokens_of(self) -> tuple[int, ...]:
        return (1000, 1000, 1000)

    async def fetch(self, shards: Any) -> None:
        pass

    def batch(self, places: Any, length: int) -> np.ndarray:
        return np.array([(shard + 3 * (first + np.arange(length + 1))) % VOCABULARY for shard, first in places])


async def seed(window: int, phase: Any) -> bytes:
    return bytes([window]) * 32


def data_of(hotkey: str) -> Batches:
    work = assign(bytes([WINDOW]) * 32, hotkey, Data().tokens_of(), RECIPE.tasks.plan)
    return lambda step: Data().batch(work.batch(step), RECIPE.tasks.length)


def trainer() -> Trainer:
    return Trainer(build(TINY), RECIPE.inner, profile="tolerant")


@dataclass
class Miner:
    """One that has finished a window."""

    hotkey: Hotkey
    store: ArtifactStore
    folder: Path
    batches: Batches | None = None
    traces: Traces = field(init=False)

    def __post_init__(self) -> None:
        work = WorkState(self.folder / self.hotkey.ss58, SIZE)
        own = self.batches or data_of(self.hotkey.ss58)
        bench = Workbench(
            self.hotkey.ss58, WINDOW, RECIPE, Shared(WINDOW, BASE, ROOT), trainer(), lambda hotkey: own,
            save=lambda progress: work.save_progress(WINDOW, progress),
        )  # fmt: skip
        work.keep(WINDOW, honest(bench), None, BASE)
        registered = {key.ss58: None for key in (MINER, OTHER)}
        training: Any = SimpleNamespace(
            joined=SimpleNamespace(
                hotkey=self.hotkey, watch=SimpleNamespace(metagraph=SimpleNamespace(by_hotkey=registered))
            ),
            recipe=RECIPE, trainer=trainer(), dataset=Data(), peers=SimpleNamespace(own=self.store),
            follower=SimpleNamespace(view=SimpleNamespace(seed=seed)),
        )  # fmt: skip

        async def finished(window: int) -> bytes:
            found = work.statement(window)
            if found is None:
                raise Refusal(RefusalCode.NOT_PERMITTED, "this miner has nothing of that window")
            return found

        self.traces = Traces(training, work, finished)

    @property
    def statement(self) -> bytes:
        found = self.traces.work.statement(WINDOW)
        assert found is not None
        return found

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Target]:
        server = SynapseServer(self.hotkey, policy=OpenPolicy(), host="127.0.0.1")
        server.attach(TRAIN_TRACE, self.traces.trace)
        server.attach(TRAIN_STATE, self.traces.state)
        async with server:
            try:
                yield Target(self.hotkey.ss58, "127.0.0.1", server.port)
            finally:
                await self.traces.close()


@dataclass
class World:
    store: ArtifactStore
    folder: Path
    client: SynapseClient

    def miner(self, hotkey: Hotkey = MINER, batches: Batches | None = None) -> Miner:
        return Miner(hotkey, self.store, self.folder, batches)

    def line(self, target: Target, patience: float = 60.0) -> Line:
        return Line(self.client, target, lambda cid, most: self.store.read(cid, ArtifactLimits(most, 10.0)), patience)

    @property
    def terms(self) -> Terms:
        return Terms.of(RECIPE, WINDOW, MINER.ss58, ROOT, trainer().start(BASE).digest())

    def remote(self, target: Target, statement: bytes) -> Remote:
        claim = Claim(hotkey=target.hotkey, trace=Statement.parse(statement).trace, statement=statement)
        return Remote(self.line(target), claim, self.terms, SIZE)

    async def own(self) -> Own:
        return await Own.of(Retrace(trainer(), BASE, data_of(MINER.ss58), RECIPE, WINDOW))

    async def settle(self, first: Any, second: Any) -> Transcript:
        referee = Referee(trainer(), BASE, data_of(MINER.ss58), RECIPE, self.terms, self.store)
        found = await referee.settle(first, second)
        assert check(found, verify) == []
        return Transcript.parse(found.encode())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with SynapseClient(VALIDATOR, allow_local=True) as client:
        yield World(ArtifactStore(DirectoryBackend(tmp_path / "store")), tmp_path, client)


def swapped(step: int) -> np.ndarray:
    return data_of(MINER.ss58)(step if step != 7 else 2)


async def test_a_miner_that_swapped_a_batch_is_found_over_the_network(world: World) -> None:
    miner = world.miner(batches=swapped)
    miner.traces.training.dataset.batch = lambda places, length: swapped_back(places, length)  # type: ignore[method-assign]
    async with miner.serving() as target:
        remote = world.remote(target, miner.statement)
        found = await world.settle(remote, await world.own())
    assert found.wrong is Wrong.FIRST and found.dispute.interval == (7, 8), found.why
    line = remote.line
    assert line.requests == len(found.rounds) + 1 and line.fetched == 12 * SIZE, "digests, and the one state it claims"
    assert line.received < 1200 * line.requests

    def problems(**changes: Any) -> str:
        claim = found.claims[0].model_copy(update=changes)
        return "; ".join(check(found.model_copy(update={"claims": (claim, found.claims[1])}), verify))

    assert "signed by somebody else" in problems(hotkey=OTHER.ss58)
    assert "something else was answered" in problems(trace="33" * 32)
    answers = found.rounds[0].answers
    assert answers[0] is not None and answers[0].exchange is not None
    forged = answers[0].model_copy(update={"exchange": _altered(answers[0].exchange)})
    rounds = (found.rounds[0].model_copy(update={"answers": (forged, answers[1])}), *found.rounds[1:])
    assert "signature of the answer" in "; ".join(check(found.model_copy(update={"rounds": rounds}), verify))


def _altered(exchange: Any) -> Any:
    return replace(exchange, response_signature=bytes(64))


def swapped_back(places: Any, length: int) -> np.ndarray:
    """What a cheat has to serve to show the states that it committed to."""
    work = assign(bytes([WINDOW]) * 32, MINER.ss58, Data().tokens_of(), RECIPE.tasks.plan)
    step = work.places.index(tuple(tuple(place) for place in places))
    return Data().batch(work.batch(step if step != 7 else 2), length)


async def test_an_honest_miner_is_not_asked_anything(world: World) -> None:
    miner = world.miner()
    async with miner.serving() as target:
        remote = world.remote(target, miner.statement)
        assert (await world.settle(remote, await world.own())).wrong is Wrong.NEITHER
    assert remote.line.requests == 0


async def test_a_cheat_that_cannot_show_its_state_is_absent(world: World) -> None:
    """It trains the assigned data when it is asked, and gets another state than it had committed to."""
    miner = world.miner(batches=swapped)
    async with miner.serving() as target:
        found = await world.settle(world.remote(target, miner.statement), await world.own())
    assert (found.wrong, found.ruling.absent) == (Wrong.UNCHECKED, ("first",)) and "internal" in found.why


async def test_two_miners_dispute_when_one_repeats_the_others_window(world: World) -> None:
    cheat, other = world.miner(batches=swapped), world.miner(OTHER)
    cheat.traces.training.dataset.batch = swapped_back  # type: ignore[method-assign]
    async with cheat.serving() as first, other.serving() as second:
        line = world.line(second)
        claim = await line.repetition(world.terms)
        found = await world.settle(world.remote(first, cheat.statement), Remote(line, claim, world.terms, SIZE))
    assert found.wrong is Wrong.FIRST and found.dispute.interval == (7, 8), found.why
    assert found.claims[1] == Claim(hotkey=OTHER.ss58, trace=claim.trace), "a repetition has no statement"


async def test_a_statement_of_another_trace_is_answered_by_nobody(world: World) -> None:
    miner = world.miner()
    said = Statement.parse(miner.statement).model_copy(update={"trace": "44" * 32})
    async with miner.serving() as target:
        found = await world.settle(world.remote(target, said.encode()), await world.own())
    assert found.ruling.absent == ("first",) and "another trace" in found.why


async def test_what_nobody_may_ask_is_refused(world: World) -> None:
    miner = world.miner()
    async with miner.serving() as target:

        async def refusal(synapse: Any = TRAIN_TRACE, **changes: Any) -> Refusal:
            fields = {"window": WINDOW, "miner": MINER.ss58, "index": 0, **changes}
            with pytest.raises(CallFailed) as caught:
                await world.client.call(target, synapse, AskState(**fields))
            failure = caught.value.failure
            assert failure.code is FailureCode.REFUSED and failure.refusal is not None
            return failure.refusal

        assert (await refusal(index=STEPS + 1)).code is RefusalCode.MALFORMED
        assert (await refusal(window=9)).code is RefusalCode.NOT_PERMITTED
        assert "nobody is registered" in (await refusal(miner=VALIDATOR.ss58)).message
        miner.traces._shown = {(WINDOW, MINER.ss58, 100 + n): CID for n in range(STATES_SHOWN)}
        assert "enough" in (await refusal(TRAIN_STATE)).message


async def test_its_own_training_comes_first(world: World) -> None:
    miner = world.miner()
    traces, caller = miner.traces, Caller(VALIDATOR.ss58, None, "127.0.0.1", bytes(32))
    question = AskState(window=WINDOW, miner=MINER.ss58, index=STEPS)
    begun = asyncio.Event()
    loop, batch = asyncio.get_running_loop(), Data().batch

    def slow(places: Any, length: int) -> np.ndarray:
        loop.call_soon_threadsafe(begun.set)
        return batch(places, length)

    traces.training.dataset.batch = slow  # type: ignore[method-assign]
    asked = asyncio.create_task(traces.state(question, caller))
    await begun.wait()
    with pytest.raises(Refusal, match="something else"):
        await traces.state(question.model_copy(update={"index": 3}), caller)
    async with traces.resting():
        with pytest.raises(Refusal, match="training") as caught:
            await asked
        assert caught.value.code is RefusalCode.BUSY and caught.value.retry_after
        with pytest.raises(Refusal, match="training"):
            await traces.state(question, caller)
        assert (await traces.trace(question, caller)).states == STEPS + 1, "digests are on disk"
    found = await traces.state(question, caller)
    assert found.state == (await traces.state(question, caller)).state, "computed once"
    await traces.close()


async def test_a_party_that_never_answers_is_given_up(world: World, unused_tcp_port: int) -> None:
    line = world.line(Target(MINER.ss58, "127.0.0.1", unused_tcp_port), patience=2.0)
    with pytest.raises(NotShown, match="unreachable"):
        await line.ask(TRAIN_TRACE, AskState(window=0, miner=MINER.ss58, index=0))
    miner = world.miner()
    miner.traces._needed.set()
    async with miner.serving() as target:
        with pytest.raises(NotShown, match="busy"):
            await world.line(target, patience=3.0).ask(TRAIN_STATE, AskState(window=WINDOW, miner=MINER.ss58, index=1))
