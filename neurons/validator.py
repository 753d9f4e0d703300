"""A validator: challenges every serving miner, verifies, scores, and sets weights.

    python neurons/validator.py --netuid 2 --wallet vali        (same as `touchstone validator ...`)

One round: plan a challenge for each miner from a fresh block hash and this validator's secret; ask all at once; verify
what came back with one prefill; fold the verdicts into the scores; set weights when the chain allows, and read back
what it holds. Everything is in the ledger before it counts, so a validator that is killed goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from neurons.axon import Publisher
from neurons.joining import Checking, Joined, join, ready_to_check
from neurons.metrics import ValidatorMetrics
from neurons.runtime import run, sleep_or_stop, together, until
from protocol import scoring
from protocol.audits import AuditRules, audit_floor, audit_rate
from protocol.inference import MECHANISM, Challenge, ChallengePolicy, Outcome, Pool, plan_challenge
from protocol.metagraph import EVIDENCE_ONLY, Metagraph
from protocol.payout import payable
from protocol.prompts import LENGTH_CLASSES
from template.chain import ChainError, Taken, WeightsOutcome
from template.client import Target
from template.evidence import EvidenceLedger, EvidenceService, keep_round
from template.ledger import Ledger
from template.limits import Limits, ReplayStore, StakePolicy
from template.ops import Ops, OpsServer
from template.rounds import Answer, Judged, ask_all, draw, judge_all, observations, organic_observations, record
from template.server import SynapseServer
from template.settings import TrainValidatorSettings, ValidatorSettings

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

IDLE_SECONDS = 3.0  # until the next look when there was nobody to ask
KEEP_ROUNDS = 1024  # rounds whose answers stay: about 9 KB an answer, 2.4 GB for 256 miners; scores stay for ever


def start(settings: ValidatorSettings) -> int:
    """Run until SIGTERM or SIGINT; the exit status."""
    return run(lambda stop: validate(settings, stop), level=settings.log_level)


async def validate(settings: ValidatorSettings, stop: asyncio.Event) -> None:
    """The validator's life. Raises TemplateError when it cannot start."""
    async with contextlib.AsyncExitStack() as stack:
        joined = await join(settings, "validator", stop, stack)
        ops = Ops(joined.watch.health)
        checking = await ready_to_check(settings, joined, stop, stack)
        ledger = stack.enter_context(Ledger(settings.state_dir / "ledger.sqlite"))
        ops_server = await stack.enter_async_context(
            OpsServer(ops, host=settings.metrics_host, port=settings.metrics_port)
        )
        log.info("/health and /metrics on http://%s:%d", settings.metrics_host, ops_server.port)
        metrics, block_seconds = ValidatorMetrics(ops.registry), await until(stop, joined.chain.block_seconds())
        validator = Validator(settings, joined, checking, ledger, metrics, block_seconds)
        checks = [joined.committed.check]
        if settings.port is not None:
            server = await stack.enter_async_context(evidence_server(settings, joined, ledger, ops))
            log.info("serving evidence on %s:%d", settings.host, server.port)
            checks.append(_publisher(settings, joined, server).check)

        async def refreshed(graph: Metagraph) -> None:
            for check in checks:
                await check(graph)

        await together(joined.watch.run(stop, refreshed), validator.run(stop))


def evidence_server(
    settings: ValidatorSettings | TrainValidatorSettings, joined: Joined, ledger: EvidenceLedger, ops: Ops
) -> SynapseServer:
    """Serves evidence to validators with a permit, at a pace that leaves the ledger to this validator's own rounds."""
    limits = Limits(concurrency=4, queue=16, concurrency_per_hotkey=4, rate_per_hotkey=2.0, burst_per_hotkey=20)
    server = SynapseServer(
        joined.hotkey,
        policy=StakePolicy(lambda: joined.watch.metagraph),
        limits=limits,
        replay=ReplayStore(retention=limits.max_age + limits.allowed_skew, path=settings.state_dir / "evidence-nonces"),
        ops=ops,
        host=settings.host,
        port=settings.port or 0,
    )
    EvidenceService(ledger).attach_to(server)
    return server


