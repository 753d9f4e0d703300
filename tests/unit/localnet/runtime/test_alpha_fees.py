"""Fees: what is left of them, and the staking calls that pay in alpha when their coldkey has no TAO for it.

Where a docstring names a Rust test, the case is that of the tests of pallets/transaction-fee of the public chain.
"""

from __future__ import annotations

from typing import Any

import pytest

from localnet.errors import InvalidTransaction
from localnet.rules import fees
from localnet.runtime.pallets.balances import EXISTENTIAL_DEPOSIT
from localnet.runtime.subtensor import alpha_fees, staking
from tests.support.extrinsics import Draft
from tests.support.market import ALICE, BOB, BOB_HOT, CHARLIE, HOT, TAO, Market, fresh
from tests.unit.localnet.runtime.test_collateral import bond

OTHER_HOT = bytes(31) + b"\3"
OK = b"\0\0"
PAYMENT = b"\1\0\1"  # Err(Invalid(Payment))


@pytest.fixture
def m() -> Market:
    """Charlie has stake on Bob's hotkey and nothing but the existential deposit beside it."""
    market = fresh()
    market.call(CHARLIE, "add_stake", hotkey=BOB_HOT, netuid=market.net, amount_staked=10 * TAO)
    drain(market)
    return market


def drain(m: Market, who: bytes = CHARLIE, keep: int = EXISTENTIAL_DEPOSIT) -> None:
    m.rt.balances.transfer(who, ALICE, m.rt.balances.free(who) - keep, keep_alive=True)


def draft(m: Market, function: str, pallet: str = "SubtensorModule", uri: str = "//Charlie", tip: int = 0,
          **arguments: Any) -> bytes:  # fmt: skip
    call = m.rt.encode_call(pallet, function, arguments)
    nonce = m.rt.system.Account[CHARLIE if uri == "//Charlie" else BOB]["nonce"]
    return Draft(m.rt, uri, call, nonce=nonce, genesis=m.rt.system.BlockHash[0], tip=tip).sign()


def send(m: Market, raw: bytes) -> bytes:
    """What a block makes of an extrinsic; as in the node, one it refuses leaves nothing behind."""
    m.rt.events.clear()
    m.rt.state.begin()
    result = m.rt.call("BlockBuilder_apply_extrinsic", raw, m.rt.state)
    (m.rt.state.rollback if result[:1] == b"\1" else m.rt.state.commit)()
    return result


def valid(m: Market, raw: bytes) -> bool:
    answer = m.rt.call("TaggedTransactionQueue_validate_transaction", b"\2" + raw + bytes(32), m.rt.state)
    assert answer[:1] == b"\0" or answer == b"\1\0\1"
    return answer[:1] == b"\0"


def names(m: Market) -> list[str]:
    records = [m.rt.document.registry.decode(m.rt._event_type, raw)["event"] for raw in m.rt.events]
    return [f"{pallet}.{event if isinstance(event, str) else event[0]}" for pallet, event in records]


def remove(m: Market, alpha: int = TAO, **fields: Any) -> bytes:
    return draft(m, "remove_stake", **{"hotkey": BOB_HOT, "netuid": m.net, "amount_unstaked": alpha, **fields})


def held(m: Market, netuid: int | None = None) -> int:
    return staking.stake_of(m.p, BOB_HOT, CHARLIE, m.net if netuid is None else netuid)


def issued(m: Market) -> tuple[int, int]:
    return m.rt.balances.TotalIssuance.get(), m.p.TotalIssuance.get()


# -- in TAO -----------------------------------------------------------------------------------------------------------


def test_a_fee_in_tao_leaves_both_issuances(m: Market) -> None:
    """tao_transaction_fees_are_recycled."""
    before = issued(m)
    assert send(m, draft(m, "remark", "System", "//Bob", tip=1_000, remark=bytes(32))) == OK
    paid = m.last("TransactionFeePaid", "TransactionPayment")["actual_fee"]
    assert paid > 1_000
    assert issued(m) == (before[0] - paid, before[1] - paid)


def test_tao_comes_first(m: Market) -> None:
    """test_remove_stake_fees_tao."""
    m.rt.balances.transfer(ALICE, CHARLIE, TAO, keep_alive=True)
    before = held(m)
    assert send(m, remove(m)) == OK
    assert before - held(m) == TAO
    assert "SubtensorModule.TransactionFeePaidWithAlpha" not in names(m)


def test_a_free_call_reports_a_fee_of_nothing(m: Market) -> None:
    """The payment extension of every signed extrinsic reports; 0 for one that is free."""
    raw = draft(m, "set_commitment", "Commitments", netuid=m.net, info={"fields": ["None"]})
    result = send(m, raw)  # Charlie is not registered: it fails, and still costs nothing
    assert result[:2] == b"\0\1"
    assert m.last("TransactionFeePaid", "TransactionPayment") == {"who": CHARLIE, "actual_fee": 0, "tip": 0}
    assert names(m) == ["TransactionPayment.TransactionFeePaid", "System.ExtrinsicFailed"]


