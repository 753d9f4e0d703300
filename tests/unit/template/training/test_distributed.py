"""Processes that lose each other say so, and none stays behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import torch.distributed as dist

from template.training.checkpoint import build
from template.training.distributed import NoTeam, Order, Team, TeamLost, local_device
from template.training.inner import Trainer
from template.training.joined import lead
from template.training.windows import train_window
from tests.support.team import ROOT, batches, environment, recipe, team_of_two
from tests.support.training import TINY, genesis

BASE = genesis()[1]
SCRIPT = """
import asyncio, sys
from contextlib import AsyncExitStack
import numpy as np
from neurons.runtime import in_thread, run
from neurons.training import help_training, helps, trainer_for
from template.settings import TrainMinerSettings
from tests.support.team import batches, recipe
from tests.support.training import genesis

settings = TrainMinerSettings(netuid=1)
if helps():
    sys.exit(help_training(settings))


async def main(stop):
    from template.training.windows import train_window
    base = genesis()[1]
    async with AsyncExitStack() as stack:
        trainer = await in_thread(lambda: trainer_for(settings, recipe("exact"), stack))
        while not stop.is_set():
            found = await asyncio.to_thread(
                train_window, trainer, base, np.zeros_like(base), batches, recipe("exact"), 0
            )
            print(found.trace, flush=True)


sys.exit(run(main))
"""


def test_a_batch_is_shared_without_gaps_or_overlaps() -> None:
    for size in (1, 2, 3, 8):
        for rows in (1, 2, 7, 8, 64):
            shares = [range(rows)[Team(rank, size, dist.HashStore()).share(rows)] for rank in range(size)]
            assert [row for share in shares for row in share] == list(range(rows))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_orders_come_in_turn_with_their_tokens() -> None:
    store = dist.HashStore()
    leader, helper = Team(0, 2, store), Team(1, 2, store)
    leader.order("begin", b"{}\n\n", sharded=True)
    assert helper.awaited(threading.Event()) == Order("begin", {"sharded": True}, b"{}\n\n")
    for number in range(5):
        leader.order_ids("step", batches(number), step=number, rate=0.1)
        order = helper.awaited(threading.Event())
        assert (order.do, order.said["step"], order.said["rate"]) == ("step", number, 0.1)
        assert np.array_equal(order.ids(), batches(number))


def test_a_helper_told_to_stop_waits_for_the_leader_if_that_has_begun() -> None:
    stop, store = threading.Event(), dist.HashStore()
    stop.set()
    leader, helper = Team(0, 2, store), Team(1, 2, store)
    assert helper.awaited(stop).do == "stop"
    leader.order("begin")
    assert helper.awaited(stop).do == "begin"
    with pytest.raises(TeamLost):
        helper.awaited(stop, grace=0.1)
    leader.close()
    assert helper.awaited(stop).do == "stop"


def test_more_processes_than_accelerators_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", str(torch.cuda.device_count()))
    assert local_device("cpu") == "cpu"
    with pytest.raises(NoTeam, match="no GPU of its own"):
        local_device("cuda")
    with pytest.raises(NoTeam, match="mps"):
        Team(0, 2, dist.HashStore()).connect("mps")


@pytest.mark.parametrize("fate", [signal.SIGSTOP, signal.SIGKILL])
def test_a_helper_that_hangs_or_dies_is_an_error(fate: signal.Signals) -> None:
    timeout = 60.0 if fate is signal.SIGKILL else 5.0
    with team_of_two(timeout) as (team, helper):
        try:
            trainer = lead(team, recipe(), device="cpu", threads=1, sharded=fate is signal.SIGKILL)
            state = trainer.start(BASE)
            trainer.step(state, batches(0), 1e-2)
            helper.send_signal(fate)
            with pytest.raises(TeamLost):
                for step in range(1, 4):
                    trainer.step(state, batches(step), 1e-2)
        finally:
            helper.kill()


def test_torchrun_gives_the_trace_of_one_process_starts_again_and_leaves_nobody(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    process = subprocess.Popen(
        [*torchrun, str(tmp_path / "script.py")], stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT
    )
    seen: list[psutil.Process] = []
    try:
        assert process.stdout is not None
        single = Trainer(build(TINY), recipe("exact").inner, profile="exact", threads=1)
        expected = train_window(single, BASE, np.zeros_like(BASE), batches, recipe("exact"), 0).trace
        assert process.stdout.readline().strip() == expected
        first = psutil.Process(process.pid).children()
        seen += first
        next(child for child in first if child.environ()["RANK"] == "1").kill()
        assert not psutil.wait_procs(first, timeout=60)[1], "the other one ends too"
        assert expected in (line.strip() for line in process.stdout)
        seen += psutil.Process(process.pid).children()
        process.terminate()
        process.communicate(timeout=60)
        assert len(seen) == 4 and not psutil.wait_procs(seen, timeout=60)[1]
    finally:
        left = psutil.Process(process.pid).children() if process.poll() is None else []
        process.kill()
        for child in psutil.wait_procs([*seen, *left], timeout=0)[1]:
            child.kill()
