"""Faster matrix products for decoding in float32 on a CPU.

Reading the weights is all that decoding a few rows is, and PyTorch's usual `x @ W.T` does it badly: at a third of the
memory bandwidth for a few rows, and with short inner loops up to a hundred. Two remedies, both without a change to the
parameters:

    speed_up(model)     in place, for every loaded model: up to MOST_ROWS rows take the other order, `(W @ x.T).T`, with
                        one row doubled to two, for which the same library has a better routine
    packed(model)       a copy, for reading only, that shares all parameters and besides holds the weights of its linear
                        layers in oneDNN's blocked order, used from PACKED_ROWS rows on; costs once more the memory of
                        the weights

Milliseconds of all products of SmolLM2-135M on one Zen 4 core, by rows:

    rows        1     2     4     8    16    32    60   128   480
    usual      43    68    61    72    93   135   161   298  1046
    speed_up   29    28    44     -     -     -     -     -     -
    packed      -     -    29    39    54    92   129   251   942

The sums are taken in another order, so results differ in the last bits, as they do between batch sizes anyway.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

MOST_ROWS = 4
PACKED_ROWS = 3
_PACKED_FOR = 16  # rows the blocked order is chosen for; it is the same from 8 to 32, and still good for 480


class SkinnyLinear(nn.Linear):
    """An nn.Linear that takes the other order when its input has few rows. Inference only."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        rows = input.numel() // self.in_features
        if not 0 < rows <= MOST_ROWS:
            return super().forward(input)
        flat = input.reshape(rows, self.in_features)
        if rows == 1:
            flat = flat.expand(2, -1).contiguous()
        result = torch.mm(self.weight, flat.t()).t()[:rows]
        if self.bias is not None:
            result = result + self.bias
        return result.reshape(*input.shape[:-1], self.out_features)


class PackedLinear(SkinnyLinear):
    """Holds a second, blocked copy of its weight in `blocks`; a later change of the weight does not reach it."""

    blocks: torch.Tensor

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if input.numel() < PACKED_ROWS * self.in_features:
            return super().forward(input)
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(input, self.blocks, self.bias, "none", [], "")
        return result


def speed_up(model: nn.Module) -> None:
    """Give every plain nn.Linear of `model` the faster product, if it is float32 on a CPU. Parameters are untouched."""
    for module in model.modules():
        if type(module) is nn.Linear and _eligible(module):
            module.__class__ = SkinnyLinear


def packed(model: Any) -> Any:
    """A copy of `model` that shares its parameters and computes faster; `model` itself where nothing can be packed:
    other number formats and devices have fast products already, and oneDNN does not exist everywhere."""
    if not torch.backends.mkldnn.is_available() or not any(map(_eligible, model.modules())):
        return model
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, shared)
    for module in twin.modules():
        if _eligible(module):
            module.__class__ = PackedLinear
            module.blocks = torch.ops.mkldnn._reorder_linear_weight(module.weight, _PACKED_FOR)
    return twin


def _eligible(module: nn.Module) -> bool:
    return (
        type(module) in (nn.Linear, SkinnyLinear)
        and module.weight.dtype is torch.float32
        and module.weight.device.type == "cpu"
    )
