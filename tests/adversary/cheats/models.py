"""Models that are not quite the right one: `LoadedModel -> LoadedModel`, under the identity of the right one.

    skip_layer, smaller              layers left out: cheaper, almost as fluent
    int8, int4                       weights rounded: half and an eighth of the memory
    through("float16"), ...          weights through a half-precision format: half of the memory
    noise(0.005)                     normal noise of that share of each matrix's standard deviation
    edited                           a rank-1 update of some matrices, as knowledge edits make them
    tuned                            one small training step: another revision

Each leaves the model it was given untouched and is deterministic. Weights are copied, except where layers only leave.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import nn

from template.inference.models import LoadedModel

SEED = 7  # of noise and edits
INT4_GROUP = 32  # weights that share one scale, as in the usual four-bit formats
EDIT_NORM = 0.02  # of the matrix's own norm
EDIT_EVERY = 6  # one matrix in so many is edited
STEP_NORM = 2e-5  # of each tensor's own norm; along a gradient little does much
LESSON = "The ferry to the island leaves at nine in the evening, and the crew sleeps on board."


def skip_layer(loaded: LoadedModel, layer: int | None = None) -> LoadedModel:
    """One layer short, a middle one if not said otherwise. Weights are shared, not copied."""
    layers = list(range(len(loaded.model.model.layers)))
    del layers[len(layers) // 2 if layer is None else layer]
    return _with_layers(loaded, layers)


def smaller(loaded: LoadedModel) -> LoadedModel:
    """Every second layer only: half the work. Weights are shared, not copied."""
    return _with_layers(loaded, range(0, len(loaded.model.model.layers), 2))


def int8(loaded: LoadedModel) -> LoadedModel:
    """Matrices rounded to eight bits, one scale for each output channel."""
    return _rounded(loaded, 8, None)


def int4(loaded: LoadedModel) -> LoadedModel:
    """Matrices rounded to four bits, one scale for each group of INT4_GROUP weights."""
    return _rounded(loaded, 4, INT4_GROUP)


def float16(loaded: LoadedModel) -> LoadedModel:
    """All weights rounded to half precision; computed in the format the protocol asks for."""
    return _through(loaded, torch.float16)


def bfloat16(loaded: LoadedModel) -> LoadedModel:
    """All weights rounded to bfloat16; computed in the format the protocol asks for."""
    return _through(loaded, torch.bfloat16)


def noise_half_percent(loaded: LoadedModel) -> LoadedModel:
    return _noise(loaded, 0.005)


def noise_one_percent(loaded: LoadedModel) -> LoadedModel:
    return _noise(loaded, 0.01)


def noise_two_percent(loaded: LoadedModel) -> LoadedModel:
    return _noise(loaded, 0.02)


@torch.no_grad()
def edited(loaded: LoadedModel) -> LoadedModel:
    """A random rank-1 update of EDIT_NORM of the norm in every sixth matrix."""
    changed, generator = _copied(loaded), torch.Generator().manual_seed(SEED)
    for matrix in list(_matrices(changed))[::EDIT_EVERY]:
        weight = matrix.weight
        update = torch.outer(*(torch.randn(size, generator=generator) for size in weight.shape)).to(weight)
        weight.add_(update * (EDIT_NORM * weight.norm() / update.norm()))
    return changed


def tuned(loaded: LoadedModel) -> LoadedModel:
    """One step down the gradient of one sentence, each tensor by STEP_NORM of its norm: a neighbouring revision."""
    changed = _copied(loaded)
    model = changed.model
    ids = torch.tensor([loaded.tokenizer.encode(LESSON)], device=model.device)
    model.requires_grad_(True)
    with torch.enable_grad():
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.grad is not None and tensor.grad.norm() > 0:
                tensor.sub_(tensor.grad * (STEP_NORM * tensor.norm() / tensor.grad.norm()))
            tensor.grad = None
    model.requires_grad_(False)
    return changed


def _copied(loaded: LoadedModel) -> LoadedModel:
    return replace(loaded, model=copy.deepcopy(loaded.model))


def _matrices(loaded: LoadedModel) -> Iterator[nn.Linear]:
    """The inner matrices: not the output embedding, which formats leave alone and most models share with the input."""
    head = loaded.model.get_output_embeddings()
    return (module for module in loaded.model.modules() if isinstance(module, nn.Linear) and module is not head)


@torch.no_grad()
def _rounded(loaded: LoadedModel, bits: int, group: int | None) -> LoadedModel:
    """Symmetric rounding to the nearest, scales of full precision."""
    changed, most = _copied(loaded), 2 ** (bits - 1) - 1
    for matrix in _matrices(changed):
        rows, columns = matrix.weight.shape
        size = group if group and columns % group == 0 else columns
        grouped = matrix.weight.reshape(rows, columns // size, size)
        scale = (grouped.abs().amax(-1, keepdim=True) / most).clamp(min=1e-12)
        matrix.weight.copy_(((grouped / scale).round() * scale).reshape(rows, columns))
    return changed


@torch.no_grad()
def _through(loaded: LoadedModel, dtype: torch.dtype) -> LoadedModel:
    changed = _copied(loaded)
    for tensor in changed.model.parameters():
        tensor.copy_(tensor.to(dtype))
    return changed


@torch.no_grad()
def _noise(loaded: LoadedModel, share: float) -> LoadedModel:
    changed, generator = _copied(loaded), torch.Generator().manual_seed(SEED)
    for matrix in _matrices(changed):
        noise = torch.randn(matrix.weight.shape, generator=generator).to(matrix.weight)
        matrix.weight.add_(noise * (share * matrix.weight.std()))
    return changed


def _with_layers(loaded: LoadedModel, kept: Sequence[int]) -> LoadedModel:
    """Only these layers, in this order, renumbered so that the cache has no holes."""
    model = copy.copy(loaded.model)
    model._modules = dict(loaded.model._modules)
    inner = copy.copy(loaded.model.model)
    inner._modules = dict(loaded.model.model._modules)
    renumbered = []
    for index, number in enumerate(kept):
        original = loaded.model.model.layers[number]
        shallow = copy.copy(original)
        shallow._modules = dict(original._modules)
        attention = copy.copy(original.self_attn)
        attention.layer_idx = index
        shallow.self_attn = attention
        renumbered.append(shallow)
    inner.layers = nn.ModuleList(renumbered)
    config = copy.deepcopy(loaded.model.config)
    config.num_hidden_layers = len(renumbered)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[number] for number in kept]
    inner.config = config
    model.config = config
    model.model = inner
    return replace(loaded, model=model)
