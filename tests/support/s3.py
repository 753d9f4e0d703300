"""A real S3 server on loopback, rclone's, over a folder; and one that misbehaves as a script says.

with s3_server(folder) as server:
    server.make_bucket("one")
    S3Backend(server.location("one"), allow_local=True)
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import selectors
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from protocol.locations import Location

ACCESS_KEY, SECRET = "touchstone-access-key", "touchstone-secret-key"
REGION = "us-east-1"
START_LIMIT = 30.0  # seconds
_ADDRESS = re.compile(r"Starting s3 server on \[(http://127\.0\.0\.1:\d+)/\]")


@dataclass(frozen=True)
class S3Server:
    url: str
    folder: Path  # its folders are the buckets

    def location(self, bucket: str, secret: str = SECRET) -> Location:
        return Location(self.url, bucket, REGION, ACCESS_KEY, secret)

    def make_bucket(self, name: str) -> None:
        (self.folder / name).mkdir()


@contextlib.contextmanager
def s3_server(folder: Path, *flags: str) -> Iterator[S3Server]:
    """Serve `folder`. `flags`: further ones of `rclone serve s3`."""
    command = [str(Path(sys.executable).with_name("rclone")), "serve", "s3", "--config", "/dev/null"]
    command += ["--addr", "127.0.0.1:0", "--auth-key", f"{ACCESS_KEY},{SECRET}", "--dir-cache-time", "20ms"]  # 0 spins
    process = subprocess.Popen([*command, *flags, str(folder)], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        yield S3Server(_address(process), folder)
    finally:
        process.kill()
        process.communicate()


def _address(process: subprocess.Popen[bytes]) -> str:
    assert process.stderr is not None
    said = ""
    until = time.monotonic() + START_LIMIT
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        while time.monotonic() < until and process.poll() is None:
            if selector.select(timeout=0.5):
                said += process.stderr.read1(4096).decode()
                if found := _ADDRESS.search(said):
                    return found[1]
    raise AssertionError(f"rclone did not start: {said}")


@dataclass
class Script:
    """A server that answers requests by a script; the last answer is given to all that follow."""

    answers: list[Callable[[asyncio.StreamWriter], Awaitable[None]]]
    port: int = 0
    requests: list[str] = field(default_factory=list)

    def location(self, host: str = "127.0.0.1") -> Location:
        return Location(f"http://{host}:{self.port}", "bucket", REGION, ACCESS_KEY, SECRET)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head.decode())
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            await answer(writer)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def scripted(*answers: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[Script]:
    script = Script(list(answers))
    server = await asyncio.start_server(script._serve, "127.0.0.1", 0)
    script.port = server.sockets[0].getsockname()[1]
    try:
        yield script
    finally:
        server.close()


def answer(status: str, body: bytes = b"", *headers: str) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    """A plain answer. `headers` replace Content-Length."""

    async def write(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", "Connection: close", *(headers or [f"Content-Length: {len(body)}"])]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    return write
