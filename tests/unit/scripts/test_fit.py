"""The main job's question to a released runtime: what it asks for is what it uses, and whoever lacks it is refused."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fit
import pytest
from fit import NEEDS, Misfit, examine, misfits, notes
from lineup import Part
from stage import BLOCK_SECONDS, Stage, StageError

from localnet import Localnet
from localnet.codec.document import Document
from localnet.wasm import runtime as wasm_runtime
from template.chain import Chain
from template.keys import Hotkey
from template.operations import Operator
from tests.unit.localnet.wasm.test_report import Stand, code

INHERENT = {"Timestamp.set", "MevShield.announce_next_key"}  # put into blocks by their author
CAST = [Part("v", "validator", "validator", stake=3_000.0), Part("m", "miner", "miner")]
APIS = tuple(Document.load().apis)


class Watched:
    """What clients ask a chain for, by name."""

    def __init__(self, net: Localnet) -> None:
        self.net, self.storage, self.apis = net, set[str](), set[str]()
        self._answer = net.rpc.handle
        net.rpc.handle = self._handle  # type: ignore[method-assign]

    def _handle(self, connection: Any, request: Any) -> Any:
        method, params = request["method"], request.get("params", [])
        if method.startswith(("state_getStorage", "state_getKeysPaged")):
            self._key(params[0])
        elif method.startswith("state_queryStorage"):
            for key in params[0]:
                self._key(key)
        elif method.startswith("state_call"):
            self.apis.add(params[0])
        return self._answer(connection, request)

    def _key(self, key: str) -> None:
        entry = self.net.client.document.by_prefix[bytes.fromhex(key.removeprefix("0x"))[:32]]
        self.storage.add(f"{entry.pallet}.{entry.name}")

    def calls(self) -> set[str]:
        """Of all blocks, those inside others too."""
        shown = [
            self.net.client.show_call(raw, block.number)
            for block in self.net.chain.blocks[1:]
            for raw in block.extrinsics or ()
        ]
        return {name for call in shown for name in _names(call)} - INHERENT


def _names(call: dict[str, Any]) -> Iterator[str]:
    yield f"{call['pallet']}.{call['call']}"
    inner = call["arguments"].get("call")
    if isinstance(inner, dict):
        ((pallet, body),) = inner.items()
        yield f"{pallet}.{next(iter(body))}"


async def test_what_is_needed_is_what_the_main_job_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The SDK remembers symbols by address for a week: with an earlier chain's port it would not ask for them.
    monkeypatch.setenv("BTCLI_TOKEN_SYMBOLS_CACHE", str(tmp_path / "symbols.json"))
    nobody: Any = None
    async with Localnet(block_time=0.1) as net, Chain(net.url) as chain:
        watched = Watched(net)
        stage = Stage(tmp_path, nobody, print)
        stage.url, stage.chain = net.url, chain
        netuid = await stage.prepare(CAST)
        assert await stage.prepare(CAST) == netuid  # a run that resumes
        validator, miner = (Hotkey.load(part.name, path=tmp_path / "hotkeys") for part in CAST)
        assert await chain.serve_axon(netuid, miner, "127.0.0.2", 8091)
        await chain.commit(netuid, miner, "text")
        await chain.commitments(netuid)
        while not (await chain.set_weights(netuid, validator, {miner.ss58: 1.0})).ok:
            await asyncio.sleep(0.1)  # the rate limit
        owner = Operator(chain, stage.wallet("owner"))
        assert await owner.split_emission(netuid, [0.5, 0.5]) and not await owner.split_emission(netuid, [0.5, 0.5])
        for item in ("SubnetEpochIndex", "LastEpochBlock", "Burn", "Incentive"):  # what watchers and registrations read
            await chain.query(item, netuid)
        await chain.timestamp()
    used = {"calls": watched.calls(), "storage items": watched.storage, "runtime APIs": watched.apis}
    assert {kind: sorted(used[kind] ^ set(names)) for kind, names in NEEDS.items()} == {kind: [] for kind in NEEDS}


def test_the_metadata_that_the_sdk_was_made_for_fits() -> None:
    assert misfits(Document.load(), APIS) == {} and notes(Document.load()) == ()


def test_everything_that_is_missing_is_named() -> None:
    poor = copy.copy(Document.load())
    poor.calls = {pallet: dict(calls) for pallet, calls in poor.calls.items()}
    poor.storage = dict(poor.storage)
    del poor.calls["MevShield"], poor.calls["SubtensorModule"]["start_call"]
    poor.calls["SubtensorModule"]["add_stake"] = ("hotkey", "amount_staked")
    del poor.storage["SubtensorModule", "SubnetEpochIndex"]
    poor.storage["SubtensorModule", "Weights"] = poor.storage["SubtensorModule", "Tempo"]
    assert misfits(poor, set(APIS) - {"SubnetInfoRuntimeApi_get_metagraph"}) == {
        "calls": [
            "MevShield.submit_encrypted",
            "SubtensorModule.add_stake(hotkey, netuid, amount_staked), which takes (hotkey, amount_staked) there",
            "SubtensorModule.start_call",
        ],
        "storage items": [
            "SubtensorModule.SubnetEpochIndex",
            "SubtensorModule.Weights by 2 keys, which has 1 there",
        ],
        "runtime APIs": ["SubnetInfoRuntimeApi_get_metagraph"],
    }


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module with all that is needed, and beside it a stand-in for what it would do."""
    monkeypatch.setattr(wasm_runtime, "WasmRuntime", Stand)
    path = tmp_path / "runtime.wasm"
    path.write_bytes(code(*NEEDS["runtime APIs"]))
    return path


