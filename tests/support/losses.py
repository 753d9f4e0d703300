"""A loss model of round numbers, under which an honest contribution mostly helps and a half of one does too."""

from __future__ import annotations

from protocol.training.simulation.loss import LossModel, Power

LOSSES = LossModel(
    start=7.6,
    floor=2.5,
    pull=Power(scale=8e-4, exponent=3.75),
    bend=0.2,
    scatter=Power(scale=0.03, exponent=1.0),
    partial=0.6,
    partial_scatter=0.8,
    noise=1.2,
    own=Power(scale=0.03, exponent=-2.0),
    partial_own=1.0,
    spread=0.01,
    spread_assigned=0.016,
    spread_unassigned=0.013,
)
