"""The validator's memory: challenges, signed responses, verdicts, scores. One SQLite file that survives `kill -9`.

    ledger = Ledger(path)                                   # creates it, or refuses a schema it does not know
    ledger.record_challenge(challenge, now)
    ledger.record_response(challenge.digest, Received(...))  # raw bytes as they came, and their signature
    ledger.record_verdict(challenge.digest, verdict, now)
    ledger.record_evidence([evidence, ...])                  # what others can recheck, by its digest
    ledger.commit_round(MECHANISM, round, states, pools, observations)   # one transaction: all of a round or nothing
    ledger.scores(MECHANISM), ledger.pools(...), ledger.last_round(MECHANISM)
    ledger.record_organic(challenge, received, drawn=True, verdict=None, now=now)    # users' requests, by the gateway
    ledger.take_organic(round)                              # their verdicts, each for one round only
    ledger.prune(before_round)                              # answers go, scores stay

Everything is keyed by hotkey. Write-ahead log with full synchronisation: a committed round is on disk, an interrupted
one never happened, and `commit_round` refuses to fold the same round twice. Evidence is kept whole, as the compressed
bytes it is exported in, so that a later release with other rules still hands out what was signed.

Methods block for a few milliseconds and may be called from any thread; call them through `asyncio.to_thread` in a loop.

    LedgerError
    ├── UnknownSchema      the file was written by another version: keep it, start with a new one, or use that version
    └── RoundAlreadyKept   this round was committed before
"""

from __future__ import annotations

import json
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from protocol.challenges import Challenge
from protocol.errors import EvidenceError
from protocol.evidence import MAX_EVIDENCE_BYTES, Evidence, decode_evidence
from protocol.scoring import Observation, ScoreState
from protocol.verdicts import Outcome, Pool, PooledAnswer, Verdict
from template.errors import TemplateError

SCHEMA_VERSION = 2
APPLICATION_ID = 0x54534C31  # "TSL1": tells our file from any other SQLite database

SCHEMA = """
CREATE TABLE challenges (
    digest TEXT PRIMARY KEY, round INTEGER NOT NULL, validator TEXT NOT NULL, miner TEXT NOT NULL, kind TEXT NOT NULL,
    body TEXT NOT NULL, planned_at REAL NOT NULL
);
CREATE INDEX challenges_by_round ON challenges (round);
CREATE INDEX challenges_by_miner ON challenges (miner, round);
CREATE TABLE responses (
    digest TEXT PRIMARY KEY REFERENCES challenges ON DELETE CASCADE, body BLOB NOT NULL, envelope BLOB NOT NULL,
    received_at REAL NOT NULL, first_token_s REAL, total_s REAL, tokens_per_s REAL
);
CREATE TABLE failures (
    digest TEXT PRIMARY KEY REFERENCES challenges ON DELETE CASCADE, code TEXT NOT NULL, detail TEXT NOT NULL,
    failed_at REAL NOT NULL
);
CREATE TABLE verdicts (
    digest TEXT PRIMARY KEY REFERENCES challenges ON DELETE CASCADE, outcome TEXT NOT NULL, reason TEXT NOT NULL,
    body TEXT NOT NULL, judged_at REAL NOT NULL
);
CREATE TABLE evidence (
    digest TEXT PRIMARY KEY, challenge TEXT NOT NULL REFERENCES challenges ON DELETE CASCADE, miner TEXT NOT NULL,
    round INTEGER NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL, judged_at REAL NOT NULL, body BLOB NOT NULL
);
CREATE INDEX evidence_by_miner ON evidence (miner, judged_at);
CREATE INDEX evidence_by_challenge ON evidence (challenge);
CREATE TABLE scores (
    mechanism INTEGER NOT NULL, hotkey TEXT NOT NULL, score REAL NOT NULL, rejects INTEGER NOT NULL,
    cooldown_until INTEGER NOT NULL, clean INTEGER NOT NULL, accepted INTEGER NOT NULL, rejected INTEGER NOT NULL,
    failed INTEGER NOT NULL, inconclusive INTEGER NOT NULL, last_round INTEGER NOT NULL, audits INTEGER NOT NULL,
    unaudited INTEGER NOT NULL, last_answered INTEGER NOT NULL,
    PRIMARY KEY (mechanism, hotkey)
);
CREATE TABLE pools (
    root TEXT NOT NULL, dtype TEXT NOT NULL, hotkey TEXT NOT NULL, span INTEGER NOT NULL, answers TEXT NOT NULL,
    PRIMARY KEY (root, dtype, hotkey)
);
CREATE TABLE rounds (
    mechanism INTEGER NOT NULL, round INTEGER NOT NULL, observations TEXT NOT NULL, PRIMARY KEY (mechanism, round)
);
CREATE TABLE organic (
    digest TEXT PRIMARY KEY REFERENCES challenges ON DELETE CASCADE, drawn INTEGER NOT NULL, folded_in INTEGER
);
CREATE INDEX organic_by_round ON organic (folded_in);
"""

