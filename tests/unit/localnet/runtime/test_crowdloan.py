"""Crowdloans: raising, giving back and spending; and the subnets that they lease."""

from __future__ import annotations

from typing import Any

import pytest

from localnet.rules import accounts, leases
from localnet.runtime.framework import Signed
from localnet.runtime.subtensor import leasing, staking
from tests.support.extrinsics import account
from tests.support.market import ALICE, BOB, CHARLIE, HOT, TAO, Market, fresh

DAVE, EVE = account("//Dave"), account("//Eve")
DEPOSIT, LEAST = 10 * TAO, TAO // 10  # the chain's minima
REMARK = ("System", ("remark", {"remark": b"x"}))
LONG = ("System", ("remark", {"remark": bytes(200)}))  # does not fit into the crowdloan's own entry


@pytest.fixture
def m() -> Market:
    return fresh()


def call(m: Market, who: bytes, function: str, **arguments: Any) -> None:
    m.dispatch(Signed(who), "Crowdloan", function, **arguments)


def refusal(m: Market, who: bytes, function: str, **arguments: Any) -> str:
    return m.refusal(who, function, pallet="Crowdloan", **arguments)


def terms(m: Market, **fields: Any) -> dict[str, Any]:
    given = {"deposit": DEPOSIT, "min_contribution": LEAST, "cap": 100 * TAO, "end": m.rt.number + 60}
    return {**given, "call": None, "target_address": DAVE, **fields}


def create(m: Market, **fields: Any) -> int:
    call(m, ALICE, "create", **terms(m, **fields))
    return int(m.last("Created", "Crowdloan")["crowdloan_id"])


def give(m: Market, who: bytes, amount: int, crowdloan_id: int = 0) -> None:
    call(m, who, "contribute", crowdloan_id=crowdloan_id, amount=amount)


def info(m: Market, crowdloan_id: int = 0) -> dict[str, Any]:
    found = m.rt.crowdloan.Crowdloans[crowdloan_id]
    assert found is not None
    return found


def funds(m: Market, crowdloan_id: int = 0) -> int:
    return m.rt.balances.free(accounts.pallet_account(b"bt/cloan", crowdloan_id.to_bytes(4, "little")))


# -- raising ----------------------------------------------------------------------------------------------------------


def test_a_crowdloan_begins_with_its_creators_deposit(m: Market) -> None:
    free = m.rt.balances.free(ALICE)
    assert create(m) == 0 and create(m, target_address=None, call=REMARK) == 1
    assert m.rt.balances.free(ALICE) == free - 2 * DEPOSIT and funds(m) == funds(m, 1) == DEPOSIT
    assert (info(m)["raised"], info(m)["contributors_count"]) == (DEPOSIT, 1)
    assert m.rt.crowdloan.Contributions[0, ALICE] == DEPOSIT
    assert m.last("Created", "Crowdloan")["end"] == m.rt.number + 60


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"deposit": DEPOSIT - 1}, "DepositTooLow"),
        ({"cap": DEPOSIT}, "CapTooLow"),
        ({"min_contribution": LEAST - 1}, "MinimumContributionTooLow"),
        ({"call": REMARK}, "InvalidFinalizationConfig"),
        ({"target_address": None}, "InvalidFinalizationConfig"),
        ({"end": 0}, "CannotEndInPast"),
        ({"end": 50}, "BlockDurationTooShort"),
        ({"end": 20_002}, "BlockDurationTooLong"),
        ({"deposit": 10**16, "cap": 10**17}, "InsufficientBalance"),
    ],
)
def test_terms_that_the_chain_does_not_take(m: Market, fields: dict[str, Any], error: str) -> None:
    assert m.rt.number == 1
    assert refusal(m, ALICE, "create", **terms(m, **fields)) == error


