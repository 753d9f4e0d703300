"""A gateway with real miners behind it on loopback, and no chain: the metagraph is made here."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neurons.gateway import Outlook, assemble, open_quota
from neurons.joining import Checking
from protocol.inference import INFERENCE_GENERATE
from protocol.metagraph import Metagraph, Neuron
from template.client import SynapseClient
from template.gateway.access import Access
from template.gateway.routing import Board
from template.gateway.server import GatewayServer
from template.inference.engine import ContinuousBatchingEngine, EngineSettings
from template.inference.models import LoadedModel
from template.inference.service import GenerateService
from template.inference.verifier import Verifier
from template.keys import Hotkey
from template.ledger import Ledger
from template.limits import Limits, OpenPolicy
from template.ops import Ops
from template.server import SynapseServer
from template.settings import GatewaySettings
from tests.adversary import cheats
from tests.support.plans import calibration_of

VALIDATOR = Hotkey.from_uri("//validator")
SECRET = b"\x07" * 32
LIMITS = Limits(rate_per_hotkey=1e6, burst_per_hotkey=10**6, rate_per_address=1e6, burst_per_address=10**6)


class SlowEngine(ContinuousBatchingEngine):
    """The engine on a machine that needs `pace` seconds for a token."""

    pace = 0.0

    def _advance(self) -> None:
        time.sleep(self.pace)
        super()._advance()


@dataclass
class Stage:
    """A running gateway and what stands behind it."""

    gateway: GatewayServer
    outlook: Outlook
    ledger: Ledger
    engine: ContinuousBatchingEngine
    hotkeys: dict[str, str]  # name of the miner -> SS58
    model: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}/v1"

    @property
    def board(self) -> Board:
        return self.outlook.board

    async def audited(self) -> None:
        """Write and judge everything that waits."""
        await self.gateway.service.records.settle()
        while await self.gateway.service.records.audit():
            pass


def neuron(uid: int, hotkey: str, port: int, incentive: float = 0.0) -> Neuron:
    return Neuron(uid, hotkey, hotkey, 0.0, False, True, "127.0.0.1", port, 4, 0, incentive=incentive)


@contextlib.asynccontextmanager
async def stage(
    loaded: LoadedModel,
    home: Path,
    miners: dict[str, str],
    *,
    pace: float = 0.0,
    miner_context: int = 4096,
    **settings: Any,
) -> AsyncIterator[Stage]:
    """`miners`: name -> "honest", "absent" or a cheat; the first has the highest incentive. All share one engine, which
    takes at least `pace` seconds a token."""
    async with contextlib.AsyncExitStack() as stack:
        running = await stack.enter_async_context(
            SlowEngine(loaded, EngineSettings(max_queue=256, max_context=miner_context))
        )
        running.pace = pace
        neurons, hotkeys = [], {}
        for uid, (name, what) in enumerate(miners.items()):
            hotkey = Hotkey.from_uri(f"//{name}")
            handler = (
                GenerateService(running, loaded.identity, hotkey.ss58)
                if what in ("honest", "absent")
                else cheats.make(what, cheats.Kitchen(running, loaded, hotkey.ss58))
            )
            server = SynapseServer(hotkey, policy=OpenPolicy(), limits=LIMITS, host="127.0.0.1")
            server.attach_stream(INFERENCE_GENERATE, handler)
            if what != "absent":
                await stack.enter_async_context(server)
            port = 9 if what == "absent" else server.port
            neurons.append(neuron(uid, hotkey.ss58, port, incentive=1.0 / (uid + 1)))
            hotkeys[name] = hotkey.ss58
        given = GatewaySettings(netuid=1, port=0, data_dir=home, **{"deadline": 20.0, **settings})
        verifier = Verifier(loaded)
        stack.callback(verifier.close)
        ledger = stack.enter_context(Ledger(given.ledger_path))
        client = await stack.enter_async_context(SynapseClient(VALIDATOR, allow_local=True))
        outlook = Outlook(VALIDATOR, ledger, Board(per_miner=given.per_miner), given.audit_floor)
        await outlook.refresh(Metagraph(1, 1, "0x" + "11" * 32, 360, tuple(neurons)))
        access = Access(given.keys_path, open_quota(given))
        stack.callback(access.close)
        # Large random weights amplify the last bits: of 25,000 honest answers three had a chunk more than 1e-4 away, up
        # to 2e-4. Thresholds are measured for each model (touchstone calibrate); this is what that would give here.
        calibration = calibration_of(loaded.identity).model_copy(update={"distance": 2e-3})
        gateway = assemble(given, Checking(loaded, verifier, calibration, client, SECRET), outlook, access, Ops())
        await stack.enter_async_context(gateway)
        yield Stage(gateway, outlook, ledger, running, hotkeys, loaded.identity.name)


async def eventually(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait for something that has to come; how long it takes is not what is tested."""
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"did not come about: {what}")


def tasks() -> set[str]:
    """Names of the coroutines of all tasks but this one."""
    gc.collect()
    me = asyncio.current_task()
    return {task.get_coro().__qualname__ for task in asyncio.all_tasks() if task is not me}  # type: ignore[union-attr]
