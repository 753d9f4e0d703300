"""A dispute about the training of one window: two parties claim different states, and one re-run says who is wrong.

    dispute = Dispute(terms, claims, by=By.DIGESTS)      two roots; nothing is asked yet
    while (index := dispute.asks) is not None:           the last state, the middles, the first when it comes to that
        dispute = dispute.after(Round(...))
    dispute.interval                                     the agreed state and the one after it, or None
    ruling = settle(dispute, reruns)                     who was wrong: first, second, both, neither, unchecked

The one party is the miner, whose statement fixed its trace before anything was shown. The other one is whoever has
trained the window again: the validator that disputes, or another miner. Bisection finds neighbouring states of which
they agree about the one and not about the other. The referee then trains from the agreed state to the next, and holds
what it gets against what each party had claimed. So it re-runs as many steps as lie between two digests, the recipe's
`trace_every`, and one when that is 1. Digests inside an interval were never committed to; to narrow it further would
cost both parties more questions than it saves the referee steps, and the proof would rest on claims that are new.

What a ruling stands on is no more than that interval: a party is wrong when from the state that it had committed to the
rules lead to another one than it had committed to next. Where the search went is no part of the proof, and neither is
anything that the other party said. Who does not answer, or shows what is not under its root, is absent and not wrong.

Two machines give different last bits, in the profile "tolerant" from the first step on, in "exact" now and then. So a
party is right within the limit of the re-run, wrong from CERTAIN times as far, and unchecked between; and after more
than CERTAIN_STEPS steps it is not blamed at all: no miner is to be blamed for its machine. A search by digests may end
where the machines part, and nobody cheated. Then it is searched by states: those whose digests differ are fetched, and
agree when they lie within the limit of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from pydantic import ConfigDict, Field

from protocol.artifacts import Cid
from protocol.auth import SignedExchange
from protocol.generation import Hex32
from protocol.synapse import Message
from protocol.training import statement as statements
from protocol.training.buffers import distance
from protocol.training.judging import states_due
from protocol.training.opening import MAX_PATH, TraceAnswer
from protocol.training.payload import Floats
from protocol.training.recipe import Recipe
from protocol.training.trace import MAX_STATES, Opening, Search

# Honest steps from one state, on three instruction sets of one CPU (SSE, AVX2, AVX512; 1.05 M parameters), were apart
# in "tolerant" by 5.4e-5 at most, in the first step of a window, and by 4.2e-6 later; the recipe's limit is 1e-4 unless
# it says otherwise. In "exact" they were the same to the bit in 23 steps of 24, and 2e-10 apart in the other one.
# A learning rate 1 % off is 1e-2 away, a wrong batch 0.1 and more.
CERTAIN = 10.0
# After more steps than these no party is blamed: small differences grow, at a high learning rate by half with each step
# (12 steps: 9e-3 where each of them was 1e-6 or less), and no limit tells them from a cheat.
CERTAIN_STEPS = 4
FAR = 1e30  # instead of a distance that is not finite
MAX_ROUNDS = MAX_STATES.bit_length() + 2
NAMES = ("first", "second")

State = tuple[Floats, Floats, Floats]  # parameters, first and second moments, float32 [size]


class By(str, Enum):
    """What the parties are searched for: other digests, or states that are too far apart."""

    DIGESTS = "digests"
    STATES = "states"

    def __str__(self) -> str:
        return self.value


class Wrong(str, Enum):
    """Who was wrong. Stable: stored and shown."""

    FIRST = "first"
    SECOND = "second"
    BOTH = "both"
    NEITHER = "neither"
    UNCHECKED = "unchecked"  # it could not be found out

    def __str__(self) -> str:
        return self.value


class Record(Message):
    """Part of a transcript: bytes travel as base64url."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class Terms(Record):
    """What is disputed, which both parties and the referee can find out for themselves. `base`: model root; `start`:
    digest of state 0, the base with no moments. `limit`: the recipe's."""

    recipe: Hex32
    window: int = Field(ge=0, lt=10**10)
    miner: str = Field(min_length=1, max_length=64)
    base: Hex32
    start: Hex32
    states: int = Field(ge=2, le=MAX_STATES)
    every: int = Field(ge=1, le=2**31)
    steps: int = Field(ge=1, le=2**31)
    limit: float = Field(gt=0.0, le=1e6)

    @staticmethod
    def of(recipe: Recipe, window: int, miner: str, base: str, start: bytes) -> Terms:
        limit = recipe.limit
        return Terms(
            recipe=recipe.id, window=window, miner=miner, base=base, start=start.hex(), states=states_due(recipe),
            every=recipe.trace_every, steps=recipe.tasks.steps, limit=limit,
        )  # fmt: skip

    def step(self, index: int) -> int:
        """Steps that have been taken in state `index`."""
        return min(index * self.every, self.steps)


