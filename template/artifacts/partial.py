"""A file that grows chunk by chunk beside its target, and takes its name when it is whole.

    with PartialFile(target, manifest) as file:          raises ArtifactNotWritten
        while file.keep_next(): ...                      checks what an earlier try left; stops where that ends
        file.append(data)                                for each chunk from `file.held` on
        file.finish()

One process at a time writes a partial file; its lock dies with the process. All methods block, for a chunk at most.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from protocol.artifacts import CHUNK_BYTES, Manifest, chunk_cid
from template.artifacts.errors import ArtifactNotWritten

LOCK_ATTEMPTS = 8  # each failed one means that another fetch of the same file has just finished


def partial_path(target: Path, cid: str) -> Path:
    """Where the partial file of an artifact lies. Whoever gives an artifact up removes it."""
    return target.with_name(f".{target.name}.{cid}.part")


class PartialFile:
    """`held`: chunks that are in the file and are what the manifest says."""

    def __init__(self, target: Path, manifest: Manifest) -> None:
        self.held = 0
        self._target = target
        self._manifest = manifest
        self._path = partial_path(target, manifest.cid)

    def __enter__(self) -> PartialFile:
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise self._failed(error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # what a full disk loses here is fetched again; `finish` has told before
            self._file.close()

    def keep_next(self) -> bool:
        """Keep the next chunk of an earlier try; False, and the rest is cut off, when it is missing or another."""
        if self.held < len(self._manifest.chunks):
            try:
                data = self._file.read(self._manifest.chunk_bytes(self.held))
                if chunk_cid(data) == self._manifest.chunks[self.held]:
                    self.held += 1
                    return True
            except OSError as error:
                raise self._failed(error) from None
        try:
            self._file.seek(self.held * CHUNK_BYTES if self.held < len(self._manifest.chunks) else self._manifest.size)
            self._file.truncate()
        except OSError as error:
            raise self._failed(error) from None
        return False

    def append(self, data: bytes) -> None:
        """Write the next chunk, which the caller has verified."""
        try:
            self._file.write(data)
        except OSError as error:
            raise self._failed(error) from None
        self.held += 1

    def finish(self) -> None:
        """Give the whole file its name, over what had it before."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._path.replace(self._target)
        except OSError as error:
            raise self._failed(error) from None

    def _open(self) -> None:
        for _ in range(LOCK_ATTEMPTS):
            file = open(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")  # noqa: SIM115
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                break
            if self._is_partial(file):
                self._file = file
                return
            file.close()
        raise ArtifactNotWritten(
            f"{self._target} is being fetched already", remedy="wait for the other fetch, or stop it"
        )

    def _is_partial(self, file: BinaryIO) -> bool:
        """False when another fetch finished between open and lock: the file is its target by now, or gone."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False

    def _failed(self, error: OSError) -> ArtifactNotWritten:
        remedy = "give a place that this user may write to, on a disk with room"
        return ArtifactNotWritten(f"cannot write {self._target}: {error.strerror}", remedy=remedy)
