"""What a person sees while the main job runs: one live table on a terminal, plain lines everywhere else."""

from __future__ import annotations

import io
import re
import sys
import time
from typing import Literal

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from watch import Row

_WIDTH_WITHOUT_TERMINAL = 168


# Column -> least width. ok, bad, none: answers accepted, rejected, not given; alpha: earned in this run.
_COLUMNS = {
    "uid": 3, "neuron": 13, "role": 15, "stake": 6, "ok": 3, "bad": 3, "none": 4, "score": 5, "weight": 6,
    "incentive": 9, "dividends": 9, "alpha": 7, "last said": 8,
}  # fmt: skip
_WIDE, _NARROW = 112, 110  # characters


class Display:
    """`say` for events, `update` for the live table, `show` to print the table once."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()
        self.console = Console(width=None if self.live else _WIDTH_WITHOUT_TERMINAL, highlight=False)
        self._live: Live | None = None
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        seconds = int(time.monotonic() - self._began)
        self.console.print(f"[dim]{seconds // 60:02d}:{seconds % 60:02d}[/dim] ", end="")
        self.console.print(text, markup=False, soft_wrap=True)
        if not self.live:
            sys.stdout.flush()

    def update(self, rows: list[Row], title: str) -> None:
        if not self.live:
            return
        if self._live is None:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        self._live.update(table(rows, title, self.console.width))

    def show(self, rows: list[Row], title: str) -> None:
        self.console.print(table(rows, title, self.console.width))

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def picture(rows: list[Row], title: str) -> str:
    """The table as an SVG of a terminal, complete in itself: no font or anything else is fetched from elsewhere."""
    console = Console(record=True, file=io.StringIO(), width=_WIDTH_WITHOUT_TERMINAL, highlight=False)
    console.print(table(rows, title, _WIDTH_WITHOUT_TERMINAL))
    svg = console.export_svg(title="./scripts/up.sh")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def table(rows: list[Row], title: str, width: int) -> Table:
    """One line for each neuron. Narrow terminals lose the last words first, then roles and dividends."""
    hidden = {"role", "dividends", "last said"} if width < _NARROW else {"last said"} if width < _WIDE else set()
    drawn = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), expand=False)
    columns = [name for name in _COLUMNS if name not in hidden]
    for name in columns:
        justify: Literal["left", "right"] = "left" if name in ("neuron", "role", "last said") else "right"
        drawn.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis", min_width=_COLUMNS[name])
    for row in rows:
        is_validator = row.part.program == "validator"
        style = "cyan" if is_validator else "green" if row.part.honest else "red"
        cells = _cells(row, is_validator)
        drawn.add_row(*(cells[name] for name in columns), style=style)
    return drawn


def _cells(row: Row, is_validator: bool) -> dict[str, str]:
    counts = row.verdicts
    cells = {
        "uid": "-" if row.uid is None else str(row.uid),
        "neuron": row.part.name,
        "role": row.part.role,
        "stake": f"{row.stake:,.0f}",
        "score": _x(row.score),
        "weight": _x(row.weight),
        "dividends": f"{row.dividends:.3f}" if is_validator else "",
        "alpha": f"{row.earned:.2f}",
        "last said": row.state,
    }
    cells |= {"ok": "", "bad": "", "none": "", "incentive": ""}
    if not is_validator:
        cells |= {"ok": _n(counts, "accept"), "bad": _n(counts, "reject"), "none": _n(counts, "failure")}
        cells["incentive"] = f"{row.incentive:.3f}"
    return cells


def _n(counts: dict[str, int], key: str) -> str:
    return str(counts.get(key, 0))


def _x(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