def _publisher(settings: ValidatorSettings, joined: Joined, server: SynapseServer) -> Publisher:
    where = (server.port, settings.external_ip, settings.external_port)
    return Publisher(joined.chain, settings.netuid, joined.hotkey, *where, protocol=EVIDENCE_ONLY)


@dataclass
class Validator:
    """The loop and what it needs."""

    settings: ValidatorSettings
    joined: Joined
    checking: Checking
    ledger: Ledger
    metrics: ValidatorMetrics
    block_seconds: float = 12.0
    _said: str = field(default="", init=False)  # last weights sentence, so that the log does not repeat it

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            started = time.monotonic()
            try:
                asked = await until(stop, self.round())
            except ChainError as error:
                log.warning("no round: %s", error)
                asked = False
            pause = self.settings.round_seconds if asked else min(self.settings.round_seconds, IDLE_SECONDS)
            await sleep_or_stop(stop, pause - (time.monotonic() - started))

    async def round(self) -> bool:
        """One round; False when nobody could be asked. Raises ChainError when the chain cannot be read."""
        graph = await self.joined.watch.update()
        me = graph.by_hotkey.get(self.joined.hotkey.ss58)
        if me is None or not me.validator_permit:
            self._say_once(f"block {graph.block}: no validator permit, so miners would refuse: waiting for an epoch")
            return False
        last = await asyncio.to_thread(self.ledger.last_round, MECHANISM)
        number = 0 if last is None else last + 1
        plan = await asyncio.to_thread(self.plan, graph, number)
        if not plan and number == 0:  # later rounds go on without answers: whoever earned and left has to lose weight
            self._say_once(f"block {graph.block}: nobody serves an axon on subnet {graph.netuid} yet")
            return False
        started = time.monotonic()
        answers = await ask_all(
            self.checking.client, plan, deadline=self.settings.deadline, concurrency=self.settings.concurrency
        )
        pools = await asyncio.to_thread(self.pools, answers)
        rates = await asyncio.to_thread(self.rates, graph, number)
        chosen = draw(answers, self.checking.secret, rates)
        judged = await judge_all(self.checking.verifier, self.checking.calibration, answers, pools, chosen)
        states = await asyncio.to_thread(self.keep, graph, number, answers, judged)
        self.metrics.round(graph, answers, judged, states, time.monotonic() - started)
        self.tell(graph, number, answers, judged)
        if self.settings.set_weights:
            await self.weights(graph, scoring.weights(states, number))
        return True

    def plan(self, graph: Metagraph, number: int) -> dict[Target, Challenge]:
        """A challenge for every neuron that serves an axon, recorded before it is sent. Blocking.

        Everybody who serves is asked, permit or not: a miner that earns holds stake and so may be given a permit.
        """
        shortest, longest = sorted((self.settings.min_tokens, self.settings.max_tokens))
        policy = ChallengePolicy(
            max_tokens=tuple(range(shortest, longest + 1)),
            length_classes=LENGTH_CLASSES if self.settings.prompts == "mixed" else (self.settings.prompts,),
        )
        plan = {}
        for neuron in graph.neurons:
            if not neuron.serves_work or neuron.hotkey == self.joined.hotkey.ss58:
                continue
            challenge = plan_challenge(
                block_hash=graph.block_hash,
                secret=self.checking.secret,
                validator=self.joined.hotkey.ss58,
                miner=neuron.hotkey,
                round=number,
                model=self.checking.loaded.identity,
                tokenize=self.checking.loaded.tokenize,
                policy=policy,
            )
            self.ledger.record_challenge(challenge, time.time())
            plan[Target.of(neuron)] = challenge
        return plan

    def rates(self, graph: Metagraph, number: int) -> dict[str, float]:
        """The share of each hotkey's answers to audit. Blocking."""
        rules = AuditRules(least=self.settings.audit_floor)
        states = self.ledger.scores(MECHANISM)
        # A round's worth of what the chain paid in the last tempo; the same unit as collateral, alpha-rao.
        rounds_per_tempo = max(1.0, graph.tempo * self.block_seconds / self.settings.round_seconds)
        return {
            neuron.hotkey: audit_rate(
                states.get(neuron.hotkey),
                number,
                audit_floor(neuron.emission / rounds_per_tempo, neuron.collateral, rules),
                rules,
            )
            for neuron in graph.neurons
        }

    def pools(self, answers: list[Answer]) -> dict[str, Pool]:
        """The pooled margins of everybody who answered. Blocking."""
        identity = self.checking.loaded.identity
        hotkeys = [answer.challenge.miner for answer in answers if answer.reply is not None]
        return {hotkey: self.ledger.pool(identity.root, identity.dtype, hotkey) for hotkey in hotkeys}

    def keep(
        self, graph: Metagraph, number: int, answers: list[Answer], judged: Judged
    ) -> dict[str, scoring.ScoreState]:
        """Record the round and fold it into the scores. Blocking."""
        record(self.ledger, answers, judged)
        keep_round(self.ledger, self.joined.hotkey, answers, judged, self.checking.calibration)
        before = self.ledger.scores(MECHANISM)
        seen = [*observations(answers, judged), *organic_observations(self.ledger.take_organic(number), before)]
        states = scoring.fold_round(before, seen, number, silent=scoring.absent(graph, before))
        identity = self.checking.loaded.identity
        pools = {(identity.root, identity.dtype, hotkey): pool for hotkey, pool in judged.pools.items()}
        self.ledger.commit_round(MECHANISM, number, states, seen, pools)
        if number % 256 == 0:
            self.ledger.prune(number - KEEP_ROUNDS)
        return states

    async def weights(self, graph: Metagraph, earned: dict[str, float]) -> None:
        """Set weights when due; a chain that is away is no reason to stop, the next round tries again."""
        try:
            me = graph.by_hotkey[self.joined.hotkey.ss58]
            held = await self.joined.chain.weights_of(self.settings.netuid, me.uid, mechanism=MECHANISM)
            shares = payable(earned, present=graph.by_hotkey, owner=graph.owner_hotkey, holds_weights=bool(held))
            outcome = await self.joined.chain.set_weights(
                self.settings.netuid,
                self.joined.hotkey,
                shares,
                mechanism=MECHANISM,
                version_key=self.settings.version_key,
            )
        except ChainError as error:
            log.warning("weights not set: %s", error)
            return
        self.metrics.weights(outcome)
        self._say_weights(outcome)

    def _say_once(self, sentence: str) -> None:
        """Log what keeps a round from starting, but not every time: the words after the block are what counts."""
        if sentence.partition(": ")[2] != self._said:
            log.info("%s", sentence)
        self._said = sentence.partition(": ")[2]

    def _say_weights(self, outcome: WeightsOutcome) -> None:
        if outcome.ok:
            shares = ", ".join(f"uid {uid} {share:.3f}" for uid, share in sorted(outcome.asked.items()))
            log.info("weights set: %s (%s)", shares, outcome.detail)
        elif outcome.taken in (Taken.REFUSED, Taken.NOT_TAKEN):
            log.error("weights did not take: %s", outcome.detail)
        elif outcome.taken is not Taken.NOT_DUE and outcome.detail != self._said:
            log.info("no weights set: %s", outcome.detail)
        self._said = outcome.detail

    def tell(self, graph: Metagraph, number: int, answers: list[Answer], judged: Judged) -> None:
        """One line for the round, and one for each answer that was not accepted."""
        counts: Counter[str] = Counter()
        for answer in answers:
            hotkey = answer.challenge.miner
            uid = graph.by_hotkey[hotkey].uid
            verdict = judged.verdicts.get(hotkey)
            if hotkey in judged.unaudited:
                counts["not audited"] += 1
            elif verdict is None:
                counts["no answer"] += 1
                log.info("uid %d: no usable answer: %s", uid, answer.failure)
            else:
                counts[str(verdict.outcome)] += 1
                if verdict.outcome is not Outcome.ACCEPT:
                    log.info("uid %d: %s, %s: %s", uid, verdict.outcome, verdict.reason, verdict.detail)
        told = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
        log.info("round %d at block %d: asked %d: %s", number, graph.block, len(answers), told)


if __name__ == "__main__":
    from neurons.cli import run_command

    run_command("validator")
