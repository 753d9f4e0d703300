"""A whole local chain on a runtime written by hand (tests/support/wat_runtime.py), as a client without any library sees
it: blocks, extrinsics, calls that break off or never end, upgrades, snapshots, a state file, the command."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from localnet.net import Localnet, RuntimeSource
from localnet.wasm.limits import Limits
from tests.support import wat_runtime as wat

ROOT = Path(__file__).parents[4]
Ask = Callable[..., Awaitable[Any]]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOUCHSTONE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "hand.wasm"
    path.write_bytes(wat.code())
    return path


def hexed(raw: bytes) -> str:
    return "0x" + raw.hex()


def asking(session: aiohttp.ClientSession, net: Localnet) -> Ask:
    async def ask(method: str, *params: Any) -> Any:
        body = {"id": 1, "jsonrpc": "2.0", "method": method, "params": params}
        async with session.post(net.url.replace("ws://", "http://"), json=body) as answer:
            found = await answer.json()
        return found["result"] if "result" in found else found["error"]

    return ask


async def test_a_chain_from_a_file_lives_through_everything(file: Path, tmp_path: Path) -> None:
    kept = tmp_path / "chain.sqlite"
    log = hexed(wat.LOG)
    source = RuntimeSource(file, limits=Limits(seconds=0.1))
    async with aiohttp.ClientSession() as session:
        async with Localnet(runtime=source, mining="manual", genesis={"mine": 1}, state=kept) as net:
            ask = asking(session, net)
            assert bytes.fromhex((await ask("state_getStorage", hexed(wat.GENESIS)))[2:]).endswith(b'{"mine": 1}')
            assert (await ask("state_getRuntimeVersion"))["specVersion"] == 1

            sent = [await ask("author_submitExtrinsic", hexed(wat.bare(op))) for op in ("append", "panic", "loop")]
            assert all(one.startswith("0x") for one in sent)
            await ask("dev_newBlock")
            block = (await ask("chain_getBlock"))["block"]
            assert block["extrinsics"] == [hexed(wat.bare("append"))]  # the others cost themselves
            assert block["header"]["stateRoot"] == hexed(net.chain.state.root(1))
            appended = hexed(b"\4" + bytes((wat.NUMBER["append"],)))
            assert await ask("state_getStorage", log) == appended
            refused = await ask("author_submitExtrinsic", hexed(wat.bare(wat.STALE)))
            assert refused["code"] == 1010
            assert "panicked" in str(await ask("state_call", "BlockBuilder_apply_extrinsic", hexed(wat.bare("panic"))))

            snapshot = await ask("dev_snapshot")
            await ask("dev_setStorage", [[hexed(b":code"), hexed(wat.code(2))]])
            assert (await ask("state_getRuntimeVersion"))["specVersion"] == 2
            await ask("author_submitExtrinsic", hexed(wat.bare("append")))
            await ask("dev_newBlock")
            assert len(await ask("state_getStorage", log)) > len(appended)
            assert await ask("state_getStorage", log, await ask("chain_getBlockHash", 1)) == appended
            await ask("dev_revert", snapshot)
            assert (await ask("state_getRuntimeVersion"))["specVersion"] == 1
            head = await ask("chain_getBlockHash")
        async with Localnet(runtime=source, mining="manual", genesis={"mine": 1}, state=kept) as net:
            ask = asking(session, net)
            assert await ask("chain_getBlockHash") == head
            assert await ask("state_getStorage", log) == appended
            await ask("dev_newBlock")
            assert (await ask("chain_getHeader"))["parentHash"] == head


@pytest.mark.skipif(sys.platform == "win32", reason="signals of a POSIX system")
def test_the_command_runs_a_runtime_in_text_format(file: Path, tmp_path: Path) -> None:
    text = tmp_path / "hand.wat"
    text.write_text(wat.source())
    command = [sys.executable, "-m", "localnet", "--port", "0", "--json", "--mining", "manual", "--runtime", str(text)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["event"] == "ready" and ready["runtime"]["source"] == f"file {text}"
        body = json.dumps({"id": 1, "method": "dev_newBlock", "params": []}).encode()
        with urllib.request.urlopen(ready["url"].replace("ws://", "http://"), body, timeout=10) as answer:
            assert json.load(answer)["result"].startswith("0x")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0 and json.loads(out) == {"event": "stopped", "block": 1}
    assert wat.MISSING in err and "Traceback" not in err
