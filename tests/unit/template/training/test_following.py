"""A node stays with the shared model: every node settles a window alike, and follows nothing that is not proven.

Artifacts lie in a real store. What the chain says of a window is written down here instead of read from a chain.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from protocol.artifacts import Manifest
from protocol.training import statement as statements
from protocol.training.buffers import WINDOWS
from protocol.training.payload import compress
from protocol.training.recipe import Clock, Privacy, Recipe, Tasks
from protocol.training.records import Included, WindowRecord
from protocol.training.statement import Statement
from protocol.training.windows import Phase, Schedule
from template.artifacts.directory import DirectoryBackend
from template.artifacts.errors import ArtifactUnavailable
from template.artifacts.store import ArtifactLimits, ArtifactStore
from template.chain import ChainError
from template.training.chain_view import Promised, Standing
from template.training.checkpoint import BadCheckpoint, model_root, to_file
from template.training.following import STATE_BLOCKS, Follower, HistoryBroken, Settled, history, replayed
from template.training.shared import Shared, SharedStore
from tests.support.training import TINY, genesis

LAYOUT, VECTOR = genesis()
FIRST_FILE = to_file(LAYOUT, VECTOR)
CID, OTHER = Manifest.of(b"one").cid, Manifest.of(b"two").cid
RECIPE = Recipe(
    architecture=TINY, model=model_root(TINY, LAYOUT, VECTOR), model_file=Manifest.of(FIRST_FILE).cid, dataset=CID,
    clock=Clock(start=0), tasks=Tasks(steps=1, length=16), checkpoint_every=4,
)  # fmt: skip
FIRST = Shared(0, VECTOR, RECIPE.model)


@dataclass
class Height:
    height: int = 0

    async def finalized_block(self) -> int:
        return self.height


@dataclass
class Said:
    """What the chain says, in the place of a WindowView. A window of which nothing is written down has no state."""

    promised: dict[int, dict[str, Promised]] = field(default_factory=dict)
    votes: dict[int, frozenset[str]] = field(default_factory=dict)
    stands: Standing | None = None
    schedule: Schedule = RECIPE.clock.schedule
    chain: Height = field(default_factory=Height)

    async def due(self, window: int) -> dict[str, Promised]:
        if window not in self.promised:
            raise ChainError(f"no state of window {window}")
        return self.promised[window]

    async def accepted(self, window: int, due: dict[str, Promised]) -> frozenset[str]:
        return self.votes[window] & due.keys()

    async def agreed(self) -> Standing | None:
        return self.stands

    async def validator_locations(self) -> list[str]:
        return ["a validator's"]

    async def seed(self, window: int, phase: Phase) -> bytes:
        return hashlib.sha256(f"{window} {phase}".encode()).digest()


@dataclass
class Subnet:
    """A chain's words and one store for all; nodes differ in their folders."""

    store: ArtifactStore
    folder: Path
    said: Said = field(default_factory=Said)
    asked: list[str] = field(default_factory=list)

    async def fetch(self, cid: str, locations: Sequence[str], max_bytes: int) -> bytes:
        assert locations
        self.asked.append(cid)
        return await self.store.read(cid, ArtifactLimits(max_bytes, 30.0))

    async def node(self, name: str, recipe: Recipe = RECIPE) -> Follower:
        follower = Follower(self.said, recipe, LAYOUT, SharedStore(self.folder / name, TINY, LAYOUT), self.fetch)
        await follower.begin(["the owner's"])
        return follower

    async def show(self, window: int, miner: str, statement: bytes | None = None, payload: bytes | None = None) -> None:
        """A contribution on its way into the model: promised, uploaded and voted for."""
        payload = contribution(window, miner) if payload is None else payload
        statement = stated(window, miner, payload) if statement is None else statement
        await self.store.put_bytes(payload)
        cid = await self.store.put_bytes(statement)
        held = self.said.promised.setdefault(window, {})
        held[miner] = Promised(len(held), cid, "its own", 1)
        self.said.votes[window] = self.said.votes.get(window, frozenset()) | {miner}

    async def close(self, node: Follower) -> Settled:
        """Settle the next window as a validator does: what entered is kept where others find it."""
        settled = await node.settle()
        for data in (settled.record.encode(), settled.checkpoint or b""):
            await self.store.put_bytes(data)
        await node.adopt(settled)
        return settled

    async def run(self, node: Follower, windows: Iterable[int], miners: str = "ab") -> list[Settled]:
        done = []
        for window in windows:
            self.said.promised.setdefault(window, {})
            self.said.votes.setdefault(window, frozenset())
            for miner in miners:
                await self.show(window, miner)
            done.append(await self.close(node))
        return done

    def stand(self, record: WindowRecord) -> None:
        self.said.stands = Standing(record.window, Manifest.of(record.encode()).cid, ("a validator's",))

    async def write(self, record: WindowRecord) -> str:
        return await self.store.put_bytes(record.encode())


