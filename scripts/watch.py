"""What the chain paid, and whether that is as it should be.

    watcher = Watcher(chain, netuid, LINEUP, addresses, data)
    for epoch in await watcher.look(house): ...      # epochs that have run since the last look
    watcher.rows(), watcher.result(), verdict_on(watcher)

An epoch is read from the state right after its block, never from a later one. It counts as paid when a miner received
incentive in it. The verdict is pure: it looks only at what was collected.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lineup import Part
from processes import Household

from protocol.inference import MECHANISM
from protocol.metagraph import Metagraph, Neuron
from template.chain import Chain, ChainError
from template.ledger import Ledger

ALPHA = 10**9  # alpha-rao per alpha
LEDGER_LOOKS = 3  # validators' ledgers are read at every third look: their rounds take seconds
MEMORY_LOOKS = 10


@dataclass(frozen=True)
class Epoch:
    """One epoch as the chain holds it right after its block. By part name; incentive and dividends 0..1, emission in
    alpha-rao."""

    index: int
    block: int
    incentive: Mapping[str, float]
    dividends: Mapping[str, float]
    emission: Mapping[str, int]


@dataclass
class Row:
    """One neuron in the table."""

    part: Part
    uid: int | None = None
    stake: float = 0.0
    verdicts: dict[str, int] = field(default_factory=dict)
    score: float | None = None  # mean over validators
    weight: float | None = None  # stake-weighted mean over validators
    incentive: float = 0.0
    dividends: float = 0.0
    earned: float = 0.0  # alpha over the epochs of this run
    state: str = "starting"


class Watcher:
    """Collects what happens on the subnet, by part name."""

    def __init__(self, chain: Chain, netuid: int, lineup: Sequence[Part], addresses: Mapping[str, str], data: Path):
        self.chain = chain
        self.netuid = netuid
        self.lineup = lineup
        self.addresses = addresses
        self.data = data
        self.epochs: list[Epoch] = []
        self.graph: Metagraph | None = None
        self.weights: dict[str, dict[int, float]] = {}  # validator name -> uid -> share
        self.scores: dict[str, dict[str, float]] = {}  # validator name -> hotkey -> score
        self.verdicts: dict[str, dict[str, int]] = {}  # hotkey -> counts, all validators together
        self.reasons: dict[str, dict[str, int]] = {}
        self.states: dict[str, str] = {}
        self.peak_memory = 0
        self.next_epoch = 0
        self._index: int | None = None
        self._looks = 0

    @property
    def paid(self) -> list[Epoch]:
        """Epochs in which a miner received incentive."""
        miners = [part.name for part in self.lineup if not part.validates]
        return [epoch for epoch in self.epochs if any(epoch.incentive.get(name, 0.0) > 0 for name in miners)]

    def enough(self, epochs: int) -> bool:
        return len(self.paid) >= epochs

    async def look(self, house: Household) -> list[Epoch]:
        """Read everything once; the epochs that are new. A chain that does not answer in time is looked at later."""
        self.states = {part.name: state_of(house, part) for part in self.lineup}
        if self._looks % MEMORY_LOOKS == 0:
            self.peak_memory = max(self.peak_memory, house.memory())
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
        for part in self.lineup:
            if part.validates:
                uid = self.graph.by_hotkey[self.addresses[part.name]].uid
                self.weights[part.name] = await self.chain.weights_of(self.netuid, uid)
        if self._looks % LEDGER_LOOKS == 1:
            self._read_ledgers()
        if self._index is None:
            self._index = index
        if index == self._index:
            return []
        self._index = index
        self._read_ledgers()
        epoch = self._epoch(index, last, await self.chain.metagraph(self.netuid, last))
        self.epochs.append(epoch)
        return [epoch]

    def _epoch(self, index: int, block: int, graph: Metagraph) -> Epoch:
        found = {name: graph.by_hotkey[hotkey] for name, hotkey in self.addresses.items() if hotkey in graph.by_hotkey}
        return Epoch(
            index,
            block,
            {name: neuron.incentive for name, neuron in found.items()},
            {name: neuron.dividends for name, neuron in found.items()},
            {name: neuron.emission for name, neuron in found.items()},
        )

    def _read_ledgers(self) -> None:
        verdicts: dict[str, dict[str, int]] = {}
        reasons: dict[str, dict[str, int]] = {}
        for part in self.lineup:
            path = self.data / f"{part.name}.default" / "ledger.sqlite"
            if not part.validates or not path.exists():
                continue
            with contextlib.closing(Ledger(path)) as ledger:
                self.scores[part.name] = {h: state.score for h, state in ledger.scores(MECHANISM).items()}
                for hotkey, counts in ledger.verdict_counts().items():
                    _add(verdicts.setdefault(hotkey, {}), counts)
                for hotkey in self.addresses.values():
                    _add(reasons.setdefault(hotkey, {}), ledger.reasons(hotkey))
        self.verdicts, self.reasons = verdicts, reasons

    # What is shown and written

    def rows(self) -> list[Row]:
        return [self._row(part) for part in self.lineup]

    def _row(self, part: Part) -> Row:
        row = Row(part, state=self.states.get(part.name, ""))
        hotkey = self.addresses[part.name]
        neuron = self.graph.by_hotkey.get(hotkey) if self.graph else None
        if neuron is None:
            return row
        row.uid, row.stake = neuron.uid, neuron.stake
        row.verdicts = self.verdicts.get(hotkey, {})
        row.earned = self.earned(part.name) / ALPHA
        if self.epochs:
            row.incentive = self.epochs[-1].incentive.get(part.name, 0.0)
            row.dividends = self.epochs[-1].dividends.get(part.name, 0.0)
        if not part.validates:
            scores = [scores[hotkey] for scores in self.scores.values() if hotkey in scores]
            row.score = sum(scores) / len(scores) if scores else None
            row.weight = self._weight(neuron)
        return row

    def _weight(self, neuron: Neuron) -> float | None:
        assert self.graph is not None
        stakes = {name: self.graph.by_hotkey[self.addresses[name]].stake for name, row in self.weights.items() if row}
        total = sum(stakes.values())
        if not total:
            return None
        return sum(self.weights[name].get(neuron.uid, 0.0) * stake for name, stake in stakes.items()) / total

    def earned(self, name: str) -> int:
        """Alpha-rao the chain's epochs gave this neuron during this run."""
        return sum(epoch.emission.get(name, 0) for epoch in self.epochs)

    def told(self, epoch: Epoch) -> str:
        shares = ", ".join(f"{name} {share:.3f}" for name, share in epoch.incentive.items() if share > 0)
        return f"incentive {shares}" if shares else "no incentive yet"

    def title(self) -> str:
        if self.graph is None:
            return "waiting for the chain"
        left = max(0, self.next_epoch - self.graph.block)
        return (
            f"subnet {self.netuid} · block {self.graph.block} · next epoch in {left} blocks · "
            f"paid epochs {len(self.paid)} · memory {self.peak_memory / 2**30:.1f} GiB at most"
        )

    def result(self) -> dict[str, Any]:
        """The report of `--json`."""
        return {
            "network": self.chain.endpoint,
            "netuid": self.netuid,
            "block": self.graph.block if self.graph else None,
            "peak_memory_bytes": self.peak_memory,
            "neurons": {row.part.name: self._result(row) for row in self.rows()},
            "epochs": [{**vars(epoch), "paid": epoch in self.paid} for epoch in self.epochs],
        }

    def _result(self, row: Row) -> dict[str, Any]:
        hotkey = self.addresses[row.part.name]
        answer: dict[str, Any] = {
            "role": row.part.role,
            "honest": row.part.honest,
            "uid": row.uid,
            "hotkey": hotkey,
            "stake": row.stake,
            "incentive": row.incentive,
            "dividends": row.dividends,
            "emission": self.earned(row.part.name),
        }
        if row.part.validates:
            answer["weights"] = {str(uid): share for uid, share in self.weights.get(row.part.name, {}).items()}
        else:
            answer |= {
                "verdicts": row.verdicts,
                "reasons": self.reasons.get(hotkey, {}),
                "score": row.score,
                "weight": row.weight,
            }
        return answer


