"""What a window takes beside training: the seconds of work in it, and what is waiting by the clock.

Every part is done as neurons do it, on this machine alone: artifacts in a bucket of an S3 server (rclone) on loopback,
commitments on a local chain that makes a block at once, files on disk. Changes are random, of the model's size: what is
done with them does not depend on what they say. Medians of `turns`, in seconds of the wall clock.

    miner       compress, state, keep on disk; commit; reveal; and the step to the next model
    validator   fetch what everybody reveals, judge forms; keep what is accepted; vote; settle, and keep a checkpoint

Scores and audits are training again and not in here: see `cost`. What a real chain and a real network add is waiting:
the phases of the clock are made for it.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.training_stages.common import Figures, Ground, Journal, drawn, say
from localnet.net import Localnet
from protocol.artifacts import Manifest
from protocol.training import buffers
from protocol.training.copies import compared_chunks
from protocol.training.judging import Due, Shown, judge_forms, states_due
from protocol.training.payload import Contribution, Floats, compress, decode, encoded_size
from protocol.training.recipe import Clock, Recipe
from protocol.training.statement import MAX_BYTES, Statement, TrainCommitment
from protocol.training.votes import Word
from template.artifacts.s3 import S3Backend
from template.artifacts.store import ArtifactLimits, ArtifactStore
from template.chain import Chain
from template.keys import Hotkey
from template.operations import Operator
from template.training.checkpoint import to_file
from template.training.shared import Shared, SharedStore, advanced
from template.training.work_state import Kept, WorkState
from tests.support.s3 import S3Server, s3_server

T = TypeVar("T")

BLOCK_SECONDS = 12.0
AIM_SECONDS = 600.0  # of a window
MINER = ("compress", "state", "keep", "commit", "reveal", "fetch", "step")
VALIDATOR = ("fetch", "forms", "mirror", "vote", "step", "checkpoint")


@dataclass
class Times:
    seconds: dict[str, list[float]] = field(default_factory=dict)

    async def of(self, name: str, work: Awaitable[T]) -> T:
        started = time.perf_counter()
        found = await work
        self.seconds.setdefault(name, []).append(time.perf_counter() - started)
        return found

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])


@dataclass(frozen=True)
class Place:
    """Where a window's work goes."""

    chain: Chain
    netuid: int
    hotkey: Hotkey
    store: ArtifactStore  # of the miners
    server: S3Server
    folder: Path


def measure(ground: Ground, journal: Journal, recipe: Recipe, *, contributions: int, turns: int) -> Figures:
    settings = {"recipe": recipe.id, "contributions": contributions, "turns": turns}
    return journal.once("overhead", settings, lambda: asyncio.run(_measure(ground, recipe, contributions, turns)))


async def _measure(ground: Ground, recipe: Recipe, contributions: int, turns: int) -> Figures:
    times = Times()
    with tempfile.TemporaryDirectory() as folder, s3_server(Path(folder)) as server:
        server.make_bucket("bench")
        store = ArtifactStore(S3Backend(server.location("bench"), allow_local=True))
        async with store, Localnet(mining="instant") as net, Chain(net.url) as chain:
            netuid, hotkey = await _subnet(chain)
            place = Place(chain, netuid, hotkey, store, server, Path(folder))
            for turn in range(turns):
                say(f"overhead: turn {turn + 1} of {turns}")
                await _window(ground, recipe, place, times, turn, contributions)
    return _summary(times, recipe, ground.layout.size, contributions)


async def _subnet(chain: Chain) -> tuple[int, Hotkey]:
    owner, alice = Hotkey.from_uri("//owner"), Operator(chain, Hotkey.from_uri("//Alice").keypair)
    return await alice.create_subnet(owner.ss58), owner


