"""A validator of mechanism 1: fetches what miners promised, scores it, audits some, votes, and sets weights.

    python neurons/train_validator.py --netuid 2 --wallet vali        (same as `touchstone train validator ...`)

One window: when the commit phase has closed, read who promised what, and fetch it while miners reveal; then judge
forms, measure by how much each contribution lowers the loss, train some windows again, keep what is to be accepted
where others find it, and commit a vote for each; keep evidence of the verdicts; when voting has closed, compute the
next model as everybody does. The record goes on chain with the next vote. Verdicts and ratings are in the ledger before
weights are drawn from them.

No miner may make this validator late: what is not there when its time is over is absent. Here is what it does in which
phase, what it says and what it keeps; train_gathering.py fetches, and train_judge.py judges.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from neurons import train_evidence
from neurons.joining import join
from neurons.runtime import run, together, until
from neurons.train_evidence import Keeper
from neurons.train_gathering import Gatherer, WindowWork
from neurons.train_judge import TrainJudge
from neurons.training import Training, by_the_clock, join_training
from protocol.payout import payable
from protocol.training.ratings import fold_window, weights
from protocol.training.votes import WORD_PREFIX, Word
from protocol.training.windows import Phase, Tick
from template.client import SynapseClient
from template.settings import TrainValidatorSettings
from template.state import read_secret

if TYPE_CHECKING:
    from template.training.following import Settled
    from template.training.ledger import TrainLedger

log = logging.getLogger(__name__)

MECHANISM = 1
STORED_AT_ONCE = 8  # artifacts on their way into the own bucket
FETCH_SHARE = 0.3  # of the score phase, for what was not there when it began


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
        judge = TrainJudge(settings, training, ledger, client, secret)
        validator = TrainValidator(settings, training, ledger, keeper, judge, Gatherer(training))
        check = await train_evidence.serve(settings, training, ledger, stack) if settings.port is not None else None
        await together(joined.watch.run(stop, check), validator.run(stop))


@dataclass
class TrainValidator:
    """What is due, when it is due."""

    settings: TrainValidatorSettings
    training: Training
    ledger: TrainLedger
    keeper: Keeper
    judge: TrainJudge
    gatherer: Gatherer
    _work: WindowWork | None = field(default=None, init=False)

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
            longest = FETCH_SHARE * await self.judge.seconds_left(now) if scoring else self.settings.chain_poll
            await self.gatherer.gather(work, max(1.0, longest))
        if now.phase is Phase.SCORE:
            work.give_up()
            if work.judged is None:
                work.judged = await self.judge.judge(work, now)
            if not work.voted:
                await self.vote(work)
                work.voted = True
            if work.cases:
                await self.keeper.begin(work.window, work.cases)
                work.cases = {}

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


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    from neurons.cli import run_command

    run_command("train", "validator")
