"""A miner: serves the model to the subnet's validators.

    python neurons/miner.py --netuid 2 --wallet mine        (same as `touchstone miner ...`)

Reads its hotkey, waits for the chain, checks the registration, loads the model, refuses one that is not what the
subnet's owner committed on chain, serves `inference_generate` with every limit on, and publishes its address when the
chain holds another one. /health and /metrics are on the same port (in full to loopback only). SIGTERM lets requests in
work finish, within the server's drain time.

What is served is an `Offer`: a context manager that yields the handler. `serve_model` is the miner's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from prometheus_client import Gauge

from neurons import models
from neurons.axon import Publisher
from neurons.engine import api_key, engine_settings
from neurons.joining import Joined, join
from neurons.runtime import in_thread, run, until
from protocol.generation import INFERENCE_GENERATE
from protocol.metagraph import Metagraph
from template.keys import Hotkey
from template.limits import Limits, ReplayStore, StakePolicy
from template.ops import Ops
from template.server import StreamHandler, SynapseServer
from template.settings import MinerSettings

if TYPE_CHECKING:
    from template.inference.backend import Engine

log = logging.getLogger(__name__)

Offer = Callable[[MinerSettings, Hotkey, Ops, models.CommittedModel], AbstractAsyncContextManager[StreamHandler]]


def start(settings: MinerSettings, offer: Offer | None = None) -> int:
    """Run until SIGTERM or SIGINT; the exit status."""
    return run(lambda stop: serve(settings, stop, offer or serve_model), level=settings.log_level)


async def serve(settings: MinerSettings, stop: asyncio.Event, offer: Offer) -> None:
    """The miner's life. Raises TemplateError when it cannot start."""
    async with contextlib.AsyncExitStack() as stack:
        joined = await join(settings, "miner", stop, stack)
        ops = Ops(joined.watch.health)
        offered = offer(settings, joined.hotkey, ops, joined.committed)
        handler = await until(stop, stack.enter_async_context(offered))
        server = _server(settings, joined, ops)
        server.attach_stream(INFERENCE_GENERATE, handler)
        await stack.enter_async_context(server)
        log.info("serving %s on %s:%d", INFERENCE_GENERATE.route, settings.host, server.port)
        where = (server.port, settings.external_ip, settings.external_port)
        publisher = Publisher(joined.chain, settings.netuid, joined.hotkey, *where)

        async def refreshed(graph: Metagraph) -> None:
            await publisher.check(graph)
            await joined.committed.check(graph)

        await joined.watch.run(stop, refreshed)


@asynccontextmanager
async def serve_model(
    settings: MinerSettings, hotkey: Hotkey, ops: Ops, committed: models.CommittedModel
) -> AsyncIterator[StreamHandler]:
    """The miner's own offer: the subnet's model, in this process or behind `engine_url`. Raises OtherModel."""
    from template.inference.service import GenerateService

    async with AsyncExitStack() as stack:
        engine: Engine
        if settings.engine_url:
            from template.inference.remote import RemoteEngine

            engine = await stack.enter_async_context(RemoteEngine(settings.engine_url, key=api_key()))
            await committed.require(engine.identity)
        else:
            from template.inference.engine import ContinuousBatchingEngine

            loaded = await in_thread(lambda: models.load(settings))
            await committed.require(loaded.identity)
            engine = await stack.enter_async_context(ContinuousBatchingEngine(loaded, engine_settings(settings)))
        log.info("model %s, root %s", engine.identity.name, engine.identity.root)
        _engine_metrics(ops, engine)
        yield GenerateService(engine, engine.identity, hotkey.ss58)


def _server(settings: MinerSettings, joined: Joined, ops: Ops) -> SynapseServer:
    # No caller may fill the batch and its queue: whoever holds a permit could make this miner busy for all others.
    limits = Limits(concurrency_per_hotkey=max(2, settings.max_batch // 2))
    return SynapseServer(
        joined.hotkey,
        policy=StakePolicy(lambda: joined.watch.metagraph, min_stake=settings.min_validator_stake),
        limits=limits,
        replay=ReplayStore(retention=limits.max_age + limits.allowed_skew, path=settings.state_dir / "nonces"),
        ops=ops,
        host=settings.host,
        port=settings.port,
    )


def _engine_metrics(ops: Ops, engine: Engine) -> None:
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
