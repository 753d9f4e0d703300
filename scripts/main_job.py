#!/usr/bin/env python3
"""The main job: a subnet on one machine that pays honest work and starves the rest. Usually run by `scripts/up.sh`.

    ./scripts/up.sh --mechanism both        inference and training; or one of the two; inference when nothing is said

What happens, in order: a local chain starts as its own process; wallets are made and funded; a subnet is registered,
activated and tuned for a short demonstration; validators stake, miners register; every neuron starts as a process. Then
the chain does what it always does, and this program watches: a table while it runs, and at the end the question whether
every honest miner earned, the faster one more, and every dishonest one nothing.

With training, a recipe and data come first, and at the end more questions: whether the loss fell, whether honest
trainers were paid and dishonest ones not, and whether what is public leads to the model that the validators have.

Everything is kept below .touchstone/, so that a second run resumes. The pieces: lineup.py (who takes part), stage.py
(chain, wallets, subnet), training.py (buckets, data, recipe), processes.py (children that cannot outlive this program),
watch_epochs.py, watch.py and watch_training.py (what the chain paid), table.py (what is shown).
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fit import Fitting, Misfit, examine
from lineup import CASTS, LINEUP, NEURONS, TRAINING, Part
from processes import Household
from stage import BLOCK_SECONDS, Stage
from table import Display, Draw, picture, table, together, training_table
from training import TrainingStage
from watch import Watcher, verdict_on
from watch_training import TrainWatcher

from template.chain import Chain
from template.errors import TemplateError

REPO = Path(__file__).resolve().parent.parent
PATIENCE = 900.0  # seconds without a new paid epoch after which the run counts as failed
SERVING_PATIENCE = 180.0  # seconds for all miners to load and publish
REFRESH = 1.0  # seconds between two looks at the chain
MEMORY_LOOKS = 10  # at every tenth look memory is measured too


class JobFailed(TemplateError):
    """The main job cannot go on."""


Mechanism = Literal["inference", "training", "both"]


@dataclass(frozen=True)
class Options:
    mechanism: Mechanism
    epochs: int | None
    report: Path | None
    picture: Path | None
    fresh: bool
    keep_running: bool
    home: Path
    runtime: str | None


def main(
    mechanism: Annotated[Mechanism, typer.Option(help="What the subnet does.")] = "inference",
    epochs: Annotated[int | None, typer.Option(min=1, help="Stop after this many paid epochs.")] = None,
    report: Annotated[Path | None, typer.Option("--json", help="Write the result to this file.")] = None,
    picture_file: Annotated[Path | None, typer.Option("--picture", help="Draw the last table as an SVG.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget chain, wallets and scores of earlier runs.")] = False,
    keep_running: Annotated[
        bool, typer.Option("--keep-running", help="With --epochs: report, then go on until Ctrl-C.")
    ] = False,
    home: Annotated[Path, typer.Option(help="Where everything is kept.")] = REPO / ".touchstone",
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|CHAINSPEC|URL",
            help="Run the chain on its released Wasm runtime: see `localnet --help`. Ends with status 2, before "
            "anything starts, when the main job and the SDK do not fit it. Default: the specification runtime.",
        ),
    ] = None,
) -> None:
    """Run a whole subnet on this machine: one chain, two validators, honest and dishonest miners."""
    options = Options(mechanism, epochs, report, picture_file, fresh, keep_running, home.resolve(), runtime)
    try:
        for file in (report, picture_file):  # now, not after all the epochs
            if file is not None and not file.resolve().parent.is_dir():
                raise JobFailed(f"there is no folder for {file}", remedy="make it, or name another file")
        code = asyncio.run(run(options, _fitting(options)))
    except TemplateError as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        code = 2 if isinstance(error, Misfit) else 1
    raise typer.Exit(code)


def _fitting(options: Options) -> Fitting | None:
    """Before --fresh forgets anything; and before there is a loop, so that Ctrl-C ends it. Raises Misfit."""
    if options.runtime is None:
        return None
    return examine(options.runtime, print, None if options.mechanism == "inference" else BLOCK_SECONDS)


async def run(options: Options, fitting: Fitting | None) -> int:
    """The whole job; the exit status."""
    lock = _lock(options)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    display = Display()
    try:
        with Household(options.home / "logs", _environment()) as house:
            job = asyncio.ensure_future(Job(options, house, display, stop, fitting).run())
            waiter = asyncio.ensure_future(stop.wait())
            await asyncio.wait({job, waiter}, return_when=asyncio.FIRST_COMPLETED)
            waiter.cancel()
            if not job.done():
                job.cancel()
                await asyncio.gather(job, return_exceptions=True)
                display.say("stopping everything; run again to resume")
                return 130 if options.epochs is not None else 0
            return job.result()
    finally:
        display.close()
        lock.close()


def _lock(options: Options) -> Any:
    """One main job per home: two would fight over the chain's file. `--fresh` wipes only under the lock."""
    options.home.mkdir(parents=True, exist_ok=True)
    lock = (options.home / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JobFailed(
            f"another main job is running on {options.home}", remedy="stop it with Ctrl-C, or give another --home"
        ) from None
    if options.fresh:
        for entry in options.home.iterdir():
            if entry.name != "lock":
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    return lock


def _environment() -> dict[str, str]:
    """Fair shares: OpenMP would otherwise start one thread per core in every process."""
    return {
        "OMP_NUM_THREADS": str(_threads()),
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(REPO), os.environ.get("PYTHONPATH", "")))),
    }


