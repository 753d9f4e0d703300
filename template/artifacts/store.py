"""The artifact store: files of any size by their address, each chunk verified before anything is made of it.

    async with ArtifactStore(backend) as store:
        cid = await store.put_file(path)                  or put_bytes(data); what is there is not sent again
        await store.fetch(cid, path, limits)              into a file; goes on where an earlier try ended
        data = await store.read(cid, limits)              into memory
        await store.verify(cid, limits)                   every chunk, kept nowhere
        await store.prune(keep)                           delete what no artifact in `keep` needs

    Backend            where objects lie: directory.py, s3.py
    ArtifactLimits     what one artifact of one peer may cost

A backend is not trusted: whatever it gives is compared with its address, the manifest first. The manifest says the
size, so an artifact above the limit costs one small request. Raises the errors of errors.py, and MalformedMessage for
an address that is none.
"""

from __future__ import annotations

import asyncio
import io
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, TypeAlias, TypeVar

from protocol.artifacts import (
    CHUNK_BYTES,
    MAX_BYTES,
    Manifest,
    chunk_cid,
    manifest_cid,
    manifest_limit,
    parse_manifest,
    require_artifact,
)
from protocol.errors import MalformedMessage
from template.artifacts.errors import (
    ArtifactCorrupt,
    ArtifactNotWritten,
    ArtifactTooLarge,
    ArtifactTooSlow,
)
from template.artifacts.partial import PartialFile
from template.artifacts.threads import on_disk

LARGE = 4 * 1024**3  # bytes; the manifest, 42 KB, is read to see that an artifact is above a lower limit
AT_ONCE = 4  # chunks sent, or asked for, at the same time
PAGE = 1000  # names of one listing
REPAIR = "whoever keeps it puts the file again, sending everything (touchstone artifact put --resend)"

Progress: TypeAlias = Callable[[int, int], None]  # bytes done, bytes in all
Result = TypeVar("Result")


class Backend(Protocol):
    """Objects by name; a name is an address of protocol/artifacts.py, and any other is MalformedMessage.

    Methods raise ArtifactUnavailable when they cannot do what they should. Whoever only reads needs only `get`.
    """

    async def get(self, name: str, max_bytes: int) -> bytes:
        """The whole object. Raises ArtifactTooLarge for one above `max_bytes`, without reading on."""

    async def put(self, name: str, data: bytes) -> None:
        """Store an object, over an older one; nobody ever sees a part of it."""

    async def size(self, name: str) -> int | None:
        """Bytes of an object, None for one that is not known to be there."""

    async def delete(self, name: str) -> None:
        """Remove an object, if it is there."""

    async def list(self, limit: int, after: str = "") -> tuple[str, ...]:
        """The first `limit` names above `after`, in order."""

    async def close(self) -> None:
        """Let go of connections."""


@dataclass(frozen=True)
class ArtifactLimits:
    """What fetching one artifact may cost: its size, the time for all of it, and chunks asked for at once, each of
    which takes 4 MiB of memory."""

    max_bytes: int
    seconds: float
    at_once: int = AT_ONCE

    def __post_init__(self) -> None:
        if self.max_bytes < 0 or self.seconds <= 0 or self.at_once < 1:
            raise ValueError("limits are positive")


