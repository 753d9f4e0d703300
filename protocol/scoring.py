"""What verdicts and service are worth: scores by hotkey, and the weights drawn from them.

Once per round `fold_round` turns what was observed into new states. An accepted answer earns its *service quality*:
speed and time to first token as the validator measured them, relative to the best accepted answer of the same kind in
the same round, so that the validator's own hardware cancels out. An answer whose form is right and that was not drawn
for an audit (protocol/audits.py) earns the same. No usable answer earns 0 and so pulls the average down. A reject sets
the score to zero and starts a cool-down that doubles with each repetition; nothing is earned in it. Inconclusive counts
for nothing, and a hotkey nobody asked keeps its state: absence never improves a score.

`weights` is the last step before the chain: positive scores outside a cool-down, sharpened, summing to 1.
Everything is keyed by hotkey. A new hotkey starts at zero and has to earn, so leaving and coming back gains nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from protocol.metagraph import Metagraph
from protocol.verdicts import Outcome


@dataclass(frozen=True)
class ScoreRules:
    """Constants of the scoring rule; a change makes validators disagree until all have it."""

    alpha: float = 0.2  # weight of the newest round in the exponential average: half-life of about 3 rounds
    speed_share: float = 0.75  # of quality that is tokens per second; the rest is time to first token
    sharpness: float = 2.0  # weight ~ score ** sharpness: half the speed is worth a quarter
    cooldown_rounds: int = 8  # after the first reject; doubles with every further one ...
    cooldown_limit: int = 1024  # ... up to this
    forgive_rounds: int = 256  # accepted rounds in a row after which one reject is forgotten
    zero_below: float = 1e-6  # scores below this are treated as zero


@dataclass(frozen=True)
class Observation:
    """One challenge to one hotkey. `outcome` None: asked and not answered usably in time (silent, late, busy, garbage),
    unless `unaudited` says that the answer was fine in form and not drawn for an audit.

    Times are the validator's own, from sending the request. `tokens_per_s` is all answer tokens over the time to the
    closing frame: the time after the first token alone could be bought by holding tokens back and sending them at once.
    Both are needed only for an answer that may earn; without them it earns nothing.
    """

    hotkey: str
    kind: str
    outcome: Outcome | None
    first_token_s: float | None = None
    tokens_per_s: float | None = None
    unaudited: bool = False

    @property
    def may_earn(self) -> bool:
        return self.outcome is Outcome.ACCEPT or (self.outcome is None and self.unaudited)

    @property
    def failed(self) -> bool:
        return self.outcome is None and not self.unaudited

    @property
    def service(self) -> tuple[float, float] | None:
        """(seconds to the first token, tokens per second) of an answer that may earn, both finite; else None."""
        if not self.may_earn or self.first_token_s is None or self.tokens_per_s is None:
            return None
        sound = 0.0 < self.first_token_s < float("inf") and 0.0 < self.tokens_per_s < float("inf")
        return (self.first_token_s, self.tokens_per_s) if sound else None


@dataclass(frozen=True)
class ScoreState:
    """Everything remembered about one hotkey. Counts are of challenges, `clean` of accepted rounds in a row."""

    hotkey: str
    score: float = 0.0
    rejects: int = 0  # strikes that count towards the next cool-down
    cooldown_until: int = 0  # first round in which it may earn again
    clean: int = 0
    accepted: int = 0
    rejected: int = 0
    failed: int = 0
    inconclusive: int = 0
    last_round: int = -1
    audits: int = 0  # accepted since the last reject
    unaudited: int = 0
    last_answered: int = -1  # round of the last answer that was not rejected


def absent(graph: Metagraph, states: Mapping[str, ScoreState]) -> list[str]:
    """Hotkeys that offer no address for work and should: `silent` of `fold_round`.

    The owner and whoever may validate need not serve; but a score is for serving, so nobody keeps one without.
    """
    return [
        neuron.hotkey
        for neuron in graph.neurons
        if not neuron.serves_work
        and (
            not (neuron.validator_permit or neuron.hotkey == graph.owner_hotkey)
            or states.get(neuron.hotkey, ScoreState(neuron.hotkey)).score > 0.0
        )
    ]


def qualities(
    observations: Sequence[Observation], rules: ScoreRules, barred: Collection[str] = frozenset()
) -> list[float]:
    """Service quality in [0, 1] of each observation: 1 for the best answer of its kind, 0 for one that may not earn.

    Accepted answers set the mark, others only where nothing of the kind was accepted: an answer that was not checked
    must not be able to push honest miners down by being fast. `barred` hotkeys (in a cool-down, or rejected in this
    round) earn nothing and set no mark either.
    """
    fastest: dict[str, float] = defaultdict(float)
    soonest: dict[str, float] = defaultdict(lambda: float("inf"))
    services = [seen.service if seen.hotkey not in barred else None for seen in observations]
    checked = {
        seen.kind
        for seen, service in zip(observations, services, strict=True)
        if service and seen.outcome is Outcome.ACCEPT
    }
    for seen, service in zip(observations, services, strict=True):
        if service and (seen.outcome is Outcome.ACCEPT or seen.kind not in checked):
            soonest[seen.kind] = min(soonest[seen.kind], service[0])
            fastest[seen.kind] = max(fastest[seen.kind], service[1])
    values = []
    for seen, service in zip(observations, services, strict=True):
        if service is None:
            values.append(0.0)
            continue
        promptness, speed = min(1.0, soonest[seen.kind] / service[0]), min(1.0, service[1] / fastest[seen.kind])
        values.append(rules.speed_share * speed + (1.0 - rules.speed_share) * promptness)
    return values


def fold_round(
    states: Mapping[str, ScoreState],
    observations: Sequence[Observation],
    round: int,
    rules: ScoreRules | None = None,
    silent: Iterable[str] = (),
) -> dict[str, ScoreState]:
    """States after `round`. `silent`: hotkeys that should serve but offer no address; each counts as one failure.

    A hotkey that appears in neither keeps its state. Folding one round twice is refused with ValueError.
    """
    rules = rules or ScoreRules()
    barred = {seen.hotkey for seen in observations if seen.outcome is Outcome.REJECT}
    barred |= {hotkey for hotkey, state in states.items() if round < state.cooldown_until}
    by_hotkey: dict[str, list[tuple[Observation, float]]] = defaultdict(list)
    for seen, quality in zip(observations, qualities(observations, rules, barred), strict=True):
        by_hotkey[seen.hotkey].append((seen, quality))
    for hotkey in silent:
        if hotkey not in by_hotkey:
            by_hotkey[hotkey].append((Observation(hotkey, "", None), 0.0))
    result = dict(states)
    for hotkey, seen_here in by_hotkey.items():
        before = result.get(hotkey, ScoreState(hotkey))
        if before.last_round >= round:
            raise ValueError(f"round {round} of {hotkey} was folded before (last: {before.last_round})")
        result[hotkey] = _fold_hotkey(before, seen_here, round, rules)
    return result


def _fold_hotkey(
    before: ScoreState, seen: Sequence[tuple[Observation, float]], round: int, rules: ScoreRules
) -> ScoreState:
    def count(outcome: Outcome) -> int:
        return sum(observation.outcome is outcome for observation, _ in seen)

    accepted, rejected = count(Outcome.ACCEPT), count(Outcome.REJECT)
    failed = sum(observation.failed for observation, _ in seen)
    unaudited = sum(observation.unaudited for observation, _ in seen)
    after = replace(
        before,
        accepted=before.accepted + accepted,
        rejected=before.rejected + rejected,
        failed=before.failed + failed,
        inconclusive=before.inconclusive + count(Outcome.INCONCLUSIVE),
        last_round=round,
        audits=before.audits + accepted,
        unaudited=before.unaudited + unaudited,
        last_answered=round if accepted or unaudited else before.last_answered,
    )
    if rejected:
        rejects = before.rejects + 1
        pause = min(rules.cooldown_limit, rules.cooldown_rounds * 2 ** min(rejects - 1, 30))
        until = max(before.cooldown_until, round + 1 + pause)
        return replace(after, score=0.0, rejects=rejects, cooldown_until=until, clean=0, audits=0)
    if not accepted and not failed and not unaudited:  # only inconclusive: as if it had not been asked, but it is
        return replace(after, audits=0)  # audited in full from now on, so that what cannot be checked does not pay
    if round < before.cooldown_until:
        return after
    # Failures enter with quality 0: the mean over all conclusive answers is success rate times quality of successes.
    earned = sum(quality for observation, quality in seen if observation.may_earn) / (accepted + unaudited + failed)
    score = (1.0 - rules.alpha) * before.score + rules.alpha * earned
    clean = before.clean + 1 if not failed else 0
    if before.rejects and clean >= rules.forgive_rounds:
        return replace(after, score=score, rejects=before.rejects - 1, clean=0)
    return replace(after, score=score, clean=clean)


def weights(states: Mapping[str, ScoreState], round: int, rules: ScoreRules | None = None) -> dict[str, float]:
    """Weight of each hotkey as of `round`; sums to 1, holds only positive ones; empty when nobody has earned."""
    rules = rules or ScoreRules()
    raw = {
        hotkey: state.score**rules.sharpness
        for hotkey, state in states.items()
        if state.score > rules.zero_below and round >= state.cooldown_until
    }
    total = sum(raw.values())
    return {hotkey: value / total for hotkey, value in raw.items()} if total > 0.0 else {}
