"""The parts of a Llama that transformers computes in float32 whatever the model is in, here in the model's own dtype.

    widen(module)      in place; names, shapes and values of the parameters stay

For the profile "exact": a float32 in the middle of float64 arithmetic brings back the last bits that float64 is there
to hide. The gradient of three quarters of a loss was 5e-8 away from three quarters of its gradient, and six steps of a
small model, cut up over three processes, 5.7e-7 from those of one; without float32 they were the same to the bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm


class _Norm(nn.Module):
    """RMS norm (Zhang and Sennrich, arXiv 1910.07467)."""

    def __init__(self, other: LlamaRMSNorm) -> None:
        super().__init__()
        self.weight = other.weight
        self.epsilon = other.variance_epsilon

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.weight * hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self.epsilon)


class _Rotary(nn.Module):
    """Rotary positions (Su et al., arXiv 2104.09864): (cos, sin), each [1, length, head size]."""

    def __init__(self, size: int, theta: float) -> None:
        super().__init__()
        self.size = size
        self.theta = theta

    @torch.no_grad()
    def forward(self, hidden: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        exponents = torch.arange(0, self.size, 2, dtype=hidden.dtype, device=hidden.device) / self.size
        angles = position_ids[..., None].to(hidden.dtype) * self.theta**-exponents
        both = torch.cat((angles, angles), dim=-1)
        return both.cos(), both.sin()


def widen(module: Any) -> None:
    """A transformers Llama, as template/training/checkpoint.py builds it."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LlamaRMSNorm):
                setattr(parent, name, _Norm(child))
    config = module.config
    rope = getattr(config, "rope_parameters", None) or {"rope_theta": config.rope_theta}  # transformers 5, and before
    module.model.rotary_emb = _Rotary(config.head_dim, rope["rope_theta"])
