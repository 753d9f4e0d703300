"""Swapped hotkeys and coldkeys, EVM keys, and stake that goes to another coldkey and hotkey at once."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import coincurve
import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from localnet.errors import DispatchError
from localnet.runtime.framework import Signed
from localnet.runtime.profile import MAINNET
from localnet.runtime.subtensor import evm_keys, hotkey_swap, staking
from tests.support.extrinsics import Draft
from tests.support.spec_chain import TAO, Chain, key

OLD, NEW = key("old_hot"), key("new_hot")
HALF = (1 << 63) - 1


@pytest.fixture
def subnet(chain: Chain) -> Chain:
    """Bob's hotkey is a neuron of subnet 2, on which Bob and Charlie have stake; Alice owns it."""
    chain.subnet()
    chain.neuron(2, "old_hot")
    chain.stake(2, "old_hot", 20 * TAO)
    chain.stake(2, "old_hot", 30 * TAO, "Charlie")
    return chain


def swap(chain: Chain, netuid: int | None, keep_stake: bool = False, new: bytes = NEW, old: bytes = OLD) -> None:
    chain.do("Bob", "swap_hotkey_v2", hotkey=old, new_hotkey=new, netuid=netuid, keep_stake=keep_stake)


def stakes(chain: Chain, hotkey: bytes, netuid: int = 2) -> list[int]:
    return [staking.stake_of(chain.p, hotkey, key(who), netuid) for who in ("Bob", "Charlie")]


# -- hotkeys --------------------------------------------------------------------------------------------------------


def test_a_hotkey_s_seat_and_stake_move_on_one_subnet(subnet: Chain) -> None:
    p, uid = subnet.p, subnet.p.Uids[2, OLD]
    axon = {"block": 1, "version": 1, "ip": 9, "port": 8, "ip_type": 4, "protocol": 0, "placeholder1": 0,
            "placeholder2": 0}  # fmt: skip
    p.Axons[2, OLD], p.NeuronCertificates[2, OLD] = axon, {"algorithm": 1, "public_key": b"k"}
    p.Prometheus[2, OLD] = {"block": 1, "version": 1, "ip": 9, "port": 8, "ip_type": 4}
    p.WeightCommits[2, OLD] = [(bytes(32), 1, 2, 3)]
    p.ChildkeyTake[OLD, 2], p.AlphaDividendsPerSubnet[2, OLD], p.VotingPower[2, OLD] = 7, 8, 9
    p.LoadedEmission[2] = [(OLD, 1, 2), (key("owner_hot"), 3, 4)]
    p.Delegates[OLD] = 1_000
    before, free = stakes(subnet, OLD), subnet.rt.balances.free(key("Bob"))
    swap(subnet, 2)
    assert (p.Uids[2, OLD], p.Uids[2, NEW], p.Keys[2, uid]) == (None, uid, NEW)
    assert (p.IsNetworkMember[OLD, 2], p.IsNetworkMember[NEW, 2]) == (False, True)
    for item in (p.Axons, p.NeuronCertificates, p.Prometheus, p.WeightCommits):
        assert item[2, OLD] is None and item[2, NEW] is not None
    assert (p.ChildkeyTake[NEW, 2], p.AlphaDividendsPerSubnet[2, NEW], p.VotingPower[2, NEW]) == (7, 8, 9)
    assert p.LoadedEmission[2] == [(NEW, 1, 2), (key("owner_hot"), 3, 4)]
    assert stakes(subnet, OLD) == [0, 0]
    assert all(abs(now - was) <= 1 for now, was in zip(stakes(subnet, NEW), before, strict=True))
    assert free - subnet.rt.balances.free(key("Bob")) == 1_000_000  # KeySwapOnSubnetCost, recycled
    assert p.Owner[OLD] == p.Owner[NEW] == key("Bob") and set(p.OwnedHotkeys[key("Bob")]) >= {OLD, NEW}
    assert OLD in p.Delegates and NEW not in p.Delegates
    assert NEW in p.StakingHotkeys[key("Charlie")]
    assert subnet.events()[-1] == ("SubtensorModule.HotkeySwappedOnSubnet", {
        "coldkey": key("Bob"), "old_hotkey": OLD, "new_hotkey": NEW, "netuid": 2
    })  # fmt: skip


