"""The gateway over real sockets: OpenAI's clients and curl on one side, real miners with a tiny model on the other."""

import asyncio
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import openai
import pytest

from protocol.auth import SignedExchange
from protocol.evidence import read_answer
from protocol.generation import GenerateRequest
from protocol.synapse import decode
from template.inference.models import LoadedModel
from template.keys import verify
from template.ledger import Entry
from tests.support.gateway import VALIDATOR, Stage, stage
from tests.support.inference import tiny_model

HELLO: Any = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def client(on: Stage, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=on.url, **{"api_key": "none", "max_retries": 0, "timeout": 30.0, **options})


async def kept(on: Stage, answer_id: str) -> tuple[Entry, SignedExchange]:
    """What the ledger holds about an answer, by the id its user sees."""
    await on.gateway.service.records.settle()
    entry = on.ledger.entry(answer_id.partition("-")[2])
    assert entry.received is not None
    return entry, SignedExchange.from_json(entry.received.envelope)


async def test_a_chat_answer_and_what_proves_it(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"one": "honest"}) as on, client(on) as api:
        raw = await api.chat.completions.with_raw_response.create(model=on.model, messages=HELLO, max_tokens=24)
        answer: Any = raw.parse()
        entry, exchange = await kept(on, answer.id)
        response, _ = read_answer(exchange)

        assert answer.object == "chat.completion" and answer.model == on.model
        assert answer.choices[0].message.content == loaded.decode(response.token_ids)
        assert answer.choices[0].finish_reason == {"eos": "stop", "length": "length"}[response.finish_reason]
        assert answer.usage.prompt_tokens == len(entry.challenge.request.prompt_ids)
        assert answer.usage.completion_tokens == len(response.token_ids)

        assert raw.headers["X-Touchstone-Miner"] == on.hotkeys["one"] == exchange.receiver
        assert raw.headers["X-Touchstone-Evidence"] == exchange.response_digest.hex()
        assert raw.headers["X-Touchstone-Audited"] == "pending", "a new miner's answers are all audited"
        assert raw.headers["X-Request-Id"] == answer._request_id
        assert verify(exchange.receiver, exchange.response_payload, exchange.response_signature, "sr25519")
        await on.audited()
        assert on.ledger.verdict_counts()[on.hotkeys["one"]]["accept"] == 1
        (taken,) = on.ledger.take_organic(0)
        assert taken.digest == entry.challenge.digest and taken.tokens_per_s is not None


async def test_a_miner_sees_a_challenge_like_any_other(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"one": "honest"}) as on, client(on) as api:
        asked = [await api.chat.completions.create(model=on.model, messages=HELLO, max_tokens=8) for _ in range(2)]
        entries = [await kept(on, answer.id) for answer in asked]
        for entry, exchange in entries:
            challenge = entry.challenge
            request = decode(GenerateRequest, exchange.request_body)
            assert request == challenge.request and exchange.sender == challenge.validator == VALIDATOR.ss58
            assert exchange.method == "POST" and exchange.path == "/v2/inference_generate"
            assert list(request.prompt_ids) == loaded.tokenize(request.messages)
            assert [(m.role, m.content) for m in request.messages] == [("system", "be brief"), ("user", "hello")]
            assert challenge.kind == "organic" and challenge.round == 0
        first, second = (entry.challenge.request.nonce for entry, _ in entries)
        assert first != second


