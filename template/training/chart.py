"""The picture of a training, from the series of `progress`: four panels over the same windows.

    draw(progress, path, {hotkey: name})     a PNG: loss, contributions, scores, verdicts

One function a panel. Colours are those of Okabe and Ito, which colour-blind readers tell apart; lines differ in their
dashes too, and rejects say their reason in words. Drawn without a display. Long trainings stay readable: scores become
running means, and cells of several windows show the gravest of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from template.errors import TemplateError
from template.training.progress import Fate, Progress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = 12  # hotkeys with a line of their own
ROWS = 32  # hotkeys with a row of verdicts
CELLS = 400  # columns of the grid; a pixel's width bounds them
SINGLE = 60  # windows up to which scores are shown one by one
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")
DASHES = ("-", "--")
FATES = {
    Fate.AUDITED: "#0072B2",
    Fate.ENTERED: "#7FC4EE",
    Fate.LEFT_OUT: "#F0E442",
    Fate.ABSENT: "#C8C8C8",
    Fate.INCONCLUSIVE: "#CC79A7",
    Fate.REJECTED: "#D55E00",
}
GRAVEST = list(Fate)

Label = Callable[[str], str]


class NotDrawn(TemplateError):
    """The picture cannot be written."""


def draw(progress: Progress, path: Path, names: Mapping[str, str]) -> None:
    """Write the picture. `names`: of hotkeys, where there are any. Raises NotDrawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = max(3, min(ROWS, len(progress.hotkeys())))
    heights = [2.2, 1.6, 3.0, 0.6 + 0.2 * rows]
    figure = Figure(figsize=(12.0, sum(heights) + 1.6), dpi=120, layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.1))
    FigureCanvasAgg(figure)
    panels = figure.subplots(4, 1, sharex=True, gridspec_kw={"height_ratios": heights})
    loss_panel(panels[0], progress)
    contributions_panel(panels[1], progress)
    scores_panel(panels[2], progress, _labels(names))
    verdicts_panel(panels[3], progress, _labels(names))
    if progress.windows:
        _windows_axis(panels[3], progress)
    else:
        panels[3].set_xlabel("no window yet")
        for panel in panels:
            panel.set(xticks=[], yticks=[])
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise NotDrawn(f"{path} cannot be written: {error}", remedy="name a file in a folder that exists") from None


def loss_panel(axes: Axes, progress: Progress) -> None:
    axes.set_title("Loss of the shared model before each window, on validation data", loc="left", fontsize=10)
    axes.set_ylabel("nats a token")
    values = _along(progress, {row.window: row.loss for row in progress.windows if row.loss is not None})
    axes.plot(_span(progress), values, color=COLORS[0], marker="o" if len(values) <= SINGLE else "", markersize=4)
    axes.grid(axis="y", alpha=0.3)


def contributions_panel(axes: Axes, progress: Progress) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title("Contributions", loc="left", fontsize=10)
    axes.set_ylabel("count")
    windows = _span(progress)
    shown = {row.window: progress.shown(row) for row in progress.windows}
    told = _along(progress, {window: count for window, count in shown.items() if count is not None})
    entered = _along(progress, {row.window: row.contributions for row in progress.windows})
    width = 0.8 if len(windows) <= SINGLE else 1.0  # no hair lines between many bars
    axes.bar(windows, np.nan_to_num(told), width, color="#C8C8C8", label="shown in time")
    inner = width if width == 1.0 else 0.5
    axes.bar(windows, np.nan_to_num(entered), inner, color=COLORS[0], label="entered the model")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    if len(windows):
        axes.set_ylim(0, max(1.0, np.nanmax([*told, *entered, 0.0])) * 1.1)
        axes.legend(loc="upper left", bbox_to_anchor=(1.005, 1.0), fontsize=8, frameon=False)


