"""Released runtimes: each mines, carries transfers and root's calls, serves clients in two languages, and has a subnet
that lives, by our own client and by the SDK of its age.

    TOUCHSTONE_RUNTIME      files, separated as in PATH: runtimes as a chain stores them, or raw chain specifications
    TOUCHSTONE_OLD_SDK      a python that has bittensor 9, for runtimes that it fits (see wasm_old_sdk.py)

No runtime is part of this repository: `localnet runtime wss://node --save FILE` gets the one that a chain runs today.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from substrateinterface import Keypair, SubstrateInterface

from localnet import Localnet, SyncLocalnet
from localnet.errors import MetadataError
from localnet.net import TAO, RuntimeSource
from localnet.node.documents import document_of
from localnet.runtime.memory import MemoryState
from localnet.wasm.loading import load
from localnet.wasm.runtime import WasmRuntime
from tests.conformance.test_polkadot import installed

FILES = [path for path in os.environ.get("TOUCHSTONE_RUNTIME", "").split(os.pathsep) if path]
OLD_SDK = os.environ.get("TOUCHSTONE_OLD_SDK", "")
SCRIPT = Path(__file__).parent / "wasm_old_sdk.py"
JAVASCRIPT = Path(__file__).parent / "wasm_client.mjs"
BLOCK_TIME = 0.05  # seconds; an SDK needs a hundredth of it to sign, and waits for hundreds of blocks
TIMEOUT = 240.0  # seconds for the SDK's whole story, which takes 20 on a quiet machine
TEMPO = 20

pytestmark = [
    pytest.mark.skipif(not FILES, reason="no real runtime: TOUCHSTONE_RUNTIME names files (runtimes, raw chain specs)"),
    pytest.mark.parametrize("path", FILES, ids=lambda path: Path(path).name),
]


def chain(path: str, **options: Any) -> Localnet:
    """One on which //Alice has money and the sudo key, whatever its file says."""
    return Localnet(runtime=RuntimeSource(path, dev_accounts=True), **{"mining": "manual", **options})


@pytest.fixture
def readable(path: str) -> str:
    """The same path. Skips where nothing can be called by name: such runtimes only make blocks here."""
    try:
        document_of(WasmRuntime(load(path).code.stored), MemoryState())
    except MetadataError as error:
        pytest.skip(f"none of its names can be read: {error}")
    return path


async def test_it_mines_blocks_that_it_takes_itself(path: str) -> None:
    async with Localnet(runtime=path, mining="manual") as net:
        assert await net.mine(20) == 20
        roots = [block.header.state_root for block in net.chain.blocks]
        assert len(set(roots)) == 21  # every block writes its number, if nothing else
        times = [block.timestamp for block in net.chain.blocks[1:]]
        assert all(later - sooner >= net.chain.slot_ms for sooner, later in pairwise(times))


async def test_it_carries_a_transfer_and_a_call_of_roots(readable: str) -> None:
    async with chain(readable) as net:
        before, issued = net.balance("//Bob"), net.query("Balances", "TotalIssuance")
        spender = net.balance("//Alice")
        done = await net.extrinsic("//Alice", "Balances", "transfer_keep_alive", dest="//Bob", value=3 * TAO)
        assert net.balance("//Bob") == before + 3 * TAO
        fee = spender - 3 * TAO - net.balance("//Alice")
        assert 0 <= fee < TAO and net.query("Balances", "TotalIssuance") in (issued, issued - fee)
        assert "Transfer" in [event["name"] for event in done.events]
        await net.sudo("System", "set_storage", items=[(b"a key", b"a value")])
        assert net.chain.storage(b"a key") == b"a value"
        refused = await net.extrinsic("//Bob", "Sudo", "sudo", check=False, call=net.client.call_value(
            "System", "set_storage", {"items": [(b"a key", b"another")]}))  # fmt: skip
        assert not refused.success and net.chain.storage(b"a key") == b"a value"


