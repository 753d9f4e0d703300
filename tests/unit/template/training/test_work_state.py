"""A miner finds its work again, and its buffer goes on from accepted windows only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from protocol.training.statement import Statement
from template.training.inner import State
from template.training.windows import Progress
from template.training.work_state import KEPT_WINDOWS, PROGRESS, Kept, WorkState
from tests.support.training import genesis

CID = "b" + "a" * 58
SIZE = genesis()[0].size


def kept(window: int) -> Kept:
    said = Statement(
        window=window, miner="alice", base="11" * 32, payload=CID, profile="tolerant", trace="22" * 32, states=2,
        before=None, after=CID,
    )  # fmt: skip
    before = np.full(SIZE, window, dtype=np.float32).tobytes() if window else None
    return Kept(said.encode(), b"payload", before, np.full(SIZE, window + 1, dtype=np.float32).tobytes())


def test_the_buffer_goes_on_from_the_last_accepted_window(tmp_path: Path) -> None:
    state = WorkState(tmp_path, SIZE)
    buffer, earlier = state.buffer()
    assert not buffer.any() and buffer.shape == (SIZE,) and earlier is None
    state.keep(0, kept(0))
    assert state.buffer()[1] is None, "nothing is accepted yet"
    state.settle(0, accepted=True)
    state.keep(1, kept(1))
    state.settle(1, accepted=False)
    buffer, earlier = WorkState(tmp_path, SIZE).buffer()
    assert (buffer == 1.0).all() and earlier is not None and earlier.window == 0
    state.settle(2, accepted=True)  # a window it did not work in
    assert state.buffer()[1] == earlier


def test_after_time_away_the_records_say_where_the_buffer_goes_on(tmp_path: Path) -> None:
    state = WorkState(tmp_path, SIZE)
    for window in range(3):
        state.keep(window, kept(window))
    state.settle(0, accepted=True)
    state.go_on_from(Statement.parse(kept(2).statement))
    earlier = state.buffer()[1]
    assert earlier is not None and earlier.window == 2
    state.go_on_from(Statement.parse(kept(1).statement).model_copy(update={"trace": "33" * 32}))  # not what is here
    assert state.buffer()[1] is None and not state.buffer()[0].any()
    state.go_on_from(Statement.parse(kept(1).statement))
    assert state.buffer()[1] is not None
    state.go_on_from(None)
    assert state.buffer()[1] is None


def test_what_was_promised_can_be_shown_and_old_windows_go(tmp_path: Path) -> None:
    state = WorkState(tmp_path, SIZE)
    for window in range(10):
        state.keep(window, kept(window))
        state.settle(window, accepted=window == 2)
    found = state.kept(9)
    assert found is not None and found.payload == b"payload" and found.before == kept(9).before
    assert state.kept(0) is None and state.kept(99) is None
    assert state.buffer()[1] is not None, "the window that the buffer comes from stays"
    assert len(list(tmp_path.iterdir())) == KEPT_WINDOWS + 1


def test_work_under_way_is_found_again(tmp_path: Path) -> None:
    state = WorkState(tmp_path, SIZE)
    assert state.progress(3) is None
    parameters = genesis()[1]
    made = State(7, torch.from_numpy(parameters), torch.ones(SIZE), torch.zeros(SIZE))
    state.save_progress(3, Progress(made, [b"\x01" * 32, b"\x02" * 32], [4.0, 3.5]))
    found = WorkState(tmp_path, SIZE).progress(3)
    assert found is not None and found.state.digest() == made.digest()
    assert (found.digests, found.losses) == ([b"\x01" * 32, b"\x02" * 32], [4.0, 3.5])
    assert WorkState(tmp_path, SIZE + 1).progress(3) is None, "of another model"
    path = tmp_path / f"{3:010d}" / PROGRESS
    path.write_bytes(path.read_bytes()[:100])
    assert state.progress(3) is None, "it is cut off"
    state.keep(3, kept(3))
    assert not path.exists()
