"""Emission to many subnets: who gets how much, when the bar moves, and that no rao is lost or made up."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest

from localnet.rules import coinbase, emission_gate, stake
from localnet.rules.fixed import ONE32, ONE64, to_u64
from localnet.rules.swap import ACCURACY
from localnet.runtime.framework import Root
from localnet.runtime.subtensor import distribution, registration, staking
from tests.support.spec_chain import TAO, Chain, Saved, key

ROOT_STAKE = 10**15
MANY = 30


@lru_cache(maxsize=1)
def template() -> tuple[Chain, Saved]:
    chain = Chain()
    return chain, chain.save()


@pytest.fixture
def chain() -> Chain:
    chain, saved = template()
    return chain.restore(saved)


def subnets(chain: Chain, *prices: float) -> list[int]:
    """One started subnet for each price, without epochs; moving prices stay where they are, and the pools can take a
    block's whole TAO."""
    p = chain.p
    p.SubnetMovingAlpha.put({"bits": 0})
    staking.increase_stake(p, key("root"), key("Alice"), 0, ROOT_STAKE)
    p.SubnetTAO[0] = ROOT_STAKE
    found = []
    for n, price in enumerate(prices):
        netuid = chain.subnet(hotkey=f"owner{n}")
        p.NetworkLastLockCost.put(0)
        p.SubnetMovingPrice[netuid] = {"bits": int(price * ONE32)}
        p.Tempo[netuid] = 0
        found.append(netuid)
    return found


def received(chain: Chain, netuid: int) -> int:
    return chain.p.SubnetTaoInEmission[netuid] + chain.p.SubnetExcessTao[netuid]


def money(chain: Chain) -> int:
    """Every rao in every account."""
    return sum(one["data"]["free"] + one["data"]["reserved"] for _, one in chain.rt.system.Account.items())


def alpha(chain: Chain, netuid: int) -> int:
    """All alpha of a subnet, what waits beside its pool included."""
    p = chain.p
    return p.SubnetAlphaIn[netuid] + p.SubnetAlphaOut[netuid] + chain.rt.swap.BalancerAlphaReservoir[netuid]


def bar(chain: Chain) -> float:
    return float(chain.p.EmissionGateBar.get()["bits"] / ONE64)


# -- shares ---------------------------------------------------------------------------------------------------------


