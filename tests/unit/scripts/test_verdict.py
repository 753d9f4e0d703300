"""The main job's verdict has to be able to fail."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lineup import LINEUP
from table import table
from watch import Watcher, verdict_on
from watch_epochs import Epoch

NAMES = [part.name for part in LINEUP]
FAIR = {"validator-1": 40, "validator-2": 20, "miner-fast": 30, "miner-slow": 10}
INCENTIVE = {"miner-fast": 0.75, "miner-slow": 0.25}


def watcher(emission: dict[str, int], incentive: dict[str, float]) -> Watcher:
    nowhere: Any = None  # the verdict looks only at what was collected
    found = Watcher(nowhere, 2, LINEUP, {name: f"5{name}" for name in NAMES}, Path())
    found.epochs = [Epoch(1, 100, {}, {}, {}), Epoch(2, 340, incentive, {}, emission)]
    return found


def test_fair_pay_has_no_problems() -> None:
    found = watcher(FAIR, INCENTIVE)
    assert verdict_on(found) == []
    assert [epoch.index for epoch in found.paid] == [2]


@pytest.mark.parametrize(
    ("emission", "incentive", "problem"),
    [
        ({**FAIR, "miner-slow": 0}, {"miner-fast": 1.0}, "miner-slow is honest and earned nothing"),
        (FAIR, {**INCENTIVE, "miner-damaged": 0.001}, "miner-damaged is dishonest"),
        (FAIR, {**INCENTIVE, "miner-late": 0.2}, "miner-late is dishonest"),
        ({**FAIR, "miner-slow": 31}, INCENTIVE, "miner-fast is faster than miner-slow and did not earn more"),
        ({**FAIR, "validator-2": 0}, INCENTIVE, "validator-2 validated and earned nothing"),
        ({}, {}, "miner-fast is honest and earned nothing"),
    ],
)
def test_unfair_pay_is_named(emission: dict[str, int], incentive: dict[str, float], problem: str) -> None:
    assert any(problem in said for said in verdict_on(watcher(emission, incentive)))


@pytest.mark.parametrize("width", [80, 110, 160])
def test_the_table_shows_incentive_and_earnings_at_any_width(width: int) -> None:
    from rich.console import Console

    console = Console(width=width, record=True)
    console.print(table(watcher(FAIR, INCENTIVE).rows(), "title", width))
    text = console.export_text()
    assert all(name in text for name in (*NAMES, "incentive", "alpha", "score", "weight"))


def test_a_report_that_could_not_be_written_is_refused_before_anything_starts(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[3] / "scripts" / "main_job.py"
    home = tmp_path / "home"
    command = [sys.executable, str(script), "--home", str(home), "--json", str(tmp_path / "missing" / "out.json")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and "there is no folder for" in ended.stderr and not home.exists()
