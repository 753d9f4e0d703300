"""Planning: replayable, unpredictable, fair between miners, bounded."""

import json

import pytest

from protocol.draw import Draw
from protocol.inference import Challenge, ChallengePolicy, GenerateRequest, ModelIdentity, plan_challenge
from protocol.prompts import LENGTH_CLASSES, write_messages

MODEL = ModelIdentity("m", "test", "ab" * 32, "float32", 49152, (2,), 8192)


def plan(**changes):
    fixed = {
        "block_hash": "0x" + "12" * 32,
        "secret": b"s" * 32,
        "validator": "V",
        "miner": "M",
        "round": 5,
        "model": MODEL,
        "tokenize": lambda messages: [len(m.content) for m in messages],
    }
    return plan_challenge(**{**fixed, **changes})


def test_the_same_arguments_give_the_same_challenge():
    assert plan() == plan() and plan().digest == plan().digest


@pytest.mark.parametrize(
    "change",
    [
        {"secret": b"t" * 32},
        {"block_hash": "0x" + "13" * 32},
        {"miner": "N"},
        {"round": 6},
        {"validator": "W"},
        {"part": 1},
    ],
)
def test_every_argument_changes_prompt_nonce_and_seed(change):
    first, second = plan(), plan(**change)
    assert first.request.nonce != second.request.nonce
    assert first.request.messages != second.request.messages
    assert first.seed != second.seed


def test_miners_of_one_round_get_one_kind_and_rounds_vary():
    for round in range(20):
        assert len({plan(round=round, miner=f"m{i}").kind for i in range(5)}) == 1
    assert len({plan(round=round).kind for round in range(60)}) > 15


def test_prompts_do_not_repeat():
    for length in LENGTH_CLASSES:
        texts = {write_messages(Draw(b"%d" % i), length)[-1].content for i in range(1000)}
        assert len(texts) == 1000


def test_a_challenge_survives_json_and_strange_json_is_refused():
    challenge = plan()
    assert Challenge.from_json(challenge.to_json()) == challenge
    for text in ("{}", "[]", "nonsense", challenge.to_json().replace('"max_tokens"', '"max_tokenz"')):
        with pytest.raises((ValueError, KeyError, TypeError)):
            Challenge.from_json(text)


def test_a_short_secret_and_a_prompt_beyond_the_context_are_refused():
    with pytest.raises(ValueError, match="secret"):
        plan(secret=b"short")
    with pytest.raises(ValueError, match="context"):
        plan(tokenize=lambda messages: [1] * 8190)


def test_draw_is_unbiased_and_samples_without_repetition():
    draw = Draw(b"key")
    counts = [0] * 6
    for _ in range(6000):
        counts[draw.below(6)] += 1
    assert min(counts) > 850 and max(counts) < 1150  # five standard deviations
    assert sorted(Draw(b"x").sample(range(9), 9)) == list(range(9))
    for bound in (0, -1, 2**32 + 1):
        with pytest.raises(ValueError, match="bound"):
            draw.below(bound)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt_ids": []},
        {"prompt_ids": [-1]},
        {"prompt_ids": [2**24]},
        {"prompt_ids": [1.5]},
        {"max_tokens": 0},
        {"max_tokens": 100_000},
        {"nonce": "00"},
        {"model_root": "zz" * 32},
        {"dtype": "int4"},
        {"messages": []},
        {"sampler": {"temperature": "hot", "top_k": 1, "top_p": 1.0}},
        {"surprise": 1},
    ],
)
def test_every_field_of_a_request_has_bounds(change):
    plain = plan(policy=ChallengePolicy(max_tokens=(8,))).request.model_dump(mode="json")
    GenerateRequest.model_validate_json(json.dumps(plain))
    with pytest.raises(ValueError):
        GenerateRequest.model_validate_json(json.dumps({**plain, **change}))
