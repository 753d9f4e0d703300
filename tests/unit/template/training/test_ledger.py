"""What a validator remembers of windows: each counts once, whole or not at all, and is there after a restart."""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path

import pytest

from protocol.training.ratings import TrainState
from template.errors import StateUnavailable
from template.ledger import Ledger
from template.training.ledger import EVIDENCE_WINDOWS, SCHEMA, TrainLedger, VerdictRow, WindowRow
from tests.support.train_evidence import by_hand, cases, signed

STATE = TrainState("alice", mu=27.123456789012345, sigma=4.2, effort=0.1, presence=0.2, rejects=1, cooldown_until=12)
FULL = VerdictRow("alice", "accept", "ok", "relative distance 8e-06", 0.25, -0.125, audited=True, accepted=True)
ABSENT = VerdictRow("bob", None, None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "ledger.sqlite"


def row(window: int, loss: float | None = 3.5) -> WindowRow:
    return WindowRow(window, "ab" * 32, loss, 1)


def test_everything_about_a_window_comes_back_after_a_restart(path: Path) -> None:
    with TrainLedger(path) as ledger:
        assert ledger.last_window() is None and ledger.states() == {} and ledger.windows() == []
        ledger.commit(row(7), {"alice": STATE}, [ABSENT, FULL])
        ledger.commit(row(9, loss=None), {"alice": STATE, "bob": TrainState("bob")}, [])
    with TrainLedger(path) as ledger:
        assert ledger.last_window() == 9
        assert ledger.states() == {"alice": STATE, "bob": TrainState("bob")}
        assert ledger.windows() == [row(7), row(9, loss=None)]
        assert ledger.rows(7) == [FULL, ABSENT] and ledger.rows(9) == ledger.rows(8) == []


def test_a_window_counts_once(path: Path) -> None:
    with TrainLedger(path) as ledger:
        ledger.commit(row(7), {"alice": STATE}, [FULL])
        ledger.commit(row(7, loss=1.0), {"alice": TrainState("alice"), "bob": TrainState("bob")}, [ABSENT])
        assert ledger.windows() == [row(7)] and ledger.rows(7) == [FULL] and ledger.states() == {"alice": STATE}
        later = TrainState("alice", rejects=2)
        ledger.commit(row(8), {"alice": later}, [FULL])
        assert ledger.states() == {"alice": later}


def test_a_commit_that_fails_leaves_nothing(path: Path) -> None:
    with TrainLedger(path) as ledger:
        with pytest.raises(sqlite3.IntegrityError):
            ledger.commit(row(7), {"alice": STATE}, [FULL, FULL])
        assert ledger.last_window() is None and ledger.states() == {} and ledger.rows(7) == []
        ledger.commit(row(7), {"alice": STATE}, [FULL])
        assert ledger.rows(7) == [FULL]


def test_a_ledger_of_another_schema_and_a_file_that_is_none_are_refused_and_left_alone(path: Path) -> None:
    with TrainLedger(path) as ledger:
        ledger.commit(row(7), {"alice": STATE}, [FULL])
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    with pytest.raises(StateUnavailable, match=f"schema {SCHEMA + 1}, this release knows {SCHEMA}"):
        TrainLedger(path)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT window FROM windows").fetchall() == [(7,)]
    garbage = path.with_name("garbage")
    garbage.write_bytes(b"this is not a database" * 100)
    with pytest.raises(StateUnavailable, match="cannot be used"):
        TrainLedger(garbage)
    assert garbage.read_bytes() == b"this is not a database" * 100


def test_a_file_of_the_schema_without_evidence_is_gone_on_with(path: Path) -> None:
    with TrainLedger(path) as ledger:
        ledger.commit(row(7), {"alice": STATE}, [FULL])
    with sqlite3.connect(path) as db:
        db.executescript("DROP TABLE evidence; PRAGMA user_version=1; PRAGMA application_id=0;")
    with pytest.raises(StateUnavailable, match="schema 1"):
        TrainLedger(path, create=False)  # a reader changes nothing
    with TrainLedger(path) as ledger:
        assert ledger.rows(7) == [FULL] and ledger.list_evidence() == []
        ledger.record_evidence([by_hand()])
    with TrainLedger(path, create=False) as ledger:
        assert len(ledger.list_evidence()) == 1


def test_a_ledger_of_mechanism_0_is_not_taken_for_one(path: Path) -> None:
    with Ledger(path):
        pass
    with pytest.raises(StateUnavailable):
        TrainLedger(path)
    with pytest.raises(StateUnavailable, match="no ledger"):
        TrainLedger(path.parent / "none.sqlite", create=False)


def test_evidence_comes_back_as_it_was_signed_newest_first(path: Path) -> None:
    given = [evidence for _, evidence in sorted(cases().items())]
    given = [signed(one.model_copy(update={"judged_at": 1.7e9 + at})) for at, one in enumerate(given)]
    with TrainLedger(path) as ledger:
        ledger.record_evidence(given)
        ledger.record_evidence(given)  # again after a restart
        assert [row.digest for row in ledger.list_evidence()] == [one.digest for one in given[::-1]]
        assert all(ledger.evidence(one.digest) == one for one in given)
        assert ledger.evidence("ab" * 32) is None
        assert [row.reason for row in ledger.list_evidence(outcome="accept")] == ["ok"]
        assert ledger.list_evidence(miner="5Nobody") == [] and len(ledger.list_evidence(limit=2)) == 2


def test_damaged_evidence_is_not_handed_out(path: Path) -> None:
    one, other = by_hand(), by_hand(judged_at=1.0)
    with TrainLedger(path) as ledger:
        ledger.record_evidence([one, other])
        for body in (b"\x00", zlib.compress(b"{}"), zlib.compress(other.to_json())):
            ledger._db.execute("UPDATE evidence SET body = ? WHERE digest = ?", (body, one.digest))
            with pytest.raises(StateUnavailable):
                ledger.evidence(one.digest)


def test_evidence_goes_after_its_time_and_its_buffers_are_counted_until_then(path: Path) -> None:
    one = by_hand()
    with TrainLedger(path) as ledger:
        ledger.record_evidence([one])
        ledger.buffers_kept(one.digest, 4096)
        assert ledger.buffer_bytes(one.window) == ledger.buffer_bytes(one.window + EVIDENCE_WINDOWS - 1) == 4096
        assert ledger.buffer_bytes(one.window + EVIDENCE_WINDOWS) == 0
        ledger.commit(row(one.window + EVIDENCE_WINDOWS - 1), {}, [])
        assert ledger.evidence(one.digest) == one
        ledger.commit(row(one.window + EVIDENCE_WINDOWS), {}, [])
        assert ledger.evidence(one.digest) is None
