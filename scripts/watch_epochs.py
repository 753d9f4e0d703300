"""What both watchers do, of inference and of training: look at the chain again and again, and collect its epochs.

    for epoch in await watcher.look(house): ...      # epochs that have run since the last look
    watcher.paid, watcher.earned(name), watcher.enough(epochs)

An epoch is read from the state right after its block, never from a later one. It counts as paid when a miner received
incentive in it. watch.py and watch_training.py say where a mechanism's incentive stands, and what else is looked at.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lineup import Part
from processes import Household

from protocol.metagraph import Metagraph, Neuron
from template.chain import Chain, ChainError

ALPHA = 10**9  # alpha-rao per alpha


@dataclass(frozen=True)
class Epoch:
    """One epoch as the chain holds it right after its block. By part name; incentive and dividends 0..1, emission in
    alpha-rao."""

    index: int
    block: int
    incentive: Mapping[str, float]
    dividends: Mapping[str, float]
    emission: Mapping[str, int]


class EpochWatcher(ABC):
    """Collects what happens on the subnet, by part name."""

    mechanism: int
    words: tuple[str, str]  # before the shares of an epoch; instead of them

    def __init__(self, chain: Chain, netuid: int, cast: Sequence[Part], addresses: Mapping[str, str], data: Path):
        self.chain = chain
        self.netuid = netuid
        self.cast = cast
        self.addresses = addresses
        self.data = data
        self.epochs: list[Epoch] = []
        self.graph: Metagraph | None = None
        self.weights: dict[str, dict[int, float]] = {}  # validator name -> uid -> share, of this mechanism
        self.states: dict[str, str] = {}
        self.peak_memory = 0  # bytes
        self.next_epoch = 0
        self._index: int | None = None
        self._looks = 0

    @property
    def miners(self) -> list[Part]:
        return [part for part in self.cast if not part.validates]

    @property
    def validators(self) -> list[Part]:
        return [part for part in self.cast if part.validates]

    @property
    def paid(self) -> list[Epoch]:
        """Epochs in which a miner received incentive."""
        names = [part.name for part in self.miners]
        return [epoch for epoch in self.epochs if any(epoch.incentive.get(name, 0.0) > 0 for name in names)]

    def earned(self, name: str) -> int:
        """Alpha-rao the chain's epochs gave this neuron during this run."""
        return sum(epoch.emission.get(name, 0) for epoch in self.epochs)

    def most(self, name: str) -> float:
        """The largest incentive of this neuron in an epoch of this run."""
        return max((epoch.incentive.get(name, 0.0) for epoch in self.epochs), default=0.0)

    def enough(self, epochs: int) -> bool:
        return len(self.paid) >= epochs

    async def look(self, house: Household) -> list[Epoch]:
        """Read everything once; the epochs that are new. A chain that does not answer in time is looked at later."""
        self.states = {part.name: state_of(house, part) for part in self.cast}
        self.peak_memory = house.peak_memory
        self._looks += 1
        try:
            return await self._look()
        except ChainError:
            return []

    async def _look(self) -> list[Epoch]:
        self.graph = await self.chain.metagraph(self.netuid)
        index = int(await self.chain.query("SubnetEpochIndex", self.netuid))
        last = int(await self.chain.query("LastEpochBlock", self.netuid))
        self.next_epoch = last + self.graph.tempo
        for part in self.validators:
            uid = self.graph.by_hotkey[self.addresses[part.name]].uid
            self.weights[part.name] = await self.chain.weights_of(self.netuid, uid, mechanism=self.mechanism)
        is_new = self._index is not None and index != self._index
        self._index = index
        self._look_around(is_new)
        if not is_new:
            return []
        self.epochs.append(await self._epoch(index, last))
        return self.epochs[-1:]

    async def _epoch(self, index: int, block: int) -> Epoch:
        graph = await self.chain.metagraph(self.netuid, block)
        found = {name: graph.by_hotkey[hotkey] for name, hotkey in self.addresses.items() if hotkey in graph.by_hotkey}
        return Epoch(
            index,
            block,
            await self._incentives(found, block),
            {name: neuron.dividends for name, neuron in found.items()},
            {name: neuron.emission for name, neuron in found.items()},
        )

    @abstractmethod
    async def _incentives(self, found: Mapping[str, Neuron], block: int) -> dict[str, float]:
        """Of this mechanism after `block`; `found`: the neurons then, by part name."""

    @abstractmethod
    def _look_around(self, is_new: bool) -> None:
        """Read what is not on the chain; `is_new`: an epoch has run since the last look."""

    # What is shown and written

    def told(self, epoch: Epoch) -> str:
        shares = ", ".join(f"{name} {share:.3f}" for name, share in epoch.incentive.items() if share > 0)
        return f"{self.words[0]} {shares}" if shares else self.words[1]

    def _told_epochs(self) -> list[dict[str, Any]]:
        paid = self.paid
        return [{**vars(epoch), "paid": epoch in paid} for epoch in self.epochs]


def state_of(house: Household, part: Part) -> str:
    """The last thing a neuron's process logged, without time and module."""
    words = house.last_words(part.child)
    if not words:
        return "starting"
    return words[0].split(": ", 1)[-1][:80]
