"""The pool: a weighted two-asset market between TAO and a subnet's alpha.

A `Pool` is two reserves and the weight of TAO (w_q; alpha has w_b = 1 - w_q), in units of 10^-18, one half by default.

    price        p = (w_b/w_q) * tao/alpha                                        TAO per alpha, U64F64
    buy d TAO    alpha out = alpha * (1 - (tao/(tao+d))^(w_q/w_b))
    sell d alpha TAO out   = tao   * (1 - (alpha/(alpha+d))^(w_b/w_q))
    inject       both reserves grow, the weight moves so that the price does not

With equal weights the exponent is 1 and this is the constant product market. The power is known to 18 decimal digits
(floored), as on chain; that is exact for equal weights up to one part in 10^18 of the reserve. The fee is taken from
the input first. A trade stops at its price limit and then pays the fee for what was executed only. Limits and bounds
are TAO per alpha times 10^9, as clients send them.

    swap = buy(pool, 1_000_000, fee_rate=33); pool = after_buy(pool, swap)

Every refusal is a `SwapError` that carries the chain's error name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import ROUND_FLOOR, Context, Decimal
from math import gcd

from localnet.rules.errors import SwapError
from localnet.rules.fixed import ONE64, U16_MAX, U64_MAX, U64F64, div64, mul64, sub_floor0, to_u64

ACCURACY = 10**18
HALF_WEIGHT = ACCURACY // 2
MIN_WEIGHT = ACCURACY // 100
"""Weights stay within [0.01, 0.99]; an injection that would leave that range is not made."""
MINIMUM_RESERVE = 1_000_000
"""Below this output reserve a pool does not trade."""
MAX_INPUT_MULTIPLE = 1_000
"""A trade may put in at most this many times the input reserve."""
MIN_PRICE = 1_000
"""Lowest price limit, 1e-6 TAO per alpha: the default for sells."""
MAX_PRICE = 10**15
"""Highest price limit, 1e6 TAO per alpha: the default for buys."""
PRICE_SCALE = 10**9
DEFAULT_FEE_RATE = 33
"""Of 65535: 0.05 %."""

_CONTEXT = Context(prec=120, Emax=10**9, Emin=-(10**9))


@dataclass(frozen=True)
class Pool:
    """Reserves in rao and alpha-rao; `quote_weight` is the weight of TAO in 10^-18."""

    tao: int
    alpha: int
    quote_weight: int = HALF_WEIGHT

    @property
    def base_weight(self) -> int:
        """Weight of alpha in 10^-18."""
        return ACCURACY - self.quote_weight


@dataclass(frozen=True)
class Swap:
    """What a trade did: `paid_in` reached the pool, `fee` (same asset) did not, `paid_out` left it."""

    paid_in: int
    paid_out: int
    fee: int


# --- the power function ---------------------------------------------------------------------------


def _root_floor(numerator: int, denominator: int, degree: int) -> int:
    """Largest r with r^degree * denominator <= numerator."""
    high = 1 << ((numerator // denominator).bit_length() // degree + 1)
    low = 0
    while low < high:
        middle = (low + high + 1) >> 1
        if middle**degree * denominator <= numerator:
            low = middle
        else:
            high = middle - 1
    return low


def pow_ratio(base_num: int, base_den: int, exp_num: int, exp_den: int, scale: int = ACCURACY) -> int:
    """floor(scale * (base_num/base_den)^(exp_num/exp_den)), exactly for small exponents, else from 120 digits.

    0 for a zero base or denominator. The floor is the true one unless scale times the power lies within 10^-100 of an
    integer it does not reach, which no ratio of 128-bit numbers with an irrational power does in practice.
    """
    if base_num == 0 or base_den == 0 or exp_den == 0:
        return 0
    if exp_num == 0 or base_num == base_den:
        return scale
    common = gcd(exp_num, exp_den)
    p, q = exp_num // common, exp_den // common
    if p <= 16 and q <= 4:
        return _root_floor(base_num**p * scale**q, base_den**p, q)
    ratio = _CONTEXT.divide(Decimal(base_num), Decimal(base_den))
    exponent = _CONTEXT.divide(Decimal(p), Decimal(q))
    power = _CONTEXT.exp(_CONTEXT.multiply(_CONTEXT.ln(ratio), exponent))
    return int(_CONTEXT.multiply(power, Decimal(scale)).to_integral_value(rounding=ROUND_FLOOR))


def _as_fixed(scaled: int) -> U64F64:
    """A number in 10^-18 as U64F64; what does not fit 64 bits counts as 2^64-1."""
    return div64(min(scaled, U64_MAX) << 64, ACCURACY << 64)


def shrink_ratio(reserve: int, delta: int, exp_num: int, exp_den: int) -> U64F64:
    """(reserve/(reserve+delta))^(exp_num/exp_den), at most 1 for delta >= 0; 0 when the new reserve is 0.

    A negative delta gives a ratio above 1 (what must be put in to take `-delta` out).
    """
    grown = min(reserve + delta, U64_MAX) if delta >= 0 else sub_floor0(reserve, -delta)
    if grown == 0:
        return 0
    scaled = pow_ratio(reserve, grown, exp_num, exp_den)
    if scaled > U64_MAX:
        return 0
    ratio = _as_fixed(scaled)
    return min(ratio, ONE64) if delta >= 0 else ratio


# --- quantities -----------------------------------------------------------------------------------


def price(pool: Pool) -> U64F64:
    """Spot price, TAO per alpha; 0 when there is no alpha."""
    if pool.alpha == 0:
        return 0
    weights = div64(pool.base_weight << 64, pool.quote_weight << 64)
    return mul64(weights, div64(pool.tao << 64, pool.alpha << 64))


def price_rao(pool: Pool) -> int:
    """Spot price as runtime APIs answer it: floor(price * 10^9)."""
    return to_u64(price(pool) * PRICE_SCALE, 64)


def limit_to_price(limit: int) -> U64F64:
    """A client's price limit (TAO per alpha times 10^9) as U64F64."""
    return div64(limit << 64, PRICE_SCALE << 64)