@pytest.fixture
async def subnet(tmp_path: Path) -> Subnet:
    store = ArtifactStore(DirectoryBackend(tmp_path / "store"))
    await store.put_bytes(FIRST_FILE)
    return Subnet(store, tmp_path)


def contribution(window: int, miner: str) -> bytes:
    rng = np.random.default_rng([window, *miner.encode()])
    return compress((1e-3 * rng.standard_normal(LAYOUT.size)).astype(np.float32)).encode()


def stated(window: int, miner: str, payload: bytes) -> bytes:
    return Statement(
        window=window, miner=miner, base="11" * 32, payload=Manifest.of(payload).cid, profile="tolerant",
        trace="22" * 32, states=2, before=None, after=CID,
    ).encode()  # fmt: skip


def record(window: int = 0, **changed: object) -> WindowRecord:
    fields = {
        "window": window, "recipe": RECIPE.id, "base": RECIPE.model, "contributions": (), "root": RECIPE.model,
        "previous": None, "checkpoint": None,
    }  # fmt: skip
    return WindowRecord(**{**fields, **changed})


# Beginning


async def test_the_first_model_is_the_recipes_and_after_that_the_saved_one(subnet: Subnet) -> None:
    node = await subnet.node("node")
    assert (node.shared.window, node.shared.root, node.shared.record) == (0, RECIPE.model, None)
    assert node.shared.vector.tobytes() == VECTOR.tobytes()
    settled = (await subnet.run(node, range(1)))[0]
    subnet.asked.clear()
    again = await subnet.node("node")
    assert subnet.asked == [] and (again.shared.window, again.shared.root) == (1, settled.record.root)


async def test_a_first_model_that_is_not_the_recipes_is_refused(subnet: Subnet) -> None:
    with pytest.raises(HistoryBroken, match="not the model abababababababab of window 0"):
        await subnet.node("node", RECIPE.model_copy(update={"model": "ab" * 32}))
    junk = await subnet.store.put_bytes(b"no file of tensors")
    with pytest.raises(BadCheckpoint):
        await subnet.node("node", RECIPE.model_copy(update={"model_file": junk}))
    assert SharedStore(subnet.folder / "node", TINY, LAYOUT).load() is None


# Settling


async def test_two_nodes_settle_a_window_alike_whatever_comes_first(subnet: Subnet) -> None:
    for miner in "abc":
        await subnet.show(0, miner)
    await subnet.show(0, "d")
    subnet.said.votes[0] -= {"d"}
    one = await subnet.node("one")
    first = await one.settle()

    held, last_came = subnet.said.promised[0], asyncio.Event()

    async def backwards(cid: str, locations: Sequence[str], max_bytes: int) -> bytes:
        data = await subnet.fetch(cid, locations, max_bytes)
        if cid == held["c"].statement:
            last_came.set()
        if cid in (held["a"].statement, held["b"].statement):
            await last_came.wait()
        return data

    subnet.said.promised[0] = dict(reversed(held.items()))
    other = Follower(subnet.said, RECIPE, LAYOUT, SharedStore(subnet.folder / "other", TINY, LAYOUT), backwards)
    await other.begin(["the owner's"])
    second = await other.settle()

    assert first.record.encode() == second.record.encode()
    assert [included.miner for included in first.record.contributions] == ["a", "b", "c"]
    assert first.shared.root == second.shared.root == first.record.root != RECIPE.model
    assert first.shared.vector.tobytes() == second.shared.vector.tobytes()
    assert first.shared.record == second.shared.record == Manifest.of(first.record.encode()).cid
    assert (first.record.window, first.record.base, first.shared.window) == (0, RECIPE.model, 1)
    assert first.payloads["a"] == contribution(0, "a") and first.statements["a"].miner == "a"
    assert one.shared.window == 0, "settling alone adopts nothing"


