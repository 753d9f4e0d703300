"""The miner's own engine: requests join and leave one running batch, in this process.

A single worker thread owns the model. Between two forward passes it drops cancelled requests and admits waiting ones,
as many as `prefill_tokens` allows (a prefill delays everybody), then gives every active request its next token. On a
CPU one batch of eight is far cheaper than eight threads.

    async with ContinuousBatchingEngine(loaded, EngineSettings()) as engine:
        async with await engine.submit(prompt_ids, sampler, seed, max_tokens) as generation: ...     # see backend.py

When memory runs out, a request steps back into the queue and the batch stays smaller for a while; it resumes where it
was, by a prefill over its prompt and the tokens it has. Only a request that does not fit alone is refused.
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
from functools import partial
from types import TracebackType
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from protocol.fingerprint import Fingerprinter
from protocol.generation import FinishReason
from protocol.sampling import NoiseKey, Sampler, choose, noise_key
from template.inference.backend import (
    EngineBusy,
    EngineError,
    EngineOutOfMemory,
    EngineRefused,
    EngineStats,
    EngineStopped,
    Generation,
    check_request,
)
from template.inference.batch import Batch, View
from template.inference.models import LoadedModel

__all__ = [
    "ContinuousBatchingEngine",
    "EngineBusy",
    "EngineError",
    "EngineOutOfMemory",
    "EngineRefused",
    "EngineSettings",
    "EngineStats",
    "EngineStopped",
    "Generation",
]

log = logging.getLogger(__name__)

T = TypeVar("T")

LOWERED_S = 30.0  # how long the batch stays smaller after memory ran out
MOST_PADDING = 0.25  # share of a shared prefill that may be padding
OUT_OF_MEMORY = ("allocate memory", "not enough memory", "out of memory")  # in what torch raises on CPU and GPU


@dataclass(frozen=True)
class EngineSettings:
    max_batch: int = 8  # sequences in one forward pass
    max_queue: int = 32  # requests waiting for a row; one more is refused as busy
    max_context: int = 4096  # tokens of prompt and answer together; the model's own limit also holds
    cache_tokens: int = 0  # bound on rows x columns of the key/value cache; 0: max_batch x max_context
    prefill_tokens: int = 256  # prompt tokens, padding included, of one shared prefill; a longer prompt goes alone
    threads: int = 1  # torch threads of the worker
    pack_weights: bool = True  # see linear.py; costs once more the memory of the weights


@dataclass
class Job:
    """One request as the worker sees it; the reader's side is `generation`."""

    prompt_ids: tuple[int, ...]
    sampler: Sampler
    key: NoiseKey
    max_tokens: int
    prints: Fingerprinter
    generation: Generation
    answer: list[int] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Its length in the end, at most."""
        return len(self.prompt_ids) + self.max_tokens

    @property
    def sequence(self) -> list[int]:
        """What is prefilled: the prompt, and after a step back the answer so far."""
        return [*self.prompt_ids, *self.answer]

    def fail(self, error: EngineError) -> None:
        self.generation.from_thread(partial(self.generation.fail, error))


class ContinuousBatchingEngine:
    """See the module's tour. `close` is idempotent; a closed engine is not started again."""

    def __init__(self, loaded: LoadedModel, settings: EngineSettings | None = None) -> None:
        self.identity = loaded.identity
        self.settings = settings or EngineSettings()
        model = loaded.packed if self.settings.pack_weights else loaded.model
        self._batch = Batch(model, self.settings.max_batch, self.settings.cache_tokens or None)
        self._active: list[Job] = []  # index = row of the batch
        self._waiting: deque[Job] = deque()
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()  # None: wake up and look around
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._pending = 0  # submitted and not in the batch
        self._most = self.settings.max_batch  # less for a while after memory ran out
        self._lowered_until = 0.0
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
        check_request(self.identity, self.settings.max_context, prompt_ids, max_tokens)
        if not self._batch.could_ever_fit(len(prompt_ids) + max_tokens):
            raise EngineRefused(
                f"{len(prompt_ids) + max_tokens} tokens exceed the memory of {self.settings.cache_tokens} tokens"
            )
        generation = Generation(on_cancel=lambda: self._inbox.put(None))
        prints = Fingerprinter(seed, self._batch.readout.width)
        job = Job(tuple(prompt_ids), sampler, noise_key(seed), max_tokens, prints, generation)
        with self._lock:
            if not self.running:
                raise EngineStopped("the engine is not running", remedy="see the log for the cause and restart it")
            if self._pending + len(self._active) >= self.settings.max_batch + self.settings.max_queue:
                raise EngineBusy(f"{self._pending} requests are waiting", remedy="try again in a few seconds")
            self._pending += 1
            self._inbox.put(job)
        return generation

    @property
    def running(self) -> bool:
        return self._thread is not None and not self._stop.is_set()

    def stats(self) -> EngineStats:
        return EngineStats(active=len(self._active), waiting=self._pending, busy_s=self._busy_s, **self._counts)

    # ---- worker thread ----

    def _work(self) -> None:
        torch.set_num_threads(self.settings.threads)
        try:
            while not self._stop.is_set():
                self._collect(wait=not self._active and not self._waiting)
                self._drop_cancelled()
                started = time.perf_counter()
                self._admit()
                if self._active:
                    self._advance()
                self._busy_s += time.perf_counter() - started
        except Exception as error:  # the worker is the only place that can report its own death
            log.exception("the engine failed")
            self._failure = error
        with self._lock:  # nothing arrives after the last look into the inbox
            self._stop.set()
        self._collect(wait=False)
        reason = f"the engine failed: {self._failure}" if self._failure else "the engine is closing"
        for job in [*self._active, *self._waiting]:
            job.fail(EngineStopped(reason))
        self._active, self._waiting, self._pending = [], deque(), 0

    def _collect(self, wait: bool) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                arrived = self._inbox.get(block=wait)
                wait = False
                if arrived is not None:
                    self._waiting.append(arrived)

    def _now_pending(self, change: int) -> None:
        with self._lock:
            self._pending += change

    def _drop_cancelled(self) -> None:
        for row in reversed(range(len(self._active))):
            if self._active[row].generation.cancelled:
                self._counts["cancelled"] += 1
                self._release(row)
        for job in [job for job in self._waiting if job.generation.cancelled]:
            self._waiting.remove(job)
            self._now_pending(-1)
            self._counts["cancelled"] += 1

    def _release(self, row: int) -> None:
        """Free a row; as in the batch, the last one takes its place."""
        self._batch.remove(row)
        last = self._active.pop()
        if row < len(self._active):
            self._active[row] = last

    def _admit(self) -> None:
        """Prefill the next of the waiting requests, in their order, as far as rows, memory and this pass allow."""
        group = self._next_group()
        if not group:
            return
        view = self._guarded(
            lambda: self._batch.admit_group([job.sequence for job in group], [job.tokens for job in group])
        )
        if view is None and len(group) + len(self._active) == 1:
            self._waiting.popleft()
            self._now_pending(-1)
            self._refuse_for_memory(group[0])
            return
        if view is None:  # they stay at the head of the queue
            self._lower(max(1, len(self._active) + len(group) - 1))
            return
        for job in group:
            self._waiting.popleft()
            job.generation.admitted = job.generation.admitted or time.perf_counter()
        self._now_pending(-len(group))
        self._active.extend(group)
        self._hand_out(view, first_row=len(self._active) - len(group))

    def _next_group(self) -> list[Job]:
        if time.monotonic() >= self._lowered_until:
            self._most = self.settings.max_batch
        group: list[Job] = []
        for job in self._waiting:
            wider = [*group, job]
            lengths = [len(member.sequence) for member in wider]
            padded = max(lengths) * len(wider)
            if len(self._active) + len(wider) > self._most or not self._batch.fits([m.tokens for m in wider]):
                break
            too_much = padded > self.settings.prefill_tokens or sum(lengths) < (1 - MOST_PADDING) * padded
            if group and (too_much or not self._batch.takes_groups):
                break
            group = wider
        return group

    def _advance(self) -> None:
        view = self._guarded(lambda: self._batch.step([job.answer[-1] for job in self._active]))
        if view is not None:
            self._hand_out(view, first_row=0)
            return
        youngest = self._active[-1]  # has lost least
        alone = len(self._active) == 1
        self._release(len(self._active) - 1)
        if alone:
            self._refuse_for_memory(youngest)
            return
        self._lower(len(self._active))
        self._waiting.appendleft(youngest)
        self._now_pending(1)

    def _hand_out(self, view: View, first_row: int) -> None:
        """Sample the next token of the rows from `first_row` on, free those that ended, then tell the readers: who
        has the last token finds the engine's counts to match."""
        rows = self._active[first_row:]
        read = self._guarded(lambda: view.read([job.sampler for job in rows]))
        if read is None:  # their tokens are in the cache already, so these rows cannot be tried again
            for job in reversed(rows):
                self._release(len(self._active) - 1)
                self._refuse_for_memory(job)
            return
        lists, hidden = read
        news: list[tuple[Generation, Callable[[], None]]] = []
        done = []
        for offset, (job, (ids, values)) in enumerate(zip(rows, lists, strict=True)):
            try:
                token = choose(ids, values, job.sampler, job.key, len(job.answer))
            except ValueError as error:  # NaN logits: this request cannot go on, the others can
                failure = EngineError(str(error), remedy="check the model's files")
                news.append((job.generation, partial(job.generation.fail, failure)))
                self._counts["failed"] += 1
                done.append(first_row + offset)
                continue
            self._counts["tokens"] += 1
            reason = self._take(job, token, hidden[offset])
            if reason:
                self._counts["finished"] += 1
                done.append(first_row + offset)
            proof = job.prints.encode() if reason else ""
            news.append((job.generation, partial(job.generation.give, [token], reason, proof, time.perf_counter())))
        for row in reversed(done):
            self._release(row)
        for generation, call in news:
            generation.from_thread(call)

    def _take(self, job: Job, token: int, hidden: npt.NDArray[np.float32]) -> FinishReason | None:
        """Add one token, sampled from `hidden`; the reason when it is the last."""
        job.prints.add(hidden)
        job.answer.append(token)
        if token in self.identity.eos_ids:
            return "eos"
        return "length" if len(job.answer) == job.max_tokens else None

    def _guarded(self, work: Callable[[], T]) -> T | None:
        """The result, or None when memory ran out."""
        try:
            return work()
        except (MemoryError, torch.OutOfMemoryError) as error:
            problem = str(error) or "no memory"
        except RuntimeError as error:
            if not any(words in str(error) for words in OUT_OF_MEMORY):
                raise
            problem = str(error)
        # After the block, when the traceback no longer holds the tensors of the failed pass.
        log.warning("out of memory with %d requests in the batch: %s", len(self._active), problem)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def _lower(self, most: int) -> None:
        self._most, self._lowered_until = most, time.monotonic() + LOWERED_S
        log.warning("at most %d requests at a time for %.0f s", most, LOWERED_S)

    def _refuse_for_memory(self, job: Job) -> None:
        self._counts["failed"] += 1
        remedy = "lower max_context or cache_tokens, or give the process more memory"
        job.fail(EngineOutOfMemory("no memory left for this request", remedy=remedy))
