"""The judge of mechanism 0: accept, reject or inconclusive, with a reason code and the numbers behind it.

Read from the bottom: `judge` is the whole rule. It first looks at form (`check_form`: nothing but request and
response), then at the verifier's recomputation: one `Recomputed` holds, for every answer token, how far it was from
winning, and for every fingerprint chunk, how far the miner's hidden states were from the verifier's. Neither is enough
alone: the fingerprint is blind to how tokens were chosen, the margins need many tokens to see a model that is nearly
right. If there is no recomputation (`Unchecked`), the verdict is inconclusive; nothing passes because it could not be
checked.

`Pool` adds up the clipped margins of one hotkey over its last thousands of tokens, and `judge_pool` sees the small,
steady deviations (a speculation that accepts whatever nearly wins) that one answer hides.

Every threshold is in a `Calibration` (protocol/calibration.py), whose digest goes into each verdict.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import NamedTuple, TypeAlias

from protocol import fingerprint
from protocol.calibration import Calibration
from protocol.challenges import Challenge
from protocol.generation import DType, GenerateResponse
from protocol.sampling import CUT_MARGIN

MARGIN_CLIP = 0.3
"""Margins are clipped here before they are averaged. An honest flip at the edge of top-p can be worth 8; unclipped, a
few of those hide the many small margins of a lossy speculation (measured: 0.3 separates best of 0.1, 0.3, 1, 10)."""


class Outcome(str, Enum):
    ACCEPT = "accept"
    REJECT = "reject"
    INCONCLUSIVE = "inconclusive"

    def __str__(self) -> str:
        return self.value


class Reason(str, Enum):
    """Stable codes: stored, counted, shown. A code is never renamed or given a second meaning."""

    OK = "ok"
    # form: reject
    EMPTY = "empty"  # no token at all
    TOO_LONG = "too_long"  # more than max_tokens
    TOO_SHORT = "too_short"  # stopped before max_tokens without an end-of-sequence token
    VOCABULARY = "vocabulary"  # a token id the model does not have
    AFTER_EOS = "after_eos"  # tokens after an end-of-sequence token
    FINISH_REASON = "finish_reason"  # the finish reason contradicts the tokens
    STREAM_MISMATCH = "stream_mismatch"  # the streamed tokens are not the answer's
    PROOF_FORM = "proof_form"  # the proof is not the one that so many tokens have
    # tokens and proof: reject
    FAKE_EOS = "fake_eos"  # the end-of-sequence token did not win its position
    LOST_TOKENS = "lost_tokens"  # tokens were far from winning
    FINGERPRINT = "fingerprint"  # the hidden states are not this model's
    MEAN_MARGIN = "mean_margin"  # the answer as a whole is too far from the rule
    POOLED_MARGIN = "pooled_margin"  # the hotkey's answers together are too far from the rule
    # inconclusive
    NOT_RECOMPUTED = "not_recomputed"  # the verifier could not run
    WRONG_MODEL = "wrong_model"  # the verifier holds another model than the challenge names
    PROMPT_DIFFERS = "prompt_differs"  # the verifier's own tokenization of the messages differs from the challenge
    NO_CALIBRATION = "no_calibration"  # no thresholds for this model and dtype

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Recomputed:
    """What one prefill over prompt and answer says. `margins`, `winners` and `cut` are as long as the answer.

    `prompt_ids` is the verifier's own tokenization of the challenge's messages; `distances` has one figure for each
    fingerprint chunk (`fingerprint.distances`).
    """

    model_root: str
    dtype: DType
    prompt_ids: tuple[int, ...]
    margins: tuple[float, ...]
    winners: tuple[int, ...]
    cut: tuple[bool, ...]
    distances: tuple[float, ...]


@dataclass(frozen=True)
class Unchecked:
    """Why there is no recomputation: out of memory, no model, stopped."""

    detail: str


Recomputation: TypeAlias = "Recomputed | Unchecked"


@dataclass(frozen=True)
class Verdict:
    """`numbers` are finite floats; `calibration` is the digest of the thresholds used ("" when none were needed)."""

    outcome: Outcome
    reason: Reason
    detail: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    calibration: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Verdict:
        """Inverse of `to_json`. Raises ValueError, KeyError or TypeError on anything else."""
        plain = json.loads(text)
        return Verdict(**{**plain, "outcome": Outcome(plain["outcome"]), "reason": Reason(plain["reason"])})


class PooledAnswer(NamedTuple):
    """One accepted answer in a pool."""

    digest: str  # of its challenge
    tokens: int
    margin_sum: float  # of its clipped margins


@dataclass(frozen=True)
class Pool:
    """One hotkey's recent accepted answers, oldest first."""

    answers: tuple[PooledAnswer, ...] = ()
    span: int = 4096  # tokens kept

    @property
    def tokens(self) -> int:
        return sum(answer.tokens for answer in self.answers)

    @property
    def mean(self) -> float:
        return sum(answer.margin_sum for answer in self.answers) / self.tokens if self.tokens else 0.0

    def add(self, digest: str, recomputed: Recomputed) -> Pool:
        """The pool with one more answer and without the oldest ones beyond `span` tokens."""
        newest = PooledAnswer(digest, len(recomputed.margins), clipped_sum(recomputed.margins))
        answers = [*self.answers, newest]
        while len(answers) > 1 and sum(answer.tokens for answer in answers[1:]) >= self.span:
            answers.pop(0)
        return Pool(tuple(answers), self.span)


