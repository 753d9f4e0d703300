#!/usr/bin/env python3
"""The main job: a subnet on one machine that pays honest work and starves the rest. Usually run by `scripts/up.sh`.

What happens, in order: a local chain starts as its own process; wallets are made and funded; a subnet is registered,
activated and tuned for a short demonstration; validators stake, miners register; every neuron starts as a process. Then
the chain does what it always does, and this program watches: a table while it runs, and at the end the question whether
every honest miner earned, the faster one more, and every dishonest one nothing.

Everything is kept below .touchstone/, so that a second run resumes. The pieces: lineup.py (who takes part), stage.py
(chain, wallets, subnet), processes.py (children that cannot outlive this program), watch.py (what the chain paid),
table.py (what is shown).
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lineup import LINEUP, Part
from processes import Household
from stage import Stage
from table import Display, picture
from watch import Watcher, verdict_on

from template.chain import Chain
from template.errors import TemplateError

REPO = Path(__file__).resolve().parent.parent
PATIENCE = 900.0  # seconds without a new paid epoch after which the run counts as failed
SERVING_PATIENCE = 180.0  # seconds for all miners to load and publish
REFRESH = 1.0  # seconds between two looks at the chain


class JobFailed(TemplateError):
    """The main job cannot go on."""


@dataclass(frozen=True)
class Options:
    epochs: int | None
    report: Path | None
    picture: Path | None
    fresh: bool
    keep_running: bool
    home: Path


def main(
    epochs: Annotated[int | None, typer.Option(min=1, help="Stop after this many paid epochs.")] = None,
    report: Annotated[Path | None, typer.Option("--json", help="Write the result to this file.")] = None,
    picture_file: Annotated[Path | None, typer.Option("--picture", help="Draw the last table as an SVG.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget chain, wallets and scores of earlier runs.")] = False,
    keep_running: Annotated[
        bool, typer.Option("--keep-running", help="With --epochs: report, then go on until Ctrl-C.")
    ] = False,
    home: Annotated[Path, typer.Option(help="Where everything is kept.")] = REPO / ".touchstone",
) -> None:
    """Run a whole subnet on this machine: one chain, two validators, honest and dishonest miners."""
    options = Options(epochs, report, picture_file, fresh, keep_running, home.resolve())
    try:
        for file in (report, picture_file):  # now, not after all the epochs
            if file is not None and not file.resolve().parent.is_dir():
                raise JobFailed(f"there is no folder for {file}", remedy="make it, or name another file")
        code = asyncio.run(run(options))
    except TemplateError as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        code = 1
    raise typer.Exit(code)


async def run(options: Options) -> int:
    """The whole job; the exit status."""
    lock = _lock(options)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    display = Display()
    try:
        with Household(options.home / "logs", _environment()) as house:
            job = asyncio.ensure_future(Job(options, house, display, stop).run())
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

    def __init__(self, options: Options, house: Household, display: Display, stop: asyncio.Event) -> None:
        self.options = options
        self.house = house
        self.display = display
        self.stop = stop
        self.began = time.monotonic()

    async def run(self) -> int:
        say = self.display.say
        model = self.house.start("model", [sys.executable, "-m", "neurons.models"])
        stage = Stage(self.options.home, self.house, say)
        async with await stage.open() as chain:
            netuid = await stage.prepare(LINEUP)
            await self._model_ready(model.name)
            await stage.commit_model(netuid)
            miners = [part for part in LINEUP if part.program != "validator"]
            validators = [part for part in LINEUP if part.program == "validator"]
            for part in {part.child: part for part in miners}.values():
                self._start(part, stage.url, netuid)
            say(f"started {len(miners)} miners on subnet {netuid}; logs in {self.house.logs}")
            await self._serving(chain, netuid, miners, stage.addresses)
            for part in validators:
                self._start(part, stage.url, netuid)
            say(f"all miners serve; started {len(validators)} validators")
            say(f"look at it yourself: touchstone status --netuid {netuid} --network {stage.url}")
            watcher = Watcher(chain, netuid, LINEUP, stage.addresses, self.options.home / "data")
            return await self._watch(watcher)

    async def _model_ready(self, name: str) -> None:
        """Prepared once here, so that five processes do not wait for each other's download."""
        said = ""
        while self.house.alive(name):
            words = self.house.last_words(name)
            if words and words[0] != said:
                said = words[0]
                self.display.say(f"model: {said}")
            await asyncio.sleep(0.2)
        if self.house.children[name].process.returncode != 0:
            raise JobFailed("the model cannot be prepared:\n  " + "\n  ".join(self.house.last_words(name, 6)))
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

    def _start(self, part: Part, url: str, netuid: int) -> None:
        home = self.options.home
        command = [sys.executable]
        if part.program in ("validator", "miner"):
            command.append(str(REPO / "neurons" / f"{part.program}.py"))
        else:
            command += [str(REPO / "scripts" / "lineup.py"), part.process or part.program]
        command += ["--network", url, "--netuid", str(netuid), "--wallet", part.name]
        command += ["--wallet-path", str(home / "hotkeys"), "--data-dir", str(home / "data")]
        command += ["--threads", str(_threads()), "--metagraph-refresh", "3"]
        command += ["--host", "127.0.0.2" if sys.platform == "linux" else "0.0.0.0", "--port", "0"]
        if part.program == "validator":
            # Short answers: 24 tokens show each of these cheats, and two cores carry five processes with a model here.
            command += ["--round-seconds", "10", "--deadline", "20", "--min-tokens", "24", "--max-tokens", "24"]
            command += ["--prompts", "short", "--no-pack-weights"]  # a second copy would not fit into 8 GB here
        self.house.start(part.child, command)

    async def _watch(self, watcher: Watcher) -> int:
        reported: int | None = None
        newest = time.monotonic()
        while True:
            self._check_children()
            fresh = await watcher.look(self.house)
            for epoch in fresh:
                newest = time.monotonic()
                self.display.say(f"epoch {epoch.index} at block {epoch.block}: {watcher.told(epoch)}")
                if not self.display.live:
                    self.display.show(watcher.rows(), watcher.title())
            self.display.update(watcher.rows(), watcher.title())
            if self.options.epochs is not None and reported is None and len(watcher.paid) >= self.options.epochs:
                self.display.show(watcher.rows(), watcher.title())
                reported = self._report(watcher)
                if not self.options.keep_running:
                    return reported
            if self.options.epochs is not None and reported is None and time.monotonic() - newest > PATIENCE:
                self._report(watcher)
                raise JobFailed(f"no epoch has paid a miner for {PATIENCE:.0f} s", remedy=f"read {self.house.logs}")
            await asyncio.sleep(REFRESH)

    def _check_children(self) -> None:
        for child in self.house.dead():
            words = "\n  ".join(self.house.last_words(child.name, 12))
            raise JobFailed(f"{child.name} ended with status {child.process.returncode}; its last words:\n  {words}")

    def _report(self, watcher: Watcher) -> int:
        problems = verdict_on(watcher)
        result = watcher.result() | {
            "ok": not problems,
            "problems": problems,
            "seconds": round(time.monotonic() - self.began, 1),
        }
        if self.options.report is not None:
            self.options.report.write_text(json.dumps(result, indent=2) + "\n")
            self.display.say(f"wrote {self.options.report}")
        if self.options.picture is not None:
            self.options.picture.write_text(picture(watcher.rows(), watcher.title()))
            self.display.say(f"drew {self.options.picture}")
        for problem in problems:
            self.display.say(f"NOT AS IT SHOULD BE: {problem}")
        if not problems:
            self.display.say("honest work was paid, faster work more, and nothing else earned")
        return 1 if problems else 0


if __name__ == "__main__":
    typer.run(main)
