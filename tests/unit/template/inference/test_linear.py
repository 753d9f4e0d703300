"""Faster products give the usual results, and leave the model they come from as it is."""

import copy

import pytest
import torch
from torch import nn

from template.inference.linear import PACKED_ROWS, PackedLinear, SkinnyLinear, packed, speed_up
from tests.support.inference import tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(0,), (1,), (2,), (3,), (4,), (5,), (16,), (130,), (2, 1), (3, 7), (1, 2, 3)])
@torch.inference_mode()
def test_products_agree(bias, shape):
    torch.manual_seed(1)
    plain = nn.Linear(48, 80, bias=bias)
    skinny = copy.deepcopy(plain)
    speed_up(skinny)
    blocked = packed(nn.ModuleList([skinny]))[0]
    input = torch.randn(*shape, 48)
    expected = plain(input)
    assert type(skinny) is SkinnyLinear and type(blocked) is PackedLinear
    for module in (skinny, blocked):
        assert module(input).shape == expected.shape
        torch.testing.assert_close(module(input), expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_packed_copy_shares_the_parameters_and_changes_nothing(tiny):
    before = [type(module) for module in tiny.model.modules()]
    twin = packed(tiny.model)
    assert [type(module) for module in tiny.model.modules()] == before
    assert PackedLinear in {type(module) for module in twin.modules()}
    for own, other in zip(tiny.model.parameters(), twin.parameters(), strict=True):
        assert own.data_ptr() == other.data_ptr()
    ids = torch.arange(1, 1 + 8 * PACKED_ROWS)[None]
    logits = [model(input_ids=ids, use_cache=False).logits for model in (tiny.model, twin)]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-3)


def test_other_number_formats_are_left_alone(tiny):
    half = copy.deepcopy(tiny.model).to(torch.bfloat16)
    assert packed(half) is half
