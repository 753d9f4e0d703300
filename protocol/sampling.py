"""Seeded sampling that anyone can recompute: Gumbel-max with counter-based noise.

A miner owes exactly one text: temperature, top-k and top-p cut the candidates, and the winner is
`argmax(logit / T + g)`, where `g` is standard Gumbel noise. Drawing that way samples from the softmax (Gumbel-max), and
the noise of one (seed, position, token) is a pure function, so a verifier recomputes it for the few candidates only.

    noise_key(seed)                     128 bits of the seed, once per request
    gumbel(key, position, token_ids)    the noise, float64, for the ids asked for
    choose(...)                         the token a sampler takes              (engine)
    margin(...)                         how far a claimed token is from winning (verifier)

The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): counter
(token id, position, key word 2, key word 3), key (key word 0, key word 1). Its known-answer vectors and ours are in
`tests/spec/protocol/sampling.json`. All arithmetic after the logits is float64, so that machines whose `log` differs in
the last bit disagree by about 1e-15, far below the slack any calibration grants.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from protocol.synapse import Message

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]

PHILOX_M0 = np.uint64(0xD2511F53)  # multipliers and Weyl constants of Philox4x32, table 2 of the paper
PHILOX_M1 = np.uint64(0xCD9E8D57)
PHILOX_W0 = 0x9E3779B9
PHILOX_W1 = 0xBB67AE85
PHILOX_ROUNDS = 10
LOW = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)

CUT_MARGIN = 10.0
"""Margin given to a token that top-k or top-p excludes beyond all slack. Larger than any margin between two candidates
matters for: every rule clips at 0.3 or compares with 1."""


UNIT_TEMPERATURE = 0.5
"""Margins are taken in logit / temperature, but never of a colder one: dividing by less would only magnify what the
arithmetic of two machines differs by, which is a difference of logits."""

COLDEST = 0.01
"""Lowest temperature that is not greedy. Below it logit / temperature leaves what float64 can add noise to, and at the
smallest positive numbers it overflows."""


class Sampler(Message):
    """Sampler settings as they travel. temperature 0 is greedy (top_k and top_p are then ignored)."""

    temperature: float = Field(default=0.8, ge=0.0, le=2.0)
    top_k: int = Field(default=50, ge=0, le=1000)  # 0: the whole vocabulary
    top_p: float = Field(default=0.95, gt=0.0, le=1.0)

    @field_validator("temperature")
    @classmethod
    def _warm_or_greedy(cls, value: float) -> float:
        if 0.0 < value < COLDEST:
            raise ValueError(f"a temperature is 0 or at least {COLDEST:g}")
        return value

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0


@dataclass(frozen=True)
class NoiseKey:
    """Four 32-bit words of a request's seed: the Philox key (0, 1) and the upper counter words (2, 3)."""

    words: tuple[int, int, int, int]


class Slack(Message):
    """How unsure two honest machines may be about who passes the cut; part of a calibration.

    logit: units of a raw logit at the top-k boundary. mass: probability at the top-p boundary.
    """

    logit: float = Field(ge=0.0)
    mass: float = Field(ge=0.0)


def noise_key(seed: bytes) -> NoiseKey:
    """First 16 bytes of sha256("touchstone/gumbel/v1" || seed), as little-endian words."""
    digest = hashlib.sha256(b"touchstone/gumbel/v1" + seed).digest()
    words = [int.from_bytes(digest[4 * i : 4 * i + 4], "little") for i in range(4)]
    return NoiseKey((words[0], words[1], words[2], words[3]))


def philox4x32(counter: Sequence[Any], key: tuple[int, int]) -> list[npt.NDArray[np.uint64]]:
    """Ten rounds of Philox4x32. `counter`: four arrays or ints of 32-bit words. Returns four uint64 arrays < 2**32."""
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(word, dtype=np.uint64) for word in counter))
    k0, k1 = key
    for _ in range(PHILOX_ROUNDS):
        product0 = c0 * PHILOX_M0
        product1 = c2 * PHILOX_M1
        c0, c1, c2, c3 = (
            (product1 >> SHIFT) ^ c1 ^ np.uint64(k0),
            product1 & LOW,
            (product0 >> SHIFT) ^ c3 ^ np.uint64(k1),
            product0 & LOW,
        )
        k0 = (k0 + PHILOX_W0) & 0xFFFFFFFF
        k1 = (k1 + PHILOX_W1) & 0xFFFFFFFF
    return [c0, c1, c2, c3]


def uniform(key: NoiseKey, position: int, token_ids: npt.ArrayLike) -> FloatArray:
    """Uniform doubles in (0, 1), one per token id: the top 52 of 64 random bits, plus one half, over 2**52. Exact."""
    k0, k1, c2, c3 = key.words
    low, high, _, _ = philox4x32((np.asarray(token_ids, dtype=np.uint64), position, c2, c3), (k0, k1))
    bits = ((high << SHIFT) | low) >> np.uint64(12)
    return np.asarray((bits.astype(np.float64) + 0.5) * 2.0**-52)


def gumbel(key: NoiseKey, position: int, token_ids: npt.ArrayLike) -> FloatArray:
    """Standard Gumbel noise -log(-log(u)) for the tokens asked for. `position` counts answer tokens from 0."""
    return np.asarray(-np.log(-np.log(uniform(key, position, token_ids))))


