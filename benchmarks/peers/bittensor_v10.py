"""Axon and dendrite of bittensor 10.5.0 under the load of benchmarks/transport.py. Prints one JSON object.

Runs in an environment of its own. The default verification of the axon is on (signature and growing nonce); nothing
is signed on the way back, since v10 has no such thing. The only change to the SDK is that the look-up of this machine's
public address, which needs the internet, returns a fixed one; it happens before anything is measured. (No postponed
annotations here: the axon reads the handler's.)
"""

import argparse
import asyncio
import json
import multiprocessing
import socket
import time
from types import SimpleNamespace
from typing import Any

import bittensor as bt
from bittensor.utils import networking
from bittensor_wallet import Keypair

networking.get_external_ip = lambda: "192.0.2.1"
bt.logging.off()


class Bench(bt.Synapse):
    payload: str = ""
    n: int = -1


async def forward(synapse: Bench) -> Bench:
    synapse.n = len(synapse.payload)
    synapse.payload = ""
    return synapse


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def host(indexes: list[int], ready: Any, stop: Any) -> None:
    axons = []
    for index in indexes:
        wallet = SimpleNamespace(hotkey=Keypair.create_from_uri(f"//Miner{index}"), coldkeypub=None)
        port = free_port()
        axon = bt.Axon(wallet=wallet, port=port, ip="127.0.0.1", external_ip="127.0.0.1", external_port=port)
        axon.attach(forward_fn=forward)
        axons.append(axon.start())
    ready.put([(a.wallet.hotkey.ss58_address, a.port) for a in axons])
    stop.wait()
    for axon in axons:
        axon.stop()


class Hosts:
    def __init__(self, groups: list[list[int]]) -> None:
        context = multiprocessing.get_context("spawn")
        self._ready, self._stop = context.Queue(), context.Event()
        self._processes = [context.Process(target=host, args=(g, self._ready, self._stop)) for g in groups]

    def __enter__(self) -> list[bt.AxonInfo]:
        for process in self._processes:
            process.start()
        found = [pair for _ in self._processes for pair in self._ready.get(timeout=90)]
        return [
            bt.AxonInfo(version=1, ip="127.0.0.1", port=port, ip_type=4, hotkey=hotkey, coldkey=hotkey)
            for hotkey, port in found
        ]

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for process in self._processes:
            process.join(timeout=20)
            if process.is_alive():
                process.kill()


def quantile(values: list[float], q: float) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, max(0, round(q * len(ordered)) - 1))] * 1000, 2)


def body(size: int) -> Bench:
    return Bench(payload="x" * size)


async def throughput(axon: bt.AxonInfo, a: argparse.Namespace) -> dict[str, Any]:
    latencies: list[float] = []
    failures: dict[str, int] = {}
    begin = time.perf_counter() + a.warmup
    end = begin + a.seconds
    async with bt.Dendrite(wallet=Keypair.create_from_uri("//Alice")) as dendrite:

        async def worker() -> None:
            while (sent := time.perf_counter()) < end:
                answer = await dendrite.call(axon, body(a.body_bytes), timeout=30.0, deserialize=False)
                if sent < begin:
                    continue
                if answer.dendrite.status_code == 200 and answer.n == a.body_bytes:
                    latencies.append(time.perf_counter() - sent)
                else:
                    code = str(answer.dendrite.status_code)
                    failures[code] = failures.get(code, 0) + 1

        await asyncio.gather(*(worker() for _ in range(a.in_flight)))
    return {
        "per_second": round(len(latencies) / a.seconds, 1),
        "p50_ms": quantile(latencies, 0.5),
        "p99_ms": quantile(latencies, 0.99),
        "ok": len(latencies),
        "failed": failures,
    }


async def fanout(axons: list[bt.AxonInfo], a: argparse.Namespace) -> dict[str, Any]:
    times, oks = [], []
    async with bt.Dendrite(wallet=Keypair.create_from_uri("//Alice")) as dendrite:
        for _ in range(a.rounds):
            started = time.perf_counter()
            answers = await dendrite.forward(axons, body(a.body_bytes), timeout=30.0, deserialize=False)
            times.append(round(time.perf_counter() - started, 4))
            oks.append(sum(answer.n == a.body_bytes for answer in answers))
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
    a, _ = parser.parse_known_args()
    import sys

    sys.argv = sys.argv[:1]  # bittensor reads the command line too
    with Hosts([[0]]) as axons:
        through = asyncio.run(throughput(axons[0], a))
    with Hosts([list(range(i, a.miners, a.hosts)) for i in range(min(a.hosts, a.miners))]) as axons:
        fan = asyncio.run(fanout(axons, a))
    print(json.dumps({"throughput": through, "fanout": fan}))


if __name__ == "__main__":
    main()
