"""The emission gate, reservoirs and null consensus, with the figures of the public Rust tests where there are such."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localnet.rules import coinbase, emission_gate, null_consensus, reservoir
from localnet.rules.epoch import EpochHyper, EpochInput
from localnet.rules.fixed import ONE32, ONE64, U64_MAX
from localnet.rules.swap import Pool, price

QUANTILE = ONE64 * 61 // 100
CUBE = 3 * ONE64


def shares_of(*prices: float) -> list[int]:
    weights = [coinbase.SubnetWeight(n, int(price * ONE32)) for n, price in enumerate(prices)]
    return list(coinbase.demand_shares(weights).values())


def gated(shares: list[int], bar: int, exponent: int = CUBE) -> list[float]:
    return [share / ONE64 for share in emission_gate.gated(dict(enumerate(shares)), bar, exponent).values()]


# -- the bar --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prices, bar",
    [((1, 2), 2 / 3), ((5,), 1.0), ((7, 2, 1), 0.7), ((1, 1, 1), 1 / 3), ((1, 1, 1, 1), 1 / 4), ((0, 0), 0)],
)
def test_quantile_bar(prices: tuple[float, ...], bar: float) -> None:
    """subnet_emissions.rs: prices 1 and 2, a single subnet, prices 7 : 2 : 1, equal ones, no price at all."""
    assert emission_gate.bar(shares_of(*prices), 0, QUANTILE) / ONE64 == pytest.approx(bar, abs=1e-9)


@pytest.mark.parametrize("rank, bar", [(1, 0.7), (2, 0.2), (3, 0.1), (32, 0.1)])
def test_rank_bar_is_the_share_at_that_rank_and_the_least_one_when_there_are_fewer(rank: int, bar: float) -> None:
    assert emission_gate.bar(shares_of(7, 0, 2, 1), rank, QUANTILE) / ONE64 == pytest.approx(bar, abs=1e-9)
    assert emission_gate.bar([0, 0], rank, QUANTILE) == 0


def test_the_bar_is_due_when_there_is_none_and_every_360_blocks() -> None:
    due = [block for block in range(1, 1000) if emission_gate.is_bar_due(ONE64, block)]
    assert due == [360, 720] and emission_gate.is_bar_due(0, 7)


# -- the gate -------------------------------------------------------------------------------------------------------


def test_two_subnets_at_prices_one_and_two_get_a_tenth_and_nine_tenths() -> None:
    """subnet_emissions.rs: the gate lets 1/9 of the smaller and 1/2 of the larger demand pass."""
    shares = shares_of(1, 2)
    assert gated(shares, emission_gate.bar(shares, 0, QUANTILE)) == pytest.approx([0.1, 0.9], abs=1e-7)


@pytest.mark.parametrize("count, bar, exponent", [(1, ONE64, CUBE), (256, ONE64, 8 * ONE64), (3, ONE64 // 3, CUBE)])
def test_equal_demands_pass_equally(count: int, bar: int, exponent: int) -> None:
    """subnet_emissions.rs: one subnet keeps all; 256 equal ones far below a bar of 1 keep equal parts at exponent 8."""
    assert gated(shares_of(*[1] * count), bar, exponent) == pytest.approx([1 / count] * count, rel=1e-9)


def test_a_gate_that_lets_nothing_pass_is_no_gate() -> None:
    shares = [1 << 30] * 2
    assert gated(shares, ONE64, 8 * ONE64) == [share / ONE64 for share in shares]
    assert gated(shares_of(1, 2), 0) == pytest.approx([1 / 3, 2 / 3])


def test_a_share_out_of_reach_of_the_series_is_shut_out_as_on_chain() -> None:
    """e^x of a large negative x leaves the series' format too: 1,050 times the bar passes, 1,060 does not."""
    low, high = ONE64 // 1_051, ONE64 // 1_061
    assert gated([low, 1_050 * low], low)[1] == pytest.approx(1, abs=1e-3)
    assert gated([high, 1_060 * high], high) == pytest.approx([1, 0], abs=1e-3)


