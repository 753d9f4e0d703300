"""Several processes that train one miner's window: the test leads, real helpers help."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch.distributed as dist

from protocol.artifacts import Manifest
from protocol.training.recipe import Clock, Inner, Recipe, Tasks
from template.training.distributed import Team
from tests.support.training import TINY, VOCABULARY

ROOT = Path(__file__).parents[2]
CID = Manifest.of(b"one").cid
HELPER = """
import sys
from neurons.training import help_training
from template.settings import TrainMinerSettings
sys.exit(help_training(TrainMinerSettings(netuid=1, threads=1, log_level="warning")))
"""


def recipe(profile: str = "tolerant") -> Recipe:
    return Recipe(
        architecture=TINY, model="ab" * 32, model_file=CID, dataset=CID, clock=Clock(start=0),
        tasks=Tasks(steps=6, batch=4, length=16), inner=Inner(peak=1e-2, warmup=2), profile=profile, trace_every=2,
    )  # fmt: skip


def batches(step: int) -> npt.NDArray[np.int64]:
    """Tokens that follow a rule, so that there is something to learn."""
    first = np.random.default_rng(step).integers(0, VOCABULARY, (4, 1))
    return (first + 3 * np.arange(17)) % VOCABULARY


def environment(**more: object) -> dict[str, str]:
    """Of a process that imports this checkout and computes in one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **{k: str(v) for k, v in more.items()}}


@contextmanager
def team_of_two(timeout: float = 60.0) -> Iterator[tuple[Team, subprocess.Popen[str]]]:
    """The leader's team, and the process of its one helper. Both have ended after the block."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port, "RANK": 1, "WORLD_SIZE": 2}
    local = {"LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}
    helper = subprocess.Popen([sys.executable, "-c", HELPER], env=environment(**place, **local), text=True)
    team = Team(0, 2, dist.PrefixStore("life/0", store), timeout)
    try:
        yield team, helper
    finally:
        team.close()
        try:
            helper.wait(60)
        finally:
            helper.kill()
