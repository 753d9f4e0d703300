"""What every engine does, whether the model runs in this process or behind a real engine server."""

import asyncio
import random

import pytest

from protocol.fingerprint import decode
from protocol.inference import Sampler, derive_seed
from template.inference.backend import EngineBusy, EngineRefused, EngineStopped
from template.inference.engine import ContinuousBatchingEngine, EngineSettings
from template.inference.remote import RemoteEngine
from template.inference.service import GenerateService
from tests.support.engines import EngineProcess
from tests.support.inference import collect, tiny_model
from tests.support.plans import plan

SAMPLED = Sampler(temperature=0.9, top_k=40, top_p=0.95)
GREEDY = Sampler(temperature=0.0)
WHOLE = Sampler(temperature=1.1, top_k=0, top_p=1.0)
BATCH, QUEUE = 2, 2


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def tiny(place):
    return tiny_model(place)


@pytest.fixture(scope="module")
def process(place, tiny):
    flags = ["--max-batch", str(BATCH), "--max-queue", str(QUEUE)]
    process = EngineProcess(place, *flags, key="secret")
    yield process
    assert process.stop() == 0


@pytest.fixture(params=["here", "remote"])
async def engine(request, tiny):
    if request.param == "here":
        async with ContinuousBatchingEngine(tiny, EngineSettings(max_batch=BATCH, max_queue=QUEUE)) as engine:
            yield engine
        return
    async with RemoteEngine(request.getfixturevalue("process").url, key="secret") as engine:
        yield engine


async def generate(engine, prompt_ids, sampler, seed, max_tokens):
    async with await engine.submit(prompt_ids, sampler, seed, max_tokens) as generation:
        tokens = [token async for token in generation]
    return tokens, generation.finish_reason, generation.fingerprint


async def until(condition):
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that")


async def endless(engine):
    """A request that runs until it is cancelled, already begun; retried while an earlier one leaves."""
    for seed in range(1, 200):
        generation = await engine.submit([seed], WHOLE, bytes([seed]) * 32, 2000)
        if await generation.next_tokens() and generation.finish_reason is None:
            return generation
        generation.cancel()
    raise AssertionError("every answer ended at once")


async def test_the_model_is_known(engine, tiny):
    assert engine.identity == tiny.identity and engine.running


async def test_tokens_and_fingerprint_are_those_of_a_lone_request(engine, tiny):
    rng = random.Random(7)
    jobs = [
        ([1 + rng.randrange(256) for _ in range(rng.randrange(1, 60))], sampler, bytes([i]) * 32, rng.randrange(1, 50))
        for i, sampler in enumerate([SAMPLED, GREEDY, WHOLE, WHOLE])
    ]
    async with ContinuousBatchingEngine(tiny, EngineSettings(max_batch=1)) as lone:
        expected = [await generate(lone, *job) for job in jobs]
    found = await asyncio.gather(*[generate(engine, *job) for job in jobs])
    for (tokens, reason, print_), (own, own_reason, own_print) in zip(found, expected, strict=True):
        assert (tokens, reason) == (own, own_reason)
        assert decode(print_, len(tokens)) == pytest.approx(decode(own_print, len(tokens)), abs=2e-3)
    stats = engine.stats()
    assert stats.finished >= len(jobs) and stats.active == stats.waiting == 0 and stats.tokens and stats.busy_s > 0


async def test_the_same_request_has_the_same_fingerprint_bytes(engine, tiny):
    job = ([5, 6, 7], SAMPLED, b"x" * 32, 20)
    async with ContinuousBatchingEngine(tiny, EngineSettings(max_batch=1)) as lone:
        expected = await generate(lone, *job)
    assert await generate(engine, *job) == expected


async def test_a_miner_serves_from_it(engine, tiny):
    request = plan(tiny.identity, tiny.tokenize).request
    response, streamed = await collect(GenerateService(engine, engine.identity, "miner")(request))
    async with ContinuousBatchingEngine(tiny) as lone:
        seed = derive_seed(request, "miner")
        expected = await generate(lone, request.prompt_ids, request.sampler, seed, request.max_tokens)
    assert (list(response.token_ids), response.finish_reason, response.proof.fingerprint) == expected
    assert streamed == list(response.token_ids)
    assert 0 <= response.timings.queue_ms <= response.timings.first_token_ms <= response.timings.total_ms


@pytest.mark.parametrize(
    "prompt_ids, max_tokens", [([], 5), ([1], 0), ([257], 5), ([-1], 5), ([1] * 2000, 100), ([1], 4000)]
)
async def test_what_can_never_be_served_is_refused(engine, prompt_ids, max_tokens):
    with pytest.raises(EngineRefused):
        await engine.submit(prompt_ids, GREEDY, b"a" * 32, max_tokens)


async def test_a_full_queue_is_busy_and_cancelling_makes_room(engine):
    running = [await endless(engine) for _ in range(BATCH)]
    waiting = [await engine.submit([1, 2], GREEDY, b"b" * 32, 5) for _ in range(QUEUE)]
    with pytest.raises(EngineBusy):
        await engine.submit([3], GREEDY, b"c" * 32, 5)
    for generation in running:
        generation.cancel()
    for generation in waiting:
        assert [token async for token in generation]
    await until(lambda: engine.stats().cancelled >= BATCH and engine.stats().active == 0)


async def test_leaving_the_block_frees_the_row(engine):
    for _ in range(3 * (BATCH + QUEUE)):
        async with await endless(engine):
            pass
    assert (await generate(engine, [1], GREEDY, b"a" * 32, 3))[0]


async def test_closing_ends_what_is_under_way_and_refuses_what_comes(engine):
    running = await endless(engine)
    await engine.close()
    await engine.close()
    with pytest.raises(EngineStopped):
        while await running.next_tokens():
            pass
    assert not engine.running and engine.stats().active == engine.stats().waiting == 0
    with pytest.raises(EngineStopped):
        await engine.submit([1], GREEDY, b"a" * 32, 3)
