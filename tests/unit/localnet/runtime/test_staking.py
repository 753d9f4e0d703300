"""Adding and removing stake: what moves, what is refused and in which order, what the fee does."""

from __future__ import annotations

from typing import Any

import pytest

from localnet.rules import swap as market
from localnet.runtime.subtensor import positions, staking
from tests.support.extrinsics import account
from tests.support.market import ALICE, BOB, BOB_HOT, CHARLIE, HOT, TAO, Market, fresh


@pytest.fixture
def m() -> Market:
    return fresh()


def stake(m: Market, who: bytes, hotkey: bytes, tao: int) -> int:
    m.call(who, "add_stake", hotkey=hotkey, netuid=m.net, amount_staked=tao)
    return int(m.last("StakeAdded")[3])


def money(m: Market) -> int:
    """All TAO there is: it only moves."""
    return sum(one["data"]["free"] for _, one in m.rt.system.Account.items())


# -- share pools ------------------------------------------------------------------------------------------------------


def test_a_dividend_is_shared_by_all_holders_pro_rata(m: Market) -> None:
    staking.increase_stake(m.p, HOT, ALICE, m.net, 3_000_000)
    staking.increase_stake(m.p, HOT, CHARLIE, m.net, 1_000_000)
    staking.distribute_to_hotkey(m.p, HOT, m.net, 400_000)
    assert staking.stake_of(m.p, HOT, ALICE, m.net) == 3_300_000
    assert staking.stake_of(m.p, HOT, CHARLIE, m.net) == 1_100_000
    assert m.p.TotalHotkeyAlpha[HOT, m.net] == m.p.TotalAlphaStaked[m.net] == 4_400_000


def test_one_holders_deposit_leaves_the_others_alone(m: Market) -> None:
    staking.increase_stake(m.p, HOT, ALICE, m.net, 1_000_000_007)
    staking.distribute_to_hotkey(m.p, HOT, m.net, 333)
    before = staking.stake_of(m.p, HOT, ALICE, m.net)
    staking.increase_stake(m.p, HOT, CHARLIE, m.net, 55_555_555)
    staking.decrease_stake(m.p, HOT, CHARLIE, m.net, 11_111_111)
    assert abs(staking.stake_of(m.p, HOT, ALICE, m.net) - before) <= 1
    assert staking.stake_of(m.p, HOT, CHARLIE, m.net) in (44_444_443, 44_444_444)


def test_shares_of_an_emptied_pool_do_not_own_what_comes_later(m: Market) -> None:
    staking.increase_stake(m.p, HOT, ALICE, m.net, 10**9)
    stale = m.p.AlphaV2[HOT, ALICE, m.net]
    staking.decrease_stake(m.p, HOT, ALICE, m.net, 10**9)
    assert (HOT, m.net) not in m.p.TotalHotkeyAlpha and (HOT, m.net) not in m.p.TotalHotkeySharesV2
    m.p.AlphaV2[HOT, ALICE, m.net] = stale  # as rounding might have left behind
    staking.increase_stake(m.p, HOT, CHARLIE, m.net, 10**9)
    assert staking.stake_of(m.p, HOT, ALICE, m.net) == 0
    assert staking.stake_of(m.p, HOT, CHARLIE, m.net) == 10**9


def test_legacy_shares_still_count(m: Market) -> None:
    m.p.Alpha[HOT, CHARLIE, m.net] = {"bits": 250 << 64}
    m.p.TotalHotkeyShares[HOT, m.net] = {"bits": 1000 << 64}
    m.p.TotalHotkeyAlpha[HOT, m.net] = 8_000_000
    assert staking.stake_of(m.p, HOT, CHARLIE, m.net) == 2_000_000
    staking.increase_stake(m.p, HOT, CHARLIE, m.net, 1_000_000)
    assert staking.stake_of(m.p, HOT, CHARLIE, m.net) == 3_000_000
    assert (HOT, CHARLIE, m.net) not in m.p.Alpha and (HOT, m.net) not in m.p.TotalHotkeyShares


# -- add --------------------------------------------------------------------------------------------------------------


