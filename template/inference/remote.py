"""An engine that runs elsewhere: the miner's side of engine_api.py. Without torch.

    async with RemoteEngine("http://127.0.0.1:8090", key="...") as engine:      # asks which model is served there
        engine.identity                     # compare it with the subnet's before anything is served
        async with await engine.submit(...) as generation: ...                 # as with any Engine, see backend.py

The server may fail, and is checked as any peer is: sizes and times are bounded, every token lies in the vocabulary, the
answer ends as its finish reason says, and the fingerprint has the form that its length demands. What breaks these rules
ends that one request with an EngineError. A server that is away is EngineStopped for each request until it is back;
every request names the model, so a server that comes back with another one refuses them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError
from yarl import URL

from protocol import fingerprint
from protocol.challenges import ModelIdentity
from protocol.sampling import Sampler
from protocol.synapse import safe_text
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
from template.inference.engine_api import (
    COMPLETIONS,
    FINGERPRINT_FORM,
    KEEP_ALIVE_S,
    MAX_LINE_BYTES,
    MODELS,
    SAMPLER_FORM,
    Chunk,
    Closing,
    CompletionRequest,
    Demands,
    Failed,
    ModelList,
)

log = logging.getLogger(__name__)

CONNECT_S = 5.0
SILENCE_S = 4 * KEEP_ALIVE_S  # longest wait for the next byte; the server promises one every KEEP_ALIVE_S
ANSWER_S = 600.0  # longest answer, queue included
MODELS_BYTES = 1024 * 1024
TOKEN_BYTES = 1024  # of stream for each token, an event of its own with some text
Form = TypeVar("Form", bound=BaseModel)
_TRANSPORT = (aiohttp.ClientError, asyncio.TimeoutError, OSError)


class MalformedAnswer(EngineError):
    """The server broke the contract; the text says which rule."""


class RemoteEngine:
    """See the module's tour. `key` is the server's API key, empty when it wants none."""

    def __init__(self, url: str, *, key: str = "") -> None:
        base = URL(url)
        if base.scheme not in ("http", "https") or not base.host:
            raise EngineRefused(f"{safe_text(url)} is no engine's address", remedy="use http://HOST:PORT")
        self.url = base
        self._headers = {"Accept-Encoding": "identity", **({"Authorization": f"Bearer {key}"} if key else {})}
        self._session: aiohttp.ClientSession | None = None
        self._model: tuple[str, int, ModelIdentity] | None = None  # name, longest context, identity
        self._tasks: set[asyncio.Task[None]] = set()
        self._counts = {"finished": 0, "cancelled": 0, "failed": 0, "tokens": 0}
        self._busy_s, self._busy_since = 0.0, 0.0

    async def __aenter__(self) -> RemoteEngine:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def identity(self) -> ModelIdentity:
        assert self._model is not None, "start() comes first"
        return self._model[2]

    async def start(self) -> None:
        """Ask which model is served. Raises EngineStopped, EngineRefused (our key) and MalformedAnswer."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S, sock_read=SILENCE_S),
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        try:
            self._model = await self._ask_model()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Idempotent; requests under way end with EngineStopped."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def submit(self, prompt_ids: Sequence[int], sampler: Sampler, seed: bytes, max_tokens: int) -> Generation:
        """Ask for one answer. Raises EngineRefused, EngineBusy, EngineOutOfMemory, EngineStopped, MalformedAnswer."""
        if not self.running:
            raise EngineStopped("the connection to the engine is closed")
        assert self._model is not None and self._session is not None
        name, context, identity = self._model
        check_request(identity, context, prompt_ids, max_tokens)
        demands = Demands(
            sampler=SAMPLER_FORM,
            fingerprint=FINGERPRINT_FORM,
            seed=seed.hex(),
            root=identity.root,
            dtype=identity.dtype,
        )
        wanted = CompletionRequest(
            model=name,
            prompt=list(prompt_ids),
            max_tokens=max_tokens,
            **sampler.model_dump(),
            stream=True,
            return_token_ids=True,
            touchstone=demands,
        )
        try:
            response = await self._session.post(
                self.url.with_path(COMPLETIONS), json=wanted.model_dump(), allow_redirects=False
            )
        except _TRANSPORT as error:
            raise _away(self.url, error) from None
        try:
            if response.status != 200:
                raise await _refusal(response)
        except BaseException:
            response.close()
            raise
        return self._follow(response, max_tokens)

    @property
    def running(self) -> bool:
        return self._model is not None and self._session is not None and not self._session.closed

    def stats(self) -> EngineStats:
        busy = self._busy_s + (time.perf_counter() - self._busy_since if self._tasks else 0.0)
        return EngineStats(active=len(self._tasks), waiting=0, busy_s=busy, **self._counts)

    async def _ask_model(self) -> tuple[str, int, ModelIdentity]:
        assert self._session is not None
        try:
            async with self._session.get(self.url.with_path(MODELS), allow_redirects=False) as response:
                if response.status != 200:
                    raise await _refusal(response)
                body = await _bounded(response, MODELS_BYTES)
        except _TRANSPORT as error:
            raise _away(self.url, error) from None
        offers = [entry for entry in _read(ModelList, body).data if entry.touchstone is not None]
        if len(offers) != 1 or offers[0].touchstone is None:
            raise MalformedAnswer(
                f"{self.url} offers {len(offers)} models in the way a miner needs, not one",
                remedy="start it with `touchstone engine`, or see template/inference/engine_api.py",
            )
        offered = offers[0].touchstone
        if (offered.sampler, offered.fingerprint) != (SAMPLER_FORM, FINGERPRINT_FORM):
            raise MalformedAnswer(f"{self.url} has another sampler or fingerprint", remedy="update the older side")
        identity = offered.identity.identity()
        return offers[0].id, offers[0].max_model_len or identity.context_length, identity

    def _follow(self, response: aiohttp.ClientResponse, max_tokens: int) -> Generation:
        generation = Generation()
        if not self._tasks:
            self._busy_since = time.perf_counter()
        task = asyncio.ensure_future(self._pump(response, generation, max_tokens))
        generation.on_cancel = task.cancel
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._ended(task, generation, response))
        return generation

    def _ended(self, task: asyncio.Task[None], generation: Generation, response: aiohttp.ClientResponse) -> None:
        """However it ended, even before it began: the connection is closed, and a reader told."""
        response.close()
        self._tasks.discard(task)
        if not self._tasks:
            self._busy_s += time.perf_counter() - self._busy_since
        if generation.cancelled:
            self._counts["cancelled"] += 1
        if not task.cancelled() and task.exception() is not None:
            log.error("following an answer failed", exc_info=task.exception())
        if generation.finished is None:
            generation.fail(EngineStopped("the request was cancelled, or the miner is closing"))

    async def _pump(self, response: aiohttp.ClientResponse, generation: Generation, max_tokens: int) -> None:
        try:
            async for event in _events(response, TOKEN_BYTES * max_tokens + MAX_LINE_BYTES):
                self._take(event, generation, max_tokens)
                if generation.finished is not None:
                    self._counts["finished"] += 1
                    return
            raise EngineStopped("the engine's answer ended early", remedy="look at the engine server's log")
        except EngineError as error:
            problem = error
        except (*_TRANSPORT, ValueError) as error:  # ValueError: aiohttp's for a line without end
            problem = _away(self.url, error)
        self._counts["failed"] += 1
        generation.fail(problem)

    def _take(self, event: bytes, generation: Generation, max_tokens: int) -> None:
        """One event of the stream. Raises EngineError."""
        if event.startswith(b'{"error"'):
            raise _error_of(_read(Failed, event), 503)
        chunk = _read(Chunk, event)
        choice, closing = chunk.choices[0], chunk.touchstone
        tokens, eos_ids = [*generation.token_ids, *choice.token_ids], self.identity.eos_ids
        if len(tokens) > max_tokens or max(choice.token_ids) >= self.identity.vocab_size:
            raise MalformedAnswer("the engine gave more tokens than asked for, or one outside the vocabulary")
        if (choice.finish_reason is None) != (closing is None):
            raise MalformedAnswer("the engine's fingerprint and finish reason do not come together")
        ended = any(token in eos_ids for token in choice.token_ids)
        over = ended or len(tokens) == max_tokens
        if over != (closing is not None) or (ended and [t in eos_ids for t in tokens].index(True) != len(tokens) - 1):
            raise MalformedAnswer("the engine's answer does not end where it has to")
        generation.admitted = generation.admitted or time.perf_counter()
        self._counts["tokens"] += len(choice.token_ids)
        if closing is None:
            generation.give(choice.token_ids)
            return
        if (choice.finish_reason == "stop") != ended:
            raise MalformedAnswer("the engine's finish reason is not that of its last token")
        _check_fingerprint(closing, len(tokens))
        # By the server's own account, but never after the token that was seen here.
        seen = generation.first_token or time.perf_counter()
        generation.admitted = min(seen, generation.submitted + closing.queue_ms / 1e3)
        generation.give(choice.token_ids, "eos" if ended else "length", closing.fingerprint)


