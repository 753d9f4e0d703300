"""Proxies: who may act for whom, for which calls, after which delay, and at whose cost."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import pytest

from localnet.rules import accounts
from localnet.runtime.framework import Signed
from localnet.runtime.pallets import proxy_types
from tests.support.extrinsics import Draft, account
from tests.support.market import ALICE, BOB, CHARLIE, HOT, TAO, Market, fresh

DAVE = account("//Dave")
BASE, FACTOR = 60_000_000, 33_000_000  # rao: the chain's deposits
NOTED_BASE, NOTED_FACTOR = 36_000_000, 68_000_000
REMARK = ("System", ("remark", {"remark": b"x"}))


@pytest.fixture
def m() -> Market:
    return fresh()


def call(m: Market, who: bytes, function: str, **arguments: Any) -> None:
    m.dispatch(Signed(who), "Proxy", function, **arguments)


def grant(m: Market, real: bytes, delegate: bytes, kind: str = "Any", delay: int = 0) -> None:
    call(m, real, "add_proxy", delegate=("Id", delegate), proxy_type=kind, delay=delay)


def refusal(m: Market, who: bytes, function: str, **arguments: Any) -> str:
    return m.refusal(who, function, pallet="Proxy", **arguments)


def acting(real: bytes, inner: Any, kind: str | None = None) -> Any:
    return ("Proxy", ("proxy", {"real": ("Id", real), "force_proxy_type": kind, "call": inner}))


def act(m: Market, delegate: bytes, real: bytes, inner: Any, kind: str | None = None) -> str:
    """Name of the error the inner call met, or "Ok"."""
    call(m, delegate, "proxy", **acting(real, inner, kind)[1][1])
    return outcome(m, m.last("ProxyExecuted", "Proxy")["result"])


def outcome(m: Market, result: Any) -> str:
    if result == ("Ok", ()):
        return "Ok"
    kind, value = result[1] if isinstance(result[1], tuple) else (result[1], None)
    if kind != "Module":
        return str(kind)
    pallet = next(name for name, index in m.rt.document.pallet_index.items() if index == value["index"])
    return next(name for name, index in m.rt.document.errors[pallet].items() if index == value["error"][0])


def pay(dest: bytes, value: int) -> Any:
    return ("Balances", ("transfer_keep_alive", {"dest": ("Id", dest), "value": value}))


def batch(*calls: Any, function: str = "batch") -> Any:
    return ("Utility", (function, {"calls": list(calls)}))


def balances(m: Market, who: bytes) -> tuple[int, int]:
    data = m.rt.system.Account[who]["data"]
    return data["free"], data["reserved"]


# -- granting ---------------------------------------------------------------------------------------------------------


def test_deposits_follow_the_number_of_proxies(m: Market) -> None:
    free, _ = balances(m, ALICE)
    for number, delegate in enumerate((BOB, CHARLIE, DAVE), start=1):
        grant(m, ALICE, delegate, "Staking")
        assert balances(m, ALICE) == (free - BASE - number * FACTOR, BASE + number * FACTOR)
    assert m.rt.proxy.Proxies[ALICE][1] == BASE + 3 * FACTOR
    assert m.rt.system.Account[ALICE]["consumers"] == 1
    call(m, ALICE, "remove_proxy", delegate=("Id", CHARLIE), proxy_type="Staking", delay=0)
    assert balances(m, ALICE)[1] == BASE + 2 * FACTOR
    assert m.events("Proxy")[-1][0] == "ProxyRemoved"
    assert m.last("Unreserved", "Balances") == {"who": ALICE, "amount": FACTOR}
    call(m, ALICE, "remove_proxies")
    assert balances(m, ALICE) == (free, 0)
    assert ALICE not in m.rt.proxy.Proxies and m.rt.system.Account[ALICE]["consumers"] == 0


def test_definitions_are_kept_in_order_and_each_but_once(m: Market) -> None:
    for delegate, kind, delay in ((DAVE, "Any", 0), (BOB, "Staking", 0), (BOB, "Owner", 5), (BOB, "Owner", 0)):
        grant(m, ALICE, delegate, kind, delay)
    listed = [(one["delegate"], one["proxy_type"], one["delay"]) for one in m.rt.proxy.Proxies[ALICE][0]]
    assert listed == sorted(listed, key=lambda one: (one[0], proxy_types.TYPES.index(one[1]), one[2]))
    assert [kind for who, kind, _ in listed if who == BOB] == ["Owner", "Owner", "Staking"]
    again = {"delegate": ("Id", BOB), "proxy_type": "Owner", "delay": 5}
    assert refusal(m, ALICE, "add_proxy", **again) == "Duplicate"
    assert refusal(m, ALICE, "add_proxy", **{**again, "delegate": ("Id", ALICE)}) == "NoSelfProxy"
    assert refusal(m, ALICE, "remove_proxy", **{**again, "delay": 6}) == "NotFound"
    assert refusal(m, BOB, "remove_proxy", **again) == "NotFound"
    for number in range(16):
        grant(m, ALICE, bytes((number + 1,)) * 32)
    assert refusal(m, ALICE, "add_proxy", **{**again, "delay": 9}) == "TooMany"


def test_who_cannot_afford_the_deposit_is_refused(m: Market) -> None:
    poor = account("//Poor")
    given = {"delegate": ("Id", BOB), "proxy_type": "Any", "delay": 0}
    m.rt.balances.mint(poor, BASE + FACTOR - 1)
    assert refusal(m, poor, "add_proxy", **given) == "InsufficientBalance"
    m.rt.balances.mint(poor, 500)  # one short of deposit and existential deposit
    assert refusal(m, poor, "add_proxy", **given) == "ConsumerRemaining"
    m.rt.balances.mint(poor, 1)
    call(m, poor, "add_proxy", **given)
    assert balances(m, poor) == (500, BASE + FACTOR)
    everything = {"dest": ("Id", BOB), "value": 500}
    assert m.refusal(poor, "transfer_allow_death", pallet="Balances", **everything) == "Frozen"


# -- acting -----------------------------------------------------------------------------------------------------------


def test_a_proxy_acts_with_the_accounts_own_origin(m: Market) -> None:
    grant(m, ALICE, BOB)
    free, before = balances(m, ALICE)[0], balances(m, BOB)[0]
    assert act(m, BOB, ALICE, pay(CHARLIE, TAO)) == "Ok"
    assert balances(m, ALICE)[0] == free - TAO and balances(m, BOB)[0] == before
    assert m.last("Transfer", "Balances") == {"from": ALICE, "to": CHARLIE, "amount": TAO}
    assert m.rt.proxy.LastCallResult[ALICE] == ("Ok", ())
    assert refusal(m, DAVE, "proxy", **acting(ALICE, REMARK)[1][1]) == "NotProxy"
    assert refusal(m, BOB, "proxy", **acting(ALICE, REMARK, "Owner")[1][1]) == "NotProxy"


def test_the_last_result_lasts_a_block(m: Market) -> None:
    grant(m, ALICE, BOB)
    act(m, BOB, ALICE, REMARK)
    m.rt.call("BlockBuilder_finalize_block", b"", m.rt.state)
    assert ALICE not in m.rt.proxy.LastCallResult


def test_what_the_type_does_not_allow_is_filtered_at_every_depth(m: Market) -> None:
    grant(m, ALICE, BOB, "NonTransfer")
    assert act(m, BOB, ALICE, REMARK) == "Ok"
    free = balances(m, ALICE)[0]
    assert act(m, BOB, ALICE, pay(BOB, TAO)) == "CallFiltered"
    assert act(m, BOB, ALICE, batch(REMARK, pay(BOB, TAO))) == "Ok"  # the batch; what became of its second call:
    assert m.last("BatchInterrupted", "Utility")["index"] == 1
    assert act(m, BOB, ALICE, batch(REMARK, pay(BOB, TAO), function="batch_all")) == "CallFiltered"
    derived = ("Utility", ("as_derivative", {"index": 0, "call": pay(BOB, TAO)}))
    assert act(m, BOB, ALICE, derived) == "CallFiltered"
    assert balances(m, ALICE)[0] == free


def test_a_proxy_of_a_proxy_is_filtered_by_its_own_grant_only(m: Market) -> None:
    """A proxied proxy call gets a fresh origin, as on the chain."""
    grant(m, ALICE, BOB, "Any")
    grant(m, BOB, CHARLIE, "NonTransfer")
    free = balances(m, ALICE)[0]
    assert act(m, CHARLIE, BOB, acting(ALICE, pay(DAVE, TAO))) == "Ok"
    assert balances(m, ALICE)[0] == free - TAO


def test_a_proxy_cannot_raise_its_own_rights(m: Market) -> None:
    grant(m, ALICE, BOB, "NonTransfer")
    give = lambda kind: ("Proxy", ("add_proxy", {"delegate": ("Id", CHARLIE), "proxy_type": kind, "delay": 0}))  # noqa: E731
    assert act(m, BOB, ALICE, give("Any")) == "CallFiltered"
    assert act(m, BOB, ALICE, give("Transfer")) == "CallFiltered"
    assert act(m, BOB, ALICE, give("Staking")) == "Ok"
    assert act(m, BOB, ALICE, ("Proxy", "remove_proxies")) == "CallFiltered"
    grant(m, ALICE, DAVE, "Any")
    assert act(m, DAVE, ALICE, ("Proxy", "remove_proxies")) == "Ok"
    assert ALICE not in m.rt.proxy.Proxies


def test_an_account_that_announced_a_coldkey_swap_does_not_act_through_a_proxy_either(m: Market) -> None:
    """proxied_forbidden_call_blocked and nested_proxy_blocked of the chain's check_coldkey_swap guard."""
    grant(m, ALICE, BOB)
    grant(m, BOB, CHARLIE)
    m.p.ColdkeySwapAnnouncements[ALICE] = (1, bytes(32))
    assert act(m, BOB, ALICE, REMARK) == "ColdkeySwapAnnounced"
    call(m, CHARLIE, "proxy", **acting(BOB, acting(ALICE, REMARK))[1][1])
    results = [outcome(m, value["result"]) for name, value in m.events("Proxy") if name == "ProxyExecuted"]
    assert results[-2:] == ["ColdkeySwapAnnounced", "Ok"]  # the inner one, then the outer one
    m.p.ColdkeySwapDisputes[ALICE] = 1
    assert act(m, BOB, ALICE, REMARK) == "ColdkeySwapDisputed"