def test_staking_moves_money_reserves_and_shares_together(m: Market) -> None:
    p, pool = m.p, staking.pool_of(m.p, m.net)
    free, total, out, volume = (
        m.rt.balances.free(BOB),
        p.TotalStake.get(),
        p.SubnetAlphaOut[m.net],
        p.SubnetVolume[m.net],
    )
    everything = money(m)
    alpha = stake(m, BOB, BOB_HOT, 10 * TAO)
    expected = market.buy(pool, 10 * TAO, 33)
    assert (alpha, m.last("StakeAdded")[5]) == (expected.paid_out, expected.fee)
    assert m.last("StakeAdded") == (BOB, BOB_HOT, 10 * TAO, alpha, m.net, expected.fee)
    assert p.SubnetTAO[m.net] == pool.tao + 10 * TAO - expected.fee
    assert p.SubnetAlphaIn[m.net] == pool.alpha - alpha
    assert p.SubnetAlphaOut[m.net] == out + alpha
    assert p.TotalStake.get() == total + 10 * TAO
    assert p.SubnetVolume[m.net] == volume + 10 * TAO
    assert staking.stake_of(p, BOB_HOT, BOB, m.net) == alpha
    assert p.StakingHotkeys[BOB] == [BOB_HOT]
    assert p.LastColdkeyHotkeyStakeBlock[BOB, BOB_HOT] is None  # only root stake has an age
    assert free - m.rt.balances.free(BOB) == 10 * TAO
    assert money(m) == everything


def authored(m: Market) -> bytes:
    """The open block gets an author, as a node's blocks have; their account."""
    m.rt.system.Digest.put({"logs": [("PreRuntime", (b"aura", (7).to_bytes(8, "little")))]})
    author = m.rt.aura.author()
    assert author == account("//One")
    return author


def test_a_buys_fee_goes_to_the_blocks_author(m: Market) -> None:
    """100 % of swap fees, as of spec 461; the recorded local node's block is sealed with One's key."""
    author = authored(m)
    before, issued = m.rt.balances.free(author), money(m)
    stake(m, BOB, BOB_HOT, 10 * TAO)
    fee = m.last("StakeAdded")[5]
    assert m.rt.balances.free(author) - before == fee > 0 and money(m) == issued
    subnet = staking.subnet_account(m.p, m.net)
    assert m.last("Transfer", "Balances") == {"from": subnet, "to": author, "amount": fee}


def test_a_sales_fee_is_sold_for_the_blocks_author(m: Market) -> None:
    author, p = authored(m), m.p
    stake(m, BOB, BOB_HOT, 10 * TAO)
    before, pool, out = m.rt.balances.free(author), staking.pool_of(p, m.net), p.SubnetAlphaOut[m.net]
    flow, burned = p.SubnetTaoFlow[m.net], m.rt.alpha_assets.AlphaBurned[m.net]
    alpha = staking.stake_of(p, BOB_HOT, BOB, m.net)
    m.call(BOB, "remove_stake", hotkey=BOB_HOT, netuid=m.net, amount_unstaked=alpha)
    sale = market.sell(pool, alpha, 33)
    after = market.Pool(pool.tao - sale.paid_out, pool.alpha + sale.paid_in, pool.quote_weight)
    fee = market.sell(after, sale.fee, 0)
    assert m.rt.balances.free(author) - before == fee.paid_out > 0
    assert p.SubnetTAO[m.net] == pool.tao - sale.paid_out - fee.paid_out
    assert p.SubnetAlphaOut[m.net] == out - alpha  # nothing is left that nobody holds
    assert p.SubnetTaoFlow[m.net] == flow - sale.paid_out - fee.paid_out
    assert m.rt.alpha_assets.AlphaBurned[m.net] == burned


def test_without_author_the_fee_is_burned_and_the_subnets_account_covers_its_pool(m: Market) -> None:
    before = m.rt.balances.free(staking.burn_account(m.p))
    stake(m, BOB, BOB_HOT, 10 * TAO)
    assert m.rt.balances.free(staking.burn_account(m.p)) - before == m.last("StakeAdded")[5]
    assert m.rt.balances.free(staking.subnet_account(m.p, m.net)) >= m.p.SubnetTAO[m.net]


