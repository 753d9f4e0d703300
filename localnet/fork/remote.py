"""A remote node, asked from code that cannot wait: a runtime call in the middle of a block.

The connection lives in a thread with an event loop of its own; a call here blocks until the answer is there. Many
requests go out together (`values`, `pages`), at a polite rate; what is lost is asked for again with growing pauses.
Where the node answers state_queryStorageAt, a thousand values cost one request; where it does not, that is said once
and values are read one by one, at the same time.

Every method raises ForkError, with what to do about it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import aiohttp

from localnet.errors import ForkError
from localnet.fork import answers
from localnet.fork.answers import END, Garbage
from localnet.fork.transport import Bucket, Link, Lost, Post, Refused, Socket, Stats
from localnet.node.blocks import Header
from localnet.node.children import entries_prefix, is_entry, root_key, split_entry

log = logging.getLogger(__name__)

T = TypeVar("T")

RATE = 20.0  # requests a second, sustained: a guest on a public node
BURST = 5.0  # seconds of that rate that may go out at once
TIMEOUT = 30.0  # seconds for one answer
ATTEMPTS = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 8.0  # seconds before the second attempt, and at most; doubled in between
IN_FLIGHT = 32  # requests at a time
BULK = 1000  # keys in one request
PAGE = 1000  # keys in one answer, as many as nodes give
REMEDY = "use an archive node, another block (@number or @hash), or a lower --fork-rate"
OUTAGE = "is the node up and the address right? A public one may also want a lower --fork-rate"
SCHEMES = ("ws", "wss", "http", "https")


def above(prefix: bytes) -> bytes:
    """The smallest bytes above everything that starts with `prefix`; END for the empty prefix."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else END


