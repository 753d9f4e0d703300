"""Utility, Sudo and Balances: calls under other origins, the end of sudo, reserved balances, recorded issuance."""

from __future__ import annotations

from typing import Any

import pytest

from localnet.errors import DispatchError
from localnet.rules import accounts
from localnet.runtime.framework import FEE_WAIVED, Signed
from localnet.runtime.pallets.balances import NEW_LOGIC_FLAG
from tests.support.extrinsics import Draft, account
from tests.support.market import ALICE, BOB, CHARLIE, TAO, Market, fresh

NEWCOMER = account("//Newcomer")
REMARK = ("System", ("remark_with_event", {"remark": b"x"}))
FAILING = ("Balances", ("transfer_keep_alive", {"dest": ("Id", BOB), "value": 2 * 10**15}))


@pytest.fixture
def m() -> Market:
    return fresh()


def call(m: Market, who: bytes, function: str, pallet: str = "Utility", **arguments: Any) -> None:
    m.dispatch(Signed(who), pallet, function, **arguments)


def refusal(m: Market, who: bytes | None, function: str, pallet: str = "Utility", **arguments: Any) -> str:
    return m.refusal(who, function, pallet=pallet, **arguments)


def pay(dest: bytes, value: int) -> Any:
    return ("Balances", ("transfer_allow_death", {"dest": ("Id", dest), "value": value}))


def names(m: Market, pallet: str = "Utility") -> list[str]:
    return [name for name, _ in m.events(pallet)]


# -- other origins ----------------------------------------------------------------------------------------------------


def test_a_derivative_account_is_its_owners_to_use(m: Market) -> None:
    child = accounts.derivative_account(ALICE, 7)
    assert refusal(m, ALICE, "as_derivative", index=7, call=pay(BOB, TAO)) == "FundsUnavailable"
    m.rt.balances.mint(child, TAO)
    before = m.rt.balances.free(BOB)
    call(m, ALICE, "as_derivative", index=7, call=pay(BOB, TAO))
    assert m.rt.balances.free(BOB) == before + TAO and m.rt.balances.free(child) == 0
    assert refusal(m, None, "as_derivative", index=7, call=REMARK) == "BadOrigin"


def test_root_dispatches_as_anybody(m: Market) -> None:
    as_bob = ("system", ("Signed", BOB))
    m.root("Utility", "dispatch_as", as_origin=as_bob, call=REMARK)
    assert m.last("Remarked", "System")["sender"] == BOB
    m.root("Utility", "dispatch_as", as_origin=as_bob, call=FAILING)
    assert m.last("DispatchedAs", "Utility")["result"] == ("Err", ("Token", "FundsUnavailable"))
    assert refusal(m, None, "dispatch_as_fallible", as_origin=as_bob, call=FAILING) == "FundsUnavailable"
    key = ("System", ("set_storage", {"items": [(b"k", b"v")]}))
    m.root("Utility", "dispatch_as_fallible", as_origin=("system", "Root"), call=key)
    assert m.rt.state.get(b"k") == b"v"
    assert refusal(m, ALICE, "dispatch_as", as_origin=as_bob, call=REMARK) == "BadOrigin"
    evm = ("Ethereum", ("EthereumTransaction", bytes(20)))
    assert "NotImplemented" in refusal(m, None, "dispatch_as", as_origin=evm, call=REMARK)


def test_the_fallback_runs_when_the_main_call_fails(m: Market) -> None:
    call(m, ALICE, "if_else", main=REMARK, fallback=FAILING)
    assert names(m) == ["IfElseMainSuccess"]
    call(m, ALICE, "if_else", main=FAILING, fallback=REMARK)
    assert m.last("IfElseFallbackCalled", "Utility")["main_error"] == ("Token", "FundsUnavailable")
    assert refusal(m, ALICE, "if_else", main=FAILING, fallback=FAILING) == "FundsUnavailable"


