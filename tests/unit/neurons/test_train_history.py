"""`touchstone train status`, `replay` and `privacy` as they are typed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from neurons.cli import app
from neurons.train_history import check_seeds
from protocol.training.ratings import TrainState
from protocol.training.records import WindowRecord
from protocol.training.windows import Phase
from template.training.following import HistoryBroken
from template.training.ledger import TrainLedger, VerdictRow, WindowRow


def test_status_gives_one_document_and_a_picture(tmp_path: Path) -> None:
    ledger, picture, names = tmp_path / "ledger.sqlite", tmp_path / "picture.png", tmp_path / "names.json"
    with TrainLedger(ledger) as kept:
        for window in range(3):
            rows = [VerdictRow("alice", "accept", "ok", "", 0.2, 0.1, True, True), VerdictRow("bob", "reject", "stale")]
            kept.commit(WindowRow(window, "ab" * 32, 4.0 - window, 1), {"alice": TrainState("alice")}, rows)
    names.write_text('{"alice": "Alice"}')
    given = ["train", "status", "--ledger", str(ledger), "--picture", str(picture), "--names", str(names)]
    result = CliRunner().invoke(app, [*given, "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [row["loss"] for row in document["windows"]] == [4.0, 3.0, 2.0]
    assert [(row["window"], row["hotkey"]) for row in document["verdicts"]] == [
        (window, hotkey) for window in range(3) for hotkey in ("alice", "bob")
    ]
    assert document["ratings"][0]["hotkey"] == "alice"
    assert picture.read_bytes().startswith(b"\x89PNG")

    names.write_text('{"alice": 1}')
    refused = CliRunner().invoke(app, given)
    assert refused.exit_code == 1 and "no table of names" in refused.output


def test_privacy_tells_what_noise_is_worth_and_against_whom() -> None:
    result = CliRunner().invoke(
        app, ["train", "privacy", "--noise", "5", "--windows", "10", "--windows", "0", "--json"]
    )
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [(row["windows"], round(row["epsilon"], 2)) for row in document["epsilon"]] == [(0, 0.0), (10, 2.92)]
    assert "readers of the chain" in document["not_against"]
    for given, told in (([], "either a noise or a subnet"), (["--noise", "0"], "greater than or equal to 0.01")):
        refused = CliRunner().invoke(app, ["train", "privacy", *given])
        assert refused.exit_code == 1 and told in refused.output


@dataclass
class Seeds:
    """What the chain draws, in the place of a WindowView."""

    async def seed(self, window: int, phase: Phase) -> bytes:
        assert phase is Phase.AGGREGATE
        return bytes([window]) * 32


async def test_a_replay_takes_no_noise_that_the_chain_did_not_draw() -> None:
    def record(window: int, seed: str | None) -> WindowRecord:
        return WindowRecord(
            window=window, recipe="ab" * 32, base="ab" * 32, contributions=(), root="ab" * 32, previous=None,
            checkpoint=None, seed=seed,
        )  # fmt: skip

    await check_seeds([record(1, "01" * 32), record(2, None)], Seeds())
    with pytest.raises(HistoryBroken, match="window 2 is not drawn from its block"):
        await check_seeds([record(1, "01" * 32), record(2, "01" * 32)], Seeds())
