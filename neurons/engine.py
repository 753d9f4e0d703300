"""An engine server: holds the model, so that one or several miners need not.

    python neurons/engine.py --port 8090                    (same as `touchstone engine ...`)
    touchstone miner --netuid 2 --engine-url http://127.0.0.1:8090

It needs no wallet and no chain, and signs nothing; the miners do. template/inference/engine_api.py says what it speaks.
Listening where others can reach it needs an API key in TOUCHSTONE_ENGINE_KEY, the same for the engine and its miners.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from neurons import models
from neurons.runtime import in_thread, run, until
from template.settings import ENV_PREFIX, EngineOptions, EngineServerSettings

if TYPE_CHECKING:
    from template.inference.engine import EngineSettings

log = logging.getLogger(__name__)


def start(settings: EngineServerSettings) -> int:
    """Run until SIGTERM or SIGINT; the exit status."""
    return run(lambda stop: serve(settings, stop), level=settings.log_level)


async def serve(settings: EngineServerSettings, stop: asyncio.Event) -> None:
    """Raises TemplateError when it cannot start."""
    from template.inference.engine import ContinuousBatchingEngine
    from template.inference.openai_server import EngineServer

    loaded = await until(stop, in_thread(lambda: models.load(settings)))
    chosen = engine_settings(settings)
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(ContinuousBatchingEngine(loaded, chosen))
        server = EngineServer(
            engine, max_context=chosen.max_context, key=api_key(), host=settings.host, port=settings.port
        )
        await stack.enter_async_context(server)
        log.info("serving %s on %s:%d", loaded.identity.name, settings.host, server.port)
        await stop.wait()


def api_key() -> str:
    """From the environment only: a command line can be read by every user of the machine."""
    return os.environ.get(f"{ENV_PREFIX}ENGINE_KEY", "")


def engine_settings(settings: EngineOptions) -> EngineSettings:
    """The engine's part of the settings, with what 0 stands for."""
    from template.inference.engine import EngineSettings

    on_cpu = settings.device == "cpu"
    return EngineSettings(
        max_batch=settings.max_batch,
        max_queue=settings.max_queue,
        max_context=settings.max_context,
        cache_tokens=settings.cache_tokens,
        prefill_tokens=settings.prefill_tokens or (256 if on_cpu else 4096),
        threads=models.thread_count(settings),
        pack_weights=settings.pack_weights,
    )


if __name__ == "__main__":
    from neurons.cli import run_command

    run_command("engine")
