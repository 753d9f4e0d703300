"""One window of training in a process of its own, under whatever environment it was started with.

    found = in_process(folder, size, env, threads=1, steps=30, starts=((0, None), (10, "model.npy")), out="changes.npz")

Prints one JSON object: tokens, seconds, CPU seconds of user and system, page faults, peak memory. With `out`, the
change that each start leads to is kept there, float32 [size].
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT = 1800.0  # seconds

Starts = Sequence[tuple[int, Path | None]]  # window, and the model it begins with; None: random weights


def in_process(
    dataset: Path,
    size: str,
    env: Mapping[str, str],
    *,
    threads: int,
    steps: int,
    starts: Starts = ((0, None),),
    out: Path | None = None,
) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.training_stages.window", "--dataset", str(dataset), "--size", size]
    command += ["--threads", str(threads), "--steps", str(steps)]
    command += [f"--start={window}:{model or ''}" for window, model in starts]
    command += ["--out", str(out)] if out else []
    given = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT), **env}
    done = subprocess.run(command, env=given, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=LIMIT)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    import numpy as np

    from benchmarks.training_stages.common import Ground
    from protocol.training.recipe import Tasks
    from template.training.windows import replay

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--size", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--start", action="append", required=True, help="WINDOW:MODEL")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    ground = Ground.prepare(options.dataset, options.size, "cpu", options.threads)
    recipe = ground.recipe(tasks=Tasks(steps=options.steps))
    first = ground.batches(0, "warm-up", recipe)(0)
    ground.trainer.step(ground.trainer.start(ground.start(0).vector), first, 1e-4)  # what only the first step costs
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    changes = {}
    for start in options.start:
        window, _, model = start.partition(":")
        base = np.load(model) if model else ground.start(0).vector
        batches = ground.batches(int(window), "miner", recipe)
        changes[window], _ = replay(ground.trainer, base, batches, recipe, int(window))
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    if options.out:
        np.savez(options.out, **changes)
    tokens, cpu = len(changes) * recipe.tasks.plan.tokens, after.ru_utime - before.ru_utime
    figures = {
        "tokens": tokens,
        "wall_s": wall,
        "user_s": cpu,
        "system_s": after.ru_stime - before.ru_stime,
        "page_faults": after.ru_minflt - before.ru_minflt,
        "peak_mib": after.ru_maxrss / 1024,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
