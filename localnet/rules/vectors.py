"""Replays recorded vectors through the rules.

A vector is one JSON document: `source`, `kind`, `inputs`, `expected`, `tolerance`.

    kind "table"   inputs.rule names a rule, inputs.cases are {in, out} pairs      -> localnet.rules.vectors_rules
    kind "epoch"   inputs describe a subnet, inputs.ops run in order               -> localnet.rules.vectors_epoch

`replay(document)` returns what did not agree, one line each; an empty list means the vector passed. What cannot be
checked (an unknown kind, rule, input, operation or field) is a line too: nothing passes because it was not looked at.
Reading files is `localnet.conformance`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from typing import Any

from localnet.rules.errors import RuleError
from localnet.rules.vectors_epoch import replay_epoch
from localnet.rules.vectors_rules import RULES, Case


def differences(expected: Any, actual: Any, tolerance: float, where: str = "") -> Iterator[str]:
    """Lines for every place where two values differ by more than an absolute tolerance. Of a mapping only the expected
    keys are compared. True and 1 are different values."""
    label = where or "value"
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        for key, value in expected.items():
            if key not in actual:
                yield f"{where}.{key}".lstrip(".") + f": expected {value}, got nothing"
            else:
                yield from differences(value, actual[key], tolerance, f"{where}.{key}".lstrip("."))
    elif isinstance(expected, (list, tuple)) and isinstance(actual, (list, tuple)):
        if len(expected) != len(actual):
            yield f"{label}: expected {len(expected)} entries, got {len(actual)}"
        for i, (want, got) in enumerate(zip(expected, actual)):  # noqa: B905 - a length mismatch is reported above
            yield from differences(want, got, tolerance, f"{where}[{i}]")
    elif _is_number(expected) and _is_number(actual):
        if not abs(expected - actual) <= tolerance:
            yield f"{label}: expected {expected}, got {actual} (allowed {tolerance:g})"
    elif type(expected) is not type(actual) or expected != actual:
        yield f"{label}: expected {expected!r}, got {actual!r}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _replay_table(document: Mapping[str, Any]) -> Iterator[str]:
    name, cases, tolerance = document["inputs"]["rule"], document["inputs"]["cases"], document["tolerance"]
    rule = RULES.get(name)
    if rule is None:
        yield f"unknown rule {name!r}; there are {', '.join(RULES)}"
        return
    if document["expected"] != {"per_case": "out"}:
        yield f"a table expects each case's 'out', not {document['expected']!r}"
        return
    if not cases:
        yield "the table has no cases"
    if not isfinite(tolerance):
        yield f"a tolerance of {tolerance} compares nothing"
        return
    for number, given in enumerate(cases):
        case = Case(given["in"])
        try:
            actual = rule(case)
            case.check_all_read()
        except RuleError as error:
            yield f"case {number}: {error}"
            continue
        for line in differences(given["out"], actual, tolerance):
            yield f"case {number}: {line}"


def replay(document: Mapping[str, Any]) -> list[str]:
    """What did not agree when the vector was replayed, one line each; empty when it passed."""
    kinds: dict[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {"table": _replay_table, "epoch": replay_epoch}
    kind = document.get("kind")
    if kind not in kinds:
        return [f"unknown kind {kind!r}; there are {', '.join(kinds)}"]
    try:
        return list(kinds[kind](document))
    except RuleError as error:
        return [str(error)]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        # A document that does not have the shape its kind promises: reported as what it is, and as a failure.
        return [f"malformed vector: {type(error).__name__}: {error}"]


__all__ = ["RULES", "differences", "replay"]
