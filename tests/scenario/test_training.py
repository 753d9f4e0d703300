"""A model grown by strangers on a real chain: three miners and two validators, one process, a real S3 server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from localnet.net import Localnet
from neurons.train_history import replay, status
from neurons.train_miner import mine
from neurons.train_start import Start, commit, prepare
from neurons.train_validator import validate
from neurons.wallets import create_wallet
from protocol.training.recipe import Recipe
from template.artifacts.opening import open_store
from template.chain import Chain
from template.keys import Hotkey
from template.operations import Operator
from template.settings import TrainMinerSettings, TrainValidatorSettings
from template.training.building import Aim, build
from template.training.chain_view import WindowView
from template.training.ledger import TrainLedger
from template.training.texts import mixed
from template.training.tokens import train
from tests.support.s3 import S3Server, s3_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127/8 on loopback")

ALICE = Hotkey.from_uri("//Alice")
MINERS, VALIDATORS = ("miner-a", "miner-b", "miner-c"), ("validator-a", "validator-b")
WORDS = Path(__file__).read_text().split()  # any prose will do
CHANGES = (
    ("architecture.hidden_size", "32"), ("architecture.intermediate_size", "64"),
    ("architecture.num_hidden_layers", "1"), ("architecture.num_attention_heads", "2"),
    ("architecture.num_key_value_heads", "2"), ("tasks.steps", "12"), ("tasks.batch", "4"), ("tasks.length", "32"),
    ("tasks.shards", "2"), ("inner.peak", "0.01"), ("inner.warmup", "4"), ("checkpoint_every", "2"),
    ("alike_from", "0.9"), ("clock.train", "12"), ("clock.commit", "6"), ("clock.reveal", "6"), ("clock.score", "40"),
    ("clock.aggregate", "8"),
)  # fmt: skip


def texts() -> list[str]:
    import random

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

    def settings(self, kind: type, name: str, **more: object) -> object:
        bucket = name
        where = self.s3.location(bucket).encode()
        return kind(
            network=self.net.url, netuid=self.netuid, wallet=name, wallet_path=self.home / "wallets",
            data_dir=self.home / "data", artifacts=where, published=where, threads=1, chain_poll=0.3,
            metagraph_refresh=1.0, **more,
        )  # fmt: skip


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
        async with Localnet(mining="interval", block_time=0.25) as net, Chain(net.url) as chain:
            alice = Operator(chain, ALICE.keypair)
            netuid = await alice.create_subnet(keys["owner"].ss58)
            await alice.admin("sudo_set_admin_freeze_window", {"window": 0})
            await alice.tune(
                netuid, {"tempo": 20, "weights_rate_limit": 0, "serving_rate_limit": 0, "commit_reveal": False}
            )
            for name in (*MINERS, *VALIDATORS):
                await alice.register(netuid, keys[name].ss58)
            await alice.stake(netuid, keys["validator-a"].ss58, 500.0)
            await alice.stake(netuid, keys["validator-b"].ss58, 400.0)
            await net.mine_epoch(netuid)
            location = s3.location("owner").encode()
            async with open_store(location, allow_local=True) as store:
                given = Start(home / "words", changes=CHANGES)
                recipe, cid = await prepare(given, await chain.block() + 40, store)
                await commit(chain, netuid, keys["owner"], cid, location)
            yield World(net, chain, netuid, home, s3, recipe)


async def test_strangers_grow_a_model_and_everybody_can_replay_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = asyncio.Event()
    async with world(tmp_path) as w:
        miners = [w.settings(TrainMinerSettings, name, host="127.0.0.2", port=0) for name in MINERS]
        validators = [w.settings(TrainValidatorSettings, name, set_weights=False) for name in VALIDATORS]
        life = [asyncio.create_task(mine(s, stop)) for s in miners]
        life += [asyncio.create_task(validate(s, stop)) for s in validators]
        view = WindowView(w.chain, w.netuid, w.recipe.clock.schedule)
        try:
            async with asyncio.timeout(240):
                while (stands := await view.agreed()) is None or stands.window < 1:
                    for task in life:
                        if task.done():
                            task.result()
                    await asyncio.sleep(1.0)
        finally:
            stop.set()
            await asyncio.gather(*life, return_exceptions=True)
        (ledger_path,) = (validators[0].state_dir / "training").glob("*/ledger.sqlite")
        with TrainLedger(ledger_path) as ledger:
            windows, rows = ledger.windows(), ledger.rows(1)
        assert [row.window for row in windows][:2] == [0, 1]
        assert windows[-1].loss < windows[0].loss, windows
        assert windows[1].contributions >= 2, windows
        assert any(row.audited for row in rows) and all(row.outcome != "reject" for row in rows), rows

        capsys.readouterr()
        assert await replay(w.net.url, w.netuid, tmp_path / "replay", as_json=True) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["windows"] == stands.window + 1 and told["contributions"] >= 4, told
        assert await status(ledger_path, w.home, last=5, as_json=True) == 0
        told = json.loads(capsys.readouterr().out)
        assert len(told["windows"]) >= 2 and len(told["ratings"]) == 3
        assert all(row["contributed"] >= 1 for row in told["ratings"])
