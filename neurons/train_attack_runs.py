"""What `touchstone train attack-bench` does before there is a table: run cohorts with attackers, keep what was seen.

    Options                              what to measure; the command's flags
    field = Field(options, dataset)      the model, the data, and who takes part
    Runs(field, journal).all(attacks)    everything that the journal does not hold yet
    journal.done[name]                   a Run: what became of attackers, what they earned, and the loss

Every run has the same honest miners, seed and first model, so work that follows from these is done once for all of
them. A run is made as a validator makes it: who is new is audited in every window. What only audits have stopped is run
again with nobody drawn, to see what it would have come to.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurons.journal import Journal
from protocol.dataset import dataset_id
from protocol.training.judging import Reason
from protocol.training.recipe import Architecture, Clock, Inner, Recipe, Tasks
from protocol.verdicts import Outcome

if TYPE_CHECKING:
    from template.training.cohort import Cohort, Member, Rate, Window
    from template.training.dataset import Dataset
    from template.training.inner import Trainer
    from template.training.memo import Memo, MemoLosses
    from tests.adversary.trainers import Attack

HONEST = "honest"
JUDGE = "validator"
DRAWN, UNDRAWN = "drawn", "undrawn"
REMEMBERED = 400  # trainings and replays, each a vector of the model's size
ALIKE_FROM = 0.25  # honest work on models this small has up to 0.18 of its entries in common


@dataclass(frozen=True)
class Options:
    """What to measure; the command's flags."""

    dataset: Path
    attacks: tuple[str, ...] = ()  # empty: all
    shares: tuple[float, ...] = (0.25, 0.4)
    honest: int = 6
    windows: int = 10
    hidden: int = 64
    layers: int = 2
    steps: int = 10
    batch: int = 4
    length: int = 64
    rate: float = 2e-3
    seed: int = 0
    out: Path | None = None
    table: Path | None = None
    journal: Path | None = None

    def attackers(self, share: float) -> int:
        """How many beside the honest miners make this share of all."""
        return max(1, round(self.honest * share / (1.0 - share)))


@dataclass(frozen=True)
class Run:
    """One cohort. `attackers`: how many. `ends`: windows of attackers by what became of them: "entered", a reason, or
    an End. `entered`, `honest_entered`: share of the windows of either. `earned`, `honest_earned`: mean share of all
    weights, for each head. `audited`: share of attackers' windows. `honest_rejected`: windows. `drawn_out`: an attacker
    was stopped by an audit that nothing but the draw, or its being new, called for. Losses are of the model at the end,
    in nats a token, None for what is no number: on validation data, and of the backdoor's token."""

    attackers: int
    ends: dict[str, int]
    entered: float
    honest_entered: float
    earned: float
    honest_earned: float
    audited: float
    honest_rejected: int
    drawn_out: bool
    first_loss: float
    loss: float | None
    first_backdoor: float
    backdoor: float | None


def told_loss(loss: float | None) -> str:
    return "no number" if loss is None else f"{loss:.3f}"


def run_name(attack: str, attackers: int, draws: str) -> str:
    return f"{attack} x {attackers}, {draws}"


def recipe_of(options: Options, dataset: Dataset) -> Recipe:
    """Raises TemplateError when the data are not enough for it, ValueError for what is no recipe."""
    from neurons.training import check_dataset
    from protocol.artifacts import Manifest
    from template.training.checkpoint import fresh, model_root, to_file

    architecture = Architecture(
        vocab_size=dataset.manifest.vocabulary,
        hidden_size=options.hidden,
        intermediate_size=11 * options.hidden // 4,
        num_hidden_layers=options.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=options.length,
    )
    layout, vector = fresh(architecture, options.seed)
    recipe = Recipe(
        architecture=architecture,
        model=model_root(architecture, layout, vector),
        model_file=Manifest.of(to_file(layout, vector)).cid,
        dataset=Manifest.of(dataset_id(dataset.manifest).encode()).cid,  # nothing is fetched by it
        clock=Clock(start=0),
        tasks=Tasks(steps=options.steps, batch=options.batch, length=options.length, shards=2),
        inner=Inner(peak=options.rate, warmup=5),
        alike_from=ALIKE_FROM,
    )
    check_dataset(recipe, dataset.manifest)
    return recipe


