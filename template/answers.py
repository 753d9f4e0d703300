"""Signed answers: the response signer, and the sender of one stream.

`ResponseSigner` turns a body into a response that only this request's caller can use. `StreamSender` writes frames as
the handler yields them, keeps the running digest, and ends with the seal (protocol/stream.py has the grammar).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from protocol import auth
from protocol.errors import Refusal, SynapseError
from protocol.stream import Frame, Kind, RunningDigest
from protocol.synapse import Message, RefusalBody, Synapse, encode
from template.keys import Hotkey
from template.listener import cut_off


class ResponseSigner:
    """Signs whole responses and seals streams with one hotkey."""

    def __init__(self, hotkey: Hotkey) -> None:
        self.hotkey = hotkey
        self.headers = {auth.HEADER_RESPONSE: auth.RESPONSE_VERSION, auth.HEADER_HOTKEY: hotkey.ss58}
        if hotkey.scheme != auth.DEFAULT_SCHEME:
            self.headers[auth.HEADER_SCHEME] = hotkey.scheme

    def whole(self, request_digest: bytes, status: int, body: bytes) -> web.Response:
        hotkey = self.hotkey
        payload = auth.response_payload(
            scheme=hotkey.scheme, digest=request_digest, status=status, body=body, hotkey=hotkey.ss58
        )
        signature = "0x" + hotkey.sign(payload).hex()
        headers = {**self.headers, "Content-Type": "application/json", auth.HEADER_SIGNATURE: signature}
        return web.Response(status=status, body=body, headers=headers)

    def seal(self, running: RunningDigest) -> Frame:
        hotkey = self.hotkey
        payload = auth.stream_payload(
            scheme=hotkey.scheme,
            digest=running.request_digest,
            status=200,
            frames=running.frames,
            running_digest=running.digest(),
            hotkey=hotkey.ss58,
        )
        return Frame(Kind.SEAL, hotkey.sign(payload))


class StreamSender:
    """Writes the frames of one stream and seals it. `response` is None until the first frame is written."""

    def __init__(
        self,
        signer: ResponseSigner,
        request: web.BaseRequest,
        request_digest: bytes,
        synapse: Synapse[Any, Any],
        write_timeout: float,
    ) -> None:
        self.response: web.StreamResponse | None = None
        self.ended = False
        self._signer = signer
        self._request = request
        self._synapse = synapse
        self._write_timeout = write_timeout
        self._running = RunningDigest(request_digest)
        self._sent = 0

    async def send(self, item: Message) -> None:
        synapse = self._synapse
        final = isinstance(item, synapse.response)
        if not final and not (synapse.chunk and isinstance(item, synapse.chunk)):
            raise SynapseError(f"handler of {synapse.route} yielded {type(item).__name__}")
        payload = encode(item)
        if not final and len(payload) > synapse.max_chunk_bytes:
            raise SynapseError(f"handler of {synapse.route} yielded a chunk of {len(payload)} bytes, above the limit")
        if self._sent + len(payload) > synapse.max_response_bytes:
            raise SynapseError(f"handler of {synapse.route} streamed more than {synapse.max_response_bytes} bytes")
        await self._write(Frame(Kind.END if final else Kind.CHUNK, payload))
        if final:
            await self._seal()

    async def refuse(self, refusal: Refusal) -> None:
        await self._write(Frame(Kind.REFUSAL, encode(RefusalBody.of(refusal))))
        await self._seal()

    async def _seal(self) -> None:
        self.ended = True
        await self._write(self._signer.seal(self._running))
        assert self.response is not None
        await self.response.write_eof()

    async def _write(self, frame: Frame) -> None:
        encoded = frame.encode()
        if frame.kind is not Kind.SEAL:
            self._running.add(encoded)
        self._sent += len(encoded)
        if self.response is None:
            headers = {"Content-Type": auth.CONTENT_TYPE_STREAM, **self._signer.headers}
            self.response = web.StreamResponse(status=200, headers=headers)
            await self.response.prepare(self._request)
        try:
            await asyncio.wait_for(self.response.write(encoded), self._write_timeout)
        except asyncio.TimeoutError:
            cut_off(self._request)
            raise ConnectionResetError("the reader of a stream does not read") from None


async def next_item(items: AsyncIterator[Message]) -> Message:
    """The next item of a streaming handler, which must not run dry before its response."""
    try:
        return await items.__anext__()
    except StopAsyncIteration:
        raise SynapseError("a streaming handler must end with a response") from None
