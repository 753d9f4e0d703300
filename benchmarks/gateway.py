"""What the gateway adds to a call: `python benchmarks/gateway.py`, one JSON object, about a minute.

The same caller process, with the same prompts, asks the same miner process in turns, `--in-flight` at a time: directly
(a signed stream, as a validator does), and through a gateway process (`/v1/chat/completions`, whole and streamed). Time
is from before the request to the end of the verified answer, for streams also to the first token. The difference of the
medians is the gateway's: reading and checking the request, the key, tokenization, routing, its own signature and check,
text, and writing the ledger behind the answer. `gateway_cpu_ms` is the processor time of the gateway process for one
call, which other work on the machine disturbs less.

The miner answers at once, with what its engine once generated, so that no model drowns the difference: in chunks and
signed, as always. Everything of the gateway is on (keys, quotas, ledger on disk); only the verifier does not run, and
the answers it would audit stay in the ledger. The model, for its tokenizer, is SmolLM2-135M-Instruct.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import aiohttp
import psutil

from neurons.gateway import Outlook, assemble, open_quota
from neurons.joining import Checking
from protocol.draw import Draw
from protocol.inference import (
    INFERENCE_GENERATE,
    ChatMessage,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    Sampler,
)
from protocol.metagraph import Metagraph, Neuron
from protocol.prompts import LENGTH_CLASSES, write_messages
from protocol.synapse import decode, encode
from template.client import SynapseClient, Target
from template.gateway.access import Access
from template.gateway.keys import KeyStore, Quota
from template.gateway.routing import Board
from template.inference.engine import ContinuousBatchingEngine
from template.inference.models import LoadedModel, load_model
from template.inference.service import GenerateService
from template.inference.sources import ModelSettings
from template.inference.verifier import Verifier
from template.keys import Hotkey
from template.ledger import Ledger
from template.limits import Limits, ReplayStore, StakePolicy
from template.ops import Ops
from template.server import SynapseServer
from template.settings import GatewaySettings

VALIDATOR, MINER = "//Alice", "//Bob"
TARGET_MS = 5.0  # p50
RAISED = Limits(rate_per_hotkey=1e6, burst_per_hotkey=10**6, rate_per_address=1e6, burst_per_address=10**6)
CHUNK = 4  # tokens a chunk


def metagraph(miner_port: int) -> Metagraph:
    validator = Neuron(0, Hotkey.from_uri(VALIDATOR).ss58, "", 1000.0, True, True, "0.0.0.0", 0, 4, 0)
    miner = Neuron(1, Hotkey.from_uri(MINER).ss58, "", 0.0, False, True, "127.0.0.1", miner_port, 4, 0)
    return Metagraph(1, 1, "0x" + "00" * 32, 360, (validator, miner))


def miner(answer: bytes, ready: Any, stop: Any) -> None:
    """A miner that has its answer ready."""
    response = decode(GenerateResponse, answer)
    tokens = response.token_ids

    async def handler(request: GenerateRequest, caller: object) -> AsyncIterator[GenerateChunk | GenerateResponse]:
        for offset in range(0, len(tokens), CHUNK):
            yield GenerateChunk(offset=offset, token_ids=tokens[offset : offset + CHUNK])
        yield response

    async def serve() -> None:
        with tempfile.TemporaryDirectory() as state:
            policy, replay = StakePolicy(lambda: metagraph(0)), ReplayStore(path=Path(state) / "nonces")
            options = {"policy": policy, "limits": RAISED, "replay": replay, "host": "127.0.0.1"}
            server = SynapseServer(Hotkey.from_uri(MINER), **options)  # type: ignore[arg-type]
            server.attach_stream(INFERENCE_GENERATE, handler)
            async with server:
                ready.put(server.port)
                await asyncio.to_thread(stop.wait)

    gc.freeze()
    asyncio.run(serve())


def gateway(miner_port: int, ready: Any, stop: Any) -> None:
    """The gateway as `touchstone gateway` assembles it, with this metagraph instead of a chain's."""

    async def serve() -> None:
        loaded = load_model(ModelSettings(source="package"), lambda text: None)
        hotkey = Hotkey.from_uri(VALIDATOR)
        async with AsyncExitStack() as stack:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            settings = GatewaySettings(netuid=1, port=0, data_dir=home, per_miner=64)
            store = KeyStore(settings.keys_path, create=True)
            _, secret = store.create("benchmark", Quota(10**9, 10**15, 64), time.time())
            ledger = stack.enter_context(Ledger(settings.ledger_path))
            client = await stack.enter_async_context(SynapseClient(hotkey, allow_local=True))
            outlook = Outlook(hotkey, ledger, Board(per_miner=settings.per_miner), settings.audit_floor)
            await outlook.refresh(metagraph(miner_port))
            access, verifier = Access(settings.keys_path, open_quota(settings)), Verifier(loaded)
            stack.callback(verifier.close)
            server = assemble(settings, Checking(loaded, verifier, None, client, b"s" * 32), outlook, access, Ops())
            await stack.enter_async_context(server)
            gc.freeze()
            ready.put((server.port, secret))
            await asyncio.to_thread(stop.wait)

    asyncio.run(serve())