async def test_what_was_accepted_and_is_no_contribution_is_left_out_by_everybody(subnet: Subnet) -> None:
    good = contribution(0, "good")
    for miner in ("good", "fine"):
        await subnet.show(0, miner)
    await subnet.show(0, "statement", statement=b"{}")
    await subnet.show(0, "long statement", statement=b" " * (statements.MAX_BYTES + 1))
    await subnet.show(0, "cut", payload=good[:-1])
    await subnet.show(0, "long", payload=good + bytes(1))
    await subnet.show(0, "infinite", payload=good[:12] + b"\xff" * 8 + good[20:])
    nodes = [await subnet.node(name) for name in ("one", "other")]
    found = [await node.settle() for node in nodes]
    assert found[0].record.encode() == found[1].record.encode()
    assert [included.miner for included in found[0].record.contributions] == ["fine", "good"]
    assert set(found[0].statements) == set(found[0].payloads) == {"fine", "good"}
    followed = await replayed(FIRST, [found[0].record], RECIPE, LAYOUT, subnet.fetch, ["x"])
    assert followed.root == found[1].shared.root, "who was away can go there"


async def test_a_window_waits_for_what_cannot_be_had(subnet: Subnet) -> None:
    await subnet.show(0, "a")
    subnet.said.promised[0]["gone"] = Promised(7, CID, "nowhere", 1)
    subnet.said.votes[0] |= {"gone"}
    node = await subnet.node("node")
    with pytest.raises(ArtifactUnavailable):
        await node.settle()
    assert node.shared.window == 0
    subnet.said.votes[0] -= {"gone"}
    assert [one.miner for one in (await node.settle()).record.contributions] == ["a"]


async def test_an_update_that_leaves_float32_enters_nothing(subnet: Subnet) -> None:
    recipe = RECIPE.model_copy(update={"outer_rate": 2.0})
    await subnet.show(0, "a", payload=compress(np.full(LAYOUT.size, 3e38, dtype=np.float32)).encode())
    node = await subnet.node("node", recipe)
    settled = await node.settle()
    assert settled.record == record(recipe=recipe.id)
    assert settled.statements == settled.payloads == {}
    assert settled.shared.vector.tobytes() == VECTOR.tobytes() and settled.shared.window == 1


async def test_a_window_is_empty_only_when_no_node_can_have_its_state_any_more(subnet: Subnet) -> None:
    node = await subnet.node("node")
    end = RECIPE.clock.schedule.block_of(0, Phase.AGGREGATE)
    subnet.said.chain.height = end + STATE_BLOCKS - 1
    with pytest.raises(ChainError):
        await node.settle()
    subnet.said.chain.height += 1
    assert (await node.settle()).record == record()


async def test_every_few_windows_the_model_is_kept(subnet: Subnet) -> None:
    done = await subnet.run(await subnet.node("node"), range(5), miners="a")
    assert [settled.record.checkpoint is not None for settled in done] == [False, False, False, True, False]
    assert done[3].checkpoint == to_file(LAYOUT, done[3].shared.vector)
    assert done[3].record.checkpoint == Manifest.of(done[3].checkpoint).cid
    for earlier, later in itertools.pairwise(done):
        assert later.record.previous == earlier.shared.record and later.record.base == earlier.record.root


# Privacy


PRIVATE = RECIPE.model_copy(update={"privacy": Privacy(clip=0.05, noise=0.5)})


async def test_noise_is_drawn_from_the_chain_and_kept_on_record(subnet: Subnet) -> None:
    one, other = await subnet.node("one", PRIVATE), await subnet.node("other", PRIVATE)
    done = await subnet.run(one, range(2))
    done += await subnet.run(one, [2], miners="")
    seeds = [(await subnet.said.seed(window, Phase.AGGREGATE)).hex() for window in range(2)]
    assert [settled.record.seed for settled in done] == [*seeds, None], "an empty window has no noise"
    assert (await other.settle()).record.encode() == done[0].record.encode()
    plain = await subnet.node("plain")
    assert (await plain.settle()).shared.root != done[0].shared.root
    moved = done[0].shared.vector - VECTOR
    assert np.std(moved) > 0.01 and np.count_nonzero(moved) > 0.99 * LAYOUT.size, "every parameter is noised"

    subnet.stand(done[2].record)
    assert await other.catch_up() is True, "from the records alone"
    assert other.shared.vector.tobytes() == one.shared.vector.tobytes()


