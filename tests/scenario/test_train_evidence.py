"""A miner that does half of its training is rejected on a real chain; another validator asks for the evidence, and
whoever has it recomputes the verdict from the buckets of those who took part.

The chain's blocks are made here, each phase when everybody is done with the one before: no clock decides. Their
time is the main network's all the same: a validator's patience with a miner is a share of what is left of a phase.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from localnet.net import Localnet
from neurons.evidence import Means, Peer, Query, evidence, verify
from neurons.train_miner import TrainMiner, mine
from neurons.train_start import Start, commit, prepare
from neurons.train_validator import validate
from neurons.wallets import create_wallet
from protocol.training.recipe import Recipe
from protocol.training.statement import COMMITMENT_PREFIX
from protocol.training.windows import Phase
from template.artifacts.errors import ArtifactError
from template.artifacts.opening import open_store
from template.artifacts.store import ArtifactLimits
from template.chain import Chain
from template.keys import Hotkey
from template.operations import Operator
from template.settings import TrainMinerSettings, TrainValidatorSettings
from template.training.building import Aim, build
from template.training.chain_view import WindowView
from template.training.ledger import TrainLedger
from template.training.texts import mixed
from template.training.tokens import train
from tests.adversary.trainers import ATTACKS
from tests.support.s3 import S3Server, s3_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127/8 on loopback")

Life = list[asyncio.Task[None]]
ALICE = Hotkey.from_uri("//Alice")
NAMES = ("owner", "honest", "cheat", "first", "second")
IP = "127.0.0.2"
PATIENCE = 120.0  # seconds for everybody to be done with a phase
WORDS = Path(__file__).read_text().split()  # any prose will do
CHANGES = (
    ("architecture.hidden_size", "32"), ("architecture.intermediate_size", "64"),
    ("architecture.num_hidden_layers", "1"), ("architecture.num_attention_heads", "2"),
    ("architecture.num_key_value_heads", "2"), ("tasks.steps", "12"), ("tasks.batch", "4"), ("tasks.length", "32"),
    ("tasks.shards", "2"), ("inner.peak", "0.01"), ("inner.warmup", "4"), ("alike_from", "0.9"),
    ("clock.assign", "2"), ("clock.train", "4"), ("clock.commit", "20"), ("clock.reveal", "4"), ("clock.score", "60"),
    ("clock.aggregate", "20"),
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

    def settings(self, kind: Any, name: str, **more: Any) -> Any:
        where = self.s3.location(name).encode()
        return kind(
            network=self.net.url, netuid=self.netuid, wallet=name, wallet_path=self.home / "wallets",
            data_dir=self.home / "data", artifacts=where, published=where, threads=1, chain_poll=0.3,
            metagraph_refresh=600.0,  # a validator looks again before it asks miners
            host=IP, port=0, **more,
        )  # fmt: skip


@contextlib.asynccontextmanager
async def world(home: Path) -> AsyncIterator[World]:
    (home / "s3").mkdir()
    for name in NAMES:
        create_wallet(name, path=home / "wallets", password=False)
    keys = {name: Hotkey.load(name, path=home / "wallets") for name in NAMES}
    rng = random.Random(0)
    documents = [" ".join(rng.choices(WORDS, weights=range(len(WORDS), 0, -1), k=60)) + "." for _ in range(200)]
    aim = Aim("words", train(documents, 300), shard_tokens=3000, validation=0.1)
    await build(aim, mixed(documents), home / "words", lambda text: None)
    with s3_server(home / "s3") as s3:
        for name in NAMES:
            s3.make_bucket(name)
        async with Localnet(mining="instant", profile="mainnet") as net, Chain(net.url) as chain:
            alice = Operator(chain, ALICE.keypair)
            netuid = await alice.create_subnet(keys["owner"].ss58)
            await alice.admin("sudo_set_admin_freeze_window", {"window": 0})
            await alice.tune(netuid, {"tempo": 20, "serving_rate_limit": 0, "commit_reveal": False})
            for name in NAMES[1:]:
                await alice.register(netuid, keys[name].ss58)
            await alice.stake(netuid, keys["first"].ss58, 500.0)
            await alice.stake(netuid, keys["second"].ss58, 300.0)
            await net.mine_epoch(netuid)
            location = s3.location("owner").encode()
            async with open_store(location, allow_local=True) as store:
                given = Start(home / "words", changes=CHANGES)
                recipe, cid = await prepare(given, await chain.block() + 50, store)
                await commit(chain, netuid, keys["owner"], cid, location)
            yield World(net, netuid, home, s3, keys, chain, recipe)


@contextlib.asynccontextmanager
async def living(w: World, first: TrainValidatorSettings) -> AsyncIterator[Life]:
    stop = asyncio.Event()
    half = partial(TrainMiner, make=ATTACKS["half the steps"].armed())
    life = [
        asyncio.create_task(mine(w.settings(TrainMinerSettings, "honest"), stop)),
        asyncio.create_task(mine(w.settings(TrainMinerSettings, "cheat"), stop, half)),
        asyncio.create_task(validate(first, stop)),
    ]
    try:
        yield life
    finally:
        stop.set()
        await asyncio.gather(*life, return_exceptions=True)


async def play(w: World, folder: Path, window: int, life: Life) -> None:
    """One window, and the next model."""
    view = WindowView(w.chain, w.netuid, w.recipe.clock.schedule)

    async def reach(phase: Phase) -> None:
        missing = view.schedule.block_of(window, phase) - await w.chain.block()
        assert missing >= 0, f"the chain is {-missing} blocks past {phase} of window {window}"
        await w.net.mine(missing)

    async def promised() -> bool:
        texts = [held.find(COMMITMENT_PREFIX) or "" for held in (await w.chain.commitments(w.netuid)).values()]
        return sum(f":{window}:" in text for text in texts) == 2

    async def shown() -> bool:
        due = await view.due(window)
        for promise in due.values():
            async with open_store(promise.location, allow_local=True) as store:
                with contextlib.suppress(ArtifactError):
                    await store.read(promise.statement, ArtifactLimits(4096, 30.0))
                    continue
            return False
        return len(due) == 2

    def judged() -> bool:
        return len([row for ledger in ledgers(folder) for row in ledger.list_evidence() if row.round == window]) == 2

    def over() -> bool:
        return any(ledger.last_window() == window for ledger in ledgers(folder))

    async def serving() -> bool:
        graph = await w.chain.metagraph(w.netuid)
        return all(graph.by_hotkey[w.keys[name].ss58].is_serving for name in ("honest", "cheat"))

    await until("the address of both miners", serving, life)
    await reach(Phase.TRAIN)
    await until(f"both miners' commitments of window {window}", promised, life)
    await reach(Phase.REVEAL)
    await until(f"both statements of window {window}", shown, life)
    await reach(Phase.SCORE)
    await until(f"evidence of both verdicts on window {window}", judged, life)
    await reach(Phase.AGGREGATE)
    await until(f"the end of window {window} in the validator's ledger", over, life)


def ledgers(folder: Path) -> Iterator[TrainLedger]:
    for file in folder.glob("training/*/ledger.sqlite"):
        with TrainLedger(file) as ledger:
            yield ledger


async def until(what: str, done: Callable[[], Awaitable[bool] | bool], life: Life) -> None:
    given_up = time.monotonic() + PATIENCE
    while True:
        for task in life:
            if task.done():
                task.result()
        found = done()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < given_up, f"{what} did not come in {PATIENCE:.0f} s"
        await asyncio.sleep(0.1)


@pytest.mark.timeout(400)
async def test_a_rejected_window_is_recomputed_by_another_validator_and_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with world(tmp_path) as w:
        first = w.settings(TrainValidatorSettings, "first", set_weights=False, audit_floor=1.0)
        cheat, honest = w.keys["cheat"].ss58, w.keys["honest"].ss58
        means = Means({"threads": 1}, w.net.url, tmp_path / "another")
        peer = Peer(w.keys["first"].ss58, w.net.url, w.netuid, "second", "default", tmp_path / "wallets")
        files = [tmp_path / "window-0.json", tmp_path / "window-1.json"]

        async def ask(query: Query, out: Path | None, recompute: Means | None) -> tuple[int, Any]:
            capsys.readouterr()
            given: dict[str, Any] = {"ledgers": None, "data_dir": tmp_path / "none", "peer": peer, "as_json": True}
            code = await evidence(query, out=out, recompute=recompute, **given)
            return code, json.loads(capsys.readouterr().out)

        async with living(w, first) as life:
            await play(w, first.state_dir, 0, life)
            await play(w, first.state_dir, 1, life)  # its vote says what validators stand behind
            _, listed = await ask(Query(miner=cheat, outcome="reject"), None, None)
            rejects = {row["round"]: row["digest"] for row in listed["evidence"]}
            assert rejects.keys() == {0, 1}
            for window, out in enumerate(files):
                code, report = await ask(Query(digest=rejects[window]), out, means)
                assert (code, report["finding"], report["recomputed"]["reason"]) == (0, "agrees", "replay"), report
            code, report = await ask(Query(miner=honest, outcome="accept"), None, means)
            assert (code, report["finding"], report["recomputed"]["reason"]) == (0, "agrees", "ok"), report
            _, listed = await ask(Query(miner=honest, outcome="reject"), None, None)
            assert listed["evidence"] == []

        (tmp_path / "s3" / "cheat").rename(tmp_path / "gone")
        assert await verify(files[0], means, as_json=True) == 0, "the validator keeps what it rejected"
        assert json.loads(capsys.readouterr().out)["recomputed"]["numbers"]["distance"] > 1e-3
        assert await verify(files[1], means, as_json=True) == 2, "not all of it, while the miner is in its first pause"
        report = json.loads(capsys.readouterr().out)
        assert report["finding"] == "unchecked" and "cannot be had" in report["why"][0]
