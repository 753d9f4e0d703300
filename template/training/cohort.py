"""Peers of mechanism 1 in one process: the real rules window after window, without a chain, a network or a clock.

    members = [Member("alice"), Member("mallory", make)]           what each does at its bench; honest work by default
    judges = [Judge("val", secret)]                                validators: secret, stake, whom they audit
    cohort = Cohort(recipe, trainer, data, shared, members, judges, seed=1)
    found = cohort.step()                                          one window -> Window
    found.entered, found.judged["val"].verdicts, found.weights     who got in, why others did not, what it pays
    unsecured, undrawn                                             how much is audited; see there

A window goes as on the subnet. The seed stands for block hashes: it assigns the data, draws what is scored and what is
audited. Everybody works at its bench and promises the result; what a member shows counts if it is what its statement
names; forms, losses and replays are judged by the functions that validators run; what more than half of the stake
accepts makes the next model, and is what error buffers go on from. Weights are the mean of the validators', by stake:
what the chain's consensus makes of them is not part of this.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from protocol.artifacts import Manifest
from protocol.audits import audit_floor, audit_rate
from protocol.errors import MalformedMessage
from protocol.training.assignment import window_seed
from protocol.training.buffers import WINDOWS
from protocol.training.copies import compared_chunks
from protocol.training.judged import Judged, Task, blind, going_on, task_of, to_audit
from protocol.training.judging import (
    Due,
    Forms,
    Opened,
    Reason,
    Shown,
    Verdict,
    among_alike,
    judge_forms,
    judge_replay,
    read_opened,
)
from protocol.training.payload import Contribution, Floats, encoded_size
from protocol.training.ratings import LossScore, TrainState, fold_window, weights
from protocol.training.recipe import Recipe
from protocol.training.statement import MAX_BYTES, Statement
from protocol.training.trace import trace_root
from protocol.training.votes import accepted
from protocol.training.windows import Phase
from protocol.verdicts import Outcome
from template.training.evaluation import ScoredBatches, loss_scores, validation_loss
from template.training.inner import Trainer
from template.training.memo import Memo, MemoBench, MemoLosses, Tokens, WindowData
from template.training.shared import Shared, advanced
from template.training.windows import replay
from template.training.work_state import Kept
from template.training.workbench import Workbench, honest

log = logging.getLogger(__name__)

Rate = Callable[[TrainState | None, int], float]  # what is known of a hotkey, window -> share of its windows to audit


def unsecured(state: TrainState | None, window: int) -> float:
    """As for a hotkey that has put nothing at stake."""
    return audit_rate(state, window, audit_floor(1.0, 0.0))


def undrawn(state: TrainState | None, window: int) -> float:
    """The draw passes everybody by, newcomers too: what is left is what needs no draw."""
    return 0.0


def in_time(kept: Kept, size: int) -> Shown | None:
    return Shown(kept.statement, kept.payload)


@dataclass(frozen=True)
class Member:
    """A miner. `make` may remember; it is called once a window. `shows`: what of it validators find, given the size of
    the model. `opens`: whether it opens its buffers to an audit."""

    hotkey: str
    make: Callable[[Workbench], Kept] = honest
    shows: Callable[[Kept, int], Shown | None] = in_time
    opens: bool = True


@dataclass(frozen=True)
class Judge:
    """A validator."""

    hotkey: str
    secret: bytes
    stake: int = 1
    rate: Rate = unsecured


@dataclass(frozen=True)
class Window:
    """What became of a window. `made`: who promised something; `judged`: by validator; `loss`: before it, on data that
    nobody trains on, in nats a token. `weights`: what would be set after it, summing to 1, or empty while nobody has
    earned. `shared`: the model after it."""

    window: int
    made: frozenset[str]
    entered: frozenset[str]
    judged: Mapping[str, Judged]
    loss: float
    weights: Mapping[str, float]
    shared: Shared


def fetched(promised: str, shown: Shown | None, size: int) -> Shown | None:
    """What a validator gets from a store that holds `shown`, by the names that were promised: the statement's address,
    and in it the payload's. None when it does not get it. Whatever proves to be too long or unreadable is empty."""
    if shown is None or len(shown.statement) > MAX_BYTES or Manifest.of(shown.statement).cid != promised:
        return None
    try:
        payload = Statement.parse(shown.statement).payload
    except MalformedMessage:
        return Shown(shown.statement, b"")
    if Manifest.of(shown.payload).cid != payload:
        return None
    return shown if len(shown.payload) <= encoded_size(size) else Shown(shown.statement, b"")


