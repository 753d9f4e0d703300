"""Developer powers over the wire and in process: typed storage, dry run, impersonation, trace, snapshots, export."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from localnet import state_file
from localnet.client import public_key
from localnet.errors import ChainError, ConfigError, PoolRejected, StateFileError, StateFileMismatch, StateFileVersion
from localnet.net import TAO, Localnet
from localnet.node import replay
from localnet.node.marks import FAKE_SIGNATURE, marked
from localnet.sync import SyncLocalnet

MANUAL = pytest.mark.localnet(mining="manual")


def ask(net: SyncLocalnet, method: str, *params: Any, query: str = "", **headers: str) -> Any:
    """The whole answer to a request over HTTP."""
    body = json.dumps({"id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(net.url.replace("ws://", "http://") + query, body, headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def result(net: SyncLocalnet, method: str, *params: Any) -> Any:
    answer = ask(net, method, *params)
    assert "result" in answer, answer
    return answer["result"]


def refused(net: SyncLocalnet, method: str, *params: Any) -> str:
    answer = ask(net, method, *params)
    assert "error" in answer, answer
    return f"{answer['error']['code']} {answer['error'].get('data') or answer['error']['message']}"


# -- storage --------------------------------------------------------------------------------------------------------


@MANUAL
def test_storage_is_written_by_name(shared_localnet: SyncLocalnet) -> None:
    net = shared_localnet
    before, issued = net.block, net.query("Balances", "TotalIssuance")
    bob = "0x" + public_key("//Bob").hex()
    digest = result(net, "dev_setStorage", {
        "System": {"Account": [[["//Zoe"], {"data": {"free": 77}}], [bob, None]]},
        "SubtensorModule": {"Tempo": [[1, 99]], "Uids": [[[1, "//Zoe"], 5]]},
        "Balances": {"TotalIssuance": str(issued + 1)},
    })  # fmt: skip
    assert (net.block, net.block_hash) == (before + 1, digest)
    account = net.query("System", "Account", "//Zoe")
    assert account["data"]["free"] == 77 and account["nonce"] == 0  # left out: as it was
    assert net.query_map("System", "Account").get(public_key("//Bob")) is None
    assert (net.query("SubtensorModule", "Tempo", 1), net.query("SubtensorModule", "Uids", 1, "//Zoe")) == (99, 5)
    assert net.query("Balances", "TotalIssuance") == issued + 1
    assert marked(net.net.chain.head.header) == {"storage": 5}
    result(net, "dev_setStorage", {"System": {"Account": [["//Zoe", {"nonce": 3}]]}})
    account = net.query("System", "Account", "//Zoe")
    assert (account["nonce"], account["data"]["free"]) == (3, 77)


@MANUAL
@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"System": {"Acount": []}}, "no storage item System.Acount"),
        ({"System": {"Account": {"free": 1}}}, "expected [[keys, value], ..]"),
        ({"System": {"Account": [[["//Zoe", 1], None]]}}, "has 1 keys, 2 were given"),
        ({"System": {"Account": [["nobody", None]]}}, "is not an account"),
        ({"System": {"Account": [["//Zoe", {"free": 1}]]}}, "expected an object with nonce"),
        ({"Balances": {"TotalIssuance": "many"}}, "expected a u64"),
        ({"Balances": {"TotalIssuance": -1}}, "does not fit"),
        ([["0x12"]], "expected a list"),
        (7, "expected an object of pallets"),
    ],
)
def test_storage_that_cannot_be_read_is_refused_with_a_reason(
    shared_localnet: SyncLocalnet, values: Any, text: str
) -> None:
    before = shared_localnet.block
    answer = refused(shared_localnet, "dev_setStorage", values)
    assert answer.startswith("-32602") and text in answer and shared_localnet.block == before


@MANUAL
def test_every_value_of_the_state_survives_json(shared_localnet: SyncLocalnet) -> None:
    shared_localnet.subnet(miners=1, validators=1).set_weights(0, {2: 1})
    client = shared_localnet.net.client
    seen = set()
    for key, value in list(shared_localnet.net.chain.state.head.items()):
        shown = client.names.show(key, None, value)
        if "pallet" not in shown:
            continue
        entry = client.entry(shown["pallet"], shown["item"])
        back = json.loads(json.dumps(shown))
        assert client.raw_key(entry, back["keys"]) == key
        raw = client.registry.encode(entry.value, client.plain.read(entry.value, back["after"]))
        assert raw == value, (shown["pallet"], shown["item"])
        seen.add((shown["pallet"], shown["item"]))
    assert len(seen) > 60


# -- money and impersonation ----------------------------------------------------------------------------------------


@MANUAL
def test_funding_adds_and_issues(shared_localnet: SyncLocalnet) -> None:
    net = shared_localnet
    issued = net.query("Balances", "TotalIssuance")
    assert result(net, "dev_fund", "//Zoe", 5 * TAO) == str(5 * TAO)
    net.fund("//Zoe", 2 * TAO)
    assert net.balance("//Zoe") == 7 * TAO == net.query("Balances", "TotalIssuance") - issued
    assert "-32602 account" in refused(net, "dev_fund", "Zoe", 1)
    assert "500 rao or more" in refused(net, "dev_fund", "//Yan", 499) and "-32602" in refused(
        net, "dev_fund", "//Yan", -1
    )


@MANUAL
def test_an_account_is_impersonated_with_fee_and_nonce_and_the_block_says_so(shared_localnet: SyncLocalnet) -> None:
    net = shared_localnet
    before, trial = (
        net.balance("//Bob"),
        net.dry_run("//Bob", "Balances", "transfer_keep_alive", dest="//Zoe", value=TAO),
    )
    call = {"pallet": "Balances", "call": "transfer_keep_alive", "arguments": {"dest": "//Zoe", "value": TAO}}
    outcome = result(net, "dev_impersonate", "//Bob", call)
    assert (
        outcome["success"] and outcome["events"][-1]["name"] == "ExtrinsicSuccess" and outcome["hash"] == net.block_hash
    )
    assert net.balance("//Bob") == before - TAO - trial.fee and trial.fee > 0
    assert net.query("System", "Account", "//Bob")["nonce"] == 1
    block = net.net.chain.head
    raw = (block.extrinsics or [])[outcome["index"]]
    assert FAKE_SIGNATURE in raw and public_key("//Bob") in raw
    name = net.net.client.show_call(raw)["signer"]
    assert marked(block.header) == {"impersonated": [[outcome["index"], name]]}
    told = [bytes.fromhex(item[2:]) for item in ask(net, "chain_getHeader")["result"]["digest"]["logs"]]
    assert any(b'localnet:{"impersonated"' in item for item in told)
    net.mine()
    assert marked(net.net.chain.head.header) == {}


@MANUAL
def test_nobody_else_gets_in_with_the_fake_signature(shared_localnet: SyncLocalnet) -> None:
    net, client = shared_localnet, shared_localnet.net.client
    call = client.encode_call("System", "remark", {"remark": b"x"})
    raw = net.net.developer._unsigned(public_key("//Bob"), call).raw
    assert "Transaction has a bad signature" in refused(net, "author_submitExtrinsic", "0x" + raw.hex())


@MANUAL
def test_root_and_nobody_are_origins_too(shared_localnet: SyncLocalnet) -> None:
    net = shared_localnet
    net.impersonate("root", "AdminUtils", "sudo_set_kappa", netuid=1, kappa=40_000)
    assert net.query("SubtensorModule", "Kappa", 1) == 40_000
    assert marked(net.net.chain.head.header)["impersonated"][0][1] == "root"
    failed = net.impersonate("none", "AdminUtils", "sudo_set_kappa", check=False, netuid=1, kappa=1)
    assert (failed.success, failed.error, failed.block) == (False, "BadOrigin", net.block)
    assert net.query("SubtensorModule", "Kappa", 1) == 40_000
    with pytest.raises(ConfigError, match="no origin"):
        net.impersonate("Alice", "System", "remark", remark=b"")
    assert "-32602" in refused(net, "dev_impersonate", "root", {"pallet": "System", "call": "nothing"})
    assert "-32602" in refused(net, "dev_impersonate", 5, "0x00")


@MANUAL
def test_a_refused_impersonation_leaves_no_block_and_keeps_the_pool(shared_localnet: SyncLocalnet) -> None:
    net = shared_localnet
    transfer = {"dest": "//Bob", "value": 1}
    raw = net.net.client.sign("//Alice", net.net.client.encode_call("Balances", "transfer_keep_alive", transfer), 0)
    result(net, "author_submitExtrinsic", "0x" + raw.hex())
    before = net.block_hash
    with pytest.raises(PoolRejected, match="Inability to pay some fees"):
        net.impersonate("//Pauper", "Balances", "transfer_keep_alive", **transfer)
    assert net.block_hash == before and len(net.net.chain.pool) == 1
    net.impersonate("root", "System", "remark", remark=b"")
    assert len(net.net.chain.pool) == 0 and raw in (net.net.chain.head.extrinsics or [])


# -- dry run and trace ----------------------------------------------------------------------------------------------


@MANUAL
def test_a_dry_run_tells_what_then_happens_and_changes_nothing(shared_localnet: SyncLocalnet) -> None:
    net, client = shared_localnet, shared_localnet.net.client
    transfer = {"dest": "//Zoe", "value": TAO}
    raw = client.sign("//Alice", client.encode_call("Balances", "transfer_keep_alive", transfer), 0, 5)
    state, head = dict(net.net.chain.state.head), net.block_hash
    told = result(net, "dev_dryRun", "0x" + raw.hex())
    by_call = net.dry_run("//Alice", "Balances", "transfer_keep_alive", **transfer)
    assert (net.net.chain.state.head, net.block_hash, net.net.chain.state.depth) == (state, head, 0)
    outcome = net.extrinsic("//Alice", "Balances", "transfer_keep_alive", tip=5, **transfer)
    assert told["events"] == json.loads(json.dumps(client.show_events(outcome.events)))
    paid = next(e["fields"] for e in outcome.events if e["name"] == "TransactionFeePaid")
    assert (told["fee"], told["tip"], by_call.fee) == (paid["actual_fee"], 5, paid["actual_fee"] - 5)
    after = {(s["item"], str(s["keys"])): s["after"] for s in told["storage"] if s["pallet"] == "System"}
    zoe = client.plain.show(client.entry("System", "Account").value, net.query("System", "Account", "//Zoe"))
    assert zoe in after.values() and zoe["data"]["free"] == TAO


@MANUAL
def test_a_dry_run_names_failures_and_refusals(shared_localnet: SyncLocalnet) -> None:
    net = shared_localnet
    failed = net.dry_run("//Alice", "Balances", "transfer_keep_alive", dest="//Bob", value=2 * 10**15)
    assert (failed.valid, failed.success, failed.error) == (True, False, "Token.FundsUnavailable")
    poor = net.dry_run("//Pauper", "Balances", "transfer_keep_alive", dest="//Bob", value=1)
    assert (poor.valid, poor.storage) == (False, []) and "Inability to pay" in str(poor.error)
    root = net.dry_run("root", "AdminUtils", "sudo_set_kappa", netuid=1, kappa=1)
    assert (root.success, root.fee) == (True, 0) and net.query("SubtensorModule", "Kappa", 1) != 1
    net.fund("//Pauper", TAO)
    old = net.block
    net.extrinsic("//Alice", "System", "remark", remark=b"")
    assert net.dry_run("//Alice", "System", "remark", remark=b"", block=old).success  # its nonce has grown since
    call = {"pallet": "Balances", "call": "transfer_all", "arguments": {"dest": "//Bob", "keep_alive": False}}
    assert result(net, "dev_dryRun", {"origin": "//Pauper", "call": call})["success"]
    assert not result(net, "dev_dryRun", {"origin": "//Pauper", "call": call}, old - 1)["valid"]
    for nonsense in (5, {"call": "0x"}, "0xzz"):
        assert "-32602" in refused(net, "dev_dryRun", nonsense)


@MANUAL
def test_a_trace_accounts_for_every_change_of_a_block(shared_localnet: SyncLocalnet) -> None:
    net, client = shared_localnet, shared_localnet.net.client
    for nonce, value in enumerate((TAO, 2 * 10**15)):
        call = client.encode_call("Balances", "transfer_keep_alive", {"dest": "//Zoe", "value": value})
        result(net, "author_submitExtrinsic", "0x" + client.sign("//Alice", call, nonce).hex())
    net.impersonate("root", "AdminUtils", "sudo_set_kappa", netuid=1, kappa=41_000)
    told = result(net, "dev_trace")
    assert [step["step"] for step in told["steps"]] == ["initialization", *["extrinsic"] * 5, "finalization"]
    calls = [(s["extrinsic"]["call"], s["error"]) for s in told["steps"] if s["step"] == "extrinsic"]
    assert calls[2:] == [
        ("sudo_set_kappa", None), ("transfer_keep_alive", None), ("transfer_keep_alive", "Token.FundsUnavailable"),
    ]  # fmt: skip
    kappa = {"pallet": "SubtensorModule", "item": "Kappa", "keys": [1], "before": 32767, "after": 41000}
    assert kappa in told["steps"][3]["storage"]
    chain = net.net.chain
    final = {key: after for step in replay.trace(chain, net.block) for key, (_, after) in step.changes.items()}
    changed = chain.state.changed_in(net.block)
    assert {key: final[key] for key in changed} == {key: chain.storage(key) for key in changed}
    net.set_storage("SubtensorModule", "Tempo", 1, value=7)
    written = net.trace()["steps"][-1]
    assert (written["step"], [s["after"] for s in written["storage"]]) == ("storage", [7])
    key = client.raw_key(client.entry("SubtensorModule", "Tempo"), [1])
    result(net, "dev_setStorage", [["0x" + key.hex(), "0x01"]])  # no u16
    odd = {"pallet": "SubtensorModule", "item": "Tempo", "key": "0x" + key.hex(), "before": "0x0700", "after": "0x01"}
    assert result(net, "dev_trace")["steps"][-1]["storage"] == [odd]


@MANUAL
def test_a_block_that_comes_out_differently_is_not_explained_away(
    shared_localnet: SyncLocalnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = shared_localnet
    net.extrinsic("//Alice", "Balances", "transfer_keep_alive", dest="//Bob", value=1)
    fee = net.net.runtime.payment.fee  # type: ignore[attr-defined]
    monkeypatch.setattr(net.net.runtime.payment, "fee", lambda *about: fee(*about) + 1)  # type: ignore[attr-defined]
    with pytest.raises(ChainError, match="comes out differently"):
        net.trace()
    assert "was not built" in refused(net, "dev_trace", 0)


# -- snapshots ------------------------------------------------------------------------------------------------------


@MANUAL
def test_snapshots_nest_and_undo_time_travel(shared_localnet: SyncLocalnet) -> None:
    net = shared_localnet
    with net.snapshot() as outer:
        net.fund("//Zoe", TAO)
        with net.snapshot(), pytest.raises(ZeroDivisionError), net.snapshot():
            net.travel(4_000_000_000_000)
            net.fund("//Zoe", TAO)
            raise ZeroDivisionError
        assert net.balance("//Zoe") == TAO and net.block == outer + 1
        net.mine()
        assert net.timestamp < 3_000_000_000_000
    assert (net.balance("//Zoe"), net.block) == (0, outer)


@MANUAL
def test_a_snapshot_whose_block_is_gone_is_refused(shared_localnet: SyncLocalnet) -> None:
    net = shared_localnet
    start, first = net.block, result(net, "dev_snapshot")
    net.fund("//Zoe", TAO)
    second, in_python = result(net, "dev_snapshot"), net.snapshot()
    result(net, "dev_revert", first)
    net.mine()
    third = result(net, "dev_snapshot")  # of another block with the number of the second's
    net.mine(2)
    assert "its block was reverted" in refused(net, "dev_revert", second)
    with pytest.raises(ChainError, match=f"snapshot of block {start + 1} is gone.* set_head"):
        net.revert(in_python)
    assert result(net, "dev_revert", third) == net.block_hash and net.block == start + 1 == in_python
    net.mine()
    net.set_head(start + 1)
    assert net.block == start + 1 and "no snapshot 99" in refused(net, "dev_revert", 99)
    result(net, "dev_setHead", result(net, "chain_getBlockHash", start))
    assert net.block == start


@MANUAL
def test_an_error_inside_a_snapshot_is_not_replaced_by_that_of_going_back(shared_localnet: SyncLocalnet) -> None:
    net = shared_localnet
    with net.snapshot() as outer:
        net.mine()
        with pytest.raises(ZeroDivisionError), net.snapshot():
            net.revert(outer)
            raise ZeroDivisionError
        net.mine()
        with pytest.raises(ChainError, match="is gone"), net.snapshot():
            net.revert(outer)


@MANUAL
def test_what_was_submitted_after_a_snapshot_goes_with_it(shared_localnet: SyncLocalnet) -> None:
    net, client = shared_localnet, shared_localnet.net.client
    raws = [client.sign("//Alice", client.encode_call("System", "remark", {"remark": b""}), nonce) for nonce in (0, 1)]
    result(net, "author_submitExtrinsic", "0x" + raws[0].hex())
    with net.snapshot():
        result(net, "author_submitExtrinsic", "0x" + raws[1].hex())
    waiting = net.net.chain.pool.entries
    assert [entry.xt.raw for entry in waiting.values()] == raws[:1]
    one = net.snapshot()
    result(net, "author_submitExtrinsic", "0x" + raws[1].hex())
    both = net.snapshot()
    net.mine()
    for snapshot, count in ((both, 2), (one, 1), (both, 2)):  # what a block took since waits again
        net.revert(snapshot)
        assert [entry.xt.raw for entry in waiting.values()] == raws[:count] and net.block == one


# -- export and import ----------------------------------------------------------------------------------------------


def _signed_again(document: Mapping[str, Any], **change: Any) -> dict[str, Any]:
    """A document with other facts and a digest that fits them."""
    facts = {**document, **change}
    storage = {bytes.fromhex(key[2:]): bytes.fromhex(value[2:]) for key, value in facts["storage"].items()}
    return {**facts, "digest": state_file._digest(facts["code"], facts["block"], facts["timestamp"], storage)}


def _state(net: Localnet) -> Mapping[bytes, bytes]:
    return {key: value for key, value in net.chain.state.head.items() if not state_file.is_own(key)}


async def test_an_exported_state_goes_on_elsewhere_as_it_would_have_here(tmp_path: Path) -> None:
    options: dict[str, Any] = {"mining": "manual", "clock": "step", "genesis_time": 1_700_000_000_000}
    async with Localnet(**options) as here, Localnet(**options) as there:
        subnet = await here.subnet(miners=2, validators=2)
        await subnet.set_weights(0, {3: 1, 4: 2})
        document = here.export_state(tmp_path / "deep" / "state.json")
        await there.fund("//Zoe", TAO)  # is overwritten
        assert await there.import_state(tmp_path / "deep" / "state.json") == here.block == there.block
        assert _state(there) == _state(here) and there.balance("//Zoe") == 0
        assert (there.timestamp, there.export_state()["digest"]) == (here.timestamp, document["digest"])
        for net in (here, there):
            await net.mine_epoch(subnet.netuid)
            await net.extrinsic(subnet.validators[1].hotkey, "System", "remark", check=False, remark=b"")
            await net.mine_epoch(subnet.netuid)
        assert _state(there) == _state(here) and there.block == here.block
        assert here.query("SubtensorModule", "Incentive", subnet.netuid)[4] > 0
        with pytest.raises(StateFileMismatch, match="fresh chain"):
            await there.import_state(document)


@MANUAL
def test_an_export_that_does_not_fit_is_refused(
    shared_localnet: SyncLocalnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = shared_localnet
    monkeypatch.setattr(state_file, "MAX_BLOCKS", 5)
    net.mine()
    document = result(net, "dev_exportState")
    result(net, "dev_setHead", net.block - 1)
    key = next(iter(document["storage"]))
    for change, error in (
        ({"version": 2}, StateFileVersion), ({"version": None}, StateFileVersion), ({"format": "x"}, StateFileError),
        ({"storage": {**document["storage"], key: "0x"}}, StateFileError), ({"storage": 5}, StateFileError),
        ({"block": document["block"] + 7}, StateFileError), ({"timestamp": 5}, StateFileError),
        ({"code": "0x00"}, StateFileError),
        (_signed_again(document, code="0x00"), StateFileMismatch),
        (_signed_again(document, timestamp=10**18), StateFileError),
        (_signed_again(document, block=document["block"] + 5), StateFileMismatch),
    ):  # fmt: skip
        with pytest.raises(error) as caught:
            net.import_state({**document, **change})
        assert type(caught.value) is error and net.block == document["block"] - 1
    assert "reads version 1" in refused(net, "dev_importState", {**document, "version": 2})
    (tmp_path / "no.json").write_text("{")
    with pytest.raises(StateFileError, match=r"no\.json"):
        net.import_state(tmp_path / "no.json")
    assert result(net, "dev_importState", document) == net.block_hash


# -- who may --------------------------------------------------------------------------------------------------------

TOKEN = "correct horse battery"


@pytest.mark.localnet(mining="manual", dev_token=TOKEN)
def test_the_dev_token_opens_developer_methods_to_others(shared_localnet: SyncLocalnet) -> None:
    net, far = shared_localnet, {"X-Forwarded-For": "203.0.113.9"}
    for headers, query, allowed in (
        ({}, "", True), (far, "", False), ({**far, "Authorization": f"Bearer {TOKEN}"}, "", True),
        ({**far, "Authorization": f"Bearer {TOKEN}x"}, "", False), ({**far, "Authorization": TOKEN}, "", False),
        (far, f"/?dev_token={TOKEN.replace(' ', '%20')}", True), (far, "/?dev_token=", False),
        ({"Origin": "https://example.com"}, "", False),
    ):  # fmt: skip
        for method, params in (("dev_snapshot", []), ("dev_exportState", []), ("dev_fund", ["//Zoe", TAO])):
            answer = ask(net, method, *params, query=query, **headers)
            assert ("result" in answer) is allowed, (headers, query, answer)
            assert allowed or answer["error"]["code"] == -32601


async def test_what_a_developer_did_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "chain.db"
    async with Localnet(mining="manual", state=path) as net:
        await net.impersonate("root", "AdminUtils", "sudo_set_kappa", netuid=1, kappa=41_000)
        await net.set_storage("SubtensorModule", "Tempo", 1, value=7)
        told = [net.trace(number) for number in (1, 2)]
    async with Localnet(mining="manual", state=path) as net:
        assert [net.trace(number) for number in (1, 2)] == told and told[0]["marks"]["impersonated"][0][1] == "root"
        assert net.query("SubtensorModule", "Kappa", 1) == 41_000 and await net.mine() == 3


@MANUAL
def test_the_runtimes_developer_functions_are_not_for_strangers(shared_localnet: SyncLocalnet) -> None:
    far = {"X-Forwarded-For": "203.0.113.9"}
    for name in ("DevApi_apply_extrinsic", "DevApi_explain"):
        assert "is not found" in str(ask(shared_localnet, "state_call", name, "0x01", **far)["error"])
        assert "aborted due to trap" in str(ask(shared_localnet, "state_call", name, "0x07")["error"])


async def test_a_token_that_could_be_guessed_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 16 characters"):
        await Localnet(mining="manual", dev_token="secret").start()
