"""A window can be repeated by somebody else, to the bit or within the tolerance, and taken up where it was left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from protocol.artifacts import Manifest
from protocol.training.buffers import LIMIT, claimed_change, distance, same
from protocol.training.recipe import Clock, Inner, Recipe, Tasks
from template.training.checkpoint import build
from template.training.inner import Trainer
from template.training.layout import Layout, OtherShape
from template.training.windows import Progress, replay, train_window
from tests.support.training import TINY, VOCABULARY, genesis

STEPS = 6
CID = Manifest.of(b"one").cid


def recipe(profile: str = "tolerant", **inner: float) -> Recipe:
    return Recipe(
        architecture=TINY, model="ab" * 32, model_file=CID, dataset=CID, clock=Clock(start=0),
        tasks=Tasks(steps=STEPS, batch=4, length=16), inner=Inner(peak=1e-2, warmup=2, **inner), profile=profile,
        trace_every=4,
    )  # fmt: skip


def module(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return build(TINY)


def trainer(profile: str = "tolerant") -> Trainer:
    return Trainer(module(seed=1), Inner(), profile=profile)  # its own weights do not matter


def data(seed: int = 0):
    """Tokens that follow a rule, so that there is something to learn."""

    def batch(step: int) -> np.ndarray:
        first = np.random.default_rng([seed, step]).integers(0, VOCABULARY, (4, 1))
        return (first + 3 * np.arange(17)) % VOCABULARY

    return batch


BASE = genesis()[1]
NOTHING = np.zeros_like(BASE)


@pytest.mark.parametrize("profile", ["tolerant", "exact"])
def test_a_replay_gives_the_same_trace_change_and_payload(profile: str) -> None:
    found = train_window(trainer(profile), BASE, NOTHING, data(), recipe(profile), 0)
    torch.set_num_threads(2)
    try:
        change, digests = replay(trainer(profile), BASE, data(), recipe(profile), 0)
    finally:
        torch.set_num_threads(1)
    assert tuple(digests) == found.digests and len(digests) == 3  # before, after step 4, after the last
    assert same(NOTHING, found.after, found.contribution, change, 0.95)
    assert distance(claimed_change(NOTHING, found.after, found.contribution, 0.95), change) < LIMIT


def test_training_lowers_the_loss_and_the_compressed_change_does_too() -> None:
    base, buffer, teacher = BASE, NOTHING, trainer()
    for window in range(12):
        found = train_window(teacher, base, buffer, data(), recipe(), window)
        base, buffer = base - found.contribution.dense(), found.after
    fresh = [data(9)(step) for step in range(4)]
    before, after = (np.mean(teacher.losses(torch.from_numpy(point), fresh)) for point in (BASE, base))
    assert after < before - 0.3
    assert found.losses[-1] < 4.0


@pytest.mark.parametrize(
    "cheat",
    [
        {"batches": data(1)}, {"rule": recipe(beta1=0.8)}, {"window": 1},
        {"batches": lambda step: data()(step if step != 3 else 50)},
    ],
)  # fmt: skip
def test_other_data_another_rate_and_one_swapped_batch_are_seen(cheat: dict) -> None:
    honest = {"batches": data(), "rule": recipe(), "window": 0}
    given = {**honest, **cheat}
    liar = Trainer(module(), given["rule"].inner, profile="tolerant")
    found = train_window(liar, BASE, NOTHING, given["batches"], given["rule"], given["window"])
    change, digests = replay(trainer(), BASE, data(), recipe(), 0)
    assert distance(claimed_change(NOTHING, found.after, found.contribution, 0.95), change) > LIMIT
    assert found.digests[0] == digests[0] and found.digests[-1] != digests[-1]


def test_a_window_that_was_cut_off_goes_on_from_what_was_saved() -> None:
    whole = train_window(trainer(), BASE, NOTHING, data(), recipe(), 0)
    saved: list[Progress] = []

    def save(progress: Progress) -> None:
        saved.append(Progress(progress.state.copy(), list(progress.digests), list(progress.losses)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_window(trainer(), BASE, NOTHING, data(), recipe(), 0, save=save)
    assert saved[0].state.step == 4
    rest = train_window(trainer(), BASE, NOTHING, data(), recipe(), 0, resumed=saved[0])
    assert rest.digests == whole.digests and rest.losses == whole.losses
    assert rest.contribution.encode() == whole.contribution.encode()


def test_a_loss_that_is_no_number_stops_the_training_and_leaves_the_state() -> None:
    wild = trainer()
    state = wild.start(np.full_like(BASE, np.nan))
    with pytest.raises(FloatingPointError, match="step 0"):
        wild.step(state, data()(0), 1e-3)
    assert state.step == 0 and not state.first.any()


def test_a_vector_has_one_order_and_tied_tensors_lie_in_it_once() -> None:
    whole = module()
    layout = Layout.of(whole)
    assert list(layout.shapes) == sorted(layout.shapes) and "lm_head.weight" not in layout.shapes
    vector = layout.vector(dict(whole.named_parameters()))
    assert vector.shape == (layout.size,)
    assert all(torch.equal(tensor, whole.get_parameter(name)) for name, tensor in layout.tensors(vector).items())
    with pytest.raises(OtherShape):
        layout.tensors(vector[:-1])
    with pytest.raises(OtherShape):
        layout.vector({"other": vector})
