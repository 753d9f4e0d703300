"""The transcript of a dispute: what was asked, answered and signed, what the re-run gave, and who was wrong.

    transcript = Transcript.of(dispute, reruns)
    transcript.encode() / Transcript.parse(data)         canonical JSON, bounded; parse raises MalformedMessage
    problems = check(transcript, verify)                 all that needs no model: sentences, none when nothing is wrong

What `check` cannot see is whether a re-run gives what is written down, and whether the terms are those of the chain:
whoever has the recipe, the model and the data repeats the re-run, which is a few steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from protocol.artifacts import Manifest
from protocol.errors import MalformedMessage
from protocol.evidence import SignatureCheck
from protocol.generation import canonical_json
from protocol.synapse import KIB, decode
from protocol.training.dispute import (
    MAX_ROUNDS,
    NAMES,
    Answer,
    By,
    Claim,
    Dispute,
    Record,
    Reruns,
    Round,
    Ruling,
    Terms,
    Wrong,
    settle,
)
from protocol.training.opening import TRAIN_TRACE, AskState, TraceAnswer
from protocol.training.statement import Statement, parse_canonical

MAX_BYTES = 512 * KIB  # an answer has 3 KB at most, and there are two in a round


class Transcript(Record):
    version: Literal[1] = 1
    terms: Terms
    claims: tuple[Claim, Claim]
    by: By
    rounds: tuple[Round, ...] = Field(max_length=MAX_ROUNDS)
    reruns: Reruns
    wrong: Wrong
    why: str = Field(max_length=4000)

    @staticmethod
    def of(dispute: Dispute, reruns: Reruns) -> Transcript:
        """Raises ValueError for a dispute that is not over."""
        found = settle(dispute, reruns)
        return Transcript(
            terms=dispute.terms, claims=dispute.claims, by=dispute.by, rounds=dispute.rounds, reruns=reruns,
            wrong=found.wrong, why=found.why,
        )  # fmt: skip

    @property
    def dispute(self) -> Dispute:
        """Raises ValueError for rounds that no dispute has."""
        found = Dispute(self.terms, self.claims, self.by)
        for one in self.rounds:
            found = found.after(one)
        return found

    @property
    def ruling(self) -> Ruling:
        """What follows from the rounds and the re-runs. Raises ValueError."""
        return settle(self.dispute, self.reruns)

    def encode(self) -> bytes:
        return canonical_json(self)

    @staticmethod
    def parse(data: bytes) -> Transcript:
        """Inverse of `encode`; one newline at the end is forgiven. Raises MalformedMessage for anything else."""
        return parse_canonical(Transcript, data.removesuffix(b"\n"), MAX_BYTES)


def check(transcript: Transcript, verify: SignatureCheck) -> list[str]:
    """What is wrong with it. `verify(hotkey, payload, signature, scheme)` checks one signature."""
    problems = [*_claims(transcript)]
    for one in transcript.rounds:
        for party, answer in enumerate(one.answers):
            if answer is not None and not one.missing[party]:
                told = _answer(transcript, transcript.claims[party], one.index, answer, verify)
                problems += [f"state {one.index}, {NAMES[party]}: {problem}" for problem in told]
    try:
        found = transcript.ruling
    except ValueError as error:
        return [*problems, f"these are not the rounds of a dispute: {error}"]
    if (found.wrong, found.why) != (transcript.wrong, transcript.why):
        problems.append(f"it says {transcript.wrong}, and from what it holds follows {found.wrong}: {found.why}")
    return problems


def _claims(transcript: Transcript) -> Iterator[str]:
    terms = transcript.terms
    for party, claim in enumerate(transcript.claims):
        if claim.statement is None:
            if claim.hotkey == terms.miner:
                yield f"{NAMES[party]}: the miner's own statement is missing"
            continue
        try:
            said = Statement.parse(claim.statement)
        except MalformedMessage as error:
            yield f"{NAMES[party]}: {error}"
            continue
        wanted = (claim.hotkey, terms.miner, terms.window, terms.base, terms.states, claim.trace)
        if (said.miner, said.miner, said.window, said.base, said.states, said.trace) != wanted:
            yield f"{NAMES[party]}: the statement is another one's, or of something else"


def _answer(transcript: Transcript, claim: Claim, index: int, answer: Answer, verify: SignatureCheck) -> Iterator[str]:
    if not answer.under(claim, index, transcript.terms.states):
        yield "the opening is not under the root"
    exchange = answer.exchange
    if exchange is None:
        if claim.hotkey:
            yield "nothing was signed"
        return
    if (exchange.method, exchange.path, exchange.status, exchange.streamed) != ("POST", TRAIN_TRACE.route, 200, False):
        yield f"not an answer with status 200 to {TRAIN_TRACE.route}"
        return
    if exchange.receiver != claim.hotkey:
        yield "it was signed by somebody else"
    try:
        asked, said = decode(AskState, exchange.request_body), decode(TraceAnswer, exchange.response_body)
    except MalformedMessage as error:
        yield str(error)
        return
    statement = Manifest.of(claim.statement).cid if claim.statement is not None else None
    if (asked.window, asked.miner, asked.index) != (transcript.terms.window, transcript.terms.miner, index):
        yield "something else was asked"
    if (said.digest, said.path, said.trace, said.statement) != (answer.digest, answer.path, claim.trace, statement):
        yield "something else was answered"
    if not verify(exchange.sender, exchange.request_payload, exchange.request_signature, exchange.request_scheme):
        yield "the signature of the question does not hold"
    if not verify(exchange.receiver, exchange.response_payload, exchange.response_signature, exchange.response_scheme):
        yield "the signature of the answer does not hold"