def fee_amount(amount: int, fee_rate: int) -> int:
    """Fee on a whole input: floor(amount * (rate/65535)), the rate cut to 64 fraction bits first."""
    return to_u64(amount * div64(fee_rate << 64, U16_MAX << 64), 64)


def fee_on_top(net: int, fee_rate: int) -> int:
    """Fee that belongs to a net input: floor(net * (rate/(65535-rate)))."""
    return to_u64(net * div64(fee_rate << 64, (U16_MAX - fee_rate) << 64), 64)


def alpha_for_tao(pool: Pool, tao: int) -> int:
    """Alpha that `tao` (fee already taken) buys."""
    ratio = shrink_ratio(pool.tao, tao, pool.quote_weight, pool.base_weight)
    return to_u64(pool.alpha * (ONE64 - ratio), 64)


def tao_for_alpha(pool: Pool, alpha: int) -> int:
    """TAO that `alpha` (fee already taken) sells for."""
    ratio = shrink_ratio(pool.alpha, alpha, pool.base_weight, pool.quote_weight)
    return to_u64(pool.tao * (ONE64 - ratio), 64)


def alpha_needed_for_tao(pool: Pool, tao: int) -> int:
    """Alpha that must be sold, without fee, to take `tao` out of the pool."""
    ratio = shrink_ratio(pool.tao, -tao, pool.quote_weight, pool.base_weight)
    return to_u64(pool.alpha * sub_floor0(ratio, ONE64), 64)


def input_to_price(reserve: int, price_from: U64F64, price_to: U64F64, weight: int) -> int:
    """Input that moves the price from one value to another: floor(reserve * ((to/from)^weight - 1)), 0 if not upwards.

    For a buy: the TAO reserve, (current, target), the alpha weight. For a sell: the alpha reserve, prices swapped
    (target, current), the TAO weight.
    """
    growth = _as_fixed(pow_ratio(price_to, price_from, weight, ACCURACY))
    return to_u64(reserve * sub_floor0(growth, ONE64), 64)


# --- trades ---------------------------------------------------------------------------------------


def _check(amount: int, fee_rate: int, reserve_in: int, reserve_out: int) -> None:
    if amount - fee_amount(amount, fee_rate) > reserve_in * MAX_INPUT_MULTIPLE:
        raise SwapError(
            "SwapInputTooLarge", f"{amount} is more than {MAX_INPUT_MULTIPLE} times the reserve {reserve_in}"
        )
    if reserve_out < MINIMUM_RESERVE:
        raise SwapError("ReservesTooLow", f"the pool holds {reserve_out}, it trades from {MINIMUM_RESERVE} on")


def _settle(net: int, out: int, fee: int, reserve_out: int) -> Swap:
    if net > 0 and out == 0:
        raise SwapError("ReservesTooLow", f"{net} in buys nothing")
    if out > reserve_out:
        raise SwapError("InsufficientLiquidity", f"{out} out of a reserve of {reserve_out}")
    return Swap(paid_in=net, paid_out=out, fee=fee)


def _trade(
    amount: int,
    fee_rate: int,
    convert: Callable[[int], int],
    reaches_limit: Callable[[int, int], bool],
    to_limit: Callable[[], int],
    reserve_out: int,
) -> Swap:
    fee = fee_amount(amount, fee_rate)
    net = amount - fee
    out = convert(net)
    if reaches_limit(net, out):
        net = to_limit()
        out, fee = convert(net), fee_on_top(net, fee_rate)
    return _settle(net, out, fee, reserve_out)


