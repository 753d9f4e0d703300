"""Takes and children: who may change them, when they come into force, what both sides of an edge hold."""

from __future__ import annotations

from typing import Any

import pytest

from localnet.errors import InvalidTransaction
from localnet.rules.fixed import U64_MAX
from localnet.runtime.framework import Signed
from localnet.runtime.subtensor import children, delegation, dissolution, staking
from tests.support.market import ALICE, BOB, BOB_HOT, CHARLIE, HOT, TAO, Market, fresh

A, B, C = (bytes(31) + bytes((n,)) for n in (11, 12, 13))


@pytest.fixture
def m() -> Market:
    return fresh()


# -- takes ------------------------------------------------------------------------------------------------------------


def test_a_take_falls_freely_and_rises_seldom(m: Market) -> None:
    m.p.Delegates[BOB_HOT] = 11_796
    m.call(BOB, "decrease_take", hotkey=BOB_HOT, take=5_000)
    assert m.last("TakeDecreased") == (BOB, BOB_HOT, 5_000)
    m.call(BOB, "decrease_take", hotkey=BOB_HOT, take=4_000)
    raise_it = {"hotkey": BOB_HOT, "take": 6_000}
    assert m.refusal(BOB, "increase_take", **raise_it) == "DelegateTxRateLimitExceeded"
    m.at(m.rt.number + 216_000)
    assert m.refusal(BOB, "increase_take", **raise_it) == "DelegateTxRateLimitExceeded"
    m.at(m.rt.number + 1)
    m.call(BOB, "increase_take", **raise_it)
    assert m.p.Delegates[BOB_HOT] == 6_000


@pytest.mark.parametrize(
    "who, function, take, error, code",
    [
        (ALICE, "increase_take", 101, "NonAssociatedColdKey", 25),
        (ALICE, "increase_take", 99, "NonAssociatedColdKey", 26),  # the pool looks at the bounds first
        (BOB, "increase_take", 5_000, "DelegateTakeTooLow", None),  # and not at the take so far
        (BOB, "increase_take", 11_797, "DelegateTakeTooHigh", 27),
        (BOB, "decrease_take", 5_000, "DelegateTakeTooLow", None),
        (BOB, "decrease_take", 99, "DelegateTakeTooLow", 26),
    ],
)
def test_wrong_takes_are_refused_by_pool_and_chain(
    m: Market, who: bytes, function: str, take: int, error: str, code: int | None
) -> None:
    m.p.Delegates[BOB_HOT] = 5_000
    m.p.MinDelegateTake.put(100)
    arguments = {"hotkey": BOB_HOT, "take": take}
    assert m.refusal(who, function, **arguments) == error
    if code is None:
        m.p.validate(who, function, arguments)
        return
    with pytest.raises(InvalidTransaction) as refused:
        m.p.validate(who, function, arguments)
    assert refused.value.reason == ("Custom", code)


@pytest.mark.parametrize(
    "function, take, error",
    [
        ("decrease_take", 65_535, "DelegateTakeTooHigh"),
        ("increase_take", 99, "DelegateTakeTooLow"),
        ("increase_take", 11_797, "DelegateTakeTooHigh"),
    ],
)
def test_a_batch_does_not_carry_a_take_past_its_bounds(m: Market, function: str, take: int, error: str) -> None:
    """Each call looks at one bound itself; the other one is the dispatch extension's (check_delegate_take.rs)."""
    m.call(BOB, "try_associate_hotkey", hotkey=A)  # no delegate yet: there is no take to compare with
    m.p.MinDelegateTake.put(100)
    call = ("SubtensorModule", (function, {"hotkey": A, "take": take}))
    assert m.refusal(BOB, "batch_all", pallet="Utility", calls=[call]) == error
    call = ("SubtensorModule", (function, {"hotkey": A, "take": 100}))
    m.dispatch(Signed(BOB), "Utility", "batch_all", calls=[call])
    assert m.p.Delegates[A] == 100


def test_a_hotkey_without_an_owner_has_no_take(m: Market) -> None:
    assert m.refusal(BOB, "increase_take", hotkey=A, take=1) == "HotKeyAccountNotExists"


