"""The steps of Yuma consensus, each a function: read them in the order `localnet.rules.epoch` calls them.

    normalised_stake, top_k     stake shares, and who gets a permit
    consensus_of_active         per uid the largest weight a kappa-majority of active stake supports
    clip, bond_weights          weights cut at consensus; weights that buy bonds
    bonds_yuma2, bonds_yuma3    bonds and dividends; `alpha_sigmoid` is the rate of liquid alpha

Every number is I32F32 bits in int64 (see `vectorised`), exact to the last unit. Matrices have a row per participant and
a column per uid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from localnet.rules import vectorised as v
from localnet.rules.fixed import I32F32, ONE32, U16_MAX, div32, div64, exp32, mul32, to_u64, u16_proportion
from localnet.rules.sparse import Matrix
from localnet.rules.vectorised import Ints


@dataclass(frozen=True)
class EpochHyper:
    """Hyperparameters an epoch reads; defaults are the chain's. u16 fields are fractions of 65535."""

    tempo: int = 360
    activity_cutoff: int = 5000
    kappa: int = 32_767
    max_validators: int = 128
    stake_threshold: int = 0
    bonds_moving_average: int = 900_000
    """Of 1 000 000: how much of the old bond stays."""
    bonds_penalty: int = 65_535
    yuma3: bool = False
    liquid_alpha: bool = False
    alpha_low: int = 45_875
    alpha_high: int = 58_982
    steepness: int = 1_000
    """Of the liquid alpha sigmoid, in hundredths; may be negative."""
    consensus_mode: str = "Current"
    """Which consensus liquid alpha measures by: "Current", "Previous", or "Auto" (the default of
    the chain's storage: "Previous" when the bonds penalty is the full 65535). "Current" was the only rule before."""


def top_k(values: Sequence[int], k: int) -> list[bool]:
    """True for the k largest; among equals the later positions win. All True when there are fewer than k."""
    n = len(values)
    chosen = [True] * n
    for position in sorted(range(n), key=lambda i: values[i])[: max(n - k, 0)]:
        chosen[position] = False
    return chosen


def normalised_stake(stake: Sequence[int], threshold: int, owner_uid: int | None) -> list[I32F32]:
    """Stake shares: below the threshold counts as 0 (except the owner), divided by the sum with 64 fraction bits, cut
    to 32. `stake` in I64F64 bits, `threshold` in whole units."""
    kept = [s if uid == owner_uid or to_u64(s, 64) >= threshold else 0 for uid, s in enumerate(stake)]
    total = sum(kept)
    return [(div64(s, total) if total else s) >> 32 for s in kept]


# --- consensus ------------------------------------------------------------------------------------


def weighted_median(stake: Ints, scores: Ints, majority: I32F32) -> Ints:
    """Per column, the first score (ascending) at which the stake of rows scoring at most that exceeds sum(stake) minus
    the majority; the largest score if there is none; 0 without rows. Shapes: stake (rows), scores (rows, columns).
    """
    if len(stake) == 0:
        return np.zeros(scores.shape[1], dtype=np.int64)
    minority = np.int64(int(stake.sum()) - majority)
    ranking = np.argsort(scores, axis=0, kind="stable")
    over = np.cumsum(stake[ranking], axis=0) > minority
    first = np.where(over.any(axis=0), over.argmax(axis=0), len(stake) - 1)
    columns = np.arange(scores.shape[1])
    median: Ints = scores[ranking[first, columns], columns]
    return median


def consensus_of_active(stake: Ints, scores: Ints, kappa: I32F32) -> Ints:
    """Weighted median of every column over the rows with stake, their stake renormalised."""
    heard = stake > 0
    return weighted_median(v.normalise(stake[heard]), scores[heard], kappa)


def clip(weights: Matrix, consensus: Ints) -> Matrix:
    """Weights cut at consensus; an entry above a consensus of 0 vanishes, an entry that is 0 stays."""
    clipped = Matrix(np.minimum(weights.values, consensus), weights.present, weights.order)
    return clipped.keep((weights.values <= consensus) | (consensus > 0))


def interpolate(a: Ints, b: Ints, ratio: I32F32) -> Ints:
    """a + ratio*(b - a), elementwise."""
    mixed: Ints = a + v.mul32(b - a, np.int64(ratio))
    return mixed


def bond_weights(weights: Matrix, clipped: Matrix, penalty: I32F32) -> Matrix:
    """Weights that buy bonds: between the raw (penalty 0) and the clipped ones (penalty 1)."""
    if penalty == 0:
        return weights
    if penalty == ONE32:
        return clipped
    mixed = interpolate(weights.values, clipped.values, penalty)
    present = mixed > 0
    return Matrix(np.where(present, mixed, 0), present)


# --- bonds ----------------------------------------------------------------------------------------


def ema_rate(bonds_moving_average: int) -> I32F32:
    """Weight of the new in the bond average: 1 - moving_average/1e6, the quotient taken with 64 fraction bits."""
    return ONE32 - (div64(bonds_moving_average << 64, 1_000_000 << 64) >> 32)