async def prepared(loaded: LoadedModel, tokens: int) -> bytes:
    """An answer of exactly so many tokens, from the miner's own service."""
    prompt = (ChatMessage(role="user", content="Write a long story about a lighthouse."),)
    async with ContinuousBatchingEngine(loaded) as engine:
        service = GenerateService(engine, loaded.identity, Hotkey.from_uri(MINER).ss58)
        for attempt in range(20):
            async for frame in service(request_for(loaded, prompt, tokens, attempt)):
                if isinstance(frame, GenerateResponse) and frame.finish_reason == "length":
                    return encode(frame)
    raise SystemExit("no answer of the wanted length came about; try fewer --tokens")


def request_for(loaded: LoadedModel, prompt: tuple[ChatMessage, ...], tokens: int, number: int) -> GenerateRequest:
    return GenerateRequest(
        model_root=loaded.identity.root,
        dtype=loaded.identity.dtype,
        prompt_ids=tuple(loaded.tokenize(prompt)),
        messages=prompt,
        sampler=Sampler(),
        max_tokens=tokens,
        nonce=f"{number:064x}",
    )


def quantiles(values: list[float]) -> dict[str, float]:
    """Nearest rank, in milliseconds."""
    ordered = sorted(values)
    return {
        name: round(ordered[min(len(ordered) - 1, round(q * len(ordered)))] * 1000, 2)
        for name, q in (("p50_ms", 0.5), ("p99_ms", 0.99))
    }


