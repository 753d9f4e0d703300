"""The engine: one running batch gives every request what it would have got alone."""

import asyncio
import random

import pytest
from transformers import MistralConfig, MistralForCausalLM

from protocol.inference import ChallengePolicy, Sampler, derive_seed
from template.inference.batch import GROWTH, Batch, UnsupportedModel
from template.inference.engine import (
    ContinuousBatchingEngine,
    EngineBusy,
    EngineOutOfMemory,
    EngineRefused,
    EngineSettings,
    EngineStopped,
)
from template.inference.service import GenerateService
from tests.support.inference import collect, real_model, tiny_model
from tests.support.plans import plan

SAMPLED = Sampler(temperature=0.9, top_k=40, top_p=0.95)
GREEDY = Sampler(temperature=0.0)
BRIEF = ChallengePolicy(samplers=(Sampler(),), max_tokens=(24,), length_classes=("short", "medium"))
WHOLE = Sampler(temperature=1.1, top_k=0, top_p=1.0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def prompt(number, length):
    return [1 + random.Random(number).randrange(256) for _ in range(length)]


async def generate(engine, prompt_ids, sampler, seed, max_tokens, delay=0.0):
    await asyncio.sleep(delay)
    async with await engine.submit(prompt_ids, sampler, seed, max_tokens) as generation:
        return [token async for token in generation], generation.finish_reason


async def test_requests_that_join_and_leave_get_what_they_get_alone(tiny):
    rng = random.Random(3)
    jobs = [
        (prompt(i, rng.randrange(1, 90)), rng.choice([SAMPLED, GREEDY, WHOLE]), bytes([i]) * 32, rng.randrange(1, 60))
        for i in range(24)
    ]
    async with ContinuousBatchingEngine(tiny, EngineSettings(max_batch=1)) as engine:
        alone = [await generate(engine, *job) for job in jobs]
    async with ContinuousBatchingEngine(tiny, EngineSettings(max_batch=5)) as engine:
        together = await asyncio.gather(*[generate(engine, *job, rng.random() * 0.3) for job in jobs])
    stats = engine.stats()
    assert together == alone
    assert stats.finished == len(jobs) and stats.active == stats.waiting == stats.failed == 0
    assert {reason for _, reason in alone} == {"eos", "length"}
    for tokens, reason in alone:
        assert (tokens[-1] == 0) == (reason == "eos") and 0 not in tokens[:-1]


async def test_a_sequence_may_outgrow_the_cache_it_started_with(tiny):
    job = (prompt(1, GROWTH - 10), WHOLE, b"s" * 32, 300)
    async with ContinuousBatchingEngine(tiny) as engine:
        (tokens, _), other = await asyncio.gather(generate(engine, *job), generate(engine, [5, 6], *job[1:]))
    async with ContinuousBatchingEngine(tiny) as engine:
        assert (await generate(engine, *job))[0] == tokens
        assert await generate(engine, [5, 6], *job[1:]) == other


async def test_a_full_queue_is_busy_and_cancelling_makes_room(tiny):
    async with ContinuousBatchingEngine(tiny, EngineSettings(max_batch=1, max_queue=2)) as engine:
        running = await engine.submit([1], WHOLE, b"a" * 32, 2000)
        await running.next_tokens()
        waiting = [await engine.submit([1, 2], GREEDY, b"b" * 32, 5) for _ in range(2)]
        with pytest.raises(EngineBusy):
            await engine.submit([3], GREEDY, b"c" * 32, 5)
        running.cancel()
        for generation in waiting:
            assert len([token async for token in generation]) >= 1
        assert engine.stats().cancelled == 1


async def test_leaving_the_block_frees_the_row(tiny):
    async with ContinuousBatchingEngine(tiny, EngineSettings(max_batch=1)) as engine:
        async with await engine.submit([1], WHOLE, b"a" * 32, 2000) as generation:
            await generation.next_tokens()
        assert (await generate(engine, [1], GREEDY, b"a" * 32, 3))[0]
        assert engine.stats().cancelled == 1


async def test_a_client_that_leaves_its_stream_frees_the_row(tiny):
    request = plan(tiny.identity, tiny.tokenize).request.model_copy(update={"max_tokens": 1800, "sampler": WHOLE})
    async with ContinuousBatchingEngine(tiny, EngineSettings(max_batch=1)) as engine:
        frames = GenerateService(engine, tiny.identity, "miner")(request)
        await frames.__anext__()
        await frames.aclose()
        assert (await generate(engine, [1], GREEDY, b"a" * 32, 3))[0]
        assert engine.stats().cancelled == 1


@pytest.mark.parametrize(
    "prompt_ids, max_tokens", [([], 5), ([1], 0), ([257], 5), ([-1], 5), ([1] * 2000, 100), ([1], 4000)]
)
async def test_what_can_never_be_served_is_refused(tiny, prompt_ids, max_tokens):
    async with ContinuousBatchingEngine(tiny) as engine:
        with pytest.raises(EngineRefused):
            await engine.submit(prompt_ids, GREEDY, b"a" * 32, max_tokens)


async def test_closing_ends_what_is_under_way_and_refuses_what_comes(tiny):
    engine = ContinuousBatchingEngine(tiny, EngineSettings(max_batch=1))
    with pytest.raises(EngineStopped):
        await engine.submit([1], GREEDY, b"a" * 32, 3)  # not started
    engine.start()
    running = await engine.submit([1], WHOLE, b"a" * 32, 2000)
    waiting = await engine.submit([1], WHOLE, b"a" * 32, 2000)
    await running.next_tokens()
    await engine.close()
    await engine.close()
    for generation in (running, waiting):
        with pytest.raises(EngineStopped):
            while await generation.next_tokens():
                pass
    with pytest.raises(EngineStopped):
        await engine.submit([1], GREEDY, b"a" * 32, 3)


async def test_running_out_of_memory_refuses_one_request_and_spares_the_rest(tiny):
    class Small(Batch):
        def admit(self, prompt_ids):
            if len(prompt_ids) > 50:
                raise MemoryError
            return super().admit(prompt_ids)

    async with ContinuousBatchingEngine(tiny) as engine:
        expected = await generate(engine, [1, 2], WHOLE, b"a" * 32, 40)
    engine = ContinuousBatchingEngine(tiny)
    engine._batch = Small(tiny.model, 4)
    async with engine:
        results = await asyncio.gather(
            generate(engine, [1, 2], WHOLE, b"a" * 32, 40),
            generate(engine, [1] * 60, WHOLE, b"a" * 32, 40),
            return_exceptions=True,
        )
    assert results[0] == expected and isinstance(results[1], EngineOutOfMemory)


async def test_a_failing_model_stops_the_engine_with_the_reason(tiny):
    class Broken(Batch):
        def step(self, tokens):
            raise RuntimeError("shape mismatch")

    engine = ContinuousBatchingEngine(tiny)
    engine._batch = Broken(tiny.model, 4)
    async with engine:
        generation = await engine.submit([1], WHOLE, b"a" * 32, 50)
        with pytest.raises(EngineStopped, match="shape mismatch"):
            while await generation.next_tokens():
                pass


def test_a_model_with_sliding_windows_is_refused_by_name():
    config = MistralConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=4,
    )
    with pytest.raises(UnsupportedModel, match="Mistral"):
        Batch(MistralForCausalLM(config), 2)


@pytest.mark.model
async def test_the_real_model_gives_the_same_text_alone_and_in_a_batch():
    loaded = real_model()
    challenges = [plan(loaded.identity, loaded.tokenize, round=i, policy=BRIEF) for i in range(3)]
    async with ContinuousBatchingEngine(loaded, EngineSettings(max_batch=1)) as engine:
        alone = []
        for c in challenges[:1]:
            seed = derive_seed(c.request, "miner")
            alone.append((await generate(engine, c.request.prompt_ids, c.request.sampler, seed, 24))[0])
    async with ContinuousBatchingEngine(loaded, EngineSettings(max_batch=4, threads=2)) as engine:
        service = GenerateService(engine, loaded.identity, "miner")
        answers = await asyncio.gather(*[collect(service(c.request)) for c in challenges])
    for response, streamed in answers:
        assert tuple(streamed) == response.token_ids
    for tokens, (response, _) in zip(alone, answers, strict=False):
        assert list(response.token_ids[: len(tokens)]) == tokens
