"""Real trainings of a tiny model: whoever cheats in one step is found by bisection and blamed, and nobody else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol.artifacts import Manifest
from protocol.training.dispute import Answer, By, Claim, Terms, Wrong, settle
from protocol.training.recipe import Clock, Inner, Recipe, Tasks
from protocol.training.transcripts import Transcript, check
from template.artifacts.directory import DirectoryBackend
from template.artifacts.errors import ArtifactUnavailable
from template.artifacts.store import ArtifactLimits, ArtifactStore
from template.training.checkpoint import build
from template.training.inner import State, Trainer
from template.training.parties import NotShown, Own
from template.training.referee import Referee
from template.training.retrace import STATE_BYTES, Retrace, from_bytes, to_bytes
from template.training.windows import Batches, replay
from tests.support.training import TINY, VOCABULARY, genesis

CID = Manifest.of(b"one").cid
SIZE, BASE = genesis()[0].size, genesis()[1]
STEPS, WINDOW = 16, 2


def recipe(every: int = 1, profile: str = "tolerant") -> Recipe:
    return Recipe(
        architecture=TINY, model="ab" * 32, model_file=CID, dataset=CID, clock=Clock(start=0),
        tasks=Tasks(steps=STEPS, batch=4, length=16), inner=Inner(peak=1e-2, warmup=2), profile=profile,
        trace_every=every,
    )  # fmt: skip


def data(step: int) -> np.ndarray:
    first = np.random.default_rng([7, step]).integers(0, VOCABULARY, (4, 1))
    return (first + 3 * np.arange(17)) % VOCABULARY


def swapped(step: int) -> np.ndarray:
    return data(step if step != 7 else 99)


class Cheat(Trainer):
    """Takes step `at` otherwise than the rules say."""

    def __init__(self, at: int, how: Callable[[State, float], float | None], rule: Recipe) -> None:
        super().__init__(build(TINY), rule.inner, profile=rule.profile)
        self._at, self._how = at, how

    def step(self, state: State, ids: np.ndarray, rate: float) -> float:
        other = self._how(state, rate) if state.step == self._at else rate
        if other is None:
            state.step += 1
            return 0.0
        return super().step(state, ids, other)


def rounding(state: State, rate: float) -> float:
    """As on another machine: some last bits differ."""
    state.second.mul_(1 + 2e-7)
    return rate


def retrace(rule: Recipe, trainer: Trainer | None = None, batches: Batches = data) -> Retrace:
    return Retrace(trainer or honest(rule), BASE, batches, rule, WINDOW)


@lru_cache
def honest(rule: Recipe) -> Trainer:
    return Trainer(build(TINY), rule.inner, profile=rule.profile)


def terms(rule: Recipe) -> Terms:
    return Terms.of(rule, WINDOW, "alice", "22" * 32, honest(rule).start(BASE).digest())


@dataclass
class Bench:
    store: ArtifactStore
    told: list[str] = field(default_factory=list)

    def referee(self, rule: Recipe) -> Referee:
        return Referee(honest(rule), BASE, data, rule, terms(rule), self.store, self.told.append)

    async def settle(self, rule: Recipe, first: Any, second: Any) -> Transcript:
        parties = [await Own.of(one) if isinstance(one, Retrace) else one for one in (first, second)]
        found = await self.referee(rule).settle(*parties)
        assert check(found, lambda *_: True) == [] and Transcript.parse(found.encode()) == found
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(ArtifactStore(DirectoryBackend(tmp_path)))


def test_a_retrace_gives_the_digests_and_states_of_a_replay() -> None:
    rule = recipe(every=3)
    again = retrace(rule)
    digests = again.digests()
    assert digests == tuple(replay(honest(rule), BASE, data, rule, WINDOW)[1]) and len(digests) == 7
    for index in (6, 3, 4, 5, 0, 2):
        state = again.state(index)
        assert state.step == min(3 * index, STEPS) and state.digest() == digests[index]
        copied = from_bytes(to_bytes(state), state.step, SIZE)
        assert copied.digest() == digests[index] and len(to_bytes(state)) == STATE_BYTES * SIZE
    with pytest.raises(ValueError, match="no state"):
        from_bytes(bytes(STATE_BYTES * SIZE - 1), 0, SIZE)


async def test_honest_parties_have_nothing_to_settle(bench: Bench) -> None:
    found = await bench.settle(recipe(), retrace(recipe()), retrace(recipe()))
    assert found.wrong is Wrong.NEITHER and found.rounds == ()


CHEATS: dict[str, tuple[int, Callable[[Recipe], Retrace]]] = {
    "wrong batch": (7, lambda rule: retrace(rule, batches=swapped)),
    "higher rate": (4, lambda rule: retrace(rule, Cheat(4, lambda state, rate: 1.02 * rate, rule))),
    "skipped step": (11, lambda rule: retrace(rule, Cheat(11, lambda state, rate: None, rule))),
    "first step": (0, lambda rule: retrace(rule, Cheat(0, lambda state, rate: 2 * rate, rule))),
    "last step": (15, lambda rule: retrace(rule, Cheat(15, lambda state, rate: 2 * rate, rule))),
}


@pytest.mark.parametrize("name", CHEATS)
@pytest.mark.parametrize("first_cheats", [True, False])
async def test_one_wrong_step_is_found_and_blamed_on_who_took_it(bench: Bench, name: str, first_cheats: bool) -> None:
    rule, (at, cheat) = recipe(), CHEATS[name]
    parties = (cheat(rule), retrace(rule))
    found = await bench.settle(rule, *(parties if first_cheats else parties[::-1]))
    assert found.wrong is (Wrong.FIRST if first_cheats else Wrong.SECOND), found.why
    assert found.dispute.interval == (at, at + 1) and found.by is By.DIGESTS
    assert len(found.rounds) <= 6


@pytest.mark.parametrize("profile", ["tolerant", "exact"])
async def test_four_steps_between_digests_are_repeated_together(bench: Bench, profile: str) -> None:
    rule = recipe(every=4, profile=profile)
    found = await bench.settle(rule, retrace(rule, batches=swapped), retrace(rule))
    assert found.wrong is Wrong.FIRST and found.dispute.interval == (1, 2)
    assert any("steps 4 to 8" in told for told in bench.told)


@pytest.mark.parametrize("profile", ["tolerant", "exact"])
async def test_another_machine_is_not_blamed_and_does_not_hide_a_cheat(bench: Bench, profile: str) -> None:
    rule = recipe(profile=profile)
    size = {"tolerant": rounding, "exact": lambda state, rate: rate * (1 + 1e-9)}[profile]
    other = retrace(rule, Cheat(2, size, rule))
    found = await bench.settle(rule, other, retrace(rule))
    assert found.wrong is Wrong.NEITHER and found.by is By.STATES, found.why
    assert found.claims[0].trace != found.claims[1].trace

    both = retrace(rule, Cheat(2, size, rule), batches=swapped)
    found = await bench.settle(rule, both, retrace(rule))
    assert found.wrong is Wrong.FIRST and found.by is By.STATES and found.dispute.interval == (7, 8), found.why


async def test_two_who_cheat_in_the_same_step_are_both_blamed(bench: Bench) -> None:
    rule = recipe()
    cheats = [retrace(rule, batches=lambda step, n=n: data(step if step != 7 else 99 + n)) for n in range(2)]
    assert (await bench.settle(rule, *cheats)).wrong is Wrong.BOTH


@dataclass(frozen=True)
class Odd:
    """A party that shows something else than it should."""

    own: Own
    openings: Callable[[int, Answer], Answer] = lambda index, answer: answer
    states: Callable[[int, bytes], bytes] = lambda index, state: state

    @property
    def claim(self) -> Claim:
        return self.own.claim.model_copy(update={"hotkey": "alice-in-a-test"})

    async def opening(self, index: int) -> Answer:
        return self.openings(index, await self.own.opening(index))

    async def state(self, index: int) -> bytes:
        return self.states(index, await self.own.state(index))


def refuses(index: int, shown: Any) -> Any:
    raise NotShown(f"nothing of state {index}")


async def odd(bench: Bench, **ways: Any) -> Transcript:
    """A cheat at step 7 that is odd besides."""
    rule = recipe()
    own = await Own.of(retrace(rule, batches=swapped))
    return await bench.referee(rule).settle(Odd(own, **ways), await Own.of(retrace(rule)))


async def test_who_shows_nothing_or_something_else_is_absent(bench: Bench) -> None:
    def other(index: int, answer: Answer) -> Answer:
        return answer.model_copy(update={"digest": "55" * 32}) if index == 4 else answer

    for ways, told in (
        ({"openings": refuses}, "nothing of state 16"),
        ({"openings": other}, "not under its root"),
        ({"states": refuses}, "nothing of state 8"),
        ({"states": lambda index, state: state[:-1] + b"\x01"}, "not what it had committed to"),
        ({"states": lambda index, state: state + b"\x00"}, "not what it had committed to"),
    ):
        found = await odd(bench, **ways)
        assert (found.wrong, found.ruling.absent) == (Wrong.UNCHECKED, ("first",)), ways
        assert told in found.why, found.why
    assert (await odd(bench)).wrong is Wrong.FIRST


async def test_a_training_from_another_model_is_blamed_without_training(bench: Bench) -> None:
    rule = recipe()
    stale = Retrace(honest(rule), BASE + np.float32(1e-3), data, rule, WINDOW)
    found = await bench.settle(rule, stale, retrace(rule))
    assert found.wrong is Wrong.FIRST and found.reruns[0] is None and "another state" in found.why


async def test_a_training_without_a_result_is_nobodys_absence(bench: Bench) -> None:
    rule = recipe()
    parted = await bench.settle(rule, retrace(rule, batches=swapped), retrace(rule))
    broken = bench.referee(rule)

    class Wild(Trainer):
        def step(self, state: State, ids: np.ndarray, rate: float) -> float:
            raise FloatingPointError("the loss is nan")

    broken = replace(broken, trainer=Wild(build(TINY), rule.inner, profile=rule.profile))
    ruling = settle(parted.dispute, await broken.again(parted, fetch_from(bench.store)))
    assert (ruling.wrong, ruling.absent) == (Wrong.UNCHECKED, ()) and "no result" in ruling.why


def fetch_from(store: ArtifactStore) -> Any:
    return lambda cid, most: store.read(cid, ArtifactLimits(most, 10.0))


async def test_anybody_can_repeat_the_rerun_of_a_transcript(bench: Bench) -> None:
    rule = recipe()
    found = await bench.settle(rule, retrace(rule, batches=swapped), retrace(rule))
    again = await bench.referee(rule).again(found, fetch_from(bench.store))
    assert again == found.reruns

    async def nothing(cid: str, most: int) -> bytes:
        raise ArtifactUnavailable("gone")

    lost = await bench.referee(rule).again(found, nothing)
    assert settle(found.dispute, lost).wrong is Wrong.UNCHECKED
    lied = found.model_copy(update={"reruns": (found.reruns[1], found.reruns[0]), "wrong": Wrong.SECOND})
    assert any("follows" in problem for problem in check(lied, lambda *_: True))
