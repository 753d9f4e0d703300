"""The miner's side of an engine elsewhere: a server that dies, lies, babbles, hangs, or holds another model."""

import asyncio
import base64
import json
import subprocess
import sys
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from protocol.fingerprint import encoded_size
from protocol.inference import ModelIdentity, Sampler
from template.inference import remote
from template.inference.backend import (
    EngineBusy,
    EngineError,
    EngineOutOfMemory,
    EngineRefused,
    EngineStopped,
)
from template.inference.engine import ContinuousBatchingEngine, EngineSettings
from template.inference.engine_api import FINGERPRINT_FORM, SAMPLER_FORM, IdentityBody
from template.inference.openai_server import EngineServer, Exposed
from template.inference.remote import MalformedAnswer, RemoteEngine
from tests.support.engines import EngineProcess
from tests.support.inference import tiny_model

GREEDY = Sampler(temperature=0.0)
WHOLE = Sampler(temperature=1.1, top_k=0, top_p=1.0)
MODEL = ModelIdentity("m", "a test", "ab" * 32, "float32", 100, (0,), 512)
OFFERED = {"sampler": SAMPLER_FORM, "fingerprint": FINGERPRINT_FORM, "identity": IdentityBody.of(MODEL).model_dump()}
MODELS = {"object": "list", "data": [{"id": "plain"}, {"id": "m", "max_model_len": 256, "touchstone": OFFERED}]}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def tiny(place):
    return tiny_model(place)


def proof(tokens):
    return base64.b64encode(bytes(encoded_size(tokens))).decode()


def event(tokens, reason=None, **closing):
    choice = {"index": 0, "text": "", "token_ids": tokens, "logprobs": None, "finish_reason": reason}
    return b"data: " + json.dumps({"id": "1", "choices": [choice], **closing}).encode() + b"\n\n"


def last(tokens, reason, **changes):
    return event(tokens, reason, touchstone={"fingerprint": proof(3), "queue_ms": 1.0, **changes})


