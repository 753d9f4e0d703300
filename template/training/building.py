"""Making a dataset: texts become tokens, tokens become shards, shards become artifacts.

    aim = Aim(name, tokenizer, shard_tokens, validation)     what the dataset shall be
    built = await build(aim, batches, folder, progress)      the finished folder, or nothing
    Built                                                    the manifest, its address, and what was counted on the way

The folder holds `manifest.json`, `tokenizer.json` and `artifacts/`, a store with the shards, the tokenizer and the
manifest itself, whose address in it is all that another machine needs. The same texts and the same aim give the same
manifest, byte for byte. Work is done in a hidden folder beside it, which takes its name only when all is there; a
folder that holds something already is refused.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from protocol.artifacts import Manifest
from protocol.dataset import (
    MAX_SHARD_TOKENS,
    MAX_SHARDS,
    DatasetManifest,
    Shard,
    Split,
    dataset_id,
    encode_manifest,
    token_dtype,
)
from template.artifacts.store import ArtifactStore
from template.errors import TemplateError
from template.training.dataset import MANIFEST, TOKENIZER, own_store
from template.training.texts import Document, is_validation
from template.training.tokens import TextTokenizer
from template.wheels import Progress

_ENCODED = 2**21  # characters that are tokenized at once
_SAID = 5.0  # seconds between two lines of progress
_PROBE = Shard(cid=Manifest.of(b"").cid, tokens=1)
_HELP = "see touchstone dataset build --help"


class BuildFailed(TemplateError):
    """No dataset can be made of these texts, or not in this folder."""


@dataclass(frozen=True)
class Aim:
    """What the dataset shall be. `validation`: the share of documents that is never trained on. `expected_id`: what the
    dataset's id has to be, for texts that are known. Raises BuildFailed for what no dataset can be."""

    name: str
    tokenizer: TextTokenizer
    shard_tokens: int
    validation: float
    sources: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    expected_id: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.shard_tokens <= MAX_SHARD_TOKENS:
            raise BuildFailed(f"a shard has 1 to {MAX_SHARD_TOKENS:,} tokens", remedy="change --shard-tokens")
        if not 0.0 <= self.validation <= 0.5:
            raise BuildFailed("at most half of the documents are for validation", remedy="change --validation")
        self.manifest((_PROBE,), ())  # so that a bad name is found before the work, not after it

    @property
    def token_bytes(self) -> Literal[2, 4]:
        return 2 if self.tokenizer.vocabulary <= 2**16 else 4

    def manifest(self, training: tuple[Shard, ...], validation: tuple[Shard, ...]) -> DatasetManifest:
        try:
            return DatasetManifest(
                name=self.name,
                token_bytes=self.token_bytes,
                vocabulary=self.tokenizer.vocabulary,
                eos=self.tokenizer.eos,
                tokenizer=self.tokenizer.digest,
                training=training,
                validation=validation,
                sources=self.sources,
                licences=self.licences,
            )
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "manifest"
            raise BuildFailed(f"this makes no dataset: {where}: {first['msg']}", remedy=_HELP) from None


@dataclass(frozen=True)
class Built:
    """A finished dataset. `address`: of the manifest, as an artifact. `text_bytes` in UTF-8; tokens include one end of
    sequence for each document."""

    manifest: DatasetManifest
    address: str
    documents: int
    text_bytes: int
    tokens: int
    seconds: float


@dataclass
class _Writer:
    """One split: collects tokens, and stores every full shard."""

    store: ArtifactStore
    shard_tokens: int
    dtype: np.dtype[Any]
    shards: list[Shard] = field(default_factory=list)
    _held: list[npt.NDArray[np.uint32]] = field(default_factory=list)
    _count: int = 0

    async def add(self, ids: npt.NDArray[np.uint32]) -> None:
        self._held.append(ids)
        self._count += len(ids)
        if self._count >= self.shard_tokens:
            held = np.concatenate(self._held)
            whole = len(held) - len(held) % self.shard_tokens
            for start in range(0, whole, self.shard_tokens):
                await self._store(held[start : start + self.shard_tokens])
            self._held, self._count = [held[whole:]], len(held) - whole

    async def close(self) -> tuple[Shard, ...]:
        """All shards; the last one is as long as it happens to be."""
        if self._count:
            await self._store(np.concatenate(self._held))
        return tuple(self.shards)

    async def _store(self, tokens: npt.NDArray[np.uint32]) -> None:
        if len(self.shards) == MAX_SHARDS:
            raise BuildFailed(f"a dataset has at most {MAX_SHARDS} shards", remedy="make them larger: --shard-tokens")
        cid = await self.store.put_bytes(tokens.astype(self.dtype).tobytes())
        self.shards.append(Shard(cid=cid, tokens=len(tokens)))


