"""Digests cover the whole state, openings belong to one root, and a bisection ends at the first step that differs."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MalformedMessage
from protocol.training.trace import Opening, Search, open_state, state_digest, trace_root

DIGESTS = [bytes([number]) * 32 for number in range(13)]


def test_a_digest_covers_step_tensors_and_where_they_end() -> None:
    parts = [b"parameters", b"first", b"second"]
    found = {
        state_digest(3, parts), state_digest(4, parts), state_digest(3, parts[:2]), state_digest(3, [b"".join(parts)]),
        state_digest(3, [b"parametersf", b"irst", b"second"]), state_digest(3, parts[::-1]),
    }  # fmt: skip
    assert len(found) == 6
    assert state_digest(3, [memoryview(part) for part in parts]) == state_digest(3, parts)


def test_every_state_opens_under_the_root_and_under_no_other() -> None:
    root = trace_root(DIGESTS)
    for index in range(len(DIGESTS)):
        opening = open_state(DIGESTS, index)
        assert opening.under(root, len(DIGESTS))
        assert not opening.under(trace_root(DIGESTS[:-1]), len(DIGESTS) - 1)
        assert not Opening(index, b"\xff" * 32, opening.path).under(root, len(DIGESTS))
        assert not Opening((index + 1) % 13, opening.digest, opening.path).under(root, len(DIGESTS))
    with pytest.raises(MalformedMessage):
        Opening(0, b"short", ())
    with pytest.raises(ValueError, match="1 to"):
        trace_root([])
    with pytest.raises(IndexError):
        open_state(DIGESTS, 13)


@given(st.integers(2, 3000), st.data())
def test_a_bisection_finds_the_first_difference(states: int, data: st.DataObject) -> None:
    first_wrong = data.draw(st.integers(1, states - 1))
    search, questions = Search.over(states), 0
    while (middle := search.middle) is not None:
        search, questions = search.narrowed(agree=middle < first_wrong), questions + 1
    assert (search.agreed, search.disputed) == (first_wrong - 1, first_wrong)
    assert questions <= math.ceil(math.log2(states - 1)) if states > 2 else questions == 0


def test_there_is_nothing_to_ask_of_one_state_or_of_neighbours() -> None:
    with pytest.raises(ValueError, match="one state"):
        Search.over(1)
    with pytest.raises(ValueError, match="found"):
        Search.over(2).narrowed(agree=True)
