"""What the chain paid for answers, and whether that is as it should be.

    watcher = Watcher(chain, netuid, LINEUP, addresses, data)
    for epoch in await watcher.look(house): ...      # epochs that have run since the last look
    watcher.rows(), watcher.result(), verdict_on(watcher)

Epochs are collected as watch_epochs.py says. The verdict is pure: it looks only at what was collected.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lineup import Part
from watch_epochs import ALPHA, EpochWatcher

from protocol.inference import MECHANISM
from protocol.metagraph import Neuron
from template.chain import Chain
from template.ledger import Ledger

LEDGER_LOOKS = 3  # validators' ledgers are read at every third look: their rounds take seconds


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


class Watcher(EpochWatcher):
    """Adds what validators' ledgers say of answers."""

    mechanism = MECHANISM
    words = ("incentive", "no incentive yet")

    def __init__(self, chain: Chain, netuid: int, cast: Sequence[Part], addresses: Mapping[str, str], data: Path):
        super().__init__(chain, netuid, cast, addresses, data)
        self.scores: dict[str, dict[str, float]] = {}  # validator name -> hotkey -> score
        self.verdicts: dict[str, dict[str, int]] = {}  # hotkey -> counts, all validators together
        self.reasons: dict[str, dict[str, int]] = {}

    async def _incentives(self, found: Mapping[str, Neuron], block: int) -> dict[str, float]:
        return {name: neuron.incentive for name, neuron in found.items()}

    def _look_around(self, is_new: bool) -> None:
        if is_new or self._looks % LEDGER_LOOKS == 1:
            self._read_ledgers()

    def _read_ledgers(self) -> None:
        verdicts: dict[str, dict[str, int]] = {}
        reasons: dict[str, dict[str, int]] = {}
        for part in self.validators:
            path = self.data / f"{part.name}.default" / "ledger.sqlite"
            if not path.exists():
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
        return [self._row(part) for part in self.cast]

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
            "epochs": self._told_epochs(),
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
    honest = [part.name for part in watcher.miners if part.honest]
    for part in watcher.cast:
        earned, incentive = watcher.earned(part.name), watcher.most(part.name)
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


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for key, count in more.items():
        total[key] = total.get(key, 0) + count
