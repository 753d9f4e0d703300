"""One miner at work on one request: tokens as they come, the signed answer at the end, and what the board learns of it.

attempt = Attempt(client, board, target, challenge, until)      # at once, in a task of its own
await attempt.begun                     # True: there is a first token; False: it ended without one
async for tokens in attempt: ...        # unproved until the end
attempt.task.result(), attempt.problem  # the answer, and why it is of no use, if it is
attempt.cancel()                        # ends the connection, and with it the miner's work
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from protocol.errors import FailureCode, RefusalCode
from protocol.inference import Challenge, Verdict, check_form
from template.client import SynapseClient, Target
from template.gateway.routing import Board, Work
from template.rounds import Answer, ask

SHORTEST_S = 0.05  # a call's deadline is never less: 0 would mean none
FAIR_S = 10.0  # a miner that was given less and showed nothing has not failed; one that sent nothing for longer has


class Attempt:
    """One miner at work: an async iterator of the tokens it sends. `begun` is true for a first token, false for an end
    without one."""

    def __init__(self, client: SynapseClient, board: Board, target: Target, challenge: Challenge, until: float) -> None:
        self.target = target
        self.challenge = challenge
        self.begun: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.tokens = 0
        self.asked = 1  # miners that were asked before this one began to answer, itself included
        self.bad_form: Verdict | None = None
        # Bounded by the answer's length: `ask` refuses tokens beyond it.
        self._arrived: asyncio.Queue[tuple[int, ...] | None] = asyncio.Queue()
        self._board = board
        self._slow = False
        self._newest = 0.0  # monotonic time of the newest tokens
        self.task = asyncio.create_task(self._run(client, until))

    async def _run(self, client: SynapseClient, until: float) -> Answer:
        started = time.monotonic()
        with self._board.working(self.target, started) as work:
            try:
                on_tokens, deadline = self._listener(work), max(SHORTEST_S, until - started)
                answer = await ask(client, self.target, self.challenge, deadline=deadline, on_tokens=on_tokens)
                self._tell(work, answer, deadline)
                return answer
            except asyncio.CancelledError:
                if self._slow:
                    work.slow(time.monotonic())
                raise
            finally:
                self._arrived.put_nowait(None)
                if not self.begun.done():
                    self.begun.set_result(False)

    def _listener(self, work: Work) -> Callable[[tuple[int, ...]], None]:
        def on_tokens(tokens: tuple[int, ...]) -> None:
            if not self.begun.done():
                work.first_token(time.monotonic())
                self.begun.set_result(True)
            self.tokens += len(tokens)
            self._newest = time.monotonic()
            self._arrived.put_nowait(tokens)

        return on_tokens

    def _tell(self, work: Work, answer: Answer, granted: float) -> None:
        """Check the form, and tell the board how it went. `granted`: seconds the miner had."""
        if answer.reply is not None:
            self.bad_form = check_form(self.challenge, answer.reply.response, answer.streamed)
            if self.bad_form is None:
                return work.succeeded()
        failure = answer.failure
        refusal = failure.refusal if failure else None
        if refusal is not None and refusal.code is RefusalCode.MALFORMED:
            return None  # about the request: whoever sends bad ones must not be able to take every miner away
        if failure is not None and failure.code is FailureCode.DEADLINE:
            silent = time.monotonic() - self._newest if self.tokens else granted
            if silent < FAIR_S:
                return None  # at work until the end, on more than it could do, or asked too late
        work.failed(time.monotonic(), refusal.retry_after if refusal else None)

    def __aiter__(self) -> AsyncIterator[tuple[int, ...]]:
        return self._read()

    async def _read(self) -> AsyncIterator[tuple[int, ...]]:
        while (tokens := await self._arrived.get()) is not None:
            yield tokens

    @property
    def problem(self) -> str:
        """Why the finished answer is of no use; empty when it is."""
        answer = self.task.result()
        if answer.failure is not None:
            return str(answer.failure.code)
        return str(self.bad_form.reason) if self.bad_form else ""

    def cancel(self, *, slow: bool = False) -> None:
        """Give up. `slow`: because another miner was faster. Does not wait, so that nothing can come in between."""
        self._slow = slow and not self.begun.done()
        self.task.cancel()