async def _events(response: aiohttp.ClientResponse, most: int) -> AsyncIterator[bytes]:
    """The data of each event, until [DONE] or the end; at most `most` bytes in all, MAX_LINE_BYTES in one."""
    buffer, total = b"", 0
    async for piece in response.content.iter_any():
        total += len(piece)
        buffer += piece
        *lines, buffer = buffer.split(b"\n")
        if len(buffer) > MAX_LINE_BYTES or total > most:
            raise MalformedAnswer("the engine's answer is longer than the tokens asked for explain")
        for line in lines:
            data = line.strip()
            if data.startswith(b":"):
                total -= len(line)  # signs of life cost nothing; the time is bounded
            elif data == b"data: [DONE]":
                return
            elif data.startswith(b"data:"):
                yield data[5:].strip()


def _check_fingerprint(closing: Closing, tokens: int) -> None:
    try:
        fingerprint.decode(closing.fingerprint, tokens)
    except ValueError as error:
        raise MalformedAnswer(f"the engine's fingerprint is not usable: {error}") from None


def _read(form: type[Form], data: bytes) -> Form:
    try:
        return form.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise MalformedAnswer(safe_text(f"the engine's answer breaks the contract at {where[:100]!r}")) from None


async def _bounded(response: aiohttp.ClientResponse, most: int) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > most:
            raise MalformedAnswer(f"the engine's answer is above {most} bytes")
    return bytes(body)


