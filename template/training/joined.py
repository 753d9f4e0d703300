"""Inner training in several processes, with the interface of one `Trainer`: the subnet sees one miner.

    trainer = lead(team, recipe, device="cuda:0", threads=1, sharded=False)     the leader: a Trainer like another
    help_out(team, device, threads, stop)                                       a helper: until the leader is done

    JoinedTrainer     every process holds the model and passes its share of each batch; the leader holds the state,
                      sends the parameters out, gets the summed gradient back and takes the step
    ShardedTrainer    every process holds a part of model and state: template/training/sharded.py

A method whose name begins with `all_` runs in every process at the same time; the leader's public methods give the
order for one and take part in it. The loss of a share is weighed by its part of the batch, so the sum of the gradients
is the gradient of one process but for rounding, and a replay in one process is within the recipe's limit.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import numpy as np
import torch

from protocol.training.recipe import Inner, Recipe
from template.training.checkpoint import build
from template.training.distributed import STOP, Order, Team
from template.training.inner import Trainer, use_threads
from template.training.sharded import ShardedTrainer

log = logging.getLogger(__name__)


def lead(team: Team, recipe: Recipe, *, device: str, threads: int | None, sharded: bool) -> Trainer:
    """Waits until every helper has the model. Raises TeamLost and NoTeam."""
    team.order("begin", recipe.encode(), sharded=sharded)
    return _all_begin(team, recipe, device, threads, sharded)


def help_out(team: Team, device: str, threads: int | None, stop: threading.Event) -> None:
    """Do what the leader says until it says stop. Raises TeamLost and NoTeam."""
    trainer: JoinedTrainer | ShardedTrainer | None = None
    while (order := team.awaited(stop)).do != STOP:
        if order.do == "begin":
            trainer = None  # it goes before the next one comes
            trainer = _all_begin(team, Recipe.parse(order.data), device, threads, **order.said)
            log.info("process %d of %d is ready", team.rank, team.size)
        elif trainer is not None:
            trainer.take_part(order)


def _all_begin(
    team: Team, recipe: Recipe, device: str, threads: int | None, sharded: bool
) -> JoinedTrainer | ShardedTrainer:
    team.connect(torch.device(device).type)
    kind = ShardedTrainer if sharded else JoinedTrainer
    module = build(recipe.architecture)
    trainer = kind(module, recipe.inner, team=team, device=device, threads=threads, **recipe.precision)
    team.meet("built")
    return trainer


class JoinedTrainer(Trainer):
    """The whole model in every process. Steps raise TeamLost when the processes lose each other."""

    def __init__(self, module: Any, inner: Inner, *, team: Team, **options: Any) -> None:
        super().__init__(module, inner, **options)
        self._team = team
        self._received = None if team.leads else torch.empty(self.layout.size, device=self.device)

    def take_part(self, order: Order) -> None:
        """A helper's share of a step."""
        use_threads(self._threads)
        self._all_slope(self._received, order.ids())

    def _slope(self, parameters: torch.Tensor, ids: np.ndarray) -> tuple[float, torch.Tensor]:
        self._team.order_ids("slope", ids)
        return self._all_slope(parameters, ids)

    def _all_slope(self, parameters: torch.Tensor, ids: np.ndarray) -> tuple[float, torch.Tensor]:
        """The parameters come from the leader, the gradient to it."""
        self._team.from_leader(parameters)
        mine = ids[self._team.share(len(ids))]
        if len(mine):
            value, gradient = self._passes(parameters, mine, len(mine) / len(ids))
        else:
            value, gradient = 0.0, torch.zeros_like(parameters, dtype=self.precision.update)
        return self._team.total(value, self.device), self._team.summed(gradient)
