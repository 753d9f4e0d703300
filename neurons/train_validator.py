"""A validator of mechanism 1: fetches what miners promised, scores it, audits some, votes, and sets weights.

    python neurons/train_validator.py --netuid 2 --wallet vali        (same as `touchstone train validator ...`)

One window: when the commit phase has closed, read who promised what, and fetch it while miners reveal; then judge forms
and copies, measure by how much each contribution lowers the loss, train some windows again, and commit a vote for each
contribution that helps; when voting has closed, compute the next model as everybody does, keep what it was made of
where others find it, and commit its root. Verdicts and ratings are in the ledger before weights are drawn from them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from neurons.joining import join
from neurons.runtime import run, sleep_or_stop, together, until
from neurons.training import Training, join_training
from protocol.audits import AuditRules, audit_floor, audit_rate, drawn
from protocol.errors import MalformedMessage
from protocol.payout import payable
from protocol.training import statement as statements
from protocol.training.assignment import Place, Work, assign, scored_steps, unassigned
from protocol.training.copies import compared_chunks
from protocol.training.judging import Due, Forms, Opened, Reason, Shown, Verdict, judge_forms
from protocol.training.opening import TRAIN_OPEN, AskOpen
from protocol.training.payload import Contribution, encoded_size
from protocol.training.ratings import LossScore, TrainState, WindowSeen, fold_window, weights
from protocol.training.statement import Statement
from protocol.training.votes import ROOT_PREFIX, VOTES_PREFIX, RootCommitment, Votes
from protocol.training.windows import Phase, Tick
from protocol.verdicts import Outcome
from template.artifacts.errors import ArtifactError
from template.chain import ChainError
from template.client import SynapseClient, Target
from template.errors import CallFailed
from template.settings import TrainValidatorSettings
from template.state import read_secret

if TYPE_CHECKING:
    from template.training.chain_view import Promised
    from template.training.evaluation import ScoredBatches
    from template.training.following import Settled
    from template.training.ledger import TrainLedger

log = logging.getLogger(__name__)

MECHANISM = 1
FETCHES = 8  # artifacts of miners under way
OPEN_SECONDS = 60.0  # for a miner to open its buffers
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
        ledger = stack.enter_context(TrainLedger(settings.state_dir / "training" / "ledger.sqlite"))
        client = await stack.enter_async_context(SynapseClient(joined.hotkey, allow_local=joined.chain.is_local))
        secret = read_secret(settings.state_dir / "secret")
        validator = TrainValidator(settings, training, ledger, client, secret)
        await together(joined.watch.run(stop), validator.run(stop))


@dataclass
class WindowWork:
    """What a validator has of one window. `shown` grows while miners reveal."""

    window: int
    due: Mapping[str, Promised]
    shown: dict[str, Shown] = field(default_factory=dict)
    judged: Judged | None = None


@dataclass(frozen=True)
class MinerTask:
    """A miner's work of a window, which of its steps are scored, and the batches it was not given."""

    work: Work
    scored: tuple[int, ...]
    unassigned: tuple[tuple[Place, ...], ...]

    @property
    def shards(self) -> set[int]:
        return {*self.work.shards, *(shard for batch in self.unassigned for shard, _ in batch)}


@dataclass(frozen=True)
class Judged:
    """By hotkey. `audited`: those whose training was repeated; `unopened`: those who were asked and did not open."""

    verdicts: Mapping[str, Verdict]
    scores: Mapping[str, LossScore]
    audited: frozenset[str]
    unopened: frozenset[str]
    loss: float | None

    def accepts(self, hotkey: str) -> bool:
        verdict, score = self.verdicts.get(hotkey), self.scores.get(hotkey)
        fine = verdict is None or verdict.outcome is Outcome.ACCEPT
        return fine and hotkey not in self.unopened and score is not None and score.helps

    def seen(self, hotkey: str) -> WindowSeen:
        verdict, score = self.verdicts.get(hotkey), self.scores.get(hotkey)
        if hotkey in self.unopened or (verdict is None and score is None):
            return WindowSeen(hotkey, None)
        outcome = verdict.outcome if verdict else Outcome.ACCEPT
        return WindowSeen(hotkey, outcome, score, hotkey in self.audited)


