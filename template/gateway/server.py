"""The gateway's HTTP side: OpenAI's paths, keys and quotas, a bounded queue, streams, and a clean end.

    gateway = GatewayServer(service, access, ops)
    async with gateway: await stopped.wait()        # leaving drains what is in work

    POST /v1/chat/completions   POST /v1/completions   GET /v1/models   GET /v1/models/ID   GET /health   GET /metrics

A request passes: path and method; key; requests a minute and at a time; body within size and time; form; model; tokens
of the day; a slot, for which a bounded number may wait; then the miners. Whatever stops it is an `ApiError` in OpenAI's
form. A caller who leaves takes the work along: the handler is cancelled, and the miners with it. Tokens count from what
was sent, also for an answer that its caller did not wait for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import TracebackType

from aiohttp import web

from protocol.errors import Refusal
from template.gateway.access import Access, Meter
from template.gateway.dispatch import Order, Result
from template.gateway.errors import ApiError
from template.gateway.jobs import Job, body_error, json_response, refuse, request_id
from template.gateway.metrics import GatewayMetrics
from template.gateway.openai_api import Kind, Wanted, read_chat, read_completion
from template.gateway.replies import HEADER_MINER, Proof, Reply, model_object
from template.gateway.service import Service
from template.gateway.sse import EventStream
from template.gateway.text import Detokenizer
from template.limits import Limits
from template.listener import BodyReader, Door, cut_off, is_loopback
from template.ops import PATHS as OPS_PATHS
from template.ops import Ops

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 2 * 1024 * 1024  # 32 messages of 16,384 characters, up to four bytes each
GENERATE: dict[str, tuple[Kind, Callable[[bytes], Wanted]]] = {
    "/v1/chat/completions": ("chat", read_chat),
    "/v1/completions": ("completion", read_completion),
}
MODELS = "/v1/models"
HEADER_VERIFY = "X-Touchstone-Verify"  # "before": wait for the verifier
HEADER_MINERS = "X-Touchstone-Miners"  # how many are asked; more than one is verified before
GONE = 499  # what metrics call a caller who left


@dataclass(frozen=True)
class Bounds:
    """Of one gateway. Times in seconds."""

    concurrency: int = 64  # requests in work
    queue: int = 256  # requests waiting for a slot
    deadline: float = 60.0  # for one answer, waiting included
    drain: float = 10.0  # that requests in work get at the end
    write_timeout: float = 30.0  # for a caller to take one piece
    unwritten: int = 1024  # answers not yet in the ledger, above which no request is taken


class GatewayServer:
    """Serves one gateway. `port` 0 picks one; read `port` after start."""

    def __init__(
        self,
        service: Service,
        access: Access,
        ops: Ops,
        *,
        bounds: Bounds | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.service = service
        self.access = access
        self.meter = Meter(access.used)
        self.ops = ops
        self.metrics = GatewayMetrics(ops.registry)
        self.metrics.hedges.set_function(lambda: float(service.dispatcher.hedges))
        self.bounds = bounds or Bounds()
        self._limits = Limits()
        self._bodies = BodyReader(self._limits)
        self._slots = asyncio.Semaphore(self.bounds.concurrency)
        self._door = Door(
            self._serve,
            host,
            port,
            most=self._limits.max_connections,
            header_timeout=self._limits.header_timeout,
            drain=self.bounds.drain,
        )

    # Life

    @property
    def port(self) -> int:
        return self._door.port

    async def start(self) -> None:
        """Bind and serve. Raises CannotListen, and GatewayExposed when strangers could use it."""
        self.access.check_exposure(self._door.host)
        await self._door.open()

    async def stop(self) -> None:
        """Take nothing new, give requests in work `drain` seconds, then cancel them; write what is left to write."""
        await self._door.close()
        await self.service.records.settle()

    async def __aenter__(self) -> GatewayServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def in_work(self) -> int:
        """Requests in work or waiting for a slot."""
        return self._door.in_work

    # One request

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        started = time.perf_counter()
        status = GONE
        try:
            response = await self._answer_or_refuse(request)
            status = response.status
            return response
        finally:
            self.metrics.request(request.path if request.path in GENERATE else "other", status, started)

    async def _answer_or_refuse(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except ApiError as error:
            return refuse(request, error)
        except Refusal as refusal:  # of the body's reader
            return refuse(request, body_error(refusal))
        except ConnectionError:
            return web.Response(status=GONE)  # nobody is there to read it; raised, aiohttp would log a traceback
        except Exception:
            log.exception("a request failed")
            if request.writer.output_size > 0:  # in the middle of an answer: it cannot be taken back
                cut_off(request)
                raise
            return refuse(request, ApiError(500, "the gateway failed to answer", code="internal_error"))

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path in OPS_PATHS and request.method == "GET":
            return self.ops.answer(path, full=is_loopback(request.remote or ""))
        is_models = path == MODELS or path.startswith(MODELS + "/")
        if path not in GENERATE and not is_models:
            raise ApiError(404, f"nothing is served at {path[:100]!r}", code="unknown_url")
        if request.method != ("GET" if is_models else "POST"):
            raise ApiError(405, f"{request.method} is not served here", code="method_not_allowed")
        key = self.access.authorize(request.headers.get("Authorization"))
        if is_models:
            return self._models(path)
        if request.content_type != "application/json":
            raise ApiError(415, "send Content-Type: application/json", code="unsupported_media_type")
        ticket = self.meter.enter(key, time.time())
        job = Job(request, ticket, time.monotonic() + self.bounds.deadline)
        try:
            return await self._generate(job)
        finally:
            now = time.time()
            ticket.leave(job.used, now)
            if job.used:
                self.service.records.later(self.access.spend(key, job.used, now))

    def _models(self, path: str) -> web.Response:
        identity = self.service.identity
        entry = model_object(identity, self.service.started)
        if path == MODELS:
            return json_response({"object": "list", "data": [entry]})
        self._require_model(path.removeprefix(MODELS + "/"))
        return json_response(entry)

    def _require_model(self, name: str) -> None:
        identity = self.service.identity
        if name not in (identity.name, identity.root):
            detail = f"the model {name[:100]!r} is not served here; {identity.name!r} is"
            raise ApiError(404, detail, param="model", code="model_not_found")

    async def _generate(self, job: Job) -> web.StreamResponse:
        request = job.request
        body = await self._bodies.read(request, MAX_BODY_BYTES)
        kind, read = GENERATE[request.path]
        wanted = read(body)
        self._require_model(wanted.model)
        miners, before = self._choices(request)
        order = await self.service.order(wanted, job.until, miners)
        job.prompt_tokens, job.miners = len(order.prompt_ids), miners
        job.ticket.reserve((job.prompt_tokens + order.max_tokens) * miners, time.time())
        reply = Reply(kind, self.service.identity.name, "", int(time.time()), wanted.include_usage)
        async with self._slot(job):
            if wanted.stream and not before:
                return await self._stream(job, order, reply)
            dispatcher = self.service.dispatcher
            result = await (dispatcher.verified(order) if before else dispatcher.whole(order))
        if wanted.stream:
            return await self._replay(job, result, reply)
        answer = result.response
        proof = Proof.of(result)
        self._answered(job, result)
        text = self.service.decode(answer.token_ids)
        body = replace(reply, challenge=proof.challenge).whole(text, answer.finish_reason, job.usage, proof)
        return web.Response(body=body, content_type="application/json", headers=request_id() | proof.headers)

    async def _stream(self, job: Job, order: Order, reply: Reply) -> web.StreamResponse:
        """Tokens as the miner sends them. Before the first one an error has its status; later it is an event."""
        events = EventStream(job.request, self.bounds.write_timeout)
        async with self.service.dispatcher.stream(order) as attempt:
            reply = replace(reply, challenge=attempt.challenge.digest)
            await events.open(request_id() | {HEADER_MINER: attempt.target.hotkey})
            text = Detokenizer(self.service.decode)
            for opening in reply.first():
                await events.send(opening)
            async for tokens in attempt:
                job.answer_tokens += len(tokens)
                piece = text.push(tokens)
                if piece:
                    await events.send(reply.piece(piece))
            try:
                result = await self.service.dispatcher.finish(attempt)
            except ApiError as error:
                self.metrics.broken()
                await events.fail(error)
                return events.response
        return await self._close(job, events, result, reply, text.finish())

    async def _replay(self, job: Job, result: Result, reply: Reply) -> web.StreamResponse:
        """A verified answer to a caller who wants a stream."""
        proof = Proof.of(result)
        reply = replace(reply, challenge=proof.challenge)
        events = EventStream(job.request, self.bounds.write_timeout)
        await events.open(request_id() | proof.headers)
        for opening in reply.first():
            await events.send(opening)
        return await self._close(job, events, result, reply, self.service.decode(result.response.token_ids))

    async def _close(
        self, job: Job, events: EventStream, result: Result, reply: Reply, rest: str
    ) -> web.StreamResponse:
        self._answered(job, result)
        if rest:
            await events.send(reply.piece(rest))
        await events.send(reply.last(result.response.finish_reason, Proof.of(result)))
        if reply.with_usage:
            await events.send(reply.usage(job.usage))
        await events.close()
        return events.response

    def _answered(self, job: Job, result: Result) -> None:
        job.answer_tokens = len(result.response.token_ids)
        self.metrics.answered(result, job.used)

    def _choices(self, request: web.BaseRequest) -> tuple[int, bool]:
        """(miners to ask, whether to verify before answering), from our headers."""
        verify = request.headers.get(HEADER_VERIFY, "").lower()
        if verify not in ("", "before"):
            raise ApiError(400, f"{HEADER_VERIFY} can only be: before", param=HEADER_VERIFY, code="invalid_value")
        text = request.headers.get(HEADER_MINERS, "")
        most = self.service.most_miners
        if text and not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= most):
            raise ApiError(400, f"{HEADER_MINERS} must be 1 to {most}", param=HEADER_MINERS, code="invalid_value")
        miners = int(text) if text else self.service.miners
        return miners, miners > 1 or verify == "before"

    @asynccontextmanager
    async def _slot(self, job: Job) -> AsyncIterator[None]:
        """A place among those in work, waited for until the deadline. Raises ApiError (503)."""
        if self._door.stopping:
            raise ApiError(503, "the gateway is stopping", code="shutting_down", retry_after=5.0)
        full = self._door.in_work >= self.bounds.concurrency + self.bounds.queue
        if full or self.service.records.waiting > self.bounds.unwritten:
            raise ApiError(503, "every slot and the queue are taken", code="overloaded", retry_after=1.0)
        self._door.enter()
        self.metrics.in_work.set(self._door.in_work)
        try:
            try:
                await asyncio.wait_for(self._slots.acquire(), max(0.0, job.until - time.monotonic()))
            except asyncio.TimeoutError:
                raise ApiError(503, "no slot became free in time", code="overloaded", retry_after=1.0) from None
            try:
                job.working = True
                yield
            finally:
                self._slots.release()
        finally:
            self._door.leave()
            self.metrics.in_work.set(self._door.in_work)
