"""The recipe has one id, and its learning rate is the same float for everybody."""

import pytest
from pydantic import ValidationError

from protocol.artifacts import Manifest
from protocol.errors import MalformedMessage
from protocol.training.recipe import (
    Architecture,
    Clock,
    Inner,
    Privacy,
    Recipe,
    parse_recipe_commitment,
    recipe_commitment,
)

CID = Manifest.of(b"one").cid
TINY = Architecture(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256,
)  # fmt: skip
RECIPE = Recipe(architecture=TINY, model="ab" * 32, model_file=CID, dataset=CID, clock=Clock(start=100))


def test_the_rate_rises_and_falls_in_lines() -> None:
    inner = Inner(peak=1.0, warmup=10, total=100, least=0.25)
    assert inner.rate(0) == 0.1 and inner.rate(4) == 0.5 * (1.0 - 0.75 * 4 / 100)
    assert inner.rate(50) == 1.0 - 0.75 * 0.5
    assert inner.rate(100) == inner.rate(10_000) == 0.25


def test_the_corrections_are_powers() -> None:
    assert Inner(beta1=0.5, beta2=0.25).corrections(3) == (1 - 0.125, 1 - 0.015625)
    first, second = Inner().corrections(1)
    assert first == pytest.approx(0.1) and second == pytest.approx(0.05)


def test_every_choice_changes_the_id() -> None:
    changes = [
        {"model": "00" * 32}, {"dataset": Manifest.of(b"two").cid}, {"model_file": Manifest.of(b"two").cid},
        {"architecture": TINY.model_copy(update={"rope_theta": 5.0})}, {"clock": Clock(start=101)},
        {"outer_rate": 0.9}, {"kept": 0.9},
        {"profile": "exact"}, {"trace_every": 5}, {"inner": Inner(peak=2e-3)},
        {"tasks": RECIPE.tasks.model_copy(update={"steps": 31})},
        {"privacy": Privacy(clip=1.0, noise=1.0)}, {"privacy": Privacy(clip=1.0, noise=2.0)},
    ]  # fmt: skip
    ids = {RECIPE.id, *(RECIPE.model_copy(update=change).id for change in changes)}
    assert len(ids) == len(changes) + 1
    assert Recipe.parse(RECIPE.encode()) == RECIPE


def test_privacy_is_in_the_bytes_only_when_it_is_asked_for() -> None:
    plain, data = RECIPE.encode(), RECIPE.model_copy(update={"privacy": Privacy(clip=2.0, noise=1.5)}).encode()
    assert b"privacy" not in plain and "privacy" not in RECIPE.model_dump()
    assert b'"privacy":{"clip":2.0,"delta":1e-06,"noise":1.5}' in data
    assert Recipe.parse(data).privacy == Privacy(clip=2.0, noise=1.5)
    with pytest.raises(MalformedMessage, match="canonical"):
        Recipe.parse(plain.replace(b'"profile"', b'"privacy":null,"profile"'))


def test_bfloat16_is_an_option_with_a_limit_of_its_own() -> None:
    fields = RECIPE.model_dump()
    half = Recipe(**{**fields, "compute": "bfloat16", "replay_limit": 0.04})
    assert half.precision == {"profile": "tolerant", "compute": "bfloat16"} and Recipe.parse(half.encode()) == half
    assert RECIPE.precision["compute"] == "float32" and b"compute" not in RECIPE.encode()
    for wrong in ({"replay_limit": 1e-3}, {"profile": "exact", "replay_limit": 0.04}):
        with pytest.raises(ValidationError, match="bfloat16"):
            Recipe(**{**fields, "compute": "bfloat16", **wrong})


@pytest.mark.parametrize(
    "wrong", [{"clip": 0.0}, {"noise": 0.0}, {"noise": 1e-3}, {"noise": float("inf")}, {"delta": 0.0}, {"delta": 1.0}]
)
def test_privacy_that_is_none_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Privacy(**{"clip": 1.0, "noise": 1.0, **wrong})


@pytest.mark.parametrize(
    "wrong", [{"profile": "loose"}, {"kept": 1.5}, {"outer_rate": float("nan")}, {"extra": 1}, {"version": 2}]
)
def test_recipes_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Recipe(**{**RECIPE.model_dump(), **wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_attention_heads": 3},
        {"num_key_value_heads": 3},
        {"hidden_size": 0},
        {"hidden_size": 36, "vocab_size": 2**25},
    ],
)
def test_architectures_that_do_not_fit_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Architecture(**{**TINY.model_dump(), **wrong})


def test_the_owners_word_on_chain() -> None:
    text = recipe_commitment(CID)
    assert parse_recipe_commitment(text) == CID and len(text) <= 128
    for bad in ("", text + "\n", text[:-1], text.replace("/1:", "/2:")):
        with pytest.raises(MalformedMessage):
            parse_recipe_commitment(bad)
