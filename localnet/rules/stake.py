"""Stake weight: what a hotkey's stake counts for on a subnet, after children and parents.

A hotkey can hand proportions (u64, of 2^64-1) of its stake to child hotkeys, and receives proportions from parents:

    inherited  = own - sum(own * given) + sum(parent's own * received)       for alpha, and the same for root TAO
    weight     = inherited alpha + inherited TAO * TAO weight                what epochs and stake thresholds use

`self_contribution` and `split_dividend` undo it when a validator's dividend is paid out: the parents get the part their
stake earned, less the child's take. Amounts are u64; proportions become U96F32 by floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from localnet.rules.fixed import (
    I64F64,
    ONE32,
    U96F32,
    div32,
    mul32,
    mul64,
    sub_floor0,
    to_u64,
    u16_proportion,
    u64_proportion,
)

K = TypeVar("K")


def tao_weight(stored: int) -> U96F32:
    """The network's TAO weight, stored as a u64 of 2^64-1: what one root TAO counts against one alpha."""
    return u64_proportion(stored)


def inherited(own: int, given: Sequence[int], received: Sequence[tuple[int, int]]) -> int:
    """Stake after delegation to children and from parents, floored.

    `given`: proportions handed to children; `received`: (parent's own stake, proportion) for each parent.
    """
    to_children = sum(mul32(own << 32, u64_proportion(share)) for share in given)
    from_parents = sum(mul32(stake << 32, u64_proportion(share)) for stake, share in received)
    return to_u64(sub_floor0(own << 32, to_children) + from_parents, 32)


def stake_weight(alpha: int, root: int, weight: U96F32) -> I64F64:
    """Total weight of inherited alpha and inherited root TAO."""
    return (alpha << 64) + mul64(root << 64, weight << 32)


def contribution(alpha: int, root: int, proportion: U96F32, weight: U96F32) -> U96F32:
    """What a proportion of (alpha, root TAO) adds to a validator's weight."""
    return mul32(alpha << 32, proportion) + mul32(mul32(root << 32, proportion), weight)


def self_contribution(alpha: int, root: int, given: Sequence[int], weight: U96F32) -> int:
    """What a validator's own stake adds to its weight once the children's proportions are taken off, floored."""
    remaining = ONE32
    for share in given:
        remaining = sub_floor0(remaining, u64_proportion(share))
    return to_u64(contribution(alpha, root, remaining, weight), 32)


@dataclass(frozen=True)
class Parent(Generic[K]):
    """A parent of the validator: who, its own stakes, the proportion given (u64), whether its owner is the child's."""

    key: K
    alpha: int
    root: int
    proportion: int
    same_owner: bool


@dataclass(frozen=True)
class DividendSplit(Generic[K]):
    """A validator's dividend, divided. `parents` in the given order; `burned` is the child-key burn, to be recycled."""

    own: int
    parents: tuple[tuple[K, int], ...]
    burned: int


def split_dividend(
    dividend: int,
    own_contribution: int,
    parents: Sequence[Parent[K]],
    child_take: int,
    weight: U96F32,
    burn: U96F32 = 0,
) -> DividendSplit[K]:
    """Divide a validator's dividend between itself and its parents by what each contributes to its weight.

    From a parent of another owner the child keeps `child_take`/65535 of the parent's part, and `burn` of it is
    recycled. `own_contribution` from `self_contribution`. Everything floored, so the parts may add up to a little less.
    """
    take = u16_proportion(child_take)
    parts = [contribution(p.alpha, p.root, u64_proportion(p.proportion), weight) for p in parents]
    total = (own_contribution << 32) + sum(parts)
    remaining, takes, burned = dividend << 32, 0, 0
    paid: list[tuple[K, int]] = []
    for parent, part in zip(parents, parts, strict=True):
        amount = mul32(dividend << 32, div32(part, total))
        remaining = sub_floor0(remaining, amount)
        if not parent.same_owner:
            burn_part, take_part = mul32(burn, amount), mul32(take, amount)
            amount = sub_floor0(sub_floor0(amount, burn_part), take_part)
            takes += take_part
            burned += to_u64(burn_part, 32)
        paid.append((parent.key, to_u64(amount, 32)))
    return DividendSplit(own=to_u64(remaining + takes, 32), parents=tuple(paid), burned=burned)
