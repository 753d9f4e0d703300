"""Mechanism 0, verified inference: the rules, in reading order.

    sampling.py     the text a miner owes: temperature, top-k, top-p, seeded Gumbel noise
    generation.py   what travels: GenerateRequest, GenerateChunk, GenerateResponse, INFERENCE_GENERATE
    prompts.py      what is asked
    challenges.py   plan_challenge: which challenge comes next
    verdicts.py     judge: accept, reject, inconclusive
    scoring.py      what verdicts and service are worth

A validator's step: `plan_challenge` -> send `challenge.request` -> `check_form` -> recompute (template/inference) ->
`judge` -> `Pool.add`, `judge_pool` -> `scoring.fold_round` -> `scoring.weights`. This module only gathers the names.
"""

from protocol.challenges import Challenge, ChallengePolicy, ModelIdentity, Tokenize, plan_challenge
from protocol.generation import (
    INFERENCE_GENERATE,
    ChatMessage,
    DType,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    Timings,
    derive_seed,
    request_digest,
)
from protocol.sampling import Sampler, Slack
from protocol.verdicts import (
    Calibration,
    Outcome,
    Pool,
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