def test_contributions_stop_at_the_cap_and_at_each_ones_maximum(m: Market) -> None:
    create(m)
    call(m, ALICE, "set_max_contribution", crowdloan_id=0, new_max_contribution=30 * TAO)
    give(m, BOB, 50 * TAO)
    assert m.last("Contributed", "Crowdloan")["amount"] == 30 * TAO
    assert refusal(m, BOB, "contribute", crowdloan_id=0, amount=TAO) == "MaxContributionReached"
    call(m, ALICE, "set_max_contribution", crowdloan_id=0, new_max_contribution=None)
    assert refusal(m, BOB, "contribute", crowdloan_id=0, amount=LEAST - 1) == "ContributionTooLow"
    assert refusal(m, BOB, "contribute", crowdloan_id=5, amount=TAO) == "InvalidCrowdloanId"
    give(m, CHARLIE, 90 * TAO)
    assert m.rt.crowdloan.Contributions[0, CHARLIE] == 60 * TAO and info(m)["contributors_count"] == 3
    assert funds(m) == info(m)["raised"] == info(m)["cap"] == 100 * TAO
    assert refusal(m, BOB, "contribute", crowdloan_id=0, amount=TAO) == "CapRaised"
    m.at(61)
    assert refusal(m, BOB, "contribute", crowdloan_id=0, amount=TAO) == "ContributionPeriodEnded"


def test_contributors_take_back_but_the_deposit_stays(m: Market) -> None:
    create(m)
    give(m, BOB, 5 * TAO)
    give(m, ALICE, 2 * TAO)
    free = m.rt.balances.free(BOB)
    call(m, BOB, "withdraw", crowdloan_id=0)
    assert m.rt.balances.free(BOB) == free + 5 * TAO and (0, BOB) not in m.rt.crowdloan.Contributions
    call(m, ALICE, "withdraw", crowdloan_id=0)
    assert m.last("Withdrew", "Crowdloan")["amount"] == 2 * TAO
    assert (info(m)["raised"], info(m)["contributors_count"], funds(m)) == (DEPOSIT, 1, DEPOSIT)
    assert refusal(m, ALICE, "withdraw", crowdloan_id=0) == "DepositCannotBeWithdrawn"
    assert refusal(m, BOB, "withdraw", crowdloan_id=0) == "NoContribution"


def test_the_creator_changes_terms_within_bounds(m: Market) -> None:
    create(m)
    give(m, BOB, 20 * TAO)
    changes = {
        "update_min_contribution": ({"new_min_contribution": TAO}, "min_contribution", TAO),
        "update_end": ({"new_end": 100}, "end", 100),
        "update_cap": ({"new_cap": 30 * TAO}, "cap", 30 * TAO),
    }
    for function, (given, field, value) in changes.items():
        assert refusal(m, BOB, function, crowdloan_id=0, **given) == "InvalidOrigin"
        call(m, ALICE, function, crowdloan_id=0, **given)
        assert info(m)[field] == value
    assert refusal(m, ALICE, "update_cap", crowdloan_id=0, new_cap=30 * TAO - 1) == "CapTooLow"
    low = {"crowdloan_id": 0, "new_max_contribution": DEPOSIT - 1}
    assert refusal(m, ALICE, "set_max_contribution", **low) == "MaximumContributionTooLow"
    call(m, ALICE, "set_max_contribution", crowdloan_id=0, new_max_contribution=DEPOSIT)
    high = {"crowdloan_id": 0, "new_min_contribution": DEPOSIT + 1}
    assert refusal(m, ALICE, "update_min_contribution", **high) == "MinimumContributionTooHigh"


# -- ending -----------------------------------------------------------------------------------------------------------


def test_what_was_raised_goes_to_the_target(m: Market) -> None:
    create(m)
    assert refusal(m, ALICE, "finalize", crowdloan_id=0) == "CapNotRaised"
    give(m, BOB, 90 * TAO)
    assert refusal(m, BOB, "finalize", crowdloan_id=0) == "InvalidOrigin"
    free = m.rt.balances.free(DAVE)
    call(m, ALICE, "finalize", crowdloan_id=0)
    assert m.rt.balances.free(DAVE) == free + 100 * TAO and funds(m) == 0 and info(m)["finalized"]
    for function in ("finalize", "withdraw", "refund", "dissolve"):
        assert refusal(m, ALICE, function, crowdloan_id=0) == "AlreadyFinalized"


