"""Baskets: each root validator's fund, into which root's dividends go and which root stakers own.

A fund holds alpha of subnets and, in its root slot, TAO. Shares of it ("beta") are minted against its net asset value
(NAV), the TAO that selling everything would fetch now. A root staker's shares are a rate per rao of root stake less a
signed watermark, so a dividend is one addition for any number of stakers.

    shares_for_value, stakers_part, rate_increment     a deposit
    owed_shares, watermark_shift, payout, slice_taken  a staker's part of it
    price_limit, trade_budget, bucket_level, ...       what a validator may do when it rearranges the fund
    divisor_of, Marks, chained, ...                    prices made comparable between funds, for display only

Amounts are rao or alpha-rao (u64), rates I96F32, prices and levels U64F64. Sources: the public tree after spec 438.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from localnet.rules.fixed import (
    I96F32,
    ONE64,
    U16_MAX,
    U64_MAX,
    U64F64,
    div32,
    mul64,
    sub_floor0,
    to_u64,
)

DRAINED_DUST = 100
"""A fund worth nothing takes a deposit only if the shares still out are at most a hundredth of its value."""
MAX_CLAIM_WORK = 256
"""Hotkeys and holdings that one claim may walk over."""
MAX_CLAIM_THRESHOLD = 10_000_000
"""Highest settable least payout of a claim, rao."""
REFILL_BLOCKS = 7_200
"""Blocks in which an empty turnover bucket fills up: a day at 12 s."""
SLIPPAGE_BPS = 200
"""How far a trade may go from the strictest of three prices, in hundredths of a per cent."""
MIN_INDEX_NAV = 100_000_000
"""Funds worth less, rao, do not move the index."""
SWEEP_ROWS = 256
"""Funds and holdings that one block's page of the index visits, the fund in hand included to its end."""
REFRESH_BLOCKS = 600
"""Blocks from one index to the next pass."""
PRICING_PAGE = 256
"""Most funds of one page of prices. A public figure for the cap was not found; root has at most 64 seats."""

_BPS = 10_000
_PRICE_SCALE = 10**9
_U64F64_MAX = (1 << 128) - 1
_I128 = 1 << 127


