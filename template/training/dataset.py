"""Reading a dataset: shards come from a store when they are needed, lie in a folder, and are mapped into memory.

    dataset = Dataset(manifest, store, cache)     any store that has the shards
    await dataset.fetch({3, 17})                  what a window needs: `Work.shards`
    dataset.sequence(3, first, length)            int64 [length], tokens from `first` on
    dataset.batch(work.batch(step), length)       int64 [sequences, length + 1]

    read_manifest(folder)                         of a folder that `touchstone dataset build` made
    fetch_manifest(store, cid)                    of a dataset that is known by its manifest's address
    own_store(folder)                             the store inside a folder that was built
    verify(folder)                                everything in such a folder, against its manifest

A shard is checked once in a process before it is read: its content against its address, its length and tokens against
the manifest. A copy that was damaged on the disk is fetched again.
"""

from __future__ import annotations

import asyncio
import hashlib
import mmap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.artifacts import Manifest
from protocol.dataset import MAX_MANIFEST_BYTES, DatasetManifest, Shard, Split, decode_manifest, decode_shard
from protocol.errors import MalformedMessage
from template.artifacts.directory import DirectoryBackend
from template.artifacts.store import ArtifactLimits, ArtifactStore
from template.errors import TemplateError

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
ARTIFACTS = "artifacts"
FETCH_SECONDS = 600.0  # for one shard


class DatasetUnusable(TemplateError):
    """A dataset or a shard of it is not there, or not what it should be."""


class Dataset:
    """The tokens of a manifest. Shards are files in `cache`, named by their content; a cache serves many datasets.

    `fetch` is awaited before a shard is read; reading neither waits nor touches the network.
    """

    def __init__(
        self, manifest: DatasetManifest, store: ArtifactStore, cache: Path, *, seconds: float = FETCH_SECONDS
    ) -> None:
        self.manifest = manifest
        self._store = store
        self._cache = cache
        self._seconds = seconds
        self._open: dict[tuple[Split, int], npt.NDArray[Any]] = {}
        self._locks: dict[tuple[Split, int], asyncio.Lock] = {}

    def tokens_of(self, split: Split = "training") -> tuple[int, ...]:
        """Tokens of each shard: what `assignment.assign` takes."""
        return tuple(shard.tokens for shard in self.manifest.shards(split))

    async def fetch(self, shards: Iterable[int], split: Split = "training") -> None:
        """Make shards readable, from the cache or else the store. Raises DatasetUnusable and ArtifactError."""
        for number in sorted(set(shards)):
            async with self._locks.setdefault((split, number), asyncio.Lock()):  # two may want the same one
                if (split, number) not in self._open:
                    self._open[split, number] = await self._tokens(self._shard(number, split))

    def sequence(self, shard: int, start: int, length: int, split: Split = "training") -> npt.NDArray[np.int64]:
        """int64 [length]: tokens `start` and on. Raises DatasetUnusable when the shard has no such tokens, or was not
        fetched."""
        available = self._shard(shard, split).tokens
        if not 0 <= start < start + length <= available:
            raise DatasetUnusable(
                f"{split} shard {shard} has {available} tokens, so not those from {start} to {start + length}",
                remedy="draw places with protocol.training.assignment",
            )
        if (split, shard) not in self._open:
            raise DatasetUnusable(f"{split} shard {shard} was not fetched", remedy="await fetch before reading")
        return self._open[split, shard][start : start + length].astype(np.int64)

    def batch(self, places: Sequence[tuple[int, int]], length: int, split: Split = "training") -> npt.NDArray[np.int64]:
        """int64 [sequences, length + 1]: for each place (shard, first token) the context's first token and the `length`
        tokens to predict."""
        return np.stack([self.sequence(shard, start, length + 1, split) for shard, start in places])

    def _shard(self, number: int, split: Split) -> Shard:
        shards = self.manifest.shards(split)
        if not 0 <= number < len(shards):
            raise DatasetUnusable(
                f"there is no {split} shard {number}; the dataset has {len(shards)}", remedy="check the dataset's id"
            )
        return shards[number]

    async def _tokens(self, shard: Shard) -> npt.NDArray[Any]:
        path = self._cache / shard.cid
        data = await asyncio.to_thread(_mapped, path)
        if data is None or await asyncio.to_thread(_address, data) != shard.cid:
            await self._store.fetch(shard.cid, path, shard_limits(self.manifest, shard, self._seconds))
            data = await asyncio.to_thread(_mapped, path)
        return await asyncio.to_thread(_decoded, data or b"", self.manifest, shard)


