"""How a node stays with the shared model: settle each window from the chain, or follow the records to where it stands.

    follower = Follower(view, recipe, layout, store, fetch)
    shared = await follower.begin()                  the saved model, or the one that the recipe starts from
    settled = await follower.settle()                the window that was worked on: what entered, and the record of it
    await follower.adopt(settled)                    go on from there
    await follower.confirm()                         whether validators came to the same model
    shared = await follower.catch_up()               from the newest agreed root, over records; checked at every step
    history(...), replayed(...)                      the records of the past, and the model that they lead to

`fetch(cid, locations, max_bytes)` gives an artifact from the first of the locations that has it; its hash has been
checked. Nothing else of what is fetched is taken on trust either: a record leads to the record before it by its hash,
contributions are named by theirs, and every model has to have the root that its record says.
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
from protocol.training.payload import Contribution, decode, encoded_size
from protocol.training.recipe import Recipe
from protocol.training.records import MAX_BYTES as MAX_RECORD
from protocol.training.records import Included, WindowRecord
from protocol.training.statement import Statement
from template.errors import TemplateError
from template.training.chain_view import Promised, WindowView
from template.training.checkpoint import from_file, model_root, to_file
from template.training.layout import Layout
from template.training.shared import Shared, SharedStore, advanced

log = logging.getLogger(__name__)

T = TypeVar("T")
Fetch = Callable[[str, Sequence[str], int], Awaitable[bytes]]  # CID, locations, most bytes

AT_ONCE = 8  # artifacts under way
FILE_OVERHEAD = 1024 * 1024  # bytes of a checkpoint beside its numbers: names, shapes, padding


class HistoryBroken(TemplateError):
    """What was fetched does not lead to the model that the chain says."""


class NoRoot(TemplateError):
    """Validators have not agreed on a model from which this node could go on."""


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

    @property
    def shared(self) -> Shared:
        assert self._shared is not None, "begin() comes first"
        return self._shared

    async def begin(self, locations: Sequence[str]) -> Shared:
        """The model that was saved, or the recipe's first one, from `locations`. Raises TemplateError."""
        self._shared = await asyncio.to_thread(self._store.load)
        if self._shared is None:
            self._shared = await first_model(self.recipe, self.layout, self._fetch, locations)
            await asyncio.to_thread(self._store.save, self._shared)
        return self._shared

    async def settle(self) -> Settled:
        """The step after `shared.window`, when its `score` phase is over. Raises ChainError, TemplateError when an
        accepted contribution cannot be had, and MalformedMessage when it is none, which only most of the stake could
        have brought about."""
        window = self.shared.window
        due = await self.view.due(window)
        taken = await self.view.accepted(window, due)
        mirrors = await self.view.validator_locations()
        said, payloads = {}, {}
        for hotkey, (one, payload) in zip(
            sorted(taken), await _all([self._shown(due[hotkey], mirrors) for hotkey in sorted(taken)]), strict=True
        ):
            said[hotkey], payloads[hotkey] = one, payload
        return await asyncio.to_thread(self._step, due, said, payloads)

    async def adopt(self, settled: Settled) -> None:
        """Go on from there; saved first."""
        await asyncio.to_thread(self._store.save, settled.shared)
        self._shared = settled.shared

    async def confirm(self) -> bool:
        """Whether validators agree on the model held here, or on none yet; when it is another one, go there. Raises as
        `catch_up` does."""
        found = await self.view.agreed(self.shared.window - 1) if self.shared.window else None
        if found is None or found[0].root == self.shared.root:
            return True
        log.warning("validators agree on model %s, here is %s", found[0].root[:16], self.shared.root[:16])
        await self.catch_up()
        return False

    async def last_statements(self, miners: Collection[str]) -> dict[str, Statement]:
        """The last statement of each of `miners` that entered the shared model. Raises ChainError and ArtifactError."""
        mirrors = await self.view.validator_locations()
        return await last_statements(self.shared.record, miners, self._fetch, mirrors)

    async def catch_up(self) -> Shared:
        """Go to the model after the newest window that validators agree on. Raises ChainError, NoRoot when there is
        none, HistoryBroken, and TemplateError when something cannot be fetched."""
        newest = await self.view.newest_root()
        found = await self.view.agreed(newest) if newest is not None else None
        if found is None:
            raise NoRoot("validators agree on no model yet", remedy="wait for the end of a window")
        root, locations = found
        own = self.shared
        if (own.window, own.root) == (root.window + 1, root.root):
            return own
        records = await history(root.record, self._fetch, locations, lambda record: _goes_on(record, own))
        start = own if _goes_on(records[0], own) else await self._from_checkpoint(records, locations)
        rest = [record for record in records if record.window >= start.window]
        shared = await replayed(start, rest, self.recipe, self.layout, self._fetch, locations)
        if shared.root != root.root:
            raise HistoryBroken(f"the records lead to {shared.root[:16]}, the chain says {root.root[:16]}")
        await asyncio.to_thread(self._store.save, shared)
        self._shared = shared
        return shared

    async def _from_checkpoint(self, records: Sequence[WindowRecord], locations: Sequence[str]) -> Shared:
        oldest = records[0]
        if oldest.checkpoint is None:
            return await first_model(self.recipe, self.layout, self._fetch, locations)
        data = await self._fetch(oldest.checkpoint, locations, 4 * self.layout.size + FILE_OVERHEAD)
        cid = Manifest.of(oldest.encode()).cid
        return await asyncio.to_thread(_read_model, data, self.recipe, self.layout, oldest.window + 1, oldest.root, cid)

    async def _shown(self, promised: Promised, mirrors: Sequence[str]) -> tuple[Statement, bytes]:
        locations = [promised.location, *mirrors]
        said = Statement.parse(await self._fetch(promised.statement, locations, statements.MAX_BYTES))
        return said, await self._fetch(said.payload, locations, encoded_size(self.layout.size))

    def _step(
        self, due: Mapping[str, Promised], said: Mapping[str, Statement], payloads: Mapping[str, bytes]
    ) -> Settled:
        before, recipe = self.shared, self.recipe
        contributions = {hotkey: decode(payload, self.layout.size) for hotkey, payload in payloads.items()}
        after = advanced(before, recipe, self.layout, contributions)
        keeps = (before.window + 1) % recipe.checkpoint_every == 0
        file = to_file(self.layout, after.vector) if keeps else None
        record = WindowRecord(
            window=before.window,
            recipe=recipe.id,
            base=before.root,
            contributions=tuple(
                Included(miner=hotkey, statement=due[hotkey].statement, payload=said[hotkey].payload)
                for hotkey in sorted(said)
            ),
            root=after.root,
            previous=before.record,
            checkpoint=Manifest.of(file).cid if file is not None else None,
        )
        shared = Shared(after.window, after.vector, after.root, Manifest.of(record.encode()).cid)
        return Settled(shared, record, said, payloads, file)


