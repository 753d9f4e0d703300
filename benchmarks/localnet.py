#!/usr/bin/env python3
"""How fast and how big the local Subtensor is, beside eth-tester in the same run. Prints JSON.

    python benchmarks/localnet.py               all of it, about six minutes
    python benchmarks/localnet.py start subnet  only these parts

Everything goes through the real thing: `python -m localnet` as a process where a client would see it, extrinsics signed
and sent over WebSocket, runtime APIs over WebSocket, epochs through the block. Each figure is the median of several
runs in the same process on the same machine; `machine` says which. Nothing here is a test: no figure can fail. `aims`
are what was wanted; eth-tester (py-evm) is what developers of Ethereum contracts know, in a virtual environment of its
own that is made on first use. Memory over many blocks is in localnet_memory.py, crashes in localnet_crash.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers import environments
from localnet import Localnet
from localnet.codec.scale import compact
from localnet.runtime.extrinsic import Extrinsic
from localnet.runtime.runtime import SpecRuntime

ROOT = Path(__file__).resolve().parents[1]
TAO = 10**9
NEURONS, VALIDATORS, TEMPO = 256, 64, 360
ETH_TESTER = "eth-tester[py-evm]==0.14.0b1"
AIMS = {
    "process_start_to_first_block_s": 0.6,
    "fixture_ms": 10,
    "tempo_360_blocks_256x64_s": 1,
    "epoch_256x64_ms": 10,
    "epoch_4096x64_ms": 250,
    "simulation_1000_epochs_64_neurons_s": 5,
    "signed_transfers_per_s": 5_000,
    "get_storage_per_s": 20_000,
}


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    return {"cpu": model or platform.processor(), "cores": os.cpu_count(), "python": platform.python_version()}


def spread(values: list[float], digits: int = 3) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
        "runs": len(values),
    }


class Wire:
    """JSON-RPC over one WebSocket, many requests in flight."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws, self.last = ws, 0

    async def many(self, requests: list[tuple[str, list[Any]]], window: int = 256) -> list[Any]:
        results: dict[int, Any] = {}
        first, sent = self.last + 1, 0
        while len(results) < len(requests):
            while sent < len(requests) and sent - len(results) < window:
                self.last += 1
                method, params = requests[sent]
                await self.ws.send_str(
                    json.dumps({"jsonrpc": "2.0", "id": self.last, "method": method, "params": params})
                )
                sent += 1
            message = json.loads((await self.ws.receive()).data)
            if "id" in message:
                results[message["id"]] = message
        return [results[first + index] for index in range(len(requests))]

    async def one(self, method: str, *params: Any) -> Any:
        answer = (await self.many([(method, list(params))]))[0]
        if "error" in answer:
            raise SystemExit(f"{method}: {answer['error']}")
        return answer["result"]


async def with_wire(net: Localnet, work: Callable[[Wire], Awaitable[Any]]) -> Any:
    async with aiohttp.ClientSession() as session, session.ws_connect(net.url, max_msg_size=0, compress=0) as ws:
        return await work(Wire(ws))


# -- parts ----------------------------------------------------------------------------------------------------------


async def start() -> dict[str, Any]:
    """`python -m localnet`: from starting the process to block 1 answered over RPC."""
    times, resident = [], 0.0
    for _ in range(5):
        with tempfile.TemporaryDirectory() as folder:
            ready = Path(folder) / "ready"
            began = time.perf_counter()
            command = [
                sys.executable,
                "-m",
                "localnet",
                "--port",
                "0",
                "--ready-file",
                str(ready),
                "--block-time",
                "0.05",
            ]
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                while not ready.exists():
                    await asyncio.sleep(0.002)
                await _first_block(ready.read_text().strip())
                times.append(time.perf_counter() - began)
                resident = psutil.Process(process.pid).memory_info().rss / 2**20
            finally:
                process.terminate()
                process.wait(10)
    return {"process_start_to_first_block_s": spread(times), "resident_mib": round(resident, 1)}


