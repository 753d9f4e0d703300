"""The command's options: what does not go together is refused by name, before anything starts; --import goes on."""

from __future__ import annotations

import asyncio
import gc
import re
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from localnet import cli
from localnet.errors import StateFileMismatch
from localnet.net import Localnet
from tests.support import wat_runtime as wat

FORK = "--fork ws://127.0.0.1:1"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"{FORK} --runtime x.wasm", "--fork and --runtime do not go together"),
        (f"{FORK} --preset development", "--fork and --preset do not go together"),
        (f"{FORK} --runtime-hash 0x00", "--fork and --runtime-hash do not go together"),
        (f"{FORK} --no-dev-accounts", "--fork and --dev-accounts do not go together"),
        (f"{FORK} --genesis x.json", "--fork and --genesis do not go together"),
        (f"{FORK} --import x.json", "--fork and --import do not go together"),
        (f"{FORK} --state x.sqlite", "--fork and --state do not go together: .* --fork-cache"),
        ("--runtime x.wasm --profile fast", "--runtime and --profile do not go together"),
        ("--fork-offline", "--fork-offline: about a --fork, so name one"),
        ("--fork-rate 20", "--fork-rate: about a --fork"),
        ("--fork-verify --fork-cache x", "--fork-cache, --fork-verify: about a --fork"),
        ("--runtime-hash 0x00", "--runtime-hash: about a --runtime"),
        ("--preset development --dev-accounts", "--preset, --dev-accounts: about a --runtime"),
        ("--runtime x.wasm explain 1 1", "--runtime would be of a chain that starts, and `explain` starts none"),
        ("--json --ready-file x fund //Zoe 1", "--json, --ready-file would be of a chain"),
    ],
)
def test_options_that_do_not_go_together(line: str, words: str) -> None:
    done = CliRunner().invoke(cli.app, line.split())
    assert done.exit_code == 1 and re.search(words, done.output), done.output


def test_a_command_behind_the_chains_collects_garbage() -> None:
    """`python -m localnet` turns that off for the start of a chain."""
    gc.disable()
    try:
        assert CliRunner().invoke(cli.app, ["explain", "1", "1", "--url", "nowhere"]).exit_code == 1
        assert gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "answer", ["[1]", "null", "{}", '{"error": "x"}', '{"error": {}}', "[" * 100_000, "SSH-2.0", ""]
)
def test_whoever_is_no_node_is_told_in_a_sentence(answer: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                head = "" if answer == "SSH-2.0" else f"HTTP/1.0 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n"
                connection.sendall((head + answer).encode())

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = CliRunner().invoke(cli.app, ["explain", "1", "1", "--url", url])
        thread.join()
    assert done.exit_code == 1 and done.stderr.startswith("error: ") and "--url" in done.stderr, done.output


@pytest.mark.parametrize("released", [False, True])
def test_import_goes_on_from_an_exported_state(released: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOUCHSTONE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "hand.wasm").write_bytes(wat.code())
    usual: dict[str, Any] = {
        "mining": "manual",
        "clock": "step",
        "genesis_time": 1_700_000_000_000,
        "runtime": tmp_path / "hand.wasm" if released else None,
    }

    async def story() -> None:
        async with Localnet(**usual) as net:
            await net.mine(5)
            await net.developer.write({b"mine": b"\1"})
            exported = net.export_state(tmp_path / "state.json")
        net = Localnet(**usual)
        try:
            assert await cli._started(net, cli.cli_options.read_exported(tmp_path / "state.json"), asyncio.Event())
            assert net.block == 6 and net.chain.storage(b"mine") == b"\1"
            assert released or net.export_state()["digest"] == exported["digest"]  # the one by hand has no time
            assert await net.mine() == 7
        finally:
            await net.stop()
        with pytest.raises(StateFileMismatch, match="of another runtime"):
            await cli._started(other := Localnet(mining="manual", profile="mainnet"), exported, asyncio.Event())
        await other.stop()

    asyncio.run(story())


def test_an_exported_state_is_no_genesis(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_text('{"format": "localnet-state"}')
    done = CliRunner().invoke(cli.app, ["--genesis", str(file)])
    assert done.exit_code == 1 and "is an exported state" in done.output and "--import takes it" in done.output
    file.write_text("[" * 100_000)
    done = CliRunner().invoke(cli.app, ["--import", str(file)])
    assert done.exit_code == 1 and "cannot read an exported state" in done.output
