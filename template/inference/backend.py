"""What an engine is, whatever runs behind it. Without torch.

    Engine                  submit(prompt_ids, sampler, seed, max_tokens) -> Generation; stats(); close()
    Generation              an async iterator of token ids, then finish_reason, fingerprint and times
    check_request(...)      what every engine refuses before it does anything

    async with await engine.submit(prompt_ids, sampler, seed, max_tokens) as generation:
        async for token in generation: ...
    generation.finish_reason            # "eos" or "length"
    generation.fingerprint              # of the hidden states sampled from; see protocol/fingerprint.py

Leaving the block, or `generation.cancel()`, frees what the request holds. Two engines exist: `ContinuousBatchingEngine`
(engine.py) runs the model in this process, `RemoteEngine` (remote.py) asks a server that does.

    EngineError
    ├── EngineBusy           the queue is full: try later
    ├── EngineRefused        the request can never be served (too long, foreign token, too large for the memory)
    ├── EngineOutOfMemory    there was no memory for this request; the others go on
    └── EngineStopped        the engine is closing, failed, or cannot be reached; the cause is in the log
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from protocol.challenges import ModelIdentity
from protocol.generation import FinishReason
from protocol.sampling import Sampler
from template.errors import TemplateError


class EngineError(TemplateError):
    """Root of the engines' errors."""


class EngineBusy(EngineError):
    """The waiting queue is full."""


class EngineRefused(EngineError):
    """The request does not fit the model or the settings."""


class EngineOutOfMemory(EngineError):
    """No memory for this request."""


class EngineStopped(EngineError):
    """The engine does not run any more, or cannot be reached."""


@dataclass(frozen=True)
class EngineStats:
    """Counts since the start, and the present load. A remote engine knows only of its own requests."""

    active: int
    waiting: int  # submitted, and without a place in the batch; 0 where only the server knows
    finished: int
    cancelled: int
    failed: int
    tokens: int
    busy_s: float  # time spent in forward passes and sampling; of a remote engine, with a request under way


class Engine(Protocol):
    """One model that answers many requests at a time. Use from one event loop."""

    @property
    def identity(self) -> ModelIdentity: ...

    async def submit(self, prompt_ids: Sequence[int], sampler: Sampler, seed: bytes, max_tokens: int) -> Generation:
        """Queue one request. Raises EngineRefused, EngineBusy or EngineStopped."""
        ...

    @property
    def running(self) -> bool:
        """Whether a request may be submitted."""
        ...

    def stats(self) -> EngineStats: ...

    async def close(self) -> None:
        """Idempotent. Requests under way end with EngineStopped."""
        ...


@dataclass
class Generation:
    """One request on its way through an engine: an async iterator of token ids. Times are of `perf_counter`.

    `on_cancel` is how the engine hears of it. `give` and `fail` are the engine's and run on the loop; a worker thread
    hands them to `from_thread`, so that a reader never sees half of a step.
    """

    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    on_cancel: Callable[[], object] | None = None
    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    fingerprint: str = ""  # base64, once finished
    submitted: float = field(default_factory=time.perf_counter)
    admitted: float | None = None
    first_token: float | None = None
    finished: float | None = None
    cancelled: bool = False
    _error: EngineError | None = None
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _read: int = 0

    async def next_tokens(self) -> list[int]:
        """All tokens since the last call, at least one; empty at the end. Raises EngineError if generation failed."""
        while self.all_read:
            if self._error is not None:
                raise self._error
            if self.finished is not None:
                return []
            self._arrived.clear()
            await self._arrived.wait()
        fresh = self.token_ids[self._read :]
        self._read += len(fresh)
        return fresh

    @property
    def all_read(self) -> bool:
        return self._read == len(self.token_ids)

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> int:
        if self.all_read:
            fresh = await self.next_tokens()
            if not fresh:
                raise StopAsyncIteration
            self._read -= len(fresh)
        self._read += 1
        return self.token_ids[self._read - 1]

    def cancel(self) -> None:
        """Nobody reads on: the engine drops the request."""
        if self.finished is None and not self.cancelled:
            self.cancelled = True
            if self.on_cancel is not None:
                self.on_cancel()

    async def __aenter__(self) -> Generation:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.cancel()

    def give(
        self, tokens: Sequence[int], reason: FinishReason | None = None, fingerprint: str = "", at: float | None = None
    ) -> None:
        """Hand over tokens; with a reason they are the last. `at`: when they were there, now if not given."""
        now = time.perf_counter() if at is None else at
        if self.first_token is None:
            self.first_token = now
        self.token_ids.extend(tokens)
        if reason is not None:
            self.finish_reason, self.fingerprint, self.finished = reason, fingerprint, now
        self._arrived.set()

    def fail(self, error: EngineError) -> None:
        self._error = error
        self.finished = time.perf_counter()
        self._arrived.set()

    def from_thread(self, call: Callable[[], None]) -> None:
        """Have the loop make `call`, which is `give` or `fail` with its arguments."""
        try:
            self.loop.call_soon_threadsafe(call)
        except RuntimeError:  # the reader's event loop is closed, so nobody waits
            self.cancelled = True


def check_request(identity: ModelIdentity, max_context: int, prompt_ids: Sequence[int], max_tokens: int) -> None:
    """Raises EngineRefused for what this model cannot do within `max_context` tokens."""
    limit = min(max_context, identity.context_length)
    if not prompt_ids or max_tokens < 1:
        raise EngineRefused("a request needs a prompt and at least one token to generate")
    if len(prompt_ids) + max_tokens > limit:
        raise EngineRefused(f"{len(prompt_ids)} prompt and {max_tokens} answer tokens exceed the context of {limit}")
    if min(prompt_ids) < 0 or max(prompt_ids) >= identity.vocab_size:
        raise EngineRefused(f"a prompt token is outside the vocabulary of {identity.vocab_size}")
