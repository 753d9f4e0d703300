"""Chain time. It is not wall time: it only ever moves with a block, by at least one slot.

`wall` mode follows the wall clock (plus what `travel` added): a block is stamped now, or one slot after the previous
block if that is later, so a chain that mines faster than its slots runs ahead. `step` mode moves exactly one slot per
block, whatever the wall clock says: the same calls give the same chain.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, TypeAlias

from localnet.errors import ChainError

ClockMode = Literal["wall", "step"]
ClockState: TypeAlias = "tuple[int, int | None]"


LATEST = 253_402_300_800_000  # ms since 1970: what dates and 64-bit slots can still say, with ages of blocks to follow


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class ChainClock:
    """`start`: milliseconds of the first block in step mode without a previous one; default: now."""

    def __init__(self, mode: ClockMode = "wall", start: int | None = None, now: Callable[[], int] = wall_ms) -> None:
        self.mode, self._now = mode, now
        self._start = now() if start is None else start
        self._offset = self._start - now() if start is not None else 0
        self._jump: int | None = None

    def next(self, last: int, slot_ms: int) -> int:
        """Timestamp in ms, at least a slot later, for the block after one stamped `last` (0 for genesis)."""
        earliest = last + slot_ms if last else 0
        if self._jump is not None:
            wanted = self._jump
        elif self.mode == "wall":
            wanted = self._now() + self._offset
        else:
            wanted = last + slot_ms if last else self._start
        return max(wanted, earliest)

    def travel(self, to: int, last: int, slot_ms: int) -> None:
        """The next block is stamped `to` milliseconds. Raises ChainError unless that is a slot after the last one and
        before the year 10000."""
        if to >= LATEST:
            raise ChainError(f"chain time ends with the year 9999: the next block's time is below {LATEST} ms")
        if to < last + slot_ms:
            raise ChainError(f"chain time only moves forward: the next block's time is {last + slot_ms} ms or later")
        self._jump = to
        self._offset = to - self._now()

    def state(self) -> ClockState:
        """What `restore` takes: how far chain time is from wall time, and where it is about to jump."""
        return self._offset, self._jump

    def restore(self, state: ClockState) -> None:
        self._offset, self._jump = state

    def stamped(self) -> None:
        """A block took the timestamp `next` gave."""
        self._jump = None
