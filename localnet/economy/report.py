"""What a scenario came to: a table, JSON, and a picture.

    Scenario     a title, what it claims, and variants of a world
    load         a scenario by its name or its file
    experiment   run all variants with several seeds
    Finding      one party in one variant: earnings, what it paid for places, return on its stake
    draw         a PNG or SVG: a panel for each variant, what each party had earned after every epoch

Parties are compared by what is fair to compare: validators by dividends per unit of stake and epoch, miners by
incentive per place and epoch, entrants by what is left after paying for places.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import runpy
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localnet.economy.running import run
from localnet.economy.world import Account, Outcome, World
from localnet.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
DASHES = ("-", "--", "-.", ":")
COLUMNS = 3  # panels side by side
LABELS = 16  # names that find room above each other


@dataclass(frozen=True)
class Scenario:
    """Worlds to compare. `variants`: a name and the world of each."""

    title: str
    variants: Mapping[str, World]
    claim: str = ""
    """What the outcome is expected to show, in a sentence."""
    per_stake: bool = False
    """What the picture shows: earnings per alpha of stake, of parties with stake; otherwise earnings."""
    epochs: int = 1000
    seeds: int = 1


@dataclass(frozen=True)
class Finding:
    """A party in a variant: means over the seeds. Alpha."""

    variant: str
    party: str
    dividends: float
    incentive: float
    paid: float
    """For places: what was burned."""
    locked: float
    """Collateral at the end."""
    net: float
    """Dividends and incentive less what was paid and is locked."""
    yield_per_epoch: float | None
    """Mean of dividends / stake over the epochs with stake; None for a party that never had any."""
    income_per_place: float | None
    """Incentive per place and epoch; None for a party without places."""
    places: float
    """At the end."""


@dataclass(frozen=True)
class Report:
    title: str
    claim: str
    epochs: int
    seeds: int
    per_stake: bool
    findings: list[Finding]
    burned: dict[str, float]
    """Per variant: incentive of the owner's hotkeys, which the chain does not pay."""
    outcomes: dict[str, Outcome] = field(repr=False)
    """The first seed's, per variant: for the picture."""

    def of(self, variant: str, party: str) -> Finding:
        """Raises KeyError when there is no such party."""
        for finding in self.findings:
            if (finding.variant, finding.party) == (variant, party):
                return finding
        raise KeyError(f"no party {party!r} in {variant!r}")

    def as_json(self) -> dict[str, Any]:
        facts = {name: getattr(self, name) for name in ("title", "claim", "epochs", "seeds", "burned")}
        return {**facts, "findings": [asdict(finding) for finding in self.findings]}


def names() -> list[str]:
    """Of the scenarios that come along."""
    from localnet.economy import scenarios

    return sorted(module.name for module in pkgutil.iter_modules(scenarios.__path__))


def load(given: str) -> Scenario:
    """A scenario by name, or what a Python file (which is run) calls SCENARIO. Raises ConfigError."""
    path = Path(given)
    if path.suffix != ".py":
        if given not in names():
            raise ConfigError(f"no scenario {given!r}: give a .py file or one of {', '.join(names())}")
        return _scenario(vars(importlib.import_module(f"localnet.economy.scenarios.{given}")), given)
    try:
        return _scenario(runpy.run_path(str(path)), given)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error}") from error


def _scenario(values: Mapping[str, Any], where: str) -> Scenario:
    scenario = values.get("SCENARIO")
    if not isinstance(scenario, Scenario):
        raise ConfigError(f"{where} has no SCENARIO = Scenario(..); `localnet.economy` shows how to write one")
    return scenario


