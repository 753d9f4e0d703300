"""The main job as a user runs it: to its verdict, then resumed, looked at, and interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from lineup import LINEUP

pytestmark = pytest.mark.alone  # miners with a real model answer by the main job's own deadline
REPO = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(REPO), os.environ.get("PYTHONPATH", ""))))}
LIMIT = 8 * 2**30  # bytes, all processes together
DISHONEST = [part.name for part in LINEUP if not part.honest]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("main-job")


def job(home: Path, *options: str) -> list[str]:
    return [sys.executable, str(REPO / "scripts" / "main_job.py"), "--home", str(home), *options]


def touchstone(*arguments: str) -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "neurons.cli", *arguments, "--json"],
        capture_output=True,
        text=True,
        env=ENV,
        timeout=120,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def processes_of(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(home) in word for word in process.info["cmdline"] or ()):
            found.append(process)
    return found


@pytest.mark.timeout(600)
def test_honest_work_is_paid_and_the_rest_is_not(home: Path) -> None:
    report = home / "out.json"
    done = subprocess.run(job(home, "--epochs", "2", "--json", str(report)), capture_output=True, text=True, env=ENV)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    result = json.loads(report.read_text())
    neurons = result["neurons"]
    assert result["ok"] and result["problems"] == []
    assert neurons["miner-fast"]["emission"] > neurons["miner-slow"]["emission"] > 0
    for name in DISHONEST:
        assert neurons[name]["incentive"] == 0 and neurons[name]["emission"] == 0 and neurons[name]["weight"] == 0
        assert neurons[name]["verdicts"].get("accept", 0) == 0
    for name in DISHONEST:
        assert name == "miner-late" or neurons[name]["verdicts"]["reject"] > 0, name
    assert neurons["miner-late"]["reasons"].get("deadline", 0) > 0
    assert all(neurons[name]["dividends"] > 0 for name in ("validator-1", "validator-2"))
    assert neurons["validator-1"]["stake"] > neurons["validator-2"]["stake"]
    assert 0 < result["peak_memory_bytes"] < LIMIT
    assert processes_of(home) == []


@pytest.mark.timeout(300)
def test_a_second_run_resumes_is_audited_and_ends_with_ctrl_c(home: Path) -> None:
    before = json.loads((home / "out.json").read_text())
    process = subprocess.Popen(job(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENV)
    try:
        said, url = _until_started(process)
        assert "resuming the chain" in said and "is there already" in said and "registered as uid" not in said
        netuid = str(before["netuid"])
        code, status = touchstone("status", "--netuid", netuid, "--network", url, "--data-dir", str(home / "data"))
        assert code == 0 and status["block"] >= before["block"]
        uids = {neuron["hotkey"]: neuron["uid"] for neuron in status["neurons"]}
        assert all(uids[neuron["hotkey"]] == neuron["uid"] for neuron in before["neurons"].values())
        fast = next(n for n in status["neurons"] if n["hotkey"] == before["neurons"]["miner-fast"]["hotkey"])
        assert fast["score"] > 0, "scores did not survive the restart"

        epoch = before["epochs"][-1]
        code, audited = touchstone("audit", "--netuid", netuid, "--network", url, "--epoch", str(epoch["index"]))
        assert code == 0 and audited["ok"] and audited["block"] == epoch["block"]
        paid = {neuron["hotkey"]: neuron["incentive"]["paid"] for neuron in audited["neurons"]}
        assert paid[fast["hotkey"]] == pytest.approx(epoch["incentive"]["miner-fast"] * 65535, abs=1)

        second = subprocess.run(job(home), capture_output=True, text=True, env=ENV, timeout=60)
        assert second.returncode == 1 and "another main job is running" in second.stderr
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert processes_of(home) == [], "Ctrl-C left processes behind"
    port = int(url.rpartition(":")[2])
    assert all(c.laddr.port != port for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN)


def _until_started(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What was said until the neurons were started, and the chain's address."""
    assert process.stdout is not None
    said, url, deadline = "", "", time.monotonic() + 120
    for line in process.stdout:
        said += line
        if "chain at ws://" in line:
            url = line.split("chain at ")[1].split(",")[0]
        if "look at it yourself" in line:
            return said, url
        assert time.monotonic() < deadline, said
    raise AssertionError(f"the main job ended: {said}")
