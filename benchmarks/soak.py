"""A soak: gateway, miners, verifier and ledger under a mixed load for a while; what must stay flat is printed and held.

    python benchmarks/soak.py [--minutes 20] [--clients 200]

One process, a tiny model with random weights, everything else real and on loopback: two honest miners and one that
cheats, the gateway with its audits, and clients that in turn ask, stream, leave in the middle of a stream, and send
what no server should accept. Every ten seconds a line says memory, tasks, open files, threads, and what was answered.
At the end one JSON document; status 1 when memory grew, when tasks, files or threads are left over, or when anything
was answered with status 500.

Memory is what is resident after the allocator has given back what is free ("mib"; "resident" is before that): pages
kept for the next burst are no leak. It grew when the medians of the second and the last fifth of the lines differ by
more than 5 %, and threads when these differ: the first fifth is for caches and pools to fill. Tasks and files go up and
down with the requests under way, so they are compared at rest, before the first request and after the last.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import aiohttp
import psutil

from tests.support.gateway import Stage, stage
from tests.support.inference import tiny_model

INTERVAL = 10.0  # seconds between two lines
ALLOWED_SHARE = 0.05  # of memory
ALLOWED_COUNT = 3  # tasks, files
RESTING = 45.0  # seconds after the last request: connections that are kept alive end by then
WORDS = (
    "tide", "bread", "lock", "echo", "moon", "map", "ice", "sail", "soil", "bee", "glass", "river", "sleep", "magnet",
    "seed", "rust", "star", "vote",
)  # fmt: skip


def body(rng: random.Random, model: str, **more: Any) -> dict[str, Any]:
    text = " ".join(rng.choices(WORDS, k=rng.randrange(3, 40)))
    return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": rng.randrange(1, 40), **more}


BAD: tuple[Callable[[random.Random, str], Any], ...] = (
    lambda rng, model: {"model": model, "messages": []},
    lambda rng, model: {"model": model, "messages": [{"role": "wizard", "content": "x"}]},
    lambda rng, model: {"model": "no-such-model", "messages": [{"role": "user", "content": "x"}]},
    lambda rng, model: body(rng, model, temperature=-1),
    lambda rng, model: body(rng, model, top_p=7),
    lambda rng, model: body(rng, model, max_tokens=10**9),
    lambda rng, model: {"model": model, "messages": [{"role": "user", "content": "x" * 100_000}]},
    lambda rng, model: "this is not JSON",
)


class Load:
    """The clients. `seen` counts statuses and ways of leaving."""

    def __init__(self, staged: Stage, clients: int) -> None:
        self.staged = staged
        self.clients = clients
        self.seen: Counter[str] = Counter()
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            await asyncio.gather(*(self._client(session, random.Random(number)) for number in range(self.clients)))

    async def _client(self, session: aiohttp.ClientSession, rng: random.Random) -> None:
        ways: list[Callable[[aiohttp.ClientSession, random.Random], Awaitable[None]]]
        ways = [self._ask, self._stream, self._leave, self._bad]
        while not self.stopping.is_set():
            try:
                await rng.choice(ways)(session, rng)
            except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                self.seen[type(error).__name__] += 1
            await asyncio.sleep(rng.random() * self.clients / 20)  # about 40 requests a second, however many clients

    @property
    def _url(self) -> str:
        return f"{self.staged.url}/chat/completions"

    async def _ask(self, session: aiohttp.ClientSession, rng: random.Random) -> None:
        async with session.post(self._url, json=body(rng, self.staged.model)) as response:
            await response.read()
            self.seen[str(response.status)] += 1

    async def _stream(self, session: aiohttp.ClientSession, rng: random.Random) -> None:
        async with session.post(self._url, json=body(rng, self.staged.model, stream=True)) as response:
            async for _ in response.content:
                pass
            self.seen[f"{response.status} streamed"] += 1

    async def _leave(self, session: aiohttp.ClientSession, rng: random.Random) -> None:
        async with session.post(self._url, json=body(rng, self.staged.model, stream=True)) as response:
            await response.content.readany()
            response.close()
            self.seen[f"{response.status} left"] += 1

    async def _bad(self, session: aiohttp.ClientSession, rng: random.Random) -> None:
        sent = rng.choice(BAD)(rng, self.staged.model)
        data = sent if isinstance(sent, str) else json.dumps(sent)
        async with session.post(self._url, data=data, headers={"Content-Type": "application/json"}) as response:
            await response.read()
            self.seen[f"{response.status} to bad input"] += 1


def trim() -> None:
    """Give free memory back to the system, where the C library can (glibc)."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def measured(process: psutil.Process) -> dict[str, float]:
    resident = process.memory_info().rss / 2**20
    trim()
    return {
        "mib": process.memory_info().rss / 2**20,
        "resident": resident,
        "tasks": float(len(asyncio.all_tasks())),
        "files": float(process.num_fds()),
        "threads": float(threading.active_count()),
    }


async def soak(minutes: float, clients: int) -> dict[str, Any]:
    process, lines = psutil.Process(os.getpid()), []
    with tempfile.TemporaryDirectory() as folder:
        loaded = tiny_model(Path(folder))
        miners = {"one": "honest", "two": "honest", "three": "tampered"}
        settings = {"concurrency": 64, "queue": 64, "open_requests_per_minute": 10**6}
        async with stage(loaded, Path(folder), miners, **settings) as staged:
            load = Load(staged, clients)
            before = measured(process)
            running = asyncio.ensure_future(load.run())
            auditing = asyncio.ensure_future(staged.gateway.service.records.run(load.stopping))
            started = time.monotonic()
            while time.monotonic() - started < minutes * 60 and not running.done():
                await asyncio.sleep(INTERVAL)
                lines.append(measured(process))
                told = ", ".join(f"{count} {what}" for what, count in sorted(load.seen.items()))
                figures = " ".join(f"{name} {value:.0f}" for name, value in lines[-1].items())
                print(f"{time.monotonic() - started:5.0f} s  {figures}  {told}", file=sys.stderr, flush=True)
            load.stopping.set()
            await asyncio.gather(running, auditing)
            await asyncio.sleep(RESTING)
            after = measured(process)
            verdicts = staged.ledger.verdict_counts()
    return {
        "minutes": minutes,
        "clients": clients,
        "seen": dict(load.seen),
        "verdicts": verdicts,
        **grown(lines, before, after),
    }


def grown(lines: list[dict[str, float]], before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    """Memory in the second and the last fifth of the lines, the counts at rest, and which of them grew."""
    fifth = max(1, len(lines) // 5)
    figures = {
        name: [statistics.median(line[name] for line in part) for part in (lines[fifth : 2 * fifth], lines[-fifth:])]
        for name in ("mib", "resident", "threads")
    }
    problems = ["mib"] if figures["mib"][1] > (1.0 + ALLOWED_SHARE) * figures["mib"][0] else []
    problems += ["threads"] if figures["threads"][1] > figures["threads"][0] else []
    for name in ("tasks", "files"):
        figures[name] = [before[name], after[name]]
        problems += [name] if after[name] > before[name] + ALLOWED_COUNT else []
    return {"figures": {name: [round(value, 1) for value in pair] for name, pair in figures.items()}, "grew": problems}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--clients", type=int, default=200)
    options = parser.parse_args()
    result = asyncio.run(soak(options.minutes, options.clients))
    print(json.dumps(result, indent=1))
    failed = [status for status in result["seen"] if status.startswith("500")]
    return 1 if result["grew"] or failed else 0


if __name__ == "__main__":
    sys.exit(main())
