"""The end of a subnet: how the TAO of its pool is divided.

    whole_alpha      what all claims on the pool add up to: the holders' alpha and the chain's own
    payouts          the holders' parts, by the method of the largest remainder
    owner_refund     what an owner of the old kind gets back of the lock

Amounts are rao and alpha-rao. Everything is a pure function of its arguments.
"""

from __future__ import annotations

from collections.abc import Sequence

from localnet.rules.fixed import U16_MAX, U64F64, div32, mul32, sub_floor0


def whole_alpha(held: int, protocol: int, alpha_in: int, registered_at: int, cutover: int) -> int:
    """All alpha with a claim on the pool. The chain's own alpha counts but is not paid out: its part is recycled.

    `cutover`: subnets registered after this block count the pool's alpha reserve among the chain's own.
    """
    return held + protocol + (alpha_in if registered_at > cutover else 0)


def payouts(pot: int, holdings: Sequence[int], whole: int) -> list[int]:
    """Rao for each holding out of a pool of `pot` rao in which `whole` alpha has a claim.

    Parts are floored; the rao that the flooring kept from the holders go one each to the largest remainders, the
    earlier holding first among equals.
    """
    if not pot or not whole:
        return [0] * len(holdings)
    parts = [divmod(pot * alpha, whole) for alpha in holdings]
    paid = [part for part, _ in parts]
    left = sum(rest for _, rest in parts) // whole
    for index in sorted(range(len(parts)), key=lambda i: -parts[i][1])[:left]:
        paid[index] += 1
    return paid


def owner_refund(lock: int, emitted: int, owner_cut: int, price: U64F64) -> int:
    """The lock less what the owner's cut of the subnet's alpha is worth at the spot price; not below 0.

    `emitted`: the subnet's alpha, inside and outside the pool; `owner_cut`: of 65535.
    """
    alpha = mul32(emitted << 32, div32(owner_cut << 32, U16_MAX << 32)) >> 32
    value = mul32(alpha << 32, price >> 32) >> 32
    return sub_floor0(lock, value)


__all__ = ["owner_refund", "payouts", "whole_alpha"]
