"""What a miner promises before it shows anything: one statement a window, named on chain by its hash.

    statement = Statement(window=7, miner="5F...", base=root, payload=cid, trace=root, after=cid, ...)
    statement.encode() / parse(data)                   canonical JSON; parse raises MalformedMessage
    TrainCommitment(window, cid).encode()              the text on chain; `parse` takes exactly what `encode` gives

The chain holds the window and the CID of the statement's bytes, so the commitment fixes everything that the statement
names: the payload, the trace of the training, and the error buffer that only an audit opens. Until the commit phase has
closed nothing but this hash is known, and nobody can copy what they have not computed. Statement and payload are
artifacts, uploaded when the phase has closed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, TypeVar

from pydantic import Field, ValidationError

from protocol.artifacts import Cid, require_artifact
from protocol.errors import MalformedMessage
from protocol.generation import Hex32, canonical_json
from protocol.synapse import Message, safe_text

M = TypeVar("M", bound=Message)
MAX_BYTES = 4096  # of a statement
COMMITMENT_PREFIX = "touchstone-train/"
COMMITMENT_VERSION = 1

Profile = Annotated[str, Field(pattern=r"^(tolerant|exact)$")]

_COMMITMENT = re.compile(rf"{COMMITMENT_PREFIX}{COMMITMENT_VERSION}:(0|[1-9][0-9]{{0,9}}):(b[a-z2-7]{{58}})", re.ASCII)


class Statement(Message):
    """One miner's window. Hashes are 64 hex digits.

    `base`: root of the model that training started from. `payload`: artifact of the encoded contribution. `trace`,
    `states`: root and number of the state digests, see `trace`. `before`, `after`: artifacts of the error buffer
    (float32, little-endian) as the window found it, None when it was empty, and as it left it; an audit opens them.
    """

    window: int = Field(ge=0, lt=10**10)
    miner: str = Field(min_length=1, max_length=64)
    base: Hex32
    payload: Cid
    profile: Profile
    trace: Hex32
    states: int = Field(ge=1, le=2**20)
    before: Cid | None
    after: Cid

    def encode(self) -> bytes:
        return canonical_json(self)

    @staticmethod
    def parse(data: bytes) -> Statement:
        """Inverse of `encode`. Raises MalformedMessage for anything else."""
        return parse_canonical(Statement, data, MAX_BYTES)


def parse_canonical(kind: type[M], data: bytes, most: int) -> M:
    """A message from its canonical JSON, at most `most` bytes. Raises MalformedMessage for anything else."""
    if len(data) > most:
        raise MalformedMessage(f"a {kind.__name__} has at most {most} bytes")
    try:
        found = kind.model_validate_json(data)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, problem["loc"])) or "form" for problem in error.errors())
        raise MalformedMessage(safe_text(f"not a {kind.__name__}: {fields}")) from None
    if canonical_json(found) != data:
        raise MalformedMessage(f"the {kind.__name__} is not in its canonical form")
    return found


@dataclass(frozen=True)
class TrainCommitment:
    """What a miner commits on chain for a window: `cid` names the bytes of its statement."""

    window: int
    cid: str

    def encode(self) -> str:
        """`touchstone-train/1:<window>:<cid>`, ASCII, at most 93 characters (a Raw field of the chain holds 128)."""
        return f"{COMMITMENT_PREFIX}{COMMITMENT_VERSION}:{self.window}:{self.cid}"

    @staticmethod
    def parse(text: str) -> TrainCommitment:
        """Inverse of `encode`. Raises MalformedMessage for anything else."""
        found = _COMMITMENT.fullmatch(text)
        if found is None:
            raise MalformedMessage(f"not a training commitment of version {COMMITMENT_VERSION}")
        require_artifact(found[2])
        return TrainCommitment(int(found[1]), found[2])
