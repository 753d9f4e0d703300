#!/usr/bin/env python3
"""How fast the local Subtensor is on the chain's released runtimes, and on a fork, beside the specification runtime.

    python benchmarks/localnet_wasm.py RUNTIME...                         everything; about two minutes a runtime
    python benchmarks/localnet_wasm.py RUNTIME... --part start --part fork
    python benchmarks/localnet_wasm.py spec                               the specification runtime alone

A RUNTIME is what `localnet --runtime` takes. Prints JSON. Every part of every runtime runs in a process of its own, one
after the other, and is ended after --limit seconds; the specification runtime goes first, and `ratios` divides by it.
What a runtime has not got is told as {"unavailable": why} in place of figures. `load` is the machine's: figures taken
beside other work say so. Times are wall clock, `spread` over the runs named; `calls` are times of single runtime calls,
without the node around them. Nothing here is a test: no figure can fail.

The fork goes on from a chain of 128 subnets in another process, made by the scenario builder on the same runtime,
through a proxy that holds every answer back for --latency seconds and counts requests and bytes (peers/far_chain.py).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.localnet import Wire, _first_block, machine, spread, timed_block, with_wire
from benchmarks.localnet_memory import resident
from benchmarks.peers.far_chain import SPEC, chain, counted, remote
from localnet import TAO, Localnet
from localnet.codec.scale import read_compact
from localnet.errors import LocalnetError
from localnet.subnets import Subnet
from localnet.wasm.cache import CompiledCache
from localnet.wasm.genesis import build
from localnet.wasm.loading import load
from localnet.wasm.runtime import WasmRuntime

ROOT = Path(__file__).resolve().parents[1]
COLD, WARM = 2, 5  # process starts
SENDERS, EACH = 25, 20  # signed transfers
TEMPO = 360
BLOCKS = 1_000
VALIDATE, APPLY = "TaggedTransactionQueue_validate_transaction", "BlockBuilder_apply_extrinsic"
UNITS = ("_ms", "_s", "_mib")  # of what has a ratio


@dataclass(frozen=True)
class Given:
    """`where`: a runtime as `localnet --runtime` takes it, or SPEC. `latency`: of the fork's node, seconds."""

    where: str
    latency: float

    def chain(self) -> Localnet:
        return chain(self.where)


@contextlib.contextmanager
def calls(net: Localnet) -> Iterator[dict[str, list[float]]]:
    """Milliseconds of every runtime call made meanwhile, by name; of applied extrinsics only the signed ones."""
    runtime: Any = net.runtime
    plain, times = runtime.call, defaultdict[str, list[float]](list)

    def timed(method: str, data: bytes, state: Any) -> bytes:
        began = time.perf_counter()
        answer: bytes = plain(method, data, state)
        if method != APPLY or data[read_compact(data, 0)[1]] & 0x80:  # signed
            times[method].append((time.perf_counter() - began) * 1e3)
        return answer

    runtime.call = timed
    try:
        yield times
    finally:
        runtime.call = plain


# -- parts ----------------------------------------------------------------------------------------------------------


async def start(given: Given) -> dict[str, Any]:
    """`python -m localnet`: from starting the process to block 1 answered over RPC; cold: with nothing compiled yet."""
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        warm = [await started(given, cache) for _ in range(WARM + 1)][1:]
    report["process_start_to_first_block_s"] = spread([seconds for seconds, _ in warm])
    report["resident_mib"] = round(warm[-1][1], 1)
    if given.where != SPEC:
        cold = []
        for _ in range(COLD):
            with tempfile.TemporaryDirectory() as cache:
                cold.append((await started(given, cache))[0])
        report["cold_process_start_to_first_block_s"] = spread(cold)
    return report


async def started(given: Given, cache: str) -> tuple[float, float]:
    """Seconds, and MiB resident."""
    runtime = [] if given.where == SPEC else ["--runtime", given.where]
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready"
        options = ["--port", "0", "--ready-file", str(ready), "--block-time", "0.05", "--quiet"]
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "localnet", *options, *runtime], cwd=ROOT, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "TOUCHSTONE_CACHE": cache},
        )  # fmt: skip
        try:
            while not ready.exists():
                if process.poll() is not None:
                    raise SystemExit(f"localnet --runtime {given.where} ended with status {process.returncode}")
                await asyncio.sleep(0.002)
            await _first_block(ready.read_text().strip())
            return time.perf_counter() - began, psutil.Process(process.pid).memory_info().rss / 2**20
        finally:
            process.terminate()
            process.wait(10)


