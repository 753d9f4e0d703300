"""Every block has one window and one phase, and the first blocks of phases are found again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.training.windows import Phase, Schedule, Tick, tick

SCHEDULE = Schedule(start=100, assign=1, train=10, commit=3, reveal=2, score=4, aggregate=2)
lengths = st.integers(1, 50)
schedules = st.builds(
    Schedule, start=st.integers(0, 10**6), assign=lengths, train=lengths, commit=lengths, reveal=lengths, score=lengths,
    aggregate=lengths,
)  # fmt: skip


def test_a_window_from_its_first_block_to_the_next_ones() -> None:
    assert SCHEDULE.length == 22
    assert tick(99, SCHEDULE) is None
    assert tick(100, SCHEDULE) == Tick(0, Phase.ASSIGN, 100, 101)
    assert tick(101, SCHEDULE) == Tick(0, Phase.TRAIN, 101, 111)
    assert tick(110, SCHEDULE) == Tick(0, Phase.TRAIN, 101, 111)
    assert tick(111, SCHEDULE) == Tick(0, Phase.COMMIT, 111, 114)
    assert tick(121, SCHEDULE) == Tick(0, Phase.AGGREGATE, 120, 122)
    assert tick(122, SCHEDULE) == Tick(1, Phase.ASSIGN, 122, 123)


@given(schedules, st.integers(0, 10**7))
def test_phases_follow_each_other_without_gaps(schedule: Schedule, blocks: int) -> None:
    now = tick(schedule.start + blocks, schedule)
    assert now is not None and now.first <= schedule.start + blocks < now.until
    assert schedule.block_of(now.window, now.phase) == now.first
    following = tick(now.until, schedule)
    assert following is not None and following.first == now.until
    last = now.phase is Phase.AGGREGATE
    assert following.window == now.window + last
    assert following.phase is list(Phase)[(list(Phase).index(now.phase) + 1) % len(Phase)]


@pytest.mark.parametrize("wrong", [{"start": -1}, {"commit": 0}, {"train": -5}])
def test_no_phase_is_empty(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="schedule"):
        Schedule(**{**vars(SCHEDULE), **wrong})
    with pytest.raises(ValueError, match="count from 0"):
        SCHEDULE.block_of(-1, Phase.TRAIN)
