"""How a validator asks a miner to open what it committed to: the error buffers of a window, for an audit.

TRAIN_OPEN     AskOpen(window) -> OpenAnswer: the artifacts named `before` and `after` in the statement are in the
               miner's store now. They are large, so they travel as artifacts and not in the answer.
"""

from __future__ import annotations

from pydantic import Field

from protocol.artifacts import Cid
from protocol.synapse import KIB, Message, Synapse


class AskOpen(Message):
    window: int = Field(ge=0, lt=10**10)


class OpenAnswer(Message):
    """`statement`: the one whose buffers were opened."""

    statement: Cid


TRAIN_OPEN: Synapse[AskOpen, OpenAnswer] = Synapse(
    "train_open", 1, AskOpen, OpenAnswer, max_request_bytes=KIB, max_response_bytes=4 * KIB, timeout=120.0
)
