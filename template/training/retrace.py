"""A window's training again: its digests, any of its states, and one interval from a state that somebody claims.

    retrace = Retrace(trainer, base, batches, recipe, window)
    retrace.digests()                          of every state: what `trace_root` is made of
    retrace.state(index)                       one state; bisection over them costs one window in all
    from_bytes(data, step, size)               State of the bytes that travel; `to_bytes` is the inverse
    interval(trainer, state, until, batches, recipe, window)      train it on

All of it blocks, and has to be called from the one thread that the trainer belongs to.
"""

from __future__ import annotations

import numpy as np
import torch

from protocol.training.dispute import State as Arrays
from protocol.training.payload import Floats
from protocol.training.recipe import Recipe
from template.training.inner import State, Trainer
from template.training.windows import Batches

STATE_BYTES = 12  # of each parameter: itself, its first and its second moment


class Retrace:
    """One window. Keeps two states: the one asked for last, and the one that it was made from."""

    def __init__(self, trainer: Trainer, base: Floats, batches: Batches, recipe: Recipe, window: int) -> None:
        self._trainer = trainer
        self._base = base
        self._batches = batches
        self._recipe = recipe
        self._window = window
        self._kept: dict[int, State] = {}

    def digests(self) -> tuple[bytes, ...]:
        """Raises FloatingPointError when the loss is not finite."""
        state = self._trainer.start(self._base)
        found, steps = [state.digest()], self._recipe.tasks.steps
        while state.step < steps:
            self._on(state, len(found))
            found.append(state.digest())
        self._kept = {len(found) - 1: state.copy()}
        return tuple(found)

    def state(self, index: int) -> State:
        """Not to be changed. Raises FloatingPointError."""
        nearest = max((kept for kept in self._kept if kept <= index), default=None)
        if nearest == index:
            return self._kept[index]
        before = {} if nearest is None else {nearest: self._kept[nearest]}
        self._kept = before  # the other one is not needed any more
        trainer = self._trainer
        state = trainer.start(self._base) if nearest is None else trainer.resume(self._kept[nearest].copy())
        self._on(state, index)
        self._kept = {**before, index: state.copy()}
        return self._kept[index]

    def _on(self, state: State, index: int) -> None:
        until = min(index * self._recipe.trace_every, self._recipe.tasks.steps)
        interval(self._trainer, state, until, self._batches, self._recipe, self._window)


def interval(trainer: Trainer, state: State, until: int, batches: Batches, recipe: Recipe, window: int) -> None:
    """Train `state`, in place, until so many steps of the window are taken. Raises FloatingPointError."""
    while state.step < until:
        rate = recipe.inner.rate(window * recipe.tasks.steps + state.step)
        trainer.step(state, batches(state.step), rate)


def to_bytes(state: State) -> bytes:
    """Parameters, first and second moments: float32, little-endian."""
    return b"".join(part.astype("<f4", copy=False).tobytes() for part in arrays(state))


def from_bytes(data: bytes, step: int, size: int) -> State:
    """On the CPU; a trainer goes on from it with `resume`. Raises ValueError for bytes that are none of `size`
    parameters."""
    if len(data) != STATE_BYTES * size:
        raise ValueError(f"{len(data)} bytes are no state of {size} parameters")
    parts = np.frombuffer(data, "<f4").astype(np.float32).reshape(3, size)
    return State(step, *(torch.from_numpy(part.copy()) for part in parts))


def arrays(state: State) -> Arrays:
    """As numpy arrays on the CPU."""
    first, second, third = (part.detach().cpu().numpy() for part in (state.parameters, state.first, state.second))
    return first, second, third
