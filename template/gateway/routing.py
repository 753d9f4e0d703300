"""Which miner is asked next: a pure rule, and the figures it looks at.

    board = Board()
    board.update(graph, states, round, own_hotkey)      # who serves, what the validator's scores say
    board.order(now, exclude)                           # best first; empty when everybody is busy, cooling down or away
    with board.working(target, now) as work: work.first_token(seconds)

`order` is the rule: miners in a cool-down (the validator's after a reject, ours after a failure) are left out, and so
are those whose share of our requests is taken; when any miner has a score, those without one are asked last. The rest
follow by worth over expected wait: score (before there is one: incentive, and a little for everybody) divided by the
recent time to a first token, times the requests that wait there already.

Figures are kept by hotkey and forgotten: a latency counts for `FRESH_S`, so that a miner who was slow once is tried
again, and whoever left the subnet is dropped at the next update.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from protocol.metagraph import Metagraph
from protocol.scoring import ScoreState
from template.exchange import Target

FRESH_S = 120.0  # a latency is news for this long
SMOOTHING = 0.3  # share of the newest latency in a miner's average
USUAL_S = 1.0  # expected wait where nothing is known of anybody
SHORTEST_S = 0.02  # waits below this are not told apart
COOL_S = 10.0  # after the first failure in a row; doubles with each further one ...
COOL_LIMIT_S = 60.0  # ... up to this: after an outage that hit every miner, users wait no longer than that
STRANGER = 1e-3  # worth of a miner without score and incentive: asked, after everybody else
HEDGE_QUANTILE = 0.95  # of recent latencies: about one request in twenty is asked twice
HEDGE_LEAST_S, HEDGE_MOST_S, HEDGE_FIRST_S = 0.25, 10.0, 2.0  # bounds, and the delay while nothing is known
REJECTED_S = 600.0  # without requests after a reject, until the validator's own cool-down is read
REMEMBERED = 128  # latencies the hedge delay is drawn from


@dataclass(frozen=True)
class Standing:
    """What the rule sees of one miner. Times in seconds."""

    target: Target
    worth: float  # of its work so far, >= 0; 0: never verified
    waiting: int  # requests of ours in its hands
    latency: float | None  # recent time to a first token; None: not known
    cooling: float  # seconds that are left of a cool-down; 0: none


def order(miners: Sequence[Standing], per_miner: int) -> list[Target]:
    """Whom to ask, best first. `per_miner`: requests one miner may have of us at a time."""
    known = sorted(miner.latency for miner in miners if miner.latency is not None)
    usual = known[len(known) // 2] if known else USUAL_S
    able = [miner for miner in miners if not miner.cooling and miner.waiting < per_miner]

    def preference(miner: Standing) -> float:
        wait = max(SHORTEST_S, usual if miner.latency is None else miner.latency) * (1 + miner.waiting)
        return max(miner.worth, STRANGER) / wait

    ranked = sorted(able, key=lambda miner: (miner.worth > 0.0, preference(miner), miner.target.hotkey), reverse=True)
    return [miner.target for miner in ranked]


def hedge_delay(latencies: Sequence[float]) -> float:
    """Seconds without a first token after which a second miner is asked."""
    if not latencies:
        return HEDGE_FIRST_S
    ordered = sorted(latencies)
    slow = ordered[min(len(ordered) - 1, int(HEDGE_QUANTILE * len(ordered)))]
    return min(max(slow, HEDGE_LEAST_S), HEDGE_MOST_S)


def worths(graph: Metagraph, states: Mapping[str, ScoreState]) -> dict[str, float]:
    """Worth of every hotkey: the validator's scores, or the chain's incentive while it has none."""
    if any(state.score > 0.0 for state in states.values()):
        return {hotkey: state.score for hotkey, state in states.items()}
    return {neuron.hotkey: neuron.incentive for neuron in graph.neurons}


@dataclass
class _Figures:
    """What we saw of one hotkey."""

    waiting: int = 0
    latency: float = 0.0
    seen_at: float = float("-inf")
    failures: int = 0  # in a row, those of requests in work at the same time counted once
    failed_at: float = float("-inf")
    cool_until: float = float("-inf")


@dataclass
class Work:
    """One request in one miner's hands; say how it went. Times in seconds of the board's clock."""

    board: Board
    figures: _Figures
    started: float

    def first_token(self, now: float) -> None:
        self._latency(now - self.started)

    def slow(self, now: float) -> None:
        """Given up while waiting for its first token: it would have taken longer than this."""
        self._latency(now - self.started)

    def succeeded(self) -> None:
        self.figures.failures = 0

    def failed(self, now: float, retry_after: float | None = None) -> None:
        """`retry_after`: the miner said when; else the pause grows with each failure in a row.

        A request that began before the last failure says nothing new: a moment's overload fails many at once.
        """
        figures = self.figures
        if self.started > figures.failed_at:
            figures.failures += 1
            figures.failed_at = now
        pause = min(COOL_LIMIT_S, COOL_S * 2 ** min(figures.failures - 1, 10))
        if retry_after is not None:
            pause = min(max(retry_after, 0.1), COOL_LIMIT_S)
        figures.cool_until = max(figures.cool_until, now + pause)

    def _latency(self, seconds: float) -> None:
        figures = self.figures
        fresh = self.started + seconds - figures.seen_at < FRESH_S
        figures.latency = figures.latency + SMOOTHING * (seconds - figures.latency) if fresh else seconds
        figures.seen_at = self.started + seconds
        self.board.latencies.append(seconds)


@dataclass
class Board:
    """The newest figures about everybody who serves. Not thread-safe: belongs to the event loop."""

    per_miner: int = 3
    round: int = 0  # the validator's round under way
    block_hash: str = "0x" + "00" * 32
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    _targets: dict[str, Target] = field(default_factory=dict)
    _worth: dict[str, float] = field(default_factory=dict)
    _barred: frozenset[str] = frozenset()
    _figures: dict[str, _Figures] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def update(self, graph: Metagraph, states: Mapping[str, ScoreState], round: int, own_hotkey: str) -> None:
        """A new metagraph and the validator's scores as of `round`."""
        serving = [n for n in graph.neurons if n.serves_work and n.hotkey != own_hotkey]
        self.round, self.block_hash = round, graph.block_hash
        self._targets = {neuron.hotkey: Target.of(neuron) for neuron in serving}
        self._worth = worths(graph, states)
        self._barred = frozenset(hotkey for hotkey, state in states.items() if round < state.cooldown_until)
        # Figures of requests in work go on to be written; whoever comes back starts anew.
        self._figures = {k: v for k, v in self._figures.items() if k in self._targets}

    @property
    def serving(self) -> int:
        """Miners with an address that are not in the validator's cool-down."""
        return len(self._targets.keys() - self._barred)

    def standings(self, now: float, exclude: Collection[str] = ()) -> list[Standing]:
        found = []
        for hotkey, target in self._targets.items():
            if hotkey in self._barred or hotkey in exclude:
                continue
            figures = self._figures.get(hotkey, _NOTHING)
            latency = figures.latency if now - figures.seen_at < FRESH_S else None
            worth = self._worth.get(hotkey, 0.0)
            found.append(Standing(target, worth, figures.waiting, latency, max(0.0, figures.cool_until - now)))
        return found

    def order(self, now: float, exclude: Collection[str] = ()) -> list[Target]:
        return order(self.standings(now, exclude), self.per_miner)

    def hedge_delay(self) -> float:
        return hedge_delay(self.latencies)

    @contextlib.contextmanager
    def working(self, target: Target, now: float) -> Iterator[Work]:
        """Counts a request to `target` while it lasts."""
        figures = self._figures.setdefault(target.hotkey, _Figures())
        figures.waiting += 1
        try:
            yield Work(self, figures, now)
        finally:
            figures.waiting -= 1
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def changed(self, timeout: float) -> None:
        """Wait until some miner has finished a request, at most `timeout` seconds."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout)

    def rejected(self, hotkey: str, now: float) -> None:
        """The verifier rejected an answer of this miner."""
        figures = self._figures.setdefault(hotkey, _Figures())
        figures.cool_until = max(figures.cool_until, now + REJECTED_S)


_NOTHING = _Figures()
