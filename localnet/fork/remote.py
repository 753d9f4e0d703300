"""A remote node, asked from code that cannot wait: a runtime call in the middle of a block.

The connection lives in a thread with an event loop of its own; a call here blocks until the answer is there. Many
requests go out together (`values`, `pages`), at a polite rate; what is lost is asked for again with growing pauses.
A node that is busy is asked half as often for a while. How storage is asked for is in reading.py.

Every method raises ForkError, with what to do about it. `interrupt` ends whatever is under way.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import random
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import aiohttp

from localnet.errors import ForkError
from localnet.fork import answers, proofs
from localnet.fork.answers import Garbage
from localnet.fork.reading import Reading, together
from localnet.fork.transport import Bucket, Busy, Interrupted, Link, Lost, Post, Refused, Socket, Stats
from localnet.node.blocks import Header

log = logging.getLogger(__name__)

T = TypeVar("T")

RATE = 20.0  # requests a second, sustained: a guest on a public node
BURST = 1.0  # seconds of that rate that may go out at once
TIMEOUT = 30.0  # seconds for one answer
ATTEMPTS = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 8.0  # seconds before the second attempt, and at most; doubled in between
BUSY_PAUSES = 8  # times as long when the node is busy
PROGRESS = 5.0  # seconds between two words on how far it is
IN_FLIGHT = 32  # requests at a time
REMEDY = "use an archive node, or another block (@number or @hash)"
OUTAGE = "is the node up and the address right? A public one may also want a lower --fork-rate"
TOO_BUSY = "the node wants fewer requests: a lower --fork-rate, another node, or try again later"
UNPROVEN = "name another node, or do without --fork-verify and believe this one"
SCHEMES = ("ws", "wss", "http", "https")


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
        self._reading = Reading(self._ask, self.stats)
        self._up = True  # it answers: else nobody waits for it as long as the first time
        self._told = time.monotonic()
        self._running: set[concurrent.futures.Future[Any]] = set()
        self._interrupted = False
        self._timeout, self._pause, self._jitter = timeout, pause, jitter
        self._bucket = Bucket(rate, max(1.0, rate * BURST))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="localnet-fork", daemon=True)
        self._thread.start()
        self._session, self._link = asyncio.run_coroutine_threadsafe(self._connect(), self._loop).result()
        self._flight = asyncio.Semaphore(IN_FLIGHT)

    async def _connect(self) -> tuple[aiohttp.ClientSession, Link]:
        session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        kind = Socket if self.url.startswith("ws") else Post
        return session, kind(session, self.url, self.stats)

    def interrupt(self, for_good: bool = True) -> None:
        """Whoever waits for an answer (or will: `for_good`) gets Interrupted. From any thread, or a signal handler."""
        self._interrupted = self._interrupted or for_good
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(lambda: [future.cancel() for future in list(self._running)])

    def close(self) -> None:
        """Hang up. Safe to call twice."""
        if self._thread.is_alive():
            self.interrupt()
            asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _disconnect(self) -> None:
        await self._link.close()
        await self._session.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._interrupted:
            work.close()
            raise Interrupted(f"{self.url} is not asked any more: interrupted")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._running.add(future)
        if self._interrupted:  # in between
            future.cancel()
        try:
            return future.result()
        except concurrent.futures.CancelledError as error:
            raise Interrupted(f"interrupted while {self.url} was asked") from error
        except BaseException:
            future.cancel()  # whoever was interrupted does not wait any more
            raise
        finally:
            self._running.discard(future)

    # -- one request

    async def _ask(self, method: str, *params: Any) -> Any:
        """Raises ForkError when every attempt was lost, Refused when the node does not want to."""
        loop, why = asyncio.get_running_loop(), ForkError("nothing was tried")
        attempts, timeout = (ATTEMPTS, self._timeout) if self._up else (1, self._timeout / 3)
        for attempt in range(attempts):
            if attempt:
                self.stats.retries += 1
                pause = self._pause * (BUSY_PAUSES if _busy(why) else 1) * 2 ** (attempt - 1)
                pause = min(pause, LONGEST_PAUSE) * (0.5 + self._jitter())
                log.info("%s; asking again in %.1f s", why, pause)
                await asyncio.sleep(pause)
            try:
                async with self._flight:  # first, so that no more than these have a place in the bucket
                    await asyncio.sleep(self._bucket.wait(loop.time()))
                    self._count()
                    found = await asyncio.wait_for(self._link.ask(method, list(params)), timeout)
                self._up = True
                return found
            except Refused as error:
                if not (error.busy or error.lags):
                    raise
                why = error
            except (Lost, Garbage) as error:
                why = error
            except asyncio.TimeoutError:
                why = Lost(f"{self.url} did not answer {method} within {timeout:.3g} s")
            if _busy(why) and self._bucket.slow(loop.time()):
                log.warning("%s; it gets %.1f requests a second for a while", why, self._bucket.rate)
        self._up = False
        raise ForkError(f"{why} (tried {attempts} times); {TOO_BUSY if _busy(why) else OUTAGE}") from why

    def _count(self) -> None:
        self.stats.requests += 1
        if time.monotonic() - self._told > PROGRESS:
            self._told = time.monotonic()
            log.info("%s: %d requests, %d values, %d pages so far", self.url, *self.stats.progress)

    def ask(self, *requests: tuple[Any, ...]) -> list[Any]:
        """The results of several requests, (method, parameter, ..) each, sent together."""

        return self._refusing(together(self._ask(*one) for one in requests))

    # -- blocks

    def block_hash(self, number: int) -> bytes | None:
        """None when the node has no such block."""
        found = self.ask(("chain_getBlockHash", number))[0]
        return None if found is None else answers.block_hash(found)

    def finalized(self) -> bytes:
        return answers.block_hash(self.ask(("chain_getFinalizedHead",))[0])

    def header(self, digest: bytes) -> Header:
        found = self.ask(("chain_getHeader", "0x" + digest.hex()))[0]
        if found is None:
            raise ForkError(f"{self.url} has no block 0x{digest.hex()}: name one of its chain, by number or hash")
        return answers.header(found, digest)

    # -- storage

    def prove(self, root: bytes) -> None:
        """Have everything that is read from now on proven: it is of the state with this root."""
        self._reading.root = root

    def values(self, keys: Sequence[bytes], at: bytes) -> dict[bytes, bytes | None]:
        """See `Reading.values`."""
        return self._refusing(self._reading.values(keys, at))

    def page(self, prefix: bytes, start: bytes | None, count: int, at: bytes) -> list[bytes]:
        """See `Reading.page`."""
        return self._refusing(self._reading.page(prefix, start, count, at))

    def scan(self, prefixes: Sequence[bytes], most: int, at: bytes) -> dict[bytes, tuple[list[bytes], bytes]]:
        """`Reading.scan` of each prefix, at the same time."""
        found = self._refusing(together(self._reading.scan(prefix, most, at) for prefix in prefixes))
        return dict(zip(prefixes, found, strict=True))

    def walk(
        self, prefixes: Sequence[bytes], starts: Sequence[bytes], count: int, most: int, at: bytes
    ) -> list[tuple[list[bytes], bytes]]:
        """`Reading.walk` of each prefix from its start, at the same time."""
        walks = (self._reading.walk(*one, count, most, at) for one in zip(prefixes, starts, strict=True))
        return self._refusing(together(walks))

    def _refusing(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self._run(work)
        except Refused as error:
            raise ForkError(f"{error}; {REMEDY}{'' if self._reading.root is None else f'; {UNPROVEN}'}") from error
        except proofs.Unproven as error:
            raise ForkError(f"{self.url} does not prove what it answers: {error}; {UNPROVEN}") from error


def _busy(error: ForkError) -> bool:
    return isinstance(error, Busy) or (isinstance(error, Refused) and error.busy)