class ArtifactStore:
    """Artifacts in one backend. Use as an async context manager, or call `close`."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    async def __aenter__(self) -> ArtifactStore:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self.backend.close()

    # Putting

    async def put_bytes(self, data: bytes, *, resend: bool = False) -> str:
        """Store `data`; its address. Chunks of the right length are taken for what their name says, unless `resend`."""
        return await self._put(io.BytesIO(data), len(data), resend, None)

    async def put_file(self, path: Path, *, resend: bool = False, progress: Progress | None = None) -> str:
        """Store a file, read once; its address. Raises ArtifactNotWritten when it cannot be read."""
        try:
            with path.open("rb") as file:
                return await self._put(file, path.stat().st_size, resend, progress)
        except OSError as error:
            raise ArtifactNotWritten(f"cannot read {path}: {error.strerror}") from None

    async def _put(self, file: BinaryIO, total: int, resend: bool, progress: Progress | None) -> str:
        """Chunks first, then the manifest: whoever finds that finds all of it."""
        chunks: list[str] = []
        size = 0
        sending: deque[asyncio.Task[None]] = deque()
        try:
            while data := await on_disk(file.read, CHUNK_BYTES):
                size += len(data)
                if size > MAX_BYTES:
                    raise ArtifactTooLarge(f"an artifact has at most {MAX_BYTES} bytes", remedy="cut it into several")
                chunks.append(await on_disk(chunk_cid, data))
                sending.append(asyncio.create_task(self._send(chunks[-1], data, resend)))
                if len(sending) == AT_ONCE:
                    await sending.popleft()
                if progress:
                    progress(size, max(size, total))
            while sending:
                await sending.popleft()
        finally:
            await _stop(sending)
        manifest = await on_disk(Manifest, size, tuple(chunks))
        encoded = await on_disk(manifest.encode)
        cid = manifest_cid(encoded)
        await self._send(cid, encoded, resend)
        return cid

    async def _send(self, name: str, data: bytes, resend: bool) -> None:
        if resend or await self.backend.size(name) != len(data):
            await self.backend.put(name, data)

    # Fetching

    async def fetch(self, cid: str, path: Path, limits: ArtifactLimits, progress: Progress | None = None) -> Manifest:
        """Fetch an artifact into the file `path`, which appears when it is whole.

        What arrived before an error, a cancellation or the end of the process is kept beside it, in `partial_path` of
        partial.py, and the next call goes on from there.
        """
        return await _within(limits, cid, self._fetch(cid, path, limits, progress))

    async def read(self, cid: str, limits: ArtifactLimits) -> bytes:
        """A whole artifact in memory."""
        parts: list[bytes] = []
        await _within(limits, cid, self._walk(cid, limits, parts.append, None))
        return b"".join(parts)

    async def verify(self, cid: str, limits: ArtifactLimits, progress: Progress | None = None) -> Manifest:
        """Get every chunk and keep none; the manifest when all of them are right."""
        return await _within(limits, cid, self._walk(cid, limits, None, progress))

    async def manifest(self, cid: str, limits: ArtifactLimits) -> Manifest:
        """The manifest alone, which says how large the artifact is."""
        return await _within(limits, cid, self._manifest(cid, limits))

    async def prune(self, keep: Iterable[str]) -> int:
        """Delete every object that no artifact in `keep` needs; how many. For an own store, while nothing is put.

        Raises before anything is deleted when the manifest of one to keep cannot be had.
        """
        needed: set[str] = set()
        for cid in keep:
            manifest = await self._manifest(cid, ArtifactLimits(MAX_BYTES, float("inf")))
            needed.update((cid, *manifest.chunks))
        deleted, after = 0, ""
        while names := await self.backend.list(PAGE, after):
            for name in names:
                if name not in needed:
                    await self.backend.delete(name)
                    deleted += 1
            after = names[-1]
        return deleted

    async def _fetch(self, cid: str, path: Path, limits: ArtifactLimits, progress: Progress | None) -> Manifest:
        manifest = await self._manifest(cid, limits)
        with PartialFile(path, manifest) as file:
            while await on_disk(file.keep_next):
                pass
            async with aclosing(self._chunks(manifest, file.held, limits.at_once)) as chunks:
                async for data in chunks:
                    await on_disk(file.append, data)
                    _tell(progress, manifest, file.held)
            await on_disk(file.finish)
        return manifest

    async def _walk(
        self, cid: str, limits: ArtifactLimits, use: Callable[[bytes], None] | None, progress: Progress | None
    ) -> Manifest:
        manifest = await self._manifest(cid, limits)
        done = 0
        async with aclosing(self._chunks(manifest, 0, limits.at_once)) as chunks:
            async for data in chunks:
                if use:
                    use(data)
                done += 1
                _tell(progress, manifest, done)
        return manifest

    async def _manifest(self, cid: str, limits: ArtifactLimits) -> Manifest:
        require_artifact(cid)
        try:
            data = await self.backend.get(cid, manifest_limit(max(limits.max_bytes, LARGE)))
        except ArtifactTooLarge:  # it may be anything: only a manifest with the right hash proves a size
            told = f"{self.backend} has an object as {cid} that is no manifest of what may be fetched"
            raise ArtifactCorrupt(told, remedy=REPAIR) from None
        if await on_disk(manifest_cid, data) != cid:
            raise ArtifactCorrupt(f"what {self.backend} has as {cid} is something else", remedy=REPAIR)
        try:
            manifest = await on_disk(parse_manifest, data)
        except MalformedMessage as error:
            raise ArtifactCorrupt(f"{cid} is no artifact: {error}") from None
        if manifest.size > limits.max_bytes:
            raise ArtifactTooLarge(f"artifact {cid} has {manifest.size} bytes, more than {limits.max_bytes}")
        return manifest

    async def _chunks(self, manifest: Manifest, first: int, at_once: int) -> AsyncGenerator[bytes, None]:
        """Verified chunks in order, from number `first` on; those that follow are on their way meanwhile."""
        coming: deque[asyncio.Task[bytes]] = deque()
        try:
            for index in range(first, len(manifest.chunks)):
                coming.append(asyncio.create_task(self._chunk(manifest, index)))
                if len(coming) == at_once:
                    yield await coming.popleft()
            while coming:
                yield await coming.popleft()
        finally:
            await _stop(coming)

    async def _chunk(self, manifest: Manifest, index: int) -> bytes:
        name, expected = manifest.chunks[index], manifest.chunk_bytes(index)
        try:
            data = await self.backend.get(name, expected)
        except ArtifactTooLarge:
            data = b""  # longer than its place, and so another chunk
        if len(data) != expected or await on_disk(chunk_cid, data) != name:
            raise ArtifactCorrupt(f"chunk {index} of {manifest.cid} in {self.backend} is damaged", remedy=REPAIR)
        return data


def _tell(progress: Progress | None, manifest: Manifest, chunks: int) -> None:
    if progress:
        progress(min(chunks * CHUNK_BYTES, manifest.size), manifest.size)


async def _within(limits: ArtifactLimits, cid: str, work: Coroutine[Any, Any, Result]) -> Result:
    try:
        return await asyncio.wait_for(work, limits.seconds)
    except asyncio.TimeoutError:
        raise ArtifactTooSlow(
            f"artifact {cid} was not complete within {limits.seconds:g} s",
            remedy="allow more time; a file goes on from where it is",
        ) from None


async def _stop(tasks: deque[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
