"""The serving half of a neuron: authenticated synapses over HTTP.

    server = SynapseServer(hotkey, policy=StakePolicy(lambda: metagraph))
    server.attach(ECHO, echo)                    # async def echo(request: Ask, caller: Caller) -> Answer
    server.attach_stream(TALK, talk)             # async generator: Word, Word, ..., Answer
    async with server:                           # binds; server.port is known now
        await stopped.wait()                     # leaving drains what is in work, within limits.drain_timeout

A request passes, in this order, and each step is cheaper than the one it protects: connections and rate by address;
route; header form; policy for the claimed hotkey; size; body within its time; signature, freshness, receiver; replay;
rate by hotkey; a free slot; the message's form; the handler within the synapse's time. (Connections and bodies are in
template/listener.py, signing and streaming in template/answers.py.) What goes wrong becomes a `Refusal` with a stable
code. Once the caller is known every answer is signed, refusals too; before that nothing is, so that strangers cannot
make the hotkey sign. Replays are not signed for either: their sender is not their signer.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from aiohttp import web
from prometheus_client import Counter as Metric
from prometheus_client import Gauge, Histogram

from protocol import auth
from protocol.errors import MalformedMessage, Refusal, RefusalCode, SynapseError
from protocol.metagraph import Neuron
from protocol.synapse import Message, RefusalBody, Synapse, decode, encode, parse_route
from template.answers import ResponseSigner, StreamSender, next_item
from template.keys import HEADER_HOTKEY, SCHEME_OF, Hotkey, authenticate
from template.limits import Limits, Policy, RateLimiter, ReplayStore, address_key
from template.listener import BodyReader, Door, auth_headers, cut_off, is_loopback
from template.ops import PATHS as OPS_PATHS
from template.ops import Ops

log = logging.getLogger(__name__)

Req = TypeVar("Req", bound=Message)
Res = TypeVar("Res", bound=Message)
_UNKNOWN = "unknown"  # metric label of requests for no served synapse; paths of strangers would grow without bound
_BIG_BODY = 64 * 1024  # above this a response may wait for its reader


@dataclass(frozen=True)
class Caller:
    """Who is asking, as proved by the signature. `neuron` is what the policy's metagraph says, if anything."""

    hotkey: str  # SS58
    neuron: Neuron | None
    address: str  # IP the connection came from; not authenticated
    request_digest: bytes  # 32 bytes; names this one signed request


Handler = Callable[[Req, Caller], Awaitable[Res]]
StreamHandler = Callable[[Req, Caller], AsyncIterator[Message]]


@dataclass
class _Attempt:
    """One request on its way through the server. `caller` is set once the signature has verified."""

    request: web.BaseRequest
    address: str
    synapse: Synapse[Any, Any] | None = None
    caller: Caller | None = None