def shortlist_size(sampler: Sampler, vocabulary: int) -> int:
    """How many of the largest logits hold every possible candidate, with room for the slack at the top-k boundary."""
    if sampler.greedy:
        return min(vocabulary, 16)
    return vocabulary if sampler.top_k == 0 else min(vocabulary, sampler.top_k + 16)


def rank(token_ids: npt.ArrayLike, logits: npt.ArrayLike) -> tuple[IntArray, FloatArray]:
    """Order by falling logit, ties by rising token id. Logits become float64; NaN is refused with ValueError."""
    ids = np.asarray(token_ids, dtype=np.int64)
    values = np.asarray(logits, dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError("a logit is NaN: the model's output cannot be sampled")
    order = np.lexsort((ids, -values))
    return ids[order], values[order]


def _mass_before(values: FloatArray, sampler: Sampler) -> FloatArray:
    """Probability mass ahead of each ranked candidate, among the first top_k, after temperature."""
    scaled = values / sampler.temperature
    weights = np.exp(scaled - scaled[0])
    if sampler.top_k:
        weights[sampler.top_k :] = 0.0
    mass = weights / weights.sum()
    return np.asarray(np.cumsum(mass) - mass)


def _mass_bounds(values: FloatArray, sampler: Sampler, slack: float) -> tuple[FloatArray, FloatArray]:
    """The least and the most mass that may lie ahead of each ranked candidate when logits are unsure by `slack`."""
    before = _mass_before(values, sampler)
    own = np.diff(before, append=1.0)
    ahead = np.concatenate([before, [1.0]])  # mass of the first n candidates
    surely = np.searchsorted(-values, -(values + slack), side="left")
    possibly = np.searchsorted(-values, -(values - slack), side="right")
    return ahead[surely], ahead[possibly] - own


def candidates(token_ids: npt.ArrayLike, logits: npt.ArrayLike, sampler: Sampler) -> tuple[IntArray, FloatArray]:
    """Candidates a sampler may take, ranked. `token_ids`/`logits`: at least the top_k largest logits of one position.

    top-k first, then the shortest prefix whose mass reaches top_p inside the kept set.
    """
    ids, values = rank(token_ids, logits)
    if sampler.top_k:
        ids, values = ids[: sampler.top_k], values[: sampler.top_k]
    if sampler.top_p < 1.0:
        kept = int(np.count_nonzero(_mass_before(values, sampler) < sampler.top_p))
        ids, values = ids[:kept], values[:kept]
    return ids, values


def choose(token_ids: npt.ArrayLike, logits: npt.ArrayLike, sampler: Sampler, key: NoiseKey, position: int) -> int:
    """The token this sampler owes at `position`. Arguments as in `candidates`; a tie goes to the lower token id."""
    if sampler.greedy:
        return int(rank(token_ids, logits)[0][0])
    ids, values = candidates(token_ids, logits, sampler)
    scores = values / sampler.temperature + gumbel(key, position, ids)
    return int(ids[scores == scores.max()].min())


@dataclass(frozen=True)
class Margin:
    """One position seen by the verifier: who wins, and by how much the claimed token loses (0 = it wins)."""

    margin: float  # >= 0, at most CUT_MARGIN; unit: logit / max(temperature, UNIT_TEMPERATURE); greedy: logit
    winner: int
    cut: bool  # the claimed token is excluded by top-k or top-p, beyond slack


def margin(
    token_ids: npt.ArrayLike,
    logits: npt.ArrayLike,
    token: int,
    sampler: Sampler,
    key: NoiseKey,
    position: int,
    slack: Slack,
) -> Margin:
    """Distance of `token` from winning at `position`.

    `token_ids`/`logits`: the `shortlist_size` largest logits; a token outside them is cut. The rivals are only those
    that surely pass the cut, and the token need only possibly pass it, whichever way logits within the slack are ranked
    and masses within it add up. So an honest flip at the top-k or top-p boundary (worth up to 8 otherwise) costs
    nothing, while a token far outside is worth CUT_MARGIN.
    """
    ids, values = rank(token_ids, logits)
    place = np.flatnonzero(ids == token)
    if sampler.greedy:
        lost = float(values[0] - values[place[0]]) if place.size else CUT_MARGIN
        return Margin(min(lost, CUT_MARGIN), int(ids[0]), not place.size)
    sure, possible = np.ones(len(ids), dtype=bool), np.ones(len(ids), dtype=bool)
    if sampler.top_k and sampler.top_k < len(ids):
        sure &= values > values[sampler.top_k] + slack.logit
        possible &= values >= values[sampler.top_k - 1] - slack.logit
    if sampler.top_p < 1.0:
        least, most = _mass_bounds(values, sampler, slack.logit)
        sure &= most < sampler.top_p - slack.mass
        possible &= least < sampler.top_p + slack.mass
    possible[0] = True
    scores = values / sampler.temperature + gumbel(key, position, ids)
    winner = choose(ids, values, sampler, key, position)
    if not place.size or not possible[place[0]]:
        return Margin(CUT_MARGIN, winner, True)
    lost = float(scores[sure].max() - scores[place[0]]) if sure.any() else 0.0
    return Margin(min(max(lost, 0.0) * min(1.0, sampler.temperature / UNIT_TEMPERATURE), CUT_MARGIN), winner, False)