class TestGate:
    def test_the_settings_of_a_new_chain(self, chain: Chain) -> None:
        assert chain.p.EmissionBarRank.get() == 32
        assert chain.p.EmissionGateExponent.get() == {"bits": 3 * ONE64}
        assert chain.p.EmissionBarQuantile.get()["bits"] / ONE64 == pytest.approx(0.61)
        assert bar(chain) == 0

    def test_prices_of_one_and_two_are_paid_a_tenth_and_nine_tenths(self, chain: Chain) -> None:
        """subnet_emissions.rs: quantile mode, bar 2/3."""
        one, two = subnets(chain, 1, 2)
        chain.root("sudo_set_emission_bar_rank", rank=0)
        chain.next()
        assert bar(chain) == pytest.approx(2 / 3, abs=1e-9)
        assert received(chain, one) == pytest.approx(TAO / 10, rel=1e-6)
        assert received(chain, two) == pytest.approx(TAO * 9 / 10, rel=1e-6)

    def test_the_bar_by_rank_is_the_smallest_demand_when_there_are_fewer_subnets(self, chain: Chain) -> None:
        one, two = subnets(chain, 1, 2)
        chain.next()
        assert bar(chain) == pytest.approx(1 / 3, abs=1e-9)
        passed = [1 / 3 / (1 + 1), 2 / 3 / (1 + 1 / 8)]
        assert received(chain, two) / received(chain, one) == pytest.approx(passed[1] / passed[0], rel=1e-5)

    def test_the_bar_stands_until_the_360th_block(self, chain: Chain) -> None:
        """subnet_emissions.rs: prices 7 : 2 : 1 make 0.7; equal prices in block 179 change nothing, in block 360 they
        make 1/3."""
        found = subnets(chain, 7, 2, 1)
        chain.root("sudo_set_emission_bar_rank", rank=0)
        chain.next()
        assert bar(chain) == pytest.approx(0.7, abs=1e-9)
        for netuid in found:
            chain.p.SubnetMovingPrice[netuid] = {"bits": ONE32}
        for number, expected in ((179, 0.7), (359, 0.7), (360, 1 / 3)):
            chain.rt.system.Number.put(number - 1)
            chain.next()
            assert bar(chain) == pytest.approx(expected, abs=1e-9)

    def test_a_setting_that_moves_the_bar_moves_it_in_the_next_block(self, chain: Chain) -> None:
        subnets(chain, 7, 2, 1)
        chain.next()
        assert bar(chain) == pytest.approx(0.1, abs=1e-9)
        chain.root("sudo_set_emission_bar_rank", rank=2)
        assert bar(chain) == 0
        chain.next()
        assert bar(chain) == pytest.approx(0.2, abs=1e-9)
        chain.root("sudo_set_emission_bar_rank", rank=0)
        chain.root("sudo_set_emission_bar_quantile", quantile={"bits": ONE64 * 3 // 4})
        chain.next()
        assert bar(chain) == pytest.approx(0.2, abs=1e-9)
        chain.root("sudo_set_emission_gate_exponent", exponent={"bits": ONE64})
        assert bar(chain) == pytest.approx(0.2, abs=1e-9)  # the exponent does not move it

    def test_without_a_price_there_is_no_bar_and_nothing_to_give(self, chain: Chain) -> None:
        (netuid,) = subnets(chain, 0)
        issued = chain.p.TotalIssuance.get()
        chain.next()
        assert bar(chain) == 0 and received(chain, netuid) == 0 and chain.p.TotalIssuance.get() == issued

    @pytest.mark.parametrize(
        "call, argument, values",
        [
            ("sudo_set_emission_bar_quantile", "quantile", (0, ONE64)),
            ("sudo_set_emission_gate_exponent", "exponent", (ONE64 - 1, 8 * ONE64 + 1)),
        ],
    )
    def test_settings_out_of_bounds_are_refused(
        self, chain: Chain, call: str, argument: str, values: tuple[int, ...]
    ) -> None:
        for bits in values:
            with pytest.raises(Exception, match="InvalidValue"):
                chain.root(call, **{argument: {"bits": bits}})


class TestShares:
    def test_miners_that_were_not_paid_and_switches_count(self, chain: Chain) -> None:
        """An owner that kept three quarters of its miners' alpha counts a quarter; what is off gets nothing."""
        found = subnets(chain, 4, 1, 1)
        chain.root("sudo_set_emission_gate_exponent", exponent={"bits": ONE64})
        chain.p.MinerBurned[found[0]] = {"bits": ONE32 * 3 // 4}
        chain.next()
        assert [received(chain, netuid) for netuid in found] == pytest.approx([TAO / 3] * 3, rel=1e-6)
        chain.root("sudo_set_subnet_emission_enabled", netuid=found[1], enabled=False)
        chain.next()
        assert [received(chain, netuid) for netuid in found] == pytest.approx([TAO / 2, 0, TAO / 2], rel=1e-6)
        assert chain.p.SubnetAlphaOutEmission[found[1]] == TAO

    def test_a_subnet_without_a_market_counts_as_one_tao_whatever_its_moving_price_says(self, chain: Chain) -> None:
        """Beside one at half a TAO it gets two thirds, and together they are above one: root's part is paid out."""
        half, stable = subnets(chain, 0.5, 0)
        p = chain.p
        p.SubnetMechanism[stable] = 0
        p.SubnetAlphaIn[stable] *= 2  # its pool's weights and reserves are no price
        chain.root("sudo_set_emission_gate_exponent", exponent={"bits": ONE64})
        chain.root("sudo_set_emission_bar_rank", rank=1)
        chain.next()
        passed = [1 / 3 / (1 + 2), 2 / 3 / (1 + 1)]
        assert bar(chain) == pytest.approx(2 / 3, abs=1e-9)
        assert received(chain, stable) / received(chain, half) == pytest.approx(passed[1] / passed[0], rel=1e-6)
        assert p.SubnetAlphaInEmission[stable] == p.SubnetTaoInEmission[stable] == received(chain, stable)
        assert p.PendingRootAlphaDivs[half] > 0 and p.PendingRootAlphaDivs[stable] > 0

    def test_when_root_does_not_sell_its_part_is_recycled_and_all_records_agree(self, chain: Chain) -> None:
        """Two subnets at a quarter. Alpha waits beside one's pool; the other recycles the dividend of somebody without
        a seat on root in the same block: RootProp is of what is left then."""
        first, last = subnets(chain, 0.25, 0.25)
        p, assets, swap = chain.p, chain.rt.alpha_assets, chain.rt.swap
        swap.BalancerAlphaReservoir[last] = 1000 * TAO
        p.SubnetAlphaIn[last] = p.SubnetTAO[last] = TAO
        queued = 7 * TAO
        p.SubnetAlphaOut[first] += queued
        for netuid in (first, last):
            assets.mint(netuid, 100 * TAO)  # what is recycled was issued once
        distribution.queue_root_dividend(p, key("nobody"), first, queued)
        before = {netuid: (alpha(chain, netuid), assets.TotalAlphaIssuance[netuid]) for netuid in (first, last)}
        assert before[last][0] > 1000 * TAO
        chain.next()
        weight = stake.tao_weight(p.TaoWeight.get())
        assert assets.AlphaRecycled[first] > queued and assets.AlphaRecycled[last] > 0
        assert swap.BalancerAlphaReservoir[last] > 1000 * TAO  # it still waits
        for netuid, (was, issued) in before.items():
            assert p.PendingRootAlphaDivs[netuid] == 0
            assert assets.TotalAlphaIssuance[netuid] - issued == alpha(chain, netuid) - was
            assert p.RootProp[netuid]["bits"] == coinbase.root_proportion(ROOT_STAKE, alpha(chain, netuid), weight) > 0
        share = coinbase.root_proportion(ROOT_STAKE, alpha(chain, last) + assets.AlphaRecycled[last], weight)
        kept = TAO - TAO * 11_796 // 65_535
        assert assets.AlphaRecycled[last] == pytest.approx(share / ONE32 * kept / 2, rel=1e-6)

    def test_block_emission_notes_the_curve_of_the_last_subnet_s_alpha(self, chain: Chain) -> None:
        first, last = subnets(chain, 1, 1)
        p = chain.p
        p.SubnetAlphaOut[last] = coinbase.TOTAL_SUPPLY // 2
        chain.next()
        assert p.BlockEmission.get() == p.SubnetAlphaOutEmission[last] == TAO // 2 < p.SubnetAlphaOutEmission[first]

    def test_a_bar_stands_when_nothing_has_a_price_any_more(self, chain: Chain) -> None:
        (netuid,) = subnets(chain, 1)
        chain.next()
        assert bar(chain) == 1
        chain.p.SubnetMovingPrice[netuid] = {"bits": 0}
        chain.rt.system.Number.put(359)
        chain.next()
        assert bar(chain) == 1

    def test_what_may_not_be_injected_buys_alpha_and_the_counters_say_so(self, chain: Chain) -> None:
        """Root is small here: it may inject alpha for a small part of the TAO, and the chain buys with the rest."""
        (netuid,) = subnets(chain, 2)
        p = chain.p
        p.SubnetTAO[0] = 10 * TAO
        pool, out, flow = staking.pool_of(p, netuid), p.SubnetAlphaOut[netuid], p.SubnetProtocolFlow[netuid]
        volume, mine, stake = p.SubnetVolume[netuid], p.SubnetProtocolAlpha[netuid], p.TotalStake.get()
        account = chain.rt.balances.free(staking.subnet_account(p, netuid))
        chain.next()
        added, excess, alpha = p.SubnetTaoInEmission[netuid], p.SubnetExcessTao[netuid], p.SubnetAlphaInEmission[netuid]
        bought = p.SubnetProtocolAlpha[netuid] - mine
        given = added + excess
        assert TAO - 1 <= given <= TAO and excess > 100 * added > 0 and bought > 0
        assert p.SubnetTAO[netuid] == pool.tao + given
        assert p.SubnetAlphaIn[netuid] == pool.alpha - bought + alpha
        assert p.SubnetAlphaOut[netuid] == out + bought + p.SubnetAlphaOutEmission[netuid]
        assert (p.SubnetVolume[netuid] - volume, p.SubnetProtocolFlow[netuid] - flow) == (excess, given)
        assert p.TotalStake.get() - stake == given
        assert chain.rt.balances.free(staking.subnet_account(p, netuid)) - account == given

    def test_liquidity_beyond_the_weights_waits_and_is_not_lost(self, chain: Chain) -> None:
        """A small pool beside which much TAO waits takes alpha alone; the TAO goes in once the pool is larger."""
        (netuid,) = subnets(chain, 1)
        p, swap = chain.p, chain.rt.swap
        account, waits = staking.subnet_account(p, netuid), 1000 * TAO
        chain.rt.balances.transfer(key("Alice"), account, waits, keep_alive=True)
        swap.BalancerTaoReservoir[netuid] = waits
        p.SubnetTAO[netuid] = p.SubnetAlphaIn[netuid] = TAO
        issued, stake = p.TotalIssuance.get(), p.TotalStake.get()
        chain.next()
        more = swap.BalancerTaoReservoir[netuid] - waits
        assert more > TAO // 100 and p.SubnetTaoInEmission[netuid] == 0 and p.SubnetAlphaInEmission[netuid] > 0
        assert p.TotalIssuance.get() - issued == more + p.SubnetExcessTao[netuid] >= TAO - 1
        assert p.TotalStake.get() - stake == p.SubnetExcessTao[netuid] == p.SubnetTAO[netuid] - TAO
        assert p.TotalIssuance.get() == chain.rt.balances.TotalIssuance.get() == money(chain)
        p.SubnetTAO[netuid] = p.SubnetAlphaIn[netuid] = 10**15
        swap.SwapBalancer[netuid] = {"quote": ACCURACY // 2}
        chain.next()
        assert swap.BalancerTaoReservoir[netuid] == swap.BalancerAlphaReservoir[netuid] == 0
        assert p.SubnetTaoInEmission[netuid] > waits + more
        assert p.TotalIssuance.get() == chain.rt.balances.TotalIssuance.get() == money(chain)


# -- conservation ---------------------------------------------------------------------------------------------------


class TestConservation:
    def test_thirty_subnets_with_epochs_conserve_every_rao(self, chain: Chain) -> None:
        """TAO: accounts, Balances and SubtensorModule agree in every block, and each subnet's account covers its pool.
        Alpha: what is outstanding is held, pending, queued for a basket, bought by the chain, or burned. Every owner is
        a validator with stake here and on root, every other one with a seat on root and so with a basket."""
        p = chain.p
        found = subnets(chain, *[1 + n / 7 for n in range(MANY)])
        p.MaxEpochsPerBlock.put(MANY)
        for n, netuid in enumerate(found):
            p.Tempo[netuid] = 10
            for where in (0, netuid):
                staking.increase_stake(p, key(f"owner{n}"), key("Alice"), where, 10**12)
            if n % 2:
                registration.append_neuron(p, 0, key(f"owner{n}"))
        loose = {netuid: p.SubnetAlphaOut[netuid] - _accounted(chain, netuid) for netuid in found}
        issued = p.TotalIssuance.get()
        for _ in range(25):
            before = p.TotalIssuance.get()
            chain.next()
            assert p.TotalIssuance.get() == chain.rt.balances.TotalIssuance.get() == money(chain)
            assert TAO - MANY <= p.TotalIssuance.get() - before <= TAO
        assert issued < p.TotalIssuance.get()
        assert len(list(p.BasketShares.keys())) >= 5
        assert sum(recycled for _, recycled in chain.rt.alpha_assets.AlphaRecycled.items()) > TAO
        for netuid in found:
            assert p.SubnetEpochIndex[netuid] >= 2
            covered = chain.rt.balances.free(staking.subnet_account(p, netuid))
            assert covered >= p.SubnetTAO[netuid] + chain.rt.swap.BalancerTaoReservoir[netuid]
            lost = p.SubnetAlphaOut[netuid] - _accounted(chain, netuid) - loose[netuid]
            assert 0 <= lost < 100  # floors

    def test_the_moving_price_and_the_fast_one_follow_the_spot_price(self, chain: Chain) -> None:
        """A slow one that stands still at weight 0, and one block's step with a tenth."""
        (netuid,) = subnets(chain, 1)
        p = chain.p
        chain.next()
        fast = p.SubnetFastMovingPrice[netuid]
        assert fast is not None and fast["bits"] == staking.spot_price(p, netuid)
        p.SubnetTAO[netuid] *= 2
        chain.next()
        moved = p.SubnetFastMovingPrice[netuid]
        assert moved is not None and fast["bits"] < moved["bits"] < staking.spot_price(p, netuid)
        assert p.SubnetMovingPrice[netuid]["bits"] == ONE32
        p.SubnetTAO[netuid] //= 4
        p.SubnetMovingAlpha.put({"bits": ONE32 // 10})
        p.EMAPriceHalvingBlocks[netuid] = 10
        chain.next()
        blocks = chain.block - (p.FirstEmissionBlockNumber[netuid] or 0) + 1
        weight, spot = 0.1 * blocks / (blocks + 10), staking.spot_price(p, netuid) / ONE64
        assert spot < 1 and blocks > 2
        assert p.SubnetMovingPrice[netuid]["bits"] / ONE32 == pytest.approx(1 - weight * (1 - spot), rel=1e-8)


def _accounted(chain: Chain, netuid: int) -> int:
    p = chain.p
    held = sum(alpha for (_, one), alpha in p.TotalHotkeyAlpha.items() if one == netuid)
    queued = sum(alpha for (_, one), alpha in p.PendingBasketDeposits.items() if one == netuid)
    pending = (p.PendingOwnerCut, p.PendingServerEmission, p.PendingValidatorEmission, p.PendingRootAlphaDivs)
    burned = chain.rt.alpha_assets.AlphaBurned[netuid]
    return held + queued + sum(item[netuid] for item in pending) + p.SubnetProtocolAlpha[netuid] + burned


# -- null consensus -------------------------------------------------------------------------------------------------


class TestNullConsensus:
    @pytest.fixture
    def netuid(self, chain: Chain) -> int:
        """Owner 0, miners 1 and 2, validators 3 (more stake) and 4, both with a permit in block 12."""
        netuid = chain.subnet()
        for name in ("miner1", "miner2"):
            chain.neuron(netuid, name)
        for name, tao in (("big", 300), ("small", 100)):
            chain.neuron(netuid, name, "Charlie")
            chain.stake(netuid, name, tao * TAO, "Charlie")
        chain.p.OwnerCutEnabled[netuid] = False
        chain.next_to(12)
        assert chain.p.ValidatorPermit[netuid] == [True, False, False, True, True]
        return netuid

    def switch(self, chain: Chain, netuid: int, mode: str) -> None:
        """As root does it: no call of AdminUtils sets it."""
        item = chain.p.SubnetEpochConsensus
        chain.dispatch(Root(), "set_storage", "System", items=[(item.key(netuid), item._encode(mode))])

    def epoch(self, chain: Chain, netuid: int) -> dict[str, Any]:
        chain.next()
        while chain.p.LastEpochBlock[netuid] != chain.block:
            chain.next()
        p = chain.p
        return {name: getattr(p, name)[netuid] for name in ("Incentive", "Dividends", "Consensus", "Emission")}

    def test_root_switches_it_and_the_epochs_follow(self, chain: Chain, netuid: int) -> None:
        p = chain.p
        chain.do("big", "set_weights", netuid=netuid, dests=[1, 2], weights=[1, 3], version_key=0)
        chain.do("small", "set_weights", netuid=netuid, dests=[1], weights=[1], version_key=0)
        yuma = self.epoch(chain, netuid)
        bonds = dict(p.Bonds.items(netuid))
        assert yuma["Incentive"][1] != 16_383  # both are heard
        self.switch(chain, netuid, "Null")
        null = self.epoch(chain, netuid)
        assert null["Incentive"] == [0, 16_383, 49_151, 0, 0] == null["Consensus"]
        stakes = [share for share, _, _ in staking.inherited_weights(p, netuid, [key("big"), key("small")])]
        assert null["Dividends"][3] / null["Dividends"][4] == pytest.approx(stakes[0] / stakes[1], rel=0.01)
        assert dict(p.Bonds.items(netuid)) == bonds
        emitted = chain.events("SubtensorModule.IncentiveAlphaEmittedToMiners")[0][1]["emissions"]
        assert emitted[2] == pytest.approx(3 * emitted[1], abs=3)
        self.switch(chain, netuid, "Yuma")
        assert self.epoch(chain, netuid)["Incentive"] != null["Incentive"]

    def test_the_deciding_row_is_stored_as_it_was_written(self, chain: Chain, netuid: int) -> None:
        """null_consensus.rs: preserves_raw_weights_and_epoch_budget."""
        self.switch(chain, netuid, "Null")
        chain.do("big", "set_weights", netuid=netuid, dests=[1, 2], weights=[65_534, 1], version_key=0)
        assert chain.p.Weights[netuid, 3] == [(1, 65_534), (2, 1)]
        self.switch(chain, netuid, "Yuma")
        chain.do("small", "set_weights", netuid=netuid, dests=[1, 2], weights=[2, 1], version_key=0)
        assert chain.p.Weights[netuid, 4] == [(1, 65_535), (2, 32_768)]

    def test_a_block_with_a_null_epoch_runs_no_other(self, chain: Chain, netuid: int) -> None:
        p = chain.p
        chain.subnet(hotkey="other")
        self.switch(chain, netuid, "Null")
        p.MaxEpochsPerBlock.put(4)
        for one in (1, netuid, netuid + 1):
            p.Tempo[one], p.PendingEpochAt[one] = 10, chain.block + 1
        chain.next()
        assert [one for one in (1, netuid, netuid + 1) if p.LastEpochBlock[one] == chain.block] == [1]
        assert len(chain.events("SubtensorModule.EpochDeferred")) == 2


def test_the_runtime_s_shares_are_the_rule_s(chain: Chain) -> None:
    found = subnets(chain, 3, 5, 11)
    chain.next()
    demand = {netuid: ONE64 * price // 19 for netuid, price in zip(found, (3, 5, 11), strict=True)}
    expected = emission_gate.gated(demand, chain.p.EmissionGateBar.get()["bits"], 3 * ONE64)
    for netuid in found:
        assert received(chain, netuid) == pytest.approx(to_u64(TAO * expected[netuid], 64), abs=1)
