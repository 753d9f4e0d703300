"""The command as a process: ready file, JSON, signals, a state file through stop and kill, clear errors."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[4]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of a POSIX system")


@contextmanager
def _running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, "-m", "localnet", "--port", "0", "--json", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield process, json.loads(line)
    finally:
        process.kill()
        process.communicate()


def _ask(url: str, method: str, *params: Any) -> Any:
    body = json.dumps({"id": 1, "method": method, "params": params}).encode()
    with urllib.request.urlopen(url.replace("ws://", "http://"), body, timeout=10) as answer:
        return json.load(answer)["result"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_then_stops_cleanly(tmp_path: Path, number: int) -> None:
    ready = tmp_path / "run" / "ready"
    with _running("--ready-file", str(ready), "--mining", "manual") as (process, facts):
        assert facts["event"] == "ready" and ready.read_text().strip() == facts["url"]
        assert _ask(facts["url"], "chain_getBlockHash", 0) == facts["genesis"]
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, json.loads(out), err) == (0, {"event": "stopped", "block": 0}, "")
    assert not ready.exists() and list(ready.parent.iterdir()) == []
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # closed connections linger; a listener would not do
        probe.bind(("127.0.0.1", int(facts["url"].rsplit(":", 1)[1])))


def test_the_chain_survives_stop_and_kill(tmp_path: Path) -> None:
    state = str(tmp_path / "chain.db")
    head, digest = 0, ""
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        with _running("--state", state, "--block-time", "0.02") as (process, facts):
            url = facts["url"]
            assert facts["block"] >= head
            if digest:
                assert _ask(url, "chain_getBlockHash", head) == digest
            deadline = time.monotonic() + 20
            while int(_ask(url, "chain_getHeader")["number"], 16) < facts["block"] + 5:
                assert time.monotonic() < deadline
            head = int(_ask(url, "chain_getHeader")["number"], 16) - 1  # the newest may be the one being written
            digest = _ask(url, "chain_getBlockHash", head)
            os.kill(process.pid, number)
            process.wait(20)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--mining", "never"], "unknown mining mode"),
        (["--profile", "slow"], "unknown profile"),
        (["--state", "/proc/nowhere/chain.db"], "cannot open the state file"),
        (["--host", "203.0.113.77"], "cannot listen"),
    ],
)
def test_errors_are_one_sentence_and_an_exit_code(arguments: list[str], text: str) -> None:
    command = [sys.executable, "-m", "localnet", "--port", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ") and text in done.stderr
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 1 and text in json.loads(done.stdout)["message"]


def test_profile_mainnet_has_mainnets_slots() -> None:
    with _running("--profile", "mainnet", "--mining", "manual") as (_, facts):
        assert facts["block_time"] == 12.0
        before = _ask(facts["url"], "dev_timeTravel", "2040-01-01T00:00:00Z")
        _ask(facts["url"], "dev_newBlock")
        now = "0xf0c365c3cf59d671eb72da0e7a4113c49f1f0515f462cdcf84e0f1d6045dfcbb"  # Timestamp.Now
        stamp = int.from_bytes(bytes.fromhex(_ask(facts["url"], "state_getStorage", now)[2:]), "little")
        assert stamp == before + 12_000