@asynccontextmanager
async def scripted(*pieces, models=MODELS, status=200, then=None):
    """A server whose every completion is `pieces`; it hangs afterwards when `then` is an event."""

    async def completions(request):
        await request.read()
        if status != 200:
            return web.Response(status=status, body=b"".join(pieces))
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        if then is not None:
            await then.wait()
        return response

    async def listed(request):
        return web.Response(body=models if isinstance(models, bytes) else json.dumps(models).encode())

    app = web.Application()
    app.add_routes([web.get("/v1/models", listed), web.post("/v1/completions", completions)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def ask(url, max_tokens=3):
    async with RemoteEngine(url) as engine, await engine.submit([1, 2], GREEDY, b"s" * 32, max_tokens) as generation:
        return [token async for token in generation], generation.finish_reason


@pytest.mark.parametrize("end", [b"data: [DONE]\n\n", b""])
@pytest.mark.parametrize("tokens, reason, known", [([7, 8, 9], "length", "length"), ([7, 8, 0], "stop", "eos")])
async def test_an_answer_by_the_contract_is_taken(tokens, reason, known, end):
    async with scripted(b": waiting\n\n", event(tokens[:2]), last(tokens[2:], reason), end) as url:
        assert await ask(url) == (tokens, known)


async def test_an_answer_may_come_in_pieces_of_any_size():
    whole = event([7, 8]) + last([9], "length")
    async with scripted(*[whole[i : i + 1] for i in range(len(whole))]) as url:
        assert await ask(url) == ([7, 8, 9], "length")


@pytest.mark.parametrize(
    "pieces",
    [
        [b"data: {}\n\n"],
        [b"data: nonsense\n\n"],
        [event([])],
        [event(["7"])],
        [event([7.0])],
        [event([-1])],
        [event([100])],
        [event([7, 8, 9, 10])],
        [event([7, 8, 9])],  # complete without an end
        [event([7, 0])],  # goes on after the end
        [event([7, 8]), last([9], "stop")],
        [event([7, 8]), last([0], "length")],
        [event([7]), last([9], "length")],  # too short
        [event([7]), last([0, 9], "stop")],
        [event([7, 8]), event([9], "length")],
        [event([7, 8]), last([9], None)],
        [event([7, 8]), last([9], "length", fingerprint="")],
        [event([7, 8]), last([9], "length", fingerprint=proof(17))],
        [event([7, 8]), last([9], "length", fingerprint=base64.b64encode(b"\xff" * encoded_size(3)).decode())],  # NaN
        [event([7, 8]), last([9], "length", queue_ms=float("nan"))],
        [b"x" * 200_000],
        [b"data: x\n" + b"event: y\n" * 30_000],
    ],
)
async def test_an_answer_that_breaks_the_contract_is_an_error(pieces):
    async with scripted(*pieces) as url:
        with pytest.raises(MalformedAnswer):
            await ask(url)


@pytest.mark.parametrize("pieces", [[], [event([7])], [event([7]), b"data: [DONE]\n\n"], [event([7])[:-20]]])
async def test_an_answer_that_ends_early_says_so(pieces):
    async with scripted(*pieces) as url:
        with pytest.raises(EngineStopped):
            await ask(url)


@pytest.mark.parametrize(
    "code, error",
    [
        ("refused", EngineRefused),
        ("busy", EngineBusy),
        ("out_of_memory", EngineOutOfMemory),
        ("stopped", EngineStopped),
        ("other_model", EngineStopped),
        ("unauthorized", EngineStopped),
        ("something new", EngineError),
    ],
)
async def test_errors_keep_their_meaning_at_the_start_and_in_the_middle(code, error):
    body = json.dumps({"error": {"message": "no\x1b[2J", "type": "x", "code": code}}).encode()
    async with scripted(body, status=503) as url:
        with pytest.raises(error) as at_start:
            await ask(url)
    async with scripted(event([7]), b"data: " + body + b"\n\n") as url:
        with pytest.raises(error) as midway:
            await ask(url)
    assert type(at_start.value) is type(midway.value) is error and "\x1b" not in str(at_start.value)


@pytest.mark.parametrize("status, body", [(500, b"<html>"), (302, b""), (503, b"x" * 10**6), (404, b"{}")])
async def test_a_status_without_an_error_of_the_contract_is_malformed(status, body):
    async with scripted(body, status=status) as url:
        with pytest.raises(MalformedAnswer):
            await ask(url)


@pytest.mark.parametrize(
    "models",
    [
        b"",
        b"[" * 100_000,
        b" " * 2_000_000,
        {"data": []},
        {"data": [{"id": "m"}]},
        {"data": MODELS["data"] * 2},
        {"data": [{"id": "m", "touchstone": {**OFFERED, "sampler": "other/1"}}]},
        {"data": [{"id": "m", "touchstone": {**OFFERED, "identity": {**OFFERED["identity"], "root": "ab"}}}]},
    ],
)
async def test_a_server_that_does_not_say_what_it_runs_is_not_used(models):
    async with scripted(models=models) as url:
        with pytest.raises(MalformedAnswer):
            await RemoteEngine(url).start()


async def test_a_silent_server_does_not_hold_a_request_for_ever(monkeypatch):
    monkeypatch.setattr(remote, "SILENCE_S", 0.3)
    async with scripted(event([7]), then=asyncio.Event()) as url:
        with pytest.raises(EngineStopped):
            await ask(url)


async def test_the_context_is_the_smaller_of_the_servers_and_the_models():
    async with scripted() as url, RemoteEngine(url) as engine:
        with pytest.raises(EngineRefused):
            await engine.submit([1] * 250, GREEDY, b"s" * 32, 7)


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "file:///etc/passwd", "http://"])
def test_only_an_http_address_is_one(url):
    with pytest.raises(EngineRefused):
        RemoteEngine(url)


