"""What a validator makes of a window: what it measures, whom it audits, whom it accepts, and what it remembers.

    task = task_of(assigned, revealed, hotkey, tokens_of, recipe)      a miner's work, and what of it is scored -> Task
    going_on(shown)                                                    whose error buffers come from earlier windows
    blind(shown, due, root, known)                                     why it should say nothing of this window, or ""
    to_audit(secret, seed, forms, helping, rate_of)                    whose training is repeated, in this order
    judged = Judged(verdicts, scores, audited, unopened)
    judged.accepts(hotkey), judged.seen(hotkey)                        its vote, and what the ratings are told

Forms and replays are judged in judging.py, losses and replays computed in template/training/evaluation.py. Validators
and cohorts in memory put the same pieces together.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from protocol.audits import drawn
from protocol.errors import MalformedMessage
from protocol.training.assignment import Place, Work, assign, scored_steps, unassigned
from protocol.training.judging import Forms, Shown, Verdict
from protocol.training.ratings import LossScore, WindowSeen
from protocol.training.recipe import Recipe
from protocol.training.statement import Statement
from protocol.verdicts import Outcome


@dataclass(frozen=True)
class Task:
    """A miner's work of a window, which of its steps are scored, and the batches it was not given."""

    work: Work
    scored: tuple[int, ...]
    unassigned: tuple[tuple[Place, ...], ...]

    @property
    def shards(self) -> set[int]:
        return {*self.work.shards, *(shard for batch in self.unassigned for shard, _ in batch)}


def task_of(assigned: bytes, revealed: bytes, hotkey: str, tokens_of: Sequence[int], recipe: Recipe) -> Task:
    """`assigned`, `revealed`: the seeds of these phases, 32 bytes each. Raises ValueError as `assign` does."""
    plan, scored = recipe.tasks.plan, recipe.scored
    work = assign(assigned, hotkey, tokens_of, plan)
    other = unassigned(revealed, hotkey, work, tokens_of, plan, scored.unassigned)
    return Task(work, scored_steps(revealed, hotkey, plan, scored.assigned), other)


def going_on(shown: Mapping[str, Shown]) -> set[str]:
    """Those whose error buffer goes on from an earlier window."""
    return {hotkey for hotkey, said in _statements(shown).items() if said.before is not None}


def blind(shown: Mapping[str, Shown], due: Collection[str], root: str, known: Collection[str] = ()) -> str:
    """Why a validator with this shared model should say nothing of a window of the miners `due`: the fault lies more
    likely with it than with most of them. `known`: who has contributed before. Where some of these are due they alone
    count, because hotkeys that promise and show nothing are cheap."""
    asked = {*due} & {*known} or {*due}
    seen = {hotkey: one for hotkey, one in shown.items() if hotkey in asked}
    if 2 * len(seen) < len(asked):
        return f"only {len(seen)} of {len(asked)} could be fetched"
    bases = Counter(said.base for said in _statements(seen).values())
    other = [base for base, count in bases.items() if base != root and 2 * count > len(seen)]
    return f"most miners trained from another model, {other[0][:16]}" if other else ""


def to_audit(
    secret: bytes, seed: bytes, forms: Forms, helping: Sequence[str], rate_of: Callable[[str], float]
) -> dict[str, bool]:
    """Whom of those whose contributions help to audit, in the order to do it: {hotkey: whether it may not pass
    without}. Everybody who is alike, and who is drawn: by the validator's secret, so that nobody knows before, and by
    the `seed` of `score`, so that no statement can be made to fit. `rate_of`: the share of a hotkey's windows."""
    digests = {hotkey: sha256(seed + forms.statements[hotkey].encode()).digest() for hotkey in helping}
    chosen: dict[str, bool] = {}
    for hotkey in sorted(helping, key=lambda hotkey: (hotkey not in forms.alike, digests[hotkey])):
        rate = 1.0 if hotkey in forms.alike else rate_of(hotkey)
        if drawn(secret, digests[hotkey], rate):
            chosen[hotkey] = rate >= 1.0
    return chosen


@dataclass(frozen=True)
class Judged:
    """By hotkey. `audited`: those whose training was repeated; `unopened`: those who were asked and did not open.
    `loss`: of the model before the window, on data that nobody trains on, in nats a token. `blind`: why this validator
    says nothing of anybody."""

    verdicts: Mapping[str, Verdict]
    scores: Mapping[str, LossScore] = field(default_factory=dict)
    audited: frozenset[str] = frozenset()
    unopened: frozenset[str] = frozenset()
    loss: float | None = None
    blind: str = ""

    def accepts(self, hotkey: str) -> bool:
        verdict, score = self.verdicts.get(hotkey), self.scores.get(hotkey)
        fine = verdict is None or verdict.outcome is Outcome.ACCEPT
        return not self.blind and fine and hotkey not in self.unopened and score is not None and score.helps

    def seen(self, hotkey: str) -> WindowSeen:
        verdict, score = self.verdicts.get(hotkey), self.scores.get(hotkey)
        if self.blind:
            return WindowSeen(hotkey, Outcome.INCONCLUSIVE)
        if verdict is None and score is None:
            return WindowSeen(hotkey, None)
        outcome = verdict.outcome if verdict else Outcome.ACCEPT
        return WindowSeen(hotkey, outcome, score, hotkey in self.audited, hotkey in self.unopened)


def _statements(shown: Mapping[str, Shown]) -> dict[str, Statement]:
    found = {}
    for hotkey, one in shown.items():
        with contextlib.suppress(MalformedMessage):
            found[hotkey] = Statement.parse(one.statement)
    return found
