"""What contributions are worth: loss scores, ratings by hotkey, and the weights drawn from them.

    LossScore(assigned, unassigned)          how much a contribution alone lowered the loss on two kinds of data
    score.helps                              whether it may enter the next model
    fold_window(states, observations, n)     states after window n
    weights(states, n)                       positive, summing to 1

Whoever follows the recipe has no choice that would make its work better than that of others who do, so honest work
differs by luck alone, and luck must not be paid. What helps at least half as much (`par`) as the window's median is a
draw; less is ranked by how much it helps on unassigned data, below. The ranks feed a rating (OpenSkill, Bradley and
Terry's model over all pairs: Weng and Lin, JMLR 12, 2011), at tables of `table` hotkeys that a hash draws anew for each
window, because the size of one step grows with the number of pairs. Measured with twelve equal miners whose gains vary
by 0.3 of their mean: after five windows the worst paid of them has 0.7 of the mean and after twenty 0.9; ranked one by
one with Plackett and Luce's model a quarter of them had nothing then, and the worst had 0.1 after twenty.

Two running averages that start at zero multiply the rating:

    effort     of +1 when a contribution helped more on the data it was assigned than on other data, and -1 when not.
               Work on the assigned data does; copies and work on other data do so half of the time, worth little
    presence   how often a contribution that was due came in time and helped

A reject (a wrong form, a copy, a replay that gives something else) takes everything away and starts a cool-down that
doubles with each repetition. Not opening the buffers to an audit takes presence away. Inconclusive counts for nothing.
Whoever is not seen in a window loses presence: absence never pays. Everything is keyed by hotkey.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from openskill.models import BradleyTerryFull

from protocol.verdicts import Outcome

MU, SIGMA = 25.0, 25.0 / 3.0  # a new hotkey's rating; its ordinal, mu - 3 sigma, is 0


@dataclass(frozen=True)
class RatingRules:
    """Constants of the rating rule; a change makes validators disagree until all have it."""

    alpha: float = 0.2  # weight of the newest window in presence
    effort_alpha: float = 0.1  # and in effort: chance alone moves it by 0.23 (one standard deviation)
    par: float = 0.5  # of the window's median gain: from there on contributions are worth the same
    table: int = 8  # hotkeys that are compared with each other
    paid: int = 256  # hotkeys that are paid at most; a subnet has no more, and equal work has no best
    sharpness: float = 1.0  # weight ~ value ** sharpness
    cooldown_windows: int = 8  # after the first reject; doubles with every further one ...
    cooldown_limit: int = 1024  # ... up to this


@dataclass(frozen=True)
class LossScore:
    """By how much the shared model's loss falls when this contribution alone is applied, at the length that
    aggregation.measured_factor says, in nats a token."""

    assigned: float  # on batches of the miner's own, drawn after its commitment
    unassigned: float  # on batches from shards it was not given

    @property
    def helps(self) -> bool:
        """Neither a number that is none nor one that is not positive enters the model."""
        return 0.0 < self.assigned < math.inf and 0.0 < self.unassigned < math.inf


@dataclass(frozen=True)
class WindowSeen:
    """One hotkey in one window. `outcome` None: no contribution in time. `score`: of a contribution that was scored;
    whoever was not rejected and has none was not scored. `audited`: its training was replayed. `unopened`: it did not
    open its buffers to an audit."""

    hotkey: str
    outcome: Outcome | None
    score: LossScore | None = None
    audited: bool = False
    unopened: bool = False


@dataclass(frozen=True)
class TrainState:
    """Everything remembered about one hotkey of mechanism 1."""

    hotkey: str
    mu: float = MU
    sigma: float = SIGMA
    effort: float = 0.0
    presence: float = 0.0
    rejects: int = 0
    cooldown_until: int = 0  # first window in which it may earn again
    last_window: int = -1
    audits: int = 0  # replays that agreed since the last reject
    contributed: int = 0  # windows with a contribution that helped
    last_answered: int = -1  # window of the last contribution that helped

    @property
    def value(self) -> float:
        return max(0.0, self.mu - 3.0 * self.sigma) * max(0.0, self.effort) * self.presence


def fold_window(
    states: Mapping[str, TrainState],
    seen: Sequence[WindowSeen],
    window: int,
    rules: RatingRules | None = None,
    silent: Iterable[str] = (),
) -> dict[str, TrainState]:
    """States after `window`. `silent`: hotkeys with a state of which nothing was seen. Raises ValueError when a hotkey
    is seen twice, or the window was folded before."""
    rules = rules or RatingRules()
    all_seen = [*seen, *(WindowSeen(hotkey, None) for hotkey in silent)]
    if len({one.hotkey for one in all_seen}) != len(all_seen):
        raise ValueError("a hotkey is seen once in a window")
    result = dict(states)
    ratings = _rated(
        {one.hotkey: states.get(one.hotkey, TrainState(one.hotkey)) for one in all_seen}, all_seen, window, rules
    )
    for one in all_seen:
        before = states.get(one.hotkey, TrainState(one.hotkey))
        if before.last_window >= window:
            raise ValueError(f"window {window} of {one.hotkey} was folded before (last: {before.last_window})")
        mu, sigma = ratings.get(one.hotkey, (before.mu, before.sigma))
        result[one.hotkey] = _fold(replace(before, mu=mu, sigma=sigma, last_window=window), one, window, rules)
    return result


def weights(states: Mapping[str, TrainState], window: int, rules: RatingRules | None = None) -> dict[str, float]:
    """Weight of each hotkey as of `window`; empty when nobody has earned. Ties go to the first in order of hotkeys."""
    rules = rules or RatingRules()
    raw = {
        hotkey: state.value**rules.sharpness
        for hotkey, state in states.items()
        if state.value > 0.0 and window >= state.cooldown_until
    }
    paid = sorted(raw, key=lambda hotkey: (-raw[hotkey], hotkey))[: rules.paid]
    total = math.fsum(raw[hotkey] for hotkey in paid)
    return {hotkey: raw[hotkey] / total for hotkey in paid} if total > 0.0 else {}


def _fold(before: TrainState, seen: WindowSeen, window: int, rules: RatingRules) -> TrainState:
    if seen.outcome is Outcome.REJECT:
        rejects = before.rejects + 1
        pause = min(rules.cooldown_limit, rules.cooldown_windows * 2 ** min(rejects - 1, 30))
        fresh = TrainState(before.hotkey, last_window=window, contributed=before.contributed)
        return replace(fresh, rejects=rejects, cooldown_until=max(before.cooldown_until, window + 1 + pause))
    if seen.outcome is Outcome.INCONCLUSIVE:
        return before
    if seen.unopened:  # refusing must not be cheaper than being found out: presence grows again under full audits
        return replace(before, presence=0.0, audits=0)
    helped = seen.score is not None and seen.score.helps
    if seen.outcome is not None and seen.score is None:  # in form, and not scored in this window
        return before
    more = seen.score is not None and seen.score.assigned > seen.score.unassigned
    effort = before.effort if seen.score is None else _toward(before.effort, 1.0 if more else -1.0, rules.effort_alpha)
    after = replace(before, effort=effort, presence=_toward(before.presence, float(helped), rules.alpha))
    if helped:
        after = replace(after, contributed=before.contributed + 1, last_answered=window)
    return replace(after, audits=before.audits + 1) if seen.audited else after


def _toward(average: float, newest: float, alpha: float) -> float:
    return (1.0 - alpha) * average + alpha * newest


def _rated(
    states: Mapping[str, TrainState], seen: Sequence[WindowSeen], window: int, rules: RatingRules
) -> dict[str, tuple[float, float]]:
    """(mu, sigma) of everybody who was scored, from the ranks of this window. One alone has no rank."""
    gains = {
        one.hotkey: one.score.unassigned if math.isfinite(one.score.unassigned) else -math.inf
        for one in seen
        if one.score is not None
        and one.outcome is Outcome.ACCEPT
        and not one.unopened  # a rating is not bought with what nobody may check
        and window >= states[one.hotkey].cooldown_until
    }
    helped = [gain for gain in gains.values() if gain > 0.0]
    par = rules.par * statistics.median(helped) if helped else 0.0
    model = BradleyTerryFull(mu=MU, sigma=SIGMA)
    found: dict[str, tuple[float, float]] = {}
    for table in tables(gains, window, rules.table):
        places = [_place(gains[hotkey], par) for hotkey in table]
        order = sorted(set(places))
        teams = [[model.create_rating([states[hotkey].mu, states[hotkey].sigma])] for hotkey in table]
        rated = model.rate(teams, ranks=[order.index(place) for place in places])
        found |= {hotkey: (team[0].mu, team[0].sigma) for hotkey, team in zip(table, rated, strict=True)}
    return found


def _place(gain: float, par: float) -> float:
    """Smaller is better: all that is at par is one place, and all that does not help is the last."""
    return math.inf if gain <= 0.0 else -min(gain, par)


def tables(hotkeys: Iterable[str], window: int, size: int) -> list[list[str]]:
    """Who is compared with whom: tables of about equal size, of at most `size` hotkeys and at least two."""
    order = sorted(hotkeys, key=lambda hotkey: hashlib.sha256(f"{window}/{hotkey}".encode()).digest())
    count = -(-len(order) // size)
    return [order[number::count] for number in range(count)] if len(order) > 1 else []
