"""How a neuron starts, up to its own work.

    joined = await join(settings, "validator", stop, stack)         hotkey, chain, registration, data folder
    checking = await ready_to_check(settings, joined, stop, stack)  the subnet's model, and what checks answers with it

Both open what they need on the caller's exit stack, give up quietly when `stop` is set, and raise TemplateError when
the neuron cannot start.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neurons import models
from neurons.runtime import ChainWatch, answered, in_thread, load_hotkey, until
from protocol.calibration import Calibration
from template.chain import Chain
from template.client import SynapseClient
from template.keys import Hotkey
from template.settings import NeuronSettings
from template.state import claimed, read_secret

if TYPE_CHECKING:
    from template.inference.models import LoadedModel
    from template.inference.verifier import Verifier

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Joined:
    """A registered hotkey on its subnet; its data folder is claimed."""

    hotkey: Hotkey
    chain: Chain
    watch: ChainWatch
    committed: models.CommittedModel


@dataclass(frozen=True)
class Checking:
    """What a neuron needs to ask miners and to check their answers."""

    loaded: LoadedModel
    verifier: Verifier
    calibration: Calibration | None  # None: no answer can be judged
    client: SynapseClient
    secret: bytes  # draws challenges and audits; shared by all neurons of this data folder


async def join(settings: NeuronSettings, role: str, stop: asyncio.Event, stack: AsyncExitStack) -> Joined:
    """Wait for the chain and require a registration. Raises TemplateError and Stopped."""
    hotkey = load_hotkey(settings)
    chain = await stack.enter_async_context(Chain(settings.network, timeout=settings.chain_timeout))
    watch = ChainWatch(chain, settings.netuid, hotkey.ss58, settings.metagraph_refresh)
    uid = await answered(stop, lambda: watch.start(settings.wallet, settings.hotkey))
    log.info("hotkey %s has uid %d on subnet %d of %s", hotkey.ss58, uid, settings.netuid, settings.network)
    genesis = await answered(stop, lambda: chain.block_hash(0))
    stack.enter_context(claimed(settings.state_dir, role, genesis, settings.netuid, hotkey.ss58))
    return Joined(hotkey, chain, watch, models.CommittedModel(watch))


async def ready_to_check(
    settings: NeuronSettings, joined: Joined, stop: asyncio.Event, stack: AsyncExitStack
) -> Checking:
    """Load the model that the subnet's owner committed. Raises TemplateError and Stopped."""
    from template.inference.calibrations import calibration_for
    from template.inference.verifier import Verifier

    loaded = await until(stop, in_thread(lambda: models.load(settings)))
    log.info("model %s, root %s", loaded.identity.name, loaded.identity.root)
    await until(stop, joined.committed.require(loaded.identity))
    calibration = calibration_for(loaded.identity)
    if calibration is None:
        log.error("no thresholds for this model at %s: no answer can be judged", loaded.identity.dtype)
    verifier = Verifier(loaded, models.verifier_settings(settings))
    stack.callback(verifier.close)
    client = await stack.enter_async_context(SynapseClient(joined.hotkey, allow_local=joined.chain.is_local))
    return Checking(loaded, verifier, calibration, client, read_secret(settings.state_dir / "secret"))
