"""Real trainings for the loss model of the simulation: what contributions of every kind do to the loss.

    for record in run(dataset, plan, seed): ...        one window after another, each a `WindowRecord`

A small model is trained as mechanism 1 does it, from a random start: data are assigned, work is trained, compressed and
scored by the code that miners and validators run, and the model takes the step that the rules give. Workers keep to
what they are (`CAST`): most do all their steps, one a half and one a quarter of them, one shows a neighbour's
contribution as its own, which never enters, and one shows numbers of no meaning, as large as a contribution.

Beside the step that is taken, a record has what others would have done to the validation loss: steps made of some of
the contributions, and one of half the length. All of it is of the same window and the same batches.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from protocol.artifacts import Manifest
from protocol.dataset import encode_manifest
from protocol.training.aggregation import aggregate, outer_step
from protocol.training.assignment import Work, assign, scored_steps, unassigned, window_seed
from protocol.training.payload import Contribution, Floats, compress
from protocol.training.recipe import Clock, Recipe
from template.training.checkpoint import build, fresh, model_root, to_file
from template.training.dataset import Dataset, own_store, read_manifest
from template.training.evaluation import ScoredBatches, loss_scores, validation_loss
from template.training.inner import Trainer
from template.training.loss_records import CAST, Plan, ScoreRecord, StepRecord, WindowRecord
from template.training.windows import train_window

SUBSETS = (1, 2, 4)  # contributions of honest workers in a step that is not taken


def recipe_of(dataset: Dataset, plan: Plan, seed: int) -> tuple[Recipe, Floats]:
    """The recipe of a run, and the model it starts from, float32 [size]."""
    architecture = plan.architecture(dataset.manifest.vocabulary)
    layout, vector = fresh(architecture, seed)
    recipe = Recipe(
        architecture=architecture,
        model=model_root(architecture, layout, vector),
        model_file=Manifest.of(to_file(layout, vector)).cid,
        dataset=Manifest.of(encode_manifest(dataset.manifest)).cid,
        clock=Clock(start=0),
        tasks=plan.tasks,
        inner=plan.inner,
    )
    return recipe, vector


async def open_dataset(folder: Path, cache: Path) -> Dataset:
    """A dataset that was built in `folder`, ready to be read. Raises DatasetUnusable and ArtifactError."""
    manifest = read_manifest(folder)
    async with own_store(folder) as store:
        dataset = Dataset(manifest, store, cache)
        await dataset.fetch(range(len(manifest.training)))
        await dataset.fetch([0], "validation")
    return dataset


def run(dataset: Dataset, plan: Plan, seed: int) -> Iterator[WindowRecord]:
    """A training, window by window. Every shard of `dataset` was fetched."""
    recipe, model = recipe_of(dataset, plan, seed)
    trainer = Trainer(build(recipe.architecture), recipe.inner, threads=1, **recipe.precision)
    buffers = {_name(place): np.zeros_like(model) for place in range(len(CAST))}
    rng = np.random.default_rng(seed)
    for window in range(plan.windows):
        here = _Window(dataset, trainer, recipe, model, window, seed)
        contributions = here.contributions(buffers, rng)
        scores = loss_scores(trainer, model, contributions, here.scored, recipe)
        loss = validation_loss(trainer, model, dataset, recipe)
        told = tuple(
            ScoreRecord(kind=kind, share=share, assigned=score.assigned, unassigned=score.unassigned)
            for (kind, share), score in zip(CAST, scores.values(), strict=True)
        )
        entered = {
            _name(place): share
            for place, (kind, share) in enumerate(CAST)
            if kind != "copy" and scores[_name(place)].helps
        }
        steps, model = here.steps(loss, contributions, entered, rng)
        yield WindowRecord(seed=seed, window=window, loss=loss, scores=told, steps=steps)


def _name(place: int) -> str:
    return f"worker-{place:02d}"


@dataclass(frozen=True)
class _Window:
    """One window of a run."""

    dataset: Dataset
    trainer: Trainer
    recipe: Recipe
    model: Floats
    window: int
    seed: int

    def scored(self, worker: str) -> ScoredBatches:
        revealed, work, plan = self._block("reveal"), self._work(worker), self.recipe.tasks.plan
        steps = scored_steps(revealed, worker, plan, self.recipe.scored.assigned)
        other = unassigned(revealed, worker, work, self.dataset.tokens_of(), plan, self.recipe.scored.unassigned)
        return ScoredBatches(
            [self.dataset.batch(work.batch(step), plan.length) for step in steps],
            [self.dataset.batch(places, plan.length) for places in other],
        )

    def contributions(self, buffers: dict[str, Floats], rng: np.random.Generator) -> dict[str, Contribution]:
        """What everybody shows; `buffers` are then those after it."""
        found: dict[str, Contribution] = {}
        for place, (kind, share) in enumerate(CAST):
            name = _name(place)
            if kind == "work":
                found[name], buffers[name] = self._trained(name, share, buffers[name])
            elif kind == "copy":
                found[name] = found[_name(int(rng.integers(CAST.count(("work", 1.0)))))]
            else:
                found[name] = _noise(self.model.size, statistics.median(one.norm for one in found.values()), rng)
        return found

    def steps(
        self, loss: float, found: Mapping[str, Contribution], entered: Mapping[str, float], rng: np.random.Generator
    ) -> tuple[tuple[StepRecord, ...], Floats]:
        """What is taken and what is not, and the next model. `entered`: shares by name."""
        honest = {_name(place): share for place, (kind, share) in enumerate(CAST) if (kind, share) == ("work", 1.0)}
        chosen = [(entered, 1.0)] if entered else []
        chosen += [(honest, 1.0), (honest, 0.5)]
        for count in SUBSETS:
            some = rng.choice(list(honest), count, replace=False)
            chosen.append(({str(name): 1.0 for name in some}, 1.0))
        records, models = [], []
        for names, length in chosen:
            update = aggregate({name: found[name] for name in names})
            models.append(outer_step(self.model, update, length * self.recipe.outer_rate))
            drop = loss - validation_loss(self.trainer, models[-1], self.dataset, self.recipe)
            share = statistics.fmean(names.values())
            records.append(StepRecord(count=len(names), share=share, length=length, drop=drop))
        return tuple(records), models[0] if entered else self.model

    def _block(self, phase: str) -> bytes:
        """Stands for the seed that a block's hash gives."""
        block = hashlib.sha256(f"loss runs|{self.seed}|{self.window}|{phase}".encode()).digest()
        return window_seed(block, self.window)

    def _work(self, worker: str) -> Work:
        return assign(self._block("assign"), worker, self.dataset.tokens_of(), self.recipe.tasks.plan)

    def _trained(self, worker: str, share: float, before: Floats) -> tuple[Contribution, Floats]:
        work, tasks = self._work(worker), self.recipe.tasks
        fewer = int(share * tasks.steps)
        recipe = self.recipe.model_copy(update={"tasks": tasks.model_copy(update={"steps": fewer})})
        at = self.window * tasks.steps // fewer  # learning rates follow from the steps before this window
        trained = train_window(
            self.trainer,
            self.model,
            before,
            lambda step: self.dataset.batch(work.batch(step), tasks.length),
            recipe,
            at,
        )
        return trained.contribution, trained.after


def _noise(size: int, norm: float, rng: np.random.Generator) -> Contribution:
    plain = compress(rng.standard_normal(size).astype(np.float32))
    return compress(((norm / plain.norm) * plain.dense()).astype(np.float32))
