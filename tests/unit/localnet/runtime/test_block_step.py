"""Emission, epochs and pay-outs as blocks go by."""

from __future__ import annotations

import pytest

from localnet.rules.fixed import ONE32
from localnet.runtime.subtensor import epochs, staking
from tests.support.spec_chain import TAO, Chain, key


@pytest.fixture
def netuid(chain: Chain) -> int:
    """Tempo 10, first epoch in block 10: owner uid 0, miners 1 and 2 (Bob's), validator uid 3 (Charlie's)."""
    netuid = chain.subnet()
    for name in ("miner1", "miner2"):
        chain.neuron(netuid, name)
    chain.neuron(netuid, "validator", "Charlie")
    chain.stake(netuid, "validator", 100 * TAO, "Charlie")
    return netuid


def opinion(chain: Chain, netuid: int, dests: list[int], weights: list[int]) -> None:
    """The validator has a permit and sets weights; the next epoch hears them."""
    chain.next_to(11)
    chain.do("validator", "set_weights", netuid=netuid, dests=dests, weights=weights, version_key=0)


def held(chain: Chain, netuid: int) -> int:
    return sum(value for (_, net), value in chain.p.TotalHotkeyAlpha.items() if net == netuid)


class TestEmission:
    def test_without_a_started_subnet_the_block_s_tao_is_recycled(self, chain: Chain) -> None:
        issued = chain.p.TotalIssuance.get()
        chain.next(3)
        assert chain.events() == [("Balances.Issued", {"amount": TAO})]
        assert chain.p.TotalIssuance.get() == chain.rt.balances.TotalIssuance.get() == issued

    def test_tao_starts_to_flow_when_the_moving_price_leaves_zero(self, chain: Chain, netuid: int) -> None:
        chain.next()
        assert chain.p.SubnetExcessTao[netuid] == chain.p.SubnetTaoInEmission[netuid] == 0
        chain.next(20)
        assert chain.p.SubnetMovingPrice[netuid]["bits"] > 0
        assert chain.p.SubnetExcessTao[netuid] + chain.p.SubnetTaoInEmission[netuid] == TAO

    def test_issued_alpha_is_what_the_subnet_s_alpha_grew_by(self, chain: Chain, netuid: int) -> None:
        """The pool's, the outstanding and the waiting: trades only move it, burning leaves it, recycling takes it."""
        p, assets = chain.p, chain.rt.alpha_assets

        def alpha() -> int:
            return p.SubnetAlphaIn[netuid] + p.SubnetAlphaOut[netuid] + chain.rt.swap.BalancerAlphaReservoir[netuid]

        p.SubnetMovingPrice[netuid] = {"bits": ONE32 // 2}
        chain.next()
        before, issued = alpha(), assets.TotalAlphaIssuance[netuid]
        chain.next_to(14)  # an epoch in between: the owner's own miner's part is burned
        chain.stake(netuid, "validator", 10 * TAO, "Charlie")
        chain.do("Charlie", "recycle_alpha", hotkey=key("validator"), netuid=netuid, amount=TAO)
        chain.do("Charlie", "burn_alpha", hotkey=key("validator"), netuid=netuid, amount=2 * TAO)
        assert alpha() - before == assets.TotalAlphaIssuance[netuid] - issued > 2 * TAO
        assert assets.AlphaRecycled[netuid] >= TAO and assets.AlphaBurned[netuid] >= 2 * TAO

    def test_a_started_subnet_gets_the_block_s_tao_at_an_unchanged_price(self, chain: Chain, netuid: int) -> None:
        p, account = chain.p, staking.subnet_account(chain.p, netuid)
        staking.increase_stake(p, key("validator"), key("Charlie"), 0, 10**15)
        p.SubnetTAO[0] = 10**15  # enough on root for the pool to take the alpha of a whole TAO
        p.SubnetMovingPrice[netuid] = {"bits": ONE32 // 2}
        money, pool, price = chain.rt.balances.free(account), p.SubnetTAO[netuid], staking.spot_price(p, netuid)
        issued, alpha_in = p.TotalIssuance.get(), p.SubnetAlphaIn[netuid]
        chain.next()
        assert (p.SubnetTaoInEmission[netuid], p.SubnetExcessTao[netuid]) == (TAO, 0)
        assert p.SubnetTAO[netuid] - pool == chain.rt.balances.free(account) - money == TAO
        assert p.TotalIssuance.get() - issued == TAO
        assert p.SubnetAlphaIn[netuid] - alpha_in == p.SubnetAlphaInEmission[netuid] == (TAO << 64) // price
        assert abs(staking.spot_price(p, netuid) - price) < price >> 40

    def test_without_root_stake_all_of_it_buys_alpha_for_nobody(self, chain: Chain, netuid: int) -> None:
        p, price, everyone = chain.p, staking.spot_price(chain.p, netuid), held(chain, netuid)
        p.SubnetMovingPrice[netuid] = {"bits": ONE32 // 2}
        chain.next()
        assert (p.SubnetTaoInEmission[netuid], p.SubnetExcessTao[netuid]) == (0, TAO)
        assert p.SubnetProtocolAlpha[netuid] > 0 and staking.spot_price(p, netuid) > price
        assert held(chain, netuid) == everyone

    def test_a_subnet_that_root_has_not_switched_on_gets_alpha_only(self, chain: Chain) -> None:
        netuid = chain.subnet(emits=False)
        issued = chain.p.TotalIssuance.get()
        chain.next()
        assert chain.p.SubnetAlphaOutEmission[netuid] == TAO
        assert chain.p.SubnetExcessTao[netuid] == 0 and chain.p.TotalIssuance.get() == issued

    def test_alpha_waits_for_the_epoch_in_three_parts(self, chain: Chain, netuid: int) -> None:
        p, out = chain.p, chain.p.SubnetAlphaOut[netuid]
        chain.next()
        cut = TAO * 11_796 // 65_535
        bought = p.SubnetProtocolAlpha[netuid]
        assert p.PendingOwnerCut[netuid] == cut
        assert abs(p.PendingServerEmission[netuid] - (TAO - cut) // 2) <= 1
        assert abs(p.PendingValidatorEmission[netuid] - (TAO - cut) // 2) <= 1
        assert p.SubnetAlphaOut[netuid] == out + TAO + bought
        p.OwnerCutEnabled[netuid] = False
        chain.next()
        assert p.PendingOwnerCut[netuid] == cut

    def test_the_moving_price_creeps_towards_the_spot_price(self, chain: Chain, netuid: int) -> None:
        chain.p.SubnetMovingAlpha.put({"bits": ONE32})
        chain.next()
        first = chain.p.SubnetMovingPrice[netuid]["bits"]
        chain.next()
        assert 0 < first < chain.p.SubnetMovingPrice[netuid]["bits"] < ONE32
        assert chain.p.SubnetMovingPrice[1]["bits"] == 0  # it was never started


class TestPayout:
    def test_nothing_is_lost_between_pending_and_paid(self, chain: Chain, netuid: int) -> None:
        opinion(chain, netuid, [1, 2], [1, 3])
        chain.next_to(19)
        p, before = chain.p, held(chain, netuid)
        pending = sum(item[netuid] for item in (p.PendingOwnerCut, p.PendingServerEmission, p.PendingValidatorEmission))
        chain.next()
        block = p.SubnetAlphaOutEmission[netuid]
        assert 0 <= pending + block - (held(chain, netuid) - before) < 20  # floors
        assert p.PendingServerEmission[netuid] == p.PendingOwnerCut[netuid] == 0

    def test_miners_earn_by_weight_and_validators_by_bonds(self, chain: Chain, netuid: int) -> None:
        opinion(chain, netuid, [1, 2], [1, 3])
        chain.next_to(20)
        p = chain.p
        assert p.Incentive[netuid] == [0, 16383, 49151, 0]
        assert p.Dividends[netuid] == [0, 0, 0, 65535] and p.ValidatorPermit[netuid] == [True, False, False, True]
        one, three = p.TotalHotkeyAlpha[key("miner1"), netuid], p.TotalHotkeyAlpha[key("miner2"), netuid]
        assert abs(three - 3 * one) < 10 and one > TAO
        assert staking.stake_of(p, key("miner1"), key("Bob"), netuid) == one
        assert p.AlphaDividendsPerSubnet[netuid, key("validator")] > 0
        assert p.TotalHotkeyAlphaLastEpoch[key("validator"), netuid] == p.TotalHotkeyAlpha[key("validator"), netuid]
        assert (p.LastMechansimStepBlock[netuid], p.BlocksSinceLastStep[netuid]) == (20, 0)
        emitted = chain.events("SubtensorModule.IncentiveAlphaEmittedToMiners")[0][1]
        assert emitted["netuid"] == netuid and emitted["emissions"][1] == one

    def test_the_owner_s_own_miner_is_not_paid(self, chain: Chain, netuid: int) -> None:
        opinion(chain, netuid, [0, 1], [1, 1])
        chain.next_to(19)
        p = chain.p
        before, out = p.TotalHotkeyAlpha[key("owner_hot"), netuid], p.SubnetAlphaOut[netuid]
        cut = p.PendingOwnerCut[netuid]
        chain.next()
        cut += p.SubnetAlphaOutEmission[netuid] * 11_796 // 65_535
        assert p.TotalHotkeyAlpha[key("owner_hot"), netuid] - before == cut
        assert abs(p.MinerBurned[netuid]["bits"] - ONE32 // 2) < 10
        bought = p.SubnetAlphaOut[netuid] - out - p.SubnetAlphaOutEmission[netuid]
        assert bought > 0  # only the chain's own purchase: burned alpha stays outstanding
        p.RecycleOrBurn[netuid] = "Recycle"
        chain.next_to(29)
        pending, out, held_alpha = (
            p.PendingServerEmission[netuid],
            p.SubnetAlphaOut[netuid],
            p.SubnetProtocolAlpha[netuid],
        )
        chain.next()
        block = p.SubnetAlphaOutEmission[netuid]
        withheld = out + block + (p.SubnetProtocolAlpha[netuid] - held_alpha) - p.SubnetAlphaOut[netuid]
        assert abs(withheld - (pending + (block - block * 11_796 // 65_535) // 2) // 2) < 10

    def test_incentive_goes_where_the_coldkey_auto_stakes(self, chain: Chain, netuid: int) -> None:
        chain.p.AutoStakeDestination[key("Bob"), netuid] = key("validator")
        opinion(chain, netuid, [1, 2], [1, 3])
        chain.next_to(20)
        assert chain.p.TotalHotkeyAlpha[key("miner1"), netuid] == 0
        assert staking.stake_of(chain.p, key("validator"), key("Bob"), netuid) > 3 * TAO
        assert len(chain.events("SubtensorModule.AutoStakeAdded")) >= 2

    def test_nominators_share_what_the_take_leaves(self, chain: Chain, netuid: int) -> None:
        chain.do("Dave", "add_stake", hotkey=key("validator"), netuid=netuid, amount_staked=100 * TAO)
        opinion(chain, netuid, [1, 2], [1, 3])
        chain.next_to(19)
        p, hot = chain.p, key("validator")
        before = {who: staking.stake_of(p, hot, key(who), netuid) for who in ("Charlie", "Dave")}
        chain.next()
        gain = {who: staking.stake_of(p, hot, key(who), netuid) - before[who] for who in before}
        rest = p.AlphaDividendsPerSubnet[netuid, hot]
        take = sum(gain.values()) - rest
        assert abs(take - sum(gain.values()) * 11_796 // 65_535) < 10
        dave = rest * before["Dave"] // (before["Dave"] + before["Charlie"])
        assert abs(gain["Dave"] - dave) <= dave // 10  # the take itself joins the pool first

    def test_a_parent_of_another_owner_leaves_its_child_the_childkey_take(self, chain: Chain, netuid: int) -> None:
        p = chain.p
        p.Owner[key("parent")] = key("Dave")
        p.OwnedHotkeys[key("Dave")] = [key("parent")]
        chain.stake(netuid, "parent", 100 * TAO, "Dave")
        p.ChildKeys[key("parent"), netuid] = [((1 << 64) - 1, key("validator"))]
        p.ParentKeys[key("validator"), netuid] = [((1 << 64) - 1, key("parent"))]
        p.ChildkeyTake[key("validator"), netuid] = 6_553  # 10 %
        opinion(chain, netuid, [1, 2], [1, 3])
        chain.next_to(20)
        own, parent = (p.AlphaDividendsPerSubnet[netuid, key(name)] for name in ("validator", "parent"))
        stakes = [p.TotalHotkeyAlphaLastEpoch[key(name), netuid] for name in ("validator", "parent")]
        share = stakes[1] / sum(stakes)
        assert abs(parent / (own + parent) - 0.9 * share) < 0.01

    def test_root_s_part_is_recycled_when_the_validator_has_no_seat_on_root(self, chain: Chain, netuid: int) -> None:
        p = chain.p
        staking.increase_stake(p, key("validator"), key("Charlie"), 0, 10**14)
        p.SubnetTAO[0] = 10**14
        p.SubnetMovingPrice[netuid] = {"bits": 2 * ONE32}  # the prices' sum above 1: root's alpha is paid out
        opinion(chain, netuid, [1, 2], [1, 3])
        chain.next_to(19)
        root = p.PendingRootAlphaDivs[netuid]
        assert root > 0
        before, out, alpha_held = p.SubnetAlphaOut[netuid], p.SubnetAlphaOutEmission[netuid], held(chain, netuid)
        bought = p.SubnetProtocolAlpha[netuid]
        chain.next()
        bought = p.SubnetProtocolAlpha[netuid] - bought
        recycled = before + out + bought - p.SubnetAlphaOut[netuid]
        assert recycled > root * 0.8  # but for the delegate take, which the validator's owner keeps
        assert held(chain, netuid) > alpha_held


class TestSchedule:
    def test_what_exceeds_the_cap_is_deferred_by_a_block(self, chain: Chain) -> None:
        first, second = chain.subnet(), chain.subnet(hotkey="second_hot")
        chain.p.LastEpochBlock[first] = chain.p.LastEpochBlock[second] = 5
        chain.p.MaxEpochsPerBlock.put(1)
        chain.next_to(15)
        deferred = chain.events("SubtensorModule.EpochDeferred")[0][1]
        assert deferred == {"netuid": second, "from_block": 15, "to_block": 16}
        assert (chain.p.LastEpochBlock[first], chain.p.LastEpochBlock[second]) == (15, 5)
        chain.next()
        assert chain.p.LastEpochBlock[second] == 16

    def test_a_subnet_with_a_hotkey_twice_skips_its_epoch_and_keeps_its_alpha(self, chain: Chain, netuid: int) -> None:
        chain.p.Keys[netuid, 2] = chain.p.Keys[netuid, 1]
        chain.next_to(10)
        assert chain.events("SubtensorModule.EpochSkipped") == [
            ("SubtensorModule.EpochSkipped", {"netuid": netuid, "block": 10})
        ]
        assert chain.p.PendingServerEmission[netuid] > 0 and chain.p.LastEpochBlock[netuid] == 10

    def test_without_a_tempo_there_are_no_epochs(self, chain: Chain, netuid: int) -> None:
        chain.p.Tempo[netuid] = 0
        chain.next(40)
        assert chain.p.SubnetEpochIndex[netuid] == 0 and chain.p.BlocksSinceLastStep[netuid] == 1  # at most tempo + 1

    def test_pending_children_take_effect_after_the_cooldown_at_an_epoch(self, chain: Chain, netuid: int) -> None:
        chain.do("Charlie", "set_children", hotkey=key("validator"), netuid=netuid, children=[(1 << 63, key("miner1"))])
        chain.next_to(19)
        assert chain.p.ChildKeys[key("validator"), netuid] == []
        chain.next_to(20)
        assert chain.p.ChildKeys[key("validator"), netuid] == [(1 << 63, key("miner1"))]
        assert chain.p.ParentKeys[key("miner1"), netuid] == [(1 << 63, key("validator"))]


class TestEpochInputs:
    def test_mechanisms_divide_the_emission_and_keep_their_own_incentive(self, chain: Chain, netuid: int) -> None:
        p = chain.p
        p.MechanismCountCurrent[netuid] = 2
        p.MechanismEmissionSplit[netuid] = [16_384, 49_151]
        chain.next_to(11)
        for mecid, dest in ((0, 1), (1, 2)):
            chain.do("validator", "set_mechanism_weights", netuid=netuid, mecid=mecid, dests=[dest], weights=[1],
                     version_key=0)  # fmt: skip
        chain.next_to(20)
        assert p.Incentive[netuid] == [0, 65535, 0, 0] and p.Incentive[4096 + netuid] == [0, 0, 65535, 0]
        one, two = p.TotalHotkeyAlpha[key("miner1"), netuid], p.TotalHotkeyAlpha[key("miner2"), netuid]
        assert abs(two - 3 * one) < 0.001 * two
        assert p.Bonds[4096 + netuid, 3] and p.Bonds[netuid, 3]

    def test_weights_committed_before_a_uid_changed_hands_do_not_count_for_it(self, chain: Chain, netuid: int) -> None:
        p = chain.p
        opinion(chain, netuid, [1, 2], [1, 1])
        p.CommitRevealWeightsEnabled[netuid] = True
        p.WeightCommits[netuid, key("validator")] = [(bytes(32), p.SubnetEpochIndex[netuid], 11, 0)]
        p.BlockAtRegistration[netuid, 2] = 12
        p.LastUpdate[netuid] = [0, 0, 0, 13]
        chain.next_to(20)
        assert p.Incentive[netuid] == [0, 65535, 0, 0]
        p.CommitRevealWeightsEnabled[netuid] = False
        chain.next_to(30)
        assert p.Incentive[netuid][2] > 30_000

    def test_the_settings_of_the_subnet_reach_the_epoch(self, chain: Chain, netuid: int) -> None:
        p = chain.p
        p.Kappa[netuid], p.BondsPenalty[netuid], p.LiquidAlphaOn[netuid] = 40_000, 7, True
        p.AlphaValues[netuid] = (20_000, 30_000)
        hyper = epochs.hyperparameters(p, netuid)
        assert (hyper.kappa, hyper.bonds_penalty, hyper.liquid_alpha, hyper.yuma3) == (40_000, 7, True, True)
        assert (hyper.alpha_low, hyper.alpha_high, hyper.activity_cutoff, hyper.max_validators) == (
            20_000, 30_000, 138, 64)  # fmt: skip

    def test_a_new_permit_counts_from_the_next_epoch(self, chain: Chain, netuid: int) -> None:
        p = chain.p
        assert p.ValidatorPermit[netuid] == [False] * 4
        p.ValidatorPermit[netuid] = [False, False, False, True]
        chain.do("validator", "set_weights", netuid=netuid, dests=[1], weights=[1], version_key=0)
        p.ValidatorPermit[netuid] = [False] * 4
        chain.next_to(10)
        assert p.ValidatorPermit[netuid][3] and p.Incentive[netuid] == [0] * 4
        chain.next_to(20)
        assert p.Incentive[netuid] == [0, 0, 0, 0]  # its weights are from the block of the registration
        chain.do("validator", "set_weights", netuid=netuid, dests=[1], weights=[1], version_key=0)
        chain.next_to(30)
        assert p.Incentive[netuid] == [0, 65535, 0, 0]