def test_a_swap_on_all_subnets_retires_the_old_hotkey(subnet: Chain) -> None:
    p, issued = subnet.p, subnet.p.TotalIssuance.get()
    subnet.do("Alice", "set_coldkey_auto_stake_hotkey", netuid=2, hotkey=OLD)
    p.Delegates[OLD] = 1_000
    p.LastRateLimitedBlock["LastTxBlockDelegateTake", OLD] = 77
    alpha = p.TotalAlphaStaked[2]
    subnet.do("Bob", "swap_hotkey", hotkey=OLD, new_hotkey=NEW, netuid=None)
    assert OLD not in p.Owner and p.Owner[NEW] == key("Bob") and p.OwnedHotkeys[key("Bob")] == [NEW]
    assert (OLD in p.Delegates, p.Delegates[NEW]) == (False, 1_000)
    assert p.LastRateLimitedBlock["LastTxBlockDelegateTake", NEW] == 77
    assert ("LastTxBlockDelegateTake", OLD) not in p.LastRateLimitedBlock
    assert p.StakingHotkeys[key("Charlie")] == [NEW] and p.TotalAlphaStaked[2] == alpha
    assert p.AutoStakeDestination[key("Alice"), 2] == NEW and p.AutoStakeDestinationColdkeys[NEW, 2] == [key("Alice")]
    assert issued - p.TotalIssuance.get() == 100_000_000  # KeySwapCost
    assert subnet.events()[-1][0] == "SubtensorModule.HotkeySwapped"


def test_stake_can_stay_and_then_keeps_its_hotkey_s_owner(subnet: Chain) -> None:
    p, before = subnet.p, stakes(subnet, OLD)
    swap(subnet, None, keep_stake=True)
    assert p.Uids[2, NEW] is not None and stakes(subnet, OLD) == before and stakes(subnet, NEW) == [0, 0]
    assert p.Owner[OLD] == key("Bob") and set(p.OwnedHotkeys[key("Bob")]) == {OLD, NEW}
    subnet.do("Charlie", "remove_stake", hotkey=OLD, netuid=2, amount_unstaked=before[1])  # it can still leave


def test_hotkey_swaps_are_refused_in_the_chain_s_order(subnet: Chain) -> None:
    p = subnet.p

    def fails(error: str, who: str = "Bob", **changes: Any) -> None:
        call = {"hotkey": OLD, "new_hotkey": NEW, "netuid": 2, "keep_stake": False, **changes}
        subnet.fails(error, who, "swap_hotkey_v2", **call)

    fails("SubnetNotExists", netuid=9, hotkey=key("unknown"))
    fails("NonAssociatedColdKey", "Charlie")
    fails("NonAssociatedColdKey", new_hotkey=key("owner_hot"))
    fails("NewHotKeyIsSameWithOld", new_hotkey=OLD)
    p.MinerCollateral[2, OLD, key("Bob")] = {"locked": 5, "drain_ratio": {"bits": 0}, "min_locked": 0, "earned": 0}
    fails("KeepStakeBlockedByCollateral", keep_stake=True)
    fails("KeepStakeBlockedByCollateral", keep_stake=True, netuid=None)
    subnet.neuron(2, "taken_hot")
    fails("HotKeyAlreadyRegisteredInSubNet", new_hotkey=key("taken_hot"))
    fails("HotKeyAlreadyRegisteredInSubNet", new_hotkey=key("taken_hot"), netuid=None)
    subnet.do("Bob", "try_associate_hotkey", hotkey=NEW)
    staking.increase_stake(p, NEW, key("Bob"), 0, 5)
    fails("NewHotKeyNotCleanForRootSwap", netuid=None)
    fails("NewHotKeyNotCleanForRootSwap", netuid=0)
    fails("CannotUseSystemAccount", new_hotkey=staking.subnet_account(p, 2))
    p.ColdkeyCollateralHotkeys[2, key("Bob")] = [bytes(31) + bytes((number,)) for number in range(32)]
    fails("ColdkeyCollateralPositionsFull", new_hotkey=staking.subnet_account(p, 2))
    p.LastHotkeySwapOnNetuid[2, key("Bob")] = subnet.block
    for netuid in (2, None):
        fails("ColdkeyCollateralPositionsFull", netuid=netuid, new_hotkey=key("third"))
    p.ColdkeyCollateralHotkeys[2, key("Bob")] = []
    p.LastHotkeySwapOnNetuid[2, key("Bob")] = subnet.block
    fails("HotKeySwapOnSubnetIntervalNotPassed")
    subnet.next(2)
    subnet.rt.balances.burn(key("Bob"), subnet.rt.balances.free(key("Bob")) - 1_000)
    fails("NotEnoughBalanceToPaySwapHotKey")


