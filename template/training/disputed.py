"""What a dispute is about, from public data: the model that a window began from, its data, and what its miner stated.

    case = await read_case(place, window, miner, statement=None)       -> Case
    case.retrace()                          the window again, by whoever disputes it
    case.referee(terms, store)              who settles it

The model comes from the records that validators stand behind, computed from the last checkpoint before the window. The
statement is the one on record when the contribution entered the model; else what the miner has committed on chain, now
or at the end of the commit phase, as long as nodes keep that state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import MalformedMessage
from protocol.locations import LOCATION_PREFIX
from protocol.training import statement as statements
from protocol.training.assignment import assign
from protocol.training.dispute import Terms
from protocol.training.payload import Floats
from protocol.training.recipe import Recipe
from protocol.training.records import MAX_BYTES as MAX_RECORD
from protocol.training.records import WindowRecord
from protocol.training.statement import COMMITMENT_PREFIX, Statement, TrainCommitment
from protocol.training.windows import Phase
from template.artifacts.opening import open_store
from template.chain import Chain, ChainError
from template.errors import TemplateError
from template.training.chain_view import WindowView
from template.training.checkpoint import build
from template.training.dataset import Dataset, fetch_manifest
from template.training.following import after_oldest, first_model, history, replayed
from template.training.inner import Trainer
from template.training.layout import Layout
from template.training.peers import Peers
from template.training.recompute import Machine
from template.training.referee import Referee
from template.training.retrace import Retrace
from template.training.shared import Shared
from template.training.windows import Batches

Tell = Callable[[str], None]


class NoDispute(TemplateError):
    """There is nothing that could be disputed."""


@dataclass(frozen=True)
class Place:
    """Where to read: the chain, the owner's recipe, artifacts. `owners`: location of the owner's artifacts; `folder`:
    for shards of the dataset; `tell`: where to say what takes long."""

    chain: Chain
    netuid: int
    recipe: Recipe
    owners: str
    peers: Peers
    folder: Path
    machine: Machine
    stack: AsyncExitStack
    tell: Tell

    @property
    def view(self) -> WindowView:
        return WindowView(self.chain, self.netuid, self.recipe.clock.schedule)


@dataclass(frozen=True, eq=False)
class Case:
    """`statement`: bytes of the miner's; its artifacts are at `location`."""

    recipe: Recipe
    terms: Terms
    statement: bytes
    location: str
    base: Floats
    trainer: Trainer
    batches: Batches

    def retrace(self) -> Retrace:
        return Retrace(self.trainer, self.base, self.batches, self.recipe, self.terms.window)

    def referee(self, peers: Peers, tell: Tell) -> Referee:
        return Referee(self.trainer, self.base, self.batches, self.recipe, self.terms, peers.own, tell)


async def read_case(place: Place, window: int, miner: str, statement: bytes | None = None) -> Case:
    """`statement`: its bytes, when they are known already. Raises NoDispute, HistoryBroken, ChainError, ArtifactError
    and MalformedMessage."""
    recipe, machine = place.recipe, place.machine
    module = await asyncio.to_thread(build, recipe.architecture)
    trainer = Trainer(module, recipe.inner, device=machine.device, threads=machine.threads, **recipe.precision)
    records = await _records(place, window)
    shared = await _base(place, trainer.layout, window, records)
    location = await location_of(place, miner)
    if statement is None:
        statement = await _statement(place, window, miner, records.get(window), location)
    start = (await asyncio.to_thread(trainer.start, shared.vector)).digest()
    terms = Terms.of(recipe, window, miner, shared.root, start)
    _require_form(Statement.parse(statement), terms, recipe)
    return Case(recipe, terms, statement, location, shared.vector, trainer, await _batches(place, window, miner))


@dataclass(frozen=True)
class _OnRecord:
    record: WindowRecord
    cid: str
    places: tuple[str, ...]


