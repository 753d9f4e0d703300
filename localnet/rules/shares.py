"""Share pools: how the alpha of one hotkey on one subnet is divided among its nominators.

The pool's value is a u64; holders have shares of it. A dividend to everybody only raises the value; a deposit or
withdrawal by one holder changes the value and that holder's shares so that nobody else's part moves.

    holder's part        = floor(value * share / denominator)
    deposit/withdraw x   : shares change by x * denominator / value (the first deposit: by x)

Shares and denominator are `SafeFloat`: mantissa * 10^exponent with 10^20 < mantissa <= 10^21, or zero. Pure: every
function returns new values.
"""

from __future__ import annotations

from dataclasses import dataclass

from localnet.rules.errors import RuleError
from localnet.rules.fixed import U64_MAX

MANTISSA_MAX = 10**21
MANTISSA_MIN = 10**20
MANTISSA_DIGITS = 21
_I64_MAX = (1 << 63) - 1


def _power_of_ten(exponent: int) -> int:
    """10^exponent, held at 10^22: beyond that any mantissa divided by it is 0, any product is over the u64 range."""
    power: int = 10 ** min(exponent, MANTISSA_DIGITS + 1)
    return power


@dataclass(frozen=True)
class SafeFloat:
    """mantissa * 10^exponent. Build with `normal` (any integers) or pass stored, already normal values."""

    mantissa: int = 0
    exponent: int = 0

    @staticmethod
    def normal(mantissa: int, exponent: int = 0) -> SafeFloat:
        """Normal form: too large mantissas lose their last digits (floor), small ones gain zeros.

        Raises RuleError when the exponent leaves the i64 range.
        """
        if mantissa == 0:
            return ZERO
        while mantissa > MANTISSA_MAX:
            mantissa, exponent = mantissa // 10, exponent + 1
        while mantissa <= MANTISSA_MIN:
            mantissa, exponent = mantissa * 10, exponent - 1
        if not -_I64_MAX - 1 <= exponent <= _I64_MAX:
            raise RuleError(f"exponent {exponent} does not fit 64 bits")
        return SafeFloat(mantissa, exponent)

    @property
    def is_zero(self) -> bool:
        """True for the number 0."""
        return self.mantissa == 0

    def _aligned(self, other: SafeFloat) -> tuple[int, int, int]:
        """Both mantissas at the larger exponent; the smaller number loses digits."""
        gap = self.exponent - other.exponent
        if gap >= 0:
            return self.mantissa, other.mantissa // _power_of_ten(gap), self.exponent
        return self.mantissa // _power_of_ten(-gap), other.mantissa, other.exponent

    def add(self, other: SafeFloat) -> SafeFloat:
        """Sum."""
        if self.is_zero or other.is_zero:
            return other if self.is_zero else self
        mine, theirs, exponent = self._aligned(other)
        return SafeFloat.normal(mine + theirs, exponent)

    def sub(self, other: SafeFloat) -> SafeFloat:
        """Difference, 0 when the other is larger. Raises RuleError for zero minus something."""
        if other.is_zero:
            return self
        if self.is_zero:
            raise RuleError("cannot take shares from zero shares")
        mine, theirs, exponent = self._aligned(other)
        return SafeFloat.normal(max(mine - theirs, 0), exponent)

    def mul_div(self, factor: SafeFloat, divisor: SafeFloat) -> SafeFloat:
        """self * factor / divisor, the mantissa floored; 0 when the divisor is 0."""
        if divisor.is_zero:
            return ZERO
        mantissa = self.mantissa * factor.mantissa // divisor.mantissa
        return SafeFloat.normal(mantissa, self.exponent + factor.exponent - divisor.exponent)

    def div(self, divisor: SafeFloat) -> SafeFloat:
        """Quotient with 21 digits; 0 when the divisor is 0."""
        if divisor.is_zero:
            return ZERO
        mantissa = self.mantissa * MANTISSA_MAX // divisor.mantissa
        return SafeFloat.normal(mantissa, self.exponent - divisor.exponent - MANTISSA_DIGITS)

    def to_u64(self) -> int:
        """Integer part, saturating at 2^64-1."""
        if self.exponent >= 0:
            return min(self.mantissa * _power_of_ten(self.exponent), U64_MAX)
        return min(self.mantissa // _power_of_ten(-self.exponent), U64_MAX)


ZERO = SafeFloat(0, 0)


def from_u64f64(bits: int) -> SafeFloat:
    """A legacy share, stored as U64F64, as a SafeFloat."""
    whole = SafeFloat.normal(bits >> 64)
    return whole.add(SafeFloat.normal(bits & ((1 << 64) - 1)).div(SafeFloat.normal(1 << 64)))


def holding(value: int, share: SafeFloat, denominator: SafeFloat) -> int:
    """A holder's part of the pool's value, floored; 0 when there are no shares."""
    return SafeFloat.normal(value).mul_div(share, denominator).to_u64()


def share_change(value: int, denominator: SafeFloat, amount: int) -> SafeFloat:
    """Shares that belong to `amount` (unsigned) of a pool that exists; 0 when the pool's value is 0."""
    return SafeFloat.normal(amount).mul_div(denominator, SafeFloat.normal(value))


def update_is_visible(value: int, denominator: SafeFloat, change: int) -> bool:
    """False when the change is too small to move a single share: then nothing would be credited."""
    return denominator.is_zero or not share_change(value, denominator, abs(change)).is_zero


@dataclass(frozen=True)
class Shares:
    """One holder's view of a pool: the pool's value and denominator, and the holder's share."""

    value: int
    denominator: SafeFloat
    share: SafeFloat

    @property
    def holding(self) -> int:
        """The holder's part, floored."""
        return holding(self.value, self.share, self.denominator)


def update_one(pool: Shares, change: int) -> Shares:
    """The pool after one holder put `change` in (negative: took it out). Other parts change by rounding only."""
    value = update_all(pool.value, change)
    if pool.denominator.is_zero:
        first = SafeFloat.normal(abs(change))
        return Shares(value, first, first)
    delta = share_change(pool.value, pool.denominator, abs(change))
    if change > 0:
        return Shares(value, pool.denominator.add(delta), pool.share.add(delta))
    share = pool.share if pool.share.is_zero else pool.share.sub(delta)
    return Shares(value, pool.denominator.sub(delta), share)


def update_all(value: int, change: int) -> int:
    """The pool's value after a dividend (or loss) shared by all holders; stays within u64."""
    return min(max(value + change, 0), U64_MAX)