def verdict_on(watcher: Watcher) -> list[str]:
    """What is not as it should be; empty when honest work was paid, faster work more, and nothing else earned."""
    problems = []
    honest = [part.name for part in watcher.lineup if not part.validates and part.honest]
    for part in watcher.lineup:
        earned = watcher.earned(part.name)
        incentive = max((epoch.incentive.get(part.name, 0.0) for epoch in watcher.epochs), default=0.0)
        if not part.validates and part.honest and (earned <= 0 or incentive <= 0):
            problems.append(f"{part.name} is honest and earned nothing")
        if not part.validates and not part.honest and incentive > 0:
            problems.append(f"{part.name} is dishonest and got an incentive of {incentive:.4f}")
        if part.validates and earned <= 0:
            problems.append(f"{part.name} validated and earned nothing")
    fast, slow = honest[0], honest[1]
    if watcher.earned(fast) <= watcher.earned(slow):
        problems.append(f"{fast} is faster than {slow} and did not earn more")
    return problems


def state_of(house: Household, part: Part) -> str:
    """The last thing a neuron's process logged, without time and module."""
    words = house.last_words(part.child)
    if not words:
        return "starting"
    return words[0].split(": ", 1)[-1][:80]


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for key, count in more.items():
        total[key] = total.get(key, 0) + count
