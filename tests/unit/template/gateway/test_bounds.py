"""What callers can do to a gateway: leave, come in hundreds, use up their quota. Nothing is left behind."""

import asyncio
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from protocol.generation import ChatMessage
from template.gateway.keys import KeyStore, Quota
from template.inference.models import LoadedModel
from tests.support.gateway import Stage, eventually, stage, tasks
from tests.support.inference import tiny_model
from tests.unit.template.gateway.test_gateway import HELLO, client


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def body(on: Stage, **fields: Any) -> dict[str, Any]:
    return {"model": on.model, "messages": HELLO, "max_tokens": 200, **fields}


async def quiet(on: Stage, before: set[str]) -> None:
    """Nothing of a request is left: no slot, no place at a miner, no row in its batch, no task."""
    await eventually(lambda: on.gateway.in_work == 0, "no request is in work")
    await eventually(lambda: all(s.waiting == 0 for s in on.board.standings(0.0)), "no miner is at work for us")
    await eventually(lambda: on.engine.stats().active == on.engine.stats().waiting == 0, "every row is free")
    await on.gateway.service.records.settle()
    await eventually(lambda: not [t for t in tasks() - before if "gateway" in t or "Attempt" in t], "no task is left")


@pytest.mark.parametrize("after", [1, 5])
async def test_whoever_leaves_a_stream_takes_the_work_along(
    loaded: LoadedModel, tmp_path: Path, after: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage(loaded, tmp_path, {"one": "honest"}, pace=0.1) as on, aiohttp.ClientSession() as session:
        before = tasks()
        async with session.post(on.url + "/chat/completions", json=body(on, stream=True)) as response:
            assert response.status == 200
            for _ in range(after):
                assert (await response.content.readline()).startswith(b"data: ")
                await response.content.readline()
            assert on.engine.stats().active == 1
            response.close()
        await quiet(on, before)
        assert on.engine.stats().cancelled == 1 and on.engine.stats().finished == 0
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR], "callers must not fill the log"


async def test_whoever_leaves_while_waiting_takes_the_work_along(loaded: LoadedModel, tmp_path: Path) -> None:
    miners = {"one": "honest", "two": "honest", "three": "honest"}
    async with stage(loaded, tmp_path, miners, pace=0.1) as on, aiohttp.ClientSession() as session:
        before = tasks()
        for headers, rows in (({}, 1), ({"X-Touchstone-Miners": "3"}, 3)):
            post = session.post(on.url + "/chat/completions", json=body(on), headers=headers)
            request = asyncio.create_task(post.__aenter__())
            await eventually(lambda rows=rows: on.engine.stats().active == rows, "the miners are at work")  # type: ignore[misc]
            request.cancel()
            await quiet(on, before)
        assert on.engine.stats().cancelled == 4 and on.engine.stats().finished == 0


async def test_two_hundred_clients_at_once_all_get_an_answer_or_a_code(loaded: LoadedModel, tmp_path: Path) -> None:
    miners = {f"miner{number}": "honest" for number in range(4)}
    async with stage(loaded, tmp_path, miners, deadline=60.0, concurrency=32, queue=68) as on:
        before = tasks()
        seen: Counter[str] = Counter()

        async def one(session: aiohttp.ClientSession, number: int) -> None:
            fields = body(on, max_tokens=8, stream=number % 2 == 0)
            async with session.post(on.url + "/chat/completions", json=fields) as response:
                text = await response.text()
                if response.status == 200:
                    seen["answered"] += 1
                    assert ("[DONE]" in text) if number % 2 == 0 else json.loads(text)["choices"], text
                else:
                    code = json.loads(text)["error"]["code"]
                    assert response.status == 503 and int(response.headers["Retry-After"]) >= 1
                    seen[code] += 1

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(one(session, number) for number in range(200)))
        assert sum(seen.values()) == 200 and set(seen) <= {"answered", "overloaded"}
        assert seen["answered"] >= 100
        await quiet(on, before)
        assert len(on.gateway.service.records._writes) == 0
        await on.audited()
        counts = on.ledger.verdict_counts()
        assert sum(count["accept"] for count in counts.values()) == seen["answered"]
        assert not any(count["reject"] for count in counts.values())


async def test_above_the_queue_callers_are_told_to_come_back(loaded: LoadedModel, tmp_path: Path) -> None:
    async with (
        stage(loaded, tmp_path, {"one": "honest"}, pace=0.1, concurrency=1, queue=1) as on,
        client(on) as api,
    ):
        first = asyncio.create_task(api.chat.completions.create(**body(on, max_tokens=16)))
        second = asyncio.create_task(api.chat.completions.create(**body(on, max_tokens=4)))
        await eventually(lambda: on.gateway.in_work == 2, "one in work, one waiting")
        with pytest.raises(openai.InternalServerError) as caught:
            await api.chat.completions.create(**body(on))
        assert caught.value.status_code == 503 and caught.value.code == "overloaded"
        assert int(caught.value.response.headers["Retry-After"]) >= 1
        assert (await first).choices and (await second).choices