def own_store(folder: Path) -> ArtifactStore:
    """The store of a folder that `touchstone dataset build` made, or makes."""
    return ArtifactStore(DirectoryBackend(folder / ARTIFACTS))


def shard_limits(manifest: DatasetManifest, shard: Shard, seconds: float = FETCH_SECONDS) -> ArtifactLimits:
    """A shard is as long as the manifest says, or none."""
    return ArtifactLimits(shard.tokens * manifest.token_bytes, seconds)


def read_manifest(folder: Path) -> DatasetManifest:
    """The manifest of a folder that was built. Raises DatasetUnusable."""
    path = folder / MANIFEST
    try:
        with path.open("rb") as file:
            return decode_manifest(file.read(MAX_MANIFEST_BYTES + 1))
    except OSError as error:
        remedy = "give a folder that `touchstone dataset build` made"
        raise DatasetUnusable(f"cannot read {path}: {error.strerror}", remedy=remedy) from None
    except MalformedMessage as error:
        raise DatasetUnusable(f"{path}: {error}", remedy="build the dataset again") from None


async def fetch_manifest(store: ArtifactStore, cid: str, seconds: float = FETCH_SECONDS) -> DatasetManifest:
    """The manifest that is stored as artifact `cid`. Raises DatasetUnusable, ArtifactError and MalformedMessage."""
    data = await store.read(cid, ArtifactLimits(MAX_MANIFEST_BYTES, seconds))
    try:
        return decode_manifest(data)
    except MalformedMessage as error:
        raise DatasetUnusable(f"artifact {cid}: {error}", remedy="check the address of the dataset") from None


async def verify(folder: Path) -> DatasetManifest:
    """The manifest of a folder that was built, when the tokenizer and every shard are what it says. Raises
    DatasetUnusable and ArtifactError."""
    manifest = read_manifest(folder)
    try:
        tokenizer = (folder / TOKENIZER).read_bytes()
    except OSError as error:
        raise DatasetUnusable(f"cannot read {folder / TOKENIZER}: {error.strerror}", remedy="build again") from None
    if hashlib.sha256(tokenizer).hexdigest() != manifest.tokenizer:
        raise DatasetUnusable(f"{folder / TOKENIZER} is another tokenizer's", remedy="build the dataset again")
    async with own_store(folder) as store:
        for shard in (*manifest.training, *manifest.validation):
            data = await store.read(shard.cid, shard_limits(manifest, shard))
            await asyncio.to_thread(_decoded, data, manifest, shard)
    return manifest


def _mapped(path: Path) -> mmap.mmap | None:
    """A file in memory, read when it is looked at; None when it is not there or is empty."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        raise DatasetUnusable(f"cannot read {path}: {error.strerror}", remedy="check the cache folder") from None


def _address(data: mmap.mmap) -> str:
    return Manifest.of(memoryview(data)).cid


def _decoded(data: bytes | mmap.mmap, manifest: DatasetManifest, shard: Shard) -> npt.NDArray[Any]:
    try:
        return decode_shard(memoryview(data), manifest, shard)
    except MalformedMessage as error:
        raise DatasetUnusable(f"{shard.cid}: {error}", remedy="whoever built the dataset builds it again") from None
