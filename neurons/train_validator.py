"""A validator of mechanism 1: fetches what miners promised, scores it, audits some, votes, and sets weights.

    python neurons/train_validator.py --netuid 2 --wallet vali        (same as `touchstone train validator ...`)

One window: when the commit phase has closed, read who promised what, and fetch it while miners reveal; then judge
forms, measure by how much each contribution lowers the loss, train some windows again, keep what is to be accepted
where others find it, and commit a vote for each; keep evidence of the verdicts; when voting has closed, compute the
next model as everybody does. The record goes on chain with the next vote. Verdicts and ratings are in the ledger before
weights are drawn from them.

No miner may make this validator late: what is not there when its time is over is absent.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from neurons import train_evidence
from neurons.joining import join
from neurons.runtime import run, together, until
from neurons.train_evidence import Case, Keeper, Opening
from neurons.training import Training, by_the_clock, join_training
from protocol.audits import AuditRules, audit_floor, audit_rate
from protocol.errors import MalformedMessage, RefusalCode
from protocol.payout import payable
from protocol.training import statement as statements
from protocol.training.copies import compared_chunks
from protocol.training.judged import Judged, Task, blind, going_on, task_of, to_audit
from protocol.training.judging import (
    Due,
    Forms,
    Opened,
    Reason,
    Shown,
    Verdict,
    among_alike,
    judge_forms,
    read_opened,
)
from protocol.training.opening import TRAIN_OPEN, AskOpen, OpenAnswer
from protocol.training.payload import Contribution, encoded_size
from protocol.training.ratings import LossScore, TrainState, fold_window, weights
from protocol.training.statement import Statement
from protocol.training.votes import WORD_PREFIX, Word
from protocol.training.windows import Phase, Tick
from protocol.verdicts import Outcome
from template.artifacts.errors import ArtifactError, ArtifactTooLarge
from template.client import SynapseClient, Target
from template.errors import CallFailed
from template.exchange import Reply
from template.settings import TrainValidatorSettings
from template.state import read_secret

if TYPE_CHECKING:
    from template.training.chain_view import Promised
    from template.training.evaluation import ScoredBatches
    from template.training.following import Settled
    from template.training.ledger import TrainLedger

log = logging.getLogger(__name__)

MECHANISM = 1
FETCHES = 32  # artifacts of miners under way
STORED_AT_ONCE = 8  # artifacts on their way into the own bucket
FETCH_SHARE = 0.3  # of the score phase, for what was not there when it began
OPEN_SECONDS = 60.0  # for a miner to open its buffers
LEAST_PATIENCE = 2.0  # seconds, or LEAST_SHARE of the score phase where that is less; with less no miner is asked
LEAST_SHARE = 0.05
OPENED_AT_ONCE = 8  # miners whose buffers are in memory, 8 bytes a parameter each
NO_TIME = Verdict(Outcome.INCONCLUSIVE, Reason.UNCHECKED, "no time for the audit")
VOTE_BLOCKS = 4  # left for the vote to be committed


def start(settings: TrainValidatorSettings) -> int:
    """Run until SIGTERM or SIGINT; the exit status."""
    return run(lambda stop: validate(settings, stop), level=settings.log_level)


async def validate(settings: TrainValidatorSettings, stop: asyncio.Event) -> None:
    """The validator's life. Raises TemplateError when it cannot start."""
    from template.training.ledger import TrainLedger

    async with AsyncExitStack() as stack:
        joined = await join(settings, "train-validator", stop, stack)
        training = await join_training(settings, joined, stop, stack)
        ledger = stack.enter_context(TrainLedger(training.folder / "ledger.sqlite"))
        client = await stack.enter_async_context(SynapseClient(joined.hotkey, allow_local=joined.chain.is_local))
        secret = read_secret(settings.state_dir / "secret")
        genesis = (await until(stop, joined.chain.block_hash(0))).removeprefix("0x")
        keeper = Keeper(training, ledger, genesis, settings.evidence_bytes)
        validator = TrainValidator(settings, training, ledger, client, secret, keeper)
        check = await train_evidence.serve(settings, training, ledger, stack) if settings.port is not None else None
        await together(joined.watch.run(stop, check), validator.run(stop))


