"""The calling half of a neuron: one client for every peer, none of whom is trusted.

    async with SynapseClient(hotkey) as client:
        reply = await client.call(target, ECHO, Ask(prompt="hello"), deadline=5)     # raises CallFailed
        async for outcome in client.fan_out(ECHO, {target: ask, ...}, deadline=5):    # as they finish, never raises
            outcome.reply or outcome.failure
        async with client.stream(target, TALK, ask, deadline=30) as stream:
            async for word in stream: ...            # the miner's word so far, proved only by what follows
            reply = stream.reply                     # seal verified

What a peer can do to its caller is bounded: its address is checked, its time ends at the deadline, its body at the
synapse's size, its headers at a few kilobytes; compression, redirects, cookies and proxies are off; and no answer
counts that is not signed by the hotkey called, for this very request. A failure is a value with a stable code
(`protocol.errors.FailureCode`), and one peer's failure costs another nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import Any, Generic, TypeVar

import aiohttp
from aiohttp import ClientTimeout, hdrs
from yarl import URL

from protocol import auth
from protocol.auth import SignedExchange
from protocol.errors import FailureCode, MalformedMessage, Refusal, StreamError, SynapseError
from protocol.metagraph import Neuron
from protocol.stream import Frame, FrameParser, Kind, RunningDigest
from protocol.synapse import Message, Synapse, decode, decode_refusal, encode, safe_text
from template.addresses import check_address
from template.errors import AddressRefused, CallFailed, Failure
from template.keys import HEADER_NONCE, HEADER_SIGNATURE, Hotkey, sign_request, verify

Req = TypeVar("Req", bound=Message)
Res = TypeVar("Res", bound=Message)

CONNECT_TIMEOUT = 5.0  # seconds; a SYN lost twice on a working path still fits
REFUSAL_BYTES = 4096  # no refusal is longer
STREAM_OVERHEAD = 4096  # room above max_response_bytes for a last refusal and the seal
_KEEP_HEADERS = {hdrs.CONTENT_TYPE: "application/json", hdrs.ACCEPT_ENCODING: "identity"}


@dataclass(frozen=True)
class Target:
    """Whom to call: the hotkey that must sign the answer, and where the chain says it listens."""

    hotkey: str  # SS58
    ip: str
    port: int

    @classmethod
    def of(cls, neuron: Neuron) -> Target:
        return cls(neuron.hotkey, neuron.ip, neuron.port)


@dataclass(frozen=True)
class Timing:
    """Seconds since the call began, and bytes of the response body received."""

    first_byte: float | None  # until the response headers; None when they never came
    total: float
    received: int


@dataclass(frozen=True)
class Reply(Generic[Res]):
    """An answer whose signature has verified. `exchange` holds the signed bytes of both sides, for evidence."""

    response: Res
    exchange: SignedExchange
    timing: Timing


@dataclass(frozen=True)
class Outcome(Generic[Res]):
    """What became of one call of a fan-out: exactly one of `reply` and `failure` is set."""

    target: Target
    timing: Timing
    reply: Reply[Res] | None = None
    failure: Failure | None = None

    @property
    def ok(self) -> bool:
        return self.reply is not None


@dataclass
class _Call:
    """One signed request and what is known about its answer so far."""

    target: Target
    path: str
    body: bytes
    headers: dict[str, str]
    sender: Hotkey
    started: float
    first_byte: float | None = None
    received: int = 0
    request_digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.request_digest = auth.request_digest(self.exchange_fields(0, "", b"", b"").request_payload)

    @property
    def timing(self) -> Timing:
        return Timing(self.first_byte, time.perf_counter() - self.started, self.received)

    def exchange_fields(
        self, status: int, scheme: str, body: bytes, signature: bytes, *, streamed: bool = False
    ) -> SignedExchange:
        return SignedExchange(
            method="POST",
            path=self.path,
            sender=self.sender.ss58,
            receiver=self.target.hotkey,
            nonce_ns=int(self.headers[HEADER_NONCE]),
            request_scheme=self.sender.scheme,
            request_body=self.body,
            request_signature=bytes.fromhex(self.headers[HEADER_SIGNATURE][2:]),
            status=status,
            response_scheme=scheme,
            response_body=body,
            response_signature=signature,
            streamed=streamed,
        )


class SynapseClient:
    """Calls synapses with one hotkey. Use as an async context manager; one client serves a whole neuron.

    `allow_local` permits loopback and private addresses and is true only for a local network.
    """

    def __init__(self, hotkey: Hotkey, *, allow_local: bool = False, connect_timeout: float = CONNECT_TIMEOUT) -> None:
        self.hotkey = hotkey
        self.allow_local = allow_local
        self._connect_timeout = connect_timeout
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> SynapseClient:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, limit_per_host=0, use_dns_cache=False, keepalive_timeout=15.0),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            headers=_KEEP_HEADERS,
            skip_auto_headers=(hdrs.USER_AGENT, hdrs.ACCEPT),
            max_line_size=8190,
            max_field_size=8190,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    # Calls

    async def call(
        self, target: Target, synapse: Synapse[Req, Res], request: Req, deadline: float = 30.0
    ) -> Reply[Res]:
        """Call one peer. `deadline` is in seconds from now and covers everything. Raises CallFailed."""
        outcome = await self.attempt(target, synapse, request, deadline)
        if outcome.reply is None:
            assert outcome.failure is not None
            raise CallFailed(outcome.failure)
        return outcome.reply

    async def attempt(
        self, target: Target, synapse: Synapse[Req, Res], request: Req, deadline: float = 30.0
    ) -> Outcome[Res]:
        """Like `call`, with the failure as a value. For a streaming synapse the chunks are verified and dropped."""
        started = time.perf_counter()
        call: _Call | None = None
        try:
            check_address(target.ip, target.port, allow_local=self.allow_local)
            if synapse.streaming:
                return await self._drain(target, synapse, request, deadline)
            call = self._sign(target, synapse, request, started)
            exchange = await self._exchange(call, synapse.max_response_bytes, deadline)
            response = _decode_answer(synapse.response, exchange.status, exchange.response_body)
            reply = Reply(response, exchange, call.timing)
            return Outcome(target, reply.timing, reply=reply)
        except AddressRefused as error:
            failure = Failure(FailureCode.ADDRESS_REFUSED, error.message)
        except CallFailed as error:
            failure = error.failure
        timing = call.timing if call else Timing(None, time.perf_counter() - started, 0)
        return Outcome(target, timing, failure=failure)

    async def fan_out(
        self,
        synapse: Synapse[Req, Res],
        requests: Mapping[Target, Req],
        *,
        deadline: float = 30.0,
        concurrency: int = 256,
    ) -> AsyncIterator[Outcome[Res]]:
        """Call every target and yield outcomes as they finish, failures among them.

        `deadline` counts for each call from its own start. At most `concurrency` run at once; with fewer slots than
        silent peers the rest wait for them, so leave it at the size of the subnet unless memory forbids. Leaving the
        loop early (`contextlib.aclosing`) cancels what is still running.
        """
        slots = asyncio.Semaphore(concurrency)
        finished: asyncio.Queue[Outcome[Res] | BaseException] = asyncio.Queue()

        async def one(target: Target, request: Req) -> None:
            try:
                async with slots:
                    finished.put_nowait(await self.attempt(target, synapse, request, deadline))
            except Exception as error:  # a bug here must end the loop below, not leave it waiting for ever
                finished.put_nowait(error)

        tasks = [asyncio.create_task(one(target, request)) for target, request in requests.items()]
        try:
            for _ in tasks:
                outcome = await finished.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                yield outcome
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def call_all(
        self,
        synapse: Synapse[Req, Res],
        requests: Mapping[Target, Req],
        *,
        deadline: float = 30.0,
        concurrency: int = 256,
    ) -> dict[Target, Outcome[Res]]:
        """`fan_out`, gathered."""
        outcomes = self.fan_out(synapse, requests, deadline=deadline, concurrency=concurrency)
        return {outcome.target: outcome async for outcome in outcomes}

    def stream(
        self,
        target: Target,
        synapse: Synapse[Req, Res],
        request: Req,
        *,
        deadline: float = 60.0,
        silence: float = 15.0,
    ) -> ReplyStream[Res]:
        """Open a stream: `async with` it, iterate the chunks, then read `.reply`.

        `deadline` bounds the whole stream and `silence` the wait for the next bytes, both in seconds. Every step may
        raise CallFailed.
        """
        if not synapse.streaming:
            raise SynapseError(f"synapse {synapse.name} does not stream; use call")
        return ReplyStream(self, target, synapse, request, deadline, silence)

    # One exchange

    def _sign(self, target: Target, synapse: Synapse[Any, Any], request: Message, started: float) -> _Call:
        if not isinstance(request, synapse.request):
            raise SynapseError(f"{synapse.name} takes {synapse.request.__name__}, not {type(request).__name__}")
        body = encode(request)
        if len(body) > synapse.max_request_bytes:
            raise SynapseError(f"request of {len(body)} bytes is above the limit of synapse {synapse.name}")
        headers = sign_request(self.hotkey, path=synapse.route, body=body, receiver=target.hotkey)
        return _Call(target, synapse.route, body, headers, self.hotkey, started)

    def _open(self, call: _Call, timeout: ClientTimeout) -> Any:
        if self._session is None:
            raise SynapseError("the client is not open; use it as an async context manager")
        url = _url(call.target.ip, call.target.port, call.path)
        return self._session.post(url, data=call.body, headers=call.headers, timeout=timeout, allow_redirects=False)

    async def _exchange(self, call: _Call, limit: int, deadline: float) -> SignedExchange:
        """The verified exchange of a whole response, a refusal included. Raises CallFailed."""
        timeout = ClientTimeout(total=deadline, sock_connect=min(deadline, self._connect_timeout))
        try:
            async with self._open(call, timeout) as response:
                call.first_byte = time.perf_counter() - call.started
                body = await _read(response, call, limit if response.status == 200 else min(limit, REFUSAL_BYTES))
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
            raise CallFailed(_transport_failure(error)) from None
        return _verify_whole(call, response, body)

    async def _drain(self, target: Target, synapse: Synapse[Req, Res], request: Req, deadline: float) -> Outcome[Res]:
        async with self.stream(target, synapse, request, deadline=deadline, silence=deadline) as stream:
            async for _ in stream:
                pass
        return Outcome(target, stream.reply.timing, reply=stream.reply)


class ReplyStream(Generic[Res]):
    """A streamed answer: an async iterator of chunks; `.reply` once they have ended and the seal has verified.

    `.reply.exchange.response_body` holds all frames. Before the end a chunk is unproved: show it, do not act on it.
    """

    def __init__(
        self,
        client: SynapseClient,
        target: Target,
        synapse: Synapse[Any, Res],
        request: Message,
        deadline: float,
        silence: float,
    ) -> None:
        self._client = client
        self._target = target
        self._synapse = synapse
        self._request = request
        self._timeout = ClientTimeout(
            total=deadline, sock_connect=min(deadline, client._connect_timeout), sock_read=min(deadline, silence)
        )
        self._reply: Reply[Res] | None = None
        self._chunks: AsyncIterator[Message] | None = None
        self._response: aiohttp.ClientResponse | None = None
        self._call: _Call | None = None

    @property
    def reply(self) -> Reply[Res]:
        """The verified final answer. Raises SynapseError when the stream has not been read to its end."""
        if self._reply is None:
            raise SynapseError("read the stream to its end before asking for its reply")
        return self._reply

    async def __aenter__(self) -> ReplyStream[Res]:
        started = time.perf_counter()
        try:
            check_address(self._target.ip, self._target.port, allow_local=self._client.allow_local)
        except AddressRefused as error:
            raise CallFailed(Failure(FailureCode.ADDRESS_REFUSED, error.message)) from None
        call = self._call = self._client._sign(self._target, self._synapse, self._request, started)
        try:
            response = self._response = await self._client._open(call, self._timeout)
            call.first_byte = time.perf_counter() - started
            if response.headers.get(hdrs.CONTENT_TYPE) == auth.CONTENT_TYPE_STREAM and response.status == 200:
                _check_signer(call, response)
                self._chunks = self._frames(call, response)
                return self
            body = await _read(response, call, REFUSAL_BYTES)
            exchange = _verify_whole(call, response, body)
            _decode_answer(self._synapse.response, exchange.status, body)
            raise CallFailed(Failure(FailureCode.MALFORMED, "a whole response came where a stream was promised"))
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
            self._close()
            raise CallFailed(_transport_failure(error)) from None
        except BaseException:
            self._close()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def __aiter__(self) -> AsyncIterator[Message]:
        if self._chunks is None:
            raise SynapseError("open the stream with `async with` before reading it")
        return self._chunks

    async def _frames(self, call: _Call, response: aiohttp.ClientResponse) -> AsyncIterator[Message]:
        synapse = self._synapse
        assert synapse.chunk is not None
        running = RunningDigest(call.request_digest)
        kept: list[bytes] = []
        final: Frame | None = None
        seal: Frame | None = None
        try:
            async for frame in _received_frames(call, response, synapse):
                if frame.kind is Kind.SEAL:
                    seal = frame
                    continue
                encoded = frame.encode()
                running.add(encoded)
                kept.append(encoded)
                if frame.kind is Kind.CHUNK:
                    yield decode(synapse.chunk, frame.payload)
                else:
                    final = frame
        except StreamError as error:
            raise CallFailed(Failure(error.code, str(error))) from None
        except MalformedMessage as error:
            raise CallFailed(Failure(FailureCode.MALFORMED, str(error))) from None
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
            raise CallFailed(_transport_failure(error)) from None
        assert final is not None and seal is not None  # the parser ends a stream only so
        self._finish(call, response, running, b"".join(kept), final, seal)

    def _finish(
        self,
        call: _Call,
        response: aiohttp.ClientResponse,
        running: RunningDigest,
        frames: bytes,
        final: Frame,
        seal: Frame,
    ) -> None:
        scheme = response.headers.get(auth.HEADER_SCHEME, auth.DEFAULT_SCHEME)
        payload = auth.stream_payload(
            scheme=scheme,
            digest=call.request_digest,
            status=200,
            frames=running.frames,
            running_digest=running.digest(),
            hotkey=call.target.hotkey,
        )
        if not verify(call.target.hotkey, payload, seal.payload, scheme):
            raise CallFailed(Failure(FailureCode.BAD_SIGNATURE, "the seal does not hold for the frames received"))
        status = 200 if final.kind is Kind.END else 500
        answer = _decode_answer(self._synapse.response, status, final.payload)
        exchange = call.exchange_fields(200, scheme, frames, seal.payload, streamed=True)
        self._reply = Reply(answer, exchange, call.timing)

    def _close(self) -> None:
        if self._response is not None:
            if self._reply is None:
                self._response.close()
            else:
                self._response.release()
            self._response = None


async def _received_frames(
    call: _Call, response: aiohttp.ClientResponse, synapse: Synapse[Any, Any]
) -> AsyncIterator[Frame]:
    parser = FrameParser(synapse.max_chunk_bytes, synapse.max_response_bytes + STREAM_OVERHEAD)
    while not response.content.at_eof():
        data = await response.content.readany()
        call.received += len(data)
        for frame in parser.feed(data):
            yield frame
    parser.finish()


async def _read(response: aiohttp.ClientResponse, call: _Call, limit: int) -> bytes:
    """The body, at most `limit` bytes; a longer one closes the connection. Raises CallFailed and aiohttp's errors."""
    if (response.content_length or 0) > limit:
        response.close()
        raise CallFailed(
            Failure(FailureCode.TOO_LARGE, f"the response claims {response.content_length} bytes, limit {limit}")
        )
    content = response.content
    body = content.read_nowait(-1) if content.is_eof() else b""
    if content.exception() is not None:
        raise content.exception()  # type: ignore[misc]
    call.received = len(body)
    parts = [body]
    while not content.at_eof() and call.received <= limit:
        parts.append(await content.readany())
        call.received += len(parts[-1])
    if call.received > limit:
        response.close()
        raise CallFailed(Failure(FailureCode.TOO_LARGE, f"the response is larger than {limit} bytes"))
    return b"".join(parts)