def _threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // len({part.child for part in LINEUP if part.needs_model}))


class Job:
    """Stage, cast, watch."""

    def __init__(
        self, options: Options, house: Household, display: Display, stop: asyncio.Event, fitting: Fitting | None
    ) -> None:
        self.options = options
        self.fitting = fitting
        self.house = house
        self.display = display
        self.stop = stop
        self.began = time.monotonic()

    async def run(self) -> int:
        cast = CASTS[self.options.mechanism]
        inference, training = [p for p in cast if p in LINEUP], [p for p in cast if p in TRAINING]
        stage = Stage(self.options.home, self.house, self.display.say, self.fitting)
        trains = TrainingStage(stage, alone=not inference) if training else None
        model = self.house.start("model", [sys.executable, "-m", "neurons.models"]).name if inference else None
        data = trains.build_dataset() if trains else None
        async with await stage.open() as chain:
            netuid = await stage.prepare(cast)
            if trains is not None:
                if data is not None:
                    await self._made("data", data)
                await trains.open(training)
                await trains.begin(netuid)
                self._start_training(stage, trains, netuid, training)
            if model is not None:
                await self._made("model", model)
                await stage.commit_model(netuid)
                await self._start_inference(stage, chain, netuid, inference)
            self.display.say(f"look at it yourself: touchstone status --netuid {netuid} --network {stage.url}")
            home = self.options.home / "data"
            watchers: list[Watcher | TrainWatcher] = []
            if inference:
                watchers.append(Watcher(chain, netuid, inference, stage.addresses, home))
            if training:
                watchers.append(TrainWatcher(chain, netuid, training, stage.addresses, home))
            return await self._watch(watchers, stage.url)

    async def _start_inference(self, stage: Stage, chain: Chain, netuid: int, cast: list[Part]) -> None:
        miners = [part for part in cast if not part.validates]
        for part in {part.child: part for part in miners}.values():
            self._start(part, stage.url, netuid)
        self.display.say(f"started {len(miners)} miners on subnet {netuid}; logs in {self.house.logs}")
        await self._serving(chain, netuid, miners, stage.addresses)
        validators = [part for part in cast if part.validates]
        for part in validators:
            self._start(part, stage.url, netuid)
        self.display.say(f"all miners serve; started {len(validators)} validators")

    def _start_training(self, stage: Stage, trains: TrainingStage, netuid: int, cast: list[Part]) -> None:
        for part in {part.child: part for part in cast}.values():
            self._start(part, stage.url, netuid, trains.flags(part.name))
        miners = sum(not part.validates for part in cast)
        self.display.say(f"started {miners} trainers and {len(cast) - miners} validators of training")

    async def _made(self, what: str, name: str) -> None:
        """Wait for a child that prepares something, once here, so that the neurons need not."""
        said = ""
        while self.house.alive(name):
            words = self.house.last_words(name)
            if words and words[0] != said:
                said = words[0]
                self.display.say(f"{what}: {said}")
            await asyncio.sleep(0.2)
        if self.house.children[name].process.returncode != 0:
            raise JobFailed(f"the {what} cannot be prepared:\n  " + "\n  ".join(self.house.last_words(name, 6)))
        self.house.stop([name])

    async def _serving(self, chain: Chain, netuid: int, miners: list[Part], addresses: dict[str, str]) -> None:
        """Wait until the chain holds the address each miner listens on: the first round should find them all."""
        deadline = time.monotonic() + SERVING_PATIENCE
        while True:
            self._check_children()
            graph = await chain.metagraph(netuid)
            ports = {part.name: graph.by_hotkey[addresses[part.name]].port for part in miners}
            absent = [part for part in miners if ports[part.name] not in self._listening_ports(part.child)]
            if not absent:
                return
            if time.monotonic() > deadline:
                words = "\n  ".join(self.house.last_words(absent[0].child, 8))
                raise JobFailed(f"{absent[0].name} does not serve after {SERVING_PATIENCE:.0f} s:\n  {words}")
            await asyncio.sleep(0.5)

    def _listening_ports(self, child: str) -> set[int]:
        """Ports of all miners in one process; each publishes its own."""
        log = self.house.children[child].log.read_text(errors="replace")
        return {int(port) for port in re.findall(r"serving \S+ on \S+:(\d+)", log)}

    def _start(self, part: Part, url: str, netuid: int, more: Sequence[str] = ()) -> None:
        home = self.options.home
        command = [sys.executable]
        if part.program in NEURONS:
            command.append(str(REPO / "neurons" / f"{part.program}.py"))
        else:
            command += [str(REPO / "scripts" / "lineup.py"), part.process or part.program]
        command += ["--network", url, "--netuid", str(netuid), "--wallet", part.name]
        command += ["--wallet-path", str(home / "hotkeys"), "--data-dir", str(home / "data")]
        command += ["--threads", str(_threads()), "--metagraph-refresh", "3", *more]
        if part.program != "train_validator":
            command += ["--host", "127.0.0.2" if sys.platform == "linux" else "0.0.0.0", "--port", "0"]
        if part.program == "validator":
            # Short answers: 24 tokens show each of these cheats, and two cores carry five processes with a model here.
            command += ["--round-seconds", "10", "--deadline", "20", "--min-tokens", "24", "--max-tokens", "24"]
            command += ["--prompts", "short", "--no-pack-weights"]  # a second copy would not fit into 8 GB here
        self.house.start(part.child, command)

    async def _watch(self, watchers: Sequence[Watcher | TrainWatcher], url: str) -> int:
        reported: int | None = None
        newest = [time.monotonic() for _ in watchers]  # when a look found the last epoch that paid
        draw = together([_drawing(watcher) for watcher in watchers])
        for look in itertools.count():
            self._check_children()
            if look % MEMORY_LOOKS == 0:
                self.house.measure()
            for number, watcher in enumerate(watchers):
                for epoch in await watcher.look(self.house):
                    if epoch in watcher.paid:
                        newest[number] = time.monotonic()
                    self.display.say(f"epoch {epoch.index} at block {epoch.block}: {watcher.told(epoch)}")
                    if not self.display.live:
                        self.display.show(_drawing(watcher))
            self.display.update(draw)
            epochs = self.options.epochs
            if epochs is not None and reported is None and all(watcher.enough(epochs) for watcher in watchers):
                reported = await self._report(watchers, url, draw)
                if not self.options.keep_running:
                    return reported
            waiting = [since for since, one in zip(newest, watchers, strict=True) if epochs and not one.enough(epochs)]
            if reported is None and any(time.monotonic() - since > PATIENCE for since in waiting):
                await self._report(watchers, url, draw)
                raise JobFailed(f"no epoch has paid a miner for {PATIENCE:.0f} s", remedy=f"read {self.house.logs}")
            await asyncio.sleep(REFRESH)

    def _check_children(self) -> None:
        for child in self.house.dead():
            words = "\n  ".join(self.house.last_words(child.name, 12))
            raise JobFailed(f"{child.name} ended with status {child.process.returncode}; its last words:\n  {words}")

    async def _report(self, watchers: Sequence[Watcher | TrainWatcher], url: str, draw: Draw) -> int:
        problems: list[str] = []
        result: dict[str, Any] = {}
        for watcher in watchers:
            if isinstance(watcher, TrainWatcher):
                self.display.say("computing the model again, from what is public")
                await watcher.replay(url, self.options.home / "replay", self.house.env)
                watcher.read_ledgers()
                problems += watcher.problems()
                result["training"] = watcher.result()
            else:
                problems += verdict_on(watcher)
                result |= watcher.result()
        self.display.show(draw)
        seconds = round(time.monotonic() - self.began, 1)
        result |= {"ok": not problems, "problems": problems, "seconds": seconds}
        result["peak_memory_bytes"] = self.house.peak_memory
        if self.options.report is not None:
            self.options.report.write_text(json.dumps(result, indent=2) + "\n")
            self.display.say(f"wrote {self.options.report}")
        if self.options.picture is not None:
            self.options.picture.write_text(picture(draw))
            self.display.say(f"drew {self.options.picture}")
        for watcher in watchers:
            if isinstance(watcher, TrainWatcher):
                for file in await watcher.draw(self.options.home, self.house.env):
                    self.display.say(f"wrote {file}")
        for problem in problems:
            self.display.say(f"NOT AS IT SHOULD BE: {problem}")
        if not problems:
            self.display.say(_PRAISE[self.options.mechanism])
        return 1 if problems else 0


_ANSWERS = "honest work was paid, faster work more, and nothing else earned"
_MODEL = "the model learned, honest trainers were paid and no others, and the public record leads to the same model"
_PRAISE = {"inference": _ANSWERS, "training": _MODEL, "both": f"{_ANSWERS}; {_MODEL}"}


def _drawing(watcher: Watcher | TrainWatcher) -> Draw:
    if isinstance(watcher, TrainWatcher):
        return lambda width: training_table(watcher.rows(), watcher.title(), width)
    return lambda width: table(watcher.rows(), watcher.title(), width)


if __name__ == "__main__":
    typer.run(main)
