"""A dataset: shards of tokens in a fixed order, some to train on and some to validate on, and whose tokens they are.

    manifest = decode_manifest(data)              # strict and bounded; MalformedMessage for anything else
    dataset_id(manifest)                          # its name, 64 hex digits over the whole manifest
    encode_manifest(manifest)                     # the one form in bytes: canonical JSON
    tokens = decode_shard(data, manifest, shard)  # [shard.tokens], a view of the bytes

    Shard             an artifact of raw tokens, and how many there are
    DatasetManifest   the shards, the tokenizer, the sources and their licences

A shard is little-endian unsigned integers of `token_bytes` bytes each and nothing else: no header, no padding, no
compression. Every document is followed by the end-of-sequence token, and may go on in the next shard. Shards of a split
are numbered from 0 in the manifest's order. The manifest names shards by their content, so whoever has it can check
every byte of the dataset, from wherever it comes.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from protocol.artifacts import Cid
from protocol.errors import MalformedMessage
from protocol.generation import MAX_TOKEN_ID, Hex32, TokenId, canonical_json
from protocol.synapse import MIB, Message, decode

MAX_SHARDS = 16_384  # of each split
MAX_SHARD_TOKENS = 2**28  # 1 GiB at four bytes; a miner holds a few shards at a time
MAX_MANIFEST_BYTES = 4 * MIB  # twice MAX_SHARDS of some 90 bytes fit
MAX_NOTES = 64  # sources, and licences

Split: TypeAlias = Literal["training", "validation"]
Note: TypeAlias = Annotated[str, Field(min_length=1, max_length=200)]


class Shard(Message):
    """One file of tokens, an artifact of protocol/artifacts.py."""

    cid: Cid
    tokens: int = Field(ge=1, le=MAX_SHARD_TOKENS)


class DatasetManifest(Message):
    """Everything that determines a dataset. `tokenizer` is SHA-256 over the tokenizer.json that made the tokens."""

    version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    token_bytes: Literal[2, 4]
    vocabulary: int = Field(ge=2, le=MAX_TOKEN_ID + 1)  # tokens are below
    eos: TokenId
    tokenizer: Hex32
    training: tuple[Shard, ...] = Field(min_length=1, max_length=MAX_SHARDS)
    validation: tuple[Shard, ...] = Field(max_length=MAX_SHARDS)
    sources: tuple[Note, ...] = Field(max_length=MAX_NOTES)
    licences: tuple[Note, ...] = Field(max_length=MAX_NOTES)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> DatasetManifest:
        if self.eos >= self.vocabulary:
            raise ValueError("the end-of-sequence token lies outside the vocabulary")
        if self.vocabulary > 256**self.token_bytes:
            raise ValueError("the vocabulary does not fit into the bytes of a token")
        cids = [shard.cid for shard in (*self.training, *self.validation)]
        if len(set(cids)) != len(cids):
            raise ValueError("a shard is listed twice")  # also what is validated on is never trained on
        if not all(note.isprintable() for note in (*self.sources, *self.licences)):
            raise ValueError("sources and licences are printable text")
        return self

    def shards(self, split: Split) -> tuple[Shard, ...]:
        return self.training if split == "training" else self.validation


def encode_manifest(manifest: DatasetManifest) -> bytes:
    """The one form of a manifest in bytes: sorted keys, no spaces, ASCII."""
    return canonical_json(manifest)


def decode_manifest(data: bytes) -> DatasetManifest:
    """Inverse of `encode_manifest`. Raises MalformedMessage for everything else, the same values in another form too,
    so that an artifact and a dataset id name each other."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise MalformedMessage(f"{len(data)} bytes are more than a manifest may have ({MAX_MANIFEST_BYTES})")
    manifest = decode(DatasetManifest, data)
    if encode_manifest(manifest) != data:
        raise MalformedMessage("the manifest is not in canonical JSON; write it with `touchstone dataset build`")
    return manifest


def dataset_id(manifest: DatasetManifest) -> str:
    """64 hex digits that stand for every token of the dataset and for its order."""
    return hashlib.sha256(b"touchstone/dataset/v1\x00" + encode_manifest(manifest)).hexdigest()


def token_dtype(token_bytes: int) -> np.dtype[Any]:
    """The dtype of a shard's tokens. Raises ValueError for a width that no manifest has."""
    if token_bytes not in (2, 4):
        raise ValueError("a token has 2 or 4 bytes")
    return np.dtype(f"<u{token_bytes}")


def decode_shard(data: bytes | memoryview, manifest: DatasetManifest, shard: Shard) -> npt.NDArray[Any]:
    """The tokens of `shard`, [shard.tokens] in the manifest's dtype; memory is shared with `data`.

    Raises MalformedMessage for another length than the manifest says, and for a token outside the vocabulary.
    """
    expected = shard.tokens * manifest.token_bytes
    held = memoryview(data).nbytes
    if held != expected:
        raise MalformedMessage(f"the shard has {held} bytes, and the manifest says {expected}")
    tokens = np.frombuffer(data, dtype=token_dtype(manifest.token_bytes))
    if int(tokens.max()) >= manifest.vocabulary:
        raise MalformedMessage("the shard has a token outside the vocabulary")
    return tokens