class SynapseServer:
    """Serves synapses for one hotkey. `port` 0 picks a free one; read `port` after start.

    `policy` has no default on purpose: who may use this machine is a decision. `replay` defaults to a store in memory.
    """

    def __init__(
        self,
        hotkey: Hotkey,
        *,
        policy: Policy,
        limits: Limits | None = None,
        replay: ReplayStore | None = None,
        ops: Ops | None = None,
        host: str = "0.0.0.0",
        port: int = 0,
    ) -> None:
        self.hotkey = hotkey
        self.policy = policy
        self.limits = limits = limits or Limits()
        window = limits.max_age + limits.allowed_skew
        # An empty store is falsy, hence `is None`.
        self.replay = ReplayStore(retention=window, max_nonces=limits.max_nonces) if replay is None else replay
        self.ops = ops or Ops()
        self._metrics = _Metrics(self.ops)
        self._handlers: dict[str, tuple[Synapse[Any, Any], Callable[..., Any]]] = {}
        self._versions: dict[str, list[int]] = {}
        self._address_rate = RateLimiter(limits.rate_per_address, limits.burst_per_address, limits.max_tracked)
        self._hotkey_rate = RateLimiter(limits.rate_per_hotkey, limits.burst_per_hotkey, limits.max_tracked)
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._admitted: Counter[str] = Counter()  # requests in work or waiting, by hotkey
        self._bodies = BodyReader(limits)
        self._signer = ResponseSigner(hotkey)
        self._door = Door(
            self._serve,
            host,
            port,
            most=limits.max_connections,
            most_per_address=limits.max_connections_per_address,
            header_timeout=limits.header_timeout,
            drain=limits.drain_timeout,
        )

    # What is served

    def attach(self, synapse: Synapse[Req, Res], handler: Handler[Req, Res]) -> None:
        """Serve a synapse that answers whole. `handler` may raise Refusal."""
        if synapse.streaming:
            raise SynapseError(f"synapse {synapse.name} streams; use attach_stream")
        self._attach(synapse, handler)

    def attach_stream(self, synapse: Synapse[Req, Res], handler: StreamHandler[Req]) -> None:
        """Serve a streaming synapse. `handler` yields chunks and, last, one response; it may raise Refusal."""
        if not synapse.streaming:
            raise SynapseError(f"synapse {synapse.name} does not stream; use attach")
        self._attach(synapse, handler)

    def _attach(self, synapse: Synapse[Any, Any], handler: Callable[..., Any]) -> None:
        if synapse.route in self._handlers:
            raise SynapseError(f"{synapse.route} is already served")
        self._handlers[synapse.route] = (synapse, handler)
        self._versions.setdefault(synapse.name, []).append(synapse.version)

    # Life

    @property
    def port(self) -> int:
        return self._door.port

    async def start(self) -> None:
        """Bind and serve. Raises CannotListen."""
        await self._door.open()

    async def stop(self) -> None:
        """Stop accepting, give requests in work `drain_timeout` seconds, then cancel what is left. Idempotent."""
        await self._door.close()
        self.replay.close()

    async def __aenter__(self) -> SynapseServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # One request

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        started = time.perf_counter()
        attempt = _Attempt(request, request.remote or "")
        code = "ok"
        try:
            response = await self._answer(attempt)
        except Refusal as refusal:
            code = refusal.code.value
            response = self._refuse(attempt, refusal)
        except ConnectionError:
            # The caller is gone: nobody to answer. Raised, aiohttp would log a traceback for each, which lets callers
            # fill the operator's disk; a response that cannot be written closes what is left of the connection.
            self._metrics.count(attempt.synapse.name if attempt.synapse else _UNKNOWN, "disconnected", 0.0)
            return web.Response(status=503)
        except Exception:
            # A handler is other people's code and may raise anything; the caller learns only that it failed.
            log.exception("request for %s failed", attempt.synapse.route if attempt.synapse else _UNKNOWN)
            code = RefusalCode.INTERNAL.value
            response = self._refuse(attempt, Refusal(RefusalCode.INTERNAL, "the server failed to answer"))
        self._metrics.count(attempt.synapse.name if attempt.synapse else _UNKNOWN, code, time.perf_counter() - started)
        return response

    async def _answer(self, attempt: _Attempt) -> web.StreamResponse:
        request = attempt.request
        self._limit(self._address_rate, address_key(attempt.address), "requests from this address")
        if request.method == "GET" and request.raw_path in OPS_PATHS:
            return self.ops.answer(request.raw_path, full=is_loopback(attempt.address))
        synapse, handler = self._route(request)
        attempt.synapse = synapse
        headers = auth_headers(request.headers)
        neuron = self.policy.check(headers[HEADER_HOTKEY])
        body = await self._bodies.read(request, synapse.max_request_bytes)
        attempt.caller = self._authenticate(attempt, headers, body, neuron)
        hotkey = attempt.caller.hotkey
        self._admit(hotkey)
        self._metrics.in_work.inc()
        try:
            try:
                message = decode(synapse.request, body)
            except MalformedMessage as error:
                raise Refusal(RefusalCode.MALFORMED, str(error)) from None
            if synapse.streaming:
                return await self._stream(attempt, synapse, handler(message, attempt.caller))
            return await self._whole(attempt, synapse, lambda: handler(message, attempt.caller))
        finally:
            self._metrics.in_work.dec()
            self._release(hotkey)

    def _route(self, request: web.BaseRequest) -> tuple[Synapse[Any, Any], Callable[..., Any]]:
        served = self._handlers.get(request.raw_path)
        if served is not None and request.method == "POST":
            return served
        parsed = parse_route(request.raw_path)
        if parsed and parsed[0] in self._versions and served is None:
            versions = ", ".join(str(v) for v in sorted(self._versions[parsed[0]]))
            raise Refusal(RefusalCode.VERSION_MISMATCH, f"{parsed[0]} is served here in version {versions}")
        raise Refusal(RefusalCode.UNKNOWN_ROUTE, "nothing is served at this method and path")

    def _authenticate(self, attempt: _Attempt, headers: dict[str, str], body: bytes, neuron: Neuron | None) -> Caller:
        """The proved caller. A rate refusal leaves `attempt.caller` set, since by then the signature has verified."""
        path = attempt.request.raw_path
        gate = _Gate(self.replay, self._hotkey_rate)
        proved = authenticate(
            headers,
            body,
            path=path,
            receiver=self.hotkey.ss58,
            nonces=gate,
            max_age=self.limits.max_age,
            allowed_skew=self.limits.allowed_skew,
        )
        payload = auth.request_payload(
            scheme=SCHEME_OF[proved.crypto_type],
            method="POST",
            path=path,
            body=body,
            nonce_ns=proved.nonce_ns,
            sender=proved.hotkey_ss58,
            receiver=self.hotkey.ss58,
        )
        attempt.caller = Caller(proved.hotkey_ss58, neuron, attempt.address, auth.request_digest(payload))
        if gate.refusal is not None:
            raise gate.refusal
        return attempt.caller

    def _limit(self, limiter: RateLimiter, key: str, what: str) -> None:
        wait = limiter.take(key, time.monotonic())
        if wait:
            raise Refusal(RefusalCode.RATE_LIMITED, f"too many {what}", retry_after=round(wait, 3))

    # Slots

    def _admit(self, hotkey: str) -> None:
        if self._door.stopping:
            raise Refusal(RefusalCode.BUSY, "the server is stopping", retry_after=30.0)
        if self._door.in_work >= self.limits.concurrency + self.limits.queue:
            raise Refusal(RefusalCode.BUSY, "every slot and the queue are taken", retry_after=1.0)
        if self._admitted[hotkey] >= self.limits.concurrency_per_hotkey:
            raise Refusal(RefusalCode.BUSY, "too many of your requests are in work", retry_after=1.0)
        self._admitted[hotkey] += 1
        self._door.enter()

    def _release(self, hotkey: str) -> None:
        self._door.leave()
        self._admitted[hotkey] -= 1
        if not self._admitted[hotkey]:
            del self._admitted[hotkey]

    # Answers

    async def _whole(
        self, attempt: _Attempt, synapse: Synapse[Any, Any], work: Callable[[], Awaitable[Message]]
    ) -> web.Response:
        try:
            answer = await asyncio.wait_for(self._in_slot(work), synapse.timeout)
        except asyncio.TimeoutError:
            raise Refusal(RefusalCode.TIMEOUT, f"the work took longer than {synapse.timeout:g} s") from None
        if not isinstance(answer, synapse.response):
            raise SynapseError(f"handler of {synapse.route} returned {type(answer).__name__}")
        body = encode(answer)
        if len(body) > synapse.max_response_bytes:
            raise SynapseError(f"handler of {synapse.route} made {len(body)} bytes, above the synapse's limit")
        assert attempt.caller is not None
        response = self._signer.whole(attempt.caller.request_digest, 200, body)
        if len(body) > _BIG_BODY:
            await self._send(attempt.request, response)
        return response

    async def _in_slot(self, work: Callable[[], Awaitable[Message]]) -> Message:
        async with self._slots:
            return await work()

    async def _send(self, request: web.BaseRequest, response: web.Response) -> None:
        """Write a big response now, so that a reader who does not read is cut off in time."""

        async def write() -> None:
            await response.prepare(request)
            await response.write_eof()

        try:
            await asyncio.wait_for(write(), self.limits.write_timeout)
        except asyncio.TimeoutError:
            cut_off(request)

    async def _stream(
        self, attempt: _Attempt, synapse: Synapse[Any, Any], items: AsyncIterator[Message]
    ) -> web.StreamResponse:
        assert attempt.caller is not None
        sender = StreamSender(
            self._signer, attempt.request, attempt.caller.request_digest, synapse, self.limits.write_timeout
        )
        deadline = time.monotonic() + synapse.timeout
        try:
            await asyncio.wait_for(self._slots.acquire(), synapse.timeout)
        except asyncio.TimeoutError:
            raise Refusal(RefusalCode.BUSY, "no slot became free in time", retry_after=1.0) from None
        try:
            while not sender.ended:
                item = await asyncio.wait_for(next_item(items), max(0.0, deadline - time.monotonic()))
                await sender.send(item)
        except Exception as error:  # the handler's may be anything; whatever it is, the stream ends sealed
            refusal = _as_refusal(error, synapse)
            if sender.response is None:
                raise refusal from None
            await sender.refuse(refusal)
        finally:
            self._slots.release()
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()
        assert sender.response is not None
        return sender.response

    def _refuse(self, attempt: _Attempt, refusal: Refusal) -> web.Response:
        body = encode(RefusalBody.of(refusal))
        status = refusal.code.status
        if attempt.caller is not None:
            response = self._signer.whole(attempt.caller.request_digest, status, body)
        else:
            response = web.Response(status=status, body=body, headers={"Content-Type": "application/json"})
        if refusal.retry_after is not None:
            response.headers["Retry-After"] = str(math.ceil(refusal.retry_after))
        if not attempt.request.content.is_eof():
            response.force_close()
        return response