def test_the_owners_delegate_sets_hyperparameters_and_nothing_else(m: Market) -> None:
    grant(m, ALICE, BOB, "Owner")
    rate = ("AdminUtils", ("sudo_set_serving_rate_limit", {"netuid": m.net, "serving_rate_limit": 77}))
    assert act(m, BOB, ALICE, rate) == "Ok"
    assert m.p.ServingRateLimit[m.net] == 77
    hotkey = ("AdminUtils", ("sudo_set_sn_owner_hotkey", {"netuid": m.net, "hotkey": HOT}))
    assert act(m, BOB, ALICE, hotkey) == "CallFiltered"
    assert act(m, BOB, ALICE, REMARK) == "CallFiltered"


# -- announcing -------------------------------------------------------------------------------------------------------


def hashed(m: Market, inner: Any) -> bytes:
    encoded = m.rt.document.registry.encode(m.rt.document.call_type, inner)
    return blake2b(encoded, digest_size=32).digest()


def announced(inner: Any) -> dict[str, Any]:
    return {"delegate": ("Id", BOB), "real": ("Id", ALICE), "force_proxy_type": None, "call": inner}


def test_a_delayed_proxy_has_to_announce_and_to_wait(m: Market) -> None:
    grant(m, ALICE, BOB, "Transfer", delay=10)
    inner = pay(CHARLIE, TAO)
    assert refusal(m, BOB, "proxy", **acting(ALICE, inner)[1][1]) == "Unannounced"
    assert refusal(m, BOB, "proxy_announced", **announced(inner)) == "Unannounced"
    assert refusal(m, DAVE, "announce", real=("Id", ALICE), call_hash=bytes(32)) == "NotProxy"
    call(m, BOB, "announce", real=("Id", ALICE), call_hash=hashed(m, inner))
    assert m.last("Announced", "Proxy") == {"real": ALICE, "proxy": BOB, "call_hash": hashed(m, inner)}
    assert balances(m, BOB)[1] == NOTED_BASE + NOTED_FACTOR
    start = m.rt.number
    m.at(start + 9)
    assert refusal(m, BOB, "proxy_announced", **announced(inner)) == "Unannounced"
    m.at(start + 10)
    free = balances(m, ALICE)[0]
    call(m, DAVE, "proxy_announced", **announced(inner))  # anybody may
    assert balances(m, ALICE)[0] == free - TAO
    assert balances(m, BOB)[1] == 0 and BOB not in m.rt.proxy.Announcements


