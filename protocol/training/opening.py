"""What a miner shows of a finished window when it is asked: its error buffers to an audit, its states to a dispute.

TRAIN_OPEN     AskOpen(window) -> OpenAnswer: the artifacts named `before` and `after` in the statement are in the
               miner's store now. They are large, so they travel as artifacts and not in the answer.
TRAIN_TRACE    AskState(window, miner, index) -> TraceAnswer: the digest of one state, and its way to the root
TRAIN_STATE    AskState(window, miner, index) -> StateAnswer: the state itself is in the miner's store now, as `state`

`miner` says whose window. When it is another than the one who is asked, the question is what that window's training
gives: who is asked repeats it and answers for the repetition. A state that is not kept has to be computed first; until
it is there the answer is a refusal, `busy`.
"""

from __future__ import annotations

from pydantic import Field

from protocol.artifacts import Cid
from protocol.generation import Hex32
from protocol.synapse import KIB, Message, Synapse
from protocol.training.trace import MAX_STATES

MAX_PATH = MAX_STATES.bit_length()


class AskOpen(Message):
    window: int = Field(ge=0, lt=10**10)


class OpenAnswer(Message):
    """`statement`: the one whose buffers were opened."""

    statement: Cid


class AskState(Message):
    """State `index` of the trace of `miner`'s window; see trace.py."""

    window: int = Field(ge=0, lt=10**10)
    miner: str = Field(min_length=1, max_length=64)
    index: int = Field(ge=0, lt=MAX_STATES)


class TraceAnswer(Message):
    """`trace`, `states`: root and number of the digests. `statement`: the one that says so, None for a repetition."""

    trace: Hex32
    states: int = Field(ge=1, le=MAX_STATES)
    statement: Cid | None
    digest: Hex32
    path: tuple[Hex32, ...] = Field(max_length=MAX_PATH)


class StateAnswer(Message):
    """`state`: artifact of parameters, first and second moments, float32, little-endian, one after the other."""

    trace: Hex32
    statement: Cid | None
    state: Cid


TRAIN_OPEN: Synapse[AskOpen, OpenAnswer] = Synapse(
    "train_open", 1, AskOpen, OpenAnswer, max_request_bytes=KIB, max_response_bytes=4 * KIB, timeout=120.0
)
TRAIN_TRACE: Synapse[AskState, TraceAnswer] = Synapse(
    "train_trace", 1, AskState, TraceAnswer, max_request_bytes=KIB, max_response_bytes=4 * KIB, timeout=60.0
)
TRAIN_STATE: Synapse[AskState, StateAnswer] = Synapse(
    "train_state", 1, AskState, StateAnswer, max_request_bytes=KIB, max_response_bytes=4 * KIB, timeout=60.0
)
