"""What became of a training, from a ledger: the series that people and programs see, and the picture of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from template.training import chart
from template.training.chart import NotDrawn, draw, lowest_shown, verdict_grid
from template.training.ledger import TrainLedger, VerdictRow, WindowRow
from template.training.progress import Fate, Progress, fate, read

PNG = b"\x89PNG\r\n\x1a\n"
ENTERED = VerdictRow("alice", "accept", None, assigned=0.3, unassigned=0.2, accepted=True)
AUDITED = VerdictRow("alice", "accept", "ok", assigned=0.3, unassigned=0.1, audited=True, accepted=True)
HARM = VerdictRow("bob", "accept", None, assigned=-0.1, unassigned=-5.0)
REPLAY = VerdictRow("bob", "reject", "replay", assigned=0.1, unassigned=0.05, audited=True)
COPY = VerdictRow("bob", "reject", "copy", audited=True)
ABSENT = VerdictRow("carol", None, None)
UNCHECKED = VerdictRow("carol", "inconclusive", "unchecked", unassigned=0.1)


def filled(folder: Path, windows: dict[int, list[VerdictRow]], loss: float | None = 4.0) -> Progress:
    with TrainLedger(folder / "ledger.sqlite") as ledger:
        for window, rows in windows.items():
            ledger.commit(WindowRow(window, "ab" * 32, loss, sum(row.accepted for row in rows)), {}, rows)
        return read(ledger)


@pytest.fixture
def progress(tmp_path: Path) -> Progress:
    return filled(
        tmp_path, {3: [AUDITED, HARM, ABSENT], 4: [ENTERED, REPLAY], 7: [ENTERED, COPY, UNCHECKED], 8: [ENTERED, COPY]}
    )


def panel(draw_panel: object, *given: object) -> object:
    axes = Figure().subplots()
    draw_panel(axes, *given)  # type: ignore[operator]
    return axes


def test_the_document_has_every_window_and_every_verdict(progress: Progress) -> None:
    document = progress.document()
    assert [(row["window"], row["loss"], row["shown"], row["contributions"]) for row in document["windows"]] == [
        (3, 4.0, 2, 1), (4, 4.0, 2, 1), (7, 4.0, 3, 1), (8, 4.0, 2, 1),
    ]  # fmt: skip
    assert [(row["window"], row["hotkey"], row["fate"]) for row in document["verdicts"]][:5] == [
        (3, "alice", "entered, audited"), (3, "bob", "left out"), (3, "carol", "absent"),
        (4, "alice", "entered"), (4, "bob", "rejected"),
    ]  # fmt: skip
    assert document["verdicts"][4]["reason"] == "replay" and document["verdicts"][4]["unassigned"] == 0.05
    assert len(document["verdicts"]) == 10


def test_series_by_hotkey(progress: Progress) -> None:
    assert progress.hotkeys() == ["alice", "bob", "carol"]
    assert progress.scores("bob") == {3: -5.0, 4: 0.05}
    assert progress.fates("carol") == {3: Fate.ABSENT, 7: Fate.INCONCLUSIVE}
    assert progress.rejects("bob") == {"copy": 2, "replay": 1} and progress.rejects("alice") == {}


def test_what_others_accepted_is_not_this_validators_verdict() -> None:
    assert fate(VerdictRow("a", "reject", "replay", accepted=True)) is Fate.REJECTED
    assert fate(VerdictRow("a", None, None, accepted=True)) is Fate.ABSENT


def test_a_validator_that_saw_nothing_does_not_say_how_many_were_shown(tmp_path: Path) -> None:
    blind = VerdictRow("alice", "inconclusive", None)
    for name, rows, loss, shown in (
        ("away", [], None, None),
        ("blind", [blind, ABSENT], None, None),
        ("none", [], 4.0, 0),
    ):
        found = filled(tmp_path / name, {0: rows}, loss)
        assert found.shown(found.windows[0]) == shown, name


def test_the_panels_show_the_series(progress: Progress) -> None:
    loss = panel(chart.loss_panel, progress).lines[0].get_xydata()
    assert list(loss[:, 0]) == [3, 4, 5, 6, 7, 8]
    assert [math.isnan(value) for value in loss[:, 1]] == [False, False, True, True, False, False]
    bars = panel(chart.contributions_panel, progress).containers
    assert [[bar.get_height() for bar in group] for group in bars] == [[2, 2, 0, 0, 3, 2], [1, 1, 0, 0, 1, 1]]
    scores = {line.get_label(): line for line in panel(chart.scores_panel, progress, str.upper).lines}
    assert scores["ALICE"].get_xydata().tolist() == [[3, 0.1], [4, 0.2], [7, 0.2], [8, 0.2]]
    assert scores["BOB"].get_xydata().tolist() == [[3, -0.2], [4, 0.05]], "harm ends at the edge"
    verdicts = panel(chart.verdicts_panel, progress, str.upper)
    assert [text.get_text() for text in verdicts.get_yticklabels()] == ["ALICE", "BOB", "CAROL"]


def test_the_grid_holds_the_gravest(progress: Progress) -> None:
    def fates(each: int) -> list[list[Fate | None]]:
        grid = verdict_grid(progress, ["bob", "carol"], each)
        return [[None if math.isnan(cell) else chart.GRAVEST[int(cell)] for cell in row] for row in grid]

    bad = Fate.REJECTED
    assert fates(1) == [
        [Fate.LEFT_OUT, bad, None, None, bad, bad],
        [Fate.ABSENT, None, None, None, Fate.INCONCLUSIVE, None],
    ]
    assert fates(4) == [[bad, bad], [Fate.ABSENT, Fate.INCONCLUSIVE]]


def test_the_axis_ends_as_far_below_zero_as_the_best_lies_above() -> None:
    assert lowest_shown([0.1, -0.05, 0.02]) == -0.05
    assert lowest_shown([0.1, -30.0]) == -0.1
    assert lowest_shown([-1.0, -2.0, -90.0]) == -2.0 and lowest_shown([]) == 0.0


@pytest.mark.parametrize("windows", [0, 1, 70])
def test_a_picture_of_any_training(tmp_path: Path, windows: int) -> None:
    rng = np.random.default_rng(0)
    many = [f"5{place:047d}" for place in range(chart.ROWS + 3)]
    rows = {
        window: [VerdictRow(h, "accept", None, "", 0.1, float(rng.normal()), False, True) for h in many]
        for window in range(windows)
    }
    path = tmp_path / "picture.png"
    draw(filled(tmp_path, rows), path, {many[0]: "costs $5 or $6, and a name without end"})
    data = path.read_bytes()
    assert data.startswith(PNG) and int.from_bytes(data[16:20], "big") == 1440


def test_a_folder_that_is_not_there_is_said(tmp_path: Path, progress: Progress) -> None:
    with pytest.raises(NotDrawn, match="cannot be written"):
        draw(progress, tmp_path / "no" / "picture.png", {})


def test_labels_are_short_and_names_come_first() -> None:
    label = chart._labels({"5abc": "honest"})
    assert label("5abc") == "honest" and label("short") == "short"
    assert label("5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty") == "5FHneW…94ty"
