"""`touchstone simulate SCENARIO`: an economic experiment on one subnet, see `localnet.economy`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from localnet.economy.report import draw, experiment, load, table


async def simulate(
    scenario: str, epochs: int | None, seeds: int | None, seed: int, out: Path | None, *, as_json: bool
) -> int:
    """Run it and print what everybody earned. Raises ConfigError and RuleError."""
    report = experiment(load(scenario), epochs, seeds, seed, lambda text: print(text, file=sys.stderr, flush=True))
    if out is not None:
        draw(report, out)
    if as_json:
        print(json.dumps(report.as_json()))
        return 0
    print("\n".join([report.title, *([report.claim] if report.claim else []), "", *table(report)]))
    print("\nalpha; return/epoch: dividends per stake; net: what is left after places and collateral")
    if out is not None:
        print(f"picture: {out}")
    return 0
