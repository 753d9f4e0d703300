"""What every neuron of mechanism 1 starts with: the owner's recipe, the data, the shared model, and a store of its own.

    training = await join_training(settings, joined, stop, stack)     -> Training
    await training.say((PREFIX, text))                                commit a text, and where the artifacts are
    await by_the_clock(training, poll, stop, step)                    the loop of a neuron
    if helps(): return help_training(settings)                        what else torchrun started

Nothing about the training is a setting: the recipe is what the subnet's owner committed on chain, and everything else
follows from it by hashes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from neurons import models
from neurons.joining import Joined
from neurons.runtime import in_thread, setup_logging, sleep_or_stop, until
from protocol.dataset import DatasetManifest
from protocol.errors import MalformedMessage
from protocol.locations import LOCATION_PREFIX, Location
from protocol.training.recipe import COMMITMENT_PREFIX as RECIPE_PREFIX
from protocol.training.recipe import MAX_BYTES as MAX_RECIPE
from protocol.training.recipe import Recipe, parse_recipe_commitment
from protocol.training.windows import Tick
from template.artifacts.opening import open_store
from template.chain import Chain
from template.commitments import MAX_TEXTS, replaced
from template.errors import TemplateError
from template.settings import TrainSettings

if TYPE_CHECKING:
    from template.training.dataset import Dataset
    from template.training.following import Follower
    from template.training.inner import Trainer
    from template.training.peers import Peers

log = logging.getLogger(__name__)


class NoTraining(TemplateError):
    """The subnet trains no model, or not one that this release can train."""


@dataclass(frozen=True)
class Training:
    """`trainer` belongs to one thread at a time. `location`: what this neuron publishes."""

    joined: Joined
    recipe: Recipe
    dataset: Dataset
    trainer: Trainer
    follower: Follower
    peers: Peers
    location: str
    folder: Path  # of this neuron, for this recipe

    async def say(self, *texts: tuple[str, str]) -> None:
        """Commit (prefix, text) pairs beside where this neuron's artifacts are; other texts of the hotkey stay. Raises
        ChainError."""
        chain, hotkey, netuid = self.joined.chain, self.joined.hotkey, self.joined.watch.netuid
        held = await chain.commitment(netuid, hotkey.ss58)
        wanted = held.texts if held else ()
        for prefix, text in ((LOCATION_PREFIX, self.location), *texts):
            wanted = replaced(wanted, prefix, text)
        if held is not None and held.texts == wanted:
            return
        if len(wanted) > MAX_TEXTS:
            raise TemplateError(
                f"{hotkey.ss58} has committed {', '.join(text.partition('/')[0] for text in wanted)}, "
                f"and the chain keeps {MAX_TEXTS} texts of a hotkey",
                remedy="take part in training with another hotkey than the owner's",
            )
        await chain.commit(netuid, hotkey, *wanted)


async def by_the_clock(
    training: Training, poll: float, stop: asyncio.Event, step: Callable[[Tick], Awaitable[None]]
) -> None:
    """Say where this neuron's artifacts are, then take `step` every `poll` seconds, until `stop`. What the chain, peers
    or the disk did not give is tried again. Raises TeamLost: processes that lost each other are started again, with
    what is on disk."""
    from template.training.distributed import TeamLost

    told = said = False
    while not stop.is_set():
        try:
            if not said:  # others follow the model from there, so a bucket that has moved is told at once
                await until(stop, training.say())
                said = True
            now = await until(stop, training.follower.view.now())
            if now is not None:
                await step(now)
            elif not told:
                log.info("the first window has not begun")
                told = True
        except TeamLost:
            raise
        except (TemplateError, MalformedMessage, OSError, sqlite3.Error) as error:
            log.warning("trying again: %s", error)
        await sleep_or_stop(stop, poll)


async def join_training(
    settings: TrainSettings, joined: Joined, stop: asyncio.Event, stack: AsyncExitStack
) -> Training:
    """Raises TemplateError and Stopped."""
    from template.training.chain_view import WindowView
    from template.training.dataset import Dataset, fetch_manifest
    from template.training.following import Follower
    from template.training.peers import Peers
    from template.training.shared import SharedStore

    chain, watch = joined.chain, joined.watch
    own = await stack.enter_async_context(open_store(settings.artifacts, allow_local=chain.is_local))
    peers = await stack.enter_async_context(Peers(own, allow_local=chain.is_local))
    recipe, owners = await until(stop, read_recipe(chain, watch.netuid, watch.metagraph.owner_hotkey, peers))
    log.info("recipe %s: %d steps a window, window of %d blocks", recipe.id[:16], recipe.tasks.steps, length(recipe))
    trainer = await until(stop, in_thread(lambda: trainer_for(settings, recipe, stack)))
    layout = trainer.layout
    folder = settings.state_dir / "training" / recipe.id[:16]  # another recipe is another history
    store = SharedStore(folder / "model", recipe.architecture, layout)
    view = WindowView(chain, watch.netuid, recipe.clock.schedule)
    follower = Follower(view, recipe, layout, store, peers.fetch)
    shared = await until(stop, follower.begin([owners]))
    log.info("model %s of window %d, %d parameters", shared.root[:16], shared.window, layout.size)
    shards = await stack.enter_async_context(open_store(owners, allow_local=chain.is_local))
    manifest = await until(stop, fetch_manifest(shards, recipe.dataset))
    dataset = Dataset(manifest, shards, settings.state_dir / "training" / "data")
    check_dataset(recipe, dataset.manifest)
    return Training(joined, recipe, dataset, trainer, follower, peers, published(settings), folder)


def trainer_for(settings: TrainSettings, recipe: Recipe, stack: AsyncExitStack) -> Trainer:
    """Blocking. One of this process alone, or of all that torchrun started. Raises TeamLost and NoTeam."""
    from template.training.checkpoint import build
    from template.training.distributed import Team, local_device
    from template.training.inner import Trainer
    from template.training.joined import lead

    if not _launched():
        threads = models.thread_count(settings)
        return Trainer(
            build(recipe.architecture), recipe.inner, device=settings.device, threads=threads, **recipe.precision
        )
    team = Team.of_torchrun()
    stack.callback(team.close)
    log.info("training in %d processes", team.size)
    device = local_device(settings.device)
    return lead(team, recipe, device=device, threads=_thread_share(settings), sharded=settings.sharded)


def helps() -> bool:
    """Whether torchrun started this process to help another, which is the neuron."""
    return _launched() and int(os.environ["RANK"]) > 0


def help_training(settings: TrainSettings) -> int:
    """The life of a helper, which needs neither chain nor key; the exit status. SIGTERM and SIGINT reach all processes,
    so it goes on until the neuron has ended what it is at."""
    from template.training.distributed import Team, local_device
    from template.training.joined import help_out

    setup_logging(settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        device = local_device(settings.device)
        team = Team.of_torchrun()
        try:
            help_out(team, device, _thread_share(settings), stop)
        finally:
            team.close()
    except TemplateError as error:
        log.error("%s", error)
        return 1
    return 0


def _launched() -> bool:
    """Whether torchrun started several processes."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def _thread_share(settings: TrainSettings) -> int:
    """CPU threads for one of the processes on this machine: the setting, or an even share of the cores."""
    return settings.threads or max(1, models.thread_count(settings) // int(os.environ["LOCAL_WORLD_SIZE"]))


def check_dataset(recipe: Recipe, manifest: DatasetManifest) -> None:
    """Raises NoTraining when the recipe cannot be followed on this data."""
    length, wanted = recipe.tasks.length, recipe.tasks.shards
    usable = sum(shard.tokens > length for shard in manifest.training)
    problem = ""
    if usable <= wanted:
        problem = f"a miner gets {wanted} of {usable} shards that are long enough, and none is left to compare with"
    elif not manifest.validation or manifest.validation[0].tokens <= length:
        problem = "the first validation shard has no whole sequence"
    elif manifest.vocabulary > recipe.architecture.vocab_size:
        problem = "the dataset has tokens that the model does not know"
    if problem:
        remedy = "the owner builds another dataset, or sets the recipe otherwise"
        raise NoTraining(f"recipe and dataset do not fit: {problem}", remedy=remedy)


def published(settings: TrainSettings) -> str:
    """What is committed on chain. Raises NoTraining for what is no location."""
    try:
        return Location.parse(settings.published).encode()
    except MalformedMessage as error:
        remedy = "give the bucket with keys that can only read"
        raise NoTraining(f"--published is no bucket: {error}", remedy=remedy) from None


async def read_recipe(chain: Chain, netuid: int, owner: str, peers: Peers) -> tuple[Recipe, str]:
    """The recipe that the subnet's owner committed, and where the owner's artifacts are. Raises TemplateError."""
    held = await chain.commitment(netuid, owner) if owner else None
    text, location = (held.find(RECIPE_PREFIX), held.find(LOCATION_PREFIX)) if held else (None, None)
    if text is None or location is None:
        raise NoTraining(
            f"the owner of subnet {netuid} has committed no recipe",
            remedy="the owner makes and commits one with: touchstone train start",
        )
    try:
        cid = parse_recipe_commitment(text)
        return Recipe.parse(await peers.fetch(cid, [location], MAX_RECIPE)), location
    except MalformedMessage as error:
        raise NoTraining(f"the owner's recipe cannot be read: {error}", remedy="update Touchstone") from None


def length(recipe: Recipe) -> int:
    return recipe.clock.schedule.length
