"""The miner's engine: requests join and leave one running batch.

A single worker thread owns the model. Between two forward passes it drops cancelled requests and admits at most one
waiting request (a prefill delays everybody, so they are spread), then gives every active request its next token. On a
CPU one batch of eight is far cheaper than eight threads.

    async with ContinuousBatchingEngine(loaded, EngineSettings()) as engine:
        async with await engine.submit(prompt_ids, sampler, seed, max_tokens) as generation:
            async for token in generation: ...
        generation.finish_reason            # "eos" or "length"

Leaving the block, or `generation.cancel()`, frees the row at the next pass.

    EngineError
    ├── EngineBusy           the queue is full: try later
    ├── EngineRefused        the request can never be served (too long, foreign token, bad seed)
    ├── EngineOutOfMemory    there was no memory for this request; the others go on
    └── EngineStopped        the engine is closing, or failed; the cause is in the log
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import torch

from protocol.generation import FinishReason
from protocol.sampling import NoiseKey, Sampler, choose, noise_key
from template.errors import TemplateError
from template.inference.batch import Batch, shortlists
from template.inference.models import LoadedModel

log = logging.getLogger(__name__)


class EngineError(TemplateError):
    """Root of the engine's errors."""


class EngineBusy(EngineError):
    """The waiting queue is full."""


class EngineRefused(EngineError):
    """The request does not fit the model or the settings."""


class EngineOutOfMemory(EngineError):
    """No memory for this request."""


class EngineStopped(EngineError):
    """The engine does not run any more."""


@dataclass(frozen=True)
class EngineSettings:
    max_batch: int = 8  # sequences in one forward pass
    max_queue: int = 32  # requests waiting for a row; one more is refused as busy
    max_context: int = 4096  # tokens of prompt and answer together; the model's own limit also holds
    threads: int = 1  # torch threads of the worker


@dataclass(frozen=True)
class EngineStats:
    """Counts since the start, and the present load."""

    active: int
    waiting: int
    finished: int
    cancelled: int
    failed: int
    tokens: int
    busy_s: float  # time spent in forward passes and sampling


@dataclass
class Generation:
    """One request on its way through the engine: an async iterator of token ids."""

    prompt_ids: tuple[int, ...]
    sampler: Sampler
    key: NoiseKey
    max_tokens: int
    _loop: asyncio.AbstractEventLoop
    token_ids: list[int] = field(default_factory=list)  # written by the worker
    finish_reason: FinishReason | None = None
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
        while self._read == len(self.token_ids):
            if self._error is not None:
                raise self._error
            if self.finished is not None and self._read == len(self.token_ids):
                return []
            self._arrived.clear()
            if self._read == len(self.token_ids) and self.finished is None:
                await self._arrived.wait()
        fresh = self.token_ids[self._read :]
        self._read += len(fresh)
        return fresh

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> int:
        if self._read == len(self.token_ids):
            fresh = await self.next_tokens()
            if not fresh:
                raise StopAsyncIteration
            self._read -= len(fresh)
        self._read += 1
        return self.token_ids[self._read - 1]

    def cancel(self) -> None:
        """Nobody reads on: the worker drops the request at its next pass."""
        self.cancelled = True

    async def __aenter__(self) -> Generation:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self.finished is None:
            self.cancel()

    # What follows is called by the worker thread.

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:  # the reader's event loop is closed, so nobody waits
            self.cancelled = True

    def _give(self, token: int, eos_ids: Sequence[int]) -> bool:
        """Hand over one token; True when it was the last."""
        now = time.perf_counter()
        self.first_token = self.first_token or now
        self.token_ids.append(token)
        if token in eos_ids:
            self.finish_reason = "eos"
        elif len(self.token_ids) >= self.max_tokens:
            self.finish_reason = "length"
        if self.finish_reason is not None:
            self.finished = now
        self._wake()
        return self.finish_reason is not None

    def _fail(self, error: EngineError) -> None:
        self._error = error
        self.finished = time.perf_counter()
        self._wake()