def refuse_used(folder: Path) -> None:
    """Raises BuildFailed when `folder` holds something, before any work is done."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BuildFailed(f"{folder} is there already", remedy="name another --out, or remove it")


async def build(aim: Aim, batches: Iterable[Sequence[Document]], folder: Path, progress: Progress) -> Built:
    """Make the dataset in `folder`. Raises BuildFailed, ArtifactError, and whatever reading the documents raises."""
    refuse_used(folder)
    started = time.monotonic()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
            made = Path(scratch) / "dataset"
            made.mkdir()
            async with own_store(made) as store:
                manifest, documents, text_bytes = await _write(aim, batches, store, progress)
                encoded = encode_manifest(manifest)
                await store.put_bytes(aim.tokenizer.definition)
                address = await store.put_bytes(encoded)
            (made / TOKENIZER).write_bytes(aim.tokenizer.definition)
            (made / MANIFEST).write_bytes(encoded)
            os.replace(made, folder)
    except OSError as error:
        remedy = "give a folder that this user may write to, on a disk with room"
        raise BuildFailed(f"cannot write {folder}: {error.strerror}", remedy=remedy) from None
    tokens = sum(shard.tokens for shard in (*manifest.training, *manifest.validation))
    return Built(manifest, address, documents, text_bytes, tokens, time.monotonic() - started)


async def _write(
    aim: Aim, batches: Iterable[Sequence[Document]], store: ArtifactStore, progress: Progress
) -> tuple[DatasetManifest, int, int]:
    """The manifest, and how many documents of how many bytes of text are in its shards."""
    dtype = token_dtype(aim.token_bytes)
    writers: dict[Split, _Writer] = {
        "training": _Writer(store, aim.shard_tokens, dtype),
        "validation": _Writer(store, aim.shard_tokens, dtype),
    }
    documents = text_bytes = 0
    said = time.monotonic()
    for portion in _portions(batches):
        for document, ids in zip(portion, aim.tokenizer.encode([each.text for each in portion]), strict=True):
            split: Split = "validation" if is_validation(document.digest, aim.validation) else "training"
            await writers[split].add(np.append(ids, np.uint32(aim.tokenizer.eos)))
            text_bytes += len(document.text.encode())
        documents += len(portion)
        if time.monotonic() - said >= _SAID:
            progress(f"{text_bytes / 1e6:.0f} MB of text in tokens")
            said = time.monotonic()
    return await _manifest(aim, writers), documents, text_bytes


async def _manifest(aim: Aim, writers: dict[Split, _Writer]) -> DatasetManifest:
    training, validation = await writers["training"].close(), await writers["validation"].close()
    remedy = "give more text, divide it into more documents with --separator, or change --validation"
    if not training:
        raise BuildFailed("there is nothing to train on", remedy=remedy)
    if aim.validation and not validation:
        raise BuildFailed("no document fell to validation", remedy=remedy)
    manifest = aim.manifest(training, validation)
    if aim.expected_id not in (None, dataset_id(manifest)):
        raise BuildFailed(
            f"these texts made the dataset {dataset_id(manifest)}, and everybody else's is {aim.expected_id}",
            remedy="install the versions of constraints.txt: another release of tokenizers may write other tokens",
        )
    return manifest


def _portions(batches: Iterable[Sequence[Document]]) -> Iterator[list[Document]]:
    """The same documents in lists of at most _ENCODED characters, or of one document."""
    for batch in batches:
        portion: list[Document] = []
        size = 0
        for document in batch:
            if portion and size + len(document.text) > _ENCODED:
                yield portion
                portion, size = [], 0
            portion.append(document)
            size += len(document.text)
        yield portion
