"""What a validator makes of a window, from what was shown, measured and drawn."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from protocol.artifacts import Manifest
from protocol.training.assignment import assign, scored_steps, unassigned
from protocol.training.judged import Judged, blind, going_on, task_of, to_audit
from protocol.training.judging import Forms, Reason, Shown, Verdict
from protocol.training.payload import compress
from protocol.training.ratings import LossScore
from protocol.training.recipe import Architecture, Clock, Recipe, Scored, Tasks
from protocol.training.statement import Statement
from protocol.verdicts import Outcome

CID = Manifest.of(b"one").cid
HERE, THERE = "11" * 32, "22" * 32
RECIPE = Recipe(
    architecture=Architecture(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64,
    ),
    model=HERE, model_file=CID, dataset=CID, clock=Clock(start=0), tasks=Tasks(steps=6, batch=2, length=8, shards=2),
    scored=Scored(assigned=3, unassigned=2),
)  # fmt: skip
SEEDS = [hashlib.sha256(name).digest() for name in (b"assign", b"reveal", b"score")]
HELPS, HARMS = LossScore(0.2, 0.1), LossScore(0.2, -0.1)
ACCEPT, REJECT = Verdict(Outcome.ACCEPT, Reason.OK), Verdict(Outcome.REJECT, Reason.REPLAY)
UNCHECKED = Verdict(Outcome.INCONCLUSIVE, Reason.UNCHECKED)


def statement(miner: str, base: str = HERE, before: str | None = None) -> Statement:
    return Statement(
        window=7, miner=miner, base=base, payload=CID, profile="tolerant", trace="cd" * 32, states=3,
        before=before, after=CID,
    )  # fmt: skip


def shown(miner: str, **said: str) -> Shown:
    return Shown(statement(miner, **said).encode(), b"")


def due(count: int) -> list[str]:
    return ["alice", "bob", "carol", "dave", "erin"][:count]


def forms(*miners: str, alike: tuple[str, ...] = ()) -> Forms:
    one = compress(np.ones(8, np.float32))
    others = {miner: tuple(other for other in alike if other != miner) for miner in alike}
    return Forms({}, {miner: statement(miner) for miner in miners}, dict.fromkeys(miners, one), others)


def test_a_task_is_what_the_rules_of_assignment_give() -> None:
    tokens = (100,) * 8
    task = task_of(SEEDS[0], SEEDS[1], "alice", tokens, RECIPE)
    plan = RECIPE.tasks.plan
    assert task.work == assign(SEEDS[0], "alice", tokens, plan)
    assert task.scored == scored_steps(SEEDS[1], "alice", plan, 3) and len(task.scored) == 3
    assert task.unassigned == unassigned(SEEDS[1], "alice", task.work, tokens, plan, 2)
    assert task.shards > set(task.work.shards)


def test_those_whose_buffer_goes_on_are_known_by_what_they_say() -> None:
    found = {"alice": shown("alice", before=CID), "bob": shown("bob"), "carol": Shown(b"nonsense", b"")}
    assert going_on(found) == {"alice"}


def test_a_validator_that_sees_less_than_half_or_another_model_says_nothing() -> None:
    window = {miner: shown(miner) for miner in ("alice", "bob")}
    assert blind(window, due(4), HERE) == "" and blind(window, due(5), HERE) == "only 2 of 5 could be fetched"
    assert "another model" in blind(window, due(2), THERE)
    half = {**window, "carol": shown("carol", base=THERE), "dave": shown("dave", base=THERE)}
    assert blind(half, due(4), HERE) == blind(half, due(4), THERE) == ""
    assert blind({}, (), HERE) == ""


def test_strangers_who_promise_and_show_nothing_blind_nobody() -> None:
    window = {miner: shown(miner) for miner in ("alice", "bob")}
    crowd = [*due(2), *(f"sybil-{n}" for n in range(50))]
    assert blind(window, crowd, HERE) == "only 2 of 52 could be fetched"
    assert blind(window, crowd, HERE, known=("alice", "bob", "gone")) == ""
    assert blind({"bob": window["bob"]}, crowd, HERE, known=due(5)) == ""
    assert "another model" in blind(window, crowd, THERE, known=("alice",))


def test_who_is_alike_is_audited_first_and_whatever_the_draw_says() -> None:
    names = [f"miner-{number}" for number in range(40)]
    rates = {name: 1.0 if number < 4 else 0.25 for number, name in enumerate(names)}
    chosen = to_audit(b"secret", SEEDS[2], forms(*names, alike=(names[20], names[30])), names, rates.__getitem__)
    assert set(list(chosen)[:2]) == {names[20], names[30]}
    assert {name for name, must in chosen.items() if must} == {*names[:4], names[20], names[30]}
    assert 6 < len(chosen) < 25  # 34 more at a quarter
    nobody = to_audit(b"secret", SEEDS[2], forms(*names), names, lambda _: 0.0)
    assert nobody == {}


def test_the_draw_follows_from_secret_seed_and_statement() -> None:
    names = [f"miner-{number}" for number in range(40)]
    draws = [
        to_audit(secret, seed, forms(*names), names, lambda _: 0.5)
        for secret, seed in ((b"one", SEEDS[2]), (b"one", SEEDS[2]), (b"two", SEEDS[2]), (b"one", SEEDS[1]))
    ]
    assert draws[0] == draws[1] and draws[0].keys() != draws[2].keys() and draws[0].keys() != draws[3].keys()
    helping = names[:7]
    assert to_audit(b"one", SEEDS[2], forms(*names), helping, lambda _: 1.0).keys() == set(helping)


@pytest.mark.parametrize(
    ("verdict", "score", "accepted", "outcome"),
    [
        (None, HELPS, True, Outcome.ACCEPT),
        (ACCEPT, HELPS, True, Outcome.ACCEPT),
        (None, HARMS, False, Outcome.ACCEPT),
        (REJECT, HELPS, False, Outcome.REJECT),
        (REJECT, None, False, Outcome.REJECT),
        (UNCHECKED, HELPS, False, Outcome.INCONCLUSIVE),
        (None, None, False, None),
    ],
)
def test_what_is_accepted_and_what_the_ratings_are_told(
    verdict: Verdict | None, score: LossScore | None, accepted: bool, outcome: Outcome | None
) -> None:
    verdicts = {"alice": verdict} if verdict else {}
    judged = Judged(
        verdicts, {"alice": score} if score else {}, frozenset({"alice"}) if verdict is ACCEPT else frozenset()
    )
    assert judged.accepts("alice") is accepted
    seen = judged.seen("alice")
    assert (seen.outcome, seen.score, seen.audited) == (outcome, score, verdict is ACCEPT)


def test_who_opens_nothing_is_not_accepted() -> None:
    judged = Judged({}, {"alice": HELPS}, unopened=frozenset({"alice"}))
    assert not judged.accepts("alice") and judged.seen("alice").unopened


def test_who_sees_nothing_accepts_nobody_and_holds_it_against_nobody() -> None:
    judged = Judged({}, {"alice": HELPS}, blind="only 1 of 9 could be fetched")
    assert not judged.accepts("alice") and judged.seen("alice").outcome is Outcome.INCONCLUSIVE