class ContinuousBatchingEngine:
    """See the module's tour. `close` is idempotent; a closed engine is not started again."""

    def __init__(self, loaded: LoadedModel, settings: EngineSettings | None = None) -> None:
        self.identity = loaded.identity
        self.settings = settings or EngineSettings()
        self._batch = Batch(loaded.model, self.settings.max_batch)
        self._active: list[Generation] = []  # index = row of the batch
        self._waiting: deque[Generation] = deque()
        self._inbox: queue.SimpleQueue[Generation | None] = queue.SimpleQueue()  # None: wake up and look at _stop
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._pending = 0  # submitted and not yet in the batch
        self._counts = {"finished": 0, "cancelled": 0, "failed": 0, "tokens": 0}
        self._busy_s = 0.0

    async def __aenter__(self) -> ContinuousBatchingEngine:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
            self._thread.start()

    async def close(self) -> None:
        """Stop after the running pass; requests under way end with EngineStopped."""
        self._stop.set()
        self._inbox.put(None)
        if self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    async def submit(self, prompt_ids: Sequence[int], sampler: Sampler, seed: bytes, max_tokens: int) -> Generation:
        """Queue one request. Raises EngineRefused, EngineBusy or EngineStopped."""
        self._check(prompt_ids, max_tokens)
        if self._stop.is_set() or self._thread is None or not self._thread.is_alive():
            raise EngineStopped("the engine is not running", remedy="see the log for the cause and restart the miner")
        with self._lock:
            if self._pending >= self.settings.max_queue:
                raise EngineBusy(f"{self._pending} requests are waiting", remedy="try again in a few seconds")
            self._pending += 1
        loop = asyncio.get_running_loop()
        generation = Generation(tuple(prompt_ids), sampler, noise_key(seed), max_tokens, loop)
        self._inbox.put(generation)
        return generation

    def stats(self) -> EngineStats:
        return EngineStats(active=len(self._active), waiting=self._pending, busy_s=self._busy_s, **self._counts)

    def _check(self, prompt_ids: Sequence[int], max_tokens: int) -> None:
        limit = min(self.settings.max_context, self.identity.context_length)
        if not prompt_ids or max_tokens < 1:
            raise EngineRefused("a request needs a prompt and at least one token to generate")
        if len(prompt_ids) + max_tokens > limit:
            raise EngineRefused(
                f"{len(prompt_ids)} prompt and {max_tokens} answer tokens exceed the context of {limit}"
            )
        if min(prompt_ids) < 0 or max(prompt_ids) >= self.identity.vocab_size:
            raise EngineRefused(f"a prompt token is outside the vocabulary of {self.identity.vocab_size}")

    # ---- worker thread ----

    def _work(self) -> None:
        torch.set_num_threads(self.settings.threads)
        try:
            while not self._stop.is_set():
                self._collect(wait=not self._active and not self._waiting)
                self._drop_cancelled()
                started = time.perf_counter()
                if self._waiting and len(self._active) < self.settings.max_batch:
                    self._admit(self._waiting.popleft())
                if self._active:
                    self._advance()
                self._busy_s += time.perf_counter() - started
        except Exception as error:  # the worker is the only place that can report its own death
            log.exception("the engine failed")
            self._failure = error
        self._stop.set()
        self._collect(wait=False)
        reason = f"the engine failed: {self._failure}" if self._failure else "the engine is closing"
        for generation in [*self._active, *self._waiting]:
            generation._fail(EngineStopped(reason))

    def _collect(self, wait: bool) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                arrived = self._inbox.get(block=wait)
                wait = False
                if arrived is not None:
                    self._waiting.append(arrived)

    def _leave_queue(self) -> None:
        with self._lock:
            self._pending -= 1

    def _drop_cancelled(self) -> None:
        for row in reversed(range(len(self._active))):
            if self._active[row].cancelled:
                self._counts["cancelled"] += 1
                self._release(row)
        for generation in [g for g in self._waiting if g.cancelled]:
            self._waiting.remove(generation)
            self._leave_queue()
            self._counts["cancelled"] += 1

    def _release(self, row: int) -> None:
        """Free a row; as in the batch, the last one takes its place."""
        self._batch.remove(row)
        last = self._active.pop()
        if row < len(self._active):
            self._active[row] = last

    def _admit(self, generation: Generation) -> None:
        self._leave_queue()
        generation.admitted = time.perf_counter()
        logits = self._guarded(lambda: self._batch.admit(generation.prompt_ids))
        if logits is None:
            self._refuse_for_memory(generation)
            return
        self._active.append(generation)
        self._hand_out(logits[None], first_row=len(self._active) - 1)

    def _advance(self) -> None:
        logits = self._guarded(lambda: self._batch.step([g.token_ids[-1] for g in self._active]))
        if logits is None:  # the youngest has lost least
            youngest = self._active[-1]
            self._release(len(self._active) - 1)
            self._refuse_for_memory(youngest)
            return
        self._hand_out(logits, first_row=0)

    def _hand_out(self, logits: torch.Tensor, first_row: int) -> None:
        rows = self._active[first_row:]
        lists = shortlists(logits, [generation.sampler for generation in rows])
        done = []
        for offset, (generation, (ids, values)) in enumerate(zip(rows, lists, strict=True)):
            try:
                token = choose(ids, values, generation.sampler, generation.key, len(generation.token_ids))
            except ValueError as error:  # NaN logits: this request cannot go on, the others can
                generation._fail(EngineError(str(error), remedy="check the model's files"))
                self._counts["failed"] += 1
                done.append(first_row + offset)
                continue
            self._counts["tokens"] += 1
            if generation._give(token, self.identity.eos_ids):
                self._counts["finished"] += 1
                done.append(first_row + offset)
        for row in reversed(done):
            self._release(row)

    def _guarded(self, forward: Callable[[], torch.Tensor]) -> torch.Tensor | None:
        """The result, or None when memory ran out."""
        try:
            return forward()
        except (MemoryError, torch.OutOfMemoryError) as error:
            log.warning("out of memory: %s", error)
        except RuntimeError as error:
            if "allocate memory" not in str(error) and "not enough memory" not in str(error):
                raise
            log.warning("out of memory: %s", error)
        return None

    def _refuse_for_memory(self, generation: Generation) -> None:
        self._counts["failed"] += 1
        remedy = "lower max_batch or max_context"
        generation._fail(EngineOutOfMemory("no memory left for this request", remedy=remedy))
