"""Hostile callers of the node's RPC: every method with every kind of argument, floods, slow readers, odd HTTP.

The rule everywhere: a JSON-RPC answer with the right code or a closed connection with a reason, bounded memory, and a
node that goes on.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import os
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import orjson
import pytest

from localnet import Localnet
from localnet.node import connection as connections
from localnet.node import outgoing
from localnet.node import server as servers
from localnet.node.connection import Connection
from localnet.runtime.apis.registry import API_FUNCTIONS

CODES = {-32700, -32600, -32601, -32602, -32006, -32008, -32010, -32011, 4001, 4002, 4003, *range(1000, 1020)}
SEED = 461
ROUNDS = 4  # of every method


@pytest.fixture
async def net(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Localnet]:
    monkeypatch.setattr(servers, "HANG_UP", 0.1)
    async with Localnet(mining="manual") as chain:
        yield chain


def server_of(net: Localnet) -> servers.Server:
    assert net._server is not None
    return net._server


async def ask(net: Localnet, request: Any, *, local: bool = True) -> Any:
    """The answer to a request (or raw bytes) without the wire."""
    body = request if isinstance(request, bytes) else orjson.dumps(request)
    answer = await server_of(net).answer(Connection(local=local, subscribes=True), body)
    return None if answer is None else json.loads(answer)


def call(method: str, *params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}


async def alive(net: Localnet) -> bool:
    before = net.block
    await net.mine()
    return (await ask(net, call("chain_getHeader")))["result"]["number"] == hex(before + 1)


# -- arguments ------------------------------------------------------------------------------------------------------


class Json:
    """Arguments of all kinds, now and then ones that mean something on this chain."""

    def __init__(self, net: Localnet, rng: random.Random) -> None:
        self.rng = rng
        self.apis = [*API_FUNCTIONS, "Core_initialize_block", "BlockBuilder_finalize_block", "DevApi_explain"]
        known = self.known = [
            net.block_hash,
            net.genesis_hash,
            "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
            "Core_version",
        ]
        keys = self.keys = ["0x" + key.hex() for key in rng.sample(sorted(net.chain.state.head), 10)]
        self.leaves: tuple[Callable[[], Any], ...] = (
            lambda: None,
            lambda: rng.choice((True, False)),
            lambda: rng.choice((0, 1, -1, 3, 255, 2**32, 2**53, 2**63, 2**64 - 1, 1e30, -0.0, 1.5)),
            lambda: rng.choice(("", "0x", "0", "0x0", "0xzz", "0x 0", "0x-1", "0x_1", "x" * 5000, "Ω", "\0", "../..")),
            lambda: "0x" + rng.randbytes(rng.choice((1, 4, 31, 32, 33, 64, 300))).hex(),
            lambda: rng.choice((*known, *keys)),
            lambda: "0x" + "f" * rng.choice((16, 17, 5000)),
        )

    def value(self, depth: int = 0) -> Any:
        if depth < 3 and self.rng.random() < 0.3:
            size = self.rng.choice((0, 1, 2, 3, 20))
            if self.rng.random() < 0.6:
                return [self.value(depth + 1) for _ in range(size)]
            return {str(self.leaves[3]()): self.value(depth + 1) for _ in range(size)}
        return self.rng.choice(self.leaves)()

    def params(self, names: list[str]) -> Any:
        """Anything, or nearly what the parameters of these names take."""
        if self.rng.random() < 0.05:
            return self.value()
        if self.rng.random() < 0.5:
            return [self.value() for _ in range(self.rng.choice((0, 1, 1, 2, 2, 3, 4)))]
        return [self.value() if self.rng.random() < 0.2 else self.meant(name) for name in names]

    def meant(self, name: str) -> Any:
        if name in ("at", "digest", "start", "end"):
            return self.leaves[5]() if self.rng.random() < 0.5 else self.known[0]
        if name in ("key", "prefix", "start_key", "extrinsic", "data"):
            size = self.rng.choice((0, 1, 2, 4, 34, 66, 200))
            return self.rng.choice((self.rng.choice(self.keys)[:size], "0x" + self.rng.randbytes(size).hex()))
        if name == "keys":
            return self.rng.choices(self.keys, k=self.rng.randrange(20))
        if name == "name":
            return self.rng.choice(self.apis)
        if name == "account":
            return "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
        return self.rng.choice((0, 1, 2, 3, 50))


async def test_every_method_answers_every_argument(net: Localnet) -> None:
    """Methods that others add are covered too: the table is asked, not a list. Nobody gets "Internal error"."""
    await net.mine(3)
    source = Json(net, random.Random(SEED))
    answered = 0
    for name in sorted(net.rpc.methods) * ROUNDS:
        names = [parameter.name for parameter in net.rpc.methods[name].parameters]
        request = {"jsonrpc": "2.0", "id": 7, "method": name, "params": source.params(names)}
        answer = await asyncio.wait_for(ask(net, request), 20)
        assert answer["id"] == 7, request
        assert ("result" in answer) != ("error" in answer), request
        if "error" in answer:
            assert answer["error"]["code"] in CODES, (request, answer)
            assert len(json.dumps(answer)) < 20_000, "an error that repeats what was sent"
        answered += 1
    assert answered >= ROUNDS * 60
    assert await alive(net)


async def test_what_only_reads_changes_nothing(net: Localnet) -> None:
    await net.mine(2)
    source = Json(net, random.Random(SEED + 1))
    before = dict(net.chain.state.head), net.block_hash, len(net.chain.pool)
    for name, entry in sorted(net.rpc.methods.items()):
        if not entry.dev:
            await ask(
                net,
                {
                    "jsonrpc": "2.0",
                    "id": 1,
                    "method": name,
                    "params": source.params([p.name for p in entry.parameters]),
                },
            )
    assert (dict(net.chain.state.head), net.block_hash, len(net.chain.pool)) == before
    assert net.chain.state.depth == 0


async def test_broken_json_is_a_parse_error_and_nothing_else(net: Localnet) -> None:
    rng = random.Random(SEED + 2)
    whole = orjson.dumps([call("chain_getHeader"), call("state_getKeysPaged", "0x", 2)])
    for _ in range(300):
        damaged = bytearray(whole[: rng.randrange(len(whole))])
        for _ in range(rng.randrange(3)):
            damaged.insert(rng.randrange(len(damaged) + 1), rng.randrange(256))
        answer = await ask(net, bytes(damaged))
        for one in answer if isinstance(answer, list) else [answer]:
            assert "result" in one or one["error"]["code"] in (-32700, -32600, -32601, -32602)
    for depth in (1000, 100_000):
        for opening in (b"[", b'{"a":'):
            assert (await ask(net, opening * depth))["error"]["code"] == -32700
    assert await alive(net)


async def test_deeply_nested_arguments_are_bad_arguments(net: Localnet) -> None:
    nested: Any = 1
    for _ in range(200):  # more than that is a parse error
        nested = [nested]
    for name in ("chain_getBlockHash", "state_getStorage", "dev_setStorage", "dev_newBlock", "author_submitExtrinsic"):
        assert (await ask(net, call(name, nested)))["error"]["code"] == -32602, name


async def test_batches_are_bounded_in_number_and_in_answer(net: Localnet) -> None:
    large = await ask(net, [call("system_chain")] * (servers.MAX_BATCH + 1))
    assert large["error"]["code"] == -32010
    metadata = await ask(net, [call("state_getMetadata")] * servers.MAX_BATCH)
    assert metadata["error"]["code"] == -32011
    subscribed = await ask(net, [call("state_subscribeStorage", [])] * servers.MAX_BATCH)
    assert isinstance(subscribed, list) or subscribed["error"]["code"] == -32011
    nested = await ask(net, [[call("system_chain")], 1, None, {}])
    assert [answer["error"]["code"] for answer in nested] == [-32600] * 4
    assert await ask(net, [{"jsonrpc": "2.0", "method": "system_chain"}]) is None


async def test_a_large_value_asked_for_many_times_is_refused(net: Localnet) -> None:
    key = "0x" + (b"large" * 8).hex()
    await ask(net, call("dev_setStorage", [[key, "0x" + "ab" * 100_000]]))
    for name in ("state_queryStorageAt", "state_subscribeStorage"):
        assert (await ask(net, call(name, [key] * 5000)))["error"]["code"] == -32008
    assert (await ask(net, call("state_queryStorage", [key] * 5000, net.block_hash)))["error"]["code"] == -32008


async def test_the_keys_of_subscriptions_are_bounded_and_given_back(net: Localnet) -> None:
    client, server = Connection(local=False, subscribes=True), server_of(net)
    request = orjson.dumps(call("state_subscribeStorage", ["0x" + bytes(1000).hex()] * 1000))
    answers = [json.loads((await server.answer(client, request)) or b"") for _ in range(6)]
    refused = [answer for answer in answers if "error" in answer]
    assert refused and all(answer["error"]["code"] == -32006 for answer in refused)
    assert client.subscribed <= connections.MAX_SUBSCRIBED
    server.rpc.disconnect(client)
    assert client.subscribed == 0 and not server.rpc.node.subscriptions._sizes


# -- who may use dev methods ----------------------------------------------------------------------------------------


async def test_strangers_get_no_dev_method(net: Localnet) -> None:
    before = net.block_hash
    names = [name for name, entry in net.rpc.methods.items() if entry.dev]
    assert {"dev_newBlock", "dev_setStorage", "dev_revert"} <= set(names)
    for name in names:
        for params in ((), (1,), ([],)):
            answer = await ask(net, call(name, *params), local=False)
            assert answer["error"]["code"] == -32601
    assert net.block_hash == before
    assert not set((await ask(net, call("rpc_methods"), local=False))["result"]["methods"]) & set(names)


STRANGE_HEADERS: list[dict[str, str]] = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://["},
    {"Origin": "http://127.0.0.1.evil.example"},
    {"X-Forwarded-For": "127.0.0.1"},
    {"Forwarded": "for=127.0.0.1"},
    {"Authorization": "Bearer ", "Origin": "http://evil.example"},
    {"Authorization": "Bearer \u00ff\u20ac", "Origin": "http://evil.example"},
]


async def test_pages_and_proxies_are_strangers(net: Localnet) -> None:
    url = net.url.replace("ws://", "http://")
    async with aiohttp.ClientSession() as session:
        for headers in STRANGE_HEADERS:
            async with session.post(url, json=call("dev_newBlock"), headers=headers) as response:
                assert (await response.json())["error"]["code"] == -32601, headers
            async with session.ws_connect(net.url, headers=headers) as ws:
                await ws.send_json(call("dev_newBlock"))
                assert (await ws.receive_json())["error"]["code"] == -32601, headers
        async with session.post(
            url, json=call("dev_newBlock"), headers={"Origin": "http://localhost:3000"}
        ) as response:
            assert "result" in await response.json()


# -- the wire -------------------------------------------------------------------------------------------------------


async def upgraded(net: Localnet) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket by hand, so that reading can be left out."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server_of(net).port, limit=2**24)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def frame(data: bytes, opcode: int = 1) -> bytes:
    """A masked frame, all mask bytes zero."""
    return bytes((0x80 | opcode, 0x80 | 126)) + len(data).to_bytes(2, "big") + bytes(4) + data


async def test_who_does_not_read_is_dropped_with_a_reason(net: Localnet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "MAX_QUEUED_BYTES", 4 * 2**20)
    reader, writer = await upgraded(net)
    writer.write(frame(orjson.dumps(call("state_getMetadata"))) * 60)
    await gone(net)
    received = await asyncio.wait_for(_rest(reader), 20)
    assert len(received) < 60 * 200_000, "it was sent all it asked for"
    writer.close()
    assert await alive(net)


async def gone(net: Localnet) -> None:
    await until("the end of the node's last connection", lambda: not server_of(net)._sockets)


async def until(what: str, condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{what} did not come")


async def _rest(reader: asyncio.StreamReader) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(2**20):
            received += piece
    return received


async def test_a_slow_reader_that_catches_up_hears_why(
    net: Localnet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outgoing, "MAX_QUEUED", 200)
    monkeypatch.setattr(servers, "HANG_UP", 10.0)
    reader, writer = await upgraded(net)
    writer.write(frame(orjson.dumps(call("state_getMetadata"))) * 8)
    writer.write(frame(orjson.dumps(call("system_chain"))) * 400)
    await until("the end of the node's patience", lambda: "reads too slowly is dropped" in caplog.text)
    await asyncio.wait_for(reader.readuntil(b"reading too slowly"), 20)
    writer.close()
    assert await alive(net)


async def test_all_slow_readers_together_are_bounded_and_who_reads_stays(
    net: Localnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "MAX_WAITING", 2**20)
    slow = [await upgraded(net) for _ in range(10)]
    async with aiohttp.ClientSession() as session, session.ws_connect(net.url, max_msg_size=0) as reading:
        for _, writer in slow:
            writer.write(frame(orjson.dumps(call("state_getMetadata"))) * 6)
        for _ in range(20):
            await reading.send_json(call("state_getMetadata"))
            assert "result" in await reading.receive_json(timeout=10)
        assert server_of(net)._waiting.size < 3 * 2**20
        for _, writer in slow:
            writer.close()
    await gone(net)
    assert server_of(net)._waiting.size == 0


async def test_large_posts_leave_room_for_small_ones(net: Localnet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "MAX_LARGE", 2)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n"
    hostile = [await asyncio.open_connection("127.0.0.1", server_of(net).port) for _ in range(2)]
    for _, writer in hostile:
        writer.write(head)
    await until("two large requests under way", lambda: server_of(net)._large_posts == 2)
    assert b" 503 " in await http(net, head.replace(b"Host", b"Connection: close\r\nHost") + bytes(99999))
    body = orjson.dumps(call("system_chain"))
    small = b"POST / HTTP/1.1\r\nConnection: close\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
    assert b" 200 " in await http(net, small % (len(body), body))
    for _, writer in hostile:
        writer.close()


async def test_connections_are_bounded(net: Localnet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "MAX_CONNECTIONS", 5)
    async with aiohttp.ClientSession() as session, contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(session.ws_connect(net.url))
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(net.url)
        assert refused.value.status == 503
    assert await alive(net)


BROKEN_FRAMES = [
    b"\x81\xfe\xff\xff",  # a frame that never comes
    b"\xc1\x80\0\0\0\0",  # reserved bit
    b"\x83\x80\0\0\0\0",  # unknown opcode
    b"\x81\x05hello",  # not masked
    b"\x89\xff" + b"\xff" * 8,  # a ping of 2^64 bytes
    frame(b"\xff\xfe"),  # text that is not UTF-8
    frame(b"\x03\xe8bye", 8) * 3,  # three farewells
    frame(b"", 9) * 500,  # pings
]


async def test_broken_frames_cost_only_their_sender(net: Localnet) -> None:
    for data in BROKEN_FRAMES:
        reader, writer = await upgraded(net)
        writer.write(data)
        writer.write_eof()
        await asyncio.wait_for(_rest(reader), 10)
        writer.close()
        await gone(net)
        assert await alive(net), data


async def http(net: Localnet, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server_of(net).port)
    writer.write(data)
    received = await asyncio.wait_for(_rest(reader), 10)
    writer.close()
    return received


async def test_odd_posts_get_their_status(net: Localnet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "BODY_TIME", 0.2)
    body = orjson.dumps(call("system_chain"))
    end = b"Host: x\r\nConnection: close\r\n"
    bomb = gzip.compress(bytes(50 * 2**20))
    sized = b"Content-Length: %d\r\n\r\n%s"
    chunked = b"\r\n%x\r\n%s\r\n0\r\n\r\n"
    cases = [
        (b"POST / HTTP/1.1\r\n" + end + sized % (len(body), body), b" 200 "),
        (b"POST /any/path?x=1 HTTP/1.1\r\n" + end + sized % (len(body), body), b" 200 "),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + end + chunked % (len(body), body), b" 200 "),
        (b"POST / HTTP/1.1\r\n" + end + b"\r\n", b"-32700"),
        (b"POST / HTTP/1.1\r\n" + end + sized % (len(body) + 9, body), b" 408 "),
        (b"POST / HTTP/1.1\r\n" + end + sized % (1 << 40, body), b" 408 "),
        (b"POST / HTTP/1.1\r\n" + end + sized % (servers.MAX_FRAME + 1, bytes(servers.MAX_FRAME + 1)), b" 413 "),
        (b"POST / HTTP/1.1\r\n" + end + b"Content-Encoding: gzip\r\n" + sized % (len(bomb), bomb), b"-32700"),
        (b"POST / HTTP/1.1\r\n" + end + b"Content-Length: -1\r\n\r\n", b" 400 "),
        (b"POST / HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", b" 400 "),
        (b"PUT / HTTP/1.1\r\n" + end + sized % (len(body), body), b" 405 "),
        (b"nonsense\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n" + end + b"\r\n", b" 400 "),
    ]  # fmt: skip
    for data, expected in cases:
        assert expected in await http(net, data), data[:200]
    assert server_of(net)._large_posts == 0
    assert await alive(net)
