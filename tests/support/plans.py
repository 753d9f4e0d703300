"""Challenges for tests, without torch."""

from __future__ import annotations

from protocol.inference import Challenge, ChallengePolicy, ModelIdentity, Sampler, Tokenize, plan_challenge

SECRET = b"\x05" * 32
SAMPLED = ChallengePolicy(samplers=(Sampler(),), max_tokens=(48,), length_classes=("short",))


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
