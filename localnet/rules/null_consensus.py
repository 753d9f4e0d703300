"""Null consensus: one validator decides alone (a late addition to the chain, off unless the subnet has it switched on).

The permitted uid with the most stake wins; its row of weights divides the miners' half, stake divides the validators'.
Whole numbers are divided by largest remainder, so nothing is lost. Bonds are not touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import add

from localnet.rules import yuma
from localnet.rules.epoch import EpochInput, EpochResult
from localnet.rules.fixed import U16_MAX
from localnet.rules.sparse import Row, pairs


def share_out(budget: int, weights: Sequence[int]) -> list[int]:
    """Divide a whole number by weights without losing any: floors first, then one each to the largest remainders (ties:
    lowest position). Nothing is given out when all weights are 0."""
    total = sum(weights)
    if total == 0:
        return [0] * len(weights)
    parts = [budget * weight // total for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(budget * weights[i] % total), i))
    for position in by_remainder[: budget - sum(parts)]:
        parts[position] += 1
    return parts


def winner(stake: Sequence[int], permits: Sequence[bool]) -> int | None:
    """The permitted uid with the most raw stake, among equals the lowest; None when nobody is permitted."""
    candidates = [uid for uid, permit in enumerate(permits) if permit]
    return max(candidates, key=lambda uid: (stake[uid], -uid), default=None)


def verdict(n: int, row: Row) -> list[int]:
    """What the winner's row, raw u16 values, says of each uid; without anything all uids are equal."""
    said = dict(pairs(row))
    weights = [said.get(uid, 0) for uid in range(n)]
    return weights if any(weights) else [1] * n


def null_epoch(
    stake: Sequence[int], permits: Sequence[bool], weights: Mapping[int, Row], budget: int
) -> tuple[list[int], list[int]]:
    """(miner amounts, validator amounts) per uid when one validator decides alone.

    The winner's row divides the miners' half (leave stale rows out of `weights`). Validators get floor(budget/2) by
    stake, active or not; without any stake everything goes to miners.
    """
    alone = winner(stake, permits)
    said = verdict(len(stake), () if alone is None else weights.get(alone, ()))
    for_validators = budget // 2 if any(stake) else 0
    return share_out(budget - for_validators, said), share_out(for_validators, stake)


def run_epoch(inputs: EpochInput) -> EpochResult:
    """One mechanism's epoch in which the winner decides alone.

    Weights on uids registered since the winner's last update do not count. Consensus and incentive are what the winner
    says, dividends follow stake, and only the winner is trusted, wholly. New permits are found as in `epoch.run_epoch`.
    """
    hyper, n = inputs.hyper, inputs.n
    permits = _with_owner(inputs.permits, inputs.owner_uid)
    alone = winner(inputs.stake, permits)
    row: Row = () if alone is None else _fresh(inputs, alone)
    said = _u16s(verdict(n, row))
    miners, validators = null_epoch(inputs.stake, permits, {} if alone is None else {alone: row}, inputs.emission)
    shares = yuma.normalised_stake(inputs.stake, hyper.stake_threshold, inputs.owner_uid)
    top = [chosen and share > 0 for chosen, share in zip(yuma.top_k(shares, hyper.max_validators), shares, strict=True)]
    return EpochResult(
        active=tuple(updated + hyper.activity_cutoff >= inputs.block for updated in inputs.last_update),
        permits=tuple(_with_owner(top, inputs.owner_uid)),
        stake_weight=_u16s(shares),
        consensus=said,
        incentive=said,
        dividends=_u16s(inputs.stake),
        validator_trust=tuple(U16_MAX if uid == alone and row else 0 for uid in range(n)),
        server_emission=tuple(miners),
        validator_emission=tuple(validators),
        emission=tuple(map(add, miners, validators)),
        bonds={},
    )


def _with_owner(permits: Sequence[bool], owner_uid: int | None) -> list[bool]:
    return [permit or uid == owner_uid for uid, permit in enumerate(permits)]


def _fresh(inputs: EpochInput, uid: int) -> Row:
    updated = inputs.last_update[uid]
    return [(to, weight) for to, weight in pairs(inputs.weights.get(uid, ())) if updated > inputs.registered_at[to]]


def _u16s(values: Sequence[int]) -> tuple[int, ...]:
    """Parts of the sum, of 65535."""
    total = sum(values)
    return tuple(value * U16_MAX // total if total else 0 for value in values)