def test_the_account_rejects_and_the_delegate_takes_back(m: Market) -> None:
    grant(m, ALICE, BOB, "Any", delay=1)
    one, two = bytes((1,)) * 32, bytes((2,)) * 32
    for call_hash in (one, two):
        call(m, BOB, "announce", real=("Id", ALICE), call_hash=call_hash)
    assert balances(m, BOB)[1] == NOTED_BASE + 2 * NOTED_FACTOR
    assert refusal(m, CHARLIE, "reject_announcement", delegate=("Id", BOB), call_hash=one) == "NotFound"
    call(m, ALICE, "reject_announcement", delegate=("Id", BOB), call_hash=one)
    assert [entry["call_hash"] for entry in m.rt.proxy.Announcements[BOB][0]] == [two]
    assert refusal(m, BOB, "remove_announcement", real=("Id", ALICE), call_hash=one) == "NotFound"
    call(m, BOB, "remove_announcement", real=("Id", ALICE), call_hash=two)
    assert balances(m, BOB)[1] == 0


def test_a_poke_corrects_the_deposit(m: Market) -> None:
    grant(m, ALICE, BOB)
    call(m, ALICE, "poke_deposit")
    assert "DepositPoked" not in [name for name, _ in m.events("Proxy")]
    entries, _ = m.rt.proxy.Proxies[ALICE]
    m.rt.proxy.Proxies[ALICE] = (entries, BASE + FACTOR + 7)
    m.rt.balances.reserve(ALICE, 7)
    call(m, ALICE, "poke_deposit")
    expected = {"who": ALICE, "kind": "Proxies", "old_deposit": BASE + FACTOR + 7, "new_deposit": BASE + FACTOR}
    assert m.last("DepositPoked", "Proxy") == expected
    assert balances(m, ALICE)[1] == BASE + FACTOR


