"""Faster matrix products for decoding in float32 on a CPU.

PyTorch hands `x @ W.T` with one to four rows of x to a BLAS routine that reads the weights at a third of the machine's
memory bandwidth, and reading the weights is all that decoding is. Written the other way round, `(W @ x.T).T`, with one
row doubled to two, the same library takes another path. Measured on two Zen 4 cores with the shapes of SmolLM2-135M
(GB/s of weights read): 1 row 12 -> 31, 4 rows 10 -> 20; from 8 rows on the usual order is as good. The sums are taken
in another order, so results differ in the last bits, as they do between batch sizes anyway.
"""

from __future__ import annotations

import torch
from torch import nn

MOST_ROWS = 4


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


def speed_up(model: nn.Module) -> None:
    """Give every plain nn.Linear of `model` the faster product, if it is float32 on a CPU. Parameters are untouched."""
    for module in model.modules():
        if type(module) is nn.Linear and module.weight.dtype is torch.float32 and module.weight.device.type == "cpu":
            module.__class__ = SkinnyLinear