def test_a_call_that_leaves_the_funds_where_they_are_fails_the_finalization(m: Market) -> None:
    """test_crowdloan_batch_filter_failure_rolls_back_unsettled_finalization of the chain: a batch that succeeded
    although a call inside failed."""
    lease = ("SubtensorModule", ("register_leased_network", {"emissions_share": 30, "end_block": 500}))
    failing = ("Balances", ("transfer_keep_alive", {"dest": ("Id", DAVE), "value": 10**18}))
    create(m, target_address=None, call=("Utility", ("batch", {"calls": [failing, lease]})))
    give(m, BOB, 90 * TAO)
    assert refusal(m, ALICE, "finalize", crowdloan_id=0) == "FundsNotSettled"
    assert not info(m)["finalized"] and funds(m) == 100 * TAO
    assert m.rt.crowdloan.CurrentCrowdloanId.get() is None


def test_refund_in_portions_then_dissolve(m: Market) -> None:
    create(m, target_address=None, call=LONG)
    stored = info(m)["call"]
    assert stored[0] == "Lookup" and m.rt.preimage.peek(stored) == LONG
    givers = [bytes((number,)) * 32 for number in range(1, 53)]
    for giver in givers:
        m.rt.balances.mint(giver, TAO)
        give(m, giver, LEAST)
    assert refusal(m, ALICE, "dissolve", crowdloan_id=0) == "NotReadyToDissolve"
    call(m, ALICE, "refund", crowdloan_id=0)
    assert m.events("Crowdloan")[-1][0] == "PartiallyRefunded" and info(m)["contributors_count"] == 3
    call(m, ALICE, "refund", crowdloan_id=0)
    assert m.events("Crowdloan")[-1][0] == "AllRefunded" and info(m)["raised"] == funds(m) == DEPOSIT
    assert all(m.rt.balances.free(giver) == TAO for giver in givers)
    free = m.rt.balances.free(ALICE)
    call(m, ALICE, "dissolve", crowdloan_id=0)
    assert m.rt.balances.free(ALICE) == free + DEPOSIT and 0 not in m.rt.crowdloan.Crowdloans
    assert accounts.pallet_account(b"bt/cloan", bytes(4)) not in m.rt.system.Account
    assert (stored[1]["hash"], stored[1]["len"]) not in m.rt.preimage.PreimageFor


# -- leases -----------------------------------------------------------------------------------------------------------

CAP = 5_000 * TAO


