"""A model as one vector: where each tensor lies in it. The order is that of the names, so everybody has the same.

layout = Layout.of(module)                     names, shapes and offsets of the trainable tensors, tied ones once
layout.attach(module, work)                    the module's parameters become views of `work`, [size]
layout.tensors(vector)                         {name: view}, e.g. to write safetensors
layout.vector(tensors)                         the inverse
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from template.errors import TemplateError


class OtherShape(TemplateError):
    """Tensors are not those of this model."""


@dataclass(frozen=True)
class Layout:
    """`shapes` by name, in the order of the names, which is the order in the vector."""

    shapes: Mapping[str, tuple[int, ...]]

    @staticmethod
    def of(module: nn.Module) -> Layout:
        # named_parameters leaves out what is tied to a tensor that it has named already.
        return Layout({name: tuple(p.shape) for name, p in sorted(module.named_parameters())})

    @property
    def size(self) -> int:
        """Parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def tensors(self, vector: torch.Tensor) -> dict[str, torch.Tensor]:
        """Views of `vector`, [size]. Raises OtherShape."""
        if vector.shape != (self.size,):
            raise OtherShape(f"the vector has {tuple(vector.shape)} entries and the model {self.size} parameters")
        found, start = {}, 0
        for name, shape in self.shapes.items():
            end = start + math.prod(shape)
            found[name], start = vector[start:end].view(shape), end
        return found

    def vector(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """float32 [size]. Raises OtherShape when names or shapes are not those of the model."""
        if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != dict(self.shapes):
            raise OtherShape("the tensors are not those of this model", remedy="fetch the model of this recipe again")
        return torch.cat([tensors[name].detach().reshape(-1).float() for name in self.shapes])

    def attach(self, module: nn.Module, work: torch.Tensor) -> torch.Tensor:
        """Make the parameters of `module` views of `work`, and their gradients views of what is returned, [size]."""
        gradient = torch.zeros_like(work)
        values, slopes = self.tensors(work), self.tensors(gradient)
        for name, parameter in module.named_parameters():
            parameter.data = values[name]
            parameter.grad = slopes[name]
        return gradient
