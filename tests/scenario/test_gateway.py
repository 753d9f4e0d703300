"""`touchstone gateway` from its settings to its end: a real chain, a wallet on disk, a real miner, OpenAI's client."""

import asyncio
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import openai
import pytest

from localnet.net import Localnet
from neurons.gateway import serve
from protocol.inference import INFERENCE_GENERATE
from template.chain import Chain
from template.errors import TemplateError
from template.gateway.access import GatewayExposed
from template.inference.engine import ContinuousBatchingEngine, EngineSettings
from template.inference.models import load_model
from template.inference.service import GenerateService
from template.inference.sources import ModelSettings
from template.keys import Hotkey, create_wallet
from template.ledger import Ledger
from template.limits import StakePolicy
from template.operations import Operator
from template.server import SynapseServer
from template.settings import GatewaySettings
from tests.support.gateway import eventually
from tests.support.inference import write_tiny_model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127/8 on loopback")

ALICE, MINER = Hotkey.from_uri("//Alice"), Hotkey.from_uri("//miner")
IP = "127.0.0.2"


async def health(port: int) -> dict[str, Any]:
    def read() -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            return dict(json.load(error))
        except OSError:
            return {}

    return await asyncio.to_thread(read)


async def until_health(port: int, key: str, value: object) -> dict[str, Any]:
    for _ in range(1200):
        found = await health(port)
        if found.get(key) == value:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"{key} did not become {value!r}: {found}")


async def test_a_gateway_beside_a_validator(
    localnet: Localnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setenv("TOUCHSTONE_CACHE", str(tmp_path / "cache"))
    origin = write_tiny_model(tmp_path / "origin")
    wallet = create_wallet("vali", path=tmp_path, password=False)
    validator = Hotkey.load("vali", "default", tmp_path)
    settings = GatewaySettings(
        network=localnet.url,
        netuid=2,
        wallet="vali",
        wallet_path=tmp_path,
        data_dir=tmp_path / "data",
        model_source="path",
        model_name=str(origin),
        port=unused_tcp_port,
        metagraph_refresh=0.2,
        deadline=20.0,
    )
    async with Chain(localnet.url) as chain:
        alice = Operator(chain, ALICE.keypair)
        netuid = await alice.create_subnet(Hotkey.from_uri("//owner").ss58)
        await alice.admin("sudo_set_admin_freeze_window", {"window": 0})
        await alice.tune(netuid, {"tempo": 10, "serving_rate_limit": 0})
        for hotkey in (validator, MINER):
            await alice.register(netuid, hotkey.ss58)
        await alice.stake(netuid, validator.ss58, 500.0)
        settings = settings.model_copy(update={"netuid": netuid})

        with pytest.raises(GatewayExposed):
            await serve(settings.model_copy(update={"host": "0.0.0.0"}), asyncio.Event())

        stop = asyncio.Event()
        running = asyncio.create_task(serve(settings, stop))
        try:
            found = await until_health(unused_tcp_port, "registered", True)
            assert found["ok"] is False and found["validator_permit"] is False and found["miners"] == 0
            with pytest.raises(TemplateError, match="another gateway process"):
                await serve(settings.model_copy(update={"port": 0}), asyncio.Event())

            await localnet.mine_epoch(netuid)
            loaded = await asyncio.to_thread(load_model, ModelSettings(source="path", name=str(origin)))
            graph = await chain.metagraph(netuid)
            async with ContinuousBatchingEngine(loaded, EngineSettings()) as engine:
                server = SynapseServer(MINER, policy=StakePolicy(lambda: graph), host=IP)
                server.attach_stream(INFERENCE_GENERATE, GenerateService(engine, loaded.identity, MINER.ss58))
                async with server:
                    await chain.serve_axon(netuid, MINER, IP, server.port)
                    await until_health(unused_tcp_port, "ok", True)
                    url = f"http://127.0.0.1:{unused_tcp_port}/v1"
                    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as api:
                        model = (await api.models.list()).data[0].id
                        answer: Any = await api.completions.create(model=model, prompt="hello", max_tokens=12)
            assert answer.touchstone["miner"] == MINER.ss58 and answer.touchstone["audited"] == "pending"
            with Ledger(settings.ledger_path) as ledger:  # the validator beside it
                entry = ledger.entry(answer.touchstone["challenge"])
                assert entry.challenge.validator == validator.ss58 == wallet.hotkey.ss58_address
                assert entry.challenge.block_hash != "0x" + "00" * 32
                await eventually(lambda: len(ledger.take_organic(0)) == 1, "the audit's verdict")
        finally:
            stop.set()
            await asyncio.wait_for(running, 30.0)
        assert await health(unused_tcp_port) == {}
