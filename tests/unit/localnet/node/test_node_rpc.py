"""JSON-RPC over real sockets, on the specification runtime: exact answers and errors, and what a client may not do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from localnet.net import Localnet
from localnet.node import outgoing
from localnet.node import server as server_module
from localnet.node.connection import Connection
from localnet.node.rpc_dev import _milliseconds

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
ACCOUNTS = "0x26aa394eea5630e07c48ae0c9558cef7b99d880ec681799c0cf30e8886371da9"  # System.Account


class Client:
    """A WebSocket that keeps answers and notifications in the order they came."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.last = socket, 0

    async def receive(self) -> Any:
        return await asyncio.wait_for(self.socket.receive_json(), 10)

    async def raw(self, text: str) -> Any:
        await self.socket.send_str(text)
        return await self.receive()

    async def request(self, method: str, *params: Any) -> Any:
        self.last += 1
        await self.socket.send_json({"jsonrpc": "2.0", "id": self.last, "method": method, "params": list(params)})
        while True:
            answer = await self.receive()
            if answer.get("id") == self.last:
                return answer

    async def result(self, method: str, *params: Any) -> Any:
        answer = await self.request(method, *params)
        assert "result" in answer, answer
        return answer["result"]

    async def error(self, method: str, *params: Any) -> Any:
        answer = await self.request(method, *params)
        assert "error" in answer, answer
        return answer["error"]["code"]


@pytest_asyncio.fixture
async def net() -> AsyncIterator[Localnet]:
    async with Localnet(mining="manual") as net:
        await net.mine(3)
        yield net


@pytest_asyncio.fixture
async def client(net: Localnet) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session, session.ws_connect(net.url, max_msg_size=0) as socket:
        yield Client(socket)


def _transfer(net: Localnet, nonce: int = 0, value: int = 10**9, signer: str = "//Alice") -> str:
    call = net.client.encode_call("Balances", "transfer_keep_alive", {"dest": "//Bob", "value": value})
    return "0x" + net.client.sign(signer, call, nonce).hex()


async def test_blocks_headers_and_hashes(net: Localnet, client: Client) -> None:
    head = await client.result("chain_getHead")
    assert head == await client.result("chain_getBlockHash") == await client.result("chain_getFinalizedHead")
    assert head == await client.result("chain_getBlockHash", 3) == await client.result("chain_getBlockHash", "0x3")
    assert await client.result("chain_getBlockHash", [0, 3, 9]) == [net.genesis_hash, head, None]
    header = await client.result("chain_getHeader", head)
    assert (header["number"], header["parentHash"]) == ("0x3", await client.result("chain_getBlockHash", 2))
    block = await client.result("chain_getBlock", head)
    assert block["block"]["header"] == header and len(block["block"]["extrinsics"]) == 2
    assert block["justifications"] is None
    assert await client.result("chain_getHeader", "0x" + "00" * 32) is None


async def test_storage_at_the_head_and_at_old_blocks(net: Localnet, client: Client) -> None:
    number = "0x26aa394eea5630e07c48ae0c9558cef702a5c1b19ab7a04f536c519aca4983ac"  # System.Number
    old = await client.result("chain_getBlockHash", 1)
    assert await client.result("state_getStorage", number) == "0x03000000"
    assert await client.result("state_getStorageAt", number, old) == "0x01000000"
    assert await client.result("state_getStorageSize", number) == 4
    assert (await client.result("state_getStorageHash", number)).startswith("0x")
    assert await client.result("state_getStorage", "0x1234") is None
    at = await client.result("state_queryStorageAt", [number, "0x12"], old)
    assert at == [{"block": old, "changes": [[number, "0x01000000"], ["0x12", None]]}]
    span = await client.result("state_queryStorage", [number], old)
    assert [change["changes"][0][1] for change in span] == ["0x01000000", "0x02000000", "0x03000000"]


