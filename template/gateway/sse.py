"""One answer as server-sent events: `data: {...}` lines, closed by `data: [DONE]`, or by an error object alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import orjson
from aiohttp import web

from template.gateway.errors import ApiError
from template.listener import cut_off


class EventStream:
    """Writes events to one caller. A caller who does not read within `write_timeout` seconds is cut off."""

    def __init__(self, request: web.BaseRequest, write_timeout: float) -> None:
        self._request = request
        self._write_timeout = write_timeout
        self.response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})

    async def open(self, headers: Mapping[str, str]) -> None:
        self.response.headers.update(headers)
        await self.response.prepare(self._request)

    async def send(self, document: bytes) -> None:
        """One event. Raises ConnectionError when the caller is gone or does not read."""
        try:
            await asyncio.wait_for(self.response.write(b"data: " + document + b"\n\n"), self._write_timeout)
        except asyncio.TimeoutError:
            cut_off(self._request)
            raise ConnectionResetError("the reader of a stream does not read") from None

    async def close(self) -> None:
        await self.send(b"[DONE]")
        await self.response.write_eof()

    async def fail(self, error: ApiError) -> None:
        """The answer cannot be completed: clients raise on this event."""
        await self.send(orjson.dumps(error.to_object()))
        await self.response.write_eof()
