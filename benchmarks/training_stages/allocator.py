"""Whether glibc's allocator slows training down: tensors above a threshold are mapped and given back at every step.

Turns of the default recipe's steps in processes of their own, with glibc as it is and with `KEPT`, which keeps freed
memory in the process; interleaved, so that what else the machine does hits both. Medians of the turns.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks.training_stages.common import Figures, Ground, Journal, say
from benchmarks.training_stages.window import in_process

KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "268435456"}


def measure(ground: Ground, journal: Journal, dataset: Path, size: str, *, threads: int, turns: int) -> Figures:
    settings = {"dataset": ground.address, "size": size, "threads": threads, "turns": turns}
    return journal.once("allocator", settings, lambda: _measure(dataset, size, threads, turns))


def _measure(dataset: Path, size: str, threads: int, turns: int) -> Figures:
    found: dict[str, list[Figures]] = {"as it is": [], "memory kept": []}
    for turn in range(turns):
        for name, env in (("as it is", {}), ("memory kept", KEPT)):
            one = in_process(dataset, size, env, threads=threads, steps=10)
            one["tokens_per_s"] = one["tokens"] / one["wall_s"]
            one["tokens_per_cpu_s"] = one["tokens"] / (one["user_s"] + one["system_s"])
            found[name].append(one)
            say(f"allocator: turn {turn + 1} of {turns}, {threads} threads, {name}: {one}")
    rows = {
        name: {key: round(statistics.median(one[key] for one in runs), 2) for key in runs[0]}
        for name, runs in found.items()
    }
    ratio = {
        key: round(
            statistics.median(
                kept[key] / plain[key] for plain, kept in zip(found["as it is"], found["memory kept"], strict=True)
            ),
            3,
        )
        for key in ("tokens_per_s", "tokens_per_cpu_s")
    }
    return {"threads": threads, **rows, "kept_over_as_it_is": ratio}
