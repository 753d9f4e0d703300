"""Multisig accounts: which account a set of signatories owns, and how its calls come about."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import bittensor_core
import pytest

from localnet.rules import accounts
from localnet.runtime.framework import Signed
from tests.support.extrinsics import account
from tests.support.market import ALICE, BOB, CHARLIE, TAO, Market, fresh

DAVE = account("//Dave")
BASE, FACTOR = 132_000_000, 32_000_000  # rao: the chain's deposits
MUCH = {"ref_time": 10**12, "proof_size": 10**6}
PAY = ("Balances", ("transfer_keep_alive", {"dest": ("Id", DAVE), "value": TAO}))


@pytest.fixture
def m() -> Market:
    return fresh()


def others(*who: bytes) -> list[bytes]:
    return sorted(who)


def shared(threshold: int = 2) -> bytes:
    return accounts.multisig_account(sorted((ALICE, BOB, CHARLIE)), threshold)


def call_hash(m: Market, inner: Any = PAY) -> bytes:
    encoded = m.rt.document.registry.encode(m.rt.document.call_type, inner)
    return blake2b(encoded, digest_size=32).digest()


def as_multi(who: bytes, place: Any = None, inner: Any = PAY, threshold: int = 2, **fields: Any) -> dict[str, Any]:
    rest = [one for one in (ALICE, BOB, CHARLIE) if one != who]
    given = {"threshold": threshold, "other_signatories": others(*rest), "maybe_timepoint": place, "call": inner}
    return {**given, "max_weight": MUCH, **fields}


def by_hash(m: Market, who: bytes, place: Any = None, threshold: int = 2) -> dict[str, Any]:
    given = as_multi(who, place, threshold=threshold)
    del given["call"]
    return {**given, "call_hash": call_hash(m)}


def call(m: Market, who: bytes, function: str, **arguments: Any) -> None:
    m.dispatch(Signed(who), "Multisig", function, **arguments)


def refusal(m: Market, who: bytes, function: str, **arguments: Any) -> str:
    return m.refusal(who, function, pallet="Multisig", **arguments)


def reserved(m: Market, who: bytes) -> int:
    return int(m.rt.system.Account[who]["data"]["reserved"])


def test_the_last_approval_needed_dispatches_the_call(m: Market) -> None:
    m.rt.balances.mint(shared(), 2 * TAO)
    call(m, ALICE, "as_multi", **as_multi(ALICE))
    assert m.last("NewMultisig", "Multisig") == {"approving": ALICE, "multisig": shared(), "call_hash": call_hash(m)}
    assert reserved(m, ALICE) == BASE + 2 * FACTOR
    place = {"height": m.rt.number, "index": 0}
    before = m.rt.balances.free(DAVE)
    call(m, BOB, "as_multi", **as_multi(BOB, place))
    assert m.rt.balances.free(DAVE) == before + TAO and m.rt.balances.free(shared()) == TAO
    assert reserved(m, ALICE) == 0 and (shared(), call_hash(m)) not in m.rt.multisig.Multisigs
    done = m.last("MultisigExecuted", "Multisig")
    assert done == {
        "approving": BOB, "timepoint": place, "multisig": shared(), "call_hash": call_hash(m), "result": ("Ok", ()),
    }  # fmt: skip


def test_a_failing_call_ends_the_operation_and_reports_why(m: Market) -> None:
    call(m, ALICE, "as_multi", **as_multi(ALICE))
    call(m, BOB, "as_multi", **as_multi(BOB, {"height": m.rt.number, "index": 0}))
    assert m.last("MultisigExecuted", "Multisig")["result"] == ("Err", ("Token", "FundsUnavailable"))
    assert reserved(m, ALICE) == 0 and (shared(), call_hash(m)) not in m.rt.multisig.Multisigs


def test_approvals_by_hash_count_and_the_place_has_to_be_named(m: Market) -> None:
    m.rt.balances.mint(shared(3), 2 * TAO)
    place = {"height": m.rt.number, "index": 0}
    call(m, CHARLIE, "approve_as_multi", **by_hash(m, CHARLIE, threshold=3))
    assert reserved(m, CHARLIE) == BASE + 3 * FACTOR
    assert refusal(m, CHARLIE, "approve_as_multi", **by_hash(m, CHARLIE, place, 3)) == "AlreadyApproved"
    assert refusal(m, BOB, "approve_as_multi", **by_hash(m, BOB, None, 3)) == "NoTimepoint"
    wrong = {**place, "index": 1}
    assert refusal(m, BOB, "approve_as_multi", **by_hash(m, BOB, wrong, 3)) == "WrongTimepoint"
    call(m, BOB, "approve_as_multi", **by_hash(m, BOB, place, 3))
    approving = m.last("MultisigApproval", "Multisig")
    assert (approving["approving"], approving["timepoint"]) == (BOB, place)
    entry = m.rt.multisig.Multisigs[shared(3), call_hash(m)]
    assert entry is not None and entry["approvals"] == sorted((BOB, CHARLIE))
    little = {"ref_time": 1, "proof_size": 1}
    assert refusal(m, ALICE, "as_multi", **as_multi(ALICE, place, threshold=3, max_weight=little)) == "MaxWeightTooLow"
    call(m, ALICE, "as_multi", **as_multi(ALICE, place, threshold=3))
    assert m.last("MultisigExecuted", "Multisig")["result"] == ("Ok", ())
    assert refusal(m, BOB, "approve_as_multi", **by_hash(m, BOB, place, 3)) == "UnexpectedTimepoint"


def test_signatories_have_to_be_in_order_and_several(m: Market) -> None:
    begin = as_multi(ALICE)
    listed = others(BOB, CHARLIE)
    for signatories, error in (
        ([], "TooFewSignatories"), (listed[::-1], "SignatoriesOutOfOrder"), ([BOB, BOB], "SignatoriesOutOfOrder"),
        (others(ALICE, BOB), "SenderInSignatories"), ([bytes((n,)) * 32 for n in range(1, 101)], "TooManySignatories"),
    ):  # fmt: skip
        assert refusal(m, ALICE, "as_multi", **{**begin, "other_signatories": signatories}) == error
        once = {"other_signatories": signatories, "call": PAY}
        assert refusal(m, ALICE, "as_multi_threshold_1", **once) == error
    assert refusal(m, ALICE, "as_multi", **{**begin, "threshold": 1}) == "MinimumThreshold"
    poor = account("//Poor")
    m.rt.balances.mint(poor, TAO // 10)
    assert refusal(m, poor, "as_multi", **{**begin, "other_signatories": listed}) == "InsufficientBalance"


def test_who_began_may_cancel(m: Market) -> None:
    call(m, ALICE, "as_multi", **as_multi(ALICE))
    place = {"height": m.rt.number, "index": 0}
    given = {"threshold": 2, "timepoint": place, "call_hash": call_hash(m)}
    bobs, alices = others(ALICE, CHARLIE), others(BOB, CHARLIE)
    assert refusal(m, BOB, "cancel_as_multi", other_signatories=bobs, **given) == "NotOwner"
    late = {**given, "timepoint": {"height": 0, "index": 0}}
    assert refusal(m, ALICE, "cancel_as_multi", other_signatories=alices, **late) == "WrongTimepoint"
    unknown = {**given, "call_hash": bytes(32)}
    assert refusal(m, ALICE, "cancel_as_multi", other_signatories=alices, **unknown) == "NotFound"
    call(m, ALICE, "cancel_as_multi", other_signatories=alices, **given)
    assert reserved(m, ALICE) == 0
    cancelled = m.last("MultisigCancelled", "Multisig")
    assert (cancelled["cancelling"], cancelled["multisig"]) == (ALICE, shared())


def test_a_poke_corrects_the_deposit(m: Market) -> None:
    call(m, ALICE, "as_multi", **as_multi(ALICE))
    given = {"threshold": 2, "other_signatories": others(BOB, CHARLIE), "call_hash": call_hash(m)}
    call(m, ALICE, "poke_deposit", **given)
    entry = m.rt.multisig.Multisigs[shared(), call_hash(m)]
    assert entry is not None
    m.rt.multisig.Multisigs[shared(), call_hash(m)] = {**entry, "deposit": BASE}
    m.rt.balances.unreserve(ALICE, 2 * FACTOR)
    call(m, ALICE, "poke_deposit", **given)
    poked = m.last("DepositPoked", "Multisig")
    assert (poked["old_deposit"], poked["new_deposit"]) == (BASE, BASE + 2 * FACTOR)
    assert reserved(m, ALICE) == BASE + 2 * FACTOR


def test_one_of_several_acts_at_once_and_fails_as_the_call_does(m: Market) -> None:
    whose = shared(1)
    given = {"other_signatories": others(BOB, CHARLIE), "call": PAY}
    assert refusal(m, ALICE, "as_multi_threshold_1", **given) == "FundsUnavailable"
    m.rt.balances.mint(whose, 2 * TAO)
    before = m.rt.balances.free(DAVE)
    call(m, ALICE, "as_multi_threshold_1", **given)
    assert m.rt.balances.free(DAVE) == before + TAO


def test_a_multisig_that_announced_a_coldkey_swap_is_held_too(m: Market) -> None:
    m.p.ColdkeySwapAnnouncements[shared(1)] = (1, bytes(32))
    given = {"other_signatories": others(BOB, CHARLIE), "call": PAY}
    assert refusal(m, ALICE, "as_multi_threshold_1", **given) == "ColdkeySwapAnnounced"


def test_the_account_is_the_one_that_clients_derive() -> None:
    """The 2-of-3 account of the development keys Alice, Bob and Charlie that Substrate's documentation shows."""
    address = bittensor_core.ss58_encode(shared(), 42)
    assert address == "5DjYJStmdZ2rcqXbXGX7TW85JsrW6uG4y9MUcLq2BoPMpRA7"
