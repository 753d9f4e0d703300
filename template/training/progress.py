"""What a training has come to, as one validator's ledger tells it: the same series for the JSON and for the picture.

progress = read(ledger)                     Progress(windows, verdicts)
progress.shown(window)                      contributions that were shown in time; None: the validator cannot say
progress.hotkeys()                          everybody, the busiest first
fate(row)                                   what became of one hotkey's window, in one word
progress.document()                         all of it, for `touchstone train status --json`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from protocol.verdicts import Outcome
from template.training.ledger import TrainLedger, VerdictRow, WindowRow


class Fate(str, Enum):
    """Of one hotkey in one window, the gravest last. Accepted and left out: it did not help, did not open its buffers
    to the audit, or other validators did not vote for it."""

    ENTERED = "entered"
    AUDITED = "entered, audited"
    LEFT_OUT = "left out"
    ABSENT = "absent"
    INCONCLUSIVE = "inconclusive"
    REJECTED = "rejected"

    def __str__(self) -> str:
        return self.value


def fate(row: VerdictRow) -> Fate:
    """This validator's own verdict; what it accepted, by whether it entered the model."""
    if row.outcome is None:
        return Fate.ABSENT
    outcome = Outcome(row.outcome)
    if outcome is not Outcome.ACCEPT:
        return Fate.REJECTED if outcome is Outcome.REJECT else Fate.INCONCLUSIVE
    if not row.accepted:
        return Fate.LEFT_OUT
    return Fate.AUDITED if row.audited else Fate.ENTERED


@dataclass(frozen=True)
class Progress:
    """`windows` rise, perhaps with gaps. `verdicts`: by window; none for a window that the validator was away in."""

    windows: tuple[WindowRow, ...]
    verdicts: Mapping[int, tuple[VerdictRow, ...]]

    def shown(self, row: WindowRow) -> int | None:
        """Contributions shown in time. None when the validator was away, or saw too little of the window to judge."""
        rows = self.verdicts[row.window]
        away = not rows and row.loss is None
        blind = any(one.outcome == Outcome.INCONCLUSIVE.value and one.reason is None for one in rows)
        return None if away or blind else sum(one.outcome is not None for one in rows)

    def hotkeys(self) -> list[str]:
        """Those who showed contributions in most windows first, then those of whom most entered."""
        shown: Counter[str] = Counter()
        entered: Counter[str] = Counter()
        for row in self._rows():
            shown[row.hotkey] += row.outcome is not None
            entered[row.hotkey] += row.accepted
        return sorted(shown, key=lambda hotkey: (-shown[hotkey], -entered[hotkey], hotkey))

    def scores(self, hotkey: str) -> dict[int, float]:
        """By window: by how much its contribution alone lowered the loss on data it was not given, in nats a token."""
        return {
            window: row.unassigned
            for window, rows in self.verdicts.items()
            for row in rows
            if row.hotkey == hotkey and row.unassigned is not None
        }

    def fates(self, hotkey: str) -> dict[int, Fate]:
        """By window; none where nothing was committed."""
        return {window: fate(row) for window, rows in self.verdicts.items() for row in rows if row.hotkey == hotkey}

    def rejects(self, hotkey: str) -> dict[str, int]:
        """How often it was rejected, by reason."""
        mine = (row for row in self._rows() if row.hotkey == hotkey and fate(row) is Fate.REJECTED)
        return dict(Counter(row.reason or "no reason" for row in mine).most_common())

    def document(self) -> dict[str, list[dict[str, Any]]]:
        """`windows`: loss before each in nats a token, contributions shown and entered, model after. `verdicts`: of
        every hotkey in every window."""
        verdicts = [
            {"window": window, **asdict(row), "fate": fate(row).value}
            for window, rows in self.verdicts.items()
            for row in rows
        ]
        return {"windows": [{**asdict(row), "shown": self.shown(row)} for row in self.windows], "verdicts": verdicts}

    def _rows(self) -> list[VerdictRow]:
        return [row for rows in self.verdicts.values() for row in rows]


def read(ledger: TrainLedger) -> Progress:
    windows = tuple(ledger.windows())
    return Progress(windows, {row.window: tuple(ledger.rows(row.window)) for row in windows})
