"""The judge's edges that vectors do not show, the pool, and what is kept of a verdict."""

import pytest

from protocol.inference import (
    GenerateResponse,
    ModelIdentity,
    Outcome,
    Pool,
    Proof,
    Reason,
    Recomputed,
    Timings,
    Verdict,
    judge,
    judge_pool,
)
from tests.support.plans import blank_proof, calibration_of, plan

MODEL = ModelIdentity("m", "test", "ab" * 32, "float32", 49152, (2,), 8192)
CHALLENGE = plan(MODEL, lambda messages: [1, 2, 3])
TOKENS = tuple(range(100, 100 + CHALLENGE.request.max_tokens))
RESPONSE = GenerateResponse(
    token_ids=TOKENS,
    finish_reason="length",
    proof=blank_proof(len(TOKENS)),
    timings=Timings(queue_ms=0.0, first_token_ms=0.0, total_ms=0.0),
)
FLOAT32 = calibration_of(MODEL)


def recomputed(margins, distances=(0.0, 0.0, 0.0)):
    cut = (False,) * len(margins)
    return Recomputed(MODEL.root, "float32", (1, 2, 3), tuple(margins), TOKENS[: len(margins)], cut, tuple(distances))


def test_without_thresholds_nothing_is_accepted_or_rejected():
    honest = recomputed([0.0] * len(TOKENS))
    for calibration in (
        None,
        FLOAT32.model_copy(update={"dtype": "bfloat16"}),
        FLOAT32.model_copy(update={"root": "cd" * 32}),
    ):
        verdict = judge(CHALLENGE, RESPONSE, honest, calibration)
        assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, Reason.NO_CALIBRATION)


def test_a_verdict_names_its_thresholds_and_survives_json():
    verdict = judge(CHALLENGE, RESPONSE, recomputed([0.0] * len(TOKENS)), FLOAT32)
    assert verdict.outcome is Outcome.ACCEPT and verdict.calibration == FLOAT32.digest
    assert verdict.numbers["tokens"] == len(TOKENS) and verdict.numbers["match"] == 1.0
    assert Verdict.from_json(verdict.to_json()) == verdict
    changed = FLOAT32.model_copy(update={"request_mean": 0.5})
    assert changed.digest != FLOAT32.digest


def test_a_fingerprint_is_judged_by_its_worst_chunk_and_never_passed_over():
    fine, over = FLOAT32.distance * 0.99, FLOAT32.distance * 1.01
    margins = [0.0] * len(TOKENS)
    assert judge(CHALLENGE, RESPONSE, recomputed(margins, (fine,) * 3), FLOAT32).outcome is Outcome.ACCEPT
    verdict = judge(CHALLENGE, RESPONSE, recomputed(margins, (0.0, over, 0.0)), FLOAT32)
    assert (verdict.outcome, verdict.reason) == (Outcome.REJECT, Reason.FINGERPRINT)
    assert verdict.numbers["distance"] == over
    for distances in ((), (0.0, 0.0), (0.0, 0.0, float("nan")), (0.0, 0.0, float("inf"))):
        verdict = judge(CHALLENGE, RESPONSE, recomputed(margins, distances), FLOAT32)
        assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, Reason.NOT_RECOMPUTED)


@pytest.mark.parametrize("text", ["", "AAAA", "!", "é" * 128, "A" * 127 + "=", blank_proof(64).fingerprint])
def test_a_proof_of_another_form_is_a_reject(text):
    answer = RESPONSE.model_copy(update={"proof": Proof(fingerprint=text)})
    verdict = judge(CHALLENGE, answer, recomputed([0.0] * len(TOKENS)), FLOAT32)
    assert (verdict.outcome, verdict.reason) == (Outcome.REJECT, Reason.PROOF_FORM)


def test_the_pool_sees_what_single_answers_hide():
    margins = [0.0] * (len(TOKENS) - 1) + [FLOAT32.lost_margin * 0.9]  # below every rule for one answer
    assert judge(CHALLENGE, RESPONSE, recomputed(margins), FLOAT32).outcome is Outcome.ACCEPT
    pool = Pool()
    verdicts = []
    for _ in range(20):
        pool = pool.add(CHALLENGE.digest, recomputed(margins))
        verdicts.append(judge_pool(pool, FLOAT32))
    assert verdicts[0] is None  # too few tokens to say anything
    assert verdicts[-1] is not None and verdicts[-1].reason is Reason.POOLED_MARGIN
    clean = Pool()
    for _ in range(20):
        clean = clean.add(CHALLENGE.digest, recomputed([0.0] * len(TOKENS)))
        assert judge_pool(clean, FLOAT32) is None


def test_the_pool_keeps_about_its_span():
    pool = Pool(span=200)
    for _ in range(50):
        pool = pool.add(CHALLENGE.digest, recomputed([0.0] * len(TOKENS)))
    assert 200 <= pool.tokens < 200 + len(TOKENS)
