"""What a validator computes of a window: losses with and without a contribution, and audits that repeat the training.

    scores = loss_scores(trainer, base, contributions, batches_of, recipe)       {hotkey: LossScore}
    verdict = audit(trainer, base, batches, due, statement, contribution, opened)

Both are blocking and use the trainer's one module; run them in a thread. A contribution is measured
alone, at the share of its length that the mean of all has (aggregation.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from protocol.training.aggregation import measured_factor, outer_step
from protocol.training.judging import Due, Opened, Verdict, judge_replay
from protocol.training.payload import Contribution, Floats
from protocol.training.ratings import LossScore
from protocol.training.recipe import Recipe
from protocol.training.statement import Statement
from protocol.training.trace import trace_root
from template.training.dataset import Dataset
from template.training.inner import Trainer
from template.training.windows import Batches, replay

VALIDATION_BATCHES = 4
Batch = npt.NDArray[np.int64]  # [sequences, length + 1]


@dataclass(frozen=True)
class ScoredBatches:
    """What one contribution is measured on."""

    assigned: Sequence[Batch]
    unassigned: Sequence[Batch]


def loss_scores(
    trainer: Trainer,
    base: Floats,
    contributions: Mapping[str, Contribution],
    batches_of: Callable[[str], ScoredBatches],
    recipe: Recipe,
) -> dict[str, LossScore]:
    """By how much each contribution alone lowers the mean loss of its batches, in nats a token."""
    if not contributions:
        return {}
    factor = measured_factor(len(contributions))
    start = torch.from_numpy(base)
    scores = {}
    for hotkey, contribution in contributions.items():
        batches = batches_of(hotkey)
        both = [*batches.assigned, *batches.unassigned]
        update = factor * contribution.dense().astype(np.float64)
        try:
            after = torch.from_numpy(outer_step(base, update, recipe.outer_rate))
        except ValueError:  # it leaves the range of float32: nothing that could help
            scores[hotkey] = LossScore(float("-inf"), float("-inf"))
            continue
        gains = np.subtract(trainer.losses(start, both), trainer.losses(after, both))
        count = len(batches.assigned)
        scores[hotkey] = LossScore(float(gains[:count].mean()), float(gains[count:].mean()))
    return scores


def validation_loss(trainer: Trainer, model: Floats, dataset: Dataset, recipe: Recipe) -> float:
    """Mean loss on the same batches of the first validation shard in every window, which was fetched."""
    length, batch = recipe.tasks.length, recipe.tasks.batch
    places = (dataset.tokens_of("validation")[0] - 1) // length
    count = min(places, VALIDATION_BATCHES * batch)
    starts = [places * number // count * length for number in range(count)]
    batches = [
        dataset.batch([(0, start) for start in starts[first : first + batch]], length, "validation")
        for first in range(0, count, batch)
    ]
    losses = trainer.losses(torch.from_numpy(model), batches)
    return float(np.average(losses, weights=[len(ids) for ids in batches]))


def audit(
    trainer: Trainer,
    base: Floats,
    batches: Batches,
    due: Due,
    statement: Statement,
    contribution: Contribution,
    opened: Opened,
) -> Verdict:
    """Repeat a miner's window and judge it. Raises FloatingPointError when the training itself fails, which an honest
    miner's would have done too."""
    change, digests = replay(trainer, base, batches, due.recipe, due.window)
    return judge_replay(due, statement, contribution, opened, change, trace_root(digests).hex())
