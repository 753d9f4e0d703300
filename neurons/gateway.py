"""A gateway: OpenAI's API in front of the subnet's miners, with what proves each answer.

    python neurons/gateway.py --netuid 2 --wallet vali        (same as `touchstone gateway ...`)
    curl localhost:8080/v1/chat/completions -H 'Content-Type: application/json' -d '{"model": ..., "messages": ...}'

It runs beside a validator, with the same wallet and data folder: miners serve only hotkeys with a validator permit, the
validator's scores say whom to ask, its secret draws the audits, and its ledger keeps the answers. It loads the model as
well, whose tokenizer makes the prompts and which verifies answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from neurons.joining import Checking, join, ready_to_check
from neurons.runtime import run, together
from protocol.audits import AuditRules, audit_floor, audit_rate
from protocol.inference import MECHANISM, Outcome, Verdict
from protocol.metagraph import Metagraph
from protocol.scoring import ScoreState
from template.gateway.access import Access
from template.gateway.dispatch import Dispatcher, Policy
from template.gateway.keys import Quota
from template.gateway.openai_api import Defaults
from template.gateway.records import Records
from template.gateway.routing import Board
from template.gateway.server import Bounds, GatewayServer
from template.gateway.service import Service
from template.keys import Hotkey
from template.ledger import Ledger
from template.ops import Ops
from template.settings import GatewaySettings

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)


def start(settings: GatewaySettings) -> int:
    """Run until SIGTERM or SIGINT; the exit status."""
    return run(lambda stop: serve(settings, stop), level=settings.log_level)


async def serve(settings: GatewaySettings, stop: asyncio.Event) -> None:
    """The gateway's life. Raises TemplateError when it cannot start."""
    access = Access(settings.keys_path, open_quota(settings))
    access.check_exposure(settings.host)  # before the model is loaded, and again by the server
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(access.close)
        joined = await join(settings, "gateway", stop, stack)
        watch = joined.watch
        checking = await ready_to_check(settings, joined, stop, stack)
        ledger = stack.enter_context(Ledger(settings.ledger_path))
        outlook = Outlook(joined.hotkey, ledger, Board(per_miner=settings.per_miner), settings.audit_floor)
        await outlook.refresh(watch.metagraph)
        ops = Ops()
        gateway = assemble(settings, checking, outlook, access, ops)
        ops.health = lambda: {**watch.health(), **outlook.health(gateway.service.records.problem, watch.health())}
        await stack.enter_async_context(gateway)
        log.info("serving http://%s:%d/v1 with model %s", settings.host, gateway.port, checking.loaded.identity.name)
        log.info("%s", "API keys are required" if access.store else "no API keys yet: open to this machine only")

        async def refreshed(graph: Metagraph) -> None:
            await outlook.refresh(graph)
            await joined.committed.check(graph)

        await together(watch.run(stop, refreshed), gateway.service.records.run(stop))


def open_quota(settings: GatewaySettings) -> Quota:
    """What everybody on this machine shares while there are no keys: of all but requests a minute, what there is."""
    return Quota(settings.open_requests_per_minute, 2**62, 2**31)


def assemble(
    settings: GatewaySettings, checking: Checking, outlook: Outlook, access: Access, ops: Ops
) -> GatewayServer:
    """Put the parts together; nothing is started."""
    loaded, verifier, calibration = checking.loaded, checking.verifier, checking.calibration
    records = Records(outlook.ledger, checking.secret, outlook.rate, verifier, calibration, outlook.judged)
    policy = Policy(hedge=settings.hedge, tries=settings.tries)
    dispatcher = Dispatcher(
        checking.client, loaded.identity, outlook.board, verifier, calibration, records.keep, policy
    )
    defaults = Defaults(settings.default_tokens, settings.max_context)
    most = max(settings.k, settings.max_k)
    service = Service(loaded, dispatcher, records, defaults, int(time.time()), settings.k, most)
    bounds = Bounds(settings.concurrency, settings.queue, settings.deadline, settings.drain)
    server = GatewayServer(service, access, ops, bounds=bounds, host=settings.host, port=settings.port)
    outlook.on_verdict = server.metrics.verdict
    return server


@dataclass
class Outlook:
    """What the chain and the validator's ledger say, for routing and for audits."""

    hotkey: Hotkey
    ledger: Ledger
    board: Board
    least: float  # share of a trusted hotkey's answers to audit
    on_verdict: Callable[[Verdict], None] | None = None
    _graph: Metagraph | None = None
    _states: Mapping[str, ScoreState] = field(default_factory=dict)

    async def refresh(self, graph: Metagraph) -> None:
        """At each answer of the chain."""
        try:
            self._states, last = await asyncio.to_thread(self._read)
        except sqlite3.Error as error:  # the scores of a moment ago still say whom to ask
            log.warning("the ledger cannot be read: %s", error)
            last = self.board.round - 1
        self._graph = graph
        self.board.update(graph, self._states, last + 1, self.hotkey.ss58)

    def _read(self) -> tuple[dict[str, ScoreState], int]:
        """Blocking. Scores, and the last round that the validator committed; -1 before the first."""
        last = self.ledger.last_round(MECHANISM)
        return self.ledger.scores(MECHANISM), -1 if last is None else last

    def rate(self, hotkey: str) -> float:
        """The share of a miner's answers to audit. Its earnings are counted for a whole tempo, as if it were one round
        (the gateway knows no rounds): more at stake a round means more audits, never fewer."""
        neuron = self._graph.by_hotkey.get(hotkey) if self._graph else None
        rules = AuditRules(least=self.least)
        floor = audit_floor(neuron.emission, neuron.collateral, rules) if neuron else 1.0
        return audit_rate(self._states.get(hotkey), self.board.round, floor, rules)

    def judged(self, hotkey: str, verdict: Verdict) -> None:
        """A verdict on an answer: a cheat is not asked again soon."""
        if self.on_verdict is not None:
            self.on_verdict(verdict)
        if verdict.outcome is Outcome.REJECT:
            log.warning("%s: rejected, %s: %s", hotkey, verdict.reason, verdict.detail)
            self.board.rejected(hotkey, time.monotonic())

    def health(self, records_problem: str, chain: Mapping[str, Any]) -> dict[str, Any]:
        me = self._graph.by_hotkey.get(self.hotkey.ss58) if self._graph else None
        permit = me is not None and me.validator_permit
        return {
            "ok": bool(chain["ok"]) and permit and self.board.serving > 0 and not records_problem,
            "validator_permit": permit,
            "miners": self.board.serving,
            "records": records_problem or "written",
        }


if __name__ == "__main__":
    from neurons.cli import run_command

    run_command("gateway")
