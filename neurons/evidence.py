"""`touchstone evidence` and `touchstone verify`: take a verdict out of a ledger or another validator, and recheck it.

    touchstone evidence                              what the ledgers on this machine hold
    touchstone evidence DIGEST --out FILE            export one
    touchstone evidence --from VALIDATOR --miner M   what another validator holds about a miner
    touchstone evidence --from VALIDATOR --miner M --outcome reject --verify     fetch the newest and recompute it
    touchstone verify FILE                           recompute an exported one

To recompute, evidence of inference takes the model and no chain; evidence of training takes the chain (--network), and
fetches what else it needs.

Exit status of both when they verify: 0 the verdict follows from the evidence, 1 it does not or the evidence is not what
it claims to be, 2 it could not be checked here. Only 0 is agreement.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from rich.markup import escape

from neurons import models
from neurons.output import console, print_json, print_table
from protocol.disputes import Assessment, Finding, refused
from protocol.errors import EvidenceError
from protocol.evidence import MAX_EVIDENCE_BYTES, Evidence, check, decode_evidence
from protocol.sampling import Slack
from protocol.synapse import safe_text
from protocol.training import evidence as training
from protocol.training import findings, judging
from protocol.training.evidence import TrainEvidence
from protocol.verdicts import Outcome, Recomputation, Verdict
from template.artifacts.opening import open_store
from template.chain import Chain
from template.client import SynapseClient, Target
from template.errors import TemplateError
from template.evidence import EvidenceLedger, EvidenceUnavailable, Pair, ask_evidence, ask_list, recheck
from template.keys import Hotkey
from template.keys import verify as signature_holds
from template.ledger import KeptEvidence, Ledger
from template.settings import NeuronSettings
from template.settings import load as load_settings
from template.training.ledger import APPLICATION_ID as TRAINING_LEDGER
from template.training.ledger import TrainLedger

AnyEvidence: TypeAlias = Evidence | TrainEvidence
AnyAssessment: TypeAlias = Assessment | findings.Assessment
CHAIN_SECONDS = 10.0  # for a chain to answer
LEDGERS = ("*/ledger.sqlite", "*/training/*/ledger.sqlite")
EXIT_STATUS = {Finding.AGREES: 0, Finding.DISAGREES: 1, Finding.REFUSED: 1, Finding.UNCHECKED: 2}


@dataclass(frozen=True)
class Query:
    """Which evidence is meant: one by its digest, or the newest ones about a miner or of an outcome."""

    digest: str | None = None
    miner: str | None = None
    outcome: str | None = None
    limit: int = 20


@dataclass(frozen=True)
class Means:
    """What to recompute with. `model`: settings given as flags; `network`, `data_dir`: for evidence of training, the
    chain, and where data of the training may stay."""

    model: Mapping[str, Any]
    network: str
    data_dir: Path


@dataclass(frozen=True)
class Peer:
    """Another validator, and the hotkey that asks it."""

    validator: str  # SS58
    network: str
    netuid: int
    wallet: str
    hotkey: str
    wallet_path: Path


class Source(Protocol):
    """Where evidence comes from. Both raise TemplateError."""

    async def list(self, query: Query) -> Sequence[KeptEvidence]: ...

    async def get(self, digest: str) -> AnyEvidence: ...


async def evidence(
    query: Query,
    *,
    ledgers: Sequence[Path] | None,
    data_dir: Path,
    peer: Peer | None,
    out: Path | None,
    recompute: Means | None,
    as_json: bool,
) -> int:
    """List, export or recheck. `recompute`: what to recheck with, or None. Raises TemplateError."""
    home = data_dir.expanduser()
    files = list(ledgers) if ledgers else sorted({*home.glob(LEDGERS[0]), *home.glob(LEDGERS[1])})
    async with _source(files, peer) as source:
        if query.digest is None and out is None and recompute is None:
            return _show_list(await source.list(query), as_json=as_json)
        digest = query.digest or await _newest(source, query)
        found = await source.get(digest)
    if out is not None:
        _write(out, found)
    if recompute is not None:
        return _report(found, await _recheck(found, recompute), as_json=as_json)
    return _show_one(found, out, as_json=as_json)


async def verify(file: Path, means: Means, *, as_json: bool) -> int:
    """Recompute an exported verdict. The exit status."""
    try:
        with file.expanduser().open("rb") as stream:
            data = stream.read(MAX_EVIDENCE_BYTES + 2)
    except OSError as error:
        return _report(None, Assessment(Finding.UNCHECKED, (f"cannot read {file}: {error.strerror}",)), as_json=as_json)
    try:
        found = training.decode_evidence(data) if training.is_training(data) else decode_evidence(data)
    except EvidenceError as error:
        return _report(None, Assessment(Finding.REFUSED, (str(error),)), as_json=as_json)
    return _report(found, await _recheck(found, means), as_json=as_json)


async def _recheck(found: AnyEvidence, means: Means) -> AnyAssessment:
    if isinstance(found, TrainEvidence):
        return await _recheck_training(found, means)
    problems = check(found, signature_holds)
    if problems:
        return refused(problems)
    try:
        return await asyncio.to_thread(_recheck_now, found, means.model)
    except TemplateError as error:  # no model, no readable thresholds: nothing can be said
        return Assessment(Finding.UNCHECKED, (str(error),))


async def _recheck_training(found: TrainEvidence, means: Means) -> findings.Assessment:
    from template.training.peers import Peers
    from template.training.recheck import recheck as recheck_training
    from template.training.recompute import Machine

    problems = training.check(found, signature_holds)
    if problems:  # said without a chain
        return findings.refused(problems)
    settings = load_settings(NeuronSettings, flags={"netuid": found.netuid, **means.model})
    machine = Machine(settings.device, models.thread_count(settings))
    folder = means.data_dir.expanduser() / "recheck"
    try:
        async with Chain(means.network) as chain, open_store(str(folder / "artifacts")) as own:
            await chain.wait_ready(longest=CHAIN_SECONDS)
            _say(f"judging the contribution of {found.miner} to window {found.window} again")
            async with Peers(own, allow_local=chain.is_local) as peers:
                return await recheck_training(found, chain, peers, folder / "shards", machine)
    except TemplateError as error:  # no chain, no settings: nothing can be said
        return findings.unchecked(str(error))


def _recheck_now(found: Evidence, chosen: Mapping[str, Any]) -> Assessment:
    from template.inference.calibrations import calibration_for
    from template.inference.verifier import Verifier

    settings = load_settings(NeuronSettings, flags={"netuid": 1, **chosen})  # which subnet makes no difference
    loaded = models.load(settings)
    _say(f"recomputing {len(found.answers)} answers with {loaded.identity.name}, {loaded.identity.dtype}")

    def recompute(slack: Slack, pairs: Sequence[Pair]) -> Sequence[Recomputation]:
        verifier = Verifier(loaded, models.verifier_settings(settings), slack)
        try:
            return verifier.recompute_now(pairs)
        finally:
            verifier.close()

    return recheck(found, loaded.identity, calibration_for(loaded.identity), recompute)


# Where evidence comes from


@contextlib.asynccontextmanager
async def _source(files: Sequence[Path], peer: Peer | None) -> AsyncIterator[Source]:
    if peer is None:
        with contextlib.ExitStack() as stack:
            yield _Local([stack.enter_context(_open_ledger(file.expanduser())) for file in files])
        return
    hotkey = Hotkey.load(peer.wallet, peer.hotkey, peer.wallet_path.expanduser())
    async with Chain(peer.network) as chain:
        neuron = (await chain.metagraph(peer.netuid)).by_hotkey.get(peer.validator)
        if neuron is None or not neuron.is_serving:
            what = "is not registered" if neuron is None else "serves nothing"
            remedy = "its operator sets --port to serve evidence"
            raise EvidenceUnavailable(f"{peer.validator} {what} on subnet {peer.netuid}", remedy=remedy)
        async with SynapseClient(hotkey, allow_local=chain.is_local) as client:
            yield _Remote(client, Target.of(neuron))


def _open_ledger(file: Path) -> Ledger | TrainLedger:
    """A ledger of either mechanism. Raises TemplateError."""
    if file.is_file():
        try:
            with contextlib.closing(sqlite3.connect(file, timeout=10.0)) as db:
                (application,) = db.execute("PRAGMA application_id").fetchone()
        except sqlite3.Error as error:
            raise EvidenceUnavailable(f"{file} is no ledger: {error}", remedy="check the path") from None
        if application == TRAINING_LEDGER:
            return TrainLedger(file, create=False)
    return Ledger(file, create=False)


@dataclass(frozen=True)
class _Local:
    ledgers: Sequence[EvidenceLedger]

    async def list(self, query: Query) -> Sequence[KeptEvidence]:
        kept = [row for each in self.ledgers for row in each.list_evidence(query.miner, query.outcome, query.limit)]
        return sorted(kept, key=lambda row: -row.judged_at)[: query.limit]

    async def get(self, digest: str) -> AnyEvidence:
        for ledger in self.ledgers:
            found = ledger.evidence(digest)
            if found is not None:
                return found
        raise EvidenceUnavailable(f"no ledger here has evidence {digest}", remedy="list them: touchstone evidence")


@dataclass(frozen=True)
class _Remote:
    client: SynapseClient
    target: Target

    async def list(self, query: Query) -> Sequence[KeptEvidence]:
        if query.miner is None:
            raise EvidenceUnavailable("a validator is asked about one miner", remedy="add --miner HOTKEY")
        outcome = Outcome(query.outcome) if query.outcome else None
        rows = await ask_list(self.client, self.target, query.miner, outcome=outcome, limit=query.limit)
        return [
            KeptEvidence(row.digest, query.miner, row.round, row.outcome.value, row.reason, row.judged_at)
            for row in rows
        ]

    async def get(self, digest: str) -> AnyEvidence:
        return await ask_evidence(self.client, self.target, digest)


async def _newest(source: Source, query: Query) -> str:
    rows = await source.list(query)
    if not rows:
        raise EvidenceUnavailable("there is no such evidence", remedy="ask for less: another --miner or --outcome")
    return rows[0].digest


def _write(path: Path, found: AnyEvidence) -> None:
    try:
        path.expanduser().write_bytes(found.to_json() + b"\n")
    except OSError as error:
        raise EvidenceUnavailable(f"cannot write {path}: {error.strerror}", remedy="choose another --out") from None
    _say(f"wrote {path}")


# What is printed; everything in evidence was written by somebody else


def _show_list(rows: Sequence[KeptEvidence], *, as_json: bool) -> int:
    if as_json:
        print_json({"evidence": [asdict(row) for row in rows]})
        return 0
    table = [
        [row.digest, row.miner[:10] + "...", str(row.round), row.outcome, row.reason, _time(row.judged_at)]
        for row in rows
    ]
    print_table(
        "evidence, newest first", ["digest", "miner", "round or window>", "outcome", "reason", "judged"], _plain(table)
    )
    return 0


def _show_one(found: AnyEvidence, out: Path | None, *, as_json: bool) -> int:
    if as_json:
        print_json({**_about(found), "file": str(out) if out else None, "claimed": _verdict(found.verdict)})
        return 0
    rows = [[name, str(value)] for name, value in {**_about(found), **_verdict(found.verdict)}.items()]
    print_table("evidence", ["", ""], _plain(rows))
    return 0


def _report(found: AnyEvidence | None, assessment: AnyAssessment, *, as_json: bool) -> int:
    claimed = _verdict(found.verdict) if found else None
    recomputed = _verdict(assessment.verdict) if assessment.verdict else None
    if as_json:
        print_json(
            {
                "finding": assessment.finding.value,
                "why": [safe_text(sentence) for sentence in assessment.why],
                "problems": [{**asdict(p), "code": p.code.value} for p in assessment.problems],
                **(_about(found) if found else {}),
                "claimed": claimed,
                "recomputed": recomputed,
            }
        )
        return EXIT_STATUS[assessment.finding]
    if found and claimed:
        names = [name for name in claimed if name != "numbers"]
        rows = [[name, str(claimed[name]), str((recomputed or {}).get(name, "-"))] for name in names]
        rows += [
            [name, f"{value:g}", f"{recomputed['numbers'][name]:g}" if _has(recomputed, name) else "-"]
            for name, value in claimed["numbers"].items()
        ]
        what = f"window {found.window}" if isinstance(found, TrainEvidence) else f"round {found.round}"
        title = f"evidence {found.digest[:16]}: {what}, miner {found.miner}, validator {found.validator}"
        print_table(escape(safe_text(title)), ["", "claimed", "recomputed"], _plain(rows))
    colour = "green" if assessment.finding is Finding.AGREES else "red"
    console.print(f"[{colour}]{assessment.finding}[/{colour}]")
    for sentence in assessment.why:
        console.print(f"  {escape(safe_text(sentence))}")
    return EXIT_STATUS[assessment.finding]


def _about(found: AnyEvidence) -> dict[str, Any]:
    if isinstance(found, TrainEvidence):
        own = {"window": found.window, "statement": found.promise.statement}
    else:
        own = {"round": found.round, "answers": len(found.answers)}
    who = {"digest": found.digest, "validator": found.validator, "miner": found.miner}
    return {**who, **own, "judged_at": found.judged_at}


def _verdict(verdict: Verdict | judging.Verdict) -> dict[str, Any]:
    told = {"outcome": verdict.outcome.value, "reason": verdict.reason.value, "detail": verdict.detail}
    if isinstance(verdict, Verdict):
        told["calibration"] = verdict.calibration
    return {**told, "numbers": dict(verdict.numbers)}


def _has(recomputed: Mapping[str, Any] | None, name: str) -> bool:
    return recomputed is not None and name in recomputed["numbers"]


def _plain(table: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[escape(safe_text(cell)) for cell in row] for row in table]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