def opened_by(said: Statement, kept: Kept, size: int) -> Opened | Verdict | None:
    """What a validator gets of the buffers that a statement names when the miner opens what it kept; None when one
    cannot be had."""
    before = bytes(4 * size) if said.before is None else kept.before
    wrong = said.before is not None and (before is None or Manifest.of(before).cid != said.before)
    if before is None or wrong or Manifest.of(kept.after).cid != said.after:
        return None
    return read_opened(size, before, kept.after)


@dataclass(frozen=True)
class _Measured:
    """What every validator finds alike."""

    due_of: Mapping[str, Due]
    forms: Forms
    tasks: Mapping[str, Task]
    scores: Mapping[str, LossScore]
    loss: float


@dataclass
class Cohort:
    """`shared`: the model that the next window starts from. `states`: by validator, then by miner. `memo`, `losses`:
    what other cohorts have done already."""

    recipe: Recipe
    trainer: Trainer
    data: Tokens
    shared: Shared
    members: Sequence[Member]
    judges: Sequence[Judge]
    seed: int = 0
    memo: Memo = field(default_factory=Memo)
    losses: MemoLosses | None = None
    states: dict[str, dict[str, TrainState]] = field(default_factory=dict)
    _entered: dict[str, Kept] = field(default_factory=dict, init=False)  # what error buffers go on from

    def step(self) -> Window:
        """One window, from its assignment to the next model."""
        made = {member.hotkey: kept for member in self.members if (kept := self._made(member)) is not None}
        shown = {
            member.hotkey: found
            for member in self.members
            if (kept := made.get(member.hotkey)) is not None
            and (found := fetched(Manifest.of(kept.statement).cid, member.shows(kept, self._size), self._size))
        }
        measured = self._measured(shown)
        judged = {judge.hotkey: self._seen(judge, made, shown, measured) for judge in self.judges}
        taken = self._taken(judged, made)
        before, entering = self.shared, {hotkey: measured.forms.contributions[hotkey] for hotkey in taken}
        try:
            self.shared = self._advanced(entering)
        except ValueError as error:  # it leaves the range of float32, for everybody
            log.warning("window %d: nothing enters: %s", before.window, error)
            taken, self.shared = frozenset(), self._advanced({})
        self._entered |= {hotkey: made[hotkey] for hotkey in taken}
        for judge in self.judges:
            states = self.states.get(judge.hotkey, {})
            seen = [judged[judge.hotkey].seen(hotkey) for hotkey in sorted(made)]
            self.states[judge.hotkey] = fold_window(states, seen, before.window, silent=states.keys() - made.keys())
        paid = self._weights(before.window + 1)
        return Window(before.window, frozenset(made), taken, judged, measured.loss, paid, self.shared)

    def _advanced(self, entering: Mapping[str, Contribution]) -> Shared:
        seed = self._seed(Phase.AGGREGATE)
        return advanced(self.shared, self.recipe, self.trainer.layout, entering, seed=seed)

    @property
    def _size(self) -> int:
        return self.trainer.layout.size

    def _seed(self, phase: Phase) -> bytes:
        """What a block hash gives on a chain."""
        window = self.shared.window
        block = hashlib.sha256(f"touchstone/cohort/{self.seed}/{window}/{phase}".encode()).digest()
        return window_seed(block, window)

    def _earlier(self, hotkey: str) -> tuple[Statement | None, Kept | None]:
        """What of this miner entered the model last, when a buffer may go on from it."""
        kept = self._entered.get(hotkey)
        said = Statement.parse(kept.statement) if kept is not None else None
        fresh = said is not None and self.shared.window - said.window <= WINDOWS
        return (said, kept) if fresh else (None, None)

    def _made(self, member: Member) -> Kept | None:
        """What a member makes of the window; None when its training has no result."""
        said, kept = self._earlier(member.hotkey)
        bench = MemoBench(
            member.hotkey,
            self.shared.window,
            self.recipe,
            self.shared,
            self.trainer,
            WindowData(self.data, self._seed(Phase.ASSIGN), self.recipe.tasks.plan),
            None if kept is None else _vector(kept.after),
            said,
            memo=self.memo,
        )
        try:
            return member.make(bench)
        except FloatingPointError as error:
            log.warning("window %d: %s has nothing: %s", bench.window, member.hotkey, error)
            return None

    def _measured(self, shown: Mapping[str, Shown]) -> _Measured:
        window, model, recipe = self.shared.window, self.shared, self.recipe
        assigned, revealed = self._seed(Phase.ASSIGN), self._seed(Phase.REVEAL)
        earlier = {hotkey: self._earlier(hotkey)[0] for hotkey in going_on(shown)}
        due_of = {hotkey: Due(window, model.root, self._size, recipe, earlier.get(hotkey)) for hotkey in shown}
        forms = judge_forms(due_of, shown, compared_chunks(revealed, self._size))
        tasks = {
            hotkey: task_of(assigned, revealed, hotkey, self.data.tokens_of(), recipe) for hotkey in forms.contributions
        }
        length = recipe.tasks.length

        def batches_of(hotkey: str) -> ScoredBatches:
            task = tasks[hotkey]
            return ScoredBatches(
                [self.data.batch(task.work.batch(step), length) for step in task.scored],
                [self.data.batch(places, length) for places in task.unassigned],
            )

        measuring: Any = self.losses or self.trainer  # nothing but its `losses` is used
        scores = loss_scores(measuring, model.vector, forms.contributions, batches_of, recipe)
        loss = validation_loss(measuring, model.vector, self.data, recipe)
        return _Measured(due_of, forms, tasks, scores, loss)

    def _seen(self, judge: Judge, made: Mapping[str, Kept], shown: Mapping[str, Shown], measured: _Measured) -> Judged:
        states = self.states.get(judge.hotkey, {})
        known = {hotkey for hotkey, state in states.items() if state.contributed}
        unseeing = blind(shown, made, self.shared.root, known)
        return Judged({}, blind=unseeing) if unseeing else self._judged(judge, made, measured)

    def _judged(self, judge: Judge, made: Mapping[str, Kept], measured: _Measured) -> Judged:
        forms, states = measured.forms, self.states.get(judge.hotkey, {})
        helping = [hotkey for hotkey in forms.contributions if measured.scores[hotkey].helps]
        chosen = to_audit(
            judge.secret,
            self._seed(Phase.SCORE),
            forms,
            helping,
            lambda hotkey: judge.rate(states.get(hotkey), self.shared.window),
        )
        opening = {member.hotkey: member.opens for member in self.members}
        verdicts, unopened = {}, set()
        for hotkey in chosen:
            opened = opened_by(forms.statements[hotkey], made[hotkey], self._size) if opening[hotkey] else None
            if opened is None:
                unopened.add(hotkey)
                continue
            verdict = opened if isinstance(opened, Verdict) else self._audited(hotkey, measured, opened)
            verdicts[hotkey] = among_alike(verdict, forms.alike.get(hotkey, ()))
        audited = frozenset(hotkey for hotkey, one in verdicts.items() if one.reason is not Reason.UNCHECKED)
        return Judged({**forms.verdicts, **verdicts}, measured.scores, audited, frozenset(unopened), measured.loss)

    def _audited(self, hotkey: str, measured: _Measured, opened: Opened) -> Verdict:
        model, recipe = self.shared, self.recipe
        data = WindowData(self.data, self._seed(Phase.ASSIGN), recipe.tasks.plan)
        due, said = measured.due_of[hotkey], measured.forms.statements[hotkey]

        def repeated() -> tuple[Floats, str]:
            change, digests = replay(self.trainer, model.vector, data(hotkey), recipe, model.window)
            return change, trace_root(digests).hex()

        try:
            change, trace = self.memo.get(("replay", hotkey, model.window, model.root, recipe.id, data), repeated)
        except FloatingPointError as error:
            return Verdict(Outcome.REJECT, Reason.REPLAY, f"the training has no result: {error}")
        return judge_replay(due, said, measured.forms.contributions[hotkey], opened, change, trace)

    def _taken(self, judged: Mapping[str, Judged], made: Mapping[str, Kept]) -> frozenset[str]:
        votes = {
            judge.hotkey: (judge.stake, [hotkey for hotkey in made if judged[judge.hotkey].accepts(hotkey)])
            for judge in self.judges
        }
        return accepted(votes, sum(judge.stake for judge in self.judges))

    def _weights(self, window: int) -> dict[str, float]:
        earned = {judge: weights(self.states[judge.hotkey], window) for judge in self.judges}
        speaking = {judge: shares for judge, shares in earned.items() if shares}
        stake = sum(judge.stake for judge in speaking)
        hotkeys = sorted({hotkey for shares in speaking.values() for hotkey in shares})
        return {
            hotkey: math.fsum(judge.stake * shares.get(hotkey, 0.0) for judge, shares in speaking.items()) / stake
            for hotkey in hotkeys
        }


def _vector(data: bytes) -> Floats:
    return np.frombuffer(data, "<f4").astype(np.float32)
