"""What a validator remembers of mechanism 1: ratings by hotkey, the verdicts of each window, and evidence of them.

    with TrainLedger(path) as ledger:
        ledger.states()                                       {hotkey: TrainState}
        ledger.commit(row, states, verdicts)                  one transaction: a window counts once, whole or not at all
        ledger.last_window()                                  None before the first
        ledger.rows(window)                                   what is shown by `touchstone train status`
        ledger.record_evidence([evidence, ...])               what others can recheck, by its digest
        ledger.evidence(digest), ledger.list_evidence(...)    given out as the bytes it was signed in
        ledger.buffers_kept(digest, bytes)                    what the store took; buffer_bytes(window) is the sum

SQLite with a write-ahead log, as the ledger of mechanism 0. Evidence goes after EVIDENCE_WINDOWS windows; the rest
stays. Methods block for a few milliseconds and may be called from any thread.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from protocol.errors import EvidenceError
from protocol.training.evidence import MAX_EVIDENCE_BYTES, TrainEvidence, decode_evidence
from protocol.training.ratings import TrainState
from template.errors import StateUnavailable
from template.ledger import KeptEvidence

SCHEMA = 2  # 1 had no evidence; such a file is read, and becomes 2
EVIDENCE_WINDOWS = 1024  # that evidence stays for: about 2 KB each
APPLICATION_ID = 0x54535431  # "TST1": tells it from the ledger of mechanism 0
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
CREATE TABLE IF NOT EXISTS evidence (
    digest TEXT PRIMARY KEY, miner TEXT NOT NULL, window INTEGER NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL,
    judged_at REAL NOT NULL, buffers INTEGER NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS evidence_by_miner ON evidence (miner, judged_at);
CREATE INDEX IF NOT EXISTS evidence_by_window ON evidence (window);
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
    """`create` false is for readers: a file that is not there is not made."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        self._lock = threading.RLock()
        if not create and not path.is_file():
            raise StateUnavailable(f"there is no ledger at {path}", remedy="check the path")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=30.0, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            (application,) = self._db.execute("PRAGMA application_id").fetchone()
            known = 0 <= version <= SCHEMA and application in (0, APPLICATION_ID)
            if not known or (not create and version < SCHEMA):
                raise StateUnavailable(
                    f"{path} has schema {version}, this release knows {SCHEMA}", remedy="move it away"
                )
            if version < SCHEMA:
                marks = f"PRAGMA user_version={SCHEMA}; PRAGMA application_id={APPLICATION_ID};"
                self._db.executescript(f"BEGIN IMMEDIATE; {TABLES} {marks} COMMIT;")
        except (OSError, sqlite3.Error) as error:
            raise StateUnavailable(f"{path} cannot be used: {error}", remedy="give another --data-dir") from None

    def __enter__(self) -> TrainLedger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def states(self) -> dict[str, TrainState]:
        rows = self._read("SELECT hotkey, state FROM states ORDER BY hotkey")
        return {hotkey: TrainState(**json.loads(state)) for hotkey, state in rows}

    def last_window(self) -> int | None:
        window: int | None = self._read("SELECT max(window) FROM windows")[0][0]
        return window

    def commit(self, row: WindowRow, states: Mapping[str, TrainState], verdicts: Sequence[VerdictRow]) -> None:
        """Everything about one window; nothing when it is in the ledger already. Old evidence goes."""
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM windows WHERE window = ?", (row.window,)).fetchone():
                return
            db.execute("INSERT INTO windows VALUES (?, ?, ?, ?)", tuple(asdict(row).values()))
            db.executemany(
                "INSERT OR REPLACE INTO states VALUES (?, ?)",
                [(hotkey, json.dumps(asdict(state))) for hotkey, state in states.items()],
            )
            db.executemany(
                "INSERT INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(row.window, *asdict(verdict).values()) for verdict in verdicts],
            )
            db.execute("DELETE FROM evidence WHERE window <= ?", (row.window - EVIDENCE_WINDOWS,))

    def windows(self) -> list[WindowRow]:
        return [WindowRow(*row) for row in self._read("SELECT * FROM windows ORDER BY window")]

    def rows(self, window: int) -> list[VerdictRow]:
        found = self._read(
            "SELECT hotkey, outcome, reason, detail, assigned, unassigned, audited, accepted FROM verdicts "
            "WHERE window = ? ORDER BY hotkey",
            (window,),
        )
        return [VerdictRow(*row[:6], bool(row[6]), bool(row[7])) for row in found]

    # Evidence

    def record_evidence(self, evidence: Sequence[TrainEvidence]) -> None:
        """All or none. Raises EvidenceError for one that is too large."""
        rows = [
            (
                one.digest,
                one.miner,
                one.window,
                one.verdict.outcome.value,
                one.verdict.reason.value,
                one.judged_at,
                0,
                zlib.compress(one.to_json()),
            )
            for one in evidence
        ]
        with self._transaction() as db:
            db.executemany("INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def evidence(self, digest: str) -> TrainEvidence | None:
        """The evidence with this digest, or None. Raises StateUnavailable when the row is damaged."""
        rows = self._read("SELECT body FROM evidence WHERE digest = ?", (digest,))
        if not rows:
            return None
        remedy = "restore the file from a copy"
        try:
            found = decode_evidence(zlib.decompressobj().decompress(rows[0][0], MAX_EVIDENCE_BYTES + 1))
        except (zlib.error, EvidenceError) as error:
            raise StateUnavailable(f"evidence {digest} in {self.path} cannot be read: {error}", remedy=remedy) from None
        if found.digest != digest:
            raise StateUnavailable(f"evidence {digest} in {self.path} is damaged", remedy=remedy)
        return found

    def list_evidence(
        self, miner: str | None = None, outcome: str | None = None, limit: int = 100
    ) -> list[KeptEvidence]:
        """Newest first; about one miner or of one outcome, if given. `round` is the window."""
        rows = self._read(
            "SELECT digest, miner, window, outcome, reason, judged_at FROM evidence "
            "WHERE (? IS NULL OR miner = ?) AND (? IS NULL OR outcome = ?) ORDER BY judged_at DESC, digest LIMIT ?",
            (miner, miner, outcome, outcome, limit),
        )
        return [KeptEvidence(*row) for row in rows]

    def buffers_kept(self, digest: str, size: int) -> None:
        """Note that `size` bytes of error buffers went into the store for this evidence."""
        with self._transaction() as db:
            db.execute("UPDATE evidence SET buffers = ? WHERE digest = ?", (size, digest))

    def buffer_bytes(self, window: int) -> int:
        """Bytes of error buffers that went into the store in the EVIDENCE_WINDOWS windows up to `window`."""
        rows = self._read("SELECT total(buffers) FROM evidence WHERE window > ?", (window - EVIDENCE_WINDOWS,))
        return int(rows[0][0])

    def _read(self, query: str, given: tuple[object, ...] = ()) -> list[tuple]:
        with self._lock:
            return self._db.execute(query, given).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:
                yield self._db
