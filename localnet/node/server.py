"""JSON-RPC over WebSocket and HTTP POST on one port.

Who reads too slowly is dropped, with a reason, instead of growing the node (outgoing.py). The answer to a request
always goes out before the first notification of what it subscribed to. Frames and bodies are bounded, batches and their
answers too; compression is off (it costs more than it saves on loopback). What is not JSON is answered with -32700 and
the connection lives on. A client that sends faster than it is answered gives others a turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import time
from typing import Any
from urllib.parse import urlsplit

import orjson
from aiohttp import HttpVersion11, WSCloseCode, WSMsgType, web

from localnet.errors import ConfigError
from localnet.node.connection import Connection
from localnet.node.outgoing import Waiting, WebSocketConnection
from localnet.node.rpc import Rpc

log = logging.getLogger(__name__)

MAX_FRAME = 16 * 2**20  # bytes in; the largest extrinsic is 5 MiB, 10 MiB as hex
MAX_STATE = 512 * 2**20  # bytes of a POST of whoever may develop: an exported state, one at a time
MAX_LARGE = 32  # WebSockets that may send as much, and POSTs at a time
SMALL_FRAME = 2**20  # bytes that the WebSockets after those may send: more than all but the largest extrinsics
SMALL_BODY = 2**16  # bytes of a POST that is always read
MAX_BATCH = 1000
MAX_BATCH_ANSWER = 16 * 2**20  # bytes
MAX_CONNECTIONS = 1024  # WebSockets
PROXIED = (  # headers by which a proxy shows; an old one speaks HTTP/1.0, as no client of ours does
    "Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Server", "X-Real-IP",
)  # fmt: skip
MIN_TOKEN = 16  # characters of a dev token
BODY_TIME = 20.0  # seconds in which a POST has to arrive
IDLE_TIME = 75.0  # seconds that an HTTP connection may wait for its next request
HANG_UP = 1.0  # seconds that a client which is dropped has to take the reason why
TURN = 0.005  # seconds of answering one client before others get a turn
SHUTDOWN = 2.0  # seconds for connections to close
PARSE_ERROR = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}'
EMPTY_BATCH = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Invalid request: the batch is empty"}}'
LARGE_BATCH = (
    b'{"jsonrpc":"2.0","id":null,"error":{"code":-32010,"message":"The batch request was too large",'
    b'"data":"Exceeded max limit of %d"}}' % MAX_BATCH
)
LARGE_ANSWER = (
    b'{"jsonrpc":"2.0","id":null,"error":{"code":-32011,"message":"The batch response was too large",'
    b'"data":"Exceeded max limit of %d"}}' % MAX_BATCH_ANSWER
)


class Turns:
    """Lets the rest of the node run when one client has been answered for a while without a pause."""

    def __init__(self) -> None:
        self._end = time.monotonic() + TURN

    async def next(self) -> None:
        if time.monotonic() > self._end:
            await asyncio.sleep(0)
            self._end = time.monotonic() + TURN


class Server:
    """`async with`-less: `start`, then `stop`. `port` is the bound one after `start`."""

    def __init__(self, rpc: Rpc, host: str, port: int, dev_token: str | None = None) -> None:
        """Raises ConfigError for a token that could be guessed."""
        if dev_token is not None and len(dev_token) < MIN_TOKEN:
            raise ConfigError(f"the dev token is too short: at least {MIN_TOKEN} characters, drawn at random")
        self.rpc, self.host, self.port, self._token = rpc, host, port, dev_token
        self._runner: web.AppRunner | None = None
        self._sockets: set[web.WebSocketResponse] = set()
        self._large_posts = 0
        self._state_posts = 0
        self._waiting = Waiting()

    async def start(self) -> None:
        """Raises ConfigError when the address cannot be bound."""
        app = web.Application(client_max_size=MAX_FRAME)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=SHUTDOWN,
            keepalive_timeout=IDLE_TIME,
            lingering_time=HANG_UP,
            auto_decompress=False,  # a small body would become a large one
        )
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, self.host, self.port)
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            hint = "choose another port with --port, or 0 for any free one"
            raise ConfigError(f"cannot listen on {self.host}:{self.port}: {error.strerror or error}; {hint}") from error
        self.port = self._runner.addresses[0][1]

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}"

    async def stop(self) -> None:
        """Close all connections and release the port."""
        closing = [socket.close(code=WSCloseCode.GOING_AWAY, message=b"the node stops") for socket in self._sockets]
        if closing:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.gather(*closing, return_exceptions=True), SHUTDOWN)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._websocket(request)
        if request.method == "POST":
            return await self._post(request)
        if request.method == "GET" and request.path == "/health":
            return web.json_response({"peers": 0, "isSyncing": False, "shouldHavePeers": False})
        return web.Response(status=405, text="JSON-RPC by WebSocket or POST\n", headers={"Allow": "POST"})

    async def _post(self, request: web.Request) -> web.Response:
        large = request.body_exists and (request.content_length is None or request.content_length > SMALL_BODY)
        develops = self._may_develop(request)
        state = develops and (request.content_length or 0) > MAX_FRAME
        if (large and self._large_posts >= MAX_LARGE) or (state and self._state_posts):
            return web.Response(status=503, text="too many large requests at a time\n")
        self._large_posts += large
        self._state_posts += state
        try:
            bounded = request.clone(client_max_size=MAX_STATE) if state else request
            body = await asyncio.wait_for(bounded.read(), BODY_TIME)
            answer = await self.answer(Connection(local=develops, subscribes=False), body)
        except asyncio.TimeoutError:
            return web.Response(status=408, text=f"the request took longer than {BODY_TIME:.0f} s to arrive\n")
        finally:
            self._large_posts -= large
            self._state_posts -= state
        if answer is None:
            return web.Response(status=204)
        return web.Response(body=answer, content_type="application/json")

    def _may_develop(self, request: web.Request) -> bool:
        """Is this the node's own machine, or does the caller have the dev token?"""
        return is_local(request) or (self._token is not None and has_token(request, self._token))

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        if len(self._sockets) >= MAX_CONNECTIONS:
            return web.Response(status=503, text="too many connections\n")
        largest = MAX_FRAME if len(self._sockets) < MAX_LARGE else SMALL_FRAME
        socket = web.WebSocketResponse(compress=False, max_msg_size=largest, heartbeat=None)
        self._sockets.add(socket)
        connection = WebSocketConnection(self._may_develop(request), self._waiting)
        try:
            await socket.prepare(request)
            await self._serve(request, socket, connection)
        finally:
            self._sockets.discard(socket)
            self.rpc.disconnect(connection)
            connection.close()
        return socket

    async def _serve(
        self, request: web.Request, socket: web.WebSocketResponse, connection: WebSocketConnection
    ) -> None:
        """Until the client goes, or reads too slowly to be kept."""
        reading = asyncio.ensure_future(self._converse(socket, connection))
        writing = asyncio.ensure_future(connection.drain(socket))
        overrun = asyncio.ensure_future(connection.overrun.wait())
        tasks = (reading, writing, overrun)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        if connection.overrun.is_set():
            await _hang_up(request, socket)
        for error in ended:
            if isinstance(error, Exception) and not isinstance(error, ConnectionError):
                raise error

    async def _converse(self, socket: web.WebSocketResponse, connection: WebSocketConnection) -> None:
        turns = Turns()
        async for message in socket:
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                continue
            answer = await self.answer(connection, message.data)
            if answer is not None:
                connection.send(answer)
            connection.flush()
            await turns.next()

    async def answer(self, connection: Connection, body: bytes | str) -> bytes | None:
        """The response to one message, None for notifications only."""
        try:
            request = orjson.loads(body)
        except orjson.JSONDecodeError:
            return PARSE_ERROR
        if not isinstance(request, list):
            answer = self.rpc.handle(connection, request)
            return answer if isinstance(answer, bytes) or answer is None else await answer
        if not request:
            return EMPTY_BATCH
        if len(request) > MAX_BATCH:
            return LARGE_BATCH
        return await self._batch(connection, request)

    async def _batch(self, connection: Connection, requests: list[Any]) -> bytes | None:
        answers: list[bytes] = []
        size, turns = 0, Turns()
        for item in requests:
            answer = self.rpc.handle(connection, item)
            if answer is not None:
                answers.append(answer if isinstance(answer, bytes) else await answer)
                size += len(answers[-1]) + 1
            if size + connection.held_bytes > MAX_BATCH_ANSWER:
                return LARGE_ANSWER
            await turns.next()
        return b"[" + b",".join(answers) + b"]" if answers else None


