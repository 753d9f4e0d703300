"""Fixed-point numbers as the chain computes with them.

A number is its bits: a plain Python int counting units of 2^-32 (I32F32, I96F32, U96F32) or 2^-64 (I64F64, U64F64). The
type aliases below say which; nothing checks them at run time. The rules of arithmetic:

    multiply   exact product, then floor to the fraction width
    divide     exact quotient, truncated towards zero; division by zero gives 0 ("safe" division)
    subtract   unsigned types stop at 0
    convert    a float goes to the nearest (ties to even), fixed to fixed and fixed to integer floor

Scalars live here; `localnet.rules.vectorised` has the same operations over numpy arrays for the epoch.
Overflow saturation is implemented where a rule can reach it (`to_u64`); sums of at most 21e15 rao cannot.
"""

from __future__ import annotations

from typing import TypeAlias

I32F32: TypeAlias = int
"""Signed, 32 fraction bits: the epoch's working type."""
I96F32: TypeAlias = int
"""Signed, 32 fraction bits, wide integer part: emissions, moving price."""
U96F32: TypeAlias = int
"""Unsigned, 32 fraction bits: coinbase and dividends."""
I64F64: TypeAlias = int
"""Signed, 64 fraction bits: stake weights."""
U64F64: TypeAlias = int
"""Unsigned, 64 fraction bits: prices and pool ratios."""

ONE32 = 1 << 32
ONE64 = 1 << 64
U16_MAX = 0xFFFF
U32_MAX = 0xFFFF_FFFF
U64_MAX = 0xFFFF_FFFF_FFFF_FFFF


def mul32(a: int, b: int) -> int:
    """Product of two numbers with 32 fraction bits, floored."""
    return (a * b) >> 32


def mul64(a: int, b: int) -> int:
    """Product of two numbers with 64 fraction bits, floored."""
    return (a * b) >> 64


def _truncated(numerator: int, denominator: int) -> int:
    quotient = abs(numerator) // abs(denominator)
    return quotient if (numerator < 0) == (denominator < 0) else -quotient


def div32(a: int, b: int) -> int:
    """Quotient of two numbers with 32 fraction bits, truncated; 0 when b is 0."""
    if a >= 0 and b > 0:
        return (a << 32) // b
    return 0 if b == 0 else _truncated(a << 32, b)


def div64(a: int, b: int) -> int:
    """Quotient of two numbers with 64 fraction bits, truncated; 0 when b is 0."""
    if a >= 0 and b > 0:
        return (a << 64) // b
    return 0 if b == 0 else _truncated(a << 64, b)


def sub_floor0(a: int, b: int) -> int:
    """a - b of an unsigned type: stops at 0."""
    return a - b if a > b else 0


def from_float32(x: float) -> int:
    """Nearest number with 32 fraction bits (ties to even)."""
    return round(x * ONE32)


def from_float64(x: float) -> int:
    """Nearest number with 64 fraction bits (ties to even); multiplying a float by a power of two is exact."""
    return round(x * ONE64)


def to_float32(bits: int) -> float:
    """For people and for comparisons within a tolerance."""
    return bits / ONE32


def to_float64(bits: int) -> float:
    """For people and for comparisons within a tolerance."""
    return bits / ONE64


def to_u64(bits: int, fraction_bits: int) -> int:
    """Integer part, floored, saturating at 0 and 2^64-1."""
    return min(max(bits >> fraction_bits, 0), U64_MAX)


def u16_proportion(value: int) -> I32F32:
    """value/65535: how a u16 share (kappa, bonds penalty, alpha low/high, takes) becomes a fraction."""
    return div32(value << 32, U16_MAX << 32)


def u64_proportion(value: int) -> U96F32:
    """value/(2^64-1) with 32 fraction bits: child proportions, TAO weight, child-key burn."""
    return div32(value << 32, U64_MAX << 32)


# e with 23 fraction bits widened to 32: the chain's exponential short-cuts exp(1) to this constant.
_E_I9F23_AS_32 = 22_802_600 << 9
_EXP_LIMIT = 20 << 32


def exp32(x: I32F32) -> I32F32:
    """e^x as the chain computes it: x clamped to +-20, then the power series up to the 31st term, every product and
    quotient cut to 32 fraction bits; a negative exponent is the reciprocal. Deviates from the true value (up to about
    2e-8 near 0, more for large x): that deviation is part of the rule.
    """
    x = max(-_EXP_LIMIT, min(_EXP_LIMIT, x))
    if x == 0:
        return ONE32
    if x == ONE32:
        return _E_I9F23_AS_32
    magnitude = abs(x)
    result = magnitude + ONE32
    term = magnitude
    for i in range(2, 32):
        term = mul32(term, magnitude) // i
        result += term
    return div32(ONE32, result) if x < 0 else result
