"""A subnet's life as data: `SCENARIO`, named steps that any runtime is taken through.

Money, a subnet, its hyperparameters, neurons, stakes, takes, children, what neurons tell about themselves, weights set
openly, committed and revealed, several settings of consensus with epochs in between, stake moved and taken out,
mechanisms, root. What each step does is in acts.py.

A step that a runtime has no call for ends there (`NoForm`) and is reported as skipped; what it did until then stays. A
call that fails is no reason to stop: its error is part of what is compared.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from localnet.errors import LocalnetError
from localnet.rehearsal import acts
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
    Step("fund accounts", acts.fund),
    Step("transfer", acts.transfer),
    Step("found a subnet", acts.found),
    Step("set hyperparameters", acts.hyperparameters),
    Step("start the subnet", acts.start),
    Step("set what is left", acts.other_hyperparameters),
    Step("register neurons", acts.register),
    Step("stake", acts.stake),
    Step("set takes", acts.take),
    Step("give children", acts.children),
    Step("serve", acts.serve),
    Step("tell identities", acts.identities),
    Step("publish a commitment", acts.commitment),
    Step("set weights", acts.open_weights),
    *(Step(f"epochs: {name}", partial(acts.settings, hyper=hyper)) for name, hyper in acts.GRID.items()),
    Step("commit and reveal weights", acts.commit_reveal),
    Step("move stake", acts.move_stake),
    Step("remove stake", acts.remove_stake),
    Step("mechanisms", acts.mechanisms),
    Step("root", acts.root),
    Step("calls that fail", acts.bare_call),
)
