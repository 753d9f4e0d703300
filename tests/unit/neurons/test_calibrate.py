"""`touchstone calibrate` as a user runs it, with a tiny model: measured once, resumed, and held against answers."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from neurons.calibrate import BATCH, SAMPLED, SEED
from neurons.cli import app
from protocol.calibration import answers_needed
from template.inference import calibrations
from template.inference.engine import ContinuousBatchingEngine, EngineSettings
from template.inference.honest import CHECKS, MINER, WAYS, by_chunks, challenges
from template.inference.models import LoadedModel, load_model
from template.inference.service import GenerateService
from template.inference.sources import ModelSettings
from tests.support.inference import collect, write_tiny_model
from tests.support.plans import calibration_of

runner = CliRunner()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_tiny_model(folder / "origin")
    return folder


@pytest.fixture(scope="module")
def loaded(home: Path) -> LoadedModel:
    return load_model(ModelSettings(source="path", name=str(home / "origin"), cache=home / "cache"))


@pytest.fixture(autouse=True)
def cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOUCHSTONE_CACHE", str(home / "cache"))


def calibrate(home: Path, *more: str) -> tuple[int, Any]:
    model = ["--model-source", "path", "--model-name", str(home / "origin")]
    result = runner.invoke(app, ["calibrate", *model, *more, "--json"])
    return result.exit_code, json.loads(result.stdout) if result.stdout.startswith("{") else result.output


def test_a_sample_of_all_ways_becomes_the_calibration_in_force_and_is_not_measured_twice(
    home: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("template.inference.honest.POOLS", 300)  # the ten thousand of a calibration take 25 s
    code, report = calibrate(home, "--tokens", "1000", "--target", "0.05")
    assert code == 0, report
    sample = report["sample"]
    assert sample["answers"] == BATCH >= answers_needed(0.05) and sample["tokens"] >= 1000
    assert sample["match"] == 1.0 and sample["distance"]["maximum"] < 1e-4 and sample["pool_mean"]["count"] > 0
    assert set(sample["variants"]) == {way.name for way in WAYS} | {f"checked {name}" for name, _ in CHECKS}
    assert sum(sample["variants"].values()) == 2 * BATCH
    found = calibrations.calibration_for(loaded.identity)
    assert found is not None and found.digest == report["digest"] and found.target == 0.05

    records = Path(report["file"]).with_suffix(".records.jsonl")
    whole = records.read_bytes()
    records.write_bytes(whole + b'{"number": 9999, "way": "killed in the mid')  # as `kill -9` leaves it
    code, again = calibrate(home, "--tokens", "1000", "--target", "0.05")
    assert code == 0 and again == report and records.read_bytes() == whole


def test_a_sample_too_small_for_the_target_cannot_be_asked_for(home: Path) -> None:
    code, told = calibrate(home, "--target", "0")
    assert code != 0 and "target" in told


def test_fresh_answers_are_held_against_the_calibration(home: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    file = tmp_path / "thresholds.json"
    calibrations.write(file, calibration_of(loaded.identity))
    code, report = calibrate(home, "--check", "--answers", "64", "--out", str(file))
    assert code == 0 and report["outcomes"] == {"accept": 64, "reject": 0, "inconclusive": 0}
    assert 0 < report["false_positive_bound"] < 0.05

    calibrations.write(file, calibration_of(loaded.identity).model_copy(update={"distance": 0.0}))
    code, report = calibrate(home, "--check", "--answers", "64", "--out", str(file))
    assert code == 1 and report["reasons"]["fingerprint"] > 0 and report["false_positive_bound"] is None

    other = calibration_of(loaded.identity).model_copy(update={"root": "ab" * 32})
    calibrations.write(file, other)
    code, report = calibrate(home, "--check", "--answers", "8", "--out", str(file))
    assert code == 1 and report["outcomes"]["inconclusive"] == 8, "what was not judged did not count"


def test_files_that_are_no_calibration_are_named(home: Path, tmp_path: Path) -> None:
    (tmp_path / "garbage.json").write_text('{"root": 1}')
    for name, what in (("garbage.json", "no calibration"), ("absent.json", "cannot read")):
        code, told = calibrate(home, "--check", "--answers", "8", "--out", str(tmp_path / name))
        assert code == 1 and what in told


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_another_implementation_gives_the_engines_answers(loaded: LoadedModel, piece: int) -> None:
    asked = challenges(loaded, range(4), SAMPLED, SEED)

    async def served() -> list[Any]:
        async with ContinuousBatchingEngine(loaded, EngineSettings()) as engine:
            service = GenerateService(engine, loaded.identity, MINER)
            return [(await collect(service(challenge.request)))[0] for challenge in asked]

    for challenge, response in zip(asked, asyncio.run(served()), strict=True):
        own = by_chunks(loaded, challenge, piece)
        assert (own.token_ids, own.finish_reason) == (response.token_ids, response.finish_reason)
