"""The clock of mechanism 1: which window and phase a block belongs to, and what is due in it.

    schedule = Schedule(start=1000, assign=1, train=36, commit=4, reveal=4, score=10, aggregate=5)
    now = tick(block, schedule)             -> Tick(window, phase, first, until)
    schedule.block_of(window, phase)        the first block of a phase, e.g. to read the hash that seeds it

A pure function of the block number: whoever reads the chain agrees. Whatever is drawn in a window is drawn from the
hash of the first block of a phase, which nobody knows before:

    assign     its block's hash assigns the data
    train      miners train
    commit     statements have to be on chain before its end
    reveal     its first block's hash draws what is scored, now that no contribution can change; miners upload
    score      its first block's hash, with a validator's secret, draws the audits; validators fetch, score and audit
    aggregate  its first block's hash draws the noise, where a recipe asks for it; everybody computes the next model;
               validators commit its root
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Phase(str, Enum):
    ASSIGN = "assign"
    TRAIN = "train"
    COMMIT = "commit"
    REVEAL = "reveal"
    SCORE = "score"
    AGGREGATE = "aggregate"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Schedule:
    """Lengths of the phases in blocks, each at least one, and the block that window 0 starts with."""

    start: int
    assign: int
    train: int
    commit: int
    reveal: int
    score: int
    aggregate: int

    def __post_init__(self) -> None:
        if self.start < 0 or min(self.lengths) < 1:
            raise ValueError("a schedule starts at block 0 or later, and no phase is empty")

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(int(getattr(self, phase.value)) for phase in Phase)

    @property
    def length(self) -> int:
        """Blocks of a window."""
        return sum(self.lengths)

    def block_of(self, window: int, phase: Phase) -> int:
        """The first block of `phase` in `window`. Raises ValueError for a negative window."""
        if window < 0:
            raise ValueError("windows count from 0")
        place = list(Phase).index(phase)
        return self.start + window * self.length + sum(self.lengths[:place])


@dataclass(frozen=True)
class Tick:
    """Where a block lies. `first`: first block of the phase; `until`: first block after it."""

    window: int
    phase: Phase
    first: int
    until: int


def tick(block: int, schedule: Schedule) -> Tick | None:
    """The window and phase of a block; None before the schedule starts."""
    if block < schedule.start:
        return None
    window, offset = divmod(block - schedule.start, schedule.length)
    first = block - offset
    for phase, length in zip(Phase, schedule.lengths, strict=True):
        if block < first + length:
            return Tick(window, phase, first, first + length)
        first += length
    raise AssertionError("the phases fill the window")
