"""Evidence without a model: one form in bytes, and every check refuses what it is for."""

import json
from dataclasses import replace

import pytest

from protocol.errors import EvidenceError
from protocol.evidence import MAX_EVIDENCE_BYTES, Code, SignedAnswer, check, decode_evidence, differences, read_answer
from protocol.generation import MAX_ANSWER_TOKENS, GenerateChunk
from protocol.stream import Frame, Kind
from protocol.synapse import RefusalBody, encode
from protocol.verdicts import Outcome, Reason, Verdict
from template.keys import Hotkey, verify
from tests.support import signed
from tests.support.plans import calibration_of
from tests.support.signed import ACCEPT, MODEL, TOKENS, challenge, evidence, exchange, frames

OTHER = Hotkey.from_uri("//other")


def codes(found):
    return {problem.code for problem in check(found, verify)}


def about(**changes):
    """Evidence whose one exchange differs in the given fields, both sides having signed it so."""
    asked = challenge()
    return evidence([SignedAnswer(challenge=asked, exchange=exchange(asked, **changes))])


def test_evidence_has_one_form_and_comes_back_equal():
    found = evidence()
    data = found.to_json()
    assert check(found, verify) == []
    assert decode_evidence(data) == decode_evidence(data + b"\n") == found
    assert decode_evidence(data).digest == found.digest
    plain = json.loads(data)
    for other in (
        json.dumps(plain).encode(),
        json.dumps(plain, indent=1).encode(),
        data + b"\n\n",
        data.replace(b'"version":1', b'"version":1,"version":1'),
        data.replace(b'"judged_at":1700000000.0', b'"judged_at":1.7e9'),
        data.replace(b'"judged_at":1700000000.0', b'"judged_at":1700000000'),
    ):
        assert other != data
        with pytest.raises(EvidenceError):
            decode_evidence(other)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (b'"version":1', b'"version":2'),
        (b'"version":1', b'"version":"1"'),
        (b'"judged_at":1700000000.0', b'"judged_at":NaN'),
        (b'"judged_at":1700000000.0', b'"judged_at":1e999'),
        (b'"match":1.0', b'"match":Infinity'),
        (b'"match":1.0', b'"match":"1.0"'),
        (b'"streamed":true', b'"streamed":1'),
        (b'"outcome":"accept"', b'"outcome":"maybe"'),
        (b'"detail":"fine"', b'"detail":"\\ud800"'),
        (b'"kind":"', b'"more":1,"kind":"'),
        (b'"scheme":"sr25519"', b'"scheme":"rsa"'),
        (b'"answers":[', b'"answers":{},"x":['),
    ],
)
def test_what_is_not_evidence_is_refused_when_it_is_read(was, now):
    data = evidence().to_json()
    assert data.count(was) >= 1
    with pytest.raises(EvidenceError):
        decode_evidence(data.replace(was, now, 1))


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"null", b"[" * 100_000, b"\xff\xfe", b'"x"', b" " * (MAX_EVIDENCE_BYTES + 1)]
)
def test_garbage_is_refused(data):
    with pytest.raises(EvidenceError):
        decode_evidence(data)


def test_evidence_that_is_too_large_is_not_written():
    huge = evidence(verdict=replace(ACCEPT, detail="x" * MAX_EVIDENCE_BYTES))
    with pytest.raises(EvidenceError, match="limit"):
        huge.to_json()


def test_the_validator_cannot_deny_its_verdict_nor_have_one_put_in_its_mouth():
    found = evidence()
    for update in (
        {"judged_at": 1.0},
        {"verdict": replace(ACCEPT, detail="other")},
        {"scheme": "ed25519"},
        {"signature": b"\x00" * 64},
        {"signature": b""},
        {"signature": OTHER.sign(found.signed_payload)},
    ):
        assert Code.VALIDATOR_SIGNATURE in codes(found.model_copy(update=update))
    assert Code.HOTKEYS in codes(evidence(validator=OTHER.ss58))


def test_the_digest_covers_everything_but_the_signature():
    found = evidence()
    assert found.model_copy(update={"signature": b"", "scheme": "ed25519"}).digest == found.digest
    assert found.model_copy(update={"judged_at": 1.0}).digest != found.digest


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"path": "/v1/echo"}, Code.ROUTE),
        ({"method": "GET"}, Code.ROUTE),
        ({"status": 500}, Code.ROUTE),
        ({"request_body": encode(challenge(2).request)}, Code.REQUEST_DIFFERS),
        ({"request_body": b"{}"}, Code.REQUEST_DIFFERS),
        ({"sender": OTHER.ss58}, Code.REQUEST_SIGNATURE),
        ({"receiver": OTHER.ss58}, Code.HOTKEYS),
        ({"request_scheme": "ed25519"}, Code.REQUEST_SIGNATURE),
        ({"response_scheme": "ed25519"}, Code.RESPONSE_SIGNATURE),
        ({"body": b""}, Code.RESPONSE_MALFORMED),
        ({"body": frames()[:-1]}, Code.RESPONSE_MALFORMED),
        ({"body": frames() + frames()}, Code.RESPONSE_MALFORMED),
        ({"body": Frame(Kind.END, b"{}").encode()}, Code.RESPONSE_MALFORMED),
        ({"body": Frame(Kind.REFUSAL, encode(RefusalBody(code="busy", message=""))).encode()}, Code.RESPONSE_MALFORMED),
        ({"body": Frame(Kind.CHUNK, encode(GenerateChunk(offset=1, token_ids=(7,)))).encode() + frames()}, Code.CHUNKS),
    ],
)
def test_an_exchange_that_is_not_about_the_challenge_is_refused(changes, code):
    assert code in codes(about(**changes))


