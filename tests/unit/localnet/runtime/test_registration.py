"""Places on a subnet: what they cost, who gets one, who has to go."""

from __future__ import annotations

from typing import Any

from localnet.runtime.subtensor import registration, staking
from tests.support.spec_chain import TAO, Chain, key


def test_the_price_buys_alpha_that_nobody_gets(chain: Chain) -> None:
    netuid, p = chain.subnet(), chain.p
    issuance, out = chain.rt.balances.TotalIssuance.get(), p.SubnetAlphaOut[netuid]
    before, pool = chain.rt.balances.free(key("Bob")), (p.SubnetTAO[netuid], p.SubnetAlphaIn[netuid])
    assert chain.neuron(netuid, "miner") == 1
    fee = TAO * 33 // 65535
    assert before - chain.rt.balances.free(key("Bob")) == TAO
    assert p.SubnetTAO[netuid] - pool[0] == TAO - fee
    assert p.SubnetAlphaIn[netuid] < pool[1] and p.SubnetAlphaOut[netuid] == out
    assert chain.rt.balances.TotalIssuance.get() == issuance
    assert p.RAORecycledForRegistration[netuid] == TAO and p.RegistrationsThisBlock[netuid] == 1
    assert chain.events()[-1] == ("SubtensorModule.NeuronRegistered", (netuid, 1, key("miner")))


