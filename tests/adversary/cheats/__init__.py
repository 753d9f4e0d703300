"""Dishonest miners that speak the real protocol: what they answer is wrong, how they answer is not.

Each is a stream handler `(request, caller) -> frames`, so it can be attached to a real server or called directly.

    CHEATS[name]                    what it does, what its owner hopes for, what becomes of it (library.py)
    make(name, kitchen)             its handler; for a cheat with a `model` the kitchen's engine must run that model
    async with opened(loaded, hotkey, CHEATS[name].model) as kitchen       makes such a kitchen (kitchen.py)
    honest, slowed, boasting        honest work for comparison: as it is, on a slow machine, with false timings

Read library.py first; models.py changes models, answers.py and drafts.py make the answers. How soon each is found out
is measured by `touchstone challenge-bench`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from protocol.inference import GenerateChunk, GenerateRequest
from template.inference.service import Frame
from tests.adversary.cheats.answers import Handler, boasting, honest
from tests.adversary.cheats.kitchen import Kitchen, Larder, ModelChange, Upstream, opened, with_upstream
from tests.adversary.cheats.library import CAUGHT_BELOW, CHEATS, Cheat, Fate
from tests.adversary.cheats.models import int4, int8, skip_layer

__all__ = [
    "CAUGHT_BELOW",
    "CHEATS",
    "Cheat",
    "Fate",
    "Handler",
    "Kitchen",
    "Larder",
    "ModelChange",
    "Upstream",
    "boasting",
    "honest",
    "int4",
    "int8",
    "make",
    "opened",
    "skip_layer",
    "slowed",
    "with_upstream",
]


def make(name: str, kitchen: Kitchen) -> Handler:
    """The cheat called `name`. Raises KeyError for one that is not in the library."""
    return CHEATS[name].handler(kitchen)


def slowed(handler: Handler, seconds_per_token: float) -> Handler:
    """An honest miner on a slower machine: the same frames, with a pause for every token."""

    async def serve(request: GenerateRequest, caller: object = None) -> AsyncIterator[Frame]:
        async for frame in handler(request, caller):
            if isinstance(frame, GenerateChunk):
                await asyncio.sleep(seconds_per_token * len(frame.token_ids))
            yield frame

    return serve
