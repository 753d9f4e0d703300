"""Moving stake between hotkeys, coldkeys and subnets; destroying it; where incentive is staked."""

from __future__ import annotations

from typing import Any

import pytest

from localnet.rules import swap as market
from localnet.runtime.subtensor import positions, stake_moves, staking
from tests.support.market import ALICE, BOB, BOB_HOT, CHARLIE, HOT, TAO, Market, fresh

OTHER_HOT = bytes(31) + b"\3"


@pytest.fixture
def m() -> Market:
    """Charlie has stake on HOT; `m.other` is a second started subnet."""
    market = fresh()
    market.other = market.subnet(ALICE, OTHER_HOT)  # type: ignore[attr-defined]
    market.call(CHARLIE, "add_stake", hotkey=HOT, netuid=market.net, amount_staked=10 * TAO)
    return market


def other(m: Market) -> int:
    return int(m.other)  # type: ignore[attr-defined]


def held(m: Market, hotkey: bytes = HOT, coldkey: bytes = CHARLIE, netuid: int | None = None) -> int:
    return staking.stake_of(m.p, hotkey, coldkey, m.net if netuid is None else netuid)


def names(m: Market) -> list[str]:
    return [name for name, _ in m.events()]


def test_moving_within_a_subnet_costs_nothing(m: Market) -> None:
    alpha, pool = held(m), staking.pool_of(m.p, m.net)
    m.call(
        CHARLIE, "move_stake", origin_hotkey=HOT, destination_hotkey=BOB_HOT,
        origin_netuid=m.net, destination_netuid=m.net, alpha_amount=alpha,
    )  # fmt: skip
    assert (held(m), held(m, BOB_HOT)) == (0, alpha)
    assert staking.pool_of(m.p, m.net) == pool
    assert names(m)[-3:] == ["StakeRemoved", "StakeAdded", "StakeMoved"]
    value = alpha * staking.spot_price(m.p, m.net) >> 64
    assert m.last("StakeMoved") == (CHARLIE, HOT, m.net, BOB_HOT, m.net, value)
    assert m.last("StakeAdded")[5] == 0
    assert m.p.StakingHotkeys[CHARLIE] == [BOB_HOT]


def test_swapping_between_subnets_pays_one_fee(m: Market) -> None:
    alpha = held(m)
    m.call(CHARLIE, "swap_stake", hotkey=HOT, origin_netuid=m.net, destination_netuid=other(m), alpha_amount=alpha)
    tao, _, _, removed_fee = m.last("StakeRemoved")[2:6]
    assert removed_fee == alpha * 33 // 65535
    assert m.last("StakeAdded")[2] == tao
    assert m.last("StakeAdded")[5] == 0
    assert m.last("StakeSwapped") == (CHARLIE, HOT, m.net, other(m), tao)
    assert held(m) == 0
    assert held(m, netuid=other(m)) == m.last("StakeAdded")[3]


def test_leaving_root_pays_the_fee_at_the_destination(m: Market) -> None:
    m.root("AdminUtils", "sudo_set_subtoken_enabled", netuid=0, subtoken_enabled=True)
    m.call(CHARLIE, "add_stake", hotkey=HOT, netuid=0, amount_staked=TAO)
    m.call(CHARLIE, "swap_stake", hotkey=HOT, origin_netuid=0, destination_netuid=m.net, alpha_amount=TAO)
    assert m.last("StakeRemoved")[5] == 0
    assert m.last("StakeAdded")[5] == TAO * 33 // 65535


def transfer(m: Market, to: bytes, amount: int, origin: int, destination: int) -> dict[str, Any]:
    return {
        "destination_coldkey": to, "hotkey": HOT, "origin_netuid": origin, "destination_netuid": destination,
        "alpha_amount": amount,
    }  # fmt: skip


