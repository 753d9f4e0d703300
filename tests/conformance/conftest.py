"""A chain to talk to: at `TOUCHSTONE_ENDPOINT` when that is set, otherwise a node of this repository as a process.

On somebody else's chain the suite uses the development accounts. Where those have no money, or where //Alice is not the
sudo key, the tests that need it skip and say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import bittensor as bt
import pytest

from tests.conformance.clients.base import ALICE, Client
from tests.conformance.clients.btcli import Btcli
from tests.conformance.clients.sdk import AsyncSdk, SyncSdk
from tests.conformance.clients.substrate import Substrate
from tests.support.drand import pulse_file

ENDPOINT_VARIABLE = "TOUCHSTONE_ENDPOINT"
START_TIMEOUT = 60.0  # seconds until a node of ours must answer
BLOCK_TIME = 0.15  # seconds; a shielded registration has eight blocks to arrive
CLOSE_TIMEOUT = 3.0
CLIENTS = ("sdk", "sdk-async", "substrate-interface", "btcli")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    given = os.environ.get(ENDPOINT_VARIABLE)
    if given:
        yield given
        return
    folder = tmp_path_factory.mktemp("node")
    ready, pulses = folder / "ready", pulse_file(folder / "pulses")
    command = [sys.executable, "-m", "localnet", "--port", "0", "--block-time", str(BLOCK_TIME), "--quiet"]
    if importlib.util.find_spec("py_arkworks_bls12381"):  # there is none for Python 3.10
        command += ["--drand", str(pulses)]
    command += ["--ready-file", str(ready)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        yield _wait_for(ready, process)
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=15)
        print(errors, file=sys.stderr)
    assert process.returncode == 0, f"the node ended with status {process.returncode}: {errors}"


def _wait_for(ready: Path, process: subprocess.Popen[str]) -> str:
    deadline = time.monotonic() + START_TIMEOUT
    while not ready.exists():
        if process.poll() is not None:
            raise RuntimeError(f"the node did not start: {process.communicate()[1]}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"the node was not ready within {START_TIMEOUT} s")
        time.sleep(0.02)
    return ready.read_text().strip()


@pytest.fixture(scope="session")
def foreign() -> bool:
    """True on a chain that is not ours."""
    return bool(os.environ.get(ENDPOINT_VARIABLE))


@pytest.fixture(scope="session")
def observer(endpoint: str) -> Iterator[Substrate]:
    """A client of its own for looking on."""
    chain = Substrate(endpoint)
    yield chain
    chain.close()


@pytest.fixture(scope="session")
def sudo(observer: Substrate) -> None:
    """Skips where //Alice cannot act as root."""
    if observer.storage("Sudo", "Key") != ALICE.cold:
        pytest.skip("this chain's sudo key is not //Alice: nothing that needs root can be tested on it")


@pytest.fixture(scope="session")
def money(observer: Substrate) -> None:
    """Skips where //Alice has nothing to hand out."""
    if observer.balance(ALICE.cold) < 50_000 * 10**9:
        pytest.skip("//Alice holds less than 50000 TAO on this chain: accounts for the tests cannot be funded")


@pytest.fixture(scope="class", params=CLIENTS)
def client(request: pytest.FixtureRequest, endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    made = make_client(request.param, endpoint, tmp_path_factory)
    yield made
    made.close()


@pytest.fixture
async def sdk(endpoint: str) -> AsyncIterator[bt.Client]:
    """The asynchronous SDK.

    Closing is bounded: it cancels a task that waits with `asyncio.wait_for`, which before Python 3.12 can lose the
    cancellation when a message arrives at the same moment.
    """
    client = await bt.Client(endpoint).connect()
    yield client
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(client.close(), CLOSE_TIMEOUT)


def make_client(name: str, endpoint: str, folders: pytest.TempPathFactory) -> Client:
    if name == "btcli":
        return Btcli(endpoint, folders.mktemp("home"))
    return {"sdk": SyncSdk, "sdk-async": AsyncSdk, "substrate-interface": Substrate}[name](endpoint)


_failed: dict[str, str] = {}  # class and parameters -> the step that failed


def _chain_of(item: pytest.Item) -> str | None:
    cls = getattr(item, "cls", None)
    return f"{cls.__name__}[{item.callspec.id}]" if cls is not None and hasattr(item, "callspec") else None  # type: ignore[attr-defined]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Steps of a class build on each other: after the first that fails, the others say so and do not run."""
    outcome = yield
    chain = _chain_of(item)
    if chain and outcome.get_result().failed:  # type: ignore[attr-defined]
        _failed.setdefault(chain, item.name)


def pytest_runtest_setup(item: pytest.Item) -> None:
    chain = _chain_of(item)
    if chain in _failed:
        pytest.skip(f"builds on {_failed[chain]}, which failed")