def mul_div(a: int, b: int, denominator: int) -> int:
    """floor(a*b/denominator), at most 2^64-1; 0 when the denominator is 0."""
    return min(a * b // denominator, U64_MAX) if denominator else 0


# --- shares ---------------------------------------------------------------------------------------


def shares_for_value(value: int, nav: int, shares: int) -> int:
    """Shares to mint for `value` rao that joined a fund of `nav` with `shares` outstanding: value*shares/nav.

    The first deposit is at par. A fund worth nothing revives at par when the old shares are dust, else 0: no price.
    """
    if shares == 0:
        return value
    if nav == 0:
        return value if shares <= value // DRAINED_DUST else 0
    return mul_div(value, shares, nav)


def stakers_part(value: int, stakers_root: int, fund_root: int) -> int:
    """Of a dividend that all root stake of a validator earned, the part of those who are not the fund itself."""
    return mul_div(value, stakers_root, stakers_root + fund_root)


def rate_increment(shares: int, stakers_root: int) -> I96F32:
    """Shares per rao of root stake."""
    return div32(shares << 32, stakers_root << 32)


def owed_shares(rate: I96F32, root_stake: int, claimed: int) -> int:
    """Shares that a staker may redeem: rate*stake - claimed, floored, at least 0."""
    return to_u64(rate * root_stake - (claimed << 32), 32)


def watermark_shift(rate: I96F32, stake_change: int) -> int:
    """What a staker's watermark moves by when its root stake changes, so that the change neither earns nor costs."""
    return max(-_I128, min((rate * stake_change) >> 32, _I128 - 1))


def payout(shares: int, nav: int, outstanding: int) -> int:
    """What shares are worth: their part of `nav`, never more than all of it."""
    return min(mul_div(shares, nav, outstanding), nav)


def slice_taken(alpha: int, shares: int, outstanding: int, entitlement: int) -> int:
    """Alpha of one holding that a claim sells. One unit where a whole number would be none but rao are owed."""
    part = mul_div(alpha, shares, outstanding)
    return 1 if part == 0 and entitlement > 0 else part


def deployment(tao: int, values: Sequence[int]) -> list[int]:
    """Divide a deposit over a fund's holdings by value; the last one takes what rounding left."""
    total = sum(values)
    parts = [mul_div(tao, value, total) for value in values[:-1]]
    return [*parts, sub_floor0(tao, sum(parts))]


# --- trading --------------------------------------------------------------------------------------


def price_limit(spot: U64F64, slow: U64F64, fast: U64F64, *, buying: bool) -> int | None:
    """TAO per alpha times 10^9 that a leg of a trade must not pass; None when the spot price is past it already.

    2 % above the lowest of spot, slow and fast moving price for a purchase, 2 % below the highest for a sale. Without a
    moving price there is no trade.
    """
    if not slow or not fast:
        return None
    reference = min(slow, fast, spot) if buying else max(slow, fast, spot)
    bound = reference * (_BPS + SLIPPAGE_BPS if buying else _BPS - SLIPPAGE_BPS) // _BPS
    if spot > bound if buying else spot < bound:
        return None
    return to_u64(bound * _PRICE_SCALE, 64)


def guarded_value(realizable: int, alpha: int, slow: U64F64) -> int:
    """A holding's value that pumping its pool cannot raise: at most its alpha at the slow moving price."""
    return min(realizable, to_u64(slow * alpha, 64))


def trade_budget(nav: int, cap: int) -> int:
    """TAO that may pass through a fund's trades: its share (of 65535) of the guarded NAV."""
    return mul_div(nav, cap, U16_MAX)


def bucket_level(stored: tuple[int, int] | None, block: int, budget: int) -> int:
    """What is left of the budget: (level, block of that) and the refill since. A fund that never traded has it all."""
    if stored is None:
        return budget
    level, since = stored
    return min(level + mul_div(budget, sub_floor0(block, since), REFILL_BLOCKS), budget)


def within_cap(part: int, whole: int, cap: int) -> bool:
    """part/whole <= cap/65535."""
    return part * U16_MAX <= cap * whole


def concentration_binds(cap: int, subnets: int) -> bool:
    """A cap of 1/16 needs 16 destinations to be kept at all; with fewer subnets (root counts) it does not bind."""
    return subnets >= -(-U16_MAX // max(cap, 1))


# --- display prices and the index -----------------------------------------------------------------


def ratio(a: int, b: int, otherwise: U64F64) -> U64F64:
    """a/b of two numbers of the same format, or `otherwise` where that is undefined or too large."""
    quotient = (a << 64) // b if b else _U64F64_MAX + 1
    return quotient if quotient <= _U64F64_MAX else otherwise


def _times(a: U64F64, b: U64F64) -> U64F64:
    return min(mul64(a, b), _U64F64_MAX)


def raw_price(nav: int, shares: int) -> U64F64:
    """NAV per share; 0 without shares."""
    return ratio(nav, shares, 0)


@dataclass(frozen=True)
class Baseline:
    """Where a fund's display prices start, frozen at its first mint after an index was published."""

    price_divisor: U64F64
    rate: I96F32
    tr_splice: U64F64
    first_block: int


@dataclass(frozen=True)
class Marks:
    """One fund's prices. `provisional`: there is no baseline yet and the prices are the index levels themselves."""

    divisor: U64F64
    display: U64F64
    staker_yield: U64F64
    stake: U64F64
    first_block: int
    provisional: bool


def stamped(raw: U64F64, bag: U64F64, stake: U64F64, rate: I96F32, twr: U64F64, block: int) -> Baseline:
    """The baseline with which a fund of this raw price and total return starts exactly on the index levels."""
    return Baseline(ratio(raw, bag, raw) or 1, rate, ratio(stake, twr, stake), block)


def marks(raw: U64F64, rate: I96F32, twr: U64F64, baseline: Baseline) -> Marks:
    """Prices against a baseline: the bag price is raw/divisor, the stake price the spliced total return."""
    divisor = baseline.price_divisor or ONE64
    gained = _times(max(rate - baseline.rate, 0) << 32, raw)
    return Marks(
        divisor, ratio(raw, divisor, raw), gained, _times(baseline.tr_splice, twr), baseline.first_block, False
    )


def provisional_marks(raw: U64F64, bag: U64F64, stake: U64F64) -> Marks:
    """Prices of a fund without a baseline: on the index, nothing gained."""
    divisor = ratio(raw, bag, ONE64) or ONE64
    return Marks(divisor, ratio(raw, divisor, raw), 0, stake, 0, True)


def display_amount(shares: int, divisor: U64F64) -> U64F64:
    """Shares in display units."""
    return min(shares * divisor, _U64F64_MAX)


def compounded(twr: U64F64, value: int, stakers_root: int) -> U64F64:
    """Total return of root stake after a dividend of `value` rao on `stakers_root` rao."""
    return _times(twr, min(ONE64 + ratio(value, stakers_root, 0), _U64F64_MAX))


@dataclass(frozen=True)
class Sample:
    """A fund as one pass of the index saw it: NAV and both prices."""

    nav: int
    display: U64F64
    stake: U64F64


@dataclass(frozen=True)
class Sweep:
    """A pass so far: NAV of the funds that count, and the sums of their price relatives weighted by it."""

    weight: int = 0
    bag: U64F64 = 0
    stake: U64F64 = 0


def chained(sweep: Sweep, before: Sample, now: Sample) -> Sweep:
    """Add a fund's change since the last pass, weighted by its NAV then. Funds that were or are dust do not count."""
    if before.nav < MIN_INDEX_NAV or now.nav < MIN_INDEX_NAV or not before.display or not before.stake:
        return sweep
    weight = before.nav << 64
    bag, stake = ratio(now.display, before.display, -1), ratio(now.stake, before.stake, -1)
    if bag < 0 or stake < 0:
        return sweep
    return Sweep(
        sweep.weight + before.nav,
        min(sweep.bag + _times(weight, bag), _U64F64_MAX),
        min(sweep.stake + _times(weight, stake), _U64F64_MAX),
    )


def next_levels(levels: tuple[U64F64, U64F64], sweep: Sweep) -> tuple[U64F64, U64F64]:
    """(bag, stake) index after a pass: the levels before, times the average relatives; unchanged without any."""
    if not sweep.weight:
        return levels
    weight = min(sweep.weight, U64_MAX) << 64
    moved = [
        _times(level, ratio(total, weight, ONE64))
        for level, total in zip(levels, (sweep.bag, sweep.stake), strict=True)
    ]
    return moved[0] or levels[0], moved[1] or levels[1]
