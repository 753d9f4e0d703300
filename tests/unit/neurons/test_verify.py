"""`touchstone verify` and `touchstone evidence` as a user runs them: what they print, and the exit status that scripts
rely on. 0 is agreement, 1 is not, 2 is "could not be checked"."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from neurons.cli import app
from protocol.evidence import Evidence, decode_evidence
from protocol.verdicts import Outcome, Reason, Verdict
from template.inference import calibrations
from template.inference.models import LoadedModel, load_model
from template.inference.sources import ModelSettings
from template.ledger import Ledger
from tests.support.evidence import MINER, VALIDATOR, newest, play
from tests.support.inference import write_tiny_model
from tests.support.plans import calibration_of

runner = CliRunner()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def loaded(home: Path) -> LoadedModel:
    origin = write_tiny_model(home / "origin")
    return load_model(ModelSettings(source="path", name=str(origin), cache=home / "cache"))


@pytest.fixture(scope="module")
def ledgers(home: Path, loaded: LoadedModel) -> Mapping[str, Path]:
    """A ledger after one round with an honest miner, and one after a round with a cheat."""
    found = {}
    for kind in ("honest", "tampered"):
        found[kind] = home / kind / "ledger.sqlite"
        with Ledger(found[kind]) as ledger:
            asyncio.run(play(loaded, ledger, kind, calibration_of(loaded.identity)))
    return found


@pytest.fixture
def thresholds(home: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has thresholds for the model, and its cache is the test's."""
    monkeypatch.setenv("TOUCHSTONE_CACHE", str(home / "cache"))
    calibrations.write(
        calibrations.own_folder() / calibrations.file_name(loaded.identity), calibration_of(loaded.identity)
    )


def export(ledger: Path, out: Path) -> Evidence:
    listed = json.loads(runner.invoke(app, ["evidence", "--ledger", str(ledger), "--json"]).stdout)["evidence"]
    assert len(listed) == 1 and listed[0]["miner"] == MINER.ss58
    digest = listed[0]["digest"]
    done = runner.invoke(app, ["evidence", digest, "--ledger", str(ledger), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    evidence = decode_evidence(out.read_bytes())
    assert json.loads(done.stdout)["digest"] == digest == evidence.digest
    return evidence


def verify(file: Path, home: Path, *more: str) -> tuple[int, dict[str, Any]]:
    model = ["--model-source", "path", "--model-name", str(home / "origin")]
    result = runner.invoke(app, ["verify", str(file), *model, *more, "--json"])
    return result.exit_code, json.loads(result.stdout)


def signed_by_validator(evidence: Evidence) -> bytes:
    return evidence.model_copy(update={"signature": VALIDATOR.sign(evidence.signed_payload)}).to_json()


@pytest.mark.parametrize(("kind", "outcome"), [("honest", "accept"), ("tampered", "reject")])
@pytest.mark.usefixtures("thresholds")
def test_an_exported_verdict_is_recomputed(
    ledgers: Mapping[str, Path], home: Path, tmp_path: Path, kind: str, outcome: str
) -> None:
    export(ledgers[kind], tmp_path / "evidence.json")
    code, report = verify(tmp_path / "evidence.json", home)
    assert code == 0 and report["finding"] == "agrees" and report["why"] == []
    assert report["claimed"]["outcome"] == report["recomputed"]["outcome"] == outcome
    assert report["recomputed"]["numbers"]["tokens"] == report["claimed"]["numbers"]["tokens"]
    shown = runner.invoke(
        app,
        ["verify", str(tmp_path / "evidence.json"), "--model-source", "path", "--model-name", str(home / "origin")],
    )
    assert shown.exit_code == 0 and "claimed" in shown.stdout and "agrees" in shown.stdout


@pytest.mark.usefixtures("thresholds")
def test_a_false_verdict_disagrees(ledgers: Mapping[str, Path], home: Path, tmp_path: Path) -> None:
    honest = export(ledgers["honest"], tmp_path / "honest.json")
    numbers = dict(honest.verdict.numbers)
    false = Verdict(Outcome.REJECT, Reason.MEAN_MARGIN, "made up", numbers, honest.verdict.calibration)
    file = tmp_path / "false.json"
    file.write_bytes(signed_by_validator(honest.model_copy(update={"verdict": false})))
    code, report = verify(file, home)
    assert code == 1 and report["finding"] == "disagrees"
    assert report["recomputed"]["outcome"] == "accept" and "it is accept" in report["why"][0]
    form = Verdict(Outcome.REJECT, Reason.TOO_SHORT, "made up")
    file.write_bytes(signed_by_validator(honest.model_copy(update={"verdict": form, "calibration": None})))
    code, report = verify(file, home)
    assert code == 1 and report["finding"] == "disagrees"


def test_a_changed_file_is_refused_without_a_model(ledgers: Mapping[str, Path], home: Path, tmp_path: Path) -> None:
    file = tmp_path / "evidence.json"
    export(ledgers["tampered"], file)
    file.write_bytes(file.read_bytes().replace(b'"outcome":"reject"', b'"outcome":"accept"'))
    code, report = verify(file, tmp_path / "there is no model here")
    assert code == 1 and report["finding"] == "refused"
    assert {"outcome", "validator_signature"} <= {problem["code"] for problem in report["problems"]}
    file.write_bytes(b"{}")
    code, report = verify(file, home)
    assert code == 1 and report["finding"] == "refused" and "not evidence" in report["why"][0]


def test_what_could_not_be_checked_is_never_agreement(
    ledgers: Mapping[str, Path], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "evidence.json"
    export(ledgers["honest"], file)
    monkeypatch.setenv("TOUCHSTONE_CACHE", str(tmp_path / "empty"))
    code, report = verify(file, home)
    assert code == 2 and report["finding"] == "unchecked" and "thresholds" in report["why"][0]
    code, report = verify(file, tmp_path)
    assert code == 2 and report["finding"] == "unchecked", "a model that cannot be loaded"
    write_tiny_model(tmp_path / "origin", seed=1)
    code, report = verify(file, tmp_path)
    assert code == 2 and "this machine holds" in report["why"][0], "another model"
    code, report = verify(tmp_path / "nothing.json", home)
    assert code == 2 and "cannot read" in report["why"][0]


def test_evidence_that_is_not_there_is_one_line(ledgers: Mapping[str, Path], tmp_path: Path) -> None:
    for arguments in (["ab" * 32], ["--miner", VALIDATOR.ss58, "--out", str(tmp_path / "x")]):
        result = runner.invoke(app, ["evidence", *arguments, "--ledger", str(ledgers["honest"])])
        assert result.exit_code == 1 and "error:" in result.output
    result = runner.invoke(app, ["evidence", "--from", VALIDATOR.ss58])
    assert result.exit_code == 1 and "--netuid" in result.output


def test_evidence_outlives_a_restart_and_damage_is_seen(ledgers: Mapping[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "ledger.sqlite"
    with Ledger(ledgers["honest"], create=False) as ledger:
        before = newest(ledger)
        ledger._db.execute(f"VACUUM INTO '{copy}'")
    with Ledger(copy) as ledger:
        assert newest(ledger) == before
        ledger._db.execute("UPDATE evidence SET digest = ?", ("ab" * 32,))
    result = runner.invoke(app, ["evidence", "ab" * 32, "--ledger", str(copy)])
    assert result.exit_code == 1 and "damaged" in result.output
