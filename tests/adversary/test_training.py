"""What miners may show instead of honest work on a window, and how it ends: judged as a validator judges.

Five honest miners train the tiny model; two attackers of a kind come along, or one of each kind. Everything goes
through the real pipeline in its order: forms and likeness, losses, audits. Two things have to hold. Whoever is audited
meets the end that is written down here, and honest work is accepted. And if the draw passes everybody by, so that only
those who are alike are audited, no attack costs the model much.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
import torch

from protocol.artifacts import Manifest
from protocol.training.aggregation import aggregate, outer_step
from protocol.training.buffers import accumulate, remainder
from protocol.training.copies import compared_chunks
from protocol.training.judging import Due, Forms, Opened, Reason, Shown, Verdict, judge_forms, states_due
from protocol.training.payload import Contribution, Floats, compress
from protocol.training.ratings import LossScore
from protocol.training.recipe import Clock, Inner, Recipe, Tasks
from protocol.training.statement import Statement
from protocol.verdicts import Outcome
from template.training.checkpoint import build, model_root
from template.training.evaluation import ScoredBatches, audit, loss_scores
from template.training.inner import Trainer
from template.training.windows import Trained, train_window
from tests.support.training import TINY, VOCABULARY, genesis

CID = Manifest.of(b"one").cid
LAYOUT, BASE = genesis()
NOTHING = np.zeros_like(BASE)
ROOT = model_root(TINY, LAYOUT, BASE)
RECIPE = Recipe(
    architecture=TINY, model=ROOT, model_file=CID, dataset=CID, clock=Clock(start=0),
    tasks=Tasks(steps=20, batch=8, length=16), inner=Inner(peak=1e-2, warmup=1), trace_every=4,
)  # fmt: skip
DUE = Due(0, ROOT, LAYOUT.size, RECIPE)
HONEST = ("alice", "bob", "carol", "dave", "erin")
ATTACKERS = ("mallory", "trudy")
VICTIM = "alice"
COMMON = 1  # the language that everybody's data have in common


def rows(rules: tuple[int, ...], *seed: int) -> np.ndarray:
    """Each rule is a language of its own: the next token is `rule` further."""
    first = np.random.default_rng(seed).integers(0, VOCABULARY, (len(rules), 1))
    return (first + np.array(rules)[:, None] * np.arange(17)) % VOCABULARY


def own_rule(miner: str) -> int:
    return 3 + (*HONEST, *ATTACKERS, *ENDS).index(miner)


def data(miner: str) -> Callable[[int], np.ndarray]:
    rule = own_rule(miner)
    return lambda step: rows((*5 * (COMMON,), *3 * (rule,)), rule, step)


def scored(miner: str) -> ScoredBatches:
    others = [own_rule(other) for other in HONEST if other != miner]
    unassigned = [rows((*5 * (COMMON,), *others[number:][:3]), 1000, own_rule(miner), number) for number in range(2)]
    return ScoredBatches([data(miner)(step) for step in (2, 9)], unassigned)


@dataclass(frozen=True)
class Work:
    """What a miner shows, and opens when it is asked."""

    statement: bytes
    payload: bytes
    opened: Opened


@dataclass
class Kitchen:
    """Where attackers cook: a trainer, and what everybody's honest work would be."""

    trainer: Trainer
    _made: dict[str, Trained] = field(default_factory=dict)
    _audited: dict[tuple[str, bytes, bytes], Verdict] = field(default_factory=dict)

    def honest(self, miner: str) -> Trained:
        if miner not in self._made:
            self._made[miner] = self.train(miner)
        return self._made[miner]

    def train(
        self, miner: str, base: Floats = BASE, batches: Callable[[int], np.ndarray] | None = None, **changed: object
    ) -> Trained:
        """`changed`: fields of the recipe."""
        recipe = RECIPE.model_copy(update=changed)
        return train_window(self.trainer, base, NOTHING, batches or data(miner), recipe, 0)

    def audit(self, miner: str, work: Work, said: Statement, contribution: Contribution) -> Verdict:
        """Done once for the same work."""
        key = (miner, work.statement, contribution.encode())
        if miner not in HONEST or key not in self._audited:
            opened = work.opened
            self._audited[key] = audit(self.trainer, BASE, data(miner), DUE, said, contribution, opened)
        return self._audited[key]


