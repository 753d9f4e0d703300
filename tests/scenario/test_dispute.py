"""`touchstone dispute` on a real chain: a swapped batch is found, by an own training and through a second miner."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from localnet.net import Localnet
from neurons.dispute import Asking, Subnet, Where, dispute, recheck
from neurons.train_miner import TrainMiner, mine
from neurons.train_start import Start, commit, prepare
from neurons.train_traces import Traces
from neurons.training import Training
from neurons.wallets import create_wallet
from protocol.training.assignment import Work
from protocol.training.recipe import Recipe
from protocol.training.statement import COMMITMENT_PREFIX
from protocol.training.windows import Phase
from template.artifacts.opening import open_store
from template.chain import Chain
from template.errors import TemplateError
from template.keys import Hotkey
from template.operations import Operator
from template.settings import TrainMinerSettings
from template.training.building import Aim, build
from template.training.texts import mixed
from template.training.tokens import train
from template.training.windows import Batches
from template.training.work_state import Kept, WorkState
from template.training.workbench import Workbench, honest
from tests.support.s3 import S3Server, s3_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127/8 on loopback")

ALICE = Hotkey.from_uri("//Alice")
NAMES = ("owner", "cheat", "honest", "validator")
WORDS = Path(__file__).read_text().split()  # any prose will do
CHANGES = (
    ("architecture.hidden_size", "32"), ("architecture.intermediate_size", "64"),
    ("architecture.num_hidden_layers", "1"), ("architecture.num_attention_heads", "2"),
    ("architecture.num_key_value_heads", "2"), ("tasks.steps", "12"), ("tasks.batch", "4"), ("tasks.length", "32"),
    ("tasks.shards", "2"), ("inner.warmup", "4"), ("trace_every", "1"), ("clock.train", "1000"), ("clock.commit", "8"),
    ("clock.reveal", "100"), ("clock.score", "100"),
)  # fmt: skip


@dataclass
class World:
    net: Localnet
    netuid: int
    home: Path
    s3: S3Server
    keys: dict[str, Hotkey]
    chain: Chain
    recipe: Recipe

    def settings(self, name: str) -> TrainMinerSettings:
        where = self.s3.location(name).encode()
        return TrainMinerSettings(
            network=self.net.url, netuid=self.netuid, wallet=name, wallet_path=self.home / "wallets",
            data_dir=self.home / "data", artifacts=where, published=where, threads=1, chain_poll=0.3,
            metagraph_refresh=1.0, host="127.0.0.2", port=0,
        )  # fmt: skip

    @property
    def subnet(self) -> Subnet:
        return Subnet(self.net.url, self.netuid)

    async def dispute(self, miner: str, against: str | None = None, out: Path | None = None) -> int:
        other = self.keys[against].ss58 if against else None
        asking = Asking("validator", "default", self.home / "wallets", other, patience=60.0)
        where = Where(self.home / "disputes", threads=1)
        return await dispute(self.subnet, 0, self.keys[miner].ss58, asking, where, out=out, as_json=True)


@contextlib.asynccontextmanager
async def world(home: Path) -> AsyncIterator[World]:
    (home / "s3").mkdir()
    for name in NAMES:
        create_wallet(name, path=home / "wallets", password=False)
    keys = {name: Hotkey.load(name, path=home / "wallets") for name in NAMES}
    rng = random.Random(0)
    documents = [" ".join(rng.choices(WORDS, k=60)) + "." for _ in range(200)]
    await build(
        Aim("words", train(documents, 300), shard_tokens=1500, validation=0.1), mixed(documents), home / "words", print
    )
    with s3_server(home / "s3") as s3:
        for name in NAMES:
            s3.make_bucket(name)
        async with Localnet(mining="interval", block_time=0.25) as net, Chain(net.url) as chain:
            alice = Operator(chain, ALICE.keypair)
            netuid = await alice.create_subnet(keys["owner"].ss58)
            await alice.admin("sudo_set_admin_freeze_window", {"window": 0})
            await alice.tune(netuid, {"tempo": 20, "serving_rate_limit": 0})
            for name in NAMES[1:]:
                await alice.register(netuid, keys[name].ss58)
            await alice.stake(netuid, keys["validator"].ss58, 500.0)
            await net.mine_epoch(netuid)
            location = s3.location("owner").encode()
            async with open_store(location, allow_local=True) as store:
                recipe, cid = await prepare(Start(home / "words", changes=CHANGES), await chain.block() + 16, store)
                await commit(chain, netuid, keys["owner"], cid, location)
            yield World(net, netuid, home, s3, keys, chain, recipe)


def swapped(batches: Batches) -> Batches:
    return lambda step: batches(step if step != 7 else 2)


def cheat(bench: Workbench) -> Kept:
    return honest(replace(bench, batches_of=lambda miner: swapped(bench.batches_of(miner))))


class Consistent(Traces):
    """Shows what it committed to, also where that was a cheat."""

    def _batches(self, work: Work) -> Batches:
        return swapped(super()._batches(work))


def cheating(training: Training, work: WorkState, poll: float) -> TrainMiner:
    miner = TrainMiner(training, work, poll, make=cheat)
    miner.traces = Consistent(training, work, miner.finished)
    return miner


async def until_it_is_revealed(w: World, life: list[asyncio.Task[None]]) -> None:
    """Both have committed and, when the chain has gone on to that phase, uploaded."""

    async def committed() -> bool:
        held = [await w.chain.commitment(w.netuid, w.keys[name].ss58) for name in ("honest", "cheat")]
        return all(one is not None and one.find(COMMITMENT_PREFIX) is not None for one in held)

    async def uploaded() -> bool:
        with contextlib.suppress(TemplateError):
            for name in ("honest", "cheat"):
                await w.dispute(name)
            return True
        return False

    async with asyncio.timeout(180):
        for done in (committed, uploaded):
            while not await done():
                for task in life:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.5)
            await w.net.mine_to(w.recipe.clock.schedule.block_of(0, Phase.REVEAL))


async def test_a_cheat_is_found_and_anybody_can_check_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told() -> Any:
        return json.loads(capsys.readouterr().out)

    stop, file = asyncio.Event(), tmp_path / "dispute.json"
    async with world(tmp_path) as w:
        life = [asyncio.create_task(mine(w.settings("honest"), stop))]
        life += [asyncio.create_task(mine(w.settings("cheat"), stop, cheating))]
        try:
            await until_it_is_revealed(w, life)
            capsys.readouterr()
            assert await w.dispute("honest") == 0
            found = told()
            assert (found["wrong"], found["questions"], found["cost"]["requests"]) == ("neither", 0, 0)

            assert await w.dispute("cheat", out=file) == 1
            found = told()
            assert (found["wrong"], found["steps"], found["by"]) == ("first", [7, 8], "digests"), found
            assert found["cost"]["requests"] <= 7 and found["cost"]["received"] < 10_000, found

            where = Where(tmp_path / "elsewhere", threads=1)
            assert await recheck(file, w.subnet, where, as_json=True) == 0

            capsys.readouterr()
            assert await w.dispute("cheat", against="honest") == 1
            found = told()
            assert (found["wrong"], found["steps"], found["against"]) == ("first", [7, 8], w.keys["honest"].ss58)

            assert await recheck(file, None, where, as_json=True) == 2
            changed = json.loads(file.read_bytes())
            changed["wrong"] = "neither"
            file.write_text(json.dumps(changed, sort_keys=True, separators=(",", ":")))
            assert await recheck(file, w.subnet, where, as_json=True) == 1
        finally:
            stop.set()
            await asyncio.gather(*life, return_exceptions=True)
