"""A tiny model to train, and data that has something to learn."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from protocol.training.payload import Floats
from protocol.training.recipe import Architecture
from template.training.checkpoint import fresh
from template.training.layout import Layout

VOCABULARY = 64
TINY = Architecture(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256,
)  # fmt: skip


@lru_cache(maxsize=1)
def _made() -> tuple[Layout, bytes]:
    layout, vector = fresh(TINY, seed=0)
    return layout, vector.tobytes()


def genesis() -> tuple[Layout, Floats]:
    """The layout of the tiny model and float32 [size] to start from; the vector is the caller's own."""
    layout, data = _made()
    return layout, np.frombuffer(data, np.float32).copy()
