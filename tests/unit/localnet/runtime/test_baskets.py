"""Baskets: root's dividends on their way to root stakers, shares bought, funds rearranged, and what clients read."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest

from localnet.errors import DispatchError
from localnet.rules import baskets as rules
from localnet.rules.fixed import ONE32, ONE64, U16_MAX
from localnet.rules.swap import fee_amount
from localnet.runtime.subtensor import (
    basket_money,
    basket_values,
    baskets,
    beta_index,
    distribution,
    fund_moves,
    registration,
    staking,
)
from tests.support.spec_chain import TAO, Chain, Saved, key

V, BOB, DAVE, EVE = key("validator"), key("Bob"), key("Dave"), key("Eve")
NET = 2
READS = "BetaBasketRuntimeApi_"


@lru_cache(maxsize=1)
def template() -> tuple[Chain, Saved]:
    """Subnet 2 (tempo 10) with Charlie's validator; on root it has a seat, 300 TAO of Bob's and 100 of Dave's."""
    chain = Chain()
    chain.root("sudo_set_subtoken_enabled", netuid=0, subtoken_enabled=True)
    assert chain.subnet() == NET
    chain.neuron(NET, "miner")
    chain.neuron(NET, "validator", "Charlie")
    chain.stake(NET, "validator", 1000 * TAO, "Charlie")
    chain.do("Charlie", "root_register", hotkey=V)
    chain.stake(0, "validator", 300 * TAO, "Bob")
    chain.stake(0, "validator", 100 * TAO, "Dave")
    chain.p.SubnetMovingAlpha.put({"bits": 0})
    chain.p.SubnetMovingPrice[NET] = {"bits": 2 * ONE32}  # above 1: root's part is paid out, not recycled
    chain.next()
    return chain, chain.save()


@pytest.fixture
def chain() -> Iterator[Chain]:
    """Whatever a test does, every rao is in an account afterwards, and each subnet's account covers its pool."""
    chain, saved = template()
    yield chain.restore(saved)
    p = chain.p
    everything = sum(one["data"]["free"] + one["data"]["reserved"] for _, one in chain.rt.system.Account.items())
    assert p.TotalIssuance.get() == chain.rt.balances.TotalIssuance.get() == everything
    for netuid in set(p.NetworksAdded.keys()) - {1}:  # subnet 1 of a new chain has a pool that nobody paid for
        assert chain.rt.balances.free(staking.subnet_account(p, netuid)) >= p.SubnetTAO[netuid]
    root = sum(alpha for (_, netuid), alpha in p.TotalHotkeyAlpha.items() if netuid == 0)
    assert p.SubnetTAO[0] == p.SubnetAlphaOut[0] == root


def dividend(chain: Chain, alpha: int, hotkey: bytes = V, netuid: int = NET) -> None:
    """Alpha of the subnet for the validator's root stakers, deposited at once."""
    chain.p.SubnetAlphaOut[netuid] += alpha
    distribution.queue_root_dividend(chain.p, hotkey, netuid, alpha)
    baskets.flush(chain.p, hotkey)


def read(chain: Chain, name: str, *arguments: Any) -> Any:
    """Through bytes, as a node calls it."""
    method, registry = chain.rt.document.apis[READS + name], chain.rt.document.registry
    data = b"".join(registry.encode(kind, value) for kind, value in zip(method.inputs, arguments, strict=True))
    return registry.decode(method.output, chain.rt.call(READS + name, data, chain.rt.state))


def event(chain: Chain, name: str) -> dict[str, Any]:
    """Fields of the newest event of that name."""
    fields: dict[str, Any] = chain.events(f"SubtensorModule.{name}")[-1][1]
    return fields


def spot(chain: Chain) -> float:
    """TAO per alpha of the subnet."""
    return staking.spot_price(chain.p, NET) / ONE64


def root_stake(chain: Chain, who: bytes) -> int:
    return staking.stake_of(chain.p, V, who, 0)


def owed(chain: Chain, who: bytes) -> int:
    return baskets.owed_shares(chain.p, V, who)


def queue(chain: Chain, alpha: int, netuid: int = NET, hotkey: bytes = V) -> None:
    """A dividend that waits."""
    chain.p.SubnetAlphaOut[netuid] += alpha
    distribution.queue_root_dividend(chain.p, hotkey, netuid, alpha)


def hold_alpha(chain: Chain, netuid: int, alpha: int) -> None:
    """More alpha in the validator's fund."""
    chain.p.SubnetAlphaOut[netuid] += alpha
    staking.increase_stake(chain.p, V, basket_values.escrow_account(chain.p), netuid, alpha)


def no_threshold(chain: Chain) -> None:
    chain.root("sudo_set_root_claim_threshold", "SubtensorModule", netuid=0, new_value=0)


def put_on_root(chain: Chain, hotkey: bytes, coldkey: bytes, tao: int) -> None:
    """Root stake out of nowhere but Alice's pocket."""
    chain.rt.balances.transfer(key("Alice"), staking.subnet_account(chain.p, 0), tao, keep_alive=True)
    staking.increase_stake(chain.p, hotkey, coldkey, 0, tao)
    for item in (chain.p.SubnetTAO, chain.p.SubnetAlphaOut):
        item[0] += tao


def hold_tao(chain: Chain, hotkey: bytes, tao: int) -> None:
    """More TAO in a fund's root slot."""
    put_on_root(chain, hotkey, basket_values.escrow_account(chain.p), tao)


# -- dividends ------------------------------------------------------------------------------------------------------


