"""The epoch clock: when a subnet's next epoch comes, and what its owner may do about it.

epoch_due, current_epoch    is it in this block, and what is the number of the epoch we are in
set_tempo                   a new length, counted from now
trigger_epoch               one epoch ahead of time, announced by the freeze window
set_activity_cutoff_factor  how many tempos a neuron may be silent
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from localnet.rules import coinbase
from localnet.runtime.framework import Origin, Root, call
from localnet.runtime.subtensor import limits, networks

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor


def epoch_due(p: Subtensor, netuid: int) -> bool:
    """Does the subnet's epoch belong to the current block (and has not run yet)?"""
    return coinbase.epoch_due(
        p.Tempo[netuid], p.rt.number, p.LastEpochBlock[netuid], p.PendingEpochAt[netuid], p.BlocksSinceLastStep[netuid]
    )


def current_epoch(p: Subtensor, netuid: int) -> int:
    """Number of the epoch that a commit made now belongs to: one ahead while this block's epoch has not run."""
    return int(p.SubnetEpochIndex[netuid]) + epoch_due(p, netuid)


def set_tempo_now(p: Subtensor, netuid: int, tempo: int) -> None:
    """A new tempo whose first cycle starts in this block."""
    p.Tempo[netuid] = tempo
    p.LastEpochBlock[netuid] = p.rt.number
    p.emit("TempoSet", netuid, tempo)


@call(ref_time=40_000_000)
def set_tempo(p: Subtensor, origin: Origin, netuid: int, tempo: int) -> None:
    owner = networks.ensure_owner(p, origin, netuid)
    constants = p.rt.document.constants
    if not constants[p.name, "MinTempo"] <= tempo <= constants[p.name, "MaxTempo"]:
        raise p.error("TempoOutOfBounds")
    limits.ensure_window_open(p, netuid)
    limits.TEMPO_UPDATE.ensure(p, owner, netuid)
    set_tempo_now(p, netuid, tempo)
    limits.TEMPO_UPDATE.record(p, owner, netuid)


@call(ref_time=40_000_000)
def set_activity_cutoff_factor(p: Subtensor, origin: Origin, netuid: int, factor_milli: int) -> None:
    """Root is bound by neither the freeze window nor the rate limit."""
    owner = None if isinstance(origin, Root) else networks.ensure_owner(p, origin, netuid)
    constants = p.rt.document.constants
    least = constants[p.name, "MinActivityCutoffFactorMilli"]
    if not least <= factor_milli <= constants[p.name, "MaxActivityCutoffFactorMilli"]:
        raise p.error("ActivityCutoffFactorMilliOutOfBounds")
    limit = limits.hyperparameter("ActivityCutoffFactorMilli")
    if owner is not None:
        limits.ensure_window_open(p, netuid)
        limit.ensure(p, owner, netuid)
        limit.record(p, owner, netuid)
    p.ActivityCutoffFactorMilli[netuid] = factor_milli
    p.emit("ActivityCutoffFactorMilliSet", netuid=netuid, factor_milli=factor_milli)


@call(ref_time=40_000_000)
def trigger_epoch(p: Subtensor, origin: Origin, netuid: int) -> None:
    owner = networks.ensure_owner(p, origin, netuid)
    if p.CommitRevealWeightsEnabled[netuid]:
        raise p.error("DynamicTempoBlockedByCommitReveal")
    if p.PendingEpochAt[netuid]:
        raise p.error("EpochTriggerAlreadyPending")
    window = p.AdminFreezeWindow.get()
    if coinbase.blocks_until_epoch(p.Tempo[netuid], p.rt.number, p.LastEpochBlock[netuid]) < window:
        raise p.error("AutoEpochAlreadyImminent")
    limit = limits.hyperparameter("TriggerEpoch")
    limit.ensure(p, owner, netuid)
    limit.record(p, owner, netuid)
    at = p.rt.number + window
    p.PendingEpochAt[netuid] = at
    p.emit("EpochTriggered", netuid=netuid, by=owner, fires_at=at)