def test_a_coldkey_swaps_once_an_interval_and_its_records_are_forgotten_after_it(subnet: Chain) -> None:
    p = subnet.p
    swap(subnet, 2)
    subnet.next()  # the interval of fast blocks is 1: one full block between two swaps
    subnet.fails("HotKeySwapOnSubnetIntervalNotPassed", "Bob", "swap_hotkey_v2", hotkey=NEW, new_hotkey=key("third"),
                 netuid=None, keep_stake=False)  # fmt: skip
    assert p.LastHotkeySwapOnNetuid[2, key("Bob")]
    subnet.next()
    assert (2, key("Bob")) not in p.LastHotkeySwapOnNetuid
    swap(subnet, None, new=key("third"), old=NEW)
    assert p.Uids[2, key("third")] is not None


def test_renamed_hotkeys_form_a_line(subnet: Chain) -> None:
    p, third = subnet.p, key("third")
    swap(subnet, 2)
    subnet.next(2)
    swap(subnet, 2, new=third, old=NEW)
    assert (p.HotkeySuccessor[2, OLD], p.HotkeySuccessor[2, NEW]) == (NEW, third)
    assert hotkey_swap.root_of(p, 2, third) == hotkey_swap.root_of(p, 2, NEW) == OLD
    subnet.neuron(2, "new_hot")  # back in a new life: no longer on the way to anybody
    assert p.HotkeySuccessor[2, NEW] is None


def test_children_parents_and_pending_children_follow(subnet: Chain) -> None:
    p, child, parent = subnet.p, key("child"), key("parent")
    p.ChildKeys[OLD, 2], p.ParentKeys[child, 2] = [(HALF, child)], [(1, key("other")), (HALF, OLD)]
    p.ParentKeys[OLD, 2], p.ChildKeys[parent, 2] = [(5, parent)], [(5, OLD)]
    p.PendingChildKeys[2, OLD] = ([(3, child)], 99)
    p.PendingChildKeys[2, key("waiting")] = ([(1, OLD), (2, child)], 88)
    swap(subnet, 2)
    assert (p.ChildKeys[NEW, 2], p.ParentKeys[child, 2]) == ([(HALF, child)], [(1, key("other")), (HALF, NEW)])
    assert (p.ParentKeys[NEW, 2], p.ChildKeys[parent, 2]) == ([(5, parent)], [(5, NEW)])
    assert (OLD, 2) not in p.ChildKeys and (OLD, 2) not in p.ParentKeys
    assert p.PendingChildKeys[2, NEW] == ([(3, child)], 99) and (2, OLD) not in p.PendingChildKeys
    assert p.PendingChildKeys[2, key("waiting")] == ([(2, child), (1, NEW)], 88)
    assert NEW in p.ChildkeyThresholdChecks  # whether it has the stake for them


