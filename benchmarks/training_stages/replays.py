"""How far apart honest replays of a window are on this machine: other thread counts, other instruction sets.

Each way trains the window of the default recipe again, in a process of its own: window 0 from random weights, and a
window after the warm-up from a trained model. Distances are relative, as audits measure them (`recipe.replay_limit`),
and of what would be sent (`buffers.PAYLOAD_LIMIT`). The environment variables make the libraries leave out what a
processor can do, which stands for an older one: ATen's own kernels, MKL's and oneDNN's products.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.training_stages.common import Figures, Ground, Journal, say
from benchmarks.training_stages.window import in_process
from protocol.training import buffers
from protocol.training.payload import compress
from protocol.training.recipe import Tasks
from template.training.windows import replay

WINDOW = 10  # the rate has risen to its peak
TRAINED = 90  # steps that make the trained model
OLD = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"}
WAYS: dict[str, tuple[int, dict[str, str]]] = {
    "again": (1, {}),
    "2 threads": (2, {"OMP_WAIT_POLICY": "PASSIVE"}),
    "ATen AVX2": (1, {"ATEN_CPU_CAPABILITY": "avx2"}),
    "ATen without vectors": (1, {"ATEN_CPU_CAPABILITY": "default"}),
    "MKL AVX2": (1, {"MKL_CBWR": "AVX2"}),
    "MKL SSE2": (1, {"MKL_CBWR": "COMPATIBLE"}),
    "AVX2 everywhere": (1, {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}),
    "old everywhere": (1, OLD),
}


def measure(ground: Ground, journal: Journal, dataset: Path, size: str, steps: int) -> Figures:
    settings = {"dataset": ground.address, "size": size, "steps": steps, "ways": WAYS}
    return journal.once("replays", settings, lambda: _measure(ground, dataset, size, steps))


def _measure(ground: Ground, dataset: Path, size: str, steps: int) -> Figures:
    rows: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.npy"
        np.save(model, _trained(ground))
        starts = ((0, None), (WINDOW, model))

        def changes(threads: int, env: dict[str, str]) -> dict[str, buffers.Floats]:
            out = Path(folder) / "changes.npz"
            in_process(dataset, size, env, threads=threads, steps=steps, starts=starts, out=out)
            with np.load(out) as found:
                return dict(found)

        plain = changes(1, {})
        for name, (threads, env) in WAYS.items():
            other = changes(threads, env)
            rows[name] = {
                ("trained" if window != "0" else "fresh"): {
                    "distance": buffers.distance(other[window], plain[window]),
                    "sent": buffers.distance(compress(other[window]).dense(), compress(plain[window]).dense()),
                }
                for window in plain
            }
            say(f"replays: {name}: {rows[name]}")
    return {"steps": steps, "limit": buffers.LIMIT, "payload_limit": buffers.PAYLOAD_LIMIT, "ways": rows}


def _trained(ground: Ground) -> buffers.Floats:
    recipe = ground.recipe(tasks=Tasks(steps=TRAINED))
    base = ground.start(0).vector
    change, _ = replay(ground.trainer, base, ground.batches(0, "earlier", recipe), recipe, 0)
    found: buffers.Floats = base - change
    return found
