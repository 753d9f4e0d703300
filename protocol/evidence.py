"""Evidence: everything from which anyone can recompute one verdict, signed by the validator that gave it.

    evidence = decode_evidence(data)              # strict and bounded; EvidenceError for anything else
    evidence.digest                               # its name: what it is stored and asked for by
    problems = check(evidence, verify)            # all that needs no model; an empty list means nothing is wrong
    verdict = judge_again(evidence, recomputed, calibration)      # what the same rules say about a recomputation
    differences(evidence.verdict, verdict, dtype)        # where the two part; empty when they agree

An ordinary verdict stands on one answer, a pooled one on every answer of the pool. Each answer is a challenge and the
signed bytes of both sides, so that neither the validator nor the miner can say later that it said something else; the
validator's signature over the digest binds it to the verdict. Evidence has one form in bytes (`to_json`): a file that
decodes to the same values but is written otherwise is refused, so that a digest names one file.

What evidence cannot show: that the validator kept nothing back. A pooled verdict names the answers it stands on, and a
validator that left out the good ones between them can only be found out by somebody who holds those.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocol.auth import DEFAULT_SCHEME, SignedExchange
from protocol.calibration import FLOORS, Calibration
from protocol.challenges import Challenge
from protocol.errors import EvidenceError, MalformedMessage, StreamError
from protocol.generation import INFERENCE_GENERATE, DType, GenerateChunk, GenerateRequest, GenerateResponse
from protocol.stream import Frame, FrameParser, Kind
from protocol.synapse import MIB, Message, decode, safe_text
from protocol.verdicts import (
    Outcome,
    Pool,
    Reason,
    Recomputation,
    Recomputed,
    Verdict,
    check_form,
    judge,
    judge_pool,
)

MAX_EVIDENCE_BYTES = 8 * MIB
"""Largest evidence that is made or read. One answer takes 6 to 11 KB with the model and prompts of
this release, so a pool of 4,096 tokens in answers of 32 about 1 MB, and in answers of 8 about 5 MB."""
MAX_ANSWERS = 4096  # a pool holds at most that many tokens, and an answer at least one

AnyEvidence = TypeVar("AnyEvidence", bound=BaseModel)  # of either mechanism
SignatureCheck: TypeAlias = Callable[[str, bytes, bytes, str], bool]  # hotkey, payload, signature, scheme

RELATIVE_TOLERANCE = 0.05
MATCH_TOLERANCE = 0.1  # share of tokens that win outright; a near tie falls to either side
COUNT_TOLERANCES: Mapping[DType, float] = {"float32": 1.0, "float16": 2.0, "bfloat16": 4.0}
"""Tokens that may pass from one side of a limit to the other between two machines: those that lie on it."""


POOLED_REASONS = frozenset({Reason.POOLED_MARGIN})


class _Record(Message):
    """Part of evidence: bytes travel as base64url, as RFC 4648 section 5 writes it."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class SignedAnswer(_Record):
    """One challenge, and what both sides signed about it."""

    challenge: Challenge
    exchange: SignedExchange


class Evidence(_Record):
    """One verdict and what it stands on. `validator` is the hotkey that gave it and signs; `judged_at` its clock, in
    seconds since the epoch. `calibration` is None for a reject for form alone, which needs no thresholds.

    Answers of a pool are oldest first; an ordinary verdict has exactly one.
    """

    version: Literal[1] = 1
    validator: str = Field(max_length=64)
    answers: tuple[SignedAnswer, ...] = Field(min_length=1, max_length=MAX_ANSWERS)
    calibration: Calibration | None
    verdict: Verdict
    judged_at: float = Field(ge=0.0, le=1e11)
    scheme: Literal["sr25519", "ed25519"] = DEFAULT_SCHEME  # type: ignore[assignment]
    signature: bytes = Field(default=b"", max_length=64)

    @property
    def digest(self) -> str:
        """64 hex digits over everything but the signature."""
        unsigned = canonical(self, {"scheme", "signature"})
        return hashlib.sha256(b"touchstone/evidence/v1" + unsigned).hexdigest()

    @property
    def signed_payload(self) -> bytes:
        """The bytes under `signature`: newline-joined, as everything a hotkey signs here (protocol/auth.py)."""
        return "\n".join(("touchstone-evidence/1", self.scheme, self.digest, self.validator)).encode()

    @property
    def pooled(self) -> bool:
        return self.verdict.reason in POOLED_REASONS

    @property
    def miner(self) -> str:
        return self.answers[-1].challenge.miner

    @property
    def round(self) -> int:
        return self.answers[-1].challenge.round

    def to_json(self) -> bytes:
        """The one form of this evidence in bytes: canonical JSON. Raises EvidenceError when it is too large."""
        return written(self, MAX_EVIDENCE_BYTES)


