"""What one epoch should have paid: Yuma consensus in plain floats, for auditing the chain from outside.

This is a second writing of the rule, made from its description and not from the local chain's integer code, so that
the two can disagree. Floats in this order of operations stay within 2 units of the chain's 16-bit figures.

    shares = recompute(EpochInputs(...))       # incentive, dividends, combined: sequences by uid

Read `recompute` from top to bottom: who is heard, what they say, where they agree (a weighted median per miner, above
which weights are clipped), what miners earn from it, and what validators earn through bonds. One mechanism only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

U16 = 65535
Rows: TypeAlias = Mapping[int, Mapping[int, float]]


@dataclass(frozen=True)
class LiquidAlpha:
    """Bounds of the rate in [0, 1], and the steepness of the sigmoid in hundredths."""

    low: float
    high: float
    steepness: float


@dataclass(frozen=True)
class EpochInputs:
    """Chain state right before the epoch's block. Sequences are by uid; weights and bonds hold raw u16 values."""

    block: int
    tempo: int
    last_step: int  # block of the epoch before; 0 when there was none
    stake: Sequence[float]  # inherited stake weight in rao
    last_update: Sequence[int]
    registered_at: Sequence[int]
    permits: Sequence[bool]
    weights: Rows
    bonds: Rows
    kappa: float
    bonds_rate: float  # share of the newest bonds: 1 - BondsMovingAverage / 10^6
    bonds_penalty: float
    activity_cutoff: int  # blocks
    stake_threshold: int = 0
    owner_uid: int | None = None
    yuma3: bool = False
    liquid: LiquidAlpha | None = None


@dataclass(frozen=True)
class EpochShares:
    """Shares of 1 by uid. `combined` is what the emission is divided by, half incentive and half dividends."""

    incentive: Sequence[float]
    dividends: Sequence[float]
    combined: Sequence[float]
    consensus: Sequence[float] = field(default=())


def recompute(inputs: EpochInputs) -> EpochShares:
    """The epoch's result from its inputs."""
    uids = range(len(inputs.stake))
    permits = [inputs.permits[i] or i == inputs.owner_uid for i in uids]
    heard = [
        weight if math.floor(weight) >= inputs.stake_threshold or i == inputs.owner_uid else 0.0
        for i, weight in enumerate(inputs.stake)
    ]
    stake = _normal(heard)
    active = [inputs.last_update[i] + inputs.activity_cutoff >= inputs.block for i in uids]
    voice = _normal([stake[i] if active[i] and permits[i] else 0.0 for i in uids])
    weights = {i: _weights_row(inputs, i) for i in uids if permits[i]}
    speaking = [i for i in uids if voice[i] > 0]
    consensus = [_supported([(weights[i].get(j, 0.0), voice[i]) for i in speaking], inputs.kappa) for j in uids]
    clipped = {i: {j: min(w, consensus[j]) for j, w in row.items()} for i, row in weights.items()}
    incentive = _normal([sum(voice[i] * row.get(j, 0.0) for i, row in clipped.items()) for j in uids])
    bond_weights = {
        i: {j: w + inputs.bonds_penalty * (clipped[i][j] - w) for j, w in row.items()} for i, row in weights.items()
    }
    if inputs.yuma3:
        bonds = _bonds_yuma3(inputs, bond_weights, consensus)
        claims = _by_column(bonds, len(uids))
        dividends = _normal([voice[i] * sum(b * incentive[j] for j, b in claims.get(i, {}).items()) for i in uids])
    else:
        bonds = _bonds_yuma2(inputs, bond_weights, voice)
        dividends = _normal([sum(b * incentive[j] for j, b in bonds.get(i, {}).items()) for i in uids])
    total = [incentive[i] + dividends[i] for i in uids]
    combined = _normal(total) if sum(total) > 0 else (stake if sum(voice) == 0 else voice)
    return EpochShares(incentive, dividends, combined, consensus)


