"""The pool and share pools: nobody gains by rounding, limits hold, injection leaves the price alone."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from localnet.rules import shares, swap
from localnet.rules.errors import RuleError, SwapError
from localnet.rules.fixed import ONE64, U64_MAX
from localnet.rules.shares import SafeFloat, Shares
from localnet.rules.swap import ACCURACY, Pool

RESERVE = st.integers(10**9, 10**16)
WEIGHT = st.one_of(st.just(ACCURACY // 2), st.integers(ACCURACY // 4, 3 * ACCURACY // 4))
POOLS = st.builds(Pool, RESERVE, RESERVE, WEIGHT)


def product(pool: Pool) -> int:
    return pool.tao * pool.alpha


@settings(max_examples=300)
@given(RESERVE, RESERVE, st.integers(1, 10**15))
def test_equal_weights_pay_the_constant_product_amount(tao: int, alpha: int, amount: int) -> None:
    """The ratio is known to 10^-18, so the amount is the exact one, or one more when that lies within alpha*10^-18."""
    pool = Pool(tao, alpha)
    exact = Fraction(alpha * amount, tao + amount)
    out = swap.alpha_for_tao(pool, amount)
    assert exact - 1 < out <= exact + Fraction(alpha, ACCURACY) + Fraction(alpha, ONE64)


@settings(max_examples=300)
@given(RESERVE, RESERVE, st.integers(10_000, 10**15), st.booleans())
def test_a_trade_with_fee_never_shrinks_the_product(tao: int, alpha: int, amount: int, is_buy: bool) -> None:
    """The fee leaves the pool, so the product is the pure curve's: it may fall by the ratio's last digit, no more."""
    pool = Pool(tao, alpha)
    try:
        after = (
            swap.after_buy(pool, swap.buy(pool, amount)) if is_buy else swap.after_sell(pool, swap.sell(pool, amount))
        )
    except SwapError:
        assume(False)
    slack = Fraction(2, ACCURACY) * (alpha * (tao + amount) if is_buy else tao * (alpha + amount))
    assert product(after) >= product(pool) - slack


@settings(max_examples=200)
@given(POOLS, st.integers(10**4, 10**14))
def test_buying_and_selling_back_never_profits(pool: Pool, amount: int) -> None:
    try:
        bought = swap.buy(pool, amount)
        sold = swap.sell(swap.after_buy(pool, bought), bought.paid_out)
    except SwapError:
        assume(False)
    assert sold.paid_out <= amount + pool.tao // 10**17 + 1


@settings(max_examples=200)
@given(POOLS, st.integers(10**4, 10**15), st.integers(101, 300))
def test_a_buy_stops_at_its_limit(pool: Pool, amount: int, percent: int) -> None:
    limit = swap.price_rao(pool) * percent // 100
    assume(swap.MIN_PRICE < limit < swap.MAX_PRICE)
    assume(swap.limit_to_price(limit) > swap.price(pool))
    try:
        bought = swap.buy(pool, amount, limit=limit)
    except SwapError as error:
        assert error.name in ("SwapInputTooLarge", "ReservesTooLow")
        return
    price = swap.price(swap.after_buy(pool, bought))
    assert price <= swap.limit_to_price(limit) * (1 + 1e-6)
    if bought.paid_in + bought.fee < amount - 1:
        assert price >= swap.limit_to_price(limit) * (1 - 1e-6)
    assert bought.paid_in + bought.fee <= amount


@settings(max_examples=200)
@given(POOLS, st.integers(10**4, 10**15), st.integers(30, 99))
def test_a_sale_stops_at_its_limit(pool: Pool, amount: int, percent: int) -> None:
    limit = swap.price_rao(pool) * percent // 100
    assume(limit > swap.MIN_PRICE and swap.limit_to_price(limit) < swap.price(pool))
    try:
        sold = swap.sell(pool, amount, limit=limit)
    except SwapError as error:
        assert error.name in ("SwapInputTooLarge", "ReservesTooLow")
        return
    assert swap.price(swap.after_sell(pool, sold)) >= swap.limit_to_price(limit) * (1 - 1e-6)


def test_the_most_a_limit_allows_is_what_a_large_order_spends() -> None:
    pool = Pool(10**12, 10**12)
    most = swap.max_buy(pool, 1_100_000_000)
    partial = swap.buy(pool, 10 * most, limit=1_100_000_000)
    assert partial.paid_in + partial.fee == most
    assert 0.048 < most / 10**12 < 0.050  # sqrt(1.1) - 1 of the reserve, and the fee
    assert swap.buy(pool, most, limit=1_100_000_000).paid_in == pytest.approx(partial.paid_in, abs=2)
    assert 0.05 < swap.max_sell(pool, 900_000_000) / 10**12 < 0.06


@pytest.mark.parametrize(
    ("name", "trade"),
    [
        ("SwapInputTooLarge", lambda: swap.buy(Pool(10**9, 10**9), 2 * 10**12)),
        ("SwapInputTooLarge", lambda: swap.sell(Pool(10**9, 10**9), 2 * 10**12)),
        ("ReservesTooLow", lambda: swap.buy(Pool(10**9, 999_999), 10)),
        ("ReservesTooLow", lambda: swap.sell(Pool(999_999, 10**9), 10)),
        ("ReservesTooLow", lambda: swap.sell(Pool(10**6, 10**11), 1)),
        ("PriceLimitExceeded", lambda: swap.buy(Pool(10**9, 10**9), 10, limit=10**9)),
        ("PriceLimitExceeded", lambda: swap.sell(Pool(10**9, 10**9), 10, limit=10**9)),
    ],
)
def test_refusals_carry_the_chain_s_names(name: str, trade: object) -> None:
    with pytest.raises(SwapError) as caught:
        trade()  # type: ignore[operator]
    assert caught.value.name == name


@settings(max_examples=300)
@given(POOLS, st.integers(0, 10**12), st.integers(0, 10**12))
def test_injection_keeps_the_price(pool: Pool, tao: int, alpha: int) -> None:
    after = swap.inject(pool, tao, alpha)
    if after is not None:
        assert (after.tao, after.alpha) == (pool.tao + tao, pool.alpha + alpha)
        assert abs(Fraction(swap.price(after), max(swap.price(pool), 1)) - 1) < Fraction(1, 10**8)


def test_injection_that_would_tip_the_weights_is_not_made() -> None:
    assert swap.inject(Pool(10**9, 10**9), 10**12, 0) is None
    assert swap.inject(Pool(10**9, 10**9), 0, 10**12) is None
    assert swap.inject(Pool(0, 0), 5, 5) == Pool(5, 5)


@settings(max_examples=200)
@given(st.integers(1, 2**64), st.integers(1, 2**64), st.integers(1, 16), st.sampled_from([1, 2, 3, 4]))
def test_small_exponents_are_floored_exactly(a: int, b: int, p: int, q: int) -> None:
    root = swap.pow_ratio(a, b, p, q)
    assert root**q * b**p <= a**p * ACCURACY**q < (root + 1) ** q * b**p


def test_large_exponents_agree_with_exact_ones() -> None:
    """The same power once as 3/2 and once as a fraction too long for the integer path."""
    exact = swap.pow_ratio(7 * 10**15, 9 * 10**15, 3, 2)
    close = swap.pow_ratio(7 * 10**15, 9 * 10**15, 3 * 10**30 + 1, 2 * 10**30)
    assert abs(exact - close) <= 1


# --- shares ---------------------------------------------------------------------------------------

AMOUNTS = st.integers(1, 10**15)


@st.composite
def scripts(draw: st.DrawFn) -> list[tuple[str, int]]:
    return draw(st.lists(st.tuples(st.sampled_from(["ann", "bob", "cem", "all", "out"]), AMOUNTS), max_size=25))


@settings(max_examples=300)
@given(scripts())
def test_share_pools_conserve_value(script: list[tuple[str, int]]) -> None:
    """What holders can claim is what the pool holds, up to one unit each for flooring."""
    value, denominator, held = 0, shares.ZERO, dict.fromkeys(("ann", "bob", "cem"), shares.ZERO)
    for who, amount in script:
        if who == "all":
            value = shares.update_all(value, amount) if not denominator.is_zero else value
            continue
        who, change = (
            ("ann", -min(amount, Shares(value, denominator, held["ann"]).holding)) if who == "out" else (who, amount)
        )
        if change == 0 or not shares.update_is_visible(value, denominator, change):
            continue
        before = {other: Shares(value, denominator, held[other]).holding for other in held if other != who}
        pool = shares.update_one(Shares(value, denominator, held[who]), change)
        if pool.denominator.is_zero:
            value, denominator, held = 0, shares.ZERO, dict.fromkeys(held, shares.ZERO)
            continue
        value, denominator, held[who] = pool.value, pool.denominator, pool.share
        for other, had in before.items():
            assert abs(Shares(value, denominator, held[other]).holding - had) <= 2 + had // 10**15
    total = sum(Shares(value, denominator, share).holding for share in held.values())
    assert total <= value + 3
    if not denominator.is_zero:
        assert total >= value - 3 - value // 10**14


@given(st.integers(1, 10**40), st.integers(-40, 40))
def test_normal_form(mantissa: int, exponent: int) -> None:
    number = SafeFloat.normal(mantissa, exponent)
    assert 10**20 < number.mantissa <= 10**21
    lost = Fraction(mantissa) * Fraction(10) ** exponent - Fraction(number.mantissa) * Fraction(10) ** number.exponent
    assert 0 <= lost < Fraction(10) ** number.exponent


@given(st.integers(0, U64_MAX), st.integers(0, U64_MAX))
def test_sums_and_differences(a: int, b: int) -> None:
    high, low = SafeFloat.normal(max(a, b)), SafeFloat.normal(min(a, b))
    assert high.add(low).to_u64() == min(a + b, U64_MAX)
    assert high.sub(low).to_u64() == abs(a - b)


def test_edges_of_share_arithmetic() -> None:
    one = SafeFloat.normal(1)
    assert one.mul_div(one, shares.ZERO) == shares.ZERO and one.div(shares.ZERO) == shares.ZERO
    assert one.sub(SafeFloat.normal(2)) == shares.ZERO
    assert SafeFloat.normal(1, 30).to_u64() == U64_MAX
    assert shares.from_u64f64(5 * ONE64 // 2) == SafeFloat.normal(25, -1)
    assert not shares.update_is_visible(0, one, 5)
    with pytest.raises(RuleError):
        shares.ZERO.sub(one)
    with pytest.raises(RuleError):
        SafeFloat.normal(1, -(2**63))