def test_a_hotkey_cannot_take_the_place_of_its_own_parent(subnet: Chain) -> None:
    p = subnet.p
    p.ChildKeys[OLD, 2], p.ParentKeys[NEW, 2] = [(HALF, NEW)], [(HALF, OLD)]
    subnet.fails("InvalidChild", "Bob", "swap_hotkey", hotkey=OLD, new_hotkey=NEW, netuid=2)
    assert p.Uids[2, OLD] is not None and p.ChildKeys[OLD, 2] == [(HALF, NEW)]


def test_collateral_and_locks_follow_the_hotkey_and_the_owner_s_role_does(subnet: Chain) -> None:
    p = subnet.p
    bond = {"locked": 5, "drain_ratio": {"bits": 0}, "min_locked": 1, "earned": 2}
    p.MinerCollateral[2, OLD, key("Bob")] = bond
    p.ColdkeyMinerCollateral[2, key("Bob")], p.ColdkeyCollateralHotkeys[2, key("Bob")] = 5, [OLD, key("more")]
    subnet.do("Charlie", "lock_stake", hotkey=OLD, netuid=2, amount=TAO)
    p.SubnetOwnerHotkey[2] = OLD
    swap(subnet, 2)
    assert p.MinerCollateral[2, NEW, key("Bob")] == bond and p.MinerCollateral[2, OLD, key("Bob")] is None
    assert p.ColdkeyCollateralHotkeys[2, key("Bob")] == [NEW, key("more")]  # in its place
    assert p.ColdkeyMinerCollateral[2, key("Bob")] == 5
    assert [hotkey for _, hotkey in p.Lock.keys(key("Charlie"))] == [NEW]
    assert p.SubnetOwnerHotkey[2] == NEW and subnet.events("SubtensorModule.SubnetOwnerHotkeySet")


def test_root_stake_keeps_its_age_and_the_fund_goes_along(subnet: Chain) -> None:
    p = subnet.p
    subnet.do("Bob", "root_register", hotkey=OLD)
    subnet.do("Bob", "set_auto_parent_delegation_enabled", hotkey=OLD, enabled=False)
    p.SubtokenEnabled[0] = True
    subnet.stake(0, "old_hot", 3 * TAO, "Charlie")
    p.LastColdkeyHotkeyStakeBlock[key("Charlie"), OLD] = 1
    p.BasketShares[OLD], p.BasketClaimed[OLD, key("Charlie")] = 40, -3
    swap(subnet, 2)
    assert p.Uids[0, OLD] == 0 and p.BasketShares[OLD] == 40  # root is swapped by its own netuid
    subnet.next(2)
    swap(subnet, 0, new=key("third"))
    third = key("third")
    assert p.Keys[0, 0] == third and p.TotalHotkeyAlpha[third, 0] == 3 * TAO
    assert p.LastColdkeyHotkeyStakeBlock[key("Charlie"), third] == 1
    assert (p.BasketShares[third], p.BasketClaimed[third, key("Charlie")], p.BasketShares[OLD]) == (40, -3, 0)
    assert third in p.AutoParentDelegationEnabled and OLD not in p.AutoParentDelegationEnabled


# -- coldkeys -------------------------------------------------------------------------------------------------------


def digest(coldkey: bytes) -> bytes:
    return blake2b(coldkey, digest_size=32).digest()


def announce(chain: Chain, who: str = "Bob", to: str = "Heir") -> None:
    chain.do(who, "announce_coldkey_swap", new_coldkey_hash=digest(key(to)))


