"""What a validator's work costs beside the miners' training, over some windows of honest miners; how alike they are.

CPU seconds of one contribution, the mean of all: training with everything a miner does until it commits; forms
(parsing, decoding, comparing everybody's entries); scores, with the recipe's number of batches and with one of each
kind; an audit of opened buffers. All of it is measured in every window, so that what else the machine does hits all
alike. What a validator does once a window, however many contributions there are, is `once_a_window_s`.

The same windows say how many of the entries that two honest miners keep are common, which has to stay below the
recipe's `alike_from`, and how often an honest contribution is measured as a help, which it needs to enter the model.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from benchmarks.training_stages.common import Figures, Ground, Journal, drawn, say
from protocol.training.copies import compared_chunks, overlaps
from protocol.training.judging import Due, Opened, Shown, judge_forms
from protocol.training.payload import Contribution
from protocol.training.recipe import Recipe, Scored
from protocol.training.statement import Statement
from protocol.verdicts import Outcome
from template.training.checkpoint import to_file
from template.training.evaluation import audit, loss_scores, validation_loss
from template.training.shared import Shared, advanced
from template.training.work_state import Kept
from template.training.workbench import Workbench, honest

T = TypeVar("T")

RATES = (0.03, 0.05, 0.10, 1.0)  # shares of windows that are trained again; 1 for newcomers


@dataclass
class Costs:
    """CPU seconds by what was done, one entry each time."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def of(self, name: str, work: Callable[[], T], many: int = 1) -> T:
        """Do it; `many`: what it was done for at once."""
        started = time.process_time()
        found = work()
        self.seconds.setdefault(name, []).extend([(time.process_time() - started) / many] * many)
        return found

    def mean(self, name: str) -> float:
        return statistics.mean(self.seconds[name])


def measure(ground: Ground, journal: Journal, recipe: Recipe, *, miners: int, windows: int, audited: int) -> Figures:
    """`audited`: miners of each window whose training is repeated."""
    settings = {"recipe": recipe.id, "miners": miners, "windows": windows, "audited": audited}
    return journal.once("checking", settings, lambda: _measure(ground, recipe, miners, windows, audited))


def _measure(ground: Ground, recipe: Recipe, miners: int, windows: int, audited: int) -> Figures:
    costs, shared = Costs(), ground.start(0)
    kept: dict[str, Kept] = {}
    seen: list[Figures] = []
    for window in range(windows):
        earlier = kept
        kept = {}
        for number in range(miners):
            bench = _bench(ground, recipe, shared, f"miner {number}", earlier.get(f"miner {number}"))
            kept[bench.miner] = costs.of("train", lambda bench=bench: honest(bench))
        contributions, figures = _validated(ground, recipe, shared, kept, costs, audited)
        shared = costs.of("settle", lambda c=contributions, s=shared: _settled(ground, recipe, s, c))
        loss = costs.of(
            "validation", lambda s=shared: validation_loss(ground.trainer, s.vector, ground.dataset, recipe)
        )
        seen.append({**figures, "loss": round(loss, 4)})
        say(f"checking: window {window + 1} of {windows}: {seen[-1]}")
    return {**_ratios(costs), "windows": seen, "seconds": {name: round(costs.mean(name), 3) for name in costs.seconds}}


def _bench(ground: Ground, recipe: Recipe, shared: Shared, miner: str, last: Kept | None) -> Workbench:
    def batches_of(hotkey: str) -> Any:
        return ground.batches(shared.window, hotkey, recipe)

    before = np.frombuffer(last.after, "<f4") if last else None
    earlier = Statement.parse(last.statement) if last else None
    return Workbench(miner, shared.window, recipe, shared, ground.trainer, batches_of, before, earlier)


def _validated(
    ground: Ground, recipe: Recipe, shared: Shared, kept: dict[str, Kept], costs: Costs, audited: int
) -> tuple[dict[str, Contribution], Figures]:
    window, size = shared.window, ground.layout.size
    said = {miner: Statement.parse(one.statement) for miner, one in kept.items()}
    # What the statement goes on from is the miner's own; whether that entered is not what is measured here.
    due_of = {miner: Due(window, shared.root, size, recipe, _named(one)) for miner, one in said.items()}
    shown = {miner: Shown(one.statement, one.payload) for miner, one in kept.items()}
    chunks = compared_chunks(drawn(0, "reveal", window), size)
    forms = costs.of("forms", lambda: judge_forms(due_of, shown, chunks), len(kept))
    if forms.verdicts:
        raise AssertionError(f"honest contributions were rejected: {dict(forms.verdicts)}")
    figures: Figures = {"overlap": _overlap(list(forms.contributions.values()), chunks)}
    for name, scored in (("score", recipe.scored), ("score 1+1", Scored(assigned=1, unassigned=1))):
        by = recipe.model_copy(update={"scored": scored})
        scores = costs.of(
            name,
            lambda by=by: loss_scores(
                ground.trainer, shared.vector, forms.contributions, lambda miner: ground.scored(window, miner, by), by
            ),
            len(kept),
        )
        figures[name] = {
            "helps": sum(score.helps for score in scores.values()) / len(scores),
            "more on own": sum(score.assigned > score.unassigned for score in scores.values()) / len(scores),
            "least": round(min(min(score.assigned, score.unassigned) for score in scores.values()), 4),
            "mean": [
                round(statistics.mean(getattr(score, part) for score in scores.values()), 4)
                for part in ("assigned", "unassigned")
            ],
        }
    for miner in list(kept)[:audited]:
        before, after = kept[miner].before, np.frombuffer(kept[miner].after, "<f4")
        opened = Opened(np.frombuffer(before, "<f4") if before else np.zeros(size, np.float32), after)
        batches, contribution = ground.batches(window, miner, recipe), forms.contributions[miner]
        verdict = costs.of(
            "audit",
            lambda m=miner, b=batches, c=contribution, o=opened: audit(
                ground.trainer, shared.vector, b, due_of[m], said[m], c, o
            ),
        )
        if verdict.outcome is not Outcome.ACCEPT:
            raise AssertionError(f"an honest contribution was not accepted: {verdict}")
        figures.setdefault("audits", []).append(verdict.detail)
    return dict(forms.contributions), figures


def _named(said: Statement) -> Statement | None:
    """A statement of the window before that left the buffer which this one goes on from."""
    if said.before is None:
        return None
    return said.model_copy(update={"window": said.window - 1, "before": None, "after": said.before})


def _overlap(contributions: Sequence[Contribution], chunks: Sequence[int]) -> list[float]:
    """[median, most] of all pairs."""
    shared = overlaps(contributions, chunks)
    apart = shared[np.triu_indices(len(shared), 1)]
    return [round(float(np.median(apart)), 4), round(float(apart.max()), 4)]


def _settled(ground: Ground, recipe: Recipe, shared: Shared, contributions: dict[str, Contribution]) -> Shared:
    after = advanced(shared, recipe, ground.layout, contributions)
    to_file(ground.layout, after.vector)
    return after


def _ratios(costs: Costs) -> Figures:
    train, forms, audit_s = (costs.mean(name) for name in ("train", "forms", "audit"))
    shares = {}
    for name in ("score", "score 1+1"):
        base = (forms + costs.mean(name)) / train
        shares[name] = {
            "without_audits": round(base, 4),
            **{f"audits_{rate:.0%}": round(base + rate * audit_s / train, 4) for rate in RATES},
        }
    return {
        "of_training": shares,
        "audit_over_training": round(audit_s / train, 3),
        "once_a_window_s": round(costs.mean("settle") + costs.mean("validation"), 3),
    }
