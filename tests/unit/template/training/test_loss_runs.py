"""Real trainings for the loss model: every kind of contribution is measured, and the model learns."""

import itertools
from pathlib import Path

import pytest

from protocol.training.recipe import Inner, Tasks
from template.training.building import Aim, build
from template.training.dataset import Dataset
from template.training.loss_records import CAST, Plan, WindowRecord
from template.training.loss_runs import SUBSETS, open_dataset, recipe_of, run
from template.training.texts import mixed
from template.training.tokens import train

TEXTS = [f"The {number % 7} cats saw {number % 5} dogs on day {number}, and went home." for number in range(400)]
PLAN = Plan(windows=3, hidden=32, layers=1, tasks=Tasks(steps=4, batch=4, length=16), inner=Inner(peak=1e-2, warmup=1))
HONEST = CAST.count(("work", 1.0))


@pytest.fixture
async def dataset(tmp_path: Path) -> Dataset:
    aim = Aim("some-texts", train(TEXTS, 280), shard_tokens=800, validation=0.1, sources=("here",), licences=("CC0",))
    await build(aim, mixed(TEXTS), tmp_path / "built", lambda text: None)
    return await open_dataset(tmp_path / "built", tmp_path / "cache")


async def test_a_run_measures_everybody_and_learns(dataset: Dataset) -> None:
    records = list(run(dataset, PLAN, seed=1))
    assert [record.window for record in records] == [0, 1, 2] and records[2].loss < records[0].loss - 0.05
    for record in records:
        assert [(score.kind, score.share) for score in record.scores] == list(CAST)
        whole = [score.assigned for score in record.scores[:HONEST]]
        noise = record.scores[-1]
        assert min(whole) > max(noise.assigned, noise.unassigned)
        *_, all_of_them, shorter, one, two, four = record.steps
        assert [step.count for step in (all_of_them, shorter, one, two, four)] == [HONEST, HONEST, *SUBSETS]
        assert (all_of_them.length, shorter.length) == (1.0, 0.5)
        assert WindowRecord.model_validate_json(record.model_dump_json()) == record
    assert all(a.loss - b.loss == a.steps[0].drop for a, b in itertools.pairwise(records)), "it was taken"


async def test_a_seed_gives_the_same_run_and_another_one_another(dataset: Dataset) -> None:
    plan = PLAN.model_copy(update={"windows": 1})
    first, again, other = (list(run(dataset, plan, seed)) for seed in (1, 1, 2))
    assert first == again and first != other
    assert recipe_of(dataset, plan, 1)[0].id != recipe_of(dataset, plan, 2)[0].id
