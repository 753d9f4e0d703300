"""Creating, starting, naming and scheduling subnets."""

from __future__ import annotations

from localnet.rules.fixed import ONE32
from localnet.runtime.profile import MAINNET
from localnet.runtime.subtensor import networks, registration, staking
from tests.support.spec_chain import TAO, Chain, key

HOT = key("hot")


def test_a_subnet_costs_the_lock_and_opens_with_it_as_pool(chain: Chain) -> None:
    before = chain.rt.balances.free(key("Alice"))
    netuid = chain.subnet(started=False)
    p = chain.p
    assert netuid == 2 and p.TotalNetworks.get() == 3
    assert before - chain.rt.balances.free(key("Alice")) == 1_000 * TAO
    assert chain.rt.balances.free(staking.subnet_account(p, netuid)) == 1_000 * TAO
    assert (p.SubnetTAO[netuid], p.SubnetLocked[netuid], p.TotalStake.get()) == (1_000 * TAO,) * 3
    assert p.SubnetAlphaIn[netuid] == 1_000 * TAO  # the median price of the only other subnet is 1
    assert p.RAORecycledForRegistration[netuid] == 0
    assert (p.SubnetOwner[netuid], p.Keys[netuid, 0]) == (key("Alice"), key("owner_hot"))
    assert ("SubtensorModule.NetworkAdded", (2, 1)) in chain.events()


def test_a_new_subnet_starts_from_its_own_defaults_not_the_metadata_s(chain: Chain) -> None:
    chain.do("Alice", "register_network", hotkey=HOT)
    p = chain.p
    assert (p.MinAllowedWeights[2], p.MaxAllowedValidators[2], p.ImmunityPeriod[2]) == (1, 64, 5_000)
    assert p.Yuma3On[2] and p.Burn[2] == TAO and not p.SubnetEmissionEnabled[2] and not p.SubtokenEnabled[2]
    assert p.TokenSymbol[2].decode() == "β"


