"""Verdicts on contributions: accept, reject or inconclusive, with the reason and its numbers.

    Due(window, base, size, recipe, earlier)           what a validator knows before it looks
    check(due, miner, statement, payload)              form: (contribution, verdict); one of the two is None
    judge_forms(due_of, shown, chunks)                 the same for a window, and who is alike          -> Forms
    read_opened(size, before, after)                   what an audit was given: buffers, or the verdict on what is none
    judge_replay(due, statement, contribution, opened, replayed, trace)      after an audit
    among_alike(verdict, others)                       what becomes of it for one that keeps what others keep

Whoever did not show what it committed to in time, or did not open its buffers to an audit, has no verdict: it is absent
in this window, which costs presence and no more. A reject says that what was shown is not what the rules give. What a
validator could not do itself is inconclusive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np

from protocol.errors import MalformedMessage
from protocol.training import buffers
from protocol.training.copies import alike
from protocol.training.payload import Contribution, Floats, decode
from protocol.training.recipe import Recipe
from protocol.training.statement import Statement
from protocol.verdicts import Outcome


class Reason(str, Enum):
    """Why. Stable: logs, metrics and other implementations key on them."""

    OK = "ok"  # accept
    STATEMENT = "statement"  # not a statement of this miner and window, by this recipe
    STALE = "stale"  # trained from another model than the shared one
    PAYLOAD = "payload"  # bytes that no contribution has
    EMPTY = "empty"  # a contribution of nothing
    BUFFER = "buffer"  # an error buffer from elsewhere
    COPY = "copy"  # it keeps what another one keeps, and its own training gives something else
    SENT = "sent"  # what was sent is not what the opened buffers say
    REPLAY = "replay"  # training gives something else
    TRACE = "trace"  # the states of the training are others
    UNCHECKED = "unchecked"  # inconclusive: the validator could not do its part

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Verdict:
    """`numbers`: what it stands on, by name; those that are not finite are left out. `detail` is for people."""

    outcome: Outcome
    reason: Reason
    detail: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Due:
    """What a contribution to this window has to fit. `base`: root of the shared model; `size`: its parameters;
    `earlier`: the miner's last accepted statement."""

    window: int
    base: str
    size: int
    recipe: Recipe
    earlier: Statement | None = None


@dataclass(frozen=True)
class Opened:
    """Error buffers that an audit got to see, float32 [size]; their artifacts are those of the statement."""

    before: Floats
    after: Floats


@dataclass(frozen=True)
class Shown:
    """What a miner showed in time of what it had committed to."""

    statement: bytes
    payload: bytes


@dataclass(frozen=True)
class Forms:
    """By hotkey: verdicts of those that are rejected already, and statement and contribution of the others. `alike`:
    those that keep the same entries as others; they enter only after a replay."""

    verdicts: Mapping[str, Verdict]
    statements: Mapping[str, Statement]
    contributions: Mapping[str, Contribution]
    alike: Mapping[str, tuple[str, ...]]


def judge_forms(due_of: Mapping[str, Due], shown: Mapping[str, Shown], chunks: Sequence[int]) -> Forms:
    """Form and likeness of a window's contributions. `chunks`: see copies.compared_chunks."""
    verdicts: dict[str, Verdict] = {}
    found: dict[str, Contribution] = {}
    for hotkey, one in shown.items():
        contribution, verdict = check(due_of[hotkey], hotkey, one.statement, one.payload)
        if verdict is not None:
            verdicts[hotkey] = verdict
        elif contribution is not None:
            found[hotkey] = contribution
    statements = {hotkey: Statement.parse(shown[hotkey].statement) for hotkey in found}
    alike_from = next((due.recipe.alike_from for due in due_of.values()), 1.0)
    return Forms(verdicts, statements, found, alike(found, chunks, alike_from))


