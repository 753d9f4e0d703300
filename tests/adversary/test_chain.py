"""Hostile clients of the local chain: garbage on the wire and extrinsics that must not pass.

Each gets its clear error; afterwards the same chain still answers, mines and holds the state it held.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest

from localnet import Localnet
from localnet.runtime.runtime import SpecRuntime
from tests.support.extrinsics import Draft, account, era_bytes

TAO = 10**9
BOB = account("//Bob")


@dataclass
class Client:
    """A bare JSON-RPC client over one WebSocket, so that tests can send anything."""

    net: Localnet
    session: aiohttp.ClientSession
    ws: aiohttp.ClientWebSocketResponse

    async def raw(self, text: str | bytes) -> Any:
        await (self.ws.send_bytes(text) if isinstance(text, bytes) else self.ws.send_str(text))
        return await self.answer()

    async def answer(self) -> Any:
        while True:
            message = json.loads((await self.ws.receive(timeout=10)).data)
            if isinstance(message, list) or "method" not in message:
                return message

    async def call(self, method: str, *params: Any) -> Any:
        return await self.raw(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))

    async def submit(self, raw: bytes) -> Any:
        return await self.call("author_submitExtrinsic", "0x" + raw.hex())

    async def alive(self) -> bool:
        before = await self.call("chain_getHeader")
        await self.call("dev_newBlock")
        after = await self.call("chain_getHeader")
        return int(after["result"]["number"], 16) == int(before["result"]["number"], 16) + 1


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with (
        Localnet(mining="manual") as net,
        aiohttp.ClientSession() as session,
        session.ws_connect(net.url, max_msg_size=0) as ws,
    ):
        yield Client(net, session, ws)


@pytest.fixture(scope="module")
def runtime() -> SpecRuntime:
    """Only to encode calls: the chain under test has its own."""
    return SpecRuntime()


async def draft(client: Client, runtime: SpecRuntime, **fields: Any) -> Draft:
    genesis = bytes.fromhex((await client.call("chain_getBlockHash", 0))["result"][2:])
    call = runtime.encode_call("Balances", "transfer_keep_alive", {"dest": ("Id", BOB), "value": TAO})
    fields.setdefault("nonce", 0)
    return Draft(runtime, "//Alice", call, genesis=genesis, **fields)


# -- the wire -------------------------------------------------------------------------------------------------------

GARBAGE: list[tuple[str | bytes, int]] = [
    ("", -32700),
    ("{", -32700),
    ("nonsense", -32700),
    (b"\xff\xfe\x00", -32700),
    ("[" * 5000, -32700),
    ("[]", -32600),
    ("17", -32600),
    ('{"jsonrpc": "2.0", "id": 1}', -32600),
    ('{"jsonrpc": "2.0", "id": 1, "method": 7}', -32600),
    ('{"jsonrpc": "2.0", "id": 1, "method": "no_such_method"}', -32601),
    ('{"jsonrpc": "2.0", "id": 1, "method": "__init__"}', -32601),
    ('{"jsonrpc": "2.0", "id": 1, "method": "chain_getBlockHash", "params": [1, 2, 3, 4]}', -32602),
    ('{"jsonrpc": "2.0", "id": 1, "method": "chain_getBlockHash", "params": "x"}', -32602),
    ('{"jsonrpc": "2.0", "id": 1, "method": "chain_getBlockHash", "params": [{}]}', -32602),
    ('{"jsonrpc": "2.0", "id": 1, "method": "state_getStorage", "params": ["0xzz"]}', -32602),
    ('{"jsonrpc": "2.0", "id": 1, "method": "state_getStorage", "params": ["0x0"]}', -32602),
    ('{"jsonrpc": "2.0", "id": 1, "method": "state_getStorage", "params": []}', -32602),
    ('{"jsonrpc": "2.0", "id": 1, "method": "state_getKeysPaged", "params": ["0x", -5]}', -32602),
    ('{"jsonrpc": "2.0", "id": 1, "method": "author_submitExtrinsic", "params": [null]}', -32602),
]


@pytest.mark.parametrize(("text", "code"), GARBAGE)
async def test_garbage_gets_its_code_and_the_chain_goes_on(client: Client, text: str | bytes, code: int) -> None:
    answer = await client.raw(text)
    assert answer["error"]["code"] == code, answer
    assert "Traceback" not in json.dumps(answer)
    assert await client.alive()


async def test_the_same_garbage_by_post_gets_the_same_code(client: Client) -> None:
    url = client.net.url.replace("ws://", "http://")
    for text, code in GARBAGE:
        async with client.session.post(url, data=text) as response:
            assert json.loads(await response.read())["error"]["code"] == code, text
    assert await client.alive()


async def test_an_unknown_block_is_named_as_such(client: Client) -> None:
    answer = await client.call("state_getStorage", "0x00", "0x" + "ab" * 32)
    assert answer["error"]["code"] == 4003
    assert "UnknownBlock" in answer["error"]["message"] or "not found" in answer["error"]["message"]


async def test_a_batch_mixes_answers_and_errors(client: Client) -> None:
    answers = await client.raw(
        '[{"jsonrpc":"2.0","id":1,"method":"system_chain"},{"jsonrpc":"2.0","id":2,"method":"nope"}]'
    )
    by_id = {answer["id"]: answer for answer in answers}
    assert "result" in by_id[1]
    assert by_id[2]["error"]["code"] == -32601


async def test_a_huge_frame_costs_its_sender_the_connection_and_nobody_else(client: Client) -> None:
    async with client.session.ws_connect(client.net.url, max_msg_size=0) as hostile:
        try:
            await hostile.send_str("x" * (80 << 20))
        except (ConnectionError, aiohttp.ClientError):
            pass  # the server hung up while we were still sending
        else:
            message = await hostile.receive(timeout=20)
            assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
    assert await client.alive()


async def test_a_reader_that_never_reads_does_not_hold_the_chain(client: Client) -> None:
    async with client.session.ws_connect(client.net.url, max_msg_size=0) as lazy:
        for number in range(50):
            subscribe = {"jsonrpc": "2.0", "id": number, "method": "state_subscribeStorage", "params": [[]]}
            await lazy.send_str(json.dumps(subscribe))
        for _ in range(30):
            assert await client.alive()


async def test_a_flood_of_subscriptions_is_bounded(client: Client) -> None:
    async with client.session.ws_connect(client.net.url, max_msg_size=0) as flood:
        errors = 0
        for number in range(3000):
            await flood.send_str(json.dumps({"jsonrpc": "2.0", "id": number, "method": "chain_subscribeNewHeads"}))
        while errors == 0:
            message = await asyncio.wait_for(flood.receive(), 10)
            if message.type != aiohttp.WSMsgType.TEXT:
                break  # dropping the connection is an answer as well
            errors += "error" in json.loads(message.data)
    assert await client.alive()


# -- extrinsics -----------------------------------------------------------------------------------------------------


async def test_the_honest_extrinsic_passes(client: Client, runtime: SpecRuntime) -> None:
    """The yardstick: the drafts below differ from this one in one point each."""
    before = client.net.balance(BOB)
    assert "result" in await client.submit((await draft(client, runtime)).sign())
    await client.call("dev_newBlock")
    assert client.net.balance(BOB) == before + TAO


@pytest.mark.parametrize(
    ("fields", "code", "data"),
    [
        ({"spec": 999}, 1010, "Transaction has a bad signature"),
        ({"genesis": bytes(32)}, 1010, "Transaction has a bad signature"),
        ({"uri": "//Nobody"}, 1010, "Inability to pay some fees (e.g. account balance too low)"),
        ({"tip": 10**17}, 1010, "Inability to pay some fees (e.g. account balance too low)"),
        ({"era": era_bytes(64, 0), "birth": b"\5" * 32}, 1010, "Transaction has a bad signature"),
    ],
)
async def test_a_wrong_extrinsic_is_refused_in_the_words_clients_match(
    client: Client, runtime: SpecRuntime, fields: dict[str, Any], code: int, data: str
) -> None:
    wrong = replace(await draft(client, runtime), **fields)
    answer = await client.submit(wrong.sign())
    assert (answer["error"]["code"], answer["error"].get("data")) == (code, data)
    assert await client.alive()


async def test_a_flipped_bit_in_the_signature_or_the_call_is_a_bad_signature(
    client: Client, runtime: SpecRuntime
) -> None:
    good = (await draft(client, runtime)).sign()
    for position in (60, len(good) - 1):
        broken = bytearray(good)
        broken[position] ^= 1
        answer = await client.submit(bytes(broken))
        assert answer["error"]["data"] == "Transaction has a bad signature"
    assert await client.alive()


async def test_stale_and_repeated_extrinsics_are_refused(client: Client, runtime: SpecRuntime) -> None:
    good = (await draft(client, runtime)).sign()
    assert "result" in await client.submit(good)
    assert (await client.submit(good))["error"]["code"] == 1013
    await client.call("dev_newBlock")
    stale = replace(await draft(client, runtime), tip=5).sign()
    assert (await client.submit(stale))["error"]["data"] == "Transaction is outdated"
    assert await client.alive()


@pytest.mark.parametrize("damage", ["unknown pallet", "unknown call", "cut", "longer", "empty", "bare"])
async def test_bytes_that_are_no_extrinsic_are_refused(client: Client, runtime: SpecRuntime, damage: str) -> None:
    good = await draft(client, runtime)
    raw = good.sign()
    pieces = {
        "unknown pallet": replace(good, call=b"\xfa" + good.call[1:]).sign(),
        "unknown call": replace(good, call=good.call[:1] + b"\xfa" + good.call[2:]).sign(),
        "cut": raw[:70],
        "longer": raw + b"\0\0",
        "empty": b"",
        "bare": bytes.fromhex("280502000b7e817aa7a001"),
    }
    answer = await client.submit(pieces[damage])
    assert answer["error"]["code"] in (1001, 1002, 1010, 1011)
    assert "Traceback" not in json.dumps(answer)
    assert await client.alive()


async def test_an_oversized_extrinsic_ends_at_the_door(client: Client, runtime: SpecRuntime) -> None:
    call = runtime.encode_call("System", "remark", {"remark": bytes(9 << 20)})
    raw = replace(await draft(client, runtime), call=call).sign()
    async with client.session.ws_connect(client.net.url, max_msg_size=0) as hostile:
        other = Client(client.net, client.session, hostile)
        with pytest.raises((ConnectionError, TypeError)):  # hung up on: no answer to read
            await other.submit(raw)
    assert (await client.call("author_pendingExtrinsics"))["result"] == []
    assert await client.alive()


async def test_a_call_that_is_not_implemented_is_named(client: Client, runtime: SpecRuntime) -> None:
    call = runtime.encode_call("EVM", "withdraw", {"address": bytes(20), "value": 1})
    answer = await client.submit(replace(await draft(client, runtime), call=call).sign())
    assert "EVM.withdraw" in json.dumps(answer["error"])
    assert await client.alive()