def clipped_sum(margins: Sequence[float]) -> float:
    return float(sum(min(margin, MARGIN_CLIP) for margin in margins))


def check_form(
    challenge: Challenge, response: GenerateResponse, streamed: Sequence[int] | None = None
) -> Verdict | None:
    """A reject if the answer cannot be right whatever the model says; None if its form is fine.

    `streamed`: all tokens received before the closing response, when the answer was streamed.
    """
    tokens, limit = response.token_ids, challenge.request.max_tokens
    eos_at = next((i for i, token in enumerate(tokens) if token in challenge.model.eos_ids), None)
    claims_eos = response.finish_reason == "eos"
    if not tokens:
        return _reject(Reason.EMPTY, "the answer has no token")
    if len(tokens) > limit:
        return _reject(Reason.TOO_LONG, f"{len(tokens)} tokens where {limit} were asked for")
    if max(tokens) >= challenge.model.vocab_size:
        return _reject(
            Reason.VOCABULARY, f"token {max(tokens)} is outside the vocabulary of {challenge.model.vocab_size}"
        )
    if eos_at is not None and eos_at != len(tokens) - 1:
        return _reject(Reason.AFTER_EOS, f"{len(tokens) - 1 - eos_at} tokens after the end-of-sequence token")
    if claims_eos != (eos_at is not None):
        return _reject(Reason.FINISH_REASON, f"finish reason {response.finish_reason!r} contradicts the last token")
    if not claims_eos and len(tokens) < limit:
        return _reject(Reason.TOO_SHORT, f"stopped after {len(tokens)} of {limit} tokens without end of sequence")
    if streamed is not None and tuple(streamed) != tokens:
        return _reject(Reason.STREAM_MISMATCH, "the streamed tokens differ from the final answer")
    try:
        fingerprint.decode(response.proof.fingerprint, len(tokens))
    except ValueError as error:
        return _reject(Reason.PROOF_FORM, str(error))
    return None


