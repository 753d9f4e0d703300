"""How a node stays with the shared model: settle each window from the chain, or follow the records to where it stands.

    follower = Follower(view, recipe, layout, store, fetch)
    shared = await follower.begin()                  the saved model, or the one that the recipe starts from
    newest = await follower.follow(now, close)       whichever of the following is due
    moved = await follower.catch_up()                to the newest record that validators stand behind, when it is newer
    settled = await follower.settle()                the next window from the chain: what entered, and the record of it
    await follower.adopt(settled)                    go on from there
    same = await follower.confirm()                  whether validators came to the same model
    history(...), replayed(...)                      the records of the past, and the model that they lead to

`fetch(cid, locations, max_bytes)` gives an artifact from the first of the locations that has it; its hash has been
checked. Nothing else of what is fetched is taken on trust either: a record leads to the record before it by its hash,
contributions are named by theirs, and every model has to have the root that its record says.

Two rules keep a window from stopping everybody. What was accepted and is no contribution to this model is left out: its
bytes are the same for all. And a window that nobody voted in, or whose state no node keeps any more, is empty.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from protocol.artifacts import Manifest
from protocol.errors import MalformedMessage
from protocol.training import statement as statements
from protocol.training.buffers import WINDOWS
from protocol.training.payload import Contribution, decode, encoded_size
from protocol.training.recipe import Recipe
from protocol.training.records import MAX_BYTES as MAX_RECORD
from protocol.training.records import Included, WindowRecord
from protocol.training.statement import Statement
from protocol.training.windows import Phase, Tick
from template.artifacts.errors import ArtifactTooLarge
from template.chain import ChainError
from template.errors import TemplateError
from template.training.chain_view import Promised, Standing, WindowView
from template.training.checkpoint import from_file, model_root, to_file
from template.training.layout import Layout
from template.training.shared import Shared, SharedStore, advanced

log = logging.getLogger(__name__)

T = TypeVar("T")
Fetch = Callable[[str, Sequence[str], int], Awaitable[bytes]]  # CID, locations, most bytes

AT_ONCE = 8  # artifacts under way
STATE_BLOCKS = 256  # that nodes keep the state of
FILE_OVERHEAD = 1024 * 1024  # bytes of a checkpoint beside its numbers: names, shapes, padding


class HistoryBroken(TemplateError):
    """What was fetched does not lead to the model that the chain says."""


@dataclass(frozen=True, eq=False)
class Settled:
    """One window: what entered the model, and how it is recorded. `checkpoint`: the model's file, where one is kept."""

    shared: Shared
    record: WindowRecord
    statements: Mapping[str, Statement]
    payloads: Mapping[str, bytes]
    checkpoint: bytes | None


