"""What contributions do to the loss, without a model: a quadratic in the step, with coefficients that follow the loss.

    model.scores(loss, shares, source, rng)      losses that validators would measure, (assigned, unassigned), by peer
    model.drop(loss, shares)                     by how much the step of the mean of these contributions lowers the loss
    model.alone(loss, shares)                    the same for each of them alone

Near the shared model the loss is a quadratic, and a contribution is what everybody's has in common plus what is its
own. A step of the mean of n honest contributions then lowers the loss by

    pull(x) - bend * pull(x) - scatter(y) / n,       x = loss - floor,  y = loss / start

its slope, its curvature along what is common, and the curvature across what is not, which averages out; `pull` and
`scatter` are powers, scale * x ** exponent. Of a contribution with a share s of the steps, what is common is
s ** partial of a whole one, and the scatter's energy is s ** partial_scatter. Noise has nothing in common with anything
and `noise` times the scatter. On the data that it was trained on a contribution does better by own(y) * s **
partial_own. Scores differ from these means by normal numbers: `spread` is a contribution's own, the same on both kinds
of data, the other two are those of the batches. All these are of a whole step; contributions are measured at a share of
it (aggregation.measured_factor), which multiplies slopes and differences, and curvatures by its square.

That is all there is of a model in the simulation. Its numbers are fitted (template/training/loss_fit.py), on losses
between those of the first and the last window that was run. A simulation that goes below them extrapolates, and no
learning rate falls in it.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from protocol.synapse import Message
from protocol.training.aggregation import measured_factor

Floats = npt.NDArray[np.float64]
NotNegative = Annotated[float, Field(ge=0.0)]

LEAST = 1e-3  # nats above the floor: there nothing is left to learn, and powers are still finite


class Power(Message):
    """scale * x ** exponent, in nats a token."""

    scale: NotNegative
    exponent: Annotated[float, Field(ge=-16.0, le=16.0)]

    def at(self, x: float) -> float:
        return self.scale * math.pow(x, self.exponent)


class LossModel(Message):
    """See above. `start`: the loss of a model that has learned nothing; losses are in nats a token."""

    start: Annotated[float, Field(gt=0.0)]
    floor: NotNegative
    pull: Power
    bend: NotNegative
    scatter: Power
    partial: NotNegative
    partial_scatter: NotNegative
    noise: NotNegative
    own: Power
    partial_own: NotNegative
    spread: NotNegative
    spread_assigned: NotNegative
    spread_unassigned: NotNegative

    def alone(self, loss: float, shares: Floats, length: float = 1.0) -> Floats:
        """Mean effect of each contribution alone; a share of 0 is noise. `shares`: [n]; `length`: share of the step."""
        pull, spoilt = self._at(loss)
        common, scatter = self.parts(shares)
        effect: Floats = length * pull * common - length**2 * (pull * self.bend * common**2 + spoilt * scatter)
        return effect

    def drop(self, loss: float, shares: Floats) -> float:
        """Of the loss, by the step that is the mean of contributions of these shares, [n]; 0 for none."""
        if not len(shares):
            return 0.0
        pull, spoilt = self._at(loss)
        common, scatter = self.parts(shares)
        along, across = float(common.mean()), float(scatter.mean()) / len(shares)
        return pull * (along - self.bend * along**2) - spoilt * across

    def scores(
        self, loss: float, shares: Floats, source: npt.NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        """(assigned, unassigned), [n] each. `shares`: of the steps that each peer did for itself, [n]; `source`: whose
        contribution it shows, [n], its own number when its own. A copy is as good as what it is of, and no better on
        the data of whoever shows it."""
        count = len(shares)
        length = measured_factor(count) if count else 1.0
        alone = self.alone(loss, shares, length) + length * self.spread * rng.standard_normal(count)
        own = length * self.own.at(loss / self.start) * shares**self.partial_own * (shares > 0.0)
        own = np.where(source == np.arange(count), own, 0.0)
        effect = alone[source]
        assigned: Floats = effect + own + length * self.spread_assigned * rng.standard_normal(count)
        unassigned: Floats = effect + length * self.spread_unassigned * rng.standard_normal(count)
        return assigned, unassigned

    def parts(self, shares: Floats) -> tuple[Floats, Floats]:
        """What is common and the scatter's energy, each relative to a whole contribution's, [n]."""
        works = shares > 0.0
        common: Floats = np.where(works, shares**self.partial, 0.0)
        scatter: Floats = np.where(works, shares**self.partial_scatter, self.noise)
        return common, scatter

    def _at(self, loss: float) -> tuple[float, float]:
        """The pull, and what the scatter of one contribution takes away."""
        return self.pull.at(max(LEAST, loss - self.floor)), self.scatter.at(loss / self.start)
