"""Who takes part in the main job, and the miners that are not simply `neurons/miner.py`.

    python scripts/lineup.py slowed --netuid 2 --wallet miner-slow      (flags as for neurons/miner.py)

    slowed        honest, with a pause for every token: the same work on a slower machine
    layer_skip    serves the model with one layer left out: cheaper, almost as fluent
    canned        replays one stored answer; needs no model at all
    late          thinks until every deadline has passed, then answers; needs no model either

All of them serve, sign and publish exactly like an honest miner; only the answers differ.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the dishonest answers are shared with the tests

from neurons import models
from neurons.miner import Offer, serve_model, start
from neurons.runtime import in_thread
from protocol.inference import GenerateChunk, GenerateRequest, GenerateResponse, Timings
from protocol.synapse import Message
from template.keys import Hotkey
from template.ops import Ops
from template.server import Caller, StreamHandler
from template.settings import MinerSettings

SLOW_SECONDS_PER_TOKEN = 0.2  # 32 tokens take 6.4 s or more; the fast miner needs 2 to 4 s on two busy cores
LATE_SECONDS = 60.0  # beyond every deadline of the main job
NO_TIMINGS = Timings(queue_ms=0.0, first_token_ms=0.0, total_ms=0.0)
# "The capital of France is Paris.", over and over, in tokens of SmolLM2.
STOCK = (504, 3575, 282, 4649, 314, 7042, 30, 198)


@dataclass(frozen=True)
class Part:
    """One neuron of the main job. `program`: "validator", "miner", or one of this file's."""

    name: str
    role: str  # what the table says
    program: str
    stake: float = 0.0  # TAO staked on root by a validator; a fiftieth of it goes to the subnet's pool
    honest: bool = True
    needs_model: bool = True


LINEUP = (
    Part("validator-1", "validator", "validator", stake=30_000.0),
    Part("validator-2", "validator", "validator", stake=18_000.0),
    Part("miner-fast", "honest, fast", "miner"),
    Part("miner-slow", "honest, slow", "slowed"),
    Part("miner-damaged", "a layer skipped", "layer_skip", honest=False),
    Part("miner-canned", "canned answers", "canned", honest=False, needs_model=False),
    Part("miner-late", "always late", "late", honest=False, needs_model=False),
)


@asynccontextmanager
async def slowed(settings: MinerSettings, hotkey: Hotkey, ops: Ops) -> AsyncIterator[StreamHandler]:
    from tests.adversary import cheats

    async with serve_model(settings, hotkey, ops) as handler:
        yield cheats.slowed(handler, SLOW_SECONDS_PER_TOKEN)


@asynccontextmanager
async def layer_skip(settings: MinerSettings, hotkey: Hotkey, ops: Ops) -> AsyncIterator[StreamHandler]:
    from template.inference.engine import ContinuousBatchingEngine, EngineSettings
    from template.inference.service import GenerateService
    from tests.adversary import cheats

    loaded = await in_thread(lambda: models.load(settings))
    damaged = cheats.skip_layer(loaded)
    async with ContinuousBatchingEngine(damaged, EngineSettings(threads=models.thread_count(settings))) as engine:
        yield GenerateService(engine, loaded.identity, hotkey.ss58)


@asynccontextmanager
async def canned(settings: MinerSettings, hotkey: Hotkey, ops: Ops) -> AsyncIterator[StreamHandler]:
    yield _replay


@asynccontextmanager
async def late(settings: MinerSettings, hotkey: Hotkey, ops: Ops) -> AsyncIterator[StreamHandler]:
    async def handler(request: GenerateRequest, caller: Caller) -> AsyncIterator[Message]:
        await asyncio.sleep(LATE_SECONDS)
        async for frame in _replay(request, caller):
            yield frame

    yield handler


async def _replay(request: GenerateRequest, caller: Caller) -> AsyncIterator[Message]:
    tokens = (STOCK * request.max_tokens)[: request.max_tokens]
    for offset in range(0, len(tokens), 8):
        yield GenerateChunk(offset=offset, token_ids=tokens[offset : offset + 8])
    yield GenerateResponse(token_ids=tokens, finish_reason="length", timings=NO_TIMINGS)


def main() -> None:
    import typer

    from neurons.options import settings_command

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    for offer in (slowed, layer_skip, canned, late):
        command = settings_command(MinerSettings, partial(_start, offer))
        app.command(offer.__name__)(command)
    app()


def _start(offer: Offer, settings: MinerSettings) -> int:
    return start(settings, offer)


if __name__ == "__main__":
    main()
