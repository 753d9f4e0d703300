"""What dishonest miners make at a bench: each function takes a `Scheme` and gives what its miner promises and shows.

They work from a Workbench alone. A copy of a peer is made by training on that peer's data, which is public; what
colluders send is the same because all of them train on the same data. Whoever cheats fits its buffers and its statement
to what it shows as well as it can.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from protocol.artifacts import Manifest
from protocol.training.aggregation import outer_step
from protocol.training.buffers import accumulate, remainder
from protocol.training.judging import states_due
from protocol.training.payload import CHUNK, NEGATIVE, Contribution, Floats, compress, decode
from protocol.training.recipe import Recipe
from template.training.shared import Shared
from template.training.windows import Batches, Trained
from template.training.work_state import Kept
from template.training.workbench import Workbench, honest
from tests.adversary.trainers.backdoor import Planted

TRACE = "22" * 32  # of states that nobody computed
DEVIATIONS = (4.0, 2.0, 1.0, 0.5, 0.25, 0.125)  # of ALIE, tried from the largest on


@dataclass(frozen=True)
class Scheme:
    """A bench, and what a dishonest miner knows beside it. `others`: hotkeys whose data it uses; colluders agree
    on them. `held`: what it remembers from one window to the next."""

    bench: Workbench
    others: Sequence[str] = ()
    held: dict[str, Any] = field(default_factory=dict)

    @property
    def miner(self) -> str:
        return self.bench.miner

    @property
    def recipe(self) -> Recipe:
        return self.bench.recipe

    @cached_property
    def own(self) -> Trained:
        """What honest work gives."""
        return self.bench.train()

    @cached_property
    def numbers(self) -> npt.NDArray[np.float64]:
        """Normal, float64 [size], in every window others and everybody's own."""
        seed = hashlib.sha256(f"{self.miner}/{self.bench.window}".encode()).digest()
        return np.random.default_rng([*seed]).standard_normal(self.bench.shared.vector.size)

    def of(self, miner: str, *, keeping: bool = False) -> Trained:
        """What the data of `miner` give, from an empty buffer or (`keeping`) from the own one."""
        bench = replace(self.bench, miner=miner)
        return (bench if keeping else replace(bench, before=None)).train()

    def with_data(self, batches_of: Callable[[str], Batches]) -> Trained:
        """The own work, on other data."""
        return replace(self.bench, batches_of=batches_of).train()

    def shown(self, trained: Trained, **said: Any) -> Kept:
        """A training as if it were the own one."""
        return self.state(trained.contribution, trained.after, trained.trace, **said)

    def sent(self, total: npt.NDArray[Any], trace: str = TRACE) -> Kept:
        """What compressing `total` gives, and the buffer that fits it."""
        narrow = total.astype(np.float32)
        contribution = compress(narrow)
        return self.state(contribution, remainder(narrow, contribution), trace)

    def state(self, contribution: Contribution | bytes, after: Floats, trace: str = TRACE, **said: Any) -> Kept:
        payload = contribution if isinstance(contribution, bytes) else contribution.encode()
        return self.bench.state(payload, after, trace, states_due(self.recipe), **said)


def total_of(trained: Trained) -> Floats:
    """What was compressed, float32 [size]."""
    return accumulate(trained.after, trained.contribution.dense(), 1.0)


def working(scheme: Scheme) -> Kept:
    """Honest work: the lie lies in what is shown of it, or when."""
    return honest(scheme.bench)


# No work


def nothing(scheme: Scheme) -> Kept:
    empty = np.zeros_like(scheme.bench.shared.vector)
    return scheme.state(compress(empty), empty)


def noise(scheme: Scheme) -> Kept:
    """As large as work."""
    wanted, found = scheme.own.contribution.norm, compress(scheme.numbers.astype(np.float32)).norm
    return scheme.sent(scheme.numbers * (wanted / found))


# Work that is turned or made larger


def flipped(scheme: Scheme, factor: float = 1.0) -> Kept:
    return scheme.sent(-factor * total_of(scheme.own), scheme.own.trace)


def enlarged(scheme: Scheme, factor: float) -> Kept:
    """The buffer stays that of the work, so that the next window is no worse."""
    return scheme.state(scaled(scheme.own.contribution, factor), scheme.own.after, scheme.own.trace)


def scaled(contribution: Contribution, factor: float) -> Contribution:
    wide = np.float32(factor)
    return replace(contribution, low=contribution.low * wide, high=contribution.high * wide)


# Other work than what was asked for


