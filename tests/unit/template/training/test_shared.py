"""The shared model: the same step for everybody, kept so that a kill costs nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from protocol.artifacts import Manifest
from protocol.training.payload import compress
from protocol.training.recipe import Clock, Privacy, Recipe
from template.errors import StateUnavailable
from template.training.checkpoint import model_root
from template.training.shared import KEPT, Shared, SharedStore, advanced
from tests.support.training import TINY, genesis

LAYOUT, VECTOR = genesis()
CID = Manifest.of(b"one").cid
RECIPE = Recipe(
    architecture=TINY, model=model_root(TINY, LAYOUT, VECTOR), model_file=CID, dataset=CID, clock=Clock(start=0)
)


def contributions(seed: int) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    return {name: compress((1e-3 * rng.standard_normal(LAYOUT.size)).astype(np.float32)) for name in "abc"}


def test_everybody_takes_the_same_step() -> None:
    start = Shared(0, VECTOR, RECIPE.model)
    one = advanced(start, RECIPE, LAYOUT, contributions(1), record=CID)
    other = advanced(start, RECIPE, LAYOUT, dict(reversed(contributions(1).items())))
    assert (one.window, one.root, one.record) == (1, other.root, CID)
    assert one.root == model_root(TINY, LAYOUT, one.vector) != start.root
    assert one.vector.tobytes() == other.vector.tobytes()
    nothing = advanced(start, RECIPE, LAYOUT, {})
    assert (nothing.window, nothing.root) == (1, start.root)


def test_with_privacy_the_step_has_noise_from_its_seed() -> None:
    recipe = RECIPE.model_copy(update={"privacy": Privacy(clip=0.1, noise=1.0)})
    start = Shared(0, VECTOR, RECIPE.model)
    one = advanced(start, recipe, LAYOUT, contributions(1), seed=bytes(32))
    again = advanced(start, recipe, LAYOUT, dict(reversed(contributions(1).items())), seed=bytes(32))
    assert one.root == again.root == model_root(TINY, LAYOUT, one.vector)
    assert np.std(one.vector - VECTOR) == pytest.approx(0.1 / 3, rel=0.05)
    assert advanced(start, recipe, LAYOUT, contributions(1), seed=b"\1" * 32).root != one.root
    assert advanced(start, recipe, LAYOUT, {}, seed=bytes(32)).root == start.root, "no contribution, nothing to hide"
    with pytest.raises(AssertionError, match="has a seed"):
        advanced(start, recipe, LAYOUT, contributions(1))


def test_the_newest_whole_model_is_found_again(tmp_path: Path) -> None:
    store = SharedStore(tmp_path / "model", TINY, LAYOUT)
    assert store.load() is None
    shared = Shared(0, VECTOR, RECIPE.model)
    store.save(shared)
    for seed in range(4):
        shared = advanced(shared, RECIPE, LAYOUT, contributions(seed), record=CID)
        store.save(shared)
    saved = sorted(store.folder.iterdir())
    assert len(saved) == KEPT
    found = store.load()
    assert found is not None and (found.window, found.root, found.record) == (4, shared.root, CID)
    assert found.vector.tobytes() == shared.vector.tobytes()
    (saved[-1] / "model.safetensors").write_bytes(b"cut off")
    before = store.load()
    assert before is not None and before.window == 3
    (saved[0] / "shared.json").write_text('{"window": 3, "root": "00", "record": null}')
    with pytest.raises(StateUnavailable, match="not the one that was saved"):
        store.load()


def test_a_half_written_model_is_not_looked_at(tmp_path: Path) -> None:
    store = SharedStore(tmp_path, TINY, LAYOUT)
    store.save(Shared(0, VECTOR, RECIPE.model))
    (tmp_path / ".new-1").mkdir()
    found = store.load()
    assert found is not None and found.window == 0


def test_going_back_forgets_what_came_after(tmp_path: Path) -> None:
    store = SharedStore(tmp_path, TINY, LAYOUT)
    for window in (5, 6, 4):
        store.save(Shared(window, VECTOR, RECIPE.model))
    found = store.load()
    assert found is not None and found.window == 4
