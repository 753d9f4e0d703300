"""Whoever has trained a window and answers for it in a dispute.

    Own.of(retrace, ...)                    the own training of who disputes
    Remote(line, claim, ...)                a hotkey that answers TRAIN_TRACE and TRAIN_STATE
    await party.opening(index)              Answer: digest and path; whether it is under the root, the dispute sees
    await party.state(index)                the state's bytes, as the party gives them
    await Line(...).repetition(...)         the claim of one that repeats somebody else's window

A party that does not answer raises NotShown. One that has to compute first says `busy`, and is asked again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from protocol.artifacts import Manifest
from protocol.auth import SignedExchange
from protocol.errors import FailureCode, MalformedMessage, RefusalCode
from protocol.synapse import Message, Synapse, encode
from protocol.training.dispute import Answer, Claim, Terms
from protocol.training.opening import TRAIN_STATE, TRAIN_TRACE, AskState, TraceAnswer
from protocol.training.trace import open_state, trace_root
from template.artifacts.errors import ArtifactError
from template.client import Reply, SynapseClient, Target
from template.errors import CallFailed, Failure, TemplateError
from template.training.retrace import STATE_BYTES, Retrace, to_bytes

Res = TypeVar("Res", bound=Message)
Fetch = Callable[[str, int], Awaitable[bytes]]  # CID, most bytes

CALL_SECONDS = 60.0
PAUSE = 5.0  # seconds until who is busy is asked again, unless it says how long


class NotShown(TemplateError):
    """A party did not show what it was asked for."""


class Party(Protocol):
    @property
    def claim(self) -> Claim: ...

    async def opening(self, index: int) -> Answer: ...

    async def state(self, index: int) -> bytes: ...


@dataclass(frozen=True)
class Own:
    retrace: Retrace
    digests: tuple[bytes, ...]

    @staticmethod
    async def of(retrace: Retrace) -> Own:
        """Train the window, in a thread. Raises FloatingPointError when the training has no result."""
        return Own(retrace, await asyncio.to_thread(retrace.digests))

    @property
    def claim(self) -> Claim:
        return Claim(hotkey="", trace=trace_root(self.digests).hex())

    async def opening(self, index: int) -> Answer:
        found = open_state(self.digests, index)
        return Answer(digest=found.digest.hex(), path=tuple(node.hex() for node in found.path))

    async def state(self, index: int) -> bytes:
        return await asyncio.to_thread(lambda: to_bytes(self.retrace.state(index)))


@dataclass
class Line:
    """How a hotkey is asked. `patience`: seconds for one answer, computing included. `requests`, `received`, `sent`:
    what it has cost so far, in bytes of bodies."""

    client: SynapseClient
    target: Target
    fetch: Fetch
    patience: float
    requests: int = field(default=0, init=False)
    sent: int = field(default=0, init=False)
    received: int = field(default=0, init=False)
    fetched: int = field(default=0, init=False)  # bytes of states

    async def repetition(self, terms: Terms) -> Claim:
        """Ask for a repetition of the window of the terms, and for the root of its trace. Raises NotShown."""
        reply = await self.ask(TRAIN_TRACE, _question(terms, terms.states - 1))
        return Claim(hotkey=self.target.hotkey, trace=reply.response.trace)

    async def ask(self, synapse: Synapse[AskState, Res], question: AskState) -> Reply[Res]:
        """The answer, when there is one in time. Raises NotShown."""
        until = time.monotonic() + self.patience
        while True:
            self.requests += 1
            self.sent += len(encode(question))
            deadline = min(CALL_SECONDS, max(1.0, until - time.monotonic()))
            try:
                reply = await self.client.call(self.target, synapse, question, deadline=deadline)
            except CallFailed as error:
                pause = _pause(error.failure)
                if pause is None or time.monotonic() + pause >= until:
                    raise NotShown(error.message) from None
                await asyncio.sleep(pause)
                continue
            self.received += reply.timing.received
            return reply


@dataclass
class Remote:
    """One that answers over the network for `claim`."""

    line: Line
    claim: Claim
    terms: Terms
    size: int
    _answers: dict[int, Answer] = field(default_factory=dict, init=False)

    async def opening(self, index: int) -> Answer:
        if index not in self._answers:
            reply = await self.line.ask(TRAIN_TRACE, _question(self.terms, index))
            self._answers[index] = self._read(reply.response, reply.exchange)
        return self._answers[index]

    async def state(self, index: int) -> bytes:
        reply = await self.line.ask(TRAIN_STATE, _question(self.terms, index))
        try:
            data = await self.line.fetch(reply.response.state, STATE_BYTES * self.size)
        except (ArtifactError, MalformedMessage) as error:
            raise NotShown(f"state {index} cannot be fetched: {error}") from None
        self.line.fetched += len(data)
        return data

    def _read(self, said: TraceAnswer, exchange: SignedExchange) -> Answer:
        """Raises NotShown for an answer about another trace."""
        statement = Manifest.of(self.claim.statement).cid if self.claim.statement is not None else None
        if (said.trace, said.states, said.statement) != (self.claim.trace, self.terms.states, statement):
            raise NotShown("it answered for another trace than the one that is disputed")
        return Answer.of(said, exchange)


def _question(terms: Terms, index: int) -> AskState:
    return AskState(window=terms.window, miner=terms.miner, index=index)


def _pause(failure: Failure) -> float | None:
    """Seconds to wait before the question is asked again; None when that is no use."""
    refusal = failure.refusal
    if failure.code is not FailureCode.REFUSED or refusal is None:
        return None
    if refusal.code not in (RefusalCode.BUSY, RefusalCode.RATE_LIMITED):
        return None
    return min(max(refusal.retry_after or PAUSE, 0.1), 60.0)