def test_an_announced_swap_moves_everything_after_the_delay(subnet: Chain) -> None:
    p, bob, heir = subnet.p, key("Bob"), key("Heir")
    p.SubnetOwner[2] = bob
    subnet.do("Bob", "set_coldkey_auto_stake_hotkey", netuid=2, hotkey=OLD)
    p.SubtokenEnabled[0] = True
    subnet.stake(0, "old_hot", 2 * TAO)
    subnet.do("Bob", "lock_stake", hotkey=OLD, netuid=2, amount=TAO)
    p.IdentitiesV2[bob] = dict.fromkeys(("name", "url", "github_repo", "image", "discord", "description", "additional"),
                                        b"bob")  # fmt: skip
    p.BasketClaimed[OLD, bob] = -7
    free, issued = subnet.rt.balances.free(bob), p.TotalIssuance.get()
    announce(subnet)
    assert issued - p.TotalIssuance.get() == free - subnet.rt.balances.free(bob) == 100_000_000
    assert p.ColdkeySwapAnnouncements[bob] == (subnet.block + 50, digest(heir))
    subnet.fails("ColdkeySwapTooEarly", "Bob", "swap_coldkey_announced", new_coldkey=heir)
    subnet.rt.system.Number.put(subnet.block + 50)
    before, age = [*stakes(subnet, OLD)[:1], 2 * TAO], p.LastColdkeyHotkeyStakeBlock[bob, OLD]
    subnet.fails("AnnouncedColdkeyHashDoesNotMatch", "Bob", "swap_coldkey_announced", new_coldkey=key("Eve"))
    subnet.do("Bob", "swap_coldkey_announced", new_coldkey=heir)
    assert [staking.stake_of(p, OLD, heir, netuid) for netuid in (2, 0)] == before and stakes(subnet, OLD)[0] == 0
    assert p.Owner[OLD] == heir and p.OwnedHotkeys[heir] == [OLD] and bob not in p.OwnedHotkeys
    assert p.StakingHotkeys[heir] == [OLD] and bob not in p.StakingHotkeys and p.SubnetOwner[2] == heir
    assert p.AutoStakeDestination[heir, 2] == OLD and p.AutoStakeDestinationColdkeys[OLD, 2] == [heir]
    assert p.IdentitiesV2[heir] is not None and p.IdentitiesV2[bob] is None
    assert list(p.Lock.keys(heir)) == [(2, OLD)] and not list(p.Lock.keys(bob)) and heir not in p.AccountFlags
    assert (p.BasketClaimed[OLD, heir], p.LastColdkeyHotkeyStakeBlock[heir, OLD]) == (-7, age)
    assert p.StakingColdkeys[heir] == 0 and p.StakingColdkeys[bob] is None
    assert (subnet.rt.balances.free(heir), subnet.rt.balances.free(bob)) == (free - 100_000_000, 0)
    assert (p.ColdkeySuccessor[bob], p.ColdkeyRoot[heir]) == (heir, bob)
    assert p.ColdkeySwapAnnouncements[bob] is None
    assert subnet.events()[-1] == ("SubtensorModule.ColdkeySwapped", {"old_coldkey": bob, "new_coldkey": heir})


def pool_answer(chain: Chain, pallet: str, function: str, /, **arguments: Any) -> str:
    """What the pool says to the call when Bob signs it: TransactionValidity, hex."""
    rt = chain.rt
    raw = Draft(rt, "//Bob", rt.encode_call(pallet, function, arguments), 0, rt.system.BlockHash[0]).sign()
    return rt.call("TaggedTransactionQueue_validate_transaction", b"\2" + raw + bytes(32), rt.state).hex()


