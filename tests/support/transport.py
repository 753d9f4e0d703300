"""Transport as the tests use it: two synapses, a real server on loopback, and a peer that sends whatever it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from protocol import auth
from protocol.synapse import Message, Synapse
from template.client import Target
from template.keys import Hotkey
from template.limits import Limits, OpenPolicy
from template.server import Caller, SynapseServer

ALICE = Hotkey.from_uri("//Alice")
BOB = Hotkey.from_uri("//Bob")
CHARLIE = Hotkey.from_uri("//Charlie")


class Ask(Message):
    prompt: str


class Answer(Message):
    text: str
    score: float = 0.0


class Word(Message):
    word: str


ECHO = Synapse("echo", 1, Ask, Answer, max_request_bytes=4096, max_response_bytes=8192, timeout=5.0)
TALK = Synapse("talk", 1, Ask, Answer, chunk=Word, max_response_bytes=8192, max_chunk_bytes=512, timeout=5.0)


async def echo(request: Ask, caller: Caller) -> Answer:
    return Answer(text=request.prompt)


async def talk(request: Ask, caller: Caller) -> AsyncIterator[Message]:
    for word in request.prompt.split():
        yield Word(word=word)
    yield Answer(text=request.prompt)


@asynccontextmanager
async def serving(
    *, hotkey: Hotkey = BOB, handler: Any = echo, streamer: Any = talk, limits: Limits | None = None, **options: Any
) -> AsyncIterator[tuple[SynapseServer, Target]]:
    """A running server with ECHO and TALK, and the target that reaches it."""
    options.setdefault("policy", OpenPolicy())
    server = SynapseServer(hotkey, limits=limits, host="127.0.0.1", **options)
    server.attach(ECHO, handler)
    server.attach_stream(TALK, streamer)
    async with server:
        yield server, Target(hotkey.ss58, "127.0.0.1", server.port)


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]


@asynccontextmanager
async def peer(script: Script, *, read_request: bool = True) -> AsyncIterator[Target]:
    """A TCP listener that claims to be Bob and runs `script(reader, writer, request digest)` on each connection."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            digest = await _read_request(reader) if read_request else b""
            await script(reader, writer, digest)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield Target(BOB.ss58, "127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    """Read one signed request and return its digest, as a miner would compute it."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    path = head[0].split(" ")[1]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers["content-length"]))
    payload = auth.request_payload(
        scheme="sr25519",
        method="POST",
        path=path,
        body=body,
        nonce_ns=int(headers["x-bittensor-nonce"]),
        sender=headers["x-bittensor-hotkey"],
        receiver=headers["x-bittensor-receiver"],
    )
    return auth.request_digest(payload)


def signed_head(digest: bytes, body: bytes, *, status: int = 200, signer: Hotkey = BOB, claim: str = BOB.ss58) -> str:
    """Response headers with a right signature of `signer` over `body`, without the blank line."""
    payload = auth.response_payload(scheme="sr25519", digest=digest, status=status, body=body, hotkey=claim)
    return (
        f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{auth.HEADER_RESPONSE}: 1\r\n"
        f"{auth.HEADER_HOTKEY}: {claim}\r\n{auth.HEADER_SIGNATURE}: 0x{signer.sign(payload).hex()}\r\n"
    )


def response(digest: bytes, body: bytes, **options: Any) -> bytes:
    """A whole signed response."""
    return f"{signed_head(digest, body, **options)}Content-Length: {len(body)}\r\n\r\n".encode() + body
