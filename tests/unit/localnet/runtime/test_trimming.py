"""Trimming a subnet's uids: who stays, and that everything which names a uid follows it to its new number."""

from __future__ import annotations

from typing import Any

import pytest

from localnet.rules.fixed import U64_MAX
from localnet.runtime.profile import FAST
from localnet.runtime.subtensor import children, limits, registration, staking
from tests.support.market import ALICE, BOB, TAO, Market, fresh

VALUES = [17, 42, 8, 56, 23, 91, 34, 77, 12, 65, 3, 88, 29, 51, 74, 39]
FLAGS = [bool(int(flag)) for flag in "0001011101010110"]
KEPT = [3, 5, 6, 7, 9, 11, 13, 14]  # the seven highest, and uid 6 while it is immune
NOBODY = bytes(31) + b"\1"
INDEXES = (0, 4096)  # storage indexes of two mechanisms, less the netuid


def hotkey(uid: int) -> bytes:
    return bytes(30) + b"\2" + bytes((uid,))


@pytest.fixture
def m() -> Market:
    """A subnet of two mechanisms and 16 uids of nobody in particular, out of their immunity but uid 6, with the values
    of the public Rust test test_trim_to_max_allowed_uids."""
    chain = fresh()
    p, net = chain.p, chain.net
    for uid in range(16):
        chain.p.Owner[hotkey(uid)] = BOB
        if uid >= p.SubnetworkN[net]:
            registration.append_neuron(p, net, hotkey(uid))
    for uid in (0, 1):
        del p.Uids[net, p.Keys[net, uid]]
        p.Keys[net, uid] = hotkey(uid)
        p.Uids[net, hotkey(uid)] = uid
    p.SubnetOwnerHotkey[net] = NOBODY
    p.MinAllowedUids[net] = 4
    p.MechanismCountCurrent[net] = 2
    chain.at(p.ImmunityPeriod[net] + 100)
    p.BlockAtRegistration[net, 6] = chain.rt.number
    p.Emission[net] = VALUES
    for item in (p.Consensus, p.Dividends, p.ValidatorTrust, p.StakeWeight):
        item[net] = VALUES
    p.ValidatorPermit[net], p.Active[net] = FLAGS, FLAGS
    for index in INDEXES:
        for item in (p.Incentive, p.LastUpdate, p.ConsensusByMechanism):
            item[index + net] = VALUES
        for uid in range(16):
            others = [other for other in range(16) if other != uid]
            p.Weights[index + net, uid] = [(other, uid + other) for other in others]
            p.Bonds[index + net, uid] = [(other, uid * other) for other in others]
    return chain


def trim(m: Market, most: int = 8) -> None:
    m.root("AdminUtils", "sudo_trim_to_max_allowed_uids", netuid=m.net, max_n=most)


def test_the_highest_earners_and_the_immune_stay_and_close_up(m: Market) -> None:
    """test_trim_to_max_allowed_uids."""
    p, net = m.p, m.net
    trim(m)
    kept = [56, 91, 34, 77, 65, 88, 51, 74]
    assert (p.MaxAllowedUids[net], p.SubnetworkN[net]) == (8, 8)
    for item in (p.Emission, p.Consensus, p.Dividends, p.ValidatorTrust, p.StakeWeight):
        assert item[net] == kept
    assert p.ValidatorPermit[net] == p.Active[net] == [True] * 8
    for index in INDEXES:
        for item in (p.Incentive, p.LastUpdate, p.ConsensusByMechanism):
            assert item[index + net] == kept
    assert dict(p.Keys.items(net)) == {new: hotkey(old) for new, old in enumerate(KEPT)}
    assert dict(p.Uids.items(net)) == {hotkey(old): new for new, old in enumerate(KEPT)}
    assert sorted(p.BlockAtRegistration.keys(net)) == list(range(8))
    assert p.BlockAtRegistration[net, 2] == m.rt.number


def test_weights_and_bonds_keep_their_meaning(m: Market) -> None:
    trim(m)
    for index in INDEXES:
        for rows, value in ((m.p.Weights, int.__add__), (m.p.Bonds, int.__mul__)):
            assert dict(rows.items(index + m.net)) == {
                new: [(to, value(old, other)) for to, other in enumerate(KEPT) if other != old]
                for new, old in enumerate(KEPT)
            }


def test_what_belongs_to_a_removed_hotkey_goes(m: Market) -> None:
    p, net = m.p, m.net
    axon = p.Axons, p.Prometheus
    p.AlphaDividendsPerSubnet[net, hotkey(0)] = 5
    p.LastHotkeyEmissionOnNetuid[hotkey(0), net] = 5
    p.AlphaDividendsPerSubnet[net, hotkey(3)] = 7
    commitments = m.rt.commitments
    for who in (hotkey(0), hotkey(3)):
        commitments.CommitmentOf[net, who] = {"deposit": 0, "block": 1, "info": {"fields": ["None"]}}
    trim(m)
    assert [(net, who) in commitments.CommitmentOf for who in (hotkey(0), hotkey(3))] == [False, True]
    assert [key in p.AlphaDividendsPerSubnet for key in ((net, hotkey(0)), (net, hotkey(3)))] == [False, True]
    assert (hotkey(0), net) not in p.LastHotkeyEmissionOnNetuid and (hotkey(0), net) not in p.IsNetworkMember
    assert p.IsNetworkMember[hotkey(3), net] and all((net, hotkey(0)) not in item for item in axon)


