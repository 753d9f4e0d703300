"""A model grown by strangers on a real chain and a real S3 server: each neuron is a process, and every phase kills two.

In each of six windows one miner and one validator end by `kill -9`, each time in another phase, and are started again
at once. That may cost a killed miner one window, and nobody else any; the models of all validators stay the same, the
loss falls, validators' weights for training are on chain, and the public record leads to the model that it names.

The chain makes a block every few seconds, whoever is alive, and goes on to the next phase at once when everybody is
done with this one: the test takes as long as the work does, and a slow machine has long phases. Blocks tell of the main
network's time, because a validator's patience with a miner is a share of what is left of a phase.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from processes import Household

from localnet.net import Localnet
from neurons.train_history import replay, status
from neurons.train_start import Start, commit, prepare
from neurons.wallets import create_wallet
from protocol.payout import payable
from protocol.training.ratings import weights
from protocol.training.recipe import Recipe
from protocol.training.records import WindowRecord
from protocol.training.statement import COMMITMENT_PREFIX, TrainCommitment
from protocol.training.votes import WORD_PREFIX, Word
from protocol.training.windows import Phase
from template.artifacts.errors import ArtifactError
from template.artifacts.opening import open_store
from template.artifacts.store import ArtifactLimits
from template.chain import Chain
from template.keys import Hotkey
from template.operations import Operator
from template.training.building import Aim, build
from template.training.chain_view import WindowView
from template.training.following import history
from template.training.ledger import TrainLedger
from template.training.peers import Peers
from template.training.texts import mixed
from template.training.tokens import train
from tests.support.s3 import S3Server, s3_server

REPO = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127/8 on loopback")

ALICE = Hotkey.from_uri("//Alice")
MINERS = ("miner-a", "miner-b", "miner-c")
VALIDATORS = {"validator-a": 400.0, "validator-b": 380.0, "validator-c": 360.0}  # TAO; two are more than half
KILLS = (Phase.COMMIT, Phase.REVEAL, Phase.SCORE, Phase.AGGREGATE, Phase.ASSIGN, Phase.TRAIN)  # of windows 0 to 5
LAST = len(KILLS)  # the window in which everybody has to be back
BLOCK_TIME = 4.0  # seconds, while somebody is not done: a neuron starts within a few blocks, as on a real chain
LOOK = 0.2  # seconds between two looks whether everybody is
WORDS = sorted({*Path(__file__).read_text().split()})  # any words will do
SUBJECTS = 12  # of the texts
CHANGES = (
    ("architecture.hidden_size", "32"), ("architecture.intermediate_size", "64"),
    ("architecture.num_hidden_layers", "1"), ("architecture.num_attention_heads", "2"),
    ("architecture.num_key_value_heads", "2"), ("tasks.steps", "12"), ("tasks.batch", "4"), ("tasks.length", "32"),
    ("tasks.shards", "2"), ("inner.peak", "0.005"), ("inner.warmup", "4"), ("checkpoint_every", "2"),
    ("alike_from", "0.9"), ("clock.assign", "3"), ("clock.train", "12"), ("clock.commit", "6"), ("clock.reveal", "8"),
    ("clock.score", "20"), ("clock.aggregate", "8"),
)  # fmt: skip


def texts() -> list[str]:
    """Prose in the order of its subjects, a sixth of the words a subject's own: so shards differ, and work on a miner's
    own data shows there the most."""
    rng = random.Random(0)
    common, own = WORDS[:200], WORDS[200 : 200 + 12 * SUBJECTS]
    documents = []
    for number in range(400):
        subject = number * SUBJECTS // 400
        words = rng.choices(common, weights=range(len(common), 0, -1), k=50)
        words += rng.choices(own[12 * subject : 12 * (subject + 1)], k=10)
        documents.append(" ".join(rng.sample(words, len(words))) + ".")
    return documents


@dataclass
class World:
    net: Localnet
    chain: Chain
    netuid: int
    home: Path
    s3: S3Server
    recipe: Recipe

    keys: dict[str, Hotkey]

    def ledger(self, name: str) -> Path:
        (path,) = (self.home / "data" / f"{name}.default" / "training").glob("*/ledger.sqlite")
        return path

    def start(self, house: Household, name: str) -> None:
        """A neuron as its operator starts it."""
        where = self.s3.location(name).encode()
        program = "train_validator" if name in VALIDATORS else "train_miner"
        command = [sys.executable, str(REPO / "neurons" / f"{program}.py"), "--network", self.net.url]
        command += ["--netuid", str(self.netuid), "--wallet", name, "--wallet-path", str(self.home / "wallets")]
        command += ["--data-dir", str(self.home / "data"), "--artifacts", where, "--published", where]
        command += ["--threads", "1", "--chain-poll", "0.3", "--metagraph-refresh", "1"]
        house.start(name, [*command, *(["--host", "127.0.0.2", "--port", "0"] if name in MINERS else [])])


@contextlib.asynccontextmanager
async def world(home: Path) -> AsyncIterator[World]:
    names = ("owner", *MINERS, *VALIDATORS)
    (home / "s3").mkdir()
    for name in names:
        create_wallet(name, path=home / "wallets", password=False)
    keys = {name: Hotkey.load(name, path=home / "wallets") for name in names}
    documents = texts()
    await build(
        Aim("words", train(documents, 300), shard_tokens=1500, validation=0.1),
        mixed(documents, together=1),  # as they come
        home / "words",
        print,
    )
    with s3_server(home / "s3") as s3:
        for name in names:
            s3.make_bucket(name)
        async with Localnet(mining="instant", profile="mainnet") as net, Chain(net.url) as chain:
            alice = Operator(chain, ALICE.keypair)
            netuid = await alice.create_subnet(keys["owner"].ss58)
            await alice.admin("sudo_set_admin_freeze_window", {"window": 0})
            await alice.tune(
                netuid, {"tempo": 20, "weights_rate_limit": 0, "serving_rate_limit": 0, "commit_reveal": False}
            )
            await alice.split_emission(netuid, (0.5, 0.5))
            for name in (*MINERS, *VALIDATORS):
                await alice.register(netuid, keys[name].ss58)
            for name, tao in VALIDATORS.items():
                await alice.stake(netuid, keys[name].ss58, tao)
            await net.mine_epoch(netuid)
            location = s3.location("owner").encode()
            async with open_store(location, allow_local=True) as store:
                given = Start(home / "words", changes=CHANGES)
                recipe, cid = await prepare(given, await chain.block() + 60, store)
                await commit(chain, netuid, keys["owner"], cid, location)
            yield World(net, chain, netuid, home, s3, recipe, keys)


async def up(house: Household, names: Iterable[str]) -> None:
    """Until neurons that were just started know the recipe."""
    async with asyncio.timeout(120):
        while not all("neurons.training: recipe" in house.children[name].log.read_text() for name in names):
            check(house)
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def ticking(net: Localnet) -> AsyncIterator[None]:
    """Blocks that wait for nobody."""

    async def tick() -> None:
        while True:
            await asyncio.sleep(BLOCK_TIME)
            await net.mine()

    task = asyncio.create_task(tick())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()


async def play(w: World, house: Household, window: int, kill: Phase | None) -> None:
    """A window, each phase as soon as everybody is done with the one before, or when that is over. In `kill` a miner
    and a validator are killed and started again."""
    view = WindowView(w.chain, w.netuid, w.recipe.clock.schedule)

    async def promised() -> bool:
        texts = [held.find(COMMITMENT_PREFIX) for held in (await w.chain.commitments(w.netuid)).values()]
        return sum(text is not None and TrainCommitment.parse(text).window == window for text in texts) == len(MINERS)

    async def shown() -> bool:
        for promise in (await view.due(window)).values():
            async with open_store(promise.location, allow_local=True) as store:
                try:
                    await store.read(promise.statement, ArtifactLimits(4096, 30.0))
                except ArtifactError:
                    return False
        return True

    async def voted() -> bool:
        held = await w.chain.commitments(w.netuid)
        said = [held.get(w.keys[name].ss58) for name in VALIDATORS]
        words = [one.find(WORD_PREFIX) if one else None for one in said]
        return all(word is not None and Word.parse(word).window == window for word in words)

    async def moved_on() -> bool:
        folders = [w.home / "data" / f"{name}.default" / "training" for name in (*MINERS, *VALIDATORS)]
        newest = f"window-{window + 1:010d}"
        return all(any(one.name >= newest for one in folder.glob("*/model/window-*")) for folder in folders)

    done = {Phase.TRAIN: promised, Phase.REVEAL: shown, Phase.SCORE: voted, Phase.AGGREGATE: moved_on}
    for phase in Phase:
        await w.net.mine_to(view.schedule.block_of(window, phase))
        if phase is kill:
            await asyncio.sleep(0.4)  # into the phase
            await strike(w, house, (MINERS[window % 3], tuple(VALIDATORS)[window % 3]))
        while phase in done and not await done[phase]():
            check(house)
            now = await view.now()
            if now is None or (now.window, now.phase) != (window, phase):
                break
            await asyncio.sleep(LOOK)


async def strike(w: World, house: Household, names: tuple[str, str]) -> None:
    """Kill them where they are, and start them again."""
    for name in names:
        process = house.children[name].process
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        house.stop([name])
        w.start(house, name)
    await up(house, names)


def check(house: Household) -> None:
    for child in house.dead():
        raise AssertionError(f"{child.name} ended by itself: " + "\n".join(house.last_words(child.name, 8)))


async def records(w: World, scratch: Path, last: int) -> list[WindowRecord]:
    """The public record, when validators stand behind window `last`."""
    view = WindowView(w.chain, w.netuid, w.recipe.clock.schedule)
    async with asyncio.timeout(120):
        while (stands := await view.agreed()) is None or stands.window < last:
            await asyncio.sleep(1.0)
    async with open_store(str(scratch)) as own, Peers(own, allow_local=True) as peers:
        return await history(stands.record, peers.fetch, stands.locations)


async def paid(w: World) -> None:
    """Until the chain holds the weights for training that each validator's ratings give. Nobody earns while luck is
    against all of them, which a few windows do not rule out: then it is the owner's, to take back what was paid."""
    graph = await w.chain.metagraph(w.netuid)
    for name in VALIDATORS:
        given_up = time.monotonic() + 60.0
        while True:
            with TrainLedger(w.ledger(name)) as ledger:
                earned = weights(ledger.states(), (ledger.last_window() or 0) + 1)
            shares = payable(earned, present=graph.by_hotkey, owner=graph.owner_hotkey, holds_weights=True)
            due = {graph.by_hotkey[hotkey].uid: share for hotkey, share in shares.items()}
            held = await w.chain.weights_of(w.netuid, graph.by_hotkey[w.keys[name].ss58].uid, mechanism=1)
            if held and all(held.get(uid, 0.0) == pytest.approx(due.get(uid, 0.0), abs=1e-3) for uid in held | due):
                break
            assert time.monotonic() < given_up, f"{name} rated {due}, and the chain holds {held}"
            await asyncio.sleep(LOOK)


