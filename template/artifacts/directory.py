"""Artifacts in a local folder: one file for each object, and its name is the object's address.

    backend = DirectoryBackend(Path("artifacts"))

A file appears whole or not at all: it is written under another name and renamed. No name but an address is ever used,
so nothing that a peer says leads out of the folder. Other files there are left alone.
"""

from __future__ import annotations

import heapq
import os
import secrets
from pathlib import Path

from protocol.artifacts import is_object, require_object
from template.artifacts.errors import ArtifactTooLarge, ArtifactUnavailable
from template.artifacts.threads import on_disk


class DirectoryBackend:
    """The `Backend` of a folder, which is made when the first object is put. See store.py for the methods."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    async def get(self, name: str, max_bytes: int) -> bytes:
        return await on_disk(self._read, name, max_bytes)

    async def put(self, name: str, data: bytes) -> None:
        await on_disk(self._write, name, data)

    async def size(self, name: str) -> int | None:
        return await on_disk(self._size, name)

    async def delete(self, name: str) -> None:
        await on_disk(self._remove, name)

    async def list(self, limit: int, after: str = "") -> tuple[str, ...]:
        return await on_disk(self._names, limit, after)

    async def close(self) -> None:
        """Nothing is held."""

    def _path(self, name: str) -> Path:
        require_object(name)
        return self.folder / name

    def _read(self, name: str, max_bytes: int) -> bytes:
        path = self._path(name)
        try:
            with path.open("rb") as file:
                data = file.read(max_bytes + 1)
        except FileNotFoundError:
            raise ArtifactUnavailable(f"{self.folder} has no object {name}", remedy="put the artifact there") from None
        except OSError as error:
            raise self._unavailable("read", error) from None
        if len(data) > max_bytes:
            raise ArtifactTooLarge(f"object {name} has more than {max_bytes} bytes")
        return data

    def _write(self, name: str, data: bytes) -> None:
        path = self._path(name)
        scratch = self.folder / f".{name}.{secrets.token_hex(8)}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                with scratch.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())  # a rename may outlive a power cut that the bytes did not
                scratch.replace(path)
            finally:
                scratch.unlink(missing_ok=True)
        except OSError as error:
            raise self._unavailable("write", error) from None

    def _size(self, name: str) -> int | None:
        try:
            return self._path(name).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unavailable("read", error) from None

    def _remove(self, name: str) -> None:
        try:
            self._path(name).unlink(missing_ok=True)
        except OSError as error:
            raise self._unavailable("write", error) from None

    def _names(self, limit: int, after: str) -> tuple[str, ...]:
        try:
            with os.scandir(self.folder) as entries:
                found = (entry.name for entry in entries if entry.name > after and is_object(entry.name))
                return tuple(heapq.nsmallest(limit, found))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._unavailable("read", error) from None

    def _unavailable(self, what: str, error: OSError) -> ArtifactUnavailable:
        remedy = "give a folder that this user may use, on a disk with room"
        return ArtifactUnavailable(f"cannot {what} in {self.folder}: {error.strerror}", remedy=remedy)
