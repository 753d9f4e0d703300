"""What a validator remembers of mechanism 1: ratings by hotkey, and the verdicts of each window.

    with TrainLedger(path) as ledger:
        ledger.states()                                       {hotkey: TrainState}
        ledger.commit(row, states, verdicts)                  one transaction: a window counts once, whole or not at all
        ledger.last_window()                                  None before the first
        ledger.rows(window)                                   what is shown by `touchstone train status`

SQLite with a write-ahead log, as the ledger of mechanism 0.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from protocol.training.ratings import TrainState
from template.errors import StateUnavailable

SCHEMA = 1
TABLES = """
CREATE TABLE IF NOT EXISTS states (hotkey TEXT PRIMARY KEY, state TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS windows (
    window INTEGER PRIMARY KEY, root TEXT NOT NULL, loss REAL, contributions INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS verdicts (
    window INTEGER NOT NULL, hotkey TEXT NOT NULL, outcome TEXT, reason TEXT, detail TEXT NOT NULL,
    assigned REAL, unassigned REAL, audited INTEGER NOT NULL, accepted INTEGER NOT NULL,
    PRIMARY KEY (window, hotkey)
) STRICT;
"""


@dataclass(frozen=True)
class WindowRow:
    """One window: the model after it, its loss before it on unassigned data, and how many contributions entered."""

    window: int
    root: str
    loss: float | None
    contributions: int


@dataclass(frozen=True)
class VerdictRow:
    """One hotkey in one window. `outcome` None: nothing was shown in time. `accepted`: it entered the model."""

    hotkey: str
    outcome: str | None
    reason: str | None
    detail: str = ""
    assigned: float | None = None
    unassigned: float | None = None
    audited: bool = False
    accepted: bool = False


class TrainLedger:
    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=30.0, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version not in (0, SCHEMA):
                raise StateUnavailable(
                    f"{path} has schema {version}, this release knows {SCHEMA}", remedy="move it away"
                )
            self._db.executescript(f"BEGIN; {TABLES} PRAGMA user_version={SCHEMA}; COMMIT;")
        except (OSError, sqlite3.Error) as error:
            raise StateUnavailable(f"{path} cannot be used: {error}", remedy="give another --data-dir") from None

    def __enter__(self) -> TrainLedger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def states(self) -> dict[str, TrainState]:
        return {
            hotkey: TrainState(**json.loads(state))
            for hotkey, state in self._db.execute("SELECT hotkey, state FROM states ORDER BY hotkey")
        }

    def last_window(self) -> int | None:
        window: int | None = self._db.execute("SELECT max(window) FROM windows").fetchone()[0]
        return window

    def commit(self, row: WindowRow, states: Mapping[str, TrainState], verdicts: Sequence[VerdictRow]) -> None:
        """Everything about one window; nothing when it is in the ledger already."""
        with self._transaction():
            if self._db.execute("SELECT 1 FROM windows WHERE window = ?", (row.window,)).fetchone():
                return
            self._db.execute("INSERT INTO windows VALUES (?, ?, ?, ?)", tuple(asdict(row).values()))
            self._db.executemany(
                "INSERT OR REPLACE INTO states VALUES (?, ?)",
                [(hotkey, json.dumps(asdict(state))) for hotkey, state in states.items()],
            )
            self._db.executemany(
                "INSERT INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(row.window, *asdict(verdict).values()) for verdict in verdicts],
            )

    def windows(self) -> list[WindowRow]:
        return [WindowRow(*row) for row in self._db.execute("SELECT * FROM windows ORDER BY window")]

    def rows(self, window: int) -> list[VerdictRow]:
        found = self._db.execute(
            "SELECT hotkey, outcome, reason, detail, assigned, unassigned, audited, accepted FROM verdicts "
            "WHERE window = ? ORDER BY hotkey",
            (window,),
        )
        return [VerdictRow(*row[:6], bool(row[6]), bool(row[7])) for row in found]

    def _transaction(self) -> sqlite3.Connection:
        self._db.execute("BEGIN IMMEDIATE")
        return self._db