def _check_signer(call: _Call, response: aiohttp.ClientResponse) -> None:
    headers = response.headers
    if headers.get(auth.HEADER_RESPONSE) != auth.RESPONSE_VERSION:
        raise CallFailed(Failure(FailureCode.UNSIGNED, f"status {response.status} without a response signature"))
    if headers.get(auth.HEADER_HOTKEY) != call.target.hotkey:
        raise CallFailed(Failure(FailureCode.WRONG_SIGNER, "the response names another hotkey than the one called"))


def _verify_whole(call: _Call, response: aiohttp.ClientResponse, body: bytes) -> SignedExchange:
    headers = response.headers
    text = headers.get(auth.HEADER_SIGNATURE)
    if text is None or headers.get(auth.HEADER_RESPONSE) != auth.RESPONSE_VERSION:
        detail = f"status {response.status} without a response signature"
        raise CallFailed(Failure(FailureCode.UNSIGNED, detail, _claimed_refusal(response.status, body)))
    _check_signer(call, response)
    scheme = headers.get(auth.HEADER_SCHEME, auth.DEFAULT_SCHEME)
    try:
        signature = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise CallFailed(Failure(FailureCode.BAD_SIGNATURE, "the response signature is not hex")) from None
    payload = auth.response_payload(
        scheme=scheme, digest=call.request_digest, status=response.status, body=body, hotkey=call.target.hotkey
    )
    if not verify(call.target.hotkey, payload, signature, scheme):
        raise CallFailed(Failure(FailureCode.BAD_SIGNATURE, "the response signature does not hold for this request"))
    return call.exchange_fields(response.status, scheme, body, signature)