def test_a_childs_take_has_bounds_and_its_rises_a_rate_limit(m: Market) -> None:
    def take(value: int) -> dict[str, Any]:
        return {"hotkey": BOB_HOT, "netuid": m.net, "take": value}

    assert m.refusal(ALICE, "set_childkey_take", **take(1)) == "NonAssociatedColdKey"
    assert m.refusal(BOB, "set_childkey_take", **take(11_797)) == "InvalidChildkeyTake"
    m.call(BOB, "set_childkey_take", **take(1_000))
    assert m.last("ChildKeyTakeSet") == (BOB_HOT, 1_000)
    assert m.refusal(BOB, "set_childkey_take", **take(1_001)) == "TxChildkeyTakeRateLimitExceeded"
    m.call(BOB, "set_childkey_take", **take(900))
    m.at(m.rt.number + 5)
    m.call(BOB, "set_childkey_take", **take(1_001))
    m.root("AdminUtils", "sudo_set_min_childkey_take_per_subnet", netuid=m.net, take=2_000)
    assert delegation.childkey_take(m.p, BOB_HOT, m.net) == 2_000
    assert m.refusal(BOB, "set_childkey_take", **take(1_999)) == "InvalidChildkeyTake"


# -- children ---------------------------------------------------------------------------------------------------------


def put(m: Market, edges: list[tuple[int, bytes]], netuid: int | None = None) -> dict[str, Any]:
    return {"hotkey": BOB_HOT, "netuid": m.net if netuid is None else netuid, "children": edges}


