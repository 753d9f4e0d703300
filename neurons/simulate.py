"""`touchstone simulate training`: does cheating pay? Hundreds of peers, thousands of windows, the rules themselves.

touchstone simulate training                                           300 peers of a mixed kind, 2,000 windows
touchstone simulate training --mix honest=0.9,patient=0.1              other peers; see protocol/training/simulation/
touchstone simulate training --mix honest=0.8,friend=0.2 --friendly 0.4     validators with 40 % of the stake cheat too
touchstone simulate training --hold 6.0                                the model stays where it is: what is paid then
touchstone simulate training --losses losses.json                      another loss model; see simulate_fit.py

What a peer keeps is told beside an honest peer's of the same run: per peer, and per window's worth of steps that it
did. The loss is told beside that of the same number of peers who are all honest. A seed gives the same result. Below
the lowest loss of the fitted trainings the loss model extrapolates, and the result says for how many windows.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurons.output import console, print_json, print_table
from protocol.training.simulation.peers import STRATEGIES, parse_mix, strategy_of
from protocol.training.simulation.setting import Account, Result, Setting, Validator
from protocol.training.simulation.world import honest_drops, simulate
from template.errors import TemplateError

if TYPE_CHECKING:
    from template.training.loss_fit import LossFit

MIX = (
    "honest=0.6,slow=0.05,absent=0.05,lazy=0.05,rare=0.05,patient=0.05,sybil=0.05,copier=0.03,colluder=0.04,noise=0.03"
)
STAKE = 1_000_000  # of all validators together
TOLD = 21  # points of the loss's course in the result


@dataclass(frozen=True)
class Options:
    """Of a simulation. `friendly`: share of the stake that one validator more holds, who is no honest one."""

    peers: int = 300
    windows: int = 2000
    mix: str = MIX
    validators: int = 3
    friendly: float = 0.0
    emission: float = Setting.emission
    price: float = Setting.price
    collateral: float = Setting.collateral
    hold: float | None = None
    seed: int = 0
    losses: Path | None = None
    out: Path | None = None


async def training(options: Options, *, as_json: bool) -> int:
    """Simulate and tell. Raises TemplateError."""
    from template.training import loss_fit

    setting = _setting(options)
    fit = loss_fit.read(options.losses) if options.losses else loss_fit.shipped()
    started = time.monotonic()
    result = simulate(fit.model, setting, np.random.default_rng([options.seed, 0]), Progress(options.windows).tell)
    best = honest_drops(fit.model, setting, np.random.default_rng([options.seed, 1]))
    document = _document(options, setting, fit, result, best, time.monotonic() - started)
    if options.out is not None:
        try:
            options.out.write_text(json.dumps(document, indent=1) + "\n")
        except OSError as error:
            print_json(document)  # it took a while to compute
            raise TemplateError(f"cannot write {options.out}: {error.strerror}", remedy="it is printed above") from None
    if as_json:
        print_json(document)
    else:
        _show(document)
    return 0


def _setting(options: Options) -> Setting:
    try:
        strategies = strategy_of(parse_mix(options.mix), options.peers)
        return Setting(
            strategies=strategies,
            windows=options.windows,
            validators=_validators(options.validators, options.friendly),
            emission=options.emission,
            price=options.price,
            collateral=options.collateral,
            hold=options.hold,
        )
    except ValueError as error:
        raise TemplateError(f"this cannot be simulated: {error}", remedy="see --help") from None


def _validators(count: int, friendly: float) -> tuple[Validator, ...]:
    """`count` honest ones with equal stake, and a friendly one if it has any."""
    if not 0.0 <= friendly < 1.0:
        raise ValueError("a friendly validator has a share of the stake between 0 and 1")
    theirs = round(STAKE * friendly)
    honest = tuple(Validator((STAKE - theirs) // count) for _ in range(count))
    return (*honest, Validator(theirs, friendly=True)) if theirs else honest


def _document(
    options: Options, setting: Setting, fit: LossFit, result: Result, best: Sequence[float], seconds: float
) -> dict[str, Any]:
    groups: dict[str, list[Account]] = {}
    for account in result.accounts:
        groups.setdefault(account.strategy, []).append(account)
    honest = _net_per_work(groups["honest"]) if "honest" in groups else None
    course = np.linspace(0, setting.windows, min(TOLD, setting.windows + 1)).round().astype(int)
    given = {name: value for name, value in asdict(options).items() if name not in ("losses", "out")}
    given["mix"] = {name: len(group) for name, group in groups.items()}
    return {
        "options": given,
        "loss_model": {
            "digest": fit.digest,
            "file": str(options.losses) if options.losses else "shipped",
            "fitted": fit.losses,
            "windows_beyond": sum(loss < fit.losses[1] for loss in result.losses[:-1]),
        },
        "strategies": {name: _group(group, setting, honest) for name, group in groups.items()},
        "burned": result.burned,
        "replays_per_window_of_work": _ratio(
            sum(account.replayed for account in result.accounts) / len(setting.validators),
            sum(account.work for account in result.accounts),
        ),
        "loss": {
            "start": result.losses[0],
            "end": result.losses[-1],
            "drop": sum(result.drops),
            "drop_all_honest": sum(best),
            "course": {int(window): result.losses[window] for window in course},
        },
        "seconds": round(seconds, 1),
    }


def _group(group: Sequence[Account], setting: Setting, honest: float | None) -> dict[str, Any]:
    """What became of one strategy's peers. Earnings are in alpha; `net` is without what re-registering cost."""
    count, shown = len(group), sum(account.shown for account in group)
    earned = np.array([account.earned for account in group])
    per_work = _net_per_work(group)
    return {
        "about": STRATEGIES[group[0].strategy].about,
        "peers": count,
        "hotkeys": sum(account.hotkeys for account in group),
        "earned": float(earned.sum()),
        "earned_quartiles": [float(value) for value in np.quantile(earned, (0.25, 0.5, 0.75))],
        "fees": sum(account.fees for account in group),
        "net_per_peer": (float(earned.sum()) - sum(account.fees for account in group)) / count,
        "work_per_peer": sum(account.work for account in group) / count,
        "net_per_work": per_work,
        "of_honest": _ratio(per_work, honest) if per_work is not None and honest is not None else None,
        "shown": shown,
        "helped": _ratio(sum(account.helped for account in group), shown),
        "entered": _ratio(sum(account.entered for account in group), shown),
        "replayed": sum(account.replayed for account in group),
        "rejected": sum(account.rejected for account in group),
    }