@dataclass
class WindowWork:
    """What a validator has of one window. `shown` grows while miners reveal; `under_way`: what is being fetched;
    `cases`: what its verdicts stand on, until evidence of them is kept."""

    window: int
    due: Mapping[str, Promised]
    shown: dict[str, Shown] = field(default_factory=dict)
    under_way: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    judged: Judged | None = None
    voted: bool = False
    cases: dict[str, Case] = field(default_factory=dict)

    def give_up(self) -> None:
        for task in self.under_way.values():
            task.cancel()
        self.under_way.clear()


@dataclass
class TrainValidator:
    """The loop and what it needs."""

    settings: TrainValidatorSettings
    training: Training
    ledger: TrainLedger
    client: SynapseClient
    secret: bytes
    keeper: Keeper
    _work: WindowWork | None = field(default=None, init=False)
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(FETCHES), init=False)

    async def run(self, stop: asyncio.Event) -> None:
        try:
            poll = self.settings.chain_poll
            await by_the_clock(self.training, poll, stop, lambda now: until(stop, self.step(now)))
        finally:
            if self._work is not None:
                self._work.give_up()
            await self.keeper.stop()

    async def step(self, now: Tick) -> None:
        """Whatever is due in this phase and not done yet. Raises ChainError and TemplateError."""
        newest = await self.training.follower.follow(now, self.close)
        if not newest or now.phase not in (Phase.REVEAL, Phase.SCORE):
            return
        if self._work is None or self._work.window != now.window:
            if self._work is not None:
                self._work.give_up()
            due = await self.training.follower.view.due(now.window)
            log.info("window %d: %d promised a contribution", now.window, len(due))
            self._work = WindowWork(now.window, due)
        work = self._work
        if work.judged is None:
            scoring = now.phase is Phase.SCORE
            longest = FETCH_SHARE * await self.seconds_left(now) if scoring else self.settings.chain_poll
            await self.fetch(work, max(1.0, longest))
        if now.phase is Phase.SCORE:
            work.give_up()
            if work.judged is None:
                work.judged = await self.judge(work, now)
            if not work.voted:
                await self.vote(work)
                work.voted = True
            if work.cases:
                await self.keeper.begin(work.window, work.cases)
                work.cases = {}

    async def fetch(self, work: WindowWork, longest: float) -> None:
        """Get what miners have revealed, for `longest` seconds at most. What has failed is asked for again by the next
        call; what is slow goes on meanwhile and keeps nobody waiting."""
        for hotkey, promised in work.due.items():
            task = work.under_way.get(hotkey)
            if hotkey not in work.shown and (task is None or task.done()):
                work.under_way[hotkey] = asyncio.create_task(self._fetch_one(work, hotkey, promised))
        pending = [task for task in work.under_way.values() if not task.done()]
        if pending:
            await asyncio.wait(pending, timeout=longest)

    async def _fetch_one(self, work: WindowWork, hotkey: str, promised: Promised) -> None:
        most = encoded_size(self.training.follower.layout.size)
        try:
            async with self._room:
                said = await self._get(promised.statement, promised, statements.MAX_BYTES)
        except ArtifactError as error:
            log.debug("%s: %s", hotkey, error)
            return
        try:
            payload = Statement.parse(said).payload
            async with self._room:
                shown = await self._get(payload, promised, most)
        except (MalformedMessage, ArtifactTooLarge):  # it is shown, and will be rejected for it
            shown = b""
        except ArtifactError as error:
            log.debug("%s: %s", hotkey, error)
            return
        work.shown[hotkey] = Shown(said, shown)

    async def judge(self, work: WindowWork, now: Tick) -> Judged:
        """Verdicts and scores of everything that was shown."""
        training, view, window = self.training, self.training.follower.view, work.window
        follower, recipe = training.follower, training.recipe
        states = await asyncio.to_thread(self.ledger.states)
        known = {hotkey for hotkey, state in states.items() if state.contributed}
        unseeing = blind(work.shown, work.due, follower.shared.root, known)
        if unseeing:
            log.warning("window %d: no verdicts: %s", window, unseeing)
            return Judged({}, blind=unseeing)
        assigned, revealed = await view.seed(window, Phase.ASSIGN), await view.seed(window, Phase.REVEAL)
        earlier = await follower.recent_statements(going_on(work.shown))
        due_of = {
            hotkey: Due(window, follower.shared.root, follower.layout.size, recipe, earlier.get(hotkey))
            for hotkey in work.shown
        }
        chunks = compared_chunks(revealed, follower.layout.size)
        forms = await asyncio.to_thread(judge_forms, due_of, work.shown, chunks)
        tokens = training.dataset.tokens_of()
        tasks = {hotkey: task_of(assigned, revealed, hotkey, tokens, recipe) for hotkey in forms.contributions}
        await training.dataset.fetch({shard for task in tasks.values() for shard in task.shards})
        await training.dataset.fetch([0], "validation")
        scores, loss = await asyncio.to_thread(self._scores, forms, tasks)
        helping = [hotkey for hotkey in forms.contributions if scores[hotkey].helps]
        audited, openings, unopened = await self.audits(work, now, forms, helping, tasks, due_of)
        verdicts = {**forms.verdicts, **audited}
        work.cases = {h: self._case(work, h, due_of[h], verdicts[h], openings.get(h), forms) for h in verdicts}
        repeated = {h for h, verdict in audited.items() if verdict.reason is not Reason.UNCHECKED}
        return Judged(verdicts, scores, frozenset(repeated), unopened, loss)

    async def audits(
        self,
        work: WindowWork,
        now: Tick,
        forms: Forms,
        helping: Sequence[str],
        tasks: Mapping[str, Task],
        due_of: Mapping[str, Due],
    ) -> tuple[dict[str, Verdict], dict[str, Opening], frozenset[str]]:
        """Train again what the draw says, and everybody who is alike, of what would be accepted: (verdicts, what was
        opened, who did not open).

        Whoever has to be audited and is not for lack of time is inconclusive. Whoever was drawn from a trusted hotkey's
        windows and is not, is as if it had not been drawn.
        """
        chosen = await self._drawn(work.window, forms, helping)
        until = time.monotonic() + await self.seconds_left(now)  # asked once: what is judged so far is not lost with it
        phase = self.training.recipe.clock.score * await self.training.joined.chain.block_seconds()
        least = min(LEAST_PATIENCE, LEAST_SHARE * phase)
        verdicts: dict[str, Verdict] = {}
        found: dict[str, Opening] = {}
        unopened: set[str] = set()
        longest, order = 0.0, list(chosen)
        for first in range(0, len(order), OPENED_AT_ONCE):  # buffers are large: few are in memory at a time
            group = order[first : first + OPENED_AT_ONCE]
            patience = min(OPEN_SECONDS, (until - time.monotonic()) / 2)
            if patience < least:  # whose fault that is is this validator's
                verdicts |= {hotkey: NO_TIME for hotkey in group if chosen[hotkey]}
                continue
            openings = await asyncio.gather(
                *(self._opened(work, hotkey, forms.statements[hotkey], patience) for hotkey in group)
            )
            for hotkey, opening in zip(group, openings, strict=True):
                if opening is None:
                    unopened.add(hotkey)
                    continue
                started = time.monotonic()
                if until - started <= longest:
                    verdicts |= {hotkey: NO_TIME} if chosen[hotkey] else {}
                    continue
                verdict = await self._audited(hotkey, forms, tasks[hotkey], due_of[hotkey], opening)
                verdicts[hotkey] = verdict
                rejected = verdict.outcome is Outcome.REJECT
                found[hotkey] = opening if rejected else replace(opening, before=b"", after=b"")
                longest = max(longest, time.monotonic() - started)
        return verdicts, found, frozenset(unopened)

    async def _audited(self, hotkey: str, forms: Forms, task: Task, due: Due, opening: Opening) -> Verdict:
        opened = read_opened(due.size, opening.before, opening.after)
        if isinstance(opened, Verdict):
            return opened
        said, contribution = forms.statements[hotkey], forms.contributions[hotkey]
        verdict = await asyncio.to_thread(self._audit, task, due, said, contribution, opened)
        return among_alike(verdict, forms.alike.get(hotkey, ()))

    async def _drawn(self, window: int, forms: Forms, helping: Sequence[str]) -> dict[str, bool]:
        """Whom to audit, in the order to do it: {hotkey: whether it may not pass without}."""
        seed = await self.training.follower.view.seed(window, Phase.SCORE)
        states = await asyncio.to_thread(self.ledger.states)
        return to_audit(self.secret, seed, forms, helping, lambda h: self.rate(states.get(h), h, window))

    def _case(
        self, work: WindowWork, hotkey: str, due: Due, verdict: Verdict, opening: Opening | None, forms: Forms
    ) -> Case:
        """What the evidence of a verdict is made of."""
        other = forms.alike[hotkey][0] if verdict.reason is Reason.COPY else None
        like = (other, work.due[other], work.shown[other]) if other else None
        return Case(work.due[hotkey], work.shown[hotkey], due, verdict, opening, like)

    async def _opened(self, work: WindowWork, hotkey: str, said: Statement, patience: float) -> Opening | None:
        """The error buffers that a statement names, as they come; None when the miner does not open them in time."""
        neuron = self.training.joined.watch.metagraph.by_hotkey.get(hotkey)
        if neuron is None or not neuron.is_serving:
            return None
        bytes_each, promised = 4 * self.training.follower.layout.size, work.due[hotkey]

        async def opened() -> Opening:
            reply = await self._asked(Target.of(neuron), AskOpen(window=work.window), patience)
            try:
                before = await self._get(said.before, promised, bytes_each) if said.before else bytes(bytes_each)
                after = await self._get(said.after, promised, bytes_each)
            except ArtifactTooLarge:
                before = after = b""  # whatever they are, they are no buffers of this model
            return Opening(reply.exchange, before, after, empty=said.before is None)

        try:
            return await asyncio.wait_for(opened(), patience)
        except (CallFailed, ArtifactError, asyncio.TimeoutError) as error:
            log.info("%s did not open window %d: %s", hotkey, work.window, str(error) or "not in time")
            return None

    async def _asked(self, target: Target, asked: AskOpen, patience: float) -> Reply[OpenAnswer]:
        """A miner that is busy is asked again: others may have taken all its places. Raises CallFailed."""
        while True:
            try:
                return await self.client.call(target, TRAIN_OPEN, asked, deadline=patience)
            except CallFailed as error:
                refusal = error.failure.refusal
                if refusal is None or refusal.code not in (RefusalCode.BUSY, RefusalCode.RATE_LIMITED):
                    raise
                await asyncio.sleep(min(max(refusal.retry_after or 0.0, 0.2), patience))

    def rate(self, state: TrainState | None, hotkey: str, window: int) -> float:
        """The share of a hotkey's windows to train again."""
        graph = self.training.joined.watch.metagraph
        neuron = graph.by_hotkey.get(hotkey)
        if neuron is None:
            return 1.0
        rules = AuditRules(least=self.settings.audit_floor)
        windows_per_tempo = max(1.0, graph.tempo / self.training.recipe.clock.schedule.length)
        return audit_rate(
            state, window, audit_floor(neuron.emission / windows_per_tempo, neuron.collateral, rules), rules
        )

    async def seconds_left(self, now: Tick) -> float:
        """Until the vote has to be committed."""
        chain = self.training.joined.chain
        return (now.until - VOTE_BLOCKS - await chain.block()) * await chain.block_seconds()

    async def vote(self, work: WindowWork) -> None:
        """Keep what is accepted where everybody finds it, then say so, with the record of the window before."""
        judged = work.judged
        assert judged is not None
        chosen = {hotkey: promised for hotkey, promised in work.due.items() if judged.accepts(hotkey)}
        shown = [work.shown[hotkey] for hotkey in chosen]
        await self._store([data for one in shown for data in (one.payload, one.statement)])
        uids = frozenset(promised.uid for promised in chosen.values())
        word = Word(work.window, uids, self.training.follower.shared.record)
        await self.training.say((WORD_PREFIX, word.encode()))
        for hotkey in sorted(work.due):
            verdict, score = judged.verdicts.get(hotkey), judged.scores.get(hotkey)
            told = f"{verdict.outcome}, {verdict.reason}: {verdict.detail}" if verdict else "not audited"
            gain = f"helps {score.assigned:+.4f} / {score.unassigned:+.4f}" if score else "not scored"
            log.info("window %d: %s: %s; %s", work.window, hotkey, gain, told)
        log.info("window %d: %d shown, voted for %d", work.window, len(work.shown), len(chosen))

    async def close(self, settled: Settled) -> None:
        """Keep what the next model was made of where others find it, fold, go on from it, and pay. Everything before
        the step is done again when it is cut off."""
        window, said = settled.record.window, [one.encode() for one in settled.statements.values()]
        kept = [settled.checkpoint] if settled.checkpoint is not None else []
        await self._store([*settled.payloads.values(), *said, *kept])
        await self._store([settled.record.encode()])  # last: who finds it finds the rest
        await asyncio.to_thread(self._fold, settled)
        await self.training.follower.adopt(settled)
        log.info("window %d: %d entered, model %s", window, len(settled.statements), settled.record.root[:16])
        if self.settings.set_weights:
            await self.weights(window)

    async def weights(self, window: int) -> None:
        """Set weights when due; a chain that is away is no reason to stop, the next window tries again."""
        joined = self.training.joined
        graph = await joined.watch.update()
        me = graph.by_hotkey.get(joined.hotkey.ss58)
        if me is None:
            return
        held = await joined.chain.weights_of(graph.netuid, me.uid, mechanism=MECHANISM)
        earned = weights(await asyncio.to_thread(self.ledger.states), window + 1)
        shares = payable(earned, present=graph.by_hotkey, owner=graph.owner_hotkey, holds_weights=bool(held))
        outcome = await joined.chain.set_weights(
            graph.netuid, joined.hotkey, shares, mechanism=MECHANISM, version_key=self.settings.version_key
        )
        log.info("window %d: weights: %s", window, outcome.detail)

    # Blocking

    def _scores(self, forms: Forms, tasks: Mapping[str, Task]) -> tuple[dict[str, LossScore], float]:
        from template.training.evaluation import ScoredBatches, loss_scores, validation_loss

        training = self.training
        length, dataset = training.recipe.tasks.length, training.dataset
        base = training.follower.shared.vector

        def batches_of(hotkey: str) -> ScoredBatches:
            task = tasks[hotkey]
            return ScoredBatches(
                [dataset.batch(task.work.batch(step), length) for step in task.scored],
                [dataset.batch(places, length) for places in task.unassigned],
            )

        scores = loss_scores(training.trainer, base, forms.contributions, batches_of, training.recipe)
        loss = validation_loss(training.trainer, base, dataset, training.recipe)
        return scores, loss

    def _audit(self, task: Task, due: Due, said: Statement, contribution: Contribution, opened: Opened) -> Verdict:
        from template.training.evaluation import audit

        training = self.training

        def batches(step: int) -> npt.NDArray[np.int64]:
            return training.dataset.batch(task.work.batch(step), training.recipe.tasks.length)

        try:
            return audit(training.trainer, training.follower.shared.vector, batches, due, said, contribution, opened)
        except FloatingPointError as error:
            return Verdict(Outcome.REJECT, Reason.REPLAY, f"the training has no result: {error}")

    def _fold(self, settled: Settled) -> None:
        from template.training.ledger import VerdictRow, WindowRow

        window, work, last = settled.record.window, self._work, self.ledger.last_window()
        if last is not None and last >= window:  # folded before, and what follows was cut off
            return
        judged = work.judged if work is not None and work.window == window else None
        row = WindowRow(window, settled.record.root, judged.loss if judged else None, len(settled.statements))
        if work is None or judged is None:  # it was away: nothing is known of this window but its result
            self.ledger.commit(row, {}, [])
            return
        before = self.ledger.states()
        seen = [judged.seen(hotkey) for hotkey in work.due]
        states = fold_window(before, seen, window, silent=before.keys() - work.due.keys())
        rows = []
        for one in seen:
            verdict, score = judged.verdicts.get(one.hotkey), judged.scores.get(one.hotkey)
            rows.append(
                VerdictRow(
                    one.hotkey,
                    one.outcome.value if one.outcome else None,
                    verdict.reason.value if verdict else None,
                    verdict.detail if verdict else "",
                    _finite(score.assigned) if score else None,
                    _finite(score.unassigned) if score else None,
                    one.audited,
                    one.hotkey in settled.statements,
                )
            )
        self.ledger.commit(row, states, rows)

    async def _store(self, artifacts: Sequence[bytes]) -> None:
        """Put artifacts into the own bucket, some at a time. Raises ArtifactError."""
        room = asyncio.Semaphore(STORED_AT_ONCE)

        async def put(data: bytes) -> None:
            async with room:
                await self.training.peers.own.put_bytes(data)

        await asyncio.gather(*(put(data) for data in artifacts))

    async def _get(self, cid: str, promised: Promised, most: int) -> bytes:
        return await self.training.peers.fetch(cid, [promised.location], most)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    from neurons.cli import run_command

    run_command("train", "validator")
