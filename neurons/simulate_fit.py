"""`touchstone simulate training --fit`: the loss model of the simulation, from trainings that are run here.

touchstone simulate training --fit losses.json --dataset english       two trainings of 80 windows, then the fit
touchstone simulate training --losses losses.json                      simulate with it

The file says what was run and how far the fit is off. Some minutes for each seed on one core; finished trainings are
kept beside the file, so that an interrupted fit goes on.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from neurons.output import console, print_json, print_table
from neurons.training import check_dataset
from template.errors import TemplateError

if TYPE_CHECKING:
    from template.training.dataset import Dataset
    from template.training.loss_fit import Conditions, LossFit
    from template.training.loss_records import Plan, WindowRecord


@dataclass(frozen=True)
class FitOptions:
    """Of a fit. `dataset`: a folder; None is the shipped corpus, if it is built where `corpus_folder` says. `plan`:
    fields of template.training.loss_runs.Plan."""

    file: Path
    dataset: Path | None = None
    seeds: int = 2
    plan: Mapping[str, Any] = field(default_factory=dict)


async def fit(options: FitOptions, *, as_json: bool) -> int:
    """Train, fit and write. Raises TemplateError."""
    folder = options.dataset or corpus_folder()
    if not folder.exists():
        remedy = f"build it with: touchstone dataset build --corpus small-english --out {folder}; or give --dataset"
        raise TemplateError(f"there is no dataset in {folder}", remedy=remedy)
    from template.training import loss_fit
    from template.training.loss_records import Plan
    from template.training.loss_runs import open_dataset, recipe_of

    plan, seeds = Plan(**options.plan), range(options.seeds)
    with tempfile.TemporaryDirectory() as cache:
        dataset = await open_dataset(folder, Path(cache))
        recipe, model = recipe_of(dataset, plan, 0)
        check_dataset(recipe, dataset.manifest)
        conditions = loss_fit.conditions_of(dataset.manifest, model.size, plan, seeds)
        records = _run(dataset, plan, seeds, conditions, options.file.with_suffix(".records.jsonl"))
    found = loss_fit.fit_model(records, conditions)
    loss_fit.write(options.file, found)
    if as_json:
        print_json({"file": str(options.file), "digest": found.digest, **found.model_dump(mode="json")})
    else:
        _show_fit(options.file, found)
    return 0


def corpus_folder() -> Path:
    """Where the shipped corpus is looked for."""
    from template.inference.sources import default_cache
    from template.training.corpus import NAME

    return default_cache() / "datasets" / NAME


def _run(
    dataset: Dataset, plan: Plan, seeds: Sequence[int], conditions: Conditions, journal: Path
) -> list[WindowRecord]:
    """The records of all seeds. Those in `journal` are not run again, if they were run under these conditions."""
    from template.training.loss_runs import run

    heading = conditions.model_dump_json(exclude={"seeds", "windows"})
    done = _kept(journal, heading, plan.windows)
    journal.parent.mkdir(parents=True, exist_ok=True)
    lines = [heading, *(record.model_dump_json() for seed in done.values() for record in seed)]
    journal.write_text("".join(line + "\n" for line in lines))
    with journal.open("a") as file:
        for seed in seeds:
            if seed in done:
                continue
            started, done[seed] = time.monotonic(), []
            for record in run(dataset, plan, seed):
                file.write(record.model_dump_json() + "\n")
                file.flush()
                done[seed].append(record)
                count = len(done[seed])
                left = (time.monotonic() - started) / count * (plan.windows - count) / 60
                told = f"seed {seed}: window {count} of {plan.windows}, loss {record.loss:.3f}, {left:.0f} min left"
                print(told, file=sys.stderr, flush=True)
    return [record for seed in seeds for record in done[seed]]


def _kept(journal: Path, heading: str, windows: int) -> dict[int, list[WindowRecord]]:
    """By seed, the trainings in `journal` that are whole. Raises TemplateError when it is of other conditions."""
    from template.training.loss_records import WindowRecord

    if not journal.exists():
        return {}
    first, *lines = journal.read_text().split("\n")[:-1] or [""]
    if first != heading:
        remedy = "move it away, or name another file"
        raise TemplateError(f"{journal} was measured under other conditions", remedy=remedy)
    found: dict[int, list[WindowRecord]] = {}
    try:
        for line in lines:
            record = WindowRecord.model_validate_json(line)
            found.setdefault(record.seed, []).append(record)
    except ValidationError:
        raise TemplateError(f"{journal} holds something else than records", remedy="move it away") from None
    return {seed: records for seed, records in found.items() if len(records) == windows}


def _show_fit(file: Path, found: LossFit) -> None:
    rows = [
        [name, str(one.count), f"{one.deviation:.4f}", f"{one.left:.4f}", f"{one.explained:.0%}"]
        for name, one in found.residuals.items()
    ]
    about = found.conditions
    title = f"{about.windows} windows of {about.parameters:,} parameters on {about.dataset_name}, seeds {about.seeds}"
    print_table(title, ["nats a token", "count>", "deviation>", "left>", "explained>"], rows)
    console.print(f"losses {found.losses[0]:.3f} to {found.losses[1]:.3f}; digest {found.digest}; written to {file}")
