"""Conformance: does this chain compute what a recorded chain computed?

    python -m localnet.conformance vectors DIR [--json]

replays every `*.json` below DIR through the rules, prints one line a file and a total, and exits 1 if a vector failed
(2 if there was nothing to replay). A vector that cannot be understood has failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localnet.rules.vectors import replay

MAX_LINES = 5
"""Disagreements shown per file in the readable output; --json has all."""


@dataclass(frozen=True)
class Outcome:
    """One file: what did not agree (nothing: it passed), and where its figures come from."""

    file: str
    disagreements: tuple[str, ...]
    source: str

    @property
    def passed(self) -> bool:
        """True when everything the file expects was compared and agreed."""
        return not self.disagreements


def check_file(path: Path, name: str | None = None) -> Outcome:
    """Replay one vector file. A file that cannot be read or is not a JSON object fails, with the reason."""
    shown = name or path.name
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        return Outcome(shown, (f"cannot be read: {error}",), "")
    if not isinstance(document, dict):
        return Outcome(shown, ("not a vector: the document is not a JSON object",), "")
    return Outcome(shown, tuple(replay(document)), str(document.get("source", "")))


def check_directory(directory: Path) -> list[Outcome]:
    """Replay every `*.json` below a directory, in name order."""
    paths = sorted(directory.rglob("*.json"))
    return [check_file(path, path.relative_to(directory).as_posix()) for path in paths]


def _print_readable(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        print(f"{'pass' if outcome.passed else 'FAIL'}  {outcome.file}")
        for line in outcome.disagreements[:MAX_LINES]:
            print(f"      {line}")
        if len(outcome.disagreements) > MAX_LINES:
            print(f"      and {len(outcome.disagreements) - MAX_LINES} more (all of them with --json)")
    print(_total(outcomes))


def _total(outcomes: Sequence[Outcome]) -> str:
    passed = sum(outcome.passed for outcome in outcomes)
    return f"{passed} passed, {len(outcomes) - passed} failed"


def _print_json(outcomes: Sequence[Outcome]) -> None:
    passed = sum(outcome.passed for outcome in outcomes)
    files = [
        {"file": o.file, "passed": o.passed, "disagreements": list(o.disagreements), "source": o.source}
        for o in outcomes
    ]
    print(json.dumps({"passed": passed, "failed": len(outcomes) - passed, "files": files}, indent=1))


def _vectors(directory: Path, as_json: bool) -> int:
    if not directory.is_dir():
        print(f"{directory} is not a directory; give one that holds vector files (*.json)", file=sys.stderr)
        return 2
    outcomes = check_directory(directory)
    if not outcomes:
        print(f"{directory} holds no vector files (*.json): nothing was checked", file=sys.stderr)
        return 2
    (_print_json if as_json else _print_readable)(outcomes)
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m localnet.conformance", description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    vectors = commands.add_parser("vectors", help="replay a directory of recorded vectors through the chain's rules")
    vectors.add_argument("directory", type=Path, help="searched for *.json, subdirectories included")
    vectors.add_argument("--json", action="store_true", help="one JSON document with every disagreement")
    options = parser.parse_args(arguments)
    return _vectors(options.directory, options.json)


if __name__ == "__main__":
    sys.exit(main())