async def engine(given: Given) -> dict[str, Any]:
    """What a start consists of: compiling, loading what was compiled, building the genesis."""
    if given.where == SPEC:
        return {"unavailable": "the specification runtime is not compiled"}
    loaded = load(given.where)
    code = loaded.code.stored
    report: dict[str, Any] = {"module_mib": round(len(loaded.code.module) / 2**20, 2)}
    with tempfile.TemporaryDirectory() as folder:
        folder = os.path.join(folder, "compiled")
        began = time.perf_counter()
        WasmRuntime(code, compiled=CompiledCache(Path(folder)))
        report["compile_s"] = round(time.perf_counter() - began, 2)
        times = []
        for _ in range(WARM):
            began = time.perf_counter()
            runtime = WasmRuntime(code, compiled=CompiledCache(Path(folder)))
            times.append((time.perf_counter() - began) * 1e3)
        report["load_compiled_ms"] = spread(times, 1)
        report["compiled_mib"] = round(sum(file.stat().st_size for file in Path(folder).iterdir()) / 2**20, 1)
    began = time.perf_counter()
    keys = build(runtime, loaded, dev_accounts=True)
    report["build_genesis_ms"], report["genesis_keys"] = round((time.perf_counter() - began) * 1e3, 1), len(keys)
    return report


async def blocks(given: Given) -> dict[str, Any]:
    """A fresh chain: its first block, then empty ones mined one after the other in the process."""
    async with given.chain() as net:
        first = await timed_block(net)
        await net.mine(50)
        times = []
        for _ in range(5):
            began = time.perf_counter()
            await net.mine(200)
            times.append((time.perf_counter() - began) / 200 * 1e3)
        return {"first_block_ms": round(first, 2), "empty_block_ms": spread(times, 3)}


async def transfers(given: Given) -> dict[str, Any]:
    """Signed transfers: submitted over one WebSocket, validated, included and applied; signing is not counted."""
    async with given.chain() as net:
        call = net.client.encode_call("Balances", "transfer_keep_alive", {"dest": "//Target", "value": TAO})
        raw = []
        for sender in range(SENDERS):
            await net.fund(f"//Sender{sender}", 1000 * TAO)
            raw += [net.client.sign(f"//Sender{sender}", call, nonce) for nonce in range(EACH)]

        async def work(wire: Wire) -> float:
            began = time.perf_counter()
            answers = await wire.many([("author_submitExtrinsic", ["0x" + one.hex()]) for one in raw])
            refused = [answer["error"] for answer in answers if "error" in answer]
            if refused:
                raise SystemExit(f"transfers were refused: {refused[0]}")
            while await wire.one("author_pendingExtrinsics"):
                await wire.one("dev_newBlock")
            return len(raw) / (time.perf_counter() - began)

        with calls(net) as times:
            rate = await with_wire(net, work)
        if net.balance("//Target") != len(raw) * TAO:
            raise SystemExit("not all transfers arrived")
        return {
            "signed_transfers_per_s": round(rate), "transfers": len(raw),
            "calls": {"validate_ms": spread(times[VALIDATE]), "apply_ms": spread(times[APPLY])},
        }  # fmt: skip


async def full_subnet(net: Localnet, neurons: int, validators: int) -> tuple[Subnet, list[float]]:
    """A subnet whose validators have weights on everybody, and milliseconds of applying each of those weights."""
    stakes = [(50 + index) * TAO for index in range(validators)]
    subnet = await net.subnet(
        miners=neurons - validators - 1, validators=validators, stake=stakes, tempo=TEMPO,
        hyperparameters={"max_allowed_uids": neurons} if neurons > 64 else {},
    )  # fmt: skip
    with calls(net) as times:
        for index in range(validators):
            weights = {uid: (7919 * (index + 1) * (uid + 1)) % 65535 + 1 for uid in range(neurons)}
            await subnet.set_weights(index, weights)
    return subnet, times[APPLY]


async def small_epoch(given: Given) -> dict[str, Any]:
    """64 neurons, 16 validators with dense weights."""
    async with given.chain() as net:
        subnet, _ = await full_subnet(net, 64, 16)
        return {"epoch_64x16_in_block_ms": await epochs(net, subnet)}


async def subnet(given: Given) -> dict[str, Any]:
    """256 neurons, 64 validators with dense weights."""
    async with given.chain() as net:
        made, weights = await full_subnet(net, 256, 64)
        report: dict[str, Any] = {
            "calls": {"set_weights_256_ms": spread(weights)},
            "epoch_256x64_in_block_ms": await epochs(net, made),
        }
        began = time.perf_counter()
        await net.mine(TEMPO)
        report["tempo_360_blocks_256x64_s"] = round(time.perf_counter() - began, 2)
        argument = "0x" + made.netuid.to_bytes(2, "little").hex()

        async def work(wire: Wire) -> list[float]:
            times = []
            for _ in range(20):
                await wire.one("dev_newBlock")
                began = time.perf_counter()
                await wire.one("state_call", "SubnetInfoRuntimeApi_get_metagraph", argument)
                times.append((time.perf_counter() - began) * 1e3)
            return times

        report["metagraph_256_built_ms"] = spread(await with_wire(net, work), 2)
        report["resident_mib"] = resident()
        return report


async def epochs(net: Localnet, subnet: Subnet) -> dict[str, float]:
    """The block with the epoch less the one before it: consensus and pay-out, milliseconds."""
    times = []
    for _ in range(5):
        await net.mine_to(net.developer.next_epoch(subnet.netuid) - 2)
        plain = await timed_block(net)
        times.append(await timed_block(net) - plain)
    return spread(times, 2)


