"""Miner collateral: registrations that lock a part of their price, payouts that set it free, what it holds back."""

from __future__ import annotations

import pytest

from localnet.rules import collateral as rules
from localnet.rules import swap as market
from localnet.rules.collateral import Charge, Collateral
from localnet.runtime.subtensor import collateral, distribution, epochs, staking
from tests.support.market import ALICE, BOB, BOB_HOT, CHARLIE, TAO, Market, fresh

ONE = 1 << 64
HALF = 32_768  # of 65535: just over a half
NEW = bytes(31) + b"\3"  # the hotkey Charlie registers
OTHER = bytes(31) + b"\4"


@pytest.fixture
def m() -> Market:
    """Half of the price is locked; a moving price of 1 TAO per alpha."""
    chain = fresh()
    chain.admin(ALICE, "sudo_set_collateral_lock_share", netuid=chain.net, lock_share=HALF)
    chain.p.SubnetMovingPrice[chain.net] = {"bits": 1 << 32}
    return chain


def record(m: Market, hotkey: bytes = NEW, coldkey: bytes = CHARLIE) -> Collateral:
    found = collateral.record_of(m.p, m.net, hotkey, coldkey)
    assert found is not None
    return found


def held(m: Market, hotkey: bytes = NEW, coldkey: bytes = CHARLIE) -> int:
    return staking.stake_of(m.p, hotkey, coldkey, m.net)


def register(m: Market, hotkey: bytes = NEW, who: bytes = CHARLIE) -> None:
    m.call(who, "burned_register", netuid=m.net, hotkey=hotkey)


def give(m: Market, alpha: int, hotkey: bytes = NEW, coldkey: bytes = CHARLIE) -> None:
    """Stake out of nowhere."""
    staking.increase_stake(m.p, hotkey, coldkey, m.net, alpha)
    m.p.SubnetAlphaOut[m.net] += alpha


def bond(m: Market, locked: int, hotkey: bytes = NEW, coldkey: bytes = CHARLIE, **fields: int) -> None:
    """A position of which `locked` alpha are locked, drain ratio 1 unless `fields` say otherwise."""
    m.p.Owner[hotkey] = coldkey
    for known in (m.p.OwnedHotkeys, m.p.StakingHotkeys):
        known[coldkey] = [*(one for one in known[coldkey] if one != hotkey), hotkey]
    give(m, locked, hotkey, coldkey)
    collateral._store(m.p, m.net, hotkey, coldkey, Collateral(**{"locked": locked, "drain_ratio": ONE, **fields}))


# -- rules ------------------------------------------------------------------------------------------------------------


def test_a_price_splits_into_burned_and_locked() -> None:
    assert rules.split_price(TAO, 0, 5, ONE) == Charge(TAO, 0)
    assert rules.split_price(1_000, 32_768, 0, ONE) == Charge(500, 500)  # 500.0076 floored
    assert rules.split_price(1_000, 32_768, 200, ONE * 2) == Charge(500, 100)  # 200 alpha at 2 count for 400
    assert rules.split_price(1_000, 32_768, 900, ONE) == Charge(500, 0)
    assert rules.split_price(1_000, 62_258, 0, ONE) == Charge(51, 949)


