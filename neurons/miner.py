"""A miner: serves the model to the subnet's validators.

    python neurons/miner.py --netuid 2 --wallet mine        (same as `touchstone miner ...`)

Reads its hotkey, waits for the chain, checks the registration, loads the model, serves `inference_generate` with every
limit on, and publishes its address when the chain holds another one. /health and /metrics are on the same port (in
full to loopback only). SIGTERM lets requests in work finish, within the server's drain time.

What is served is an `Offer`: a context manager that yields the handler. `serve_model` is the miner's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import Gauge

from neurons import models
from neurons.runtime import ChainWatch, in_thread, load_hotkey, own_address, run, until
from protocol.generation import INFERENCE_GENERATE
from protocol.metagraph import Metagraph
from template.chain import Chain, ChainRefused
from template.keys import Hotkey
from template.limits import Limits, ReplayStore, StakePolicy
from template.ops import Ops
from template.server import StreamHandler, SynapseServer
from template.settings import MinerSettings
from template.state import claimed

if TYPE_CHECKING:
    from template.inference.engine import ContinuousBatchingEngine

log = logging.getLogger(__name__)

Offer = Callable[[MinerSettings, Hotkey, Ops], AbstractAsyncContextManager[StreamHandler]]


def start(settings: MinerSettings, offer: Offer | None = None) -> int:
    """Run until SIGTERM or SIGINT; the exit status."""
    return run(lambda stop: serve(settings, stop, offer or serve_model), level=settings.log_level)


async def serve(settings: MinerSettings, stop: asyncio.Event, offer: Offer) -> None:
    """The miner's life. Raises TemplateError when it cannot start."""
    hotkey = load_hotkey(settings)
    async with Chain(settings.network, timeout=settings.chain_timeout) as chain:
        watch = ChainWatch(chain, settings.netuid, hotkey.ss58, settings.metagraph_refresh)
        uid = await until(stop, watch.start(settings.wallet, settings.hotkey))
        log.info("hotkey %s has uid %d on subnet %d of %s", hotkey.ss58, uid, settings.netuid, settings.network)
        ops = Ops(watch.health)
        async with contextlib.AsyncExitStack() as stack:
            genesis = await until(stop, chain.block_hash(0))
            stack.enter_context(claimed(settings.state_dir, "miner", genesis, settings.netuid, hotkey.ss58))
            handler = await until(stop, stack.enter_async_context(offer(settings, hotkey, ops)))
            server = _server(settings, hotkey, watch, ops)
            server.attach_stream(INFERENCE_GENERATE, handler)
            await stack.enter_async_context(server)
            log.info("serving %s on %s:%d", INFERENCE_GENERATE.route, settings.host, server.port)
            await watch.run(stop, _Publisher(chain, settings, hotkey, server).check)


@asynccontextmanager
async def serve_model(settings: MinerSettings, hotkey: Hotkey, ops: Ops) -> AsyncIterator[StreamHandler]:
    """The miner's own offer: the model, all requests in one running batch."""
    from template.inference.engine import ContinuousBatchingEngine, EngineSettings
    from template.inference.service import GenerateService

    loaded = await in_thread(lambda: models.load(settings))
    log.info("model %s, root %s", loaded.identity.name, loaded.identity.root)
    engine_settings = EngineSettings(
        max_batch=settings.max_batch, max_queue=settings.max_queue, threads=models.thread_count(settings)
    )
    async with ContinuousBatchingEngine(loaded, engine_settings) as engine:
        _engine_metrics(ops, engine)
        yield GenerateService(engine, loaded.identity, hotkey.ss58)


def _server(settings: MinerSettings, hotkey: Hotkey, watch: ChainWatch, ops: Ops) -> SynapseServer:
    # No caller may fill the batch and its queue: whoever holds a permit could make this miner busy for all others.
    limits = Limits(concurrency_per_hotkey=max(2, settings.max_batch // 2))
    return SynapseServer(
        hotkey,
        policy=StakePolicy(lambda: watch.metagraph, min_stake=settings.min_validator_stake),
        limits=limits,
        replay=ReplayStore(retention=limits.max_age + limits.allowed_skew, path=settings.state_dir / "nonces"),
        ops=ops,
        host=settings.host,
        port=settings.port,
    )


@dataclass
class _Publisher:
    """Keeps the chain's record of our address true; the serving rate limit may make it wait."""

    chain: Chain
    settings: MinerSettings
    hotkey: Hotkey
    server: SynapseServer

    async def check(self, graph: Metagraph) -> None:
        me = graph.by_hotkey.get(self.hotkey.ss58)
        ip = self.settings.external_ip or own_address(self.chain)
        port = self.settings.external_port or self.server.port
        if me is None or (me.ip, me.port) == (ip, port):
            return
        try:
            if await self.chain.serve_axon(self.settings.netuid, self.hotkey, ip, port):
                log.info("published %s:%d on chain", ip, port)
        except ChainRefused as error:
            log.warning("the chain did not take our address %s:%d yet, trying again: %s", ip, port, error)


def _engine_metrics(ops: Ops, engine: ContinuousBatchingEngine) -> None:
    """Gauges that read the engine's own counts whenever they are scraped."""
    for name, text in (
        ("active", "Requests in the batch."),
        ("waiting", "Requests waiting for a place."),
        ("finished", "Requests finished since the start."),
        ("tokens", "Tokens generated since the start."),
        ("busy_s", "Seconds of model work since the start."),
    ):
        gauge = Gauge(f"touchstone_engine_{name}", text, registry=ops.registry)
        gauge.set_function(lambda name=name: float(getattr(engine.stats(), name)))


if __name__ == "__main__":
    from neurons.cli import run_command

    run_command("miner")