async def _first_block(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as ws:
        wire = Wire(ws)
        while int((await wire.one("chain_getHeader"))["number"], 16) < 1:
            await asyncio.sleep(0.002)


async def blocks() -> dict[str, Any]:
    """Empty blocks on a fresh chain (root and one subnet), mined one after the other in the process."""
    async with Localnet(mining="manual") as net:
        await net.mine(50)
        times = []
        for _ in range(5):
            began = time.perf_counter()
            await net.mine(200)
            times.append((time.perf_counter() - began) / 200 * 1e3)
        return {"empty_block_ms": spread(times, 4)}


async def reads() -> dict[str, Any]:
    """state_getStorage over one WebSocket, 256 in flight."""
    async with Localnet(mining="manual") as net:
        await net.mine(1)
        key = "0x26aa394eea5630e07c48ae0c9558cef702a5c1b19ab7a04f536c519aca4983ac"  # System.Number

        async def work(wire: Wire) -> list[float]:
            rates = []
            for _ in range(5):
                began = time.perf_counter()
                await wire.many([("state_getStorage", [key])] * 10_000)
                rates.append(10_000 / (time.perf_counter() - began))
            return rates

        return {"get_storage_per_s": spread(await with_wire(net, work), 0)}


def signed_transfers(runtime: SpecRuntime, genesis: bytes, senders: int, each: int) -> list[str]:
    import bittensor_core

    target = bytes(bittensor_core.Keypair.create_from_uri("//target").public_key)
    call = runtime.encode_call("Balances", "transfer_keep_alive", {"dest": ("Id", target), "value": 1_000_000})
    out = []
    for sender in range(senders):
        key = bittensor_core.Keypair.create_from_uri(f"//sender{sender}")
        for nonce in range(each):
            extra = b"\0" + compact(nonce) + b"\0\0"
            signed = Extrinsic(b"", call, extra=extra)
            payload = signed.payload(runtime.spec_version, runtime.transaction_version, genesis, genesis, b"")
            body = b"\x84\0" + bytes(key.public_key) + b"\1" + bytes(key.sign(payload)) + extra + call
            out.append("0x" + (compact(len(body)) + body).hex())
    return out


async def transfers() -> dict[str, Any]:
    """Signed transfers: submitted over one WebSocket, validated, included and applied; signing is not counted."""
    senders, each = 50, 40
    async with Localnet(mining="manual") as net:
        import bittensor_core

        for sender in range(senders):
            key = bittensor_core.Keypair.create_from_uri(f"//sender{sender}")
            await net.fund(key.ss58_address, 100 * TAO)
        runtime = SpecRuntime()

        async def work(wire: Wire) -> float:
            genesis = bytes.fromhex((await wire.one("chain_getBlockHash", 0))[2:])
            raw = signed_transfers(runtime, genesis, senders, each)
            began = time.perf_counter()
            answers = await wire.many([("author_submitExtrinsic", [x]) for x in raw])
            refused = [answer["error"] for answer in answers if "error" in answer]
            if refused:
                raise SystemExit(f"transfers were refused: {refused[0]}")
            while await wire.one("author_pendingExtrinsics"):
                await wire.one("dev_newBlock")
            return senders * each / (time.perf_counter() - began)

        return {"signed_transfers_per_s": round(await with_wire(net, work)), "transfers": senders * each}


async def full_subnet(net: Localnet) -> int:
    """A subnet with 256 neurons of which 64 validate, all with weights on everybody; returns its netuid."""
    await net.extrinsic("//Alice", "SubtensorModule", "register_network", hotkey="//owner")
    netuid = int(net.query("SubtensorModule", "TotalNetworks")) - 1
    await net.extrinsic("//Alice", "SubtensorModule", "start_call", netuid=netuid)
    await net.sudo("AdminUtils", "sudo_set_admin_freeze_window", window=0)
    settings = {"sudo_set_tempo": ("tempo", TEMPO), "sudo_set_weights_set_rate_limit": ("weights_set_rate_limit", 0)}
    for setter, (name, value) in settings.items():
        await net.sudo("AdminUtils", setter, netuid=netuid, **{name: value})
    await net.sudo("AdminUtils", "sudo_set_commit_reveal_weights_enabled", netuid=netuid, enabled=False)
    for index in range(NEURONS - 1):
        await net.extrinsic("//Alice", "SubtensorModule", "burned_register", netuid=netuid, hotkey=f"//bench{index}")
    for index in range(VALIDATORS):
        stake = {"hotkey": f"//bench{index}", "netuid": netuid, "amount_staked": (50 + index) * TAO}
        await net.extrinsic("//Alice", "SubtensorModule", "add_stake", **stake)
    await net.mine_epoch(netuid)  # gives out permits
    for index in range(VALIDATORS):
        values = [(7919 * (index + 1) * (uid + 1)) % 65535 + 1 for uid in range(NEURONS)]
        weights = {"netuid": netuid, "dests": list(range(NEURONS)), "weights": values, "version_key": 0}
        await net.extrinsic(f"//bench{index}", "SubtensorModule", "set_weights", **weights)
    return netuid


async def timed_block(net: Localnet) -> float:
    began = time.perf_counter()
    await net.mine(1)
    return (time.perf_counter() - began) * 1e3


async def subnet() -> dict[str, Any]:
    """Metagraph and epoch of 256 neurons, 64 validators with dense weights."""
    async with Localnet(mining="manual") as net:
        netuid = await full_subnet(net)
        epochs = []
        for _ in range(5):
            due = int(net.query("SubtensorModule", "LastEpochBlock", netuid)) + TEMPO
            await net.mine_to(due - 2)
            plain = await timed_block(net)
            epochs.append(await timed_block(net) - plain)
        argument = "0x" + netuid.to_bytes(2, "little").hex()

        async def work(wire: Wire) -> dict[str, Any]:
            async def ask() -> float:
                began = time.perf_counter()
                await wire.one("state_call", "SubnetInfoRuntimeApi_get_metagraph", argument)
                return (time.perf_counter() - began) * 1e3

            built = []
            for _ in range(20):
                await wire.one("dev_newBlock")
                built.append(await ask())
            began = time.perf_counter()
            await wire.many([("state_call", ["SubnetInfoRuntimeApi_get_metagraph", argument])] * 2000)
            cached = 2000 / (time.perf_counter() - began)
            return {"metagraph_256_built_ms": spread(built, 2), "metagraph_256_cached_per_s": round(cached)}

        tempos = []
        for _ in range(3):
            began = time.perf_counter()
            await net.mine(TEMPO)
            tempos.append(time.perf_counter() - began)
        result = await with_wire(net, work)
        result["tempo_360_blocks_256x64_s"] = spread(tempos)
        result["epoch_and_payout_256x64_in_block_ms"] = spread(epochs, 2)
        result["resident_mib"] = round(psutil.Process().memory_info().rss / 2**20, 1)
        return dict(result)


async def epochs() -> dict[str, Any]:
    """The epoch's rules alone, Yuma 3, every validator with weights and bonds on everybody; a busy simulation."""
    from localnet.economy import Miner, Validator, World, drifting, measuring
    from localnet.economy.running import run as simulate
    from localnet.rules.epoch import EpochHyper, EpochInput, run_epoch

    def given(n: int, validators: int, rng: random.Random) -> EpochInput:
        def row() -> bytes:
            return b"".join(struct.pack("<HH", uid, rng.randrange(1, 65_536)) for uid in range(n))

        return EpochInput(
            n=n, block=1000, emission=148 * TAO, last_step=640, last_update=[900] * n, registered_at=[5] * n,
            stake=[rng.randrange(TAO, 1000 * TAO) << 64 if uid < validators else 0 for uid in range(n)],
            permits=[uid < validators for uid in range(n)], weights={uid: row() for uid in range(validators)},
            bonds={uid: row() for uid in range(validators)},
            hyper=EpochHyper(yuma3=True, max_validators=validators),
        )  # fmt: skip

    report: dict[str, Any] = {}
    for n in (256, 4096):
        inputs, times = given(n, VALIDATORS, random.Random(0)), []
        for _ in range(10):
            began = time.perf_counter()
            run_epoch(inputs)
            times.append((time.perf_counter() - began) * 1e3)
        report[f"epoch_{n}x{VALIDATORS}_ms"] = spread(times, 2)
    world = World(
        validators=[Validator(f"v{at}", 100.0 + at, measuring(0.05)) for at in range(16)],
        miners=[Miner(f"m{at}", worth=1.0 + at) for at in range(48)],
        moving=drifting(0.05),
    )
    began = time.perf_counter()
    simulate(world, 1000)
    report["simulation_1000_epochs_64_neurons_s"] = round(time.perf_counter() - began, 2)
    return report


async def fixture() -> dict[str, Any]:
    """What a test costs on a chain that is up: snapshot, a transfer in a block of its own, revert."""
    times, reverts, built = [], [], []
    for _ in range(10):
        began = time.perf_counter()
        async with Localnet(mining="instant"):
            built.append((time.perf_counter() - began) * 1e3)
    async with Localnet(mining="instant") as net:
        for _ in range(200):
            began = time.perf_counter()
            before = net.snapshot()
            await net.extrinsic("//Alice", "Balances", "transfer_keep_alive", dest="//Bob", value=1)
            await net.revert(before)
            times.append((time.perf_counter() - began) * 1e3)
            began = time.perf_counter()
            await net.revert(net.snapshot())
            reverts.append((time.perf_counter() - began) * 1e3)
    return {
        "construct_and_serve_ms": spread(built, 1),
        "snapshot_and_revert_ms": spread(reverts, 3),
        "snapshot_transfer_revert_ms": spread(times, 2),
    }


async def peer() -> dict[str, Any]:
    """The same with eth-tester on py-evm, in process, without a server."""
    python = environments.environment("eth-tester", ETH_TESTER) / "python"
    found = environments.script(python, "eth_tester_peer.py")
    return {"version": ETH_TESTER, **{name: spread(times, 3) for name, times in found.items()}}


PARTS: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
    "start": start,
    "blocks": blocks,
    "reads": reads,
    "transfers": transfers,
    "subnet": subnet,
    "epochs": epochs,
    "fixture": fixture,
    "peer": peer,
}


async def run(parts: list[str]) -> None:
    report: dict[str, Any] = {"benchmark": "localnet", "machine": machine(), "aims": AIMS}
    for part in parts:
        print(f"{part} ...", file=sys.stderr, flush=True)
        report[part] = await PARTS[part]()
    print(json.dumps(report, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of: {', '.join(PARTS)} (default: all)")
    parts = parser.parse_args().parts or list(PARTS)
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    asyncio.run(run(parts))


if __name__ == "__main__":
    main()
