"""`touchstone simulate training`: a result that adds up, and a fit that goes on where it was."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from neurons import simulate, simulate_fit
from neurons.cli import app
from neurons.training import NoTraining
from protocol.training.recipe import Inner, Tasks
from template.errors import TemplateError
from template.training import loss_fit
from template.training.building import Aim, build
from template.training.loss_fit import Conditions, LossFit
from template.training.loss_records import Plan
from template.training.texts import mixed
from template.training.tokens import train
from tests.support.losses import LOSSES

runner = CliRunner()
TEXTS = [f"The {number % 7} cats saw {number % 5} dogs on day {number}, and went home." for number in range(400)]
TINY = {
    "windows": 15, "hidden": 16, "layers": 1,
    "tasks": Tasks(steps=4, batch=2, length=16), "inner": Inner(peak=1e-2, warmup=4),
}  # fmt: skip


@pytest.fixture
def losses(tmp_path: Path) -> Path:
    about = Conditions(
        dataset="ab" * 32, dataset_name="none", parameters=1, plan=Plan(), cast={}, seeds=(0,), windows=80,
        versions={}, processor="none",
    )  # fmt: skip
    loss_fit.write(tmp_path / "losses.json", LossFit(model=LOSSES, losses=(7.6, 5.0), residuals={}, conditions=about))
    return tmp_path / "losses.json"


def result(losses: Path, *options: str) -> dict[str, Any]:
    given = ["simulate", "training", "--windows", "30", "--losses", str(losses), "--json", *options]
    done = runner.invoke(app, given)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_earnings_add_up_and_a_seed_gives_them_again(losses: Path, tmp_path: Path) -> None:
    options = ("--peers", "20", "--mix", "honest=0.7,lazy=0.2,noise=0.1", "--seed", "4")
    found = result(losses, *options, "--out", str(tmp_path / "out.json"))
    rows = found["strategies"]
    assert {name: row["peers"] for name, row in rows.items()} == {"honest": 14, "lazy": 4, "noise": 2}
    assert sum(row["earned"] for row in rows.values()) + found["burned"] == pytest.approx(30 * 12.3)
    assert rows["honest"]["of_honest"] == 1.0 and rows["honest"]["rejected"] == 0
    assert rows["honest"]["net_per_work"] == pytest.approx(rows["honest"]["earned"] / (14 * 30))
    assert rows["lazy"]["of_honest"] == rows["lazy"]["entered"] == 0.0 and rows["lazy"]["rejected"] > 0
    assert rows["noise"]["net_per_work"] is None, "it did no work that it could be divided by"
    course = found["loss"]["course"]
    assert (course["0"], course["30"]) == (found["loss"]["start"], found["loss"]["end"])
    assert found["loss"]["drop_all_honest"] > found["loss"]["drop"] > 0.0
    assert found["loss"]["start"] - found["loss"]["end"] == pytest.approx(found["loss"]["drop"])
    beyond = found["loss_model"]["windows_beyond"]
    assert found["loss"]["end"] > 5.0 or beyond > 0, "the fit says that it was made on losses above 5"
    assert json.loads((tmp_path / "out.json").read_text()) == found
    again = result(losses, *options)
    assert {**again, "seconds": 0} == {**found, "seconds": 0}
    assert result(losses, *options[:-1], "5")["loss"]["end"] != found["loss"]["end"]


def test_a_friendly_validator_has_the_stake_that_was_asked_for(losses: Path) -> None:
    options = ("--peers", "10", "--mix", "honest=0.8,friend=0.2", "--friendly")
    few, many = (result(losses, *options, share)["strategies"]["friend"] for share in ("0.3", "0.6"))
    assert few["earned"] == 0.0 and many["earned"] == pytest.approx(30 * 12.3)


def test_a_held_model_stays_and_says_what_a_step_would_take(losses: Path) -> None:
    found = result(losses, "--peers", "10", "--mix", "honest=1", "--hold", "6.5")
    assert set(found["loss"]["course"].values()) == {6.5} and found["loss_model"]["windows_beyond"] == 0
    assert found["loss"]["drop"] == pytest.approx(30 * LOSSES.drop(6.5, np.ones(8)), rel=0.2)
    below = result(losses, "--peers", "10", "--mix", "honest=1", "--hold", "4.5")
    assert below["loss_model"]["windows_beyond"] == 30 and below["loss"]["drop"] < found["loss"]["drop"]


def test_a_table_for_people(losses: Path) -> None:
    done = runner.invoke(app, ["simulate", "training", "--peers", "40", "--windows", "5", "--losses", str(losses)])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[2:12]] == [part.split("=")[0] for part in simulate.MIX.split(",")]
    assert "if all were honest" in done.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--mix", "king=1"), "no strategy 'king'"),
        (("--mix", "honest=0.5"), "sum to 1"),
        (("--losses", "nothing.json"), "cannot read nothing.json"),
        (("--fit", "new.json", "--dataset", "nowhere"), "there is no dataset in nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(options: tuple[str, str], told: str) -> None:
    done = runner.invoke(app, ["simulate", "training", *options])
    assert done.exit_code == 1 and told in done.output and "Traceback" not in done.output


async def made(folder: Path, shard_tokens: int = 800) -> Path:
    aim = Aim("some-texts", train(TEXTS, 280), shard_tokens, validation=0.1, sources=("here",), licences=("CC0",))
    await build(aim, mixed(TEXTS), folder, lambda text: None)
    return folder


async def test_a_fit_runs_trainings_and_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, dataset = tmp_path / "fit.json", await made(tmp_path / "data")
    options = simulate_fit.FitOptions(file, dataset, seeds=1, plan=TINY)
    assert await simulate_fit.fit(options, as_json=True) == 0
    found, told = loss_fit.read(file), capsys.readouterr()
    assert json.loads(told.out)["digest"] == found.digest and told.err.count("seed 0: window") == 15
    assert (found.conditions.dataset_name, found.conditions.windows, found.conditions.seeds) == ("some-texts", 15, (0,))
    assert found.residuals["steps"].count > 0 and found.model.start > found.losses[1]

    journal = tmp_path / "fit.records.jsonl"
    whole = journal.read_text()
    first = json.loads(whole.splitlines()[1])
    journal.write_text(whole + json.dumps({**first, "seed": 1}) + "\n" + '{"seed": 1, "win')  # killed in the next one
    assert await simulate_fit.fit(options, as_json=False) == 0
    told = capsys.readouterr()
    assert "window" not in told.err and "steps" in told.out, "what is finished is not run again"
    assert loss_fit.read(file) == found and journal.read_text() == whole

    other = simulate_fit.FitOptions(file, dataset, seeds=1, plan={**TINY, "hidden": 32})
    with pytest.raises(TemplateError, match="other conditions"):
        await simulate_fit.fit(other, as_json=False)
    journal.write_text(whole.splitlines()[0] + "\n{}\n")
    with pytest.raises(TemplateError, match="something else than records"):
        await simulate_fit.fit(options, as_json=False)


async def test_a_dataset_that_is_too_small_is_refused_before_anything_runs(tmp_path: Path) -> None:
    dataset = await made(tmp_path / "data", shard_tokens=100_000)
    with pytest.raises(NoTraining, match="none is left to compare with"):
        await simulate_fit.fit(simulate_fit.FitOptions(tmp_path / "fit.json", dataset, 1, TINY), as_json=True)
    assert not (tmp_path / "fit.records.jsonl").exists()
