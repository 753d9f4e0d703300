"""The runtime's block functions: what an extrinsic costs, what a failure leaves behind, what is refused and how."""

from __future__ import annotations

from typing import Any

import pytest

from localnet.codec.scale import compact, opaque, read_compact
from localnet.errors import RuntimeApiMissing, RuntimeTrap
from localnet.runtime.runtime import SpecRuntime
from tests.support.extrinsics import Draft, account, era_bytes

ALICE, BOB = account("//Alice"), account("//Bob")
NEWCOMER = account("//Newcomer")
TAO = 10**9
OK = b"\0\0"


@pytest.fixture
def runtime() -> SpecRuntime:
    return SpecRuntime.in_memory()


def draft(
    runtime: SpecRuntime, uri: str, pallet: str, function: str, arguments: dict[str, Any], **fields: Any
) -> Draft:
    call = runtime.encode_call(pallet, function, arguments)
    who = account(uri)
    fields.setdefault("nonce", runtime.system.Account[who]["nonce"])
    return Draft(runtime, uri, call, genesis=runtime.system.BlockHash[0], **fields)


def transfer(runtime: SpecRuntime, uri: str, dest: bytes, value: int, **fields: Any) -> Draft:
    arguments = {"dest": ("Id", dest), "value": value}
    return draft(runtime, uri, "Balances", "transfer_keep_alive", arguments, **fields)


def apply(runtime: SpecRuntime, extrinsic: Draft) -> bytes:
    return runtime.call("BlockBuilder_apply_extrinsic", extrinsic.sign(), runtime.state)


def validate(runtime: SpecRuntime, raw: bytes) -> bytes:
    return runtime.call("TaggedTransactionQueue_validate_transaction", b"\2" + raw + bytes(32), runtime.state)


def events(runtime: SpecRuntime) -> list[str]:
    decode = runtime.document.registry.decode
    records = [decode(runtime._event_type, raw) for raw in runtime.events]
    names = [record["event"] for record in records]
    return [f"{pallet}.{event if isinstance(event, str) else event[0]}" for pallet, event in names]


def test_a_transfer_costs_what_a_real_node_charged(runtime: SpecRuntime) -> None:
    """144 bytes; recorded fee 166 247 rao."""
    before, issuance = runtime.balances.free(ALICE), runtime.balances.TotalIssuance.get()
    extrinsic = transfer(runtime, "//Alice", BOB, TAO)
    assert len(extrinsic.sign()) == 144
    assert apply(runtime, extrinsic) == OK
    assert before - runtime.balances.free(ALICE) == TAO + 166_247
    assert issuance - runtime.balances.TotalIssuance.get() == 166_247


def test_events_of_a_paid_success_come_in_the_chains_order(runtime: SpecRuntime) -> None:
    runtime.events.clear()
    apply(runtime, transfer(runtime, "//Alice", BOB, TAO))
    assert events(runtime) == [
        "Balances.Withdraw", "Balances.Transfer", "Balances.Deposit",
        "TransactionPayment.TransactionFeePaid", "System.ExtrinsicSuccess",
    ]  # fmt: skip


def test_a_failed_call_keeps_its_fee_and_nonce_and_nothing_else(runtime: SpecRuntime) -> None:
    before = runtime.balances.free(BOB)
    result = apply(runtime, transfer(runtime, "//Bob", ALICE, 10**18))
    assert result[:2] == b"\0\1"  # Ok(Err(DispatchError))
    assert runtime.system.Account[BOB]["nonce"] == 1
    assert 0 < before - runtime.balances.free(BOB) < TAO


def test_keep_alive_refuses_to_reap_and_allow_death_reaps(runtime: SpecRuntime) -> None:
    apply(runtime, transfer(runtime, "//Alice", NEWCOMER, TAO))
    whole = {"dest": ("Id", ALICE), "value": runtime.balances.free(NEWCOMER)}
    assert apply(runtime, draft(runtime, "//Newcomer", "Balances", "transfer_keep_alive", whole))[:2] == b"\0\1"
    rest = {"dest": ("Id", ALICE), "keep_alive": False}
    assert apply(runtime, draft(runtime, "//Newcomer", "Balances", "transfer_all", rest)) == OK
    assert runtime.balances.free(NEWCOMER) == 0
    assert NEWCOMER not in runtime.system.Account