class Follower:
    """The shared model of one node."""

    def __init__(self, view: WindowView, recipe: Recipe, layout: Layout, store: SharedStore, fetch: Fetch) -> None:
        self.view = view
        self.recipe = recipe
        self.layout = layout
        self._store = store
        self._fetch = fetch
        self._shared: Shared | None = None
        self._records: dict[str, WindowRecord] = {}  # of the last windows
        self._confirmed = -1  # window whose model was compared with the validators'

    @property
    def shared(self) -> Shared:
        assert self._shared is not None, "begin() comes first"
        return self._shared

    async def begin(self, locations: Sequence[str]) -> Shared:
        """The model that was saved, or the recipe's first one, from `locations`. Raises TemplateError."""
        self._shared = await asyncio.to_thread(self._store.load)
        if self._shared is None:
            await self._go_to(await first_model(self.recipe, self.layout, self._fetch, locations))
        return self.shared

    async def follow(self, now: Tick, close: Callable[[Settled], Awaitable[None]]) -> bool:
        """Whether the shared model is the newest there can be; one step there when it is not, and once a window a look
        whether validators have the same. `close` does what is due at the end of a settled window, and adopts it.
        Raises as the others do."""
        wanted = now.window + (now.phase is Phase.AGGREGATE)
        if self.shared.window < wanted:
            if self.shared.window == wanted - 1 or not await self.catch_up():
                await close(await self.settle())
        elif self._confirmed < wanted and now.phase is Phase.TRAIN and await self.confirm() is not None:
            self._confirmed = wanted
        return self.shared.window == wanted

    async def settle(self) -> Settled:
        """The step after `shared.window`, when its `score` phase is over. Raises ChainError, and ArtifactError when an
        accepted contribution cannot be had."""
        window = self.shared.window
        try:
            due = await self.view.due(window)
            taken = sorted(await self.view.accepted(window, due))
        except ChainError:
            end = self.view.schedule.block_of(window, Phase.AGGREGATE)
            if await self.view.chain.finalized_block() < end + STATE_BLOCKS:
                raise
            log.warning("window %d: no node keeps its state any more, so nothing of it enters", window)
            due, taken = {}, []
        mirrors = await self.view.validator_locations()
        shown = await _all([self._shown(due[hotkey], mirrors) for hotkey in taken])
        found = {hotkey: one for hotkey, one in zip(taken, shown, strict=True) if one is not None}
        noised = found and self.recipe.privacy is not None
        seed = await self.view.seed(window, Phase.AGGREGATE) if noised else None
        return await asyncio.to_thread(self._step, due, found, seed)

    async def adopt(self, settled: Settled) -> None:
        """Go on from there; saved first."""
        await self._go_to(settled.shared)

    async def confirm(self) -> bool | None:
        """Whether validators stand behind the history of the model held here; None while they stand behind none. When
        it is another one, go there. Raises as `catch_up` does."""
        stands = await self.view.agreed()
        if stands is None:
            return None
        cid = self.shared.record
        while cid is not None:
            record = await self._record(cid, stands.locations)
            if record.window <= stands.window:
                break
            cid = record.previous
        if cid == stands.record:
            return True
        log.warning("validators stand behind another model than that of window %d here", self.shared.window)
        await self._follow(stands)
        return False

    async def catch_up(self) -> bool:
        """Go to the model of the newest record that validators stand behind, when that is newer than the one held here;
        whether it was. Raises ChainError, ArtifactError, and HistoryBroken."""
        stands = await self.view.agreed()
        if stands is None or stands.window < self.shared.window:
            return False
        await self._follow(stands)
        return True

    async def recent_statements(self, miners: Collection[str]) -> dict[str, Statement]:
        """The last statement of each of `miners` that entered the shared model in the last buffers.WINDOWS windows.
        Raises ChainError and ArtifactError."""
        found: dict[str, Statement] = {}
        mirrors = await self.view.validator_locations()
        cid, oldest = self.shared.record, self.shared.window - WINDOWS
        while cid is not None and len(found) < len(miners):
            record = await self._record(cid, mirrors)
            if record.window < oldest:
                break
            for one in record.contributions:
                if one.miner in miners and one.miner not in found:
                    data = await self._fetch(one.statement, mirrors, statements.MAX_BYTES)
                    found[one.miner] = Statement.parse(data)
            cid = record.previous
        return found

    async def _follow(self, stands: Standing) -> None:
        own, places = self.shared, stands.locations
        most = self.recipe.checkpoint_every + 1
        records = await history(stands.record, self._fetch, places, lambda record: _goes_on(record, own), most=most)
        start = own
        if not _goes_on(records[0], own):
            start = await after_oldest(records[0], self.recipe, self.layout, self._fetch, places)
        rest = [record for record in records if record.window >= start.window]
        await self._go_to(await replayed(start, rest, self.recipe, self.layout, self._fetch, places))

    async def _go_to(self, shared: Shared) -> None:
        await asyncio.to_thread(self._store.save, shared)
        self._shared = shared

    async def _record(self, cid: str, locations: Sequence[str]) -> WindowRecord:
        if cid not in self._records:
            self._records[cid] = WindowRecord.parse(await self._fetch(cid, locations, MAX_RECORD))
            while len(self._records) > 2 * WINDOWS:
                del self._records[next(iter(self._records))]
        return self._records[cid]

    async def _shown(self, promised: Promised, mirrors: Sequence[str]) -> tuple[Statement, bytes, Contribution] | None:
        """Statement and contribution of one that was accepted; None for bytes that are none."""
        places = [*mirrors, promised.location]  # validators keep what they vote for, and are asked first
        try:
            said = Statement.parse(await self._fetch(promised.statement, places, statements.MAX_BYTES))
            payload = await self._fetch(said.payload, places, encoded_size(self.layout.size))
            return said, payload, decode(payload, self.layout.size)
        except (MalformedMessage, ArtifactTooLarge) as error:
            log.warning("what was accepted is no contribution: %s", error)
            return None

    def _step(
        self,
        due: Mapping[str, Promised],
        found: Mapping[str, tuple[Statement, bytes, Contribution]],
        seed: bytes | None,
    ) -> Settled:
        before, recipe = self.shared, self.recipe
        contributions = {hotkey: contribution for hotkey, (_, _, contribution) in found.items()}
        try:
            after = advanced(before, recipe, self.layout, contributions, seed=seed)
        except ValueError as error:  # it leaves the range of float32, for everybody
            log.warning("window %d: nothing enters: %s", before.window, error)
            found, after = {}, advanced(before, recipe, self.layout, {})
        keeps = (before.window + 1) % recipe.checkpoint_every == 0
        file = to_file(self.layout, after.vector) if keeps else None
        record = WindowRecord(
            window=before.window,
            recipe=recipe.id,
            base=before.root,
            contributions=tuple(
                Included(miner=hotkey, statement=due[hotkey].statement, payload=found[hotkey][0].payload)
                for hotkey in sorted(found)
            ),
            root=after.root,
            previous=before.record,
            checkpoint=Manifest.of(file).cid if file is not None else None,
            seed=seed.hex() if found and seed is not None else None,
        )
        shared = Shared(after.window, after.vector, after.root, Manifest.of(record.encode()).cid)
        said = {hotkey: one for hotkey, (one, _, _) in found.items()}
        return Settled(shared, record, said, {hotkey: payload for hotkey, (_, payload, _) in found.items()}, file)


