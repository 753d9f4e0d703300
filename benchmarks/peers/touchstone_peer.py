"""This repository's transport under the load of benchmarks/transport.py. Prints one JSON object.

Every check is on: signatures both ways, freshness, replay store with its journal on disk, stake policy, both rates
(raised above the load, since one hotkey and one address send all of it), slots, strict decoding of both messages.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from protocol.metagraph import Metagraph, Neuron
from protocol.synapse import Message, Synapse, encode
from template.client import SynapseClient, Target
from template.keys import Hotkey
from template.limits import Limits, ReplayStore, StakePolicy
from template.server import Caller, SynapseServer


class Load(Message):
    payload: str


class Length(Message):
    n: int


BENCH = Synapse("bench", 1, Load, Length)
VALIDATOR = "//Alice"
RAISED = Limits(
    rate_per_hotkey=1e6, burst_per_hotkey=10**6, rate_per_address=1e6, burst_per_address=10**6, concurrency=256
)


async def answer(request: Load, caller: Caller) -> Length:
    return Length(n=len(request.payload))


def body(size: int) -> Load:
    """A request whose encoded body has exactly `size` bytes."""
    return Load(payload="x" * (size - len(encode(Load(payload="")))))


def metagraph(hotkey: str) -> Metagraph:
    neuron = Neuron(0, hotkey, hotkey, 1000.0, True, True, "0.0.0.0", 0, 4, 0)
    return Metagraph(1, 1, "0x" + "00" * 32, 360, (neuron,))


def host(indexes: list[int], ready: Any, stop: Any) -> None:
    """One process that serves a miner with its own hotkey and port for each index."""

    gc.freeze()  # as a neuron does once it has started

    async def serve() -> None:
        snapshot = metagraph(Hotkey.from_uri(VALIDATOR).ss58)
        with tempfile.TemporaryDirectory() as state:
            async with AsyncExitStack() as stack:
                targets = []
                for index in indexes:
                    hotkey = Hotkey.from_uri(f"//Miner{index}")
                    replay = ReplayStore(path=Path(state) / f"nonces{index}")
                    policy = StakePolicy(lambda: snapshot, min_stake=1.0)
                    server = SynapseServer(hotkey, policy=policy, limits=RAISED, replay=replay, host="127.0.0.1")
                    server.attach(BENCH, answer)
                    await stack.enter_async_context(server)
                    targets.append((hotkey.ss58, server.port))
                ready.put(targets)
                await asyncio.to_thread(stop.wait)

    asyncio.run(serve())


class Hosts:
    """Miner processes that end with the block."""

    def __init__(self, groups: list[list[int]]) -> None:
        context = multiprocessing.get_context("spawn")
        self._ready, self._stop = context.Queue(), context.Event()
        self._processes = [context.Process(target=host, args=(g, self._ready, self._stop)) for g in groups]

    def __enter__(self) -> list[Target]:
        for process in self._processes:
            process.start()
        return [Target(h, "127.0.0.1", port) for _ in self._processes for h, port in self._ready.get(timeout=120)]

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for process in self._processes:
            process.join(timeout=30)


def quantile(values: list[float], q: float) -> float:
    """Nearest rank, in milliseconds."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, max(0, round(q * len(ordered)) - 1))] * 1000, 2)


async def throughput(target: Target, seconds: float, warmup: float, in_flight: int, size: int) -> dict[str, Any]:
    latencies: list[float] = []
    failures: dict[str, int] = {}
    request = body(size)
    begin = time.perf_counter() + warmup
    end = begin + seconds

    async def worker(client: SynapseClient) -> None:
        while (sent := time.perf_counter()) < end:
            outcome = await client.attempt(target, BENCH, request, 30.0)
            if sent < begin:
                continue
            if outcome.failure:
                failures[outcome.failure.code.value] = failures.get(outcome.failure.code.value, 0) + 1
            else:
                latencies.append(time.perf_counter() - sent)

    async with SynapseClient(Hotkey.from_uri(VALIDATOR), allow_local=True) as client:
        await asyncio.gather(*(worker(client) for _ in range(in_flight)))
    return {
        "per_second": round(len(latencies) / seconds, 1),
        "p50_ms": quantile(latencies, 0.5),
        "p99_ms": quantile(latencies, 0.99),
        "ok": len(latencies),
        "failed": failures,
    }


async def fanout(targets: list[Target], rounds: int, size: int) -> dict[str, Any]:
    times, oks = [], []
    request = body(size)
    async with SynapseClient(Hotkey.from_uri(VALIDATOR), allow_local=True) as client:
        for _ in range(rounds):
            started = time.perf_counter()
            outcomes = await client.call_all(BENCH, {target: request for target in targets}, deadline=30.0)
            times.append(round(time.perf_counter() - started, 4))
            oks.append(sum(outcome.ok for outcome in outcomes.values()))
    return {"rounds_s": times, "first_s": times[0], "slowest_s": max(times), "ok": oks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind, default in (
        ("seconds", float, 10.0),
        ("warmup", float, 2.0),
        ("in-flight", int, 64),
        ("body-bytes", int, 1024),
        ("miners", int, 256),
        ("hosts", int, 8),
        ("rounds", int, 5),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default)
    a = parser.parse_args()
    gc.freeze()
    with Hosts([[0]]) as targets:
        through = asyncio.run(throughput(targets[0], a.seconds, a.warmup, a.in_flight, a.body_bytes))
    with Hosts([list(range(i, a.miners, a.hosts)) for i in range(min(a.hosts, a.miners))]) as targets:
        fan = asyncio.run(fanout(targets, a.rounds, a.body_bytes))
    print(json.dumps({"throughput": through, "fanout": fan}))


if __name__ == "__main__":
    main()