async def test_a_server_that_is_away_is_stopped_and_says_where():
    with pytest.raises(EngineStopped, match=r"127\.0\.0\.1:1"):
        await RemoteEngine("http://127.0.0.1:1").start()


async def test_the_server_wants_its_key_and_exactly_its_model(tiny):
    async with (
        ContinuousBatchingEngine(tiny) as engine,
        EngineServer(engine, max_context=512, key="secret") as server,
        aiohttp.ClientSession() as session,
    ):
        url = f"http://127.0.0.1:{server.port}"
        for key in ("", "secre", "secret2"):
            with pytest.raises(EngineStopped, match="TOUCHSTONE_ENGINE_KEY"):
                await RemoteEngine(url, key=key).start()
        async with session.get(f"{url}/health") as response:
            assert response.status == 200 and (await response.json())["ok"]
        async with RemoteEngine(url, key="secret") as client:
            name, context, identity = client._model
            assert context == 512 and identity == tiny.identity
            other = ModelIdentity(**{**identity.__dict__, "root": "cd" * 32})
            client._model = (name, context, other)
            with pytest.raises(EngineStopped, match=identity.root):
                await client.submit([1], GREEDY, b"s" * 32, 3)
        await engine.close()
        async with session.get(f"{url}/health") as response:
            assert response.status == 503


@pytest.mark.parametrize(
    "body, status",
    [
        (b"", 400),
        (b"{}", 400),
        (b'{"model": "m", "prompt": "text"}', 400),
        (b"[" * 10_000, 400),
        (b" " * (256 * 1024 + 1), 413),
    ],
)
async def test_the_server_refuses_what_is_no_request(tiny, body, status):
    async with (
        ContinuousBatchingEngine(tiny) as engine,
        EngineServer(engine, max_context=512) as server,
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{server.port}/v1/completions", data=body) as response,
    ):
        assert response.status == status
        assert (await response.json())["error"]["code"] == "refused"
        assert engine.stats().active == engine.stats().waiting == 0


async def test_a_client_that_hangs_up_frees_its_row_even_in_the_queue(tiny):
    async with (
        ContinuousBatchingEngine(tiny, EngineSettings(max_batch=1)) as engine,
        EngineServer(engine, max_context=2048) as server,
    ):
        async with RemoteEngine(f"http://127.0.0.1:{server.port}") as client:
            await client.submit([1], WHOLE, b"a" * 32, 2000)
            await client.submit([2], WHOLE, b"b" * 32, 2000)
        for _ in range(1000):
            stats = engine.stats()
            if stats.active == stats.waiting == 0:
                break
            await asyncio.sleep(0.01)
        assert stats.active == stats.waiting == 0 and stats.cancelled + stats.finished == 2


async def test_a_server_others_can_reach_needs_a_key(tiny):
    with pytest.raises(Exposed):
        await EngineServer(ContinuousBatchingEngine(tiny), max_context=512, host="0.0.0.0").__aenter__()


async def test_a_server_that_dies_midway_stops_the_request_and_serves_again_when_it_is_back(place, tiny):
    process = await asyncio.to_thread(EngineProcess, place)
    try:
        async with RemoteEngine(process.url) as engine:
            for seed in range(50):  # until one does not end at once
                running = await engine.submit([1], WHOLE, bytes([seed]) * 32, 2000)
                if await running.next_tokens() and running.finish_reason is None:
                    break
            await asyncio.to_thread(process.stop, kill=True)
            with pytest.raises(EngineStopped):
                while await running.next_tokens():
                    pass
            with pytest.raises(EngineStopped):
                await engine.submit([1], GREEDY, b"a" * 32, 3)
            process = await asyncio.to_thread(EngineProcess, place, port=process.port)
            async with await engine.submit([1], GREEDY, b"a" * 32, 3) as generation:
                assert [token async for token in generation]
    finally:
        status = await asyncio.to_thread(process.stop)
    assert status == 0


def test_a_miner_with_a_remote_engine_needs_no_torch():
    code = (
        "import sys; from template.inference import remote, service; import neurons.miner; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