@pytest.mark.parametrize(
    ("recipe", "seed", "told"),
    [
        (PRIVATE, "ab" * 32, "its record says"),
        (PRIVATE, None, "noise without seed"),
        (RECIPE, "ab" * 32, "seed without"),
    ],
)
async def test_a_record_with_another_seed_is_refused(
    subnet: Subnet, recipe: Recipe, seed: str | None, told: str
) -> None:
    settled = (await subnet.run(await subnet.node("node", recipe), range(1)))[0]
    said = settled.record.model_copy(update={"seed": seed})
    with pytest.raises(HistoryBroken, match=told):
        await replayed(FIRST, [said], recipe, LAYOUT, subnet.fetch, ["x"])


# Catching up


async def test_catching_up_from_scratch_and_from_a_checkpoint_comes_to_the_same_model(subnet: Subnet) -> None:
    first = await subnet.node("first")
    done = await subnet.run(first, range(6))
    scratch, late = await subnet.node("scratch"), await subnet.node("late")
    subnet.asked.clear()
    assert await late.catch_up() is False, "nobody stands behind anything"

    subnet.stand(done[2].record)
    assert await scratch.catch_up() is True
    assert (scratch.shared.window, scratch.shared.root) == (3, done[2].record.root)
    assert scratch.shared.record == done[2].shared.record
    assert await first.catch_up() is False and first.shared.window == 6, "it is further than that already"

    subnet.stand(done[5].record)
    subnet.asked.clear()
    assert await late.catch_up() is True
    payloads = {included.payload for settled in done[:4] for included in settled.record.contributions}
    assert done[3].record.checkpoint in subnet.asked and not payloads & set(subnet.asked)
    everything = await history(done[5].shared.record, subnet.fetch, ["x"])
    told: list[str] = []
    whole = await replayed(
        FIRST, everything, RECIPE, LAYOUT, subnet.fetch, ["x"], lambda shared: told.append(shared.root)
    )
    assert told == [settled.record.root for settled in done]
    assert whole.vector.tobytes() == late.shared.vector.tobytes() == first.shared.vector.tobytes()
    assert late.shared.record == whole.record == done[5].shared.record
    assert (await subnet.node("late")).shared.root == done[5].record.root, "it is saved"


async def test_who_is_a_little_behind_goes_on_from_its_own_model(subnet: Subnet) -> None:
    first, second = await subnet.node("first"), await subnet.node("second")
    done = await subnet.run(first, range(4))
    for settled in done[:3]:
        await second.adopt(settled)
    subnet.stand(done[3].record)
    subnet.asked.clear()
    assert await second.catch_up() is True
    assert second.shared.root == done[3].record.root and done[3].record.checkpoint not in subnet.asked


async def test_a_checkpoint_that_is_not_the_records_model_is_refused(subnet: Subnet) -> None:
    node = await subnet.node("node")
    for said, told in (
        (record(9, root="ab" * 32, checkpoint=RECIPE.model_file, previous=CID), "not the model abababab"),
        (record(9, recipe="ab" * 32, checkpoint=RECIPE.model_file, previous=CID), "of another recipe"),
    ):
        await subnet.write(said)
        subnet.stand(said)
        with pytest.raises(HistoryBroken, match=told):
            await node.catch_up()
    assert node.shared.window == 0


# History


async def test_a_history_with_a_gap_or_a_wrong_base_is_refused(subnet: Subnet) -> None:
    first = await subnet.write(record())
    gap = await subnet.write(record(2, previous=first))
    with pytest.raises(HistoryBroken, match="window 2 does not follow"):
        await history(gap, subnet.fetch, ["x"])
    wrong = await subnet.write(record(1, previous=first, base="ab" * 32))
    with pytest.raises(HistoryBroken, match="window 1 does not follow"):
        await history(wrong, subnet.fetch, ["x"])
    beheaded = await subnet.write(record(3))
    with pytest.raises(HistoryBroken, match="begins with window 3"):
        await history(beheaded, subnet.fetch, ["x"])


async def test_the_walk_back_ends_where_it_is_enough_and_never_goes_too_far(subnet: Subnet) -> None:
    chain = [record()]
    for window in range(1, 8):
        kept = OTHER if window == 1 else None
        chain.append(record(window, previous=await subnet.write(chain[-1]), checkpoint=kept))
    newest = await subnet.write(chain[-1])
    assert await history(newest, subnet.fetch, ["x"]) == chain
    assert await history(newest, subnet.fetch, ["x"], most=7) == chain[1:], "to the checkpoint"
    assert await history(newest, subnet.fetch, ["x"], lambda one: one.window == 5, most=7) == chain[5:]
    subnet.asked.clear()
    with pytest.raises(HistoryBroken, match="no checkpoint among the last 6"):
        await history(newest, subnet.fetch, ["x"], most=6)
    assert len(subnet.asked) == 6