async def test_keys_and_quotas(loaded: LoadedModel, tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys.sqlite", create=True)
    quota = Quota(requests_per_minute=4, tokens_per_day=200, concurrency=2)
    alice, secret = store.create("alice", quota, 0.0)
    bob, other = store.create("bob", Quota(), 0.0)
    options = {"keys_file": tmp_path / "keys.sqlite"}
    async with stage(loaded, tmp_path, {"one": "honest"}, **options) as on:
        for wrong in ("none", secret[:-1]):
            async with client(on, api_key=wrong) as api:
                for asked in (api.models.list(), api.chat.completions.create(**body(on))):
                    with pytest.raises(openai.AuthenticationError) as refused:
                        await asked
                    assert refused.value.code == "invalid_api_key"
        async with client(on, api_key=secret) as api:
            answer: Any = await api.chat.completions.create(**body(on, max_tokens=20))
            used = answer.usage.total_tokens
            with pytest.raises(openai.RateLimitError) as caught:
                await api.chat.completions.create(**body(on, max_tokens=200))
            assert caught.value.code == "insufficient_quota"
            assert caught.value.response.headers["X-Should-Retry"] == "false"
            with pytest.raises(openai.BadRequestError):
                await api.chat.completions.create(**body(on, temperature=-1))
            await api.chat.completions.create(**body(on, max_tokens=1))
            with pytest.raises(openai.RateLimitError) as caught:
                await api.chat.completions.create(**body(on, max_tokens=1))
            assert caught.value.code == "rate_limit_exceeded" and int(caught.value.response.headers["Retry-After"]) > 1
        await on.gateway.service.records.settle()
        day = next(iter(on.gateway.meter._accounts.values())).day
        tokens, requests = store.used(alice.id, day)
        assert requests == 2 and tokens == used + answer.usage.prompt_tokens + 1
        async with client(on, api_key=other) as api:
            assert (await api.models.list()).data, "another key has its own quota"
            store.revoke(bob.id, 1.0)
            with pytest.raises(openai.AuthenticationError):
                await api.models.list()


async def test_tokens_of_an_answer_nobody_waited_for_are_counted(loaded: LoadedModel, tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys.sqlite", create=True)
    alice, secret = store.create("alice", Quota(), 0.0)
    options = {"keys_file": tmp_path / "keys.sqlite", "pace": 0.05}
    headers = {"Authorization": f"Bearer {secret}"}
    async with stage(loaded, tmp_path, {"one": "honest"}, **options) as on, aiohttp.ClientSession() as session:
        async with session.post(on.url + "/chat/completions", json=body(on, stream=True), headers=headers) as response:
            for _ in range(8):
                await response.content.readline()
            response.close()
        await eventually(lambda: on.gateway.in_work == 0, "the request has ended")
        await on.gateway.service.records.settle()
        day = next(iter(on.gateway.meter._accounts.values())).day
        tokens, requests = store.used(alice.id, day)
        messages = [ChatMessage(**message) for message in HELLO]
        assert requests == 1 and len(loaded.tokenize(messages)) + 3 <= tokens < len(loaded.tokenize(messages)) + 200


async def test_stopping_lets_requests_in_work_finish_and_takes_no_more(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"one": "honest"}, pace=0.05) as on, client(on) as api:
        stream: Any = await api.chat.completions.create(**body(on, max_tokens=16, stream=True))
        stopping = asyncio.create_task(on.gateway.stop())
        await asyncio.sleep(0)
        async with client(on) as late:
            with pytest.raises(openai.APIError):
                await late.chat.completions.create(**body(on))
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].choices[0].finish_reason is not None
        await stopping
        assert len(on.ledger.undecided_organic(9)) == 1, "what was answered is written before the end"


async def test_what_does_not_end_in_time_is_cancelled_at_the_end(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"mute": "silent"}, hedge=False, drain=0.1) as on, client(on) as api:
        before = tasks()
        asked = asyncio.create_task(api.chat.completions.create(**body(on)))
        await eventually(lambda: on.gateway.in_work == 1, "the request is in work")
        await on.gateway.stop()
        with pytest.raises(openai.APIError):
            await asked
        await eventually(lambda: not [t for t in tasks() - before if "Attempt" in t], "no task is left")


async def test_users_cannot_take_miners_away_with_requests_that_miners_refuse(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    async with stage(loaded, tmp_path, {"one": "honest"}, miner_context=64) as on, client(on) as api:
        with pytest.raises(openai.InternalServerError) as caught:
            await api.chat.completions.create(**body(on, max_tokens=64))
        assert caught.value.status_code == 503 and caught.value.code == "overloaded"
        assert (await api.chat.completions.create(**body(on, max_tokens=4))).choices, "the miner is asked again at once"


async def test_a_ledger_that_cannot_be_written_is_told_and_serving_goes_on(loaded: LoadedModel, tmp_path: Path) -> None:
    async with stage(loaded, tmp_path, {"one": "honest"}) as on, client(on) as api:
        on.ledger._db.execute("PRAGMA query_only = ON")
        assert (await api.chat.completions.create(**body(on, max_tokens=4))).choices
        await on.gateway.service.records.settle()
        assert "readonly" in on.gateway.service.records.problem
        assert on.outlook.health(on.gateway.service.records.problem, {"ok": True})["ok"] is False
        on.ledger._db.execute("PRAGMA query_only = OFF")
        assert (await api.chat.completions.create(**body(on, max_tokens=4))).choices
        await on.gateway.service.records.settle()
        assert on.gateway.service.records.problem == "" and len(on.ledger.undecided_organic(9)) == 1
