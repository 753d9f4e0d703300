"""`touchstone train attack-bench`: every known attack on a training, what it earns, and what it does to the loss.

touchstone train attack-bench --dataset english                 all attacks; ten minutes of one core
touchstone train attack-bench --dataset english --attacks copy,noise
touchstone train attack-bench --dataset english --out attacks.json --table attacks.md

Attackers join honest miners in one process and train a small model together, window after window, by the rules of the
subnet: see template/training/cohort.py. The honest miners, their data and the first model are the same in every run, so
losses can be compared. For each attack and share of attackers: what became of its contributions, how many entered, what
it earned in percent of what an honest miner earned, and how much higher the loss is at the end than without attackers.
What only audits have stopped is run again as if no audit were drawn. The attacks are those of
`tests/adversary/trainers`, so this command needs a checkout. Exit status 1 when an attack earns more than the library
says (EARNS_BELOW), or an honest miner was rejected.

Finished runs are kept, one JSON line each, in --journal (default: beside --out); the same command goes on from there.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from neurons.challenge_bench import CHECKOUT
from neurons.journal import Journal, beside
from neurons.output import console, print_json, print_table
from neurons.train_attack_runs import DRAWN, HONEST, UNDRAWN, Field, Options, Run, Runs, run_name, told_loss
from protocol.audits import audit_floor
from template.errors import TemplateError

if TYPE_CHECKING:
    from tests.adversary.trainers import Attack

EARNS_BELOW = 0.05  # of what an honest miner earns; an attack that earns more is not caught
HEADS = ["attack", "what it does", "ends", "entered", "earns", "loss", "undrawn: entered", "earns", "loss"]


async def attack_bench(options: Options, *, as_json: bool) -> int:
    """Measure and show; 1 when an attack pays or an honest miner was rejected. Raises TemplateError."""
    from template.training.dataset import Dataset, own_store, read_manifest

    attacks = _library(options.attacks)
    if not options.shares or any(not 0.0 < share < 1.0 for share in options.shares):
        raise TemplateError("shares of attackers lie between 0 and 1", remedy="give for example 0.25,0.4")
    if options.honest < max(attack.others for attack in attacks):
        raise TemplateError("some attacks use the data of several honest miners", remedy="raise --honest")
    for file in (options.out, options.table):  # now, not after all the runs
        if file is not None and not file.resolve().parent.is_dir():
            raise TemplateError(f"there is no folder for {file}", remedy="make it, or name another file")
    manifest = read_manifest(options.dataset)
    with tempfile.TemporaryDirectory() as scratch:
        async with own_store(options.dataset) as store:
            dataset = Dataset(manifest, store, Path(scratch))
            await dataset.fetch(range(len(manifest.training)))
            await dataset.fetch([0], "validation")
        place = Field(options, dataset)
        try:
            conditions = place.conditions
        except ValidationError as error:
            raise TemplateError(f"no such model: {error.errors()[0]['msg']}", remedy="see --help") from None
        journal = Journal(options.journal or beside(options.out), conditions, ("name", "run"), TypeAdapter(Run))
        await asyncio.to_thread(Runs(place, journal).all, attacks)
    result = summary(attacks, journal, options)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.table:
        options.table.write_text(markdown(result))
    if as_json:
        print_json(result)
    else:
        _show(result)
    return 0 if result["as_claimed"] else 1


def _library(names: Sequence[str]) -> list[Attack]:
    """The attacks of the checkout. Raises TemplateError when this is none, or a name is unknown."""
    if not (CHECKOUT / "tests" / "adversary" / "trainers").is_dir():
        raise TemplateError(
            "the attacks are part of the source checkout", remedy="clone the repository and run the command there"
        )
    if str(CHECKOUT) not in sys.path:
        sys.path.insert(0, str(CHECKOUT))
    from tests.adversary.trainers import ATTACKS

    unknown = [name for name in names if name not in ATTACKS]
    if unknown:
        raise TemplateError(f"there is no attack {unknown[0]!r}", remedy=f"choose from: {'; '.join(ATTACKS)}")
    return [attack for name, attack in ATTACKS.items() if not names or name in names]


def summary(attacks: Sequence[Attack], journal: Journal[Run], options: Options) -> dict[str, Any]:
    """The whole result from what the journal holds."""
    alone = journal.done[run_name(HONEST, 0, DRAWN)]
    rows = {attack.name: _row(attack, journal, alone, options) for attack in attacks}
    caught = all(share[DRAWN]["kept"] <= EARNS_BELOW for row in rows.values() for share in row["shares"].values())
    rejected = sum(run.honest_rejected for run in journal.done.values())
    return {
        "conditions": journal.conditions,
        "steps": options.steps,
        "batch": options.batch,
        "length": options.length,
        "rate": options.rate,
        "audit_floor": audit_floor(1.0, 0.0),
        "honest": asdict(alone),
        "attacks": rows,
        "honest_rejected": rejected,
        "as_claimed": caught and not rejected,
    }


def _row(attack: Attack, journal: Journal[Run], alone: Run, options: Options) -> dict[str, Any]:
    shares = {}
    for share in options.shares:
        count = options.attackers(share)
        drawn = journal.done[run_name(attack.name, count, DRAWN)]
        undrawn = journal.done[run_name(attack.name, count, UNDRAWN)] if drawn.drawn_out else drawn
        found = {DRAWN: drawn, UNDRAWN: undrawn}
        shares[f"{share:g}"] = {name: _seen(run, alone, options.honest) for name, run in found.items()}
    return {"what": attack.what, "end": str(attack.end), "passes": attack.passes, "shares": shares}


def _seen(run: Run, alone: Run, honest: int) -> dict[str, Any]:
    """`kept`: of what an honest miner earned; `fair`: of an equal share for every head."""
    return {
        **asdict(run),
        "kept": run.earned / run.honest_earned if run.honest_earned else 0.0,
        "fair": run.earned * (run.attackers + honest),
        "harm": None if run.loss is None or alone.loss is None else run.loss - alone.loss,
    }


def markdown(result: dict[str, Any]) -> str:
    """The table as it stands in a README."""
    lines = ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
    lines += ["| " + " | ".join(_cells(name, row)) + " |" for name, row in result["attacks"].items()]
    return "\n".join([*lines, "", *_footing(result), ""])


def _cells(name: str, row: dict[str, Any]) -> list[str]:
    """Numbers of all shares with slashes between them; of what draws have not stopped the rest is the same."""
    drawn, undrawn = ([share[draws] for share in row["shares"].values()] for draws in (DRAWN, UNDRAWN))
    counted = Counter[str]()
    for seen in drawn:
        counted.update(seen["ends"])
    ends = [
        end if len(counted) == 1 else f"{end} {count / counted.total():.0%}" for end, count in counted.most_common()
    ]
    again = any(seen["drawn_out"] for seen in drawn)
    return [name, row["what"], ", ".join(ends), *_numbers(drawn), *(_numbers(undrawn) if again else ["same", "", ""])]


def _numbers(shares: Sequence[dict[str, Any]]) -> list[str]:
    percents = [" / ".join(f"{100 * seen[name]:.0f}" for seen in shares) + " %" for name in ("entered", "kept")]
    return [*percents, " / ".join(_told(seen["harm"]) for seen in shares)]


def _told(harm: float | None) -> str:
    return "destroyed" if harm is None else f"{harm:+.3f}"


def _footing(result: dict[str, Any]) -> list[str]:
    conditions, alone = result["conditions"], result["honest"]
    shares = next(iter(result["attacks"].values()))["shares"]
    counts = " / ".join(str(seen[DRAWN]["attackers"]) for seen in shares.values())
    told = [
        f"{conditions['honest']} honest miners and {counts} attackers "
        f"({' / '.join(f'{float(share):.0%}' for share in shares)} of all), {conditions['windows']} windows of "
        f"{result['steps']} steps of {result['batch']} x {result['length']} tokens at a rate of {result['rate']:g}, a "
        f"Llama of {conditions['parameters']:,} parameters on {conditions['dataset']}, seed {conditions['seed']}. "
        f"Honest miners alone bring the validation loss from {alone['first_loss']:.3f} to {told_loss(alone['loss'])} "
        f"nats a token; under loss is by how much it ends higher. Entered: of the attackers' contributions. Earns: of "
        f"what an honest miner earns. Undrawn: the same run with nobody audited but those who are alike. Destroyed: "
        f"its loss is no number. {alone['honest_entered']:.0%} of the contributions of honest miners alone entered, "
        f"and {result['honest_rejected']} of all honest contributions were rejected."
    ]
    backdoor = result["attacks"].get("backdoor")
    if backdoor:
        drawn, undrawn = (
            " / ".join(told_loss(share[draws]["backdoor"]) for share in backdoor["shares"].values())
            for draws in (DRAWN, UNDRAWN)
        )
        told.append(
            f"Backdoor: the planted token after its trigger costs {alone['first_backdoor']:.3f} nats in the first "
            f"model, {told_loss(alone['backdoor'])} after honest miners alone, {drawn} with attackers, {undrawn} "
            f"undrawn."
        )
    return told


def _show(result: dict[str, Any]) -> None:
    left = {"attack", "ends"}
    hidden = HEADS.index("what it does")
    columns = [head if head in left else f"{head}>" for place, head in enumerate(HEADS) if place != hidden]
    rows = [_cells(name, row) for name, row in result["attacks"].items()]
    print_table("attacks on the training", columns, [[*row[:hidden], *row[hidden + 1 :]] for row in rows])
    for line in _footing(result):
        console.print(line)
