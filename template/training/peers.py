"""Artifacts of peers: the same artifact may lie in several places, and any of them will do.

    async with Peers(own, allow_local=chain.is_local) as peers:
        data = await peers.fetch(cid, locations, max_bytes)        from this node's own store, or the first that has it

A location is a peer's own words on chain. One that is none is passed over; one that is slow or empty costs its time
and no more; what it gives is checked by its hash before anybody sees it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType

from protocol.errors import MalformedMessage
from protocol.locations import Location
from template.artifacts.errors import ArtifactError, ArtifactTooLarge, ArtifactUnavailable
from template.artifacts.s3 import S3Backend
from template.artifacts.store import ArtifactLimits, ArtifactStore

log = logging.getLogger(__name__)

PATIENCE = 20.0  # seconds for an artifact from one place, and ...
LEAST_RATE = 1024 * 1024  # ... one more for each of so many bytes
MOST_OPEN = 256  # stores held open; the one used longest ago is closed


class Peers:
    """`own`: where this node puts its artifacts."""

    def __init__(self, own: ArtifactStore, *, allow_local: bool = False) -> None:
        self.own = own
        self._allow_local = allow_local
        self._stores: dict[str, ArtifactStore] = {}  # the one used longest ago comes first
        self._reading: Counter[str] = Counter()

    async def __aenter__(self) -> Peers:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with AsyncExitStack() as stack:
            for store in self._stores.values():
                stack.push_async_callback(store.close)
            self._stores.clear()

    async def fetch(self, cid: str, locations: Sequence[str], max_bytes: int) -> bytes:
        """Raises ArtifactTooLarge for one that is proved to have more than `max_bytes`, and ArtifactError when no place
        gives it."""
        limits = ArtifactLimits(max_bytes, PATIENCE + max_bytes / LEAST_RATE)
        problems = []
        try:
            return await self.own.read(cid, limits)
        except ArtifactTooLarge:
            raise
        except ArtifactUnavailable:
            pass  # as usual
        except (ArtifactError, MalformedMessage) as error:
            problems.append(f"in the own store: {error}")
        for text in dict.fromkeys(locations):
            try:
                async with self._store(text) as store:
                    return await store.read(cid, limits)
            except ArtifactTooLarge:
                raise
            except (ArtifactError, MalformedMessage) as error:
                problems.append(str(error))
        told = "; ".join(problems[:3]) or "nobody says where it is"
        raise ArtifactUnavailable(f"artifact {cid} cannot be had: {told}")

    @asynccontextmanager
    async def _store(self, text: str) -> AsyncIterator[ArtifactStore]:
        """The store of a location, open at least until the block ends. Raises MalformedMessage."""
        store = self._stores.pop(text, None)
        if store is None:
            store = ArtifactStore(S3Backend(Location.parse(text), allow_local=self._allow_local))
        self._stores[text] = store
        self._reading[text] += 1
        try:
            yield store
        finally:
            self._reading[text] -= 1
            idle = [other for other in self._stores if not self._reading[other]]
            for other in idle[: max(0, len(self._stores) - MOST_OPEN)]:
                await self._stores.pop(other).close()
                del self._reading[other]
