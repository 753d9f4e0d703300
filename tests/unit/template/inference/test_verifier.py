"""Verification with the real model: honest answers pass, what cannot run is inconclusive. Cheats: tests/adversary/."""

import asyncio
from dataclasses import replace

import pytest
import torch
from transformers import CohereConfig, CohereForCausalLM

from protocol.errors import Refusal, RefusalCode
from protocol.inference import ChallengePolicy, Outcome, Reason, Recomputed, Sampler, Unchecked, judge
from template.inference.engine import ContinuousBatchingEngine, EngineSettings
from template.inference.readout import head_is_plain
from template.inference.service import GenerateService
from template.inference.verifier import Verifier, VerifierSettings
from tests.adversary.cheats import slowed
from tests.support.inference import collect, real_model, tiny_model
from tests.support.plans import calibration_of, plan

MIXED = ChallengePolicy(
    samplers=(Sampler(), Sampler(temperature=0.0), Sampler(temperature=1.0, top_k=0, top_p=0.9)),
    max_tokens=(16,),
    length_classes=("short", "medium"),
)


async def judged(verifier, challenges, answers):
    recomputed = await verifier.recompute([(c, r) for c, (r, _) in zip(challenges, answers, strict=True)])
    calibration = calibration_of(verifier.loaded.identity)
    return [
        judge(c, r, found, calibration, streamed)
        for c, (r, streamed), found in zip(challenges, answers, recomputed, strict=True)
    ]


@pytest.fixture
async def engine():
    async with ContinuousBatchingEngine(real_model(), EngineSettings(max_batch=6, threads=2)) as engine:
        yield engine


@pytest.fixture(scope="module")
def verifier():
    verifier = Verifier(real_model(), VerifierSettings(threads=2))
    yield verifier
    verifier.close()


@pytest.mark.model
async def test_honest_answers_of_every_kind_are_accepted(engine, verifier):
    loaded = real_model()
    challenges = [plan(loaded.identity, loaded.tokenize, round=i, policy=MIXED) for i in range(5)]
    service = slowed(GenerateService(engine, loaded.identity, "miner"), 0.001)
    answers = await asyncio.gather(*[collect(service(c.request, None)) for c in challenges])
    for verdict in await judged(verifier, challenges, answers):
        assert (verdict.outcome, verdict.reason) == (Outcome.ACCEPT, Reason.OK), verdict


@pytest.mark.model
async def test_an_answer_passes_only_for_the_hotkey_it_was_owed_by(engine, verifier):
    loaded = real_model()
    challenge = plan(loaded.identity, loaded.tokenize)
    service = GenerateService(engine, loaded.identity, "another")
    answer = await collect(service(challenge.request))
    (verdict,) = await judged(verifier, [challenge], [answer])
    assert verdict.outcome is Outcome.REJECT


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"))


async def test_what_the_verifier_cannot_check_is_inconclusive(tiny):
    challenge = plan(tiny.identity, tiny.tokenize)
    async with ContinuousBatchingEngine(tiny) as engine:
        answer = await collect(GenerateService(engine, tiny.identity, "miner")(challenge.request))
        other = replace(tiny.identity, root="00" * 32)
        with pytest.raises(Refusal) as refused:
            await collect(GenerateService(engine, other, "miner")(challenge.request))
        assert refused.value.code is RefusalCode.MALFORMED
    verifier = Verifier(tiny)
    (good,) = await judged(verifier, [challenge], [answer])
    assert good.outcome is Outcome.ACCEPT

    foreign = replace(challenge, request=challenge.request.model_copy(update={"model_root": "00" * 32}))
    changed = replace(challenge, request=challenge.request.model_copy(update={"prompt_ids": (7, 8, 9)}))
    (wrong_model,), (wrong_prompt,) = (
        await judged(verifier, [foreign], [answer]),
        await judged(verifier, [changed], [answer]),
    )
    assert (wrong_model.outcome, wrong_model.reason) == (Outcome.INCONCLUSIVE, Reason.NOT_RECOMPUTED)
    assert (wrong_prompt.outcome, wrong_prompt.reason) == (Outcome.INCONCLUSIVE, Reason.PROMPT_DIFFERS)

    verifier._readout.model = _Failing(tiny.model)
    assert isinstance((await verifier.recompute([(challenge, answer[0])]))[0], Unchecked)
    (failed,) = await judged(verifier, [challenge], [answer])
    assert (failed.outcome, failed.reason) == (Outcome.INCONCLUSIVE, Reason.NOT_RECOMPUTED)
    verifier.close()


async def test_many_answers_of_different_length_are_checked_in_few_passes_with_the_same_result(tiny):
    policy = ChallengePolicy(samplers=(Sampler(),), max_tokens=(5, 40, 90), length_classes=("short", "long"))
    challenges = [plan(tiny.identity, tiny.tokenize, round=i, policy=policy) for i in range(12)]
    async with ContinuousBatchingEngine(tiny) as engine:
        service = GenerateService(engine, tiny.identity, "miner")
        answers = await asyncio.gather(*[collect(service(c.request)) for c in challenges])
    pairs = [(c, r) for c, (r, _) in zip(challenges, answers, strict=True)]
    together, alone = Verifier(tiny), Verifier(tiny, VerifierSettings(tokens_per_pass=1))
    for one, other in zip(together.recompute_now(pairs), alone.recompute_now(pairs), strict=True):
        assert isinstance(one, Recomputed) and isinstance(other, Recomputed)
        assert other.distances == pytest.approx(one.distances, abs=1e-5)  # sums in another order
        assert replace(other, distances=one.distances) == one
    together.close()
    alone.close()


async def test_a_model_that_scales_its_logits_is_recomputed_through_the_whole_model(tiny):
    torch.manual_seed(0)
    config = CohereConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        logit_scale=0.25,
        eos_token_id=0,
        bos_token_id=None,
        pad_token_id=None,
    )
    scaled = replace(tiny, model=CohereForCausalLM(config).eval())
    assert head_is_plain(tiny.model) and not head_is_plain(scaled.model)
    challenges = [plan(tiny.identity, tiny.tokenize, round=i) for i in range(3)]
    async with ContinuousBatchingEngine(scaled) as engine:
        service = GenerateService(engine, tiny.identity, "miner")
        answers = await asyncio.gather(*[collect(service(c.request)) for c in challenges])
    verifier = Verifier(scaled)
    verdicts = await judged(verifier, challenges, answers)
    assert {verdict.outcome for verdict in verdicts} == {Outcome.ACCEPT}, verdicts
    verifier.close()


class _Failing:
    """A model whose forward pass fails as a full GPU does."""

    def __init__(self, model):
        self.device = model.device

    def base_model(self, **kwargs):
        raise RuntimeError("CUDA out of memory")
