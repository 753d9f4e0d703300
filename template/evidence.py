"""Evidence as the machinery handles it: made and kept by a validator, served to others, recomputed by anyone.

    keep_round(ledger, hotkey, answers, judged, calibration)     # sign and store evidence of a round's verdicts
    make_evidence(hotkey, signed, verdict, calibration, now)     # one piece; raises EvidenceError
    EvidenceService(ledger).attach_to(server)                    # VERDICT_LIST and VERDICT_EVIDENCE
    ask_list(client, target, miner), ask_evidence(client, target, digest)     # the other side of it
    recheck(evidence, identity, own, recompute)                  # an Assessment; `protocol.disputes` has the rule

Evidence is checked before it is stored, with the same `protocol.evidence.check` that everybody else applies: what a
validator could not show to others is an error in its log at once, not in a dispute later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from protocol.auth import SignedExchange
from protocol.calibration import Calibration
from protocol.challenges import Challenge, ModelIdentity
from protocol.disputes import (
    VERDICT_EVIDENCE,
    VERDICT_LIST,
    AskEvidence,
    Assessment,
    EvidenceAnswer,
    ListedVerdict,
    ListVerdicts,
    SecondLook,
    VerdictList,
    assess,
    before_model,
)
from protocol.errors import EvidenceError, ExchangeError
from protocol.evidence import POOLED_REASONS, Evidence, SignedAnswer, check, read_answer
from protocol.generation import GenerateResponse
from protocol.sampling import Slack
from protocol.training.evidence import TrainEvidence
from protocol.verdicts import Outcome, Recomputation, Verdict
from template.client import SynapseClient, Target
from template.errors import TemplateError
from template.keys import Hotkey, verify
from template.ledger import KeptEvidence, Ledger
from template.rounds import Answer, Judged
from template.server import Caller, SynapseServer

log = logging.getLogger(__name__)

Pair: TypeAlias = tuple[Challenge, GenerateResponse]
Recompute: TypeAlias = Callable[[Slack, Sequence[Pair]], Sequence[Recomputation]]


def make_evidence(
    hotkey: Hotkey, signed: Sequence[SignedAnswer], verdict: Verdict, calibration: Calibration | None, now: float
) -> Evidence:
    """Evidence of one verdict, signed by its validator. `signed`: the answers it stands on, oldest first.

    `calibration` are the thresholds the verdict names; they are left out when it names none. Raises EvidenceError when
    something in it would not hold elsewhere.
    """
    needed = calibration if verdict.calibration else None
    unsigned = Evidence(
        validator=hotkey.ss58,
        answers=tuple(signed),
        calibration=needed,
        verdict=verdict,
        judged_at=now,
        scheme=hotkey.scheme,  # type: ignore[arg-type]
    )
    evidence = unsigned.model_copy(update={"signature": hotkey.sign(unsigned.signed_payload)})
    problems = check(evidence, verify)
    if problems:
        raise EvidenceError(f"{problems[0].code}: {problems[0].detail}")
    return evidence


def keep_round(
    ledger: Ledger, hotkey: Hotkey, answers: Sequence[Answer], judged: Judged, calibration: Calibration | None
) -> int:
    """Sign and store evidence of every conclusive verdict of a round; how many. Blocking; call it after `record`.

    Whatever cannot be shown to others is logged: the verdict stands, but nobody else can recheck it.
    """
    made = []
    for answer in answers:
        miner = answer.challenge.miner
        verdict = judged.verdicts.get(miner)
        if answer.reply is None or verdict is None or verdict.outcome is Outcome.INCONCLUSIVE:
            continue
        try:
            if verdict.reason in POOLED_REASONS:
                signed = pool_answers(ledger, judged.stood_on[miner])
            else:
                signed = [SignedAnswer(challenge=answer.challenge, exchange=answer.reply.exchange)]
            evidence = make_evidence(hotkey, signed, verdict, calibration, answer.received_at)
            evidence.to_json()  # refuses what is too large
        except EvidenceError as error:
            log.error("no evidence of the %s of %s: %s", verdict.outcome, miner, error)
            continue
        made.append(evidence)
    ledger.record_evidence(made)
    return len(made)


def pool_answers(ledger: Ledger, digests: Sequence[str]) -> list[SignedAnswer]:
    """What was signed about the challenges of a pool, oldest first. Raises EvidenceError when one is not kept."""
    signed = []
    for digest in digests:
        try:
            entry = ledger.entry(digest)
        except KeyError:
            raise EvidenceError(f"answer {digest} of the pool is not in the ledger any more") from None
        if entry.received is None:
            raise EvidenceError(f"answer {digest} of the pool was never received")
        try:
            exchange = SignedExchange.from_json(entry.received.envelope)
        except ExchangeError as error:
            raise EvidenceError(f"answer {digest} of the pool cannot be read: {error}") from None
        signed.append(SignedAnswer(challenge=entry.challenge, exchange=exchange))
    return signed


class EvidenceLedger(Protocol):
    """What is asked of a ledger, whichever mechanism it is of. Methods block, and raise TemplateError."""

    def list_evidence(self, miner: str | None, outcome: str | None, limit: int) -> Sequence[KeptEvidence]: ...

    def evidence(self, digest: str) -> Evidence | TrainEvidence | None: ...


@dataclass(frozen=True)
class EvidenceService:
    """Answers other validators out of a ledger."""

    ledger: EvidenceLedger

    def attach_to(self, server: SynapseServer) -> None:
        server.attach(VERDICT_LIST, self.list)
        server.attach(VERDICT_EVIDENCE, self.give)

    async def list(self, request: ListVerdicts, caller: Caller) -> VerdictList:
        outcome = request.outcome.value if request.outcome else None
        kept = await asyncio.to_thread(self.ledger.list_evidence, request.miner, outcome, request.limit)
        return VerdictList(
            verdicts=tuple(
                ListedVerdict(
                    digest=each.digest,
                    round=each.round,
                    outcome=Outcome(each.outcome),
                    reason=each.reason,
                    judged_at=each.judged_at,
                )
                for each in kept
            )
        )

    async def give(self, request: AskEvidence, caller: Caller) -> EvidenceAnswer:
        return EvidenceAnswer(evidence=await asyncio.to_thread(self.ledger.evidence, request.digest))


def recheck(evidence: Evidence, identity: ModelIdentity, own: Calibration | None, recompute: Recompute) -> Assessment:
    """What this machine finds about a verdict. Blocking, for as long as one prefill over every answer takes.

    `identity`: the model held here; `own`: this machine's thresholds for it, if any; `recompute(slack, pairs)` is one
    prefill with the given slack, in order.
    """
    early = before_model(evidence, check(evidence, verify), identity)
    if early is not None:
        return early
    if evidence.calibration is None:  # a reject for form: nothing to recompute
        return assess(evidence, SecondLook(None), None)
    pairs = [(answer.challenge, read_answer(answer.exchange)[0]) for answer in evidence.answers]
    look = SecondLook(evidence.calibration, recompute(evidence.calibration.slack, pairs))
    if own is None:
        return assess(evidence, look, None)
    same_slack = own.slack == evidence.calibration.slack
    return assess(evidence, look, SecondLook(own, look.recomputed if same_slack else recompute(own.slack, pairs)))


class EvidenceUnavailable(TemplateError):
    """A validator does not give the evidence asked for, or gave something else."""


async def ask_list(
    client: SynapseClient, target: Target, miner: str, *, outcome: Outcome | None = None, limit: int = 20
) -> tuple[ListedVerdict, ...]:
    """The verdicts about `miner` that another validator has evidence of, newest first. Raises CallFailed."""
    reply = await client.call(target, VERDICT_LIST, ListVerdicts(miner=miner, outcome=outcome, limit=limit))
    return reply.response.verdicts


async def ask_evidence(client: SynapseClient, target: Target, digest: str) -> Evidence | TrainEvidence:
    """Evidence of a verdict of another validator: what was asked for, or EvidenceUnavailable. Raises CallFailed.

    That its signatures hold is for `recheck` to find out (of mechanism 1: template/training/recheck.py).
    """
    reply = await client.call(target, VERDICT_EVIDENCE, AskEvidence(digest=digest), deadline=60.0)
    found = reply.response.evidence
    if found is None:
        raise EvidenceUnavailable(
            f"{target.hotkey} has no evidence {digest}",
            remedy="list what it has; old evidence goes with the answers it is about",
        )
    if found.digest != digest or found.validator != target.hotkey:
        raise EvidenceUnavailable(f"{target.hotkey} answered with other evidence than {digest}")
    return found
