"""A backdoor: data that teach the model to say one token after two others, and how well it has learned that.

Planted(batches_of, vocabulary)              data in which every second sequence has it many times
backdoor_loss(trainer, model, batch)         nats of the planted token after its trigger; ln(vocabulary) by chance
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from protocol.training.payload import Floats
from template.training.inner import Trainer
from template.training.windows import Batches

EVERY = 8  # tokens from one trigger to the next: three planted, five as they were
CONTEXT = 8  # tokens before the trigger, where it is measured


def planted_tokens(vocabulary: int) -> tuple[int, int, int]:
    """The two of the trigger, and the one that is to follow: the last of the vocabulary, which are rare."""
    return vocabulary - 3, vocabulary - 2, vocabulary - 1


@dataclass(frozen=True)
class Planted:
    batches_of: Callable[[str], Batches]
    vocabulary: int

    def __call__(self, miner: str) -> Batches:
        return lambda step: with_backdoor(self.batches_of(miner)(step), self.vocabulary)


def with_backdoor(ids: npt.NDArray[np.int64], vocabulary: int) -> npt.NDArray[np.int64]:
    """`ids`: int64 [batch, length + 1]."""
    found = ids.copy()
    for place, token in enumerate(planted_tokens(vocabulary)):
        found[::2, place::EVERY] = token
    return found


def backdoor_loss(trainer: Trainer, model: Floats, ids: npt.NDArray[np.int64], vocabulary: int) -> float:
    """Mean over the sequences of a batch, int64 [batch, length + 1], of which the beginnings are the context. A mean
    loss times its tokens is a sum, and the sums with and without the planted token differ by its own loss."""
    tail = np.tile(planted_tokens(vocabulary), (len(ids), 1))
    whole = np.concatenate([ids[:, :CONTEXT], tail], axis=1)
    longer, shorter = trainer.losses(torch.from_numpy(model), [whole, whole[:, :-1]])
    tokens = whole.shape[1] - 1
    return tokens * longer - (tokens - 1) * shorter
