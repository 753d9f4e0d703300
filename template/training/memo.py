"""Work that several cohorts have in common, done once: the same miner, window, model, buffer and data give the same.

memo = Memo(most)                                    the results used last, at most so many
data_of = WindowData(tokens, seed, recipe)           anybody's batches of a window; equal for the same three
bench = MemoBench(miner, window, ..., data_of, memo=memo)       a Workbench that remembers trainings
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from blake3 import blake3

from protocol.training.assignment import Place, Plan, assign
from template.training.inner import Trainer
from template.training.windows import Batches, Trained
from template.training.workbench import Workbench

T = TypeVar("T")


class Tokens(Protocol):
    """What is trained on; a `Dataset` whose shards were fetched is one."""

    def tokens_of(self, split: Any = ...) -> tuple[int, ...]: ...

    def batch(self, places: Sequence[Place], length: int, split: Any = ...) -> npt.NDArray[np.int64]: ...


class Memo:
    """Results by everything that they follow from; the one used longest ago goes first."""

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._held: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        found: T = self._held.pop(key) if key in self._held else make()
        self._held[key] = found
        while len(self._held) > self._most:
            self._held.popitem(last=False)
        return found


@dataclass(frozen=True)
class WindowData:
    """`seed`: of the phase `assign`, 32 bytes."""

    tokens: Tokens
    seed: bytes
    plan: Plan

    def __call__(self, miner: str) -> Batches:
        work = assign(self.seed, miner, self.tokens.tokens_of(), self.plan)
        return lambda step: self.tokens.batch(work.batch(step), self.plan.length)


@dataclass(frozen=True, eq=False)
class MemoBench(Workbench):
    """`batches_of` has to be comparable and hashable by what it gives. Steps are not saved on the way."""

    memo: Memo = field(default_factory=Memo)

    def train(self) -> Trained:
        before = None if self.before is None else hashlib.sha256(self.before.tobytes()).digest()
        key = ("train", self.miner, self.window, self.shared.root, before, self.recipe.id, self.batches_of)
        return self.memo.get(key, super().train)


@dataclass(frozen=True)
class MemoLosses:
    """Measures as its trainer does; models and batches are known by their bytes."""

    trainer: Trainer
    memo: Memo = field(default_factory=lambda: Memo(2**16))

    def losses(self, parameters: torch.Tensor, batches: list[npt.NDArray[np.int64]]) -> list[float]:
        model = blake3(parameters.numpy().tobytes()).digest()

        def of(ids: npt.NDArray[np.int64]) -> float:
            key = (model, ids.shape, blake3(ids.tobytes()).digest())
            return self.memo.get(key, lambda: self.trainer.losses(parameters, [ids])[0])

        return [of(ids) for ids in batches]
