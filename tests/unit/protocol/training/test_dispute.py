"""A search ends where two traces part, and blame needs an interval that does not follow from what was committed to."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.artifacts import Manifest
from protocol.errors import MalformedMessage
from protocol.training.buffers import EXACT_LIMIT
from protocol.training.dispute import (
    CERTAIN,
    FAR,
    Answer,
    By,
    Claim,
    Dispute,
    Rerun,
    Round,
    Terms,
    Wrong,
    apart,
    settle,
)  # fmt: skip
from protocol.training.recipe import Clock, Recipe, Tasks
from protocol.training.trace import open_state, state_digest, trace_root
from protocol.training.transcripts import MAX_BYTES, Transcript, check
from tests.support.training import TINY

CID = Manifest.of(b"one").cid
START = b"\x00" * 32
LIMIT = 1e-4


def trace(states: int, parts_at: int | None = None, tag: bytes = b"\xff") -> list[bytes]:
    """Digests of an honest training, or of one that goes another way from state `parts_at` on."""
    honest = [START, *(state_digest(step, [b"honest"]) for step in range(1, states))]
    if parts_at is None:
        return honest
    return honest[:parts_at] + [state_digest(step, [tag]) for step in range(parts_at, states)]


def terms(states: int, every: int = 1) -> Terms:
    return Terms(
        recipe="11" * 32, window=3, miner="alice", base="22" * 32, start=START.hex(), states=states, every=every,
        steps=(states - 1) * every, limit=LIMIT,
    )  # fmt: skip


def begun(first: list[bytes], second: list[bytes], by: By = By.DIGESTS, **more: int) -> Dispute:
    claims = (Claim(hotkey="", trace=trace_root(first).hex()), Claim(hotkey="", trace=trace_root(second).hex()))
    return Dispute(terms(len(first), **more), claims, by)


def answer(digests: list[bytes], index: int) -> Answer:
    found = open_state(digests, index)
    return Answer(digest=found.digest.hex(), path=tuple(node.hex() for node in found.path))


def asked(dispute: Dispute, first: list[bytes], second: list[bytes], far: Any = lambda index: None) -> Dispute:
    while (index := dispute.asks) is not None:
        given = Round(index=index, answers=(answer(first, index), answer(second, index)))
        if dispute.looks(given):
            given = given.model_copy(update={"apart": far(index)})
        dispute = dispute.after(given)
    return dispute


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 300), st.data())
def test_any_two_traces_that_part_are_parted_in_a_logarithm_of_questions(states: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(1, states - 1))
    first, second = trace(states), trace(states, at)
    dispute = asked(begun(first, second), first, second)
    assert dispute.interval == (at - 1, at)
    ends = 1 + (at == 1)  # the last state, and the first when it comes to that
    assert len(dispute.rounds) <= math.ceil(math.log2(max(2, states - 1))) + ends
    for one in dispute.rounds:
        assert all(
            a is not None and a.under(claim, one.index, states)
            for a, claim in zip(one.answers, dispute.claims, strict=True)
        )


def test_64_steps_take_six_questions_and_the_last_state() -> None:
    first, second = trace(65), trace(65, 33)
    assert len(asked(begun(first, second), first, second).rounds) == 7


def test_by_states_what_is_near_is_the_same() -> None:
    """Every digest differs, as on another machine; from state 5 on the states are too far apart."""
    first, second = trace(17), trace(17, 1)
    by_digests = asked(begun(first, second), first, second)
    assert by_digests.interval == (0, 1)
    dispute = asked(begun(first, second, By.STATES), first, second, lambda index: 1e-5 if index < 5 else 1e-2)
    assert dispute.interval == (4, 5)
    near = asked(begun(first, second, By.STATES), first, second, lambda index: LIMIT)
    assert near.interval is None and settle(near, (None, None)).wrong is Wrong.NEITHER
    with pytest.raises(ValueError, match="compared"):
        begun(first, second, By.STATES).after(Round(index=16, answers=(answer(first, 16), answer(second, 16))))


def test_the_same_trace_and_the_same_end_are_no_dispute() -> None:
    first = trace(9)
    same = begun(first, first)
    assert same.asks is None and same.interval is None and settle(same, (None, None)).wrong is Wrong.NEITHER
    second = [*trace(9, 4)[:8], first[8]]
    ended = asked(begun(first, second), first, second)
    assert len(ended.rounds) == 1 and settle(ended, (None, None)).why == "the parties agree about the last state"


def found(parted: Dispute, far: tuple[float | None, float | None], **more: Any) -> Any:
    reruns = [Rerun(start=CID, found="33" * 32, claimed=CID if one is not None else None, apart=one) for one in far]
    return settle(parted, tuple(one.model_copy(update=more) for one in reruns))


def test_who_is_wrong_follows_from_the_interval_alone() -> None:
    first, second = trace(9), trace(9, 4)
    parted = asked(begun(first, second), first, second)
    clears = Rerun(start=CID, found=first[4].hex())
    blamed = Rerun(start=CID, found=first[4].hex(), claimed=CID, apart=0.2)
    assert settle(parted, (clears, blamed)).wrong is Wrong.SECOND
    assert settle(parted, (blamed.model_copy(update={"found": second[4].hex()}), clears)).wrong is Wrong.FIRST
    assert found(parted, (0.2, 0.2)).wrong is Wrong.BOTH
    assert found(parted, (LIMIT, LIMIT)).wrong is Wrong.NEITHER
    assert found(parted, (0.2, LIMIT)).wrong is Wrong.FIRST
    assert found(parted, (FAR, None)).wrong is Wrong.FIRST
    assert found(parted, (2 * LIMIT, LIMIT)).wrong is Wrong.UNCHECKED
    assert found(parted, (CERTAIN * LIMIT, LIMIT)).wrong is Wrong.UNCHECKED
    assert settle(parted, (None, None)).wrong is Wrong.UNCHECKED
    with pytest.raises(ValueError, match="not asked"):
        settle(begun(first, second), (None, None))


def test_nobody_is_blamed_for_what_many_steps_do() -> None:
    first, second = trace(9), trace(9, 4)
    parted = asked(begun(first, second, every=4), first, second)
    assert found(parted, (0.2, LIMIT)).wrong is Wrong.FIRST
    parted = asked(begun(first, second, every=5), first, second)
    ruling = found(parted, (0.2, LIMIT))
    assert ruling.wrong is Wrong.UNCHECKED and "5 steps" in ruling.why


def test_a_training_that_began_elsewhere_is_wrong_without_a_rerun() -> None:
    first, second = [b"\x05" * 32, *trace(9, 1)[1:]], trace(9)
    parted = asked(begun(first, second), first, second)
    assert parted.interval == (0, 1)
    ruling = settle(parted, (None, Rerun(start=CID, found=second[1].hex())))
    assert ruling.wrong is Wrong.FIRST and "another state" in ruling.why


def test_who_does_not_answer_is_absent_and_not_wrong() -> None:
    first, second = trace(9), trace(9, 4)
    dispute = begun(first, second)
    silent = dispute.after(Round(index=8, answers=(None, answer(second, 8)), missing=("no connection", "")))
    assert silent.asks is None and silent.interval is None
    ruling = settle(silent, (None, None))
    assert (ruling.wrong, ruling.absent) == (Wrong.UNCHECKED, ("first",)) and "no connection" in ruling.why
    with pytest.raises(ValueError, match="why not"):
        dispute.after(Round(index=8, answers=(None, answer(second, 8))))
    with pytest.raises(ValueError, match="asked about state 8"):
        dispute.after(Round(index=4, answers=(answer(first, 4), answer(second, 4))))
    parted = asked(dispute, first, second)
    kept_back = Rerun(start=CID, found=first[4].hex(), missing="it is busy")
    ruling = settle(parted, (Rerun(start=CID, found=first[4].hex()), kept_back))
    assert (ruling.wrong, ruling.absent) == (Wrong.UNCHECKED, ("second",))


def test_terms_follow_from_the_recipe() -> None:
    recipe = Recipe(
        architecture=TINY, model="ab" * 32, model_file=CID, dataset=CID, clock=Clock(start=0), tasks=Tasks(steps=10)
    )
    found = Terms.of(recipe, 7, "alice", "22" * 32, START)
    assert (found.states, found.every, found.limit) == (4, 4, recipe.replay_limit)
    assert [found.step(index) for index in range(4)] == [0, 4, 8, 10]
    assert Terms.of(recipe.model_copy(update={"profile": "exact"}), 7, "a", "22" * 32, START).limit == EXACT_LIMIT


def test_states_are_as_far_apart_as_their_worst_part() -> None:
    start = np.zeros(4, np.float32)
    state = tuple(np.full(4, value, np.float32) for value in (1.0, 2.0, 3.0))
    assert apart(start, state, state) == 0.0
    for part in range(3):
        other = tuple(one * np.float32(1.5) if k == part else one for k, one in enumerate(state))
        assert apart(start, other, state) == pytest.approx(0.5)
    assert apart(start, (state[0], state[1], np.full(4, np.nan, np.float32)), state) == FAR
    assert apart(state[0], state, (state[0] + 1, *state[1:])) == pytest.approx(1.0), "counted from the start"


def test_a_transcript_is_read_back_and_says_no_more_than_it_holds() -> None:
    first, second = trace(9), trace(9, 4)
    reruns = (
        Rerun(start=CID, found=first[4].hex()),
        Rerun(start=CID, found=first[4].hex(), claimed=CID, apart=0.2),
    )
    made = Transcript.of(asked(begun(first, second), first, second), reruns)
    data = made.encode()
    assert len(data) < MAX_BYTES and Transcript.parse(data) == made == Transcript.parse(data + b"\n")
    assert made.wrong is Wrong.SECOND and check(made, lambda *_: True) == []
    with pytest.raises(MalformedMessage):
        Transcript.parse(json.dumps(json.loads(data), indent=1).encode())

    def problems(**changes: Any) -> str:
        return "; ".join(check(made.model_copy(update=changes), lambda *_: True))

    assert "follows second" in problems(wrong=Wrong.FIRST)
    assert "not the rounds" in problems(rounds=made.rounds[:-1])
    moved = made.rounds[0].model_copy(update={"answers": (answer(first, 7), answer(second, 7))})
    assert "not under the root" in problems(rounds=(moved, *made.rounds[1:]))
    named = (made.claims[0].model_copy(update={"hotkey": "alice"}), made.claims[1])
    assert "nothing was signed" in problems(claims=named) and "statement is missing" in problems(claims=named)
