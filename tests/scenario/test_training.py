"""A model grown by strangers on a real chain and a real S3 server: each neuron is a process, and every phase kills two.

In each of six windows one miner and one validator end by `kill -9`, each time in another phase, and are started again
at once. That may cost a killed miner one window, and nobody else any; the models of all validators stay the same, the
loss falls, validators' weights for training are on chain, and the public record leads to the model that it names.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from processes import Household

from localnet.net import Localnet
from neurons.train_history import replay, status
from neurons.train_start import Start, commit, prepare
from neurons.wallets import create_wallet
from protocol.training.recipe import Recipe
from protocol.training.records import WindowRecord
from protocol.training.windows import Phase
from template.artifacts.opening import open_store
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
BLOCK_TIME = 0.25  # seconds
STARTING_BLOCK_TIME = 3.0  # while neurons start: that takes a phase or two of these windows, and nothing of a real one
WORDS = Path(__file__).read_text().split()  # any prose will do
CHANGES = (
    ("architecture.hidden_size", "32"), ("architecture.intermediate_size", "64"),
    ("architecture.num_hidden_layers", "1"), ("architecture.num_attention_heads", "2"),
    ("architecture.num_key_value_heads", "2"), ("tasks.steps", "12"), ("tasks.batch", "4"), ("tasks.length", "32"),
    ("tasks.shards", "2"), ("inner.peak", "0.01"), ("inner.warmup", "4"), ("checkpoint_every", "2"),
    ("alike_from", "0.9"), ("clock.assign", "3"), ("clock.train", "25"), ("clock.commit", "6"), ("clock.reveal", "8"),
    ("clock.score", "20"), ("clock.aggregate", "8"),
)  # fmt: skip


def texts() -> list[str]:
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, weights=range(len(WORDS), 0, -1), k=60)) + "." for _ in range(400)]


@dataclass
class World:
    net: Localnet
    chain: Chain
    netuid: int
    home: Path
    s3: S3Server
    recipe: Recipe

    keys: dict[str, Hotkey]

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
        Aim("words", train(documents, 300), shard_tokens=1500, validation=0.1), mixed(documents), home / "words", print
    )
    with s3_server(home / "s3") as s3:
        for name in names:
            s3.make_bucket(name)
        async with Localnet(mining="interval", block_time=BLOCK_TIME) as net, Chain(net.url) as chain:
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


async def up(w: World, house: Household, names: Iterable[str]) -> None:
    """Until neurons that were just started know the recipe; the chain's time runs slowly meanwhile."""
    w.net.miner.block_time = STARTING_BLOCK_TIME
    async with asyncio.timeout(120):
        while not all("neurons.training: recipe" in house.children[name].log.read_text() for name in names):
            check(house)
            await asyncio.sleep(0.1)
    w.net.miner.block_time = BLOCK_TIME


async def kill_in_every_phase(w: World, house: Household) -> None:
    """Kill a miner and a validator in a phase of each window, and start them again."""
    view = WindowView(w.chain, w.netuid, w.recipe.clock.schedule)
    for window, phase in enumerate(KILLS):
        while (now := await view.now()) is None or (now.window, now.phase) != (window, phase):
            assert now is None or now.window <= window, f"window {window} passed without {phase}"
            check(house)
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.4)  # into the phase
        killed = (MINERS[window % 3], tuple(VALIDATORS)[window % 3])
        for name in killed:
            process = house.children[name].process
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            house.stop([name])
            w.start(house, name)
        await up(w, house, killed)


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


@pytest.mark.timeout(420)
async def test_strangers_grow_a_model_whoever_is_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join((str(REPO), os.environ.get("PYTHONPATH", "")))}
    async with world(tmp_path) as w:
        with Household(tmp_path / "logs", environment) as house:
            for name in (*MINERS, *VALIDATORS):
                w.start(house, name)
            await up(w, house, house.children)
            await kill_in_every_phase(w, house)
            found = await records(w, tmp_path / "records", LAST)
            check(house)
            capsys.readouterr()
            assert await replay(w.net.url, w.netuid, tmp_path / "replay", as_json=True) == 0
        graph = await w.chain.metagraph(w.netuid)
        miners = {graph.by_hotkey[w.keys[name].ss58].uid for name in MINERS}
        for name in VALIDATORS:
            uid = graph.by_hotkey[w.keys[name].ss58].uid
            weights = await w.chain.weights_of(w.netuid, uid, mechanism=1)
            assert weights and {uid for uid, share in weights.items() if share > 0} <= miners, (name, weights)
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
        (path,) = (tmp_path / "data" / f"{name}.default" / "training").glob("*/ledger.sqlite")
        with TrainLedger(path) as ledger:
            ledgers[name] = {row.window: row for row in ledger.windows()}
            assert all(row.outcome != "reject" for window in ledgers[name] for row in ledger.rows(window)), name
    roots = {record.window: record.root for record in found}
    for name, rows in ledgers.items():
        assert {window: rows[window].root for window in rows if window in roots}.items() <= roots.items(), name
    losses = [row.loss for row in ledgers["validator-a"].values() if row.loss is not None]
    assert losses[-1] < losses[0], losses
    assert told["windows"] >= LAST + 1 and told["root"] in roots.values(), told

    (path,) = (tmp_path / "data" / "validator-a.default" / "training").glob("*/ledger.sqlite")
    assert await status(path, tmp_path, last=5, as_json=True) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["windows"]) >= LAST and len(shown["ratings"]) == 3