async def test_a_stream_is_the_same_answer_in_pieces(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"one": "honest"}) as on, client(on) as api:
        raw = await api.chat.completions.with_raw_response.create(
            model=on.model, messages=HELLO, max_tokens=40, stream=True, stream_options={"include_usage": True}
        )
        assert raw.headers["X-Touchstone-Miner"] == on.hotkeys["one"]
        assert raw.headers["Content-Type"] == "text/event-stream"
        chunks: list[Any] = [chunk async for chunk in raw.parse()]
        entry, exchange = await kept(on, chunks[0].id)
        response, _ = read_answer(exchange)

        assert chunks[0].choices[0].delta.role == "assistant" and len({chunk.id for chunk in chunks}) == 1
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
        assert len([piece for piece in pieces if piece]) > 3
        assert "".join(pieces) == loaded.decode(response.token_ids)
        last, usage = chunks[-2], chunks[-1]
        assert last.choices[0].finish_reason in ("stop", "length")
        assert last.touchstone["evidence"] == exchange.response_digest.hex()
        assert last.touchstone["audited"] == "pending" and last.touchstone["challenge"] == entry.challenge.digest
        assert usage.choices == [] and usage.usage.completion_tokens == len(response.token_ids)
        assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_completions_whole_and_streamed(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"one": "honest"}) as on, client(on) as api:
        whole: Any = await api.completions.create(model=on.model, prompt="hello", max_tokens=12)
        response, _ = read_answer((await kept(on, whole.id))[1])
        assert whole.object == "text_completion" and whole.choices[0].text == loaded.decode(response.token_ids)
        stream = await api.completions.create(model=on.model, prompt=["hello"], max_tokens=12, stream=True)
        chunks: list[Any] = [chunk async for chunk in stream]
        entry, exchange = await kept(on, chunks[0].id)
        text = "".join(chunk.choices[0].text for chunk in chunks)
        assert text == loaded.decode(read_answer(exchange)[0].token_ids)
        assert chunks[-1].choices[0].finish_reason is not None and chunks[-1].touchstone["miner"] == on.hotkeys["one"]
        assert [(m.role, m.content) for m in entry.challenge.request.messages] == [("user", "hello")]


async def test_the_blocking_client(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"one": "honest"}) as on:

        def use() -> tuple[str | None, str, str]:
            with openai.OpenAI(base_url=on.url, api_key="none", max_retries=0, timeout=30.0) as api:
                whole = api.chat.completions.create(
                    model=on.model, messages=HELLO, max_tokens=10, temperature=0, extra_body={"top_k": 5}
                )
                with api.chat.completions.create(
                    model=on.model, messages=HELLO, max_tokens=10, temperature=0, stream=True
                ) as stream:
                    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
                return whole.choices[0].message.content, text, api.models.list().data[0].id

        whole, streamed, model = await asyncio.to_thread(use)
        assert whole == streamed and whole, "greedy has one answer"
        assert model == on.model


async def test_models(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"one": "honest"}) as on, client(on) as api:
        (model,) = (await api.models.list()).data
        assert model.id == on.model and model.touchstone["root"] == loaded.identity.root  # type: ignore[attr-defined]
        assert (await api.models.retrieve(on.model)).id == on.model
        by_root: Any = await api.chat.completions.create(model=loaded.identity.root, messages=HELLO, max_tokens=4)
        assert by_root.model == on.model
        for asked in (api.models.retrieve("gpt-5"), api.completions.create(model="gpt-5", prompt="a")):
            with pytest.raises(openai.NotFoundError) as caught:
                await asked
            assert caught.value.code == "model_not_found"


async def test_errors_arrive_as_the_clients_own(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"one": "honest"}, max_context=64) as on, client(on) as api:
        asked: list[tuple[dict[str, Any], str, str]] = [
            ({"temperature": -1}, "invalid_value", "temperature"),
            ({"stop": ["a"]}, "unsupported_parameter", "stop"),
            ({"extra_body": {"top_kk": 1}}, "unknown_parameter", "top_kk"),
            ({"messages": []}, "empty_array", "messages"),
            ({"messages": [{"role": "user", "content": "long" * 100}]}, "context_length_exceeded", "messages"),
            ({"max_tokens": 64}, "context_length_exceeded", "messages"),
            ({"extra_headers": {"X-Touchstone-Miners": "99"}}, "invalid_value", "X-Touchstone-Miners"),
            ({"extra_headers": {"X-Touchstone-Verify": "never"}}, "invalid_value", "X-Touchstone-Verify"),
        ]
        for fields, code, param in asked:
            with pytest.raises(openai.BadRequestError) as caught:
                await api.chat.completions.create(**{"model": on.model, "messages": HELLO, **fields})
            assert (caught.value.code, caught.value.param) == (code, param)
            assert caught.value.type == "invalid_request_error" and caught.value.request_id
        assert on.gateway.in_work == 0 and on.engine.stats().finished == 0, "no miner was troubled"


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


