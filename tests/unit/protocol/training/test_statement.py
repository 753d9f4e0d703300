"""A statement and its commitment have one form each."""

import pytest

from protocol.artifacts import Manifest
from protocol.errors import MalformedMessage
from protocol.training.statement import MAX_BYTES, Statement, TrainCommitment

CID = Manifest.of(b"one").cid
STATEMENT = Statement(
    window=7, miner="5F" + "x" * 46, base="ab" * 32, payload=CID, profile="tolerant", trace="cd" * 32, states=17,
    before=None, after=CID,
)  # fmt: skip


def test_a_statement_reads_back_and_covers_every_field() -> None:
    data = STATEMENT.encode()
    assert Statement.parse(data) == STATEMENT
    changes = {
        "window": 8, "miner": "5G", "base": "00" * 32, "payload": Manifest.of(b"two").cid, "profile": "exact",
        "trace": "00" * 32, "states": 16, "before": CID, "after": Manifest.of(b"three").cid,
    }  # fmt: skip
    assert changes.keys() == Statement.model_fields.keys()
    for name, value in changes.items():
        assert STATEMENT.model_copy(update={name: value}).encode() != data


@pytest.mark.parametrize(
    "change",
    [
        {"window": -1}, {"window": 10**10}, {"window": "7"}, {"miner": ""}, {"base": "AB" * 32}, {"payload": "b123"},
        {"payload": CID.upper()}, {"profile": "loose"}, {"states": 0}, {"extra": 1}, {"after": None},
    ],
    ids=str,
)  # fmt: skip
def test_other_values_are_refused(change: dict[str, object]) -> None:
    import json

    data = json.dumps({**STATEMENT.model_dump(), **change}, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(MalformedMessage):
        Statement.parse(data)


def test_other_spellings_are_refused() -> None:
    data = STATEMENT.encode()
    for wrong in (
        b"",
        b"{}",
        b" " + data,
        data + b"\n",
        data.replace(b'"states":17', b'"states":17.0'),
        b"x" * MAX_BYTES * 2,
    ):
        with pytest.raises(MalformedMessage):
            Statement.parse(wrong)


def test_the_text_on_chain() -> None:
    text = TrainCommitment(12, CID).encode()
    assert text == f"touchstone-train/1:12:{CID}" and TrainCommitment.parse(text) == TrainCommitment(12, CID)
    assert len(TrainCommitment(10**10 - 1, CID).encode()) <= 128
    for wrong in (
        "",
        text + " ",
        text + "\n",
        text.replace(":12:", ":012:"),
        text.replace("/1:", "/2:"),
        text[:-1],
        text.upper(),
    ):
        with pytest.raises(MalformedMessage):
            TrainCommitment.parse(wrong)