def shown(
    miner: str,
    contribution: Contribution | bytes,
    after: Floats,
    trace: str = "22" * 32,
    opened_before: Floats = NOTHING,
    **changed: object,
) -> Work:
    """As a miner shows it; `changed`: what its statement says otherwise."""
    payload = contribution if isinstance(contribution, bytes) else contribution.encode()
    fields = {
        "window": 0, "miner": miner, "base": ROOT, "payload": Manifest.of(payload).cid, "profile": "tolerant",
        "trace": trace, "states": states_due(RECIPE), "before": None, "after": Manifest.of(after.tobytes()).cid,
    }  # fmt: skip
    return Work(Statement(**{**fields, **changed}).encode(), payload, Opened(opened_before, after))


def plain(miner: str, trained: Trained, **changed: object) -> Work:
    return shown(miner, trained.contribution, trained.after, trained.trace, **changed)


# Attacks: what a miner shows. Whoever cheats fits its buffers to it as well as it can.

Attack = Callable[[Kitchen, str], Work]


def drawn(miner: str) -> np.ndarray:
    """Normal numbers, everybody's own."""
    return np.random.default_rng([*miner.encode()]).standard_normal(LAYOUT.size)


def total_of(trained: Trained) -> Floats:
    """What was compressed: here the change that was trained, since all buffers are empty before."""
    return accumulate(trained.after, trained.contribution.dense(), 1.0)


def sent(miner: str, total: np.ndarray, trace: str, opened_before: Floats = NOTHING, **said: object) -> Work:
    contribution = compress(total.astype(np.float32))
    return shown(miner, contribution, remainder(total.astype(np.float32), contribution), trace, opened_before, **said)


def times(factor: float, kitchen: Kitchen, miner: str) -> Work:
    trained = kitchen.honest(miner)
    return sent(miner, factor * total_of(trained), trained.trace)


def noise(kitchen: Kitchen, miner: str) -> Work:
    trained, numbers = kitchen.honest(miner), drawn(miner)
    return sent(miner, numbers * np.linalg.norm(total_of(trained)) / np.linalg.norm(numbers), trained.trace)


def nothing(kitchen: Kitchen, miner: str) -> Work:
    return shown(miner, compress(NOTHING), NOTHING)


def stale(kitchen: Kitchen, miner: str, **said: object) -> Work:
    older = BASE + 1e-2 * drawn(miner).astype(np.float32)
    return plain(miner, kitchen.train(miner, base=older), **said)


def copy(kitchen: Kitchen, miner: str) -> Work:
    return plain(miner, kitchen.honest(VICTIM))


def perturbed_copy(kitchen: Kitchen, miner: str) -> Work:
    victim = kitchen.honest(VICTIM)
    return sent(miner, total_of(victim) * (1.0 + 0.1 * drawn(miner).clip(-2, 2)), victim.trace)


def half_the_steps(kitchen: Kitchen, miner: str) -> Work:
    lazy = kitchen.train(miner, tasks=RECIPE.tasks.model_copy(update={"steps": 10}))
    return plain(miner, lazy)


def data_of_another(kitchen: Kitchen, miner: str) -> Work:
    return plain(miner, kitchen.train(miner, batches=data(VICTIM)))


def one_batch_swapped(kitchen: Kitchen, miner: str) -> Work:
    own, others = data(miner), data(VICTIM)
    return plain(miner, kitchen.train(miner, batches=lambda step: others(step) if step == 7 else own(step)))


def higher_rate(kitchen: Kitchen, miner: str) -> Work:
    return plain(miner, kitchen.train(miner, inner=RECIPE.inner.model_copy(update={"peak": 1.1e-2})))


def with_scale(value: float, kitchen: Kitchen, miner: str) -> Work:
    """The first chunk's high magnitude is `value`."""
    trained = kitchen.honest(miner)
    payload, place = trained.contribution.encode(), 12 + 4 * len(trained.contribution.low)
    payload = payload[:place] + np.float32(value).tobytes() + payload[place + 4 :]
    return shown(miner, payload, trained.after, trained.trace)


def cut(kitchen: Kitchen, miner: str) -> Work:
    trained = kitchen.honest(miner)
    return shown(miner, trained.contribution.encode()[:-1], trained.after, trained.trace)


def saying(said: Mapping[str, object], kitchen: Kitchen, miner: str) -> Work:
    """Honest work, and a statement that is something else."""
    trained = kitchen.honest(miner)
    return shown(**{"miner": miner, "contribution": trained.contribution, "after": trained.after, **said})


def foreign_payload(kitchen: Kitchen, miner: str) -> Work:
    """Its own training, the victim's payload, and a buffer that makes the sum right."""
    trained, other = kitchen.honest(miner), kitchen.honest(VICTIM).contribution
    return shown(miner, other, remainder(total_of(trained), other), trained.trace)


