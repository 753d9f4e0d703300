"""How a cheat is found out, in figures: statistics over its answers as the judge saw them.

    Seen                                  one answer at one length, JSON-able: the material
    seen_of(challenge, response, ...)     the judge's verdict on it, and what a recomputation said
    shortened(...)                        the same exchange as if fewer tokens had been asked for
    own_limits(honest, sizes)             thresholds at a false-positive rate of 0.1 %, bootstrapped from honest answers
    detection(seen, ...)                  one line of the table

Nothing here knows a model; everything is a function of the material and a seed.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from protocol.calibration import Calibration
from protocol.challenges import Challenge
from protocol.draw import Draw
from protocol.fingerprint import CHUNK, encoded_size
from protocol.generation import GenerateResponse, Proof
from protocol.odds import Hunt, Tried, most_kept, rounds_until_caught, simulate, until_caught
from protocol.synapse import Message
from protocol.verdicts import Outcome, Recomputation, Recomputed, clipped_sum, judge

FALSE_POSITIVES = 1e-3
RESAMPLES = 20_000  # of honest answers, for one threshold
HUNTS = 200  # miners followed until they are caught
MOST_ANSWERS = 256  # after which a hunt is given up
SIMULATIONS = 3  # runs of the policy, averaged


class Seen(Message):
    """One answer. `size` tokens were asked for; `outcome` None: no usable answer came, `reason` says why."""

    size: int
    number: int  # of its challenge
    outcome: Outcome | None
    reason: str
    tokens: int = 0
    margins: tuple[float, ...] | None = None  # None: not recomputed, its form was wrong already
    distances: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        return clipped_sum(self.margins or ()) / max(1, self.tokens)

    @property
    def farthest(self) -> float:
        return max(self.distances, default=0.0)

    def tried(self) -> Tried:
        if self.margins is None:
            return Tried(self.outcome, self.tokens)
        recomputed = Recomputed("", "float32", (), self.margins, (), (), self.distances)
        return Tried(self.outcome, self.tokens, recomputed)


@dataclass(frozen=True)
class Limits:
    """Own thresholds for answers of one length, which only what is above them exceeds."""

    mean: float  # clipped margin
    distance: float


@dataclass(frozen=True)
class Policy:
    """What the simulated validator does."""

    floor: float  # of the audit rate
    rounds: int
    seed: int


def seen_of(
    number: int,
    challenge: Challenge,
    response: GenerateResponse,
    recomputed: Recomputation,
    calibration: Calibration,
    streamed: Sequence[int] | None,
) -> Seen:
    """What the judge says. An answer whose form was wrong keeps no margins, whatever `recomputed` is."""
    verdict = judge(challenge, response, recomputed, calibration, streamed)
    checked = isinstance(recomputed, Recomputed) and bool(verdict.numbers)
    return Seen(
        size=challenge.request.max_tokens,
        number=number,
        outcome=verdict.outcome,
        reason=verdict.reason.value,
        tokens=len(response.token_ids),
        margins=recomputed.margins if checked and isinstance(recomputed, Recomputed) else None,
        distances=recomputed.distances if checked and isinstance(recomputed, Recomputed) else (),
    )


def shortened(
    challenge: Challenge, response: GenerateResponse, recomputed: Recomputation, size: int
) -> tuple[Challenge, GenerateResponse, Recomputation]:
    """The exchange as if `size` tokens had been asked for, a multiple of CHUNK: so its fingerprint is the beginning."""
    if size % CHUNK:
        raise ValueError(f"an answer can be cut after whole chunks of {CHUNK} tokens, not after {size}")
    request = challenge.request.model_copy(update={"max_tokens": size})
    challenge = replace(challenge, request=request)
    if len(response.token_ids) <= size:
        return challenge, response, recomputed
    proof = base64.b64decode(response.proof.fingerprint)[: encoded_size(size)]
    response = response.model_copy(
        update={
            "token_ids": response.token_ids[:size],
            "finish_reason": "length",
            "proof": Proof(fingerprint=base64.b64encode(proof).decode()),
        }
    )
    if isinstance(recomputed, Recomputed):
        recomputed = replace(
            recomputed,
            prompt_ids=request.prompt_ids,
            margins=recomputed.margins[:size],
            winners=recomputed.winners[:size],
            cut=recomputed.cut[:size],
            distances=recomputed.distances[: size // CHUNK],
        )
    return challenge, response, recomputed


def own_limits(honest: Sequence[Seen], sizes: Sequence[int], seed: int) -> dict[int, Limits]:
    """For answers of each size the (1 - FALSE_POSITIVES) quantile of resampled honest tokens and chunks."""
    rng = np.random.default_rng(seed)
    margins = np.minimum(np.concatenate([seen.margins or () for seen in honest]), 0.3)
    distances = np.concatenate([seen.distances for seen in honest])
    limits = {}
    for size in sizes:
        means = np.array([rng.choice(margins, size).mean() for _ in range(RESAMPLES)])
        chunks = rng.choice(distances, (RESAMPLES, math.ceil(size / CHUNK))).max(axis=1)
        quantile = 1.0 - FALSE_POSITIVES
        limits[size] = Limits(float(np.quantile(means, quantile)), float(np.quantile(chunks, quantile)))
    return limits


def detection(
    name: str, seen: Sequence[Seen], limits: Mapping[int, Limits], calibration: Calibration, policy: Policy
) -> dict[str, Any]:
    """Everything that is told about one cheat. Shares are of answers; `kept` of an honest miner's reward."""
    longest = [one for one in seen if one.size == max(limits)]
    tried = [one.tried() for one in longest]
    hunts = [
        until_caught(tried, calibration, Draw(_key(policy.seed, f"{name}|{index}")), MOST_ANSWERS)
        for index in range(HUNTS)
    ]
    rounds = rounds_until_caught(hunts, policy.floor)
    kept = [
        simulate(tried, calibration, floor=policy.floor, rounds=policy.rounds, seed=_key(policy.seed, f"{name}!{run}"))
        for run in range(SIMULATIONS)
    ]
    at_once = _answers_until(hunts)
    return {
        "answers": len(longest),
        "caught": {str(size): _share(seen, size, lambda one: one.outcome is Outcome.REJECT) for size in limits},
        "own_mean": {str(n): _share(seen, n, lambda one, n=n: one.mean > limits[n].mean) for n in limits},
        "own_distance": {str(n): _share(seen, n, lambda one, n=n: one.farthest > limits[n].distance) for n in limits},
        "reasons": dict(Counter(one.reason for one in longest).most_common()),
        "mean_margin": _over(longest, lambda one: one.mean),
        "mean_distance": _over(longest, lambda one: one.farthest),
        "hunts_caught": sum(hunt.caught for hunt in hunts) / HUNTS,
        "tokens_until_caught": {"p50": _tokens(hunts, 0.5), "p95": _tokens(hunts, 0.95)},
        "answers_until_caught": {
            "rate_1": at_once,
            "floor": at_once / policy.floor if at_once is not None else None,
        },
        "rounds_until_caught": rounds,
        "kept": sum(kept) / len(kept),
        "kept_at_most": most_kept(rounds, policy.rounds) if any(one.outcome is not None for one in longest) else 0.0,
        "answered": any(one.outcome is not None for one in longest),
    }


def _share(seen: Sequence[Seen], size: int, test: Any) -> float:
    """Of the answers of this size. An answer rejected for its form exceeds no threshold: it has no figures."""
    chosen = [one for one in seen if one.size == size]
    return sum(bool(test(one)) for one in chosen) / len(chosen) if chosen else 0.0


def _over(seen: Sequence[Seen], figure: Any) -> float | None:
    found = [figure(one) for one in seen if one.margins is not None]
    return sum(found) / len(found) if found else None


def _answers_until(hunts: Sequence[Hunt]) -> float | None:
    """Expected audited answers until a reject; None when no hunt caught anything."""
    caught = sum(hunt.caught for hunt in hunts)
    return sum(hunt.answers for hunt in hunts) / caught if caught else None


def _tokens(hunts: Sequence[Hunt], quantile: float) -> int | None:
    """Tokens after which this share of miners is caught; None when fewer are."""
    ordered = sorted(hunt.tokens if hunt.caught else math.inf for hunt in hunts)
    value = ordered[min(len(ordered) - 1, math.ceil(quantile * len(ordered)) - 1)]
    return None if math.isinf(value) else int(value)


def _key(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"challenge-bench|{seed}|{text}".encode()).digest()
