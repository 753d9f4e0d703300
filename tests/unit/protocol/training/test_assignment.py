"""Data that nobody chooses: everybody derives the same, and no two derive each other's."""

from collections import Counter

import pytest

from protocol.training.assignment import Plan, assign, scored_steps, unassigned, window_seed

PLAN = Plan(steps=20, batch=8, length=64, shards=3)
TOKENS = [1000, 65, 64, 5000, 700, 10, 2000, 900, 100, 1500]  # shards 2 and 5 are too short for one sequence
SEED = window_seed(b"\x07" * 32, 4)


def test_work_has_the_plans_shape_and_lies_within_its_shards() -> None:
    work = assign(SEED, "alice", TOKENS, PLAN)
    assert len(work.places) == PLAN.steps and all(len(batch) == PLAN.batch for batch in work.places)
    assert len(set(work.shards)) == PLAN.shards
    for step in range(PLAN.steps):
        for shard, first in work.batch(step):
            assert shard in work.shards and first >= 0 and first + PLAN.length + 1 <= TOKENS[shard]
    assert PLAN.tokens == 20 * 8 * 64


def test_hotkey_window_and_block_each_give_other_work() -> None:
    work = assign(SEED, "alice", TOKENS, PLAN)
    assert assign(SEED, "alice", TOKENS, PLAN) == work
    others = [
        assign(SEED, "bob", TOKENS, PLAN),
        assign(window_seed(b"\x07" * 32, 5), "alice", TOKENS, PLAN),
        assign(window_seed(b"\x08" * 32, 4), "alice", TOKENS, PLAN),
    ]
    assert len({work.places, *(other.places for other in others)}) == 4


def test_every_usable_shard_is_given_about_as_often_and_the_others_never() -> None:
    counts = Counter(shard for miner in range(600) for shard in assign(SEED, f"miner {miner}", TOKENS, PLAN).shards)
    assert set(counts) == {0, 1, 3, 4, 6, 7, 8, 9}
    assert all(150 < count < 300 for count in counts.values())  # 225 expected, standard deviation 12


def test_what_is_scored_is_drawn_from_all_steps() -> None:
    steps = scored_steps(SEED, "alice", PLAN, 4)
    assert len(set(steps)) == 4 and all(0 <= step < PLAN.steps for step in steps)
    seen = {step for miner in range(100) for step in scored_steps(SEED, f"miner {miner}", PLAN, 4)}
    assert seen == set(range(PLAN.steps))
    assert sorted(scored_steps(SEED, "alice", PLAN, 999)) == list(range(PLAN.steps))


def test_unassigned_batches_avoid_the_miners_shards() -> None:
    work = assign(SEED, "alice", TOKENS, PLAN)
    batches = unassigned(SEED, "alice", work, TOKENS, PLAN, 5)
    assert len(batches) == 5 and all(len(batch) == PLAN.batch for batch in batches)
    assert not {shard for batch in batches for shard, _ in batch} & set(work.shards)


def test_a_dataset_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="no shard"):
        assign(SEED, "alice", [64, 10], PLAN)
    everything = assign(SEED, "alice", [100, 100], PLAN)
    assert set(everything.shards) == {0, 1}
    with pytest.raises(ValueError, match="every shard"):
        unassigned(SEED, "alice", everything, [100, 100], PLAN, 1)


@pytest.mark.parametrize("wrong", [(b"short", 0), (b"\x07" * 32, -1), (b"\x07" * 32, 2**64)])
def test_seeds_have_one_form(wrong: tuple[bytes, int]) -> None:
    with pytest.raises(ValueError, match="seed"):
        window_seed(*wrong)
    with pytest.raises(ValueError, match="32 bytes"):
        assign(b"short", "alice", TOKENS, PLAN)
    with pytest.raises(ValueError, match="at least one"):
        Plan(steps=0, batch=8, length=64, shards=3)