async def _hang_up(request: web.Request, socket: web.WebSocketResponse) -> None:
    """Drop a client that does not read: the reason is sent, and waits for it for a moment."""
    log.warning("a client that reads too slowly is dropped")
    with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
        closing = socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"reading too slowly")
        await asyncio.wait_for(closing, HANG_UP)
    if request.transport is not None:
        request.transport.abort()


def is_local(request: web.Request) -> bool:
    """Whether the peer is this machine, directly: a loopback address that asked for one, with no sign of a proxy or of
    a foreign web page behind it. A proxy that leaves no sign must not be put before a node.
    """
    peer = request.transport.get_extra_info("peername") if request.transport else None
    headers = request.headers
    if not peer or request.version < HttpVersion11 or any(name in headers for name in PROXIED):
        return False
    origin = headers.get("Origin")
    if origin is None and headers.get("Sec-Fetch-Site") == "cross-site":
        return False
    asked = [f"//{headers.get('Host', '')}", *([] if origin is None else [origin])]
    return _is_loopback(peer[0]) and all(_names_loopback(address) for address in asked)


def _names_loopback(address: str) -> bool:
    try:
        return _is_loopback(urlsplit(address).hostname or "")
    except ValueError:  # not an address at all
        return False


def has_token(request: web.Request, token: str) -> bool:
    """Whether the request carries the token: `Authorization: Bearer TOKEN`, or `?dev_token=TOKEN` in its address, for
    clients that can only be given an address. Compared in constant time."""
    header = request.headers.get("Authorization", "")
    given = header.removeprefix("Bearer ") if header.startswith("Bearer ") else request.query.get("dev_token", "")
    return hmac.compare_digest(given.encode(errors="surrogateescape"), token.encode())


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
