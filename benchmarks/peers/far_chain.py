"""A chain of many subnets in a process of its own, and a proxy that makes it far: what forks are measured against.

    async with remote("runtime.wasm", latency=0.05) as far:
        far["url"], far["subnets"], await counted(far["url"])

The scenario builder makes the chain. The proxy holds every answer back for `latency` seconds and counts what passes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from typing import Any

import aiohttp
from aiohttp import web

from localnet import Localnet
from localnet.errors import LocalnetError
from localnet.wasm.source import RuntimeSource

SPEC = "spec"  # the specification runtime; everything else is what `localnet --runtime` takes
SUBNETS, MINERS, VALIDATORS = 128, 8, 2
PALLET = "SubtensorModule"
MESSAGE = 256 * 2**20  # bytes


def chain(where: str) -> Localnet:
    return Localnet(mining="manual", runtime=None if where == SPEC else RuntimeSource(where, dev_accounts=True))


@contextlib.asynccontextmanager
async def remote(where: str, latency: float) -> AsyncIterator[dict[str, Any]]:
    """Its address and what is on it, or {"unavailable": why} when the runtime cannot make such a chain."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(where, latency, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield await asyncio.to_thread(ours.recv)
    finally:
        ours.close()  # which ends it
        process.join(10)
        process.terminate()


async def counted(url: str) -> dict[str, int]:
    """What has passed the proxy: requests, bytes of them and of the answers."""
    async with aiohttp.ClientSession() as session, session.get(url.replace("ws://", "http://") + "/counted") as answer:
        found: dict[str, int] = await answer.json()
        return found


def _run(where: str, latency: float, parent: Connection) -> None:
    logging.getLogger("localnet").setLevel(logging.CRITICAL)
    try:
        asyncio.run(_serve(where, latency, parent))
    except LocalnetError as error:
        parent.send({"unavailable": f"the chain to fork from: {type(error).__name__}: {error}"})


async def _serve(where: str, latency: float, parent: Connection) -> None:
    """Until the other end of the pipe is closed."""
    began = time.perf_counter()
    async with chain(where) as net:
        facts = await many_subnets(net)
        async with proxy(net.url, latency) as url:
            parent.send({"url": url, **facts, "seconds_to_make": round(time.perf_counter() - began, 1)})
            with contextlib.suppress(EOFError):
                await asyncio.to_thread(parent.recv)


async def many_subnets(net: Localnet) -> dict[str, Any]:
    """SUBNETS of them, those of the genesis included; the others are started, small and without weights."""
    storage = net.client.document.storage
    await net.mine(1)
    for item, value in (("SubnetLimit", SUBNETS + 8), ("NetworkRateLimit", 0)):
        if (PALLET, item) in storage:
            await net.set_storage(PALLET, item, value=value)
    lock = net.query(PALLET, "NetworkLastLockCost")
    while (count := len(net.query_map(PALLET, "NetworksAdded"))) < SUBNETS:
        await net.set_storage(PALLET, "NetworkLastLockCost", value=lock)  # each would cost twice the last
        await net.subnet(miners=MINERS, validators=VALIDATORS, label=f"Far{count}", epochs=0)
    await net.mine(3)
    return {"subnets": count, "neurons_each": MINERS + VALIDATORS + 1, "storage_keys": len(net.chain.state.head)}


@contextlib.asynccontextmanager
async def proxy(target: str, latency: float) -> AsyncIterator[str]:
    """A WebSocket in front of `target`; GET /counted tells what passed."""
    count = {"requests": 0, "request_bytes": 0, "answer_bytes": 0}

    async def relay(request: web.Request) -> web.WebSocketResponse:
        near = web.WebSocketResponse(max_msg_size=MESSAGE, compress=False)
        await near.prepare(request)
        async with aiohttp.ClientSession() as session, session.ws_connect(target, max_msg_size=MESSAGE) as far:
            back = asyncio.ensure_future(answers(far, near))
            async for message in near:
                count["requests"] += 1
                count["request_bytes"] += len(message.data)
                await far.send_str(message.data)
            back.cancel()
        return near

    async def answers(far: aiohttp.ClientWebSocketResponse, near: web.WebSocketResponse) -> None:
        async def later(text: str) -> None:
            await asyncio.sleep(latency)
            with contextlib.suppress(ConnectionError):  # nobody waits for it any more
                await near.send_str(text)

        held: set[asyncio.Task[None]] = set()
        async for message in far:
            count["answer_bytes"] += len(message.data)
            task = asyncio.ensure_future(later(message.data))
            held.add(task)
            task.add_done_callback(held.discard)

    async def tell(request: web.Request) -> web.Response:
        return web.json_response(count)

    app = web.Application()
    app.add_routes([web.get("/", relay), web.get("/counted", tell)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