def states_due(recipe: Recipe) -> int:
    """State digests of a trace: before the first step, after every `trace_every`-th, and after the last."""
    return 1 + -(-recipe.tasks.steps // recipe.trace_every)


def check(due: Due, miner: str, statement: bytes, payload: bytes) -> tuple[Contribution | None, Verdict | None]:
    """The contribution when everything about its form is right, else the verdict."""
    try:
        said = Statement.parse(statement)
    except MalformedMessage as error:
        return None, _reject(Reason.STATEMENT, str(error))
    verdict = check_statement(due, miner, said)
    if verdict is not None:
        return None, verdict
    try:
        contribution = decode(payload, due.size)
    except MalformedMessage as error:
        return None, _reject(Reason.PAYLOAD, str(error))
    if contribution.norm == 0.0:
        return None, _reject(Reason.EMPTY, "every entry is zero")
    return contribution, None


def check_statement(due: Due, miner: str, said: Statement) -> Verdict | None:
    """None when a statement is what this miner may say of this window."""
    if (said.window, said.miner) != (due.window, miner):
        return _reject(Reason.STATEMENT, f"it speaks of window {said.window} of {said.miner}")
    if (said.profile, said.states) != (due.recipe.profile, states_due(due.recipe)):
        return _reject(Reason.STATEMENT, f"profile {said.profile} with {said.states} states is not the recipe's")
    if said.base != due.base:
        return _reject(Reason.STALE, f"it starts from {said.base[:16]}, the shared model is {due.base[:16]}")
    if not buffers.follows(said, due.earlier):
        return _reject(Reason.BUFFER, "its error buffer is neither empty nor what its last contribution left")
    return None


def read_opened(size: int, before: bytes, after: bytes) -> Opened | Verdict:
    """The error buffers of a model of `size` parameters in the bytes of their artifacts, which are read-only."""
    if not len(before) == len(after) == 4 * size:
        return _reject(Reason.BUFFER, "what it committed to is no buffer of this model")
    first, second = (np.frombuffer(data, "<f4").astype(np.float32, copy=False) for data in (before, after))
    return Opened(first, second)


def judge_replay(
    due: Due, said: Statement, contribution: Contribution, opened: Opened, replayed: Floats, trace: str
) -> Verdict:
    """The verdict of an audit: `replayed` is the change that the validator's own training made, float32 [size], and
    `trace` the root of its states.

    The change that payload and buffers claim has to lie within the profile's limit of it, and the payload has to be
    what compressing gives. Exact: the same bits everywhere need no limit, but then the states on the way have to be the
    same too.
    """
    kept = due.recipe.kept
    if said.before is None and opened.before.any():
        return _reject(Reason.BUFFER, "the buffer that should be empty is not")
    if not np.isfinite(replayed).all():
        return Verdict(Outcome.INCONCLUSIVE, Reason.UNCHECKED, "the replay itself gave numbers that are none")
    far = buffers.distance(buffers.claimed_change(opened.before, opened.after, contribution, kept), replayed)
    told, numbers = f"relative distance {far:.2g}", _finite(distance=far)
    limit = due.recipe.limit
    if said.profile == "exact" and buffers.same(opened.before, opened.after, contribution, replayed, kept):
        if said.trace != trace:
            return _reject(Reason.TRACE, "the result is the same and the states on the way are not", numbers)
    elif not far <= limit:
        return _reject(Reason.REPLAY, f"{told}, limit {limit:g}", numbers)
    elif not (sent := buffers.sent_distance(opened.after, contribution)) <= buffers.PAYLOAD_LIMIT:
        told = f"what was sent is {sent:.2g} away from what should have been"
        return _reject(Reason.SENT, told, {**numbers, **_finite(sent=sent)})
    return Verdict(Outcome.ACCEPT, Reason.OK, told, numbers)


def among_alike(verdict: Verdict, others: Sequence[str]) -> Verdict:
    """The verdict of an audit on a contribution that keeps what `others` keep: of those, what its own training does not
    give is a copy."""
    if verdict.outcome is not Outcome.REJECT or not others:
        return verdict
    return replace(verdict, reason=Reason.COPY, detail=f"it keeps what {', '.join(others)} keeps; {verdict.detail}")


def _reject(reason: Reason, detail: str, numbers: Mapping[str, float] | None = None) -> Verdict:
    return Verdict(Outcome.REJECT, reason, detail, numbers or {})


def _finite(**numbers: float) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