_SCORE_COLUMNS = tuple(field.name for field in fields(ScoreState))


class LedgerError(TemplateError):
    """Root of the ledger's errors."""


class UnknownSchema(LedgerError):
    """The file is not a ledger, or of another version."""


class RoundAlreadyKept(LedgerError):
    """The round is in the ledger."""


@dataclass(frozen=True)
class Received:
    """A response as it came. `body`: the raw bytes that were signed; `envelope`: what proves the signature."""

    body: bytes
    envelope: bytes
    received_at: float  # seconds since the epoch
    first_token_s: float | None = None  # as the validator measured
    total_s: float | None = None
    tokens_per_s: float | None = None


@dataclass(frozen=True)
class Entry:
    """Everything kept about one challenge."""

    challenge: Challenge
    received: Received | None
    verdict: Verdict | None
    failure: tuple[str, str] | None  # code and detail when there was no usable answer


@dataclass(frozen=True)
class Organic:
    """The verdict on one answer to a user's request, and the service that was measured."""

    digest: str
    miner: str
    round: int  # the validator's, when it was asked
    verdict: Verdict
    first_token_s: float | None
    tokens_per_s: float | None


@dataclass(frozen=True)
class KeptEvidence:
    """One row of the list of evidence. `digest` is the evidence's own, not its challenge's."""

    digest: str
    miner: str
    round: int
    outcome: str
    reason: str
    judged_at: float


