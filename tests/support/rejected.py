"""Two windows of a training with real contributions, and a validator's verdicts on the second, for evidence of them.

    world = await make(folder)                    a chain's words, and one store with everything in it
    world.cases["half"]                           neurons.train_evidence.Case: a verdict and what it stands on
    world.evidence("half", **changes)             signed
    await world.look(evidence)                    what somebody else finds who has the store and the chain

"alice" is honest, and her buffer goes on from the first window. What the others did is their names in `WORKS`. Verdicts
come from the same functions as a validator's.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from neurons.train_evidence import Case, Opening, Source, make_evidence
from protocol.artifacts import Manifest
from protocol.dataset import DatasetManifest, Shard, encode_manifest
from protocol.metagraph import Metagraph, Neuron
from protocol.training.assignment import assign, window_seed
from protocol.training.buffers import accumulate, remainder
from protocol.training.copies import compared_chunks
from protocol.training.evidence import TrainEvidence
from protocol.training.findings import Assessment
from protocol.training.judging import (
    Due,
    Reason,
    Shown,
    Verdict,
    among_alike,
    judge_forms,
    read_opened,
    states_due,
)
from protocol.training.payload import Floats, compress
from protocol.training.recipe import Clock, Inner, Recipe, Tasks, recipe_commitment
from protocol.training.records import Included, WindowRecord
from protocol.training.statement import Statement, TrainCommitment
from protocol.training.votes import Word
from protocol.training.windows import Phase
from protocol.verdicts import Outcome
from template.artifacts.directory import DirectoryBackend
from template.artifacts.store import ArtifactStore
from template.chain import ChainError
from template.commitments import Committed
from template.keys import Hotkey
from template.training.chain_view import Promised
from template.training.checkpoint import build, model_root, to_file
from template.training.dataset import Dataset
from template.training.evaluation import audit
from template.training.inner import Trainer
from template.training.peers import Peers
from template.training.recheck import recheck
from template.training.recompute import Machine
from template.training.shared import Shared, advanced
from template.training.windows import Trained, train_window
from tests.support.train_evidence import VALIDATOR, answer
from tests.support.training import TINY, VOCABULARY, genesis

NETUID, START, COMMITTED_IN = 2, 100, 143
LOCATION = "touchstone-artifacts/1 somewhere"  # no bucket: everything lies in one store
OWNER = Hotkey.from_uri("//owner").ss58
ENDS = {
    "alice": Reason.OK,
    "half": Reason.REPLAY,
    "copy": Reason.COPY,
    "unlike": Reason.SENT,
    "short": Reason.BUFFER,
    "elsewhere": Reason.BUFFER,
    "stale": Reason.STALE,
    "cut": Reason.PAYLOAD,
    "empty": Reason.EMPTY,
    "garbage": Reason.STATEMENT,
}
HOTKEYS = {name: Hotkey.from_uri(f"//{name}") for name in ENDS}


def hash_of(block: int) -> str:
    return hashlib.sha256(b"block %d" % block).hexdigest()


@dataclass
class SaidChain:
    """What the chain says. `pruned`: its node keeps no state of old blocks. `away`: it does not answer."""

    texts: dict[str, Committed] = field(default_factory=dict)
    pruned: bool = False
    away: bool = False
    endpoint: str = "ws://here"
    hashes: dict[int, str] = field(default_factory=dict)

    async def block_hash(self, block: int) -> str:
        if self.away:
            raise ChainError("the chain does not answer")
        return "0x" + self.hashes.get(block, hash_of(block))

    async def metagraph(self, netuid: int, block: int | None = None) -> Metagraph:
        self._has(netuid, block)
        neurons = [
            Neuron(uid, hotkey, hotkey, 10.0, hotkey == VALIDATOR.ss58, True, "0.0.0.0", 0, 4, 0)
            for uid, hotkey in enumerate(self.texts)
        ]
        return Metagraph(netuid, block or 999, "0x" + "00" * 32, 360, tuple(neurons), OWNER)

    async def commitments(self, netuid: int, block: int | None = None) -> Mapping[str, Committed]:
        self._has(netuid, block)
        return self.texts

    def _has(self, netuid: int, block: int | None) -> None:
        if self.away or netuid != NETUID or (self.pruned and block is not None):
            raise ChainError("the node keeps no state of that block")


@dataclass
class World:
    folder: Path
    recipe: Recipe
    chain: SaidChain
    store: ArtifactStore
    shared: Shared  # the model of window 1
    cases: dict[str, Case] = field(default_factory=dict)

    def source(self, **changes: Any) -> Source:
        schedule = self.recipe.clock.schedule
        fields: dict[str, Any] = {
            "genesis": hash_of(0), "netuid": NETUID, "recipe": Manifest.of(self.recipe.encode()).cid, "window": 1,
            "record": self.shared.record, "assign": hash_of(schedule.block_of(1, Phase.ASSIGN)),
            "reveal": hash_of(schedule.block_of(1, Phase.REVEAL)),
            "read_at": schedule.block_of(1, Phase.REVEAL) - 1, "location": LOCATION,
        }  # fmt: skip
        return Source(**{**fields, **changes})

    def evidence(self, name: str, **changes: Any) -> TrainEvidence:
        """`changes`: of what all evidence of the window has in common."""
        return make_evidence(VALIDATOR, self.source(**changes), HOTKEYS[name].ss58, self.cases[name], 1.7e9)

    async def look(self, evidence: TrainEvidence) -> Assessment:
        async with Peers(self.store) as peers:
            machine = Machine(threads=1)
            return await recheck(evidence, self.chain, peers, self.folder / "shards", machine)  # type: ignore[arg-type]

    def copy(self, folder: Path) -> World:
        """The same, in a store of its own."""
        shutil.copytree(self.folder / "store", folder / "store")
        store = ArtifactStore(DirectoryBackend(folder / "store"))
        return replace(self, folder=folder, chain=SaidChain(dict(self.chain.texts)), store=store)

    async def forget(self, cid: str) -> None:
        await self.store.backend.delete(cid)


async def make(folder: Path) -> World:
    store = ArtifactStore(DirectoryBackend(folder / "store"))
    layout, vector = genesis()
    manifest, dataset_cid = await _dataset(store)
    recipe = Recipe(
        architecture=TINY, model=model_root(TINY, layout, vector), dataset=dataset_cid,
        model_file=await store.put_bytes(to_file(layout, vector)), clock=Clock(start=START),
        tasks=Tasks(steps=8, batch=4, length=16, shards=2), inner=Inner(peak=1e-2, warmup=1), alike_from=0.5,
    )  # fmt: skip
    await store.put_bytes(recipe.encode())
    chain = SaidChain({OWNER: Committed((recipe_commitment(Manifest.of(recipe.encode()).cid), LOCATION), 5)})
    trainer = Trainer(build(TINY), recipe.inner, profile=recipe.profile, threads=1)
    shop = Shop(recipe, Dataset(manifest, store, folder / "made"), store, trainer)
    await shop.dataset.fetch(range(len(manifest.training)))
    first = Shared(0, vector, recipe.model)
    nothing = np.zeros_like(vector)
    before = shop.train("alice", first, nothing)
    earlier = await shop.show("alice", first, before, None)
    record = WindowRecord(
        window=0, recipe=recipe.id, base=first.root, previous=None, checkpoint=None,
        contributions=(
            Included(miner=HOTKEYS["alice"].ss58, statement=Manifest.of(earlier.encode()).cid, payload=earlier.payload),
        ),
        root=advanced(first, recipe, layout, {"alice": before.contribution}).root,
    )  # fmt: skip
    cid = await store.put_bytes(record.encode())
    shared = advanced(first, recipe, layout, {"alice": before.contribution}, cid)
    world = World(folder, recipe, chain, store, shared)
    await _second_window(world, shop, earlier, before.after)
    chain.texts[VALIDATOR.ss58] = Committed((Word(1, frozenset(), cid).encode(), LOCATION), COMMITTED_IN + 5)
    return world


async def _dataset(store: ArtifactStore) -> tuple[DatasetManifest, str]:
    """Each shard counts in steps of its own."""
    shards = []
    for number in range(6):
        tokens = ((3 + number) * np.arange(600) + np.arange(600) // 50).astype("<u2") % VOCABULARY
        shards.append(Shard(cid=await store.put_bytes(tokens.tobytes()), tokens=600))
    manifest = DatasetManifest(
        name="counting", token_bytes=2, vocabulary=VOCABULARY, eos=0, tokenizer="ab" * 32, training=tuple(shards[:5]),
        validation=tuple(shards[5:]), sources=(), licences=(),
    )  # fmt: skip
    return manifest, await store.put_bytes(encode_manifest(manifest))


@dataclass
class Shop:
    """Where contributions are made."""

    recipe: Recipe
    dataset: Dataset
    store: ArtifactStore
    trainer: Trainer

    def batches(self, name: str, window: int) -> Callable[[int], np.ndarray]:
        seed = window_seed(bytes.fromhex(hash_of(self.recipe.clock.schedule.block_of(window, Phase.ASSIGN))), window)
        work = assign(seed, HOTKEYS[name].ss58, self.dataset.tokens_of(), self.recipe.tasks.plan)
        return lambda step: self.dataset.batch(work.batch(step), self.recipe.tasks.length)

    def train(self, name: str, shared: Shared, before: Floats, steps: int | None = None) -> Trained:
        tasks = self.recipe.tasks.model_copy(update={"steps": steps} if steps else {})
        recipe = self.recipe.model_copy(update={"tasks": tasks})
        return train_window(
            self.trainer, shared.vector, before, self.batches(name, shared.window), recipe, shared.window
        )

    async def show(self, name: str, shared: Shared, trained: Trained, before: str | None, **changes: Any) -> Statement:
        """Put everything of a contribution into the store; `changes`: what its statement says otherwise."""
        payload, after = trained.contribution.encode(), trained.after.astype("<f4").tobytes()
        fields: dict[str, Any] = {
            "window": shared.window, "miner": HOTKEYS[name].ss58, "base": shared.root,
            "payload": await self.store.put_bytes(payload), "profile": self.recipe.profile, "trace": trained.trace,
            "states": states_due(self.recipe), "before": before, "after": await self.store.put_bytes(after),
        }  # fmt: skip
        said = Statement(**{**fields, **changes})
        await self.store.put_bytes(said.encode())
        return said


async def _second_window(world: World, shop: Shop, earlier: Statement, buffer: Floats) -> None:
    nothing, shared = np.zeros_like(buffer), world.shared
    alice = shop.train("alice", shared, buffer)
    said = {"alice": await shop.show("alice", shared, alice, earlier.after)}
    said["half"] = await shop.show("half", shared, shop.train("half", shared, nothing, steps=4), None)
    said["copy"] = await shop.show("copy", shared, alice, None)
    said["unlike"] = await shop.show("unlike", shared, _sends_something_else(shop, shared, nothing), None)
    plain = {name: shop.train(name, shared, nothing) for name in ("short", "elsewhere", "stale", "cut", "empty")}
    other = await shop.store.put_bytes(b"no buffer")
    said["short"] = await shop.show("short", shared, plain["short"], None, after=other)
    said["elsewhere"] = await shop.show("elsewhere", shared, plain["elsewhere"], other)
    said["stale"] = await shop.show("stale", shared, plain["stale"], None, base=world.recipe.model)
    cut = await shop.store.put_bytes(plain["cut"].contribution.encode()[:-1])
    said["cut"] = await shop.show("cut", shared, plain["cut"], None, payload=cut)
    zero = await shop.store.put_bytes(compress(nothing).encode())
    said["empty"] = await shop.show("empty", shared, plain["empty"], None, payload=zero)
    statements = {**{name: one.encode() for name, one in said.items()}, "garbage": b"\x00 no statement"}
    await shop.store.put_bytes(statements["garbage"])
    await _judge(world, shop, statements, earlier)


def _sends_something_else(shop: Shop, shared: Shared, nothing: Floats) -> Trained:
    """Honest training, a payload of its own choice, and a buffer that makes the sum right."""
    honest = shop.train("unlike", shared, nothing)
    total = accumulate(honest.after, honest.contribution.dense(), 1.0)
    sent = compress(np.random.default_rng(0).standard_normal(len(total)).astype(np.float32) * np.abs(total).mean())
    return Trained(sent, remainder(total, sent), honest.digests, honest.losses)


async def _judge(world: World, shop: Shop, statements: Mapping[str, bytes], earlier: Statement) -> None:
    """As a validator does it, everybody audited."""
    recipe, shared = world.recipe, world.shared
    names = {HOTKEYS[name].ss58: name for name in statements}
    shown, size = {}, len(shared.vector)
    for hotkey, name in names.items():
        cid = Manifest.of(statements[name]).cid
        world.chain.texts[hotkey] = Committed((TrainCommitment(1, cid).encode(), LOCATION), COMMITTED_IN)
        payload = Statement.parse(statements[name]).payload if name != "garbage" else None
        shown[hotkey] = Shown(statements[name], await _read(world, payload) if payload else b"")
    due_of = {
        hotkey: Due(1, shared.root, size, recipe, earlier if name == "alice" else None)
        for hotkey, name in names.items()
    }
    reveal = window_seed(bytes.fromhex(world.source().reveal), 1)
    forms = judge_forms(due_of, shown, compared_chunks(reveal, size))
    for hotkey, name in names.items():
        promised = Promised(list(names).index(hotkey), Manifest.of(statements[name]).cid, LOCATION, COMMITTED_IN)
        verdict, opening, like = forms.verdicts.get(hotkey), None, None
        if verdict is None:
            opening = await _opening(world, name, forms.statements[hotkey])
            verdict = _audited(shop, shared, name, due_of[hotkey], forms.statements[hotkey], forms, opening)
        if verdict.reason is Reason.COPY:
            (other,) = forms.alike[hotkey]
            like = (other, Promised(0, Manifest.of(shown[other].statement).cid, LOCATION, COMMITTED_IN), shown[other])
        world.cases[name] = Case(promised, shown[hotkey], due_of[hotkey], verdict, opening, like)


def _audited(shop: Shop, shared: Shared, name: str, due: Due, said: Statement, forms: Any, opening: Opening) -> Verdict:
    opened = read_opened(due.size, opening.before, opening.after)
    if isinstance(opened, Verdict):
        return opened
    hotkey = HOTKEYS[name].ss58
    batches, contribution = shop.batches(name, 1), forms.contributions[hotkey]
    verdict = audit(shop.trainer, shared.vector, batches, due, said, contribution, opened)
    return among_alike(verdict, forms.alike.get(hotkey, ()))


async def _opening(world: World, name: str, said: Statement) -> Opening:
    size = 4 * len(world.shared.vector)
    before = await _read(world, said.before) if said.before else bytes(size)
    signed = answer(Manifest.of(said.encode()).cid, 1, HOTKEYS[name])
    return Opening(signed, before, await _read(world, said.after), empty=said.before is None)


async def _read(world: World, cid: str) -> bytes:
    async with Peers(world.store) as peers:
        return await peers.fetch(cid, [], 2**24)


def reject(reason: Reason, **numbers: float) -> Verdict:
    return Verdict(Outcome.REJECT, reason, "", numbers)
