"""Challenges for tests, without torch."""

from __future__ import annotations

import base64

from protocol.calibration import Calibration, HonestSample, Spread, answers_needed, derive
from protocol.fingerprint import encoded_size
from protocol.inference import (
    Challenge,
    ChallengePolicy,
    ModelIdentity,
    Proof,
    Sampler,
    Tokenize,
    plan_challenge,
)

SECRET = b"\x05" * 32
SAMPLED = ChallengePolicy(samplers=(Sampler(),), max_tokens=(48,), length_classes=("short",))


TARGET = 1e-3  # false-positive rate of one answer


def calibration_of(model: ModelIdentity) -> Calibration:
    """Thresholds at their floors: what a sample of answers that all win outright leads to."""
    nothing = Spread.of([])
    sample = HonestSample(
        answers=answers_needed(TARGET),
        tokens=100_000,
        match=1.0,
        margin=nothing,
        eos_margin=nothing,
        request_mean=nothing,
        pool_mean=nothing,
        distance=nothing,
        variants={},
        versions={},
        machine="a test",
    )
    return derive(model.root, model.dtype, sample, TARGET)


def blank_proof(tokens: int) -> Proof:
    """A proof of the right size for so many tokens, and of nothing."""
    return Proof(fingerprint=base64.b64encode(bytes(encoded_size(tokens))).decode())


def plan(
    model: ModelIdentity, tokenize: Tokenize, round: int = 1, miner: str = "miner", policy: ChallengePolicy = SAMPLED
) -> Challenge:
    return plan_challenge(
        block_hash="0x" + "11" * 32,
        secret=SECRET,
        validator="validator",
        miner=miner,
        round=round,
        model=model,
        tokenize=tokenize,
        policy=policy,
    )
