"""The verdict of the main job's training has to be able to fail."""

from pathlib import Path
from typing import Any

import pytest
from lineup import TRAINING
from table import training_table
from watch_epochs import Epoch
from watch_training import PATIENT_WINDOWS, Seen, TrainWatcher

from protocol.training.ratings import TrainState
from template.training.ledger import VerdictRow, WindowRow

NAMES = {part.name for part in TRAINING}
HONEST = [part.name for part in TRAINING if part.honest and not part.validates]
CHEAT = next(part.name for part in TRAINING if not part.honest)
PAID = dict.fromkeys(HONEST, 1 / len(HONEST))
EARNED = dict.fromkeys((*HONEST, "validator-1", "validator-2"), 10)
REPLAYED = {"status": 0, "root": "root1"}


def windows(losses: tuple[float, ...] = (7.6, 7.1), last: str = "root1") -> list[WindowRow]:
    roots = [f"root{n}" for n in range(len(losses) - 1)]
    return [WindowRow(n, root, loss, 3) for n, (root, loss) in enumerate(zip([*roots, last], losses, strict=True))]


def watcher(
    incentive: dict[str, float] = PAID, earned: dict[str, int] = EARNED, replayed: dict[str, Any] | None = REPLAYED
) -> TrainWatcher:
    nowhere: Any = None  # the verdict looks only at what was collected
    found = TrainWatcher(nowhere, 2, TRAINING, {name: f"5{name}" for name in NAMES}, Path())
    found.epochs = [Epoch(1, 100, {}, {}, {}), Epoch(2, 340, incentive, {}, earned)]
    rows = [
        VerdictRow(f"5{HONEST[0]}", "accept", "ok", "", 0.2, 0.1, True, True),
        VerdictRow(f"5{CHEAT}", "reject", "replay"),
    ]
    states = {f"5{HONEST[0]}": TrainState(f"5{HONEST[0]}")}
    found.seen = {name: Seen(windows(), states, {0: rows, 1: rows}) for name in ("validator-1", "validator-2")}
    found.weights = {"validator-1": {3: 1.0}, "validator-2": {3: 1.0}}
    found.replayed = replayed
    return found


def test_a_training_as_it_should_be_has_no_problems() -> None:
    found = watcher()
    assert found.problems() == [] and found.enough(1) and not found.enough(2)
    report = found.result()["neurons"][CHEAT]
    assert report["verdicts"]["reject"] == 4 and report["reasons"] == {"replay": 4}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"incentive": {**PAID, HONEST[0]: 0.0}}, f"{HONEST[0]} trained honestly and earned nothing"),
        ({"earned": {**EARNED, HONEST[1]: 0}}, f"{HONEST[1]} trained honestly and earned nothing"),
        ({"incentive": {**PAID, CHEAT: 0.001}}, f"{CHEAT} is dishonest"),
        ({"earned": {**EARNED, "validator-2": 0}}, "validator-2 validated training and earned nothing"),
        ({"replayed": None}, "could not be replayed: not tried"),
        ({"replayed": {"status": 1, "error": "HistoryBroken"}}, "could not be replayed: HistoryBroken"),
        ({"replayed": {"status": 0, "root": "elsewhere"}}, "the replay leads to elsewhere"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], problem: str) -> None:
    assert any(problem in said for said in watcher(**change).problems())


def test_what_validators_hold_is_compared() -> None:
    found = watcher()
    found.weights["validator-2"] = {}
    assert found.problems() == ["validator-2 has set no weights for training"]
    for losses, problem in (((7.1, 7.6), "did not fall"), ((7.6,), "fewer than two")):
        found = watcher()
        found.seen["validator-1"] = Seen(windows(losses))
        assert any(problem in said for said in found.problems())
    found = watcher()
    found.seen["validator-2"] = Seen(windows(last="another"))
    assert "validators have different models after window 1" in found.problems()


def test_patience_counts_the_windows_of_this_run() -> None:
    found = watcher(earned={**EARNED, HONEST[0]: 0})
    assert not found.enough(1)
    found.seen["validator-1"] = Seen(windows(tuple(8 - n / 100 for n in range(PATIENT_WINDOWS))))
    assert found.enough(1)
    found._earlier = 5
    assert not found.enough(1)


@pytest.mark.parametrize("width", [80, 111, 160])
def test_the_table_has_everybody_at_any_width(width: int) -> None:
    from rich.console import Console

    console = Console(width=width, record=True)
    console.print(training_table(watcher().rows(), "title", width))
    text = console.export_text()
    assert all(name in text for name in (*NAMES, "incentive", "alpha", "rating"))
