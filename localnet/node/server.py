"""JSON-RPC over WebSocket and HTTP POST on one port.

A WebSocket connection has an outgoing queue with limits: who reads too slowly is dropped instead of growing the node.
The answer to a request always goes out before the first notification of what it subscribed to. Frames and bodies are
bounded, batches too; compression is off (it costs more than it saves on loopback). What is not JSON is answered with
-32700 and the connection lives on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections import deque
from urllib.parse import urlsplit

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from localnet.errors import ConfigError
from localnet.node.connection import Connection
from localnet.node.rpc import Rpc

log = logging.getLogger(__name__)

MAX_FRAME = 16 * 2**20  # bytes in; the largest extrinsic is 5 MiB, 10 MiB as hex
MAX_QUEUED_BYTES = 64 * 2**20  # bytes out, waiting: metadata is 1.6 MB
MAX_QUEUED = 8192  # messages out, waiting
MAX_BATCH = 1000
MAX_CONNECTIONS = 4096
SHUTDOWN = 2.0  # seconds for connections to close
PARSE_ERROR = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}'
EMPTY_BATCH = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Invalid request: the batch is empty"}}'
LARGE_BATCH = (
    b'{"jsonrpc":"2.0","id":null,"error":{"code":-32010,"message":"The batch request was too large",'
    b'"data":"Exceeded max limit of %d"}}' % MAX_BATCH
)


class WebSocketConnection(Connection):
    """One client: its subscriptions (see rpc.py) and its outgoing queue."""

    def __init__(self, local: bool) -> None:
        super().__init__(local=local, subscribes=True)
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self.overrun = False

    def send(self, message: bytes) -> None:
        if self.overrun:
            return
        self._queue.append(message)
        self._bytes += len(message)
        if len(self._queue) > MAX_QUEUED or (self._bytes > MAX_QUEUED_BYTES and len(self._queue) > 1):
            self.overrun = True
        self._wake.set()

    async def drain(self, socket: web.WebSocketResponse) -> None:
        """Send what is queued, forever; returns when the client is too slow or gone."""
        while True:
            while self._queue and not self.overrun:
                message = self._queue.popleft()
                self._bytes -= len(message)
                await socket.send_frame(message, WSMsgType.TEXT)
            if self.overrun:
                log.warning("a client that reads too slowly is dropped")
                await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"reading too slowly")
                return
            self._wake.clear()
            await self._wake.wait()


class Server:
    """`async with`-less: `start`, then `stop`. `port` is the bound one after `start`."""

    def __init__(self, rpc: Rpc, host: str, port: int) -> None:
        self.rpc, self.host, self.port = rpc, host, port
        self._runner: web.AppRunner | None = None
        self._sockets: set[web.WebSocketResponse] = set()

    async def start(self) -> None:
        """Raises ConfigError when the address cannot be bound."""
        app = web.Application(client_max_size=MAX_FRAME)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN)
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
            answer = await self.answer(Connection(local=is_local(request), subscribes=False), await request.read())
            if answer is None:
                return web.Response(status=204)
            return web.Response(body=answer, content_type="application/json")
        if request.method == "GET" and request.path == "/health":
            return web.json_response({"peers": 0, "isSyncing": False, "shouldHavePeers": False})
        return web.Response(status=405, text="JSON-RPC by WebSocket or POST\n", headers={"Allow": "POST"})

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        if len(self._sockets) >= MAX_CONNECTIONS:
            return web.Response(status=503, text="too many connections\n")
        socket = web.WebSocketResponse(compress=False, max_msg_size=MAX_FRAME, heartbeat=None)
        await socket.prepare(request)
        connection = WebSocketConnection(is_local(request))
        self._sockets.add(socket)
        writer = asyncio.ensure_future(connection.drain(socket))
        try:
            await self._converse(socket, connection)
        finally:
            self._sockets.discard(socket)
            self.rpc.disconnect(connection)
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await writer
        return socket

    async def _converse(self, socket: web.WebSocketResponse, connection: WebSocketConnection) -> None:
        async for message in socket:
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY) or connection.overrun:
                continue
            answer = await self.answer(connection, message.data)
            if answer is not None:
                connection.send(answer)
            connection.flush()

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
        answers = []
        for item in request:
            answer = self.rpc.handle(connection, item)
            if answer is not None:
                answers.append(answer if isinstance(answer, bytes) else await answer)
        return b"[" + b",".join(answers) + b"]" if answers else None


def is_local(request: web.Request) -> bool:
    """Whether the peer is this machine, directly: loopback address, no proxy, no foreign web page behind it."""
    peer = request.transport.get_extra_info("peername") if request.transport else None
    if not peer or "X-Forwarded-For" in request.headers or "Forwarded" in request.headers:
        return False
    origin = request.headers.get("Origin")
    return _is_loopback(peer[0]) and (origin is None or _is_loopback(urlsplit(origin).hostname or ""))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
