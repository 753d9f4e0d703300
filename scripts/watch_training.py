"""What a training came to, and whether that is as it should be; beside watch.py, which looks at inference.

    watcher = TrainWatcher(chain, netuid, TRAINING, addresses, data)
    for epoch in await watcher.look(house): ...      # epochs that have run since the last look
    watcher.rows(), watcher.result(), watcher.problems()
    await watcher.replay(url, scratch, env)          # the model again, from what is public
    files = await watcher.draw(folder, env)          # loss, contributions, scores and verdicts of every window

What the chain says is read from the chain, and the rest from the validators' ledgers.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lineup import Part
from watch_epochs import ALPHA, EpochWatcher

from protocol.metagraph import Neuron
from protocol.training.ratings import TrainState, weights
from template.chain import MECHANISM_STRIDE, Chain
from template.errors import TemplateError
from template.training.ledger import TrainLedger, VerdictRow, WindowRow

MECHANISM = 1
WHOLE = 65535  # an incentive of 1, in the chain's unit
PATIENT_WINDOWS = 20
COMMAND_LIMIT = 300.0  # seconds


@dataclass
class Seen:
    """What one validator's ledger holds."""

    windows: Sequence[WindowRow] = ()
    states: Mapping[str, TrainState] = field(default_factory=dict)
    verdicts: Mapping[int, Sequence[VerdictRow]] = field(default_factory=dict)


@dataclass
class TrainRow:
    """One neuron in the table; the columns of verdicts count validators and windows together."""

    part: Part
    uid: int | None = None
    stake: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    rating: float | None = None
    effort: float | None = None
    presence: float | None = None
    incentive: float = 0.0
    earned: float = 0.0  # alpha over the epochs of this run
    state: str = "starting"