async def test_keys_come_in_pages(client: Client) -> None:
    first = await client.result("state_getKeysPaged", ACCOUNTS, 4)
    second = await client.result("state_getKeysPaged", ACCOUNTS, 1000, first[-1])
    everything = await client.result("state_getKeysPaged", ACCOUNTS, 1000, ACCOUNTS)
    assert first + second == everything == sorted(everything) and len(everything) > 5
    assert await client.error("state_getKeysPaged", ACCOUNTS, 1001) == 4002
    assert await client.result("state_getKeysPaged", ACCOUNTS, 0) == []


async def test_metadata_and_versions(net: Localnet, client: Client) -> None:
    version = await client.result("state_getRuntimeVersion")
    assert (version["specName"], version["specVersion"], version["transactionVersion"]) == ("node-subtensor", 461, 1)
    assert (await client.result("state_getMetadata")).startswith("0x6d6574610e")
    fifteen = await client.result("state_call", "Metadata_metadata_at_version", "0x0f000000")
    assert fifteen.startswith("0x01") and "6d6574610f" in fifteen[:30]
    assert await client.result("state_call", "Metadata_metadata_at_version", "0x63000000") == "0x00"
    assert await client.result("system_properties") == {
        "isEthereum": False, "ss58Format": 42, "tokenDecimals": 9, "tokenSymbol": "TAO",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("no_such_method", [], -32601),
        ("state_getStorage", [], -32602),
        ("state_getStorage", ["xy"], -32602),
        ("state_getStorage", ["0x1"], -32602),
        ("state_getStorage", ["0x12", None, 3], -32602),
        ("state_getStorage", [12], -32602),
        ("state_getStorage", ["0x12", "0x" + "00" * 32], 4003),
        ("state_getStorage", ["0x12", {"a": 1}], -32602),
        ("chain_getBlockHash", [-1], -32602),
        ("chain_getBlockHash", ["zz"], -32602),
        ("chain_getBlockHash", [True], -32602),
        ("chain_getHeader", ["0xzz"], -32602),
        ("state_getKeysPaged", ["0x", "many"], -32602),
        ("state_queryStorageAt", ["0x12"], -32602),
        ("state_call", ["Core_no_such", "0x"], 4003),
        ("state_call", ["SubnetInfoRuntimeApi_get_metagraph", "0x"], 4003),
        ("state_call", [5, "0x"], -32602),
        ("account_nextIndex", ["5nonsense"], -32602),
        ("author_submitExtrinsic", ["0x00"], 1001),
        ("author_submitExtrinsic", ["0x"], 1001),
        ("author_submitExtrinsic", [None], -32602),
        ("author_submitExtrinsic", ["0x" + "00" * 200], 1001),
        ("author_submitAndWatchExtrinsic", ["nonsense"], -32602),
        ("dev_newBlock", [0], -32602),
        ("dev_newBlock", ["x"], -32602),
        ("dev_revert", [99], 4003),
        ("dev_revert", [-1], -32602),
        ("dev_setStorage", [[["0x12"]]], -32602),
        ("dev_timeTravel", ["tomorrow"], -32602),
        ("dev_timeTravel", [1], 4003),
        ("dev_mineEpoch", [70_000], 4003),
    ],
)
async def test_bad_requests_get_their_error(client: Client, method: str, params: list[Any], code: int) -> None:
    answer = await client.request(method, *params)
    assert answer["error"]["code"] == code, answer
    assert "Traceback" not in str(answer) and ".py" not in str(answer)
    assert await client.result("system_chain") == "Bittensor"