def scores_panel(axes: Axes, progress: Progress, label: Label) -> None:
    """Of the busiest hotkeys, each in a line of its own; of the others in grey."""
    width = mean_width(len(progress.windows))
    what = f"mean of {width} windows" if width > 1 else "by window"
    series = {hotkey: _running_mean(progress, progress.scores(hotkey), width) for hotkey in progress.hotkeys()}
    series = {hotkey: values for hotkey, values in series.items() if np.isfinite(values).any()}
    least = lowest_shown([value for values in series.values() for value in values if math.isfinite(value)])
    cut = any((values < least).any() for values in series.values())
    told = "; what is lower lies on the lower edge" if cut else ""
    axes.set_title(f"Loss saved by each contribution alone, on data it was not given ({what}{told})",
                   loc="left", fontsize=10)  # fmt: skip
    axes.set_ylabel("nats a token")
    axes.axhline(0.0, color="black", linewidth=0.8)
    order = list(series)
    for place, hotkey in reversed(list(enumerate(order))):  # the busiest lie on top
        values, own = np.maximum(series[hotkey], least), place < LINES
        seen = np.isfinite(values)
        axes.plot(
            _span(progress)[seen],
            values[seen],
            color=COLORS[place % len(COLORS)] if own else "#C8C8C8",
            linestyle=DASHES[place // len(COLORS)] if own else "-",
            linewidth=1.4 if own else 0.7,
            marker="o" if width == 1 else "",
            markersize=3,
            label=label(hotkey) if own else f"others: {len(order) - LINES}" if place == LINES else "_",
        )
    axes.grid(axis="y", alpha=0.3)
    if order:
        handles, texts = axes.get_legend_handles_labels()
        axes.legend(
            handles[::-1], texts[::-1], loc="upper left", bbox_to_anchor=(1.005, 1.0), fontsize=8, frameon=False
        )


def verdicts_panel(axes: Axes, progress: Progress, label: Label) -> None:
    """A row for each hotkey; beside it how often it entered, and why it was rejected."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    everybody, windows = progress.hotkeys(), _span(progress)
    hotkeys = everybody[:ROWS]
    each = max(1, -(-len(windows) // CELLS))
    told = f"; a cell is the gravest of {each} windows" if each > 1 else ""
    more = f"; the {ROWS} busiest of {len(everybody)} hotkeys" if len(everybody) > ROWS else ""
    axes.set_title(
        f"Verdicts (white: nothing committed, or this validator was away{told}{more})", loc="left", fontsize=10
    )
    shades = ListedColormap([FATES[kind] for kind in GRAVEST])
    handles = [Patch(color=color, label=kind.value) for kind, color in FATES.items()]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.55 / (0.6 + 0.2 * max(3, len(hotkeys)))),
                ncols=len(FATES), fontsize=8, frameon=False)  # fmt: skip
    if not hotkeys:
        axes.set_yticks([])
        return
    cells = verdict_grid(progress, hotkeys, each)
    edges = windows[0] - 0.5 + each * np.arange(cells.shape[1] + 1)
    few = len(windows) <= SINGLE
    axes.pcolormesh(
        edges, np.arange(len(hotkeys) + 1) - 0.5, np.ma.masked_invalid(cells),
        cmap=shades, vmin=-0.5, vmax=len(GRAVEST) - 0.5,
        edgecolors="white" if few else "none", linewidth=1.0 if few else 0.0,
    )  # fmt: skip
    axes.set_ylim(len(hotkeys) - 0.5, -0.5)
    axes.set_yticks(range(len(hotkeys)), [label(hotkey) for hotkey in hotkeys], fontsize=8)
    beside = axes.secondary_yaxis("right")
    beside.set_yticks(range(len(hotkeys)), [_account(progress, hotkey) for hotkey in hotkeys], fontsize=8)
    beside.tick_params(length=0)


def verdict_grid(progress: Progress, hotkeys: list[str], each: int) -> npt.NDArray[np.float64]:
    """[hotkeys, cells]: places in `GRAVEST` of the gravest of `each` windows; NaN where there is none."""
    windows = _span(progress)
    cells = np.full((len(hotkeys), -(-len(windows) // each)), np.nan)
    for row, hotkey in enumerate(hotkeys):
        for window, kind in progress.fates(hotkey).items():
            column = (window - int(windows[0])) // each
            cells[row, column] = np.nanmax([cells[row, column], GRAVEST.index(kind)])
    return cells


def mean_width(windows: int) -> int:
    """Windows that a point of a score's line is the mean of."""
    return 1 if windows <= SINGLE else -(-windows // 30)


def lowest_shown(values: list[float]) -> float:
    """Harm has no bound and would flatten everything else: the axis ends as far below zero as the best is above it."""
    best = max(values, default=0.0)
    usual = best if best > 0.0 else float(np.median(np.abs(values))) if values else 0.0
    return max(min(values, default=0.0), -usual)


def _running_mean(progress: Progress, values: Mapping[int, float], width: int) -> npt.NDArray[np.float64]:
    """Over the last `width` windows, of those that have a value; NaN where none has."""
    whole = _along(progress, values)
    seen = np.isfinite(whole)
    ones = np.ones(width)
    count = np.convolve(seen, ones)[: len(whole)]
    total = np.convolve(np.where(seen, whole, 0.0), ones)[: len(whole)]
    return np.where(count > 0.5, total / np.maximum(count, 1.0), np.nan)


def _span(progress: Progress) -> npt.NDArray[np.int64]:
    """Every window from the first to the last, those that the ledger has not included."""
    if not progress.windows:
        return np.arange(0)
    return np.arange(progress.windows[0].window, progress.windows[-1].window + 1)


def _along(progress: Progress, values: Mapping[int, float]) -> npt.NDArray[np.float64]:
    """One number for each window of the span; NaN where there is none."""
    return np.array([values.get(int(window), math.nan) for window in _span(progress)], dtype=np.float64)


def _windows_axis(axes: Axes, progress: Progress) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("window")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=16, integer=True, min_n_ticks=1))
    axes.set_xlim(progress.windows[0].window - 0.5, progress.windows[-1].window + 0.5)


def _account(progress: Progress, hotkey: str) -> str:
    entered = sum(kind in (Fate.ENTERED, Fate.AUDITED) for kind in progress.fates(hotkey).values())
    rejects = ", ".join(f"{reason} {count}" for reason, count in list(progress.rejects(hotkey).items())[:3])
    return f"{entered} entered" + (f"; rejected: {rejects}" if rejects else "")


def _labels(names: Mapping[str, str]) -> Label:
    def label(hotkey: str) -> str:
        name = names.get(hotkey) or (hotkey if len(hotkey) <= 14 else f"{hotkey[:6]}…{hotkey[-4:]}")
        short = name if len(name) <= 22 else f"{name[:21]}…"
        return short.replace("$", r"\$")  # a dollar would begin a formula

    return label
