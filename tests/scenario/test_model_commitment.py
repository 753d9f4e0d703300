"""The model that a subnet's owner committed: made by a command, held against every neuron, at the start and later."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from localnet.net import Localnet
from neurons import miner, models, validator
from neurons.doctor import check_committed
from neurons.model_command import model
from neurons.models import CommittedModel, OtherModel
from neurons.runtime import ChainWatch
from protocol.metagraph import Metagraph
from protocol.model_root import InclusionProof, Leaf, ModelCommitment, verify_inclusion
from template.chain import Chain
from template.errors import TemplateError
from template.inference.manifest import PreparedModel
from template.inference.models import prepare_model
from template.keys import Hotkey, create_wallet
from template.operations import Operator
from template.settings import MinerSettings, ValidatorSettings
from tests.support.inference import write_tiny_model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127/8 on loopback")

OTHER_ROOT = ModelCommitment("ab" * 32, "float32").encode()
NOT_OURS = ("hello", "{}", "touchstone", "5F3sa2TJAWMqDhXG6jhV4N8ko9SxwGy8TQ1DyUy", "x" * 128)
UNKNOWN_FORM = ("touchstone-model/2:" + "ab" * 32, "touchstone-model/1:" + "AB" * 32 + ":float32", "touchstone-model/")


@dataclass
class World:
    """A subnet with an owner and one other neuron, whose keys and tiny model lie below `home`."""

    home: Path
    chain: Chain
    netuid: int
    prepared: PreparedModel
    owner: Hotkey
    neuron: Hotkey

    @property
    def common(self) -> dict[str, Any]:
        """Settings of the other neuron."""
        return {
            "network": self.chain.network,
            "netuid": self.netuid,
            "wallet": "neuron",
            "wallet_path": self.home / "wallets",
            "data_dir": self.home / "data",
            "metagraph_refresh": 0.05,
            "model_source": "path",
            "model_name": str(self.home / "origin"),
        }

    def miner(self) -> MinerSettings:
        return MinerSettings(**self.common, host="127.0.0.2", port=0)

    async def command(self, *, wallet: str = "owner", **options: Any) -> int:
        chosen = {"model_source": "path", "model_name": str(self.home / "origin")}
        defaults: dict[str, Any] = {"commit": False, "tensor": None, "as_json": True}
        wallets = self.home / "wallets"
        return await model(self.chain.network, self.netuid, wallet, "default", wallets, chosen, **(defaults | options))

    async def commit(self, text: str) -> None:
        await self.chain.commit(self.netuid, self.owner, text)


@pytest_asyncio.fixture
async def world(localnet: Localnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setenv("TOUCHSTONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TOUCHSTONE_MODEL_SOURCE", "path")
    monkeypatch.setenv("TOUCHSTONE_MODEL_NAME", str(write_tiny_model(tmp_path / "origin")))
    for name in ("owner", "neuron"):
        create_wallet(name, path=tmp_path / "wallets", password=False)
    owner, neuron = (Hotkey.load(name, path=tmp_path / "wallets") for name in ("owner", "neuron"))
    async with Chain(localnet.url) as chain:
        alice = Operator(chain, Hotkey.from_uri("//Alice").keypair)
        netuid = await alice.create_subnet(owner.ss58)
        await alice.admin("sudo_set_admin_freeze_window", {"window": 0})
        await alice.tune(netuid, {"serving_rate_limit": 0})
        await alice.register(netuid, neuron.ss58)
        yield World(tmp_path, chain, netuid, prepare_model(models.default_settings()), owner, neuron)


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


async def test_the_owner_commits_once_and_everybody_compares(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert await world.command() == 0
    before = printed(capsys)
    assert before["chain"]["committed"] is None and before["chain"]["agrees"] is None
    assert before["root"] == world.prepared.identity.root and before["leaves"] == len(world.prepared.leaves)

    with pytest.raises(TemplateError, match="not the hotkey of subnet"):
        await world.command(commit=True, wallet="neuron")
    assert await world.chain.commitment(world.netuid, world.neuron.ss58) is None

    assert await world.command(commit=True) == 0
    assert printed(capsys)["chain"]["agrees"] is True
    block = (await world.chain.query("CommitmentOf", world.netuid, world.owner.ss58, pallet="Commitments"))["block"]
    assert await world.command(commit=True) == 0
    printed(capsys)
    again = await world.chain.query("CommitmentOf", world.netuid, world.owner.ss58, pallet="Commitments")
    assert again["block"] == block, "the same root was committed twice"

    await world.commit(OTHER_ROOT)
    assert await world.command() == 1
    after = printed(capsys)["chain"]
    assert after["agrees"] is False and after["committed"] == {"root": "ab" * 32, "dtype": "float32"}
    assert await world.command(as_json=False) == 1
    assert "ANOTHER MODEL" in capsys.readouterr().out


async def test_the_command_proves_one_tensor(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("model.norm.weight", "eos_ids"):
        assert await world.command(tensor=name) == 0
        told = printed(capsys)
        leaf = Leaf(**{**told["leaf"], "shape": tuple(told["leaf"]["shape"])})
        proof = InclusionProof(**{**told["proof"], "path": tuple(told["proof"]["path"])})
        assert leaf.name.endswith(name) and verify_inclusion(world.prepared.identity.root, leaf, proof)
    with pytest.raises(TemplateError, match=r"did you mean model\.norm\.weight"):
        await world.command(tensor="model.norm.wieght")


async def test_a_neuron_with_another_model_refuses_to_start(world: World) -> None:
    root = world.prepared.identity.root
    for text in (OTHER_ROOT, ModelCommitment(root, "bfloat16").encode(), *UNKNOWN_FORM):
        await world.commit(text)
        for start in (
            miner.serve(world.miner(), asyncio.Event(), miner.serve_model),
            validator.validate(ValidatorSettings(**world.common), asyncio.Event()),
        ):
            with pytest.raises(OtherModel) as refused:
                await asyncio.wait_for(start, 60)
            assert refused.value.remedy
            if text not in UNKNOWN_FORM:
                assert root in refused.value.message and ModelCommitment.parse(text).root in refused.value.message
    graph = await world.chain.metagraph(world.netuid)
    assert not graph.by_hotkey[world.neuron.ss58].is_serving, "it published an address before it refused"


async def test_without_a_model_commitment_a_neuron_warns_and_goes_on(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    watch = ChainWatch(world.chain, world.netuid, world.neuron.ss58)
    await watch.start()
    for text in (None, *NOT_OURS):
        if text is not None:
            await world.commit(text)
        caplog.clear()
        await CommittedModel(watch).require(world.prepared.identity)
        assert "touchstone model --commit" in caplog.text
    await world.commit(ModelCommitment(world.prepared.identity.root, "float32").encode())
    caplog.clear()
    await CommittedModel(watch).require(world.prepared.identity)
    assert "touchstone model --commit" not in caplog.text


async def serving(world: World) -> int:
    """The port the miner published, once it has."""
    while True:
        neuron = (await world.chain.metagraph(world.netuid)).by_hotkey[world.neuron.ss58]
        if neuron.is_serving:
            return neuron.port
        await asyncio.sleep(0.05)


async def test_a_running_miner_stops_serving_when_the_model_changes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    class Watched(CommittedModel):
        async def check(self, graph: Metagraph) -> None:
            nonlocal looks
            await super().check(graph)
            looks += 1

    monkeypatch.setattr(models, "CommittedModel", partial(Watched, every=0.0))
    await world.commit(ModelCommitment(world.prepared.identity.root, "float32").encode())
    running = asyncio.ensure_future(miner.serve(world.miner(), asyncio.Event(), miner.serve_model))
    waiting = asyncio.ensure_future(serving(world))
    await asyncio.wait({running, waiting}, timeout=120, return_when=asyncio.FIRST_COMPLETED)
    assert waiting.done() and not running.done()
    await world.commit("something else")  # no word about a model is no reason to stop
    began = looks
    while looks < began + 2 and not running.done():  # the second began when that was on chain
        await asyncio.sleep(0.05)
    assert not running.done()
    await world.commit(OTHER_ROOT)
    with pytest.raises(OtherModel, match="ab" * 32):
        await asyncio.wait_for(running, 60)
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.2", waiting.result())


async def test_a_running_validator_stops_when_the_model_changes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "CommittedModel", partial(CommittedModel, every=0.0))
    seen = asyncio.Event()

    async def idle(self: validator.Validator, stop: asyncio.Event) -> None:
        seen.set()
        await stop.wait()

    monkeypatch.setattr(validator.Validator, "run", idle)  # rounds have their own tests
    running = asyncio.ensure_future(validator.validate(ValidatorSettings(**world.common), asyncio.Event()))
    waiting = asyncio.ensure_future(seen.wait())
    await asyncio.wait({running, waiting}, timeout=120, return_when=asyncio.FIRST_COMPLETED)
    assert seen.is_set() and not running.done()
    await world.commit(OTHER_ROOT)
    with pytest.raises(OtherModel):
        await asyncio.wait_for(running, 60)


async def test_the_chain_is_asked_again_only_after_a_while(world: World) -> None:
    await world.commit(ModelCommitment(world.prepared.identity.root, "float32").encode())
    watch = ChainWatch(world.chain, world.netuid, world.neuron.ss58)
    await watch.start()
    held = CommittedModel(watch)
    await held.check(watch.metagraph)  # a neuron without a model has nothing to compare
    await held.require(world.prepared.identity)
    await world.commit(OTHER_ROOT)
    await held.check(watch.metagraph)
    held.every = 0.0
    with pytest.raises(OtherModel):
        await held.check(watch.metagraph)


async def test_the_doctor_compares(world: World) -> None:
    assert (await check_committed(world.chain, world.netuid)).level == "warn"
    await world.commit(ModelCommitment(world.prepared.identity.root, "float32").encode())
    assert (await check_committed(world.chain, world.netuid)).level == "ok"
    for text in (OTHER_ROOT, *UNKNOWN_FORM):
        await world.commit(text)
        finding = await check_committed(world.chain, world.netuid)
        assert finding.level == "fail" and finding.remedy
