"""Peers in one process, by the rules of the subnet: what honest work comes to, and what nothing else does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from protocol.artifacts import Manifest
from protocol.training.judging import Reason, Shown
from protocol.training.payload import decode
from protocol.training.ratings import TrainState
from protocol.training.recipe import Clock, Inner, Recipe, Tasks
from protocol.training.statement import MAX_BYTES, Statement
from protocol.verdicts import Outcome
from template.training.checkpoint import build, model_root
from template.training.cohort import Cohort, Judge, Member, Window, fetched, opened_by, undrawn, unsecured
from template.training.inner import Trainer
from template.training.memo import Memo, MemoLosses
from template.training.shared import Shared
from template.training.work_state import Kept
from template.training.workbench import Workbench, honest
from tests.support.training import TINY, VOCABULARY, genesis

LAYOUT, BASE = genesis()
ROOT = model_root(TINY, LAYOUT, BASE)
CID = Manifest.of(b"one").cid
RECIPE = Recipe(
    architecture=TINY, model=ROOT, model_file=CID, dataset=CID, clock=Clock(start=0),
    tasks=Tasks(steps=8, batch=4, length=16, shards=2), inner=Inner(peak=1e-2, warmup=1), alike_from=0.6,
)  # fmt: skip
NAMES = ("alice", "bob", "carol")


@dataclass(frozen=True)
class Languages:
    """Shards in memory: in each the next token is so much further, one step or two or ..."""

    shards: int = 10
    tokens: int = 400

    def tokens_of(self, split: str = "training") -> tuple[int, ...]:
        return (self.tokens,) * self.shards

    def batch(self, places: Sequence[tuple[int, int]], length: int, split: str = "training") -> np.ndarray:
        return np.array([(first + (1 + shard % 4) * np.arange(length + 1)) % VOCABULARY for shard, first in places])


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return Trainer(build(TINY), RECIPE.inner, profile="tolerant", threads=1)


@pytest.fixture(scope="module")
def memo() -> Memo:
    return Memo(1000)


@dataclass
class Makes:
    """Cohorts of one trainer; what they have in common is done once."""

    trainer: Trainer
    memo: Memo

    def cohort(self, *members: Member, judges: Sequence[Judge] = (Judge("val", b"secret"),), seed: int = 0) -> Cohort:
        start = Shared(0, BASE, ROOT)
        return Cohort(RECIPE, self.trainer, Languages(), start, members, judges, seed=seed, memo=self.memo)

    def honest(self, *more: Member, **options: object) -> Cohort:
        return self.cohort(*(Member(name) for name in NAMES), *more, **options)


@pytest.fixture(scope="module")
def makes(trainer: Trainer, memo: Memo) -> Makes:
    return Makes(trainer, memo)


def lazy(bench: Workbench) -> Kept:
    """Half of the steps, and a statement of all of them."""
    tasks = RECIPE.tasks.model_copy(update={"steps": RECIPE.tasks.steps // 2})
    recipe = RECIPE.model_copy(update={"tasks": tasks})
    trained = replace(bench, recipe=recipe, window=2 * bench.window).train()
    return bench.state(trained.contribution.encode(), trained.after, trained.trace, 3)


def reason(window: Window, hotkey: str) -> Reason | None:
    verdict = window.judged["val"].verdicts.get(hotkey)
    return verdict.reason if verdict else None


def test_honest_miners_bring_the_loss_down_and_are_paid_alike(makes: Makes) -> None:
    cohort = makes.honest()
    windows = [cohort.step() for _ in range(6)]
    assert [window.window for window in windows] == list(range(6)) and cohort.shared.window == 6
    assert all(window.entered == window.made == set(NAMES) for window in windows)
    assert all(reason(window, name) is Reason.OK for window in windows for name in NAMES)
    assert windows[-1].loss < windows[0].loss - 0.1
    assert sum(windows[-1].weights.values()) == pytest.approx(1.0)
    assert windows[-1].shared.root == model_root(TINY, LAYOUT, cohort.shared.vector)


def test_the_seed_is_all_that_a_run_depends_on(trainer: Trainer, makes: Makes) -> None:
    fresh = Makes(trainer, Memo(1000))
    roots = [
        [cohort.step().shared.root for _ in range(2)]
        for cohort in (makes.honest(), fresh.honest(), makes.honest(seed=1))
    ]
    assert roots[0] == roots[1] and roots[0][0] != roots[2][0]


def test_buffers_go_on_from_what_entered(makes: Makes) -> None:
    said: list[Statement] = []

    def remembering(bench: Workbench) -> Kept:
        kept = honest(bench)
        said.append(Statement.parse(kept.statement))
        return kept

    cohort = makes.cohort(*(Member(name) for name in NAMES[:2]), Member("carol", remembering))
    cohort.step()
    assert "carol" in cohort.step().entered
    assert said[0].before is None and said[1].before == said[0].after

    cohort = makes.honest(Member("mallory", lazy))
    cohort.step()
    assert cohort._earlier("mallory") == (None, None), "what did not enter leaves no buffer to go on from"


def test_who_cheats_is_found_out_and_changes_nothing(makes: Makes) -> None:
    with_cheat, alone = makes.honest(Member("mallory", lazy)), makes.honest()
    for _ in range(3):
        window = with_cheat.step()
        assert reason(window, "mallory") is Reason.REPLAY and window.entered == set(NAMES)
        assert window.shared.root == alone.step().shared.root
    state = with_cheat.states["val"]["mallory"]
    assert state.rejects == 3 and "mallory" not in window.weights


def test_without_a_draw_the_same_cheat_enters(makes: Makes) -> None:
    window = makes.honest(Member("mallory", lazy), judges=[Judge("val", b"secret", rate=undrawn)]).step()
    assert "mallory" in window.entered and window.judged["val"].audited == set()
    copy = makes.honest(
        Member("mallory", lambda bench: honest(replace(bench, miner="alice"))),
        judges=[Judge("val", b"secret", rate=undrawn)],
    ).step()
    assert "mallory" not in copy.entered, "a statement in another's name"


def test_who_is_alike_is_audited_without_a_draw(makes: Makes) -> None:
    def copying(bench: Workbench) -> Kept:
        trained = replace(bench, miner="alice").train()
        return bench.state(trained.contribution.encode(), trained.after, trained.trace, len(trained.digests))

    window = makes.honest(Member("mallory", copying), judges=[Judge("val", b"secret", rate=undrawn)]).step()
    assert window.judged["val"].audited >= {"alice", "mallory"}
    assert reason(window, "alice") is Reason.OK and reason(window, "mallory") is Reason.COPY
    assert window.entered == set(NAMES)


def test_what_validators_do_not_find_is_absent(makes: Makes) -> None:
    def other(kept: Kept, size: int) -> Shown:
        found = decode(kept.payload, size)
        return Shown(kept.statement, replace(found, codes=found.codes ^ np.uint8(1)).encode())

    late = Member("late", shows=lambda kept, size: None)
    window = makes.honest(late, Member("other", shows=other)).step()
    assert window.made == {*NAMES, "late", "other"} and window.entered == set(NAMES)
    for hotkey in ("late", "other"):
        seen = window.judged["val"].seen(hotkey)
        assert (seen.outcome, seen.score) == (None, None)


def test_who_opens_nothing_loses_its_presence(makes: Makes) -> None:
    cohort = makes.cohort(Member("alice"), Member("bob"), Member("carol", opens=False))
    window = cohort.step()
    assert window.judged["val"].unopened == {"carol"} and window.entered == {"alice", "bob"}
    assert cohort.states["val"]["carol"].presence == 0.0 < cohort.states["val"]["alice"].presence


def test_a_miner_without_a_result_costs_only_itself(makes: Makes) -> None:
    def failing(bench: Workbench) -> Kept:
        raise FloatingPointError("the loss of step 3 is nan")

    cohort = makes.honest(Member("broken", failing))
    window = cohort.step()
    assert window.made == window.entered == set(NAMES) and "broken" not in cohort.states["val"]


def test_what_more_than_half_of_the_stake_accepts_enters(makes: Makes) -> None:
    def cohort(careless: int) -> Cohort:
        judges = [Judge("val", b"secret", stake=2), Judge("careless", b"other", careless, undrawn)]
        return makes.honest(Member("mallory", lazy), judges=judges)

    assert "mallory" not in cohort(2).step().entered
    outvoted = cohort(3)
    window = outvoted.step()
    assert "mallory" in window.entered and reason(window, "mallory") is Reason.REPLAY
    assert outvoted.states["val"]["mallory"].rejects == 1 and outvoted.states["careless"]["mallory"].rejects == 0
    paid = [outvoted.step() for _ in range(6)][-1].weights
    assert 0.0 < paid["mallory"] < paid["alice"], "only one of the two pays it"
    assert sum(paid.values()) == pytest.approx(1.0)


def test_a_validator_that_most_miners_contradict_says_nothing(makes: Makes) -> None:
    def elsewhere(bench: Workbench) -> Kept:
        trained = bench.train()
        payload = trained.contribution.encode()
        return bench.state(payload, trained.after, trained.trace, len(trained.digests), base="11" * 32)

    cohort = makes.cohort(Member("alice"), *(Member(name, elsewhere) for name in ("bob", "carol")))
    window = cohort.step()
    assert "another model" in window.judged["val"].blind and window.entered == set()
    assert window.shared.root == ROOT and window.shared.window == 1 and window.weights == {}
    assert cohort.states["val"]["bob"] == TrainState("bob", last_window=0)


def test_common_work_is_done_once(makes: Makes, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    taken = Trainer.step

    def counted(self: Trainer, state, ids, rate):  # type: ignore[no-untyped-def]
        steps.append(state.step)
        return taken(self, state, ids, rate)

    monkeypatch.setattr(Trainer, "step", counted)
    makes.honest(seed=5).step()
    assert len(steps) == 2 * len(NAMES) * RECIPE.tasks.steps, "each trains, and each is replayed"
    steps.clear()
    makes.honest(Member("dave"), seed=5).step()
    assert len(steps) == 2 * RECIPE.tasks.steps


def test_remembered_losses_are_the_trainers(trainer: Trainer) -> None:
    data, model = Languages(), torch.from_numpy(BASE)
    batches = [data.batch([(shard, 1), (shard, 2)], 16) for shard in range(3)]
    remembering = MemoLosses(trainer)
    assert remembering.losses(model, batches) == remembering.losses(model, batches) == trainer.losses(model, batches)
    assert remembering.losses(2 * model, batches) != trainer.losses(model, batches)


def test_a_memo_holds_what_was_used_last() -> None:
    memo, made = Memo(2), []

    def value(key: str) -> str:
        return memo.get(key, lambda: made.append(key) or key)

    assert [value(key) for key in ("a", "b", "a", "c", "a", "b")] == ["a", "b", "a", "c", "a", "b"]
    assert made == ["a", "b", "c", "b"]


# What a validator gets from a store


def test_only_what_was_promised_is_fetched(makes: Makes) -> None:
    cohort = makes.honest()
    kept = cohort._made(Member("alice"))
    assert kept is not None
    size, promised = LAYOUT.size, Manifest.of(kept.statement).cid
    shown = Shown(kept.statement, kept.payload)
    assert fetched(promised, shown, size) == shown and fetched(promised, None, size) is None
    assert fetched(CID, shown, size) is None and fetched(promised, Shown(kept.statement, b"x"), size) is None

    junk, vast = b"no statement", b"x" * (MAX_BYTES + 1)
    assert fetched(Manifest.of(junk).cid, Shown(junk, b"x"), size) == Shown(junk, b"")
    assert fetched(Manifest.of(vast).cid, Shown(vast, b"x"), size) is None
    long = kept.payload + b"\0"
    said = Statement.parse(kept.statement).model_copy(update={"payload": Manifest.of(long).cid}).encode()
    assert fetched(Manifest.of(said).cid, Shown(said, long), size) == Shown(said, b""), "shown, and too long to be read"


def test_buffers_are_opened_by_their_names(makes: Makes) -> None:
    kept = makes.honest()._made(Member("alice"))
    assert kept is not None
    said, size = Statement.parse(kept.statement), LAYOUT.size
    opened = opened_by(said, kept, size)
    assert opened is not None and not opened.before.any() and opened.after.tobytes() == kept.after
    assert opened_by(said, replace(kept, after=bytes(4 * size)), size) is None
    assert opened_by(said.model_copy(update={"before": CID}), kept, size) is None
    short = said.model_copy(update={"after": Manifest.of(b"12").cid})
    verdict = opened_by(short, replace(kept, after=b"12"), size)
    assert (verdict.outcome, verdict.reason) == (Outcome.REJECT, Reason.BUFFER)


def test_who_is_new_is_audited_and_who_is_trusted_less() -> None:
    assert unsecured(None, 5) == unsecured(TrainState("a", audits=8, last_answered=4), 5) == 1.0
    assert unsecured(TrainState("a", audits=16, last_answered=4), 5) == 0.5
    assert 0.1 < unsecured(TrainState("a", audits=10_000, last_answered=4), 5) < 0.2
