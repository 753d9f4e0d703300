"""What peers do in a window: a strategy turns what a peer knows of itself into an act.

    STRATEGIES["lazy"].act(known, draw)      -> Act(what, share, source)
    parse_mix("honest=0.9,lazy=0.1")         {name: share of the peers}
    strategy_of(mix, count)                  the name of each peer's

A peer knows what the network shows it: the window, how many of its replays have agreed (it was asked to open its
buffers), and whether it may earn. It does not know what will be audited. `draw` is uniform in [0, 1), its own dice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

GROUP = 4  # colluders that share one's work


class What(str, Enum):
    WORK = "work"  # trained on its own data
    COPY = "copy"  # what another peer shows
    NOISE = "noise"  # numbers of no meaning
    AWAY = "away"  # nothing, or too late


@dataclass(frozen=True)
class Act:
    """`share`: of the window's steps, which is also its cost. `source`: of a copy, the member of the own group; None
    is whoever works."""

    what: What
    share: float = 0.0
    source: int | None = None


@dataclass(frozen=True)
class Known:
    """What a peer knows when a window begins. `place`: its number among those of its strategy. `audits`: replays that
    agreed since its last reject, at the validator that has made the fewest. `trusted_from`: how many bring its audits
    down. `barred`: validators with half of the stake or more let it earn nothing in this window."""

    window: int
    place: int
    audits: int
    trusted_from: int
    barred: bool


@dataclass(frozen=True)
class Strategy:
    """`returns`: when it is barred it leaves, and comes back under another hotkey for the price of a registration."""

    about: str
    act: Callable[[Known, float], Act]
    returns: bool = False


ALL = Act(What.WORK, 1.0)
HALF = Act(What.WORK, 0.5)
AWAY = Act(What.AWAY)


def _often(away: float) -> Callable[[Known, float], Act]:
    return lambda known, draw: AWAY if draw < away else ALL


def _lazy(known: Known, draw: float) -> Act:
    return AWAY if known.barred else HALF


def _rare(known: Known, draw: float) -> Act:
    return AWAY if known.barred else HALF if draw < 0.1 else ALL


def _patient(known: Known, draw: float) -> Act:
    return AWAY if known.barred else HALF if known.audits > known.trusted_from else ALL


def _copier(known: Known, draw: float) -> Act:
    return AWAY if known.barred else Act(What.COPY)


def _colluder(known: Known, draw: float) -> Act:
    """Everybody's turn comes; whose it is works, whether it is barred or not, because the others live on it."""
    turn = known.window % GROUP
    if known.place % GROUP == turn:
        return ALL
    return AWAY if known.barred else Act(What.COPY, source=known.place // GROUP * GROUP + turn)


def _noise(known: Known, draw: float) -> Act:
    return AWAY if known.barred else Act(What.NOISE)


STRATEGIES: Mapping[str, Strategy] = {
    "honest": Strategy("all steps, in every window", _often(0.0)),
    "slow": Strategy("honest, and too late in one window of ten", _often(0.1)),
    "absent": Strategy("honest, and away in one window of three", _often(1 / 3)),
    "lazy": Strategy("half the steps, in every window", _lazy),
    "rare": Strategy("half the steps in one window of ten", _rare),
    "patient": Strategy("all steps until its audits fall, half of them from then on", _patient),
    "sybil": Strategy("patient, and another hotkey instead of a cool-down", _patient, returns=True),
    "copier": Strategy("shows what somebody else shows", _copier),
    "colluder": Strategy(f"{GROUP} take turns to work, and all of them show it", _colluder),
    "noise": Strategy("numbers as large as a contribution", _noise),
    "friend": Strategy("noise, with validators that vote for it (see --friendly)", _noise),
}


def parse_mix(text: str) -> dict[str, float]:
    """Shares by strategy, which sum to 1. Raises ValueError."""
    mix: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.strip().partition("=")
        if name not in STRATEGIES:
            raise ValueError(f"there is no strategy {name!r}; there are {', '.join(STRATEGIES)}")
        if name in mix:
            raise ValueError(f"{name} is named twice")
        mix[name] = float(share)
    if any(not 0.0 <= share <= 1.0 for share in mix.values()) or abs(sum(mix.values()) - 1.0) > 1e-6:
        raise ValueError("shares lie between 0 and 1, and sum to 1")
    return mix


def strategy_of(mix: Mapping[str, float], count: int) -> list[str]:
    """The strategy of each of `count` peers: whole numbers by largest remainder, in the order of the mix."""
    exact = [share * count for share in mix.values()]
    whole = [int(value + 1e-9) for value in exact]
    order = sorted(range(len(whole)), key=lambda i: (whole[i] - exact[i], i))
    for place in order[: count - sum(whole)]:
        whole[place] += 1
    return [name for name, number in zip(mix, whole, strict=True) for _ in range(number)]
