"""Every recorded vector replays through the real rules, and a wrong figure in any of them is noticed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localnet.conformance import check_directory, main
from localnet.rules.vectors import RULES, replay

VECTORS = Path(__file__).parent / "vectors"
FILES = sorted(VECTORS.glob("*.json"))


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_vector(path: Path) -> None:
    assert replay(load(path)) == []


def leaves(node: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value a comparison can look at."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(items):
        if isinstance(value, (dict, list)):
            yield from leaves(value)
        else:
            yield node, key


def expectations(document: dict[str, Any]) -> Any:
    """The part of a vector that says what must come out."""
    return document["inputs"]["cases"] if document["kind"] == "table" else document["expected"]["after_epoch"]


def corrupted(value: Any, tolerance: float) -> Any:
    """A different value, by more than the tolerance. None in an epoch means "do not compare" and is left alone."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + max(2 * tolerance, 1)
    return f"{value}x"


def largest_tolerance(document: dict[str, Any]) -> float:
    tolerance = document["tolerance"]
    return max(tolerance.values(), default=0) if isinstance(tolerance, dict) else tolerance


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_corrupted_expectation_fails(path: Path) -> None:
    document = load(path)
    places = 0
    for index in range(len(list(leaves(expectations(document))))):
        changed = copy.deepcopy(document)
        container, key = list(leaves(expectations(changed)))[index]
        if document["kind"] == "table" and not _is_expected(changed, container, key):
            continue
        if container[key] is None and document["kind"] == "epoch":
            continue
        container[key] = corrupted(container[key], largest_tolerance(document))
        assert replay(changed), f"changing {key} to {container[key]} went unnoticed"
        places += 1
        if places == 12:  # enough of each file: every one of these is a whole replay
            break
    assert places or _empty_expectations(document)


def _is_expected(document: dict[str, Any], container: Any, key: Any) -> bool:
    """Does this leaf lie in the "out" of a table's case?"""
    for case in document["inputs"]["cases"]:
        if container is case and key == "out":
            return True
        if any(container is inner for inner, _ in leaves(case["out"])):
            return True
    return False


def _empty_expectations(document: dict[str, Any]) -> bool:
    return not list(leaves([case["out"] for case in document["inputs"].get("cases", [])]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "graph"}, "unknown kind 'graph'"),
        ({"inputs": {"rule": "taxes", "cases": []}}, "unknown rule 'taxes'"),
        ({"inputs": {"rule": "fee", "cases": []}}, "no cases"),
        ({"inputs": {"rule": "fee", "cases": [{"in": {"length": 1}, "out": 1}]}}, "input 'ref_time' is missing"),
        (
            {"inputs": {"rule": "fee", "cases": [{"in": {"length": 1, "ref_time": 0, "tip": 3}, "out": 1}]}},
            "does not know the inputs 'tip'",
        ),
        ({"inputs": {"rule": "fee", "cases": [{"in": {"length": "1", "ref_time": 0}, "out": 1}]}}, "malformed"),
        ({"expected": {"per_case": "nothing"}}, "expects each case's 'out'"),
        ({"tolerance": float("inf")}, "compares nothing"),
    ],
)
def test_what_cannot_be_checked_has_failed(change: dict[str, Any], reason: str) -> None:
    lines = replay({**load(VECTORS / "fees_01_transfer.json"), **change})
    assert len(lines) == 1 and reason in lines[0]


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (("inputs", "ops", 0, "op"), "pray", "unknown operation 'pray'"),
        (("inputs", "hyper", "gravity"), 9, "unknown hyperparameter 'gravity'"),
        (("inputs", "weather"), 9, "unknown input 'weather'"),
        (("expected", "after_epoch", "7"), {"emission": [1]}, "epoch 7 is expected, only 2 ran"),
        (("expected", "after_epoch", "1", "luck"), [1], "unknown field 'luck'"),
        (("expected", "after_epoch", "1"), {}, "nothing is expected"),
        (("expected", "after_epoch", "1", "emission"), [1], "expected 1 entries, got 8"),
        (("tolerance", "emission"), float("nan"), "compares nothing"),
    ],
)
def test_an_epoch_that_cannot_be_checked_has_failed(place: tuple[Any, ...], value: Any, reason: str) -> None:
    document: Any = load(VECTORS / "epoch_03_bonds_step1.json")
    node = document
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    assert any(reason in line for line in replay(document))


def test_the_directory_holds_vectors_for_every_part_of_the_chain() -> None:
    rules = {document["inputs"].get("rule") for document in map(load, FILES)}
    assert len(FILES) >= 63 and rules - {None} <= set(RULES)


def test_command_line_reports_and_exits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = load(VECTORS / "fees_01_transfer.json")
    (tmp_path / "good.json").write_text(json.dumps(good))
    assert main(["vectors", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == ["pass  good.json", "1 passed, 0 failed"]

    (tmp_path / "sub").mkdir()
    good["inputs"]["cases"][0]["out"] += 1
    (tmp_path / "sub" / "bad.json").write_text(json.dumps(good))
    (tmp_path / "broken.json").write_text("{")
    assert main(["vectors", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert "FAIL  broken.json" in output and "FAIL  sub/bad.json" in output and "1 passed, 2 failed" in output

    assert main(["vectors", str(tmp_path), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["passed"], report["failed"]) == (1, 2)
    assert {entry["file"] for entry in report["files"] if not entry["passed"]} == {"broken.json", "sub/bad.json"}


def test_nothing_to_check_is_not_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vectors", str(tmp_path)]) == 2
    assert main(["vectors", str(tmp_path / "missing")]) == 2
    assert "nothing was checked" in capsys.readouterr().err
    assert check_directory(tmp_path) == []
