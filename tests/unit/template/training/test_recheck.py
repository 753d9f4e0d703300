"""Real verdicts on real contributions, recomputed by somebody else; and what becomes of evidence that is not true."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from protocol.artifacts import Manifest
from protocol.disputes import Finding
from protocol.training.evidence import Code, Promise, TrainEvidence, check, decode_evidence
from protocol.training.judging import Reason, Verdict
from protocol.training.records import Included
from protocol.training.statement import Statement
from protocol.training.windows import Phase
from protocol.verdicts import Outcome
from template.commitments import Committed
from template.keys import verify
from tests.support.rejected import ENDS, HOTKEYS, LOCATION, OWNER, SaidChain, World, make, reject
from tests.support.train_evidence import VALIDATOR, signed

CID = Manifest.of(b"something else").cid


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return asyncio.run(make(tmp_path_factory.mktemp("training")))


@pytest.fixture
def world(made: World) -> World:
    """The same artifacts; the chain is the test's own."""
    return replace(made, chain=SaidChain(dict(made.chain.texts)))


def test_the_kitchen_gives_every_verdict(world: World) -> None:
    assert {name: case.verdict.reason for name, case in world.cases.items()} == ENDS
    assert world.cases["half"].verdict.numbers["distance"] > 1e-3
    assert 0.0 < world.cases["alice"].verdict.numbers["distance"] < 1e-5


@pytest.mark.parametrize("name", ENDS)
async def test_a_true_verdict_is_agreed_with(name: str, world: World) -> None:
    evidence = world.evidence(name)
    assert check(evidence, verify) == [] and decode_evidence(evidence.to_json()) == evidence
    found = await world.look(evidence)
    assert found.finding is Finding.AGREES, found
    assert found.verdict is not None and found.verdict.reason is ENDS[name]


# Verdicts that are not true, signed by a validator that tries


ACCEPT = Verdict(Outcome.ACCEPT, Reason.OK, "fine", {"distance": 1e-7})


@pytest.mark.parametrize(
    ("name", "claimed"),
    [
        ("alice", reject(Reason.REPLAY, distance=0.17)),
        ("alice", reject(Reason.REPLAY, distance=1.01e-4)),
        ("alice", reject(Reason.REPLAY)),
        ("alice", reject(Reason.SENT, distance=1e-7, sent=0.3)),
        ("alice", reject(Reason.BUFFER)),
        ("alice", reject(Reason.PAYLOAD)),
        ("alice", reject(Reason.EMPTY)),
        ("alice", reject(Reason.STALE)),
        ("alice", reject(Reason.STATEMENT)),
        ("half", ACCEPT),
        ("copy", replace(ACCEPT)),
        ("short", ACCEPT),
        ("garbage", reject(Reason.STALE)),
        ("stale", reject(Reason.STATEMENT)),
        ("half", reject(Reason.TRACE, distance=0.2)),
    ],
)
async def test_a_false_verdict_is_not(name: str, claimed: Verdict, world: World) -> None:
    world.cases = {**world.cases, name: replace(world.cases[name], verdict=claimed, like=None)}
    found = await world.look(world.evidence(name))
    assert found.finding is Finding.DISAGREES, found


# What is changed in true evidence, and signed again by a validator that tries

CHANGES: dict[str, dict[str, Any]] = {
    "genesis": {"genesis": "12" * 32},
    "netuid": {"netuid": 3},
    "recipe": {"recipe": CID},
    "window": {"window": 2},
    "miner": {"miner": HOTKEYS["cut"].ss58},
    "statement": {"statement": b"{}"},
    "base": {"base": "ab" * 32},
    "record": {"record": CID},
    "no record": {"record": None},
    "earlier": {"earlier": CID},
    "no earlier": {"earlier": None},
    "assign": {"assign": "34" * 32},
    "reveal": {"reveal": "34" * 32},
    "like": {"like": Included(miner=HOTKEYS["alice"].ss58, statement=CID, payload=CID)},
    "verdict": {"verdict": reject(Reason.REPLAY, distance=0.17)},
    "promise": {"promise": Promise(statement=CID, block=1, read_at=2)},
}
ELSEWHERE = {"genesis", "netuid"}  # then it is about something that is not known here


@pytest.mark.parametrize("what", CHANGES)
async def test_a_change_of_any_field_is_noticed(what: str, world: World) -> None:
    evidence = signed(world.evidence("alice").model_copy(update=CHANGES[what]))
    found = await world.look(evidence)
    wanted = {Finding.UNCHECKED} if what in ELSEWHERE else {Finding.REFUSED, Finding.DISAGREES}
    assert found.finding in wanted, found


async def test_who_changes_it_without_the_validators_key_is_refused_at_once(world: World) -> None:
    plain = json.loads(world.evidence("half").to_json())
    for name in set(plain) - {"kind", "version", "scheme", "signature"}:
        value = plain[name]
        other = value + 1 if isinstance(value, int | float) else "ab" * 32 if isinstance(value, str) else None
        if other is None or name in ("recipe", "record", "statement", "validator"):
            continue
        changed = TrainEvidence.model_validate_json(json.dumps({**plain, name: other}))
        assert (await world.look(changed)).finding is Finding.REFUSED, name
    taken = signed(world.evidence("half"), HOTKEYS["cut"])
    assert Code.VALIDATOR_SIGNATURE in {p.code for p in (await world.look(taken)).problems}