def test_batches_directly_in_batches_are_roots_alone(m: Market) -> None:
    """NoNestingCallFilter of the chain's runtime."""
    for outer in ("batch", "batch_all", "force_batch"):
        for inner in ("batch", "batch_all", "force_batch"):
            nested = ("Utility", (inner, {"calls": [REMARK]}))
            assert refusal(m, ALICE, outer, calls=[nested]) == "CallFiltered"
            m.root("Utility", outer, calls=[("Utility", (inner, {"calls": []}))])
    hidden = ("Utility", ("if_else", {"main": ("Utility", ("batch_all", {"calls": []})), "fallback": REMARK}))
    call(m, ALICE, "batch", calls=[hidden])
    assert m.last("ItemCompleted", "Utility") is None
    call(m, ALICE, "batch_all", calls=[hidden])  # the batch_all inside is filtered, so the fallback runs
    module = m.last("IfElseFallbackCalled", "Utility")["main_error"][1]
    assert module["error"][0] == m.rt.document.errors["System"]["CallFiltered"]


def test_a_call_inside_a_batch_meets_the_chains_checks(m: Market) -> None:
    """The rate limit that the pool would have refused with Custom(6) is the module's error here."""
    m.p.NetworkRateLimit.put(1_000)
    m.p.LastRateLimitedBlock["NetworkLastRegistered"] = m.rt.number
    create = ("SubtensorModule", ("register_network", {"hotkey": NEWCOMER}))
    assert refusal(m, ALICE, "batch_all", calls=[create]) == "NetworkTxRateLimitExceeded"
    m.p.ColdkeySwapAnnouncements[ALICE] = (1, bytes(32))
    assert refusal(m, ALICE, "batch_all", calls=[REMARK]) == "ColdkeySwapAnnounced"


def test_without_its_key_nobody_is_sudo(m: Market) -> None:
    assert refusal(m, BOB, "remove_key", pallet="Sudo") == "RequireSudo"
    call(m, ALICE, "remove_key", pallet="Sudo")
    assert names(m, "Sudo") == ["KeyRemoved"] and m.rt.sudo.Key.get() is None
    assert refusal(m, ALICE, "sudo", pallet="Sudo", call=REMARK) == "RequireSudo"


def test_a_batch_costs_what_it_carries_and_of_nothing_nothing(m: Market) -> None:
    weights = {"netuid": m.net, "dests": [0], "weights": [1], "version_key": 0}
    free = ("SubtensorModule", ("set_weights", weights))
    info = lambda function, **arguments: m.rt.call_info("Utility", function, arguments)  # noqa: E731
    assert info("batch", calls=[free, REMARK]).pays
    assert not info("batch", calls=[free]).pays and not info("force_batch", calls=[]).pays
    assert info("if_else", main=free, fallback=free).pays  # this one is always paid for
    remark = m.rt.call_info("System", "remark_with_event", {}).ref_time
    assert info("batch", calls=[REMARK, REMARK]).ref_time == info("batch", calls=[]).ref_time + 2 * remark


# -- reserved balance -------------------------------------------------------------------------------------------------


def data(m: Market, who: bytes) -> dict[str, int]:
    account_data = m.rt.system.Account[who]
    return {**account_data["data"], "providers": account_data["providers"], "consumers": account_data["consumers"]}


