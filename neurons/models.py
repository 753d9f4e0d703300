"""From a neuron's settings to the model it holds, and whether that is the subnet's. Imports torch only when called.

model_settings(settings)     which model the settings name
default_settings()           the same for a neuron that gets few flags or none: environment and defaults
load(settings)               prepare and load
require_committed(...)       refuse a model that is not the one the subnet's owner committed on chain
CommittedModel(watch)        the same, at the start and again while the neuron runs
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neurons.runtime import ChainWatch
from protocol.challenges import ModelIdentity
from protocol.errors import MalformedMessage
from protocol.metagraph import Metagraph
from protocol.model_root import COMMITMENT_PREFIX, ModelCommitment
from template.chain import Chain
from template.errors import TemplateError
from template.settings import NeuronSettings, ServiceSettings
from template.settings import load as load_settings

if TYPE_CHECKING:
    from template.inference.models import LoadedModel
    from template.inference.sources import ModelSettings
    from template.inference.verifier import VerifierSettings

log = logging.getLogger(__name__)

COMMITMENT_SECONDS = 600.0  # between two looks at the owner's commitment while a neuron runs
HOW_TO_COMMIT = "the owner commits one with: touchstone model --commit --netuid N --wallet NAME --hotkey NAME"


class OtherModel(TemplateError):
    """The subnet's owner committed another model than the one held here."""


def model_settings(settings: ServiceSettings) -> ModelSettings:
    """The part of the settings that says which model; an empty field means the default of this release."""
    from template.inference.sources import ModelSettings

    named = {"name": settings.model_name, "revision": settings.model_revision}
    given = {key: value for key, value in named.items() if value}
    return ModelSettings(source=settings.model_source, dtype=settings.dtype, device=settings.device, **given)


def default_settings(**flags: str) -> ModelSettings:
    """The model of a neuron that is started with only these flags. Raises SettingsError."""
    return model_settings(load_settings(NeuronSettings, flags={"netuid": 1, **flags}))  # any subnet will do


def load(settings: ServiceSettings) -> LoadedModel:
    """Prepare (once per machine) and load; blocking. Raises ModelUnavailable."""
    from template.inference.models import load_model

    return load_model(model_settings(settings), log.info)


async def committed_model(chain: Chain, netuid: int, owner_hotkey: str) -> ModelCommitment | None:
    """What the subnet's owner committed; None when that is nothing about a model. Raises ChainError, and TemplateError
    when it is about a model in a form this release does not know."""
    held = await chain.commitment(netuid, owner_hotkey) if owner_hotkey else None
    text = held.find(COMMITMENT_PREFIX) if held else None
    if text is None:
        return None
    try:
        return ModelCommitment.parse(text)
    except MalformedMessage as error:
        raise OtherModel(
            f"the owner's commitment on subnet {netuid} cannot be read: {error}",
            remedy="update Touchstone; if it is new enough, the owner should commit again",
        ) from None


async def require_committed(chain: Chain, netuid: int, owner_hotkey: str, identity: ModelIdentity) -> bool:
    """Whether the owner committed a model, which is then this one. Raises OtherModel for another, and ChainError."""
    committed = await committed_model(chain, netuid, owner_hotkey)
    if committed is None:
        return False
    if committed != ModelCommitment(identity.root, identity.dtype):
        raise OtherModel(
            f"the owner of subnet {netuid} committed model root {committed.root} in {committed.dtype}; "
            f"{identity.name} ({identity.source}) held here has root {identity.root} in {identity.dtype}",
            remedy="choose the subnet's model with --model-source, --model-name, --model-revision and --dtype; "
            "`touchstone model` shows what a choice gives",
        )
    return True


@dataclass
class CommittedModel:
    """Holds one neuron to the model that the subnet's owner committed."""

    watch: ChainWatch
    every: float = COMMITMENT_SECONDS
    _identity: ModelIdentity | None = None
    _looked: float = 0.0  # monotonic time of the last answer

    async def require(self, identity: ModelIdentity) -> None:
        """At the start, when the model is loaded; waits for a chain that is away. Raises OtherModel."""
        await self.watch.chain.wait_ready(on_wait=log.warning)
        self._identity = identity
        if await self._compare(self.watch.metagraph):
            log.info("the subnet's owner committed this model")
        else:
            log.warning(
                "the owner of subnet %d has committed no model, so nothing says that this is the right one; %s",
                self.watch.netuid,
                HOW_TO_COMMIT,
            )

    async def check(self, graph: Metagraph) -> None:
        """At a metagraph refresh: look again when `every` seconds have passed. Raises OtherModel and ChainError."""
        if self._identity is not None and time.monotonic() - self._looked >= self.every:
            await self._compare(graph)

    async def _compare(self, graph: Metagraph) -> bool:
        assert self._identity is not None
        found = await require_committed(self.watch.chain, graph.netuid, graph.owner_hotkey, self._identity)
        self._looked = time.monotonic()
        return found


def verifier_settings(settings: ServiceSettings) -> VerifierSettings:
    """How the settings let answers be checked."""
    from template.inference.verifier import VerifierSettings

    return VerifierSettings(threads=thread_count(settings), pack_weights=settings.pack_weights)


def thread_count(settings: ServiceSettings) -> int:
    """CPU threads for the model: the setting, or every core this process may use."""
    if settings.threads:
        return settings.threads
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> int:
    """`python -m neurons.models`: prepare the default model and say where it lies. For set-up scripts."""
    from template.inference.models import prepare_model

    try:
        prepared = prepare_model(default_settings(), lambda text: print(text, flush=True))
    except TemplateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"model {prepared.identity.name} ready in {prepared.path}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
