"""What people do on a subnet: ready-made functions for `Validator.weighing`, `World.moving` and `Entrant.wanted`.

    measuring, copying, cabal, self_weighting     weights of a validator
    once, stopping                                a validator that does its work at the start only
    drifting, shuffled                            how the worth of miners' work moves (without any it does not)
    swarm, newcomers                              who buys places

Each returns a function of the type named in `localnet.economy.world`; a scenario may as well write its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from localnet.economy.world import Floats, Market, Moving, View, Weighing

# -- validators -----------------------------------------------------------------------------------------------------


def measuring(noise: float = 0.05) -> Weighing:
    """Measure every miner's work and weigh it by its worth; relative error of a measurement: `noise`."""

    def weigh(view: View) -> Floats:
        error = view.rng.normal(0.0, noise, len(view.worth))
        measured: Floats = np.maximum(view.worth * (1.0 + error), 0.0)
        return measured

    return weigh


def copying(of: str | None = None) -> Weighing:
    """Measure nothing: take the weights that can be read on chain, of one validator or the stake-weighted mean of all
    others."""

    def weigh(view: View) -> Floats | None:
        total = np.zeros(len(view.neurons))
        for neuron, row in zip(view.neurons, view.public, strict=True):
            if row is None or neuron.uid == view.me.uid or (of is not None and neuron.name != of) or not row.any():
                continue
            total += neuron.stake * row / row.sum()
        return total if total.any() else None

    return weigh


def cabal(honest: Weighing | None = None) -> Weighing:
    """Weigh only the own party's miners, whatever they do; with `honest`, half of the weight goes by that."""

    def weigh(view: View) -> Floats:
        mine = np.array([one.party == view.me.party and one.stake == 0 for one in view.neurons], dtype=np.float64)
        fair = None if honest is None else honest(view)
        if fair is None or not fair.any():
            return mine
        both: Floats = mine / max(mine.sum(), 1.0) + fair / fair.sum()
        return both

    return weigh


def self_weighting() -> Weighing:
    """All weight on the own uid."""

    def weigh(view: View) -> Floats:
        row = np.zeros(len(view.neurons))
        row[view.me.uid] = 1.0
        return row

    return weigh


def once(weighing: Weighing, every: int | None = None) -> Weighing:
    """Do the work at the first epoch (and then every so many), and set the same weights again in between."""
    kept: dict[str, Floats] = {}

    def weigh(view: View) -> Floats | None:
        name = view.me.name
        due = view.epoch == 0 or (every is not None and view.epoch % every == 0)
        fresh = weighing(view) if due or name not in kept else None
        if fresh is not None:
            kept[name] = fresh
        if name not in kept:
            return None
        return np.append(kept[name], np.zeros(len(view.neurons) - len(kept[name])))

    return weigh


def stopping(weighing: Weighing, after: int) -> Weighing:
    """Set weights for so many epochs, then never again."""

    def weigh(view: View) -> Floats | None:
        return weighing(view) if view.epoch < after else None

    return weigh


# -- the worth of work ----------------------------------------------------------------------------------------------


def drifting(step: float = 0.1) -> Moving:
    """Each worth is multiplied with exp(normal(0, step)) an epoch; their mean stays."""

    def move(worth: Floats, epoch: int, rng: np.random.Generator) -> Floats:
        moved: Floats = worth * np.exp(rng.normal(0.0, step, len(worth)))
        total = moved.sum()
        return moved * (worth.sum() / total) if total > 0 else moved

    return move


def shuffled(every: int = 4) -> Moving:
    """Every so many epochs the worths are dealt anew among those who have any: miners overtake each other."""

    def move(worth: Floats, epoch: int, rng: np.random.Generator) -> Floats:
        if epoch == 0 or epoch % every:
            return worth
        moved: Floats = worth.copy()
        working = np.flatnonzero(worth)
        moved[working] = rng.permutation(worth[working])
        return moved

    return move


# -- places ---------------------------------------------------------------------------------------------------------


def swarm(horizon: int, at_once: int = 8, most: int = 10_000) -> Callable[[Market], int]:
    """Buy places while one costs less than it would earn in `horizon` epochs at the present income; at most `at_once`
    an epoch, reckoning with the price that each purchase leaves, and `most` in all."""

    def wanted(market: Market) -> int:
        affordable = market.income * horizon
        count, price = 0, market.price
        while count < at_once and market.held + count < most and price <= affordable:
            count, price = count + 1, price * market.factor
        return count

    return wanted


def newcomers(rate: float) -> Callable[[Market], int]:
    """On average so many an epoch, whatever it costs."""

    def wanted(market: Market) -> int:
        return int(market.rng.poisson(rate))

    return wanted
