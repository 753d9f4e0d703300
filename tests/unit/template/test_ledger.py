"""The ledger keeps what it was given, through kill -9, and refuses files it does not understand."""

import sqlite3
import subprocess
import sys
import textwrap

import pytest

from protocol.inference import ModelIdentity, Outcome, Pool, PooledAnswer, Reason, Verdict
from protocol.scoring import Observation, ScoreState
from template.ledger import Ledger, LedgerError, Received, RoundAlreadyKept, UnknownSchema
from tests.support.plans import plan

MODEL = ModelIdentity("m", "test", "ab" * 32, "float32", 49152, (2,), 8192)
VERDICT = Verdict(Outcome.REJECT, Reason.LOST_TOKENS, "two tokens", {"lost": 2.0, "tokens": 48.0}, "cal")
RECEIVED = Received(b"\x00raw bytes\xff", b"signature", 1000.5, 0.2, 1.4, 33.0)


def challenge(round=1, miner="miner"):
    return plan(MODEL, lambda messages: [1, 2, 3], round=round, miner=miner)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "ledger.sqlite"


def test_everything_about_a_challenge_comes_back_after_a_restart(path):
    asked, unanswered = challenge(1), challenge(2)
    with Ledger(path) as ledger:
        for each in (asked, unanswered):
            ledger.record_challenge(each, 999.0)
            ledger.record_challenge(each, 999.5)  # a retry
        ledger.record_response(asked.digest, RECEIVED)
        ledger.record_verdict(asked.digest, VERDICT, 1001.0)
        ledger.record_failure(unanswered.digest, "deadline", "no answer within 8 s", 1002.0)
    with Ledger(path) as ledger:
        entry = ledger.entry(asked.digest)
        assert (entry.challenge, entry.received, entry.verdict, entry.failure) == (asked, RECEIVED, VERDICT, None)
        assert ledger.entry(unanswered.digest).failure == ("deadline", "no answer within 8 s")
        assert ledger.verdict_counts() == {"miner": {"accept": 0, "reject": 1, "inconclusive": 0, "failure": 1}}
        assert ledger.verdict_counts(since_round=2)["miner"]["reject"] == 0
        assert ledger.reasons("miner") == {"lost_tokens": 1, "deadline": 1}
        assert path.stat().st_size > 0


def test_records_need_their_challenge_and_are_written_once(path):
    with Ledger(path) as ledger:
        with pytest.raises(LedgerError, match="unknown"):
            ledger.record_response("ff" * 32, RECEIVED)
        ledger.record_challenge(challenge(), 1.0)
        ledger.record_verdict(challenge().digest, VERDICT, 1.0)
        with pytest.raises(LedgerError, match="already"):
            ledger.record_verdict(challenge().digest, VERDICT, 2.0)
        with pytest.raises(KeyError):
            ledger.entry("ff" * 32)


def test_rounds_are_kept_once_and_per_mechanism(path):
    state = ScoreState("hot", 0.123456789012345, 2, 40, 3, 4, 5, 6, 7, 12)
    pools = {(MODEL.root, "float32", "hot"): Pool((PooledAnswer("ab", 48, 0.25), PooledAnswer("cd", 32, 0.0)), 512)}
    with Ledger(path) as ledger:
        assert ledger.last_round(0) is None and ledger.scores(0) == {}
        ledger.commit_round(0, 12, {"hot": state}, [Observation("hot", "k", Outcome.ACCEPT, 0.1, 20.0)], pools)
        for again in (12, 11):
            with pytest.raises(RoundAlreadyKept):
                ledger.commit_round(0, again, {})
        ledger.commit_round(1, 3, {"hot": ScoreState("hot")})
    with Ledger(path) as ledger:
        assert ledger.scores(0) == {"hot": state} and ledger.scores(1) == {"hot": ScoreState("hot")}
        assert (ledger.last_round(0), ledger.last_round(1)) == (12, 3)
        assert ledger.pool(MODEL.root, "float32", "hot") == pools[(MODEL.root, "float32", "hot")]
        assert ledger.pool(MODEL.root, "float32", "stranger") == Pool()


def test_pruning_removes_answers_and_keeps_scores(path):
    with Ledger(path) as ledger:
        for round in range(1, 6):
            ledger.record_challenge(challenge(round), 1.0)
            ledger.record_response(challenge(round).digest, RECEIVED)
            ledger.commit_round(0, round, {"m": ScoreState("m", score=0.1 * round)})
        assert ledger.prune(before_round=100) == 5
        assert ledger.last_round(0) == 5 and ledger.scores(0)["m"].score == 0.5
        with pytest.raises(KeyError):
            ledger.entry(challenge(1).digest)


def test_committed_rounds_survive_kill_9(path):
    writer = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from protocol.scoring import ScoreState
        from template.ledger import Ledger
        ledger = Ledger(Path(sys.argv[1]))
        for round in range(1, 10_000):
            ledger.commit_round(0, round, {h: ScoreState(h, score=round / 10_000, last_round=round) for h in "abcdef"})
            print(round, flush=True)
        """
    )
    with subprocess.Popen([sys.executable, "-c", writer, str(path)], stdout=subprocess.PIPE, text=True) as process:
        seen = 0
        while seen < 50:
            seen = int(process.stdout.readline())
        process.kill()
    with Ledger(path) as ledger:
        kept = ledger.last_round(0)
        assert kept >= seen
        assert {state.last_round for state in ledger.scores(0).values()} == {kept}  # no half-written round


def test_unknown_files_are_refused_and_left_alone(tmp_path):
    newer, foreign, garbage = tmp_path / "newer", tmp_path / "foreign", tmp_path / "garbage"
    Ledger(newer).close()
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 99")
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE things (name TEXT)")
    garbage.write_bytes(b"this is not a database" * 100)
    for file in (newer, foreign, garbage):
        with pytest.raises(UnknownSchema, match="move the file away"):
            Ledger(file)
    assert garbage.read_bytes() == b"this is not a database" * 100
    with sqlite3.connect(foreign) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("things",)]


def test_a_reader_makes_nothing_and_does_not_wait_for_the_writer(path):
    with pytest.raises(LedgerError, match="no ledger at"):
        Ledger(path, create=False)
    assert not path.parent.exists()
    with Ledger(path) as ledger, ledger._transaction(), Ledger(path, create=False) as reader:
        assert reader.scores(0) == {}
    foreign = path.with_name("foreign.sqlite")
    foreign.touch()
    with pytest.raises(UnknownSchema):
        Ledger(foreign, create=False)
    assert foreign.stat().st_size == 0
