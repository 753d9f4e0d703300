"""Mechanism 0, verified inference: the rules, in reading order.

    sampling.py     the text a miner owes: temperature, top-k, top-p, seeded Gumbel noise
    fingerprint.py  the proof beside it: a projection of the hidden states it was sampled from
    generation.py   what travels: GenerateRequest, GenerateChunk, GenerateResponse, INFERENCE_GENERATE
    prompts.py      what is asked
    challenges.py   plan_challenge: which challenge comes next
    calibration.py  the thresholds of the judge, and the honest sample behind them
    verdicts.py     judge: accept, reject, inconclusive
    evidence.py     what a verdict stands on, signed, so that anyone can recompute it
    disputes.py     what a second machine finds about it, and how validators ask each other
    scoring.py      what verdicts and service are worth

A validator's step: `plan_challenge` -> send `challenge.request` -> `check_form` -> recompute (template/inference) ->
`judge` -> `Pool.add`, `judge_pool` -> `scoring.fold_round` -> `scoring.weights`. This module only gathers the names.
"""

from protocol.calibration import Calibration
from protocol.challenges import Challenge, ChallengePolicy, ModelIdentity, Tokenize, plan_challenge
from protocol.generation import (
    INFERENCE_GENERATE,
    ChatMessage,
    DType,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    Proof,
    Timings,
    derive_seed,
    request_digest,
)
from protocol.sampling import Sampler, Slack
from protocol.verdicts import (
    Outcome,
    Pool,
    PooledAnswer,
    Reason,
    Recomputation,
    Recomputed,
    Unchecked,
    Verdict,
    check_form,
    judge,
    judge_pool,
)

MECHANISM = 0
"""Mechanism id on chain."""

__all__ = [
    "INFERENCE_GENERATE",
    "MECHANISM",
    "Calibration",
    "Challenge",
    "ChallengePolicy",
    "ChatMessage",
    "DType",
    "GenerateChunk",
    "GenerateRequest",
    "GenerateResponse",
    "ModelIdentity",
    "Outcome",
    "Pool",
    "PooledAnswer",
    "Proof",
    "Reason",
    "Recomputation",
    "Recomputed",
    "Sampler",
    "Slack",
    "Timings",
    "Tokenize",
    "Unchecked",
    "Verdict",
    "check_form",
    "derive_seed",
    "judge",
    "judge_pool",
    "plan_challenge",
    "request_digest",
]
