"""Finished pieces of a long measurement, one JSON line each, so that one that was cut off goes on.

    journal = Journal(path, conditions, ("name", "run"), TypeAdapter(Run))
    if "first" not in journal.done:
        journal.add("first", measured())

The first line holds the conditions; a journal of other conditions is refused. What follows the last newline was cut off
by a kill, and is dropped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from template.errors import TemplateError

Piece = TypeVar("Piece")


@dataclass
class Journal(Generic[Piece]):
    """In memory and, with a path, on disk. Raises TemplateError for what is no such journal."""

    path: Path | None
    conditions: dict[str, Any]
    keys: tuple[str, str]  # in a line: of the piece's name, and of the piece
    form: TypeAdapter[Piece]
    done: dict[str, Piece] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.path is None:
            return
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.conditions) + "\n")
            return
        heading, *lines = self.path.read_text().split("\n")[:-1] or [""]
        try:
            held = json.loads(heading)
            for entry in map(json.loads, lines):
                self.done[entry[self.keys[0]]] = self.form.validate_json(json.dumps(entry[self.keys[1]]))
        except (ValueError, KeyError, TypeError):
            raise TemplateError(f"{self.path} is no journal of this command", remedy="remove it") from None
        changed = [name for name in self.conditions if held.get(name) != self.conditions[name]]
        if changed:
            raise TemplateError(
                f"{self.path} was measured with another {', '.join(changed)}", remedy="remove it, or name another"
            )
        self.path.write_text("\n".join([heading, *lines]) + "\n")

    def add(self, name: str, piece: Piece) -> None:
        self.done[name] = piece
        if self.path is not None:
            entry = dict(zip(self.keys, (name, self.form.dump_python(piece, mode="json")), strict=True))
            with self.path.open("a") as file:
                file.write(json.dumps(entry) + "\n")


def beside(out: Path | None) -> Path | None:
    """Where the journal of a result is kept when nothing is said."""
    return out.with_suffix(".journal.jsonl") if out else None
