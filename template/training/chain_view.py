"""What the chain says of a window: who committed, where their artifacts are, what validators voted, which root stands.

    view = WindowView(chain, netuid, schedule)
    due = await view.due(window)                  {hotkey: Due} as of the end of `commit`
    taken = await view.accepted(window, due)      hotkeys accepted by stake, as of the end of `score`
    root = await view.agreed(window)              (RootCommitment, where its record is) or None, as of now
    await view.seed(window, Phase.REVEAL)         32 bytes from the hash of the phase's first block

Everything but the roots is read as of one block, so everybody reads the same. Nodes keep the state of the last 256
blocks: a window is settled within its own length, and who missed it follows the records instead.
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
from protocol.training.votes import ROOT_PREFIX, VOTES_PREFIX, RootCommitment, Votes, accepted, agreed
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
        return tick(await self.chain.block(), self.schedule)

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
        """The hotkeys of `due` that more than half of the stake voted for by the end of `score`. Raises ChainError."""
        graph, held = await self._as_of(self.schedule.block_of(window, Phase.AGGREGATE) - 1)
        hotkey_of = {promised.uid: hotkey for hotkey, promised in due.items()}
        votes = {}
        for hotkey, stake in _voters(graph).items():
            text = held[hotkey].find(VOTES_PREFIX) if hotkey in held else None
            try:
                said = Votes.parse(text) if text else None
            except MalformedMessage:
                continue
            if said is not None and said.window == window:
                votes[hotkey] = (stake, [hotkey_of[uid] for uid in said.uids if uid in hotkey_of])
        return accepted(votes)

    async def agreed(self, window: int) -> tuple[RootCommitment, list[str]] | None:
        """The root after `window` that most stake stands behind now, with the locations of those who say so; None while
        there is none. Raises ChainError."""
        graph = await self.chain.metagraph(self.netuid)
        held = await self.chain.commitments(self.netuid)
        said: dict[str, tuple[int, RootCommitment]] = {}
        for hotkey, stake in _voters(graph).items():
            text = held[hotkey].find(ROOT_PREFIX) if hotkey in held else None
            try:
                root = RootCommitment.parse(text) if text else None
            except MalformedMessage:
                continue
            if root is not None and root.window == window:
                said[hotkey] = (stake, root)
        # The record is part of what is agreed: the text stands for both.
        chosen = agreed({hotkey: (stake, root.encode()) for hotkey, (stake, root) in said.items()})
        behind = [hotkey for hotkey, (_, root) in said.items() if root.encode() == chosen]
        if not behind:
            return None
        locations = [held[hotkey].find(LOCATION_PREFIX) for hotkey in behind]
        return said[behind[0]][1], [location for location in locations if location]

    async def validator_locations(self) -> list[str]:
        """Where validators keep artifacts, the most stake first: they mirror what entered the model. Raises
        ChainError."""
        graph = await self.chain.metagraph(self.netuid)
        held = await self.chain.commitments(self.netuid)
        stakes = _voters(graph)
        order = sorted(stakes, key=lambda hotkey: (-stakes[hotkey], hotkey))
        found = [held[hotkey].find(LOCATION_PREFIX) for hotkey in order if hotkey in held]
        return [location for location in found if location]

    async def newest_root(self) -> int | None:
        """The last window of which a validator has committed the root; None when there is none. Raises ChainError."""
        graph = await self.chain.metagraph(self.netuid)
        held = await self.chain.commitments(self.netuid)
        windows = []
        for hotkey in _voters(graph):
            text = held[hotkey].find(ROOT_PREFIX) if hotkey in held else None
            try:
                windows += [RootCommitment.parse(text).window] if text else []
            except MalformedMessage:
                continue
        return max(windows, default=None)

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