async def first_model(recipe: Recipe, layout: Layout, fetch: Fetch, locations: Sequence[str]) -> Shared:
    """The model that window 0 starts from. Raises HistoryBroken when it is not the recipe's."""
    data = await fetch(recipe.model_file, locations, 4 * layout.size + FILE_OVERHEAD)
    return await asyncio.to_thread(_read_model, data, recipe, layout, 0, recipe.model, None)


async def after_oldest(
    oldest: WindowRecord, recipe: Recipe, layout: Layout, fetch: Fetch, locations: Sequence[str]
) -> Shared:
    """Where to replay from: the checkpoint of the oldest record of a `history`, or the first model when it keeps none.
    Raises HistoryBroken."""
    if oldest.recipe != recipe.id:
        raise HistoryBroken("the records are of another recipe")
    if oldest.checkpoint is None:  # then it is the first
        return await first_model(recipe, layout, fetch, locations)
    data = await fetch(oldest.checkpoint, locations, 4 * layout.size + FILE_OVERHEAD)
    cid = Manifest.of(oldest.encode()).cid
    return await asyncio.to_thread(_read_model, data, recipe, layout, oldest.window + 1, oldest.root, cid)


async def history(
    newest: str,
    fetch: Fetch,
    locations: Sequence[str],
    enough: Callable[[WindowRecord], bool] = lambda record: False,
    *,
    most: int | None = None,
) -> list[WindowRecord]:
    """Records, oldest first: back to one that is `enough`, keeps a checkpoint, or is the first; at most `most`. With
    `most` None back to the first in any case. Raises HistoryBroken."""
    found: list[WindowRecord] = []
    cid: str | None = newest
    while cid is not None:
        record = WindowRecord.parse(await fetch(cid, locations, MAX_RECORD))
        if found and (record.window, record.root) != (found[-1].window - 1, found[-1].base):
            raise HistoryBroken(f"the record of window {found[-1].window} does not follow the one before it")
        found.append(record)
        if most is not None and (enough(record) or record.checkpoint is not None):
            break
        if most is not None and len(found) >= most:
            raise HistoryBroken(f"no checkpoint among the last {most} records")
        cid = record.previous
    if cid is None and found[-1].window != 0:
        raise HistoryBroken(f"the history begins with window {found[-1].window}")
    return found[::-1]


async def replayed(
    start: Shared,
    records: Sequence[WindowRecord],
    recipe: Recipe,
    layout: Layout,
    fetch: Fetch,
    locations: Sequence[str],
    tell: Callable[[Shared], None] | None = None,
) -> Shared:
    """The model after `records`, computed from their contributions. Raises HistoryBroken at the first that gives
    another model than it says."""
    shared = start
    for record in records:
        if (record.window, record.base, record.recipe) != (shared.window, shared.root, recipe.id):
            raise HistoryBroken(f"the record of window {record.window} does not go on from the model before it")
        wanted = [fetch(one.payload, locations, encoded_size(layout.size)) for one in record.contributions]
        payloads = await _all(wanted)
        miners = [one.miner for one in record.contributions]
        if (record.seed is not None) != (recipe.privacy is not None and bool(miners)):
            raise HistoryBroken(f"the record of window {record.window} has a seed without noise, or noise without seed")
        seed = bytes.fromhex(record.seed) if record.seed is not None else None
        cid = Manifest.of(record.encode()).cid
        shared = await asyncio.to_thread(_advance, shared, recipe, layout, miners, payloads, cid, seed)
        if shared.root != record.root:
            raise HistoryBroken(f"window {record.window} gives {shared.root[:16]}, its record says {record.root[:16]}")
        if tell is not None:
            tell(shared)
    return shared


def _advance(
    shared: Shared,
    recipe: Recipe,
    layout: Layout,
    miners: Sequence[str],
    payloads: Sequence[bytes],
    record: str,
    seed: bytes | None,
) -> Shared:
    try:
        contributions: dict[str, Contribution] = {
            miner: decode(payload, layout.size) for miner, payload in zip(miners, payloads, strict=True)
        }
        return advanced(shared, recipe, layout, contributions, record, seed)
    except (MalformedMessage, ValueError) as error:
        raise HistoryBroken(f"a contribution of window {shared.window} cannot have entered: {error}") from None


def _read_model(data: bytes, recipe: Recipe, layout: Layout, window: int, root: str, record: str | None) -> Shared:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(data)
        vector = from_file(path, layout)
    if model_root(recipe.architecture, layout, vector) != root:
        raise HistoryBroken(f"the file is not the model {root[:16]} of window {window}")
    return Shared(window, vector, root, record)


def _goes_on(record: WindowRecord, shared: Shared) -> bool:
    return (record.window, record.base) == (shared.window, shared.root)


async def _all(wanted: Sequence[Awaitable[T]]) -> list[T]:
    """Everything, a few at a time, in order."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(work: Awaitable[T]) -> T:
        async with room:
            return await work

    return list(await asyncio.gather(*(one(work) for work in wanted)))