def inflated(kitchen: Kitchen, miner: str, *, opens: bool = True, **said: object) -> Work:
    """A buffer that nobody trained is sent along, and opened as it is or as an empty one."""
    trained = kitchen.honest(miner)
    change = total_of(trained)
    before = (drawn(miner) * np.abs(change).mean()).astype(np.float32)
    total = accumulate(before, change, RECIPE.kept)
    return sent(miner, total, trained.trace, before if opens else NOTHING, **said)


def hidden_reserve(kitchen: Kitchen, miner: str) -> Work:
    """What is sent is right; the buffer it leaves for later has more in it than was left."""
    trained = kitchen.honest(miner)
    kept = trained.after + 0.1 * np.abs(trained.after).mean() * np.sign(trained.after)
    return shown(miner, trained.contribution, kept.astype(np.float32), trained.trace)


USELESS = "useless"  # it does not lower the losses, and so nobody votes for it
ENDS: dict[str, tuple[Attack, Reason | str]] = {
    "zero update": (nothing, Reason.EMPTY),
    "noise": (noise, USELESS),
    "sign flipped": (partial(times, -1.0), USELESS),
    "sign flipped, threefold": (partial(times, -3.0), USELESS),
    "hundredfold": (partial(times, 100.0), Reason.REPLAY),
    "out of all bounds": (partial(times, 1e30), Reason.REPLAY),
    "stale base": (partial(stale, base="11" * 32), Reason.STALE),
    "stale base, denied": (stale, Reason.REPLAY),
    "copy": (copy, Reason.REPLAY),
    "perturbed copy": (perturbed_copy, Reason.REPLAY),
    "half the steps": (half_the_steps, Reason.REPLAY),
    "another miner's data": (data_of_another, Reason.REPLAY),
    "one batch swapped": (one_batch_swapped, Reason.REPLAY),
    "higher learning rate": (higher_rate, Reason.REPLAY),
    "a scale that is no number": (partial(with_scale, float("nan")), Reason.PAYLOAD),
    "an infinite scale": (partial(with_scale, float("inf")), Reason.PAYLOAD),
    "wrong length": (cut, Reason.PAYLOAD),
    "another window": (partial(saying, {"window": 1}), Reason.STATEMENT),
    "another miner's name": (partial(saying, {"miner": VICTIM}), Reason.STATEMENT),
    "another profile": (partial(saying, {"profile": "exact"}), Reason.STATEMENT),
    "foreign payload, fitted buffer": (foreign_payload, Reason.SENT),
    "inflated buffer": (inflated, Reason.BUFFER),
    "inflated buffer, opened as empty": (partial(inflated, opens=False), Reason.REPLAY),
    "inflated buffer, said to be an earlier one": (partial(inflated, before=CID), Reason.BUFFER),
    "hidden reserve": (hidden_reserve, Reason.REPLAY),
}
ALIKE = {"copy", "perturbed copy", "another miner's data", "foreign payload, fitted buffer"}  # are always audited
CLIPPED = {"hundredfold", "out of all bounds"}
ONLY_DRAWN = CLIPPED | {  # they help, and nothing but an audit tells them from work
    "stale base, denied", "half the steps", "one batch swapped", "higher learning rate", "inflated buffer",
    "inflated buffer, opened as empty", "hidden reserve",
}  # fmt: skip
MUCH = 0.8  # of what honest miners alone gain is left when no attacker is drawn


# Judging


@dataclass(frozen=True)
class Judged:
    """`audits`: of everybody whose contribution helps, whether a validator would have drawn it or not."""

    forms: Forms
    scores: Mapping[str, LossScore]
    audits: Mapping[str, Verdict]

    def accepted(self, *, everybody: bool) -> dict[str, Contribution]:
        """What a validator votes for that audits everybody, or nobody but those who have to be."""
        bad = {
            hotkey
            for hotkey, verdict in self.audits.items()
            if verdict.outcome is not Outcome.ACCEPT and (everybody or hotkey in self.forms.alike)
        }
        found = self.forms.contributions.items()
        return {hotkey: one for hotkey, one in found if self.scores[hotkey].helps and hotkey not in bad}

    def end(self, hotkey: str) -> Reason | str:
        verdict = self.forms.verdicts.get(hotkey) or self.audits.get(hotkey)
        return verdict.reason if verdict else USELESS


def judge(kitchen: Kitchen, works: Mapping[str, Work]) -> Judged:
    """As a validator does it."""
    forms = judge_forms(
        dict.fromkeys(works, DUE),
        {hotkey: Shown(work.statement, work.payload) for hotkey, work in works.items()},
        compared_chunks(bytes(32), LAYOUT.size),
    )
    scores = loss_scores(kitchen.trainer, BASE, forms.contributions, scored, RECIPE)
    audits = {}
    for hotkey, contribution in forms.contributions.items():
        if scores[hotkey].helps:
            audits[hotkey] = kitchen.audit(hotkey, works[hotkey], forms.statements[hotkey], contribution)
    return Judged(forms, scores, audits)


