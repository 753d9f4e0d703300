"""What a validator of mechanism 1 has of one window, and how it comes by what miners show.

    gatherer = Gatherer(training)
    await gatherer.gather(work, seconds)          # again and again, while miners reveal; `work.shown` grows
    work.give_up()

What is not there by then is absent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from neurons.train_evidence import Case
from neurons.training import Training
from protocol.errors import MalformedMessage
from protocol.training import statement as statements
from protocol.training.judged import Judged
from protocol.training.judging import Shown
from protocol.training.payload import encoded_size
from protocol.training.statement import Statement
from template.artifacts.errors import ArtifactError, ArtifactTooLarge

if TYPE_CHECKING:
    from template.training.chain_view import Promised

log = logging.getLogger(__name__)

FETCHES = 32  # artifacts of miners under way


@dataclass
class WindowWork:
    """What a validator has of one window. `shown` grows while miners reveal; `under_way`: what is being fetched;
    `cases`: what its verdicts stand on, until evidence of them is kept."""

    window: int
    due: Mapping[str, Promised]
    shown: dict[str, Shown] = field(default_factory=dict)
    under_way: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    judged: Judged | None = None
    voted: bool = False
    cases: dict[str, Case] = field(default_factory=dict)

    def give_up(self) -> None:
        for task in self.under_way.values():
            task.cancel()
        self.under_way.clear()


@dataclass
class Gatherer:
    """Fetches what miners promised, FETCHES artifacts at a time whoever they are of."""

    training: Training
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(FETCHES), init=False)

    async def gather(self, work: WindowWork, longest: float) -> None:
        """Get what miners have revealed, for `longest` seconds at most. What has failed is asked for again by the next
        call; what is slow goes on meanwhile and keeps nobody waiting."""
        for hotkey, promised in work.due.items():
            task = work.under_way.get(hotkey)
            if hotkey not in work.shown and (task is None or task.done()):
                work.under_way[hotkey] = asyncio.create_task(self._fetch_one(work, hotkey, promised))
        pending = [task for task in work.under_way.values() if not task.done()]
        if pending:
            await asyncio.wait(pending, timeout=longest)

    async def _fetch_one(self, work: WindowWork, hotkey: str, promised: Promised) -> None:
        peers, where = self.training.peers, [promised.location]
        most = encoded_size(self.training.follower.layout.size)
        try:
            async with self._room:
                said = await peers.fetch(promised.statement, where, statements.MAX_BYTES)
        except ArtifactError as error:
            log.debug("%s: %s", hotkey, error)
            return
        try:
            payload = Statement.parse(said).payload
            async with self._room:
                shown = await peers.fetch(payload, where, most)
        except (MalformedMessage, ArtifactTooLarge):  # it is shown, and will be rejected for it
            shown = b""
        except ArtifactError as error:
            log.debug("%s: %s", hotkey, error)
            return
        work.shown[hotkey] = Shown(said, shown)
