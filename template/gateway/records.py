"""What the gateway leaves behind: every signed answer in the validator's ledger, and verdicts on those drawn for audit.

    records = Records(ledger, secret, rates, verifier, calibration, on_verdict)
    drawn = records.keep(answer, verdict)        # at once; written in the background
    await records.run(stop)                      # audits what was drawn, also what an earlier process left
    await records.settle()                       # what is being written has been written

An answer is drawn after it was signed, by the validator's secret and the answer's digest, as a challenge's is
(protocol/audits.py); users wait for none of it. The queue of audits is the ledger itself, so it takes no memory and
survives a restart. What the verdicts are worth is the validator's business: it takes them with `Ledger.take_organic`.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Coroutine
from typing import Any

from protocol.audits import drawn
from protocol.auth import SignedExchange
from protocol.calibration import Calibration
from protocol.errors import ExchangeError
from protocol.evidence import Unreadable, read_answer
from protocol.inference import Outcome, Reason, Verdict, judge
from template.ledger import Entry, Ledger, LedgerError
from template.rounds import Answer, Recomputer, received

log = logging.getLogger(__name__)

AT_ONCE = 8  # answers recomputed together
LEDGER_TROUBLE = (LedgerError, sqlite3.Error, OSError)  # a full disk, say: /health tells, and serving goes on
LOOK_S = 5.0  # between two looks for answers to audit, when nothing was drawn here


class Records:
    """Writes answers and audits them. Belongs to the event loop; the ledger is used from threads.

    `rates` gives the share of a hotkey's answers to audit; `on_verdict(hotkey, verdict)` is told of each verdict.
    """

    def __init__(
        self,
        ledger: Ledger,
        secret: bytes,
        rates: Callable[[str], float],
        verifier: Recomputer,
        calibration: Calibration | None,
        on_verdict: Callable[[str, Verdict], None],
    ) -> None:
        self.ledger = ledger
        self.secret = secret
        self.rates = rates
        self.verifier = verifier
        self.calibration = calibration
        self.on_verdict = on_verdict
        self.problem = ""  # why the newest write failed; empty while all is well
        self._writes: set[asyncio.Task[None]] = set()
        self._drawn = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Writes that have not ended."""
        return len(self._writes)

    def keep(self, answer: Answer, verdict: Verdict | None = None) -> bool:
        """Keep a signed answer, with its verdict when it has one; whether it was drawn for an audit."""
        assert answer.reply is not None
        audit = verdict is None and is_drawn(self.secret, answer, self.rates(answer.challenge.miner))
        if verdict is not None:
            self.on_verdict(answer.challenge.miner, verdict)
        self.later(self._write(answer, verdict, audit))
        return audit

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do some bookkeeping after the user has the answer."""
        task = asyncio.create_task(work)
        self._writes.add(task)
        task.add_done_callback(self._written)

    async def settle(self) -> None:
        """Wait for everything that is being written."""
        while self._writes:
            await asyncio.wait(set(self._writes))

    async def run(self, stop: asyncio.Event) -> None:
        """Audit until `stop`."""
        stopped = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                self._drawn.clear()
                if await self._audit_some():
                    continue
                drawn_one = asyncio.ensure_future(self._drawn.wait())
                await asyncio.wait({stopped, drawn_one}, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                drawn_one.cancel()
        finally:
            stopped.cancel()

    async def _audit_some(self) -> int:
        """`audit`, for which a ledger that cannot be used is no reason to stop serving."""
        try:
            return await self.audit()
        except LEDGER_TROUBLE as error:
            self._trouble(error)
            return 0

    async def audit(self) -> int:
        """Judge some answers that were drawn; how many."""
        entries = await asyncio.to_thread(self.ledger.undecided_organic, AT_ONCE)
        for entry, verdict in zip(entries, await self._judge(entries), strict=True):
            await asyncio.to_thread(self.ledger.record_verdict, entry.challenge.digest, verdict, time.time())
            self.on_verdict(entry.challenge.miner, verdict)
        return len(entries)

    async def _judge(self, entries: list[Entry]) -> list[Verdict]:
        found: dict[int, Verdict] = {}
        readable = []
        for index, entry in enumerate(entries):
            assert entry.received is not None  # only answers are drawn
            try:
                response, streamed = read_answer(SignedExchange.from_json(entry.received.envelope))
            except (ExchangeError, Unreadable) as error:
                log.error("a stored answer cannot be read: %s", error)
                found[index] = Verdict(Outcome.INCONCLUSIVE, Reason.NOT_RECOMPUTED, "the stored answer is damaged")
            else:
                readable.append((index, entry.challenge, response, streamed))
        pairs = [(challenge, response) for _, challenge, response, _ in readable]
        results = await self.verifier.recompute(pairs) if pairs else []
        for (index, challenge, response, streamed), recomputed in zip(readable, results, strict=True):
            found[index] = judge(challenge, response, recomputed, self.calibration, streamed)
        return [found[index] for index in range(len(entries))]

    async def _write(self, answer: Answer, verdict: Verdict | None, audit: bool) -> None:
        await asyncio.to_thread(self._record, answer, verdict, audit)
        if audit:
            self._drawn.set()

    def _record(self, answer: Answer, verdict: Verdict | None, audit: bool) -> None:
        """Blocking."""
        kept = received(answer)
        self.ledger.record_organic(answer.challenge, kept, drawn=audit, verdict=verdict, now=answer.received_at)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writes.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            self.problem = ""
        elif isinstance(error, LEDGER_TROUBLE):
            self._trouble(error)
        else:
            self.problem = f"bookkeeping failed: {type(error).__name__}"
            log.error("bookkeeping failed", exc_info=error)

    def _trouble(self, error: BaseException) -> None:
        self.problem = f"the ledger cannot be used: {error}"
        log.error("%s", self.problem)


def is_drawn(secret: bytes, answer: Answer, rate: float) -> bool:
    """Whether a signed answer is audited."""
    assert answer.reply is not None
    return drawn(secret, answer.reply.exchange.response_digest, rate)