class TestDividends:
    def test_an_epoch_s_dividend_becomes_shares_and_then_root_stake(self, chain: Chain) -> None:
        p = chain.p
        chain.next_to(10)
        paid = p.RootAlphaDividendsPerSubnet[NET, V]
        assert paid > 0 and not list(p.PendingBasketDeposits.keys())  # deposited in the same block
        assert basket_values.held(p, V, NET) == paid == p.BasketShares[V] * paid // p.BasketDepositedTao[V]
        nav = basket_values.nav(p, V)
        assert owed(chain, BOB) == pytest.approx(3 * owed(chain, DAVE), rel=1e-6)
        before = root_stake(chain, BOB)
        chain.do("Bob", "claim_root", subnets=[])
        got = root_stake(chain, BOB) - before
        assert got == pytest.approx(nav * 3 / 4, rel=1e-6) == event(chain, "RootClaimed")["tao"]
        assert event(chain, "BasketClaimed") == {"hotkey": V, "coldkey": BOB, "tao": got}
        sold = p.SubnetRootSellTao[NET]
        assert p.BasketRedeemedTao[V] == got == sold - basket_values.held(p, V, 0)  # the fund keeps the better price
        assert basket_values.held(p, V, NET) == pytest.approx(paid / 4, rel=1e-6)
        chain.do("Dave", "claim_root_with_hotkey", hotkey=V)
        assert root_stake(chain, DAVE) - 100 * TAO == pytest.approx(nav / 4, rel=1e-3)
        chain.next()
        assert p.SubnetRootSellTao[NET] == 0

    def test_nothing_is_traded_for_a_dividend(self, chain: Chain) -> None:
        p, pool, out = chain.p, staking.pool_of(chain.p, NET), chain.p.SubnetAlphaOut[NET]
        dividend(chain, TAO)
        assert staking.pool_of(p, NET) == pool and p.SubnetAlphaOut[NET] == out + TAO
        assert event(chain, "BasketDeposited") == {
            "hotkey": V,
            "tao": p.BasketDepositedTao[V],
            "shares": p.BasketShares[V],
        }
        assert p.BasketShares[V] == p.BasketDepositedTao[V] == basket_values.nav(p, V)  # the first is at par

    def test_a_later_deposit_is_priced_at_nav(self, chain: Chain) -> None:
        p = chain.p
        dividend(chain, TAO)
        nav, shares = basket_values.nav(p, V), p.BasketShares[V]
        p.SubnetTAO[NET] *= 2  # alpha is worth twice as much now
        chain.rt.balances.transfer(key("Alice"), staking.subnet_account(p, NET), p.SubnetTAO[NET] // 2, keep_alive=True)
        worth = basket_values.nav(p, V)
        assert worth == pytest.approx(2 * nav, rel=1e-3)
        dividend(chain, TAO)
        assert p.BasketShares[V] - shares == pytest.approx(shares * (basket_values.nav(p, V) - worth) / worth, abs=2)

    def test_small_dividends_wait_for_more(self, chain: Chain) -> None:
        p = chain.p
        assert p.RootClaimableThreshold[0] == {"bits": 500_000 << 32}
        dividend(chain, 100_000)  # about 4 rao each
        assert p.PendingBasketDeposits[V, NET] == 100_000 and p.BasketShares[V] == 0
        dividend(chain, 100_000)
        assert (V, NET) not in p.PendingBasketDeposits and p.BasketShares[V] > 500_000
        assert basket_values.holdings(p, V) == [(NET, 200_000)]

    def test_one_validator_a_block_and_the_cursor_goes_round(self, chain: Chain) -> None:
        p, others = chain.p, [bytes((n,)) * 32 for n in (1, 2)]
        for hotkey in others:
            registration.append_neuron(p, 0, hotkey)
            put_on_root(chain, hotkey, EVE, TAO)
        for hotkey in (*others, V):
            p.SubnetAlphaOut[NET] += TAO
            distribution.queue_root_dividend(p, hotkey, NET, TAO)
        deposited = []
        for _ in range(3):
            baskets.deposit_next(p)
            deposited.append([hotkey for hotkey in (*others, V) if p.BasketShares[hotkey]])
            assert p.PendingBasketFlushCursor.get() is not None
        assert [len(done) for done in deposited] == [1, 2, 3]
        baskets.deposit_next(p)
        assert p.PendingBasketFlushCursor.get() is None

    def test_who_has_no_seat_on_root_earns_nothing_and_the_alpha_is_recycled(self, chain: Chain) -> None:
        p = chain.p
        out = p.SubnetAlphaOut[NET]
        dividend(chain, TAO, key("miner"))
        assert p.SubnetAlphaOut[NET] == out and p.BasketShares[key("miner")] == 0
        assert chain.rt.alpha_assets.AlphaRecycled[NET] == TAO

    def test_losing_the_seat_deposits_the_queue_recycles_dust_and_keeps_the_fund(self, chain: Chain) -> None:
        p = chain.p
        dividend(chain, TAO)
        uid, other, dust = p.Uids[0, V], chain.subnet(hotkey="other"), 1_000
        for netuid, alpha in ((NET, TAO), (other, dust)):
            p.SubnetAlphaOut[netuid] += alpha
            distribution.queue_root_dividend(p, V, netuid, alpha)
        out, shares = (p.SubnetAlphaOut[NET], p.SubnetAlphaOut[other]), p.BasketShares[V]
        registration.replace_neuron(p, 0, uid, EVE)
        assert (p.SubnetAlphaOut[NET], p.SubnetAlphaOut[other]) == (out[0], out[1] - dust)
        assert not list(p.PendingBasketDeposits.keys())
        assert p.BasketShares[V] > shares
        chain.do("Bob", "claim_root_with_hotkey", hotkey=V)
        assert event(chain, "RootClaimed")["tao"] > 0

    def test_the_fund_s_own_root_slot_earns_too_and_all_shares_gain(self, chain: Chain) -> None:
        """A fund that holds half of the root stake keeps half of a dividend as value."""
        p = chain.p
        chain.do("Eve", "stake_into_basket", hotkey=V, amount_staked=400 * TAO)
        assert basket_values.held(p, V, 0) == 400 * TAO == p.BasketShares[V]
        dividend(chain, 10 * TAO)
        value = p.BasketDepositedTao[V] - 400 * TAO
        assert p.BasketShares[V] - 400 * TAO == pytest.approx(value / 2, rel=1e-6)
        assert read(chain, "get_basket_payout", V, EVE) == pytest.approx(400 * TAO + value / 2, rel=0.05)


class TestDividendsThatCannotBeDeposited:
    @pytest.fixture
    def other(self, chain: Chain) -> int:
        no_threshold(chain)
        return chain.subnet(hotkey="other_owner")

    def unsell(self, chain: Chain, netuid: int) -> None:
        """The price is below the lowest limit: a quote fails, and not because the pool is dead."""
        chain.p.SubnetTAO[netuid], chain.p.SubnetAlphaIn[netuid] = 10**9, 10**17

    def test_one_whose_market_fails_waits_alone(self, chain: Chain, other: int) -> None:
        p = chain.p
        queue(chain, TAO, other)
        queue(chain, TAO)
        self.unsell(chain, other)
        baskets.flush(p, V)
        assert dict(p.PendingBasketDeposits.items()) == {(V, other): TAO}
        assert basket_values.holdings(p, V) == [(NET, TAO)] and p.BasketShares[V] > 0

    def test_when_the_fund_cannot_be_valued_all_of_them_wait(self, chain: Chain, other: int) -> None:
        p = chain.p
        dividend(chain, TAO, netuid=other)
        queue(chain, TAO, other)
        queue(chain, 2 * TAO)
        self.unsell(chain, other)
        shares = p.BasketShares[V]
        baskets.flush(p, V)
        assert dict(p.PendingBasketDeposits.items()) == {(V, other): TAO, (V, NET): 2 * TAO}
        assert p.BasketShares[V] == shares and basket_values.holdings(p, V) == [(other, TAO)]

    def test_on_a_dead_pool_it_is_recycled_and_the_fund_holds_nothing_of_it(self, chain: Chain, other: int) -> None:
        p = chain.p
        p.SubnetTAO[other] = 1_000
        dividend(chain, TAO, netuid=other)
        assert chain.rt.alpha_assets.AlphaRecycled[other] == TAO
        assert not basket_values.holdings(p, V) and not list(p.PendingBasketDeposits.keys())

    def test_of_a_subnet_that_is_gone_it_is_recycled(self, chain: Chain, other: int) -> None:
        p = chain.p
        p.NetworksAdded[other] = False
        dividend(chain, TAO, netuid=other)
        assert chain.rt.alpha_assets.AlphaRecycled[other] == TAO and not basket_values.holdings(p, V)
        p.NetworksAdded[other] = True

    def test_with_nobody_staked_on_root_but_the_fund_it_is_recycled(self, chain: Chain) -> None:
        p = chain.p
        registration.append_neuron(p, 0, EVE)
        hold_tao(chain, EVE, TAO)
        dividend(chain, TAO, EVE)
        assert chain.rt.alpha_assets.AlphaRecycled[NET] == TAO
        assert not list(p.PendingBasketDeposits.keys()) and p.BasketShares[EVE] == 0

    def test_finding_the_next_queue_decodes_no_other(self, chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
        p, others = chain.p, [bytes((n,)) * 32 for n in range(1, 41)]
        for hotkey in others:
            queue(chain, 1_000, hotkey=hotkey)
        ordered = list(dict.fromkeys(hotkey for hotkey, _ in p.PendingBasketDeposits.keys()))
        p.PendingBasketFlushCursor.put(p.PendingBasketDeposits.key((ordered[30], NET)))
        decode, decoded = p.PendingBasketDeposits._decode_key, list[bytes]()

        def watch(raw: bytes, offset: int, skip: int) -> Any:
            decoded.append(raw)
            return decode(raw, offset, skip)

        monkeypatch.setattr(p.PendingBasketDeposits, "_decode_key", watch)
        baskets.deposit_next(p)
        assert p.PendingBasketFlushCursor.get() == p.PendingBasketDeposits.key((ordered[31], NET))
        assert len(decoded) == 2  # the hit, and its own entry
        assert chain.rt.alpha_assets.AlphaRecycled[NET] == 1_000  # it has no seat


class TestRootSPart:
    """Of an epoch's dividends: only for validators with a seat on root."""

    def pay(self, chain: Chain, root: int) -> None:
        distribution.run(chain.p, NET, distribution.Pending(server=0, validator=root, root=root, owner=0))

    def test_with_a_seat_the_validator_s_fund_gets_it(self, chain: Chain) -> None:
        p = chain.p
        self.pay(chain, 10 * TAO)
        paid = p.RootAlphaDividendsPerSubnet[NET, V]
        assert paid == p.PendingBasketDeposits[V, NET] == pytest.approx(10 * TAO * 0.82, rel=1e-3)
        assert chain.rt.alpha_assets.AlphaRecycled[NET] == 0

    def test_without_one_nobody_gets_it_not_even_a_take_and_it_is_recycled(self, chain: Chain) -> None:
        p = chain.p
        registration.replace_neuron(p, 0, p.Uids[0, V], EVE)
        have, root = p.TotalHotkeyAlpha[V, NET], 10 * TAO
        p.SubnetAlphaOut[NET] += 2 * root
        out = p.SubnetAlphaOut[NET]
        self.pay(chain, root)
        assert chain.rt.alpha_assets.AlphaRecycled[NET] == out - p.SubnetAlphaOut[NET] == root
        assert p.TotalHotkeyAlpha[V, NET] - have == pytest.approx(root, abs=2)  # the validators' own part
        assert not list(p.RootAlphaDividendsPerSubnet.keys()) and not list(p.PendingBasketDeposits.keys())


class TestFundsLives:
    def test_a_drained_fund_that_takes_a_dividend_starts_a_new_life(self, chain: Chain) -> None:
        p = chain.p
        dividend(chain, TAO)
        p.BasketTwr[V] = {"bits": 5 * ONE64}
        first = p.BetaBaseline[V]
        staking.decrease_stake(p, V, basket_values.escrow_account(p), NET, TAO)
        p.BasketShares[V] = 50  # dust
        dividend(chain, 10 * TAO)
        assert p.BasketShares[V] > 50 and ONE64 < p.BasketTwr[V]["bits"] < 2 * ONE64
        assert first is not None and p.BetaBaseline[V] not in (None, first)

    def test_the_last_number_fills_the_gap_of_a_staker_who_leaves(self, chain: Chain) -> None:
        p = chain.p
        assert [p.StakingColdkeysByIndex[n] for n in range(p.NumStakingColdkeys.get())] == [BOB, DAVE]
        chain.do("Bob", "remove_stake", hotkey=V, netuid=0, amount_unstaked=root_stake(chain, BOB))
        assert dict(p.StakingColdkeysByIndex.items()) == {0: DAVE} and dict(p.StakingColdkeys.items()) == {DAVE: 0}
        assert p.NumStakingColdkeys.get() == 1


class TestRootStake:
    def test_moving_root_stake_about_neither_earns_nor_costs(self, chain: Chain) -> None:
        dividend(chain, 10 * TAO)
        before = {who: owed(chain, who) for who in (BOB, DAVE)}
        chain.stake(0, "validator", 50 * TAO, "Bob")
        chain.do("Dave", "remove_stake", hotkey=V, netuid=0, amount_unstaked=60 * TAO)
        assert {who: owed(chain, who) for who in (BOB, DAVE)} == {
            who: pytest.approx(n, abs=2) for who, n in before.items()
        }
        chain.do("Bob", "transfer_stake", destination_coldkey=EVE, hotkey=V, origin_netuid=0, destination_netuid=0,
                 alpha_amount=100 * TAO)  # fmt: skip
        assert owed(chain, BOB) == pytest.approx(before[BOB], abs=2) and owed(chain, EVE) <= 1
        dividend(chain, 10 * TAO)
        assert owed(chain, EVE) > 0

    def test_what_is_queued_belongs_to_those_who_were_there(self, chain: Chain) -> None:
        p = chain.p
        p.SubnetAlphaOut[NET] += TAO
        distribution.queue_root_dividend(p, V, NET, TAO)
        chain.stake(0, "validator", 400 * TAO, "Eve")
        assert owed(chain, EVE) <= 1
        assert owed(chain, BOB) + owed(chain, DAVE) == pytest.approx(p.BasketShares[V], abs=200)

    def test_who_leaves_root_keeps_the_shares_and_its_place_in_the_list(self, chain: Chain) -> None:
        p = chain.p
        dividend(chain, 10 * TAO)
        chain.do("Dave", "remove_stake", hotkey=V, netuid=0, amount_unstaked=100 * TAO)
        assert root_stake(chain, DAVE) == 0 and p.BasketClaimed[V, DAVE] < 0 and V in p.StakingHotkeys[DAVE]
        assert p.StakingColdkeys[DAVE] is None and p.NumStakingColdkeys.get() == 1
        chain.do("Dave", "claim_root", subnets=[])
        assert root_stake(chain, DAVE) > 0 and p.StakingColdkeys[DAVE] is not None


# -- claims ---------------------------------------------------------------------------------------------------------


class TestClaims:
    def test_a_claim_below_the_threshold_changes_nothing_and_succeeds(self, chain: Chain) -> None:
        p = chain.p
        dividend(chain, TAO // 2_500)
        shares = p.BasketShares[V]
        assert 2_000_000 > basket_values.nav(p, V) > 500_000
        chain.do("Dave", "claim_root", subnets=[])
        assert event(chain, "RootClaimed") == {"coldkey": DAVE, "tao": 0} and p.BasketShares[V] == shares
        chain.root("sudo_set_root_claim_threshold", "SubtensorModule", netuid=0, new_value=0)
        chain.do("Dave", "claim_root", subnets=[])
        assert event(chain, "RootClaimed")["tao"] > 0

    def test_the_threshold_is_root_s_and_bounded(self, chain: Chain) -> None:
        chain.fails("BadOrigin", "Bob", "sudo_set_root_claim_threshold", netuid=0, new_value=5)
        for netuid, value in ((NET, 5), (0, rules.MAX_CLAIM_THRESHOLD + 1)):
            with pytest.raises(DispatchError, match="InvalidRootClaimThreshold"):
                chain.root("sudo_set_root_claim_threshold", "SubtensorModule", netuid=netuid, new_value=value)

    def test_dust_is_sold_into_the_root_slot_first(self, chain: Chain) -> None:
        p = chain.p
        dividend(chain, 10 * TAO)
        other = chain.subnet(hotkey="other_owner")
        staking.increase_stake(p, V, basket_values.escrow_account(p), other, 1_000)
        p.SubnetAlphaOut[other] += 1_000
        chain.do("Bob", "claim_root_with_hotkey", hotkey=V)
        converted = event(chain, "BasketHoldingConverted")
        assert (converted["hotkey"], converted["netuid"]) == (V, other) and converted["tao"] > 0
        assert basket_values.held(p, V, other) == 0

    def test_alpha_of_a_dead_pool_is_written_off(self, chain: Chain) -> None:
        p = chain.p
        dividend(chain, 10 * TAO)
        other = chain.subnet(hotkey="other_owner")
        staking.increase_stake(p, V, basket_values.escrow_account(p), other, 10**9)
        p.SubnetAlphaOut[other] += 10**9
        p.SubnetTAO[other] = 1_000
        before = basket_values.nav(p, V)
        chain.do("Bob", "claim_root_with_hotkey", hotkey=V)
        assert event(chain, "BasketAlphaWrittenOff") == {"hotkey": V, "netuid": other, "alpha": 10**9}
        assert chain.rt.alpha_assets.AlphaBurned[other] == 10**9
        assert event(chain, "RootClaimed")["tao"] == pytest.approx(before * 3 / 4, rel=1e-4)

    def test_the_last_one_out_leaves_nothing_behind(self, chain: Chain) -> None:
        p = chain.p
        chain.do("Eve", "stake_into_basket", hotkey=V, amount_staked=10 * TAO)
        dividend(chain, 10 * TAO)
        for who in ("Bob", "Dave", "Eve"):
            chain.do(who, "claim_root_with_hotkey", hotkey=V)
        assert p.BasketShares[V] < 200  # a rate has 32 fraction bits: that much of a dividend on 400 TAO is nobody's
        assert basket_values.nav(p, V) < 1_000

    def test_what_lies_in_the_queue_is_deposited_before_a_claim_and_before_a_purchase(self, chain: Chain) -> None:
        p = chain.p
        queue(chain, 10 * TAO)
        chain.next()
        queue(chain, 10 * TAO)
        chain.do("Bob", "claim_root_with_hotkey", hotkey=V)
        assert not list(p.PendingBasketDeposits.keys()) and owed(chain, BOB) == 0
        assert event(chain, "RootClaimed")["tao"] == pytest.approx(20 * 3 / 4 * TAO * spot(chain), rel=0.05)
        assert p.LastColdkeyHotkeyStakeBlock[BOB, V] == chain.block  # root stake from a claim ages anew
        queue(chain, 10 * TAO)
        chain.do("Eve", "stake_into_basket", hotkey=V, amount_staked=TAO)
        assert not list(p.PendingBasketDeposits.keys()) and owed(chain, BOB) > 0

    def test_the_last_one_out_ends_the_fund_s_life(self, chain: Chain) -> None:
        p = chain.p
        chain.do("Eve", "stake_into_basket", hotkey=V, amount_staked=10 * TAO)
        hold_alpha(chain, NET, TAO)
        assert p.BetaBaseline[V] is not None
        chain.do("Eve", "claim_root", subnets=[])
        assert not basket_values.holdings(p, V) and p.BasketShares[V] == 0
        assert p.BetaBaseline[V] is None

    def test_a_claim_that_is_rounded_away_whole_costs_no_share(self, chain: Chain) -> None:
        """A dead pool keeps the claim from being dropped as too small; its slice is less than one unit."""
        p, other = chain.p, chain.subnet(hotkey="other_owner")
        no_threshold(chain)
        hold_alpha(chain, other, 100)
        p.SubnetTAO[other] = 1_000
        p.BasketShares[V], p.BasketClaimed[V, EVE] = 10**9, -1
        chain.do("Eve", "claim_root_with_hotkey", hotkey=V)
        assert (p.BasketShares[V], p.BasketClaimed[V, EVE]) == (10**9, -1)
        assert event(chain, "RootClaimed")["tao"] == 0 and not chain.events("SubtensorModule.BasketClaimed")

    def test_a_slice_that_fetches_nothing_is_written_off(self, chain: Chain) -> None:
        """The holding is worth four rao, a sixth of it nothing; the fund's TAO is paid all the same."""
        p, other = chain.p, chain.subnet(hotkey="other_owner")
        no_threshold(chain)
        p.SubnetTAO[other], p.SubnetAlphaIn[other] = 10**9, 10**9 * 20
        hold_alpha(chain, other, 90)
        hold_tao(chain, V, 6 * TAO)
        assert basket_values.realizable(p, other, 90) == 4
        p.BasketShares[V], p.BasketClaimed[V, EVE] = 6_000, -1_000
        chain.do("Eve", "claim_root_with_hotkey", hotkey=V)
        assert event(chain, "BasketAlphaWrittenOff") == {"hotkey": V, "netuid": other, "alpha": 15}
        assert event(chain, "RootClaimed")["tao"] == TAO and p.BasketShares[V] == 5_000

    def test_a_claim_that_would_walk_too_far_is_refused(self, chain: Chain) -> None:
        p, escrow = chain.p, basket_values.escrow_account(chain.p)
        for netuid in range(100, 100 + rules.MAX_CLAIM_WORK):
            p.AlphaV2[V, escrow, netuid] = {"mantissa": 1, "exponent": 0}
        chain.fails("RootClaimTooHeavy", "Bob", "claim_root_with_hotkey", hotkey=V)
        chain.fails("RootClaimTooHeavy", "Bob", "claim_root", subnets=[])


# -- buying ---------------------------------------------------------------------------------------------------------


class TestStakeIntoBasket:
    def test_a_buyer_gets_its_part_and_nobody_else_loses(self, chain: Chain) -> None:
        p = chain.p
        dividend(chain, 10 * TAO)
        bob, free = read(chain, "get_basket_payout", V, BOB), chain.rt.balances.free(EVE)
        chain.do("Eve", "stake_into_basket", hotkey=V, amount_staked=20 * TAO)
        assert free - chain.rt.balances.free(EVE) == 20 * TAO
        said = event(chain, "BasketStakedIn")
        assert (said["hotkey"], said["coldkey"], said["tao"]) == (V, EVE, 20 * TAO)
        assert said["shares"] == owed(chain, EVE) == -p.BasketClaimed[V, EVE]
        assert read(chain, "get_basket_payout", V, EVE) == pytest.approx(said["value"], rel=0.05)
        assert read(chain, "get_basket_payout", V, BOB) >= bob - 1
        assert V in p.StakingHotkeys[EVE] and p.StakingColdkeys[EVE] is not None
        chain.do("Eve", "claim_root", subnets=[])
        assert root_stake(chain, EVE) == pytest.approx(said["value"], rel=0.05)
        assert V in p.StakingHotkeys[EVE]

    def test_an_empty_fund_keeps_tao_and_a_mixed_one_buys_all_it_holds(self, chain: Chain) -> None:
        p = chain.p
        chain.do("Eve", "stake_into_basket", hotkey=V, amount_staked=10 * TAO)
        assert basket_values.holdings(p, V) == [(0, 10 * TAO)] and owed(chain, EVE) == 10 * TAO
        dividend(chain, 10 * TAO)
        tao, alpha = basket_values.held(p, V, 0), basket_values.held(p, V, NET)
        chain.do("Dave", "stake_into_basket", hotkey=V, amount_staked=10 * TAO)
        more = [now / was for now, was in ((basket_values.held(p, V, 0), tao), (basket_values.held(p, V, NET), alpha))]
        assert more[0] == pytest.approx(more[1], rel=0.01) and more[0] > 1.2

    def test_a_purchase_that_lifts_the_pool_s_price_buys_no_more_shares_than_it_bought_of_each_holding(
        self, chain: Chain
    ) -> None:
        p = chain.p
        hold_alpha(chain, NET, p.SubnetAlphaIn[NET] // 2)
        p.BasketShares[V] = 10**12
        held, nav, tao = basket_values.held(p, V, NET), basket_values.nav(p, V), p.SubnetTAO[NET] // 5
        flow = p.SubnetProtocolFlow[NET]
        chain.do("Eve", "stake_into_basket", hotkey=V, amount_staked=tao)
        said = event(chain, "BasketStakedIn")
        bought = 10**12 * (basket_values.held(p, V, NET) - held) // held
        assert said["shares"] == bought < 10**12 * said["value"] // nav
        assert p.SubnetProtocolFlow[NET] == flow + tao

    def test_refusals_in_their_order(self, chain: Chain) -> None:
        chain.fails("HotKeyAccountNotExists", "Eve", "stake_into_basket", hotkey=EVE, amount_staked=0)
        chain.fails("HotKeyNotRegisteredInSubNet", "Eve", "stake_into_basket", hotkey=key("miner"), amount_staked=0)
        chain.fails("AmountTooLow", "Eve", "stake_into_basket", hotkey=V, amount_staked=1_999_999)
        poor = chain.rt.balances.free(EVE) + 1
        chain.fails("NotEnoughBalanceToStake", "Eve", "stake_into_basket", hotkey=V, amount_staked=poor)


# -- trading --------------------------------------------------------------------------------------------------------


class TestSwapBasket:
    @pytest.fixture
    def other(self, chain: Chain) -> int:
        """A second subnet to buy; both have moving prices at the spot price, and the fund holds alpha and TAO."""
        p = chain.p
        other = chain.subnet(hotkey="other_owner")
        dividend(chain, 2 * TAO)
        chain.do("Eve", "stake_into_basket", hotkey=V, amount_staked=2 * TAO)
        for netuid in (NET, other):
            spot = staking.spot_price(p, netuid)
            p.SubnetMovingPrice[netuid] = {"bits": spot >> 32}
            p.SubnetFastMovingPrice[netuid] = {"bits": spot}
        chain.root("sudo_set_basket_trading_enabled", enabled=True)
        chain.root("sudo_set_basket_liquidity_cap", cap=U16_MAX)
        return other

    def order(self, other: int, **changes: Any) -> dict[str, Any]:
        return {
            "hotkey": V,
            "origin_netuid": NET,
            "destination_netuid": other,
            "amount": TAO // 10,
            "min_amount_out": 0,
            **changes,
        }

    def test_one_holding_becomes_another_and_shares_stay(self, chain: Chain, other: int) -> None:
        p, shares = chain.p, chain.p.BasketShares[V]
        held, nav = basket_values.held(p, V, NET), basket_values.nav(p, V)
        status = read(chain, "get_basket_trading_status", V)
        assert (status["enabled"], status["frozen"], status["refill_blocks"]) == (True, False, 7_200)
        assert status["tao_available"] == status["budget_tao"] == nav_budget(chain)
        chain.do("Charlie", "swap_basket", **self.order(other))
        said = event(chain, "BasketSwapped")
        assert (said["hotkey"], said["origin_netuid"], said["destination_netuid"]) == (V, NET, other)
        assert said["alpha_sold"] == TAO // 10 == held - basket_values.held(p, V, NET)
        assert said["alpha_bought"] == basket_values.held(p, V, other) > 0
        assert p.BasketShares[V] == shares and basket_values.nav(p, V) == pytest.approx(nav, rel=0.01)
        after = read(chain, "get_basket_trading_status", V)
        assert after["budget_tao"] - after["tao_available"] == pytest.approx(said["tao_mid"], rel=0.01)
        assert p.BasketTradeBucket[V] == (status["budget_tao"] - said["tao_mid"], chain.block)

    def test_tao_is_a_holding_like_any_other(self, chain: Chain, other: int) -> None:
        p = chain.p
        chain.do("Charlie", "swap_basket", **self.order(0))
        assert event(chain, "BasketSwapped")["alpha_bought"] == basket_values.held(p, V, 0) > 0
        have = basket_values.held(p, V, 0)
        chain.do("Charlie", "swap_basket", **self.order(other, origin_netuid=0, amount=have // 2))
        assert basket_values.held(p, V, 0) == have - have // 2 and basket_values.held(p, V, other) > 0

    def test_refusals_in_their_order(self, chain: Chain, other: int) -> None:
        p = chain.p
        order = self.order(other)
        chain.root("sudo_set_basket_trading_enabled", enabled=False)
        chain.fails("BasketTradingDisabled", "Eve", "swap_basket", **order)
        chain.root("sudo_set_basket_trading_enabled", enabled=True)
        chain.root("sudo_set_basket_trading_frozen", hotkey=V, frozen=True)
        assert chain.events("AdminUtils.BasketTradingFrozenSet")[-1][1] == {"hotkey": V, "frozen": True}
        chain.fails("BasketTradingFrozen", "Eve", "swap_basket", **order)
        chain.root("sudo_set_basket_trading_frozen", hotkey=V, frozen=False)
        chain.fails("BasketSameSubnet", "Eve", "swap_basket", **self.order(NET))
        chain.fails("NonAssociatedColdKey", "Eve", "swap_basket", **order)
        chain.fails("HotKeyNotRegisteredInSubNet", "Bob", "swap_basket", **self.order(other, hotkey=key("miner")))
        chain.fails("SubnetNotExists", "Charlie", "swap_basket", **self.order(99))
        p.SubtokenEnabled[other] = False
        chain.fails("SubtokenDisabled", "Charlie", "swap_basket", **order)
        p.SubtokenEnabled[other] = True
        chain.fails("AmountTooLow", "Charlie", "swap_basket", **self.order(other, amount=0))
        chain.fails("AmountTooLow", "Charlie", "swap_basket", **self.order(other, amount=1_000))
        chain.fails("NotEnoughStakeToWithdraw", "Charlie", "swap_basket", **self.order(other, amount=10**15))

    def test_limits_of_a_trade(self, chain: Chain, other: int) -> None:
        p, order = chain.p, self.order(other)
        chain.fails("BasketMinOutNotMet", "Charlie", "swap_basket", **self.order(other, min_amount_out=10**12))
        chain.root("sudo_set_basket_daily_turnover_cap", cap=1)
        chain.fails("BasketTurnoverBudgetExceeded", "Charlie", "swap_basket", **order)
        chain.root("sudo_set_basket_daily_turnover_cap", cap=U16_MAX)
        chain.root("sudo_set_basket_liquidity_cap", cap=1)
        chain.fails("BasketLiquidityCapExceeded", "Charlie", "swap_basket", **order)
        chain.root("sudo_set_basket_liquidity_cap", cap=U16_MAX)
        chain.root("sudo_set_basket_concentration_cap", cap=U16_MAX // 3)  # binds with three destinations or more
        chain.do("Charlie", "swap_basket", **order)
        have = basket_values.held(p, V, NET)
        chain.fails("BasketConcentrationCapExceeded", "Charlie", "swap_basket", **self.order(other, amount=have // 2))
        with pytest.raises(DispatchError, match="ValueNotInBounds"):
            chain.root("sudo_set_basket_concentration_cap", cap=0)

    def test_dividends_in_the_queue_are_deposited_first_and_both_legs_pay_their_fee(
        self, chain: Chain, other: int
    ) -> None:
        p = chain.p
        chain.root("sudo_set_basket_daily_turnover_cap", cap=U16_MAX)
        burned, free = chain.rt.alpha_assets.AlphaBurned[NET], chain.rt.balances.free(staking.burn_account(p))
        have = basket_values.held(p, V, NET)
        queue(chain, TAO)
        chain.do("Charlie", "swap_basket", **self.order(other, amount=have + TAO))
        said = event(chain, "BasketSwapped")
        assert not list(p.PendingBasketDeposits.keys()) and basket_values.held(p, V, NET) == 0
        assert chain.rt.alpha_assets.AlphaBurned[NET] - burned == fee_amount(have + TAO, p.rt.swap.FeeRate[NET]) > 0
        fee = fee_amount(said["tao_mid"], p.rt.swap.FeeRate[other])
        assert chain.rt.balances.free(staking.burn_account(p)) - free == fee > 0

    def test_a_leg_that_its_price_limit_cuts_short_stops_the_trade(self, chain: Chain, other: int) -> None:
        """Each leg alone, the other side of the trade being the fund's TAO."""
        p = chain.p
        chain.root("sudo_set_basket_daily_turnover_cap", cap=U16_MAX)
        hold_alpha(chain, NET, p.SubnetAlphaIn[NET] // 2)
        hold_tao(chain, V, p.SubnetTAO[other])
        sale = self.order(0, amount=p.SubnetAlphaIn[NET] // 10)
        purchase = self.order(other, origin_netuid=0, amount=p.SubnetTAO[other] // 10)
        for order in (sale, purchase):
            chain.fails("SlippageTooHigh", "Charlie", "swap_basket", **order)
            chain.do("Charlie", "swap_basket", **{**order, "amount": order["amount"] // 50})

    def test_caps_count_a_holding_at_most_at_its_moving_price(self, chain: Chain, other: int) -> None:
        p, value = chain.p, basket_values.realizable(chain.p, NET, TAO) or 0
        assert basket_values.guarded(p, NET, TAO, value) == value
        p.SubnetMovingPrice[NET] = {"bits": (staking.spot_price(p, NET) >> 32) // 4}
        assert basket_values.guarded(p, NET, TAO, value) == pytest.approx(value / 4, rel=0.01)
        p.SubnetMechanism[NET] = 0
        assert basket_values.guarded(p, NET, TAO, 5 * TAO) == TAO

    def test_a_price_away_from_its_averages_stops_the_trade(self, chain: Chain, other: int) -> None:
        p, spot = chain.p, staking.spot_price(chain.p, other)
        p.SubnetFastMovingPrice[other] = {"bits": spot * 96 // 100}
        chain.fails("SlippageTooHigh", "Charlie", "swap_basket", **self.order(other))
        p.SubnetFastMovingPrice[other] = {"bits": spot}
        p.SubnetMovingPrice[NET] = {"bits": (staking.spot_price(p, NET) >> 32) * 104 // 100}
        chain.fails("SlippageTooHigh", "Charlie", "swap_basket", **self.order(other))


def nav_budget(chain: Chain) -> int:
    p = chain.p
    parts = [basket_values.guarded(p, *one) for one in basket_values.valued(p, V)]
    return sum(parts) * p.BasketDailyTurnoverCap.get() // U16_MAX


# -- prices ---------------------------------------------------------------------------------------------------------


class TestPrices:
    def test_the_index_is_published_in_the_first_block_and_every_600(self, chain: Chain) -> None:
        """beta_pricing.rs: an empty map publishes one at once; the next pass comes 600 blocks later."""
        p = chain.p
        first = p.BetaIndexSnapshot.get()
        assert first is not None and first["bag_level"] == first["stake_level"] == {"bits": ONE64}
        for number, published in ((first["block"] + 599, first["block"]), (first["block"] + 600, first["block"] + 600)):
            chain.rt.system.Number.put(number)
            beta_index.advance(p)
            again = p.BetaIndexSnapshot.get()
            assert again is not None and again["block"] == published

    def test_a_fund_is_stamped_on_the_index_at_its_first_mint(self, chain: Chain) -> None:
        p = chain.p
        p.BetaIndexSnapshot.put(
            {"bag_level": {"bits": 2 * ONE64}, "stake_level": {"bits": 3 * ONE64}, "block": chain.block}
        )
        dividend(chain, TAO)
        assert event(chain, "BetaBaselineStamped") == {"hotkey": V}
        pricing = read(chain, "get_beta_pricing", V)
        assert pricing["display_price"]["bits"] == pytest.approx(2 * ONE64, rel=1e-2)
        assert pricing["stake_price"]["bits"] == pytest.approx(3 * ONE64, rel=1e-4)
        assert (pricing["first_block"], pricing["provisional"]) == (chain.block, False)
        assert [level["bits"] for level in read(chain, "get_beta_index")] == [2 * ONE64, 3 * ONE64]

    def test_the_average_fund_moves_the_index(self, chain: Chain) -> None:
        """beta_pricing.rs: funds of 4e8 and 12e8 at NAV; the second one's TAO doubles and so does its total return:
        both levels go to 1.75."""
        p, funds = chain.p, (bytes((1,)) * 32, bytes((2,)) * 32)
        for hotkey, nav, shares in zip(funds, (4 * 10**8, 12 * 10**8), (4 * 10**8, 6 * 10**8), strict=True):
            hold_tao(chain, hotkey, nav)
            p.BasketShares[hotkey] = shares
            beta_index.stamp(p, hotkey)
        sweep(chain)
        assert beta_index.levels(p) == (ONE64, ONE64)  # the first pass has nothing to compare with
        hold_tao(chain, funds[1], 12 * 10**8)
        p.BasketTwr[funds[1]] = {"bits": 2 * ONE64}
        sweep(chain)
        assert beta_index.levels(p) == (ONE64 * 7 // 4, ONE64 * 7 // 4)

    def test_a_pass_over_many_funds_takes_pages(self, chain: Chain) -> None:
        """beta_pricing.rs: 300 baselines without value are 256 rows and then the rest."""
        p = chain.p
        empty = {"price_divisor": {"bits": ONE64}, "rate0": {"bits": 0}, "tr_splice": {"bits": ONE64}, "first_block": 1}
        for n in range(300):
            p.BetaBaseline[n.to_bytes(32, "big")] = empty
        chain.rt.system.Number.put(chain.block + 600)
        assert beta_index.advance(p) == 256 and p.BetaIndexSweep.get() is not None
        assert beta_index.advance(p) == 44 and p.BetaIndexSweep.get() is None
        snapshot = p.BetaIndexSnapshot.get()
        assert snapshot is not None and snapshot["block"] == chain.block

    def test_pages_of_prices(self, chain: Chain) -> None:
        """beta_pricing.rs: three funds and one that is drained; the drained one is passed over, not lost."""
        p = chain.p
        for n in range(1, 5):
            hold_tao(chain, bytes((n,)) * 32, n * TAO)
            p.BasketShares[bytes((n,)) * 32] = n * TAO if n < 4 else 0
        whole = read(chain, "get_all_beta_pricing", None, 0)
        assert len(whole["pricing"]) == 3 and whole["next"] is None
        seen, cursor, pages = [], None, 0
        while pages == 0 or cursor is not None:
            page = read(chain, "get_all_beta_pricing", cursor, 2)
            seen, cursor, pages = seen + page["pricing"], page["next"], pages + 1
        assert pages == 2 and seen == whole["pricing"]
        assert {one["shares"] for one in seen} == {TAO, 2 * TAO, 3 * TAO}


def sweep(chain: Chain) -> None:
    chain.rt.system.Number.put(chain.block + 600)
    beta_index.advance(chain.p)


# -- reads ----------------------------------------------------------------------------------------------------------


class TestReads:
    def test_all_reads_agree_with_each_other_and_with_what_a_claim_pays(self, chain: Chain) -> None:
        p = chain.p
        dividend(chain, 10 * TAO)
        chain.do("Eve", "stake_into_basket", hotkey=V, amount_staked=10 * TAO)
        chain.stake(0, "validator", 10 * TAO, "Eve")
        nav = read(chain, "get_validator_basket_nav", V)
        assert nav == read(chain, "get_root_basket_total_nav") == basket_values.nav(p, V)
        (row,) = read(chain, "get_validator_basket", V)
        assert row == (NET, basket_values.held(p, V, NET), nav)
        summary = read(chain, "get_validator_basket_summary", V)
        assert [summary] == read(chain, "get_all_validator_baskets")
        spot = staking.spot_price(p, NET) * row[1] >> 64
        assert summary == {
            "hotkey": V, "nav_tao": nav, "spot_nav_tao": spot, "shares": p.BasketShares[V],
            "deposited_tao": p.BasketDepositedTao[V], "redeemed_tao": 0,
            "holdings": [{"netuid": NET, "alpha": row[1], "spot_tao": spot, "realizable_tao": nav}],
        }  # fmt: skip
        payouts = {who: read(chain, "get_basket_payout", V, who) for who in (BOB, DAVE, EVE)}
        assert sum(payouts.values()) == pytest.approx(nav, abs=400)
        for who, payout in payouts.items():
            assert read(chain, "get_root_basket_owed", who) == payout
            assert read(chain, "get_root_basket_positions", who) == [(V, owed(chain, who), payout)]
            position = read(chain, "get_basket_position", V, who)
            assert read(chain, "get_root_basket_portfolio", who) == [position]
            assert (position["beta"], position["beta_total"]) == (owed(chain, who), p.BasketShares[V])
            assert (position["value_tao"], position["nav_tao"]) == (payout, nav) and position["spot_value_tao"] > payout
            beta = read(chain, "get_beta_position", V, who)
            assert read(chain, "get_beta_portfolio", who) == [beta]
            pricing = read(chain, "get_beta_pricing", V)
            value = beta["display_beta"]["bits"] * beta["display_price"]["bits"] >> 128
            assert value == pytest.approx(beta["spot_value_tao"], abs=2) and beta["value_tao"] == payout
            assert beta["display_price"] == pricing["display_price"]
        chain.do("Bob", "claim_root", subnets=[])
        assert event(chain, "RootClaimed")["tao"] == payouts[BOB]

    def test_without_a_fund_there_is_nothing(self, chain: Chain) -> None:
        for name, arguments, nothing in (
            ("get_root_basket_owed", (BOB,), 0),
            ("get_validator_basket", (V,), []),
            ("get_all_validator_baskets", (), []),
            ("get_root_basket_positions", (BOB,), []),
            ("get_basket_position", (V, BOB), None),
            ("get_beta_pricing", (V,), None),
            ("get_beta_position", (V, BOB), None),
        ):
            assert read(chain, name, *arguments) == nothing


# -- trades ---------------------------------------------------------------------------------------------------------


def test_more_than_a_pool_takes_at_once_is_traded_in_parts(chain: Chain) -> None:
    """2,500 times the reserve goes in, in two parts; what a sale fetches is what the holding was valued at."""
    p, other = chain.p, chain.subnet(hotkey="other_owner")
    account = staking.subnet_account(p, other)
    chain.rt.balances.transfer(key("Alice"), account, 200 * TAO, keep_alive=True)
    p.SubnetTAO[other], p.SubnetAlphaIn[other] = 100 * TAO, 10**7
    alpha = 2_500 * 10**7
    p.SubnetAlphaOut[other] += alpha
    worth, flow, cash = basket_values.realizable(p, other, alpha), p.SubnetProtocolFlow[other], p.SubnetTAO[other]
    root = chain.rt.balances.free(staking.subnet_account(p, 0))
    assert basket_money.sell_for_root(p, other, alpha) == worth == cash - p.SubnetTAO[other] > cash * 99 // 100
    assert p.SubnetProtocolFlow[other] == flow - worth
    assert chain.rt.balances.free(staking.subnet_account(p, 0)) - root == worth
    p.SubnetTAO[other], p.SubnetAlphaIn[other] = 10**6, 10**12
    assert 10**12 > basket_money.buy(p, other, 2_500 * 10**6) == 10**12 - p.SubnetAlphaIn[other] > 999 * 10**9


# -- other hotkeys, other subnets -----------------------------------------------------------------------------------


def test_a_fund_follows_its_validator_to_another_hotkey(chain: Chain) -> None:
    p, new = chain.p, key("another")
    dividend(chain, 10 * TAO)
    p.BasketTradingFrozen[V], p.BasketTradeBucket[V], p.BasketTradeBucket[new] = (), (5, 6), (3, 9)
    queue(chain, 1_000)
    shares, rate, held = p.BasketShares[V], p.BasketRate[V], basket_values.holdings(p, V)
    twr, baseline = p.BasketTwr[V], p.BetaBaseline[V]
    fund_moves.move_fund(p, V, new)
    assert (p.BasketShares[new], p.BasketRate[new]) == (shares, rate) and basket_values.holdings(p, new) == held
    assert (p.BasketTwr[new], p.BetaBaseline[new], p.BasketTradeBucket[new]) == (twr, baseline, (3, 9))
    assert dict(p.PendingBasketDeposits.items()) == {(new, NET): 1_000}
    assert new in p.BasketTradingFrozen and p.BasketShares[V] == 0 and not basket_values.holdings(p, V)


def test_a_dissolved_subnet_s_alpha_becomes_tao_of_the_fund(chain: Chain) -> None:
    p = chain.p
    dividend(chain, 10 * TAO)
    worth = basket_values.nav(p, V)
    p.SubnetAlphaOut[NET] += TAO
    distribution.queue_root_dividend(p, V, NET, TAO)
    fund_moves.convert_subnet(p, NET)
    assert basket_values.holdings(p, V) == [(0, worth)] and not list(p.PendingBasketDeposits.keys())
    assert chain.rt.alpha_assets.AlphaRecycled[NET] == TAO


def test_a_long_series_of_everything_leaves_no_rao_unaccounted_for(chain: Chain) -> None:
    """200 random steps of stakers, buyers, validator and chain: a fund never owes more shares than are out, claims pay
    what was read before them, and (in the fixture) every rao is somewhere."""
    p, rng = chain.p, random.Random(5)
    other = chain.subnet(hotkey="other_owner")
    for netuid in (NET, other):
        p.SubnetMovingPrice[netuid] = {"bits": staking.spot_price(p, netuid) >> 32}
        p.SubnetFastMovingPrice[netuid] = {"bits": staking.spot_price(p, netuid)}
    chain.root("sudo_set_basket_trading_enabled", enabled=True)
    chain.root("sudo_set_basket_daily_turnover_cap", cap=U16_MAX)
    chain.root("sudo_set_basket_liquidity_cap", cap=U16_MAX)
    people, done = ("Bob", "Dave", "Eve"), Counter[str]()
    for _ in range(200):
        chain.rt.events.clear()
        who, kind = rng.choice(people), rng.choice(("dividend", "claim", "buy", "stake", "unstake", "swap"))
        amount = rng.randrange(TAO // 100, TAO)
        try:
            if kind == "dividend":
                dividend(chain, amount, netuid=rng.choice((NET, other)))
            elif kind == "claim":
                due = read(chain, "get_basket_payout", V, key(who))
                chain.do(who, "claim_root_with_hotkey", hotkey=V)
                paid = event(chain, "RootClaimed")["tao"]
                assert (paid == 0 and due < 500_000) or paid == pytest.approx(due, rel=0.01)
            elif kind == "buy":
                chain.do(who, "stake_into_basket", hotkey=V, amount_staked=amount)
            elif kind == "stake":
                chain.stake(0, "validator", amount, who)
            elif kind == "unstake":
                chain.do(who, "remove_stake", hotkey=V, netuid=0, amount_unstaked=amount)
            else:
                source, target = rng.sample((0, NET, other), 2)
                some = basket_values.held(p, V, source) // 50
                order = {"hotkey": V, "origin_netuid": source, "destination_netuid": target, "min_amount_out": 0}
                chain.do("Charlie", "swap_basket", amount=some, **order)
        except DispatchError:
            continue
        done[kind] += 1
        owing = sum(owed(chain, key(name)) for name in people)
        assert owing <= p.BasketShares[V] + len(people) * done.total()
    assert len(done) == 6 and min(done.values()) > 5, done