def test_batch_stops_at_the_first_failure_and_batch_all_undoes_everything(runtime: SpecRuntime) -> None:
    good = ("Balances", ("transfer_keep_alive", {"dest": ("Id", NEWCOMER), "value": TAO}))
    bad = ("Balances", ("transfer_keep_alive", {"dest": ("Id", NEWCOMER), "value": 10**18}))
    assert apply(runtime, draft(runtime, "//Alice", "Utility", "batch", {"calls": [good, bad, good]})) == OK
    assert runtime.balances.free(NEWCOMER) == TAO
    assert apply(runtime, draft(runtime, "//Alice", "Utility", "batch_all", {"calls": [good, bad]}))[:2] == b"\0\1"
    assert runtime.balances.free(NEWCOMER) == TAO
    assert apply(runtime, draft(runtime, "//Alice", "Utility", "force_batch", {"calls": [bad, good]})) == OK
    assert runtime.balances.free(NEWCOMER) == 2 * TAO


def test_sudo_belongs_to_alice_and_reports_the_inner_failure_in_its_event(runtime: SpecRuntime) -> None:
    inner = ("Balances", ("force_set_balance", {"who": ("Id", NEWCOMER), "new_free": 5 * TAO}))
    outsider = draft(runtime, "//Bob", "Sudo", "sudo", {"call": inner})
    assert validate(runtime, outsider.sign()).hex() == apply(runtime, outsider).hex() == "01000a"  # BadSigner
    assert apply(runtime, draft(runtime, "//Alice", "Sudo", "sudo", {"call": inner})) == OK
    assert runtime.balances.free(NEWCOMER) == 5 * TAO
    failing = ("Balances", ("force_transfer", {"source": ("Id", NEWCOMER), "dest": ("Id", BOB), "value": 10**18}))
    assert apply(runtime, draft(runtime, "//Alice", "Sudo", "sudo", {"call": failing})) == OK
    record = runtime.document.registry.decode(
        runtime._event_type, next(e for e in runtime.events[::-1] if b"\x0c\x00" in e)
    )
    assert record["event"][0] == "Sudo" and record["event"][1][1]["sudo_result"][0] == "Err"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"nonce": 0}, "010003"),  # Stale: Alice has sent one already
        ({"genesis": bytes(32)}, "010004"),  # BadProof: another chain
        ({"spec": 1}, "010004"),
        ({"tip": 10**17}, "010001"),  # Payment
        ({"mode": 1, "metadata_hash": bytes(32)}, "010004"),
    ],
)
def test_the_pool_refuses_with_the_reason_clients_know(runtime: SpecRuntime, change: dict[str, Any], code: str) -> None:
    runtime.system.BlockHash[0] = b"\7" * 32
    apply(runtime, transfer(runtime, "//Alice", BOB, TAO))
    whole = transfer(runtime, "//Alice", BOB, TAO)
    assert validate(runtime, whole.sign())[0] == 0
    changed = Draft(**{**vars(whole), **change})
    assert validate(runtime, changed.sign()).hex() == code


def test_a_signature_over_the_real_metadata_digest_is_accepted(runtime: SpecRuntime) -> None:
    signed = transfer(runtime, "//Alice", BOB, TAO, mode=1, metadata_hash=runtime.metadata_hash)
    assert validate(runtime, signed.sign())[0] == 0


def test_a_mortal_era_binds_to_its_first_block(runtime: SpecRuntime) -> None:
    for number in range(2, 12):
        runtime.open_block(number, bytes((number - 1,)) * 32)
    good = transfer(runtime, "//Alice", BOB, TAO, era=era_bytes(64, 10), birth=b"\x0a" * 32)
    wrong = transfer(runtime, "//Alice", BOB, TAO, era=era_bytes(64, 10), birth=b"\x09" * 32)
    assert validate(runtime, wrong.sign()).hex() == "010004"
    assert apply(runtime, good) == OK


def test_a_mortal_transaction_lives_to_the_end_of_its_era(runtime: SpecRuntime) -> None:
    """Longevity counts from the next block, not from the era's first."""
    for number in range(2, 42):
        runtime.open_block(number, bytes((number - 1,)) * 32)
    late = transfer(runtime, "//Alice", BOB, TAO, era=era_bytes(64, 10), birth=b"\x0a" * 32)
    assert int.from_bytes(validate(runtime, late.sign())[-9:-1], "little") == 10 + 64 - 42


