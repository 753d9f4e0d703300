"""Where a runtime's code comes from: every form of file, chain specifications, nodes; and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zstandard
from aiohttp import WSMsgType, web

from localnet.codec.scale import opaque
from localnet.errors import RuntimeCodeError
from localnet.fork import remote
from localnet.node.blocks import Header, blake2_256
from localnet.node.children import entry_key
from localnet.wasm import chainspec, limits, loading, sections
from localnet.wasm.loading import from_bytes, load
from tests.support import wat_runtime as wat

NAME = b"\x0fruntime_version"


def module(spec_version: int = 7, name: str = "toy", padding: int = 0) -> bytes:
    """A Wasm module of nothing but the section that says what runtime it is."""
    version = opaque(name.encode()) * 2 + b"".join(n.to_bytes(4, "little") for n in (1, spec_version, 1)) + b"\0"
    body = NAME + version + bytes(padding)
    size = bytes((len(body) & 0x7F | 0x80, len(body) >> 7 & 0x7F | 0x80, len(body) >> 14))
    return b"\0asm\1\0\0\0" + b"\0" + size + body


def compressed(code: bytes) -> bytes:
    return sections.COMPRESSED + zstandard.compress(code)


MODULE = module()
STORED = compressed(MODULE)


def _written(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


# -- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "stored"),
    [
        (MODULE, MODULE),
        (STORED, STORED),
        (STORED.hex(), STORED),
        (f'"0x{MODULE.hex()}"\n', MODULE),
        (json.dumps({"jsonrpc": "2.0", "id": 1, "result": "0x" + STORED.hex()}), STORED),
    ],
)
def test_code_comes_bare_compressed_and_in_hexadecimal(tmp_path: Path, data: bytes | str, stored: bytes) -> None:
    loaded = load(_written(tmp_path / "code", data))
    assert (loaded.code.stored, loaded.code.module) == (stored, MODULE)
    assert (loaded.code.hash, loaded.code.module_hash) == (blake2_256(stored), blake2_256(MODULE))
    assert loaded.code.name == "toy 7" and loaded.spec is None
    said = loaded.describe()
    assert "toy 7" in said and blake2_256(stored).hex() in said and str(tmp_path) in said
    assert (blake2_256(MODULE).hex() in said) and ("Wasm inside" in said) == (stored != MODULE)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no runtime"),
        (b"#!/bin/sh\n", "no runtime"),
        (b"0x1234", "no runtime"),
        (MODULE[:-3], "ends too early"),
        (b"\0asm\2\0\0\0", "version"),
        (sections.COMPRESSED + b"nothing", "compressed, and damaged"),
        (STORED[:-4], "damaged|ends too early"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "no runtime"),
        (b'{"a":' * 100_000, "not JSON"),
        (b"{}", "no genesis"),
        (b'{"result": "0x00"}', "no genesis"),
    ],
)
def test_what_is_no_runtime_is_named(tmp_path: Path, data: bytes, why: str) -> None:
    with pytest.raises(RuntimeCodeError, match=why):
        load(_written(tmp_path / "code", data))


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "MAX_CODE", 100_000)
    assert limits.MAX_CODE == 50 * 1024 * 1024
    bomb = compressed(module(padding=100_001))
    assert len(bomb) < 1000
    with pytest.raises(RuntimeCodeError, match="more than 100,000 bytes"):
        load(_written(tmp_path / "bomb", bomb))


def test_what_is_no_file_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    if hasattr(os, "mkfifo"):
        os.mkfifo(pipe)
    for path in (tmp_path, tmp_path / "missing", pipe):
        with pytest.raises(RuntimeCodeError, match=r"no file|cannot be read"):
            load(path)
    monkeypatch.setattr(loading, "MAX_FILE", 10)
    with pytest.raises(RuntimeCodeError, match="bytes"):
        load(_written(tmp_path / "large", MODULE))


def test_a_pin_is_either_hash_and_nothing_else(tmp_path: Path) -> None:
    path = _written(tmp_path / "code", STORED)
    for digest in (blake2_256(STORED), blake2_256(MODULE)):
        assert load(path, pin="0x" + digest.hex()).code.stored == STORED
    with pytest.raises(RuntimeCodeError, match=f"not the runtime that was asked for.*{blake2_256(STORED).hex()}"):
        load(path, pin="0x" + bytes(32).hex())
    for bad in ("0x12", "latest", ""):
        with pytest.raises(RuntimeCodeError, match="no hash"):
            load(path, pin=bad)


# -- chain specifications -------------------------------------------------------------------------------------------


def spec(genesis: Any, **more: Any) -> str:
    return json.dumps({"name": "Toy", "id": "toy", "chainType": "Local", "genesis": genesis, **more})


def test_a_raw_specification_brings_its_state(tmp_path: Path) -> None:
    raw = {"top": {"0x3a636f6465": "0x" + STORED.hex(), "0xaa": "0x01"}, "childrenDefault": {"0xcc": {"0x01": "0x02"}}}
    loaded = load(_written(tmp_path / "raw.json", spec({"raw": raw})))
    assert loaded.spec is not None and loaded.code.stored == STORED
    assert loaded.spec.storage == {b"\xaa": b"\1", entry_key(b"\xcc", b"\1"): b"\2"}
    assert loaded.facts()["chain_spec"] == {"id": "toy", "name": "Toy", "kind": "raw"}


@pytest.mark.parametrize(
    ("genesis", "over_preset"),
    [
        ({"runtimeGenesis": {"code": "0x" + STORED.hex(), "patch": {"sudo": {"key": None}}}}, True),
        ({"runtimeGenesis": {"code": "0x" + STORED.hex(), "config": {"sudo": {"key": None}}}}, False),
        ({"runtimeAndCode": {"code": "0x" + STORED.hex(), "runtime": {"sudo": {"key": None}}}}, False),
    ],
)
def test_a_plain_specification_brings_its_configuration(tmp_path: Path, genesis: Any, over_preset: bool) -> None:
    found = load(_written(tmp_path / "plain.json", spec(genesis))).spec
    assert found is not None and (found.storage, found.code) == (None, STORED)
    assert (found.config, found.over_preset) == ({"sudo": {"key": None}}, over_preset)


def test_the_oldest_form_has_its_code_under_system() -> None:
    system = {"code": "0x" + STORED.hex(), "changesTrieConfig": None}
    found = chainspec.read(json.loads(spec({"runtime": {"system": system, "aura": {"authorities": []}}})))
    assert (found.code, found.config) == (STORED, {"system": {}, "aura": {"authorities": []}})


def test_code_substitutes_are_said_not_to_be_applied(caplog: pytest.LogCaptureFixture) -> None:
    genesis = {"raw": {"top": {"0x3a636f6465": "0x" + STORED.hex()}}}
    chainspec.read(json.loads(spec(genesis, codeSubstitutes={"12": "0x00"})))
    assert "codeSubstitutes" in caplog.text


@pytest.mark.parametrize(
    ("genesis", "why"),
    [
        ({}, "none of raw"),
        ([], "no JSON object"),
        ({"stateRootHash": "0x00"}, "stateRootHash"),
        ({"raw": {"top": {}}}, "no :code"),
        ({"raw": {"top": []}}, "no JSON object"),
        ({"raw": {"top": {"0x3a636f6465": "0x0"}}}, "hexadecimal"),
        ({"raw": {"top": {"3a": "0x00"}}}, "hexadecimal"),
        ({"raw": {"top": {"0x" + b":child_storage:x".hex(): "0x"}}}, "only child tries"),
        ({"raw": {"top": {}, "childrenDefault": {"0x01": 7}}}, "no JSON object"),
        ({"runtimeGenesis": {"patch": {}}}, "code"),
        ({"runtimeGenesis": {"code": "0x00"}}, "config"),
        ({"runtimeGenesis": {"code": "0x00", "patch": []}}, "patch"),
        ({"runtime": {"system": {}}}, "code"),
    ],
)
def test_a_damaged_specification_is_refused(tmp_path: Path, genesis: Any, why: str) -> None:
    with pytest.raises(RuntimeCodeError, match=why):
        load(_written(tmp_path / "spec.json", spec(genesis)))


# -- nodes ----------------------------------------------------------------------------------------------------------


class FakeNode:
    """A node of two blocks, over WebSocket and POST. `answers` replaces what a method answers."""

    def __init__(self, code: bytes = STORED) -> None:
        self.code, self.asked = code, list[str]()
        self.answers: dict[str, Any] = {}
        self.headers = [Header(bytes(32), 0, bytes(32), bytes(32), ())]
        self.headers.append(Header(self.headers[0].hash(), 1, bytes(32), bytes(32), ()))

    def answer(self, method: str, params: list[Any]) -> Any:
        self.asked.append(method)
        if method in self.answers:
            return self.answers[method]
        hashes = ["0x" + header.hash().hex() for header in self.headers]
        if method == "chain_getBlockHash":
            return hashes[params[0]] if params[0] < len(hashes) else None
        if method == "chain_getFinalizedHead":
            return hashes[-1]
        if method == "chain_getHeader":
            header = self.headers[hashes.index(params[0])] if params[0] in hashes else None
            return None if header is None else {
                "parentHash": "0x" + header.parent_hash.hex(), "number": hex(header.number), "digest": {"logs": []},
                "stateRoot": "0x" + bytes(32).hex(), "extrinsicsRoot": "0x" + bytes(32).hex(),
            }  # fmt: skip
        if method == "state_getRuntimeVersion":
            return {"specName": "toy", "specVersion": 7}
        assert params == ["0x3a636f6465", hashes[params[1] != hashes[0]]]
        return "0x" + (self.code if method == "state_getStorage" else blake2_256(self.code)).hex()

    def reply(self, text: str | bytes) -> str:
        request = json.loads(text)
        found = self.answer(request["method"], request["params"])
        body = {"error": {"code": -32601, "message": "Method not found"}} if found is Refuse else {"result": found}
        return json.dumps({"jsonrpc": "2.0", "id": request["id"], **body})

    async def serve(self, request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            return web.Response(text=self.reply(await request.text()))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                await socket.send_str(self.reply(message.data))
        return socket


class Refuse:
    """Stands for a method that the node does not have."""


@contextmanager
def served(node: FakeNode) -> Iterator[Callable[[str], str]]:
    """The node behind a port: scheme -> address."""
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_route("*", "/", node.serve)
    runner = web.AppRunner(app)

    async def start() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return int(runner.addresses[0][1])

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    port = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield lambda scheme: f"{scheme}://127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.parametrize(("scheme", "block", "number"), [("ws", "", 1), ("http", "@0", 0), ("ws", "@hash", 1)])
def test_a_node_is_asked_once_and_the_code_is_kept(tmp_path: Path, scheme: str, block: str, number: int) -> None:
    node = FakeNode()
    block = block.replace("hash", "0x" + node.headers[1].hash().hex())
    with served(node) as at:
        first = load(at(scheme) + block, directory=tmp_path / "kept")
        again = load(at(scheme) + block, directory=tmp_path / "kept")
    assert first.code == again.code and first.code.stored == STORED
    assert node.asked.count("state_getStorage") == 1
    assert first.origin is not None and first.origin == again.origin
    assert (first.origin.number, first.origin.genesis) == (number, node.headers[0].hash())
    assert first.facts()["origin"]["spec_version"] == 7 and node.headers[0].hash().hex() in first.describe()
    assert (tmp_path / "kept").stat().st_mode & 0o077 == 0


def test_a_damaged_kept_file_is_fetched_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    node = FakeNode()
    with served(node) as at:
        load(at("ws"), directory=tmp_path)
        (kept,) = tmp_path.glob("*.code")
        kept.write_bytes(module(8))
        assert load(at("ws"), directory=tmp_path).code.stored == STORED
    assert "damaged" in caplog.text and kept.read_bytes() == STORED
    assert node.asked.count("state_getStorage") == 2


def test_a_node_that_tells_no_hash_is_asked_for_the_code(tmp_path: Path) -> None:
    node = FakeNode()
    node.answers["state_getStorageHash"] = Refuse
    with served(node) as at:
        assert load(at("http"), directory=tmp_path).code.stored == STORED


@pytest.mark.parametrize(
    ("method", "answer", "why"),
    [
        ("state_getStorageHash", "0x" + bytes(32).hex(), "announces code 0x0000"),
        ("state_getStorage", None, "nothing under :code"),
        ("state_getStorage", "0x" + module(9).hex(), "announces code"),
        ("state_getRuntimeVersion", {"specName": "toy", "specVersion": 8}, "runs toy 8.*is toy 7"),
        ("state_getRuntimeVersion", 7, "does not say what runtime"),
        ("chain_getBlockHash", None, "has no block"),
        ("chain_getFinalizedHead", "0x" + bytes(32).hex(), "no block"),
        ("state_getStorage", Refuse, "Method not found"),
    ],
)
def test_a_node_that_contradicts_itself_is_refused(tmp_path: Path, method: str, answer: Any, why: str) -> None:
    node = FakeNode()
    node.answers[method] = answer
    with served(node) as at, pytest.raises(RuntimeCodeError, match=why):
        load(at("http"), directory=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_addresses_that_lead_nowhere_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "ATTEMPTS", 1)
    with pytest.raises(RuntimeCodeError, match="no node's address"):
        load("ftp://127.0.0.1/x", directory=tmp_path)
    with pytest.raises(RuntimeCodeError, match=r"cannot be fetched from ws://127.0.0.1:9.*--save"):
        load("ws://127.0.0.1:9@5", directory=tmp_path)
    node = FakeNode()
    with served(node) as at, pytest.raises(RuntimeCodeError, match="has no block 5"):
        load(at("ws") + "@5", directory=tmp_path)


@pytest.mark.parametrize("text", [b"(module (nonsense))", b"(module \xff", b"(module " + b"(" * 100_000])
def test_text_that_is_no_module_is_refused(text: bytes) -> None:
    with pytest.raises(RuntimeCodeError, match=r"hand\.wat is no Wasm in text format"):
        from_bytes(text, "hand.wat")


def test_names_from_outside_do_not_reach_a_terminal_as_they_are() -> None:
    evil = "\x1b[2Jclean"
    document = {"name": evil, "genesis": {"raw": {"top": {"0x3a636f6465": "0x" + wat.code().hex()}}}}
    found = from_bytes(json.dumps(document).encode(), "spec.json")
    assert "?[2Jclean" in found.describe() and "\x1b" not in found.describe()
    named = wat.code().replace(b"\x0cwat\x0cwat", b"\x0c\x1b[2\x0cwat")
    with pytest.raises(RuntimeCodeError, match="a name that cannot be shown"):
        from_bytes(named, "evil.wasm").describe()