class Claim(Record):
    """`hotkey`: who answers for it; empty for the own training of who disputes. `statement`: its bytes, where the trace
    was committed to in one."""

    hotkey: str = Field(max_length=64)
    trace: Hex32
    statement: bytes | None = Field(default=None, max_length=statements.MAX_BYTES)


class Answer(Record):
    """The digest of a state and its way to the root. `exchange`: what was signed, None for the own training."""

    digest: Hex32
    path: tuple[Hex32, ...] = Field(max_length=MAX_PATH)
    exchange: SignedExchange | None = None

    @staticmethod
    def of(said: TraceAnswer, exchange: SignedExchange) -> Answer:
        return Answer(digest=said.digest, path=said.path, exchange=exchange)

    def under(self, claim: Claim, index: int, states: int) -> bool:
        opening = Opening(index, bytes.fromhex(self.digest), tuple(bytes.fromhex(node) for node in self.path))
        return opening.under(bytes.fromhex(claim.trace), states)


class Round(Record):
    """One question and both answers. `missing`: why a party is absent, empty for one that is not. `apart`: how far the
    two states are from each other; None when nobody had to look."""

    index: int = Field(ge=0, lt=MAX_STATES)
    answers: tuple[Answer | None, Answer | None]
    missing: tuple[str, str] = ("", "")
    apart: float | None = Field(default=None, ge=0.0, le=FAR)


class Rerun(Record):
    """The interval again, from the state that a party had agreed to. `start`, `claimed`: artifacts of the states that
    were looked at; `found`: digest of the referee's; `apart`: how far the claimed one is from it. `missing`: why there
    is less."""

    start: Cid | None = None
    found: Hex32 | None = None
    claimed: Cid | None = None
    apart: float | None = Field(default=None, ge=0.0, le=FAR)
    missing: str = Field(default="", max_length=400)


Reruns = tuple[Rerun | None, Rerun | None]


@dataclass(frozen=True)
class Ruling:
    """`absent`: those who did not answer, which is no proof of anything. `why`: for people."""

    wrong: Wrong
    absent: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Dispute:
    """Where a dispute stands. Everything follows from the rounds, so whoever reads them finds the same."""

    terms: Terms
    claims: tuple[Claim, Claim]
    by: By = By.DIGESTS
    rounds: tuple[Round, ...] = ()

    @property
    def asks(self) -> int | None:
        """The state to ask both parties about; None when there is nothing more to ask."""
        return self._now()[0]

    @property
    def interval(self) -> tuple[int, int] | None:
        """Neighbouring states: the parties agree about the one and not about the other. None while this is not known,
        or when they part nowhere."""
        asks, search = self._now()
        return None if asks is not None or search is None else (search.agreed, search.disputed)

    @property
    def absent(self) -> tuple[str, ...]:
        return tuple(name for k, name in enumerate(NAMES) if any(one.missing[k] for one in self.rounds))

    def after(self, found: Round) -> Dispute:
        """With one more answer. Raises ValueError when it is to another question, or says too little."""
        if found.index != self.asks:
            raise ValueError(f"asked about state {self.asks}, and the answer is about {found.index}")
        if any(answer is None and not missing for answer, missing in zip(found.answers, found.missing, strict=True)):
            raise ValueError("an answer is there, or it is said why not")
        if found.apart is None and self.looks(found):
            raise ValueError("states whose digests differ were not compared")
        return replace(self, rounds=(*self.rounds, found))

    def seen(self, index: int) -> Round:
        """Raises KeyError for a state that was not asked about."""
        return {one.index: one for one in self.rounds}[index]

    def looks(self, found: Round) -> bool:
        """Whether the two states have to be compared. State 0 everybody can compute to the bit."""
        return self.by is By.STATES and found.index > 0 and not any(found.missing) and not _same(found)

    def agree(self, found: Round) -> bool:
        return _same(found) or (self.by is By.STATES and found.apart is not None and found.apart <= self.terms.limit)

    def _now(self) -> tuple[int | None, Search | None]:
        """The next question, or the end of the search; neither when there is nothing to search for."""
        if self.absent or self.claims[0].trace == self.claims[1].trace:
            return None, None
        seen, last = {one.index: one for one in self.rounds}, self.terms.states - 1
        if last not in seen:
            return last, None
        if self.agree(seen[last]):
            return None, None
        search = Search.over(self.terms.states)
        while (middle := search.middle) is not None:
            if middle not in seen:
                return middle, None
            search = search.narrowed(self.agree(seen[middle]))
        return (0, None) if search.agreed == 0 and 0 not in seen else (None, search)