def test_an_announcement_binds_the_account_in_the_pool_and_inside_other_calls(subnet: Chain) -> None:
    rt = subnet.rt
    announce(subnet)
    subnet.refused(0, "Bob", "add_stake", hotkey=OLD, netuid=2, amount_staked=TAO)
    for function in ("dispute_coldkey_swap", "clear_coldkey_swap_announcement"):
        subnet.accepted("Bob", function)
    subnet.accepted("Bob", "announce_coldkey_swap", new_coldkey_hash=bytes(32))
    subnet.accepted("Alice", "add_stake", hotkey=OLD, netuid=2, amount_staked=TAO)
    remark = ("System", ("remark", {"remark": b""}))
    with pytest.raises(DispatchError, match="ColdkeySwapAnnounced"):
        rt.dispatch_inner(Signed(key("Bob")), remark)
    assert pool_answer(subnet, "Balances", "transfer_all", dest=("Id", NEW), keep_alive=True) == "01000700"
    assert pool_answer(subnet, "SubtensorModule", "dispute_coldkey_swap")[:2] == "00"
    subnet.do("Bob", "dispute_coldkey_swap")
    assert pool_answer(subnet, "Balances", "transfer_all", dest=("Id", NEW), keep_alive=True) == "01000715"
    subnet.refused(21, "Bob", "announce_coldkey_swap", new_coldkey_hash=bytes(32))
    with pytest.raises(DispatchError, match="ColdkeySwapDisputed"):
        rt.dispatch_inner(Signed(key("Bob")), remark)


def test_announcements_are_replaced_and_withdrawn_only_after_their_delays(subnet: Chain) -> None:
    p, start = subnet.p, subnet.block
    subnet.fails("ColdkeySwapAnnouncementNotFound", "Bob", "clear_coldkey_swap_announcement")
    subnet.fails("ColdkeySwapAnnouncementNotFound", "Bob", "dispute_coldkey_swap")
    subnet.fails("ColdkeySwapAnnouncementNotFound", "Bob", "swap_coldkey_announced", new_coldkey=key("Heir"))
    announce(subnet)
    subnet.rt.system.Number.put(start + 59)
    subnet.fails("ColdkeySwapReannouncedTooEarly", "Bob", "announce_coldkey_swap", new_coldkey_hash=bytes(32))
    subnet.fails("ColdkeySwapClearTooEarly", "Bob", "clear_coldkey_swap_announcement")
    subnet.rt.system.Number.put(start + 60)
    free = subnet.rt.balances.free(key("Bob"))
    announce(subnet, to="Other")
    assert subnet.rt.balances.free(key("Bob")) == free  # only the first one costs
    assert p.ColdkeySwapAnnouncements[key("Bob")] == (start + 110, digest(key("Other")))
    subnet.rt.system.Number.put(start + 120)
    subnet.do("Bob", "clear_coldkey_swap_announcement")
    assert p.ColdkeySwapAnnouncements[key("Bob")] is None
    subnet.fails("NotEnoughBalanceToPaySwapColdKey", "Nobody", "announce_coldkey_swap", new_coldkey_hash=bytes(32))


def test_only_root_ends_a_dispute_and_swaps_at_once(subnet: Chain) -> None:
    p, bob = subnet.p, key("Bob")
    announce(subnet)
    subnet.do("Bob", "dispute_coldkey_swap")
    subnet.fails("ColdkeySwapAlreadyDisputed", "Bob", "dispute_coldkey_swap")
    subnet.fails("BadOrigin", "Bob", "reset_coldkey_swap", coldkey=bob)
    subnet.root("reset_coldkey_swap", "SubtensorModule", coldkey=bob)
    assert p.ColdkeySwapDisputes[bob] is None and p.ColdkeySwapAnnouncements[bob] is None
    announce(subnet)
    issued = p.TotalIssuance.get()
    subnet.fails("BadOrigin", "Bob", "swap_coldkey", old_coldkey=bob, new_coldkey=key("Heir"), swap_cost=0)
    subnet.root("swap_coldkey", "SubtensorModule", old_coldkey=bob, new_coldkey=key("Heir"), swap_cost=500)
    assert p.Owner[OLD] == key("Heir") and p.ColdkeySwapAnnouncements[bob] is None
    assert issued - p.TotalIssuance.get() == 500
    subnet.fails("Deprecated", "Charlie", "schedule_swap_coldkey", new_coldkey=key("Heir"))


