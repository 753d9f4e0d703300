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
from functools import lru_cache
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
from aiohttp import ClientTimeout, hdrs
from yarl import URL

from protocol.auth import SignedExchange
from protocol.errors import FailureCode, SynapseError
from protocol.synapse import Message, Synapse, encode
from template.addresses import check_address
from template.errors import AddressRefused, CallFailed, Failure
from template.exchange import (
    REFUSAL_BYTES,
    Call,
    Outcome,
    Reply,
    Res,
    Target,
    Timing,
    decode_answer,
    read_body,
    transport_failure,
    verify_whole,
)
from template.keys import Hotkey, sign_request
from template.reply_stream import ReplyStream

__all__ = ["Outcome", "Reply", "ReplyStream", "SynapseClient", "Target", "Timing"]

Req = TypeVar("Req", bound=Message)

CONNECT_TIMEOUT = 5.0  # seconds; a SYN lost twice on a working path still fits
_KEEP_HEADERS = {hdrs.CONTENT_TYPE: "application/json", hdrs.ACCEPT_ENCODING: "identity"}


class SynapseClient:
    """Calls synapses with one hotkey. Use as an async context manager; one client serves a whole neuron.

    `allow_local` permits loopback and private addresses and is true only for a local network.
    """

    def __init__(self, hotkey: Hotkey, *, allow_local: bool = False, connect_timeout: float = CONNECT_TIMEOUT) -> None:
        self.hotkey = hotkey
        self.allow_local = allow_local
        self.connect_timeout = connect_timeout
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
        call: Call | None = None
        try:
            check_address(target.ip, target.port, allow_local=self.allow_local)
            if synapse.streaming:
                return await self._drain(target, synapse, request, deadline)
            call = self.sign(target, synapse, request, started)
            exchange = await self._exchange(call, synapse.max_response_bytes, deadline)
            response = decode_answer(synapse.response, exchange.status, exchange.response_body)
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

    def sign(self, target: Target, synapse: Synapse[Any, Any], request: Message, started: float) -> Call:
        if not isinstance(request, synapse.request):
            raise SynapseError(f"{synapse.name} takes {synapse.request.__name__}, not {type(request).__name__}")
        body = encode(request)
        if len(body) > synapse.max_request_bytes:
            raise SynapseError(f"request of {len(body)} bytes is above the limit of synapse {synapse.name}")
        headers = sign_request(self.hotkey, path=synapse.route, body=body, receiver=target.hotkey)
        return Call(target, synapse.route, body, headers, self.hotkey, started)

    def open(self, call: Call, timeout: ClientTimeout) -> Any:
        if self._session is None:
            raise SynapseError("the client is not open; use it as an async context manager")
        url = _url(call.target.ip, call.target.port, call.path)
        return self._session.post(url, data=call.body, headers=call.headers, timeout=timeout, allow_redirects=False)

    async def _exchange(self, call: Call, limit: int, deadline: float) -> SignedExchange:
        """The verified exchange of a whole response, a refusal included. Raises CallFailed."""
        timeout = ClientTimeout(total=deadline, sock_connect=min(deadline, self.connect_timeout))
        try:
            async with self.open(call, timeout) as response:
                call.first_byte = time.perf_counter() - call.started
                body = await read_body(response, call, limit if response.status == 200 else min(limit, REFUSAL_BYTES))
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
            raise CallFailed(transport_failure(error)) from None
        return verify_whole(call, response, body)

    async def _drain(self, target: Target, synapse: Synapse[Req, Res], request: Req, deadline: float) -> Outcome[Res]:
        async with self.stream(target, synapse, request, deadline=deadline, silence=deadline) as stream:
            async for _ in stream:
                pass
        return Outcome(target, stream.reply.timing, reply=stream.reply)


@lru_cache(maxsize=4096)
def _url(ip: str, port: int, path: str) -> URL:
    return URL.build(scheme="http", host=ip, port=port, path=path)