def lease(m: Market, end: int | None = 500, share: int = 30) -> dict[str, Any]:
    """Alice's lease, for which Bob paid 600 and Charlie 390 parts of a thousand of the rest."""
    inner = ("SubtensorModule", ("register_leased_network", {"emissions_share": share, "end_block": end}))
    number = create(m, cap=CAP, target_address=None, call=inner)
    give(m, BOB, 600 * CAP // 1000, number)
    give(m, CHARLIE, CAP, number)
    call(m, ALICE, "finalize", crowdloan_id=number)
    made = m.p.SubnetLeases[m.last("SubnetLeaseCreated")["lease_id"]]
    assert made is not None
    return made


def test_a_crowdloan_buys_a_subnet_and_gives_back_the_rest(m: Market) -> None:
    """As test_register_leased_network_works of the chain: shares, refunds, take and the proxy."""
    free = {who: m.rt.balances.free(who) for who in (ALICE, BOB, CHARLIE)}
    made = lease(m)
    netuid, coldkey = made["netuid"], accounts.lease_account("coldkey", 0)
    assert m.p.SubnetOwner[netuid] == made["coldkey"] == coldkey and m.p.SubnetUidToLeaseId[netuid] == 0
    assert m.p.SubnetOwnerHotkey[netuid] == accounts.lease_account("hotkey", 0)
    assert m.p.Delegates[made["hotkey"]] == 0 and made["beneficiary"] == ALICE
    assert m.rt.proxy.find(coldkey, ALICE)["proxy_type"] == "SubnetLeaseBeneficiary"
    assert funds(m) == 0 and m.rt.balances.free(coldkey) == 0
    assert made["cost"] == m.p.SubnetLocked[netuid] + 93_000_000  # the lock cost and the proxy's deposit
    leftover = CAP - made["cost"]
    bobs = (600 * CAP // 1000 * 2**64 // CAP) * leftover >> 64
    charlies = ((CAP - DEPOSIT - 600 * CAP // 1000) * 2**64 // CAP) * leftover >> 64
    assert m.rt.balances.free(BOB) == free[BOB] - 600 * CAP // 1000 + bobs
    assert m.rt.balances.free(CHARLIE) == free[CHARLIE] - (CAP - DEPOSIT - 600 * CAP // 1000) + charlies
    assert m.rt.balances.free(ALICE) == free[ALICE] - DEPOSIT + leftover - bobs - charlies


def test_the_beneficiary_runs_the_subnet_through_its_proxy(m: Market) -> None:
    made = lease(m)
    acting = {"real": ("Id", made["coldkey"]), "force_proxy_type": None}
    start = ("SubtensorModule", ("start_call", {"netuid": made["netuid"]}))
    m.dispatch(Signed(ALICE), "Proxy", "proxy", **acting, call=start)
    assert m.last("ProxyExecuted", "Proxy")["result"] == ("Ok", ()) and m.p.SubtokenEnabled[made["netuid"]]
    rotate = ("AdminUtils", ("sudo_set_sn_owner_hotkey", {"netuid": made["netuid"], "hotkey": HOT}))
    m.dispatch(Signed(ALICE), "Proxy", "proxy", **acting, call=rotate)
    assert m.last("ProxyExecuted", "Proxy")["result"][0] == "Err"


def test_a_lease_account_with_money_of_its_own_costs_nothing(m: Market) -> None:
    """The account can be told beforehand; what somebody sends it is given back with the rest."""
    m.rt.balances.mint(DAVE, 10_000 * TAO)
    target = ("Id", accounts.lease_account("coldkey", 0))
    m.dispatch(Signed(DAVE), "Balances", "transfer_keep_alive", dest=target, value=3_500 * TAO)
    assert lease(m)["cost"] == 0


def test_a_lease_needs_its_crowdloan(m: Market) -> None:
    given = {"emissions_share": 30, "end_block": 500}
    assert m.refusal(ALICE, "register_leased_network", **given) == "InvalidCrowdloanId"
    create(m)
    m.rt.crowdloan.CurrentCrowdloanId.put(0)
    assert m.refusal(BOB, "register_leased_network", **given) == "InvalidLeaseBeneficiary"
    assert m.refusal(ALICE, "register_leased_network", **{**given, "end_block": 1}) == "LeaseCannotEndInThePast"
    assert refusal(m, ALICE, "finalize", crowdloan_id=0) == "CapNotRaised"
    give(m, BOB, 100 * TAO)
    assert refusal(m, ALICE, "finalize", crowdloan_id=0) == "AlreadyFinalizing"


def test_the_owners_cut_is_put_aside_and_divided(m: Market) -> None:
    """As the dividend tests of the chain's leasing: shares round up, the beneficiary gets what is left."""
    made = lease(m)
    netuid, hotkey = made["netuid"], made["hotkey"]
    staking.increase_stake(m.p, hotkey, made["coldkey"], netuid, 1_000 * TAO)
    m.p.SubnetAlphaOut[netuid] = m.p.SubnetAlphaOut[netuid] + 1_000 * TAO
    m.at(99)
    leasing.on_owner_cut(m.p, netuid, 1_000_000_001)
    assert m.p.AccumulatedLeaseDividends[0] == 300_000_001  # rounded up, not yet divided
    m.at(200)
    leasing.on_owner_cut(m.p, netuid, 10)
    cut = 300_000_001 + 3
    have = {who: staking.stake_of(m.p, hotkey, who, netuid) for who in (ALICE, BOB, CHARLIE)}
    each = dict(zip((BOB, CHARLIE), (600 * CAP // 1000, CAP - DEPOSIT - 600 * CAP // 1000), strict=True))
    due = {who: -(-(amount * 2**64 // CAP) * cut // 2**64) for who, amount in each.items()}
    due[ALICE] = cut - sum(due.values())
    assert all(abs(have[who] - due[who]) <= 1 for who in due)  # a share pool floors
    told = [value for name, value in m.events() if name == "SubnetLeaseDividendsDistributed"]
    assert {one["contributor"]: one["alpha"] for one in told} == due and told[-1]["contributor"] == ALICE
    assert m.p.AccumulatedLeaseDividends[0] == 0


def test_dividends_too_small_to_move_wait_for_everybody(m: Market) -> None:
    made = lease(m)
    staking.increase_stake(m.p, made["hotkey"], made["coldkey"], made["netuid"], 1_000 * TAO)
    m.at(200)
    before = len(m.rt.events)
    leasing.on_owner_cut(m.p, made["netuid"], 1_000)
    assert m.p.AccumulatedLeaseDividends[0] == 300 and len(m.rt.events) == before
    assert staking.stake_of(m.p, made["hotkey"], BOB, made["netuid"]) == 0


def test_the_beneficiary_takes_the_subnet_over_at_the_end(m: Market) -> None:
    made = lease(m)
    given = {"lease_id": 0, "hotkey": HOT}
    assert m.refusal(BOB, "terminate_lease", **given) == "ExpectedBeneficiaryOrigin"
    assert m.refusal(ALICE, "terminate_lease", **{**given, "lease_id": 3}) == "LeaseDoesNotExist"
    assert m.refusal(ALICE, "terminate_lease", **given) == "LeaseHasNotEnded"
    m.at(500)
    stranger = {**given, "hotkey": account("//BobHot")}
    assert m.refusal(ALICE, "terminate_lease", **stranger) == "BeneficiaryDoesNotOwnHotkey"
    m.call(ALICE, "terminate_lease", **given)
    netuid = made["netuid"]
    assert (m.p.SubnetOwner[netuid], m.p.SubnetOwnerHotkey[netuid]) == (ALICE, HOT)
    assert 0 not in m.p.SubnetLeases and netuid not in m.p.SubnetUidToLeaseId
    assert not list(m.p.SubnetLeaseShares.keys(0)) and made["coldkey"] not in m.rt.proxy.Proxies
    assert m.rt.balances.free(made["coldkey"]) == 93_000_000  # its proxy's deposit
    assert m.last("SubnetLeaseTerminated") == {"beneficiary": ALICE, "netuid": netuid}
    forever = lease(m, end=None)
    assert m.p.SubnetUidToLeaseId[forever["netuid"]] == 1
    assert m.refusal(ALICE, "terminate_lease", lease_id=1, hotkey=HOT) == "LeaseHasNoEndBlock"


def test_parts_of_a_lease_round_as_on_the_chain() -> None:
    thirds = {ALICE: leases.share(1, 3), BOB: leases.share(1, 3)}
    assert leases.refunds(thirds, 10) == ({ALICE: 3, BOB: 3}, 4)
    assert leases.dividends(thirds, 10) == ({ALICE: 4, BOB: 4}, 2)
    assert leases.dividends({ALICE: leases.share(1, 1)}, 1) == ({ALICE: 1}, 0)
    assert [leases.contributors_cut(cut, 30) for cut in (0, 1, 10, 11)] == [0, 1, 3, 4]