def written(evidence: BaseModel, most: int) -> bytes:
    """The one form of evidence of either mechanism in bytes. Raises EvidenceError for more than `most` of them."""
    data = canonical(evidence, set())
    if len(data) > most:
        raise EvidenceError(f"evidence of {len(data)} bytes is above the limit of {most}")
    return data


def canonical(evidence: BaseModel, without: set[str]) -> bytes:
    """Sorted keys, no spaces, ASCII, shortest floats, bytes in base64url: as `generation.canonical_json`."""
    plain = evidence.model_dump(mode="json", exclude=without)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def decode_evidence(data: bytes) -> Evidence:
    """Inverse of `Evidence.to_json`; one newline at the end is forgiven. Raises EvidenceError for everything else."""
    return read_as(Evidence, data, MAX_EVIDENCE_BYTES)


def read_as(kind: type[AnyEvidence], data: bytes, most: int) -> AnyEvidence:
    """Inverse of `written`, for evidence of this kind; one newline at the end is forgiven. Raises EvidenceError."""
    data = data.removesuffix(b"\n")
    if len(data) > most:
        raise EvidenceError(f"{len(data)} bytes are more than evidence may have ({most})")
    try:
        evidence = kind.model_validate_json(data)
        same = written(evidence, most) == data
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise EvidenceError(safe_text(f"not evidence: {where}: {first['msg']}")) from None
    except (ValueError, RecursionError):  # text that UTF-8 cannot hold, numbers that are none, nesting without end
        raise EvidenceError("not evidence: it cannot be written down again") from None
    if not same:
        raise EvidenceError("not in the form evidence is written in (canonical JSON); export it again")
    return evidence


class Code(str, Enum):
    """What is wrong with evidence, before any model is asked. Stable: shown and counted, never renamed."""

    NUMBERS = "numbers"  # a number of the verdict is not finite
    VALIDATOR_SIGNATURE = "validator_signature"  # the validator did not sign this evidence
    ANSWERS = "answers"  # more than one answer where the verdict stands on one, or an answer counted twice
    HOTKEYS = "hotkeys"  # challenge, exchange and evidence name different neurons
    ROUTE = "route"  # the signed request is not this synapse's, or was not answered with a stream
    REQUEST_SIGNATURE = "request_signature"  # the validator did not sign the request
    RESPONSE_SIGNATURE = "response_signature"  # the miner did not sign the answer
    REQUEST_DIFFERS = "request_differs"  # the signed request is not the challenge's
    MODEL_DIFFERS = "model_differs"  # the challenge describes another model than its request asks for
    RESPONSE_MALFORMED = "response_malformed"  # the signed answer is not a whole stream of this synapse
    CHUNKS = "chunks"  # the streamed chunks do not follow each other
    OUTCOME = "outcome"  # no conclusive verdict, or a reason that contradicts the outcome
    CALIBRATION = "calibration"  # the thresholds are missing or not those the verdict names

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Problem:
    """`detail` is a sentence for people; `answer` numbers the answer it is about, if any."""

    code: Code
    detail: str
    answer: int | None = None