async def test_what_is_not_a_request_is_answered_and_the_connection_lives(client: Client) -> None:
    for text, code in [
        ("{nonsense", -32700), ("", -32700), ("[" * 5000, -32700), ("[]", -32600), ("5", -32600), ("null", -32600),
        ('{"id": 1}', -32600), ('{"id": 1, "method": 5}', -32600), ('{"id": {}, "method": "system_chain"}', -32600),
        ('{"id": 1, "method": "system_chain", "params": 5}', -32602),
        ('{"id": 1, "method": "system_chain", "params": {"x": 1}}', -32602),
    ]:  # fmt: skip
        assert (await client.raw(text))["error"]["code"] == code, text
    await client.socket.send_str('{"jsonrpc": "2.0", "method": "system_chain"}')  # a notification: no answer
    await client.socket.send_bytes(b'{"jsonrpc":"2.0","id":"text","method":"system_chain","params":[]}')
    assert await client.receive() == {"jsonrpc": "2.0", "id": "text", "result": "Bittensor"}
    named = await client.raw('{"id": 1, "method": "chain_getBlockHash", "params": {"number": 0}}')
    assert named["result"] == await client.result("chain_getBlockHash", 0)


async def test_batches(client: Client) -> None:
    answers = await client.raw(
        '[{"id":1,"method":"system_chain"},{"id":2,"method":"nope"},7,{"method":"system_chain"}]'
    )
    assert [answer.get("id") for answer in answers] == [1, 2, None]
    assert (answers[0]["result"], answers[1]["error"]["code"], answers[2]["error"]["code"]) == (
        "Bittensor", -32601, -32600,
    )  # fmt: skip
    many = "[" + ",".join(['{"id":1,"method":"system_chain"}'] * (server_module.MAX_BATCH + 1)) + "]"
    assert (await client.raw(many))["error"]["code"] == -32010


@pytest.mark.parametrize(
    ("subscribe", "name"),
    [
        ("chain_subscribeNewHeads", "chain_newHead"),
        ("chain_subscribeNewHead", "chain_newHead"),
        ("chain_subscribeAllHeads", "chain_allHead"),
        ("chain_subscribeFinalizedHeads", "chain_finalizedHead"),
        ("state_subscribeRuntimeVersion", "state_runtimeVersion"),
    ],
)
async def test_the_answer_precedes_the_first_notification(
    net: Localnet, client: Client, subscribe: str, name: str
) -> None:
    answer = await client.raw(json.dumps({"id": 1, "method": subscribe, "params": []}))
    first = await client.receive()
    assert first["method"] == name and first["params"]["subscription"] == answer["result"]
    if name.endswith("Head"):
        assert first["params"]["result"]["number"] == "0x3"
        await net.mine(2)
        numbers = [(await client.receive())["params"]["result"]["number"] for _ in range(2)]
        assert numbers == ["0x4", "0x5"]
    end = {"chain_subscribeFinalizedHeads": "chain_unsubscribeFinalizedHeads"}.get(
        subscribe, "chain_unsubscribeNewHeads"
    )
    assert await client.result(end, answer["result"]) is True
    assert await client.result(end, answer["result"]) is False
    await net.mine()
    assert await client.result("system_chain") == "Bittensor"  # nothing came in between
    assert not net.rpc.node.subscriptions._kinds[name]


async def test_storage_subscriptions_tell_changes_only(net: Localnet, client: Client) -> None:
    key = "0x" + net.client.storage_key("System", "Account", "//Bob").hex()
    identifier = await client.result("state_subscribeStorage", [key, "0x12"])
    first = (await client.receive())["params"]
    assert first["subscription"] == identifier and len(first["result"]["changes"]) == 2
    await net.mine()
    await net.extrinsic("//Alice", "Balances", "transfer_keep_alive", dest="//Bob", value=1)
    change = (await client.receive())["params"]["result"]
    assert change["block"] == net.block_hash and [pair[0] for pair in change["changes"]] == [key]


