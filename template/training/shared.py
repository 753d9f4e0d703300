"""The shared model as one node has it, kept on disk, and the step to the next.

    store = SharedStore(folder, recipe.architecture, layout)
    shared = store.load()                                Shared(window, vector, root, record), or None
    following = advanced(shared, recipe, layout, {hotkey: contribution}, seed=seed)
    store.save(following)                                atomic; a killed node has this one or the one before

`window` is the next window to train: its base is this model. A model read from disk is checked against its root.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from protocol.training.aggregation import aggregate, aggregate_noised, outer_step
from protocol.training.payload import Contribution, Floats
from protocol.training.recipe import Architecture, Recipe
from template.errors import StateUnavailable
from template.training.checkpoint import BadCheckpoint, from_file, model_root, to_file
from template.training.layout import Layout

KEPT = 2  # models on disk: this one and the one before


@dataclass(frozen=True, eq=False)
class Shared:
    """`vector`: float32 [size]. `record`: artifact of the record of the window before; None before the first."""

    window: int
    vector: Floats
    root: str
    record: str | None = None


def advanced(
    shared: Shared,
    recipe: Recipe,
    layout: Layout,
    contributions: Mapping[str, Contribution],
    record: str | None = None,
    seed: bytes | None = None,
) -> Shared:
    """The model after `shared.window`; the same numbers when nothing was accepted. `seed`: of the window's aggregate
    phase, for a recipe with privacy. Raises ValueError when the update leaves the range of float32."""
    vector = shared.vector
    if contributions and recipe.privacy is None:
        vector = outer_step(vector, aggregate(contributions), recipe.outer_rate)
    elif contributions and recipe.privacy is not None:
        assert seed is not None, "with privacy every step has a seed"
        vector = outer_step(vector, aggregate_noised(contributions, recipe.privacy, seed), recipe.outer_rate)
    root = model_root(recipe.architecture, layout, vector) if contributions else shared.root
    return Shared(shared.window + 1, vector, root, record)


class SharedStore:
    """The folder of one node; one process at a time."""

    def __init__(self, folder: Path, architecture: Architecture, layout: Layout) -> None:
        self.folder = folder
        self._architecture = architecture
        self._layout = layout

    def save(self, shared: Shared) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        made = self.folder / f".new-{os.getpid()}"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        (made / "model.safetensors").write_bytes(to_file(self._layout, shared.vector))
        said = {"window": shared.window, "root": shared.root, "record": shared.record}
        (made / "shared.json").write_text(json.dumps(said))
        target = self.folder / f"window-{shared.window:010d}"
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
        saved = self._saved()
        place = saved.index(target)
        for other in (*saved[: max(0, place + 1 - KEPT)], *saved[place + 1 :]):  # newer ones were of another history
            shutil.rmtree(other)

    def load(self) -> Shared | None:
        """The newest model that is whole; None when there is none. Raises StateUnavailable when none of several is."""
        saved = self._saved()
        problems = []
        for folder in reversed(saved):
            try:
                return self._read(folder)
            except (OSError, ValueError, KeyError, BadCheckpoint) as error:
                problems.append(f"{folder.name}: {error}")
        if problems:
            remedy = f"remove {self.folder} to fetch the model again"
            raise StateUnavailable("no saved model can be read: " + "; ".join(problems), remedy=remedy)
        return None

    def _read(self, folder: Path) -> Shared:
        said = json.loads((folder / "shared.json").read_bytes())
        vector = from_file(folder / "model.safetensors", self._layout)
        root = model_root(self._architecture, self._layout, vector)
        if root != said["root"]:
            raise ValueError("the model is not the one that was saved")
        return Shared(int(said["window"]), vector, root, said["record"])

    def _saved(self) -> list[Path]:
        return sorted(self.folder.glob("window-*")) if self.folder.exists() else []
