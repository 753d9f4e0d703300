"""The lower half of the server: connections, broken HTTP, bodies within their bounds, header form. No keys, no routes.

Everything here runs before it is known who is asking, so each step is bounded: connections in all and by address,
header time (aiohttp's keep-alive timer), body size, body time, and the bytes of all unfinished bodies together.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDictProxy

from protocol.errors import Refusal, RefusalCode
from protocol.synapse import RefusalBody, encode, safe_text
from template.errors import CannotListen
from template.keys import AUTH_HEADERS, HEADER_HOTKEY
from template.limits import Limits, address_key

log = logging.getLogger(__name__)


class _Connection(RequestHandler):
    """A connection whose broken HTTP gets a refusal like any other. aiohttp would log a traceback for each, which
    lets strangers fill the operator's disk."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500 or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        log.debug("broken HTTP from %s: %s", request.remote, safe_text(str(message)))
        refusal = Refusal(RefusalCode.MALFORMED, "the request breaks HTTP")
        headers = {"Content-Type": "application/json"}
        response = web.Response(status=status, body=encode(RefusalBody.of(refusal)), headers=headers)
        response.force_close()
        return response


class HttpServer(web.Server):
    """aiohttp's low-level server with a bound on connections, in all and by address; above it they are closed."""

    def __init__(self, handler: Callable[..., Any], most: int, most_per_address: int, **kwargs: Any) -> None:
        super().__init__(handler, **kwargs)
        self._most = most
        self._most_per_address = most_per_address
        self._by_address: Counter[str] = Counter()
        self._key_of: dict[RequestHandler, str] = {}

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        peer = transport.get_extra_info("peername")
        key = address_key(peer[0]) if peer else ""
        self._key_of[handler] = key
        self._by_address[key] += 1
        if len(self._key_of) > self._most or self._by_address[key] > self._most_per_address:
            transport.abort()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        key = self._key_of.pop(handler, None)
        if key is not None:
            self._by_address[key] -= 1
            if not self._by_address[key]:
                del self._by_address[key]


class Door:
    """The life of an HTTP server: bind, serve, take nothing new, let what is in work finish, close.

    `port` 0 picks a free one; read it after `open`. Whoever serves refuses while `stopping`, and calls `enter` and
    `leave` around each piece of work that `close` has to wait for, `drain` seconds at most.
    """

    def __init__(
        self,
        handler: Callable[..., Any],
        host: str,
        port: int,
        *,
        most: int,
        most_per_address: int | None = None,  # None: as many as in all, for callers who share a proxy or a machine
        header_timeout: float,
        drain: float = 10.0,
    ) -> None:
        self.host = host
        self.port = port
        self.in_work = 0
        self.stopping = False
        self._handler = handler
        self._most, self._most_per_address = most, most if most_per_address is None else most_per_address
        self._header_timeout = header_timeout
        self._drain = drain
        self._idle = asyncio.Event()
        self._http: HttpServer | None = None
        self._listener: asyncio.Server | None = None

    async def open(self) -> None:
        """Raises CannotListen."""
        self._http = HttpServer(
            self._handler,
            self._most,
            self._most_per_address,
            access_log=None,
            keepalive_timeout=self._header_timeout,
            lingering_time=2.0,  # so that a sender of a refused body can read why before the connection closes
            auto_decompress=False,
            handler_cancellation=True,  # a caller who hung up stops costing work
            tcp_keepalive=False,
        )
        self.stopping = False
        self._listener = await listen(self._http, self.host, self.port, backlog=1024)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Idempotent. What is still in work after `drain` is cancelled."""
        if self._listener is None or self._http is None:
            return
        self.stopping = True
        self._listener.close()
        self._listener = None
        self._http.pre_shutdown()
        if self.in_work:
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), self._drain)
            except asyncio.TimeoutError:
                log.warning("stopping with %d requests in work; they are cancelled", self.in_work)
        await self._http.shutdown(0.2)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._http.connections) if self._http else 0

    def enter(self) -> None:
        self.in_work += 1

    def leave(self) -> None:
        self.in_work -= 1
        if not self.in_work:
            self._idle.set()


async def listen(http: web.Server, host: str, port: int, backlog: int = 100) -> asyncio.Server:
    """Bind and accept. Raises CannotListen."""
    try:
        return await asyncio.get_running_loop().create_server(http, host, port, backlog=backlog)
    except OSError as error:
        remedy = "stop what uses the port, or choose another address and port"
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise CannotListen(f"cannot listen on {host}:{port}: {reason}", remedy=remedy) from None


class BodyReader:
    """Reads request bodies; `buffered` counts the bytes reserved for those that have not arrived in full."""

    def __init__(self, limits: Limits) -> None:
        self.buffered = 0
        self._limits = limits

    async def read(self, request: web.BaseRequest, limit: int) -> bytes:
        length = request.content_length
        if length is not None and length > limit:
            raise Refusal(RefusalCode.TOO_LARGE, f"the body is above the limit of {limit} bytes")
        content = request.content
        if content.is_eof():  # the whole body came with the headers
            body = content.read_nowait(-1)
            if len(body) > limit:
                raise Refusal(RefusalCode.TOO_LARGE, f"the body is above the limit of {limit} bytes")
            return body
        reserved = limit if length is None else length
        if self.buffered + reserved > self._limits.max_buffered_bytes:
            raise Refusal(RefusalCode.BUSY, "too many bodies are being received", retry_after=1.0)
        self.buffered += reserved
        try:
            return await asyncio.wait_for(_collect(content, limit), self._limits.body_timeout)
        except asyncio.TimeoutError:
            raise Refusal(RefusalCode.TIMEOUT, "the body did not arrive in time") from None
        except web.RequestPayloadError:
            raise Refusal(RefusalCode.MALFORMED, "the body breaks HTTP") from None
        finally:
            self.buffered -= reserved


async def _collect(content: StreamReader, limit: int) -> bytes:
    body = bytearray()
    while not content.at_eof():
        body += await content.readany()
        if len(body) > limit:
            raise Refusal(RefusalCode.TOO_LARGE, f"the body is above the limit of {limit} bytes")
    return bytes(body)


def auth_headers(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    """The btauth headers, each at most once: two of one kind could mean different things to different readers."""
    found: dict[str, str] = {}
    for name in AUTH_HEADERS:
        values = headers.getall(name, ())
        if len(values) > 1:
            raise Refusal(RefusalCode.MALFORMED, f"header {name} is given twice")
        if values:
            found[name] = values[0]
    if HEADER_HOTKEY not in found:
        raise Refusal(RefusalCode.UNAUTHENTICATED, "requests must be signed with a hotkey (btauth/1)")
    return found


def cut_off(request: web.BaseRequest) -> None:
    """End a connection whose reader does not read."""
    if request.transport is not None:
        request.transport.abort()


def is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
