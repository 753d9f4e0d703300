"""What a validator counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from protocol.metagraph import Metagraph
from protocol.scoring import ScoreState
from template.chain import WeightsOutcome
from template.rounds import Answer, Judged


class ValidatorMetrics:
    """Labels are bounded: outcomes, reasons, codes, and the hotkeys of one subnet."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._verdicts = Counter("touchstone_verdicts", "Verdicts given.", ["outcome", "reason"], registry=registry)
        self._failures = Counter("touchstone_failures", "Challenges not answered.", ["code"], registry=registry)
        self._weights = Counter("touchstone_weights", "Attempts to set weights.", ["taken"], registry=registry)
        self._rounds = Histogram(
            "touchstone_round_seconds",
            "From the first request to the scores.",
            buckets=(1, 2, 5, 10, 20, 30, 60, 120),
            registry=registry,
        )
        self._score = Gauge("touchstone_score", "Score by hotkey.", ["hotkey"], registry=registry)
        self._speed = Gauge("touchstone_tokens_per_s", "Newest speed by hotkey.", ["hotkey"], registry=registry)
        self._shown: set[str] = set()
        self._block = Gauge("touchstone_block", "Block of the newest round.", registry=registry)

    def round(
        self,
        graph: Metagraph,
        answers: Sequence[Answer],
        judged: Judged,
        states: Mapping[str, ScoreState],
        seconds: float,
    ) -> None:
        self._rounds.observe(seconds)
        self._block.set(graph.block)
        for answer in answers:
            if answer.failure is not None:
                self._failures.labels(answer.failure.code.value).inc()
            if answer.tokens_per_s is not None:
                self._speed.labels(answer.challenge.miner).set(answer.tokens_per_s)
        for verdict in judged.verdicts.values():
            self._verdicts.labels(verdict.outcome.value, verdict.reason.value).inc()
        for hotkey, state in states.items():
            if hotkey in graph.by_hotkey:
                self._score.labels(hotkey).set(state.score)
        here = graph.by_hotkey.keys() & {*states, *(answer.challenge.miner for answer in answers)}
        for hotkey in self._shown - here:  # whoever left takes the figures along; labels would grow for ever
            for gauge in (self._score, self._speed):
                gauge.remove(hotkey)
        self._shown = here

    def weights(self, outcome: WeightsOutcome) -> None:
        self._weights.labels(outcome.taken.value).inc()
