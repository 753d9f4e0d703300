"""What a person sees while the main job runs: one live table on a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
import time

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from watch import Row

_WIDTH_WITHOUT_TERMINAL = 168


# Column -> least width. ok, bad, none: answers accepted, rejected, not given; alpha: earned in this run.
_NUMBERS = {
    "stake": 6, "ok": 3, "bad": 3, "none": 4, "score": 5, "weight": 6, "incentive": 9, "dividends": 9, "alpha": 7,
}  # fmt: skip


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
        self._live.update(table(rows, title))

    def show(self, rows: list[Row], title: str) -> None:
        self.console.print(table(rows, title))

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def table(rows: list[Row], title: str) -> Table:
    """uid, role, stake, verdicts (accepted / rejected / not answered), score, weight, incentive, emission, state."""
    drawn = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), expand=False)
    drawn.add_column("uid", justify="right", no_wrap=True, min_width=3)
    drawn.add_column("neuron", no_wrap=True, min_width=13)
    drawn.add_column("role", no_wrap=True, min_width=15)
    for name, width in _NUMBERS.items():
        drawn.add_column(name, justify="right", no_wrap=True, min_width=width)
    drawn.add_column("last said", no_wrap=True, overflow="ellipsis", min_width=8)  # gives way on a narrow terminal
    for row in rows:
        is_validator = row.part.program == "validator"
        style = "cyan" if is_validator else "green" if row.part.honest else "red"
        counts = row.verdicts
        drawn.add_row(
            "-" if row.uid is None else str(row.uid),
            row.part.name,
            row.part.role,
            f"{row.stake:,.0f}",
            *(("", "", "") if is_validator else (_n(counts, "accept"), _n(counts, "reject"), _n(counts, "failure"))),
            _x(row.score),
            _x(row.weight),
            "" if is_validator else f"{row.incentive:.3f}",
            f"{row.dividends:.3f}" if is_validator else "",
            f"{row.earned:.2f}",
            row.state,
            style=style,
        )
    return drawn


def _n(counts: dict[str, int], key: str) -> str:
    return str(counts.get(key, 0))


def _x(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