async def test_a_subnet_lives_on_it(readable: str) -> None:
    async with chain(readable) as net:
        if "AdminUtils" not in net.client.document.calls:
            pytest.skip("it has no AdminUtils pallet, which came with spec 121: subnets are not made on older ones")
        subnet = await net.subnet(miners=3, validators=2, tempo=TEMPO)
        best, good, idle = subnet.miners
        for who in (subnet.owner, *subnet.validators):  # in some versions the owner's stake is the majority
            told = await subnet.set_weights(who, {best.uid: 3, good.uid: 1}, check=who is not subnet.owner)
            assert told.success or who is subnet.owner
        await subnet.epochs(2)
        incentive = net.query("SubtensorModule", "Incentive", subnet.netuid)
        dividends = net.query("SubtensorModule", "Dividends", subnet.netuid)
        assert 2.9 < incentive[best.uid] / incentive[good.uid] < 3.1 and incentive[idle.uid] == 0
        assert sum(dividends[one.uid] for one in subnet.validators) > 0


def served(path: str, **options: Any) -> SyncLocalnet:
    return SyncLocalnet(runtime=RuntimeSource(path, dev_accounts=True), mining="interval", **options)


def test_a_javascript_client_reads_it_and_sends_a_transfer(readable: str) -> None:
    modules = installed()
    with served(readable, block_time=0.1, finality_lag=2) as net:
        command = ["node", str(JAVASCRIPT), net.url, str(modules)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout)
        assert seen["spec"] == net.net.rpc.node.api.version(0)["specVersion"]
        assert seen["accounts"] == len(net.query_map("System", "Account"))
    first = seen["heads"][0]
    assert seen["heads"] == [first, first + 1, first + 2] and seen["hashes"][0] == seen["hashes"][1]
    assert seen["balance"] == str(2 * TAO) and seen["transfer"]["error"] is None
    assert [state for state in seen["transfer"]["states"] if state != "Broadcast"] == ["Ready", "InBlock", "Finalized"]
    assert {"balances.Transfer", "system.ExtrinsicSuccess"} <= set(seen["transfer"]["events"])


def test_substrate_interface_reads_it_and_sends_a_transfer(readable: str) -> None:
    with served(readable, block_time=0.1) as net:
        client = SubstrateInterface(url=net.url)
        dest = Keypair.create_from_uri("//wasm//somebody").ss58_address
        call = client.compose_call("Balances", "transfer_keep_alive", {"dest": dest, "value": TAO})
        signer = Keypair.create_from_uri("//Alice")
        signed = client.create_signed_extrinsic(call, keypair=signer, era={"period": 64})
        receipt = client.submit_extrinsic(signed, wait_for_inclusion=True)
        assert receipt.is_success
        assert client.query("System", "Account", [dest])["data"]["free"] == TAO == net.balance(dest)
        assert "Transfer" in [event.value["event_id"] for event in receipt.triggered_events]
        client.close()


@pytest.fixture
def told(readable: str, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What the SDK saw."""
    if not OLD_SDK:
        pytest.skip("no old SDK: TOUCHSTONE_OLD_SDK names a python that has bittensor 9")
    with served(readable, block_time=BLOCK_TIME) as net:
        if "start_call" not in net.net.client.document.calls.get("SubtensorModule", {}):
            pytest.skip("subnets are not started on it: SDK 9 is younger than it")
        command = [OLD_SDK, str(SCRIPT), net.url, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        yield json.loads(done.stdout)


def test_the_sdk_of_its_age_lives_a_subnets_life(told: dict[str, Any]) -> None:
    assert told["sdk"].startswith("9.")
    assert told["started"][0] and told["started"][2]
    assert told["staked"][0] and told["staked"][1] > TAO
    assert told["axons"] == [f"203.0.113.{number}:8091" for number in (1, 2, 3)]
    assert told["open"] == [True, [[0, 65535], [1, 21845]]]  # 3 to 1
    incentive, dividends, emission = told["incentive"], told["dividends"], told["emission"]
    assert incentive["miner0"] == pytest.approx(0.75, abs=1e-3)
    assert incentive["miner1"] == pytest.approx(0.25, abs=1e-3)
    assert incentive["miner2"] == 0 == emission["miner2"] and dividends["validator"] == pytest.approx(1)
    assert emission["miner0"] == pytest.approx(3 * emission["miner1"], rel=1e-3) and emission["validator"] > 0
    committed, revealed, before, after = told["salted"]
    assert committed and revealed and before == told["open"][1] and after == [[1, 65535], [2, 13107]]  # 5 to 1
    assert told["timelocked"][1], f"{told['timelocked'][0]} is not held"
    done, (stake, free), (stake_left, free_then) = told["unstaked"]
    assert done and stake - stake_left == 100 * TAO and free_then > free
    assert told["transferred"] == [True, 3 * TAO]