async def _window(ground: Ground, recipe: Recipe, place: Place, times: Times, turn: int, contributions: int) -> None:
    size, shared = ground.layout.size, ground.start(0)
    rng = np.random.default_rng(turn)

    def change() -> Floats:
        return (rng.standard_t(4, size) * 1e-4).astype(np.float32)

    others = {}
    for miner in (f"miner {number}" for number in range(contributions - 1)):
        others[miner] = _promised(shared, recipe, miner, *_compressed(np.zeros(size, np.float32), change(), recipe))
        await _reveal(place.store, others[miner])

    me, before, mine = place.hotkey.ss58, change(), change()
    contribution, after = await times.of("compress", asyncio.to_thread(_compressed, before, mine, recipe))
    kept = await times.of("state", asyncio.to_thread(_promised, shared, recipe, me, contribution, after))
    work = WorkState(place.folder / "work", size)
    await times.of("keep", asyncio.to_thread(work.keep, turn, kept))
    text = TrainCommitment(turn, Manifest.of(kept.statement).cid).encode()
    await times.of("commit", place.chain.commit(place.netuid, place.hotkey, text))
    await times.of("reveal", _reveal(place.store, kept))

    everybody = {**others, me: kept}
    shown = await times.of("fetch", _fetch(place.store, everybody, size))
    due_of = {miner: Due(shared.window, shared.root, size, recipe) for miner in shown}
    chunks = compared_chunks(drawn(0, "reveal", turn), size)
    forms = await times.of("forms", asyncio.to_thread(judge_forms, due_of, shown, chunks))
    if forms.verdicts:
        raise AssertionError(f"honest contributions were rejected: {dict(forms.verdicts)}")
    place.server.make_bucket(f"mirror{turn}")  # with nothing in it yet
    async with ArtifactStore(S3Backend(place.server.location(f"mirror{turn}"), allow_local=True)) as mirror:
        await times.of("mirror", _mirror(mirror, shown))
        word = Word(turn, frozenset(range(contributions)), None)
        await times.of("vote", place.chain.commit(place.netuid, place.hotkey, word.encode()))
        saved = SharedStore(place.folder / "model", recipe.architecture, ground.layout)
        following = await times.of("step", asyncio.to_thread(_step, ground, recipe, shared, shown, saved, turn))
        await times.of("checkpoint", _checkpoint(mirror, ground, following))


def _compressed(before: Floats, change: Floats, recipe: Recipe) -> tuple[Contribution, Floats]:
    total = buffers.accumulate(before, change, recipe.kept)
    contribution = compress(total)
    return contribution, buffers.remainder(total, contribution)


def _promised(shared: Shared, recipe: Recipe, miner: str, contribution: Contribution, after: Floats) -> Kept:
    payload, left = contribution.encode(), after.tobytes()
    said = Statement(
        window=shared.window, miner=miner, base=shared.root, payload=Manifest.of(payload).cid, profile=recipe.profile,
        trace="00" * 32, states=states_due(recipe), before=None, after=Manifest.of(left).cid,
    )  # fmt: skip
    return Kept(said.encode(), payload, None, left)


async def _reveal(store: ArtifactStore, kept: Kept) -> None:
    await store.put_bytes(kept.payload)
    await store.put_bytes(kept.statement)


async def _fetch(store: ArtifactStore, everybody: dict[str, Kept], size: int) -> dict[str, Shown]:
    async def one(kept: Kept) -> Shown:
        said = await store.read(Manifest.of(kept.statement).cid, ArtifactLimits(MAX_BYTES, 60.0))
        limits = ArtifactLimits(encoded_size(size), 60.0)
        return Shown(said, await store.read(Statement.parse(said).payload, limits))

    found = await asyncio.gather(*(one(kept) for kept in everybody.values()))
    return dict(zip(everybody, found, strict=True))


async def _mirror(store: ArtifactStore, shown: dict[str, Shown]) -> None:
    for one in shown.values():
        await store.put_bytes(one.payload)
        await store.put_bytes(one.statement)


def _step(
    ground: Ground, recipe: Recipe, shared: Shared, shown: dict[str, Shown], saved: SharedStore, turn: int
) -> Shared:
    contributions = {miner: decode(one.payload, ground.layout.size) for miner, one in shown.items()}
    following = advanced(Shared(turn, shared.vector, shared.root), recipe, ground.layout, contributions)
    saved.save(following)
    return following


async def _checkpoint(store: ArtifactStore, ground: Ground, following: Shared) -> None:
    await store.put_bytes(await asyncio.to_thread(to_file, ground.layout, following.vector))


def _summary(times: Times, recipe: Recipe, size: int, contributions: int) -> Figures:
    clock: Clock = recipe.clock
    length = clock.schedule.length * BLOCK_SECONDS
    rows = {name: round(times.median(name), 3) for name in times.seconds}
    sums = {who: sum(rows[name] for name in names) for who, names in (("miner", MINER), ("validator", VALIDATOR))}
    return {
        "parameters": size,
        "contributions": contributions,
        "seconds": rows,
        "work": {
            who: {"seconds": round(total, 2), "of_600_s": round(total / AIM_SECONDS, 4)} for who, total in sums.items()
        },
        "clock": {
            "blocks": clock.model_dump(exclude={"start"}),
            "window_s": length,
            "train_s": clock.train * BLOCK_SECONDS,
            "outside_training": round(1.0 - clock.train * BLOCK_SECONDS / length, 3),
        },
    }
