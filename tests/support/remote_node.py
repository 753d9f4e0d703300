"""A node to fork from that does as it is told: one block, a dictionary of storage, and faults.

    with RemoteNode(storage) as node:
        node.faults.append(garbage("not JSON"))     # the next request gets this instead of its answer
        Remote(node.url, ...)

It runs in a thread of its own, because the code under test blocks while it waits.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiohttp import web

from localnet.fork.chain import NOW
from localnet.fork.start import GENESIS
from localnet.node.blocks import Header, blake2_256, slot_item
from localnet.node.children import root_key, split_entry
from localnet.node.trie import VALUE_THRESHOLD, Branch, Trie, _Writer, nibble, ordered_root, root, shared

CODE = b":code"
HEAD = 1000  # number of the block
SLOT_MS = 1000
FIRST = b"\1" * 32  # hash of the genesis
NOW_MS = 1_700_000_000_000

Answer = Any
Fault = Callable[[dict[str, Any]], "bytes | None"]  # the bytes to send instead, or None to hang up


def garbage(text: str) -> Fault:
    return lambda request: text.encode()


def error(code: int, message: str) -> Fault:
    return lambda request: json.dumps(
        {"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": message}}
    ).encode()


def result(value: Any, shift: int = 0) -> Fault:
    """This result; `shift` is added to the id."""
    return lambda request: json.dumps({"jsonrpc": "2.0", "id": request["id"] + shift, "result": value}).encode()


def hang_up(request: dict[str, Any]) -> None:
    return None


def of(storage: Mapping[bytes, bytes], genesis: bytes = FIRST) -> tuple[Header, bytes]:
    header = Header(b"\2" * 32, HEAD, root(storage, 1), ordered_root([b"\4\4"], 1), (slot_item(NOW_MS // SLOT_MS),))
    return header, genesis


class RemoteNode:
    """Its state is a trie of state version 1.

    `faults` are used up one a request; `always` replaces a method's answer for good; `silent` methods get none."""

    def __init__(self, storage: Mapping[bytes, bytes], children: Mapping[bytes, bytes] | None = None) -> None:
        """`children`: entries of child tries by their flat keys (localnet.node.children)."""
        self.storage = {CODE: bytes(range(32)), NOW: NOW_MS.to_bytes(8, "little"), GENESIS: FIRST, **storage}
        self.children = {split_entry(key): value for key, value in (children or {}).items()}
        for name in {name for name, _ in self.children}:
            self.storage[root_key(name)] = root(self._child(name), 1)
        self.header, self.genesis = of(self.storage)
        self.hash = self.header.hash()
        self.faults: list[Fault] = []
        self.always: dict[str, Fault] = {}
        self.silent: set[str] = set()
        self.seen: list[tuple[str, Any]] = []
        self.connections = 0
        self.statuses: list[int] = []  # HTTP statuses to answer with first
        self.closing = 1000  # the code with which it hangs up
        self.on_request: Callable[[], object] | None = None  # called once, in the node's thread
        self.most = 1000  # keys in a page, however many are asked for

    # -- what an honest node answers

    def counts(self) -> Counter[str]:
        return Counter(method for method, _ in self.seen)

    def answer(self, method: str, params: list[Any]) -> Any:
        if method == "chain_getBlockHash":
            return {0: _hex(self.genesis), HEAD: _hex(self.hash), 7: _hex(b"\7" * 32)}.get(params[0])
        if method == "chain_getFinalizedHead":
            return _hex(self.hash)
        if method in ("chain_getHeader", "chain_getBlock"):
            if params[0] != _hex(self.hash):
                return None
            header = self.header.json()
            return header if method == "chain_getHeader" else {"block": {"header": header, "extrinsics": ["0x0404"]}}
        if params[-1] != _hex(self.hash):
            raise LookupError(f"{method} at {params[-1]}")
        return self._state(method, params)

    def _state(self, method: str, params: list[Any]) -> Any:
        if method == "state_getStorage":
            return _hex_or_none(self.storage.get(_bytes(params[0])))
        if method == "state_getStorageHash":
            return _hex(blake2_256(self.storage[_bytes(params[0])]))
        if method == "state_queryStorageAt":
            pairs = [[key, _hex_or_none(self.storage.get(_bytes(key)))] for key in params[0]]
            return [{"block": _hex(self.hash), "changes": pairs}]
        if method == "state_getKeysPaged":
            return _page(sorted(self.storage), *params[:3])[: self.most]
        if method == "state_getReadProof":
            return {"at": _hex(self.hash), "proof": [*map(_hex, prove(self.storage, map(_bytes, params[0])))]}
        name = _bytes(params[0]).removeprefix(b":child_storage:default:")
        if method == "state_getChildReadProof":
            found = prove(self.storage, [_bytes(params[0])]) | prove(self._child(name), map(_bytes, params[1]))
            return {"at": _hex(self.hash), "proof": [*map(_hex, found)]}
        if method == "childstate_getStorage":
            return _hex_or_none(self.children.get((name, _bytes(params[1]))))
        if method == "childstate_getKeysPaged":
            return _page(sorted(key for of, key in self.children if of == name), *params[1:4])
        raise LookupError(method)

    def _child(self, name: bytes) -> dict[bytes, bytes]:
        return {key: value for (of, key), value in self.children.items() if of == name}

    def respond(self, request: dict[str, Any]) -> bytes | None:
        method = request["method"]
        self.seen.append((method, request["params"]))
        if self.on_request is not None:
            called, self.on_request = self.on_request, None
            called()
        if method in self.silent:
            return b""
        fault = self.faults.pop(0) if self.faults else self.always.get(method)
        if fault is not None:
            return fault(request)
        try:
            return result(self.answer(method, request["params"]))(request)
        except LookupError as missing:
            return error(-32601, f"Method not found: {missing}")(request)

    # -- the server

    def __enter__(self) -> RemoteNode:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/", self._socket)
        app.router.add_post("/", self._post)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def post_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        self.connections += 1
        if self.statuses:
            return web.Response(status=self.statuses.pop(0))
        socket = web.WebSocketResponse(max_msg_size=2**26)
        await socket.prepare(request)
        async for message in socket:
            answer = self.respond(json.loads(message.data))
            if answer is None:
                break
            if answer:
                await socket.send_str(answer.decode())
        await socket.close(code=self.closing)
        return socket

    async def _post(self, request: web.Request) -> web.StreamResponse:
        if self.statuses:
            return web.Response(status=self.statuses.pop(0))
        answer = self.respond(await request.json())
        if answer is None and request.transport is not None:
            request.transport.abort()
        return web.Response(body=answer or b"", content_type="application/json")


