"""The end of subnets: paying the pool out, clearing the data, making room for a new one."""

from __future__ import annotations

from typing import Any

import pytest

from localnet.rules import dissolution as rules
from localnet.rules.fixed import ONE32, ONE64
from localnet.runtime.subtensor import networks, staking
from tests.support.spec_chain import TAO, Chain, key

LEFT_BEHIND = {  # the chain does not clear these either
    "AlphaShareEpoch", "AlphaSharePoolEpoch", "AutoStakeDestination", "AutoStakeDestinationColdkeys",
    "MinChildkeyTakePerSubnet", "MaxWeightsLimit", "MinAllowedUids", "AdjustmentInterval", "AdjustmentAlpha",
    "MinNonImmuneUids", "OwnerCutEnabled", "RecycleOrBurn", "RegisteredSubnetCounter", "RootProp",
    "RootClaimableThreshold", "RootAlphaDividendsPerSubnet", "ScrapReservoirAlpha", "SubnetEmissionEnabled",
}  # fmt: skip


# -- rules ----------------------------------------------------------------------------------------------------------


def test_payouts_are_pro_rata_with_the_rest_to_the_largest_remainders() -> None:
    """Figures of the public chain's tests dissolve_two_stakers_pro_rata_distribution and
    dissolve_rounding_remainder_distribution."""
    assert rules.payouts(10_000, [300, 700], 1_000) == [3_000, 7_000]
    assert rules.payouts(1, [3, 2], 5) == [1, 0]
    assert rules.payouts(100, [1, 1, 1], 3) == [34, 33, 33]
    assert rules.payouts(0, [1], 1) == rules.payouts(5, [1], 0) == [0]


def test_the_chain_s_own_alpha_counts_and_is_not_paid() -> None:
    """Figures of dissolve_protocol_alpha_share_is_not_paid_to_users and ..._post_deploy_includes_alpha_in."""
    assert rules.payouts(200, [50], rules.whole_alpha(50, 50, 100, 1, 2)) == [100]
    assert rules.payouts(200, [50], rules.whole_alpha(50, 50, 100, 101, 100)) == [50]


def test_an_old_owner_gets_the_lock_less_what_the_cut_is_worth() -> None:
    """Cases of dissolve_owner_cut_refund_logic, ..._refunds_full_lock_cost_when_no_emission and
    ..._zero_refund_when_emission_exceeds_lock."""
    assert rules.owner_refund(5_000, 0, 11_796, ONE64) == 5_000
    assert rules.owner_refund(2_000, 800, 11_796, ONE64) == 2_000 - 143  # 800 * 11796/65535 = 143.99
    assert rules.owner_refund(1_000, 2_000, 65_535, ONE64) == 0


# -- dissolving -----------------------------------------------------------------------------------------------------


def dissolve(chain: Chain, netuid: int) -> None:
    chain.root("root_dissolve_network", "SubtensorModule", netuid=netuid)


def issuance(chain: Chain) -> int:
    """What the chain counts as issued; all balances together are exactly that."""
    total = chain.rt.balances.TotalIssuance.get()
    accounts = [account["data"] for _, account in chain.rt.system.Account.items()]
    assert total == sum(data["free"] + data["reserved"] for data in accounts)
    return total


def test_only_root_dissolves_and_only_what_exists(chain: Chain) -> None:
    netuid = chain.subnet()
    chain.fails("BadOrigin", "Alice", "root_dissolve_network", netuid=netuid)
    chain.fails("BadOrigin", "Alice", "dissolve_network", coldkey=key("Alice"), netuid=netuid)
    for missing in (0, 9):
        with pytest.raises(Exception, match="SubnetNotExists"):
            dissolve(chain, missing)
    chain.root("dissolve_network", "SubtensorModule", coldkey=key("Nobody"), netuid=netuid)
    with pytest.raises(Exception, match="SubnetNotExists"):
        dissolve(chain, netuid)