def test_a_miner_that_did_not_sign_is_not_convicted():
    asked = challenge()
    forged = replace(exchange(asked), response_signature=exchange(asked, frames(TOKENS[::-1])).response_signature)
    assert codes(evidence([SignedAnswer(challenge=asked, exchange=forged)])) == {Code.RESPONSE_SIGNATURE}
    others = exchange(asked, miner=OTHER)
    assert Code.HOTKEYS in codes(evidence([SignedAnswer(challenge=asked, exchange=others)]))
    unstreamed = replace(exchange(asked), streamed=False)
    assert {Code.ROUTE, Code.RESPONSE_SIGNATURE} <= codes(
        evidence([SignedAnswer(challenge=asked, exchange=unstreamed)])
    )


def test_the_challenge_must_be_about_the_model_it_asks_for():
    asked = replace(challenge(), model=replace(MODEL, root="cd" * 32))
    assert Code.MODEL_DIFFERS in codes(evidence([SignedAnswer(challenge=asked, exchange=exchange(asked))]))


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (replace(ACCEPT, reason=Reason.LOST_TOKENS), Code.OUTCOME),
        (replace(ACCEPT, outcome=Outcome.REJECT), Code.OUTCOME),
        (replace(ACCEPT, outcome=Outcome.INCONCLUSIVE, reason=Reason.NOT_RECOMPUTED), Code.OUTCOME),
        (replace(ACCEPT, calibration="ab" * 32), Code.CALIBRATION),
        (replace(ACCEPT, numbers={"tokens": float("nan")}), Code.NUMBERS),
    ],
)
def test_a_verdict_that_contradicts_itself_is_refused(verdict, code):
    try:
        found = evidence(verdict=verdict)
    except ValueError:  # NaN cannot be signed
        found = evidence().model_copy(update={"verdict": verdict})
    assert code in codes(found)


def test_thresholds_belong_to_the_verdict():
    looser = calibration_of(MODEL).model_copy(update={"request_mean": 1.0})
    assert codes(evidence(calibration=looser)) == {Code.CALIBRATION}
    form = Verdict(Outcome.REJECT, Reason.TOO_SHORT, "")
    assert codes(evidence(verdict=form)) == set()
    assert codes(evidence(verdict=form, calibration=looser)) == {Code.CALIBRATION}


def test_a_pool_counts_each_answer_once_and_in_order():
    def answer(number, miner=signed.MINER):
        asked = challenge(number, miner)
        return SignedAnswer(challenge=asked, exchange=exchange(asked, miner=miner))

    pooled = replace(ACCEPT, outcome=Outcome.REJECT, reason=Reason.POOLED_MARGIN)
    assert codes(evidence([answer(1), answer(2)], pooled)) == set()
    assert codes(evidence([answer(1), answer(2)])) == {Code.ANSWERS}
    assert codes(evidence([answer(1), answer(1)], pooled)) == {Code.ANSWERS}
    assert codes(evidence([answer(2), answer(1)], pooled)) == {Code.ANSWERS}
    assert Code.HOTKEYS in codes(evidence([answer(1), answer(2, OTHER)], pooled))


def test_the_streamed_tokens_are_read_as_they_came():
    response, streamed = read_answer(exchange(challenge()))
    assert response.token_ids == streamed == TOKENS
    longest = tuple([7] * MAX_ANSWER_TOKENS)
    assert read_answer(exchange(challenge(), frames(longest)))[1] == longest


def test_numbers_may_move_by_what_arithmetic_does_and_no_more():
    numbers = {**ACCEPT.numbers, "max": 0.004, "lost": 0.0}

    def parted(dtype="float32", **changes):
        return differences(ACCEPT, replace(ACCEPT, numbers={**numbers, **changes}), dtype)

    assert parted() == []
    assert parted(max=0.02) and parted(mean_clipped=0.001) and parted(distance=0.01) and parted(lost=2.0)
    assert parted(tokens=47.0) and parted(match=0.5) and parted(max=float("nan"))
    assert parted("bfloat16", max=0.4, mean_clipped=0.01, distance=0.03, lost=2.0) == []
    assert differences(ACCEPT, replace(ACCEPT, numbers={}), "float32")
    assert differences(ACCEPT, replace(ACCEPT, detail="in other words"), "float32") == []
    assert differences(ACCEPT, replace(ACCEPT, outcome=Outcome.REJECT, reason=Reason.FINGERPRINT), "float32")
