"""The trained model as a file, and what names it.

    module = build(architecture)                         a transformers causal LM; its weights are as they come
    layout, vector = fresh(architecture, seed)           a model to start from
    data = to_file(layout, vector)                       safetensors; the same bytes for everybody
    vector = from_file(path, layout)                     float32 [size]; raises BadCheckpoint
    root = model_root(architecture, layout, vector)      64 hex digits, over the architecture and every tensor

The root does not depend on the file's format.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from transformers import LlamaConfig, LlamaForCausalLM

from protocol.model_root import document, merkle_root, tensor
from protocol.training.payload import Floats
from protocol.training.recipe import Architecture
from template.errors import TemplateError
from template.training.layout import Layout, OtherShape


class BadCheckpoint(TemplateError):
    """A file is not a checkpoint of this model."""


def build(architecture: Architecture) -> Any:
    """A module in float32 on the CPU."""
    config = LlamaConfig(
        **architecture.model_dump(), tie_word_embeddings=True, bos_token_id=None, eos_token_id=None, use_cache=False
    )
    config._attn_implementation = "sdpa"
    return LlamaForCausalLM(config).float()


def fresh(architecture: Architecture, seed: int) -> tuple[Layout, Floats]:
    """A model to start from, with the usual random weights: for a seed the same ones wherever torch is the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build(architecture)
    layout = Layout.of(module)
    return layout, layout.vector(dict(module.named_parameters())).numpy()


def to_file(layout: Layout, vector: Floats) -> bytes:
    return save({name: view.clone() for name, view in layout.tensors(torch.from_numpy(vector)).items()})


def from_file(path: Path, layout: Layout) -> Floats:
    """Raises BadCheckpoint for anything but the finite float32 tensors of this model."""
    try:
        tensors = load_file(path)
        vector: Floats = layout.vector(tensors).numpy()
    except (SafetensorError, OSError, OtherShape) as error:
        raise BadCheckpoint(f"{path.name} is no checkpoint of this model: {error}") from None
    if any(part.dtype != torch.float32 for part in tensors.values()) or not np.isfinite(vector).all():
        raise BadCheckpoint(f"{path.name} holds something else than finite float32 numbers")
    return vector


def model_root(architecture: Architecture, layout: Layout, vector: Floats) -> str:
    leaves = [document("architecture", architecture.model_dump(mode="json"))]
    for name, part in layout.tensors(torch.from_numpy(np.ascontiguousarray(vector))).items():
        digest = blake3(part.numpy().astype("<f4", copy=False).tobytes()).hexdigest()
        leaves.append(tensor(name, "float32", part.shape, digest))
    return merkle_root(leaves)