def test_an_account_that_its_call_closed_gets_nothing_back(m: Market) -> None:
    m.rt.balances.transfer(ALICE, CHARLIE, TAO, keep_alive=True)
    raw = draft(m, "transfer_all", "Balances", dest=("Id", ALICE), keep_alive=False)
    assert send(m, raw) == OK
    assert names(m)[-2:] == ["TransactionPayment.TransactionFeePaid", "System.ExtrinsicSuccess"]
    assert "Balances.Deposit" not in names(m)
    assert "System.KilledAccount" in names(m)


# -- in alpha ---------------------------------------------------------------------------------------------------------


def test_a_removal_without_tao_pays_in_alpha(m: Market) -> None:
    """test_remove_stake_fees_alpha, alpha_transaction_fees_are_recycled_without_a_block_author."""
    before, issuance, free = held(m), issued(m), m.rt.balances.free(CHARLIE)
    raw, price = remove(m), staking.spot_price(m.p, m.net)
    assert valid(m, raw)
    assert send(m, raw) == OK
    info = m.rt.call_info("SubtensorModule", "remove_stake", {})
    fee = m.rt.payment.fee(info, len(raw))
    paid = m.last("TransactionFeePaidWithAlpha")
    assert paid["alpha_fee"] == fees.alpha_equivalent(fee, price) > 0
    assert before - held(m) == TAO + paid["alpha_fee"]
    assert 0 < fee - paid["tao_amount"] < 10  # sold without a swap fee, for little less than the fee it stands for
    assert issued(m) == (issuance[0] - paid["tao_amount"], issuance[1] - paid["tao_amount"])
    assert m.last("TransactionFeePaid", "TransactionPayment") == {"who": CHARLIE, "actual_fee": fee, "tip": 0}
    sold, removed = (value for name, value in m.events() if name == "StakeRemoved")
    assert sold[2:] == (paid["tao_amount"], paid["alpha_fee"], m.net, 0)
    assert m.rt.balances.free(CHARLIE) == free + removed[2]


def test_events_of_a_fee_in_alpha_come_in_the_chains_order(m: Market) -> None:
    """No Balances.Deposit: alpha is not given back. The account of a subnet pays itself, which is no transfer."""
    assert send(m, remove(m)) == OK
    assert names(m) == [
        "SubtensorModule.StakeRemoved", "Balances.Withdraw", "Balances.Transfer", "SubtensorModule.StakeRemoved",
        "SubtensorModule.TransactionFeePaidWithAlpha", "TransactionPayment.TransactionFeePaid",
        "System.ExtrinsicSuccess",
    ]  # fmt: skip


def test_the_tip_is_paid_in_alpha_too(m: Market) -> None:
    raw, price = remove(m, tip=5_000_000), staking.spot_price(m.p, m.net)
    assert send(m, raw) == OK
    fee = m.rt.payment.fee(m.rt.call_info("SubtensorModule", "remove_stake", {}), len(raw), 5_000_000)
    assert m.last("TransactionFeePaidWithAlpha")["alpha_fee"] == fees.alpha_equivalent(fee, price)


def test_a_failed_call_has_paid_in_alpha(m: Market) -> None:
    """test_remove_stake_failing_transaction_alpha_fees."""
    before, free = held(m), m.rt.balances.free(CHARLIE)
    m.p.SubtokenEnabled[m.net] = False
    assert send(m, remove(m))[:2] == b"\0\1"
    assert before - held(m) == m.last("TransactionFeePaidWithAlpha")["alpha_fee"]
    assert m.rt.balances.free(CHARLIE) == free
    assert m.rt.system.Account[CHARLIE]["nonce"] == 1


