"""@polkadot/api, the JavaScript client: `polkadot/client.mjs` runs once and prints what it saw, the tests here judge.

It needs node and the package, at the version that `polkadot/package.json` names: `npm install` in that folder, or
anywhere else with TOUCHSTONE_NODE_MODULES set to the `node_modules` that it made. Without them these tests skip.

The chain here finalizes two blocks behind its head: this client goes over to a newer state of an extrinsic when it
arrives, and would never show `InBlock` where both come at once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localnet import SyncLocalnet
from tests.conformance.conftest import ENDPOINT_VARIABLE

FOLDER = Path(__file__).parent / "polkadot"
MODULES_VARIABLE = "TOUCHSTONE_NODE_MODULES"
BLOCK_TIME = 0.1  # seconds
TIMEOUT = 60.0  # seconds for the whole script, which gives itself 40
TAO = 10**9

Seen = dict[str, Any]


def installed() -> Path:
    """The node_modules folder that has the pinned version. Skips when there is none."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    folder = Path(os.environ.get(MODULES_VARIABLE) or FOLDER / "node_modules")
    manifest = folder / "@polkadot" / "api" / "package.json"
    if not manifest.exists():
        pytest.skip(f"@polkadot/api is not in {folder}: npm install, or set {MODULES_VARIABLE}")
    wanted = json.loads((FOLDER / "package.json").read_text())["dependencies"]["@polkadot/api"]
    found = json.loads(manifest.read_text())["version"]
    if found != wanted:
        pytest.skip(f"@polkadot/api {found} is in {folder}, these tests are for {wanted}")
    return folder


@pytest.fixture(scope="module")
def lagging() -> Iterator[str]:
    """The endpoint: a chain of ours with finality behind its head, or the given one."""
    given = os.environ.get(ENDPOINT_VARIABLE)
    if given:
        yield given
        return
    with SyncLocalnet(mining="interval", block_time=BLOCK_TIME, finality_lag=2) as net:
        yield net.url


@pytest.fixture(scope="module")
def seen(request: pytest.FixtureRequest) -> Seen:
    modules = installed()
    command = ["node", str(FOLDER / "client.mjs"), request.getfixturevalue("lagging"), str(modules)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    result: Seen = json.loads(done.stdout)
    return result


def test_it_reads_both_versions_of_the_metadata(seen: Seen) -> None:
    identity = seen["identity"]
    assert identity["spec"] == 461 and identity["metadata"] == [15, 14]
    assert identity["pallets"][0] == identity["pallets"][1] > 20
    assert identity["properties"]["tokenSymbol"] == ["TAO"] and identity["deposit"] == "500"


def test_it_follows_heads_and_computes_their_hashes_itself(seen: Seen) -> None:
    heads = seen["heads"]
    first = heads["numbers"][0]
    assert heads["numbers"] == [first, first + 1, first + 2]
    assert heads["parents"][1:] == heads["hashes"][:-1]
    assert heads["hashes"][-1] == heads["recorded"]
    assert heads["finalized"] <= heads["numbers"][-1]


def test_it_subscribes_to_storage_and_walks_maps(seen: Seen) -> None:
    storage = seen["storage"]
    assert storage["times"] == sorted(set(storage["times"])) and len(storage["times"]) == 3
    assert [0, True] in storage["networks"] and [1, True] in storage["networks"]
    assert storage["tempos"][1] > 0 and storage["atGenesis"] == 0
    assert storage["missing"].startswith("5C4hrfjw9")  # the default of an account: all zeros


def test_it_calls_the_runtime_by_the_metadata(seen: Seen) -> None:
    runtime = seen["runtime"]
    assert runtime["netuid"] == 1 and runtime["hotkeys"] >= 1
    assert int(runtime["price"]) > 0 and runtime["absent"] is True


def test_its_transfer_is_ready_in_a_block_and_final(seen: Seen) -> None:
    transfer = seen["transfer"]
    assert transfer["error"] is None and transfer["included"]
    states = [state for state in transfer["states"] if state != "Broadcast"]  # a node with peers
    assert states == ["Ready", "InBlock", "Finalized"]
    assert transfer["balances"] == ["0", str(TAO)]
    assert transfer["events"] == [
        "balances.Withdraw", "system.NewAccount", "balances.Endowed", "balances.Transfer", "balances.Deposit",
        "transactionPayment.TransactionFeePaid", "system.ExtrinsicSuccess",
    ]  # fmt: skip
    assert transfer["fee"] == transfer["quoted"] and transfer["weight"] == "224051000"


def test_it_names_what_the_chain_refuses(seen: Seen) -> None:
    failures = seen["failures"]
    assert failures["dispatched"]["error"] == "subtensorModule.NotSubnetOwner"
    assert json.loads(failures["batched"]["error"]) == {"token": "FundsUnavailable"}
    assert failures["batched"]["events"][-1] == "system.ExtrinsicFailed"
    assert failures["stale"] == "1010: Invalid Transaction: Transaction is outdated"
    assert failures["penniless"].startswith("1010: Invalid Transaction: Inability to pay some fees")
    assert "nable to retrieve header" in failures["unknown"]


def test_it_works_over_plain_posts_too(seen: Seen) -> None:
    here, there = seen["post"]["genesis"]
    assert here == there
