"""How a miner sets up its server."""

from pathlib import Path
from typing import cast

import pytest

from neurons.joining import Joined
from neurons.miner import _server, serve_model
from neurons.models import CommittedModel
from neurons.runtime import ChainWatch
from protocol.challenges import ModelIdentity
from template.chain import Chain
from template.inference.backend import EngineStopped
from template.inference.engine import ContinuousBatchingEngine
from template.inference.openai_server import EngineServer
from template.keys import Hotkey
from template.ops import Ops
from template.settings import MinerSettings
from tests.support.inference import collect, tiny_model
from tests.support.plans import plan


async def test_one_caller_can_neither_fill_the_batch_nor_its_queue(tmp_path: Path) -> None:
    settings = MinerSettings(netuid=1, data_dir=tmp_path, port=0)
    settings.state_dir.mkdir(parents=True)
    hotkey = Hotkey.from_uri("//miner")
    chain = cast(Chain, None)  # nothing is asked of it here
    watch = ChainWatch(chain, 1, hotkey.ss58)
    server = _server(settings, Joined(hotkey, chain, watch, CommittedModel(watch)), Ops())
    server.replay.close()
    assert 2 <= server.limits.concurrency_per_hotkey < settings.max_batch


class Seen(CommittedModel):
    """Takes note of what the miner wants to serve, in place of a chain."""

    identity: ModelIdentity | None = None

    async def require(self, identity: ModelIdentity) -> None:
        self.identity = identity


async def test_a_miner_serves_from_an_engine_elsewhere_and_holds_it_to_the_committed_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOUCHSTONE_ENGINE_KEY", "secret")
    loaded = tiny_model(tmp_path)
    request = plan(loaded.identity, loaded.tokenize).request
    hotkey, seen = Hotkey.from_uri("//miner"), Seen(cast(ChainWatch, None))
    async with (
        ContinuousBatchingEngine(loaded) as engine,
        EngineServer(engine, max_context=2048, key="secret") as server,
    ):
        settings = MinerSettings(netuid=1, engine_url=f"http://127.0.0.1:{server.port}")
        ops = Ops()
        async with serve_model(settings, hotkey, ops, seen) as handler:
            response, _ = await collect(handler(request, None))
            assert ops.registry.get_sample_value("touchstone_engine_finished") == 1.0
    assert seen.identity == loaded.identity
    assert 1 <= len(response.token_ids) <= request.max_tokens
    with pytest.raises(EngineStopped):
        async with serve_model(settings, hotkey, Ops(), seen):
            pass