class TrainWatcher(EpochWatcher):
    """Adds what validators' ledgers say of windows, and the replay."""

    mechanism = MECHANISM
    words = ("training", "training pays nobody yet")

    def __init__(self, chain: Chain, netuid: int, cast: Sequence[Part], addresses: Mapping[str, str], data: Path):
        super().__init__(chain, netuid, cast, {part.name: addresses[part.name] for part in cast}, data)
        self.seen: dict[str, Seen] = {}  # by validator
        self.replayed: dict[str, Any] | None = None
        self._earlier: int | None = None  # windows that were over when this run began

    def enough(self, epochs: int) -> bool:
        """Whether so many epochs have paid, and all honest trainers among them: a rating that pays takes a few windows,
        how many is a matter of ranks. After PATIENT_WINDOWS of this run it is enough in any case."""
        unpaid = [part.name for part in self.miners if part.honest and self.earned(part.name) <= 0]
        windows = len(self.windows) - (self._earlier or 0)
        return super().enough(epochs) and (not unpaid or windows >= PATIENT_WINDOWS)

    async def _incentives(self, found: Mapping[str, Neuron], block: int) -> dict[str, float]:
        held = await self.chain.query("Incentive", MECHANISM * MECHANISM_STRIDE + self.netuid, block=block) or []
        return {n: int(held[one.uid]) / WHOLE if one.uid < len(held) else 0.0 for n, one in found.items()}

    def _look_around(self, is_new: bool) -> None:
        self.read_ledgers()
        if self._earlier is None:
            self._earlier = len(self.windows)

    def read_ledgers(self) -> None:
        """What is new since the last look; a window changes nothing once it is over."""
        for part in self.validators:
            path = self.ledger(part)
            if path is None:
                continue
            before = self.seen.get(part.name, Seen())
            with TrainLedger(path) as ledger:
                if before.windows and ledger.last_window() == before.windows[-1].window:
                    continue
                windows = ledger.windows()
                fresh = {row.window: ledger.rows(row.window) for row in windows if row.window not in before.verdicts}
                self.seen[part.name] = Seen(windows, ledger.states(), {**before.verdicts, **fresh})

    def ledger(self, part: Part) -> Path | None:
        found = sorted((self.data / f"{part.name}.default" / "training").glob("*/ledger.sqlite"))
        return found[0] if found else None

    # What is shown and written

    @property
    def windows(self) -> Sequence[WindowRow]:
        """As the validator with the most stake has them."""
        return self.seen[self.validators[0].name].windows if self.validators[0].name in self.seen else ()

    @property
    def losses(self) -> list[float]:
        return [row.loss for row in self.windows if row.loss is not None]

    def rows(self) -> list[TrainRow]:
        return [self._row(part) for part in self.cast]

    def _row(self, part: Part) -> TrainRow:
        row = TrainRow(part, state=self.states.get(part.name, ""), earned=self.earned(part.name) / ALPHA)
        hotkey = self.addresses[part.name]
        neuron = self.graph.by_hotkey.get(hotkey) if self.graph else None
        if neuron is not None:
            row.uid, row.stake = neuron.uid, neuron.stake
        if self.epochs:
            row.incentive = self.epochs[-1].incentive.get(part.name, 0.0)
        for seen in self.seen.values():
            for verdict in (one for rows in seen.verdicts.values() for one in rows if one.hotkey == hotkey):
                row.counts[verdict.outcome or "absent"] += 1
                row.counts["entered"] += verdict.accepted
                row.counts["audited"] += verdict.audited
        states = [seen.states[hotkey] for seen in self.seen.values() if hotkey in seen.states]
        if states:
            row.rating = sum(state.mu - 3 * state.sigma for state in states) / len(states)
            row.effort = sum(state.effort for state in states) / len(states)
            row.presence = sum(state.presence for state in states) / len(states)
        return row

    def title(self) -> str:
        if not self.windows:
            return "training: no window is over yet"
        losses = self.losses
        fell = f"loss {losses[0]:.3f} to {losses[-1]:.3f}" if losses else "no loss measured yet"
        return (
            f"training · {len(self.windows)} windows · {fell} · model {self.windows[-1].root[:12]} · "
            f"paid epochs {len(self.paid)}"
        )

    def result(self) -> dict[str, Any]:
        """The training's part of the report."""
        return {
            "neurons": {row.part.name: self._result(row) for row in self.rows()},
            "windows": [vars(row) for row in self.windows],
            "epochs": self._told_epochs(),
            "weights": {name: {str(uid): share for uid, share in row.items()} for name, row in self.weights.items()},
            "replay": self.replayed,
        }

    def _result(self, row: TrainRow) -> dict[str, Any]:
        hotkey = self.addresses[row.part.name]
        reasons = Counter(
            verdict.reason
            for seen in self.seen.values()
            for rows in seen.verdicts.values()
            for verdict in rows
            if verdict.hotkey == hotkey and verdict.reason
        )
        return {
            "role": row.part.role,
            "honest": row.part.honest,
            "uid": row.uid,
            "hotkey": hotkey,
            "verdicts": dict(row.counts),
            "reasons": dict(reasons),
            "rating": row.rating,
            "incentive": row.incentive,
            "emission": self.earned(row.part.name),
            "weights": {name: shares.get(hotkey, 0.0) for name, shares in self._drawn().items()},
        }

    def _drawn(self) -> dict[str, dict[str, float]]:
        return {
            name: weights(seen.states, seen.windows[-1].window + 1) for name, seen in self.seen.items() if seen.windows
        }

    async def replay(self, url: str, scratch: Path, env: Mapping[str, str]) -> None:
        """`touchstone train replay` as anybody would run it. Its answer, or why there is none, becomes `replayed`."""
        flags = ["--network", url, "--netuid", str(self.netuid), "--data-dir", str(scratch)]
        status, out, told = await _touchstone(env, "train", "replay", "--json", *flags)
        self.replayed = {"status": status, **(json.loads(out) if status == 0 else {"error": told})}

    async def draw(self, folder: Path, env: Mapping[str, str]) -> list[Path]:
        """The windows as the first validator has them: training.png and training.json in `folder`. Empty when there is
        nothing to draw."""
        ledger = self.ledger(self.validators[0])
        if ledger is None or not self.windows:
            return []
        files = [folder / "training.png", folder / "training.json"]
        names = folder / "names.json"
        names.write_text(json.dumps({hotkey: name for name, hotkey in self.addresses.items()}))
        flags = ["--ledger", str(ledger), "--picture", str(files[0]), "--names", str(names)]
        status, out, told = await _touchstone(env, "train", "status", "--json", *flags)
        if status != 0:
            raise TemplateError(f"the training cannot be drawn: {told}")
        files[1].write_text(out)
        return files

    def problems(self) -> list[str]:
        """What is not as it should be; empty when the model learned, honest trainers were paid and nobody else was, and
        the public record leads to the model that validators have."""
        found = []
        for part in self.miners:
            most = self.most(part.name)
            if part.honest and (most <= 0 or self.earned(part.name) <= 0):
                found.append(f"{part.name} trained honestly and earned nothing")
            if not part.honest and most > 0:
                found.append(f"{part.name} is dishonest and got an incentive of {most:.4f} for training")
        for part in self.validators:
            if not any(share > 0 for share in self.weights.get(part.name, {}).values()):
                found.append(f"{part.name} has set no weights for training")
            if self.earned(part.name) <= 0:
                found.append(f"{part.name} validated training and earned nothing")
        losses = self.losses
        if len(losses) < 2:
            found.append("the loss of fewer than two windows is known")
        elif not losses[-1] < losses[0]:
            found.append(f"the loss did not fall: {losses[0]:.4f} to {losses[-1]:.4f}")
        return [*found, *self._disagreements(), *self._replay_problems()]

    def _disagreements(self) -> list[str]:
        """Windows of which validators have different models."""
        roots: dict[int, set[str]] = {}
        for seen in self.seen.values():
            for row in seen.windows:
                roots.setdefault(row.window, set()).add(row.root)
        return [f"validators have different models after window {w}" for w, found in roots.items() if len(found) > 1]

    def _replay_problems(self) -> list[str]:
        if self.replayed is None or self.replayed["status"] != 0:
            return [f"the model could not be replayed: {(self.replayed or {}).get('error', 'not tried')}"]
        roots = [row.root for row in self.windows]
        if self.replayed["root"] not in roots[-3:]:
            return [f"the replay leads to {self.replayed['root'][:16]}, which is no model of the last windows"]
        return []


async def _touchstone(env: Mapping[str, str], *arguments: str) -> tuple[int | None, str, str]:
    """(exit status, output, the end of what it said) of a command; the status is None when it was not done in time."""
    command = [sys.executable, "-m", "neurons.cli", *arguments]
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    process = await asyncio.create_subprocess_exec(*command, **pipes, env=dict(env))
    try:
        out, told = await asyncio.wait_for(process.communicate(), COMMAND_LIMIT)
    except asyncio.TimeoutError:
        return None, "", f"not done in {COMMAND_LIMIT:.0f} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, out.decode(), told.decode(errors="replace").strip()[-500:]
