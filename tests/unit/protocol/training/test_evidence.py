"""Evidence of mechanism 1 without a chain or a model: one form in bytes, and every check refuses what it is for."""

import json
from dataclasses import replace
from typing import Any

import pytest

from protocol.errors import EvidenceError
from protocol.synapse import encode
from protocol.training.evidence import MAX_EVIDENCE_BYTES, Code, Promise, check, decode_evidence, is_training
from protocol.training.judging import Reason, Verdict
from protocol.training.opening import AskOpen
from protocol.training.records import Included
from protocol.verdicts import Outcome
from template.keys import verify
from tests.support import signed as inference
from tests.support.train_evidence import CIDS, MINER, OTHER, REPLAY, SAID, STATEMENT, VALIDATOR, answer, by_hand, signed

LIKE = Included(miner=OTHER.ss58, statement=CIDS[6], payload=CIDS[0])


def codes(**changes: Any) -> set[Code]:
    return {problem.code for problem in check(by_hand(**changes), verify)}


def test_evidence_has_one_form_and_comes_back_equal() -> None:
    found = by_hand()
    data = found.to_json()
    assert check(found, verify) == []
    assert decode_evidence(data) == decode_evidence(data + b"\n") == found
    plain = json.loads(data)
    for other in (
        json.dumps(plain).encode(),
        json.dumps(plain, indent=1).encode(),
        data + b"\n\n",
        data.replace(b'"version":1', b'"version":1,"version":1'),
        data.replace(b'"judged_at":1700000000.0', b'"judged_at":1.7e9'),
        data.replace(b'"distance":0.17', b'"distance":0.170'),
    ):
        assert other != data
        with pytest.raises(EvidenceError):
            decode_evidence(other)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (b'"version":1', b'"version":2'),
        (b'"kind":"training"', b'"kind":"inference"'),
        (b'"kind":"training"', b'"kind":"training","more":1'),
        (b'"netuid":2', b'"netuid":"2"'),
        (b'"netuid":2', b'"netuid":0'),
        (b'"window":7', b'"window":-7'),
        (b'"judged_at":1700000000.0', b'"judged_at":NaN'),
        (b'"distance":0.17', b'"distance":Infinity'),
        (b'"outcome":"reject"', b'"outcome":"maybe"'),
        (b'"reason":"replay"', b'"reason":"other"'),
        (b'"detail":"', b'"detail":"\\ud800'),
        (b'"scheme":"sr25519"', b'"scheme":"rsa"'),
    ],
)
def test_what_is_not_evidence_is_refused_when_it_is_read(was: bytes, now: bytes) -> None:
    data = by_hand().to_json()
    assert data.count(was) >= 1
    with pytest.raises(EvidenceError):
        decode_evidence(data.replace(was, now))


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"[" * 50_000, b"\xff\xfe", b" " * (MAX_EVIDENCE_BYTES + 2)])
def test_garbage_is_refused_and_no_kind_of_evidence(data: bytes) -> None:
    assert not is_training(data)
    with pytest.raises(EvidenceError):
        decode_evidence(data)


def test_the_two_kinds_are_told_apart() -> None:
    assert is_training(by_hand().to_json()) and not is_training(inference.evidence().to_json())
    with pytest.raises(EvidenceError):
        decode_evidence(inference.evidence().to_json())


def test_evidence_that_is_too_large_is_not_written() -> None:
    unsigned = by_hand().model_copy(update={"verdict": replace(REPLAY, detail="x" * MAX_EVIDENCE_BYTES)})
    with pytest.raises(EvidenceError, match="limit"):
        unsigned.to_json()


def test_the_validator_cannot_deny_its_verdict_nor_have_one_put_in_its_mouth() -> None:
    found = by_hand()
    changes: tuple[dict[str, Any], ...] = (
        {"verdict": replace(REPLAY, detail="other")},
        {"verdict": replace(REPLAY, numbers={"distance": 0.18})},
        {"scheme": "ed25519"},
        {"signature": b""},
        {"signature": b"\x00" * 64},
        {"signature": OTHER.sign(found.signed_payload)},
        {"judged_at": 1.0},
        {"genesis": "12" * 32},
        {"netuid": 3},
    )
    for update in changes:
        assert {problem.code for problem in check(found.model_copy(update=update), verify)} == {
            Code.VALIDATOR_SIGNATURE
        }
    taken = signed(found.model_copy(update={"validator": OTHER.ss58}), OTHER)
    assert {problem.code for problem in check(taken, verify)} == {Code.HOTKEYS}