@given(st.lists(st.integers(100, 1000), min_size=1, max_size=40), st.integers(0, 40), st.integers(1, 8))
def test_gated_shares_add_up_to_one_and_keep_their_order(prices: list[int], rank: int, exponent: int) -> None:
    shares = shares_of(*prices)
    passed = gated(shares, emission_gate.bar(shares, rank, QUANTILE), exponent * ONE64)
    assert sum(passed) == pytest.approx(1, abs=1e-6)
    order = sorted(range(len(prices)), key=lambda n: prices[n])
    assert all(passed[a] <= passed[b] + 1e-9 for a, b in pairwise(order))


def test_power_agrees_with_arithmetic() -> None:
    for base in (0.05, 0.5, 1.0, 1.7, 9.0):
        for exponent in (1.0, 2.5, 3.0, 6.0):
            found = emission_gate.power(int(base * ONE64), int(exponent * ONE64)) / ONE64
            assert found == pytest.approx(base**exponent, rel=1e-5, abs=1e-8)


def test_the_gate_comes_before_the_switch() -> None:
    """A switched-off subnet counts for the bar and for the gate, then its part goes to the others."""
    weights = [coinbase.SubnetWeight(1, ONE32), coinbase.SubnetWeight(2, 2 * ONE32, enabled=False)]
    assert coinbase.subnet_shares(coinbase.demand_shares(weights), weights, ONE64 * 2 // 3, CUBE) == {1: ONE64, 2: 0}
    off = [coinbase.SubnetWeight(n, ONE32, enabled=False) for n in (1, 2)]
    assert coinbase.subnet_shares(coinbase.demand_shares(off), off, ONE64 // 2, CUBE) == {1: 0, 2: 0}


# -- moving price ---------------------------------------------------------------------------------------------------


def test_the_fast_moving_price_starts_at_spot_and_goes_half_way_in_600_blocks() -> None:
    assert coinbase.fast_moving_price(None, 5 * ONE64) == 5 * ONE64
    moved = ONE64
    for _ in range(coinbase.FAST_HALF_LIFE):
        moved = coinbase.fast_moving_price(moved, 3 * ONE64)
    assert moved / ONE64 == pytest.approx(2, rel=2e-3)


# -- reservoirs -----------------------------------------------------------------------------------------------------


def test_liquidity_that_the_weights_cannot_take_waits() -> None:
    """adjust_protocol_liquidity.rs: 200,000 of one asset for 1,000 of the other stays out of a pool of 1,000/1,000, and
    both go in when the other side follows."""
    pool = Pool(1000, 1000)
    one = reservoir.add_liquidity(pool, 200_000, 1000)
    assert (one.tao, one.alpha, one.tao_waiting, one.alpha_waiting) == (0, 1000, 200_000, 0)
    other = reservoir.add_liquidity(pool, 1000, 200_000)
    assert (other.tao, other.alpha, other.tao_waiting, other.alpha_waiting) == (1000, 0, 0, 200_000)
    both = reservoir.add_liquidity(one.pool, 1000, 200_000, one.tao_waiting, one.alpha_waiting)
    assert (both.tao, both.alpha, both.tao_waiting, both.alpha_waiting) == (201_000, 200_000, 0, 0)


def test_what_waits_goes_in_with_the_next_block() -> None:
    """adjust_protocol_liquidity.rs: reservoirs of 10,000 and 20,000 join 300 and 400 in a pool of a million each."""
    done = reservoir.add_liquidity(Pool(10**6, 10**6), 300, 400, 10_000, 20_000)
    assert (done.tao, done.alpha, done.tao_waiting, done.alpha_waiting) == (10_300, 20_400, 0, 0)
    assert (done.pool.tao, done.pool.alpha) == (1_010_300, 1_020_400)
    assert price(done.pool) / ONE64 == pytest.approx(1, rel=1e-9)


@given(*[st.integers(1, 10**15)] * 2, *[st.integers(0, 10**12)] * 4)
def test_injected_and_waiting_make_up_everything(
    pool_tao: int, pool_alpha: int, tao: int, alpha: int, tao_waits: int, alpha_waits: int
) -> None:
    done = reservoir.add_liquidity(Pool(pool_tao, pool_alpha), tao, alpha, tao_waits, alpha_waits)
    assert done.tao + done.tao_waiting == tao + tao_waits
    assert done.alpha + done.alpha_waiting == alpha + alpha_waits
    assert (done.pool.tao, done.pool.alpha) == (pool_tao + done.tao, pool_alpha + done.alpha)


# -- null consensus -------------------------------------------------------------------------------------------------

BUDGET = 1_000_000


def epoch_of(
    stakes: list[int],
    rows: dict[int, list[tuple[int, int]]],
    budget: int = BUDGET,
    registered_at: list[int] | None = None,
    block: int = 20_000,
) -> null_consensus.EpochResult:
    """Four uids, the first two permitted, all updated in block 1."""
    return null_consensus.run_epoch(
        EpochInput(
            n=4, block=block, emission=budget, stake=[stake << 64 for stake in [*stakes, 0, 0]], last_update=[1] * 4,
            registered_at=registered_at or [0] * 4, permits=[True, True, False, False], weights=rows,
            bonds={0: [(2, 12_345)]}, hyper=EpochHyper(max_validators=2),
        )
    )  # fmt: skip


def test_the_winner_divides_the_miners_half_and_stake_the_other_without_regard_to_activity() -> None:
    """null_consensus.rs: winner_incentives_and_stake_dividends_ignore_activity."""
    result = epoch_of([300_000_000, 100_000_000], {0: [(2, 3), (3, 1)], 1: [(3, 65_535)]})
    assert result.server_emission == (0, 0, 375_000, 125_000)
    assert result.validator_emission == (375_000, 125_000, 0, 0)
    assert result.active == (False,) * 4 and result.permits == (True, True, False, False)
    assert result.incentive == result.consensus == (0, 0, 49_151, 16_383) and result.dividends == (49_151, 16_383, 0, 0)


def test_a_tie_goes_to_the_first_uid_and_a_rao_more_decides() -> None:
    """null_consensus.rs: tie_selects_first_uid, selects_winner_before_normalized_stake_rounding."""
    rows = {0: [(2, 65_535)], 1: [(3, 65_535)]}
    assert epoch_of([100_000_000] * 2, rows).server_emission == (0, 0, 500_000, 0)
    assert epoch_of([1_000_000_000, 1_000_000_001], rows).server_emission == (0, 0, 0, 500_000)


def test_a_winner_without_a_row_or_with_a_stale_one_shares_over_every_uid() -> None:
    """null_consensus.rs: empty_winner_weights_share_across_every_uid, stale_winner_row_uses_equal_fallback."""
    stakes = [300_000_000, 100_000_000]
    empty = epoch_of(stakes, {1: [(3, 65_535)]})
    assert empty.server_emission == (125_000,) * 4 and empty.validator_emission == (375_000, 125_000, 0, 0)
    assert empty.validator_trust == (0,) * 4
    replaced = epoch_of(stakes, {0: [(2, 65_535)], 1: [(3, 65_535)]}, registered_at=[0, 0, 2, 0])
    assert replaced.server_emission == (125_000,) * 4


def test_without_stake_everything_goes_to_miners_and_bonds_are_left_alone() -> None:
    """null_consensus.rs: no_stake_has_only_equal_miner_emissions, preserves_bonds_and_can_switch_back_to_yuma."""
    result = epoch_of([0, 0], {})
    assert result.server_emission == (250_000,) * 4 and not any(result.validator_emission)
    assert result.bonds == {}


@pytest.mark.parametrize("budget", [0, 1, 3, 131_071, U64_MAX])
def test_null_consensus_gives_out_its_budget_to_the_last_unit(budget: int) -> None:
    """null_consensus.rs: preserves_raw_weights_and_epoch_budget."""
    result = epoch_of([300_000_000, 100_000_000], {0: [(2, 65_534), (3, 1)]}, budget)
    assert sum(result.server_emission) == budget - budget // 2
    assert sum(result.validator_emission) == budget // 2
    assert sum(result.emission) == budget