def _same(found: Round) -> bool:
    first, second = found.answers
    return first is not None and second is not None and first.digest == second.digest


def apart(start: Floats, claimed: State, found: State) -> float:
    """How far two states are from each other: the largest relative distance of what was trained since the parameters
    `start` and of the moments; see `buffers.distance`."""
    if not all(np.isfinite(part).all() for part in (*claimed, *found)):
        return FAR
    changes = [(start.astype(np.float64) - one[0]).astype(np.float32) for one in (claimed, found)]
    pairs = [(changes[0], changes[1]), (claimed[1], found[1]), (claimed[2], found[2])]
    return min(FAR, max(distance(one, other) for one, other in pairs))


def settle(dispute: Dispute, reruns: Sequence[Rerun | None]) -> Ruling:
    """Who was wrong. `reruns`: one of each party, None where there was none. Raises ValueError while there is still
    something to ask."""
    if dispute.asks is not None:
        raise ValueError(f"state {dispute.asks} was not asked about")
    if dispute.absent:
        reasons = [f"{NAMES[k]}: {one.missing[k]}" for one in dispute.rounds for k in range(2) if one.missing[k]]
        return Ruling(Wrong.UNCHECKED, dispute.absent, "no answer; " + "; ".join(reasons))
    if dispute.interval is None:
        same = dispute.claims[0].trace == dispute.claims[1].trace
        told = "the traces are the same" if same else "the parties agree about the last state"
        return Ruling(Wrong.NEITHER, (), told)
    found = [_standing(dispute, k, reruns[k]) for k in range(2)]
    wrong = [k for k in range(2) if found[k][0] is False]
    absent = tuple(NAMES[k] for k in range(2) if found[k][0] is None and _kept_back(reruns[k]))
    told = "; ".join(f"{NAMES[k]} {found[k][1]}" for k in range(2))
    if wrong:
        return Ruling(Wrong.BOTH if len(wrong) == 2 else (Wrong.FIRST, Wrong.SECOND)[wrong[0]], absent, told)
    right = all(standing is True for standing, _ in found)
    return Ruling(Wrong.NEITHER if right else Wrong.UNCHECKED, absent, told)


def _kept_back(rerun: Rerun | None) -> bool:
    """Whether a state was not shown, before the re-run or after it."""
    return rerun is not None and bool(rerun.missing) and (rerun.start is None or rerun.found is not None)


def _standing(dispute: Dispute, party: int, rerun: Rerun | None) -> tuple[bool | None, str]:
    """Whether a party did the interval right; None when that was not found out."""
    terms, interval = dispute.terms, dispute.interval
    assert interval is not None
    opened = [dispute.seen(index).answers[party] for index in interval]
    if opened[0] is None or opened[1] is None:
        return None, "did not answer"
    if interval[0] == 0 and opened[0].digest != terms.start:
        return False, "began from another state than the shared model"
    if rerun is None or rerun.found is None:
        return None, f"was not checked: {rerun.missing if rerun is not None and rerun.missing else 'no re-run'}"
    if rerun.found == opened[1].digest:
        return True, "claims what the re-run gives, to the bit"
    if rerun.apart is None:
        return None, f"was not checked: {rerun.missing or 'its state was not looked at'}"
    told = f"is {rerun.apart:.2g} from what the re-run gives, limit {terms.limit:g}"
    if rerun.apart <= terms.limit:
        return True, told
    steps = terms.step(interval[1]) - terms.step(interval[0])
    if steps > CERTAIN_STEPS:
        return None, f"{told}: after {steps} steps another machine may be as far"
    if rerun.apart <= CERTAIN * terms.limit:
        return None, f"{told}: too near to blame it for, too far to clear it"
    return False, told