def prove(storage: Mapping[bytes, bytes], keys: Iterable[bytes], version: int = 1) -> set[bytes]:
    """What sp-state-machine's `prove_read` records: the nodes on the way to each key, values that stand as hashes."""
    trie = Trie.build(sorted(storage), storage.get, version)
    writer, items = _Writer(storage.get, version, blake2_256), set()
    for key in keys:
        node, start = trie.top, 0
        while node is not None:
            encoded = writer.encode(node, start)
            if len(encoded) >= 32 or not start:  # else it stands in its parent
                items.add(encoded)
            own = node.key if isinstance(node, Branch) else node
            if key == own and version and len(storage[key]) >= VALUE_THRESHOLD:
                items.add(storage[key])
            if not isinstance(node, Branch) or 2 * len(key) <= node.depth or shared(key, own, start) < node.depth:
                break
            bitmap, digit = int.from_bytes(node.body[:2], "little"), nibble(key, node.depth)
            index, start = (bitmap & ((1 << digit) - 1)).bit_count(), node.depth + 1
            node = node.children[index] if bitmap >> digit & 1 else None
    return items


def _page(keys: list[bytes], prefix: str, count: int, start: str | None) -> list[str]:
    low = _bytes(prefix)
    above = None if start is None else _bytes(start)
    found = [key for key in keys if key.startswith(low) and (above is None or key > above)]
    return [_hex(key) for key in found[:count]]


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _hex_or_none(data: bytes | None) -> str | None:
    return None if data is None else _hex(data)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])