class Ledger:
    """One open ledger file. Raises UnknownSchema for a file it must not touch, LedgerError when it cannot be opened.

    `create` false is for readers beside a validator: nothing is made, and its writer's lock is not taken.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        self._lock = threading.RLock()
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.is_file():
            raise LedgerError(f"there is no ledger at {path}", remedy="check the path")
        try:
            self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
            if create:
                self._open()
            else:
                self._check_schema(self._db)
        except sqlite3.DatabaseError as error:
            raise UnknownSchema(f"{path} cannot be used: {error}", remedy="move the file away") from error

    def _open(self) -> None:
        self._db.execute("PRAGMA foreign_keys = ON")
        with self._transaction() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                for statement in SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._check_schema(db)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")

    def _check_schema(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID or version != SCHEMA_VERSION:
            raise UnknownSchema(
                f"{self.path} has schema {version} where {SCHEMA_VERSION} is understood",
                remedy="move the file away to start anew, or run the version that wrote it",
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- one challenge ----

    def record_challenge(self, challenge: Challenge, now: float) -> None:
        """Before it is sent. Recording the same challenge again (a retry after a restart) changes nothing."""
        c = challenge
        row = (c.digest, c.round, c.validator, c.miner, c.kind, c.to_json(), now)
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO challenges VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def record_response(self, digest: str, received: Received) -> None:
        """The first response to a recorded challenge; a second one raises LedgerError."""
        r = received
        row = (digest, r.body, r.envelope, r.received_at, r.first_token_s, r.total_s, r.tokens_per_s)
        self._insert("INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def record_failure(self, digest: str, code: str, detail: str, now: float) -> None:
        """There was no usable answer: the stable code of the failure, and a sentence."""
        self._insert("INSERT INTO failures VALUES (?, ?, ?, ?)", (digest, code, detail[:500], now))

    def is_answered(self, digest: str) -> bool:
        """Whether a response or a failure is kept for a challenge."""
        query = "SELECT 1 FROM responses WHERE digest = ? UNION ALL SELECT 1 FROM failures WHERE digest = ?"
        with self._lock:
            return self._db.execute(query, (digest, digest)).fetchone() is not None

    def record_verdict(self, digest: str, verdict: Verdict, now: float) -> None:
        row = (digest, verdict.outcome.value, verdict.reason.value, verdict.to_json(), now)
        self._insert("INSERT INTO verdicts VALUES (?, ?, ?, ?, ?)", row)

    # ---- users' requests ----

    def record_organic(
        self, challenge: Challenge, received: Received, *, drawn: bool, verdict: Verdict | None, now: float
    ) -> None:
        """A user's request and its signed answer, in one transaction. `drawn`: it was drawn for audit, so a verdict is
        given or follows (`record_verdict`). Raises LedgerError when the challenge is already here."""
        c, r = challenge, received
        entry = (c.digest, c.round, c.validator, c.miner, c.kind, c.to_json(), now)
        response = (c.digest, r.body, r.envelope, r.received_at, r.first_token_s, r.total_s, r.tokens_per_s)
        try:
            with self._transaction() as db:
                db.execute("INSERT INTO challenges VALUES (?, ?, ?, ?, ?, ?, ?)", entry)
                db.execute("INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?, ?)", response)
                db.execute("INSERT INTO organic VALUES (?, ?, NULL)", (c.digest, int(drawn)))
                if verdict is not None:
                    row = (c.digest, verdict.outcome.value, verdict.reason.value, verdict.to_json(), now)
                    db.execute("INSERT INTO verdicts VALUES (?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError as error:
            raise LedgerError(f"challenge {c.digest} is already recorded: {error}") from error

    def undecided_organic(self, limit: int) -> list[Entry]:
        """Answers drawn for audit that have no verdict yet, oldest first, at most `limit`."""
        query = (
            "SELECT o.digest FROM organic o JOIN responses r USING (digest) LEFT JOIN verdicts v USING (digest)"
            " WHERE o.drawn = 1 AND v.digest IS NULL ORDER BY r.received_at LIMIT ?"
        )
        with self._lock:
            entries = []
            for (digest,) in self._db.execute(query, (limit,)).fetchall():
                with suppress(KeyError):  # the validator's process has just pruned it
                    entries.append(self.entry(digest))
            return entries

    def take_organic(self, round: int) -> list[Organic]:
        """Verdicts on users' answers that no earlier round took; from now on they belong to `round`.

        Asked again for the same round (it was killed before `commit_round`) it gives the same and what came since, so
        that each verdict is folded exactly once.
        """
        query = (
            "SELECT o.digest, c.miner, c.round, v.body, r.first_token_s, r.tokens_per_s FROM organic o"
            " JOIN challenges c USING (digest) JOIN responses r USING (digest) JOIN verdicts v USING (digest)"
            " WHERE o.folded_in = ? ORDER BY r.received_at, o.digest"
        )
        open_ones = "folded_in IS NULL AND digest IN (SELECT digest FROM verdicts)"
        with self._transaction() as db:
            db.execute(f"UPDATE organic SET folded_in = ? WHERE {open_ones}", (round,))
            rows = db.execute(query, (round,)).fetchall()
        return [Organic(*row[:3], Verdict.from_json(row[3]), *row[4:]) for row in rows]

    def _insert(self, statement: str, row: tuple[object, ...]) -> None:
        try:
            with self._transaction() as db:
                db.execute(statement, row)
        except sqlite3.IntegrityError as error:
            raise LedgerError(f"challenge {row[0]} is unknown or already has this record: {error}") from error

    def entry(self, digest: str) -> Entry:
        """All that is kept about one challenge; KeyError if it is not here (any more)."""
        with self._lock:
            challenge = self._db.execute("SELECT body FROM challenges WHERE digest = ?", (digest,)).fetchone()
            columns = ", ".join(field.name for field in fields(Received))
            query = f"SELECT {columns} FROM responses WHERE digest = ?"
            received = self._db.execute(query, (digest,)).fetchone()
            verdict = self._db.execute("SELECT body FROM verdicts WHERE digest = ?", (digest,)).fetchone()
            failure = self._db.execute("SELECT code, detail FROM failures WHERE digest = ?", (digest,)).fetchone()
        if challenge is None:
            raise KeyError(digest)
        return Entry(
            Challenge.from_json(challenge[0]),
            Received(*received) if received else None,
            Verdict.from_json(verdict[0]) if verdict else None,
            (failure[0], failure[1]) if failure else None,
        )

    def verdict_counts(self, since_round: int = 0) -> dict[str, dict[str, int]]:
        """miner -> {"accept": n, "reject": n, "inconclusive": n, "failure": n} over the challenges still kept."""
        query = (
            "SELECT c.miner, v.outcome, count(*) FROM challenges c JOIN verdicts v USING (digest)"
            " WHERE c.round >= ? GROUP BY 1, 2"
            " UNION ALL SELECT c.miner, 'failure', count(*) FROM challenges c JOIN failures f USING (digest)"
            " WHERE c.round >= ? GROUP BY 1"
        )
        counts: dict[str, dict[str, int]] = {}
        with self._lock:
            rows = self._db.execute(query, (since_round, since_round)).fetchall()
        for miner, outcome, count in rows:
            blank = {**{o.value: 0 for o in Outcome}, "failure": 0}
            counts.setdefault(miner, blank)[outcome] = count
        return counts

    def reasons(self, miner: str) -> dict[str, int]:
        """How often each reason code was given to one hotkey, failures by their code."""
        query = (
            "SELECT v.reason, count(*) FROM challenges c JOIN verdicts v USING (digest) WHERE c.miner = ? GROUP BY 1"
            " UNION ALL SELECT f.code, count(*) FROM challenges c JOIN failures f USING (digest)"
            " WHERE c.miner = ? GROUP BY 1"
        )
        with self._lock:
            return dict(self._db.execute(query, (miner, miner)).fetchall())

    # ---- evidence ----

    def record_evidence(self, evidence: Sequence[Evidence]) -> None:
        """All or none. Raises EvidenceError for one that is too large, LedgerError for an unknown challenge."""
        rows = [
            (
                each.digest,
                each.answers[-1].challenge.digest,
                each.miner,
                each.round,
                each.verdict.outcome.value,
                each.verdict.reason.value,
                each.judged_at,
                zlib.compress(each.to_json()),
            )
            for each in evidence
        ]
        try:
            with self._transaction() as db:
                db.executemany("INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.IntegrityError as error:
            raise LedgerError(f"evidence for a challenge that is not in the ledger: {error}") from error

    def evidence(self, digest: str) -> Evidence | None:
        """The evidence with this digest, or None. Raises LedgerError when the row is damaged."""
        with self._lock:
            row = self._db.execute("SELECT body FROM evidence WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            return None
        try:
            found = decode_evidence(zlib.decompressobj().decompress(row[0], MAX_EVIDENCE_BYTES + 1))
        except (zlib.error, EvidenceError) as error:
            raise LedgerError(f"evidence {digest} in {self.path} cannot be read: {error}") from error
        if found.digest != digest:
            raise LedgerError(f"evidence {digest} in {self.path} is damaged", remedy="restore the file from a copy")
        return found

    def list_evidence(
        self, miner: str | None = None, outcome: str | None = None, limit: int = 100
    ) -> list[KeptEvidence]:
        """Newest first; about one miner or of one outcome, if given."""
        columns = ", ".join(field.name for field in fields(KeptEvidence))
        query = (
            f"SELECT {columns} FROM evidence WHERE (? IS NULL OR miner = ?) AND (? IS NULL OR outcome = ?)"
            " ORDER BY judged_at DESC, digest LIMIT ?"
        )
        with self._lock:
            rows = self._db.execute(query, (miner, miner, outcome, outcome, limit)).fetchall()
        return [KeptEvidence(*row) for row in rows]

    # ---- rounds and scores ----

    def commit_round(
        self,
        mechanism: int,
        round: int,
        states: Mapping[str, ScoreState],
        observations: Sequence[Observation] = (),
        pools: Mapping[tuple[str, str, str], Pool] | None = None,
    ) -> None:
        """Keep the result of one round, all or nothing. `pools`: by (model root, dtype, hotkey).

        Raises RoundAlreadyKept if this or a later round of the mechanism is in the ledger.
        """
        seen = json.dumps([{**asdict(o), "outcome": o.outcome.value if o.outcome else None} for o in observations])
        marks = ", ".join("?" * (len(_SCORE_COLUMNS) + 1))
        with self._transaction() as db:
            last = db.execute("SELECT max(round) FROM rounds WHERE mechanism = ?", (mechanism,)).fetchone()[0]
            if last is not None and last >= round:
                raise RoundAlreadyKept(f"round {round} of mechanism {mechanism}: round {last} is already kept")
            db.execute("INSERT INTO rounds VALUES (?, ?, ?)", (mechanism, round, seen))
            db.executemany(
                f"INSERT OR REPLACE INTO scores (mechanism, {', '.join(_SCORE_COLUMNS)}) VALUES ({marks})",
                [(mechanism, *(getattr(state, name) for name in _SCORE_COLUMNS)) for state in states.values()],
            )
            db.executemany(
                "INSERT OR REPLACE INTO pools VALUES (?, ?, ?, ?, ?)",
                [(*key, pool.span, json.dumps(pool.answers)) for key, pool in (pools or {}).items()],
            )

    def scores(self, mechanism: int) -> dict[str, ScoreState]:
        with self._lock:
            query = f"SELECT {', '.join(_SCORE_COLUMNS)} FROM scores WHERE mechanism = ?"
            rows = self._db.execute(query, (mechanism,)).fetchall()
        return {row[0]: ScoreState(*row) for row in rows}

    def pool(self, root: str, dtype: str, hotkey: str) -> Pool:
        """Pooled margins of one hotkey under one model; empty if there are none yet."""
        with self._lock:
            query = "SELECT span, answers FROM pools WHERE root = ? AND dtype = ? AND hotkey = ?"
            row = self._db.execute(query, (root, dtype, hotkey)).fetchone()
        if row is None:
            return Pool()
        return Pool(tuple(PooledAnswer(*answer) for answer in json.loads(row[1])), row[0])

    def last_round(self, mechanism: int) -> int | None:
        """The newest committed round, or None before the first."""
        with self._lock:
            row = self._db.execute("SELECT max(round) FROM rounds WHERE mechanism = ?", (mechanism,)).fetchone()
        return None if row[0] is None else int(row[0])

    # ---- upkeep ----

    def prune(self, before_round: int) -> int:
        """Forget challenges of earlier rounds, with answers, verdicts and evidence.

        Scores, pools and the last round stay, and the answers that a pool still counts: its reject has to show them.
        """
        pooled = "SELECT json_extract(entry.value, '$[0]') FROM pools, json_each(pools.answers) AS entry"
        with self._transaction() as db:
            query = f"DELETE FROM challenges WHERE round < ? AND digest NOT IN ({pooled})"
            gone = db.execute(query, (before_round,)).rowcount
            newest = "SELECT max(round) FROM rounds r WHERE r.mechanism = rounds.mechanism"
            db.execute(f"DELETE FROM rounds WHERE round < ? AND round < ({newest})", (before_round,))
        return int(gone)