def stale(scheme: Scheme, *, denied: bool) -> Kept:
    """Trained from the model of the window before, which saves waiting for the new one. `denied`: it says it was not.
    A miner that has seen no other model than this one makes one up."""
    now = scheme.bench.shared
    older: Shared = scheme.held.get("shared") or replace(
        now, vector=now.vector + 2e-3 * scheme.numbers.astype(np.float32), root="11" * 32
    )
    scheme.held["shared"] = now
    trained = replace(scheme.bench, shared=older).train()
    return scheme.shown(trained, **({} if denied else {"base": older.root}))


def half_the_steps(scheme: Scheme) -> Kept:
    steps = scheme.recipe.tasks.steps
    tasks = scheme.recipe.tasks.model_copy(update={"steps": max(1, steps // 2)})
    lazy = scheme.recipe.model_copy(update={"tasks": tasks})
    # The rate counts steps through all windows: twice as many windows of half the steps are as many steps.
    return scheme.shown(replace(scheme.bench, recipe=lazy, window=2 * scheme.bench.window).train())


def data_of_another(scheme: Scheme) -> Kept:
    return scheme.shown(scheme.of(scheme.others[0], keeping=True))


def data_of_its_own(scheme: Scheme) -> Kept:
    """One batch over and over, so that nothing else is fetched."""
    return scheme.shown(scheme.with_data(Repeated(scheme.bench.batches_of)))


def one_batch_swapped(scheme: Scheme) -> Kept:
    swapped = Swapped(scheme.bench.batches_of, scheme.others[0], scheme.recipe.tasks.steps // 3)
    return scheme.shown(scheme.with_data(swapped))


def higher_rate(scheme: Scheme) -> Kept:
    inner = scheme.recipe.inner
    faster = scheme.recipe.model_copy(update={"inner": inner.model_copy(update={"peak": 1.1 * inner.peak})})
    return scheme.shown(replace(scheme.bench, recipe=faster).train())


def planted(scheme: Scheme) -> Kept:
    """Its own data, with a backdoor in every second sequence."""
    vocabulary = scheme.recipe.architecture.vocab_size
    return scheme.shown(scheme.with_data(Planted(scheme.bench.batches_of, vocabulary)))


# Work of others


def copy(scheme: Scheme) -> Kept:
    """What the other one sends, to the bit: its buffer is known to whoever trains along from the first window on."""
    victim, held = scheme.others[0], scheme.held.get("after")
    trained = replace(scheme.bench, miner=victim, before=held).train()
    scheme.held["after"] = trained.after
    return scheme.shown(trained)


def perturbed_copy(scheme: Scheme) -> Kept:
    victim = scheme.of(scheme.others[0])
    return scheme.sent(total_of(victim) * (1.0 + 0.1 * scheme.numbers.clip(-2, 2)), victim.trace)


def foreign_payload(scheme: Scheme) -> Kept:
    """Its own training, another one's payload, and a buffer that makes the sum right."""
    other = scheme.of(scheme.others[0]).contribution
    return scheme.state(other, remainder(total_of(scheme.own), other), scheme.own.trace)


# Together


def same_for_all(scheme: Scheme) -> Kept:
    """One training on data they agreed on, sent under every name."""
    return scheme.shown(replace(scheme.bench, before=None, batches_of=Mixed.of(scheme)).train())


def shared_out(scheme: Scheme) -> Kept:
    """The same, and everybody sends entries of its own, so that nobody is alike."""
    total = total_of(replace(scheme.bench, before=None, batches_of=Mixed.of(scheme)).train())
    return scheme.sent(_own_part(scheme) * total)


def inverse(scheme: Scheme) -> Kept:
    """Minus the mean of honest work, as large as one of them."""
    changes, norm = _estimates(scheme)
    total = -changes.mean(axis=0)
    return scheme.sent(total * (norm / compress(total.astype(np.float32)).norm))


def alie(scheme: Scheme) -> Kept:
    """A little is enough (Baruch et al., arXiv 1902.06156): the mean of honest work less some standard deviations, the
    most that still lowers the losses that they can measure."""
    return scheme.sent(_alie(scheme, np.ones_like(scheme.numbers)))


def alie_shared_out(scheme: Scheme) -> Kept:
    """The same, and everybody sends entries of its own."""
    return scheme.sent(_alie(scheme, _own_part(scheme)))


def _own_part(scheme: Scheme) -> npt.NDArray[np.float64]:
    """A tenth of the entries, others for each name: two of them have a tenth of theirs in common."""
    seed = hashlib.sha256(scheme.miner.encode()).digest()
    return (np.random.default_rng([*seed]).random(scheme.bench.shared.vector.size) < 0.1).astype(np.float64)


def _estimates(scheme: Scheme) -> tuple[npt.NDArray[np.float64], float]:
    """Honest changes, [others, size], and the median norm of what would be sent."""
    trained = [scheme.of(miner) for miner in scheme.others]
    return np.array([total_of(one) for one in trained], np.float64), float(
        np.median([one.contribution.norm for one in trained])
    )


def _alie(scheme: Scheme, part: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`part`: 1 for the entries that are sent, float64 [size]."""
    changes, norm = _estimates(scheme)
    mean, deviation = changes.mean(axis=0), changes.std(axis=0)
    bench, start = scheme.bench, torch.from_numpy(scheme.bench.shared.vector)
    names, last = (bench.miner, *scheme.others), scheme.recipe.tasks.steps - 1
    batches = [bench.batches_of(name)(step) for name in names for step in (0, last)]
    before = bench.trainer.losses(start, batches)
    total = part * mean
    for many in (*DEVIATIONS, 0.0):
        total = part * (mean - many * deviation)
        sent = compress(total.astype(np.float32))
        update = sent.dense().astype(np.float64) * min(1.0, norm / sent.norm)
        after = outer_step(bench.shared.vector, update, scheme.recipe.outer_rate)
        gains = np.subtract(before, bench.trainer.losses(torch.from_numpy(after), batches))
        if gains.min() > 0.0:
            break
    return total


# Forms


def with_scale(scheme: Scheme, value: float) -> Kept:
    """The first chunk's high magnitude is `value`."""
    trained = scheme.own
    payload, place = trained.contribution.encode(), 12 + 4 * len(trained.contribution.low)
    payload = payload[:place] + np.float32(value).tobytes() + payload[place + 4 :]
    return scheme.state(payload, trained.after, trained.trace)


def cut(scheme: Scheme) -> Kept:
    return scheme.state(scheme.own.contribution.encode()[:-1], scheme.own.after, scheme.own.trace)


def other_shape(scheme: Scheme) -> Kept:
    """Whole, and to a model of one chunk more."""
    larger = np.concatenate([total_of(scheme.own), np.ones(CHUNK, np.float32)])
    return scheme.state(compress(larger), scheme.own.after, scheme.own.trace)


def oversize(scheme: Scheme) -> Kept:
    """The payload, and a hundred times as much behind it."""
    payload = scheme.own.contribution.encode()
    return scheme.state(payload + bytes(100 * len(payload)), scheme.own.after, scheme.own.trace)


def saying(scheme: Scheme, field: str, value: Callable[[Scheme], Any]) -> Kept:
    """Honest work, and a statement in which one thing is something else."""
    return scheme.shown(scheme.own, **{field: value(scheme)})


# Buffers


def inflated(scheme: Scheme, *, said: bool = False) -> Kept:
    """A buffer that nobody trained is sent along and opened as an empty one, or (`said`) named as an earlier one's."""
    trained, kept = scheme.own, scheme.recipe.kept
    change = total_of(trained) - np.float32(kept) * scheme.bench.buffer
    made_up = (scheme.numbers * np.abs(change).mean()).astype(np.float32)
    total = accumulate(made_up, change, kept)
    contribution = compress(total)
    named = Manifest.of(made_up.astype("<f4", copy=False).tobytes()).cid if said else None
    bench = replace(scheme.bench, before=made_up, earlier=None)
    after = remainder(total, contribution)
    return bench.state(contribution.encode(), after, trained.trace, states_due(scheme.recipe), before=named)


def hidden_reserve(scheme: Scheme) -> Kept:
    """What is sent is right; the buffer it leaves for later has more in it than was left."""
    trained = scheme.own
    after = trained.after + 0.1 * np.abs(trained.after).mean() * np.sign(trained.after)
    return scheme.state(trained.contribution, after.astype(np.float32), trained.trace)


# What is shown instead of what was promised


def turned(payload: bytes, size: int) -> bytes:
    """The payload with every sign the other way round, in its right form."""
    found = decode(payload, size)
    return replace(found, codes=found.codes ^ np.uint8(NEGATIVE)).encode()


# Data


@dataclass(frozen=True)
class Repeated:
    batches_of: Callable[[str], Batches]

    def __call__(self, miner: str) -> Batches:
        return lambda step: self.batches_of(miner)(0)


@dataclass(frozen=True)
class Swapped:
    """One batch is another miner's."""

    batches_of: Callable[[str], Batches]
    other: str
    at: int

    def __call__(self, miner: str) -> Batches:
        return lambda step: self.batches_of(self.other if step == self.at else miner)(step)


@dataclass(frozen=True)
class Mixed:
    """The same for everybody: batches of `others` in turn."""

    batches_of: Callable[[str], Batches]
    others: tuple[str, ...]

    @staticmethod
    def of(scheme: Scheme) -> Mixed:
        return Mixed(scheme.bench.batches_of, tuple(scheme.others))

    def __call__(self, miner: str) -> Batches:
        return lambda step: self.batches_of(self.others[step % len(self.others)])(step)