class _Gate:
    """The nonce store `authenticate` consults after the signature: replay first, then the caller's rate, then store.

    In this order a replay cannot use up its victim's rate, and a caller above its rate cannot fill the store.
    """

    def __init__(self, replay: ReplayStore, rate: RateLimiter) -> None:
        self.retention = replay.retention
        self.refusal: Refusal | None = None
        self._replay = replay
        self._rate = rate

    def check_and_store(self, hotkey_ss58: str, nonce_ns: int) -> bool:
        if self._replay.seen(hotkey_ss58, nonce_ns):
            return False
        wait = self._rate.take(hotkey_ss58, time.monotonic())
        if wait:
            self.refusal = Refusal(RefusalCode.RATE_LIMITED, "too many requests", retry_after=round(wait, 3))
            return True
        try:
            return self._replay.check_and_store(hotkey_ss58, nonce_ns)
        except Refusal as refusal:
            self.refusal = refusal
            return True


class _Metrics:
    """Prometheus series of a server, on the registry of its Ops."""

    def __init__(self, ops: Ops) -> None:
        labels = ("synapse", "code")
        self._requests = Metric("touchstone_requests", "Requests by outcome", labels, registry=ops.registry)
        self._seconds = Histogram("touchstone_request_seconds", "Time to answer", ("synapse",), registry=ops.registry)
        self.in_work = Gauge("touchstone_requests_in_work", "Requests in work or waiting", registry=ops.registry)
        self._children: dict[tuple[str, str], tuple[Any, Any]] = {}

    def count(self, synapse: str, code: str, seconds: float) -> None:
        children = self._children.get((synapse, code))
        if children is None:
            children = (self._requests.labels(synapse, code), self._seconds.labels(synapse))
            self._children[(synapse, code)] = children
        children[0].inc()
        children[1].observe(seconds)


def _as_refusal(error: Exception, synapse: Synapse[Any, Any]) -> Refusal:
    """What a caller is told about `error`. A broken connection is not an error to answer and is raised again."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ConnectionError):
        raise error
    if isinstance(error, asyncio.TimeoutError):
        return Refusal(RefusalCode.TIMEOUT, f"the work took longer than {synapse.timeout:g} s")
    log.error("stream %s failed", synapse.route, exc_info=error)
    return Refusal(RefusalCode.INTERNAL, "the server failed to answer")