# -- accounts without a key -------------------------------------------------------------------------------------------


def test_a_pure_account_lives_by_its_proxy_and_dies_by_its_own_call(m: Market) -> None:
    given = {"proxy_type": "Any", "delay": 0, "index": 3}
    call(m, ALICE, "create_pure", **given)
    made = m.last("PureCreated", "Proxy")
    pure = accounts.pure_account(ALICE, m.rt.number, 0, 0, 3)
    assert made == {"pure": pure, "who": ALICE, "proxy_type": "Any", "disambiguation_index": 3}
    assert refusal(m, ALICE, "create_pure", **given) == "Duplicate"
    assert balances(m, ALICE)[1] == BASE + FACTOR and balances(m, pure) == (0, 0)
    m.rt.balances.mint(pure, TAO)
    assert act(m, ALICE, pure, pay(BOB, TAO // 2)) == "Ok"
    place = {"spawner": ("Id", ALICE), "proxy_type": "Any", "index": 3, "height": m.rt.number, "ext_index": 0}
    assert act(m, ALICE, pure, ("Proxy", ("kill_pure", {**place, "index": 4}))) == "NoPermission"
    assert act(m, ALICE, pure, ("Proxy", ("kill_pure", place))) == "Ok"
    assert balances(m, ALICE)[1] == 0 and pure not in m.rt.proxy.Proxies


# -- who pays ---------------------------------------------------------------------------------------------------------


def payer(m: Market, inner: Any) -> bytes:
    pallet, (function, arguments) = inner
    return m.rt.proxy.fee_payer(CHARLIE, pallet, function, arguments)


def agree(m: Market, real: bytes, delegate: bytes) -> None:
    call(m, real, "set_real_pays_fee", delegate=("Id", delegate), pays_fee=True)


def test_the_account_that_agreed_pays_two_levels_deep(m: Market) -> None:
    """The cases of the chain's transaction_payment_wrapper tests: Charlie acts for Bob, who acts for Alice and Dave."""
    grant(m, BOB, CHARLIE)
    grant(m, ALICE, BOB)
    grant(m, DAVE, BOB)
    agree(m, ALICE, BOB)
    through = acting(BOB, acting(ALICE, REMARK))
    assert payer(m, REMARK) == CHARLIE
    assert payer(m, acting(BOB, REMARK)) == payer(m, through) == CHARLIE  # Bob did not agree
    agree(m, BOB, CHARLIE)
    assert payer(m, acting(BOB, REMARK)) == BOB
    assert payer(m, through) == ALICE
    for function in ("batch", "batch_all", "force_batch"):
        assert payer(m, acting(BOB, batch(acting(ALICE, REMARK), acting(ALICE, REMARK), function=function))) == ALICE
    assert payer(m, acting(BOB, batch(acting(ALICE, REMARK), REMARK))) == BOB
    assert payer(m, acting(BOB, batch())) == BOB
    assert payer(m, acting(BOB, batch(acting(DAVE, REMARK)))) == BOB
    agree(m, DAVE, BOB)
    assert payer(m, acting(BOB, batch(acting(ALICE, REMARK), acting(DAVE, REMARK)))) == BOB
    told = {"delegate": ("Id", CHARLIE), "real": ("Id", BOB), "force_proxy_type": None, "call": REMARK}
    assert payer(m, ("Proxy", ("proxy_announced", told))) == CHARLIE
    call(m, BOB, "remove_proxy", delegate=("Id", CHARLIE), proxy_type="Any", delay=0)
    assert payer(m, acting(BOB, REMARK)) == CHARLIE
    assert refusal(m, BOB, "set_real_pays_fee", delegate=("Id", CHARLIE), pays_fee=True) == "NotProxy"


def test_a_delegate_needs_no_money_beyond_its_existence_when_the_account_pays(m: Market) -> None:
    helper = account("//Helper")
    m.rt.balances.mint(helper, 500)
    grant(m, ALICE, helper)
    pallet, (function, arguments) = acting(ALICE, REMARK)
    encoded = m.rt.encode_call(pallet, function, arguments)
    raw = Draft(m.rt, "//Helper", encoded, 0, m.rt.system.BlockHash[0]).sign()
    check = lambda: m.rt.call("TaggedTransactionQueue_validate_transaction", b"\2" + raw + bytes(32), m.rt.state)  # noqa: E731
    assert check().hex() == "010001"  # Payment
    agree(m, ALICE, helper)
    assert check()[0] == 0
    free, issued = balances(m, ALICE)[0], m.rt.balances.TotalIssuance.get()
    assert m.rt.call("BlockBuilder_apply_extrinsic", raw, m.rt.state) == b"\0\0"
    paid = m.last("TransactionFeePaid", "TransactionPayment")
    assert paid["who"] == ALICE and paid["actual_fee"] == free - balances(m, ALICE)[0] > 0
    assert issued - m.rt.balances.TotalIssuance.get() == paid["actual_fee"]
    assert balances(m, helper)[0] == 500 and m.rt.system.Account[helper]["nonce"] == 1


# -- types ------------------------------------------------------------------------------------------------------------


def test_the_groups_are_a_partition_of_all_calls(m: Market) -> None:
    """all_call_groups_cover_runtime_call_metadata of the chain's proxy filters."""
    calls = m.rt.document.calls
    listed = [pair for name in proxy_types.GROUPS for pair in proxy_types.group(calls, name)]
    assert len(listed) == len(set(listed))
    assert set(listed) == {(pallet, function) for pallet, functions in calls.items() for function in functions}


def test_narrow_types_allow_exactly_their_calls(m: Market) -> None:
    """narrow_proxies_have_exact_allow_lists, basket_trading_proxy_grants_exactly_swap_basket and
    any_allows_everything_and_deprecated_allow_nothing of the chain's proxy filters.
    """
    names = {kind: {function for _, function in rules} for kind, rules in m.rt.proxy.table.items()}
    assert names["Transfer"] == {
        "transfer_keep_alive", "transfer_allow_death", "transfer_all", "transfer_stake", "transfer_stake_and_hotkey",
    }  # fmt: skip
    assert names["SmallTransfer"] == names["Transfer"] - {"transfer_all"}
    assert names["Staking"] == {
        "add_collateral", "add_stake", "add_stake_limit", "remove_stake", "remove_stake_limit",
        "remove_stake_full_limit", "unstake_all", "unstake_all_alpha", "move_stake", "move_stake_limit",
        "set_min_collateral", "stake_into_basket", "swap_stake", "swap_stake_limit",
    }  # fmt: skip
    assert names["Registration"] == {"register", "register_limit", "burned_register"}
    assert names["ChildKeys"] == {"set_children", "set_childkey_take"}
    assert names["SwapHotkey"] == {"swap_hotkey", "swap_hotkey_v2"}
    assert names["RootClaim"] == {"claim_root", "claim_root_with_hotkey"}
    assert names["BasketTrading"] == {"swap_basket"}
    assert all(not names[kind] for kind in proxy_types.DEPRECATED)
    assert names["SubnetLeaseBeneficiary"] == names["Owner"] | {"start_call"}


def test_broad_types_deny_what_the_chain_denies(m: Market) -> None:
    """tightened_denylist_leaks_stay_denied and the two non_.. tests of the chain's proxy filters."""
    table = m.rt.proxy.table
    for kind in ("NonTransfer", "NonFungible", "NonCritical"):
        for pair in (
            ("SubtensorModule", "reset_coldkey_swap"), ("SubtensorModule", "swap_coldkey"),
            ("SubtensorModule", "schedule_swap_coldkey"), ("SubtensorModule", "swap_basket"),
            ("Multisig", "as_multi"), ("Crowdloan", "finalize"), ("Sudo", "sudo"), ("MevShield", "store_encrypted"),
            ("AdminUtils", "sudo_set_sn_owner_hotkey"),
        ):  # fmt: skip
            assert pair not in table[kind]
        assert ("SubtensorModule", "set_weights") in table[kind]
        assert (("SubtensorModule", "recycle_alpha") in table[kind]) == (kind != "NonFungible")
        assert (("Balances", "transfer_all") in table[kind]) == (kind == "NonCritical")
        assert (("SubtensorModule", "dissolve_network") in table[kind]) == (kind != "NonCritical")


def test_amounts_and_carried_calls_are_part_of_the_rule(m: Market) -> None:
    """small_transfer_enforces_amount_limits and sudo_unchecked_set_code_only_matches_set_code."""
    table, half = m.rt.proxy.table, proxy_types.SMALL
    allows = lambda kind, inner: proxy_types.allows(table, kind, inner[0], *inner[1])  # noqa: E731
    assert allows("SmallTransfer", pay(BOB, half - 1)) and not allows("SmallTransfer", pay(BOB, half))
    assert allows("Transfer", pay(BOB, half)) and not allows("SmallTransfer", REMARK)
    unchecked = lambda inner: ("Sudo", ("sudo_unchecked_weight", {"call": inner, "weight": None}))  # noqa: E731
    set_code = ("System", ("set_code", {"code": b""}))
    assert allows("SudoUncheckedSetCode", unchecked(set_code)) and not allows("SudoUncheckedSetCode", unchecked(REMARK))
    assert not allows("SudoUncheckedSetCode", ("Sudo", ("sudo", {"call": set_code})))


def test_a_superset_allows_what_it_may_hand_out(m: Market) -> None:
    """superset_relations_match_allowed_call_sets, non_transfer_superset_is_explicit_allowlist."""
    table = m.rt.proxy.table
    for kind in proxy_types.TYPES[1:]:
        assert proxy_types.is_superset("Any", kind) and not proxy_types.is_superset(kind, "Any")
        for other in proxy_types.TYPES[1:]:
            assert not proxy_types.is_superset(kind, other) or set(table[other]) <= set(table[kind])
    assert [kind for kind in proxy_types.TYPES if proxy_types.is_superset("NonTransfer", kind)] == [
        "Owner", "NonTransfer", "Senate", "NonFungible", "Triumvirate", "Governance", "Staking", "Registration",
        "RootWeights", "ChildKeys", "SwapHotkey", "SubnetLeaseBeneficiary", "RootClaim",
    ]  # fmt: skip


def test_clients_read_types_and_filters(m: Market) -> None:
    def ask(name: str, data: bytes = b"") -> Any:
        method = m.rt.document.apis[f"ProxyFilterRuntimeApi_{name}"]
        return m.rt.document.registry.decode(method.output, m.rt.call(method.name, data, m.rt.state))

    types = ask("get_proxy_types")
    variants = m.rt.document.tree["types"][m.rt.document.type_id("subtensor_runtime_common", "proxy", "ProxyType")]
    assert [(one["name"].decode(), one["index"]) for one in types] == [
        (variant["name"], variant["index"]) for variant in variants["def"]["variant"]
    ]
    assert {one["name"].decode() for one in types if one["deprecated"]} == proxy_types.DEPRECATED
    everything, small = ask("get_proxy_filters", b"\1\x08\x00\x0b")
    assert everything["filter_mode"] == "AllowAll" and small["name"] == b"SmallTransfer"
    first = small["filter_mode"][1][0]
    assert (first["pallet_index"], first["call_name"], first["call_index"]) == (5, b"transfer_keep_alive", 3)
    assert first["constraint"] == ("ParamLessThan", {"param_name": b"value", "limit": 500_000_000})
    assert len(ask("get_proxy_filters", b"\0")) == 19
