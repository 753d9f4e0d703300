"""The engine: one running batch gives every request what it would have got alone."""

import asyncio
import random
import threading

import pytest
import torch
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


class Small(Batch):
    """Memory for `columns` tokens of all rows together, as a machine has it: nobody knows before it runs out."""

    columns = 10_000

    def admit_group(self, prompts, finals=()):
        if sum(self.book.lengths) + sum(map(len, prompts)) > self.columns:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().admit_group(prompts, finals)

    def step(self, tokens):
        if sum(self.book.lengths) + len(tokens) > self.columns:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        return super().step(tokens)


def small(loaded, columns):
    engine = ContinuousBatchingEngine(loaded, EngineSettings(max_batch=4))
    engine._batch = Small(engine._batch.model, 4)
    engine._batch.columns = columns
    return engine


LONG = [(prompt(i, 30), WHOLE, bytes([i]) * 32, 60) for i in range(40)]


async def longest_answers(loaded, count):
    """The jobs of LONG with the longest answers when alone, and these answers."""
    async with ContinuousBatchingEngine(loaded, EngineSettings(max_queue=99)) as engine:
        answers = await asyncio.gather(*[generate(engine, *job) for job in LONG])
    order = sorted(range(len(LONG)), key=lambda i: -len(answers[i][0]))[:count]
    assert len(answers[order[-1]][0]) > 15
    return [LONG[i] for i in order], [answers[i] for i in order]


async def test_when_memory_runs_out_requests_step_back_and_resume_where_they_were(tiny):
    jobs, alone = await longest_answers(tiny, 4)
    async with small(tiny, 130) as engine:  # room for the four prompts, not for their answers
        assert await asyncio.gather(*[generate(engine, *job) for job in jobs]) == alone
        assert engine._most < 4
        stats = engine.stats()
    assert stats.finished == 4 and stats.failed == stats.active == stats.waiting == 0
    assert stats.tokens == sum(len(tokens) for tokens, _ in alone)


async def test_prompts_that_do_not_fit_together_wait_for_each_other(tiny):
    jobs, alone = await longest_answers(tiny, 3)
    async with small(tiny, 91) as engine:  # room for one prompt and its answer
        assert await asyncio.gather(*[generate(engine, *job) for job in jobs]) == alone
        assert engine.stats().failed == 0


async def test_what_does_not_even_fit_alone_is_refused_and_the_rest_spared(tiny):
    jobs, alone = await longest_answers(tiny, 1)
    async with small(tiny, 100) as engine:
        results = await asyncio.gather(
            generate(engine, *jobs[0]), generate(engine, prompt(1, 101), WHOLE, b"a" * 32, 40), return_exceptions=True
        )
    assert results[0] == alone[0] and isinstance(results[1], EngineOutOfMemory)
    assert engine.stats().failed == 1
    async with small(tiny, 40) as engine:
        with pytest.raises(EngineOutOfMemory):
            await generate(engine, *jobs[0])
        assert (await generate(engine, [1], GREEDY, b"a" * 32, 2))[0]


async def test_the_batch_is_as_large_as_before_after_a_while(tiny, monkeypatch):
    monkeypatch.setattr("template.inference.engine.LOWERED_S", 0.0)
    jobs, alone = await longest_answers(tiny, 4)
    async with small(tiny, 130) as engine:
        assert await asyncio.gather(*[generate(engine, *job) for job in jobs]) == alone
        engine._batch.columns = 10_000
        again = [await engine.submit(*job) for job in jobs]
        for generation in again:
            await generation.next_tokens()
        assert engine._most == 4


async def test_the_cache_stays_within_its_limit_and_what_does_not_fit_waits(tiny):
    sizes = []

    class Watched(Batch):
        def step(self, tokens):
            view = super().step(tokens)
            sizes.append(max(layer.keys.shape[0] * layer.keys.shape[2] for layer in self.layers))
            assert sizes[-1] == self.book.rows * self.book.columns
            return view

    jobs = [(prompt(i, 10 + 97 * (i % 4)), WHOLE, bytes([i]) * 32, 20 + 130 * (i % 3)) for i in range(16)]
    async with ContinuousBatchingEngine(tiny, EngineSettings(max_batch=1)) as engine:
        alone = [await generate(engine, *job) for job in jobs]
    limit = 4 * GROWTH
    engine = ContinuousBatchingEngine(tiny, EngineSettings(max_batch=8, cache_tokens=limit))
    engine._batch = Watched(engine._batch.model, 8, limit)
    async with engine:
        assert await asyncio.gather(*[generate(engine, *job) for job in jobs]) == alone
        with pytest.raises(EngineRefused, match=str(limit)):
            await engine.submit([1] * 500, GREEDY, b"a" * 32, limit - 500)
    assert 2 * GROWTH < max(sizes) <= limit


async def test_without_a_queue_free_rows_are_served_and_no_more(tiny):
    async with ContinuousBatchingEngine(tiny, EngineSettings(max_batch=2, max_queue=0)) as engine:
        running = [await engine.submit([1], WHOLE, b"a" * 32, 2000) for _ in range(2)]
        with pytest.raises(EngineBusy):
            await engine.submit([1], WHOLE, b"a" * 32, 2000)
        for generation in running:
            generation.cancel()


async def test_several_prompts_share_one_prefill_in_their_order(tiny):
    groups = []
    started, arrived = threading.Event(), threading.Event()

    class Watched(Batch):
        def admit_group(self, prompts, finals=()):
            started.set()
            arrived.wait(60)  # the first prompt keeps the worker until the others have arrived
            groups.append([len(prompt) for prompt in prompts])
            return super().admit_group(prompts, finals)

    lengths = [40, 40, 45, 10, 300, 50, 50]
    engine = ContinuousBatchingEngine(tiny, EngineSettings(max_batch=8, prefill_tokens=140))
    engine._batch = Watched(engine._batch.model, 8)
    waiting = []
    async with engine:
        waiting.append(await engine.submit([1], GREEDY, b"a" * 32, 1))
        while not started.is_set():
            await asyncio.sleep(0.01)
        for length in lengths:
            waiting.append(await engine.submit(prompt(length, length), GREEDY, b"a" * 32, 3))
        arrived.set()
        for generation in waiting:
            assert [token async for token in generation]
    assert groups == [[1], [40, 40, 45], [10], [300], [50, 50]]


async def test_a_closed_engine_leaves_no_thread_and_no_row(tiny):
    before = {thread.ident for thread in threading.enumerate() if thread.name == "engine"}
    async with ContinuousBatchingEngine(tiny, EngineSettings(max_batch=2)) as engine:
        for _ in range(5):
            await (await engine.submit([1], WHOLE, b"a" * 32, 2000)).next_tokens()
    assert {thread.ident for thread in threading.enumerate() if thread.name == "engine"} == before
    assert engine.stats().active == engine.stats().waiting == 0 and not engine.running


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