async def test_a_watched_extrinsic_reports_each_step(net: Localnet, client: Client) -> None:
    raw = _transfer(net)
    answer = await client.raw(json.dumps({"id": 1, "method": "author_submitAndWatchExtrinsic", "params": [raw]}))
    assert (await client.receive())["params"] == {"subscription": answer["result"], "result": "ready"}
    assert await client.result("account_nextIndex", ALICE) == 1
    assert await client.result("author_pendingExtrinsics") == [raw]
    assert await client.error("author_submitExtrinsic", raw) == 1013
    assert await client.error("author_submitExtrinsic", _transfer(net, value=5)) == 1014
    await net.mine()
    steps = [(await client.receive())["params"]["result"] for _ in range(2)]
    assert steps == [{"inBlock": net.block_hash}, {"finalized": net.block_hash}]
    assert await client.result("author_unwatchExtrinsic", answer["result"]) is False  # it ended by itself


async def test_pool_errors_have_the_texts_clients_match(net: Localnet, client: Client) -> None:
    await net.extrinsic("//Alice", "Balances", "transfer_keep_alive", dest="//Bob", value=1)
    good = _transfer(net, 1)
    forged = good[:-2] + ("00" if good[-2:] != "00" else "01")
    poor = _transfer(net, 0, signer="//Nobody")
    for raw, data in [
        (_transfer(net, 0), "Transaction is outdated"),
        (forged, "Transaction has a bad signature"),
        (poor, "Inability to pay some fees (e.g. account balance too low)"),
    ]:
        error = (await client.request("author_submitExtrinsic", raw))["error"]
        assert (error["code"], error["message"], error["data"]) == (1010, "Invalid Transaction", data)


async def test_fees(net: Localnet, client: Client) -> None:
    info = await client.result("payment_queryInfo", _transfer(net))
    outcome = await net.extrinsic("//Alice", "Balances", "transfer_keep_alive", dest="//Bob", value=10**9)
    paid = next(e["fields"]["actual_fee"] for e in outcome.events if e["name"] == "TransactionFeePaid")
    assert (info["partialFee"], info["class"]) == (str(paid), "normal") and info["weight"]["ref_time"] > 0
    details = (await client.result("payment_queryFeeDetails", _transfer(net, 1)))["inclusionFee"]
    assert sum(int(part, 16) for part in details.values()) == paid


async def test_developer_methods(net: Localnet, client: Client) -> None:
    block, snapshot = net.block, await client.result("dev_snapshot")
    assert await client.result("dev_newBlock") == net.block_hash and net.block == 4
    await client.result("dev_newBlock", {"count": 3})
    await client.result("dev_newBlock", {"to": 10})
    assert net.block == 10
    await client.result("dev_setStorage", [["0x1234", "0x56"]])
    assert await client.result("state_getStorage", "0x1234") == "0x56"
    assert await client.result("dev_timeTravel", "2040-01-01T00:00:00Z") == 2_208_988_800_000
    assert net.query("Timestamp", "Now") == 2_208_988_800_000
    await client.result("dev_revert", snapshot)
    assert net.block == block and await client.result("state_getStorage", "0x1234") is None


