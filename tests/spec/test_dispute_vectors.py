"""The rules of a dispute against their frozen vectors: who passes these asks the same questions and rules alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from protocol.artifacts import Manifest
from protocol.training.dispute import Answer, By, Claim, Dispute, Rerun, Round, Terms, settle
from protocol.training.trace import open_state, state_digest, trace_root
from protocol.training.transcripts import Transcript, check

VECTORS = json.loads((Path(__file__).parent / "protocol" / "training_disputes.json").read_text())
CID = Manifest.of(b"one").cid
ROUNDED = {"states": 9, "parts_at": 4, "limit": 1e-4, "by": "digests"}  # of the rulings


def digests(states: int, parts_at: int | None) -> list[bytes]:
    other = states if parts_at is None else parts_at
    return [state_digest(k, [b"other" if k >= other else b"honest"]) for k in range(states)]


def answered(case: dict[str, Any]) -> tuple[Dispute, list[int]]:
    """A dispute that is asked to its end, and what was asked."""
    traces = [digests(case["states"], None), digests(case["states"], case["parts_at"])]
    terms = Terms(
        recipe="11" * 32, window=3, miner="alice", base="22" * 32, start=traces[0][0].hex(), states=case["states"],
        every=case["every"], steps=(case["states"] - 1) * case["every"], limit=case["limit"],
    )  # fmt: skip
    first, second = (Claim(hotkey="", trace=trace_root(trace).hex()) for trace in traces)
    dispute, asked = Dispute(terms, (first, second), By(case["by"])), []
    while (index := dispute.asks) is not None:
        asked.append(index)
        one, other = (_answer(trace, index) for trace in traces)
        found = Round(index=index, answers=(one, other))
        if dispute.looks(found):
            found = found.model_copy(update={"apart": case["apart"] if index >= case["far_from"] else 0.0})
        dispute = dispute.after(found)
    return dispute, asked


def _answer(trace: list[bytes], index: int) -> Answer:
    found = open_state(trace, index)
    return Answer(digest=found.digest.hex(), path=tuple(node.hex() for node in found.path))


@pytest.mark.parametrize("case", VECTORS["searches"], ids=lambda c: f"{c['states']}-{c['parts_at']}-{c['by']}")
def test_searches(case: dict) -> None:
    dispute, asked = answered(case)
    assert [claim.trace for claim in dispute.claims] == case["roots"]
    assert asked == case["asked"]
    assert (list(dispute.interval) if dispute.interval else None) == case["interval"]


@pytest.mark.parametrize("case", VECTORS["rulings"], ids=lambda c: f"{c['every']}-{c['reruns']}")
def test_rulings(case: dict) -> None:
    dispute, _ = answered({**ROUNDED, "every": case["every"]})
    assert dispute.interval == (3, 4)
    claimed = [answer.digest if answer else "" for answer in dispute.seen(4).answers]
    ruling = settle(dispute, [_rerun(given, claimed[k]) for k, given in enumerate(case["reruns"])])
    assert (ruling.wrong.value, list(ruling.absent)) == (case["wrong"], case["absent"])


def _rerun(given: float | str | None, claimed: str) -> Rerun | None:
    if given is None:
        return None
    if given == "found":
        return Rerun(start=CID, found=claimed)
    if given == "missing":
        return Rerun(start=CID, found="33" * 32, missing="it is busy")
    return Rerun(start=CID, found="33" * 32, claimed=CID, apart=given)


def test_transcript() -> None:
    data = VECTORS["transcript"].encode()
    transcript = Transcript.parse(data)
    assert transcript.encode() == data and check(transcript, lambda *_: True) == []
    assert (transcript.wrong.value, transcript.dispute.interval) == ("second", (1, 2))
