"""What a validator keeps of its verdicts: evidence in its ledger, what it names in its store, and both for others."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from neurons.cli import app
from neurons.train_evidence import Case, Keeper
from protocol.disputes import VERDICT_EVIDENCE, AskEvidence, ListVerdicts
from protocol.synapse import decode, encode
from protocol.training.judging import Reason, Verdict
from protocol.training.ratings import TrainState
from protocol.training.statement import Statement
from protocol.verdicts import Outcome
from template.artifacts.directory import DirectoryBackend
from template.artifacts.errors import ArtifactUnavailable
from template.artifacts.store import ArtifactLimits, ArtifactStore
from template.evidence import EvidenceService
from template.training.ledger import TrainLedger, WindowRow
from tests.support.rejected import ENDS, HOTKEYS, LOCATION, NETUID, World, hash_of, make
from tests.support.train_evidence import VALIDATOR

runner = CliRunner()
LIMITS = ArtifactLimits(2**24, 30.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return asyncio.run(make(tmp_path_factory.mktemp("training")))


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    with TrainLedger(tmp_path / "vali.default" / "training" / "ab" / "ledger.sqlite") as found:
        yield found


def keeper(world: World, ledger: TrainLedger, folder: Path, budget: int = 2**30) -> Keeper:
    """With a store of its own, which holds nothing yet."""
    store = ArtifactStore(DirectoryBackend(folder / "own"))
    view = SimpleNamespace(schedule=world.recipe.clock.schedule, netuid=NETUID)
    training: Any = SimpleNamespace(
        joined=SimpleNamespace(hotkey=VALIDATOR, chain=world.chain),
        follower=SimpleNamespace(view=view, shared=world.shared),
        peers=SimpleNamespace(own=store),
        recipe=world.recipe,
        location=LOCATION,
    )
    return Keeper(training, ledger, hash_of(0), budget)


def cases(world: World, *names: str) -> dict[str, Case]:
    return {HOTKEYS[name].ss58: world.cases[name] for name in names}


async def keep(keeper: Keeper, given: dict[str, Case]) -> None:
    await keeper.begin(1, given)
    assert keeper._task is None or await asyncio.wait({keeper._task}, timeout=30)
    await keeper.stop()


async def has(keeper: Keeper, cid: str) -> bool:
    try:
        await keeper.training.peers.own.read(cid, LIMITS)
    except ArtifactUnavailable:
        return False
    return True


async def test_every_verdict_has_evidence_and_what_was_rejected_is_there_for_others(
    world: World, ledger: TrainLedger, tmp_path: Path
) -> None:
    found = keeper(world, ledger, tmp_path)
    unchecked = Verdict(Outcome.INCONCLUSIVE, Reason.UNCHECKED, "no time for the audit")
    idle = {"5Idle": replace(world.cases["half"], verdict=unchecked)}
    await keep(found, {**cases(world, *ENDS), **idle})
    kept = {row.miner: row for row in ledger.list_evidence()}
    assert kept.keys() == {hotkey.ss58 for hotkey in HOTKEYS.values()}
    for name, reason in ENDS.items():
        row, case = kept[HOTKEYS[name].ss58], world.cases[name]
        evidence = ledger.evidence(row.digest)
        assert (row.reason, row.round) == (reason.value, 1)
        assert evidence is not None and evidence.verdict == case.verdict
        rejected = row.outcome == "reject"
        assert await has(found, case.promised.statement) or not rejected
        if name == "garbage":
            continue
        said = Statement.parse(case.shown.statement)
        assert await has(found, said.payload) == (rejected or name == "alice"), "alice's is what was copied"
        opened = case.opening is not None and (rejected or name == "alice")  # a copy opens what was copied
        assert await has(found, said.after) == opened
    sizes = {"half", "copy", "unlike"}
    assert ledger.buffer_bytes(1) == len(sizes) * 4 * len(world.shared.vector) + len(b"no buffer")


async def test_whoever_likes_to_be_rejected_cannot_fill_the_store(
    world: World, ledger: TrainLedger, tmp_path: Path
) -> None:
    size = 4 * len(world.shared.vector)
    afters = {name: Statement.parse(world.cases[name].shown.statement).after for name in ("half", "copy", "unlike")}
    half = HOTKEYS["half"].ss58
    ledger.commit(WindowRow(0, "ab" * 32, None, 0), {half: TrainState(half, rejects=1, cooldown_until=9)}, [])
    found = keeper(world, ledger, tmp_path, budget=size)
    await keep(found, cases(world, "half", "copy", "unlike"))
    assert not await has(found, afters["half"]), "it is in the pause of an earlier reject"
    assert await has(found, afters["copy"]) and not await has(found, afters["unlike"]), "there is room for one"
    assert len(ledger.list_evidence()) == 3 and ledger.buffer_bytes(1) == size
    assert ledger.buffer_bytes(1 + 1024) == 0, "there is room again"


async def test_evidence_is_kept_when_the_store_is_away_and_a_late_upload_is_given_up(
    world: World, ledger: TrainLedger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = keeper(world, ledger, tmp_path)

    async def away(data: bytes) -> str:
        raise ArtifactUnavailable("the bucket cannot be reached")

    async def slow(data: bytes) -> str:
        await asyncio.sleep(60)
        return ""

    own: Any = found.training.peers
    own.own = SimpleNamespace(put_bytes=away)
    await keep(found, cases(world, "half"))
    assert len(ledger.list_evidence()) == 1 and "cannot be reached" in caplog.text
    own.own = SimpleNamespace(put_bytes=slow)
    await found.begin(1, cases(world, "cut"))
    await found.begin(1, cases(world, "stale"))
    await found.stop()
    assert len(ledger.list_evidence()) == 3


async def test_others_get_it_by_the_same_requests_as_evidence_of_inference(
    world: World, ledger: TrainLedger, tmp_path: Path
) -> None:
    await keep(keeper(world, ledger, tmp_path), cases(world, "half", "alice"))
    service, miner, caller = EvidenceService(ledger), HOTKEYS["half"].ss58, SimpleNamespace(hotkey="5Caller")
    (row,) = (await service.list(ListVerdicts(miner=miner, outcome=Outcome.REJECT), caller)).verdicts  # type: ignore[arg-type]
    answer = await service.give(AskEvidence(digest=row.digest), caller)  # type: ignore[arg-type]
    sent = encode(answer)
    assert len(sent) < VERDICT_EVIDENCE.max_response_bytes
    received = decode(VERDICT_EVIDENCE.response, sent).evidence
    assert received == ledger.evidence(row.digest) and received.digest == row.digest
    nothing = await service.give(AskEvidence(digest="ab" * 32), caller)  # type: ignore[arg-type]
    assert nothing.evidence is None


def test_a_user_lists_exports_and_verifies_it(
    world: World, ledger: TrainLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neurons.evidence.CHAIN_SECONDS", 0.1)
    asyncio.run(keep(keeper(world, ledger, tmp_path), cases(world, "half")))
    listed = runner.invoke(app, ["evidence", "--data-dir", str(tmp_path), "--json"])
    (row,) = json.loads(listed.stdout)["evidence"]
    assert (row["reason"], row["round"]) == ("replay", 1)
    out = tmp_path / "half.json"
    by_file = ["evidence", row["digest"], "--ledger", str(ledger.path), "--out", str(out), "--json"]
    shown = json.loads(runner.invoke(app, by_file).stdout)
    assert shown["window"] == 1 and shown["claimed"]["numbers"]["distance"] > 1e-3

    verify = ["verify", str(out), "--data-dir", str(tmp_path), "--network", "ws://127.0.0.1:9", "--json"]
    report = runner.invoke(app, verify)  # nobody is there
    assert report.exit_code == 2 and json.loads(report.stdout)["finding"] == "unchecked"
    out.write_bytes(out.read_bytes().replace(b'"window":1', b'"window":2'))
    report = runner.invoke(app, verify)
    assert report.exit_code == 1 and json.loads(report.stdout)["finding"] == "refused"
    assert {p["code"] for p in json.loads(report.stdout)["problems"]} >= {"validator_signature"}
    out.write_bytes(b'{"kind":"training"}')
    report = runner.invoke(app, verify)
    assert report.exit_code == 1 and "not evidence" in json.loads(report.stdout)["why"][0]
