"""One window of a miner: from the shared model and its data to a contribution; and the same for whoever checks it.

    found = train_window(trainer, base, before, batches, recipe, window)      -> Trained
    found.contribution, found.after, found.digests                            payload, buffer for the next window, trace
    replayed = replay(trainer, base, batches, recipe, window)                 the change alone, for an audit

`batches` is called with a step and gives its tokens, so that nothing is read before it is needed. A window that was
interrupted goes on from the last `Progress` that `save` was given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from protocol.training import buffers
from protocol.training.payload import Contribution, Floats, compress
from protocol.training.recipe import Recipe
from protocol.training.trace import trace_root
from template.training.inner import State, Trainer

Batches = Callable[[int], npt.NDArray[np.int64]]  # step -> [batch, length + 1]


@dataclass
class Progress:
    """A window under way: the training state, the digests so far, and the loss of each step."""

    state: State
    digests: list[bytes] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Trained:
    """What a window gave. `losses`: of each step, before it."""

    contribution: Contribution
    after: Floats
    digests: tuple[bytes, ...]
    losses: tuple[float, ...]

    @property
    def trace(self) -> str:
        return trace_root(self.digests).hex()


def train_window(
    trainer: Trainer,
    base: Floats,
    before: Floats,
    batches: Batches,
    recipe: Recipe,
    window: int,
    *,
    resumed: Progress | None = None,
    save: Callable[[Progress], None] | None = None,
) -> Trained:
    """Train and compress. Raises FloatingPointError when the loss or what was learned is not finite."""
    progress = Progress(trainer.start(base))
    if resumed is not None and resumed.digests[:1] == [progress.state.digest()]:  # else it is of another model
        progress = Progress(trainer.resume(resumed.state), resumed.digests, resumed.losses)
    _run(trainer, progress, batches, recipe, window, save)
    total = buffers.accumulate(before, _change(base, progress.state), recipe.kept)
    if not np.isfinite(total).all():
        raise FloatingPointError("the training left the range of float32")
    contribution = compress(total)
    after = buffers.remainder(total, contribution)
    return Trained(contribution, after, tuple(progress.digests), tuple(progress.losses))


def replay(trainer: Trainer, base: Floats, batches: Batches, recipe: Recipe, window: int) -> tuple[Floats, list[bytes]]:
    """The change of a window, float32 [size], and its trace."""
    progress = Progress(trainer.start(base))
    _run(trainer, progress, batches, recipe, window, None)
    return _change(base, progress.state), progress.digests


def _run(
    trainer: Trainer,
    progress: Progress,
    batches: Batches,
    recipe: Recipe,
    window: int,
    save: Callable[[Progress], None] | None,
) -> None:
    state, steps = progress.state, recipe.tasks.steps
    if not progress.digests:
        progress.digests.append(state.digest())
    while state.step < steps:
        rate = recipe.inner.rate(window * steps + state.step)
        progress.losses.append(trainer.step(state, batches(state.step), rate))
        if state.step % recipe.trace_every == 0 or state.step == steps:
            progress.digests.append(state.digest())
            if save is not None:
                save(progress)


def _change(base: Floats, state: State) -> Floats:
    found: Floats = base - state.parameters.cpu().numpy()
    return found
