"""What a second machine finds about a verdict, and how one validator asks another for evidence.

    before_model(evidence, problems, identity) or assess(evidence, look, own)    # the whole rule of `touchstone verify`
    assessment.finding                            # agrees, disagrees, refused or unchecked: never a pass by default

    VERDICT_LIST                                  # which verdicts do you have evidence of, about this miner?
    VERDICT_EVIDENCE                              # the evidence with this digest

A validator may hold stricter or laxer thresholds than the one that judged. `assess` therefore recomputes twice when
they differ: under the thresholds in the evidence, which must give the claimed verdict, and under the second machine's
own, which must give the same outcome. Without own thresholds the second question cannot be answered: unchecked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from pydantic import Field

from protocol.calibration import Calibration
from protocol.challenges import ModelIdentity
from protocol.evidence import MAX_EVIDENCE_BYTES, Evidence, Problem, differences, judge_again
from protocol.generation import Hex32
from protocol.synapse import KIB, Message, Synapse
from protocol.training.evidence import TrainEvidence
from protocol.verdicts import Outcome, Reason, Recomputation, Verdict

MAX_LISTED = 256


class Finding(str, Enum):
    """What `assess` says. Only `AGREES` is agreement."""

    AGREES = "agrees"  # the verdict follows from the evidence
    DISAGREES = "disagrees"  # it does not
    REFUSED = "refused"  # the evidence is not what it claims to be; see the problems
    UNCHECKED = "unchecked"  # this machine could not tell, and says why

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Assessment:
    """`verdict` is the recomputed one, if it came to that; `why` says in sentences what stands against agreement."""

    finding: Finding
    why: tuple[str, ...] = ()
    verdict: Verdict | None = None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class SecondLook:
    """A recomputation of every answer of the evidence, in order, and the thresholds whose slack it was made with."""

    calibration: Calibration | None
    recomputed: Sequence[Recomputation] = ()


def refused(problems: Sequence[Problem]) -> Assessment:
    """The finding when `evidence.check` found something; no model is needed to say so."""
    return Assessment(Finding.REFUSED, tuple(_said(problem) for problem in problems), None, tuple(problems))


def before_model(evidence: Evidence, problems: Sequence[Problem], identity: ModelIdentity) -> Assessment | None:
    """What can be said without recomputing; None when a recomputation is worth its time.

    `identity` is the model held here. Its root decides whether this machine can tell anything; the other facts the
    judge relies on (vocabulary, end-of-sequence tokens) follow from the root, so a challenge that states them
    otherwise is wrong, not different.
    """
    if problems:
        return refused(problems)
    for answer in evidence.answers:
        claimed = answer.challenge.model
        if (claimed.root, claimed.dtype) != (identity.root, identity.dtype):
            held = f"{identity.name} with root {identity.root[:16]}, {identity.dtype}"
            asked = f"{claimed.name} with root {claimed.root[:16]}, {claimed.dtype}"
            return Assessment(Finding.UNCHECKED, (f"this machine holds {held}; the evidence is about {asked}",))
        facts = ("vocab_size", "eos_ids", "context_length")
        wrong = [name for name in facts if getattr(claimed, name) != getattr(identity, name)]
        if wrong:
            return Assessment(
                Finding.DISAGREES, (f"the model has another {' and '.join(wrong)} than the challenge says",)
            )
    return None


def assess(evidence: Evidence, look: SecondLook, own: SecondLook | None) -> Assessment:
    """The finding, once `before_model` had nothing to say.

    `look` was made with the evidence's own thresholds, `own` with this machine's; None when it has none for the model.
    Neither is looked at for a reject for form, which needs no thresholds.
    """
    verdict = judge_again(evidence, look.recomputed, evidence.calibration)
    if verdict is None:
        return Assessment(Finding.DISAGREES, ("nothing is wrong with the form of the answer",))
    if verdict.reason is Reason.NOT_RECOMPUTED:
        return Assessment(Finding.UNCHECKED, (f"not recomputed: {verdict.detail}",), verdict)
    parted = differences(evidence.verdict, verdict, evidence.answers[0].challenge.model.dtype)
    if parted:
        return Assessment(Finding.DISAGREES, tuple(parted), verdict)
    if evidence.calibration is None:
        return Assessment(Finding.AGREES, (), verdict)
    if own is None or own.calibration is None:
        return Assessment(
            Finding.UNCHECKED,
            ("the verdict follows from its thresholds, and this machine has none to hold them against",),
            verdict,
        )
    if own.calibration != evidence.calibration:
        return _under_own(evidence, verdict, own)
    return Assessment(Finding.AGREES, (), verdict)


def _under_own(evidence: Evidence, verdict: Verdict, own: SecondLook) -> Assessment:
    second = judge_again(evidence, own.recomputed, own.calibration)
    assert second is not None  # only a reject for form has no verdict here
    if second.outcome is Outcome.INCONCLUSIVE:
        return Assessment(Finding.UNCHECKED, (f"not judged under this machine's thresholds: {second.detail}",), second)
    if second.outcome is not evidence.verdict.outcome:
        why = f"under this machine's thresholds it is {second.outcome}, {second.reason}: {second.detail}"
        return Assessment(Finding.DISAGREES, (why,), second)
    return Assessment(Finding.AGREES, (), verdict)


def _said(problem: Problem) -> str:
    where = "" if problem.answer is None else f" (answer {problem.answer})"
    return f"{problem.code}: {problem.detail}{where}"


class ListVerdicts(Message):
    """The newest verdicts about `miner` of which there is evidence, of whichever mechanism the validator judges;
    `outcome` narrows them."""

    miner: str = Field(max_length=64)
    outcome: Outcome | None = None
    limit: int = Field(default=20, ge=1, le=MAX_LISTED)


class ListedVerdict(Message):
    digest: Hex32  # of the evidence
    round: int  # the window, in mechanism 1
    outcome: Outcome
    reason: str = Field(max_length=64)  # a Reason, left as text so that a newer validator's code still decodes
    judged_at: float = Field(ge=0.0, le=1e11)  # seconds since the epoch


class VerdictList(Message):
    """Newest first."""

    verdicts: tuple[ListedVerdict, ...] = Field(max_length=MAX_LISTED)


class AskEvidence(Message):
    digest: Hex32


class EvidenceAnswer(Message):
    """`evidence` is None when there is none with that digest (any more)."""

    evidence: Evidence | TrainEvidence | None


VERDICT_LIST: Synapse[ListVerdicts, VerdictList] = Synapse(
    name="verdict_list",
    version=1,
    request=ListVerdicts,
    response=VerdictList,
    max_request_bytes=4 * KIB,
    max_response_bytes=256 * KIB,
    timeout=10.0,
)

VERDICT_EVIDENCE: Synapse[AskEvidence, EvidenceAnswer] = Synapse(
    name="verdict_evidence",
    version=1,
    request=AskEvidence,
    response=EvidenceAnswer,
    max_request_bytes=1 * KIB,
    max_response_bytes=MAX_EVIDENCE_BYTES + 1 * KIB,
    timeout=30.0,
)
