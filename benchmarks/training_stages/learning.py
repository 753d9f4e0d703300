"""Validation loss at equal tokens: the protocol, dense DiLoCo, and AdamW in one place.

Every method sees the same batches of the same text, all in all workers x steps x windows of them, and starts from the
same random weights; seeds change both. What differs is who works on a batch, and what is sent:

    touchstone     a worker takes `steps` AdamW steps, then sends 2 bits of each of 64 of 4,096 entries; see the recipe
    diloco         the same steps, moments kept from window to window; float32 changes are averaged, and Nesterov
                   momentum .9 takes the outer step (Douillard et al., arXiv 2311.08105). Its outer rate is the best of
                   `rates` on the first seed; .7 is the published one
    mean           dense, averaged, and nothing else: what compression costs is seen against it
    adamw          one worker, one batch a step, one after the other: as many steps as there are batches
    adamw wide     one batch of all workers a step: what sending dense gradients after every step would give

Rates rise over the first tenth of a method's steps to the same peak and fall in a line to a tenth of it; the rest is
the recipe's default. Bytes are what one worker sends in a window.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from benchmarks.training_stages.common import Figures, Ground, Journal, say
from protocol.training.copies import overlaps
from protocol.training.payload import CHUNK, Floats, decode
from protocol.training.recipe import Inner, Recipe, Tasks
from template.training.inner import State
from template.training.shared import advanced
from template.training.windows import train_window

SEQUENCES = 128  # of validation text
MOMENTUM = 0.9


@dataclass(frozen=True)
class Arrangement:
    """`steps` of `batch` sequences of `length` tokens by each worker in each window."""

    workers: int = 4
    steps: int = 30
    windows: int = 12
    batch: int = 4
    length: int = 64
    peak: float = 3e-3

    @property
    def tokens(self) -> int:
        return self.workers * self.steps * self.windows * self.batch * self.length

    def recipe(self, ground: Ground, steps: int, **given: Any) -> Recipe:
        """For a method that takes `steps` inner steps one after the other."""
        tasks = Tasks(steps=self.steps, batch=self.batch, length=self.length)
        inner = Inner(peak=self.peak, warmup=max(1, steps // 10), total=steps)
        return ground.recipe(tasks=tasks, inner=inner, **given)


@dataclass(frozen=True)
class Run:
    """One method with one seed. `settings`: what it has of its own."""

    ground: Ground
    arranged: Arrangement
    seed: int

    @property
    def miners(self) -> list[str]:
        return [f"worker {number}" for number in range(self.arranged.workers)]

    def loss(self, model: Floats | torch.Tensor) -> float:
        return self.ground.loss(model, SEQUENCES, self.arranged.length)

    def touchstone(self, **given: Any) -> Iterator[Figures]:
        """As miners and validators do it, all contributions accepted."""
        ground, arranged = self.ground, self.arranged
        recipe = arranged.recipe(ground, arranged.steps * arranged.windows, **given)
        shared, size = ground.start(self.seed), ground.layout.size
        buffers = {miner: np.zeros(size, np.float32) for miner in self.miners}
        for window in range(arranged.windows):
            sent = {}
            for miner in self.miners:
                batches = ground.batches(window, miner, recipe, self.seed)
                trained = train_window(ground.trainer, shared.vector, buffers[miner], batches, recipe, window)
                sent[miner], buffers[miner] = trained.contribution.encode(), trained.after
            contributions = {miner: decode(data, size) for miner, data in sent.items()}
            shared = advanced(shared, recipe, ground.layout, contributions)
            shares = overlaps(list(contributions.values()), range(-(-size // CHUNK)))
            apart = shares[np.triu_indices(len(shares), 1)]
            yield {
                "loss": self.loss(shared.vector),
                "bytes": max(map(len, sent.values())),
                "overlap": float(apart.max()) if len(apart) else 0.0,
            }

    def diloco(self, rate: float, momentum: float = MOMENTUM, keeps_moments: bool = True) -> Iterator[Figures]:
        ground, arranged = self.ground, self.arranged
        recipe = arranged.recipe(ground, arranged.steps * arranged.windows)
        model = torch.from_numpy(ground.start(self.seed).vector).to(ground.trainer.device)
        velocity = torch.zeros_like(model)
        states: dict[str, State] = {}
        for window in range(arranged.windows):
            change = torch.zeros_like(model)
            for miner in self.miners:
                state = ground.trainer.start(model)
                if keeps_moments and window:
                    state = replace(states[miner], parameters=state.parameters)
                batches = ground.batches(window, miner, recipe, self.seed)
                for step in range(arranged.steps):
                    rate_now = recipe.inner.rate(window * arranged.steps + step)
                    ground.trainer.step(state, batches(step), rate_now)
                states[miner] = state
                change += (model - state.parameters) / arranged.workers
            velocity = momentum * velocity + change
            model = model - rate * (change + momentum * velocity)
            yield {"loss": self.loss(model), "bytes": 4 * ground.layout.size}

    def adamw(self, wide: bool) -> Iterator[Figures]:
        ground, arranged = self.ground, self.arranged
        in_a_window = arranged.steps * (1 if wide else arranged.workers)
        recipe = arranged.recipe(ground, in_a_window * arranged.windows)
        state = ground.trainer.start(ground.start(self.seed).vector)
        for window in range(arranged.windows):
            batches = [ground.batches(window, miner, recipe, self.seed) for miner in self.miners]
            for step in range(arranged.steps):
                now = [batch(step) for batch in batches]
                for ids in [np.concatenate(now)] if wide else now:
                    ground.trainer.step(state, ids, recipe.inner.rate(state.step))
            sent = 4 * ground.layout.size * arranged.steps if wide else 0
            yield {"loss": self.loss(state.parameters), "bytes": sent}


def measure(
    ground: Ground, journal: Journal, arranged: Arrangement, seeds: int, rates: list[float], others: list[Figures]
) -> Figures:
    """`others`: recipe values to try on the first seed, e.g. {"outer_rate": .7}."""
    first = {rate: _run(ground, journal, arranged, 0, "diloco", {"rate": rate}) for rate in rates}
    rate = min(first, key=lambda rate: first[rate]["loss"])
    methods: dict[str, tuple[str, Figures]] = {
        "touchstone": ("touchstone", {}),
        "diloco": ("diloco", {"rate": rate}),
        "adamw": ("adamw", {"wide": False}),
        "adamw wide": ("adamw", {"wide": True}),
        "mean": ("diloco", {"rate": 1.0, "momentum": 0.0, "keeps_moments": False}),
    }
    found = {
        name: [_run(ground, journal, arranged, seed, kind, settings) for seed in range(seeds)]
        for name, (kind, settings) in methods.items()
    }
    tried = [{**other, "loss": _run(ground, journal, arranged, 0, "touchstone", other)["loss"]} for other in others]
    return {
        "arrangement": {**vars(arranged), "tokens": arranged.tokens, "parameters": ground.layout.size},
        "outer_rates_of_diloco": {str(rate): one["loss"] for rate, one in first.items()},
        "methods": {name: _summary(runs, found["diloco"]) for name, runs in found.items()},
        "other_recipes": tried,
    }


def _run(ground: Ground, journal: Journal, arranged: Arrangement, seed: int, kind: str, settings: Figures) -> Figures:
    told = f"{kind} {settings or ''} seed {seed}"

    def measured() -> Figures:
        cpu = time.process_time()
        windows = []
        for number, one in enumerate(getattr(Run(ground, arranged, seed), kind)(**settings), 1):
            say(f"{told}: window {number} of {arranged.windows}: loss {one['loss']:.4f}")
            windows.append(one)
        return {
            "losses": [round(one["loss"], 4) for one in windows],
            "loss": windows[-1]["loss"],
            "bytes": windows[-1]["bytes"],
            "overlaps": [round(one["overlap"], 4) for one in windows if "overlap" in one],
            "cpu_s": round(time.process_time() - cpu, 1),
        }

    setup = {"arranged": vars(arranged), "parameters": ground.layout.size, "dataset": ground.address}
    return journal.once(told, {**setup, "device": ground.trainer.device.type}, measured)


def _summary(runs: list[Figures], against: list[Figures]) -> Figures:
    losses = [run["loss"] for run in runs]
    over = [run["loss"] / other["loss"] - 1.0 for run, other in zip(runs, against, strict=True)]
    return {
        "loss": round(statistics.mean(losses), 4),
        "by_seed": [round(loss, 4) for loss in losses],
        "over_diloco": round(statistics.mean(over), 4),
        "over_diloco_by_seed": [round(share, 4) for share in over],
        "bytes": runs[0]["bytes"],
        "less_than_diloco": round(against[0]["bytes"] / runs[0]["bytes"], 1) if runs[0]["bytes"] else None,
        "overlap": max((share for run in runs for share in run["overlaps"]), default=None),
        "curves": [run["losses"] for run in runs],
    }