async def test_a_record_that_its_contributions_do_not_bear_out_is_refused(subnet: Subnet) -> None:
    honest = (await subnet.run(await subnet.node("node"), range(1)))[0].record
    liar = honest.model_copy(update={"root": "ab" * 32})
    robbed = honest.model_copy(update={"contributions": honest.contributions[:1]})
    for said in (liar, robbed):
        with pytest.raises(HistoryBroken, match=r"window 0 gives .*, its record says"):
            await replayed(FIRST, [said], RECIPE, LAYOUT, subnet.fetch, ["x"])
    junk = Included(miner="c", statement=CID, payload=await subnet.store.put_bytes(b"junk"))
    polluted = honest.model_copy(update={"contributions": (*honest.contributions, junk)})
    with pytest.raises(HistoryBroken, match="cannot have entered"):
        await replayed(FIRST, [polluted], RECIPE, LAYOUT, subnet.fetch, ["x"])
    for said in (record(1), record(base="ab" * 32), record(recipe="ab" * 32)):
        with pytest.raises(HistoryBroken, match="does not go on from the model before it"):
            await replayed(FIRST, [said], RECIPE, LAYOUT, subnet.fetch, ["x"])


async def test_a_node_keeps_its_model_when_the_record_validators_stand_behind_is_a_lie(subnet: Subnet) -> None:
    node = await subnet.node("node")
    honest = (await subnet.run(await subnet.node("first"), range(1)))[0].record
    liar = honest.model_copy(update={"root": "ab" * 32})
    await subnet.write(liar)
    subnet.stand(liar)
    with pytest.raises(HistoryBroken):
        await node.catch_up()
    assert node.shared.window == 0 and (await subnet.node("node")).shared.root == RECIPE.model


# Confirming


async def test_validators_confirm_a_model_say_nothing_or_stand_behind_another(subnet: Subnet) -> None:
    node = await subnet.node("node")
    done = await subnet.run(node, range(3))
    assert await node.confirm() is None
    for settled in (done[2], done[1], done[0]):  # those who are behind have the same history
        subnet.stand(settled.record)
        assert await node.confirm() is True
    assert node.shared.root == done[2].record.root

    fork = Subnet(subnet.store, subnet.folder / "fork")
    stray = await fork.run(await fork.node("stray"), range(3), miners="abz")
    subnet.stand(stray[2].record)
    assert await node.confirm() is False
    assert (node.shared.window, node.shared.root) == (3, stray[2].record.root) != (3, done[2].record.root)
    assert await node.confirm() is True
    assert (await subnet.node("node")).shared.root == stray[2].record.root


async def test_a_fork_that_is_no_history_moves_nobody(subnet: Subnet) -> None:
    node = await subnet.node("node")
    done = await subnet.run(node, range(2))
    liar = done[1].record.model_copy(update={"root": "ab" * 32})
    await subnet.write(liar)
    subnet.stand(liar)
    with pytest.raises(HistoryBroken):
        await node.confirm()
    assert node.shared.root == done[1].record.root


# Statements of the past


async def test_the_last_statement_of_a_miner_is_found_within_the_windows_and_not_beyond(subnet: Subnet) -> None:
    node = await subnet.node("node")
    when = {0: "x", 1: "xe", 5: "xb", 9: "b"}  # window -> who contributed: the last of x is that of 5
    for window in range(WINDOWS + 1):
        await subnet.run(node, [window], miners=when.get(window, ""))
    assert node.shared.window == WINDOWS + 1
    found = await node.recent_statements({"x", "e", "b", "never"})
    assert {miner: said.window for miner, said in found.items()} == {"x": 5, "e": 1, "b": 9}
    assert all(said == Statement.parse(stated(said.window, miner, contribution(said.window, miner)))
               for miner, said in found.items())  # fmt: skip
    assert await node.recent_statements([]) == {}
    await subnet.run(node, [WINDOWS + 1], miners="")
    found = await node.recent_statements({"x", "e", "b"})
    assert {miner: said.window for miner, said in found.items()} == {"x": 5, "b": 9}, "e's is too old by one window"
