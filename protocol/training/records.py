"""The record of a window: what the next model was made of, so that the model's whole history can be replayed.

    record = WindowRecord(window=7, recipe=..., base=..., contributions=(...), root=..., previous=cid, checkpoint=None)
    record.encode() / parse(data)              canonical JSON; parse raises MalformedMessage

Every validator that agrees writes the same bytes, so the record has one CID, which validators commit. It names the
record before it: whoever trusts the newest one on chain walks back as far as it needs, to a checkpoint (the model
as an artifact) or to the model that window 0 started from, fetches what the records name, and computes forward again.
"""

from __future__ import annotations

import itertools
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from protocol.artifacts import Cid
from protocol.generation import Hex32, canonical_json
from protocol.synapse import Message
from protocol.training.statement import parse_canonical

MAX_BYTES = 1024 * 1024
MAX_CONTRIBUTIONS = 2048


class Included(Message):
    """One contribution that entered the model."""

    miner: str = Field(min_length=1, max_length=64)
    statement: Cid
    payload: Cid


class WindowRecord(Message):
    """`base`, `root`: model roots before and after. `contributions`: in the order of the miners' hotkeys; none when
    nothing was accepted, and then the root is the base. `checkpoint`: the model after the window, where one is kept.
    `seed`: of the noise, for a recipe with privacy; that of the window's aggregate phase, so the chain has it too.
    Absent from the bytes when there is no noise."""

    version: int = Field(default=1, ge=1, le=1)
    window: int = Field(ge=0, lt=10**10)
    recipe: Hex32
    base: Hex32
    contributions: tuple[Included, ...] = Field(max_length=MAX_CONTRIBUTIONS)
    root: Hex32
    previous: Cid | None
    checkpoint: Cid | None
    seed: Hex32 | None = None

    @model_serializer(mode="wrap")
    def _without_a_seed_of_nothing(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = fields(self)
        return {name: value for name, value in found.items() if name != "seed" or value is not None}

    @field_validator("contributions")
    @classmethod
    def _in_order(cls, given: tuple[Included, ...]) -> tuple[Included, ...]:
        if any(left.miner >= right.miner for left, right in itertools.pairwise(given)):
            raise ValueError("contributions are in the order of the hotkeys, one of each")
        return given

    def encode(self) -> bytes:
        return canonical_json(self)

    @staticmethod
    def parse(data: bytes) -> WindowRecord:
        """Inverse of `encode`. Raises MalformedMessage for anything else."""
        return parse_canonical(WindowRecord, data, MAX_BYTES)
