"""Several processes train what one trains: to the bit with the exact profile, to rounding with the tolerant one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from protocol.training.buffers import distance
from protocol.training.recipe import Recipe
from template.training.checkpoint import build
from template.training.distributed import Team
from template.training.inner import Trainer
from template.training.joined import lead
from template.training.windows import Progress, Trained, replay, train_window
from template.training.work_state import WorkState
from tests.support.team import batches, recipe, team_of_two
from tests.support.training import TINY, genesis

LAYOUT, BASE = genesis()
NOTHING = np.zeros_like(BASE)
WAYS = pytest.mark.parametrize("sharded", [False, True], ids=["whole", "sharded"])


class Killed(Exception):
    """The process ends here."""


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    with team_of_two() as (made, helper):
        yield made
    assert helper.returncode == 0


def alone(profile: str = "tolerant", compute: str = "float32") -> Trainer:
    return Trainer(build(TINY), recipe(profile).inner, profile=profile, compute=compute, threads=1)


def joined(team: Team, sharded: bool, profile: str = "tolerant", compute: str = "float32") -> Trainer:
    chosen = recipe(profile)
    if compute == "bfloat16":
        chosen = Recipe(**{**chosen.model_dump(), "compute": compute, "replay_limit": 0.05})
    return lead(team, chosen, device="cpu", threads=1, sharded=sharded)


@WAYS
@pytest.mark.parametrize(
    ("compute", "limit"), [("float32", 1e-5), ("bfloat16", 0.1)], ids=["float32", "bfloat16"]
)  # 1.1e-6 and 2.4e-2 were measured
def test_two_processes_change_what_one_does_but_for_rounding(
    team: Team, sharded: bool, compute: str, limit: float
) -> None:
    trainer = joined(team, sharded, compute=compute)
    found, digests = replay(trainer, BASE, batches, recipe(), 0)
    again, repeated = replay(trainer, BASE, batches, recipe(), 0)
    expected, _ = replay(alone(compute=compute), BASE, batches, recipe(), 0)
    assert distance(found, expected) < limit
    assert digests == repeated and found.tobytes() == again.tobytes()


@WAYS
def test_the_exact_profile_gives_the_same_trace_and_payload(team: Team, sharded: bool) -> None:
    expected = train_window(alone("exact"), BASE, NOTHING, batches, recipe("exact"), 0)
    found = train_window(joined(team, sharded, "exact"), BASE, NOTHING, batches, recipe("exact"), 0)
    assert found.digests == expected.digests and len(found.digests) == 4
    assert found.contribution.encode() == expected.contribution.encode()
    assert found.losses == pytest.approx(expected.losses, abs=1e-12)


@WAYS
def test_a_window_goes_on_with_another_number_of_processes(team: Team, sharded: bool, tmp_path: Path) -> None:
    rule, state = recipe("exact"), WorkState(tmp_path, LAYOUT.size)
    trainers = [alone("exact"), joined(team, sharded, "exact"), alone("exact")]

    def window(trainer: Trainer, steps: int) -> Trained:
        def save(progress: Progress) -> None:
            state.save_progress(0, progress)
            if progress.state.step == steps:
                raise Killed

        return train_window(trainer, BASE, NOTHING, batches, rule, 0, resumed=state.progress(0), save=save)

    for trainer, steps in zip(trainers, (2, 4, 0), strict=True):
        if steps:
            with pytest.raises(Killed):
                window(trainer, steps)
    found = window(trainers[2], 0)
    expected = train_window(alone("exact"), BASE, NOTHING, batches, rule, 0)
    assert found.digests == expected.digests
    assert found.contribution.encode() == expected.contribution.encode()


@WAYS
def test_a_process_without_a_share_takes_part(team: Team, sharded: bool) -> None:
    together, single = joined(team, sharded, "exact"), alone("exact")
    found, expected = together.start(BASE), single.start(BASE)
    for step in range(2):
        one = batches(step)[:1]  # there are two processes
        assert together.step(found, one, 1e-2) == pytest.approx(single.step(expected, one, 1e-2), abs=1e-12)
    assert found.digest() == expected.digest()


@WAYS
def test_a_loss_that_is_no_number_leaves_state_and_helpers_as_they_were(team: Team, sharded: bool) -> None:
    trainer = joined(team, sharded, "exact")
    state = trainer.start(np.full_like(BASE, np.nan))
    with pytest.raises(FloatingPointError, match="step 0"):
        trainer.step(state, batches(0), 1e-2)
    assert state.step == 0 and not state.first.any()
    _, digests = replay(trainer, BASE, batches, recipe("exact"), 0)
    assert digests == replay(alone("exact"), BASE, batches, recipe("exact"), 0)[1]


def test_the_exact_profile_has_no_float32_in_a_pass() -> None:
    trainer = alone("exact")
    whole = trainer._passes(torch.from_numpy(BASE), batches(0))[1].clone()
    part = trainer._passes(torch.from_numpy(BASE), batches(0), 0.75)[1]
    assert torch.allclose(part, 0.75 * whole, rtol=0.0, atol=1e-13 * float(whole.abs().max()))


def test_bfloat16_is_the_same_to_the_bit_with_two_threads_and_not_a_part_of_the_exact_profile() -> None:
    two = Trainer(build(TINY), recipe().inner, profile="tolerant", compute="bfloat16", threads=2)
    found = replay(two, BASE, batches, recipe(), 0)[1]
    assert found == replay(alone(compute="bfloat16"), BASE, batches, recipe(), 0)[1]
    assert found[1] != replay(alone(), BASE, batches, recipe(), 0)[1][1]
    with pytest.raises(ValueError, match="bfloat16 with profile exact"):
        alone("exact", "bfloat16")


def test_states_in_parts_are_kept_apart_and_any_other_can_be_stepped(team: Team) -> None:
    sharded, single = joined(team, True, "exact"), alone("exact")
    first = sharded.start(BASE)
    copied = first.copy()
    second = sharded.start(BASE * 0.5)
    for state in (second, first, copied):
        sharded.step(state, batches(0), 1e-2)
    expected = single.start(BASE)
    single.step(expected, batches(0), 1e-2)
    assert first.digest() == copied.digest() == expected.digest() != second.digest()
    other = [batches(7), batches(8)[:3]]
    found = sharded.losses(torch.from_numpy(BASE), other)
    assert found == pytest.approx(single.losses(torch.from_numpy(BASE), other), abs=1e-12)
    assert first.digest() == expected.digest(), "measuring losses leaves the state"
