"""A miner finds its work again, and its buffer goes on from accepted windows only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from protocol.artifacts import Manifest
from protocol.training.statement import Statement
from protocol.training.trace import trace_root
from template.training.inner import State
from template.training.windows import Progress
from template.training.work_state import KEPT_WINDOWS, PROGRESS, Kept, WorkState
from tests.support.training import genesis

CID = Manifest.of(b"one").cid
SIZE = genesis()[0].size


def kept(window: int) -> Kept:
    said = Statement(
        window=window, miner="alice", base="11" * 32, payload=CID, profile="tolerant", trace="22" * 32, states=2,
        before=None, after=CID,
    )  # fmt: skip
    before = np.full(SIZE, window, dtype=np.float32).tobytes() if window else None
    return Kept(said.encode(), b"payload", before, np.full(SIZE, window + 1, dtype=np.float32).tobytes())


def test_the_buffer_is_what_a_statement_left(tmp_path: Path) -> None:
    state = WorkState(tmp_path, SIZE)
    assert state.buffer(None) is None
    for window in range(3):
        state.keep(window, kept(window))
    said = Statement.parse(kept(1).statement)
    buffer = WorkState(tmp_path, SIZE).buffer(said)
    assert buffer is not None and (buffer == 2.0).all()
    assert state.buffer(said.model_copy(update={"trace": "33" * 32})) is None, "that is not what is here"
    assert state.buffer(said.model_copy(update={"window": 9})) is None


def test_what_was_promised_can_be_shown_and_old_windows_go(tmp_path: Path) -> None:
    state = WorkState(tmp_path, SIZE)
    for window in range(KEPT_WINDOWS + 3):
        state.keep(window, kept(window), source=1)
    newest = KEPT_WINDOWS + 2
    found = state.kept(newest)
    assert found is not None and found.payload == b"payload" and found.before == kept(newest).before
    assert state.kept(2) is None and state.kept(3) is not None and state.kept(999) is None
    assert state.kept(1) is not None, "the buffer comes from it"
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


def test_a_finished_window_can_be_disputed(tmp_path: Path) -> None:
    state, parameters = WorkState(tmp_path, SIZE), genesis()[1]
    digests = [b"\x01" * 32, b"\x02" * 32]
    said = Statement.parse(kept(3).statement).model_copy(update={"trace": trace_root(digests).hex()})
    state.save_progress(
        3, Progress(State(7, torch.from_numpy(parameters), torch.ones(SIZE), torch.zeros(SIZE)), digests)
    )
    assert state.trace(3) is None, "it is not finished"
    state.keep(3, Kept(said.encode(), b"payload", None, parameters.tobytes()), base=parameters)
    assert state.trace(3) == tuple(digests) and state.statement(3) == said.encode()
    base = state.base(3)
    assert base is not None and np.array_equal(base, parameters)
    state.keep(4, kept(4))
    assert state.trace(4) is None and state.base(4) is None, "nothing was saved on the way"
    state.save_progress(5, Progress(State(7, *(torch.zeros(SIZE) for _ in range(3))), digests))
    state.keep(5, kept(5))
    assert state.trace(5) is None, "the statement is about another trace"