def test_one_swap_is_divided_in_proportion() -> None:
    assert rules.lock_part(1_000, Charge(500, 100)) == 166
    assert rules.lock_part(1_000, Charge(0, 0)) == 0
    assert rules.purchase_limit(ONE // 2) == 524_999_999  # 0.525 cut to 64 bits; TAO per alpha times 1e9


@pytest.mark.parametrize(
    "floor, locked, captured", [(0, 20, 0), (90, 90, 0), (100, 100, 0), (120, 120, 20), (500, 140, 40)]
)
def test_a_payout_drains_down_to_the_floor_or_fills_up_to_it(floor: int, locked: int, captured: int) -> None:
    """The figures of the public Rust test of collateral under paused rewards: 100 locked, ratio 2, a payout of 40."""
    after, taken = rules.settle(Collateral(100, 2 * ONE, floor), 40, 40)
    assert (after, taken) == (Collateral(locked, 2 * ONE, floor, 40), captured)


def test_a_lock_that_is_drained_is_forgotten() -> None:
    assert rules.settle(Collateral(80, 2 * ONE), 40, 40) == (None, 0)
    assert rules.settle(Collateral(100, ONE // 3), 40, 40) == (Collateral(87, ONE // 3, 0, 40), 0)  # 13.3 floored
    assert rules.settle(Collateral(100, ONE, 500), 40, 7) == (Collateral(107, ONE, 500, 40), 7)  # only the owner's own
    assert rules.merge(Collateral(1, 5, 2, 3), Collateral(10, 4, 20, 30)) == Collateral(11, 4, 22, 33)


# -- registration -----------------------------------------------------------------------------------------------------


def test_a_registration_buys_once_burns_a_part_and_locks_the_rest(m: Market) -> None:
    p, price = m.p, m.p.Burn[m.net]
    pool, out, free = staking.pool_of(p, m.net), p.SubnetAlphaOut[m.net], m.rt.balances.free(CHARLIE)
    swap = market.buy(pool, price, 33)
    cost = rules.split_price(price, HALF, 0, ONE)
    recycled, flow = p.RAORecycledForRegistration[m.net], p.SubnetTaoFlow[m.net]
    m.rt.events.clear()
    register(m)
    part = swap.paid_out * cost.topup // price
    assert 0 < part < swap.paid_out and held(m) == part
    assert record(m) == Collateral(part, ONE)
    assert p.ColdkeyMinerCollateral[m.net, CHARLIE] == part and p.ColdkeyCollateralHotkeys[m.net, CHARLIE] == [NEW]
    assert p.SubnetAlphaOut[m.net] == out + part
    assert free - m.rt.balances.free(CHARLIE) == price
    assert p.RAORecycledForRegistration[m.net] - recycled == cost.burned
    assert p.SubnetTaoFlow[m.net] - flow == swap.paid_in
    assert [name for name, _ in m.events()] == ["StakeAdded", "CollateralLocked", "NeuronRegistered"]
    assert m.last("StakeAdded") == (CHARLIE, NEW, cost.topup, part, m.net, swap.fee)
    assert m.last("CollateralLocked") == {"netuid": m.net, "hotkey": NEW, "locked": part, "total_locked": part}


def test_without_a_share_everything_is_burned(m: Market) -> None:
    m.root("AdminUtils", "sudo_set_collateral_lock_share", netuid=m.net, lock_share=0)
    out = m.p.SubnetAlphaOut[m.net]
    register(m)
    assert held(m) == 0 and m.p.SubnetAlphaOut[m.net] == out
    assert collateral.record_of(m.p, m.net, NEW, CHARLIE) is None


@pytest.mark.parametrize("call, more", [("burned_register", {}), ("register_limit", {"limit_price": 20 * TAO})])
def test_the_whole_price_is_spent_within_five_percent_or_nobody_registers(
    m: Market, call: str, more: dict[str, int]
) -> None:
    """test_registration_collateral_swap_requires_full_charge: a price of 20 TAO, half of it locked, in pools of 100 and
    of 10,000 TAO."""
    p, price = m.p, 20 * TAO
    p.Burn[m.net] = price
    m.rt.balances.mint(CHARLIE, 100 * TAO)
    p.SubnetTAO[m.net] = p.SubnetAlphaIn[m.net] = 100 * TAO
    free = m.rt.balances.free(CHARLIE)
    assert m.refusal(CHARLIE, call, netuid=m.net, hotkey=NEW, **more) == "SlippageTooHigh"
    assert (p.Uids[m.net, NEW], p.Burn[m.net], m.rt.balances.free(CHARLIE)) == (None, price, free)
    p.SubnetTAO[m.net] = price // 2_000  # more than can be put into a swap at all
    assert m.refusal(CHARLIE, call, netuid=m.net, hotkey=NEW, **more) == "SlippageTooHigh"
    p.SubnetTAO[m.net] = p.SubnetAlphaIn[m.net] = 10_000 * TAO
    swap = market.buy(staking.pool_of(p, m.net), price, 33)
    m.call(CHARLIE, call, netuid=m.net, hotkey=NEW, **more)
    assert free - m.rt.balances.free(CHARLIE) == price
    assert record(m).locked == swap.paid_out * rules.split_price(price, HALF, 0, ONE).topup // price > 0


def test_a_price_that_is_burned_whole_is_spent_at_any_price(m: Market) -> None:
    m.root("AdminUtils", "sudo_set_collateral_lock_share", netuid=m.net, lock_share=0)
    m.p.Burn[m.net] = 20 * TAO
    m.p.SubnetTAO[m.net] = m.p.SubnetAlphaIn[m.net] = 10 * TAO
    free = m.rt.balances.free(CHARLIE)
    register(m)
    assert free - m.rt.balances.free(CHARLIE) == 20 * TAO


def test_a_pruned_miner_pays_less_the_next_time_at_the_present_ratio(m: Market) -> None:
    register(m)
    m.p.ImmunityPeriod[m.net] = m.p.MinNonImmuneUids[m.net] = 0
    m.p.MaxAllowedUids[m.net] = 3
    m.p.Emission[m.net] = [0, 5, 0]
    register(m, OTHER, BOB)
    assert m.p.Uids[m.net, NEW] is None
    before = record(m)
    assert before.locked == held(m) > 0  # deregistration leaves it locked
    refused = m.refusal(CHARLIE, "remove_stake", hotkey=NEW, netuid=m.net, amount_unstaked=before.locked)
    assert refused == "StakeUnavailable"
    m.root("AdminUtils", "sudo_set_collateral_drain_ratio", netuid=m.net, drain_ratio={"bits": ONE // 4})
    m.p.SubnetMovingPrice[m.net] = {"bits": 1 << 30}  # a quarter of a TAO: the lock counts for that
    price, free = m.p.Burn[m.net], m.rt.balances.free(CHARLIE)
    m.p.Emission[m.net] = [0, 5, 0]
    register(m)
    requirement = price - rules.split_price(price, HALF, 0, ONE).burned
    credit = before.locked // 4
    assert 0 < credit < requirement
    assert free - m.rt.balances.free(CHARLIE) == price - credit
    assert record(m).locked > before.locked and record(m).drain_ratio == ONE // 4


def test_a_coldkey_has_collateral_on_32_hotkeys_of_a_subnet(m: Market) -> None:
    m.p.ColdkeyCollateralHotkeys[m.net, CHARLIE] = [bytes(30) + b"\1" + bytes((number,)) for number in range(32)]
    assert m.refusal(CHARLIE, "burned_register", netuid=m.net, hotkey=NEW) == "ColdkeyCollateralPositionsFull"


def test_a_top_up_has_to_be_affordable(m: Market) -> None:
    poor = bytes(31) + b"\7"
    m.rt.balances.mint(poor, m.p.Burn[m.net] - 1)
    assert m.refusal(poor, "burned_register", netuid=m.net, hotkey=NEW) == "NotEnoughBalanceToStake"


# -- payouts ----------------------------------------------------------------------------------------------------------


def pay(m: Market, hotkey: bytes, server: int) -> None:
    distribution._pay_incentive(m.p, m.net, [epochs.Earned(hotkey, server, 0)])


@pytest.mark.parametrize("floor", [0, 120, 500])
def test_an_incentive_settles_before_it_is_staked_anywhere(m: Market, floor: int) -> None:
    """Captured alpha stays on the miner's own hotkey, the rest goes to its auto-stake destination. The figures of the
    public Rust test of collateral under paused rewards."""
    register(m, OTHER, CHARLIE)
    bond(m, 100, drain_ratio=2 * ONE, min_locked=floor)
    m.p.AutoStakeDestination[CHARLIE, m.net] = BOB_HOT
    before = held(m, BOB_HOT)
    total = m.p.ColdkeyMinerCollateral[m.net, CHARLIE]
    m.p.CollateralDrainRatio[m.net] = {"bits": 9 * ONE}  # later changes do not reach an existing lock
    pay(m, NEW, 40)
    captured = min(max(floor - 100, 0), 40)
    assert record(m) == Collateral(20 if not floor else 100 + captured, 2 * ONE, floor, 40)
    assert held(m) == 100 + captured and held(m, BOB_HOT) == before + 40 - captured
    assert m.p.ColdkeyMinerCollateral[m.net, CHARLIE] == total - 100 + record(m).locked
    events = [value["incentive"] for name, value in m.events() if name == "AutoStakeAdded"]
    assert events == ([40 - captured] if captured < 40 else [])


def test_a_drained_lock_leaves_no_trace(m: Market) -> None:
    bond(m, 100)
    pay(m, NEW, 100)
    for item, key in (
        (m.p.MinerCollateral, (m.net, NEW, CHARLIE)),
        (m.p.ColdkeyMinerCollateral, (m.net, CHARLIE)),
        (m.p.ColdkeyCollateralHotkeys, (m.net, CHARLIE)),
    ):
        assert key not in item  # type: ignore[operator]


def test_dividends_count_whole_but_only_the_take_is_captured(m: Market) -> None:
    """test_alpha_dividends_floor_capture_only_from_take and its sister without a floor, of the public chain."""
    bond(m, 2_000_000, BOB_HOT, BOB)
    m.p.Delegates[BOB_HOT] = 32_767
    dividend = distribution.coinbase.Dividends(1_000_000 << 32, 0)
    distribution._pay_dividends(m.p, m.net, {BOB_HOT: dividend})
    take, rest = distribution.coinbase.take_split(dividend.alpha, 32_767)
    assert record(m, BOB_HOT, BOB) == Collateral(1_000_000, ONE, 0, 1_000_000)
    floor = 10_000_000
    m.call(BOB, "set_min_collateral", netuid=m.net, hotkey=BOB_HOT, min_locked=floor)
    locked = record(m, BOB_HOT, BOB).locked
    distribution._pay_dividends(m.p, m.net, {BOB_HOT: dividend})
    assert record(m, BOB_HOT, BOB) == Collateral(locked + take, ONE, floor, 2_000_000)
    assert m.p.AlphaDividendsPerSubnet[m.net, BOB_HOT] == rest


# -- the miner's calls ------------------------------------------------------------------------------------------------


def test_adding_locks_what_is_free_and_buys_the_rest(m: Market) -> None:
    bond(m, 10 * TAO)
    give(m, 3 * TAO)
    free = m.rt.balances.free(CHARLIE)
    price = 10**18
    m.call(CHARLIE, "add_collateral", netuid=m.net, hotkey=NEW, alpha=2 * TAO, limit_price=price)
    assert m.rt.balances.free(CHARLIE) == free
    assert m.last("CollateralLocked") == {
        "netuid": m.net, "hotkey": NEW, "locked": 2 * TAO, "total_locked": 12 * TAO,
    }  # fmt: skip
    bought = market.buy(staking.pool_of(m.p, m.net), 4 * TAO, 33).paid_out
    m.call(CHARLIE, "add_collateral", netuid=m.net, hotkey=NEW, alpha=5 * TAO, limit_price=price)
    assert free - m.rt.balances.free(CHARLIE) == 4 * TAO  # the 4 missing at a moving price of 1
    assert m.last("CollateralLocked")["locked"] == TAO + bought
    assert record(m).locked == held(m) == 13 * TAO + bought


def test_what_adding_refuses_in_the_chains_order(m: Market) -> None:
    refuse = lambda who=CHARLIE, **change: m.refusal(  # noqa: E731
        who, "add_collateral", **{"netuid": m.net, "hotkey": NEW, "alpha": 5 * TAO, "limit_price": 10**18, **change}
    )
    assert refuse(netuid=0) == "RegistrationNotPermittedOnRootSubnet"
    assert refuse(netuid=99) == "SubnetNotExists"
    assert refuse(netuid=1) == "SubtokenDisabled"
    assert refuse() == "HotKeyAccountNotExists"
    assert refuse(hotkey=BOB_HOT, alpha=0) == "NonAssociatedColdKey"
    m.call(CHARLIE, "try_associate_hotkey", hotkey=NEW)
    assert refuse(alpha=0) == "AmountTooLow"
    assert refuse(limit_price=1) == "PriceLimitExceeded"  # below the present price
    near = collateral.rules.purchase_limit(staking.spot_price(m.p, m.net)) * 100 // 105 + 1
    assert refuse(limit_price=near) == "SlippageTooHigh"
    assert refuse(alpha=10**18) == "InsufficientLiquidity"
    m.rt.balances.burn(CHARLIE, m.rt.balances.free(CHARLIE) - 5 * TAO)  # all but what may not leave is not enough
    assert refuse() == "NotEnoughBalanceToStake"
    m.p.SubnetMovingPrice[m.net] = {"bits": 0}
    assert refuse() == "InsufficientLiquidity"


def test_a_floor_is_set_kept_and_removed(m: Market) -> None:
    m.call(CHARLIE, "try_associate_hotkey", hotkey=NEW)
    floor = lambda amount: m.call(  # noqa: E731
        CHARLIE, "set_min_collateral", netuid=m.net, hotkey=NEW, min_locked=amount
    )
    floor(500)
    assert record(m) == Collateral(0, ONE, 500)
    assert m.last("MinCollateralSet") == {"netuid": m.net, "hotkey": NEW, "min_locked": 500}
    pay(m, NEW, 40)
    assert record(m) == Collateral(40, ONE, 500, 40) and held(m) == 40
    floor(0)
    assert record(m) == Collateral(40, ONE, 0, 40)
    pay(m, NEW, 40)
    assert collateral.record_of(m.p, m.net, NEW, CHARLIE) is None
    given = {"netuid": m.net, "hotkey": BOB_HOT, "min_locked": 1}
    assert m.refusal(CHARLIE, "set_min_collateral", **given) == "NonAssociatedColdKey"
    assert m.refusal(CHARLIE, "set_min_collateral", **{**given, "netuid": 0}) == "RegistrationNotPermittedOnRootSubnet"


# -- what it holds back -----------------------------------------------------------------------------------------------


def test_locked_alpha_leaves_neither_the_position_nor_the_coldkey(m: Market) -> None:
    bond(m, 10 * TAO)
    give(m, 2 * TAO)
    m.call(CHARLIE, "try_associate_hotkey", hotkey=OTHER)
    base = {"hotkey": NEW, "netuid": m.net}
    assert m.refusal(CHARLIE, "remove_stake", amount_unstaked=3 * TAO, **base) == "StakeUnavailable"
    assert m.refusal(CHARLIE, "burn_alpha", amount=3 * TAO, **base) == "StakeUnavailable"
    within = {"origin_netuid": m.net, "destination_netuid": m.net, "alpha_amount": 3 * TAO}
    move = {"origin_hotkey": NEW, "destination_hotkey": OTHER, **within}
    assert m.refusal(CHARLIE, "move_stake", **move) == "StakeUnavailable"  # not even to an own hotkey
    gift = {"destination_coldkey": ALICE, "hotkey": NEW, **within}
    assert m.refusal(CHARLIE, "transfer_stake", **gift) == "StakeUnavailable"
    m.call(CHARLIE, "add_stake", hotkey=OTHER, netuid=m.net, amount_staked=TAO)
    m.call(CHARLIE, "transfer_stake", **{**gift, "hotkey": OTHER, "alpha_amount": held(m, OTHER)})
    m.call(CHARLIE, "remove_stake", amount_unstaked=2 * TAO, **base)
    assert held(m) == 10 * TAO


# -- swapped keys -----------------------------------------------------------------------------------------------------


def test_collateral_follows_a_swapped_hotkey_and_merges(m: Market) -> None:
    bond(m, 100, NEW, drain_ratio=3 * ONE, min_locked=7, earned=9)
    bond(m, 50, OTHER, drain_ratio=2 * ONE)
    collateral.move_to_hotkey(m.p, m.net, NEW, OTHER, CHARLIE)
    assert record(m, OTHER) == Collateral(150, 2 * ONE, 7, 9)
    assert m.p.ColdkeyMinerCollateral[m.net, CHARLIE] == 150
    assert m.p.ColdkeyCollateralHotkeys[m.net, CHARLIE] == [OTHER]


def test_collateral_follows_a_swapped_coldkey(m: Market) -> None:
    bond(m, 100, NEW)
    bond(m, 50, OTHER)
    collateral.move_to_coldkey(m.p, m.net, CHARLIE, BOB)
    assert record(m, NEW, BOB).locked == 100 and record(m, OTHER, BOB).locked == 50
    assert m.p.ColdkeyMinerCollateral[m.net, BOB] == 150
    assert sorted(m.p.ColdkeyCollateralHotkeys[m.net, BOB]) == sorted([NEW, OTHER])
    assert (m.net, CHARLIE) not in m.p.ColdkeyMinerCollateral
    assert (m.net, CHARLIE) not in m.p.ColdkeyCollateralHotkeys
