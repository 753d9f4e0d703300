"""A subnet's life as data: `SCENARIO`, named steps that any runtime is taken through.

Money, a subnet, its hyperparameters, neurons, stakes, takes, children, what neurons tell about themselves, weights set
openly, committed and revealed, several settings of consensus with epochs in between, stake moved and taken out,
mechanisms, root. What each step does is in steps.py.

A step that a runtime has no call for ends there (`NoForm`) and is reported as skipped; what it did until then stays. A
call that fails is no reason to stop: its error is part of what is compared.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from localnet.errors import LocalnetError
from localnet.rehearsal import steps as do
from localnet.rehearsal.stage import NoForm, Said, Stage

Act: TypeAlias = "Callable[[Stage], Awaitable[None]]"


@dataclass(frozen=True)
class Step:
    name: str
    act: Act


@dataclass(frozen=True)
class Played:
    """What became of a step. `skipped`: why a runtime could not go on with it; `broke`: what stopped the chain."""

    name: str
    said: tuple[Said, ...]
    skipped: str | None = None
    broke: str | None = None


async def perform(stage: Stage, steps: Sequence[Step] = (), played: list[Played] | None = None) -> list[Played]:
    """Play all steps in order; what each did, also put into `played` as it goes on. A chain that breaks (a block that
    cannot be built) ends the play."""
    played = [] if played is None else played
    for step in steps or SCENARIO:
        before, skipped, broke = len(stage.said), None, None
        stage.notes.step = step.name
        try:
            await step.act(stage)
        except NoForm as error:
            skipped = str(error)
        except LocalnetError as error:
            broke = f"{type(error).__name__}: {error}"
        played.append(Played(step.name, tuple(stage.said[before:]), skipped, broke))
        if broke is not None:
            break
    return played


SCENARIO: tuple[Step, ...] = (
    Step("fund accounts", do.fund),
    Step("transfer", do.transfer),
    Step("found a subnet", do.found),
    Step("set hyperparameters", do.hyperparameters),
    Step("start the subnet", do.start),
    Step("set what is left", do.other_hyperparameters),
    Step("register neurons", do.register),
    Step("stake", do.stake),
    Step("set takes", do.take),
    Step("give children", do.children),
    Step("serve", do.serve),
    Step("tell identities", do.identities),
    Step("publish a commitment", do.commitment),
    Step("set weights", do.open_weights),
    *(Step(f"epochs: {name}", partial(do.settings, hyper=hyper)) for name, hyper in do.GRID.items()),
    Step("commit and reveal weights", do.commit_reveal),
    Step("move stake", do.move_stake),
    Step("remove stake", do.remove_stake),
    Step("mechanisms", do.mechanisms),
    Step("root", do.root),
    Step("calls that fail", do.bare_call),
)
