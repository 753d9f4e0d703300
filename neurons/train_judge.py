"""How a validator of mechanism 1 judges a window: forms, then scores, then audits.

    judge = TrainJudge(settings, training, ledger, client, secret)
    judged = await judge.judge(work, now)         # verdicts and scores of everything that was shown

Whether a form is right needs no model. By how much a contribution lowers the loss is measured for all whose form is.
Of those that help, some open their buffers and are trained again: whom the draw says, and everybody who is alike.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from neurons.train_evidence import Case, Opening
from neurons.train_gathering import WindowWork
from neurons.training import Training
from protocol.audits import AuditRules, audit_floor, audit_rate
from protocol.errors import RefusalCode
from protocol.training.copies import compared_chunks
from protocol.training.judged import Judged, Task, blind, going_on, task_of, to_audit
from protocol.training.judging import Due, Forms, Opened, Reason, Verdict, among_alike, judge_forms, read_opened
from protocol.training.opening import TRAIN_OPEN, AskOpen, OpenAnswer
from protocol.training.payload import Contribution
from protocol.training.ratings import LossScore, TrainState
from protocol.training.statement import Statement
from protocol.training.windows import Phase, Tick
from protocol.verdicts import Outcome
from template.artifacts.errors import ArtifactError, ArtifactTooLarge
from template.client import SynapseClient, Target
from template.errors import CallFailed
from template.exchange import Reply
from template.settings import TrainValidatorSettings

if TYPE_CHECKING:
    from template.training.evaluation import ScoredBatches
    from template.training.ledger import TrainLedger

log = logging.getLogger(__name__)

OPEN_SECONDS = 60.0  # for a miner to open its buffers
LEAST_PATIENCE = 2.0  # seconds, or LEAST_SHARE of the score phase where that is less; with less no miner is asked
LEAST_SHARE = 0.05
OPENED_AT_ONCE = 8  # miners whose buffers are in memory, 8 bytes a parameter each
NO_TIME = Verdict(Outcome.INCONCLUSIVE, Reason.UNCHECKED, "no time for the audit")
VOTE_BLOCKS = 4  # left for the vote to be committed


@dataclass
class TrainJudge:
    """Judges contributions, and leaves in `WindowWork.cases` what the verdicts stand on. `secret`: of its draws."""

    settings: TrainValidatorSettings
    training: Training
    ledger: TrainLedger
    client: SynapseClient
    secret: bytes

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
        await training.joined.watch.update()  # a miner that has moved since is asked where it is now
        helping = [hotkey for hotkey in forms.contributions if scores[hotkey].helps]
        audited, openings, unopened = await self.audits(work, now, forms, helping, tasks, due_of)
        verdicts = {**forms.verdicts, **audited}
        work.cases = {h: _case(work, h, due_of[h], verdicts[h], openings.get(h), forms) for h in verdicts}
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

    async def _opened(self, work: WindowWork, hotkey: str, said: Statement, patience: float) -> Opening | None:
        """The error buffers that a statement names, as they come; None when the miner does not open them in time."""
        neuron = self.training.joined.watch.metagraph.by_hotkey.get(hotkey)
        if neuron is None or not neuron.is_serving:
            return None
        peers, where = self.training.peers, [work.due[hotkey].location]
        bytes_each = 4 * self.training.follower.layout.size

        async def opened() -> Opening:
            reply = await self._asked(Target.of(neuron), AskOpen(window=work.window), patience)
            try:
                before = await peers.fetch(said.before, where, bytes_each) if said.before else bytes(bytes_each)
                after = await peers.fetch(said.after, where, bytes_each)
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


def _case(work: WindowWork, hotkey: str, due: Due, verdict: Verdict, opening: Opening | None, forms: Forms) -> Case:
    """What the evidence of a verdict is made of."""
    other = forms.alike[hotkey][0] if verdict.reason is Reason.COPY else None
    like = (other, work.due[other], work.shown[other]) if other else None
    return Case(work.due[hotkey], work.shown[hotkey], due, verdict, opening, like)