def experiment(
    scenario: Scenario,
    epochs: int | None = None,
    seeds: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """Run every variant; seeds `seed`, `seed + 1`, .. Raises RuleError and ConfigError."""
    epochs, seeds = epochs or scenario.epochs, seeds or scenario.seeds
    if not scenario.variants:
        raise ConfigError(f"the scenario {scenario.title!r} has no variants")
    findings: list[Finding] = []
    first: dict[str, Outcome] = {}
    burned: dict[str, float] = {}
    for name, world in scenario.variants.items():
        progress(f"{name}: {epochs} epochs, {seeds} {'seed' if seeds == 1 else 'seeds'}")
        outcomes = [run(world, epochs, seed + number) for number in range(seeds)]
        first[name], burned[name] = outcomes[0], statistics.fmean(one.burned for one in outcomes)
        parties = list(outcomes[0].accounts)
        findings += [_finding(name, party, [one.accounts[party] for one in outcomes]) for party in parties]
    return Report(scenario.title, scenario.claim, epochs, seeds, scenario.per_stake, findings, burned, first)


def _finding(variant: str, party: str, accounts: Sequence[Account]) -> Finding:
    dividends, incentive, paid = (
        statistics.fmean(sum(getattr(one, name)) for one in accounts) for name in ("dividends", "incentive", "paid")
    )
    locked = statistics.fmean(one.locked[-1] for one in accounts)
    returns = [
        earned / stake for one in accounts for earned, stake in zip(one.dividends, one.stake, strict=True) if stake > 0
    ]
    place_epochs = sum(sum(one.places) for one in accounts)
    return Finding(
        variant=variant,
        party=party,
        dividends=dividends,
        incentive=incentive,
        paid=paid,
        locked=locked,
        net=dividends + incentive - paid - locked,
        yield_per_epoch=statistics.fmean(returns) if returns else None,
        income_per_place=incentive * len(accounts) / place_epochs if place_epochs else None,
        places=statistics.fmean(one.places[-1] for one in accounts),
    )


def table(report: Report) -> list[str]:
    """Lines for a terminal."""
    heads = ("variant", "party", "dividends", "incentive", "paid", "locked", "net", "return/epoch", "places")
    rows = [heads]
    for one in report.findings:
        back = "-" if one.yield_per_epoch is None else f"{one.yield_per_epoch:.4%}"
        amounts = [f"{value:,.1f}" for value in (one.dividends, one.incentive, one.paid, one.locked, one.net)]
        rows.append((one.variant, one.party, *amounts, back, f"{one.places:.0f}"))  # type: ignore[arg-type]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return [
        "  ".join(
            cell.ljust(width) if at < 2 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


# -- the picture ----------------------------------------------------------------------------------------------------


def draw(report: Report, path: Path) -> None:
    """Write the picture; its format is the file name's ending. Raises ConfigError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("pictures need matplotlib: pip install matplotlib") from error
    count = len(report.outcomes)
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(5.6 * columns, 1.0 + 3.2 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{report.title}\n{report.claim}" if report.claim else report.title, fontsize=11)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, (variant, outcome) in zip(panels, report.outcomes.items(), strict=False):
        _panel(axes, variant, _lines(outcome, report.per_stake))
    for axes in panels[count:]:
        axes.set_visible(False)
    for axes in panels[max(count - columns, 0) : count]:
        axes.set_xlabel("epoch")
        axes.tick_params(labelbottom=True)
    for axes in panels[::columns]:
        axes.set_ylabel("alpha earned per alpha staked" if report.per_stake else "alpha earned")
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot write {path}: {error}") from error


def _lines(outcome: Outcome, per_stake: bool) -> dict[str, list[float]]:
    """Per party what it had after every epoch."""
    lines: dict[str, list[float]] = {}
    for party, one in outcome.accounts.items():
        if per_stake and not any(one.stake):
            continue
        earned = [sum(amounts) for amounts in zip(one.dividends, one.incentive, strict=True)]
        if per_stake:
            gains = [gain / stake if stake else 0.0 for gain, stake in zip(earned, one.stake, strict=True)]
            lines[party] = list(accumulate(gains))
        else:
            spent = [paid for paid in accumulate(one.paid)]
            had = zip(accumulate(earned), spent, one.locked, strict=True)
            lines[party] = [gain - paid - locked for gain, paid, locked in had]
    return lines


def _panel(axes: Axes, variant: str, lines: Mapping[str, list[float]]) -> None:
    epochs = max(map(len, lines.values()), default=1)
    for at, line in enumerate(lines.values()):
        color, dash = COLORS[at % len(COLORS)], DASHES[at // len(COLORS) % len(DASHES)]
        axes.plot(range(1, epochs + 1), line, color=color, linestyle=dash)
    low, high = min(map(min, lines.values()), default=0.0), max(map(max, lines.values()), default=1.0)
    above = math.inf
    for at, (party, line) in sorted(enumerate(lines.items()), key=lambda entry: -entry[1][1][-1]):
        above = min(line[-1], above - (high - low) / LABELS)  # names of lines that end together stand below each other
        axes.text(epochs * 1.02, above, party, fontsize=8, color=COLORS[at % len(COLORS)], va="center")
    axes.set_xlim(0, epochs * 1.3)
    axes.set_title(variant, fontsize=9)
    axes.grid(alpha=0.25)
