"""The block step: what the subnets do at the start of every block, before any extrinsic.

    registration prices decay -> the block's TAO is created -> timelocked weights whose pulse is there are opened ->
    subnets get their share, participants' alpha accrues -> subnets whose tempo is over run their epoch and pay out ->
    moving prices, root proportions -> pending children

Nothing in here fails a block. A block in which no epoch is due only touches the counters of each subnet and the pools
of those that emit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from localnet.rules import coinbase
from localnet.runtime.subtensor import (
    baskets,
    beta_index,
    children,
    clock,
    conviction,
    distribution,
    emission,
    networks,
    registration,
    timelocked,
)

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor


def run(p: Subtensor) -> None:
    every = networks.netuids(p)
    subnets = [netuid for netuid in every if netuid != networks.ROOT]
    for netuid in every:
        registration.at_block_start(p, netuid)
    block_tao = emission.mint(p)
    if timelocked.has_commits(p):
        _reveal_commits(p, subnets)
    baskets.forget_sales(p)
    emitting = [netuid for netuid in subnets if emission.eligible(p, netuid)]
    markets = emission.emit(p, emitting, block_tao)
    stepped = _run_epochs(p, subnets)
    baskets.deposit_next(p)
    emission.follow(p, markets)
    for netuid in stepped:
        children.apply_pending(p, netuid)
    beta_index.advance(p)


# -- epochs ---------------------------------------------------------------------------------------------------------


def _reveal_commits(p: Subtensor, subnets: Sequence[int]) -> None:
    """Open timelocked weights, but not of subnets whose epoch is due and put off to the next block."""
    left = clock.epochs_per_block(p, subnets)
    for netuid in subnets:
        due = clock.epoch_due(p, netuid)
        if due and left <= 0:
            continue
        left -= due and _has_distinct_hotkeys(p, netuid)
        timelocked.reveal_subnet(p, netuid)


def _run_epochs(p: Subtensor, subnets: Sequence[int]) -> list[int]:
    """Advance every subnet's clock; those whose epoch is due drain their pending alpha, then all of them pay out.

    Returns the subnets whose turn it was, those with an epoch that had to be skipped included.
    """
    cap, number = clock.epochs_per_block(p, subnets), p.rt.number
    stepped: list[int] = []
    drained: list[tuple[int, distribution.Pending]] = []
    for netuid in subnets:
        waited, tempo = p.BlocksSinceLastStep[netuid], p.Tempo[netuid]
        since = min(waited, tempo) + 1
        if since != waited:
            p.BlocksSinceLastStep[netuid] = since
        if not coinbase.epoch_due(tempo, number, p.LastEpochBlock[netuid], p.PendingEpochAt[netuid], since):
            continue
        if len(drained) >= cap:
            _defer(p, netuid)
            continue
        if _has_distinct_hotkeys(p, netuid):
            p.BlocksSinceLastStep[netuid] = 0
            drained.append((netuid, _drain(p, netuid)))
            conviction.change_owner(p, netuid)
        else:
            p.emit("EpochSkipped", netuid=netuid, block=number)
        stepped.append(netuid)
        p.LastEpochBlock[netuid] = number
        p.PendingEpochAt[netuid] = 0
        p.SubnetEpochIndex[netuid] = p.SubnetEpochIndex[netuid] + 1
    for netuid, pending in drained:
        distribution.run(p, netuid, pending)
        p.LastMechansimStepBlock[netuid] = number
    return stepped


def _defer(p: Subtensor, netuid: int) -> None:
    p.PendingEpochAt[netuid] = p.rt.number + 1
    p.emit("EpochDeferred", netuid=netuid, from_block=p.rt.number, to_block=p.rt.number + 1)


def _has_distinct_hotkeys(p: Subtensor, netuid: int) -> bool:
    hotkeys = [hotkey for _, hotkey in p.Keys.items(netuid)]
    return len(set(hotkeys)) == len(hotkeys)


def _drain(p: Subtensor, netuid: int) -> distribution.Pending:
    pending = distribution.Pending(
        server=p.PendingServerEmission[netuid],
        validator=p.PendingValidatorEmission[netuid],
        root=p.PendingRootAlphaDivs[netuid],
        owner=p.PendingOwnerCut[netuid],
    )
    for item in (p.PendingServerEmission, p.PendingValidatorEmission, p.PendingRootAlphaDivs, p.PendingOwnerCut):
        emission.put(item, netuid, 0)
    return pending
