"""The list: every dishonest miner of mechanism 1 with what it does and what becomes of it.

`end` and `passes` are claims. tests/adversary/test_training.py holds them over one window in which everybody is
audited, or nobody but those who have to be; `touchstone train attack-bench` measures what they come to over many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial

from protocol.artifacts import Manifest
from protocol.training.judging import Reason, Shown
from template.training.work_state import Kept
from template.training.workbench import Workbench
from tests.adversary.trainers import making
from tests.adversary.trainers.making import Scheme

Make = Callable[[Workbench], Kept]
Making = Callable[[Scheme], Kept]

UNKNOWN = Manifest.of(b"a buffer that nobody knows").cid


class Reveals(str, Enum):
    """What validators find when they look, in reveal and score."""

    IN_TIME = "in time"
    NEVER = "never"
    LATE = "late"  # a phase too late: when validators have voted
    OTHER = "other"  # in time, other bytes under the name that was committed to

    def __str__(self) -> str:
        return self.value


class End(str, Enum):
    """What becomes of a contribution without a verdict."""

    USELESS = "useless"  # it does not lower the losses, and so nobody votes for it
    ABSENT = "absent"  # nothing was shown in time, or its buffers were not opened: it enters nothing

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Attack:
    """One dishonest miner. `others`: how many hotkeys' data it uses. `opens`: whether it opens its buffers to an audit.

    `end`: of a contribution that is audited where it helps. `alike`: it keeps what another contribution of the window
    keeps, and so never passes without an audit; `together`: when several do the same. `passes`: it helps, and nothing
    but a draw tells it from work.
    """

    name: str
    what: str
    making: Making
    end: Reason | End
    others: int = 0
    reveals: Reveals = Reveals.IN_TIME
    opens: bool = True
    alike: bool = False
    together: bool = False
    passes: bool = False
    lucky: bool = False

    def armed(self, others: Sequence[str] = ()) -> Make:
        """What one miner does at its benches, window after window: `TrainMiner(make=..., others=others)`. Those who
        collude are given the same `others`. Raises ValueError when these are too few."""
        if len(others) < self.others:
            raise ValueError(f"{self.name} uses the data of {self.others} others")
        known, held = tuple(others[: self.others]), {}

        def make(bench: Workbench) -> Kept:
            # What was saved of an interrupted window is of one training, and several are done here.
            return self.making(Scheme(replace(bench, resumed=None, save=None), known, held))

        return make

    def shown(self, kept: Kept, size: int) -> Shown | None:
        """What is in its store when validators look; None for nothing."""
        if self.reveals is Reveals.OTHER:
            return Shown(kept.statement, making.turned(kept.payload, size))
        return Shown(kept.statement, kept.payload) if self.reveals is Reveals.IN_TIME else None


def _form(name: str, what: str, made: Making, end: Reason, others: int = 0) -> Attack:
    return Attack(name, what, made, end, others)


def _says(name: str, what: str, field: str, value: Callable[[Scheme], object], end: Reason, others: int = 0) -> Attack:
    return _form(name, what, partial(making.saying, field=field, value=value), end, others)


def _work(name: str, what: str, made: Making, others: int = 0) -> Attack:
    return Attack(name, what, made, Reason.REPLAY, others, passes=True)


def _copies(name: str, what: str, made: Making) -> Attack:
    return Attack(name, what, made, Reason.COPY, 1, alike=True)


def _useless(name: str, what: str, made: Making, others: int = 0) -> Attack:
    return Attack(name, what, made, End.USELESS, others)


def _absent(name: str, what: str, reveals: Reveals) -> Attack:
    return Attack(name, what, making.working, End.ABSENT, reveals=reveals)


def _other_profile(scheme: Scheme) -> str:
    return "exact" if scheme.recipe.profile == "tolerant" else "tolerant"


_LIBRARY = (
    # no work
    _form("zero update", "sends an update of nothing", making.nothing, Reason.EMPTY),
    replace(_useless("noise", "sends normal numbers, as large as work", making.noise), lucky=True),
    _absent("never revealed", "commits to honest work and never shows it", Reveals.NEVER),
    _absent("late", "shows honest work when voting is over", Reveals.LATE),
    _absent("other than committed", "shows another payload under the name of the one it committed to", Reveals.OTHER),
    # work that is turned or made larger
    _useless("sign flipped", "sends minus what it trained", making.flipped),
    _useless("sign flipped x3", "three times that", partial(making.flipped, factor=3.0)),
    _work("x2", "twice what it trained", partial(making.enlarged, factor=2.0)),
    _useless("x100", "a hundred times what it trained", partial(making.enlarged, factor=100.0)),
    _useless("out of all bounds", "1e30 times what it trained", partial(making.enlarged, factor=1e30)),
    # other work than what was asked for
    _form("stale model", "trains from an older model", partial(making.stale, denied=False), Reason.STALE),
    _work("stale model, denied", "the same, and says it was the newest", partial(making.stale, denied=True)),
    _work("half the steps", "stops after half of the steps", making.half_the_steps),
    Attack(
        "half the steps, unopened", "the same, and opens nothing to an audit", making.half_the_steps, End.ABSENT,
        opens=False, passes=True,
    ),
    _work("one batch over and over", "trains on the first of its batches in every step", making.data_of_its_own),
    _work("one batch swapped", "trains on another miner's batch in one step", making.one_batch_swapped, 1),
    _work("higher learning rate", "a rate 10 % too high", making.higher_rate),
    _work("backdoor", "plants a trigger in half of its sequences", making.planted),
    # work of others
    _copies("another miner's data", "trains on the data of another, from its own buffer", making.data_of_another),
    _copies("copy", "sends what another sends, to the bit", making.copy),
    _copies("perturbed copy", "the same with 10 % noise on every entry", making.perturbed_copy),
    _copies("foreign payload", "its own training, another's payload, a buffer to fit", making.foreign_payload),
    # together
    Attack(
        "colluders, one work", "one training, sent under every name", making.same_for_all, Reason.COPY, 2,
        together=True,
    ),
    _work("colluders, work shared out", "one training, and other entries of it under every name", making.shared_out, 2),
    Attack(
        "colluders, inverse", "minus the mean of honest work, as large", making.inverse, End.USELESS, 2, together=True,
    ),
    Attack(
        "ALIE", "mean of honest work less as many deviations as still helps, under every name", making.alie,
        Reason.COPY, 2, together=True,
    ),
    _work("ALIE shared out", "the same, other entries of it under every name", making.alie_shared_out, 2),
    # forms
    _form("NaN", "a magnitude that is no number", partial(making.with_scale, value=float("nan")), Reason.PAYLOAD),
    _form("infinite", "a magnitude that is infinite", partial(making.with_scale, value=float("inf")), Reason.PAYLOAD),
    _form("cut off", "a payload without its last byte", making.cut, Reason.PAYLOAD),
    _form("wrong shape", "a payload to a larger model", making.other_shape, Reason.PAYLOAD),
    _form("oversize", "a payload a hundred times as long", making.oversize, Reason.PAYLOAD),
    _says("another window", "a statement of the next", "window", lambda at: at.bench.window + 1, Reason.STATEMENT),
    _says("another's name", "a statement of another miner", "miner", lambda at: at.others[0], Reason.STATEMENT, 1),
    _says("another profile", "a statement by another profile", "profile", _other_profile, Reason.STATEMENT),
    _says("unknown buffer", "a buffer before it that nobody knows", "before", lambda at: UNKNOWN, Reason.BUFFER),
    # buffers
    _work("inflated buffer", "sends a buffer along that nobody trained", making.inflated),
    _form(
        "inflated buffer, named", "the same, said to be an earlier one's", partial(making.inflated, said=True),
        Reason.BUFFER,
    ),
    _work("hidden reserve", "leaves more in its buffer than was left", making.hidden_reserve),
)  # fmt: skip

ATTACKS: dict[str, Attack] = {attack.name: attack for attack in _LIBRARY}
