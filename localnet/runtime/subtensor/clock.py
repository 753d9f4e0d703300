"""The epoch clock: when a subnet's next epoch comes, and what its owner may do about it.

epoch_due, current_epoch    is it in this block, and what is the number of the epoch we are in
decides_alone, epochs_per_block    is its consensus Null, and how many epochs may a block run
trigger_epoch               one epoch ahead of time, announced by the freeze window
set_tempo, set_activity_cutoff_factor    do nothing any more: AdminUtils has calls that do
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from localnet.rules import coinbase
from localnet.runtime.framework import Origin, call
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


def decides_alone(p: Subtensor, netuid: int) -> bool:
    """Is the subnet's consensus Null, one validator's word, instead of Yuma's?

    As of spec 461 no call switches it: root writes SubnetEpochConsensus with System.set_storage.
    """
    return p.SubnetEpochConsensus[netuid] == "Null"


def epochs_per_block(p: Subtensor, subnets: Sequence[int]) -> int:
    """How many epochs this block runs at most; a block with a Null epoch that is due runs one."""
    most: int = p.MaxEpochsPerBlock.get()
    return min(most, 1) if any(decides_alone(p, netuid) and epoch_due(p, netuid) for netuid in subnets) else most


@call(ref_time=40_000_000)
def set_tempo(p: Subtensor, origin: Origin, netuid: int, tempo: int) -> None:
    """Succeeds, costs its fee and changes nothing: the chain kept the call for old clients."""


@call(ref_time=40_000_000)
def set_activity_cutoff_factor(p: Subtensor, origin: Origin, netuid: int, factor_milli: int) -> None:
    """Succeeds, costs its fee and changes nothing, as `set_tempo`."""


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
