"""`touchstone calibrate`: measure honest answers of a model on this machine, and draw the judge's thresholds from them.

touchstone calibrate                       the default model: 100,000 tokens in all ways of making and checking answers
touchstone calibrate --dtype bfloat16      another number format is another calibration
touchstone calibrate --check               judge fresh honest answers by the calibration in force, and count the rejects

The result lies where this machine's neurons look for it, or in --out. Every answer is kept in a file of records beside
it, so that an interrupted run goes on; a run whose records are complete only computes. --check keeps nothing, and takes
the calibration to judge by from --out, if given.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from neurons import models
from neurons.output import console, print_json, print_table
from protocol.calibration import Calibration, answers_needed, derive, false_positive_bound
from protocol.challenges import ChallengePolicy
from protocol.verdicts import Outcome, judge
from template.errors import TemplateError
from template.settings import NeuronSettings
from template.settings import load as load_settings

if TYPE_CHECKING:
    from template.inference.honest import Record
    from template.inference.models import LoadedModel

SEED = b"touchstone calibration 1"  # of the questions; anybody can ask the same ones
BATCH = 256  # answers between two looks at the target
FIRST_CHECK = 10_000_000  # number of the first challenge of a check: none that a calibration was measured on
# Every sampler and length; most prompts are short, because an answer counts once, however long its prompt.
SAMPLED = ChallengePolicy(max_tokens=(16, 32, 32, 64), length_classes=(*["short"] * 8, "medium", "long"))
CHECKED = ChallengePolicy(max_tokens=(4, 8, 16), length_classes=("short",))


@dataclass(frozen=True)
class Aim:
    """How much is measured. `tokens` and the answers that `target` needs, or `answers` when that is given."""

    tokens: int = 100_000
    answers: int = 0
    target: float = 1e-3
    check: bool = False


async def calibrate(given: dict[str, str], aim: Aim, *, out: Path | None, as_json: bool) -> int:
    """Measure and write, or check; 1 when a check met a reject. Raises TemplateError and ProtocolError."""
    from template.inference import calibrations

    settings = load_settings(NeuronSettings, flags={"netuid": 1, **given})  # which subnet makes no difference
    loaded, cores = models.load(settings), models.thread_count(settings)
    path = out or calibrations.own_folder() / calibrations.file_name(loaded.identity)
    if aim.check:
        return await _check(loaded, cores, aim, out, as_json)
    kept = path.parent / calibrations.file_name(loaded.identity).replace(".json", ".records.jsonl")
    records = await _measure(loaded, cores, aim, kept)
    calibration = _derived(loaded, records, aim)
    calibrations.write(path, calibration)
    if as_json:
        print_json({"file": str(path), "digest": calibration.digest, **calibration.model_dump(mode="json")})
    else:
        _show(path, calibration)
    return 0


def _derived(loaded: LoadedModel, records: list[Record], aim: Aim) -> Calibration:
    from template.inference.honest import summarise

    sample = summarise(records)
    return derive(loaded.identity.root, loaded.identity.dtype, sample, aim.target)


async def _measure(loaded: LoadedModel, cores: int, aim: Aim, path: Path) -> list[Record]:
    """Records of enough answers; what `path` holds already is not measured again."""
    from template.inference.honest import sample

    records = _read(path)
    needed = max(aim.answers, answers_needed(aim.target))
    progress = Progress(aim.tokens, len(records), sum(record.tokens for record in records.values()))
    with path.open("a") as file:
        for start in itertools.count(0, BATCH):
            if progress.answers >= needed and (aim.answers or progress.tokens >= aim.tokens):
                break
            missing = sorted(set(range(start, start + BATCH)) - records.keys())
            async for record, *_ in sample(loaded, missing, SAMPLED, SEED, cores):
                file.write(record.model_dump_json() + "\n")
                file.flush()
                records[record.number] = record
                progress.tell(record.tokens)
    return list(records.values())


async def _check(loaded: LoadedModel, cores: int, aim: Aim, file: Path | None, as_json: bool) -> int:
    """Fresh honest answers before the judge; 1 when one was rejected or could not be judged."""
    from template.inference import calibrations
    from template.inference.honest import sample

    calibration = calibrations.read(file) if file else calibrations.calibration_for(loaded.identity)
    if calibration is None:
        raise TemplateError(f"no calibration for {loaded.identity.name}", remedy="run touchstone calibrate first")
    answers = aim.answers or 10_000
    outcomes: Counter[Outcome] = Counter()
    reasons: Counter[str] = Counter()
    progress = Progress(0, 0, 0)
    for start in range(FIRST_CHECK, FIRST_CHECK + answers, BATCH):
        numbers = range(start, min(start + BATCH, FIRST_CHECK + answers))
        async for record, challenge, response, recomputed in sample(loaded, numbers, CHECKED, SEED, cores):
            verdict = judge(challenge, response, recomputed, calibration)
            outcomes[verdict.outcome] += 1
            reasons[verdict.reason.value] += 1
            progress.tell(record.tokens)
    result: dict[str, Any] = {
        "calibration": calibration.digest,
        "answers": answers,
        "tokens": progress.tokens,
        "outcomes": {outcome.value: outcomes[outcome] for outcome in Outcome},
        "reasons": dict(reasons),
        "false_positive_bound": false_positive_bound(answers) if outcomes[Outcome.ACCEPT] == answers else None,
    }
    if as_json:
        print_json(result)
    else:
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        console.print(f"{answers} honest answers, {progress.tokens} tokens, by {calibration.digest[:16]}: {told}")
    return 0 if outcomes[Outcome.ACCEPT] == answers else 1


@dataclass
class Progress:
    """A line on standard error every few seconds."""

    wanted: int  # tokens; 0: no end known
    answers: int
    tokens: int
    started: float = 0.0
    said: float = 0.0
    fresh: int = 0

    def tell(self, tokens: int) -> None:
        now = time.monotonic()
        self.started = self.started or now
        self.answers, self.tokens, self.fresh = self.answers + 1, self.tokens + tokens, self.fresh + tokens
        if now - self.said < 10.0:
            return
        self.said = now
        speed = self.fresh / (now - self.started) if now > self.started else 0.0
        left = f", {(self.wanted - self.tokens) / speed / 60:.0f} min left" if self.wanted and speed else ""
        print(f"{self.answers} answers, {self.tokens} tokens, {speed:.0f}/s{left}", file=sys.stderr, flush=True)


def _read(path: Path) -> dict[int, Record]:
    """The records of an earlier run; a line that a killed run left half-written is dropped."""
    from template.inference.honest import Record

    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return {}
    lines = path.read_bytes().split(b"\n")
    whole, rest = lines[:-1], lines[-1]
    try:
        records = [Record.model_validate_json(line) for line in whole]
    except ValidationError:
        raise TemplateError(f"{path} holds something else than records", remedy="move it away") from None
    if rest:
        path.write_bytes(b"".join(line + b"\n" for line in whole))
    return {record.number: record for record in records}


def _show(path: Path, calibration: Calibration) -> None:
    sample = calibration.sample
    rows = [
        [name, f"{spread.count:,}", *(f"{value:.2g}" for value in values), f"{limit:.4g}"]
        for name, spread, limit in (
            ("margin of a token", sample.margin, calibration.lost_margin),
            ("margin of an end of sequence", sample.eos_margin, calibration.eos_margin),
            ("mean of an answer", sample.request_mean, calibration.request_mean),
            ("mean of a pool", sample.pool_mean, calibration.pool_mean),
            ("fingerprint distance of a chunk", sample.distance, calibration.distance),
        )
        for values in [(spread.p50, spread.p99, spread.p999, spread.maximum)]
    ]
    title = f"{sample.answers:,} honest answers, {sample.tokens:,} tokens, {sample.match:.4%} win outright"
    print_table(title, ["", "count>", "median>", "99 %>", "99.9 %>", "largest>", "limit>"], rows)
    bound = calibration.false_positives
    console.print(
        f"false positives below {bound:.2g} an answer (target {calibration.target:g}); digest {calibration.digest}"
    )
    console.print(f"written to {path}")
