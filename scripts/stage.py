"""The stage of the main job: the chain's process, the wallets, the subnet. Every step can be run again.

Coldkeys lie in `.touchstone/operator`, where no neuron looks; what neurons get in `.touchstone/hotkeys` holds hotkeys
and public files only, as it should be on any machine that serves.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fit import Fitting
from lineup import Part
from processes import Household

from neurons import models
from neurons.model_command import commit_model
from template.chain import Chain
from template.errors import TemplateError
from template.inference.manifest import find_prepared
from template.keys import Hotkey, create_wallet
from template.operations import RAO, Operator

BLOCK_SECONDS = 0.25  # the chain's own constant; SDK clients read it from the metadata
TEMPO = 240  # blocks: an epoch every minute, enough for three rounds of challenges on a busy machine
USUAL_PORT = 9944
OWNER = "owner"
ROOT = 0  # netuid of the root network, where stake is held in TAO
OWNER_TAO = 3_000.0  # the lock cost of a subnet is 1,000
MINER_TAO = 200.0  # registration costs 1 and a quarter more after every registration
POOL_SHARE = 0.02  # of a validator's root stake that also buys the subnet's own token
FIRST_TEMPO = 24  # blocks: until the first epoch has given the validators their permits; miners serve nobody else
HYPERPARAMETERS = {
    "tempo": FIRST_TEMPO,
    "weights_rate_limit": 40,  # blocks: a validator may set weights every 10 s
    "serving_rate_limit": 4,  # a restarted miner publishes its new port at once
    "immunity_period": 100,
    "max_allowed_validators": 2,
    "commit_reveal": False,  # revealing needs randomness from outside this machine
    "emission_enabled": True,
}


class StageError(TemplateError):
    """The chain or the subnet cannot be set up."""


class Stage:
    """Brings chain, wallets and subnet into the state the neurons need."""

    def __init__(
        self, home: Path, house: Household, say: Callable[[str], None], runtime: Fitting | None = None
    ) -> None:
        """`runtime`: what the chain runs; None for the specification runtime."""
        self.home = home
        self.house = house
        self.say = say
        self.runtime = runtime
        self.url = ""
        self.chain: Chain | None = None
        self.addresses: dict[str, str] = {}  # part name -> hotkey
        self._wallets: dict[str, Any] = {}

    async def open(self) -> Chain:
        """Start the chain and wait until it answers."""
        ready = self.home / "chain.ready"
        ready.unlink(missing_ok=True)
        state = self.home / "chain.sqlite"
        self.say("resuming the chain" if state.exists() else "starting a chain")
        command = [sys.executable, "-m", "localnet", "--port", str(_port()), "--block-time", str(BLOCK_SECONDS)]
        if self.runtime is not None:
            command += self.runtime.options
            self._tell_runtime(self.runtime)
        self.house.start("chain", [*command, "--state", str(state), "--ready-file", str(ready)])
        deadline = time.monotonic() + 60
        while not ready.exists():
            if not self.house.alive("chain") or time.monotonic() > deadline:
                words = "\n  ".join(self.house.last_words("chain", 8))
                raise StageError(f"the chain did not start:\n  {words}")
            await asyncio.sleep(0.05)
        self.url = ready.read_text().strip()
        self.chain = Chain(self.url)
        block = await self.chain.wait_ready(longest=30)
        self.say(f"chain at {self.url}, block {block}")
        return self.chain

    def _tell_runtime(self, runtime: Fitting) -> None:
        if runtime.slot != BLOCK_SECONDS:
            self.say(
                f"blocks come every {BLOCK_SECONDS:g} s here and are {runtime.slot:g} s apart in chain time, "
                "which validators audit by"
            )
        for note in runtime.notes:
            self.say(f"not as in the metadata that the SDK was made for: {note}")

    async def prepare(self, lineup: Sequence[Part]) -> int:
        """Wallets, funds, subnet, registrations, stake; the netuid."""
        assert self.chain is not None
        lineup = list({part.name: part for part in lineup}.values())  # one hotkey may play two parts
        wallets = self._wallets = {name: self._wallet(name) for name in (OWNER, *(part.name for part in lineup))}
        self.addresses = {part.name: wallets[part.name].hotkey.ss58_address for part in lineup}
        alice = Operator(self.chain, Hotkey.from_uri("//Alice").keypair)  # the bank and the sudo key of a local chain
        amounts = {OWNER: OWNER_TAO} | {part.name: part.stake * (1 + POOL_SHARE) + MINER_TAO for part in lineup}
        netuid = await self._subnet(alice, wallets, amounts)
        if not await self.chain.query("SubtokenEnabled", ROOT):  # a new chain does not take stake on root yet
            await alice.admin("sudo_set_subtoken_enabled", {"netuid": ROOT, "subtoken_enabled": True})
        for part in lineup:
            await self._join(alice, part, wallets[part.name], netuid, amounts[part.name])
        validators = [self.addresses[part.name] for part in lineup if part.validates]
        await self._permits(alice, netuid, validators)
        return netuid

    def wallet(self, name: str) -> Any:
        """The SDK's handle, with the coldkey. `prepare` comes first."""
        return self._wallets[name]

    async def commit_model(self, netuid: int) -> None:
        """The owner commits the root of the model that neurons without flags hold, unless the chain holds it already.

        Comes after the model was prepared: nothing is downloaded here, only read (0.3 s).
        """
        assert self.chain is not None
        prepared = await asyncio.to_thread(find_prepared, models.default_settings())
        if prepared is None:
            raise StageError("no model is prepared, so none can be committed", remedy="run: python -m neurons.models")
        owner = Hotkey.load(OWNER, path=self.home / "hotkeys")
        if await commit_model(self.chain, netuid, owner, prepared):
            self.say(f"the owner committed model root {prepared.identity.root[:16]} in {prepared.identity.dtype}")

    async def _permits(self, alice: Operator, netuid: int, validators: Sequence[str]) -> None:
        """Wait for the epoch that gives permits, then let epochs come at the pace of the demonstration."""
        assert self.chain is not None
        deadline = time.monotonic() + 60
        while True:
            graph = await self.chain.metagraph(netuid)
            if all(graph.by_hotkey[hotkey].validator_permit for hotkey in validators):
                break
            if time.monotonic() > deadline:
                raise StageError("the validators got no permit in a minute", remedy="start anew with --fresh")
            await asyncio.sleep(BLOCK_SECONDS)
        if graph.tempo != TEMPO:
            await alice.tune(netuid, {"tempo": TEMPO})
            self.say(f"the validators have permits; from now on an epoch every {TEMPO * BLOCK_SECONDS:.0f} s")

    def _wallet(self, name: str) -> Any:
        wallet = create_wallet(name, path=self.home / "operator", password=False)
        source = self.home / "operator" / name
        target = self.home / "hotkeys" / name
        if not (target / "hotkeys" / "default").exists():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("coldkey"), dirs_exist_ok=True)
        return wallet

    async def _subnet(self, alice: Operator, wallets: dict[str, Any], amounts: dict[str, float]) -> int:
        assert self.chain is not None
        record = self.home / "subnet.json"
        genesis = await self.chain.block_hash(0)
        if record.exists():
            known = json.loads(record.read_text())
            if known["genesis"] == genesis and await self.chain.query("NetworksAdded", known["netuid"]):
                self.say(f"subnet {known['netuid']} is there already")
                return int(known["netuid"])
        owner = wallets[OWNER]
        await alice.fund_to(owner.coldkeypub.ss58_address, amounts[OWNER])
        self.say("registering a subnet")
        netuid = await Operator(self.chain, owner).create_subnet(owner.hotkey.ss58_address)
        # With a tempo of a few blocks the chain is always inside the window in which settings are frozen.
        await alice.admin("sudo_set_admin_freeze_window", {"window": 0})
        await alice.tune(netuid, HYPERPARAMETERS)
        record.write_text(json.dumps({"netuid": netuid, "genesis": genesis}))
        self.say(f"subnet {netuid} registered and activated")
        return netuid

    async def _join(self, alice: Operator, part: Part, wallet: Any, netuid: int, tao: float) -> None:
        assert self.chain is not None
        hotkey = wallet.hotkey.ss58_address
        if await self.chain.uid(netuid, hotkey) is not None and await self._staked(part, hotkey):
            return
        await alice.fund_to(wallet.coldkeypub.ss58_address, tao)
        operator = Operator(self.chain, wallet)
        uid = await operator.register(netuid, hotkey)
        if not await self._staked(part, hotkey):
            await operator.stake(netuid, hotkey, part.stake * POOL_SHARE)
            await operator.stake(ROOT, hotkey, part.stake)
        staked = f", staked {part.stake:,.0f} TAO" if part.stake else ""
        self.say(f"{part.name} registered as uid {uid}{staked}")

    async def _staked(self, part: Part, hotkey: str) -> bool:
        """Whether the stake on root, which is made last, is there."""
        assert self.chain is not None
        return int(await self.chain.query("TotalHotkeyAlpha", hotkey, ROOT)) >= int(part.stake * RAO)


def _port() -> int:
    """The usual port when it is free, so that `--network local` finds this chain; else any."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", USUAL_PORT))
        except OSError:
            return 0
    return USUAL_PORT
