"""What a person sees while the main job runs: one live table on a terminal, plain lines everywhere else."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from watch import Row
from watch_training import TrainRow

_WIDTH_WITHOUT_TERMINAL = 168


# Column -> least width. ok, bad, none: answers accepted, rejected, not given; alpha: earned in this run.
_COLUMNS = {
    "uid": 3, "neuron": 13, "role": 15, "stake": 6, "ok": 3, "bad": 3, "none": 4, "score": 5, "weight": 6,
    "incentive": 9, "dividends": 9, "alpha": 7, "last said": 8,
}  # fmt: skip
# in: contributions that entered the model; audits: windows that were trained again; both of all validators together.
_TRAINING_COLUMNS = {
    "uid": 3, "neuron": 14, "role": 15, "stake": 6, "in": 3, "audits": 6, "bad": 3, "none": 4, "rating": 6, "effort": 6,
    "presence": 8, "incentive": 9, "alpha": 7, "last said": 8,
}  # fmt: skip
_WIDE, _NARROW = 112, 110  # characters
_TRAINING_WIDE = 130

Draw = Callable[[int], RenderableType]  # for a width


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

    def update(self, draw: Draw) -> None:
        if not self.live:
            return
        if self._live is None:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        self._live.update(draw(self.console.width))

    def show(self, draw: Draw) -> None:
        self.console.print(draw(self.console.width))

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def picture(draw: Draw) -> str:
    """The tables as an SVG of a terminal, complete in itself: no font or anything else is fetched from elsewhere."""
    console = Console(record=True, file=io.StringIO(), width=_WIDTH_WITHOUT_TERMINAL, highlight=False)
    console.print(draw(_WIDTH_WITHOUT_TERMINAL))
    svg = console.export_svg(title="./scripts/up.sh")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def together(draws: Sequence[Draw]) -> Draw:
    return lambda width: Group(*(draw(width) for draw in draws))


def table(rows: list[Row], title: str, width: int) -> Table:
    """One line for each neuron of inference. Narrow terminals lose the last words first, then roles and dividends."""
    hidden = {"role", "dividends", "last said"} if width < _NARROW else {"last said"} if width < _WIDE else set()
    drawn, columns = _empty(title, _COLUMNS, hidden)
    for row in rows:
        cells = _cells(row, row.part.validates)
        drawn.add_row(*(cells[name] for name in columns), style=_style(row))
    return drawn


def training_table(rows: list[TrainRow], title: str, width: int) -> Table:
    """One line for each neuron of training."""
    hidden = {"role", "last said", "effort", "presence", "stake"} if width < _NARROW else set()
    hidden |= {"last said", "stake"} if width < _TRAINING_WIDE else set()
    drawn, columns = _empty(title, _TRAINING_COLUMNS, hidden)
    for row in rows:
        cells = _training_cells(row)
        drawn.add_row(*(cells[name] for name in columns), style=_style(row))
    return drawn


def _empty(title: str, widths: Mapping[str, int], hidden: set[str]) -> tuple[Table, list[str]]:
    drawn = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), expand=False)
    columns = [name for name in widths if name not in hidden]
    for name in columns:
        justify: Literal["left", "right"] = "left" if name in ("neuron", "role", "last said") else "right"
        drawn.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis", min_width=widths[name])
    return drawn, columns


def _style(row: Row | TrainRow) -> str:
    return "cyan" if row.part.validates else "green" if row.part.honest else "red"


def _training_cells(row: TrainRow) -> dict[str, str]:
    cells = dict.fromkeys(_TRAINING_COLUMNS, "") | {
        "uid": "-" if row.uid is None else str(row.uid),
        "neuron": row.part.name,
        "role": row.part.role,
        "stake": f"{row.stake:,.0f}",
        "alpha": f"{row.earned:.2f}",
        "last said": row.state,
    }
    if not row.part.validates:
        for column, name in (("in", "entered"), ("audits", "audited"), ("bad", "reject"), ("none", "absent")):
            cells[column] = str(row.counts[name])
        cells |= {"rating": _x(row.rating), "effort": _x(row.effort), "presence": _x(row.presence)}
        cells["incentive"] = f"{row.incentive:.3f}"
    return cells


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