def _weights_row(inputs: EpochInputs, i: int) -> dict[int, float]:
    """Row i without its self-weight (the owner may keep it) and without weights older than the uid they name."""
    row = {
        j: w
        for j, w in inputs.weights.get(i, {}).items()
        if j < len(inputs.stake)
        and (j != i or i == inputs.owner_uid)
        and inputs.last_update[i] > inputs.registered_at[j]
    }
    total = sum(row.values())
    return {j: w / total for j, w in row.items()} if total > 0 else dict.fromkeys(row, 0.0)


def _supported(scores: Sequence[tuple[float, float]], kappa: float) -> float:
    """The largest score that holders of at least `kappa` of the stake give or exceed; scores are (score, stake)."""
    minority = sum(stake for _, stake in scores) - kappa
    below = 0.0
    for score, stake in sorted(scores):
        below += stake
        if below > minority:
            return score
    return 0.0


def _kept_bonds(inputs: EpochInputs) -> dict[int, dict[int, float]]:
    """Old bonds without those on uids that were registered after the epoch before."""
    since = inputs.last_step + 1 if inputs.last_step else inputs.block - inputs.tempo
    n = len(inputs.stake)
    return {
        i: {j: b for j, b in row.items() if j < n and since > inputs.registered_at[j]}
        for i, row in inputs.bonds.items()
        if i < n
    }


def _bonds_yuma2(inputs: EpochInputs, bond_weights: Rows, voice: Sequence[float]) -> dict[int, dict[int, float]]:
    n = len(inputs.stake)
    old = _by_column(_kept_bonds(inputs), n)
    new = _by_column({i: {j: w * voice[i] for j, w in row.items()} for i, row in bond_weights.items()}, n)
    rate = inputs.bonds_rate
    mixed = {
        i: {
            j: rate * new.get(i, {}).get(j, 0.0) + (1 - rate) * old.get(i, {}).get(j, 0.0)
            for j in {*new.get(i, {}), *old.get(i, {})}
        }
        for i in range(n)
    }
    return _by_column(mixed, n)


def _bonds_yuma3(inputs: EpochInputs, bond_weights: Rows, consensus: Sequence[float]) -> dict[int, dict[int, float]]:
    old = {i: {j: b / U16 for j, b in row.items()} for i, row in _kept_bonds(inputs).items()}
    if inputs.liquid is not None and any(consensus):
        liquid: dict[int, dict[int, float]] = {}
        for i, row in bond_weights.items():
            liquid[i] = {}
            for j, new in row.items():
                bond = old.get(i, {}).get(j, 0.0)
                rate = _liquid_rate(inputs.liquid, new, consensus[j], bond)
                liquid[i][j] = min(1.0, _mix(rate, new, bond))
        return liquid
    return {
        i: {
            j: _mix(inputs.bonds_rate, bond_weights.get(i, {}).get(j, 0.0), old.get(i, {}).get(j, 0.0))
            for j in {*bond_weights.get(i, {}), *old.get(i, {})}
        }
        for i in range(len(inputs.stake))
    }


def _mix(rate: float, new: float, old: float) -> float:
    return (1 - rate) * old + rate * new


def _liquid_rate(rule: LiquidAlpha, weight: float, consensus: float, bond: float) -> float:
    """The rate for one bond: high where weight and consensus, or bond and weight, lie far apart."""
    distance = weight - consensus if weight >= bond else bond - weight
    exponent = -(rule.steepness / 100) * (min(max(distance, 0.0), 1.0) - 0.5)
    sigmoid = 1 / (1 + math.exp(min(max(exponent, -20.0), 20.0)))
    return min(max(rule.low + sigmoid * (rule.high - rule.low), rule.low), rule.high)


def _normal(values: Sequence[float]) -> list[float]:
    total = sum(values)
    return [value / total for value in values] if total > 0 else [0.0] * len(values)


def _by_column(rows: Rows, n: int) -> dict[int, dict[int, float]]:
    """Rows with every column divided by its sum; columns that sum to 0 vanish."""
    totals = [0.0] * n
    for row in rows.values():
        for j, value in row.items():
            totals[j] += value
    return {i: {j: value / totals[j] for j, value in row.items() if totals[j] > 0} for i, row in rows.items()}