def test_what_is_reserved_keeps_the_account_and_stays_in_the_issuance(m: Market) -> None:
    balances, issued = m.rt.balances, m.rt.balances.TotalIssuance.get()
    balances.mint(NEWCOMER, TAO)
    balances.reserve(NEWCOMER, TAO // 4)
    have = data(m, NEWCOMER)
    assert (have["free"], have["reserved"], have["providers"], have["consumers"]) == (TAO - TAO // 4, TAO // 4, 1, 1)
    assert balances.reducible(NEWCOMER, keep_alive=False) == have["free"] - 500
    assert refusal(m, NEWCOMER, "transfer_allow_death", "Balances", dest=("Id", BOB), value=have["free"]) == "Frozen"
    call(m, NEWCOMER, "transfer_all", "Balances", dest=("Id", BOB), keep_alive=False)
    assert data(m, NEWCOMER)["free"] == 500 and balances.TotalIssuance.get() == issued + TAO
    with pytest.raises(DispatchError, match="ConsumerRemaining"):
        balances.burn(NEWCOMER, 500)
    m.root("Balances", "force_unreserve", who=("Id", NEWCOMER), amount=2 * TAO)
    assert m.last("Unreserved", "Balances") == {"who": NEWCOMER, "amount": TAO // 4}
    assert data(m, NEWCOMER)["consumers"] == 0
    call(m, NEWCOMER, "transfer_all", "Balances", dest=("Id", BOB), keep_alive=False)
    assert NEWCOMER not in m.rt.system.Account
    with pytest.raises(DispatchError, match="BadOrigin"):
        m.dispatch(Signed(ALICE), "Balances", "force_unreserve", who=("Id", BOB), amount=1)


def test_dust_goes_with_the_account(m: Market) -> None:
    balances = m.rt.balances
    balances.mint(NEWCOMER, TAO)
    issued = balances.TotalIssuance.get()
    m.rt.events.clear()
    call(m, NEWCOMER, "transfer_allow_death", "Balances", dest=("Id", BOB), value=TAO - 499)
    assert names(m, "System") == ["KilledAccount"] and names(m, "Balances") == ["DustLost", "Transfer"]
    assert balances.TotalIssuance.get() == issued - 499 and NEWCOMER not in m.rt.system.Account


def test_an_account_with_another_provider_outlives_its_balance(m: Market) -> None:
    m.rt.system.inc_providers(NEWCOMER)
    m.rt.balances.mint(NEWCOMER, TAO)
    assert data(m, NEWCOMER)["providers"] == 2
    m.rt.balances.reserve(NEWCOMER, TAO)
    m.rt.balances.unreserve(NEWCOMER, TAO)
    m.rt.balances.transfer(NEWCOMER, BOB, TAO, keep_alive=False)
    assert data(m, NEWCOMER)["providers"] == 1
    m.rt.system.dec_providers(NEWCOMER)
    assert NEWCOMER not in m.rt.system.Account and "KilledAccount" in names(m, "System")


def test_a_call_that_waives_its_fee_gives_it_back(m: Market) -> None:
    """upgrade_accounts is free where it had to do with nine of ten accounts or more."""
    odd = m.rt.system.Account[CHARLIE]
    m.rt.system.Account[CHARLIE] = {**odd, "data": {**odd["data"], "flags": 0}}
    before = m.rt.balances.free(ALICE)
    for nonce, accounts_, paid in ((0, [CHARLIE], False), (1, [CHARLIE], True), (2, [], True)):
        encoded = m.rt.encode_call("Balances", "upgrade_accounts", {"who": accounts_})
        raw = Draft(m.rt, "//Alice", encoded, nonce, m.rt.system.BlockHash[0]).sign()
        assert m.rt.call("BlockBuilder_apply_extrinsic", raw, m.rt.state) == b"\0\0"
        assert (m.rt.balances.free(ALICE) < before) is paid
        before = m.rt.balances.free(ALICE)
    assert m.rt.system.Account[CHARLIE]["data"]["flags"] == NEW_LOGIC_FLAG
    assert [value for name, value in m.events("Balances") if name == "Upgraded"] == [{"who": CHARLIE}]
    assert m.rt.dispatch(Signed(ALICE), "Balances", "upgrade_accounts", {"who": []}) != FEE_WAIVED


def test_root_corrects_the_recorded_issuance(m: Market) -> None:
    issued = m.rt.balances.TotalIssuance.get()
    m.root("Balances", "force_adjust_total_issuance", direction="Decrease", delta=7)
    assert m.last("TotalIssuanceForced", "Balances") == {"old": issued, "new": issued - 7}
    m.root("Balances", "force_adjust_total_issuance", direction="Increase", delta=7)
    assert m.rt.balances.TotalIssuance.get() == issued
    given = {"direction": "Decrease", "delta": 0}
    assert refusal(m, None, "force_adjust_total_issuance", "Balances", **given) == "DeltaZero"
    m.rt.balances.InactiveIssuance.put(issued)
    given["delta"] = 1
    assert refusal(m, None, "force_adjust_total_issuance", "Balances", **given) == "IssuanceDeactivated"