class Caller:
    """Asks the same questions in each of the ways."""

    def __init__(
        self,
        loaded: LoadedModel,
        client: SynapseClient,
        session: aiohttp.ClientSession,
        target: Target,
        url: str,
        tokens: int,
    ) -> None:
        self.client, self.session, self.target, self.url = client, session, target, url
        self.tokens, self.model = tokens, loaded.identity.name
        draw = Draw(b"benchmark of the gateway")
        prompts = [write_messages(draw, LENGTH_CLASSES[i % len(LENGTH_CLASSES)]) for i in range(32)]
        self.requests = [request_for(loaded, prompt, tokens, number) for number, prompt in enumerate(prompts)]
        self.bodies = [[message.model_dump() for message in prompt] for prompt in prompts]

    async def direct(self, number: int) -> tuple[float, float]:
        """(seconds to the first token, to the end)."""
        request = self.requests[number % len(self.requests)]
        started, first = time.perf_counter(), 0.0
        async with self.client.stream(self.target, INFERENCE_GENERATE, request) as stream:
            async for _ in stream:
                first = first or time.perf_counter() - started
        assert len(stream.reply.response.token_ids) == self.tokens
        return first, time.perf_counter() - started

    async def whole(self, number: int) -> tuple[float, float]:
        started = time.perf_counter()
        async with self.session.post(self.url, json=self._body(number)) as response:
            answer = await response.json()
        assert response.status == 200 and answer["usage"]["completion_tokens"] == self.tokens, answer
        return time.perf_counter() - started, time.perf_counter() - started

    async def streamed(self, number: int) -> tuple[float, float]:
        started, first, last = time.perf_counter(), 0.0, b""
        async with self.session.post(self.url, json=self._body(number, stream=True)) as response:
            assert response.status == 200
            async for line in response.content:
                if line.startswith(b"data: {") and not first and b'"content":""' not in line:
                    first = time.perf_counter() - started
                last = line if line.startswith(b"data: ") else last
        assert last == b"data: [DONE]\n", last
        return first, time.perf_counter() - started

    def _body(self, number: int, **more: Any) -> dict[str, Any]:
        messages = self.bodies[number % len(self.bodies)]
        return {"model": self.model, "messages": messages, "max_tokens": self.tokens, **more}


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def measure(caller: Caller, gateway_pid: int, count: int, in_flight: int) -> dict[str, Any]:
    """Rounds of `in_flight` calls, the ways in turns, so that whatever else the machine does hits them all."""
    ways: dict[str, Callable[[int], Awaitable[tuple[float, float]]]] = {
        "direct": caller.direct,
        "gateway": caller.whole,
        "gateway_streamed": caller.streamed,
    }
    firsts: dict[str, list[float]] = {way: [] for way in ways}
    totals: dict[str, list[float]] = {way: [] for way in ways}
    cpu = 0.0
    for start in range(-10 * in_flight, count, in_flight):  # the first ten rounds warm up
        if start == 0:
            cpu = cpu_seconds(gateway_pid)
        for way, call in ways.items():
            times = await asyncio.gather(*(call(start + i) for i in range(in_flight)))
            if start >= 0:
                firsts[way] += [first for first, _ in times]
                totals[way] += [total for _, total in times]
    cpu = cpu_seconds(gateway_pid) - cpu
    found: dict[str, Any] = {way: {"total": quantiles(totals[way])} for way in ways}
    found["gateway_cpu_ms"] = round(1000 * cpu / (len(totals["gateway"]) + len(totals["gateway_streamed"])), 2)
    for way in ("direct", "gateway_streamed"):
        found[way]["first_token"] = quantiles(firsts[way])

    def added(way: str, part: str) -> dict[str, float]:
        return {q: round(found[way][part][q] - found["direct"][part][q], 2) for q in ("p50_ms", "p99_ms")}

    found["added"] = {
        "whole": added("gateway", "total"),
        "streamed": added("gateway_streamed", "total"),
        "first_token": added("gateway_streamed", "first_token"),
    }
    return found


async def run(
    a: argparse.Namespace, loaded: LoadedModel, miner_port: int, gateway_pid: int, port: int, secret: str
) -> dict[str, Any]:
    target = Target(Hotkey.from_uri(MINER).ss58, "127.0.0.1", miner_port)
    headers = {"Authorization": f"Bearer {secret}"}
    async with (
        SynapseClient(Hotkey.from_uri(VALIDATOR), allow_local=True) as client,
        aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        caller = Caller(loaded, client, session, target, url, a.tokens)
        gc.freeze()
        return {f"in_flight_{n}": await measure(caller, gateway_pid, a.count, n) for n in a.in_flight}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400, help="calls of each way")
    parser.add_argument("--tokens", type=int, default=32, help="of each answer")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--json", type=Path, help="also write the result here")
    a = parser.parse_args()
    loaded = load_model(ModelSettings(source="package"), lambda text: None)
    answer = asyncio.run(prepared(loaded, a.tokens))
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Queue(), context.Event()
    processes = [context.Process(target=miner, args=(answer, ready, stop))]
    load = os.getloadavg()[0]
    try:
        processes[0].start()
        miner_port = ready.get(timeout=120)
        processes.append(context.Process(target=gateway, args=(miner_port, ready, stop)))
        processes[1].start()
        port, secret = ready.get(timeout=120)
        results = asyncio.run(run(a, loaded, miner_port, processes[1].pid or 0, port, secret))
    finally:
        stop.set()
        for process in processes:
            process.join(timeout=30)
    result = {
        "benchmark": "gateway",
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()},
        "arrangement": {"count": a.count, "tokens": a.tokens, "load_average_before": round(load, 2)},
        "targets": {"added_p50_ms": TARGET_MS},
        "results": results,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if a.json:
        a.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
