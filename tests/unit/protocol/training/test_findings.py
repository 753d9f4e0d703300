"""A second look agrees, disagrees, or says that it cannot tell; it never agrees with what it could not see."""

from dataclasses import replace

import pytest

from protocol.disputes import Finding
from protocol.training.buffers import EXACT_LIMIT
from protocol.training.evidence import Code, Problem
from protocol.training.findings import MACHINES, compare, conclude
from protocol.training.judging import Reason, Verdict
from protocol.verdicts import Outcome

LIMIT = 1e-4
NEAR = MACHINES * LIMIT


def replay(distance: float, reason: Reason = Reason.REPLAY) -> Verdict:
    outcome = Outcome.ACCEPT if reason is Reason.OK else Outcome.REJECT
    return Verdict(outcome, reason, "", {"distance": distance})


def finding(claimed: Verdict, found: Verdict | None, limit: float = LIMIT) -> Finding:
    return compare(claimed, found, limit)[0]


FORM = Verdict(Outcome.REJECT, Reason.PAYLOAD, "not a contribution")


@pytest.mark.parametrize(
    ("claimed", "found", "wanted"),
    [
        (FORM, replace(FORM, detail="in other words"), Finding.AGREES),
        (FORM, replace(FORM, reason=Reason.EMPTY), Finding.DISAGREES),
        (FORM, None, Finding.DISAGREES),
        (FORM, replay(1e-6, Reason.OK), Finding.DISAGREES),
        (replay(0.17), Verdict(Outcome.INCONCLUSIVE, Reason.UNCHECKED, "no number"), Finding.UNCHECKED),
        (replay(0.17), replay(0.17 + NEAR), Finding.AGREES),
        (replay(0.17), replay(0.171), Finding.DISAGREES),
        (replay(1e6), replay(1e6 + 10), Finding.AGREES),  # relative to what it is large against
        (replay(0.17), Verdict(Outcome.REJECT, Reason.REPLAY, "no result"), Finding.DISAGREES),
        (replay(8e-7, Reason.OK), replay(9e-6, Reason.OK), Finding.AGREES),
        (replay(8e-7, Reason.OK), replay(5e-5, Reason.OK), Finding.DISAGREES),
        (replay(LIMIT + 5e-6), replay(LIMIT - 5e-6, Reason.OK), Finding.UNCHECKED),
        (replay(LIMIT - 5e-6, Reason.OK), replay(LIMIT + 5e-6), Finding.UNCHECKED),
        (replay(LIMIT + 5e-6), replay(8e-7, Reason.OK), Finding.DISAGREES),  # honest work, called a little too far
        (replay(9e-7), replay(8e-7, Reason.OK), Finding.DISAGREES),  # what it claims is no reject
        (replay(0.5, Reason.OK), replay(0.5), Finding.DISAGREES),
        (replay(LIMIT + 5e-6, Reason.COPY), replay(LIMIT - 5e-6, Reason.OK), Finding.UNCHECKED),
        (replay(0.17, Reason.COPY), replay(0.17), Finding.DISAGREES),
        (replay(2e-6, Reason.SENT), replay(2e-6, Reason.OK), Finding.DISAGREES),
    ],
)
def test_tolerant(claimed: Verdict, found: Verdict | None, wanted: Finding) -> None:
    assert finding(claimed, found) is wanted


@pytest.mark.parametrize(
    ("claimed", "found", "wanted"),
    [
        (replay(1e-6), replay(1.1e-6), Finding.AGREES),
        (replay(1.1e-6), replay(9e-7, Reason.OK), Finding.UNCHECKED),
        (replay(9e-7, Reason.OK), replay(1.1e-6), Finding.UNCHECKED),
        (replay(2e-7, Reason.OK), replay(0.17), Finding.DISAGREES),
        (replay(2e-7, Reason.TRACE), replay(2e-7, Reason.OK), Finding.UNCHECKED),  # other bits here, perhaps
        (replay(2e-7, Reason.OK), replay(2e-7, Reason.TRACE), Finding.UNCHECKED),
        (replay(2e-7, Reason.TRACE), replay(2e-7, Reason.TRACE), Finding.AGREES),
        (replay(2e-7, Reason.TRACE), replay(0.17), Finding.DISAGREES),
    ],
)
def test_exact(claimed: Verdict, found: Verdict, wanted: Finding) -> None:
    assert finding(claimed, found, EXACT_LIMIT) is wanted


def test_what_was_sent_depends_on_no_machine() -> None:
    claimed = Verdict(Outcome.REJECT, Reason.SENT, "", {"distance": 1e-6, "sent": 0.4})
    assert finding(claimed, replace(claimed, numbers={"distance": 2e-6, "sent": 0.4 + 1e-9})) is Finding.AGREES
    assert finding(claimed, replace(claimed, numbers={"distance": 1e-6, "sent": 0.401})) is Finding.DISAGREES
    assert finding(claimed, replace(claimed, numbers={"distance": 1e-6})) is Finding.DISAGREES


def test_agreement_takes_a_whole_answer() -> None:
    verdict, problem = replay(0.17), Problem(Code.CHAIN, "another hash")
    agrees, differs = (Finding.AGREES, ""), (Finding.DISAGREES, "it is ok")
    assert conclude(agrees, [], [], verdict).finding is Finding.AGREES
    assert conclude(agrees, [], ["not checked: the hashes"], verdict).finding is Finding.UNCHECKED
    assert conclude((Finding.UNCHECKED, "too near"), [], [], verdict).why == ("too near",)
    assert conclude(differs, [], ["not checked: the hashes"], verdict).finding is Finding.DISAGREES
    assert conclude(agrees, [problem], [], verdict).finding is Finding.REFUSED
    assert conclude(differs, [problem], [], verdict).problems == (problem,)
