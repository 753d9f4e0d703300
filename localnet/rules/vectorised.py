"""The fixed-point operations of `localnet.rules.fixed` over numpy arrays: exact to the bit, fast enough for an epoch.

A number with 32 fraction bits is its bits in an int64. A product needs up to 128 bits, so `mul32` splits both factors
at the binary point: hi*hi, two cross terms, and the low product in uint64, of which only the upper half survives.
`div32` is long division: as many fraction bits at a time as the largest divisor leaves room for.

Ranges: `mul32` is exact while the true result fits 63 bits; `div32` takes non-negative dividends and positive divisors
(0 gives 0) and is exact while the quotient fits 63 bits. The epoch stays far inside both.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

ONE = np.int64(1 << 32)
_LOW = np.int64(0xFFFF_FFFF)
_SHIFT = np.int64(32)


def mul32(a: Ints, b: Ints | np.int64) -> Ints:
    """Elementwise product, floored to 32 fraction bits; any signs, any broadcastable shapes."""
    a_hi, a_lo = a >> _SHIFT, a & _LOW
    b_hi, b_lo = b >> _SHIFT, b & _LOW
    low = (a_lo.astype(np.uint64) * b_lo.astype(np.uint64)) >> np.uint64(32)
    result: Ints = ((a_hi * b_hi) << _SHIFT) + a_hi * b_lo + a_lo * b_hi + low.astype(np.int64)
    return result


def div32(a: Ints, b: Ints | np.int64) -> Ints:
    """Elementwise quotient of non-negative numbers, truncated to 32 fraction bits; 0 where the divisor is 0."""
    divisor = np.maximum(np.asarray(b, dtype=np.int64), 1).astype(np.uint64)
    largest = int(divisor.max(initial=1))
    room = 64 - largest.bit_length()
    dividend = a.astype(np.uint64)
    quotient = dividend // divisor
    remainder = dividend - quotient * divisor
    left = 32
    while left:
        step = min(room, left)
        remainder = remainder << np.uint64(step)
        digits = remainder // divisor
        remainder = remainder - digits * divisor
        quotient = (quotient << np.uint64(step)) + digits
        left -= step
    result: Ints = np.where(np.asarray(b) == 0, 0, quotient).astype(np.int64)
    return result


def normalise(values: Ints) -> Ints:
    """A vector divided by its sum; unchanged when the sum is 0."""
    total = np.int64(values.sum())
    return values if total == 0 else div32(values, total)


def normalise_columns(matrix: Ints) -> Ints:
    """Each column divided by its sum; columns that sum to 0 unchanged (they are all 0)."""
    return div32(matrix, matrix.sum(axis=0))


def to_u16(values: Ints) -> Ints:
    """floor(x*65535) clipped to 0..65535."""
    scaled: Ints = np.clip((values * np.int64(65535)) >> _SHIFT, 0, 65535)
    return scaled


_EXP_LIMIT = np.int64(20 << 32)
_E_SHORTCUT = np.int64(22_802_600 << 9)
_CHUNK = 8_192
"""Elements per pass of the series: its intermediates then stay in the processor's cache."""


def _exp_series(magnitude: Ints) -> Ints:
    """The power series up to the 31st term, every product and quotient cut to 32 fraction bits."""
    term = magnitude
    result: Ints = magnitude + ONE
    for i in range(2, 32):
        term = mul32(term, magnitude) // np.int64(i)
        result = result + term
    return result


def exp32(x: Ints) -> Ints:
    """`localnet.rules.fixed.exp32` elementwise, for a vector: exponent clamped to +-20, power series, reciprocal for
    negative exponents."""
    clamped = np.clip(x, -_EXP_LIMIT, _EXP_LIMIT)
    magnitude = np.abs(clamped)
    result = np.empty_like(magnitude)
    for start in range(0, len(magnitude), _CHUNK):
        result[start : start + _CHUNK] = _exp_series(magnitude[start : start + _CHUNK])
    result = np.where(clamped < 0, div32(np.full_like(result, ONE), result), result)
    exact: Ints = np.where(clamped == 0, ONE, np.where(clamped == ONE, _E_SHORTCUT, result))
    return exact
