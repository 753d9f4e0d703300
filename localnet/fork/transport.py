"""The wire to a remote node: JSON-RPC over one WebSocket, many requests at a time, or over HTTP POST.

`ask` sends one request and gives its result, or raises

    Lost      nothing usable came back: worth another try
    Busy      nor will it for a while: the node wants fewer requests
    Refused   the node answered with an error
    Garbage   what came back is no answer at all

`Bucket` is the rate: `wait(now)` takes a place and says how long to wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import orjson

from localnet.errors import ForkError
from localnet.fork.answers import Garbage, shown

MAX_ANSWER = 64 * 2**20  # bytes: the runtime's code is about 4 MiB of hex, a page of values less
CONNECT_TIME = 10.0  # seconds to connect
CLOSE_TIME = 1.0  # seconds for the node to say goodbye
RECOVERY = 60.0  # seconds without complaint after which a busy node is asked twice as often again
LEAST_RATE = 0.5  # requests a second that a busy node is asked all the same
BUSY = (-32005, -32029, 429)  # codes by which public nodes limit the rate
BUSY_STATUS = (429, 503)
LOST_STATUS = (408, 425, 500, 502, 504)
BUSY_CLOSE = (1008, 1013)  # WebSocket: policy violation, try again later (RFC 6455, IANA registry)


class Lost(ForkError):
    """No answer: the connection broke."""


class Busy(Lost):
    """The node wants fewer requests."""


class Interrupted(ForkError):
    """Somebody here does not want to wait any more."""


class Refused(ForkError):
    """The node answered with an error."""

    def __init__(self, method: str, code: int, message: str) -> None:
        self.code, self.text = code, message
        super().__init__(f"the node refuses {method}: {message} ({code})")

    @property
    def busy(self) -> bool:
        return self.code in BUSY or "too many requests" in self.text.lower()

    @property
    def lags(self) -> bool:
        """One of several nodes behind the address has not heard of the block yet."""
        return "not found in the database" in self.text.lower() or "expect block number from id" in self.text.lower()

    @property
    def too_large(self) -> bool:
        return self.code in (-32007, -32008) or "too big" in self.text.lower() or "too large" in self.text.lower()


@dataclass
class Stats:
    """What a fork has cost so far."""

    requests: int = 0
    retries: int = 0
    sent: int = 0  # bytes
    received: int = 0  # bytes
    values: int = 0  # storage values and absences learned
    pages: int = 0  # of keys

    @property
    def progress(self) -> tuple[int, int, int]:
        return self.requests, self.values, self.pages


class Link(Protocol):
    async def ask(self, method: str, params: list[Any]) -> Any: ...

    async def close(self) -> None: ...


class Bucket:
    """A token bucket: `rate` requests a second, `burst` of them at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self._full, self._burst = rate, rate, burst
        self._tokens, self._last, self._slowed = burst, 0.0, float("-inf")

    def slow(self, now: float) -> bool:
        """Half the rate for RECOVERY seconds, and nothing at once. False when it is at its least, or was halved less
        than a second ago: requests that were under way together complain together."""
        if self.rate <= LEAST_RATE or now - self._slowed < 1:
            return False
        self.rate, self._burst, self._slowed = max(self.rate / 2, LEAST_RATE), 1.0, now
        self._tokens, self._last = min(self._tokens, 0.0), max(self._last, now)
        return True

    def wait(self, now: float) -> float:
        """Take a place; seconds until it is due. `now` in seconds, never less than before."""
        if self.rate < self._full and now - self._slowed > RECOVERY:
            self.rate, self._slowed = min(2 * self.rate, self._full), now
        self._tokens = min(self._burst, self._tokens + (now - self._last) * self.rate)
        self._last = now
        self._tokens -= 1
        return max(0.0, -self._tokens / self.rate)


def request(identifier: int, method: str, params: list[Any]) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": identifier, "method": method, "params": params})


def result(answer: Any, method: str) -> Any:
    """The result in an answer. Raises Refused, Garbage."""
    error = answer.get("error")
    if error is not None:
        if not isinstance(error, dict) or not isinstance(error.get("code"), int):
            raise Garbage(f"the node answers {method} with the error {shown(error)}")
        told = ": ".join(str(error[name]) for name in ("message", "data") if error.get(name))
        raise Refused(method, error["code"], told[:400])
    if "result" not in answer:
        raise Garbage(f"the node answers {method} with neither a result nor an error")
    return answer["result"]


