"""The judge's edges that vectors do not show, the pool, and what is kept of a verdict."""

import dataclasses

from protocol.inference import (
    GenerateResponse,
    ModelIdentity,
    Outcome,
    Pool,
    Reason,
    Recomputed,
    Timings,
    Verdict,
    judge,
    judge_pool,
)
from template.inference.calibrations import CALIBRATIONS
from tests.support.plans import plan

MODEL = ModelIdentity("m", "test", "ab" * 32, "float32", 49152, (2,), 8192)
CHALLENGE = plan(MODEL, lambda messages: [1, 2, 3])
TOKENS = tuple(range(100, 100 + CHALLENGE.request.max_tokens))
RESPONSE = GenerateResponse(
    token_ids=TOKENS, finish_reason="length", timings=Timings(queue_ms=0.0, first_token_ms=0.0, total_ms=0.0)
)
(FLOAT32,) = [c for c in CALIBRATIONS if (c.dtype, c.root) == ("float32", "")]


def recomputed(margins):
    return Recomputed(MODEL.root, "float32", (1, 2, 3), tuple(margins), TOKENS[: len(margins)], (False,) * len(margins))


def test_without_thresholds_nothing_is_accepted_or_rejected():
    honest = recomputed([0.0] * len(TOKENS))
    for calibration in (
        None,
        dataclasses.replace(FLOAT32, dtype="bfloat16"),
        dataclasses.replace(FLOAT32, root="cd" * 32),
    ):
        verdict = judge(CHALLENGE, RESPONSE, honest, calibration)
        assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, Reason.NO_CALIBRATION)


def test_a_verdict_names_its_thresholds_and_survives_json():
    verdict = judge(CHALLENGE, RESPONSE, recomputed([0.0] * len(TOKENS)), FLOAT32)
    assert verdict.outcome is Outcome.ACCEPT and verdict.calibration == FLOAT32.digest
    assert verdict.numbers["tokens"] == len(TOKENS) and verdict.numbers["match"] == 1.0
    assert Verdict.from_json(verdict.to_json()) == verdict
    changed = dataclasses.replace(FLOAT32, request_mean=0.5)
    assert changed.digest != FLOAT32.digest


def test_the_thresholds_in_use_leave_room_above_what_was_measured():
    assert FLOAT32.honest_tokens >= 2000
    assert FLOAT32.honest_max < FLOAT32.eos_margin and FLOAT32.honest_mean * 10 <= FLOAT32.pool_mean


def test_the_pool_sees_what_single_answers_hide():
    margins = [0.0] * (len(TOKENS) - 1) + [0.15]  # far below the rule for one request
    assert judge(CHALLENGE, RESPONSE, recomputed(margins), FLOAT32).outcome is Outcome.ACCEPT
    pool = Pool()
    verdicts = []
    for _ in range(20):
        pool = pool.add(recomputed(margins))
        verdicts.append(judge_pool(pool, FLOAT32))
    assert verdicts[0] is None  # too few tokens to say anything
    assert verdicts[-1] is not None and verdicts[-1].reason is Reason.POOLED_MARGIN
    clean = Pool()
    for _ in range(20):
        clean = clean.add(recomputed([0.0] * len(TOKENS)))
        assert judge_pool(clean, FLOAT32) is None


def test_the_pool_keeps_about_its_span():
    pool = Pool(span=200)
    for _ in range(50):
        pool = pool.add(recomputed([0.0] * len(TOKENS)))
    assert 200 <= pool.tokens < 200 + len(TOKENS)