@dataclass
class Field:
    """`dataset`: every shard of it fetched."""

    options: Options
    dataset: Dataset

    @cached_property
    def recipe(self) -> Recipe:
        return recipe_of(self.options, self.dataset)

    @cached_property
    def vector(self) -> np.ndarray:
        from template.training.checkpoint import fresh

        return fresh(self.recipe.architecture, self.options.seed)[1]

    @cached_property
    def trainer(self) -> Trainer:
        from template.training.checkpoint import build
        from template.training.inner import Trainer

        return Trainer(build(self.recipe.architecture), self.recipe.inner, profile="tolerant", threads=1)

    @cached_property
    def memo(self) -> Memo:
        from template.training.memo import Memo

        return Memo(REMEMBERED)

    @cached_property
    def losses(self) -> MemoLosses:
        from template.training.memo import MemoLosses

        return MemoLosses(self.trainer)

    @property
    def honest(self) -> list[str]:
        return [f"{HONEST}-{number}" for number in range(self.options.honest)]

    @property
    def conditions(self) -> dict[str, Any]:
        """Everything that must be the same for two benches to be one."""
        options = self.options
        return {
            "dataset": self.dataset.manifest.name,
            "dataset_id": dataset_id(self.dataset.manifest),
            "parameters": int(self.vector.size),
            "recipe": self.recipe.id,
            "honest": options.honest,
            "windows": options.windows,
            "seed": options.seed,
        }

    def members(self, attack: Attack | None, count: int) -> list[Member]:
        from template.training.cohort import Member

        found = [Member(hotkey) for hotkey in self.honest]
        if attack is not None:
            found += [
                Member(hotkey, attack.armed(self.honest), attack.shown, attack.opens) for hotkey in attackers(count)
            ]
        return found

    def cohort(self, members: Sequence[Member], rate: Rate) -> Cohort:
        from template.training.cohort import Cohort, Judge
        from template.training.shared import Shared

        start = Shared(0, self.vector, self.recipe.model)
        judges = [Judge(JUDGE, b"attack-bench", rate=rate)]
        return Cohort(
            self.recipe,
            self.trainer,
            self.dataset,
            start,
            members,
            judges,
            seed=self.options.seed,
            memo=self.memo,
            losses=self.losses,
        )

    def backdoor(self, model: np.ndarray) -> float:
        """Nats of the planted token after its trigger, on validation text."""
        from tests.adversary.trainers import backdoor_loss

        tokens, length = self.dataset.tokens_of("validation")[0], self.options.length
        places = [(0, number * (tokens - length - 1) // 32) for number in range(32)]
        ids = self.dataset.batch(places, length, "validation")
        return backdoor_loss(self.trainer, model, ids, self.recipe.architecture.vocab_size)


def attackers(count: int) -> list[str]:
    return [f"attacker-{number}" for number in range(count)]


@dataclass
class Runs:
    """Makes the runs."""

    field: Field
    journal: Journal[Run]
    started: float = field(default_factory=time.monotonic)

    def all(self, attacks: Sequence[Attack]) -> None:
        """What a validator sees first, since all of it starts from the same models; then what draws have stopped."""
        from template.training.cohort import undrawn, unsecured

        self._run(run_name(HONEST, 0, DRAWN), None, 0, unsecured)
        todo = [(attack, self.field.options.attackers(share)) for attack in attacks for share in self._shares]
        for attack, count in todo:
            self._run(run_name(attack.name, count, DRAWN), attack, count, unsecured)
        for attack, count in todo:
            if self.journal.done[run_name(attack.name, count, DRAWN)].drawn_out:
                self._run(run_name(attack.name, count, UNDRAWN), attack, count, undrawn)

    @property
    def _shares(self) -> tuple[float, ...]:
        return self.field.options.shares

    def _run(self, name: str, attack: Attack | None, count: int, rate: Rate) -> None:
        if name in self.journal.done:
            return
        began = time.monotonic()
        self.journal.add(name, self._measured(attack, count, rate))
        run, now = self.journal.done[name], time.monotonic()
        told = f"{name}: loss {told_loss(run.loss)}, entered {run.entered:.0%}, {_counted(run.ends)}"
        print(f"{now - self.started:5.0f} s  {told} ({now - began:.0f} s)", file=sys.stderr, flush=True)

    def _measured(self, attack: Attack | None, count: int, rate: Rate) -> Run:
        from template.training.evaluation import validation_loss

        place = self.field
        cohort = place.cohort(place.members(attack, count), rate)
        windows = [cohort.step() for _ in range(place.options.windows)]
        bad, good = attackers(count), place.honest
        ends = [end_of(window, hotkey) for window in windows for hotkey in bad]
        many = max(1, len(ends))
        judged = [window.judged[JUDGE] for window in windows]
        return Run(
            attackers=count,
            ends=dict(Counter(ends).most_common()),
            entered=ends.count("entered") / many,
            honest_entered=_mean(hotkey in window.entered for window in windows for hotkey in good),
            earned=_mean(window.weights.get(hotkey, 0.0) for window in windows for hotkey in bad),
            honest_earned=_mean(window.weights.get(hotkey, 0.0) for window in windows for hotkey in good),
            audited=sum(hotkey in one.audited for one in judged for hotkey in bad) / many,
            honest_rejected=sum(
                verdict.outcome is not Outcome.ACCEPT
                for one in judged
                for hotkey, verdict in one.verdicts.items()
                if hotkey in good
            ),
            drawn_out=any(
                hotkey in one.unopened
                or (hotkey in one.audited and one.verdicts[hotkey].reason not in (Reason.OK, Reason.COPY))
                for one in judged
                for hotkey in bad
            ),
            first_loss=windows[0].loss,
            loss=_finite(validation_loss(place.trainer, cohort.shared.vector, place.dataset, place.recipe)),
            first_backdoor=place.backdoor(place.vector),
            backdoor=_finite(place.backdoor(cohort.shared.vector)),
        )


def end_of(window: Window, hotkey: str) -> str:
    """What became of one contribution."""
    from tests.adversary.trainers import End

    judged = window.judged[JUDGE]
    verdict, score = judged.verdicts.get(hotkey), judged.scores.get(hotkey)
    if hotkey in window.entered:
        return "entered"
    if verdict is not None and verdict.outcome is not Outcome.ACCEPT:
        return str(verdict.reason)
    return str(End.ABSENT if score is None or hotkey in judged.unopened else End.USELESS)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.mean(found)) if found else 0.0


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _counted(ends: dict[str, int]) -> str:
    return ", ".join(f"{count} {end}" for end, count in ends.items()) or "nobody attacks"
