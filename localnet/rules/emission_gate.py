"""The emission gate: subnets whose demand is far below the bar get almost none of the block's TAO.

Demand is a subnet's part of all moving prices, less what its owner's own miners would have got
(`coinbase.demand_shares`). Three steps, the first two only now and then:

    is_bar_due      every 360 blocks, and whenever there is no bar
    bar             the demand at rank N (mode "rank"), or where the largest demands together reach a quantile q
    gated           share * 1/(1 + (bar/share)^h), scaled to add up to one: a half passes at the bar, most of what lies
                    above, little of what lies below

Every number is U64F64. The power is the chain's: logarithm and exponential with 32 fraction bits, cut after every step,
and 2^31-1 wherever the series of the exponential leaves that format. It does so for large negative exponents too, so a
share more than exp(20.9/h) times the bar (about 1,050 times for h = 3) is shut out instead of let through. With 32
subnets of similar size that does not happen; a chain of two, one of them just started, shows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TypeVar

from localnet.rules.fixed import I32F32, ONE32, ONE64, U64F64, div32, div64, mul32, mul64

K = TypeVar("K")

BAR_INTERVAL = 360
"""Blocks between two bars: one tempo of the main network, so that the bar stands still between epochs."""

_MAX32 = (1 << 63) - 1  # largest I32F32
_MAX_WHOLE32 = ((1 << 31) - 1) << 32  # largest whole number in I32F32
_TWO32 = 2 << 32
_LOG2_E = 12_102_203 << 9  # log2(e) with 23 fraction bits, widened to 32
_E = 22_802_600 << 9  # e, likewise


def is_bar_due(bar: U64F64, block: int) -> bool:
    """A new bar is computed when there is none (settings that move it drop it) and in every 360th block."""
    return bar == 0 or block % BAR_INTERVAL == 0


def bar(shares: Iterable[U64F64], rank: int, quantile: U64F64) -> U64F64:
    """The demand at the bar. With a rank: the rank-th largest positive share, or the smallest when there are fewer.

    With rank 0: the share at which the largest ones together reach `quantile`. 0 when nothing is positive: the chain
    then keeps the bar it has.
    """
    largest_first = sorted(shares, reverse=True)
    if rank:
        positive = [share for share in largest_first if share > 0]
        return positive[min(rank, len(positive)) - 1] if positive else 0
    total = crossing = 0
    for crossing in largest_first:
        total += crossing
        if total >= quantile:
            break
    return crossing


def gated(shares: Mapping[K, U64F64], bar: U64F64, exponent: U64F64) -> dict[K, U64F64]:
    """Shares after the gate, in sum one; unchanged without a bar, and when the gate would leave nothing of any."""
    if bar == 0:
        return dict(shares)
    passed = {key: mul64(share, _gate(share, bar, exponent)) if share else 0 for key, share in shares.items()}
    total = sum(passed.values())
    return {key: div64(share, total) for key, share in passed.items()} if total else dict(shares)


@lru_cache(maxsize=1024)  # moving prices at their cap stand still, and with them the shares
def _gate(share: U64F64, bar: U64F64, exponent: U64F64) -> U64F64:
    ratio = div64(bar, share)
    if ratio >> 128:  # more than 64 bits of whole number: a failed division counts as 0
        ratio = 0
    return div64(ONE64, ONE64 + power(ratio, exponent))


def power(base: U64F64, exponent: U64F64) -> U64F64:
    """base^exponent as e^(exponent * ln base): 0 when the base is too small for a logarithm, at most 2^31-1."""
    logarithm = _ln(min(base >> 32, _MAX32))
    if logarithm is None:
        return 0
    product = mul32(min(exponent >> 32, _MAX32), logarithm)
    result = _exp(max(-_MAX32 - 1, min(product, _MAX32)))
    return (_MAX_WHOLE32 if result is None else result) << 32


def _ln(x: I32F32) -> I32F32 | None:
    """Natural logarithm; None for numbers without one (0, and those whose reciprocal does not fit)."""
    if x <= 0:
        return None
    if x >= ONE32:
        return div32(_log2(x), _LOG2_E)
    inverse = div32(ONE32, x)
    return None if inverse > _MAX32 else div32(-_log2(inverse), _LOG2_E)


def _log2(x: I32F32) -> I32F32:
    """Base-2 logarithm of a number from 1 on, one bit of the fraction after the other."""
    bits = 0
    while x >= _TWO32:
        bits += 1
        x = (x >> 1) + (x & 1)
    if x == ONE32:
        return bits << 32
    for _ in range(32):
        x = (x * x) >> 32
        bits <<= 1
        if x >= _TWO32:
            bits |= 1
            x = (x >> 1) + (x & 1)
    return bits


def _exp(x: I32F32) -> I32F32 | None:
    """e^x by its power series up to the 31st term; None when a term or the sum does not fit."""
    if x == 0:
        return ONE32
    if x == ONE32:
        return _E
    magnitude = abs(x)
    result, term = magnitude + ONE32, magnitude
    for i in range(2, 32):
        product = (term * magnitude) >> 32
        if product > _MAX32:
            return None
        term = product // i
        if not term:
            break
        result += term
        if result > _MAX32:
            return None
    return div32(ONE32, result) if x < 0 else result
