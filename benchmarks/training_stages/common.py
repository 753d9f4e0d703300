"""What the stages share: the model, the data, a recipe of both, and a journal that an interrupted measurement goes on
from.

    ground = Ground.prepare(dataset, size, device, threads)     a trainer and everything that a recipe names
    ground.recipe(tasks=..., inner=...)                         the default recipe, but for what is given
    ground.batches(window, miner, recipe)                       what the rules assign, as train_window takes it
    journal.once(name, settings, measure)                       measure(), or what it gave before
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from protocol.artifacts import Manifest
from protocol.dataset import encode_manifest
from protocol.training.assignment import Work, assign, scored_steps, unassigned, window_seed
from protocol.training.payload import Floats
from protocol.training.recipe import Architecture, Clock, Inner, Recipe
from template.training.checkpoint import build, fresh, model_root, to_file
from template.training.dataset import Dataset, own_store, read_manifest
from template.training.evaluation import ScoredBatches
from template.training.inner import Trainer
from template.training.layout import Layout
from template.training.shared import Shared
from template.training.windows import Batches

Figures = dict[str, Any]

# Parameters with the 2,048 tokens of the shipped corpus: 1.05 million as `touchstone train start` makes it, 138 million
# for a GPU.
SIZES: dict[str, dict[str, int]] = {
    "small": {
        "hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 4, "max_position_embeddings": 512,
    },
    "large": {
        "hidden_size": 896, "intermediate_size": 2432, "num_hidden_layers": 14, "num_attention_heads": 14,
        "num_key_value_heads": 14, "max_position_embeddings": 512,
    },
}  # fmt: skip


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Journal:
    """Figures by what was measured, one line of JSON each; without a path they are not kept."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._found: dict[str, Figures] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                self._found[entry["key"]] = entry["figures"]

    def once(self, name: str, settings: Figures, measure: Callable[[], Figures]) -> Figures:
        key = json.dumps([name, settings], sort_keys=True)
        if key not in self._found:
            self._found[key] = measure()
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(json.dumps({"key": key, "figures": self._found[key]}) + "\n")
        return self._found[key]


@dataclass(frozen=True, eq=False)
class Ground:
    """`trainer` is used for every worker in turn: its module holds what the last step left."""

    architecture: Architecture
    layout: Layout
    trainer: Trainer
    dataset: Dataset
    address: str  # of the dataset's manifest
    cache: tempfile.TemporaryDirectory[str]  # of the shards; it goes when this does

    @staticmethod
    def prepare(folder: Path, size: str, device: str, threads: int) -> Ground:
        """Raises DatasetUnusable for a folder that `touchstone dataset build` did not make."""
        torch.set_num_threads(threads)
        manifest = read_manifest(folder)
        architecture = Architecture(vocab_size=manifest.vocabulary, **SIZES[size])
        module = build(architecture)
        trainer = Trainer(module, Inner(), profile="tolerant", device=device, threads=threads)
        cache = tempfile.TemporaryDirectory(prefix="touchstone-bench-")
        dataset = Dataset(manifest, own_store(folder), Path(cache.name))
        asyncio.run(_fetch(dataset))
        address = Manifest.of(encode_manifest(manifest)).cid
        return Ground(architecture, Layout.of(module), trainer, dataset, address, cache)

    def recipe(self, **given: Any) -> Recipe:
        """The default recipe for this model and data, but for what is given. The model to start from is that of
        `start(0)`."""
        _, vector = fresh(self.architecture, 0)
        root = model_root(self.architecture, self.layout, vector)
        file = Manifest.of(to_file(self.layout, vector)).cid
        fixed = {"architecture": self.architecture, "model": root, "model_file": file, "dataset": self.address}
        return Recipe(**{**fixed, "clock": Clock(start=0), **given})

    def start(self, seed: int) -> Shared:
        """A model with random weights, before window 0."""
        _, vector = fresh(self.architecture, seed)
        return Shared(0, vector, model_root(self.architecture, self.layout, vector))

    def work(self, window: int, miner: str, recipe: Recipe, seed: int = 0) -> Work:
        return assign(drawn(seed, "assign", window), miner, self.dataset.tokens_of(), recipe.tasks.plan)

    def batches(self, window: int, miner: str, recipe: Recipe, seed: int = 0) -> Batches:
        work, length = self.work(window, miner, recipe, seed), recipe.tasks.length

        def batch(step: int) -> npt.NDArray[np.int64]:
            return self.dataset.batch(work.batch(step), length)

        return batch

    def scored(self, window: int, miner: str, recipe: Recipe, seed: int = 0) -> ScoredBatches:
        """What a validator measures this miner's contribution on."""
        plan, length, tokens = recipe.tasks.plan, recipe.tasks.length, self.dataset.tokens_of()
        work, revealed = self.work(window, miner, recipe, seed), drawn(seed, "reveal", window)
        steps = scored_steps(revealed, miner, plan, recipe.scored.assigned)
        others = unassigned(revealed, miner, work, tokens, plan, recipe.scored.unassigned)
        return ScoredBatches(
            [self.dataset.batch(work.batch(step), length) for step in steps],
            [self.dataset.batch(places, length) for places in others],
        )

    def loss(self, model: Floats | torch.Tensor, sequences: int, length: int) -> float:
        """Mean loss in nats a token on `sequences` places of the validation text, evenly spread and always the same."""
        places = (self.dataset.tokens_of("validation")[0] - 1) // length
        starts = [places * number // sequences * length for number in range(sequences)]
        batches = [
            self.dataset.batch([(0, start) for start in starts[first : first + 16]], length, "validation")
            for first in range(0, sequences, 16)
        ]
        losses = self.trainer.losses(torch.as_tensor(model), batches)
        return float(np.average(losses, weights=[len(batch) for batch in batches]))


def drawn(seed: int, phase: str, window: int) -> bytes:
    """The seed of a phase, from a hash that stands for the block's."""
    return window_seed(hashlib.sha256(f"benchmark {seed} {phase} {window}".encode()).digest(), window)


async def _fetch(dataset: Dataset) -> None:
    await dataset.fetch(range(len(dataset.manifest.training)))
    await dataset.fetch([0], "validation")
