"""Users' requests in the validator's ledger: recorded whole, audited once, and their verdicts folded into one round."""

from dataclasses import replace
from pathlib import Path

import pytest

from protocol.generation import ChatMessage
from protocol.inference import MECHANISM, Challenge, GenerateRequest, ModelIdentity, Outcome, Reason, Sampler, Verdict
from template.ledger import Ledger, LedgerError, Received

MODEL = ModelIdentity("m", "test", "ab" * 32, "float32", 100, (0,), 128)
ACCEPT = Verdict(Outcome.ACCEPT, Reason.OK, "fine", {"tokens": 3.0, "mean_clipped": 0.0})
REJECT = Verdict(Outcome.REJECT, Reason.LOST_TOKENS, "not fine")


def organic(number: int, round: int = 4) -> Challenge:
    request = GenerateRequest(
        model_root=MODEL.root,
        dtype="float32",
        prompt_ids=(1, 2),
        messages=(ChatMessage(role="user", content="hello"),),
        sampler=Sampler(),
        max_tokens=3,
        nonce=f"{number:064x}",
    )
    return Challenge(round, "0x" + "00" * 32, "vali", f"miner{number}", "organic", MODEL, request)


def received(at: float) -> Received:
    return Received(b"body", b"envelope", at, 0.1, 0.4, 7.5)


def fill(ledger: Ledger, number: int, *, drawn: bool = False, verdict: Verdict | None = None) -> str:
    challenge = organic(number)
    ledger.record_organic(challenge, received(float(number)), drawn=drawn, verdict=verdict, now=1.0)
    return challenge.digest


def test_everything_about_an_answer_is_kept(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        digest = fill(ledger, 1, verdict=ACCEPT)
        entry = ledger.entry(digest)
        assert entry.challenge == organic(1) and entry.received == received(1.0) and entry.verdict == ACCEPT
        with pytest.raises(LedgerError):
            fill(ledger, 1)
        assert ledger.entry(digest).verdict == ACCEPT


def test_only_what_was_drawn_waits_for_a_verdict_oldest_first(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        fill(ledger, 1)
        later, earlier = fill(ledger, 3, drawn=True), fill(ledger, 2, drawn=True)
        fill(ledger, 4, verdict=REJECT)
        assert [entry.challenge.digest for entry in ledger.undecided_organic(9)] == [earlier, later]
        assert len(ledger.undecided_organic(1)) == 1
        ledger.record_verdict(earlier, ACCEPT, 2.0)
        assert [entry.challenge.digest for entry in ledger.undecided_organic(9)] == [later]


def test_each_verdict_is_folded_into_one_round_whatever_is_killed_when(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        first, waiting = fill(ledger, 1, verdict=ACCEPT), fill(ledger, 2, drawn=True)
        fill(ledger, 3)
        (taken,) = ledger.take_organic(5)
        assert (taken.digest, taken.miner, taken.verdict) == (first, "miner1", ACCEPT)
        assert (taken.first_token_s, taken.tokens_per_s) == (0.1, 7.5)
    with Ledger(tmp_path / "ledger") as ledger:  # killed before the round was committed: asked again
        ledger.record_verdict(waiting, REJECT, 2.0)
        assert [o.digest for o in ledger.take_organic(5)] == [first, waiting]
        ledger.commit_round(MECHANISM, 5, {})
        assert ledger.take_organic(6) == []
        new = fill(ledger, 4, verdict=REJECT)
        assert [o.digest for o in ledger.take_organic(6)] == [new]


def test_two_processes_may_write(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as validator, Ledger(tmp_path / "ledger") as gateway:
        fill(gateway, 1, verdict=ACCEPT)
        validator.record_challenge(replace(organic(2), kind="short"), 1.0)
        fill(gateway, 3, verdict=ACCEPT)
        assert [o.miner for o in validator.take_organic(5)] == ["miner1", "miner3"]


def test_old_answers_are_forgotten_with_their_round(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        fill(ledger, 1, drawn=True)
        assert ledger.prune(5) == 1
        assert ledger.undecided_organic(9) == [] and ledger.take_organic(5) == []