def test_every_sale_raises_the_price_and_every_block_lowers_it(chain: Chain) -> None:
    netuid = chain.subnet()
    chain.neuron(netuid, "one")
    assert chain.p.Burn[netuid] == 1_260_000_000
    chain.neuron(netuid, "two")
    assert chain.p.Burn[netuid] == 1_587_600_000
    raised = chain.p.Burn[netuid]
    chain.next()
    assert 0 < raised - chain.p.Burn[netuid] < raised // 300
    assert chain.p.RegistrationsThisBlock[netuid] == 0
    chain.next(359)
    assert abs(chain.p.Burn[netuid] - raised // 2) < raised // 10_000  # half of it after 360 blocks


def test_registration_is_refused_in_the_chain_s_order(chain: Chain) -> None:
    netuid, new = chain.subnet(), key("new")
    chain.fails("RegistrationNotPermittedOnRootSubnet", "Bob", "burned_register", netuid=0, hotkey=new)
    chain.fails("SubnetNotExists", "Bob", "burned_register", netuid=9, hotkey=new)
    chain.p.NetworkRegistrationAllowed[netuid] = False
    chain.fails("SubNetRegistrationDisabled", "Bob", "burned_register", netuid=netuid, hotkey=new)
    chain.p.NetworkRegistrationAllowed[netuid] = True
    taken = key("owner_hot")
    chain.fails("HotKeyAlreadyRegisteredInSubNet", "Bob", "burned_register", netuid=netuid, hotkey=taken)
    chain.fails("NotEnoughBalanceToStake", "Nobody", "burned_register", netuid=netuid, hotkey=new)
    account = staking.subnet_account(chain.p, netuid)
    chain.fails("CannotUseSystemAccount", "Bob", "burned_register", netuid=netuid, hotkey=account)
    chain.do("Charlie", "try_associate_hotkey", hotkey=new)
    chain.fails("NonAssociatedColdKey", "Bob", "burned_register", netuid=netuid, hotkey=new)


def test_a_price_limit_is_kept_and_the_old_call_ignores_its_proof(chain: Chain) -> None:
    netuid = chain.subnet()
    chain.fails("RegistrationPriceLimitExceeded", "Bob", "register_limit", netuid=netuid, hotkey=key("a"),
                limit_price=TAO - 1)  # fmt: skip
    chain.do("Bob", "register_limit", netuid=netuid, hotkey=key("a"), limit_price=TAO)
    chain.do("Bob", "register", netuid=netuid, block_number=0, nonce=0, work=b"", hotkey=key("b"), coldkey=key("Bob"))
    assert (chain.p.Uids[netuid, key("a")], chain.p.Uids[netuid, key("b")]) == (1, 2)


def sealed(reveal_round: int) -> Any:
    return ("TimelockEncrypted", {"encrypted": b"sealed", "reveal_round": reveal_round})


def full(chain: Chain, places: int = 3) -> int:
    """A subnet whose places are all taken: the owner on uid 0, miners on the others, all immune."""
    netuid = chain.subnet()
    chain.p.MaxAllowedUids[netuid] = places
    for uid in range(1, places):
        chain.neuron(netuid, f"miner{uid}")
    return netuid


def test_in_a_full_subnet_the_weakest_miner_goes_and_its_traces_with_it(chain: Chain) -> None:
    netuid, p = full(chain), chain.p
    p.MinNonImmuneUids[netuid], p.ImmunityPeriod[netuid] = 0, 0
    p.Emission[netuid] = [0, 500, 400]
    p.Weights[netuid, 1] = [(1, 65535), (2, 65535)]
    p.Weights[netuid, 2] = [(1, 1)]
    p.Bonds[netuid, 2] = [(1, 1)]
    p.Bonds[netuid, 1] = [(2, 7)]
    chain.do("miner2", "serve_axon", netuid=netuid, version=1, ip=1, port=1, ip_type=4, protocol=4,
             placeholder1=0, placeholder2=0)  # fmt: skip
    commitments = chain.rt.commitments
    for hotkey, field in (("miner1", ("Raw1", b"a")), ("miner2", sealed(9))):
        chain.do(hotkey, "set_commitment", "Commitments", netuid=netuid, info={"fields": [field]})
    assert commitments.TimelockedIndex.get() == [(netuid, key("miner2"))]
    chain.next(2)
    assert chain.neuron(netuid, "newcomer") == 2
    assert p.Uids[netuid, key("miner2")] is None and not p.IsNetworkMember[key("miner2"), netuid]
    assert p.Axons[netuid, key("miner2")] is None
    assert commitments.CommitmentOf[netuid, key("miner2")] is None and commitments.TimelockedIndex.get() == []
    assert commitments.UsedSpaceOf[netuid, key("miner2")] is None and commitments.LastCommitment[netuid, key("miner1")]
    assert p.Weights[netuid, 1] == [(1, 65535), (2, 0)] and p.Weights[netuid, 2] == []
    assert p.Bonds[netuid, 2] == [] and p.Bonds[netuid, 1] == [(2, 7)]  # columns stay, the epoch masks them
    assert (p.BlockAtRegistration[netuid, 2], p.LastUpdate[netuid][2]) == (chain.block, chain.block)
    assert p.Emission[netuid] == [0, 500, 0] and p.Active[netuid][2]


def test_the_owner_is_never_replaced_and_ten_others_must_stay(chain: Chain) -> None:
    netuid, p = full(chain), chain.p
    p.ImmunityPeriod[netuid] = 0
    chain.next()
    chain.fails("NoNeuronIdAvailable", "Bob", "burned_register", netuid=netuid, hotkey=key("newcomer"))
    p.MinNonImmuneUids[netuid] = 1
    assert registration.uid_to_prune(p, netuid) == 1
    p.ImmuneOwnerUidsLimit[netuid] = 1
    assert registration.immortal_uids(p, netuid) == [0]


def test_the_immune_go_when_nobody_else_is_left(chain: Chain) -> None:
    netuid = full(chain)
    chain.p.Emission[netuid] = [0, 5, 3]
    assert registration.uid_to_prune(chain.p, netuid) == 2


class TestRoot:
    def test_a_seat_costs_its_price_which_is_recycled_and_makes_a_delegate(self, chain: Chain) -> None:
        p, price = chain.p, chain.p.Burn[0]
        before, issued = (
            chain.rt.balances.free(key("Bob")),
            (chain.rt.balances.TotalIssuance.get(), p.TotalIssuance.get()),
        )
        chain.do("Bob", "root_register", hotkey=key("val"))
        assert price == TAO // 10 == before - chain.rt.balances.free(key("Bob")) == p.RAORecycledForRegistration[0]
        assert (chain.rt.balances.TotalIssuance.get(), p.TotalIssuance.get()) == (issued[0] - price, issued[1] - price)
        assert p.Burn[0] == price * 126 // 100
        assert (p.Uids[0, key("val")], p.Delegates[key("val")]) == (0, 11_796)
        chain.next()
        assert p.Burn[0] < price * 126 // 100
        chain.rt.balances.transfer(key("Bob"), key("Alice"), chain.rt.balances.free(key("Bob")) - 500, keep_alive=True)
        chain.fails("InsufficientTaoBalance", "Bob", "root_register", hotkey=key("poor"))

    def test_a_price_above_the_pallet_s_own_count_of_issuance_leaves_it_at_nothing(self, chain: Chain) -> None:
        """saturating_sub in recycle_tao, pallets/subtensor/src/coinbase/tao.rs: old chains count less than there is."""
        chain.p.TotalIssuance.put(chain.p.Burn[0] - 1)
        chain.do("Bob", "root_register", hotkey=key("val"))
        assert chain.p.TotalIssuance.get() == 0 and chain.p.Uids[0, key("val")] == 0

    def test_one_seat_a_block_three_an_interval_until_the_first_root_tempo_is_over(self, chain: Chain) -> None:
        for number in range(3):
            chain.do("Bob", "root_register", hotkey=key(f"val{number}"))
            chain.fails("TooManyRegistrationsThisBlock", "Bob", "root_register", hotkey=key("more"))
            chain.next()
        chain.fails("TooManyRegistrationsThisInterval", "Bob", "root_register", hotkey=key("more"))
        chain.next_to(99)
        chain.fails("TooManyRegistrationsThisInterval", "Bob", "root_register", hotkey=key("more"))
        chain.next()
        chain.do("Bob", "root_register", hotkey=key("more"))

    def test_a_full_root_gives_up_the_least_stake_once_it_is_not_immune(self, chain: Chain) -> None:
        p = chain.p
        for seat in range(64):
            hotkey = bytes([seat]) * 32
            p.Owner[hotkey] = key("Alice")
            registration.append_neuron(p, 0, hotkey)
            staking.increase_stake(p, hotkey, key("Alice"), 0, 100 + seat)
        free = chain.rt.balances.free(key("Bob"))
        chain.fails("NoNeuronIdAvailable", "Bob", "root_register", hotkey=key("val"))
        assert chain.rt.balances.free(key("Bob")) == free
        p.ImmunityPeriod[0] = 1
        p.BlockAtRegistration[0, 0] = chain.next()
        chain.do("Bob", "root_register", hotkey=key("val"))
        assert p.Uids[0, key("val")] == 1 and p.Uids[0, bytes([1]) * 32] is None  # uid 0 has less, and is immune
        p.MaxAllowedUids[0] = 65
        chain.next()
        chain.do("Bob", "root_register", hotkey=key("extra"))
        assert p.Uids[0, key("extra")] == 64