def buy(pool: Pool, tao: int, fee_rate: int = DEFAULT_FEE_RATE, limit: int = MAX_PRICE) -> Swap:
    """Spend up to `tao` (fee included) on alpha, stopping at `limit`. Root does not come here: it trades one to one.

    Raises SwapError: SwapInputTooLarge, ReservesTooLow, PriceLimitExceeded (already at the limit),
    InsufficientLiquidity.
    """
    _check(tao, fee_rate, pool.tao, pool.alpha)
    now, bound = price(pool), limit_to_price(limit)
    if now >= bound:
        raise SwapError("PriceLimitExceeded", f"the price is {now / ONE64:.9g}, the limit {bound / ONE64:.9g}")
    return _trade(
        tao,
        fee_rate,
        convert=lambda net: alpha_for_tao(pool, net),
        reaches_limit=lambda net, out: price(replace(pool, tao=pool.tao + net, alpha=pool.alpha - out)) > bound,
        to_limit=lambda: input_to_price(pool.tao, now, bound, pool.base_weight),
        reserve_out=pool.alpha,
    )


def sell(pool: Pool, alpha: int, fee_rate: int = DEFAULT_FEE_RATE, limit: int = MIN_PRICE) -> Swap:
    """Sell up to `alpha` (fee included) for TAO, stopping at `limit`. Raises SwapError as `buy` does."""
    _check(alpha, fee_rate, pool.alpha, pool.tao)
    now, bound = price(pool), limit_to_price(limit)
    if now <= bound:
        raise SwapError("PriceLimitExceeded", f"the price is {now / ONE64:.9g}, the limit {bound / ONE64:.9g}")
    return _trade(
        alpha,
        fee_rate,
        convert=lambda net: tao_for_alpha(pool, net),
        reaches_limit=lambda net, out: price(replace(pool, tao=pool.tao - out, alpha=pool.alpha + net)) < bound,
        to_limit=lambda: input_to_price(pool.alpha, bound, now, pool.quote_weight),
        reserve_out=pool.tao,
    )


def after_buy(pool: Pool, swap: Swap) -> Pool:
    """Reserves after a buy."""
    return replace(pool, tao=pool.tao + swap.paid_in, alpha=pool.alpha - swap.paid_out)


def after_sell(pool: Pool, swap: Swap) -> Pool:
    """Reserves after a sell."""
    return replace(pool, tao=pool.tao - swap.paid_out, alpha=pool.alpha + swap.paid_in)


def max_buy(pool: Pool, limit: int, fee_rate: int = DEFAULT_FEE_RATE) -> int:
    """Most TAO, fee included, that can be spent before the price reaches `limit`. Raises SwapError as `buy` does."""
    swap = buy(pool, pool.tao * MAX_INPUT_MULTIPLE, fee_rate, limit)
    return swap.paid_in + swap.fee


def max_sell(pool: Pool, limit: int, fee_rate: int = DEFAULT_FEE_RATE) -> int:
    """Most alpha, fee included, that can be sold before the price reaches `limit`. Raises SwapError as `sell` does."""
    swap = sell(pool, pool.alpha * MAX_INPUT_MULTIPLE, fee_rate, limit)
    return swap.paid_in + swap.fee


# --- emission injection ---------------------------------------------------------------------------


def mul_weight_rounded(weight: int, value: int) -> int:
    """value * weight/10^18, rounded to the nearest integer (half up), at most 2^128-1."""
    return min((value * weight + ACCURACY // 2) // ACCURACY, (1 << 128) - 1)


def _ratio_weight(part: int, whole: int) -> int:
    """part/whole in 10^-18, floored; both are first cut to 18 digits when the whole is larger than 10^18."""
    factor = max(-(-whole // ACCURACY), 1)
    return (part // factor) * ACCURACY // (whole // factor)


def inject(pool: Pool, tao: int, alpha: int) -> Pool | None:
    """The pool after both reserves grew at an unchanged price: the TAO weight becomes
    A(T+dT)w_q / (w_b T(A+dA) + w_q A(T+dT)). None when a weight would leave [0.01, 0.99]: then nothing is injected.
    """
    new_tao, new_alpha = min(pool.tao + tao, U64_MAX), min(pool.alpha + alpha, U64_MAX)
    base = mul_weight_rounded(pool.base_weight, pool.tao * new_alpha)
    quote = mul_weight_rounded(pool.quote_weight, pool.alpha * new_tao)
    weight = _ratio_weight(quote, base + quote) if base + quote else HALF_WEIGHT
    if not MIN_WEIGHT <= weight <= ACCURACY - MIN_WEIGHT:
        return None
    return Pool(tao=new_tao, alpha=new_alpha, quote_weight=weight)