def test_a_runtime_that_fits_is_what_the_chain_is_started_with(module: Path) -> None:
    said: list[str] = []
    fitting = examine(str(module), said.append)
    assert fitting.options[:3] == ("--runtime", str(module), "--runtime-hash") and fitting.options[3] in said[0]
    assert fitting.options[4:] == ("--dev-accounts",)  # a chain specification gives //Alice nothing by itself
    assert fitting.slot == 12 and fitting.notes == ()
    started: list[list[str]] = []

    class House:
        def start(self, name: str, command: list[str]) -> None:
            started.append(command)

        def alive(self, name: str) -> bool:
            return False

        def last_words(self, name: str, lines: int) -> list[str]:
            return ["out of paper"]

    house: Any = House()
    with pytest.raises(StageError, match="out of paper"):
        asyncio.run(Stage(module.parent, house, said.append, fitting).open())
    assert " ".join(fitting.options) in " ".join(started[0])
    assert "12 s apart in chain time" in " ".join(said)


def test_training_needs_fast_blocks(module: Path) -> None:
    with pytest.raises(Misfit, match=r"blocks of 0.25 s here, and this runtime's are 12 s apart"):
        examine(str(module), print, BLOCK_SECONDS)


def test_what_does_not_fit_is_told_with_versions_and_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wasm_runtime, "WasmRuntime", Stand)
    (tmp_path / "runtime.wasm").write_bytes(code("SubnetInfoRuntimeApi_get_metagraph"))
    with pytest.raises(Misfit) as caught:
        examine(str(tmp_path / "runtime.wasm"), print)
    told = str(caught.value)
    assert "spec 461" in told and "runtime APIs that it does not have:\n    SwapRuntimeApi_current" in told
    assert "get_metagraph" not in told and fit.REMEDY in told


def test_what_is_no_runtime_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear chain")
    for name in ("letter.txt", "nothing"):
        with pytest.raises(Misfit, match="the runtime cannot be used"):
            examine(str(tmp_path / name), print)


def test_what_is_used_and_of_another_form_is_noted() -> None:
    other = copy.copy(Document.load())
    other.storage = dict(other.storage)
    for item, like in (("Uids", "Axons"), ("Kappa", "Tempo")):
        other.storage["SubtensorModule", item] = replace(other.storage["SubtensorModule", like], name=item)
    (note,) = notes(other)  # Kappa is nothing that the main job reads
    assert note.startswith("changed storage SubtensorModule.Uids: ")