def test_a_swapped_coldkey_keeps_its_leases(subnet: Chain) -> None:
    p, bob, heir, lessee = subnet.p, key("Bob"), key("Heir"), key("Dave")
    subnet.rt.proxy.add(lessee, bob, "SubnetLeaseBeneficiary", 0)
    lease = {"beneficiary": bob, "coldkey": lessee, "hotkey": OLD, "emissions_share": 50, "end_block": None,
             "netuid": 2, "cost": 1}  # fmt: skip
    p.SubnetUidToLeaseId[2], p.SubnetLeases[7], p.SubnetLeaseShares[7, bob] = 7, lease, {"bits": 5}
    subnet.root("swap_coldkey", "SubtensorModule", old_coldkey=bob, new_coldkey=heir, swap_cost=0)
    assert p.SubnetLeases[7] == {**lease, "beneficiary": heir} and p.SubnetLeaseShares[7, heir] == {"bits": 5}
    assert (7, bob) not in p.SubnetLeaseShares
    assert [one["delegate"] for one in subnet.rt.proxy.Proxies[lessee][0]] == [heir]


def test_the_new_coldkey_must_be_an_account_without_a_role(subnet: Chain) -> None:
    for error, heir in (("ColdKeyAlreadyAssociated", key("Charlie")), ("NewColdKeyIsHotkey", OLD)):
        with pytest.raises(DispatchError, match=error):
            subnet.root("swap_coldkey", "SubtensorModule", old_coldkey=key("Alice"), new_coldkey=heir, swap_cost=0)
    assert subnet.p.SubnetOwner[2] == key("Alice")


# -- EVM keys -------------------------------------------------------------------------------------------------------

WALLET = Account.from_key(b"\x07" * 32)
ADDRESS = bytes.fromhex(WALLET.address[2:])


def proof(hotkey: bytes, block_number: int, **changes: Any) -> dict[str, Any]:
    """Arguments of associate_evm_key with the signature an Ethereum wallet makes."""
    message = hotkey + evm_keys.keccak_256(block_number.to_bytes(8, "little"))
    signature = bytes(WALLET.sign_message(encode_defunct(primitive=message)).signature)
    return {"netuid": 2, "evm_key": ADDRESS, "block_number": block_number, "signature": signature, **changes}


def test_a_wallet_s_signature_connects_its_address_with_the_neuron(subnet: Chain) -> None:
    """As the public chain's test_associate_evm_key_success; the signature is made by another library."""
    p, uid = subnet.p, subnet.p.Uids[2, OLD]
    subnet.accepted("old_hot", "associate_evm_key", **proof(OLD, 5))
    subnet.do("old_hot", "associate_evm_key", **proof(OLD, 5))
    assert p.AssociatedEvmAddress[2, uid] == (ADDRESS, subnet.block)
    assert p.AssociatedUidsByEvmAddress[2, ADDRESS] == [(uid, subnet.block)]
    assert subnet.events()[-1][1] == {
        "netuid": 2, "hotkey": OLD, "evm_key": ADDRESS, "block_associated": subnet.block
    }  # fmt: skip
    p.Owner[OLD] = key("Bob")
    p.MaxAllowedUids[2], p.ImmunityPeriod[2] = 2, 0
    p.MinNonImmuneUids[2] = 0
    subnet.neuron(2, "newcomer", "Charlie")
    assert p.Uids[2, OLD] is None and p.AssociatedEvmAddress[2, uid] is None
    assert (2, ADDRESS) not in p.AssociatedUidsByEvmAddress


def test_what_does_not_prove_the_address_is_refused(subnet: Chain) -> None:
    subnet.refused(19, "Bob", "associate_evm_key", **proof(key("Bob"), 5))
    good = proof(OLD, 5)
    for error, who, call in (
        ("SubnetNotExists", "old_hot", {**good, "netuid": 9}),
        ("NonAssociatedColdKey", "Bob", good),
        ("HotKeyNotRegisteredInSubNet", "old_hot", {**good, "netuid": 1}),
        ("InvalidIdentity", "old_hot", {**good, "signature": bytes(65)}),
        ("InvalidIdentity", "old_hot", {**good, "signature": good["signature"][:64] + b"\x04"}),
        ("InvalidRecoveredPublicKey", "old_hot", {**good, "block_number": 6}),
        ("InvalidRecoveredPublicKey", "old_hot", {**good, "evm_key": bytes(20)}),
    ):
        subnet.fails(error, who, "associate_evm_key", **call)
    subnet.p.AssociatedUidsByEvmAddress[2, ADDRESS] = [(uid, 1) for uid in range(100, 132)]
    subnet.fails("EvmKeyAssociationLimitExceeded", "old_hot", "associate_evm_key", **good)


