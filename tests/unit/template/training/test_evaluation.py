"""Losses tell work from its opposite and from nothing; an audit repeats the work."""

from __future__ import annotations

import numpy as np
import pytest

from protocol.artifacts import Manifest
from protocol.training.copies import compared_chunks
from protocol.training.judging import Due, Opened, Reason, Shown, judge_forms
from protocol.training.payload import compress
from protocol.training.recipe import Clock, Inner, Recipe, Tasks
from protocol.training.statement import Statement
from protocol.verdicts import Outcome
from template.training.checkpoint import build
from template.training.evaluation import ScoredBatches, audit, loss_scores
from template.training.inner import Trainer
from template.training.windows import Trained, train_window
from tests.support.training import TINY, VOCABULARY, genesis

CID = Manifest.of(b"one").cid
LAYOUT, BASE = genesis()
NOTHING = np.zeros_like(BASE)
RECIPE = Recipe(
    architecture=TINY, model="ab" * 32, model_file=CID, dataset=CID, clock=Clock(start=0),
    tasks=Tasks(steps=12, batch=4, length=16), inner=Inner(peak=1e-2, warmup=1), trace_every=4,
)  # fmt: skip


def data(rule: int):
    """Each rule is a language of its own: the next token is `rule` further."""

    def batch(step: int) -> np.ndarray:
        first = np.random.default_rng([rule, step]).integers(0, VOCABULARY, (4, 1))
        return (first + rule * np.arange(17)) % VOCABULARY

    return batch


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return Trainer(build(TINY), RECIPE.inner, profile="tolerant")


@pytest.fixture(scope="module")
def worked(trainer: Trainer) -> Trained:
    return train_window(trainer, BASE, NOTHING, data(3), RECIPE, 0)


def batches(_: str) -> ScoredBatches:
    return ScoredBatches([data(3)(step) for step in (2, 9)], [data(5)(step) for step in (2, 9)])


def test_work_lowers_the_loss_of_its_own_data_most(trainer: Trainer, worked: Trained) -> None:
    dense = worked.contribution.dense()
    noise = np.random.default_rng(0).standard_normal(LAYOUT.size).astype(np.float32) * np.abs(dense).mean()
    given = {
        "honest": worked.contribution,
        "opposite": compress(-dense),
        "huge": compress(100 * dense),
        "noise": compress(noise),
        "endless": compress(np.full(LAYOUT.size, 3e38, dtype=np.float32)),
    }
    scores = loss_scores(trainer, BASE, given, batches, RECIPE)
    assert scores["honest"].assigned > 0.02 and scores["honest"].assigned > scores["honest"].unassigned + 0.01
    assert scores["opposite"].assigned < 0 and not scores["opposite"].helps
    assert scores["noise"].assigned < 0.3 * scores["honest"].assigned
    assert not scores["endless"].helps
    assert loss_scores(trainer, BASE, {}, batches, RECIPE) == {}


def test_a_contribution_is_measured_at_its_own_length(trainer: Trainer, worked: Trained) -> None:
    """What is too large for the model does not help, whatever the others are."""
    dense = worked.contribution.dense()
    large = {name: compress(100 * dense) for name in "bcd"}
    scores = loss_scores(trainer, BASE, {"a": worked.contribution, **large}, batches, RECIPE)
    assert scores["a"].helps and not any(scores[name].helps for name in large)


def statement(trained: Trained, miner: str = "alice") -> Statement:
    return Statement(
        window=0, miner=miner, base="11" * 32, payload=CID, profile="tolerant", trace=trained.trace,
        states=len(trained.digests), before=None, after=CID,
    )  # fmt: skip


def test_forms_of_a_window_are_judged_together_and_copies_are_suspects(worked: Trained) -> None:
    due = Due(0, "11" * 32, LAYOUT.size, RECIPE)
    payload = worked.contribution.encode()
    shown = {
        "alice": Shown(statement(worked, "alice").encode(), payload),
        "thief": Shown(statement(worked, "thief").encode(), payload),
        "broken": Shown(statement(worked, "broken").encode(), payload[:-1]),
        "liar": Shown(statement(worked, "alice").encode(), payload),
    }
    forms = judge_forms(dict.fromkeys(shown, due), shown, compared_chunks(bytes(32), LAYOUT.size))
    assert set(forms.contributions) == set(forms.statements) == {"alice", "thief"}
    assert forms.alike == {"alice": ("thief",), "thief": ("alice",)}
    assert {hotkey: verdict.reason for hotkey, verdict in forms.verdicts.items()} == {
        "broken": Reason.PAYLOAD,
        "liar": Reason.STATEMENT,
    }


def test_a_copy_does_not_survive_a_replay_on_its_own_data(trainer: Trainer, worked: Trained) -> None:
    due = Due(0, "11" * 32, LAYOUT.size, RECIPE)
    opened = Opened(NOTHING, worked.after)
    verdict = audit(trainer, BASE, data(5), due, statement(worked, "thief"), worked.contribution, opened)
    assert (verdict.outcome, verdict.reason) == (Outcome.REJECT, Reason.REPLAY)


def test_an_audit_tells_honest_work_from_half_of_it(trainer: Trainer, worked: Trained) -> None:
    due = Due(0, "11" * 32, LAYOUT.size, RECIPE)
    opened = Opened(NOTHING, worked.after)
    honest = audit(trainer, BASE, data(3), due, statement(worked), worked.contribution, opened)
    assert honest.outcome is Outcome.ACCEPT, honest
    half = RECIPE.model_copy(update={"tasks": RECIPE.tasks.model_copy(update={"steps": 6})})
    lazy = train_window(trainer, BASE, NOTHING, data(3), half, 0)
    verdict = audit(trainer, BASE, data(3), due, statement(lazy), lazy.contribution, Opened(NOTHING, lazy.after))
    assert (verdict.outcome, verdict.reason) == (Outcome.REJECT, Reason.REPLAY)