async def _refusal(response: aiohttp.ClientResponse) -> EngineError:
    """The error that a status other than 200 stands for."""
    try:
        return _error_of(_read(Failed, await _bounded(response, MAX_LINE_BYTES)), response.status)
    except _TRANSPORT as error:
        return _away(response.url, error)
    except MalformedAnswer:
        return MalformedAnswer(f"the engine answered with status {response.status} and no error of the contract")


def _error_of(failed: Failed, status: int) -> EngineError:
    code, text = failed.error.code, safe_text(f"the engine says: {failed.error.message[:300]}")
    if code == "refused":
        return EngineRefused(text)
    if code == "busy":
        return EngineBusy(text, remedy="try again in a few seconds")
    if code == "out_of_memory":
        return EngineOutOfMemory(text)
    if code == "unauthorized":
        return EngineStopped(text, remedy="set TOUCHSTONE_ENGINE_KEY to the engine's API key")
    if code == "other_model":
        return EngineStopped(text, remedy="restart this miner, or give the engine the subnet's model")
    if code == "stopped":
        return EngineStopped(text, remedy="look at the engine server's log")
    return EngineError(f"{text} (status {status})", remedy="look at the engine server's log")


def _away(url: URL, error: BaseException) -> EngineStopped:
    reason = safe_text(str(error)[:200]) or type(error).__name__
    remedy = "start it with `touchstone engine`, or correct --engine-url"
    return EngineStopped(f"the engine at {url.origin()} cannot be reached: {reason}", remedy=remedy)
