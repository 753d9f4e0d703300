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

from neurons import models
from neurons.runtime import ChainWatch, in_thread, load_hotkey, run, together, until
from neurons.validator import read_secret
from protocol.audits import AuditRules, audit_floor, audit_rate
from protocol.inference import MECHANISM, Outcome, Verdict
from protocol.metagraph import Metagraph
from protocol.scoring import ScoreState
from template.chain import Chain
from template.client import SynapseClient
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
from template.state import claimed

if TYPE_CHECKING:
    from protocol.calibration import Calibration
    from template.inference.models import LoadedModel
    from template.inference.verifier import Verifier

log = logging.getLogger(__name__)


def start(settings: GatewaySettings) -> int:
    """Run until SIGTERM or SIGINT; the exit status."""
    return run(lambda stop: serve(settings, stop), level=settings.log_level)


async def serve(settings: GatewaySettings, stop: asyncio.Event) -> None:
    """The gateway's life. Raises TemplateError when it cannot start."""
    from template.inference.calibrations import calibration_for
    from template.inference.verifier import Verifier

    hotkey = load_hotkey(settings)
    access = Access(settings.keys_path, open_quota(settings))
    access.check_exposure(settings.host)  # before the model is loaded, and again by the server
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(access.close)
        chain = await stack.enter_async_context(Chain(settings.network, timeout=settings.chain_timeout))
        watch = ChainWatch(chain, settings.netuid, hotkey.ss58, settings.metagraph_refresh)
        uid = await until(stop, watch.start(settings.wallet, settings.hotkey))
        log.info("hotkey %s has uid %d on subnet %d of %s", hotkey.ss58, uid, settings.netuid, settings.network)
        genesis = await until(stop, chain.block_hash(0))
        stack.enter_context(claimed(settings.state_dir, "gateway", genesis, settings.netuid, hotkey.ss58))
        loaded = await until(stop, in_thread(lambda: models.load(settings)))
        log.info("model %s, root %s", loaded.identity.name, loaded.identity.root)
        committed = models.CommittedModel(watch)
        await until(stop, committed.require(loaded.identity))
        calibration = calibration_for(loaded.identity)
        if calibration is None:
            log.error("no thresholds for this model at %s: no answer can be verified", loaded.identity.dtype)
        verifier = Verifier(loaded, models.verifier_settings(settings))
        stack.callback(verifier.close)
        ledger = stack.enter_context(Ledger(settings.ledger_path))
        client = await stack.enter_async_context(SynapseClient(hotkey, allow_local=chain.is_local))
        secret = read_secret(settings.state_dir / "secret")
        outlook = Outlook(hotkey, ledger, Board(per_miner=settings.per_miner), settings.audit_floor)
        await outlook.refresh(watch.metagraph)
        ops = Ops()
        gateway = assemble(settings, loaded, client, verifier, calibration, outlook, secret, access, ops)
        ops.health = lambda: {**watch.health(), **outlook.health(gateway.service.records.problem, watch.health())}
        await stack.enter_async_context(gateway)
        log.info("serving http://%s:%d/v1 with model %s", settings.host, gateway.port, loaded.identity.name)
        log.info("%s", "API keys are required" if access.store else "no API keys yet: open to this machine only")

        async def refreshed(graph: Metagraph) -> None:
            await outlook.refresh(graph)
            await committed.check(graph)

        await together(watch.run(stop, refreshed), gateway.service.records.run(stop))


def open_quota(settings: GatewaySettings) -> Quota:
    """What everybody on this machine shares while there are no keys: of all but requests a minute, what there is."""
    return Quota(settings.open_requests_per_minute, 2**62, 2**31)


def assemble(
    settings: GatewaySettings,
    loaded: LoadedModel,
    client: SynapseClient,
    verifier: Verifier,
    calibration: Calibration | None,
    outlook: Outlook,
    secret: bytes,
    access: Access,
    ops: Ops,
) -> GatewayServer:
    """Put the parts together; nothing is started."""
    records = Records(outlook.ledger, secret, outlook.rate, verifier, calibration, outlook.judged)
    policy = Policy(hedge=settings.hedge, tries=settings.tries)
    dispatcher = Dispatcher(client, loaded.identity, outlook.board, verifier, calibration, records.keep, policy)
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
