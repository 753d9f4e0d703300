"""Evidence of mechanism 1: what one verdict on a contribution stands on, signed by the validator that gave it.

    evidence = decode_evidence(data)              # strict and bounded; EvidenceError for anything else
    evidence.digest                               # its name: what it is stored and asked for by
    problems = check(evidence, verify)            # all that needs no chain and no model; empty: nothing is wrong
    is_training(data)                             # whether a file means to be this, and not evidence of mechanism 0

The statement is carried; everything large is named by hash: payload and buffers by the statement, the model by the
record of the window before, data by the recipe. The validator puts what it rejected into its own store, so whoever
looks again finds it at `locations`; what is fetched has the right hash or is refused.

That the miner is accused of its own words rests on one of two things. A miner that was audited has signed which
statement its window's is (`answer`). And the chain held the commitment at the end of `commit`, as of `promise.read_at`:
nodes keep the state of the last 256 blocks, archive nodes all of it. Block hashes, and the records that the model came
from, can be asked of any node. What follows from these is in findings.py.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from protocol.artifacts import Cid, Manifest
from protocol.auth import DEFAULT_SCHEME, SignedExchange
from protocol.errors import MalformedMessage
from protocol.evidence import SignatureCheck, canonical, read_as, written
from protocol.generation import Hex32
from protocol.locations import LOCATION_BYTES
from protocol.synapse import KIB, Message, decode
from protocol.training import statement as statements
from protocol.training.judging import Reason, Verdict
from protocol.training.opening import TRAIN_OPEN, AskOpen, OpenAnswer
from protocol.training.records import Included
from protocol.verdicts import Outcome

MAX_EVIDENCE_BYTES = 64 * KIB  # the statement and the exchange are the largest parts, some 8 KiB in base64 and less
KIND = "training"

Hotkey = Annotated[str, Field(min_length=1, max_length=64)]
Block = Annotated[int, Field(ge=0, lt=2**32)]
Place = Annotated[str, Field(max_length=LOCATION_BYTES)]


class Promise(Message):
    """What the miner had committed on chain when `commit` closed: `statement`, in `block`; read as of `read_at`."""

    statement: Cid
    block: Block
    read_at: Block


class TrainEvidence(Message):
    """One verdict and what it stands on. `validator` is the hotkey that gave it and signs.

    `genesis`, `netuid`, `recipe`: which training. `base`: root of the shared model, which `record`, that of the window
    before, leads to (None before the first). `earlier`: the last statement of the miner that entered the model, as far
    as the verdict looked at it. `assign`, `reveal`: hashes of the first blocks of these phases; the one gives the data,
    the other says what of two contributions is compared. `like`: for a copy, a contribution that keeps the same.
    `answer`: what the miner signed when it was asked to open. `judged_at`: seconds since the epoch, by the validator's
    clock.
    """

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    kind: Literal["training"] = "training"
    version: Literal[1] = 1
    genesis: Hex32
    netuid: int = Field(ge=1, le=65535)
    recipe: Cid
    window: int = Field(ge=0, lt=10**10)
    validator: Hotkey
    miner: Hotkey
    promise: Promise
    statement: bytes = Field(max_length=statements.MAX_BYTES)
    answer: SignedExchange | None
    base: Hex32
    record: Cid | None
    earlier: Cid | None
    assign: Hex32
    reveal: Hex32
    like: Included | None
    verdict: Verdict
    locations: tuple[Place, ...] = Field(max_length=4)
    judged_at: float = Field(ge=0.0, le=1e11)
    scheme: Literal["sr25519", "ed25519"] = DEFAULT_SCHEME  # type: ignore[assignment]
    signature: bytes = Field(default=b"", max_length=64)

    @property
    def digest(self) -> str:
        """64 hex digits over everything but the signature."""
        unsigned = canonical(self, {"scheme", "signature"})
        return hashlib.sha256(b"touchstone/training/evidence/v1\x00" + unsigned).hexdigest()

    @property
    def signed_payload(self) -> bytes:
        """The bytes under `signature`: newline-joined, as everything a hotkey signs here (protocol/auth.py)."""
        return "\n".join(("touchstone-train-evidence/1", self.scheme, self.digest, self.validator)).encode()

    def to_json(self) -> bytes:
        """The one form of this evidence in bytes: canonical JSON. Raises EvidenceError when it is too large."""
        return written(self, MAX_EVIDENCE_BYTES)


def is_training(data: bytes) -> bool:
    """Whether these bytes mean to be evidence of mechanism 1; whether they are, `decode_evidence` says."""
    if len(data) > MAX_EVIDENCE_BYTES + 1:
        return False
    try:
        plain: Any = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(plain, dict) and plain.get("kind") == KIND


def decode_evidence(data: bytes) -> TrainEvidence:
    """Inverse of `to_json`; one newline at the end is forgiven. Raises EvidenceError for everything else."""
    return read_as(TrainEvidence, data, MAX_EVIDENCE_BYTES)


class Code(str, Enum):
    """What is wrong with evidence. Stable: shown and counted, never renamed."""

    VALIDATOR_SIGNATURE = "validator_signature"  # the validator did not sign this evidence
    OUTCOME = "outcome"  # no conclusive verdict, or a reason that contradicts the outcome
    STATEMENT = "statement"  # the statement is not the one that was committed to
    PROMISE = "promise"  # committed after the chain was read, or read at another block than the clock says
    START = "start"  # a first window with a record before it, or another one with none
    LIKE = "like"  # a copy of nobody, or somebody named who is not copied
    HOTKEYS = "hotkeys"  # the answer is not one of this miner to this validator
    ROUTE = "route"  # it does not answer the request to open
    REQUEST_SIGNATURE = "request_signature"  # the validator did not sign the request
    RESPONSE_SIGNATURE = "response_signature"  # the miner did not sign the answer
    ANSWER_DIFFERS = "answer_differs"  # the answer is about another window, or opens another statement
    CHAIN = "chain"  # the chain says something else than the evidence
    RECORD = "record"  # the record leads to another model, or the miner's earlier statement is another

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Problem:
    """`detail` is a sentence for people."""

    code: Code
    detail: str


def check(evidence: TrainEvidence, verify: SignatureCheck) -> list[Problem]:
    """Everything that can be checked with neither chain nor model: signatures, and that all parts belong together.

    `verify(hotkey, payload, signature, scheme)` checks one signature.
    """
    problems = [Problem(code, detail) for code, detail in _contradictions(evidence)]
    if not verify(evidence.validator, evidence.signed_payload, evidence.signature, evidence.scheme):
        problems.append(Problem(Code.VALIDATOR_SIGNATURE, "the validator's signature does not hold"))
    if evidence.answer is not None:
        found = _check_answer(evidence, evidence.answer, verify)
        problems += [Problem(code, detail) for code, detail in found]
    return problems


def _contradictions(evidence: TrainEvidence) -> list[tuple[Code, str]]:
    verdict, promise, problems = evidence.verdict, evidence.promise, []
    if verdict.outcome is Outcome.INCONCLUSIVE or verdict.reason is Reason.UNCHECKED:
        problems.append((Code.OUTCOME, "an inconclusive verdict claims nothing that could be recomputed"))
    elif (verdict.outcome is Outcome.ACCEPT) != (verdict.reason is Reason.OK):
        problems.append((Code.OUTCOME, f"reason {verdict.reason} contradicts outcome {verdict.outcome}"))
    if Manifest.of(evidence.statement).cid != promise.statement:
        problems.append((Code.STATEMENT, "the statement is not the one that was committed to"))
    if promise.block > promise.read_at:
        problems.append((Code.PROMISE, f"committed in block {promise.block}, after block {promise.read_at}"))
    if (evidence.record is None) != (evidence.window == 0):
        problems.append((Code.START, "every window but the first has a record before it"))
    copied = evidence.like.miner if evidence.like else None
    if (verdict.reason is Reason.COPY) != (copied is not None) or copied == evidence.miner:
        problems.append((Code.LIKE, "a copy is one of somebody else's contribution, and nothing else is"))
    return problems


def _check_answer(evidence: TrainEvidence, answer: SignedExchange, verify: SignatureCheck) -> list[tuple[Code, str]]:
    problems = []
    if (answer.sender, answer.receiver) != (evidence.validator, evidence.miner):
        problems.append((Code.HOTKEYS, "the answer is not one of this miner to this validator"))
    if (answer.method, answer.path, answer.status, answer.streamed) != ("POST", TRAIN_OPEN.route, 200, False):
        problems.append((Code.ROUTE, f"not an answer with status 200 to {TRAIN_OPEN.route}"))
        return problems
    try:
        asked, said = decode(AskOpen, answer.request_body), decode(OpenAnswer, answer.response_body)
        if (asked.window, said.statement) != (evidence.window, evidence.promise.statement):
            problems.append((Code.ANSWER_DIFFERS, f"the miner opened {said.statement} of window {asked.window}"))
    except MalformedMessage as error:
        problems.append((Code.ANSWER_DIFFERS, str(error)))
    if not verify(answer.sender, answer.request_payload, answer.request_signature, answer.request_scheme):
        problems.append((Code.REQUEST_SIGNATURE, "the validator's signature of the request does not hold"))
    if not verify(answer.receiver, answer.response_payload, answer.response_signature, answer.response_scheme):
        problems.append((Code.RESPONSE_SIGNATURE, "the miner's signature of the answer does not hold"))
    return problems