def judge(
    challenge: Challenge,
    response: GenerateResponse,
    recomputed: Recomputation,
    calibration: Calibration | None,
    streamed: Sequence[int] | None = None,
) -> Verdict:
    """The verdict on one answer. Raises nothing: whatever cannot be checked is inconclusive."""
    bad_form = check_form(challenge, response, streamed)
    if bad_form is not None:
        return bad_form
    if isinstance(recomputed, Unchecked):
        return _inconclusive(Reason.NOT_RECOMPUTED, recomputed.detail)
    if calibration is None or calibration.dtype != challenge.model.dtype:
        return _inconclusive(Reason.NO_CALIBRATION, f"no thresholds for dtype {challenge.model.dtype}")
    if calibration.root != challenge.model.root:
        return _inconclusive(Reason.NO_CALIBRATION, "the thresholds are for another model")
    request = challenge.request
    if (recomputed.model_root, recomputed.dtype) != (request.model_root, request.dtype):
        return _inconclusive(Reason.WRONG_MODEL, "the verifier holds another model or dtype than the challenge names")
    if recomputed.prompt_ids != request.prompt_ids:
        return _inconclusive(Reason.PROMPT_DIFFERS, "own tokenization of the messages differs from the prompt sent")
    if not _is_whole(recomputed, len(response.token_ids)):
        return _inconclusive(Reason.NOT_RECOMPUTED, "the recomputation does not cover the answer, or is no number")
    return _judge_recomputed(response, recomputed, calibration)


def _is_whole(recomputed: Recomputed, tokens: int) -> bool:
    lengths = {len(recomputed.margins), len(recomputed.winners), len(recomputed.cut)}
    sound = all(0.0 <= margin <= CUT_MARGIN for margin in recomputed.margins) and all(
        0.0 <= distance < float("inf") for distance in recomputed.distances
    )  # NaN fails both
    return lengths == {tokens} and len(recomputed.distances) == -(-tokens // fingerprint.CHUNK) and sound


def _judge_recomputed(response: GenerateResponse, recomputed: Recomputed, calibration: Calibration) -> Verdict:
    margins, count = recomputed.margins, len(recomputed.margins)
    lost = sum(margin > calibration.lost_margin for margin in margins)
    mean, farthest = clipped_sum(margins) / count, max(recomputed.distances)
    matched = sum(w == t for w, t in zip(recomputed.winners, response.token_ids, strict=True)) / count
    numbers = {
        "tokens": float(count),
        "match": matched,
        "mean_clipped": mean,
        "max": max(margins),
        "lost": float(lost),
        "cut": float(sum(recomputed.cut)),
        "last": margins[-1],
        "distance": farthest,
    }

    def rejected(reason: Reason, detail: str) -> Verdict:
        return Verdict(Outcome.REJECT, reason, detail, numbers, calibration.digest)

    if response.finish_reason == "eos" and margins[-1] > calibration.eos_margin:
        return rejected(Reason.FAKE_EOS, f"the end-of-sequence token lost its position by {margins[-1]:.3f}")
    if lost >= calibration.lost_tokens:
        return rejected(Reason.LOST_TOKENS, f"{lost} of {count} tokens lost by more than {calibration.lost_margin:g}")
    if farthest > calibration.distance:
        detail = f"hidden states are {farthest:.4f} away in the worst of {len(recomputed.distances)} chunks"
        return rejected(Reason.FINGERPRINT, f"{detail}, above {calibration.distance:g}")
    if count >= calibration.request_tokens and mean > calibration.request_mean:
        detail = f"mean clipped margin {mean:.5f} over {count} tokens, above {calibration.request_mean:g}"
        return rejected(Reason.MEAN_MARGIN, detail)
    return Verdict(
        Outcome.ACCEPT, Reason.OK, f"{count} tokens, {matched:.1%} win outright", numbers, calibration.digest
    )


def judge_pool(pool: Pool, calibration: Calibration) -> Verdict | None:
    """A reject when a hotkey's recent answers together are too far from the rule; else None."""
    if pool.tokens < calibration.pool_tokens or pool.mean <= calibration.pool_mean:
        return None
    detail = f"mean clipped margin {pool.mean:.5f} over {pool.tokens} tokens, above {calibration.pool_mean:g}"
    numbers = {"tokens": float(pool.tokens), "mean_clipped": pool.mean}
    return Verdict(Outcome.REJECT, Reason.POOLED_MARGIN, detail, numbers, calibration.digest)


def _reject(reason: Reason, detail: str) -> Verdict:
    return Verdict(Outcome.REJECT, reason, detail)


def _inconclusive(reason: Reason, detail: str) -> Verdict:
    return Verdict(Outcome.INCONCLUSIVE, reason, detail)
