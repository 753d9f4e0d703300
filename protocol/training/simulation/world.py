"""Windows, one after another: peers act, validators judge, the model moves, the chain pays.

    result = simulate(model, setting, np.random.default_rng(0))       -> Result
    best = honest_drops(model, setting, rng)                           what the loss would do if every peer were honest

Each validator has its own secret, so its own draw of audits, and its own states. What it does in a window is what
neurons/train_validator.py does: of the contributions that help it trains again those that are alike and those that are
drawn; it votes for what helps and was not rejected; it folds what it saw, and its weights follow. Scores are the same
for all validators, because the batches that they are measured on come from a block hash. Every window ends an epoch of
the chain: what peers earn is the incentive of protocol/consensus.py. A friendly validator votes and pays for its
friends whatever they show, and audits them never.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from protocol.audits import audit_floor, audit_rate, drawn
from protocol.payout import payable
from protocol.training.judged import Judged
from protocol.training.judging import Reason, Verdict
from protocol.training.ratings import LossScore, TrainState, fold_window, weights
from protocol.training.simulation.chain import incentive_of
from protocol.training.simulation.loss import LossModel
from protocol.training.simulation.peers import STRATEGIES, Act, Known, What
from protocol.training.simulation.setting import Account, Result, Setting, Validator
from protocol.training.votes import accepted
from protocol.verdicts import Outcome

OWNER = "owner"
FRIENDS = "friend"  # the strategy whose peers a friendly validator votes for
AGREES = Verdict(Outcome.ACCEPT, Reason.OK)
DIFFERS = Verdict(Outcome.REJECT, Reason.REPLAY)
COPIED = Verdict(Outcome.REJECT, Reason.COPY)


@dataclass
class _Seat:
    """A validator at work. `secret`: of its draws."""

    plan: Validator
    secret: bytes
    states: dict[str, TrainState] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Window:
    """What is the same for everybody in a window: by peer, what it did and what that does to the loss."""

    number: int
    acts: Sequence[Act]
    source: Sequence[int]  # whose work a peer shows; its own number when its own
    scores: Mapping[str, LossScore]  # of those that showed something, by hotkey
    alike: frozenset[int]
    digests: Mapping[int, bytes]  # stand for what a peer has signed


def simulate(
    model: LossModel, setting: Setting, rng: np.random.Generator, told: Callable[[int, float], None] | None = None
) -> Result:
    """`told`: called with every window and its loss."""
    world = _World(model, setting, rng)
    losses, drops = [model.start if setting.hold is None else setting.hold], []
    for number in range(setting.windows):
        if told is not None:
            told(number, losses[-1])
        drops.append(world.step(number, losses[-1]))
        losses.append(losses[-1] - (drops[-1] if setting.hold is None else 0.0))
    return Result(world.accounts, losses, drops, world.burned, [seat.states for seat in world.seats])


def honest_drops(model: LossModel, setting: Setting, rng: np.random.Generator) -> list[float]:
    """`Result.drops` if every peer did all its steps in every window."""
    loss, count, drops = model.start if setting.hold is None else setting.hold, len(setting.strategies), []
    for _ in range(setting.windows):
        assigned, unassigned = model.scores(loss, np.ones(count), np.arange(count), rng)
        helps = int(((assigned > 0.0) & (unassigned > 0.0)).sum())
        drops.append(model.drop(loss, np.ones(helps)))
        loss -= drops[-1] if setting.hold is None else 0.0
    return drops


class _World:
    def __init__(self, model: LossModel, setting: Setting, rng: np.random.Generator) -> None:
        self.model, self.setting, self.rng = model, setting, rng
        self.accounts = [Account(strategy) for strategy in setting.strategies]
        self.seats = [_Seat(plan, rng.bytes(32)) for plan in setting.validators]
        self.total = sum(plan.stake for plan in setting.validators)
        self.hotkeys = [f"peer-{peer}.0" for peer in range(len(self.accounts))]
        self.peer_of = {hotkey: peer for peer, hotkey in enumerate(self.hotkeys)}
        self.income = dict.fromkeys(self.hotkeys, 0.0)  # of the window before
        self.burned = 0.0
        seen: Counter[str] = Counter()
        self.places: list[int] = []
        self.by_place: dict[tuple[str, int], int] = {}
        for peer, strategy in enumerate(setting.strategies):
            self.by_place[strategy, seen[strategy]] = peer
            self.places.append(seen[strategy])
            seen[strategy] += 1

    def step(self, number: int, loss: float) -> float:
        """One window; by how much its step lowers the loss."""
        window = self._shown(number, loss)
        judged = [self._judge(seat, window) for seat in self.seats]
        votes = {
            str(place): (seat.plan.stake, self._votes(seat, window, one))
            for place, (seat, one) in enumerate(zip(self.seats, judged, strict=True))
        }
        entered = sorted(self.peer_of[hotkey] for hotkey in accepted(votes, self.total))
        for seat, one in zip(self.seats, judged, strict=True):
            seen = [one.seen(hotkey) for hotkey in window.scores]
            silent = seat.states.keys() - window.scores.keys()
            seat.states = fold_window(seat.states, seen, number, self.setting.ratings, silent=silent)
        self._count(window, judged, entered)
        self._pay(number)
        self._return(number + 1)
        shares = [window.acts[window.source[peer]].share for peer in entered]
        return self.model.drop(loss, np.array(shares))

    def _shown(self, number: int, loss: float) -> _Window:
        acts = [self._act(number, peer, draw) for peer, draw in enumerate(self.rng.random(len(self.accounts)))]
        workers = [peer for peer, act in enumerate(acts) if act.what is What.WORK]
        source = list(range(len(acts)))
        for peer, act in enumerate(acts):
            if act.what is not What.COPY:
                continue
            found = None
            if act.source is not None:
                found = self.by_place.get((self.accounts[peer].strategy, act.source))
            elif workers:
                found = workers[int(self.rng.integers(len(workers)))]
            if found is None or acts[found].what is not What.WORK:
                acts[peer] = Act(What.AWAY)  # there is nothing to show
            else:
                source[peer] = found
        shown = [peer for peer, act in enumerate(acts) if act.what is not What.AWAY]
        shares = np.array([act.share for act in acts])
        assigned, unassigned = self.model.scores(loss, shares, np.array(source), self.rng)
        scores = {self.hotkeys[peer]: LossScore(float(assigned[peer]), float(unassigned[peer])) for peer in shown}
        copies = {peer for peer in shown if source[peer] != peer}
        digests = {peer: hashlib.sha256(f"{number}|{self.hotkeys[peer]}".encode()).digest() for peer in shown}
        return _Window(number, acts, source, scores, frozenset(copies | {source[peer] for peer in copies}), digests)

    def _act(self, number: int, peer: int, draw: float) -> Act:
        hotkey = self.hotkeys[peer]
        states = [seat.states.get(hotkey) for seat in self.seats]
        known = Known(
            window=number,
            place=self.places[peer],
            audits=min(0 if state is None else state.audits for state in states),
            trusted_from=self.setting.audits.trusted_after,
            barred=self._barred(number, hotkey),
        )
        return STRATEGIES[self.accounts[peer].strategy].act(known, draw)

    def _judge(self, seat: _Seat, window: _Window) -> Judged:
        """What a validator makes of what was shown. A friendly one audits everybody but its friends."""
        verdicts = {}
        for hotkey, score in window.scores.items():
            peer = self.peer_of[hotkey]
            spared = seat.plan.friendly and self.accounts[peer].strategy == FRIENDS
            if score.helps and not spared and self._is_drawn(seat, window, peer):
                true = window.source[peer] == peer and window.acts[peer].share == 1.0
                verdicts[hotkey] = AGREES if true else COPIED if peer in window.alike else DIFFERS
        return Judged(verdicts, window.scores, frozenset(verdicts))

    def _is_drawn(self, seat: _Seat, window: _Window, peer: int) -> bool:
        rate = 1.0
        if peer not in window.alike:
            hotkey, rules = self.hotkeys[peer], self.setting.audits
            floor = audit_floor(self.income[hotkey], self.setting.collateral, rules)
            rate = audit_rate(seat.states.get(hotkey), window.number, floor, rules)
        return drawn(seat.secret, window.digests[peer], rate)

    def _votes(self, seat: _Seat, window: _Window, judged: Judged) -> list[str]:
        return [
            hotkey
            for hotkey in window.scores
            if judged.accepts(hotkey)
            or (seat.plan.friendly and self.accounts[self.peer_of[hotkey]].strategy == FRIENDS)
        ]

    def _count(self, window: _Window, judged: Sequence[Judged], entered: Sequence[int]) -> None:
        for peer, act in enumerate(window.acts):
            self.accounts[peer].work += act.share
        for hotkey, score in window.scores.items():
            account = self.accounts[self.peer_of[hotkey]]
            verdicts = [one.verdicts[hotkey] for one in judged if hotkey in one.verdicts]
            account.shown += 1
            account.helped += score.helps
            account.replayed += len(verdicts)
            account.rejected += any(verdict.outcome is Outcome.REJECT for verdict in verdicts)
        for peer in entered:
            self.accounts[peer].entered += 1

    def _pay(self, number: int) -> None:
        """What the chain pays for this window: uids are the owner, the validators, the peers."""
        names = [OWNER, *(f"validator-{place}" for place in range(len(self.seats))), *self.hotkeys]
        uid_of = {name: uid for uid, name in enumerate(names)}
        rows = {}
        for uid, seat in enumerate(self.seats, 1):
            earned = weights(seat.states, number + 1, self.setting.ratings)
            if seat.plan.friendly:
                earned = self._for_friends() or earned
            share = payable(earned, present=uid_of, owner=OWNER, holds_weights=bool(seat.weights))
            seat.weights = share or seat.weights
            rows[uid] = {uid_of[name]: weight for name, weight in seat.weights.items() if name in uid_of}
        incentive = incentive_of([seat.plan.stake for seat in self.seats], rows, len(names))
        for hotkey in self.hotkeys:
            self.income[hotkey] = self.setting.emission * incentive[uid_of[hotkey]]
            self.accounts[self.peer_of[hotkey]].earned += self.income[hotkey]
        self.burned += self.setting.emission * max(0.0, 1.0 - sum(incentive[1 + len(self.seats) :]))

    def _for_friends(self) -> dict[str, float]:
        friends = [self.hotkeys[peer] for peer, one in enumerate(self.accounts) if one.strategy == FRIENDS]
        return {hotkey: 1.0 / len(friends) for hotkey in friends}

    def _return(self, number: int) -> None:
        """Whoever is barred and does not wait comes back under another hotkey; the old one is gone."""
        for peer, account in enumerate(self.accounts):
            if not STRATEGIES[account.strategy].returns or not self._barred(number, self.hotkeys[peer]):
                continue
            old, new = self.hotkeys[peer], f"peer-{peer}.{account.hotkeys}"
            account.hotkeys += 1
            account.fees += self.setting.price
            self.hotkeys[peer], self.peer_of[new], self.income[new] = new, peer, 0.0
            del self.peer_of[old], self.income[old]
            for seat in self.seats:
                seat.states.pop(old, None)

    def _barred(self, number: int, hotkey: str) -> bool:
        """Whether half of the stake or more would pay it nothing, whatever it does."""
        stake = sum(
            seat.plan.stake
            for seat in self.seats
            if (state := seat.states.get(hotkey)) is not None and number < state.cooldown_until
        )
        return 2 * stake >= self.total