def test_a_transfer_gives_the_stake_to_another_coldkey(m: Market) -> None:
    alpha = held(m)
    m.call(CHARLIE, "transfer_stake", **transfer(m, BOB, alpha, m.net, m.net))
    assert (held(m), held(m, coldkey=BOB)) == (0, alpha)
    assert m.last("StakeTransferred")[:5] == (CHARLIE, BOB, HOT, m.net, m.net)
    free = m.rt.balances.free(ALICE)
    m.call(BOB, "transfer_stake", **transfer(m, ALICE, alpha, m.net, other(m)))
    assert held(m, coldkey=ALICE, netuid=other(m)) == m.last("StakeAdded")[3]
    assert m.rt.balances.free(ALICE) == free  # the TAO only passed through


def test_the_owner_can_switch_transfers_off(m: Market) -> None:
    m.root("AdminUtils", "sudo_set_toggle_transfer", netuid=other(m), toggle=False)
    m.call(CHARLIE, "transfer_stake", **transfer(m, BOB, TAO, m.net, m.net))
    assert m.refusal(CHARLIE, "transfer_stake", **transfer(m, BOB, TAO, m.net, other(m))) == "TransferDisallowed"


def test_too_little_for_a_second_leg_stays_tao(m: Market) -> None:
    """A cross-subnet transfer may be as small as the minimum transfer, which is below the minimum stake."""
    free = m.rt.balances.free(BOB)
    m.call(CHARLIE, "transfer_stake", **transfer(m, BOB, 500_000, m.net, other(m)))
    received = m.rt.balances.free(BOB) - free
    assert positions.min_transfer(m.p) < received < positions.min_stake(m.p)
    assert names(m)[-2:] == ["StakeRemoved", "StakeTransferred"]


@pytest.mark.parametrize(
    "change, error",
    [
        ({"destination_hotkey": HOT, "destination_netuid": "net"}, "SameNetuid"),
        ({"destination_netuid": 77}, "SubnetNotExists"),
        ({"destination_netuid": 1}, "SubtokenDisabled"),
        ({"destination_hotkey": bytes(31) + b"\6"}, "HotKeyAccountNotExists"),
        ({"alpha_amount": 1_000_000}, "AmountTooLow"),
        ({"alpha_amount": 1, "destination_netuid": "net"}, "AmountTooLow"),
    ],
)
def test_move_stake_refuses(m: Market, change: dict[str, Any], error: str) -> None:
    arguments = {
        "origin_hotkey": HOT, "destination_hotkey": BOB_HOT, "origin_netuid": m.net, "destination_netuid": other(m),
        "alpha_amount": 10**18, **change,
    }  # fmt: skip
    if arguments["destination_netuid"] == "net":
        arguments["destination_netuid"] = m.net
    assert m.refusal(CHARLIE, "move_stake", **arguments) == error


