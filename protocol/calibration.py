"""Thresholds of the judge, and the honest sample they were drawn from.

    HonestSample      what honest machines did: quantiles, sample sizes, software; written by `touchstone calibrate`
    derive(...)       from a sample and a stated false-positive target to a Calibration; the whole rule
    Calibration       every threshold the judge uses, with its sample; one for each (model root, dtype)

The rule: a limit is HEADROOM times the largest value that any honest answer of the sample reached, and never below the
floor of the dtype. So no answer of the sample is rejected. How much that says of other answers depends on how many of
the limits were fitted to the sample: `false_positive_bound` gives the rate of rejects that the true one is below with
95 % confidence, about 3 / N for N answers when all limits are floors or one is fitted, 7.8 / N when all four are. A
sample too small to say that of the target is refused. It says nothing of answers much longer than the sample's.
`Calibration.digest` goes into every verdict: whoever rechecks one knows which thresholds it stands on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from pydantic import Field

from protocol.errors import ProtocolError
from protocol.generation import DType, Hex32, canonical_json
from protocol.sampling import Slack
from protocol.synapse import Message

HEADROOM = 1.25  # times the honest maximum; what a larger sample, or another honest machine, may add
CONFIDENCE = 0.95
REQUEST_TOKENS = 16  # shorter answers have no mean worth judging
POOL_TOKENS = 512  # the shortest pool that is judged; see `verdicts.Pool`


class SampleTooSmall(ProtocolError):
    """The honest sample cannot support the false-positive target."""


class Floor(Message):
    """Below this a limit would judge the arithmetic of the machine, not the miner."""

    margin: float  # of one token
    mean: float  # of one answer's clipped margins
    pool: float  # of a pool's clipped margins
    distance: float  # of one fingerprint chunk
    slack: Slack


FLOORS: Mapping[str, Floor] = {
    # Logits of two float32 machines differ by about 1e-4 (sums in another order), so a token can lose honestly by that
    # much, once in 1e4 tokens, and hidden states by some 1e-6. A hundredfold of both lies below what the mildest cheat
    # shows.
    "float32": Floor(margin=0.01, mean=5e-4, pool=2e-5, distance=1e-4, slack=Slack(logit=0.005, mass=0.001)),
    # bfloat16 rounds each of many layers to 8 bits: logits differ by some hundredths, hidden states by two percent.
    "bfloat16": Floor(margin=0.5, mean=0.02, pool=0.01, distance=0.04, slack=Slack(logit=0.25, mass=0.02)),
    "float16": Floor(margin=0.1, mean=4e-3, pool=2e-3, distance=6e-3, slack=Slack(logit=0.05, mass=0.005)),
}


class Spread(Message):
    """How one honest figure was distributed."""

    count: int = Field(ge=0)
    mean: float
    p50: float
    p99: float
    p999: float
    maximum: float

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Spread:
        """Raises ValueError for a value that is not finite."""
        found = np.asarray(values, dtype=np.float64)
        if not np.isfinite(found).all():
            raise ValueError("an honest figure is not finite")
        if not found.size:
            return cls(count=0, mean=0.0, p50=0.0, p99=0.0, p999=0.0, maximum=0.0)
        p50, p99, p999 = (float(q) for q in np.quantile(found, (0.5, 0.99, 0.999)))
        return cls(
            count=int(found.size), mean=float(found.mean()), p50=p50, p99=p99, p999=p999, maximum=float(found.max())
        )


class HonestSample(Message):
    """Honest answers as the verifier saw them. `variants`: answers of each way of generating and of verifying."""

    answers: int = Field(ge=0)
    tokens: int = Field(ge=0)
    match: float = Field(ge=0.0, le=1.0)  # share of tokens that win outright
    margin: Spread  # of each token
    eos_margin: Spread  # of each closing end-of-sequence token
    request_mean: Spread  # of the clipped margins of each answer with at least REQUEST_TOKENS tokens
    pool_mean: Spread  # of pools of POOL_TOKENS tokens, drawn from the sample with replacement
    distance: Spread  # of each fingerprint chunk
    variants: dict[str, int]
    versions: dict[str, str]
    machine: str = Field(max_length=200)


class Calibration(Message):
    """Thresholds for one model root and dtype."""

    root: Hex32
    dtype: DType
    slack: Slack
    eos_margin: float = Field(ge=0.0)  # an end-of-sequence token may lose by this much
    lost_margin: float = Field(ge=0.0)  # a token that loses by more than this is lost ...
    lost_tokens: int = Field(default=1, ge=1)  # ... and so many of them reject an answer
    request_mean: float = Field(ge=0.0)  # mean clipped margin of one answer, above which it is rejected ...
    request_tokens: int = Field(default=REQUEST_TOKENS, ge=1)  # ... if it has at least this many tokens
    pool_mean: float = Field(ge=0.0)  # the same for a pool ...
    pool_tokens: int = Field(default=POOL_TOKENS, ge=1)  # ... of at least this many tokens
    distance: float = Field(ge=0.0)  # of a fingerprint chunk, above which the answer is rejected
    target: float = Field(gt=0.0, lt=1.0)  # false-positive rate of one answer that the sample supports
    sample: HonestSample

    @property
    def digest(self) -> str:
        return hashlib.sha256(b"touchstone/calibration/v1" + canonical_json(self)).hexdigest()

    @property
    def false_positives(self) -> float:
        """What the sample says: the reject rate of honest answers is below this, with CONFIDENCE."""
        floor = FLOORS[self.dtype]
        limits = (
            (self.eos_margin, floor.margin),
            (self.lost_margin, floor.margin),
            (self.request_mean, floor.mean),
            (self.distance, floor.distance),
        )
        return false_positive_bound(self.sample.answers, sum(limit > least for limit, least in limits))


def false_positive_bound(answers: int, fitted: int = 0) -> float:
    """Upper bound of the reject rate after `answers` honest answers without a reject, with CONFIDENCE.

    `fitted`: limits drawn from the same answers. Each is held by one of them, and the chance that answers held by k
    others say so little is the binomial tail below k: the scenario approach, Campi and Garatti, SIAM J. Optim. 2008.
    """
    held = max(1, fitted)
    if answers < held:
        return 1.0

    def doubt(rate: float) -> float:
        return sum(math.comb(answers, i) * rate**i * (1.0 - rate) ** (answers - i) for i in range(held))

    low, high = 0.0, 1.0
    for _ in range(60):  # halvings: the last bit of a double
        middle = (low + high) / 2.0
        low, high = (middle, high) if doubt(middle) > 1.0 - CONFIDENCE else (low, middle)
    return high


def answers_needed(target: float) -> int:
    """Honest answers without a reject that support a false-positive rate of `target`, with at most one limit fitted."""
    return math.ceil(math.log(1.0 - CONFIDENCE) / math.log(1.0 - target))


def derive(root: str, dtype: DType, sample: HonestSample, target: float) -> Calibration:
    """The thresholds for a model from its honest sample. Raises SampleTooSmall."""
    floor = FLOORS[dtype]

    def limit(spread: Spread, least: float) -> float:
        return max(least, HEADROOM * spread.maximum)

    found = Calibration(
        root=root,
        dtype=dtype,
        slack=floor.slack,
        eos_margin=limit(sample.eos_margin, floor.margin),
        lost_margin=limit(sample.margin, floor.margin),
        request_mean=limit(sample.request_mean, floor.mean),
        pool_mean=limit(sample.pool_mean, floor.pool),
        distance=limit(sample.distance, floor.distance),
        target=target,
        sample=sample,
    )
    if found.false_positives > target:
        needed = math.ceil(sample.answers * found.false_positives / target)
        raise SampleTooSmall(
            f"{sample.answers} honest answers support a false-positive rate of {found.false_positives:.2g}, not "
            f"{target:g}: take {needed}, or state a larger target"
        )
    return found
