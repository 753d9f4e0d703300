#!/usr/bin/env python3
"""How much memory a chain takes after many blocks, with old states pruned. Prints JSON, a line of figures per step.

    python benchmarks/localnet_memory.py [--blocks 100000] [--history 16384] [--transfers 0.1] [--state]

One process as `python -m localnet` is: a started subnet with neurons and weights whose epochs run, transfers in every
tenth block, a client that follows heads and storage over WebSocket. `resident_mib` is what the process holds, measured
after a garbage collection; `kept` counts what grows with the chain.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import aiohttp
import psutil

from localnet import Localnet

TAO = 10**9
STEP = 10_000


def resident() -> float:
    """MiB, after what is free has been given back."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return round(psutil.Process().memory_info().rss / 2**20, 1)


def kept(net: Localnet) -> dict[str, int]:
    state = net.chain.state
    return {
        "storage_keys": len(state.head),
        "keys_with_history": len(state._past),
        "history_entries": sum(len(blocks) for blocks, _ in state._past.values()),
        "blocks_with_bodies": sum(block.extrinsics is not None for block in net.chain.blocks),
        "pool": len(net.chain.pool),
        "subscriptions": sum(map(len, net.rpc.node.subscriptions._kinds.values())),
    }


async def follow(url: str) -> None:
    """A client that reads what it subscribed to."""
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as ws:
        for method, params in (("chain_subscribeNewHeads", []), ("state_subscribeStorage", [[]])):
            await ws.send_json({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        async for _ in ws:
            pass


async def measure(options: argparse.Namespace, file: Path | None) -> dict[str, Any]:
    rng, lines, began = random.Random(1), [], time.monotonic()
    async with Localnet(mining="manual", history=options.history, state=file) as net:
        await net.subnet(miners=3, validators=2)
        client = asyncio.ensure_future(follow(net.url))
        first = resident()
        while net.block < options.blocks:
            for _ in range(STEP // 10):
                if rng.random() < options.transfers * 10:
                    await net.fund(f"//user/{rng.randrange(500)}", TAO)
                await net.mine_to((net.block // 10 + 1) * 10)
            line = {"block": net.block, "resident_mib": resident(), **kept(net)}
            lines.append(line)
            print(json.dumps(line), file=sys.stderr, flush=True)
        client.cancel()
        size = 0 if file is None else round(file.stat().st_size / 2**20, 1)
    return {
        "blocks": options.blocks, "history": options.history, "resident_at_start_mib": first,
        "resident_mib": lines[-1]["resident_mib"], "file_mib": size, "steps": lines,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--blocks", type=int, default=100_000)
    options.add_argument("--history", type=int, default=16_384, help="blocks whose states are kept (the default)")
    options.add_argument("--transfers", type=float, default=0.1, help="transfers per block")
    options.add_argument("--state", action="store_true", help="with a state file")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "chain.sqlite" if chosen.state else None
        print(json.dumps(asyncio.run(measure(chosen, file)), indent=2))


if __name__ == "__main__":
    main()