class Socket:
    """One WebSocket, opened when needed and again when it breaks."""

    def __init__(self, session: aiohttp.ClientSession, url: str, stats: Stats) -> None:
        self._session, self._url, self._stats = session, url, stats
        self._ids = itertools.count(1)
        self._waiting: dict[int, tuple[str, asyncio.Future[Any]]] = {}
        self._socket: Any = None  # aiohttp.ClientWebSocketResponse, generic in new releases only
        self._reader: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()

    async def ask(self, method: str, params: list[Any]) -> Any:
        """Raises Lost, Refused, Garbage."""
        socket, identifier = await self._open(), next(self._ids)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[identifier] = method, answer
        try:
            data = request(identifier, method, params)
            self._stats.sent += len(data)
            await socket.send_str(data.decode())
            return await answer
        except (ConnectionError, aiohttp.ClientError) as error:
            raise Lost(f"the connection to {self._url} broke: {error}") from error
        finally:
            del self._waiting[identifier]

    async def _open(self) -> Any:
        async with self._opening:
            if self._socket is None or self._socket.closed:
                await self._drop()
                try:
                    self._socket = await asyncio.wait_for(self._connect(), CONNECT_TIME)
                except aiohttp.WSServerHandshakeError as error:
                    kind = Busy if error.status in BUSY_STATUS else Lost
                    raise kind(f"{self._url} answers HTTP {error.status} to a WebSocket") from error
                except (OSError, aiohttp.ClientError, asyncio.TimeoutError) as error:
                    raise Lost(f"cannot connect to {self._url}: {error or 'it does not answer'}") from error
                self._reader = asyncio.ensure_future(self._read(self._socket))
            return self._socket

    async def _connect(self) -> Any:
        return await self._session.ws_connect(self._url, max_msg_size=MAX_ANSWER, compress=0)

    async def _read(self, socket: Any) -> None:
        """Hand answers out until the connection ends, then tell whoever still waits."""
        why: ForkError = Lost(f"{self._url} closed the connection")
        try:
            async for message in socket:
                if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    continue
                self._stats.received += len(message.data)
                self._hand_out(orjson.loads(message.data))
        except (orjson.JSONDecodeError, Garbage) as error:
            why = Garbage(f"what {self._url} sends is no JSON-RPC: {error}")
        if socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
            why = Lost(f"{self._url} sent an answer of more than {MAX_ANSWER} bytes, or found a request too large")
        if socket.close_code in BUSY_CLOSE:
            why = Busy(f"{self._url} closed the connection with code {socket.close_code}")
        self._give_up(why)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(socket.close(), CLOSE_TIME)

    def _give_up(self, why: ForkError) -> None:
        for _, answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(why)

    def _hand_out(self, answer: Any) -> None:
        if not isinstance(answer, dict):
            raise Garbage(shown(answer))
        identifier = answer.get("id")
        waiting = self._waiting.get(identifier) if isinstance(identifier, int) else None
        if waiting is None or waiting[1].done():
            return  # a late answer to what was given up, or nobody's: whose answer is missing tries again
        try:
            waiting[1].set_result(result(answer, waiting[0]))
        except ForkError as error:
            waiting[1].set_exception(error)

    async def _drop(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
            self._reader = None
            self._give_up(Lost(f"{self._url} closed the connection"))  # the reader may not have come that far

    async def close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._socket.close(), CLOSE_TIME)
        await self._drop()


class Post:
    """One POST a request, over connections that are kept."""

    def __init__(self, session: aiohttp.ClientSession, url: str, stats: Stats) -> None:
        self._session, self._url, self._stats = session, url, stats
        self._ids = itertools.count(1)

    async def ask(self, method: str, params: list[Any]) -> Any:
        """Raises Lost, Refused, Garbage, ForkError for what the server does not take at all."""
        identifier = next(self._ids)
        data = request(identifier, method, params)
        self._stats.sent += len(data)
        try:
            async with self._session.post(
                self._url, data=data, headers={"Content-Type": "application/json"}, allow_redirects=False
            ) as response:
                if response.status in (*BUSY_STATUS, *LOST_STATUS):
                    kind = Busy if response.status in BUSY_STATUS else Lost
                    raise kind(f"{self._url} answers HTTP {response.status}")
                if response.status != 200:
                    raise ForkError(f"{self._url} answers HTTP {response.status}: is this a node's JSON-RPC address?")
                answer = orjson.loads(await self._read(response))
        except orjson.JSONDecodeError as error:
            raise Garbage(f"what {self._url} sends is no JSON: {error}") from error
        except (OSError, aiohttp.ClientError) as error:
            raise Lost(f"the connection to {self._url} broke: {error}") from error
        if not isinstance(answer, dict) or answer.get("id") != identifier:
            raise Garbage(f"{self._url} answers another request, or none: {shown(answer)}")
        return result(answer, method)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        parts, size = [], 0
        async for part in response.content.iter_any():
            size += len(part)
            if size > MAX_ANSWER:
                raise ForkError(f"{self._url} sends an answer of more than {MAX_ANSWER} bytes")
            parts.append(part)
        self._stats.received += size
        return b"".join(parts)

    async def close(self) -> None:
        """The session closes the connections."""
