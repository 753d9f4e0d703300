"""Mechanism 1 in figures: `python benchmarks/training.py STAGE ... --dataset DIR`, one JSON object.

    learning    validation loss at equal tokens against dense DiLoCo and AdamW, with three seeds; bytes sent
    codec       GB/s of compressing and decoding, 1 to 100 million parameters
    cost        a validator's work for one contribution over the miner's training; likeness of honest contributions
    overhead    what a window takes beside training, by the clock and in work
    replays     distance of honest replays on other thread counts and instruction sets
    allocator   whether glibc's allocator slows training down

`all` is all of them. What each means is said in benchmarks/training_stages/. The data is a folder that `touchstone
dataset build --corpus small-english` made. With --journal FILE every finished measurement is written down at once, and
the same command goes on where it was interrupted. Progress is on stderr.

On a GPU: --size large --device cuda, with learning, e.g. --batch 8 --length 512 --steps 100 --windows 40. CPU times of
`cost` say nothing of a GPU's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from benchmarks.training_stages import allocator, checking, codec, learning, overhead, replays
from benchmarks.training_stages.common import SIZES, Figures, Ground, Journal
from protocol.training.recipe import Tasks

STAGES = ("learning", "codec", "cost", "overhead", "replays", "allocator")
RECIPES: tuple[Figures, ...] = ({"outer_rate": 2.0}, {"outer_rate": 4.0}, {"outer_rate": 2.0, "kept": 1.0})


def main() -> None:
    options = _options()
    journal, stages = Journal(options.journal), STAGES if "all" in options.stages else options.stages
    ground = Ground.prepare(options.dataset, options.size, options.device, options.threads)
    found: dict[str, Figures] = {"machine": _machine(options.threads)}
    for stage, measure in _measures(options, ground, journal).items():
        if stage in stages:
            found[stage] = {"load_average_before": round(os.getloadavg()[0], 2), "figures": measure()}
    text = json.dumps(found, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


def _measures(o: argparse.Namespace, ground: Ground, journal: Journal) -> dict[str, Callable[[], object]]:
    arranged = learning.Arrangement(o.workers, o.steps, o.windows, o.batch, o.length, o.peak)
    others = list(RECIPES) if o.other_recipes else []
    recipe = ground.recipe(tasks=Tasks(steps=o.recipe_steps))
    many = {"miners": o.miners, "windows": o.cost_windows, "audited": 2}
    return {
        "learning": lambda: learning.measure(ground, journal, arranged, o.seeds, o.diloco_rates, others),
        "codec": lambda: codec.measure(journal),
        "cost": lambda: checking.measure(ground, journal, recipe, **many),
        "overhead": lambda: overhead.measure(ground, journal, recipe, contributions=o.miners, turns=3),
        "replays": lambda: replays.measure(ground, journal, o.dataset, o.size, recipe.tasks.steps),
        "allocator": lambda: allocator.measure(ground, journal, o.dataset, o.size, threads=o.threads, turns=3),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", choices=(*STAGES, "all"), metavar="STAGE")
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--journal", type=Path, help="finished measurements, to go on from")
    parser.add_argument("--json", type=Path, help="also write the result here")
    race = parser.add_argument_group("learning")
    default = learning.Arrangement()
    for name in ("workers", "steps", "windows", "batch", "length"):
        race.add_argument(f"--{name}", type=int, default=getattr(default, name))
    race.add_argument("--peak", type=float, default=default.peak, help="learning rate of all methods")
    race.add_argument("--seeds", type=int, default=3)
    race.add_argument("--diloco-rates", type=float, nargs="+", default=[0.2, 0.4, 0.7], help="outer rates to try")
    race.add_argument("--other-recipes", action="store_true", help=f"also, on the first seed: {RECIPES}")
    window = parser.add_argument_group("cost, overhead, replays")
    window.add_argument("--miners", type=int, default=6)
    window.add_argument("--cost-windows", type=int, default=4)
    window.add_argument("--recipe-steps", type=int, default=Tasks().steps, help="inner steps of a window")
    return parser.parse_args()


def _machine(threads: int) -> Figures:
    return {
        "cpus": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


if __name__ == "__main__":
    main()