def alpha_sigmoid(consensus: I32F32, weight: I32F32, bond: I32F32, low: I32F32, high: I32F32, steepness: int) -> I32F32:
    """Liquid alpha of one entry: low + (high-low)/(1 + exp(-(steepness/100)*(d - 1/2))), clamped to [low, high].

    d is how far the weight exceeds consensus when buying (weight >= bond), how far the bond exceeds the weight when
    selling.
    """
    gap = weight - consensus if weight >= bond else bond - weight
    distance = min(max(gap, 0), ONE32)
    slope = div32(steepness << 32, -100 << 32)
    sigmoid = div32(ONE32, ONE32 + exp32(mul32(slope, distance - (ONE32 >> 1))))
    return max(min(low + mul32(sigmoid, high - low), high), low)


def liquid_consensus(current: Ints, previous: Sequence[int], hyper: EpochHyper) -> Ints:
    """The consensus liquid alpha measures weights by. `previous`: the last epoch's, u16 as stored; uids it does not
    reach have 0. Without one it is the current consensus in every mode."""
    before = hyper.consensus_mode == "Previous" or (hyper.consensus_mode == "Auto" and hyper.bonds_penalty == U16_MAX)
    if not before or not previous:
        return current
    stored = np.zeros_like(current)
    stored[: len(previous)] = previous[: len(current)]
    return v.div32(stored << np.int64(32), np.int64(U16_MAX << 32))


def _alpha_matrix(consensus: Ints, weights: Ints, bonds: Ints, hyper: EpochHyper) -> Ints:
    """`alpha_sigmoid` for every entry."""
    low, high = u16_proportion(hyper.alpha_low), u16_proportion(hyper.alpha_high)
    gap = np.where(weights >= bonds, weights - consensus, bonds - weights)
    distance, back = np.unique(np.clip(gap, 0, v.ONE), return_inverse=True)
    slope = np.int64(div32(hyper.steepness << 32, -100 << 32))
    exponential = v.exp32(v.mul32(distance - (v.ONE >> np.int64(1)), slope))
    sigmoid = v.div32(np.full_like(exponential, v.ONE), exponential + v.ONE)
    alpha = np.maximum(np.minimum(low + v.mul32(sigmoid, np.int64(high - low)), high), low)
    entries: Ints = alpha[back].reshape(gap.shape)
    return entries


def ema_elementwise(new: Ints, old: Ints, alpha: Ints) -> Ints:
    """min(1, (1-alpha)*old + alpha*new), each product floored."""
    capped: Ints = np.minimum(v.mul32(v.ONE - alpha, old) + np.maximum(v.mul32(alpha, new), 0), v.ONE)
    return capped


def _ema(new: Ints, old: Ints, hyper: EpochHyper) -> Ints:
    """Plain average with one rate for all entries. Root may set a moving average above 1e6, and the rate would be
    negative: bonds then stay as they are, where on the chain they grow until its numbers saturate.
    """
    rate = np.int64(max(ema_rate(hyper.bonds_moving_average), 0))
    averaged: Ints = v.mul32(new, rate) + v.mul32(old, v.ONE - rate)
    return averaged


def bonds_yuma2(
    bond_weights: Matrix, old: Matrix, stake: Ints, incentive: Ints, hyper: EpochHyper
) -> tuple[Ints, Matrix]:
    """Dividends per row and stored bonds: old and newly bought bonds column-normalised, averaged, normalised again; for
    storage each column is scaled to a largest entry of 1."""
    before = v.div32(old.values << np.int64(32), old.values.sum(axis=0) << np.int64(32))
    bought = v.normalise_columns(v.mul32(bond_weights.values, stake[:, None]))
    average = v.normalise_columns(_ema(bought, before, hyper))
    dividends = v.normalise(v.mul32(average, incentive).sum(axis=1))
    stored = v.div32(average, average.max(axis=0, initial=0))
    return dividends, Matrix(stored, average > 0)


def bonds_yuma3(
    bond_weights: Matrix,
    old: Matrix,
    stake: Ints,
    incentive: Ints,
    consensus: Ints,
    previous: Sequence[int],
    hyper: EpochHyper,
) -> tuple[Ints, Matrix]:
    """Dividends per row and stored bonds: bonds are fractions of 1 that follow the weights entry by entry. With liquid
    alpha only columns named in the weight row survive; without it all do. `previous`: see `liquid_consensus`."""
    before = v.div32(old.values << np.int64(32), np.int64(65535 << 32))
    fractions = Matrix(before, old.present, old.order)
    if hyper.liquid_alpha and consensus.any():
        reference = liquid_consensus(consensus, previous, hyper)
        alpha = _alpha_matrix(reference, bond_weights.seen_by_cursor(), fractions.seen_by_cursor(), hyper)
        after = ema_elementwise(bond_weights.values, before, alpha)
        bonds = Matrix(after, bond_weights.present, bond_weights.order).keep(after > 0)
    else:
        after = _ema(bond_weights.values, before, hyper)
        bonds = Matrix(after, after > 0)
    claims = v.mul32(v.normalise_columns(bonds.values), incentive).sum(axis=1)
    return v.normalise(v.mul32(claims, stake)), bonds