@dataclass
class TrainValidator:
    """The loop and what it needs."""

    settings: TrainValidatorSettings
    training: Training
    ledger: TrainLedger
    client: SynapseClient
    secret: bytes
    _work: WindowWork | None = field(default=None, init=False)
    _confirmed: int = field(default=-1, init=False)  # window whose model was compared with the others'
    _told: str = field(default="", init=False)

    async def run(self, stop: asyncio.Event) -> None:
        from template.training.following import HistoryBroken, NoRoot

        while not stop.is_set():
            try:
                now = await until(stop, self.training.follower.view.now())
                if now is None:
                    self._say("the first window has not begun")
                else:
                    await until(stop, self.step(now))
            except (ChainError, ArtifactError, HistoryBroken, NoRoot) as error:
                log.warning("trying again: %s", error)
            await sleep_or_stop(stop, self.settings.chain_poll)

    async def step(self, now: Tick) -> None:
        """Whatever is due in this phase and not done yet. Raises ChainError and TemplateError."""
        if not await self.follow(now) or now.phase not in (Phase.REVEAL, Phase.SCORE):
            return
        if self._work is None or self._work.window != now.window:
            due = await self.training.follower.view.due(now.window)
            log.info("window %d: %d promised a contribution", now.window, len(due))
            self._work = WindowWork(now.window, due)
        work = self._work
        if work.judged is None:
            await self.fetch(work)
        if now.phase is Phase.SCORE and work.judged is None:
            work.judged = await self.judge(work, now)
            await self.vote(work)

    async def follow(self, now: Tick) -> bool:
        """Whether the shared model is the newest there can be; brings it there when it can."""
        follower = self.training.follower
        wanted = now.window + (now.phase is Phase.AGGREGATE)
        if follower.shared.window == wanted - 1:
            await self.close(await follower.settle())
        elif follower.shared.window < wanted:
            await follower.catch_up()
        elif self._confirmed < wanted and now.phase is Phase.TRAIN:
            await follower.confirm()
            self._confirmed = wanted
        if follower.shared.window != wanted:
            self._say(f"window {now.window}: the shared model is still that of window {follower.shared.window}")
        return follower.shared.window == wanted

    async def fetch(self, work: WindowWork) -> None:
        """Get what miners have revealed by now; what is not there yet is asked for again in the next step."""
        room = asyncio.Semaphore(FETCHES)
        size = self.training.follower.layout.size

        async def one(hotkey: str, promised: Promised) -> None:
            async with room:
                try:
                    said = await self._get(promised.statement, promised, statements.MAX_BYTES)
                    payload = Statement.parse(said).payload
                    shown = await self._get(payload, promised, encoded_size(size))
                except MalformedMessage:  # it is shown, and will be rejected for it
                    work.shown[hotkey] = Shown(said, b"", promised.block)
                except ArtifactError as error:
                    log.debug("%s: %s", hotkey, error)
                else:
                    work.shown[hotkey] = Shown(said, shown, promised.block)

        missing = [(hotkey, promised) for hotkey, promised in work.due.items() if hotkey not in work.shown]
        await asyncio.gather(*(one(hotkey, promised) for hotkey, promised in missing))

    async def judge(self, work: WindowWork, now: Tick) -> Judged:
        """Verdicts and scores of everything that was shown."""
        training, view, window = self.training, self.training.follower.view, work.window
        follower, recipe = training.follower, training.recipe
        assigned, revealed = await view.seed(window, Phase.ASSIGN), await view.seed(window, Phase.REVEAL)
        earlier = await self.earlier(work)
        due_of = {
            hotkey: Due(window, follower.shared.root, follower.layout.size, recipe, earlier.get(hotkey))
            for hotkey in work.shown
        }
        chunks = compared_chunks(revealed, follower.layout.size)
        forms = await asyncio.to_thread(judge_forms, due_of, work.shown, chunks, recipe.copy_from)
        tasks = {hotkey: self.task(assigned, revealed, hotkey) for hotkey in forms.contributions}
        await training.dataset.fetch({shard for task in tasks.values() for shard in task.shards})
        await training.dataset.fetch([0], "validation")
        scores, loss = await asyncio.to_thread(self._scores, forms, tasks)
        verdicts = dict(forms.verdicts)
        audited, unopened = await self.audits(work, now, forms, scores, tasks, due_of, verdicts)
        return Judged(verdicts, scores, audited, unopened, loss)

    async def earlier(self, work: WindowWork) -> dict[str, Statement]:
        """The last accepted statements of those who go on with a buffer; from the records when this validator has not
        seen them."""
        wanted = set()
        for hotkey, shown in work.shown.items():
            try:
                if Statement.parse(shown.statement).before is not None:
                    wanted.add(hotkey)
            except MalformedMessage:
                continue
        known = await asyncio.to_thread(self.ledger.statements, wanted)
        missing = wanted - known.keys()
        if missing:
            found = await self.training.follower.last_statements(missing)
            await asyncio.to_thread(self.ledger.remember, found)
            known |= found
        return known

    def task(self, assigned: bytes, revealed: bytes, hotkey: str) -> MinerTask:
        training = self.training
        plan, tokens, scored = training.recipe.tasks.plan, training.dataset.tokens_of(), training.recipe.scored
        work = assign(assigned, hotkey, tokens, plan)
        other = unassigned(revealed, hotkey, work, tokens, plan, scored.unassigned)
        return MinerTask(work, scored_steps(revealed, hotkey, plan, scored.assigned), other)

    async def audits(
        self,
        work: WindowWork,
        now: Tick,
        forms: Forms,
        scores: Mapping[str, LossScore],
        tasks: Mapping[str, MinerTask],
        due_of: Mapping[str, Due],
        verdicts: dict[str, Verdict],
    ) -> tuple[frozenset[str], frozenset[str]]:
        """Train again what the draw says, of what would be accepted; (audited, unopened). What there is no time for is
        inconclusive: it was drawn, and was not checked."""
        seed = await self.training.follower.view.seed(work.window, Phase.SCORE)
        states = await asyncio.to_thread(self.ledger.states)
        drawn_ones = sorted(
            (sha256(seed + forms.statements[hotkey].encode()).digest(), hotkey)
            for hotkey in forms.contributions
            if hotkey not in verdicts and scores[hotkey].helps
        )
        audited, unopened, longest = set(), set(), 0.0
        for digest, hotkey in drawn_ones:
            if not drawn(self.secret, digest, self.rate(states.get(hotkey), hotkey, work.window)):
                continue
            started = time.monotonic()
            if await self.seconds_left(now) <= longest:
                verdicts[hotkey] = Verdict(Outcome.INCONCLUSIVE, Reason.UNCHECKED, "no time for the audit")
                continue
            opened = await self.opened(work, hotkey, forms.statements[hotkey])
            if opened is None:
                unopened.add(hotkey)
                continue
            task = tasks[hotkey]
            verdicts[hotkey] = await asyncio.to_thread(
                self._audit, task, due_of[hotkey], forms.statements[hotkey], forms.contributions[hotkey], opened
            )
            audited.add(hotkey)
            longest = max(longest, time.monotonic() - started)
        return frozenset(audited), frozenset(unopened)

    async def opened(self, work: WindowWork, hotkey: str, said: Statement) -> Opened | None:
        """The error buffers that a statement names; None when the miner does not open them."""
        neuron = self.training.joined.watch.metagraph.by_hotkey.get(hotkey)
        if neuron is None or not neuron.is_serving:
            return None
        size = self.training.follower.layout.size
        try:
            await self.client.call(Target.of(neuron), TRAIN_OPEN, AskOpen(window=work.window), deadline=OPEN_SECONDS)
            promised = work.due[hotkey]
            before = await self._get(said.before, promised, 4 * size) if said.before else bytes(4 * size)
            after = await self._get(said.after, promised, 4 * size)
        except (CallFailed, ArtifactError) as error:
            log.info("%s did not open window %d: %s", hotkey, work.window, error)
            return None
        if not len(before) == len(after) == 4 * size:
            return None  # what it committed to is no buffer of this model
        return Opened(np.frombuffer(before, "<f4").astype(np.float32), np.frombuffer(after, "<f4").astype(np.float32))

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
        assert work.judged is not None
        chosen = frozenset(promised.uid for hotkey, promised in work.due.items() if work.judged.accepts(hotkey))
        await self.training.say((VOTES_PREFIX, Votes(work.window, chosen).encode()))
        for hotkey in sorted(work.due):
            verdict, score = work.judged.verdicts.get(hotkey), work.judged.scores.get(hotkey)
            told = f"{verdict.outcome}, {verdict.reason}: {verdict.detail}" if verdict else "not audited"
            gain = f"helps {score.assigned:+.4f} / {score.unassigned:+.4f}" if score else "not scored"
            log.info("window %d: %s: %s; %s", work.window, hotkey, gain, told)
        log.info("window %d: %d shown, voted for %d", work.window, len(work.shown), len(chosen))

    async def close(self, settled: Settled) -> None:
        """Keep what the next model was made of where others find it, go on from it, commit its root, fold and pay."""
        own, window = self.training.peers.own, settled.record.window
        for data in (*settled.payloads.values(), *(said.encode() for said in settled.statements.values())):
            await own.put_bytes(data)
        if settled.checkpoint is not None:
            await own.put_bytes(settled.checkpoint)
        cid = await own.put_bytes(settled.record.encode())
        await self.training.follower.adopt(settled)
        await self.training.say((ROOT_PREFIX, RootCommitment(window, settled.record.root, cid).encode()))
        log.info("window %d: %d entered, model %s", window, len(settled.statements), settled.record.root[:16])
        await asyncio.to_thread(self._fold, settled)
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

    def _scores(self, forms: Forms, tasks: Mapping[str, MinerTask]) -> tuple[dict[str, LossScore], float]:
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

    def _audit(self, task: MinerTask, due: Due, said: Statement, contribution: Contribution, opened: Opened) -> Verdict:
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

        window, work = settled.record.window, self._work
        judged = work.judged if work is not None and work.window == window else None
        row = WindowRow(window, settled.record.root, judged.loss if judged else None, len(settled.statements))
        if work is None or judged is None:  # it was away: nothing is known of this window but its result
            self.ledger.commit(row, {}, [], settled.statements)
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
        self.ledger.commit(row, states, rows, settled.statements)

    async def _get(self, cid: str, promised: Promised, most: int) -> bytes:
        return await self.training.peers.fetch(cid, [promised.location], most)

    def _say(self, sentence: str) -> None:
        if sentence != self._told:
            log.info("%s", sentence)
        self._told = sentence


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    from neurons.cli import run_command

    run_command("train", "validator")