def test_a_gap_in_nonces_waits_in_the_pool_and_is_refused_in_a_block(runtime: SpecRuntime) -> None:
    ahead = transfer(runtime, "//Alice", BOB, TAO, nonce=3)
    assert validate(runtime, ahead.sign())[0] == 0
    assert apply(runtime, ahead).hex() == "010002"  # Future


@pytest.mark.parametrize("cut", [1, 40, 100, 143])
def test_a_cut_extrinsic_is_refused(runtime: SpecRuntime, cut: int) -> None:
    raw = transfer(runtime, "//Alice", BOB, TAO).sign()[:cut]
    with pytest.raises(RuntimeTrap):
        validate(runtime, raw)
    assert runtime.call("BlockBuilder_apply_extrinsic", raw, runtime.state)[0] == 1


def test_an_outsider_cannot_send_an_inherent(runtime: SpecRuntime) -> None:
    call = b"\5" + runtime.encode_call("Timestamp", "set", {"now": 1})
    assert validate(runtime, compact(len(call)) + call)[0] == 1
    signed = draft(runtime, "//Alice", "Timestamp", "set", {"now": 1})
    assert validate(runtime, signed.sign()).hex() == "010009"  # MandatoryValidation
    assert apply(runtime, signed)[0] == 1
    remark = b"\5" + runtime.encode_call("System", "remark", {"remark": b""})
    assert runtime.call("BlockBuilder_apply_extrinsic", compact(len(remark)) + remark, runtime.state)[0] == 1


def test_what_is_not_implemented_says_so_by_name(runtime: SpecRuntime) -> None:
    call = draft(runtime, "//Alice", "EVM", "withdraw", {"address": bytes(20), "value": 1})
    with pytest.raises(RuntimeTrap, match=r"EVM.withdraw is not implemented"):
        validate(runtime, call.sign())
    hidden = ("EVM", ("withdraw", {"address": bytes(20), "value": 1}))
    with pytest.raises(RuntimeTrap, match=r"EVM.withdraw is not implemented"):
        validate(runtime, draft(runtime, "//Alice", "Utility", "batch", {"calls": [hidden]}).sign())
    with pytest.raises(RuntimeApiMissing, match="ContractsApi_call"):
        runtime.call("ContractsApi_call", b"", runtime.state)
    with pytest.raises(RuntimeApiMissing, match="Nonsense_api"):
        runtime.call("Nonsense_api", b"", runtime.state)


def test_the_clock_must_move_by_the_minimum_period(runtime: SpecRuntime) -> None:
    def set_clock(now: int) -> bytes:
        data = compact(1) + b"timstap0" + opaque(now.to_bytes(8, "little"))
        inherents = runtime.call("BlockBuilder_inherent_extrinsics", data, runtime.state)
        return runtime.call("BlockBuilder_apply_extrinsic", inherents[1:], runtime.state)

    assert set_clock(1_000_000) == OK
    assert set_clock(1_000_001)[:2] == b"\0\1"
    assert runtime.timestamp.Now.get() == 1_000_000
    assert set_clock(1_000_250) == OK


def test_an_old_block_hash_is_forgotten_and_the_genesis_hash_kept(runtime: SpecRuntime) -> None:
    runtime.system.BlockHash[0] = b"\1" * 32
    for number in range(2, 2410):
        runtime.system.open_block(number, bytes(32), {"logs": []})
    assert 0 in runtime.system.BlockHash
    assert 5 not in runtime.system.BlockHash
    assert 2400 in runtime.system.BlockHash


def test_nobody_signs_for_the_account_of_zeros(runtime: SpecRuntime) -> None:
    """Its key is the neutral element of the curve: R = B, s = 1 is a good signature over anything."""
    base_point = bytes.fromhex("e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76")
    signature = base_point + b"\1" + bytes(30) + b"\x80"
    call = runtime.encode_call("SubtensorModule", "start_call", {"netuid": 1})
    runtime.balances.mint(bytes(32), TAO)
    body = b"\x84\0" + bytes(32) + b"\1" + signature + b"\0\0\0\0" + call
    raw = compact(len(body)) + body
    assert validate(runtime, raw).hex() == "01000a"  # BadSigner
    assert runtime.call("BlockBuilder_apply_extrinsic", raw, runtime.state).hex() == "01000a"
    assert not runtime.subtensor.SubtokenEnabled[1]


