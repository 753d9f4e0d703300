"""Stake decides about each contribution; texts and records have one form."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MalformedMessage
from protocol.training.records import Included, WindowRecord
from protocol.training.votes import MAX_UID, RootCommitment, Votes, accepted, agreed

CID = "b" + "a" * 58


@given(st.integers(0, 10**10 - 1), st.frozensets(st.integers(0, MAX_UID)))
def test_votes_read_back(window: int, uids: frozenset[int]) -> None:
    votes = Votes(window, uids)
    assert Votes.parse(votes.encode()) == votes and len(votes.encode()) <= 512


def test_votes_of_256_uids_are_short() -> None:
    assert Votes(7, frozenset()).encode() == "touchstone-votes/1:7:"
    assert Votes(7, frozenset({0, 9})).encode() == "touchstone-votes/1:7:AQI"
    assert len(Votes(10**9, frozenset(range(256))).encode()) <= 128
    with pytest.raises(ValueError, match="uids"):
        Votes(7, frozenset({MAX_UID + 1})).encode()


@pytest.mark.parametrize(
    "text",
    ["", "touchstone-votes/1:7", "touchstone-votes/1:07:AQI", "touchstone-votes/2:7:AQI", "touchstone-votes/1:7:AQJ",
     "touchstone-votes/1:7:AQIA", "touchstone-votes/1:7:AQI=", "touchstone-votes/1:7:A", "touchstone-votes/1:-1:AQI",
     "touchstone-votes/1:7:" + "_" * 400],
)  # fmt: skip
def test_other_votes_are_refused(text: str) -> None:
    with pytest.raises(MalformedMessage):
        Votes.parse(text)


def test_more_than_half_of_the_voting_stake_accepts() -> None:
    votes = {"v1": (60, ["a", "b"]), "v2": (30, ["b", "c"]), "v3": (10, ["c"])}
    assert accepted(votes) == {"a", "b"}
    assert accepted({"v1": (50, ["a"]), "v2": (50, ["b"])}) == frozenset()
    assert accepted({"v1": (5, ["a", "a"]), "v2": (6, [])}) == frozenset()
    assert accepted({}) == frozenset() and accepted({"v1": (0, ["a"])}) == frozenset()


def test_a_root_needs_more_than_half_as_well() -> None:
    assert agreed({"v1": (60, "x"), "v2": (40, "y")}) == "x"
    assert agreed({"v1": (50, "x"), "v2": (50, "y")}) is None
    assert agreed({"v1": (30, "x"), "v2": (30, "x"), "v3": (40, "y")}) == "x" and agreed({}) is None


def test_roots_on_chain() -> None:
    root = RootCommitment(12, "ab" * 32, CID)
    assert RootCommitment.parse(root.encode()) == root
    assert len(RootCommitment(10**10 - 1, "ab" * 32, CID).encode()) <= 512
    for wrong in ("", root.encode() + "x", root.encode().upper(), root.encode().replace(":12:", ":-1:")):
        with pytest.raises(MalformedMessage):
            RootCommitment.parse(wrong)


def included(miner: str) -> dict[str, str]:
    return {"miner": miner, "statement": CID, "payload": CID}


def record(**changes: object) -> dict[str, object]:
    made = WindowRecord(
        window=3, recipe="ab" * 32, base="cd" * 32, root="ef" * 32, previous=None, checkpoint=CID,
        contributions=(Included(**included("a")), Included(**included("b"))),
    )  # fmt: skip
    return {**made.model_dump(), **changes}


def encoded(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def test_a_record_reads_back() -> None:
    made = WindowRecord.parse(encoded(record()))
    assert WindowRecord.parse(made.encode()) == made
    assert WindowRecord.parse(encoded(record(contributions=[], previous=CID, checkpoint=None))).previous == CID


@pytest.mark.parametrize(
    "change",
    [{"window": -1}, {"root": "x"}, {"version": 2}, {"extra": 1}, {"previous": "b123"},
     {"contributions": [included("b"), included("a")]}, {"contributions": [included("a")] * 2}],
    ids=str,
)  # fmt: skip
def test_other_records_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(MalformedMessage):
        WindowRecord.parse(encoded(record(**change)))
    with pytest.raises(MalformedMessage):
        WindowRecord.parse(encoded(record()) + b" ")
