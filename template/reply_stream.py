"""A streamed answer being read: chunks as they come, the proof at the end.

Frames are checked against their bounds as they arrive (`protocol.stream`), fed to the running digest, and kept; the
seal must hold for all of them before there is a reply. Until then a chunk is only what the miner has said so far.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic

import aiohttp
from aiohttp import ClientTimeout, hdrs

from protocol import auth
from protocol.errors import FailureCode, MalformedMessage, StreamError, SynapseError
from protocol.stream import Frame, FrameParser, Kind, RunningDigest
from protocol.synapse import Message, Synapse, decode
from template.addresses import check_address
from template.errors import AddressRefused, CallFailed, Failure
from template.exchange import (
    REFUSAL_BYTES,
    Call,
    Reply,
    Res,
    Target,
    check_signer,
    decode_answer,
    read_body,
    scheme_of,
    transport_failure,
    verify_whole,
)
from template.keys import verify

if TYPE_CHECKING:
    from template.client import SynapseClient

STREAM_OVERHEAD = 4096  # room above max_response_bytes for a last refusal and the seal


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
            total=deadline, sock_connect=min(deadline, client.connect_timeout), sock_read=min(deadline, silence)
        )
        self._reply: Reply[Res] | None = None
        self._chunks: AsyncIterator[Message] | None = None
        self._response: aiohttp.ClientResponse | None = None
        self._call: Call | None = None

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
        call = self._call = self._client.sign(self._target, self._synapse, self._request, started)
        try:
            response = self._response = await self._client.open(call, self._timeout)
            call.first_byte = time.perf_counter() - started
            if response.headers.get(hdrs.CONTENT_TYPE) == auth.CONTENT_TYPE_STREAM and response.status == 200:
                check_signer(call, response)
                self._chunks = self._frames(call, response)
                return self
            body = await read_body(response, call, REFUSAL_BYTES)
            exchange = verify_whole(call, response, body)
            decode_answer(self._synapse.response, exchange.status, body)
            raise CallFailed(Failure(FailureCode.MALFORMED, "a whole response came where a stream was promised"))
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
            self._close()
            raise CallFailed(transport_failure(error)) from None
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

    async def _frames(self, call: Call, response: aiohttp.ClientResponse) -> AsyncIterator[Message]:
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
            raise CallFailed(transport_failure(error)) from None
        assert final is not None and seal is not None  # the parser ends a stream only so
        self._finish(call, response, running, b"".join(kept), final, seal)

    def _finish(
        self,
        call: Call,
        response: aiohttp.ClientResponse,
        running: RunningDigest,
        frames: bytes,
        final: Frame,
        seal: Frame,
    ) -> None:
        scheme = scheme_of(response)
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
        answer = decode_answer(self._synapse.response, status, final.payload)
        exchange = call.exchange(200, scheme, frames, seal.payload, streamed=True)
        self._reply = Reply(answer, exchange, call.timing)

    def _close(self) -> None:
        if self._response is not None:
            if self._reply is None:
                self._response.close()
            else:
                self._response.release()
            self._response = None


async def _received_frames(
    call: Call, response: aiohttp.ClientResponse, synapse: Synapse[Any, Any]
) -> AsyncIterator[Frame]:
    parser = FrameParser(synapse.max_chunk_bytes, synapse.max_response_bytes + STREAM_OVERHEAD)
    while not response.content.at_eof():
        data = await response.content.readany()
        call.received += len(data)
        for frame in parser.feed(data):
            yield frame
    parser.finish()