def test_staking_the_whole_balance_keeps_the_existential_deposit(m: Market) -> None:
    saver = bytes(31) + b"\7"
    m.rt.balances.mint(saver, 3 * TAO)
    stake(m, saver, HOT, 3 * TAO)
    assert m.rt.balances.free(saver) == 500
    assert m.last("StakeAdded")[2] == 3 * TAO - 500


def test_tao_that_the_highest_price_does_not_let_through_comes_back(m: Market) -> None:
    free, account = m.rt.balances.free(CHARLIE), staking.subnet_account(m.p, m.net)
    beside_the_pool = m.rt.balances.free(account) - m.p.SubnetTAO[m.net]
    pool = staking.pool_of(m.p, m.net)
    stake(m, CHARLIE, HOT, free)  # a thousand times the pool
    swap = market.buy(pool, free - 500, 33)
    assert free - m.rt.balances.free(CHARLIE) == swap.paid_in + swap.fee < free // 2
    assert m.rt.balances.free(account) - m.p.SubnetTAO[m.net] == beside_the_pool


@pytest.mark.parametrize(
    "change, error",
    [
        ({"netuid": 99}, "SubnetNotExists"),
        ({"netuid": 0}, "SubtokenDisabled"),
        ({"amount_staked": 2_001_006}, "AmountTooLow"),  # the minimum plus its fee is 2 001 007
        ({"amount_staked": 10**18}, "InsufficientLiquidity"),  # above 1000 times the reserve
        ({"amount_staked": 10**18, "netuid": 99}, "SubnetNotExists"),
        ({"hotkey": bytes(31) + b"\1"}, "HotKeyAccountNotExists"),
    ],
)
def test_add_stake_refuses(m: Market, change: dict[str, Any], error: str) -> None:
    arguments = {"hotkey": HOT, "netuid": m.net, "amount_staked": 10 * TAO, **change}
    assert m.refusal(BOB, "add_stake", **arguments) == error


def test_more_than_the_balance_is_refused_before_the_hotkey_is_looked_at(m: Market) -> None:
    poor = bytes(31) + b"\7"
    m.rt.balances.mint(poor, TAO)
    arguments = {"hotkey": poor, "netuid": m.net, "amount_staked": 2 * TAO}
    assert m.refusal(poor, "add_stake", **arguments) == "NotEnoughBalanceToStake"


def test_the_least_stake_that_is_accepted(m: Market) -> None:
    stake(m, BOB, BOB_HOT, 2_001_007)


def test_a_price_limit_stops_the_purchase(m: Market) -> None:
    limit = market.price_rao(staking.pool_of(m.p, m.net)) * 101 // 100
    arguments = {"hotkey": HOT, "netuid": m.net, "amount_staked": 500_000 * TAO, "limit_price": limit}
    assert m.refusal(BOB, "add_stake_limit", **arguments, allow_partial=False) == "SlippageTooHigh"
    free = m.rt.balances.free(BOB)
    m.call(BOB, "add_stake_limit", **arguments, allow_partial=True)
    spent = free - m.rt.balances.free(BOB)
    assert spent == m.last("StakeAdded")[2] < 6 * TAO
    assert abs(market.price_rao(staking.pool_of(m.p, m.net)) - limit) <= 2
    assert m.p.Delegates[HOT] == 11_796


def test_a_limit_below_the_price_is_refused_by_the_pool(m: Market) -> None:
    limit = market.price_rao(staking.pool_of(m.p, m.net)) // 2
    arguments = {"hotkey": HOT, "netuid": m.net, "amount_staked": TAO, "limit_price": limit, "allow_partial": True}
    assert m.refusal(BOB, "add_stake_limit", **arguments) == "PriceLimitExceeded"


def test_root_stake_is_one_to_one_and_free(m: Market) -> None:
    m.root("AdminUtils", "sudo_set_subtoken_enabled", netuid=0, subtoken_enabled=True)
    m.call(BOB, "add_stake", hotkey=BOB_HOT, netuid=0, amount_staked=5 * TAO)
    assert m.last("StakeAdded") == (BOB, BOB_HOT, 5 * TAO, 5 * TAO, 0, 0)
    assert m.p.SubnetTAO[0] == m.p.SubnetAlphaOut[0] == 5 * TAO
    limited = {"hotkey": BOB_HOT, "netuid": 0, "amount_staked": TAO, "allow_partial": False}
    assert m.refusal(BOB, "add_stake_limit", **limited, limit_price=TAO - 1) == "SlippageTooHigh"
    m.call(BOB, "add_stake_limit", **limited, limit_price=TAO)
    m.call(BOB, "remove_stake", hotkey=BOB_HOT, netuid=0, amount_unstaked=6 * TAO)
    assert m.last("StakeRemoved") == (BOB, BOB_HOT, 6 * TAO, 6 * TAO, 0, 0)
    assert m.p.SubnetTAO[0] == 0