async def first_model(recipe: Recipe, layout: Layout, fetch: Fetch, locations: Sequence[str]) -> Shared:
    """The model that window 0 starts from. Raises HistoryBroken when it is not the recipe's."""
    data = await fetch(recipe.model_file, locations, 4 * layout.size + FILE_OVERHEAD)
    return await asyncio.to_thread(_read_model, data, recipe, layout, 0, recipe.model, None)


async def history(
    newest: str, fetch: Fetch, locations: Sequence[str], enough: Callable[[WindowRecord], bool], whole: bool = False
) -> list[WindowRecord]:
    """Records, oldest first, back to one that is `enough` or keeps a checkpoint, or to the first (`whole`: always to
    the first). Raises HistoryBroken."""
    found: list[WindowRecord] = []
    cid: str | None = newest
    while cid is not None:
        record = WindowRecord.parse(await fetch(cid, locations, MAX_RECORD))
        if found and (record.window, record.root) != (found[-1].window - 1, found[-1].base):
            raise HistoryBroken(f"the record of window {found[-1].window} does not follow the one before it")
        found.append(record)
        if not whole and (enough(record) or record.checkpoint is not None):
            break
        cid = record.previous
    if cid is None and found[-1].window != 0:
        raise HistoryBroken(f"the history begins with window {found[-1].window}")
    return found[::-1]


async def last_statements(
    newest: str | None, miners: Collection[str], fetch: Fetch, locations: Sequence[str]
) -> dict[str, Statement]:
    """The last statement of each of `miners` that entered the model, as of the record `newest`; those without one are
    left out. Walks back as far as it has to."""
    found: dict[str, Statement] = {}
    cid = newest
    while cid is not None and len(found) < len(miners):
        record = WindowRecord.parse(await fetch(cid, locations, MAX_RECORD))
        for one in record.contributions:
            if one.miner in miners and one.miner not in found:
                data = await fetch(one.statement, locations, statements.MAX_BYTES)
                found[one.miner] = Statement.parse(data)
        cid = record.previous
    return found


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
        cid = Manifest.of(record.encode()).cid
        shared = await asyncio.to_thread(_advance, shared, recipe, layout, miners, payloads, cid)
        if shared.root != record.root:
            raise HistoryBroken(f"window {record.window} gives {shared.root[:16]}, its record says {record.root[:16]}")
        if tell is not None:
            tell(shared)
    return shared


def _advance(
    shared: Shared, recipe: Recipe, layout: Layout, miners: Sequence[str], payloads: Sequence[bytes], record: str
) -> Shared:
    try:
        contributions: dict[str, Contribution] = {
            miner: decode(payload, layout.size) for miner, payload in zip(miners, payloads, strict=True)
        }
        return advanced(shared, recipe, layout, contributions, record)
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
