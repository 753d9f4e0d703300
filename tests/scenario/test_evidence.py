"""A second validator asks the first, over HTTP, for the evidence of a verdict, and recomputes it."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from localnet.net import Localnet
from neurons.axon import Publisher
from neurons.evidence import Means, Peer, Query, evidence
from neurons.joining import Checking, Joined
from neurons.metrics import ValidatorMetrics
from neurons.models import CommittedModel
from neurons.runtime import ChainWatch, Stopped
from neurons.validator import Validator, evidence_server, validate
from protocol import scoring
from protocol.inference import INFERENCE_GENERATE
from protocol.metagraph import EVIDENCE_ONLY, HTTP
from template.chain import Chain
from template.client import SynapseClient, Target
from template.errors import CallFailed
from template.evidence import EvidenceUnavailable, ask_list
from template.inference import calibrations
from template.inference.engine import ContinuousBatchingEngine, EngineSettings
from template.inference.models import LoadedModel, load_model
from template.inference.service import GenerateService
from template.inference.sources import ModelSettings
from template.inference.verifier import Verifier
from template.keys import Hotkey, create_wallet
from template.ledger import Ledger
from template.limits import StakePolicy
from template.operations import Operator
from template.ops import Ops
from template.server import SynapseServer
from template.settings import ValidatorSettings
from template.state import read_secret
from tests.adversary import cheats
from tests.support.inference import write_tiny_model
from tests.support.plans import calibration_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127/8 on loopback")

ALICE = Hotkey.from_uri("//Alice")
FIRST = Hotkey.from_uri("//validator")
HONEST = Hotkey.from_uri("//honest")
CHEAT = Hotkey.from_uri("//cheat")
IP = "127.0.0.2"


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "origin")


@pytest.fixture
def loaded(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    """The model, with thresholds for it on this machine."""
    monkeypatch.setenv("TOUCHSTONE_CACHE", str(tmp_path / "cache"))
    found = load_model(ModelSettings(source="path", name=str(origin), cache=tmp_path / "cache"))
    calibrations.write(
        calibrations.own_folder() / calibrations.file_name(found.identity), calibration_of(found.identity)
    )
    return found


async def subnet(chain: Chain, *hotkeys: str, staked: tuple[str, ...]) -> int:
    alice = Operator(chain, ALICE.keypair)
    netuid = await alice.create_subnet(Hotkey.from_uri("//owner").ss58)
    await alice.admin("sudo_set_admin_freeze_window", {"window": 0})
    await alice.tune(netuid, {"tempo": 10, "weights_rate_limit": 0, "serving_rate_limit": 0, "commit_reveal": False})
    for hotkey in hotkeys:
        await alice.register(netuid, hotkey)
    for hotkey in staked:
        await alice.stake(netuid, hotkey, 500.0)
    return netuid


@contextlib.asynccontextmanager
async def mining(chain: Chain, netuid: int, loaded: LoadedModel) -> AsyncIterator[None]:
    """An honest and a cheating miner, serving and published."""
    graph = await chain.metagraph(netuid)
    async with contextlib.AsyncExitStack() as stack:
        engine = await stack.enter_async_context(ContinuousBatchingEngine(loaded, EngineSettings()))
        handlers = {
            HONEST: GenerateService(engine, loaded.identity, HONEST.ss58),
            CHEAT: cheats.make("canned", cheats.Kitchen(engine, loaded, CHEAT.ss58)),
        }
        for hotkey, handler in handlers.items():
            server = SynapseServer(hotkey, policy=StakePolicy(lambda: graph), host=IP)
            server.attach_stream(INFERENCE_GENERATE, handler)
            await stack.enter_async_context(server)
            await chain.serve_axon(netuid, hotkey, IP, server.port)
        yield


@contextlib.asynccontextmanager
async def validating(chain: Chain, netuid: int, loaded: LoadedModel, home: Path) -> AsyncIterator[Validator]:
    """The first validator, its evidence served and published."""
    settings = ValidatorSettings(
        network=chain.network, netuid=netuid, deadline=5.0, min_tokens=32, max_tokens=32, prompts="short",
        data_dir=home, host=IP, port=0,
    )  # fmt: skip
    settings.state_dir.mkdir(parents=True)
    watch = ChainWatch(chain, netuid, FIRST.ss58)
    joined = Joined(FIRST, chain, watch, CommittedModel(watch))
    graph = await watch.update()
    verifier = Verifier(loaded)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(verifier.close)
        ledger = stack.enter_context(Ledger(settings.state_dir / "ledger.sqlite"))
        client = await stack.enter_async_context(SynapseClient(FIRST, allow_local=True))
        server = await stack.enter_async_context(evidence_server(settings, joined, ledger, Ops()))
        await Publisher(chain, netuid, FIRST, server.port, protocol=EVIDENCE_ONLY).check(graph)
        checking = Checking(loaded, verifier, calibration_of(loaded.identity), client, read_secret(home / "secret"))
        yield Validator(settings, joined, checking, ledger, ValidatorMetrics(CollectorRegistry()))


def wallet(name: str, home: Path) -> str:
    create_wallet(name, path=home, password=False)
    return Hotkey.load(name, path=home).ss58


async def ask(peer: Peer, query: Query, capsys: pytest.CaptureFixture[str], **options: Any) -> tuple[int, Any]:
    given = {"ledgers": None, "data_dir": Path("/nonexistent"), "out": None, "recompute": None, **options}
    capsys.readouterr()
    code = await evidence(query, peer=peer, as_json=True, **given)
    return code, json.loads(capsys.readouterr().out)


async def test_a_verdict_is_disputed_over_the_network(
    localnet: Localnet, loaded: LoadedModel, origin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second, stranger = wallet("second", tmp_path / "wallets"), wallet("stranger", tmp_path / "wallets")
    async with Chain(localnet.url) as chain:
        netuid = await subnet(chain, FIRST.ss58, HONEST.ss58, CHEAT.ss58, second, stranger, staked=(FIRST.ss58, second))
        await localnet.mine_epoch(netuid)
        async with mining(chain, netuid, loaded), validating(chain, netuid, loaded, tmp_path / "first") as first:
            graph = await first.joined.watch.update()
            me = graph.by_hotkey[FIRST.ss58]
            assert me.is_serving and me.protocol == EVIDENCE_ONLY and not me.serves_work
            assert graph.by_hotkey[HONEST.ss58].protocol == HTTP
            asked = {challenge.miner for challenge in (await _plan(first)).values()}
            assert asked == {HONEST.ss58, CHEAT.ss58}, "a validator was asked for inference"
            assert scoring.absent(graph, {FIRST.ss58: scoring.ScoreState(FIRST.ss58, score=0.5)}).count(FIRST.ss58)
            assert await first.round() is True

            peer = Peer(FIRST.ss58, localnet.url, netuid, "second", "default", tmp_path / "wallets")
            means = Means({"model_source": "path", "model_name": str(origin)}, localnet.url, tmp_path)
            for miner, outcome in ((CHEAT, "reject"), (HONEST, "accept")):
                code, listed = await ask(peer, Query(miner=miner.ss58), capsys)
                assert code == 0 and [row["outcome"] for row in listed["evidence"]] == [outcome]
                out = tmp_path / f"{outcome}.json"
                code, report = await ask(
                    peer, Query(miner=miner.ss58, outcome=outcome), capsys, recompute=means, out=out
                )
                assert code == 0 and report["finding"] == "agrees" and report["validator"] == FIRST.ss58
                assert report["claimed"]["outcome"] == report["recomputed"]["outcome"] == outcome
                assert report["digest"] == listed["evidence"][0]["digest"] and out.stat().st_size > 1000
            code, listed = await ask(peer, Query(miner=HONEST.ss58, outcome="reject"), capsys)
            assert listed["evidence"] == []
            with pytest.raises(EvidenceUnavailable, match="no evidence"):
                await ask(peer, Query(digest="ab" * 32), capsys)

            unpermitted = Peer(FIRST.ss58, localnet.url, netuid, "stranger", "default", tmp_path / "wallets")
            with pytest.raises(CallFailed, match="permit"):
                await ask(unpermitted, Query(miner=CHEAT.ss58), capsys)
            silent = Peer(second, localnet.url, netuid, "second", "default", tmp_path / "wallets")
            with pytest.raises(EvidenceUnavailable, match="serves nothing"):
                await ask(silent, Query(miner=CHEAT.ss58), capsys)


async def test_a_validator_that_is_given_a_port_publishes_it_for_evidence_alone(
    localnet: Localnet, loaded: LoadedModel, origin: Path, tmp_path: Path
) -> None:
    first, second = (wallet(name, tmp_path / "wallets") for name in ("first", "second"))
    asking = Hotkey.load("second", path=tmp_path / "wallets")
    async with Chain(localnet.url) as chain:
        netuid = await subnet(chain, first, second, staked=(first, second))
        await localnet.mine_epoch(netuid)
        settings = ValidatorSettings(
            network=localnet.url, netuid=netuid, wallet="first", wallet_path=tmp_path / "wallets",
            data_dir=tmp_path / "data", host=IP, port=0, model_source="path", model_name=str(origin),
        )  # fmt: skip
        stop = asyncio.Event()
        life = asyncio.ensure_future(validate(settings, stop))
        try:
            async with SynapseClient(asking, allow_local=True) as client:
                neuron = (await chain.metagraph(netuid)).by_hotkey[first]
                for _ in range(600):
                    if neuron.is_serving or life.done():
                        break
                    await asyncio.sleep(0.1)
                    neuron = (await chain.metagraph(netuid)).by_hotkey[first]
                assert neuron.protocol == EVIDENCE_ONLY and neuron.ip == IP and not neuron.serves_work
                assert await ask_list(client, Target.of(neuron), HONEST.ss58) == ()
        finally:
            stop.set()
            with contextlib.suppress(Stopped):
                await asyncio.wait_for(life, 60)


async def _plan(validator: Validator) -> dict[Any, Any]:
    """What another validator with the same eyes would ask: nobody asks itself, so the plan is made for a stranger."""
    eyes = Hotkey.from_uri("//eyes")
    other = replace(validator, joined=replace(validator.joined, hotkey=eyes))
    return other.plan(validator.joined.watch.metagraph, 10_000)
