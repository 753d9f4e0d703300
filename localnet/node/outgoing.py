"""What waits to be sent to WebSocket clients, with limits: who reads too slowly is dropped instead of growing the node.

A client may fall behind by so many messages and bytes (`MAX_QUEUED`, `MAX_QUEUED_BYTES`). All clients together may by
`MAX_WAITING`; from there on whoever is sent something while more than its fair share waits for it is dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque

from aiohttp import WSMsgType, web

from localnet.node.connection import Connection

MAX_QUEUED_BYTES = 32 * 2**20  # metadata is 1.6 MB
MAX_QUEUED = 8192  # messages
MAX_WAITING = 128 * 2**20  # bytes for all clients together
FAIR_SHARE = 64 * 2**10  # bytes that may wait for a client however many others there are
OVERHEAD = 64  # bytes that a message takes in memory beside its own


class Waiting:
    """Bytes that wait for all clients of a server."""

    def __init__(self) -> None:
        self.size = 0


class WebSocketConnection(Connection):
    """One client: its subscriptions (see rpc.py) and its outgoing queue. `overrun` is set when it is to be dropped."""

    def __init__(self, local: bool, waiting: Waiting) -> None:
        super().__init__(local=local, subscribes=True)
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._waiting = waiting
        self._wake = asyncio.Event()
        self.overrun = asyncio.Event()

    def send(self, message: bytes) -> None:
        if self.overrun.is_set():
            return
        self._queue.append(message)
        self._count(len(message) + OVERHEAD)
        if len(self._queue) > 1 and self._behind():
            self.close()
        self._wake.set()

    def _count(self, size: int) -> None:
        self._size += size
        self._waiting.size += size

    def _behind(self) -> bool:
        crowded = self._waiting.size > MAX_WAITING and self._size > FAIR_SHARE
        return crowded or len(self._queue) > MAX_QUEUED or self._size > MAX_QUEUED_BYTES

    def close(self) -> None:
        """Nothing more is sent; what waits is dropped."""
        self._queue.clear()
        self._count(-self._size)
        self.overrun.set()

    async def drain(self, socket: web.WebSocketResponse) -> None:
        """Send what is queued, forever. Raises ConnectionError when the client is gone."""
        while True:
            while self._queue:
                message = self._queue.popleft()
                self._count(-len(message) - OVERHEAD)
                await socket.send_frame(message, WSMsgType.TEXT)
            self._wake.clear()
            await self._wake.wait()