async def memory(given: Given) -> dict[str, Any]:
    """Twice 1,000 blocks on a chain with a subnet of six; all states are kept."""
    async with given.chain() as net:
        await net.subnet()
        report: dict[str, Any] = {"resident_at_start_mib": resident()}
        grown = []
        for _ in range(2):
            before, began = resident(), time.perf_counter()
            await net.mine(BLOCKS)
            report["blocks_1000_s"] = round(time.perf_counter() - began, 2)
            grown.append(round(resident() - before, 1))
        report["growth_mib_per_1000_blocks"] = grown
        return report


# -- forks ----------------------------------------------------------------------------------------------------------


async def fork(given: Given) -> dict[str, Any]:
    """A fork of another process's chain, its cache empty and then filled."""
    async with remote(given.where, given.latency) as far:
        if "unavailable" in far:
            return far
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "forks.sqlite"
            runs = {name: await forked(far["url"], file) for name in ("cold", "warm")}
    return {"remote": far, "latency_seconds": given.latency, **runs}


async def forked(url: str, cache: Path) -> dict[str, Any]:
    """Seconds and what went over the wire: until it serves, its first block, one later block, twenty."""
    report: dict[str, Any] = {}
    net = Localnet(mining="manual", fork=url, fork_cache=cache)

    async def phase(name: str, work: Callable[[], Awaitable[Any]]) -> None:
        before, began = await counted(url), time.perf_counter()
        await work()
        took, after = time.perf_counter() - began, await counted(url)
        report[name] = {"took_s": round(took, 3)} | {key: after[key] - before[key] for key in after}

    try:
        await phase("start", net.start)
        await phase("first_block", net.mine)
        await phase("second_block", net.mine)
        await phase("twenty_more", lambda: net.mine(20))
    finally:
        await net.stop()
    return report


# -- running --------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Given], Awaitable[dict[str, Any]]]] = {
    "start": start,
    "engine": engine,
    "blocks": blocks,
    "transfers": transfers,
    "small_epoch": small_epoch,
    "subnet": subnet,
    "memory": memory,
    "fork": fork,
}


def _child(part: str, given: Given, answer: Connection) -> None:
    logging.getLogger("localnet").setLevel(logging.CRITICAL)  # what old runtimes say of their slots in every block
    try:
        report = asyncio.run(PARTS[part](given))
    except LocalnetError as error:
        report = {"unavailable": f"{type(error).__name__}: {error}"}
    except BaseException as error:
        traceback.print_exc()
        report = {"failed": f"{type(error).__name__}: {error}"}
    answer.send(report)


def measured(part: str, given: Given, limit: float) -> dict[str, Any]:
    """A part in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(part, given, theirs))
    process.start()
    theirs.close()
    try:
        if not ours.poll(limit):
            return {"unavailable": f"not done after {limit:.0f} s"}
        report: dict[str, Any] = ours.recv()
        return report
    except EOFError:
        process.join()
        return {"failed": f"the process ended with status {process.exitcode}"}
    finally:
        process.terminate()
        process.join()


def facts(where: str) -> dict[str, Any]:
    if where == SPEC:
        return {"runtime": "specification"}
    loaded = load(where).facts()
    return {"runtime": f"{loaded['spec_name']} {loaded['spec_version']}", "hash": loaded["hash"]}


def figure(value: Any) -> float | None:
    """The one number in a report's entry: a median, or itself."""
    if isinstance(value, dict):
        value = value.get("median")
    return value if isinstance(value, (int, float)) else None


def ratios(report: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """Every figure that both have, by the specification runtime's: times above 1 are slower, rates below 1."""
    out: dict[str, Any] = {}
    for name in report.keys() & base.keys():
        ours, theirs = figure(report[name]), figure(base[name])
        if ours is not None and theirs and name.endswith(UNITS):
            out[name] = round(ours / theirs, 2)
        elif isinstance(report[name], dict) and isinstance(base[name], dict):
            out |= {f"{name}.{inner}": ratio for inner, ratio in ratios(report[name], base[name]).items()}
    return dict(sorted(out.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runtimes", nargs="+", metavar="RUNTIME", help="file, chain specification, address, or spec")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this one; may be repeated")
    parser.add_argument("--limit", type=float, default=600, help="seconds a part may take (default 600)")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds by which the fork's node answers later")
    options = parser.parse_args()
    try:
        found = {where: facts(where) for where in dict.fromkeys([SPEC, *options.runtimes])}
    except LocalnetError as error:
        parser.error(str(error))
    report: dict[str, Any] = {"benchmark": "localnet_wasm", "machine": machine(), "load": [os.getloadavg()]}
    for where, told in found.items():
        for part in options.part or PARTS:
            print(f"{told['runtime']}: {part} ...", file=sys.stderr, flush=True)
            told[part] = measured(part, Given(where, options.latency), options.limit)
        report["load"].append(os.getloadavg())
    report["runtimes"] = list(found.values())
    base = found[SPEC]
    report["ratios"] = [{"runtime": told["runtime"], **ratios(told, base)} for told in found.values() if told != base]
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
