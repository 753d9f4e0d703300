"""What a miner has at hand in one window, and what it makes of it.

    bench = Workbench(miner, window, recipe, shared, trainer, batches_of, before, earlier)
    kept = honest(bench)                     train, compress, state: Kept(statement, payload, before, after)
    trained = bench.train()                  the training alone
    kept = bench.state(trained...)           the statement about a result, and the bytes it names

Miners, and tests of what miners may do otherwise, differ in what they make of the same bench and in nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from protocol.artifacts import Manifest
from protocol.training.payload import Floats
from protocol.training.recipe import Recipe
from protocol.training.statement import Statement
from template.training.inner import Trainer
from template.training.shared import Shared
from template.training.windows import Batches, Progress, Trained, train_window
from template.training.work_state import Kept

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Workbench:
    """`batches_of`: anybody's data of this window; who trains on what is public. `before`: error buffer, float32
    [size], that `earlier` left; both None when the buffer is empty. `resumed`, `save`: as in train_window."""

    miner: str
    window: int
    recipe: Recipe
    shared: Shared
    trainer: Trainer
    batches_of: Callable[[str], Batches]
    before: Floats | None = None
    earlier: Statement | None = None
    resumed: Progress | None = None
    save: Callable[[Progress], None] | None = None

    @property
    def buffer(self) -> Floats:
        """The error buffer as an array, float32 [size]."""
        return np.zeros_like(self.shared.vector) if self.before is None else self.before

    def train(self) -> Trained:
        """As the rules say. Raises FloatingPointError when the loss is not finite."""
        return train_window(
            self.trainer,
            self.shared.vector,
            self.buffer,
            self.batches_of(self.miner),
            self.recipe,
            self.window,
            resumed=self.resumed,
            save=self.save,
        )

    def state(self, payload: bytes, after: Floats, trace: str, states: int, **said: Any) -> Kept:
        """What is promised and kept. `said`: fields of the statement that shall say something else."""
        left = after.astype("<f4", copy=False).tobytes()
        fields: dict[str, Any] = {
            "window": self.window,
            "miner": self.miner,
            "base": self.shared.root,
            "payload": Manifest.of(payload).cid,
            "profile": self.recipe.profile,
            "trace": trace,
            "states": states,
            "before": self.earlier.after if self.earlier is not None and self.before is not None else None,
            "after": Manifest.of(left).cid,
        }
        opened = None if self.before is None else self.before.astype("<f4", copy=False).tobytes()
        return Kept(Statement(**{**fields, **said}).encode(), payload, opened, left)


def honest(bench: Workbench) -> Kept:
    """A window of an honest miner."""
    trained = bench.train()
    steps, first, last = len(trained.losses), trained.losses[0], trained.losses[-1]
    log.info("window %d: %d steps, loss %.3f to %.3f", bench.window, steps, first, last)
    return bench.state(trained.contribution.encode(), trained.after, trained.trace, len(trained.digests))
