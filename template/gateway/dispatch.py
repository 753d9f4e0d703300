"""One user's request and the miners that work on it.

    dispatcher = Dispatcher(...)
    async with dispatcher.stream(order) as attempt:      # whoever shows a token first; the others are cancelled
        async for tokens in attempt: ...
        result = await dispatcher.finish(attempt)        # signed and right in form, or ApiError
    result = await dispatcher.whole(order)               # the same, and another miner when the first one fails
    result = await dispatcher.verified(order)            # order.miners asked; the accepted answer nearest to the rule

What a miner gets is a validator's challenge in every respect: the same request, a fresh nonce, the same client. A miner
that shows no token within the hedge delay gets company; the first token wins. Leaving a block or being cancelled ends
every attempt, and with the connection the miner's work.

Each signed answer goes to `keep`, whoever won: with its verdict when there is one (form is checked on everything), else
for the draw. A miner's text belongs to its hotkey, so a stream that breaks after its first token cannot be continued by
another miner, and ends with an error.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from protocol.calibration import Calibration
from protocol.inference import (
    Challenge,
    ChatMessage,
    GenerateRequest,
    GenerateResponse,
    ModelIdentity,
    Outcome,
    Sampler,
    Verdict,
    judge,
)
from template.client import SynapseClient, Target
from template.gateway.attempts import Attempt
from template.gateway.errors import ApiError
from template.gateway.routing import Board
from template.rounds import Answer, Recomputer

KIND = "organic"  # of the challenges that users' requests become
LOOK_S = 0.25  # between two looks for a free miner: cool-downs end without telling anybody
GRACE_LEAST_S = 0.5  # that the others get at least, once the first of several has answered
NOT_IN_TIME = "no miner answered in time"
NOT_ACCEPTED = "not accepted by the verifier"

Keep = Callable[[Answer, "Verdict | None"], bool]
"""Takes a signed answer and its verdict, if any; returns whether it was drawn for an audit."""


@dataclass(frozen=True)
class Order:
    """A request ready for miners. `miners`: how many are asked when the answer is to be verified first."""

    messages: tuple[ChatMessage, ...]
    prompt_ids: tuple[int, ...]
    sampler: Sampler
    max_tokens: int
    until: float  # monotonic time by which the answer must be there
    miners: int = 1


@dataclass(frozen=True)
class Result:
    """A signed answer. `verdict` is an accept when it was verified before; `drawn`: it will be audited."""

    answer: Answer
    verdict: Verdict | None
    drawn: bool
    asked: int

    @property
    def response(self) -> GenerateResponse:
        assert self.answer.reply is not None  # or there would be no result
        return self.answer.reply.response


@dataclass(frozen=True)
class Policy:
    """How hard to try."""

    hedge: bool = True
    tries: int = 4  # miners asked for one answer, hedges included


def prefer(judged: Sequence[tuple[Answer, Verdict]]) -> tuple[Answer, Verdict] | None:
    """The accepted answer with the lowest mean margin, the earliest of equals; None when none was accepted."""
    accepted = [pair for pair in judged if pair[1].outcome is Outcome.ACCEPT]
    return min(accepted, key=lambda pair: pair[1].numbers["mean_clipped"], default=None)


class Dispatcher:
    """Sends orders to miners. One for a gateway; belongs to the event loop."""

    def __init__(
        self,
        client: SynapseClient,
        identity: ModelIdentity,
        board: Board,
        verifier: Recomputer,
        calibration: Calibration | None,
        keep: Keep,
        policy: Policy | None = None,
    ) -> None:
        self.client = client
        self.identity = identity
        self.board = board
        self.verifier = verifier
        self.calibration = calibration
        self.keep = keep
        self.policy = policy or Policy()
        self.hedges = 0

    # One answer

    @asynccontextmanager
    async def stream(self, order: Order) -> AsyncIterator[Attempt]:
        """An attempt whose first token has come. Raises ApiError."""
        attempt = await self._begin(order, set(), "")
        try:
            yield attempt
        finally:
            attempt.cancel()

    async def finish(self, attempt: Attempt) -> Result:
        """The end of a streamed attempt. Raises ApiError (502) when it is of no use."""
        answer = await attempt.task
        drawn = self._keep(attempt)
        if attempt.problem:
            raise _unusable(attempt.problem, attempt.asked)
        return Result(answer, None, drawn, attempt.asked)

    async def whole(self, order: Order) -> Result:
        """One signed answer of right form. Raises ApiError."""
        asked: set[str] = set()
        attempt = await self._one(order, asked, "")
        return Result(attempt.task.result(), None, self._keep(attempt), len(asked))

    async def verified(self, order: Order) -> Result:
        """An answer that the verifier accepts, of `order.miners` or, if none of theirs is, of further miners one by
        one. Raises ApiError."""
        asked: set[str] = set()
        attempts = await self._several(order, asked) if order.miners > 1 else [await self._one(order, asked, "")]
        while True:
            best = prefer(await self._judge(attempts, order.until))
            if best is not None:
                return Result(best[0], best[1], False, len(asked))
            if len(asked) >= max(order.miners, self.policy.tries):
                raise _unusable(NOT_ACCEPTED, len(asked))
            attempts = [await self._one(order, asked, NOT_ACCEPTED)]

    async def _judge(self, attempts: Sequence[Attempt], until: float) -> list[tuple[Answer, Verdict]]:
        """Recompute all at once; every answer is kept with its verdict. Raises ApiError when `until` passes first."""
        answers = [attempt.task.result() for attempt in attempts]
        pairs = [(answer.challenge, answer.reply.response) for answer in answers if answer.reply is not None]
        try:
            results = await asyncio.wait_for(self.verifier.recompute(pairs), max(0.0, until - time.monotonic()))
        except asyncio.TimeoutError:
            for attempt in attempts:
                self._keep(attempt)
            raise ApiError(504, "no answer was verified in time", code="deadline_exceeded") from None
        judged = []
        for answer, (challenge, response), recomputed in zip(answers, pairs, results, strict=True):
            verdict = judge(challenge, response, recomputed, self.calibration, answer.streamed)
            self.keep(answer, verdict)
            judged.append((answer, verdict))
        return judged

    async def _one(self, order: Order, asked: set[str], problem: str) -> Attempt:
        """A finished attempt of right form; miners that fail are followed by others. `problem`: of those asked so far,
        which is the error when nobody is left. Raises ApiError."""
        while True:
            attempt = await self._begin(order, asked, problem)
            try:
                await attempt.task
            finally:
                attempt.cancel()
            problem = attempt.problem
            if not problem:
                return attempt
            self._keep(attempt)

    async def _begin(self, order: Order, asked: set[str], problem: str) -> Attempt:
        """The first of at most two miners at a time to show a token. Raises ApiError."""
        running: list[Attempt] = []
        winner: Attempt | None = None
        try:
            while winner is None:
                if not running:
                    if time.monotonic() >= order.until:
                        raise _unusable("deadline", len(asked))
                    if problem and len(asked) >= self.policy.tries:
                        raise _unusable(problem, len(asked))
                    running.append(self._ask(order, await self._free(order, asked, problem), asked))
                hedging = self.policy.hedge and len(running) == 1 and len(asked) < self.policy.tries
                delay = self.board.hedge_delay() if hedging else None
                await asyncio.wait(
                    {attempt.begun for attempt in running}, timeout=delay, return_when=asyncio.FIRST_COMPLETED
                )
                ended = [attempt for attempt in running if attempt.begun.done()]
                winner = next((attempt for attempt in ended if attempt.begun.result()), None)
                for attempt in ended if winner is None else ():
                    running.remove(attempt)
                    await asyncio.wait({attempt.task})
                    problem = attempt.problem
                    self._keep(attempt)
                if not ended and hedging:
                    running += self._company(order, asked)
            winner.asked = len(asked)
            return winner
        finally:
            for attempt in running:
                if attempt is not winner:
                    self._drop(attempt, slow=winner is not None)

    def _company(self, order: Order, asked: set[str]) -> list[Attempt]:
        """A second miner, if one is free."""
        free = self.board.order(time.monotonic(), asked)[:1]
        self.hedges += len(free)
        return [self._ask(order, target, asked) for target in free]

    # Several answers

    async def _several(self, order: Order, asked: set[str]) -> list[Attempt]:
        """Finished attempts of right form: `order.miners` of them, or those that came within the grace after the first.
        A miner that fails is replaced while another is free. Raises ApiError when there is none at all."""
        started = time.monotonic()
        running = [self._ask(order, await self._free(order, asked, ""), asked)]
        running += [self._ask(order, t, asked) for t in self.board.order(started, asked)[: order.miners - 1]]
        good: list[Attempt] = []
        ends, problem = order.until, ""
        try:
            while running:
                tasks = {attempt.task for attempt in running}
                wait = max(0.0, ends - time.monotonic())
                done, _ = await asyncio.wait(tasks, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                for attempt in [attempt for attempt in running if attempt.task in done]:
                    running.remove(attempt)
                    if not attempt.problem:
                        good.append(attempt)
                        continue
                    problem = attempt.problem
                    self._keep(attempt)
                    free = self.board.order(time.monotonic(), asked)[:1]
                    running += [self._ask(order, target, asked) for target in free]
                if good:
                    now = time.monotonic()
                    ends = min(ends, now + max(GRACE_LEAST_S, now - started))
        finally:
            for attempt in running:
                self._drop(attempt, slow=bool(good))
        if not good:
            raise _unusable(problem, len(asked)) if problem else ApiError(504, NOT_IN_TIME, code="deadline_exceeded")
        return good

    # One miner

    def _ask(self, order: Order, target: Target, asked: set[str]) -> Attempt:
        asked.add(target.hotkey)
        return Attempt(self.client, self.board, target, self.challenge(order, target.hotkey), order.until)

    def challenge(self, order: Order, miner: str) -> Challenge:
        """What a validator would ask: only the words are a user's."""
        request = GenerateRequest(
            model_root=self.identity.root,
            dtype=self.identity.dtype,
            prompt_ids=order.prompt_ids,
            messages=order.messages,
            sampler=order.sampler,
            max_tokens=order.max_tokens,
            nonce=secrets.token_hex(32),
        )
        return Challenge(
            round=self.board.round,
            block_hash=self.board.block_hash,
            validator=self.client.hotkey.ss58,
            miner=miner,
            kind=KIND,
            model=self.identity,
            request=request,
        )

    async def _free(self, order: Order, asked: set[str], problem: str) -> Target:
        """The best miner with room for one more request, waited for. Raises ApiError."""
        while True:
            now = time.monotonic()
            free = self.board.order(now, asked)
            if free:
                return free[0]
            rest = self.board.standings(now, asked)
            soonest = min((miner.cooling for miner in rest), default=float("inf"))
            if now + soonest >= order.until:
                raise self._nobody(problem, len(asked), soonest)
            await self.board.changed(min(LOOK_S, order.until - now))

    def _nobody(self, problem: str, asked: int, soonest: float) -> ApiError:
        """Why there is no miner to ask; `soonest`: seconds until one comes out of its cool-down."""
        if problem:
            return _unusable(problem, asked)
        if not self.board.serving:
            return ApiError(503, "no miner serves this subnet at present", code="no_miners", retry_after=30.0)
        wait = 2.0 if soonest == float("inf") else max(2.0, soonest)
        return ApiError(503, "every miner is busy or was of no use lately", code="overloaded", retry_after=wait)

    def _drop(self, attempt: Attempt, *, slow: bool) -> None:
        """End an attempt that lost; what it had finished by then is kept all the same."""
        if attempt.task.done() and not attempt.task.cancelled():
            self._keep(attempt)
        attempt.cancel(slow=slow)

    def _keep(self, attempt: Attempt) -> bool:
        answer = attempt.task.result()
        return self.keep(answer, attempt.bad_form) if answer.reply is not None else False


def _unusable(problem: str, asked: int) -> ApiError:
    if problem == "deadline":
        return ApiError(504, NOT_IN_TIME, code="deadline_exceeded")
    if problem == NOT_ACCEPTED:
        detail = f"{asked} miners answered and the verifier accepted none of the answers"
        return ApiError(502, detail, code="answer_not_verified")
    if problem == "refused":
        return ApiError(503, f"{asked} miners were asked and declined", code="overloaded", retry_after=2.0)
    return ApiError(502, f"no usable answer from {asked} miners; the last problem: {problem}", code="no_usable_answer")