def test_a_dissolved_subnet_is_gone_for_calls_at_once_and_its_data_at_the_end_of_the_block(chain: Chain) -> None:
    netuid = chain.subnet()
    p, pot = chain.p, chain.p.SubnetTAO[2]
    before = p.TotalStake.get()
    dissolve(chain, netuid)
    assert (p.TotalNetworks.get(), p.TotalStake.get()) == (2, before - pot)
    assert chain.events("SubtensorModule.NetworkRemoved") == [("SubtensorModule.NetworkRemoved", netuid)]
    chain.fails("SubnetNotExists", "Bob", "burned_register", netuid=netuid, hotkey=key("late"))
    assert p.SubnetTAO[netuid] == pot and p.DissolveCleanupQueue.get() == [netuid]
    chain.next()
    assert p.DissolveCleanupQueue.get() == [] and netuid not in p.SubnetTAO and netuid not in p.Tempo
    assert p.CurrentDissolveCleanupStatus.get() is None


def finish(chain: Chain) -> list[tuple[str, Any]]:
    """The events at the end of the block that is open."""
    before = len(chain.rt.events)
    chain.p.on_finalize(chain.block)
    return chain.events()[before:]


def test_alpha_holders_share_the_pool_and_the_rest_is_recycled(chain: Chain) -> None:
    netuid = chain.subnet()
    chain.stake(netuid, "owner_hot", 300 * TAO, "Bob")
    chain.stake(netuid, "owner_hot", 100 * TAO, "Charlie")
    chain.neuron(netuid, "dave_hot", "Dave")
    chain.stake(netuid, "dave_hot", 50 * TAO, "Charlie")
    p, balances = chain.p, chain.rt.balances
    held = {who: sum(staking.stake_of(p, key(hot), key(who), netuid) for hot in ("owner_hot", "dave_hot"))
            for who in ("Bob", "Charlie")}  # fmt: skip
    pot, whole = p.SubnetTAO[netuid], sum(held.values()) + p.SubnetAlphaIn[netuid] + p.SubnetProtocolAlpha[netuid]
    before = {who: balances.free(key(who)) for who in (*held, "Alice")}
    issued, counted, account = issuance(chain), p.TotalIssuance.get(), staking.subnet_account(p, netuid)
    on_account = balances.free(account)
    dissolve(chain, netuid)
    events = finish(chain)
    paid = {who: balances.free(key(who)) - before[who] for who in held}
    for who, alpha in held.items():
        assert abs(paid[who] - pot * alpha // whole) <= 2  # Charlie has two positions, each floored
    assert balances.free(key("Alice")) == before["Alice"]  # a subnet of today refunds no lock
    recycled = on_account - sum(paid.values()) - 500  # the existential deposit stays
    assert balances.free(account) == 500
    assert (issued - issuance(chain), counted - p.TotalIssuance.get()) == (recycled, recycled)
    assert [name.split(".")[1] for name, _ in events] == [
        "Transfer", "Transfer", "Withdraw", "NetworkDissolveCleanupCompleted"
    ]  # fmt: skip
    assert events[2][1] == {"who": account, "amount": recycled}


def zero_value(chain: Chain, type_id: int) -> bytes:
    """Some value of a type: the one that reads as zeros."""
    registry = chain.rt.document.registry
    return registry.encode(type_id, registry.decode_from(type_id, bytes(4_096), 0)[0])


def entries_of(chain: Chain, netuid: int) -> dict[str, int]:
    """How many entries each map has whose key names the subnet (or its mechanism 0, which has the same number)."""
    document, found = chain.rt.document, {}
    for (pallet, name), entry in document.storage.items():
        for at, type_id in enumerate(entry.keys):
            path = document.tree["types"][type_id]["path"]
            if path and path[-1] in ("NetUid", "NetUidStorageIndex"):
                item = getattr(chain.rt.pallets[pallet], name, None)
                if item is None:  # not kept by this runtime
                    continue
                keys = [keys if isinstance(keys, tuple) else (keys,) for keys in item.keys()]
                found[name] = sum(keys[at] == netuid for keys in keys)
    return found


def fill_every_map(chain: Chain, netuid: int, hotkey: bytes) -> None:
    """An entry for the subnet in every map that has none, the hotkey standing for every account."""
    document = chain.rt.document
    chain.p.MechanismCountCurrent[netuid] = 1
    for name in entries_of(chain, netuid):
        item = next(getattr(pallet, name) for pallet in chain.rt.pallets.values() if hasattr(pallet, name))
        keys = []
        for type_id in item.entry.keys:
            path = document.tree["types"][type_id]["path"]
            names_it = path and path[-1] in ("NetUid", "NetUidStorageIndex")
            other = hotkey if path and path[-1] == "AccountId32" else zero_value(chain, type_id)
            keys.append(netuid if names_it else document.registry.decode(type_id, other))
        raw = item.key(tuple(keys) if len(keys) > 1 else keys[0])
        if chain.rt.state.get(raw) is None:
            chain.rt.state.put(raw, zero_value(chain, item.entry.value))


def test_every_map_that_names_the_subnet_is_cleared_but_for_what_the_chain_forgets_too(chain: Chain) -> None:
    """As the public chain's dissolve_clears_all_per_subnet_storages, over every map of the metadata."""
    netuid = chain.subnet()
    chain.neuron(netuid, "bob_hot")
    chain.stake(netuid, "bob_hot", 5 * TAO)
    fill_every_map(chain, netuid, key("bob_hot"))
    full = entries_of(chain, netuid)
    assert len(full) > 130 and all(full.values())
    dissolve(chain, netuid)
    chain.next()
    assert {name for name, count in entries_of(chain, netuid).items() if count} == LEFT_BEHIND
    assert entries_of(chain, 1)["Tempo"] == 1


def test_an_old_subnet_refunds_its_lock_to_the_owner(chain: Chain) -> None:
    netuid = chain.subnet(started=False)
    p, balances = chain.p, chain.rt.balances
    p.NetworkRegistrationStartBlock.put(p.NetworkRegisteredAt[netuid] + 1)
    p.TaoInRefundDeploymentBlock.put(p.NetworkRegisteredAt[netuid])
    p.SubnetAlphaIn[netuid] = 0  # an owner who earned nothing
    before, issued = balances.free(key("Alice")), issuance(chain)
    dissolve(chain, netuid)
    finish(chain)
    assert balances.free(key("Alice")) - before == 1_000 * TAO
    assert issuance(chain) == issued


def test_a_payout_too_small_for_an_account_stops_nobody(chain: Chain) -> None:
    netuid = chain.subnet()
    chain.stake(netuid, "owner_hot", 10 * TAO, "Bob")
    staking.increase_stake(chain.p, key("owner_hot"), key("NewAccount"), netuid, 100)
    before = chain.rt.balances.free(key("Bob"))
    dissolve(chain, netuid)
    finish(chain)
    assert chain.rt.balances.free(key("NewAccount")) == 0
    assert chain.rt.balances.free(key("Bob")) > before
    issuance(chain)


def test_a_pool_whose_tao_is_not_there_ends_without_payouts(chain: Chain) -> None:
    """The genesis subnet's reserves are figures without a balance behind them."""
    before = issuance(chain)
    dissolve(chain, 1)
    chain.next(3)
    assert 1 not in chain.p.SubnetTAO and issuance(chain) <= before


def test_emission_that_waited_for_the_pool_is_divided_with_it_and_the_weights_stay(chain: Chain) -> None:
    """As do_dissolve_network of the public chain: reservoirs into the reserves, nothing else of the pool moves."""
    netuid = chain.subnet()
    chain.stake(netuid, "owner_hot", 300 * TAO, "Bob")
    p, swap = chain.p, chain.rt.swap
    swap.BalancerTaoReservoir[netuid], swap.BalancerAlphaReservoir[netuid] = 100 * TAO, 7 * TAO
    quote, tao, alpha = swap.SwapBalancer[netuid], p.SubnetTAO[netuid], p.SubnetAlphaIn[netuid]
    others = p.TotalStake.get() - tao
    dissolve(chain, netuid)
    assert (p.SubnetTAO[netuid], p.SubnetAlphaIn[netuid]) == (tao + 100 * TAO, alpha + 7 * TAO)
    assert swap.SwapBalancer[netuid] == quote and p.TotalStake.get() == others
    assert netuid not in swap.BalancerTaoReservoir and netuid not in swap.BalancerAlphaReservoir


def test_one_subnet_is_cleared_a_block(chain: Chain) -> None:
    first, second = chain.subnet(), chain.subnet("Bob", "bob_hot")
    dissolve(chain, second)
    dissolve(chain, first)
    chain.next()
    assert chain.p.DissolveCleanupQueue.get() == [first] and first in chain.p.SubnetTAO
    chain.next()
    assert chain.p.DissolveCleanupQueue.get() == [] and first not in chain.p.SubnetTAO


def test_a_fund_s_alpha_becomes_root_stake_before_the_pool_is_divided(chain: Chain) -> None:
    from localnet.runtime.subtensor.basket_values import escrow_account

    netuid = chain.subnet()
    chain.stake(netuid, "owner_hot", 200 * TAO, "Bob")
    p, hot, escrow = chain.p, key("owner_hot"), escrow_account(chain.p)
    alpha = staking.stake_of(p, hot, key("Bob"), netuid) // 2
    staking.decrease_stake(p, hot, key("Bob"), netuid, alpha)
    staking.increase_stake(p, hot, escrow, netuid, alpha)
    p.BasketShares[hot] = 1
    stake = p.TotalStake.get() - p.SubnetTAO[netuid]
    dissolve(chain, netuid)
    finish(chain)
    cash = staking.stake_of(p, hot, escrow, 0)
    assert cash > 50 * TAO and p.TotalStake.get() == stake + cash
    [(_, event)] = chain.events("SubtensorModule.BasketHoldingConverted")
    assert event == {"hotkey": hot, "netuid": netuid, "tao": cash}
    issuance(chain)


# -- making room ----------------------------------------------------------------------------------------------------


@pytest.fixture
def full(chain: Chain) -> Chain:
    """Subnets 1 and 2 exist, no more may, none is immune; 2 is the cheaper one."""
    chain.subnet()
    chain.next(3)
    chain.p.SubnetLimit.put(2)
    chain.p.NetworkImmunityPeriod.put(0)
    chain.p.SubnetMovingPrice[1] = {"bits": ONE32}
    chain.p.SubnetMovingPrice[2] = {"bits": ONE32 // 2}
    return chain


def test_the_cheapest_subnet_makes_room_and_the_newcomer_waits_for_the_end_of_the_block(full: Chain) -> None:
    p, balances = full.p, full.rt.balances
    cost, before, issued = networks.lock_cost(p), balances.free(key("Bob")), issuance(full)
    full.do("Bob", "register_network", hotkey=key("bob_hot"))
    assert networks.netuids(p) == [0, 1] and p.DissolveCleanupQueue.get() == [2]
    assert balances.free(key("Bob")) == before and balances.reducible(key("Bob")) == before - cost
    assert [name.split(".")[1] for name, _ in full.events()[-3:]] == [
        "NetworkRemoved", "Locked", "NetworkRegistrationQueued"
    ]  # fmt: skip
    assert networks.lock_cost(p) == cost and key("bob_hot") not in p.Owner  # what changes them is the admission
    last = p.LastRateLimitedBlock[networks.LAST_REGISTERED]
    assert last != full.block
    finish(full)
    assert p.LastRateLimitedBlock[networks.LAST_REGISTERED] == full.block and p.Owner[key("bob_hot")] == key("Bob")
    assert networks.netuids(p) == [0, 1, 2] and p.SubnetOwner[2] == key("Bob") and p.Keys[2, 0] == key("bob_hot")
    assert (p.SubnetTAO[2], p.SubnetLocked[2], p.RegisteredSubnetCounter[2]) == (cost, cost, 2)
    assert balances.reducible(key("Bob"), keep_alive=False) == balances.free(key("Bob")) == before - cost
    assert p.NetworkRegistrationQueue.get() == [] and p.NetworkRegistrationLockId.get() == 1
    assert full.rt.system.Account[key("Bob")]["consumers"] == 0 and networks.lock_cost(p) == 2 * cost
    assert issuance(full) < issued  # the old pool had no holders: all of it was recycled
    full.next(2)


def test_what_a_waiting_registration_has_locked_cannot_be_spent(full: Chain) -> None:
    full.do("Bob", "register_network", hotkey=key("bob_hot"))
    free = full.rt.balances.free(key("Bob"))
    with pytest.raises(Exception, match="Frozen"):
        full.do("Bob", "transfer_allow_death", "Balances", dest=("Id", key("Alice")), value=free)


def test_two_waiting_registrations_of_a_coldkey_share_a_lock_and_cost_the_same(full: Chain) -> None:
    """Locks of Balances overlap, and a registration that waits does not raise the price: so on the public chain."""
    p, balances = full.p, full.rt.balances
    cost, before = networks.lock_cost(p), balances.free(key("Bob"))
    full.do("Bob", "register_network", hotkey=key("bob_hot"))
    full.do("Bob", "register_network", hotkey=key("other_hot"))
    assert [lock["amount"] for lock in balances.Locks[key("Bob")]] == [cost, cost]
    assert balances.reducible(key("Bob")) == before - cost
    full.next(2)
    assert balances.free(key("Bob")) == before - 2 * cost
    assert p.NetworkLastLockCost.get() == cost


def test_a_place_that_is_being_cleared_is_taken_before_another_subnet_goes(full: Chain) -> None:
    dissolve(full, 2)
    full.do("Bob", "register_network", hotkey=key("bob_hot"))
    assert networks.netuids(full.p) == [0, 1] and len(full.p.NetworkRegistrationQueue.get()) == 1
    full.do("Charlie", "register_network", hotkey=key("charlie_hot"))  # Bob waits for 2: now 1 has to go
    assert networks.netuids(full.p) == [0] and full.p.DissolveCleanupQueue.get() == [2, 1]
    full.next(2)
    assert [full.p.SubnetOwner[netuid] for netuid in (1, 2)] == [key("Charlie"), key("Bob")]


def test_without_a_mortal_subnet_or_the_money_nothing_is_pruned(full: Chain) -> None:
    full.fails("CannotAffordLockCost", "Nobody", "register_network", hotkey=key("bob_hot"))
    full.p.NetworkImmunityPeriod.put(1_000)
    full.fails("SubnetLimitReached", "Bob", "register_network", hotkey=key("bob_hot"))
    assert networks.netuids(full.p) == [0, 1, 2]


def test_among_equal_prices_the_oldest_subnet_goes(full: Chain) -> None:
    full.p.SubnetMovingPrice[1] = full.p.SubnetMovingPrice[2]
    assert networks.subnet_to_prune(full.p) == 1
    full.p.NetworkRegisteredAt[1] = full.p.NetworkRegisteredAt[2] + 1
    assert networks.subnet_to_prune(full.p) == 2


def test_a_registration_that_cannot_be_admitted_yet_waits(full: Chain) -> None:
    full.do("Bob", "register_network", hotkey=key("bob_hot"))
    full.p.SubnetLimit.put(1)
    full.next()
    assert len(full.p.NetworkRegistrationQueue.get()) == 1 and networks.netuids(full.p) == [0, 1]
    full.p.SubnetLimit.put(2)
    full.next()
    assert full.p.SubnetOwner[2] == key("Bob")