async def curl(url: str, *options: str, body: object = None) -> tuple[int, str]:
    """(HTTP status, what curl printed)."""
    data = () if body is None else ("-H", "Content-Type: application/json", "--data-binary", json.dumps(body))
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-m", "30", "-w", "\n%{http_code}", *options, *data, url, stdout=asyncio.subprocess.PIPE
    )
    printed = (await process.communicate())[0].decode()
    assert process.returncode == 0, printed
    text, _, status = printed.rpartition("\n")
    return int(status), text


@needs_curl
async def test_curl(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"one": "honest"}) as on:
        chat = {"model": on.model, "messages": HELLO, "max_tokens": 8}
        status, text = await curl(on.url + "/chat/completions", body=chat)
        assert status == 200 and json.loads(text)["choices"][0]["message"]["role"] == "assistant"

        status, text = await curl(on.url + "/chat/completions", "-N", body={**chat, "stream": True})
        events = [line.removeprefix("data: ") for line in text.split("\n") if line]
        assert status == 200 and events[-1] == "[DONE]" and all("�" not in e or json.loads(e) for e in events[:-1])
        assert json.loads(events[-2])["touchstone"]["miner"] == on.hotkeys["one"]

        status, text = await curl(on.url + "/models")
        assert status == 200 and json.loads(text)["data"][0]["id"] == on.model
        status, text = await curl(on.url.removesuffix("/v1") + "/health")
        assert status == 200 and json.loads(text)["ok"] is True
        status, text = await curl(on.url.removesuffix("/v1") + "/metrics")
        assert (
            status == 200 and 'touchstone_gateway_requests_total{path="/v1/chat/completions",status="200"} 2.0' in text
        )


@needs_curl
@pytest.mark.parametrize(
    ("path", "options", "status", "code"),
    [
        ("/nothing", (), 404, "unknown_url"),
        ("/../v1/models", ("--path-as-is",), 404, "unknown_url"),
        ("/chat/completions", (), 405, "method_not_allowed"),
        ("/models", ("-X", "POST"), 405, "method_not_allowed"),
        ("/models/no%2Fsuch", (), 404, "model_not_found"),
        ("/chat/completions", ("-d", "{}"), 415, "unsupported_media_type"),
        ("/chat/completions", ("-H", "Content-Type: application/json", "-d", "{"), 400, "invalid_json"),
        ("/chat/completions", ("-H", "Content-Type: application/json", "-X", "POST"), 400, "invalid_json"),
        ("/chat/completions", ("-H", "Content-Type: application/json", "-d", "@BIG"), 413, "request_too_large"),
        (
            "/chat/completions",
            ("-H", "Content-Type: application/json", "-H", "Transfer-Encoding: chunked", "-d", "@BIG"),
            413,
            "request_too_large",
        ),
    ],
)
async def test_requests_that_are_none(
    loaded: LoadedModel, tmp_path: Path, path: str, options: tuple[str, ...], status: int, code: str
) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"[" + b" " * 3_000_000)
    given = [option.replace("BIG", str(big)) for option in options]
    async with stage(loaded, tmp_path, {"one": "honest"}) as on:
        found, text = await curl(on.url + path, *given)
        assert found == status, text
        assert json.loads(text)["error"]["code"] == code


async def test_bytes_that_are_not_http_get_an_answer_and_an_end(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"one": "honest"}) as on:
        for sent in (
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"GET /v1/models HTTP/1.1\r\n" + b"A: " + b"x" * 100_000 + b"\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", on.gateway.port)
            writer.write(sent + b"\r\n\r\n")
            head = await asyncio.wait_for(reader.read(), 10.0)
            assert head.startswith(b"HTTP/1.") and b" 400 " in head.split(b"\r\n")[0]
            writer.close()
        with socket.create_connection(("127.0.0.1", on.gateway.port)):
            pass  # and one that says nothing
        async with client(on) as api:
            assert (await api.models.list()).data