async def _records(place: Place, window: int) -> dict[int, _OnRecord]:
    """The records of the window and of the one before it, as far as there are any."""
    stands = await place.view.agreed()
    found: dict[int, _OnRecord] = {}
    cid = stands.record if stands is not None else None
    while stands is not None and cid is not None:
        places = (*stands.locations, place.owners)
        record = WindowRecord.parse(await place.peers.fetch(cid, places, MAX_RECORD))
        if found and record.window >= min(found):
            raise NoDispute("the records on chain do not lead back to the window")
        found[record.window] = _OnRecord(record, cid, places)
        found = {number: one for number, one in found.items() if number in (window, window - 1) or number == min(found)}
        if record.window < window:
            break
        cid = record.previous
    return found


async def _base(place: Place, layout: Layout, window: int, records: dict[int, _OnRecord]) -> Shared:
    """The model that the window began from."""
    recipe, fetch = place.recipe, place.peers.fetch
    if window == 0:
        return await first_model(recipe, layout, fetch, [place.owners])
    before = records.get(window - 1)
    if before is None:
        remedy = "wait until validators have committed it, in the window's score phase"
        raise NoDispute(f"the model that window {window} began from is not on record", remedy=remedy)
    chain = await history(before.cid, fetch, before.places, most=recipe.checkpoint_every + 1)
    start = await after_oldest(chain[0], recipe, layout, fetch, before.places)
    rest = [record for record in chain if record.window >= start.window]
    place.tell(f"computing the model of window {window} from {len(rest)} records")
    return await replayed(start, rest, recipe, layout, fetch, before.places)


async def location_of(place: Place, miner: str) -> str:
    held = await place.chain.commitment(place.netuid, miner)
    location = held.find(LOCATION_PREFIX) if held is not None else None
    if location is None:
        raise NoDispute(f"{miner} has committed no place of its artifacts", remedy="check the hotkey")
    return location


async def _statement(place: Place, window: int, miner: str, record: _OnRecord | None, location: str) -> bytes:
    if record is not None:
        for one in record.record.contributions:
            if one.miner == miner:
                return await place.peers.fetch(one.statement, (*record.places, location), statements.MAX_BYTES)
    cid = await _committed(place, window, miner)
    if cid is None:
        raise NoDispute(
            f"{miner} has no statement of window {window} on record or on chain",
            remedy="only a contribution that entered the model can be disputed once it is overwritten on chain",
        )
    return await place.peers.fetch(cid, [location], statements.MAX_BYTES)


async def _committed(place: Place, window: int, miner: str) -> str | None:
    """What the miner has committed of the window: its newest commitment, or the one when the commit phase ended."""
    held = await place.chain.commitment(place.netuid, miner)
    text = held.find(COMMITMENT_PREFIX) if held is not None else None
    try:
        newest = TrainCommitment.parse(text) if text is not None else None
    except MalformedMessage:
        newest = None
    if newest is not None and newest.window == window:
        return newest.cid
    try:
        due = await place.view.due(window)
    except ChainError:  # nodes do not keep that state any more, or the commit phase is not over
        return None
    return due[miner].statement if miner in due else None


def _require_form(said: Statement, terms: Terms, recipe: Recipe) -> None:
    """Raises NoDispute for a statement that is rejected without looking at the training."""
    if (said.window, said.miner) != (terms.window, terms.miner):
        problem = f"it speaks of window {said.window} of {said.miner}"
    elif (said.profile, said.states) != (recipe.profile, terms.states):
        problem = f"profile {said.profile} with {said.states} states is not the recipe's"
    elif said.base != terms.base:
        problem = f"it starts from {said.base[:16]}, the shared model was {terms.base[:16]}"
    else:
        return
    remedy = "there is no dispute about a form: validators reject it"
    raise NoDispute(f"the statement is not one of this window: {problem}", remedy=remedy)


async def _batches(place: Place, window: int, miner: str) -> Batches:
    """The miner's data of the window, fetched."""
    plan = place.recipe.tasks.plan
    shards = await place.stack.enter_async_context(open_store(place.owners, allow_local=place.chain.is_local))
    dataset = Dataset(await fetch_manifest(shards, place.recipe.dataset), shards, place.folder)
    work = assign(await place.view.seed(window, Phase.ASSIGN), miner, dataset.tokens_of(), plan)
    place.tell(f"fetching {len(work.shards)} shards")
    await dataset.fetch(work.shards)
    return lambda step: dataset.batch(work.batch(step), plan.length)
