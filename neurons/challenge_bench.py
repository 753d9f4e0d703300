"""`touchstone challenge-bench`: every known cheat against the judge, and the table of how it is found out.

touchstone challenge-bench                              all cheats, 16 answers each; a quarter of an hour on two cores
touchstone challenge-bench --cheats int8,one_token      only these
touchstone challenge-bench --out bench.json --table bench.md

For each cheat: the share of single answers that the judge rejects after so many tokens, at the false-positive rate of
its calibration; by which check; tokens until the miner is caught when its answers are pooled in order; the answers it
takes with every answer audited, and with as few as the policy audits; and what share of an honest miner's reward it
keeps when it goes on for thousands of rounds. The cheats are those of `tests/adversary/cheats`, so this command needs a
checkout. Exit status 1 when a cheat fares otherwise than the library says, or an honest answer was rejected.

Finished cheats are kept, one JSON line each, in --journal (default: beside --out); the same command goes on from there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from neurons import models
from neurons.cheat_runs import HONEST, Bench, Options, conditions
from neurons.detection import FALSE_POSITIVES, Limits, Policy, Seen, detection, own_limits
from neurons.journal import Journal, beside
from neurons.output import console, print_json, print_table
from protocol.audits import audit_floor
from protocol.calibration import Calibration, false_positive_bound
from protocol.verdicts import Outcome
from template.errors import TemplateError
from template.settings import NeuronSettings
from template.settings import load as load_settings

if TYPE_CHECKING:
    from template.inference.models import LoadedModel
    from tests.adversary.cheats import Cheat

CHECKOUT = Path(__file__).resolve().parent.parent


async def challenge_bench(given: dict[str, str], options: Options, *, as_json: bool) -> int:
    """Measure and show; 1 when a cheat fares otherwise than the library says. Raises TemplateError."""
    cheats = _library(options.cheats)
    for file in (options.out, options.table):  # now, not after a quarter of an hour
        if file is not None and not file.resolve().parent.is_dir():
            raise TemplateError(f"there is no folder for {file}", remedy="make it, or name another file")
    settings = load_settings(NeuronSettings, flags={"netuid": 1, **given})  # which subnet makes no difference
    loaded, cores = models.load(settings), models.thread_count(settings)
    calibration = _calibration(loaded, options.calibration)
    held = conditions(loaded, calibration, options)
    journal = Journal(options.journal or beside(options.out), held, ("cheat", "seen"), TypeAdapter(list[Seen]))
    from template.inference.verifier import Verifier, VerifierSettings

    verifier = Verifier(loaded, VerifierSettings(threads=cores), calibration.slack)
    try:
        await Bench(loaded, calibration, verifier, options, cores, journal).run(cheats)
    finally:
        verifier.close()
    result = summary(cheats, journal, calibration, options)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.table:
        options.table.write_text(markdown(result))
    if as_json:
        print_json(result)
    else:
        _show(result)
    return 0 if result["as_claimed"] else 1


def _library(names: Sequence[str]) -> list[Cheat]:
    """The cheats of the checkout. Raises TemplateError when this is none, or a name is unknown."""
    if not (CHECKOUT / "tests" / "adversary" / "cheats").is_dir():
        raise TemplateError(
            "the cheats are part of the source checkout", remedy="clone the repository and run the command there"
        )
    if str(CHECKOUT) not in sys.path:
        sys.path.insert(0, str(CHECKOUT))
    from tests.adversary.cheats import CHEATS

    unknown = [name for name in names if name not in CHEATS]
    if unknown:
        raise TemplateError(f"there is no cheat {unknown[0]!r}", remedy=f"choose from: {', '.join(CHEATS)}")
    return [cheat for name, cheat in CHEATS.items() if not names or name in names]


def _calibration(loaded: LoadedModel, file: Path | None) -> Calibration:
    from template.inference import calibrations

    identity = loaded.identity
    found = calibrations.read(file) if file else calibrations.calibration_for(identity)
    if found is None:
        raise TemplateError(
            f"no calibration for {identity.name} in {identity.dtype}",
            remedy="measure one with touchstone calibrate, or name a file with --calibration",
        )
    if (found.root, found.dtype) != (identity.root, identity.dtype):
        raise TemplateError(f"{file} is for another model: root {found.root[:16]}, {found.dtype}")
    return found


def summary(
    cheats: Sequence[Cheat], journal: Journal[list[Seen]], calibration: Calibration, options: Options
) -> dict[str, Any]:
    """The whole result from what the journal holds."""
    honest = journal.done[HONEST]
    limits = own_limits([one for one in honest if one.size == options.max_tokens], options.sizes, options.seed)
    policy = Policy(audit_floor(1.0, 0.0), options.rounds, options.seed)
    false = sum(one.outcome is Outcome.REJECT for one in honest if one.size == options.max_tokens)
    rows = {cheat.name: _row(cheat, journal.done[cheat.name], limits, calibration, policy) for cheat in cheats}
    return {
        "conditions": journal.conditions,
        "honest": {
            "answers": options.honest,
            "rejected": false,
            "bound_here": false_positive_bound(options.honest) if not false else None,
            "bound_of_calibration": calibration.false_positives,
        },
        "own_limits": {str(size): asdict(limit) for size, limit in limits.items()},
        "false_positives": FALSE_POSITIVES,
        "audit_floor": policy.floor,
        "rounds": policy.rounds,
        "cheats": rows,
        "as_claimed": false == 0 and all(row["fate"] == row["claimed"] for row in rows.values()),
    }


def _row(
    cheat: Cheat, seen: Sequence[Seen], limits: dict[int, Limits], calibration: Calibration, policy: Policy
) -> dict[str, Any]:
    from tests.adversary.cheats import CAUGHT_BELOW, Fate

    found = detection(cheat.name, seen, limits, calibration, policy)
    fate = Fate.CAUGHT if found["kept"] <= CAUGHT_BELOW else Fate.MISSED
    if not found["answered"]:
        fate = Fate.UNPAID
    elif fate is Fate.MISSED and cheat.fate is Fate.HARMLESS:
        fate = Fate.HARMLESS
    return {"what": cheat.what, "gain": cheat.gain, "claimed": str(cheat.fate), "fate": str(fate), **found}


def _cells(name: str, row: dict[str, Any]) -> list[str]:
    tokens, answers = row["tokens_until_caught"], row["answers_until_caught"]
    until = [_number(tokens["p50"]), _number(tokens["p95"]), _number(answers["rate_1"]), _number(answers["floor"])]
    fate = row["fate"] if row["fate"] == row["claimed"] else f"{row['fate']} (expected: {row['claimed']})"
    reasons = ", ".join(reason for reason in row["reasons"] if reason != "ok")
    caught = [f"{share:.2f}" for share in row["caught"].values()]
    return [name, row["what"], *caught, reasons, *until, f"{row['kept']:.1%}", fate]


def _heads(result: dict[str, Any]) -> list[str]:
    sizes = next(iter(result["cheats"].values()))["caught"]
    return ["cheat", "what it does", *sizes, "found by", "tokens p50", "p95", "answers", "at floor", "keeps", "fate"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _footing(result: dict[str, Any]) -> str:
    honest, conditions = result["honest"], result["conditions"]
    return (
        f"{conditions['answers']} answers a cheat, {conditions['dtype']}, {conditions['prompts']} prompts; "
        f"{honest['rejected']} of {honest['answers']} honest answers rejected, false positives of the calibration "
        f"below {honest['bound_of_calibration']:.2g}. Under token counts: share of single answers rejected. Tokens: "
        f"until half, and 95 %, of miners are caught, answers pooled in order. Answers: expected until a reject, with "
        f"every answer audited, and with a share of {result['audit_floor']:.2f}. Keeps: of an honest miner's reward "
        f"over {result['rounds']:,} rounds."
    )


def markdown(result: dict[str, Any]) -> str:
    """The table as it stands in a README."""
    heads = _heads(result)
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(_cells(name, row)) + " |" for name, row in result["cheats"].items()]
    return "\n".join([*lines, "", _footing(result), ""])


def _show(result: dict[str, Any]) -> None:
    heads = _heads(result)
    left = {"cheat", "what it does", "found by", "fate"}
    hidden = heads.index("what it does")
    columns = [head if head in left else f"{head}>" for place, head in enumerate(heads) if place != hidden]
    rows = [_cells(name, row) for name, row in result["cheats"].items()]
    print_table("cheats against the judge", columns, [[*row[:hidden], *row[hidden + 1 :]] for row in rows])
    console.print(_footing(result))