class Unreadable(EvidenceError):
    """A signed answer cannot be read; `code` says why."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


def check(evidence: Evidence, verify: SignatureCheck) -> list[Problem]:
    """Everything that can be checked without a model: signatures, form, and that all parts are about the same thing.

    `verify(hotkey, payload, signature, scheme)` checks one signature. The seed needs no check: it is derived from the
    challenge's request and miner (`Challenge.seed`), both of which are held against what was signed.
    """
    if not all(math.isfinite(value) for value in evidence.verdict.numbers.values()):
        return [Problem(Code.NUMBERS, "a number of the verdict is not finite")]
    problems = [*_check_verdict(evidence), *_check_set(evidence)]
    if not verify(evidence.validator, evidence.signed_payload, evidence.signature, evidence.scheme):
        problems.append(Problem(Code.VALIDATOR_SIGNATURE, "the validator's signature does not hold"))
    for index, answer in enumerate(evidence.answers):
        problems += [Problem(code, detail, index) for code, detail in _check_answer(answer, evidence, verify)]
    return problems


def _check_verdict(evidence: Evidence) -> list[Problem]:
    verdict, calibration = evidence.verdict, evidence.calibration
    problems = []
    if verdict.outcome is Outcome.INCONCLUSIVE:
        problems.append(Problem(Code.OUTCOME, "an inconclusive verdict claims nothing that could be recomputed"))
    if (verdict.outcome is Outcome.ACCEPT) != (verdict.reason is Reason.OK):
        problems.append(Problem(Code.OUTCOME, f"reason {verdict.reason} contradicts outcome {verdict.outcome}"))
    if verdict.calibration != (calibration.digest if calibration else ""):
        problems.append(Problem(Code.CALIBRATION, "the thresholds are not those the verdict names"))
    return problems


def _check_set(evidence: Evidence) -> list[Problem]:
    challenges = [answer.challenge for answer in evidence.answers]
    problems = []
    if len(challenges) > 1 and not evidence.pooled:
        problems.append(Problem(Code.ANSWERS, f"{len(challenges)} answers where the verdict stands on one"))
    if len({challenge.digest for challenge in challenges}) < len(challenges):
        problems.append(Problem(Code.ANSWERS, "an answer is counted more than once"))
    if [c.round for c in challenges] != sorted(c.round for c in challenges):
        problems.append(Problem(Code.ANSWERS, "the answers are not in the order of their rounds"))
    if len({challenge.miner for challenge in challenges}) > 1:
        problems.append(Problem(Code.HOTKEYS, "the answers are of different miners"))
    return problems


def _check_answer(answer: SignedAnswer, evidence: Evidence, verify: SignatureCheck) -> list[tuple[Code, str]]:
    challenge, exchange = answer.challenge, answer.exchange
    problems: list[tuple[Code, str]] = []
    if not challenge.validator == exchange.sender == evidence.validator or exchange.receiver != challenge.miner:
        problems.append((Code.HOTKEYS, "challenge, exchange and evidence name different neurons"))
    if (exchange.method, exchange.path) != ("POST", INFERENCE_GENERATE.route):
        problems.append((Code.ROUTE, f"the signed request is not one to {INFERENCE_GENERATE.route}"))
    if exchange.status != 200 or not exchange.streamed:
        problems.append((Code.ROUTE, "the signed response is not a stream with status 200"))
    request, model = challenge.request, challenge.model
    if (model.root, model.dtype) != (request.model_root, request.dtype):
        problems.append((Code.MODEL_DIFFERS, "the challenge describes another model than its request asks for"))
    if not verify(exchange.sender, exchange.request_payload, exchange.request_signature, exchange.request_scheme):
        problems.append((Code.REQUEST_SIGNATURE, "the validator's signature of the request does not hold"))
    try:
        if decode(GenerateRequest, exchange.request_body) != request:
            problems.append((Code.REQUEST_DIFFERS, "the signed request is not the challenge's"))
    except MalformedMessage as error:
        problems.append((Code.REQUEST_DIFFERS, str(error)))
    try:
        read_answer(exchange)
        payload = exchange.response_payload
    except (Unreadable, StreamError) as error:
        code = error.code if isinstance(error, Unreadable) else Code.RESPONSE_MALFORMED
        return [*problems, (code, str(error))]
    if not verify(exchange.receiver, payload, exchange.response_signature, exchange.response_scheme):
        problems.append((Code.RESPONSE_SIGNATURE, "the miner's signature of the answer does not hold"))
    return problems


def read_answer(exchange: SignedExchange) -> tuple[GenerateResponse, tuple[int, ...]]:
    """The closing response of a stored stream, and the tokens streamed before it. Raises Unreadable.

    Whether the two agree is for the judge: a miner that streams one text and closes with another is rejected for it.
    """
    frames = _frames(exchange.response_body)
    streamed: list[int] = []
    try:
        for frame in frames[:-1]:
            chunk = decode(GenerateChunk, frame.payload)
            if chunk.offset != len(streamed):
                raise Unreadable(Code.CHUNKS, f"a chunk at offset {chunk.offset} follows {len(streamed)} tokens")
            streamed.extend(chunk.token_ids)
        return decode(GenerateResponse, frames[-1].payload), tuple(streamed)
    except MalformedMessage as error:
        raise Unreadable(Code.RESPONSE_MALFORMED, str(error)) from None


def _frames(body: bytes) -> list[Frame]:
    """The frames of a whole stream without its seal, closed by an answer."""
    synapse = INFERENCE_GENERATE
    parser = FrameParser(synapse.max_chunk_bytes, max(len(body), 1))
    try:
        frames = parser.feed(body)
    except StreamError as error:
        raise Unreadable(Code.RESPONSE_MALFORMED, str(error)) from None
    if not frames or frames[-1].kind is not Kind.END or sum(len(frame.encode()) for frame in frames) != len(body):
        raise Unreadable(Code.RESPONSE_MALFORMED, "the stored frames do not end with an answer")
    return frames


def judge_again(
    evidence: Evidence, recomputed: Sequence[Recomputation], calibration: Calibration | None
) -> Verdict | None:
    """What the rules say about the same answers; None when a reject for form finds nothing wrong with the form.

    `recomputed` has one entry for each answer, in order; it is not looked at for a reject for form, which needs no
    thresholds (`evidence.calibration` is None). Call `check` first: raises Unreadable for an answer it would refuse.
    """
    if evidence.calibration is None:
        answer = evidence.answers[-1]
        return check_form(answer.challenge, *read_answer(answer.exchange))
    pool, verdict = Pool(), None
    for answer, result in zip(evidence.answers, recomputed, strict=True):
        response, streamed = read_answer(answer.exchange)
        verdict = judge(answer.challenge, response, result, calibration, streamed)
        if verdict.outcome is not Outcome.ACCEPT or not evidence.pooled:
            return verdict  # a pool holds accepted answers only
        assert isinstance(result, Recomputed) and calibration is not None  # or the judge could not have accepted
        pool = pool.add(answer.challenge.digest, result)
    assert calibration is not None
    return judge_pool(pool, calibration) or verdict


def differences(claimed: Verdict, recomputed: Verdict, dtype: DType) -> list[str]:
    """Where two verdicts part, as sentences; empty when they agree.

    Outcome and reason must be equal. The numbers may differ by what the arithmetic of two machines does in `dtype`
    (`_tolerance`). `detail` is text for people and not compared.
    """
    one, other = (f"{verdict.outcome}, {verdict.reason}" for verdict in (claimed, recomputed))
    if one != other:
        return [f"{one} was claimed; it is {other}"]
    if claimed.numbers.keys() != recomputed.numbers.keys():
        return ["the verdicts stand on different kinds of numbers"]
    pairs = {name: (value, recomputed.numbers[name]) for name, value in claimed.numbers.items()}
    return [
        f"{name} was claimed to be {was:g}; it is {now:g}"
        for name, (was, now) in pairs.items()
        if not abs(was - now) <= _tolerance(name, dtype, max(abs(was), abs(now)))  # NaN differs too
    ]


def _tolerance(name: str, dtype: DType, size: float) -> float:
    """The calibration's floors say what a machine's arithmetic does to one margin, one mean, one distance; twentieths
    of a large number are no other story. `tokens` is a count of what was signed and may not move at all."""
    floor = FLOORS[dtype]
    counts = dict.fromkeys(("lost", "cut"), COUNT_TOLERANCES[dtype])
    fixed = {"tokens": 0.0, "match": MATCH_TOLERANCE, **counts}
    if name in fixed:
        return fixed[name]
    figures = {"max": floor.margin, "last": floor.margin, "mean_clipped": floor.mean, "distance": floor.distance}
    return figures.get(name, 0.0) + RELATIVE_TOLERANCE * size