def gain(kitchen: Kitchen, accepted: Mapping[str, Contribution]) -> float:
    """By how much the step lowers the loss on data that nobody trained on, in nats a token."""
    after = outer_step(BASE, aggregate(accepted), RECIPE.outer_rate)
    batches = [rows((*5 * (COMMON,), *3 * (own_rule(miner),)), 2000, number) for number, miner in enumerate(HONEST)]
    before, then = (kitchen.trainer.losses(torch.from_numpy(model), batches) for model in (BASE, after))
    return float(np.mean(before) - np.mean(then))


@pytest.fixture(scope="module")
def kitchen() -> Kitchen:
    return Kitchen(Trainer(build(TINY), RECIPE.inner, profile="tolerant", threads=1))


@pytest.fixture(scope="module")
def honest(kitchen: Kitchen) -> dict[str, Work]:
    return {miner: plain(miner, kitchen.honest(miner)) for miner in HONEST}


@pytest.fixture(scope="module")
def honest_gain(kitchen: Kitchen) -> float:
    return gain(kitchen, {miner: kitchen.honest(miner).contribution for miner in HONEST})


def test_honest_work_is_accepted_and_the_model_learns(
    kitchen: Kitchen, honest: dict[str, Work], honest_gain: float
) -> None:
    judged = judge(kitchen, honest)
    assert {hotkey: judged.end(hotkey) for hotkey in honest} == dict.fromkeys(HONEST, Reason.OK)
    assert set(judged.accepted(everybody=True)) == set(HONEST) and judged.forms.alike == {}
    assert all(score.assigned > score.unassigned for score in judged.scores.values())
    assert honest_gain > 0.05


@pytest.mark.parametrize("name", ENDS)
def test_an_attack_meets_its_end_and_no_honest_miner_with_it(
    name: str, kitchen: Kitchen, honest: dict[str, Work], honest_gain: float
) -> None:
    attack, end = ENDS[name]
    judged = judge(kitchen, {**honest, **{hotkey: attack(kitchen, hotkey) for hotkey in ATTACKERS}})
    ends = {hotkey: judged.end(hotkey) for hotkey in (*HONEST, *ATTACKERS)}
    assert ends == {**dict.fromkeys(HONEST, Reason.OK), **dict.fromkeys(ATTACKERS, end)}
    assert set(judged.accepted(everybody=True)) == set(HONEST)

    passed = judged.accepted(everybody=False)
    assert set(passed) == {*HONEST, *(ATTACKERS if name in ONLY_DRAWN else ())}
    assert gain(kitchen, passed) > MUCH * honest_gain
    assert (set(ATTACKERS) <= set(judged.forms.alike)) == (name in ALIKE)


@pytest.mark.parametrize("name", sorted(CLIPPED))
def test_what_is_too_large_does_no_more_than_plain_work_even_unaudited(
    name: str, kitchen: Kitchen, honest: dict[str, Work], honest_gain: float
) -> None:
    attack, _ = ENDS[name]
    judged = judge(kitchen, {**honest, **{hotkey: attack(kitchen, hotkey) for hotkey in ATTACKERS}})
    passed = judged.accepted(everybody=False)
    assert set(ATTACKERS) <= set(passed)
    assert np.linalg.norm(aggregate(passed)) < max(kitchen.honest(miner).contribution.norm for miner in HONEST)
    plainly = {**passed, **{hotkey: kitchen.honest(hotkey).contribution for hotkey in ATTACKERS}}
    assert gain(kitchen, passed) == pytest.approx(gain(kitchen, plainly), abs=0.05 * honest_gain)


def test_all_attacks_at_once_leave_the_model_what_honest_miners_made(
    kitchen: Kitchen, honest: dict[str, Work], honest_gain: float
) -> None:
    judged = judge(kitchen, {**honest, **{name: attack(kitchen, name) for name, (attack, _) in ENDS.items()}})
    assert {name: judged.end(name) for name in ENDS} == {name: end for name, (_, end) in ENDS.items()}
    audited, unlucky = judged.accepted(everybody=True), judged.accepted(everybody=False)
    assert set(audited) == set(HONEST) and gain(kitchen, audited) == honest_gain
    assert set(unlucky) == {*HONEST, *ONLY_DRAWN}
    assert gain(kitchen, unlucky) > MUCH * honest_gain
