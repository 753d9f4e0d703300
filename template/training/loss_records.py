"""What real trainings for the loss model are of, and what they record; see loss_runs.py and loss_fit.py.

CAST                                     what each worker is
Plan(windows=80)                         how much is run, on what
WindowRecord, ScoreRecord, StepRecord    what comes of it
"""

from __future__ import annotations

from typing import Literal

from protocol.synapse import Message
from protocol.training.recipe import Architecture, Inner, Tasks

Kind = Literal["work", "copy", "noise"]
# What each worker is, and the share of a window's steps that it does. Shares divide the steps evenly.
CAST: tuple[tuple[Kind, float], ...] = (
    *6 * (("work", 1.0),),
    ("work", 0.5),
    ("work", 0.25),
    ("copy", 1.0),
    ("noise", 0.0),
)


class Plan(Message):
    """How much is run, on what. The defaults take some minutes a seed on one core: the model is small and so are its
    batches, and the learning rate is lower than a recipe's default, because the scatter of small batches needs it."""

    windows: int = 80
    hidden: int = 64
    layers: int = 2
    tasks: Tasks = Tasks(steps=16, batch=8, length=64, shards=4)
    inner: Inner = Inner(peak=1e-3, warmup=48)  # three windows, so that more of them are of use

    def architecture(self, vocabulary: int) -> Architecture:
        return Architecture(
            vocab_size=vocabulary, hidden_size=self.hidden, intermediate_size=self.hidden * 8 // 3 // 4 * 4,
            num_hidden_layers=self.layers, num_attention_heads=4, num_key_value_heads=4,
            max_position_embeddings=self.tasks.length,
        )  # fmt: skip


class ScoreRecord(Message):
    """A contribution alone. `share`: of the window's steps in it; a copy's is that of the one it is of."""

    kind: Kind
    share: float
    assigned: float
    unassigned: float


class StepRecord(Message):
    """A step of the mean of `count` contributions. `share`: the mean of theirs; `length`: of the step, as a part of the
    recipe's; `drop`: of the validation loss, in nats a token."""

    count: int
    share: float
    length: float
    drop: float


class WindowRecord(Message):
    """`loss`: validation loss of the shared model at the window's start. The first of `steps` was taken."""

    seed: int
    window: int
    loss: float
    scores: tuple[ScoreRecord, ...]
    steps: tuple[StepRecord, ...]
