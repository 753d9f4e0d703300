"""Null consensus: one validator decides alone (a later addition to the chain, off unless the subnet asks for it).

The permitted uid with the most stake wins; its row of weights divides the miners' half, stake divides the validators'.
Whole numbers are divided by largest remainder, so nothing is lost. Bonds are not touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def null_epoch(
    stake: Sequence[int], permits: Sequence[bool], weights: Mapping[int, Row], budget: int
) -> tuple[list[int], list[int]]:
    """(miner amounts, validator amounts) per uid when one validator decides alone.

    The permitted uid with the most raw stake (ties: lowest uid) wins; its row of raw u16 values divides the miners'
    half (leave stale rows out of `weights`; without a row all uids share equally). Validators get floor(budget/2) by
    stake, active or not; without any stake everything goes to miners.
    """
    n = len(stake)
    candidates = [uid for uid in range(n) if permits[uid]]
    winner = max(candidates, key=lambda uid: (stake[uid], -uid), default=None)
    row = dict(pairs(weights.get(winner, ()))) if winner is not None else {}
    row_weights = [row.get(uid, 0) for uid in range(n)]
    if not any(row_weights):
        row_weights = [1] * n
    for_validators = budget // 2 if any(stake) else 0
    return share_out(budget - for_validators, row_weights), share_out(for_validators, stake)