def test_children_wait_for_the_cooldown_and_then_hold_on_both_sides(m: Market) -> None:
    edges = [(U64_MAX // 2, B), (U64_MAX // 4, A)]
    due = m.rt.number + m.p.PendingChildKeyCooldown.get()
    m.call(BOB, "set_children", **put(m, edges))
    assert m.last("SetChildrenScheduled") == (BOB_HOT, m.net, due, edges)
    m.at(due)
    children.apply_pending(m.p, m.net)
    assert m.p.ChildKeys[BOB_HOT, m.net] == []
    m.at(due + 1)
    children.apply_pending(m.p, m.net)
    assert m.p.ChildKeys[BOB_HOT, m.net] == [(U64_MAX // 4, A), (U64_MAX // 2, B)]
    assert m.p.ParentKeys[A, m.net] == [(U64_MAX // 4, BOB_HOT)]
    assert m.last("SetChildren") == (BOB_HOT, m.net, edges)
    assert (m.net, BOB_HOT) not in m.p.PendingChildKeys


def test_changing_children_updates_adds_and_removes_parents(m: Market) -> None:
    m.p.SubtokenEnabled[m.net] = False  # not started: applied at once
    m.call(BOB, "set_children", **put(m, [(100, A), (200, B)]))
    m.at(m.rt.number + 150)
    m.call(BOB, "set_children", **put(m, [(300, B), (400, C)]))
    assert m.p.ParentKeys[A, m.net] == [] and (A, m.net) not in m.p.ParentKeys
    assert m.p.ParentKeys[B, m.net] == [(300, BOB_HOT)]
    assert m.p.ParentKeys[C, m.net] == [(400, BOB_HOT)]
    m.at(m.rt.number + 150)
    m.call(BOB, "set_children", **put(m, []))
    assert (BOB_HOT, m.net) not in m.p.ChildKeys and (C, m.net) not in m.p.ParentKeys


@pytest.mark.parametrize(
    "edges, error",
    [
        ([(1, A), (2, A)], "DuplicateChild"),
        ([(1, BOB_HOT)], "InvalidChild"),
        ([(1, bytes(31) + bytes((n,))) for n in range(20, 26)], "TooManyChildren"),
        ([(U64_MAX, A), (1, B)], "ProportionOverflow"),
        ([(1, HOT)], "ChildParentInconsistency"),
    ],
)
def test_children_that_make_no_sense(m: Market, edges: list[tuple[int, bytes]], error: str) -> None:
    m.p.ParentKeys[BOB_HOT, m.net] = [(1, HOT)]
    assert m.refusal(BOB, "set_children", **put(m, edges)) == error


def test_who_may_set_children_and_how_often(m: Market) -> None:
    assert m.refusal(BOB, "set_children", **put(m, [], netuid=0)) == "RegistrationNotPermittedOnRootSubnet"
    assert m.refusal(BOB, "set_children", **put(m, [], netuid=99)) == "SubnetNotExists"
    assert m.refusal(CHARLIE, "set_children", **put(m, [])) == "NonAssociatedColdKey"
    m.p.StakeThreshold.put(TAO)
    assert m.refusal(BOB, "set_children", **put(m, [(1, A)])) == "NotEnoughStakeToSetChildkeys"
    m.call(BOB, "set_children", **put(m, []))
    m.at(m.rt.number + 149)
    assert m.refusal(BOB, "set_children", **put(m, [])) == "TxRateLimitExceeded"
    m.at(m.rt.number + 1)
    m.call(BOB, "set_children", **put(m, []))


def test_pending_children_of_a_parent_that_lost_its_stake_are_dropped_when_they_are_due(m: Market) -> None:
    m.call(BOB, "add_stake", hotkey=BOB_HOT, netuid=m.net, amount_staked=10 * TAO)
    m.p.StakeThreshold.put(5 * TAO)
    m.call(BOB, "set_children", **put(m, [(1, A)]))
    m.call(BOB, "remove_stake", hotkey=BOB_HOT, netuid=m.net, amount_unstaked=10**18)
    assert (m.net, BOB_HOT) in m.p.PendingChildKeys
    m.at(m.rt.number + m.p.PendingChildKeyCooldown.get() + 1)
    children.apply_pending(m.p, m.net)
    assert (m.net, BOB_HOT) not in m.p.PendingChildKeys and not m.p.ChildKeys[BOB_HOT, m.net]


def test_children_of_a_parent_below_the_threshold_count_for_nothing(m: Market) -> None:
    """ChildkeyThresholdChecks and ChildkeyThresholdSuspended of spec 461; the edges themselves stay."""
    p, half = m.p, U64_MAX // 2
    m.call(BOB, "add_stake", hotkey=BOB_HOT, netuid=m.net, amount_staked=10 * TAO)
    children._connect(p, BOB_HOT, m.net, [(half, A)])
    p.StakeThreshold.put(5 * TAO)
    split = staking.inherited_weights(p, m.net, [BOB_HOT, A])
    assert split[1][1] > 0
    m.call(BOB, "remove_stake", hotkey=BOB_HOT, netuid=m.net, amount_unstaked=6 * TAO)
    held = p.TotalHotkeyAlpha[BOB_HOT, m.net]
    assert staking.inherited_weights(p, m.net, [A])[0][1] > 0  # until the block ends
    children.recheck_parents(p)
    assert [alpha for _, alpha, _ in staking.inherited_weights(p, m.net, [BOB_HOT, A])] == [held, 0]
    assert p.ChildKeys[BOB_HOT, m.net] == [(half, A)] and not list(p.ChildkeyThresholdChecks.keys())
    p.SubnetOwnerHotkey[m.net] = BOB_HOT  # a subnet's owner needs no stake for it there
    assert staking.children_of(p, BOB_HOT, m.net) == [(half, A)] and staking.parents_of(p, A, m.net)
    p.SubnetOwnerHotkey[m.net] = HOT
    m.call(BOB, "add_stake", hotkey=BOB_HOT, netuid=m.net, amount_staked=6 * TAO)
    children.recheck_parents(p)
    assert staking.parents_of(p, A, m.net) == [(half, BOB_HOT)]
    dissolution._delete_alpha(p, m.net)
    children.recheck_parents(p)
    assert BOB_HOT in p.ChildkeyThresholdSuspended


def test_stake_weight_follows_the_edges(m: Market) -> None:
    staking.increase_stake(m.p, BOB_HOT, BOB, m.net, 1_000_000)
    staking.increase_stake(m.p, HOT, ALICE, m.net, 500_000)
    m.p.SubtokenEnabled[m.net] = False
    m.call(BOB, "set_children", **put(m, [(U64_MAX, HOT)]))
    (own, own_alpha, _), (other, other_alpha, _) = staking.inherited_weights(m.p, m.net, [BOB_HOT, HOT])
    assert (own_alpha, other_alpha) == (0, 1_500_000)
    assert (own, other >> 64) == (0, 1_500_000)
