"""What miners may show instead of honest work on a window, and how it ends: judged as a validator judges.

Five honest miners train the tiny model; two attackers of a kind come along, or one of each kind. Everything goes
through the real pipeline in its order: what can be fetched, forms and likeness, losses, audits. Two things have to
hold. Whoever is audited meets the end that the library says, and honest work is accepted. And if the draw passes
everybody by, so that only those who are alike are audited, no attack costs the model much.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from protocol.artifacts import Manifest
from protocol.training.aggregation import aggregate, outer_step
from protocol.training.copies import compared_chunks
from protocol.training.judging import (
    Due,
    Forms,
    Opened,
    Reason,
    Shown,
    Verdict,
    among_alike,
    judge_forms,
)
from protocol.training.payload import Contribution, decode
from protocol.training.ratings import LossScore
from protocol.training.recipe import Clock, Inner, Recipe, Tasks
from protocol.training.statement import Statement
from protocol.verdicts import Outcome
from template.training.checkpoint import build, model_root
from template.training.cohort import fetched, opened_by
from template.training.evaluation import ScoredBatches, audit, loss_scores
from template.training.inner import Trainer
from template.training.memo import Memo, MemoBench
from template.training.shared import Shared
from template.training.work_state import Kept
from template.training.workbench import honest as honest_work
from tests.adversary.trainers import ATTACKS, Attack, End, Reveals, backdoor_loss
from tests.adversary.trainers.making import turned
from tests.support.training import TINY, VOCABULARY, genesis

CID = Manifest.of(b"one").cid
LAYOUT, BASE = genesis()
ROOT = model_root(TINY, LAYOUT, BASE)
RECIPE = Recipe(
    architecture=TINY, model=ROOT, model_file=CID, dataset=CID, clock=Clock(start=0),
    tasks=Tasks(steps=20, batch=8, length=16), inner=Inner(peak=1e-2, warmup=1), trace_every=4,
)  # fmt: skip
DUE = Due(0, ROOT, LAYOUT.size, RECIPE)
HONEST = ("alice", "bob", "carol", "dave", "erin")
ATTACKERS = ("mallory", "trudy")
VICTIMS = ("alice", "bob")
COMMON = 1  # the language that everybody's data have in common
MUCH = 0.8  # of what honest miners alone gain is left when no attacker is drawn


def rows(rules: tuple[int, ...], *seed: int) -> np.ndarray:
    """Each rule is a language of its own: the next token is `rule` further."""
    first = np.random.default_rng(seed).integers(0, VOCABULARY, (len(rules), 1))
    return (first + np.array(rules)[:, None] * np.arange(17)) % VOCABULARY


def own_rule(miner: str) -> int:
    return 3 + (*HONEST, *ATTACKERS, *ATTACKS).index(miner)


def data(miner: str) -> Callable[[int], np.ndarray]:
    rule = own_rule(miner)
    return lambda step: rows((*5 * (COMMON,), *3 * (rule,)), rule, step)


def scored(miner: str) -> ScoredBatches:
    others = [own_rule(other) for other in HONEST if other != miner]
    unassigned = [rows((*5 * (COMMON,), *others[number:][:3]), 1000, own_rule(miner), number) for number in range(2)]
    return ScoredBatches([data(miner)(step) for step in (2, 9)], unassigned)


@dataclass(frozen=True)
class Work:
    """What a miner made of the window, and how it goes about it; None for an honest one."""

    kept: Kept
    attack: Attack | None = None


@dataclass
class Kitchen:
    """Where everybody works: a trainer, and what was trained before."""

    trainer: Trainer
    memo: Memo = field(default_factory=lambda: Memo(1000))

    def bench(self, miner: str) -> MemoBench:
        return MemoBench(miner, 0, RECIPE, Shared(0, BASE, ROOT), self.trainer, data, memo=self.memo)

    def honest(self, miner: str) -> Contribution:
        return self.bench(miner).train().contribution

    def attacks(self, attackers: Mapping[str, Attack]) -> dict[str, Work]:
        return {miner: Work(attack.armed(VICTIMS)(self.bench(miner)), attack) for miner, attack in attackers.items()}

    def audit(self, miner: str, said: Statement, contribution: Contribution, opened: Opened) -> Verdict:
        def done() -> Verdict:
            return audit(self.trainer, BASE, data(miner), DUE, said, contribution, opened)

        key = ("audit", said.encode(), contribution.encode(), opened.before.tobytes(), opened.after.tobytes())
        return self.memo.get(key, done)


# Judging


@dataclass(frozen=True)
class Judged:
    """`audits`: of everybody whose contribution helps, whether a validator would have drawn it or not. `unopened`: of
    these, those who opened nothing."""

    forms: Forms
    scores: Mapping[str, LossScore]
    audits: Mapping[str, Verdict]
    unopened: frozenset[str]

    def accepted(self, *, everybody: bool) -> dict[str, Contribution]:
        """What a validator votes for that audits everybody, or nobody but those who have to be."""
        failed = {hotkey for hotkey, verdict in self.audits.items() if verdict.outcome is not Outcome.ACCEPT}
        bad = {hotkey for hotkey in failed | self.unopened if everybody or hotkey in self.forms.alike}
        found = self.forms.contributions.items()
        return {hotkey: one for hotkey, one in found if self.scores[hotkey].helps and hotkey not in bad}

    def end(self, hotkey: str) -> Reason | End:
        verdict = self.forms.verdicts.get(hotkey) or self.audits.get(hotkey)
        if verdict is not None:
            return verdict.reason
        return End.USELESS if hotkey in self.scores and hotkey not in self.unopened else End.ABSENT


def judge(kitchen: Kitchen, works: Mapping[str, Work]) -> Judged:
    """As a validator does it."""
    shown = {}
    for hotkey, work in works.items():
        lies = work.attack.shown(work.kept, LAYOUT.size) if work.attack else shown_by(work.kept)
        found = fetched(Manifest.of(work.kept.statement).cid, lies, LAYOUT.size)
        if found is not None:
            shown[hotkey] = found
    forms = judge_forms(dict.fromkeys(shown, DUE), shown, compared_chunks(bytes(32), LAYOUT.size))
    scores = loss_scores(kitchen.trainer, BASE, forms.contributions, scored, RECIPE)
    audits, unopened = {}, set()
    for hotkey, contribution in forms.contributions.items():
        if not scores[hotkey].helps:
            continue
        work, said = works[hotkey], forms.statements[hotkey]
        opened = opened_by(said, work.kept, LAYOUT.size) if not work.attack or work.attack.opens else None
        if isinstance(opened, Opened):
            verdict = kitchen.audit(hotkey, said, contribution, opened)
            audits[hotkey] = among_alike(verdict, forms.alike.get(hotkey, ()))
        elif opened is None:
            unopened.add(hotkey)
        else:
            audits[hotkey] = opened
    return Judged(forms, scores, audits, frozenset(unopened))


def shown_by(kept: Kept) -> Shown:
    return Shown(kept.statement, kept.payload)


def gain(kitchen: Kitchen, accepted: Mapping[str, Contribution]) -> float:
    """By how much the step lowers the loss on data that nobody trained on, in nats a token."""
    batches = [rows((*5 * (COMMON,), *3 * (own_rule(miner),)), 2000, number) for number, miner in enumerate(HONEST)]
    before, then = (kitchen.trainer.losses(torch.from_numpy(model), batches) for model in (BASE, after(accepted)))
    return float(np.mean(before) - np.mean(then))


def after(accepted: Mapping[str, Contribution]) -> np.ndarray:
    return outer_step(BASE, aggregate(accepted), RECIPE.outer_rate)


@pytest.fixture(scope="module")
def kitchen() -> Kitchen:
    return Kitchen(Trainer(build(TINY), RECIPE.inner, profile="tolerant", threads=1))


@pytest.fixture(scope="module")
def honest(kitchen: Kitchen) -> dict[str, Work]:
    return {miner: Work(honest_work(kitchen.bench(miner))) for miner in HONEST}


@pytest.fixture(scope="module")
def honest_gain(kitchen: Kitchen) -> float:
    return gain(kitchen, {miner: kitchen.honest(miner) for miner in HONEST})


def both(name: str) -> dict[str, Attack]:
    return dict.fromkeys(ATTACKERS, ATTACKS[name])


def ends_of(attack: Attack) -> set[Reason | End]:
    return {attack.end, Reason.REPLAY} if attack.lucky else {attack.end}


def test_honest_work_is_accepted_and_the_model_learns(
    kitchen: Kitchen, honest: dict[str, Work], honest_gain: float
) -> None:
    judged = judge(kitchen, honest)
    assert {hotkey: judged.end(hotkey) for hotkey in honest} == dict.fromkeys(HONEST, Reason.OK)
    assert set(judged.accepted(everybody=True)) == set(HONEST) and judged.forms.alike == {}
    assert all(score.assigned > score.unassigned for score in judged.scores.values())
    assert honest_gain > 0.05


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_meets_its_end_and_no_honest_miner_with_it(
    name: str, kitchen: Kitchen, honest: dict[str, Work], honest_gain: float
) -> None:
    attack = ATTACKS[name]
    judged = judge(kitchen, {**honest, **kitchen.attacks(both(name))})
    ends = {hotkey: judged.end(hotkey) for hotkey in (*HONEST, *ATTACKERS)}
    assert all(ends.pop(hotkey) is Reason.OK for hotkey in HONEST)
    assert set(ends.values()) <= ends_of(attack) and (attack.lucky or len(set(ends.values())) == 1)
    assert set(judged.accepted(everybody=True)) == set(HONEST)

    passed, alike = judged.accepted(everybody=False), attack.alike or attack.together
    assert {*HONEST, *(ATTACKERS if attack.passes else ())} <= set(passed)
    assert attack.passes or attack.lucky or set(passed) == set(HONEST)
    assert gain(kitchen, passed) > MUCH * honest_gain
    assert (set(ATTACKERS) <= set(judged.forms.alike)) == alike


def test_what_is_too_large_does_no_more_than_plain_work_even_unaudited(
    kitchen: Kitchen, honest: dict[str, Work], honest_gain: float
) -> None:
    passed = judge(kitchen, {**honest, **kitchen.attacks(both("x2"))}).accepted(everybody=False)
    assert set(ATTACKERS) <= set(passed)
    assert np.linalg.norm(aggregate(passed)) < max(kitchen.honest(miner).norm for miner in HONEST)
    plainly = {**passed, **{hotkey: kitchen.honest(hotkey) for hotkey in ATTACKERS}}
    assert gain(kitchen, passed) == pytest.approx(gain(kitchen, plainly), abs=0.05 * honest_gain)


@pytest.mark.parametrize("name", ["x100", "out of all bounds"])
def test_what_is_far_too_large_passes_in_no_company(name: str, kitchen: Kitchen, honest: dict[str, Work]) -> None:
    """Where cheats are half of those who show something, the median norm is theirs."""
    few = {hotkey: honest[hotkey] for hotkey in HONEST[: len(ATTACKERS)]}
    judged = judge(kitchen, {**few, **kitchen.attacks(both(name))})
    assert set(judged.accepted(everybody=False)) == set(few)


def test_all_attacks_at_once_leave_the_model_what_honest_miners_made(
    kitchen: Kitchen, honest: dict[str, Work], honest_gain: float
) -> None:
    judged = judge(kitchen, {**honest, **kitchen.attacks(ATTACKS)})
    for name, attack in ATTACKS.items():
        assert judged.end(name) in ends_of(attack) | ({Reason.REPLAY} if attack.together else set()), name
    audited, unlucky = judged.accepted(everybody=True), judged.accepted(everybody=False)
    assert set(audited) == set(HONEST) and gain(kitchen, audited) == honest_gain
    alone = {name for name, attack in ATTACKS.items() if attack.lucky or attack.together}  # may or may not pass
    assert set(unlucky) - alone == {*HONEST, *(name for name, attack in ATTACKS.items() if attack.passes)}
    assert gain(kitchen, unlucky) > MUCH * honest_gain


def test_a_payload_that_a_fitted_buffer_explains_is_not_what_should_have_been_sent(
    kitchen: Kitchen, honest: dict[str, Work]
) -> None:
    judged = judge(kitchen, {**honest, **kitchen.attacks(both("foreign payload"))})
    assert all("what was sent is" in judged.audits[hotkey].detail for hotkey in ATTACKERS)


def test_a_buffer_is_empty_when_the_statement_says_so(kitchen: Kitchen) -> None:
    (work,) = kitchen.attacks({"mallory": ATTACKS["inflated buffer"]}).values()
    said = Statement.parse(work.kept.statement)
    opened = Opened(
        *(np.frombuffer(data or b"", "<f4").astype(np.float32) for data in (work.kept.before, work.kept.after))
    )
    assert said.before is None and opened.before.any()
    verdict = kitchen.audit("mallory", said, decode(work.kept.payload, LAYOUT.size), opened)
    assert verdict.reason is Reason.BUFFER


def test_a_backdoor_gets_into_the_model_only_when_nobody_is_drawn(kitchen: Kitchen, honest: dict[str, Work]) -> None:
    judged = judge(kitchen, {**honest, **kitchen.attacks(both("backdoor"))})
    clean, spoiled = (after(judged.accepted(everybody=everybody)) for everybody in (True, False))
    losses = [
        backdoor_loss(kitchen.trainer, model, rows((COMMON,) * 8, 3000), VOCABULARY) for model in (clean, spoiled)
    ]
    assert losses[1] < losses[0]


# What the library itself promises


def test_another_payload_is_in_its_right_form_and_has_another_name(honest: dict[str, Work]) -> None:
    kept = honest["alice"].kept
    other = turned(kept.payload, LAYOUT.size)
    assert np.array_equal(decode(other, LAYOUT.size).values(), -decode(kept.payload, LAYOUT.size).values())
    shown = ATTACKS["other than committed"].shown(kept, LAYOUT.size)
    assert (
        shown == Shown(kept.statement, other) and fetched(Manifest.of(kept.statement).cid, shown, LAYOUT.size) is None
    )


def test_who_uses_others_is_told_whose_data(kitchen: Kitchen) -> None:
    for attack in ATTACKS.values():
        if attack.others:
            with pytest.raises(ValueError, match="data of"):
                attack.armed(VICTIMS[: attack.others - 1])
    assert {attack.reveals for attack in ATTACKS.values()} == set(Reveals)


def test_a_copy_follows_the_buffer_of_its_victim(kitchen: Kitchen) -> None:
    """In the second window it sends to the bit what its victim sends."""
    make = ATTACKS["copy"].armed(VICTIMS)
    make(kitchen.bench("mallory"))
    first = honest_work(kitchen.bench("alice"))
    later = replace(kitchen.bench("alice"), window=1, before=kitchen.bench("alice").train().after)
    second = replace(later, earlier=Statement.parse(first.statement))
    assert make(replace(kitchen.bench("mallory"), window=1)).payload == honest_work(second).payload
