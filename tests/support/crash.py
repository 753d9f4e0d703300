"""Kills a chain at random moments and looks at what is left in its state file.

One round of `Victim`: `python -m localnet --state FILE` is started, transfers and a head subscription go over its
WebSocket, SIGKILL comes when it wants to, sometimes before the node has even answered. Then `inspect` reads the file as
the node would and holds it against what clients saw:

    blocks    numbered without a gap, each names its parent's hash
    states    for every block, the digest over its changes is the one in its header, back to the oldest kept state: so
              the values in the file are those the blocks produced
    loss      every announced block is there with the announced hash, but for the one in flight
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from localnet.net import Localnet
from localnet.node.blocks import state_digest
from localnet.node.chain import Chain
from localnet.node.replay import trace
from localnet.runtime.runtime import SpecRuntime
from tests.support.extrinsics import Draft, account

ROOT = Path(__file__).resolve().parents[2]
WINDOW = 16  # transfers under way at a time
START = 60.0  # seconds that a start may take on a busy machine


class Inconsistent(AssertionError):
    """The state file does not hold what it should."""


@dataclass
class Seen:
    """What clients heard before the kill."""

    heads: dict[int, str] = field(default_factory=dict)  # number -> parent hash of the announced header
    accepted: int = 0  # transfers the pool took
    ready: asyncio.Event = field(default_factory=asyncio.Event)  # the node answers

    @property
    def last(self) -> int:
        return max(self.heads, default=0)


class Victim:
    """One life of the node, ended by SIGKILL."""

    def __init__(self, file: Path, runtime: SpecRuntime, block_time: float = 0.01) -> None:
        self.file, self.runtime, self.block_time = file, runtime, block_time

    async def live(self, seconds: float, early: bool = False) -> Seen:
        """Kill it `seconds` after its first answer, or with `early` after its start.

        Raises Inconsistent when it does not start.
        """
        seen = Seen()
        command = [
            sys.executable, "-m", "localnet", "--state", str(self.file), "--port", "0", "--json",
            "--block-time", str(self.block_time),
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        load = asyncio.ensure_future(self._load(process, seen))
        if not early:
            ready = asyncio.ensure_future(seen.ready.wait())
            await asyncio.wait([load, ready], timeout=START, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
        await asyncio.wait([load], timeout=seconds)
        with contextlib.suppress(ProcessLookupError):  # it ended by itself: `_load` says why
            process.kill()
        load.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError, aiohttp.ClientError):
            await load
        await process.communicate()
        return seen

    async def _load(self, process: asyncio.subprocess.Process, seen: Seen) -> None:
        """Transfers as fast as they are taken, until the process goes away."""
        assert process.stdout is not None and process.stderr is not None
        line = await process.stdout.readline()
        if not line:  # killed, or it broke
            line = json.dumps({"event": "error", "message": (await process.stderr.read()).decode()}).encode()
            if process.returncode == -9 or await process.wait() == -9:
                return
        facts = json.loads(line)
        if facts["event"] != "ready":
            raise Inconsistent(f"the node does not start again: {facts['message']}")
        seen.ready.set()
        async with aiohttp.ClientSession() as session, session.ws_connect(facts["url"], max_msg_size=0) as ws:
            await ws.send_json({"jsonrpc": "2.0", "id": "heads", "method": "chain_subscribeNewHeads", "params": []})
            await self._transfers(ws, bytes.fromhex(facts["genesis"][2:]), seen)

    async def _transfers(self, ws: aiohttp.ClientWebSocketResponse, genesis: bytes, seen: Seen) -> None:
        await ws.send_json({"jsonrpc": "2.0", "id": "nonce", "method": "account_nextIndex", "params": [ALICE]})
        nonce: int | None = None
        waiting = 0
        async for message in ws:
            if message.type != aiohttp.WSMsgType.TEXT:
                return
            answer = json.loads(message.data)
            if "method" in answer:
                header = answer["params"]["result"]
                seen.heads[int(header["number"], 16)] = header["parentHash"]
            elif answer.get("id") == "nonce":
                nonce = answer["result"]
            elif answer.get("id") == "transfer":
                waiting -= 1
                seen.accepted += "result" in answer
            while nonce is not None and waiting < WINDOW:
                await ws.send_json(self._transfer(nonce, genesis))
                nonce, waiting = nonce + 1, waiting + 1

    def _transfer(self, nonce: int, genesis: bytes) -> dict[str, Any]:
        dest = ("Id", account(f"//{nonce % 50}"))
        call = self.runtime.encode_call("Balances", "transfer_keep_alive", {"dest": dest, "value": 10**6})
        raw = Draft(self.runtime, "//Alice", call, nonce, genesis).sign()
        return {"jsonrpc": "2.0", "id": "transfer", "method": "author_submitExtrinsic", "params": ["0x" + raw.hex()]}


ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


async def inspect(file: Path, seen: Seen, retrace: int = 0) -> int:
    """Check the file against what was seen; the number of its newest block. `retrace`: newest blocks to make again.

    Raises Inconsistent.
    """
    async with Localnet(mining="manual", state=file) as net:
        chain = net.chain
        check_blocks(chain)
        check_states(chain)
        for number in range(max(1, chain.state.oldest + 1, chain.head.number + 1 - retrace), chain.head.number + 1):
            trace(chain, number)  # raises ChainError when a block does not come out as stored
        check_loss(chain, seen)
        return chain.head.number


def check_blocks(chain: Chain) -> None:
    for number, block in enumerate(chain.blocks):
        if block.number != number or (number and block.header.parent_hash != chain.blocks[number - 1].hash):
            raise Inconsistent(f"block {number} does not follow the one before it")


def check_states(chain: Chain) -> None:
    state = chain.state
    for number in range(state.oldest + 1, chain.head.number + 1):
        diff = {key: state.value_at(key, number) for key in state.changed_in(number)}
        before = chain.blocks[number - 1].header.state_root
        if state_digest(before, diff) != chain.blocks[number].header.state_root:
            raise Inconsistent(f"the stored changes of block {number} are not those its header commits to")


def check_loss(chain: Chain, seen: Seen) -> None:
    if seen.last > chain.head.number + 1:
        raise Inconsistent(f"block {seen.last} was announced, the file ends with {chain.head.number}")
    for number, parent in seen.heads.items():
        if number <= chain.head.number + 1 and parent != "0x" + chain.blocks[number - 1].hash.hex():
            raise Inconsistent(f"block {number - 1} is not the one that was announced")


async def rounds(file: Path, times: int, rng: random.Random, longest: float, retrace: int = 0) -> list[dict[str, Any]]:
    """Kill and inspect `times` times; a line of figures for each. Raises Inconsistent."""
    runtime, lines = SpecRuntime(), []
    for _ in range(times):
        early = rng.random() < 0.15  # before the node answers
        seconds = rng.uniform(0.02, 1.0 if early else longest)
        seen = await Victim(file, runtime).live(seconds, early)
        head = await inspect(file, seen, retrace)
        lost = max(0, seen.last - head)
        lines.append({"seconds": round(seconds, 3), "announced": seen.last, "stored": head, "lost": lost,
                      "transfers": seen.accepted, "ready": seen.ready.is_set()})  # fmt: skip
    return lines
