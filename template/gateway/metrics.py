"""What a gateway counts, for Prometheus. Labels are bounded: paths, statuses, outcomes."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from protocol.verdicts import Verdict
from template.gateway.dispatch import Result


class GatewayMetrics:
    """One for a gateway."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["path", "status"]
        self._requests = Counter("touchstone_gateway_requests", "Requests by status.", labels, registry=registry)
        self._seconds = Histogram("touchstone_gateway_seconds", "Time to answer.", ["path"], registry=registry)
        self._first = Histogram("touchstone_gateway_first_token_seconds", "Of answers, by miner.", registry=registry)
        self._tokens = Counter("touchstone_gateway_tokens", "Prompt and answer tokens.", registry=registry)
        self._audits = Counter("touchstone_gateway_audits", "Verdicts on answers.", ["outcome"], registry=registry)
        self._answers = Counter("touchstone_gateway_answers", "By how they were checked.", ["how"], registry=registry)
        self.in_work = Gauge("touchstone_gateway_in_work", "Requests in work or waiting.", registry=registry)
        self.hedges = Gauge("touchstone_gateway_hedges", "Requests sent to a second miner.", registry=registry)

    def request(self, path: str, status: int, started: float) -> None:
        """`started` is perf_counter."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(time.perf_counter() - started)

    def answered(self, result: Result, tokens: int) -> None:
        if result.answer.first_token_s is not None:
            self._first.observe(result.answer.first_token_s)
        self._tokens.inc(tokens)
        self._answers.labels("verified" if result.verdict else "drawn" if result.drawn else "unaudited").inc()

    def broken(self) -> None:
        """A stream that ended with an error after its first token; its status was 200."""
        self._answers.labels("broken").inc()

    def verdict(self, verdict: Verdict) -> None:
        self._audits.labels(verdict.outcome.value).inc()