def test_a_signature_of_the_wrong_kind_does_not_spoil_the_right_one(runtime: SpecRuntime) -> None:
    good = transfer(runtime, "//Alice", BOB, TAO).sign()
    kind = read_compact(good, 0)[1] + 34
    wrong = good[:kind] + b"\0" + good[kind + 1 :]
    assert validate(runtime, wrong).hex() == "010004"  # BadProof
    assert validate(runtime, good)[0] == 0


def test_who_cannot_pay_is_told_so_before_anything_about_the_call(runtime: SpecRuntime) -> None:
    runtime.subtensor.NetworkRateLimit.put(1_000)
    runtime.subtensor.LastRateLimitedBlock["NetworkLastRegistered"] = 1
    runtime.balances.mint(NEWCOMER, 1_000)
    create = draft(runtime, "//Newcomer", "SubtensorModule", "register_network", {"hotkey": BOB})
    assert validate(runtime, create.sign()).hex() == "010001"  # Payment
    runtime.balances.mint(NEWCOMER, TAO)
    assert validate(runtime, create.sign()).hex() == "01000706"  # Custom(6): too soon


def test_a_transfer_to_oneself_is_no_event_and_death_comes_before_birth(runtime: SpecRuntime) -> None:
    runtime.balances.mint(NEWCOMER, TAO)
    runtime.events.clear()
    runtime.balances.transfer(NEWCOMER, NEWCOMER, TAO, keep_alive=False)
    assert events(runtime) == [] and runtime.balances.free(NEWCOMER) == TAO
    runtime.balances.transfer(NEWCOMER, account("//Other"), TAO, keep_alive=False)
    assert events(runtime) == ["System.KilledAccount", "System.NewAccount", "Balances.Endowed", "Balances.Transfer"]


def test_a_batch_all_inside_a_batch_all_is_filtered(runtime: SpecRuntime) -> None:
    inner = ("Utility", ("batch_all", {"calls": []}))
    answer = apply(runtime, draft(runtime, "//Alice", "Utility", "batch_all", {"calls": [inner]}))
    assert answer[2:] == b"\3\0" + bytes((runtime.document.errors["System"]["CallFiltered"], 0, 0, 0))


def test_sudo_gets_its_fee_back_but_not_the_tip(runtime: SpecRuntime) -> None:
    before, issued = runtime.balances.free(ALICE), runtime.balances.TotalIssuance.get()
    remark = ("System", ("remark", {"remark": b""}))
    runtime.events.clear()
    assert apply(runtime, draft(runtime, "//Alice", "Sudo", "sudo", {"call": remark}, tip=7)) == OK
    assert before - runtime.balances.free(ALICE) == issued - runtime.balances.TotalIssuance.get() == 7
    assert events(runtime) == [
        "Balances.Withdraw", "Sudo.Sudid", "Balances.Deposit", "TransactionPayment.TransactionFeePaid",
        "System.ExtrinsicSuccess",
    ]  # fmt: skip
    last = runtime.document.registry.decode(runtime._event_type, runtime.events[-1])["event"][1][1]
    assert last["dispatch_info"]["pays_fee"] == "No"


def test_operational_calls_come_first_and_carry_their_class_through_sudo(runtime: SpecRuntime) -> None:
    """Priorities 1 and 10^10; a batch is Normal whatever it holds."""
    inner = ("System", ("set_storage", {"items": [(b"k", b"v")]}))
    raised = validate(runtime, draft(runtime, "//Alice", "Sudo", "sudo", {"call": inner}).sign())
    batched = validate(runtime, draft(runtime, "//Alice", "Utility", "batch", {"calls": [inner]}).sign())
    assert [int.from_bytes(answer[1:9], "little") for answer in (raised, batched)] == [10**10, 1]
    assert runtime.call_info("AdminUtils", "sudo_set_burn_half_life", {}).dispatch_class == "Operational"
    assert apply(runtime, draft(runtime, "//Alice", "Sudo", "sudo", {"call": inner})) == OK
    record = runtime.document.registry.decode(runtime._event_type, runtime.events[-1])["event"]
    assert record[1][1]["dispatch_info"]["class"] == "Operational"


def test_an_account_without_provider_cannot_pay_whatever_its_nonce(runtime: SpecRuntime) -> None:
    """CheckNonce asks for the provider first."""
    runtime.system.Account[NEWCOMER] = {**runtime.system.Account[NEWCOMER], "nonce": 3}
    assert validate(runtime, transfer(runtime, "//Newcomer", BOB, 1, nonce=0).sign()) == b"\1\0\1"
