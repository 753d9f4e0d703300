"""Mechanism 0 against its frozen vectors: another implementation that passes these agrees with ours."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from protocol.fingerprint import CHUNK
from protocol.inference import (
    ChallengePolicy,
    GenerateRequest,
    GenerateResponse,
    ModelIdentity,
    Outcome,
    Recomputed,
    Sampler,
    Slack,
    Timings,
    Unchecked,
    derive_seed,
    judge,
    plan_challenge,
    request_digest,
)
from protocol.sampling import candidates, choose, gumbel, margin, noise_key, philox4x32, uniform
from protocol.scoring import Observation, fold_round, weights
from tests.support.plans import blank_proof, calibration_of

HERE = Path(__file__).parent / "protocol"
SAMPLING, SEED, PLAN, JUDGE, SCORING = (
    json.loads((HERE / f"{name}.json").read_text()) for name in ("sampling", "seed", "plan", "judge", "scoring")
)
MODEL = ModelIdentity("m", "vector", "ab" * 32, "float32", 49152, (2,), 8192)
CALIBRATION = calibration_of(MODEL).model_copy(
    update={"eos_margin": 0.05, "lost_margin": 1.0, "lost_tokens": 2, "request_mean": 0.005, "distance": 0.01}
)


def lengths(messages):
    return [len(message.content) % 1000 for message in messages]


@pytest.mark.parametrize("case", SAMPLING["philox4x32_10"])
def test_philox_known_answers(case):
    assert [int(word) for word in philox4x32(case["counter"], tuple(case["key"]))] == case["output"]


@pytest.mark.parametrize("case", SAMPLING["noise"])
def test_noise(case):
    key = noise_key(bytes.fromhex(case["seed"]))
    assert list(key.words) == case["key"]
    assert [float(u).hex() for u in uniform(key, case["position"], case["token_ids"])] == case["uniform_hex"]
    np.testing.assert_allclose(gumbel(key, case["position"], case["token_ids"]), case["gumbel"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", SAMPLING["choose"])
def test_choose_and_margin(case):
    sampler, key = Sampler(**case["sampler"]), noise_key(bytes.fromhex(case["seed"]))
    ids, logits = list(range(len(case["logits"]))), case["logits"]
    assert choose(ids, logits, sampler, key, case["position"]) == case["winner"]
    if case["candidates"] is not None:
        assert list(candidates(ids, logits, sampler)[0]) == case["candidates"]
    found = [
        margin(ids, logits, t, sampler, key, case["position"], Slack(logit=case["slack"][0], mass=case["slack"][1]))
        for t in ids
    ]
    np.testing.assert_allclose([m.margin for m in found], case["margins"], rtol=0, atol=1e-8)
    assert [m.cut for m in found] == case["cut"]
    assert {m.winner for m in found} == {case["winner"]}


@pytest.mark.parametrize("case", SEED["cases"])
def test_request_digest_and_seed(case):
    request = GenerateRequest.model_validate_json(json.dumps(case["request"]))
    assert request_digest(request).hex() == case["digest"]
    assert {hotkey: derive_seed(request, hotkey).hex() for hotkey in case["miners"]} == case["miners"]


@pytest.mark.parametrize("case", PLAN["cases"], ids=lambda case: f"{case['round']}-{case['miner'][:4]}")
def test_plan(case):
    challenge = plan_challenge(
        block_hash=f"0x{case['round']:064x}",
        secret=b"\x07" * 32,
        validator="5DAAnrj7VHTznn2AWBemMuyBwZWs6FNFjdyVXUeYum3PTXFy",
        miner=case["miner"],
        round=case["round"],
        model=MODEL,
        tokenize=lengths,
    )
    request = challenge.request
    assert (challenge.kind, request.nonce, request.messages[-1].content, challenge.seed.hex()) == (
        case["kind"],
        case["nonce"],
        case["user"],
        case["seed"],
    )


@pytest.mark.parametrize("case", JUDGE["cases"], ids=lambda case: case["name"])
def test_judge(case):
    challenge = plan_challenge(
        block_hash="0x00",
        secret=b"\x07" * 32,
        validator="V",
        miner="M",
        round=1,
        model=MODEL,
        tokenize=lengths,
        policy=ChallengePolicy(max_tokens=(20,)),
    )
    tokens = tuple(case["token_ids"])
    timings = Timings(queue_ms=0.0, first_token_ms=0.0, total_ms=0.0)
    response = GenerateResponse(
        token_ids=tokens, finish_reason=case["finish_reason"], proof=blank_proof(len(tokens)), timings=timings
    )
    margins = tuple(math.nan if m == "nan" else m for m in case["margins"])
    prompt = tuple(case["prompt_ids"]) if case["prompt_ids"] else challenge.request.prompt_ids
    cut, distances = (False,) * len(margins), case.get("distances") or (0.0,) * -(-len(margins) // CHUNK)
    recomputed = Recomputed(case["root"] or MODEL.root, "float32", prompt, margins, tokens, cut, tuple(distances))
    found = Unchecked(case["unchecked"]) if case["unchecked"] else recomputed
    verdict = judge(challenge, response, found, CALIBRATION, case["streamed"])
    assert (str(verdict.outcome), str(verdict.reason)) == (case["outcome"], case["reason"])


def test_scoring():
    states = {}
    for case in SCORING["rounds"]:
        seen = [
            Observation(
                o["hotkey"],
                o["kind"],
                Outcome(o["outcome"]) if o["outcome"] else None,
                o["first_token_s"],
                None if o["tokens_per_s"] is None else float(o["tokens_per_s"]),
            )
            for o in case["observations"]
        ]
        states = fold_round(states, seen, case["round"], silent=case["silent"])
        assert {h: s.score for h, s in states.items()} == pytest.approx(case["scores"], abs=1e-9)
        assert {h: s.cooldown_until for h, s in states.items()} == case["cooldown_until"]
        assert weights(states, case["round"] + 1) == pytest.approx(case["weights"], abs=1e-9)