def test_a_limit_on_the_ratio_of_prices(m: Market) -> None:
    for netuid in (m.net, other(m)):  # two pools of the same size: the ratio of their prices is 1
        m.p.SubnetTAO[netuid] = m.p.SubnetAlphaIn[netuid] = 1_000 * TAO
    arguments = {"hotkey": HOT, "origin_netuid": m.net, "destination_netuid": other(m), "alpha_amount": 9 * TAO}
    tight = {**arguments, "limit_price": TAO * 999 // 1000}
    assert m.refusal(CHARLIE, "swap_stake_limit", **tight, allow_partial=False) == "SlippageTooHigh"
    most = stake_moves.max_move(m.p, m.net, other(m), tight["limit_price"])
    assert 0 < most < TAO
    m.call(CHARLIE, "swap_stake_limit", **tight, allow_partial=True)
    _, _, _, sold, _, fee = m.last("StakeRemoved")
    assert sold + fee == most
    assert stake_moves.max_move(m.p, m.net, other(m), 2 * TAO) == 0
    assert stake_moves.max_move(m.p, 0, 0, TAO) == (1 << 64) - 1


def test_a_limit_against_root_is_that_of_a_sale(m: Market) -> None:
    limit = market.price_rao(staking.pool_of(m.p, m.net)) * 9 // 10
    assert stake_moves.max_move(m.p, m.net, 0, limit) == market.max_sell(staking.pool_of(m.p, m.net), limit, 33)


def test_recycled_alpha_leaves_the_issuance_burned_alpha_does_not(m: Market) -> None:
    alpha, out = held(m), m.p.SubnetAlphaOut[m.net]
    m.call(CHARLIE, "recycle_alpha", hotkey=HOT, amount=alpha // 2, netuid=m.net)
    assert m.p.SubnetAlphaOut[m.net] == out - alpha // 2
    m.call(CHARLIE, "burn_alpha", hotkey=HOT, amount=10**18, netuid=m.net)
    assert m.p.SubnetAlphaOut[m.net] == out - alpha // 2
    assert held(m) == 0
    assert m.last("AlphaRecycled") == (CHARLIE, HOT, alpha // 2, m.net)
    assert m.last("AlphaBurned")[2] == alpha - alpha // 2


def test_recycling_is_refused_where_there_is_nothing_to_recycle(m: Market) -> None:
    base = {"hotkey": HOT, "amount": TAO, "netuid": m.net}
    assert m.refusal(CHARLIE, "recycle_alpha", **{**base, "netuid": 99}) == "SubnetNotExists"
    assert m.refusal(CHARLIE, "recycle_alpha", **{**base, "netuid": 0}) == "CannotBurnOrRecycleOnRootSubnet"
    assert m.refusal(CHARLIE, "burn_alpha", **{**base, "netuid": 1}) == "SubtokenDisabled"
    assert m.refusal(CHARLIE, "burn_alpha", **{**base, "hotkey": bytes(31) + b"\6"}) == "HotKeyAccountNotExists"
    m.p.SubnetAlphaOut[m.net] = 5
    assert m.refusal(CHARLIE, "burn_alpha", **base) == "InsufficientLiquidity"


def test_buying_to_burn_leaves_no_stake(m: Market) -> None:
    before = held(m, coldkey=BOB)
    m.call(BOB, "add_stake_burn", hotkey=HOT, netuid=m.net, amount=TAO, limit=None)
    assert held(m, coldkey=BOB) == before == 0
    event = m.last("AddStakeBurn")
    assert event["alpha"] == m.last("StakeAdded")[3] == m.last("AlphaBurned")[2]


def test_auto_stake_points_to_a_registered_hotkey(m: Market) -> None:
    set_to = lambda hotkey, netuid=m.net: {"netuid": netuid, "hotkey": hotkey}  # noqa: E731
    call = "set_coldkey_auto_stake_hotkey"
    assert m.refusal(CHARLIE, call, **set_to(HOT, 99)) == "SubnetNotExists"
    assert m.refusal(CHARLIE, call, **set_to(bytes(32))) == "HotKeyNotRegisteredInSubNet"
    m.call(CHARLIE, call, **set_to(HOT))
    assert m.refusal(CHARLIE, call, **set_to(HOT)) == "SameAutoStakeHotkeyAlreadySet"
    m.call(CHARLIE, call, **set_to(BOB_HOT))
    assert m.p.AutoStakeDestination[CHARLIE, m.net] == BOB_HOT
    assert m.p.AutoStakeDestinationColdkeys[HOT, m.net] == []
    assert m.p.AutoStakeDestinationColdkeys[BOB_HOT, m.net] == [CHARLIE]
    assert m.last("AutoStakeDestinationSet") == {"coldkey": CHARLIE, "netuid": m.net, "hotkey": BOB_HOT}


def test_moved_root_stake_starts_to_age_anew(m: Market) -> None:
    m.root("AdminUtils", "sudo_set_subtoken_enabled", netuid=0, subtoken_enabled=True)
    m.call(CHARLIE, "add_stake", hotkey=HOT, netuid=0, amount_staked=5 * TAO)
    m.p.RootStakeUnlockInterval.put(10)
    m.at(m.rt.number + 10)
    m.call(
        CHARLIE, "move_stake", origin_hotkey=HOT, destination_hotkey=BOB_HOT,
        origin_netuid=0, destination_netuid=0, alpha_amount=5 * TAO,
    )  # fmt: skip
    assert m.p.LastColdkeyHotkeyStakeBlock[CHARLIE, BOB_HOT] == m.rt.number
    leave = {"hotkey": BOB_HOT, "netuid": 0, "amount_unstaked": TAO}
    assert m.refusal(CHARLIE, "remove_stake", **leave) == "RootStakeLocked"
