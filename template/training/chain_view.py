"""What the chain says of a window: who committed, where artifacts are, what validators voted, which record stands.

    view = WindowView(chain, netuid, schedule)
    now = await view.now()                        where the newest final block lies
    due = await view.due(window)                  {hotkey: Promised} as of the end of `commit`
    taken = await view.accepted(window, due)      hotkeys accepted by stake, as of the end of `score`
    stands = await view.agreed()                  the newest record that most stake stands behind, or None
    await view.seed(window, Phase.REVEAL)         32 bytes from the hash of the phase's first block

The clock runs on finalized blocks, so that no reorganisation gives two honest nodes two histories. Everything but the
record is read as of one block, so everybody reads the same. Nodes keep the state of the last 256 blocks: a window is
settled within its own length, and who missed it follows the records instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from protocol.errors import MalformedMessage
from protocol.locations import LOCATION_PREFIX
from protocol.metagraph import Metagraph
from protocol.training.assignment import window_seed
from protocol.training.statement import COMMITMENT_PREFIX as TRAIN_PREFIX
from protocol.training.statement import TrainCommitment
from protocol.training.votes import WORD_PREFIX, Word, accepted, agreed
from protocol.training.windows import Phase, Schedule, Tick, tick
from template.chain import Chain
from template.commitments import Committed


@dataclass(frozen=True)
class Promised:
    """A contribution that was committed to in time. `location`: where its miner says its artifacts are, unread."""

    uid: int
    statement: str  # CID
    location: str
    block: int


@dataclass(frozen=True)
class Standing:
    """The record of `window` that validators stand behind, and where those who do keep their artifacts."""

    window: int
    record: str  # CID
    locations: tuple[str, ...]


class WindowView:
    def __init__(self, chain: Chain, netuid: int, schedule: Schedule) -> None:
        self.chain = chain
        self.netuid = netuid
        self.schedule = schedule

    async def seed(self, window: int, phase: Phase) -> bytes:
        """Raises ChainError before the phase's first block is there."""
        text = await self.chain.block_hash(self.schedule.block_of(window, phase))
        return window_seed(bytes.fromhex(text.removeprefix("0x")), window)

    async def now(self) -> Tick | None:
        """Where the newest block lies; None before the first window. Raises ChainError."""
        return tick(await self.chain.finalized_block(), self.schedule)

    async def due(self, window: int) -> dict[str, Promised]:
        """What was promised by the end of `commit`, by hotkey, of those registered then. Raises ChainError."""
        graph, held = await self._as_of(self.schedule.block_of(window, Phase.REVEAL) - 1)
        found = {}
        for hotkey, committed in held.items():
            neuron, text = graph.by_hotkey.get(hotkey), committed.find(TRAIN_PREFIX)
            location = committed.find(LOCATION_PREFIX)
            if neuron is None or text is None or location is None:
                continue
            try:
                commitment = TrainCommitment.parse(text)
            except MalformedMessage:
                continue
            if commitment.window == window:
                found[hotkey] = Promised(neuron.uid, commitment.cid, location, committed.block)
        return found

    async def accepted(self, window: int, due: Mapping[str, Promised]) -> frozenset[str]:
        """The hotkeys of `due` that more than half of all stake voted for by the end of `score`. Raises ChainError."""
        graph, held = await self._as_of(self.schedule.block_of(window, Phase.AGGREGATE) - 1)
        hotkey_of = {promised.uid: hotkey for hotkey, promised in due.items()}
        stakes = _voters(graph)
        votes = {
            hotkey: (stakes[hotkey], [hotkey_of[uid] for uid in word.uids if uid in hotkey_of])
            for hotkey, word in _words(stakes, held).items()
            if word.window == window
        }
        return accepted(votes, sum(stakes.values()))

    async def agreed(self) -> Standing | None:
        """The newest record that more than half of all stake stands behind now; None while there is none. Raises
        ChainError."""
        graph = await self.chain.metagraph(self.netuid)
        held = await self.chain.commitments(self.netuid)
        stakes = _voters(graph)
        said = {hotkey: word for hotkey, word in _words(stakes, held).items() if word.record is not None}
        for window in sorted({word.window for word in said.values()}, reverse=True):
            here = {hotkey: word.record or "" for hotkey, word in said.items() if word.window == window}
            record = agreed({hotkey: (stakes[hotkey], cid) for hotkey, cid in here.items()}, sum(stakes.values()))
            if record is not None:
                behind = [hotkey for hotkey, cid in here.items() if cid == record]
                places = [held[hotkey].find(LOCATION_PREFIX) for hotkey in behind]
                return Standing(window - 1, record, tuple(place for place in places if place))
        return None

    async def validator_locations(self) -> list[str]:
        """Where validators keep artifacts, the most stake first: they mirror what entered the model. Raises
        ChainError."""
        graph = await self.chain.metagraph(self.netuid)
        held = await self.chain.commitments(self.netuid)
        stakes = _voters(graph)
        order = sorted(stakes, key=lambda hotkey: (-stakes[hotkey], hotkey))
        found = [held[hotkey].find(LOCATION_PREFIX) for hotkey in order if hotkey in held]
        return [location for location in found if location]

    async def _as_of(self, block: int) -> tuple[Metagraph, Mapping[str, Committed]]:
        graph, held = await asyncio.gather(
            self.chain.metagraph(self.netuid, block), self.chain.commitments(self.netuid, block)
        )
        return graph, held


def _voters(graph: Metagraph) -> dict[str, int]:
    """Stake of everybody who may validate, in billionths of a TAO: whole numbers, whose sum has no order."""
    return {
        neuron.hotkey: int(neuron.stake * 1e9)
        for neuron in graph.neurons
        if neuron.validator_permit and neuron.stake > 0
    }


def _words(stakes: Mapping[str, int], held: Mapping[str, Committed]) -> dict[str, Word]:
    """What those who may validate have said; what cannot be read is nothing."""
    found = {}
    for hotkey in stakes:
        text = held[hotkey].find(WORD_PREFIX) if hotkey in held else None
        if text is None:
            continue
        try:
            found[hotkey] = Word.parse(text)
        except MalformedMessage:
            continue
    return found
