"""What a validator of mechanism 1 keeps of its verdicts, so that anyone can recompute them.

    keeper = Keeper(training, ledger, genesis, evidence_bytes)
    await keeper.begin(window, cases)         sign and store evidence of a window's verdicts; artifacts follow meanwhile
    check = await serve(settings, training, ledger, stack)      answers other validators, and publishes where

Evidence names what it stands on; the validator's own store holds it. Statement and payload of a rejected contribution
are small and always go there. Error buffers are 4 bytes a parameter, and whoever likes to be rejected could fill the
store with them: those of a hotkey that is in the pause of an earlier reject are not kept, and of all others at most
`evidence_bytes` in ledger.EVIDENCE_WINDOWS windows. Buffers of accepted work stay with its miner.

Votes come first: artifacts go up after them, in the background, and what is not up when the next window has verdicts is
given up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import ValidationError

from neurons.axon import Publisher
from neurons.training import Training
from neurons.validator import evidence_server
from protocol.artifacts import Manifest
from protocol.auth import SignedExchange
from protocol.errors import EvidenceError, MalformedMessage
from protocol.metagraph import EVIDENCE_ONLY, Metagraph
from protocol.synapse import decode
from protocol.training.evidence import Promise, TrainEvidence, check
from protocol.training.judging import Due, Shown, Verdict
from protocol.training.opening import OpenAnswer
from protocol.training.records import Included
from protocol.training.statement import Statement
from protocol.training.windows import Phase
from protocol.verdicts import Outcome
from template.artifacts.errors import ArtifactError
from template.keys import Hotkey, verify
from template.ops import Ops
from template.settings import TrainValidatorSettings

if TYPE_CHECKING:
    from template.training.chain_view import Promised
    from template.training.ledger import TrainLedger

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opening:
    """What a miner opened to an audit: its signed answer, and the bytes of the two artifacts as they came. `empty`: the
    buffer before is one of zeros, and no artifact."""

    answer: SignedExchange
    before: bytes
    after: bytes
    empty: bool


@dataclass(frozen=True)
class Case:
    """A verdict and what it stands on. `like`: another miner whose contribution keeps the same, and what it showed;
    for a copy."""

    promised: Promised
    shown: Shown
    due: Due
    verdict: Verdict
    opening: Opening | None = None
    like: tuple[str, Promised, Shown] | None = None


@dataclass(frozen=True)
class Rejected:
    """Evidence of a reject. `first`: the hotkey was not in the pause of an earlier one."""

    evidence: TrainEvidence
    case: Case
    first: bool

    @property
    def buffers(self) -> list[bytes]:
        opening = self.case.opening
        if opening is None:
            return []
        return [opening.after] if opening.empty else [opening.before, opening.after]


@dataclass(frozen=True)
class Source:
    """What all evidence of one window has in common; fields as in TrainEvidence."""

    genesis: str
    netuid: int
    recipe: str
    window: int
    record: str | None
    assign: str
    reveal: str
    read_at: int
    location: str  # of the validator's store


def make_evidence(hotkey: Hotkey, source: Source, miner: str, case: Case, now: float) -> TrainEvidence:
    """Signed evidence of one verdict. Raises EvidenceError when something in it would not hold elsewhere."""
    due, promised = case.due, case.promised
    earlier = due.earlier if _goes_on(case.shown.statement) else None
    unsigned = TrainEvidence(
        genesis=source.genesis,
        netuid=source.netuid,
        recipe=source.recipe,
        window=source.window,
        validator=hotkey.ss58,
        miner=miner,
        promise=Promise(statement=promised.statement, block=promised.block, read_at=source.read_at),
        statement=case.shown.statement,
        answer=_answer(case, promised.statement),
        base=due.base,
        record=source.record,
        earlier=Manifest.of(earlier.encode()).cid if earlier else None,
        assign=source.assign,
        reveal=source.reveal,
        like=_like(case),
        verdict=case.verdict,
        locations=(source.location, promised.location),
        judged_at=now,
        scheme=hotkey.scheme,  # type: ignore[arg-type]
    )
    evidence = unsigned.model_copy(update={"signature": hotkey.sign(unsigned.signed_payload)})
    problems = check(evidence, verify)
    if problems:
        raise EvidenceError(f"{problems[0].code}: {problems[0].detail}")
    evidence.to_json()  # refuses what is too large
    return evidence


def _goes_on(statement: bytes) -> bool:
    try:
        return Statement.parse(statement).before is not None
    except MalformedMessage:
        return False


def _answer(case: Case, statement: str) -> SignedExchange | None:
    """The miner's answer, when it is about the statement on chain: then it proves whose that is."""
    if case.opening is None or decode(OpenAnswer, case.opening.answer.response_body).statement != statement:
        return None
    return case.opening.answer