# What the chain says otherwise, or does not say any more

Change = Callable[[World], Awaitable[None]]


def commit(world: World, name: str, cid: str, block: int = 143, window: int = 1) -> None:
    hotkey = HOTKEYS[name].ss58
    world.chain.texts[hotkey] = Committed((f"touchstone-train/1:{window}:{cid}", LOCATION), block)


async def test_a_miner_is_not_accused_of_what_it_did_not_commit(world: World) -> None:
    statement = world.evidence("half").promise.statement
    for cid, block, window in ((CID, 143, 1), (statement, 142, 1), (statement, 143, 0)):
        commit(world, "half", cid, block, window)
        found = await world.look(world.evidence("half"))
        assert found.finding is Finding.REFUSED and {p.code for p in found.problems} == {Code.CHAIN}
    read = world.evidence("half", read_at=world.source().read_at - 1)
    assert {p.code for p in (await world.look(read)).problems} == {Code.PROMISE}


async def test_where_the_state_is_gone_the_miners_signature_says_whose_the_statement_is(world: World) -> None:
    world.chain.pruned = True
    assert (await world.look(world.evidence("half"))).finding is Finding.AGREES
    world.cases = {**world.cases, "half": replace(world.cases["half"], opening=None)}
    found = await world.look(world.evidence("half"))
    assert found.finding is Finding.UNCHECKED and "archive" in found.why[0]
    assert found.verdict is not None and found.verdict.reason is Reason.REPLAY, "it was recomputed all the same"
    copied = await world.look(world.evidence("copy"))
    assert copied.finding is Finding.UNCHECKED, "whom it copied was never seen on chain"


async def test_other_hashes_records_and_recipes_are_refused(world: World) -> None:
    for phase in (Phase.ASSIGN, Phase.REVEAL):
        block = world.recipe.clock.schedule.block_of(1, phase)
        other = replace(world, chain=replace(world.chain, hashes={block: "56" * 32}))
        assert (await other.look(world.evidence("half"))).finding is Finding.REFUSED
    world.chain.texts[VALIDATOR.ss58] = Committed((f"touchstone-word/1:1::{CID}", LOCATION), 150)
    found = await world.look(world.evidence("half"))
    assert found.finding is Finding.REFUSED and "record" in found.why[0]
    world.chain.texts[OWNER] = Committed((f"touchstone-recipe/1:{CID}", LOCATION), 5)
    found = await world.look(world.evidence("half"))
    assert found.finding is Finding.REFUSED and "owner" in found.why[0]


async def test_without_an_answer_of_the_chain_nothing_is_agreed_with(world: World) -> None:
    world.chain.away = True
    assert (await world.look(world.evidence("half"))).finding is Finding.UNCHECKED
    world.chain.away = False
    del world.chain.texts[VALIDATOR.ss58]  # nobody stands behind any record
    found = await world.look(world.evidence("half"))
    assert found.finding is Finding.UNCHECKED and "records" in found.why[0]


async def test_nobody_is_called_the_copyist_of_somebody_that_it_does_not_copy(world: World) -> None:
    evidence = world.evidence("copy")
    assert evidence.like is not None and evidence.like.miner == HOTKEYS["alice"].ss58
    half = world.cases["half"]
    said = Statement.parse(half.shown.statement)
    others = {
        "not alike": Included(miner=said.miner, statement=half.promised.statement, payload=said.payload),
        "not its payload": evidence.like.model_copy(update={"payload": said.payload}),
        "not its statement": evidence.like.model_copy(update={"statement": half.promised.statement}),
        "not its own": evidence.like.model_copy(update={"miner": HOTKEYS["cut"].ss58}),
    }
    for name, like in others.items():
        found = await world.look(signed(evidence.model_copy(update={"like": like})))
        assert found.finding is Finding.REFUSED, name
    commit(world, "alice", CID)
    found = await world.look(evidence)
    assert found.finding is Finding.REFUSED and "copied from" in found.why[0]


# What cannot be had


async def test_what_is_missing_leaves_it_unchecked(made: World, tmp_path: Path) -> None:
    world = made.copy(tmp_path)
    said = Statement.parse(world.cases["half"].shown.statement)
    cut = Statement.parse(world.cases["cut"].shown.statement)
    for missing, name in (
        (said.after, "half"),
        (said.payload, "half"),
        (cut.payload, "cut"),
        (world.shared.record, "stale"),
    ):
        assert missing is not None
        await world.forget(missing)
        found = await world.look(world.evidence(name))
        assert found.finding is Finding.UNCHECKED and missing in found.why[0], found
    assert (await world.look(world.evidence("garbage"))).finding is Finding.UNCHECKED, "the record is gone for all"