def _decode_answer(model: type[Res], status: int, body: bytes) -> Res:
    """The response message, or CallFailed with the signed refusal, or because it is neither."""
    try:
        if status == 200:
            return decode(model, body)
        refusal = decode_refusal(body)
    except MalformedMessage as error:
        raise CallFailed(Failure(FailureCode.MALFORMED, str(error))) from None
    raise CallFailed(Failure(FailureCode.REFUSED, "the peer declined", refusal))


def _claimed_refusal(status: int, body: bytes) -> Refusal | None:
    if status == 200:
        return None
    try:
        return decode_refusal(body)
    except MalformedMessage:
        return None


def _transport_failure(error: Exception) -> Failure:
    """The failure an aiohttp or socket error means. Its text may hold bytes of the peer, so it is made safe."""
    detail = safe_text(str(error) or type(error).__name__)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Failure(FailureCode.UNREACHABLE, "no connection in time")
    if isinstance(error, asyncio.TimeoutError):
        return Failure(FailureCode.DEADLINE, "no complete answer in time")
    if isinstance(error, aiohttp.ClientConnectorError):
        return Failure(FailureCode.UNREACHABLE, detail)
    if isinstance(error, aiohttp.ClientPayloadError):
        return Failure(FailureCode.TRUNCATED, detail)
    if isinstance(error, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, OSError)):
        return Failure(FailureCode.DISCONNECTED, detail)
    return Failure(FailureCode.NOT_HTTP, detail)


@lru_cache(maxsize=4096)
def _url(ip: str, port: int, path: str) -> URL:
    return URL.build(scheme="http", host=ip, port=port, path=path)