def _like(case: Case) -> Included | None:
    if case.like is None:
        return None
    miner, promised, shown = case.like
    return Included(miner=miner, statement=promised.statement, payload=Statement.parse(shown.statement).payload)


@dataclass
class Keeper:
    """Makes evidence and keeps what it names. `budget`: bytes of error buffers, see above."""

    training: Training
    ledger: TrainLedger
    genesis: str
    budget: int
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    async def begin(self, window: int, cases: dict[str, Case]) -> None:
        """Sign and store evidence of all conclusive verdicts, by hotkey; their artifacts go up in the background.
        Raises ChainError, and StateUnavailable when the ledger cannot be written."""
        conclusive = {h: case for h, case in cases.items() if case.verdict.outcome is not Outcome.INCONCLUSIVE}
        if not conclusive:
            return
        source = await self._source(window)
        rejected = await asyncio.to_thread(self._made, source, conclusive)
        await self.stop()
        self._task = asyncio.create_task(self._put(rejected))

    async def stop(self) -> None:
        """Give up what is still on its way. Raises what no store and no disk is to blame for."""
        task, self._task = self._task, None
        if task is None:
            return
        if not task.done():
            log.warning("evidence: not everything that was rejected is in the store")
            task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(ended, Exception):
            raise ended

    async def _source(self, window: int) -> Source:
        training, view = self.training, self.training.follower.view
        schedule, chain = view.schedule, training.joined.chain
        assign = await chain.block_hash(schedule.block_of(window, Phase.ASSIGN))
        reveal = await chain.block_hash(schedule.block_of(window, Phase.REVEAL))
        return Source(
            genesis=self.genesis,
            netuid=view.netuid,
            recipe=Manifest.of(training.recipe.encode()).cid,
            window=window,
            record=training.follower.shared.record,
            assign=assign.removeprefix("0x"),
            reveal=reveal.removeprefix("0x"),
            read_at=schedule.block_of(window, Phase.REVEAL) - 1,
            location=training.location,
        )

    def _made(self, source: Source, cases: dict[str, Case]) -> list[Rejected]:
        """Blocking. What cannot be shown to others is logged: the verdict stands, but nobody else can recheck it."""
        made, hotkey, states = {}, self.training.joined.hotkey, self.ledger.states()
        for miner, case in cases.items():
            try:
                made[miner] = make_evidence(hotkey, source, miner, case, time.time())
            except (EvidenceError, ValidationError) as error:
                log.error("no evidence of the %s of %s: %s", case.verdict.outcome, miner, error)
        self.ledger.record_evidence(list(made.values()))
        paused = {miner for miner, state in states.items() if source.window < state.cooldown_until}
        return [
            Rejected(evidence, cases[miner], miner not in paused)
            for miner, evidence in made.items()
            if evidence.verdict.outcome is Outcome.REJECT
        ]

    async def _put(self, rejected: Sequence[Rejected]) -> None:
        """Small things first, so that they are there in any case."""
        own = self.training.peers.own
        try:
            for case in (one.case for one in rejected):
                for shown in (case.shown, *([case.like[2]] if case.like else [])):
                    await own.put_bytes(shown.statement)
                    await own.put_bytes(shown.payload)
            for one in rejected:
                if await asyncio.to_thread(self._may_keep, one):
                    for data in one.buffers:
                        await own.put_bytes(data)
        except ArtifactError as error:
            log.warning("evidence: not everything that was rejected is in the store: %s", error)

    def _may_keep(self, one: Rejected) -> bool:
        """Whether there is room for these buffers, which is taken at once. Blocking."""
        size = sum(map(len, one.buffers))
        if not one.first or not size:
            return False
        if self.ledger.buffer_bytes(one.evidence.window) + size > self.budget:
            log.warning("evidence: no room for the buffers of %s; see evidence_bytes", one.evidence.miner)
            return False
        self.ledger.buffers_kept(one.evidence.digest, size)
        return True


async def serve(
    settings: TrainValidatorSettings, training: Training, ledger: TrainLedger, stack: AsyncExitStack
) -> Callable[[Metagraph], Awaitable[None]]:
    """Serve evidence; what keeps the chain's record of where, to be called with every new metagraph."""
    joined = training.joined
    server = await stack.enter_async_context(evidence_server(settings, joined, ledger, Ops(joined.watch.health)))
    log.info("serving evidence on %s:%d", settings.host, server.port)
    where = (server.port, settings.external_ip, settings.external_port)
    return Publisher(joined.chain, settings.netuid, joined.hotkey, *where, protocol=EVIDENCE_ONLY).check