def test_the_next_subnet_costs_twice_and_gets_cheaper_with_every_block(chain: Chain) -> None:
    chain.do("Alice", "register_network", hotkey=HOT)
    assert networks.lock_cost(chain.p) == 2_000 * TAO
    chain.next(10)
    assert networks.lock_cost(chain.p) == 2_000 * TAO - 10 * (1_000 * TAO // 100_800)


def test_the_pool_of_a_later_subnet_follows_the_median_price(chain: Chain) -> None:
    chain.subnet()
    chain.stake(2, "owner_hot", 500 * TAO)
    price = staking.spot_price(chain.p, 2)
    assert price > 2 << 64  # about 2.25 TAO per alpha; subnet 1 is at 1
    chain.do("Bob", "register_network", hotkey=key("bob_hot"))
    median = (price + (1 << 64)) // 2
    assert chain.p.SubnetAlphaIn[3] == (chain.p.SubnetTAO[3] << 64) // median


def test_creation_is_refused_in_the_chain_s_order(chain: Chain) -> None:
    p = chain.p
    chain.do("Bob", "try_associate_hotkey", hotkey=HOT)
    chain.fails("NonAssociatedColdKey", "Alice", "register_network", hotkey=HOT)
    chain.fails("CannotUseSystemAccount", "Alice", "register_network", hotkey=staking.subnet_account(p, 1))
    chain.fails("CannotUseSystemAccount", "Alice", "register_network", hotkey=staking.subnet_account(p, 77))
    chain.fails("CannotAffordLockCost", "Nobody", "register_network", hotkey=key("other"))
    p.NetworkRegistrationStartBlock.put(100)
    chain.fails("SubNetRegistrationDisabled", "Alice", "register_network", hotkey=key("other"))
    p.NetworkRegistrationStartBlock.put(0)
    p.SubnetLimit.put(1)
    chain.fails("SubnetLimitReached", "Alice", "register_network", hotkey=key("other"))


def test_mainnet_lets_one_subnet_through_in_7200_blocks_and_the_pool_says_so_first() -> None:
    chain = Chain(MAINNET)
    chain.do("Alice", "register_network", hotkey=HOT)
    chain.refused(6, "Bob", "register_network", hotkey=key("bob_hot"))
    chain.fails("NetworkTxRateLimitExceeded", "Bob", "register_network", hotkey=key("bob_hot"))
    chain.p.LastRateLimitedBlock["NetworkLastRegistered"] = 1
    chain.rt.system.Number.put(7_201)
    chain.accepted("Bob", "register_network", hotkey=key("bob_hot"))


def test_identity_can_come_with_the_subnet_and_is_checked(chain: Chain) -> None:
    fields = ("github_repo", "subnet_contact", "subnet_url", "discord", "description", "logo_url", "additional")
    identity = {"subnet_name": b"touch", **dict.fromkeys(fields, b"")}
    chain.fails("InvalidIdentity", "Alice", "register_network_with_identity", hotkey=HOT,
                identity={**identity, "discord": b"x" * 257})  # fmt: skip
    chain.do("Alice", "register_network_with_identity", hotkey=HOT, identity=identity)
    stored = chain.p.SubnetIdentitiesV3[2]
    assert stored is not None and stored["subnet_name"] == b"touch"
    arguments = {**identity, "subnet_name": b"stone", "netuid": 2}
    chain.fails("NotSubnetOwner", "Bob", "set_subnet_identity", **arguments)
    chain.do("Alice", "set_subnet_identity", **arguments)
    assert chain.events("SubtensorModule.SubnetIdentitySet")[-1][1] == 2


def test_start_call_needs_the_owner_once_and_the_delay(chain: Chain) -> None:
    netuid = chain.subnet(started=False)
    chain.fails("SubnetNotExists", "Alice", "start_call", netuid=9)
    chain.fails("BadOrigin", "Bob", "start_call", netuid=netuid)
    chain.p.StartCallDelay.put(5)
    chain.fails("StartCallNotReady", "Alice", "start_call", netuid=netuid)
    chain.next(5)
    chain.do("Alice", "start_call", netuid=netuid)
    assert chain.p.FirstEmissionBlockNumber[netuid] == chain.block + 1 and chain.p.SubtokenEnabled[netuid]
    chain.fails("FirstEmissionBlockNumberAlreadySet", "Alice", "start_call", netuid=netuid)


def test_coldkey_identity_needs_a_registered_hotkey(chain: Chain) -> None:
    names = ("url", "github_repo", "image", "discord", "description", "additional")
    identity = {"name": b"alice", **dict.fromkeys(names, b"")}
    chain.fails("HotKeyNotRegisteredInNetwork", "Alice", "set_identity", **identity)
    chain.subnet()
    chain.fails("InvalidIdentity", "Alice", "set_identity", **{**identity, "name": b"x" * 257})
    chain.do("Alice", "set_identity", **identity)
    assert chain.p.IdentitiesV2[key("Alice")] == identity


def test_symbols_are_unique_and_from_the_list(chain: Chain) -> None:
    netuid = chain.subnet()
    chain.fails("BadOrigin", "Bob", "update_symbol", netuid=netuid, symbol="γ".encode())
    chain.fails("SymbolDoesNotExist", "Alice", "update_symbol", netuid=netuid, symbol=b"XYZ")
    chain.fails("SymbolAlreadyInUse", "Alice", "update_symbol", netuid=netuid, symbol="α".encode())
    chain.do("Alice", "update_symbol", netuid=netuid, symbol="γ".encode())
    chain.do("Alice", "register_network", hotkey=HOT)
    assert chain.p.TokenSymbol[3].decode() == "β"  # its own was taken, the first free one steps in


def test_root_validators_become_parents_of_a_new_subnet_s_owner(chain: Chain) -> None:
    chain.do("Bob", "root_register", hotkey=key("root_validator"))
    chain.next()
    chain.do("Charlie", "root_register", hotkey=key("shy_validator"))
    chain.do("Charlie", "set_auto_parent_delegation_enabled", hotkey=key("shy_validator"), enabled=False)
    netuid = chain.subnet(started=False)
    parents = [parent for _, parent in chain.p.ParentKeys[key("owner_hot"), netuid]]
    assert parents == [key("root_validator")]


def test_a_new_root_validator_becomes_the_parent_of_every_subnet_s_owner(chain: Chain) -> None:
    """Not where it chose children itself; and no longer than it keeps its seat."""
    p, chosen, netuid = chain.p, chain.subnet(), chain.subnet("Charlie", "other_owner")
    own, edge = [(1 << 60, key("child"))], [((1 << 64) - 1, key("other_owner"))]
    chain.do("Bob", "try_associate_hotkey", hotkey=key("validator"))
    chain.do("Bob", "set_children", hotkey=key("validator"), netuid=chosen, children=own)
    chain.do("Bob", "root_register", hotkey=key("validator"))
    assert p.ChildKeys[key("validator"), netuid] == edge
    assert p.ChildKeys[key("validator"), chosen] == [] and p.PendingChildKeys[chosen, key("validator")][0] == own
    assert chain.events()[-1] == ("SubtensorModule.SetChildren", (key("validator"), netuid, edge))
    p.ChildKeys[key("validator"), chosen] = own
    registration.replace_neuron(p, networks.ROOT, 0, key("heir"))
    assert p.ChildKeys[key("validator"), netuid] == [] == p.ParentKeys[key("other_owner"), netuid]
    assert p.ChildKeys[key("validator"), chosen] == own


class TestClock:
    def test_epochs_come_every_tempo_and_start_staggered_by_netuid(self, chain: Chain) -> None:
        chain.next_to(25)
        netuid = chain.subnet()
        assert chain.p.LastEpochBlock[netuid] == 25 - 2
        chain.next_to(33)
        assert (chain.p.LastEpochBlock[netuid], chain.p.SubnetEpochIndex[netuid]) == (33, 1)
        chain.next_to(43)
        assert (chain.p.LastEpochBlock[netuid], chain.p.SubnetEpochIndex[netuid]) == (43, 2)

    def test_a_triggered_epoch_fires_after_the_window(self, chain: Chain) -> None:
        netuid = chain.subnet()
        chain.fails("AutoEpochAlreadyImminent", "Alice", "trigger_epoch", netuid=netuid)
        chain.p.Tempo[netuid] = 360
        chain.p.CommitRevealWeightsEnabled[netuid] = True
        chain.fails("DynamicTempoBlockedByCommitReveal", "Alice", "trigger_epoch", netuid=netuid)
        chain.p.CommitRevealWeightsEnabled[netuid] = False
        chain.do("Alice", "trigger_epoch", netuid=netuid)
        fires = chain.block + 10
        assert chain.p.PendingEpochAt[netuid] == fires
        chain.fails("EpochTriggerAlreadyPending", "Alice", "trigger_epoch", netuid=netuid)
        chain.next_to(fires)
        assert (chain.p.LastEpochBlock[netuid], chain.p.PendingEpochAt[netuid]) == (fires, 0)


def test_pruning_prefers_the_lowest_moving_price(chain: Chain) -> None:
    chain.subnet()
    chain.p.NetworkImmunityPeriod.put(0)
    chain.p.SubnetMovingPrice[1] = {"bits": ONE32}
    chain.p.SubnetMovingPrice[2] = {"bits": ONE32 // 2}
    assert networks.subnet_to_prune(chain.p) == 2


def test_a_subnet_s_halved_alpha_does_not_change_what_the_next_subnet_costs(chain: Chain) -> None:
    """BlockEmission is rewritten by every evaluation, that of a subnet's alpha included."""
    chain.subnet()
    chain.next(5)
    before = networks.lock_cost(chain.p)
    chain.p.BlockEmission.put(TAO // 2)
    assert networks.lock_cost(chain.p) == before
    answer = chain.rt.call("SubnetRegistrationRuntimeApi_get_network_registration_cost", b"", chain.rt.state)
    assert int.from_bytes(answer, "little") == before


def test_creation_makes_the_chain_s_events_in_its_order(chain: Chain) -> None:
    chain.next()
    chain.rt.events.clear()
    chain.do("Alice", "register_network", hotkey=HOT)
    assert [name.split(".")[1] for name, _ in chain.events()] == [
        "RegistrationAllowed", "MaxAllowedUidsSet", "MaxAllowedValidatorsSet", "MinAllowedWeightSet",
        "ImmunityPeriodSet", "NewAccount", "Endowed", "Transfer", "SubnetOwnerHotkeySet", "NetworkAdded",
    ]  # fmt: skip
    assert chain.events("SubtensorModule.ImmunityPeriodSet") == [("SubtensorModule.ImmunityPeriodSet", (2, 5_000))]
