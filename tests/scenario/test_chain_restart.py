"""A chain that goes away and comes back: under a miner that serves real requests (without a model, it replays answers),
and killed in the middle of its work."""

import json
import os
import random
import signal
import socket
import sqlite3
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lineup import Part
from processes import Household
from stage import Stage

from tests.support.crash import Inconsistent, Seen, inspect, rounds

REPO = Path(__file__).parents[2]
LINEUP = (
    Part("validator-1", "validator", "validator", stake=1_000.0),
    Part("miner-canned", "canned answers", "canned", honest=False, needs_model=False),
)


def eventually(what: str, test: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for: {what}"
        time.sleep(0.1)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Household]:
    path = os.pathsep.join(filter(None, (str(REPO), os.environ.get("PYTHONPATH", ""))))
    with Household(tmp_path / "logs", {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}) as household:
        yield household


def log_of(house: Household, name: str) -> str:
    return house.children[name].log.read_text()


def get(port: int, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.2:{port}{path}", timeout=5) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        return int(probe.getsockname()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127/8 on loopback")
async def test_a_miner_survives_the_chain_and_leaves_nothing_behind(house: Household, tmp_path: Path) -> None:
    stage = Stage(tmp_path, house, print)
    async with await stage.open() as chain:
        netuid = await stage.prepare(LINEUP)
        axon = free_port()
        house.start("miner", miner(stage.url, netuid, tmp_path, axon))
        eventually("the miner publishes its address", lambda: "published" in log_of(house, "miner"))
        neuron = (await chain.metagraph(netuid)).by_hotkey[stage.addresses["miner-canned"]]
        assert (neuron.ip, neuron.port) == ("127.0.0.2", axon)
        status, body = get(axon, "/health")
        assert status == 200 and json.loads(body)["registered"] is True
        assert get(axon, "/metrics")[0] == 200

        chain.timeout = 3.0  # of one call: the connection to the old node is found dead after it
        height = await chain.block()
        house.stop(["chain"])
        eventually("the miner notices", lambda: get(axon, "/health")[0] == 503)
        assert house.alive("miner"), "a lost chain must not end a miner"
        chain_port = stage.url.rpartition(":")[2]
        house.start("chain", chain_command(tmp_path, chain_port))
        eventually("the miner is well again", lambda: get(axon, "/health")[0] == 200)
        assert "the chain answers again" in log_of(house, "miner")
        assert await chain.wait_ready(longest=30) >= height, "the chain forgot blocks"

        process = house.children["miner"].process
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections linger in TIME_WAIT
            probe.bind(("127.0.0.2", axon))  # nobody listens there any more


def miner(url: str, netuid: int, home: Path, port: int) -> list[str]:
    flags = ["--network", url, "--netuid", str(netuid), "--wallet", "miner-canned", "--metagraph-refresh", "0.5"]
    folders = ["--wallet-path", str(home / "hotkeys"), "--data-dir", str(home / "data")]
    program = [sys.executable, str(REPO / "scripts" / "lineup.py"), "canned"]
    return [*program, *flags, *folders, "--host", "127.0.0.2", "--port", str(port), "--chain-timeout", "3"]


def chain_command(home: Path, port: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "localnet",
        "--port",
        port,
        "--block-time",
        "0.25",
        "--state",
        str(home / "chain.sqlite"),
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127/8 on loopback")
async def test_an_unregistered_hotkey_is_told_the_command(house: Household, tmp_path: Path) -> None:
    stage = Stage(tmp_path, house, print)
    async with await stage.open():
        netuid = await stage.prepare(LINEUP[:1])
        stage._wallet("miner-canned")
        child = house.start("miner", miner(stage.url, netuid, tmp_path, 0))
        assert child.process.wait(120) == 1
        words = log_of(house, "miner")
        assert f"touchstone register --network {stage.url} --netuid {netuid} --wallet miner-canned" in words
        assert "Traceback" not in words


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
async def test_a_chain_killed_under_load_has_lost_at_most_the_block_in_flight(tmp_path: Path) -> None:
    """Three times of the two hundred that benchmarks/localnet_crash.py does; then the check is shown a damaged file."""
    file = tmp_path / "chain.sqlite"
    lines = await rounds(file, 3, random.Random(7), longest=0.4, retrace=2)
    assert sum(line["transfers"] for line in lines) > 0
    assert lines[-1]["stored"] > 2 and all(line["lost"] <= 1 for line in lines)
    with pytest.raises(Inconsistent, match="was announced"):
        await inspect(file, Seen(heads={lines[-1]["stored"] + 9: "0x00"}))
    number = "26aa394eea5630e07c48ae0c9558cef702a5c1b19ab7a04f536c519aca4983ac"  # System.Number
    with sqlite3.connect(file) as db:
        assert db.execute(f"UPDATE state SET value = X'07000000' WHERE key = X'{number}'").rowcount == 1
    db.close()
    with pytest.raises(Inconsistent, match="not those its header commits to"):
        await inspect(file, Seen())
