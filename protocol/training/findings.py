"""What a second look at a verdict of mechanism 1 finds.

    compare(claimed, found, limit)        the claimed verdict and one that was recomputed: (Finding, sentence)
    conclude(compared, contradicted, unknown, found)        with what the chain said of the evidence -> Assessment

Training in float32 gives other last bits on another machine. Two replays of the same window may therefore differ by
MACHINES of the replay limit, and the distances that are measured from them by as much. When two verdicts differ and
their distances do not, they lie close to a limit, on its two sides: this machine cannot tell who is right, and says so.
Distances further apart than that are no matter of machines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.disputes import Finding
from protocol.training.evidence import Problem
from protocol.training.judging import Reason, Verdict
from protocol.verdicts import Outcome

# Share of the replay limit. Honest changes on different CPUs were 8.3e-6 apart at most, the default limit is 1e-4: a
# third of this. Larger, and a validator may call honest work a little above the limit without being contradicted.
MACHINES = 0.25
SENT_TOLERANCE = 1e-6  # of "sent", which no training enters into: sums in another order


@dataclass(frozen=True)
class Assessment:
    """`verdict` is the recomputed one, if it came to that; `why` says in sentences what stands against agreement."""

    finding: Finding
    why: tuple[str, ...] = ()
    verdict: Verdict | None = None
    problems: tuple[Problem, ...] = ()


def refused(problems: Sequence[Problem], verdict: Verdict | None = None) -> Assessment:
    """The finding when the evidence is not what it claims to be."""
    return Assessment(Finding.REFUSED, tuple(f"{p.code}: {p.detail}" for p in problems), verdict, tuple(problems))


def unchecked(*why: str) -> Assessment:
    return Assessment(Finding.UNCHECKED, why)


def conclude(
    compared: tuple[Finding, str], contradicted: Sequence[Problem], unknown: Sequence[str], found: Verdict | None
) -> Assessment:
    """`contradicted`: what the chain says otherwise; `unknown`: what it did not say, in sentences."""
    if contradicted:
        return refused(contradicted, found)
    finding, sentence = compared
    if finding is Finding.DISAGREES:
        return Assessment(finding, (sentence,), found)
    if unknown or finding is Finding.UNCHECKED:
        return Assessment(Finding.UNCHECKED, (*([sentence] if sentence else []), *unknown), found)
    return Assessment(Finding.AGREES, (), found)


def compare(claimed: Verdict, found: Verdict | None, limit: float) -> tuple[Finding, str]:
    """`found`: None when nothing is wrong with a form that was rejected. `limit`: the recipe's."""
    if found is None:
        return Finding.DISAGREES, f"{_said(claimed)} was claimed; nothing is wrong with the form"
    if found.outcome is Outcome.INCONCLUSIVE:
        return Finding.UNCHECKED, f"not recomputed: {found.detail}"
    near = _apart(claimed, found, limit)
    if (claimed.outcome, claimed.reason) == (found.outcome, found.reason):
        if claimed.numbers.keys() != found.numbers.keys():
            return Finding.DISAGREES, "the verdicts stand on different numbers"
        return (Finding.DISAGREES, near) if near else (Finding.AGREES, "")
    differ = f"{_said(claimed)} was claimed; it is {_said(found)}: {found.detail}"
    if near or not _may_be_the_machine(claimed, found, limit):
        return Finding.DISAGREES, differ
    return Finding.UNCHECKED, f"{differ}. That is within what two machines differ, so this one cannot tell"


def _may_be_the_machine(claimed: Verdict, found: Verdict, limit: float) -> bool:
    """Whether distances that are close to each other lie on the two sides of what decides, or bits that are the same on
    one machine need not be on the other."""
    was, now = claimed.numbers.get("distance"), found.numbers.get("distance")
    if was is None or now is None:
        return False
    if Reason.TRACE in (claimed.reason, found.reason):  # told only where the bits are the same
        return was <= limit and now <= limit
    return (was <= limit) != (now <= limit)


def _apart(claimed: Verdict, found: Verdict, limit: float) -> str:
    """The first number that both have and that differs by more than machines do, as a sentence; empty when none does.

    |c - r| / |r| against another r that is `slack` away: at most slack * (1 + distance) / (1 - slack) more or less.
    """
    slack = min(0.5, MACHINES * limit)
    for name in sorted(claimed.numbers.keys() & found.numbers.keys()):
        was, now = claimed.numbers[name], found.numbers[name]
        most = slack * (1.0 + abs(now)) / (1.0 - slack) if name == "distance" else SENT_TOLERANCE * max(1.0, abs(now))
        if not abs(was - now) <= most:
            return f"{name} was claimed to be {was:g}; it is {now:g}"
    return ""


def _said(verdict: Verdict) -> str:
    return f"{verdict.outcome}, {verdict.reason}"
