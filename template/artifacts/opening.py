"""A store from the text that names it, in a setting or on a command line.

    async with open_store(where) as store: ...

    ~/artifacts                                                        a folder
    touchstone-artifacts/1 <endpoint> <bucket> <region> <key> <secret>  a bucket; see protocol/locations.py
    @bucket.txt                                                        a file that holds one of the two

A bucket's text with keys that can write is a secret: keep it in a file or in the environment, not among the arguments
of a process, which every user of the machine can read.
"""

from __future__ import annotations

from pathlib import Path

from protocol.errors import MalformedMessage
from protocol.locations import LOCATION_BYTES, Location, is_location
from template.artifacts.directory import DirectoryBackend
from template.artifacts.store import ArtifactStore
from template.errors import TemplateError


class NoStore(TemplateError):
    """The text names no store."""


def open_store(where: str, *, allow_local: bool = False) -> ArtifactStore:
    """The store that `where` names. `allow_local`: a bucket may be in the own network or on this machine.

    Raises NoStore.
    """
    text = _read(Path(where[1:]).expanduser()) if where.startswith("@") else where
    if is_location(text):
        from template.artifacts.s3 import S3Backend

        try:
            return ArtifactStore(S3Backend(Location.parse(text), allow_local=allow_local))
        except MalformedMessage as error:
            raise NoStore(str(error)) from None
    if not text or "://" in text:
        raise NoStore(
            "a store is a folder, or a bucket written as touchstone-artifacts/1 "
            "<endpoint> <bucket> <region> <access key> <secret>"
        )
    return ArtifactStore(DirectoryBackend(Path(text).expanduser()))


def _read(path: Path) -> str:
    try:
        with path.open(encoding="ascii") as file:
            return file.read(LOCATION_BYTES + 2).removesuffix("\n")
    except (OSError, ValueError) as error:
        raise NoStore(f"cannot read {path}: {error}") from None
