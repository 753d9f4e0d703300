"""Following the chain: heads, storage and extrinsics as they change; eras; what the pool refuses and how it says so."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import bittensor as bt
import pytest
from substrateinterface import Keypair
from substrateinterface.exceptions import SubstrateRequestException

from tests.conformance.clients.base import ALICE, TAO, Actor
from tests.conformance.clients.substrate import Substrate, as_root

WAIT = 30.0  # seconds for the chain to do what it does by itself


@pytest.fixture
def chain(observer: Substrate) -> Any:
    """substrate-interface itself."""
    return observer.chain


def someone() -> Actor:
    return Actor.named(f"following-{secrets.token_hex(4)}")


# -- heads ------------------------------------------------------------------------------------------------------------


async def test_the_sdk_sees_every_new_head_once_and_in_order(sdk: bt.Client) -> None:
    numbers = []
    async for header in sdk.blocks():
        numbers.append(header.number)
        if len(numbers) == 4:
            break
    assert numbers == list(range(numbers[0], numbers[0] + 4))


async def test_finalized_heads_follow_too(sdk: bt.Client) -> None:
    async for header in sdk.blocks(finalized=True):
        assert header.number <= await sdk.block()
        break
    assert await sdk.finalized_block() <= await sdk.block()


async def test_waiting_for_a_block_a_time_and_an_epoch(sdk: bt.Client, sudo: None, observer: Substrate) -> None:
    target = await sdk.block() + 2
    assert (await sdk.wait_for_block(target, timeout=WAIT)).number >= target
    now = (await sdk.timestamp()).timestamp()
    reached = await sdk.wait_for_timestamp(now + 0.5, timeout=WAIT)
    assert (await sdk.timestamp(block=reached.number)).timestamp() >= now + 0.5
    await as_root(observer, "sudo_set_admin_freeze_window", window=0)
    await as_root(observer, "sudo_set_tempo", netuid=1, tempo=6)
    try:
        event = await sdk.wait_for_epoch(1, timeout=WAIT)
        assert event.block > event.previous
    finally:
        await as_root(observer, "sudo_set_tempo", netuid=1, tempo=100)


async def test_a_block_can_be_taken_apart(sdk: bt.Client) -> None:
    head = await sdk.block()
    info = await sdk.block_info(head)
    parent = await sdk.block_info(head - 1)
    assert info.header["parentHash"] == parent.hash
    assert info.timestamp > parent.timestamp
    assert info.extrinsics[0]["call"]["call_module"] == "Timestamp"


def test_substrate_interface_follows_heads_and_storage(chain: Any) -> None:
    numbers: list[int] = []

    def head(block: Any, update: int, subscription: Any) -> str | None:
        numbers.append(block["header"]["number"])
        return "enough" if update == 2 else None

    assert chain.subscribe_block_headers(head) == "enough"
    assert numbers == list(range(numbers[0], numbers[0] + 3))

    times: list[int] = []

    def now(value: Any, update: int, subscription: Any) -> str | None:
        times.append(value.value)
        return "enough" if update == 2 else None

    assert chain.query("Timestamp", "Now", subscription_handler=now) == "enough"
    assert times == sorted(set(times)) and len(times) == 3


# -- extrinsics -------------------------------------------------------------------------------------------------------


def test_a_watched_extrinsic_is_ready_then_in_a_block_then_final(chain: Any, money: None) -> None:
    states: list[str] = []

    def status(message: dict[str, Any], update: int, subscription: str) -> dict[str, Any] | None:
        state = message["params"]["result"]
        states.append(state if isinstance(state, str) else next(iter(state)))
        return state if states[-1] == "finalized" else None

    call = chain.compose_call("Balances", "transfer_keep_alive", {"dest": someone().cold, "value": TAO})
    extrinsic = chain.create_signed_extrinsic(call, Keypair.create_from_uri("//Alice"), era={"period": 32})
    final = chain.rpc_request("author_submitAndWatchExtrinsic", [str(extrinsic.data)], result_handler=status)
    assert states == ["ready", "inBlock", "finalized"]
    block = chain.get_block(final["finalized"])
    assert extrinsic.extrinsic_hash.hex() in {getattr(e, "extrinsic_hash", b"") and e.extrinsic_hash.hex() for e in
                                              block["extrinsics"]}  # fmt: skip


def test_a_receipt_has_fee_weight_and_events(chain: Any, money: None) -> None:
    call = chain.compose_call("Balances", "transfer_keep_alive", {"dest": someone().cold, "value": TAO})
    keypair = Keypair.create_from_uri("//Alice")
    quote = chain.get_payment_info(call, keypair)
    extrinsic = chain.create_signed_extrinsic(call, keypair, era={"period": 32})
    receipt = chain.submit_extrinsic(extrinsic, wait_for_inclusion=True)
    assert receipt.is_success
    events = [event.value["event_id"] for event in receipt.triggered_events]
    assert [name for name in events if name in ("Withdraw", "Transfer", "Deposit", "TransactionFeePaid")] == [
        "Withdraw", "Transfer", "Deposit", "TransactionFeePaid",
    ]  # fmt: skip
    assert events[-1] == "ExtrinsicSuccess"
    paid = next(e for e in receipt.triggered_events if e.value["event_id"] == "TransactionFeePaid").value["attributes"]
    quoted = quote["partialFee" if "partialFee" in quote else "partial_fee"]
    assert paid["actual_fee"] == quoted + 1  # the quote is for an immortal extrinsic, which is a byte shorter


def test_a_transfer_costs_what_was_recorded(chain: Any, money: None, foreign: bool) -> None:
    """166247 rao were paid for the 144 bytes of an immortal transfer of one TAO."""
    if foreign:
        pytest.skip("fees are compared on a chain of ours only")
    call = chain.compose_call("Balances", "transfer_keep_alive", {"dest": someone().cold, "value": TAO})
    extrinsic = chain.create_signed_extrinsic(call, Keypair.create_from_uri("//Alice"))
    receipt = chain.submit_extrinsic(extrinsic, wait_for_inclusion=True)
    assert receipt.total_fee_amount == 166_247 - 144 + len(extrinsic.data.data)


async def test_extrinsics_sent_together_get_consecutive_nonces(sdk: bt.Client, money: None) -> None:
    targets = [someone().cold for _ in range(5)]
    first = await sdk.query(bt.storage.System.Account, [ALICE.cold])
    results = await asyncio.gather(
        *(sdk.execute(bt.Transfer(dest_ss58=target, amount_tao=1), ALICE) for target in targets)
    )
    assert all(result.success for result in results)
    last = await sdk.query(bt.storage.System.Account, [ALICE.cold])
    assert last["nonce"] == first["nonce"] + 5


async def test_a_batch_is_all_or_nothing(sdk: bt.Client, money: None) -> None:
    good, bad = someone().cold, someone().cold
    calls = [
        await sdk.compose(bt.calls.Balances.transfer_keep_alive(dest=good, value=TAO)),
        await sdk.compose(bt.calls.Balances.transfer_keep_alive(dest=bad, value=10**18)),
    ]
    result = await sdk.submit_call(bt.calls.Utility.batch_all(calls=calls), ALICE)
    assert not result.success
    assert (await sdk.read("balance", coldkey_ss58=good)).rao == 0


async def test_a_plan_names_the_fee_without_sending(sdk: bt.Client, money: None) -> None:
    before = await sdk.query(bt.storage.System.Account, [ALICE.cold])
    plan = await sdk.plan(bt.Transfer(dest_ss58=someone().cold, amount_tao=1), ALICE)
    assert plan.ok and 100_000 < plan.fee.rao < 500_000
    assert (await sdk.query(bt.storage.System.Account, [ALICE.cold]))["nonce"] == before["nonce"]


async def test_an_extrinsic_signed_elsewhere_is_accepted(sdk: bt.Client, money: None) -> None:
    target = someone().cold
    call = bt.calls.Balances.transfer_keep_alive(dest=target, value=TAO)
    unsigned = await sdk.prepare_call(call, address=ALICE.cold)
    result = await sdk.submit_signature(unsigned, ALICE.coldkey.sign(unsigned.payload))
    result.raise_for_failure()
    assert (await sdk.read("balance", coldkey_ss58=target)).rao == TAO


# -- refusals ---------------------------------------------------------------------------------------------------------


def refused(chain: Any, extrinsic: Any) -> dict[str, Any]:
    with pytest.raises(SubstrateRequestException) as caught:
        chain.submit_extrinsic(extrinsic, wait_for_inclusion=True)
    body: dict[str, Any] = caught.value.args[0]
    return body


def signed(chain: Any, actor: Actor, **options: Any) -> Any:
    call = chain.compose_call("System", "remark", {"remark": "0x" + secrets.token_hex(8)})
    return chain.create_signed_extrinsic(call, Keypair.create_from_uri(actor.cold_uri), **options)


def test_an_expired_era_is_a_bad_signature(chain: Any) -> None:
    head = chain.get_block_number(chain.get_chain_head())
    extrinsic = signed(chain, ALICE, era={"period": 4, "current": max(head - 8, 1)})
    body = refused(chain, extrinsic)
    assert body["code"] == 1010
    assert body["data"] in ("Transaction has a bad signature", "Transaction has an ancient birth block")


def test_a_used_nonce_is_outdated(chain: Any, money: None) -> None:
    nonce = chain.get_account_nonce(ALICE.cold)
    assert nonce > 0
    body = refused(chain, signed(chain, ALICE, nonce=nonce - 1))
    assert (body["code"], body["data"]) == (1010, "Transaction is outdated")


def test_an_empty_account_cannot_pay(chain: Any) -> None:
    body = refused(chain, signed(chain, someone()))
    assert body["code"] == 1010
    assert body["data"].startswith("Inability to pay some fees")


def test_a_broken_signature_is_refused(chain: Any) -> None:
    body = refused(chain, signed(chain, ALICE, signature="0x01" + "11" * 64))
    assert (body["code"], body["data"]) == (1010, "Transaction has a bad signature")


def test_the_same_extrinsic_twice_is_already_imported(chain: Any, money: None) -> None:
    extrinsic = signed(chain, ALICE, era={"period": 32}, nonce=chain.get_account_nonce(ALICE.cold) + 1)
    chain.submit_extrinsic(extrinsic)  # a nonce ahead of the account: it waits in the pool
    body = refused(chain, extrinsic)
    assert body["code"] == 1013
    chain.submit_extrinsic(signed(chain, ALICE, era={"period": 32}), wait_for_inclusion=True)  # lets the other one in


def test_unknown_methods_and_runtime_functions_are_named(chain: Any) -> None:
    with pytest.raises(SubstrateRequestException) as caught:
        chain.rpc_request("state_nosuchthing", [])
    assert caught.value.args[0]["code"] == -32601
    with pytest.raises(SubstrateRequestException, match="Nonsense_of_mine"):
        chain.rpc_request("state_call", ["Nonsense_of_mine", "0x"])


def test_the_installed_btcli_runs(endpoint: str, tmp_path: Path) -> None:
    """One command with the program as installed, without the shortcut the other tests take."""
    program = Path(sys.executable).with_name("btcli")
    command = [str(program), "query", "timestamp", "--json", "--network", endpoint]
    done = subprocess.run(
        command, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert '"block"' in done.stdout