@pytest.mark.timeout(600)
async def test_strangers_grow_a_model_whoever_is_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join((str(REPO), os.environ.get("PYTHONPATH", "")))}
    async with world(tmp_path) as w:
        with Household(tmp_path / "logs", environment) as house:
            for name in (*MINERS, *VALIDATORS):
                w.start(house, name)
            async with ticking(w.net):
                await up(house, house.children)
                for window in range(LAST + 2):  # votes of the last one say what became of the one before
                    await play(w, house, window, KILLS[window] if window < len(KILLS) else None)
                found = await records(w, tmp_path / "records", LAST)
                await paid(w)
            check(house)
            capsys.readouterr()
            assert await replay(w.net.url, w.netuid, tmp_path / "replay", as_json=True) == 0
        told = json.loads(capsys.readouterr().out)
    entered = {record.window: {one.miner for one in record.contributions} for record in found}
    for number, name in enumerate(MINERS):
        missed = [window for window in range(LAST + 1) if w.keys[name].ss58 not in entered[window]]
        allowed = [window for window in range(LAST) if window % 3 == number]
        for window in allowed:  # its own kills: that window, or the next when its work of that one was done
            assert len({window, window + 1} & {*missed}) <= 1, (name, missed)
        assert {*missed} <= {*allowed, *(window + 1 for window in allowed)}, (name, missed)

    ledgers = {}
    for name in VALIDATORS:
        with TrainLedger(w.ledger(name)) as ledger:
            ledgers[name] = {row.window: row for row in ledger.windows()}
            assert all(row.outcome != "reject" for window in ledgers[name] for row in ledger.rows(window)), name
    roots = {record.window: record.root for record in found}
    for name, rows in ledgers.items():
        assert {window: rows[window].root for window in rows if window in roots}.items() <= roots.items(), name
    losses = [row.loss for row in ledgers["validator-a"].values() if row.loss is not None]
    assert losses[-1] < losses[0], losses
    assert told["windows"] >= LAST + 1 and told["root"] in roots.values(), told

    assert await status(w.ledger("validator-a"), tmp_path, last=5, as_json=True) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["windows"]) >= LAST and len(shown["ratings"]) == 3
