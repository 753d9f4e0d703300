"""Stake decides about each contribution; texts and records have one form."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.artifacts import Manifest
from protocol.errors import MalformedMessage
from protocol.training.records import Included, WindowRecord
from protocol.training.votes import MAX_UID, Word, accepted, agreed

CID = Manifest.of(b"one").cid


@given(st.integers(0, 10**10 - 1), st.frozensets(st.integers(0, MAX_UID)), st.booleans())
def test_a_word_reads_back(window: int, uids: frozenset[int], first: bool) -> None:
    word = Word(window, uids, None if first else CID)
    assert Word.parse(word.encode()) == word and len(word.encode()) <= 512


def test_votes_of_256_uids_are_short() -> None:
    assert Word(7, frozenset(), None).encode() == "touchstone-word/1:7::-"
    assert Word(7, frozenset({0, 9}), CID).encode() == f"touchstone-word/1:7:AQI:{CID}"
    assert len(Word(10**9, frozenset(range(256)), CID).encode()) <= 140
    with pytest.raises(ValueError, match="uids"):
        Word(7, frozenset({MAX_UID + 1}), None).encode()


@pytest.mark.parametrize(
    "text",
    ["", "touchstone-word/1:7:AQI", "touchstone-word/1:07:AQI:-", "touchstone-word/2:7:AQI:-",
     "touchstone-word/1:7:AQJ:-", "touchstone-word/1:7:AQIA:-", "touchstone-word/1:7:AQI=:-",
     "touchstone-word/1:7:A:-", "touchstone-word/1:-1:AQI:-", "touchstone-word/1:7:" + "_" * 400 + ":-",
     "touchstone-word/1:7:AQI:b" + "a" * 58, f"touchstone-word/1:7:AQI:{CID}x"],
)  # fmt: skip
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(MalformedMessage):
        Word.parse(text)


def test_more_than_half_of_all_stake_accepts() -> None:
    votes = {"v1": (60, ["a", "b"]), "v2": (30, ["b", "c"]), "v3": (10, ["c"])}
    assert accepted(votes, 100) == {"a", "b"}
    assert accepted(votes, 121) == {"b"}, "some who may vote did not"
    assert accepted({"v1": (50, ["a"]), "v2": (50, ["b"])}, 100) == frozenset()
    assert accepted({"v1": (50, ["a", "a"])}, 100) == frozenset()
    assert accepted({}, 0) == frozenset() and accepted({"v1": (0, ["a"])}, 0) == frozenset()


def test_a_record_needs_more_than_half_as_well() -> None:
    assert agreed({"v1": (60, "x"), "v2": (40, "y")}, 100) == "x"
    assert agreed({"v1": (50, "x"), "v2": (50, "y")}, 100) is None
    assert agreed({"v1": (30, "x"), "v2": (30, "x"), "v3": (40, "y")}, 100) == "x"
    assert agreed({"v1": (30, "x"), "v2": (10, "x")}, 100) is None and agreed({}, 0) is None


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