def test_a_recovery_id_may_be_plain_and_a_high_s_may_not() -> None:
    hash_, private = evm_keys.message_hash(OLD, 5), coincurve.PrivateKey(b"\x07" * 32)
    plain = private.sign_recoverable(hash_, hasher=None)
    assert plain[64] < 2 and evm_keys.recover_address(hash_, plain) == ADDRESS
    order = 2 * evm_keys.HALF_ORDER + 1
    high = (order - int.from_bytes(plain[32:64], "big")).to_bytes(32, "big")
    assert evm_keys.recover_address(hash_, plain[:32] + high + bytes((plain[64] ^ 1,))) is None


def test_a_neuron_changes_its_address_once_in_7200_blocks_on_mainnet() -> None:
    chain = Chain(MAINNET)
    chain.subnet()
    chain.neuron(2, "old_hot")
    uid = chain.p.Uids[2, OLD]
    chain.refused(20, "old_hot", "associate_evm_key", **proof(OLD, 1))  # block 0 counts as the last time, as on chain
    chain.rt.system.Number.put(7_200)
    chain.do("old_hot", "associate_evm_key", **proof(OLD, 1))
    chain.rt.system.Number.put(14_399)
    chain.fails("EvmKeyAssociateRateLimitExceeded", "old_hot", "associate_evm_key", **proof(OLD, 1))
    chain.p.AssociatedEvmAddress[2, uid] = (b"\1" * 20, 1)
    chain.p.AssociatedUidsByEvmAddress[2, b"\1" * 20] = [(uid, 1)]
    chain.do("old_hot", "associate_evm_key", **proof(OLD, 1))
    assert (2, b"\1" * 20) not in chain.p.AssociatedUidsByEvmAddress  # the former address lost it


# -- stake ----------------------------------------------------------------------------------------------------------


def test_stake_goes_to_another_coldkey_and_hotkey_at_once(subnet: Chain) -> None:
    p, (alpha, _) = subnet.p, stakes(subnet, OLD)
    value = alpha * staking.spot_price(p, 2) >> 64
    call = {"destination_coldkey": key("Dave"), "origin_hotkey": OLD, "destination_hotkey": key("owner_hot"),
            "origin_netuid": 2, "destination_netuid": 2, "alpha_amount": alpha}  # fmt: skip
    p.TransferToggle[2] = False
    subnet.fails("TransferDisallowed", "Bob", "transfer_stake_and_hotkey", **call)
    p.TransferToggle[2] = True
    subnet.do("Bob", "transfer_stake_and_hotkey", **call)
    assert stakes(subnet, OLD)[0] == 0
    assert abs(staking.stake_of(p, key("owner_hot"), key("Dave"), 2) - alpha) <= 1
    name, event = subnet.events()[-1]
    assert name == "SubtensorModule.StakeAndHotkeyTransferred"
    assert (event["destination_hotkey"], event["amount"]) == (key("owner_hot"), value)


def test_the_interval_of_hotkey_swaps_is_the_profile_s() -> None:
    chain = Chain(MAINNET)
    chain.subnet()
    chain.neuron(2, "old_hot")
    swap(chain, 2)
    chain.rt.system.Number.put(chain.block + 7_200)
    chain.fails("HotKeySwapOnSubnetIntervalNotPassed", "Bob", "swap_hotkey", hotkey=NEW, new_hotkey=OLD, netuid=2)
