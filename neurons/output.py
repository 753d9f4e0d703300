"""How commands speak: one JSON document, or lines and tables for people."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

# Piped output has no width of its own; tables should not be cut for it.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def print_json(document: Any) -> None:
    print(json.dumps(document, indent=2))


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Columns whose name ends with ">" are right-aligned."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1))
    for column in columns:
        table.add_column(column.rstrip(">"), justify="right" if column.endswith(">") else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