def test_members_of_root_leave_as_those_that_are_replaced_do(m: Market) -> None:
    """Dividends they earned while they had a seat are deposited, what is too little for that is recycled, and they stop
    to stand behind subnets' owners."""
    p, net = m.p, m.net
    for uid in range(6):
        registration.append_neuron(p, 0, hotkey(uid))
        staking.increase_stake(p, hotkey(uid), BOB, 0, TAO)
    p.MinAllowedUids[0] = 2
    m.at(p.ImmunityPeriod[0] + m.rt.number)
    children.follow_owner(p, hotkey(5), net)
    assert p.ParentKeys[NOBODY, net] == [(U64_MAX, hotkey(5))]
    for uid, alpha in ((3, 7), (4, 10 * TAO), (5, 10 * TAO)):
        p.PendingBasketDeposits[hotkey(uid), net] = alpha
    p.SubnetAlphaOut[net] += 20 * TAO + 7
    out = p.SubnetAlphaOut[net]
    m.root("AdminUtils", "sudo_trim_to_max_allowed_uids", netuid=0, max_n=3)
    assert p.SubnetworkN[0] == 3 and not list(p.PendingBasketDeposits.keys())
    assert p.SubnetAlphaOut[net] == out - 7
    assert [value["hotkey"] for name, value in m.events() if name == "BasketDeposited"] == [hotkey(5), hotkey(4)]
    assert p.ChildKeys[hotkey(5), net] == p.ParentKeys[NOBODY, net] == []


def test_ethereum_keys_follow_their_uid(m: Market) -> None:
    p, net, now = m.p, m.net, m.rt.number
    for uid in (6, 10, 14):
        p.AssociatedEvmAddress[net, uid] = (bytes([uid] * 20), now)
        p.AssociatedUidsByEvmAddress[net, bytes([uid] * 20)] = [(uid, now)]
    trim(m)
    assert dict(p.AssociatedEvmAddress.items(net)) == {2: (bytes([6] * 20), now), 7: (bytes([14] * 20), now)}
    found = {address: list(known) for address, known in p.AssociatedUidsByEvmAddress.items(net)}
    assert found == {bytes([6] * 20): [(2, now)], bytes([14] * 20): [(7, now)]}


def test_the_owners_uids_stay_and_of_equals_the_lower_uid(m: Market) -> None:
    m.p.SubnetOwnerHotkey[m.net] = hotkey(2)
    m.p.Emission[m.net] = [0] * 16
    trim(m, 4)
    assert [m.p.Keys[m.net, uid] for uid in range(4)] == [hotkey(uid) for uid in (0, 1, 2, 6)]


def test_a_place_nobody_takes_is_only_a_lower_limit(m: Market) -> None:
    m.p.MaxAllowedUids[m.net] = 64
    trim(m, 20)
    assert (m.p.MaxAllowedUids[m.net], m.p.SubnetworkN[m.net]) == (20, 16)
    assert m.p.Emission[m.net] == VALUES


def test_trimming_refuses_in_the_chains_order(m: Market) -> None:
    """test_trim_to_max_allowed_uids_too_many_immune: 80 % of those left may not be immune."""
    refuse = lambda who, **change: m.refusal(  # noqa: E731
        who, "sudo_trim_to_max_allowed_uids", pallet="AdminUtils", **{"netuid": m.net, "max_n": 8, **change}
    )
    assert refuse(BOB) == "BadOrigin"
    assert refuse(None, netuid=42) == "SubnetNotExists"
    assert refuse(None, max_n=3) == refuse(None, max_n=m.p.MaxAllowedUids[m.net] + 1) == "InvalidValue"
    m.p.MinAllowedUids[m.net] = 0
    assert refuse(None, max_n=0) == "TrimmingWouldExceedMaxImmunePercentage"  # of none at all, as a Percent counts
    for uid in range(4):
        m.p.BlockAtRegistration[m.net, uid] = m.rt.number
    assert refuse(None, max_n=5) == refuse(None, max_n=6) == "TrimmingWouldExceedMaxImmunePercentage"  # 5 are immune
    trim(m, 7)  # 71 %
    assert m.p.SubnetworkN[m.net] == 7


def test_owners_trim_once_in_a_while_and_not_before_an_epoch(m: Market) -> None:
    given: dict[str, Any] = {"netuid": m.net, "max_n": 12}
    m.p.Tempo[m.net] = 360
    m.root("AdminUtils", "sudo_set_admin_freeze_window", window=10)
    m.at(m.p.LastEpochBlock[m.net] + 355)
    refused = m.refusal(ALICE, "sudo_trim_to_max_allowed_uids", pallet="AdminUtils", **given)
    assert refused == "AdminActionProhibitedDuringWeightsWindow"
    m.root("AdminUtils", "sudo_set_admin_freeze_window", window=0)
    m.at(100_000)
    m.admin(ALICE, "sudo_trim_to_max_allowed_uids", **given)
    assert m.p.SubnetworkN[m.net] == 12
    wait = limits.UIDS_TRIMMING.blocks(m.p, m.net)
    assert m.rt.profile == FAST and wait == 1
    refused = m.refusal(ALICE, "sudo_trim_to_max_allowed_uids", pallet="AdminUtils", **{**given, "max_n": 10})
    assert refused == "TxRateLimitExceeded"
    m.at(100_000 + wait)
    m.admin(ALICE, "sudo_trim_to_max_allowed_uids", **{**given, "max_n": 10})