def test_the_digest_covers_everything_but_the_signature() -> None:
    found = by_hand()
    assert found.model_copy(update={"signature": b"", "scheme": "ed25519"}).digest == found.digest
    others: dict[str, Any] = {
        "genesis": "12" * 32, "netuid": 3, "recipe": CIDS[7], "window": 8, "validator": OTHER.ss58,
        "miner": OTHER.ss58, "promise": Promise(statement=SAID, block=1499, read_at=1504), "statement": b"other",
        "answer": None, "base": "cd" * 32, "record": None, "earlier": None, "assign": "23" * 32, "reveal": "34" * 32,
        "like": LIKE, "verdict": replace(REPLAY, reason=Reason.SENT), "locations": (), "judged_at": 1.0,
    }  # fmt: skip
    assert set(others) == set(type(found).model_fields) - {"kind", "version", "scheme", "signature"}
    assert len({found.model_copy(update={name: value}).digest for name, value in others.items()}) == len(others)
    assert found.digest not in {found.model_copy(update={name: value}).digest for name, value in others.items()}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"verdict": Verdict(Outcome.INCONCLUSIVE, Reason.UNCHECKED)}, Code.OUTCOME),
        ({"verdict": Verdict(Outcome.REJECT, Reason.OK)}, Code.OUTCOME),
        ({"verdict": Verdict(Outcome.ACCEPT, Reason.REPLAY)}, Code.OUTCOME),
        ({"statement": STATEMENT[:-1]}, Code.STATEMENT),
        ({"promise": Promise(statement=SAID, block=1505, read_at=1504)}, Code.PROMISE),
        ({"record": None}, Code.START),
        ({"window": 0, "answer": answer(window=0)}, Code.START),
        ({"like": LIKE}, Code.LIKE),
        ({"verdict": replace(REPLAY, reason=Reason.COPY)}, Code.LIKE),
        (
            {"verdict": replace(REPLAY, reason=Reason.COPY), "like": LIKE.model_copy(update={"miner": MINER.ss58})},
            Code.LIKE,
        ),
        ({"answer": answer(miner=OTHER)}, Code.HOTKEYS),
        ({"answer": answer(validator=OTHER)}, Code.HOTKEYS),
        ({"answer": answer(path="/v1/echo")}, Code.ROUTE),
        ({"answer": answer(method="GET")}, Code.ROUTE),
        ({"answer": answer(status=403)}, Code.ROUTE),
        ({"answer": replace(answer(), streamed=True)}, Code.ROUTE),
        ({"answer": answer(window=6)}, Code.ANSWER_DIFFERS),
        ({"answer": answer(statement=CIDS[7])}, Code.ANSWER_DIFFERS),
        ({"answer": answer(body=b"{}")}, Code.ANSWER_DIFFERS),
        ({"answer": replace(answer(), request_body=encode(AskOpen(window=6)))}, Code.REQUEST_SIGNATURE),
        ({"answer": replace(answer(), request_signature=b"\x00" * 64)}, Code.REQUEST_SIGNATURE),
        ({"answer": replace(answer(), response_signature=b"\x00" * 64)}, Code.RESPONSE_SIGNATURE),
        ({"answer": replace(answer(), response_scheme="ed25519")}, Code.RESPONSE_SIGNATURE),
    ],
)
def test_what_does_not_belong_together_is_refused_although_it_is_signed(changes: dict[str, Any], code: Code) -> None:
    assert code in codes(**changes)


def test_a_miner_that_signed_nothing_may_still_be_accused_of_what_the_chain_holds() -> None:
    assert codes(answer=None) == set()
    assert VALIDATOR.ss58 != MINER.ss58
