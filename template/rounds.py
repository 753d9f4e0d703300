"""One round of mechanism 0, from the first request to the new scores.

    answers = await ask_all(client, plan, deadline=30, concurrency=64)      # never raises for what a peer does
    chosen = draw(answers, secret, rates)                                   # after the signed answers are in hand
    judged = await judge_all(verifier, calibration, answers, pools, chosen) # one prefill for all of them
    record(ledger, answers, judged); ledger.commit_round(...)               # what happened, then what it is worth

Every miner is asked at the same time and on its own clock; the slowest costs the round its deadline and nobody else
anything. An answer counts with what this validator measured: time to the first token, and tokens over the whole time,
so that neither a late start nor a burst at the end can look fast.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from protocol.audits import drawn
from protocol.errors import FailureCode
from protocol.inference import (
    INFERENCE_GENERATE,
    Calibration,
    Challenge,
    GenerateChunk,
    GenerateResponse,
    Outcome,
    Pool,
    Recomputed,
    Unchecked,
    Verdict,
    check_form,
    judge,
    judge_pool,
)
from protocol.scoring import Observation, ScoreState
from template.client import Reply, SynapseClient, Target
from template.errors import CallFailed, Failure
from template.ledger import Ledger, Organic, Received


class Recomputer(Protocol):
    """What verifies; see `template.inference.verifier.Verifier`."""

    async def recompute(self, pairs: Sequence[tuple[Challenge, GenerateResponse]]) -> list[Recomputed | Unchecked]: ...


@dataclass(frozen=True)
class Answer:
    """What one miner did with one challenge: exactly one of `reply` and `failure` is set. Times in seconds."""

    challenge: Challenge
    reply: Reply[GenerateResponse] | None = None
    failure: Failure | None = None
    streamed: tuple[int, ...] = ()
    first_token_s: float | None = None
    received_at: float = 0.0  # seconds since the epoch

    @property
    def tokens_per_s(self) -> float | None:
        if self.reply is None or self.reply.timing.total <= 0:
            return None
        return len(self.reply.response.token_ids) / self.reply.timing.total


@dataclass(frozen=True)
class Judged:
    """What became of the answers that came, by hotkey: a verdict, or, in `unaudited`, a right form and no audit.

    `pools` are the pools after them; `stood_on` names the challenges that a pooled reject stands on.
    """

    verdicts: Mapping[str, Verdict]
    pools: Mapping[str, Pool]
    unaudited: Collection[str] = frozenset()
    stood_on: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


async def ask_all(
    client: SynapseClient, plan: Mapping[Target, Challenge], *, deadline: float, concurrency: int
) -> list[Answer]:
    """Send every challenge at once. `deadline` counts for each miner from the start of its own request."""
    slots = asyncio.Semaphore(concurrency)

    async def one(target: Target, challenge: Challenge) -> Answer:
        async with slots:
            return await ask(client, target, challenge, deadline=deadline)

    return list(await asyncio.gather(*(one(target, challenge) for target, challenge in plan.items())))


def answer_bytes(max_tokens: int) -> int:
    """Most bytes of a signed stream that are kept: a chunk of its own for every token, all of them again at the end,
    the proof, and room to spare. White space is free in JSON; without this limit a miner could fill the ledger with
    it, and make evidence too large to show."""
    return 4096 + 96 * max_tokens


async def ask(
    client: SynapseClient,
    target: Target,
    challenge: Challenge,
    *,
    deadline: float,
    silence: float | None = None,
    on_tokens: Callable[[tuple[int, ...]], None] | None = None,
) -> Answer:
    """One streamed answer, or why there is none. `silence`: longest wait for the next chunk, in seconds; the deadline
    when there is none. `on_tokens` sees the tokens of each chunk, unproved, as it comes."""
    started = time.perf_counter()
    streamed: list[int] = []
    first: float | None = None
    try:
        stream = client.stream(
            target, INFERENCE_GENERATE, challenge.request, deadline=deadline, silence=silence or deadline
        )
        async with stream:
            async for chunk in stream:
                assert isinstance(chunk, GenerateChunk)  # the client decodes nothing else
                if chunk.offset != len(streamed) or chunk.offset + len(chunk.token_ids) > challenge.request.max_tokens:
                    # Ended here, so that nobody can keep this loop, and with it the clock of the others, busy.
                    detail = f"a chunk at offset {chunk.offset} after {len(streamed)} tokens is out of place"
                    raise CallFailed(Failure(FailureCode.MALFORMED, detail))
                if first is None:
                    first = time.perf_counter() - started
                streamed.extend(chunk.token_ids)
                if on_tokens is not None:
                    on_tokens(chunk.token_ids)
        size, limit = len(stream.reply.exchange.response_body), answer_bytes(challenge.request.max_tokens)
        if size > limit:
            raise CallFailed(Failure(FailureCode.TOO_LARGE, f"{size} bytes where the answer needs at most {limit}"))
        return Answer(challenge, stream.reply, None, tuple(streamed), first, time.time())
    except CallFailed as error:
        return Answer(challenge, None, error.failure, tuple(streamed), first, time.time())


def draw(answers: Sequence[Answer], secret: bytes, rates: Mapping[str, float]) -> set[str]:
    """Hotkeys whose answers are audited; `rates` by hotkey, 1 for who is not in it.

    Beside those drawn, the fastest of several of one kind, because the others are measured against it.
    """
    chosen: set[str] = set()
    kinds: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.reply is None:
            continue
        hotkey = answer.challenge.miner
        if drawn(secret, answer.reply.exchange.response_digest, rates.get(hotkey, 1.0)):
            chosen.add(hotkey)
        kinds.setdefault(answer.challenge.kind, []).append(answer)
    for rivals in kinds.values():
        if len(rivals) > 1:
            chosen.add(max(rivals, key=lambda answer: answer.tokens_per_s or 0.0).challenge.miner)
    return chosen


async def judge_all(
    verifier: Recomputer,
    calibration: Calibration | None,
    answers: Sequence[Answer],
    pools: Mapping[str, Pool],
    audited: Collection[str] | None = None,
) -> Judged:
    """Form first, which is free; then one recomputation for those audited (None: all); then the pooled check."""
    verdicts: dict[str, Verdict] = {}
    unaudited: set[str] = set()
    fine: list[tuple[Answer, GenerateResponse]] = []
    for answer in answers:
        if answer.reply is None:
            continue
        hotkey = answer.challenge.miner
        bad_form = check_form(answer.challenge, answer.reply.response, answer.streamed)
        if bad_form is not None:
            verdicts[hotkey] = bad_form
        elif audited is not None and hotkey not in audited:
            unaudited.add(hotkey)
        else:
            fine.append((answer, answer.reply.response))
    results = await verifier.recompute([(answer.challenge, response) for answer, response in fine]) if fine else []
    after: dict[str, Pool] = {}
    stood_on: dict[str, tuple[str, ...]] = {}
    for (answer, response), recomputed in zip(fine, results, strict=True):
        hotkey = answer.challenge.miner
        verdict = judge(answer.challenge, response, recomputed, calibration, answer.streamed)
        if isinstance(recomputed, Recomputed) and calibration is not None and verdict.outcome is Outcome.ACCEPT:
            pool = pools.get(hotkey, Pool()).add(answer.challenge.digest, recomputed)
            pooled = judge_pool(pool, calibration)
            if pooled:
                stood_on[hotkey] = tuple(pooled_answer.digest for pooled_answer in pool.answers)
            # Every answer is held against a hotkey once: one that was rejected alone stays out of the pool, and a pool
            # that was rejected starts anew. Else one bad answer would be a strike in each of the next hundred rounds.
            after[hotkey] = Pool(span=pool.span) if pooled else pool
            verdict = pooled or verdict
        verdicts[hotkey] = verdict
    return Judged(verdicts, after, unaudited, stood_on)


def received(answer: Answer) -> Received:
    """A usable answer as the ledger keeps it."""
    assert answer.reply is not None
    exchange = answer.reply.exchange
    return Received(
        exchange.response_body,
        exchange.to_json(),
        answer.received_at,
        answer.first_token_s,
        answer.reply.timing.total,
        answer.tokens_per_s,
    )


def record(ledger: Ledger, answers: Sequence[Answer], judged: Judged) -> None:
    """Keep every answer, failure and verdict of a round. Blocking."""
    for answer in answers:
        digest = answer.challenge.digest
        if ledger.is_answered(digest):  # a round that was killed before it was committed is asked again
            continue
        if answer.reply is None:
            assert answer.failure is not None
            ledger.record_failure(digest, answer.failure.code.value, answer.failure.detail, answer.received_at)
            continue
        ledger.record_response(digest, received(answer))
        verdict = judged.verdicts.get(answer.challenge.miner)
        if verdict is not None:
            ledger.record_verdict(digest, verdict, answer.received_at)


def observations(answers: Sequence[Answer], judged: Judged) -> list[Observation]:
    """What the scoring rule sees of a round."""
    seen = []
    for answer in answers:
        verdict = judged.verdicts.get(answer.challenge.miner)
        outcome = verdict.outcome if verdict else None
        hotkey, kind = answer.challenge.miner, answer.challenge.kind
        unaudited = hotkey in judged.unaudited
        seen.append(Observation(hotkey, kind, outcome, answer.first_token_s, answer.tokens_per_s, unaudited))
    return seen


def organic_observations(organic: Sequence[Organic], states: Mapping[str, ScoreState]) -> list[Observation]:
    """What users' requests add to a round: cheating on them counts as on a challenge. Nothing else does: speed is only
    comparable between answers of one kind, and whose users ask how often must not move a score.

    A reject of an answer from before a cool-down was decided is part of what the cool-down is for: audits that come
    late must not add a strike each. The records stay with this validator; users' words are not evidence for others.
    """
    return [
        Observation(found.miner, "organic", found.verdict.outcome)
        for found in organic
        if found.verdict.outcome is Outcome.REJECT
        and found.round >= states.get(found.miner, ScoreState(found.miner)).cooldown_until
    ]