def _net_per_work(group: Sequence[Account]) -> float | None:
    """Alpha for a window's worth of steps; None when they did none."""
    return _ratio(sum(account.earned - account.fees for account in group), sum(account.work for account in group))


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _show(document: Mapping[str, Any]) -> None:
    given, loss = document["options"], document["loss"]
    rows = []
    for name, one in document["strategies"].items():
        rows.append(
            [
                name,
                str(one["peers"]),
                f"{one['net_per_peer']:.2f}",
                f"{one['work_per_peer']:.0f}",
                _number(one["net_per_work"], ".4f"),
                _number(one["of_honest"], ".2f"),
                _number(one["helped"], ".1%"),
                _number(one["entered"], ".1%"),
                f"{one['replayed'] / one['shown']:.2f}" if one["shown"] else "-",
                str(one["rejected"]),
                str(one["hotkeys"]),
            ]
        )
    columns = ["", "peers>", "net>", "work>", "net/work>", "of honest>", "helps>", "enters>", "replays>", "rejects>"]
    title = f"{given['peers']} peers, {given['windows']} windows, {given['emission']} alpha each, seed {given['seed']}"
    print_table(title, [*columns, "hotkeys>"], rows)
    console.print("net: alpha a peer, without what registering again cost; work: windows' worth of steps a peer did;")
    console.print("replays: of a contribution shown, by all validators; helps, enters: of contributions shown")
    if given["hold"] is None:
        best = loss["start"] - loss["drop_all_honest"]
        console.print(f"loss {loss['start']:.3f} to {loss['end']:.3f}; to {best:.3f} if all were honest")
    else:
        one, best = (1000.0 * loss[name] / given["windows"] for name in ("drop", "drop_all_honest"))
        console.print(
            f"loss held at {loss['start']:.3f}; a step takes {one:.2f} millinats, {best:.2f} if all were honest"
        )
    beyond = document["loss_model"]["windows_beyond"]
    if beyond:
        console.print(f"{beyond} windows are at losses below those that were fitted, so extrapolated")
    console.print(f"{document['burned']:.1f} alpha burned; {document['seconds']} s")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


@dataclass
class Progress:
    """A line on standard error every few seconds."""

    windows: int
    started: float = 0.0
    said: float = 0.0

    def tell(self, window: int, loss: float) -> None:
        now = time.monotonic()
        self.started = self.started or now
        if now - max(self.said, self.started) < 5.0:
            return
        self.said = now
        left = (now - self.started) / window * (self.windows - window) if window else 0.0
        print(f"window {window} of {self.windows}, loss {loss:.3f}, {left:.0f} s left", file=sys.stderr, flush=True)
