"""Baskets: shares, redemptions, trading limits, comparable prices; public Rust tests' figures where it says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localnet.rules import baskets as rules
from localnet.rules.fixed import ONE32, ONE64, U16_MAX

AMOUNT = st.integers(0, 21 * 10**15)
POSITIVE = st.integers(1, 10**15)


# -- shares ---------------------------------------------------------------------------------------------------------


def test_first_shares_are_at_par_and_later_ones_at_nav() -> None:
    assert rules.shares_for_value(700, 0, 0) == 700
    assert rules.shares_for_value(500, 2_000, 1_000) == 250
    assert rules.shares_for_value(500, 0, 5) == 500  # drained, and the old shares are dust
    assert rules.shares_for_value(500, 0, 6) == 0


@given(POSITIVE, POSITIVE, POSITIVE)
def test_a_deposit_never_takes_from_those_who_were_there(value: int, nav: int, shares: int) -> None:
    minted = rules.shares_for_value(value, nav, shares)
    assert rules.payout(shares, nav + value, shares + minted) >= nav - 1
    assert rules.payout(minted, nav + value, shares + minted) <= value


@given(POSITIVE, POSITIVE, st.integers(0, 10**12))
def test_owed_shares_do_not_exceed_what_was_minted(shares: int, mine: int, others: int) -> None:
    rate = rules.rate_increment(shares, mine + others)
    owed = rules.owed_shares(rate, mine, 0) + rules.owed_shares(rate, others, 0)
    assert owed <= shares
    assert owed >= shares - 2 - ((mine + others) >> 31)


@given(st.integers(0, 1 << 60), AMOUNT, AMOUNT, st.integers(-(10**15), 10**15))
def test_a_change_of_stake_neither_earns_nor_costs(rate: int, stake: int, change: int, claimed: int) -> None:
    before = rate * stake - (claimed << 32)
    after = rate * (stake + change) - ((claimed + rules.watermark_shift(rate, change)) << 32)
    assert 0 <= after - before < ONE32  # less than a share, in favour of the staker, as on chain


def test_the_funds_own_part_of_a_dividend_raises_the_value_of_all_shares() -> None:
    assert rules.stakers_part(1_000, 300, 100) == 750
    assert rules.stakers_part(1_000, 300, 0) == 1_000


def test_a_slice_is_at_least_a_unit_where_rao_are_owed() -> None:
    assert rules.slice_taken(1_000, 1, 4, 1) == 250
    assert rules.slice_taken(3, 1, 4, 1) == 1
    assert rules.slice_taken(3, 1, 4, 0) == 0


@given(st.integers(0, 10**15), st.lists(st.integers(1, 10**15), min_size=1, max_size=8))
def test_a_deposit_is_deployed_whole(tao: int, values: list[int]) -> None:
    parts = rules.deployment(tao, values)
    assert sum(parts) == tao and len(parts) == len(values)


# -- trading --------------------------------------------------------------------------------------------------------


def test_a_trade_stays_within_two_per_cent_of_the_strictest_price() -> None:
    one, low, high = ONE64, ONE64 * 99 // 100, ONE64 * 101 // 100
    assert rules.price_limit(one, low, high, buying=True) == pytest.approx(990_000_000 * 102 // 100, abs=1)
    assert rules.price_limit(one, low, high, buying=False) == pytest.approx(1_010_000_000 * 98 // 100, abs=1)
    assert rules.price_limit(one, ONE64 * 9 // 10, one, buying=True) is None  # pumped: the spot price is too high
    assert rules.price_limit(one, one, ONE64 * 11 // 10, buying=False) is None
    assert rules.price_limit(one, 0, one, buying=True) is None and rules.price_limit(one, one, 0, buying=False) is None


def test_the_bucket_refills_within_a_day() -> None:
    assert rules.trade_budget(65_535, 6_553) == 6_553
    assert rules.bucket_level(None, 5, 1_000) == 1_000
    assert rules.bucket_level((100, 10), 10 + rules.REFILL_BLOCKS // 2, 1_000) == 600
    assert rules.bucket_level((100, 10), 10 + rules.REFILL_BLOCKS, 1_000) == 1_000
    assert rules.bucket_level((500, 10), 10, 300) == 300  # the fund shrank since


def test_caps() -> None:
    assert rules.within_cap(1, 4, U16_MAX // 4 + 1) and not rules.within_cap(1, 4, U16_MAX // 4 - 1)
    cap = U16_MAX // 16
    assert [rules.concentration_binds(cap, n) for n in (16, 17)] == [False, True]
    assert rules.guarded_value(500, 1_000, ONE64 // 4) == 250 and rules.guarded_value(200, 1_000, ONE64 // 4) == 200


# -- comparable prices ----------------------------------------------------------------------------------------------


def test_total_return_compounds() -> None:
    """beta_pricing.rs: 250 on 1,000 and then 500 on 1,000 make 1.25 and 1.875; nobody staked, nothing compounds."""
    once = rules.compounded(ONE64, 250, 1_000)
    assert once == ONE64 * 5 // 4 and rules.compounded(once, 500, 1_000) == ONE64 * 15 // 8
    assert rules.compounded(once, 500, 0) == once


def test_a_newborn_fund_starts_on_the_index() -> None:
    """beta_pricing.rs: at index 2, NAV 3e8 for 3e8 shares and a total return of 2 give divisor 0.5 and splice 0.5."""
    raw = rules.raw_price(3 * 10**8, 3 * 10**8)
    baseline = rules.stamped(raw, 2 * ONE64, ONE64, 7, 2 * ONE64, 41)
    assert (baseline.price_divisor, baseline.tr_splice, baseline.first_block) == (ONE64 // 2, ONE64 // 2, 41)
    marks = rules.marks(raw, 7, 2 * ONE64, baseline)
    assert (marks.display, marks.stake, marks.staker_yield) == (2 * ONE64, ONE64, 0)


def test_a_fund_without_a_baseline_stands_on_the_index() -> None:
    marks = rules.provisional_marks(5 * ONE64, 2 * ONE64, 3 * ONE64)
    assert (marks.display, marks.stake, marks.provisional) == (2 * ONE64, 3 * ONE64, True)
    assert rules.display_amount(10, marks.divisor) == 25 * ONE64


def sample(nav: int, display: float, stake: float = 1) -> rules.Sample:
    return rules.Sample(nav, int(display * ONE64), int(stake * ONE64))


def test_the_index_moves_with_the_average_fund() -> None:
    """beta_pricing.rs: of two funds with 4e8 and 12e8 the second doubles in price and in total return: 1.75 each."""
    sweep = rules.chained(rules.Sweep(), sample(4 * 10**8, 1), sample(4 * 10**8, 1))
    sweep = rules.chained(sweep, sample(12 * 10**8, 1), sample(24 * 10**8, 2, 2))
    assert rules.next_levels((ONE64, ONE64), sweep) == (ONE64 * 7 // 4, ONE64 * 7 // 4)
    assert rules.next_levels((2 * ONE64, ONE64), rules.Sweep()) == (2 * ONE64, ONE64)


def test_deposits_and_dust_do_not_move_the_index() -> None:
    deposit = rules.chained(rules.Sweep(), sample(4 * 10**8, 1), sample(9 * 10**8, 1))
    assert rules.next_levels((ONE64, ONE64), deposit) == (ONE64, ONE64)
    dust = rules.chained(rules.Sweep(), sample(rules.MIN_INDEX_NAV - 1, 1), sample(10**12, 50))
    assert dust == rules.Sweep()