class Remote:
    """`jitter` gives numbers from 0 to 1, which spread the pauses between attempts."""

    def __init__(
        self,
        url: str,
        *,
        rate: float = RATE,
        timeout: float = TIMEOUT,
        pause: float = FIRST_PAUSE,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Raises ForkError for an address that is no node's, or a rate that is none."""
        if url.split("://")[0] not in SCHEMES:
            raise ForkError(f"{url!r} is no node's address: ws://, wss://, http:// or https://")
        if not rate > 0:
            raise ForkError(f"a rate of {rate} requests a second asks nothing")
        self.url, self.stats = url, Stats()
        self._timeout, self._pause, self._jitter = timeout, pause, jitter
        self._bucket = Bucket(rate, max(1.0, rate * BURST))
        self._bulk = True  # until the node refuses
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="localnet-fork", daemon=True)
        self._thread.start()
        self._session, self._link = self._run(self._connect())
        self._flight = asyncio.Semaphore(IN_FLIGHT)

    async def _connect(self) -> tuple[aiohttp.ClientSession, Link]:
        session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        kind = Socket if self.url.startswith("ws") else Post
        return session, kind(session, self.url, self.stats)

    def close(self) -> None:
        """Hang up. Safe to call twice."""
        if self._thread.is_alive():
            self._run(self._disconnect())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _disconnect(self) -> None:
        await self._link.close()
        await self._session.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # whoever was interrupted does not wait any more
            raise

    # -- one request

    async def _ask(self, method: str, *params: Any) -> Any:
        """Raises ForkError when every attempt was lost, Refused when the node does not want to."""
        loop, why = asyncio.get_running_loop(), ForkError("nothing was tried")
        for attempt in range(ATTEMPTS):
            if attempt:
                self.stats.retries += 1
                pause = min(self._pause * 2 ** (attempt - 1), LONGEST_PAUSE) * (0.5 + self._jitter())
                log.info("%s; asking again in %.1f s", why, pause)
                await asyncio.sleep(pause)
            await asyncio.sleep(self._bucket.wait(loop.time()))
            self.stats.requests += 1
            try:
                async with self._flight:
                    return await asyncio.wait_for(self._link.ask(method, list(params)), self._timeout)
            except Refused as error:
                if not error.busy:
                    raise
                why = error
            except (Lost, Garbage) as error:
                why = error
            except asyncio.TimeoutError:
                why = Lost(f"{self.url} did not answer {method} within {self._timeout} s")
        raise ForkError(f"{why} (tried {ATTEMPTS} times); {OUTAGE}") from why

    def ask(self, *requests: tuple[Any, ...]) -> list[Any]:
        """The results of several requests, (method, parameter, ..) each, sent together."""

        async def together() -> list[Any]:
            return await asyncio.gather(*(self._ask(*one) for one in requests))

        return self._refusing(together())

    # -- blocks

    def block_hash(self, number: int) -> bytes | None:
        """None when the node has no such block."""
        found = self.ask(("chain_getBlockHash", number))[0]
        return None if found is None else answers.block_hash(found)

    def finalized(self) -> bytes:
        return answers.block_hash(self.ask(("chain_getFinalizedHead",))[0])

    def header(self, digest: bytes) -> Header:
        found = self.ask(("chain_getHeader", _hex(digest)))[0]
        if found is None:
            raise ForkError(f"{self.url} has no block 0x{digest.hex()}: name one of its chain, by number or hash")
        return answers.header(found, digest)

    # -- storage

    def values(self, keys: Sequence[bytes], at: bytes) -> dict[bytes, bytes | None]:
        """A value, or None, for each key after block `at`."""
        main = [key for key in keys if not is_entry(key)]
        chunks = [main[index : index + BULK] for index in range(0, len(main), BULK)]
        chunks += [[key] for key in keys if is_entry(key)]

        found = self._refusing(self._parts(chunks, at))
        self.stats.values += len(found)
        return found

    async def _chunk(self, keys: Sequence[bytes], at: bytes) -> dict[bytes, bytes | None]:
        if len(keys) == 1:
            stored = await self._ask(*_read(keys[0]), _hex(at))
            return {keys[0]: answers.raw_or_none(stored, "a storage value")}
        if self._bulk:
            try:
                stored = await self._ask("state_queryStorageAt", [_hex(key) for key in keys], _hex(at))
                return answers.changes(stored, keys, at)
            except Refused as error:
                if error.too_large:
                    half = len(keys) // 2
                    return await self._parts([keys[:half], keys[half:]], at)
                single = await self._chunk(keys[:1], at)  # raises when it is the block that the node does not have
                if self._bulk:
                    self._bulk = False
                    log.warning("%s; values are read one by one from now on, which takes more requests", error)
                return single | await self._parts([[key] for key in keys[1:]], at)
        return await self._parts([[key] for key in keys], at)

    async def _parts(self, parts: Sequence[Sequence[bytes]], at: bytes) -> dict[bytes, bytes | None]:
        found: dict[bytes, bytes | None] = {}
        for part in await asyncio.gather(*(self._chunk(one, at) for one in parts)):
            found.update(part)
        return found

    def page(self, prefix: bytes, start: bytes | None, count: int, at: bytes) -> list[bytes]:
        """At most `count` keys with this prefix above `start`; fewer only when there are no more."""
        return self._refusing(self._page(prefix, start, count, at))

    async def _page(self, prefix: bytes, start: bytes | None, count: int, at: bytes) -> list[bytes]:
        method, flat = "state_getKeysPaged", b""
        parameters: list[Any] = []
        if is_entry(prefix):  # of a child trie, whose keys the node knows without what they have in front here
            name, prefix = split_entry(prefix)
            method, flat, parameters = "childstate_getKeysPaged", entries_prefix(name), [_hex(root_key(name))]
        start = None if start is None else start[len(flat) :]
        parameters += [_hex(prefix), count, None if start is None else _hex(start), _hex(at)]
        found = await self._ask(method, *parameters)
        self.stats.pages += 1
        return [flat + key for key in answers.page(found, prefix, start, count)]

    def scan(self, prefixes: Sequence[bytes], most: int, at: bytes) -> dict[bytes, tuple[list[bytes], bytes]]:
        """For each prefix its first keys, `most` of them at most (at least one page), and up to where they are all:
        `above(prefix)`, or just above the last."""

        async def one(prefix: bytes) -> tuple[list[bytes], bytes]:
            keys: list[bytes] = []
            while True:
                got = await self._page(prefix, keys[-1] if keys else None, PAGE, at)
                keys += got
                if len(got) < PAGE:
                    return keys, above(prefix)
                if len(keys) >= most:
                    return keys, keys[-1] + b"\0"

        async def together() -> dict[bytes, tuple[list[bytes], bytes]]:
            return dict(zip(prefixes, await asyncio.gather(*map(one, prefixes)), strict=True))

        return self._refusing(together())

    def walk(
        self, prefixes: Sequence[bytes], starts: Sequence[bytes], count: int, most: int, at: bytes
    ) -> list[tuple[list[bytes], bytes]]:
        """For each prefix the keys of the main space above its start, `count` at a time, until they are past the prefix
        or `most`; and up to where they are all."""

        async def one(prefix: bytes, start: bytes) -> tuple[list[bytes], bytes]:
            keys: list[bytes] = []
            while True:
                got = await self._page(b"", keys[-1] if keys else start, count, at)
                keys += got
                if len(got) < count:
                    return keys, END
                if got[-1] >= above(prefix) or len(keys) >= most:
                    return keys, got[-1] + b"\0"

        async def together() -> list[tuple[list[bytes], bytes]]:
            return list(await asyncio.gather(*map(one, prefixes, starts)))

        return self._refusing(together())

    def _refusing(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self._run(work)
        except Refused as error:
            raise ForkError(f"{error}; {REMEDY}") from error


def _read(key: bytes) -> tuple[str, ...]:
    """The request for one value, but for its block."""
    if not is_entry(key):
        return "state_getStorage", _hex(key)
    name, inner = split_entry(key)
    return "childstate_getStorage", _hex(root_key(name)), _hex(inner)


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