def test_root_stake_may_have_to_age(m: Market) -> None:
    m.root("AdminUtils", "sudo_set_subtoken_enabled", netuid=0, subtoken_enabled=True)
    m.call(BOB, "add_stake", hotkey=BOB_HOT, netuid=0, amount_staked=5 * TAO)
    m.p.RootStakeUnlockInterval.put(10)
    arguments = {"hotkey": BOB_HOT, "netuid": 0, "amount_unstaked": TAO}
    assert m.refusal(BOB, "remove_stake", **arguments) == "RootStakeLocked"
    m.at(m.rt.number + 10)
    m.call(BOB, "remove_stake", **arguments)


# -- remove -----------------------------------------------------------------------------------------------------------


def test_unstaking_pays_what_the_pool_says_and_takes_the_fee_in_alpha(m: Market) -> None:
    alpha = stake(m, BOB, BOB_HOT, 10 * TAO)
    pool, out, free = staking.pool_of(m.p, m.net), m.p.SubnetAlphaOut[m.net], m.rt.balances.free(BOB)
    m.call(BOB, "remove_stake", hotkey=BOB_HOT, netuid=m.net, amount_unstaked=alpha // 2)
    expected = market.sell(pool, alpha // 2, 33)
    assert m.last("StakeRemoved") == (BOB, BOB_HOT, expected.paid_out, expected.paid_in, m.net, expected.fee)
    assert m.rt.balances.free(BOB) - free == expected.paid_out
    assert m.p.SubnetAlphaIn[m.net] == pool.alpha + expected.paid_in
    assert m.p.SubnetAlphaOut[m.net] == out - expected.paid_in  # the fee stays issued and nobody holds it
    assert abs(staking.stake_of(m.p, BOB_HOT, BOB, m.net) - (alpha - alpha // 2)) <= 1


def test_more_than_the_position_is_cut_to_it_and_the_hotkey_forgotten(m: Market) -> None:
    stake(m, CHARLIE, HOT, 10 * TAO)
    m.call(CHARLIE, "remove_stake", hotkey=HOT, netuid=m.net, amount_unstaked=10**18)
    assert staking.stake_of(m.p, HOT, CHARLIE, m.net) == 0
    assert CHARLIE not in m.p.StakingHotkeys


def test_remove_stake_refuses_in_the_chains_order(m: Market) -> None:
    alpha = stake(m, BOB, BOB_HOT, 10 * TAO)
    base = {"hotkey": BOB_HOT, "netuid": m.net, "amount_unstaked": alpha}
    assert m.refusal(BOB, "remove_stake", **{**base, "netuid": 99}) == "SubtokenDisabled"
    assert m.refusal(BOB, "remove_stake", **{**base, "amount_unstaked": 0}) == "AmountTooLow"
    assert m.refusal(CHARLIE, "remove_stake", **base) == "AmountTooLow"  # nothing staked: cut to zero
    assert m.refusal(BOB, "remove_stake", **{**base, "amount_unstaked": 1_000}) == "AmountTooLow"
    m.p.SubnetTAO[m.net] = 999_999
    assert m.refusal(BOB, "remove_stake", **base) == "InsufficientLiquidity"


def test_the_limited_form_does_not_cut_the_amount(m: Market) -> None:
    stake(m, CHARLIE, HOT, TAO)
    arguments = {
        "hotkey": HOT,
        "netuid": m.net,
        "amount_unstaked": 2 * TAO,
        "limit_price": 1_000,
        "allow_partial": True,
    }
    assert m.refusal(CHARLIE, "remove_stake_limit", **arguments) == "NotEnoughStakeToWithdraw"
    assert m.refusal(CHARLIE, "remove_stake_limit", **{**arguments, "netuid": 99}) == "SubnetNotExists"


def test_the_whole_of_a_tiny_position_may_leave(m: Market) -> None:
    staking.increase_stake(m.p, HOT, CHARLIE, m.net, 10_000)
    m.call(CHARLIE, "remove_stake", hotkey=HOT, netuid=m.net, amount_unstaked=10_000)
    assert m.last("StakeRemoved")[2] < positions.min_stake(m.p)


def test_a_price_limit_stops_the_sale_and_the_rest_stays_staked(m: Market) -> None:
    alpha = stake(m, BOB, BOB_HOT, 100 * TAO)
    limit = market.price_rao(staking.pool_of(m.p, m.net)) * 99 // 100
    arguments = {"hotkey": BOB_HOT, "netuid": m.net, "amount_unstaked": alpha, "limit_price": limit}
    assert m.refusal(BOB, "remove_stake_limit", **arguments, allow_partial=False) == "SlippageTooHigh"
    full = {"hotkey": BOB_HOT, "netuid": m.net, "limit_price": limit}
    assert m.refusal(BOB, "remove_stake_full_limit", **full) == "SlippageTooHigh"
    m.call(BOB, "remove_stake_limit", **arguments, allow_partial=True)
    assert abs(market.price_rao(staking.pool_of(m.p, m.net)) - limit) <= 2
    _, _, _, sold, _, fee = m.last("StakeRemoved")
    assert abs(staking.stake_of(m.p, BOB_HOT, BOB, m.net) - (alpha - sold - fee)) <= 1
    m.call(BOB, "remove_stake_full_limit", hotkey=BOB_HOT, netuid=m.net, limit_price=None)
    assert staking.stake_of(m.p, BOB_HOT, BOB, m.net) == 0


def test_what_is_left_below_the_nomination_minimum_is_paid_out(m: Market) -> None:
    alpha = stake(m, CHARLIE, HOT, 10 * TAO)
    m.p.NominatorMinRequiredStake.put(1_000_000_000)  # a thousand times the minimum stake: 2 TAO
    m.call(CHARLIE, "remove_stake", hotkey=HOT, netuid=m.net, amount_unstaked=alpha * 9 // 10)
    assert staking.stake_of(m.p, HOT, CHARLIE, m.net) == 0
    assert len([1 for name, _ in m.events() if name == "StakeRemoved"]) == 2


def test_unstake_all_sells_every_position(m: Market) -> None:
    other = m.subnet(ALICE, bytes(31) + b"\3")
    stake(m, CHARLIE, HOT, 10 * TAO)
    m.call(CHARLIE, "add_stake", hotkey=HOT, netuid=other, amount_staked=10 * TAO)
    free = m.rt.balances.free(CHARLIE)
    m.call(CHARLIE, "unstake_all", hotkey=HOT)
    assert all(staking.stake_of(m.p, HOT, CHARLIE, netuid) == 0 for netuid in (m.net, other))
    assert 19_900_000_000 < m.rt.balances.free(CHARLIE) - free < 20 * TAO
    assert m.refusal(CHARLIE, "unstake_all", hotkey=bytes(32 - 1) + b"\5") == "HotKeyAccountNotExists"


def test_unstake_all_alpha_ends_on_root(m: Market) -> None:
    stake(m, CHARLIE, HOT, 10 * TAO)
    m.call(CHARLIE, "unstake_all_alpha", hotkey=HOT)
    assert staking.stake_of(m.p, HOT, CHARLIE, 0) == m.last("StakeRemoved")[2]


def test_a_stakers_round_trip_loses_two_fees_and_nothing_else(m: Market) -> None:
    free = m.rt.balances.free(BOB)
    alpha = stake(m, BOB, BOB_HOT, 10 * TAO)
    m.call(BOB, "remove_stake", hotkey=BOB_HOT, netuid=m.net, amount_unstaked=alpha)
    lost = free - m.rt.balances.free(BOB)
    fees = 2 * 10 * TAO * 33 // 65535
    assert abs(lost - fees) < fees // 100  # the fee in alpha is worth the price before the sale


def test_stake_calls_need_a_signature(m: Market) -> None:
    assert m.refusal(None, "add_stake", hotkey=HOT, netuid=m.net, amount_staked=TAO) == "BadOrigin"
