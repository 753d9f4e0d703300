"""What does not fit the window is rejected with its reason; an audit sees what was not trained."""

from __future__ import annotations

import numpy as np
import pytest

from protocol.artifacts import Manifest
from protocol.training.buffers import accumulate, remainder, same
from protocol.training.judging import Due, Opened, Reason, check, judge_replay, states_due
from protocol.training.payload import CHUNK, Contribution, compress
from protocol.training.recipe import Architecture, Clock, Recipe, Tasks
from protocol.training.statement import Statement
from protocol.verdicts import Outcome

SIZE = CHUNK + 5
CID, OTHER = Manifest.of(b"one").cid, Manifest.of(b"two").cid
TINY = Architecture(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256,
)  # fmt: skip


def recipe(profile: str = "tolerant") -> Recipe:
    return Recipe(
        architecture=TINY, model="ab" * 32, model_file=CID, dataset=CID, clock=Clock(start=0), profile=profile,
        tasks=Tasks(steps=30), trace_every=4,
    )  # fmt: skip


def statement(**changes: object) -> Statement:
    said = Statement(
        window=7, miner="alice", base="11" * 32, payload=CID, profile="tolerant", trace="cd" * 32, states=9,
        before=None, after=OTHER,
    )  # fmt: skip
    return said.model_copy(update=changes)


DUE = Due(7, "11" * 32, SIZE, recipe())


def vector(seed: int) -> np.ndarray:
    return (1e-3 * np.random.default_rng(seed).standard_normal(SIZE)).astype(np.float32)


def work(before: np.ndarray, change: np.ndarray) -> tuple[Contribution, Opened]:
    total = accumulate(before, change, 0.95)
    contribution = compress(total)
    return contribution, Opened(before, remainder(total, contribution))


NOTHING = np.zeros(SIZE, dtype=np.float32)


def test_what_fits_has_no_verdict_yet() -> None:
    payload = compress(vector(1)).encode()
    contribution, verdict = check(DUE, "alice", statement().encode(), payload)
    assert verdict is None and contribution is not None and contribution.encode() == payload
    assert states_due(recipe()) == 9


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"window": 6}, Reason.STATEMENT),
        ({"miner": "bob"}, Reason.STATEMENT),
        ({"profile": "exact"}, Reason.STATEMENT),
        ({"states": 8}, Reason.STATEMENT),
        ({"base": "22" * 32}, Reason.STALE),
        ({"before": CID}, Reason.BUFFER),
    ],
)
def test_other_statements_are_rejected(said: dict[str, object], reason: Reason) -> None:
    contribution, verdict = check(DUE, "alice", statement(**said).encode(), compress(vector(1)).encode())
    assert contribution is None and verdict is not None
    assert (verdict.outcome, verdict.reason) == (Outcome.REJECT, reason)


def test_bytes_that_are_nothing_are_rejected() -> None:
    good = compress(vector(1)).encode()
    for said, payload, reason in (
        (b"{}", good, Reason.STATEMENT),
        (statement().encode(), good[:-1], Reason.PAYLOAD),
        (statement().encode(), compress(NOTHING).encode(), Reason.EMPTY),
    ):
        _, verdict = check(DUE, "alice", said, payload)
        assert verdict is not None and verdict.reason is reason


def test_an_honest_replay_is_accepted_and_another_change_rejected() -> None:
    before, change = vector(1), vector(2)
    contribution, opened = work(before, change)
    said = statement(before=CID)
    for replayed, outcome in (
        (change, Outcome.ACCEPT),
        (1.00001 * change, Outcome.ACCEPT),
        (1.001 * change, Outcome.REJECT),
    ):
        verdict = judge_replay(DUE, said, contribution, opened, replayed.astype(np.float32), "00" * 32)
        assert verdict.outcome is outcome, verdict
    half = judge_replay(DUE, said, contribution, opened, (0.5 * change).astype(np.float32), "00" * 32)
    assert half.reason is Reason.REPLAY and "distance 1" in half.detail


def test_what_was_sent_has_to_be_what_was_trained() -> None:
    before, change = vector(1), vector(2)
    total = accumulate(before, change, 0.95)
    foreign = compress(vector(99))  # and the buffer made to fit: together they are the honest change
    fitted = Opened(before, remainder(total, foreign))
    verdict = judge_replay(DUE, statement(before=CID), foreign, fitted, change, "00" * 32)
    assert (verdict.outcome, verdict.reason) == (Outcome.REJECT, Reason.SENT)
    large = compress(1000 * vector(99))
    verdict = judge_replay(
        DUE, statement(before=CID), large, Opened(before, remainder(total, large)), change, "00" * 32
    )
    assert verdict.outcome is Outcome.REJECT


def test_an_exact_replay_has_the_same_bits_and_states_or_nearly() -> None:
    due = Due(7, "11" * 32, SIZE, recipe("exact"))
    contribution, opened = work(vector(1), vector(2))
    said = statement(before=CID, profile="exact")
    assert judge_replay(due, said, contribution, opened, vector(2), "cd" * 32).outcome is Outcome.ACCEPT
    for apart, reason in ((1e-7, Reason.OK), (1e-5, Reason.REPLAY)):  # another machine, and other work
        replayed = ((1.0 + apart) * vector(2)).astype(np.float32)
        assert not same(opened.before, opened.after, contribution, replayed, due.recipe.kept)
        assert judge_replay(due, said, contribution, opened, replayed, "ee" * 32).reason is reason
    assert judge_replay(due, said, contribution, opened, vector(2), "ce" * 32).reason is Reason.TRACE


def test_a_buffer_said_to_be_empty_has_to_be() -> None:
    contribution, opened = work(vector(1), vector(2))
    verdict = judge_replay(DUE, statement(), contribution, opened, vector(2), "00" * 32)
    assert verdict.reason is Reason.BUFFER


def test_numbers_that_are_none_never_pass() -> None:
    contribution, opened = work(NOTHING, vector(2))
    hostile = Opened(NOTHING, np.full(SIZE, np.nan, dtype=np.float32))
    assert judge_replay(DUE, statement(), contribution, hostile, vector(2), "00" * 32).outcome is Outcome.REJECT
    exact = Due(7, "11" * 32, SIZE, recipe("exact"))  # the buffer before it was promised in a window nobody audited
    said = statement(before=CID, profile="exact")
    verdict = judge_replay(exact, said, contribution, Opened(hostile.after, opened.after), vector(2), "00" * 32)
    assert (verdict.outcome, verdict.reason) == (Outcome.REJECT, Reason.REPLAY)
    broken = np.full(SIZE, np.inf, dtype=np.float32)
    verdict = judge_replay(DUE, statement(), contribution, opened, broken, "00" * 32)
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, Reason.UNCHECKED)
