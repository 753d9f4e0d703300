"""What every neuron does besides its work: start, watch the chain, stop.

    asyncio.run(run_until_stopped(main))            # main(stop): SIGTERM and SIGINT set the event
    watch = ChainWatch(chain, netuid, hotkey)       # the newest metagraph, refreshed in the background
    await watch.start()                             # waits for the chain, checks the registration
    watch.metagraph                                 # never older than the last answer of the chain

A lost chain is no reason to stop: the watch says so once, keeps the last metagraph, and says when the chain is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, TypeVar

from protocol.metagraph import Metagraph
from template.chain import Chain, ChainError, ChainTimeout, ChainUnreachable
from template.errors import TemplateError
from template.keys import Hotkey, coldkey_warning
from template.settings import NeuronSettings

log = logging.getLogger(__name__)

T = TypeVar("T")
ASK_AGAIN = 2.0  # seconds
Main = Callable[[asyncio.Event], Awaitable[None]]


def setup_logging(level: str) -> None:
    """Plain lines on standard error: time, level, module, message."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S", force=True
    )
    for noisy in ("bittensor", "websockets", "aiohttp", "httpx", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def run(main: Main, *, level: str = "info") -> int:
    """Run a neuron to its end; the process's exit status. Errors of the house are one line, not a stack trace."""
    setup_logging(level)
    try:
        asyncio.run(run_until_stopped(main))
    except TemplateError as error:
        log.error("%s", error)
        return 1
    return 0


async def run_until_stopped(main: Main) -> None:
    """Run `main(stop)`. The first SIGTERM or SIGINT sets `stop`; a second one cancels what has not ended."""
    stop = asyncio.Event()
    task = asyncio.ensure_future(main(stop))

    def on_signal(name: str) -> None:
        if stop.is_set():
            task.cancel()
            return
        log.info("%s: stopping", name)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number.name)
    try:
        await task
    except Stopped:
        log.info("stopped")
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        log.warning("stopped before everything had ended")
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


class Stopped(Exception):
    """`stop` came while something was being waited for; `run_until_stopped` ends quietly on it."""


async def until(stop: asyncio.Event, work: Awaitable[T]) -> T:
    """What `work` gives, unless `stop` comes first: then `work` is cancelled and Stopped raised."""
    task = asyncio.ensure_future(work)
    waiter = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Stopped
    finally:
        waiter.cancel()
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def answered(stop: asyncio.Event, ask: Callable[[], Awaitable[T]]) -> T:
    """What the chain answers; asked again for as long as it cannot be reached. Raises what else `ask` raises, and
    Stopped."""
    while True:
        try:
            return await until(stop, ask())
        except (ChainTimeout, ChainUnreachable) as error:
            log.warning("asking again: %s", error)
        if await sleep_or_stop(stop, ASK_AGAIN):
            raise Stopped


async def together(*works: Awaitable[None]) -> None:
    """Run until all have ended; when one fails, the others are cancelled and its error is raised at once."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking `work` in a thread that does not keep the process alive: a stop must not wait for a download."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def body() -> None:
        try:
            outcome: tuple[T | None, BaseException | None] = (work(), None)
        except Exception as error:  # handed to whoever awaits
            outcome = (None, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(deliver, *outcome)

    threading.Thread(target=body, daemon=True).start()
    return await future


async def sleep_or_stop(stop: asyncio.Event, seconds: float) -> bool:
    """True when `stop` came within `seconds`."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(stop.wait(), max(seconds, 0.0))
    return stop.is_set()


def load_hotkey(settings: NeuronSettings) -> Hotkey:
    """The neuron's hotkey, with a warning when a private coldkey lies on the same machine. Raises KeyUnavailable."""
    hotkey = Hotkey.load(settings.wallet, settings.hotkey, settings.wallets)
    warning = coldkey_warning(settings.wallet, settings.wallets)
    if warning:
        log.warning("%s", warning)
    return hotkey


def own_address(chain: Chain) -> str:
    """The address to publish when none is set.

    On a local chain: a loopback address, other than 127.0.0.1 because the chain refuses that one; only Linux answers
    on all of 127/8, elsewhere it is this machine's own address. On other networks: the source address of this
    machine's packets, which is the public one unless there is address translation in between.
    """
    if chain.is_local and sys.platform == "linux":
        return "127.0.0.2"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # A connected datagram socket sends nothing; it only asks the kernel for the route. TEST-NET-1 stands for "out".
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError as error:
            raise ChainUnreachable(f"no way out of this machine: {error}", remedy="check its network") from None
        address = str(probe.getsockname()[0])
    if not chain.is_local and not ip_address(address).is_global:
        raise TemplateError(
            f"this machine's own address {address} cannot be reached from outside",
            remedy="set --external-ip to the public address, and --external-port if it is forwarded elsewhere",
        )
    return address


@dataclass
class ChainWatch:
    """Keeps the newest metagraph of one subnet for one hotkey."""

    chain: Chain
    netuid: int
    hotkey: str
    refresh: float = 12.0  # seconds
    _graph: Metagraph | None = None
    _seen: float = field(default=0.0)  # monotonic time of the last answer
    _problem: str = ""

    @property
    def metagraph(self) -> Metagraph:
        assert self._graph is not None, "start() comes first"
        return self._graph

    @property
    def registered(self) -> bool:
        return self._graph is not None and self.hotkey in self._graph.by_hotkey

    @property
    def age(self) -> float:
        """Seconds since the chain last answered."""
        return time.monotonic() - self._seen

    def health(self) -> dict[str, Any]:
        graph = self._graph
        return {
            "ok": self.registered and not self._problem,
            "block": graph.block if graph else None,
            "registered": self.registered,
            "chain": self._problem or "connected",
        }

    async def start(self, wallet: str = "", hotkey_name: str = "") -> int:
        """Wait for the chain and read it once; our uid. Raises NotRegistered and NoSuchSubnet."""
        await self.chain.wait_ready(on_wait=log.warning)
        uid = await self.chain.require_registered(self.netuid, self.hotkey, wallet, hotkey_name)
        await self.update()
        return uid

    async def update(self) -> Metagraph:
        """Read the metagraph now. Raises ChainError."""
        self._graph = await self.chain.metagraph(self.netuid)
        self._seen = time.monotonic()
        return self._graph

    async def run(self, stop: asyncio.Event, on_update: Callable[[Metagraph], Awaitable[None]] | None = None) -> None:
        """Refresh until `stop`, the first time at once. `on_update` runs after each answer of the chain; a ChainError
        of it counts as a lost call."""
        pause = 0.0
        while not await sleep_or_stop(stop, pause):
            was_registered = self.registered
            try:
                graph = await self.update()
                if on_update is not None:
                    await on_update(graph)
            except ChainError as error:
                if not self._problem:
                    log.warning("no answer from the chain, going on with block %s: %s", self.metagraph.block, error)
                self._problem = error.message
                pause = min(self.refresh, 2.0)
                continue
            pause = self.refresh
            if self._problem:
                log.info("the chain answers again at block %d", graph.block)
                self._problem = ""
            if was_registered and not self.registered:
                log.error("%s is no longer registered on subnet %d and earns nothing", self.hotkey, self.netuid)