def test_root_stake_pays_one_to_one(m: Market) -> None:
    """test_remove_stake_root."""
    m.rt.balances.transfer(ALICE, CHARLIE, 2 * TAO, keep_alive=True)
    m.p.SubtokenEnabled[staking.ROOT] = True
    m.call(CHARLIE, "add_stake", hotkey=BOB_HOT, netuid=staking.ROOT, amount_staked=TAO)
    drain(m)
    assert send(m, remove(m, TAO // 10, netuid=staking.ROOT)) == OK
    paid = m.last("TransactionFeePaidWithAlpha")
    assert paid["netuid"] == staking.ROOT
    assert paid["alpha_fee"] == paid["tao_amount"] == TAO - TAO // 10 - held(m, staking.ROOT) > 0


def test_a_call_about_everything_pays_from_one_position_only(m: Market) -> None:
    """test_rejects_multi_subnet_alpha_fee_deduction."""
    raw = draft(m, "unstake_all", hotkey=BOB_HOT)
    assert alpha_fees.position_of(m.p, CHARLIE, "unstake_all", {"hotkey": BOB_HOT}) == (BOB_HOT, m.net)
    assert valid(m, raw)
    other = m.subnet(ALICE, OTHER_HOT)
    staking.increase_stake(m.p, BOB_HOT, CHARLIE, other, TAO)
    assert not valid(m, raw)
    assert send(m, raw) == PAYMENT
    m.p.SubtokenEnabled[other] = False  # what cannot be sold is not one of them
    assert valid(m, raw)
    assert send(m, raw) == OK


@pytest.mark.parametrize("locked_by", ["collateral", "conviction"])
def test_what_is_bound_pays_no_fee(m: Market, locked_by: str) -> None:
    """test_alpha_fee_rejects_fully_collateralized_stake, test_alpha_fee_only_from_free_stake_above_collateral."""
    alpha = held(m)
    if locked_by == "collateral":
        bond(m, alpha, BOB_HOT)  # it brings as much alpha as it binds
    else:
        m.call(CHARLIE, "lock_stake", hotkey=BOB_HOT, netuid=m.net, amount=alpha)
        m.call(CHARLIE, "set_perpetual_lock", netuid=m.net, enabled=True)
    spare = held(m) - alpha
    fee = fees.alpha_equivalent(TAO // 1_000, staking.spot_price(m.p, m.net))
    arguments = {"hotkey": BOB_HOT, "netuid": m.net}
    staking.decrease_stake(m.p, BOB_HOT, CHARLIE, m.net, spare)
    assert alpha_fees.offer(m.p, CHARLIE, "burn_alpha", arguments, TAO // 1_000) is None
    raw = remove(m)
    assert not valid(m, raw)
    assert send(m, raw) == PAYMENT
    assert held(m) == alpha
    staking.increase_stake(m.p, BOB_HOT, CHARLIE, m.net, fee)
    offer = alpha_fees.offer(m.p, CHARLIE, "burn_alpha", arguments, TAO // 1_000)
    assert offer is not None
    alpha_fees.take(m.p, CHARLIE, offer)
    assert held(m) == alpha
    assert alpha_fees.offer(m.p, CHARLIE, "burn_alpha", arguments, 10) is None


def test_alpha_that_is_worth_too_little_pays_nothing(m: Market) -> None:
    """test_remove_stake_not_enough_balance_for_fees, test_remove_stake_edge_alpha."""
    staking.decrease_stake(m.p, BOB_HOT, CHARLIE, m.net, held(m) - 2_000_000)
    raw = remove(m, 2_000_000)
    assert valid(m, raw)
    m.p.SubnetTAO[m.net], m.p.SubnetAlphaIn[m.net] = 1_000_000, 10**13
    assert not valid(m, raw)
    assert send(m, raw) == PAYMENT


def test_a_sale_that_fails_leaves_nothing_behind(m: Market) -> None:
    """test_alpha_fee_withdraw_failure_aborts_and_rolls_back."""
    raw = remove(m)
    drain(m, staking.subnet_account(m.p, m.net))
    before = m.contents()
    assert valid(m, raw)  # the pool does not sell to find out
    assert send(m, raw) == PAYMENT
    assert m.contents() == before
    assert not m.rt.events


def test_other_calls_are_refused(m: Market) -> None:
    """Neither a call that is not about stake to sell, nor one that carries such a call."""
    inner = ("SubtensorModule", ("remove_stake", {"hotkey": BOB_HOT, "netuid": m.net, "amount_unstaked": TAO}))
    for raw in (
        draft(m, "add_stake", hotkey=BOB_HOT, netuid=m.net, amount_staked=TAO),
        draft(m, "lock_stake", hotkey=BOB_HOT, netuid=m.net, amount=TAO),
        draft(m, "batch", "Utility", calls=[inner]),
    ):
        assert not valid(m, raw)
        assert send(m, raw) == PAYMENT


def test_the_calls_that_may_are_the_chains(m: Market) -> None:
    """Each names a position by arguments it has."""
    calls = m.rt.document.calls["SubtensorModule"]
    for name, (hotkey, netuid) in alpha_fees.PAYING.items():
        assert {hotkey, netuid} - {None} <= set(calls[name])
    swap = {"hotkey": HOT, "new_hotkey": OTHER_HOT, "netuid": None}
    assert alpha_fees.position_of(m.p, ALICE, "swap_hotkey", swap) is None  # of no position there
    with pytest.raises(InvalidTransaction):
        m.rt.payment.check_payable(CHARLIE, TAO, ("SubtensorModule", "swap_hotkey", swap))