async def test_http_post(net: Localnet) -> None:
    url = net.url.replace("ws://", "http://")
    async with aiohttp.ClientSession() as session:

        async def post(body: str, **headers: str) -> Any:
            async with session.post(url, data=body, headers=headers) as answer:
                return await answer.json(content_type=None)

        chain = '{"id":1,"method":"system_chain"}'
        assert (await post(chain))["result"] == "Bittensor"
        assert [a["id"] for a in await post(f"[{chain},{chain}]")] == [1, 1]
        assert (await post("nonsense"))["error"]["code"] == -32700
        assert (await post('{"id":1,"method":"chain_subscribeNewHeads"}'))["error"]["code"] == -32601
        assert await post('{"method":"system_chain"}') is None
        assert (await post('{"id":1,"method":"dev_newBlock"}'))["result"] == net.block_hash
        async with session.get(url) as answer:
            assert answer.status == 405
        for far, status in ({}, 200), ({"Via": "1.1 proxy"}, 413):  # a developer's may be an exported state
            async with session.post(url, data=b"x" * (server_module.MAX_FRAME + 1), headers=far) as answer:
                assert answer.status == status
    old, ask = aiohttp.ClientSession(version=aiohttp.HttpVersion10), '{"id":1,"method":"dev_newBlock"}'
    async with old as session, session.post(url, data=ask) as answer:  # nginx as it comes
        assert (await answer.json())["error"]["code"] == -32601
    assert not net.rpc.node.subscriptions._kinds.get("chain_newHead")


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": "http://localhost:3000"}, True),
        ({"Origin": "https://example.com"}, False),
        ({"Origin": "null"}, False),
        ({"X-Forwarded-For": "203.0.113.9"}, False),
        ({"X-Forwarded-Host": "example.com"}, False),
        ({"X-Real-IP": "203.0.113.9"}, False),
        ({"Forwarded": "for=203.0.113.9"}, False),
        ({"Via": "1.1 proxy"}, False),
        ({"Host": "localhost:9944"}, True),
        ({"Host": "[::1]:9944"}, True),
        ({"Host": "example.com"}, False),  # a name that was made to resolve to this machine
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:3000"}, True),
    ],
)
async def test_developer_methods_are_for_this_machine_only(
    net: Localnet, headers: dict[str, str], allowed: bool
) -> None:
    async with aiohttp.ClientSession(headers=headers) as session, session.ws_connect(net.url) as socket:
        client = Client(socket)
        answer = await client.request("dev_newBlock")
        assert ("result" in answer) is allowed
        methods = (await client.result("rpc_methods"))["methods"]
        assert ("dev_newBlock" in methods) is allowed and "state_getStorage" in methods
    for name in ("dev_revert", "dev_setStorage", "dev_timeTravel", "dev_mineEpoch", "state_getPairs"):
        remote = net.rpc.handle(Connection(local=False, subscribes=False), {"id": 1, "method": name, "params": []})
        assert isinstance(remote, bytes) and b"-32601" in remote


async def test_who_reads_too_slowly_is_dropped_and_others_do_not_notice(
    net: Localnet, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "MAX_QUEUED_BYTES", 2**21)
    async with aiohttp.ClientSession() as session, session.ws_connect(net.url, max_msg_size=0) as slow:
        for number in range(200):  # 1.5 MB of metadata each, none of it read
            await slow.send_json({"id": number, "method": "state_getMetadata", "params": []})
        await client.result("chain_subscribeNewHeads")
        await net.mine(5)
        assert await client.result("system_chain") == "Bittensor"
        received = 0
        while (await slow.receive()).type == aiohttp.WSMsgType.TEXT:
            received += 1
        assert received < 200 and slow.closed
    assert await client.result("system_chain") == "Bittensor"


async def test_subscriptions_end_with_their_connection(net: Localnet) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(net.url) as socket:
        client = Client(socket)
        for _ in range(3):
            await client.result("chain_subscribeNewHeads")
        assert len(net.rpc.node.subscriptions._kinds["chain_newHead"]) == 3
    for _ in range(100):
        if not net.rpc.node.subscriptions._kinds["chain_newHead"]:
            break
        await asyncio.sleep(0.02)
    assert not net.rpc.node.subscriptions._kinds["chain_newHead"]


async def test_states_older_than_the_history_say_so() -> None:
    async with Localnet(mining="manual", history=8) as net:
        await net.mine(64)
        async with aiohttp.ClientSession() as session, session.ws_connect(net.url) as socket:
            client = Client(socket)
            old = await client.result("chain_getBlockHash", 5)
            error = (await client.request("state_getStorage", "0x12", old))["error"]
            assert (error["code"], f"State already discarded for {old}" in error["message"]) == (4003, True)
            assert (await client.result("chain_getHeader", old))["number"] == "0x5"
            assert await client.result("chain_getBlock", old) is None


def test_a_date_without_a_zone_is_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        dates = ("2040-01-01T00:00:00", "2040-01-01T00:00:00Z", "2040-01-01T09:00:00+09:00")
        assert {_milliseconds(date) for date in dates} == {2_208_988_800_000}
    finally:
        monkeypatch.undo()
        time.tzset()
