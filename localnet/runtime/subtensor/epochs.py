"""Epochs: gather what `localnet.rules.epoch` needs from storage, run it, and write down what it says.

One epoch per mechanism, each on its part of the emission; the results are combined and stored per uid. `run` returns
what every hotkey earned, which `localnet.runtime.subtensor.distribution` pays out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from localnet.codec.scale import compact, read_compact
from localnet.rules import coinbase, null_consensus
from localnet.rules import epoch as rules
from localnet.rules.weights import split_emission, storage_index
from localnet.runtime.framework import StorageMap
from localnet.runtime.subtensor import clock, commits, networks, staking, voting_power

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

T = TypeVar("T")


@dataclass(frozen=True)
class Earned:
    """What an epoch gives a hotkey, alpha-rao: for its work, and (as a proportion of the pool) for its stake."""

    hotkey: bytes
    server: int
    validator: int


def run(p: Subtensor, netuid: int, emission: int) -> list[Earned]:
    """All mechanisms' epochs on `emission` alpha; stored, and what each uid earned."""
    mechanisms = p.MechanismCountCurrent[netuid]
    parts = split_emission(emission, mechanisms, p.MechanismEmissionSplit[netuid])
    subnet = _subnet(p, netuid)
    results = []
    for mecid, part in enumerate(parts):
        result = _run_mechanism(p, netuid, mecid, _inputs(p, subnet, storage_index(netuid, mecid), part))
        _store_mechanism(p, storage_index(netuid, mecid), result)
        results.append(result)
    combined = results[0] if len(results) == 1 else rules.aggregate(results, parts)
    _store_subnet(p, netuid, combined)
    _update_voting_power(p, subnet, combined, mechanisms)
    earned = zip(subnet.hotkeys, combined.server_emission, combined.validator_emission, strict=True)
    return [Earned(hotkey, server, validator) for hotkey, server, validator in earned]


def _run_mechanism(p: Subtensor, netuid: int, mecid: int, inputs: rules.EpochInput) -> rules.EpochResult:
    if clock.decides_alone(p, netuid):
        return null_consensus.run_epoch(inputs)
    terms = rules.work_out(inputs)
    if p.watch_epoch is not None:
        p.watch_epoch(netuid, mecid, inputs, terms)
    return rules.result_of(inputs, terms)


# -- reading --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Subnet:
    """What all mechanisms of a subnet share."""

    netuid: int
    hotkeys: list[bytes]
    stake: list[int]
    registered_at: list[int]
    permits: list[bool]
    hyper: rules.EpochHyper
    owner_uid: int | None


def _fitted(values: Sequence[T], n: int, fill: T) -> list[T]:
    """A stored per-uid vector cut or filled to n entries."""
    return [*values, *[fill] * (n - len(values))][:n]


def hyperparameters(p: Subtensor, netuid: int) -> rules.EpochHyper:
    """What an epoch of this subnet reads."""
    tempo, (low, high) = p.Tempo[netuid], p.AlphaValues[netuid]
    return rules.EpochHyper(
        tempo=tempo,
        activity_cutoff=coinbase.activity_cutoff(p.ActivityCutoffFactorMilli[netuid], tempo),
        kappa=p.Kappa[netuid],
        max_validators=p.MaxAllowedValidators[netuid],
        stake_threshold=p.StakeThreshold.get(),
        bonds_moving_average=p.BondsMovingAverage[netuid],
        bonds_penalty=p.BondsPenalty[netuid],
        yuma3=p.Yuma3On[netuid],
        liquid_alpha=p.LiquidAlphaOn[netuid],
        alpha_low=low,
        alpha_high=high,
        steepness=p.AlphaSigmoidSteepness[netuid],
        consensus_mode=p.LiquidAlphaConsensusMode[netuid],
    )


def _subnet(p: Subtensor, netuid: int) -> _Subnet:
    n = p.SubnetworkN[netuid]
    hotkeys = [p.Keys[netuid, uid] for uid in range(n)]
    return _Subnet(
        netuid=netuid,
        hotkeys=hotkeys,
        stake=[weight for weight, _, _ in staking.inherited_weights(p, netuid, hotkeys)],
        registered_at=[p.BlockAtRegistration[netuid, uid] for uid in range(n)],
        permits=_fitted(p.ValidatorPermit[netuid], n, False),
        hyper=hyperparameters(p, netuid),
        owner_uid=networks.owner_uid(p, netuid),
    )


def _inputs(p: Subtensor, subnet: _Subnet, index: int, emission: int) -> rules.EpochInput:
    n = len(subnet.hotkeys)
    return rules.EpochInput(
        n=n,
        block=p.rt.number,
        emission=emission,
        stake=subnet.stake,
        last_update=_fitted(p.LastUpdate[index], n, 0),
        registered_at=subnet.registered_at,
        permits=subnet.permits,
        weights=_rows(p.Weights, index),
        bonds=_rows(p.Bonds, index),
        hyper=subnet.hyper,
        last_step=p.LastMechansimStepBlock[subnet.netuid],
        owner_uid=subnet.owner_uid,
        commit_blocks=_commit_blocks(p, subnet, index),
        previous_consensus=p.ConsensusByMechanism[index],
    )


def _rows(rows: StorageMap[Any], index: int) -> dict[int, rules.Row]:
    """uid -> its row as stored, without the length in front: pairs of u16 are read by the thousand."""
    return {uid: raw[read_compact(raw, 0)[1] :] for uid, raw in rows.raw_items(index)}


def _commit_blocks(p: Subtensor, subnet: _Subnet, index: int) -> dict[int, int]:
    """uid -> block of its earliest commit that can still be revealed; empty when weights are set openly."""
    netuid = subnet.netuid
    if not p.CommitRevealWeightsEnabled[netuid]:
        return {}
    uids = {hotkey: uid for uid, hotkey in enumerate(subnet.hotkeys)}
    found = [
        (who, block)
        for who, queue in p.WeightCommits.items(index)
        for _, epoch, block, _ in queue or ()
        if not commits.is_expired(p, netuid, epoch)
    ]
    for epoch, queue in p.TimelockedWeightCommits.items(index):
        if not commits.is_expired(p, netuid, epoch):
            found += [(who, block) for who, block, _, _ in queue]
    earliest: dict[int, int] = {}
    for who, block in found:
        if who in uids:
            uid = uids[who]
            earliest[uid] = min(block, earliest.get(uid, block))
    return earliest


# -- writing --------------------------------------------------------------------------------------------------------


def _store_mechanism(p: Subtensor, index: int, result: rules.EpochResult) -> None:
    p.Incentive[index] = list(result.incentive)
    p.ConsensusByMechanism[index] = list(result.consensus)
    p.emit("IncentiveAlphaEmittedToMiners", netuid=index, emissions=list(result.server_emission))
    for uid, row in result.bonds.items():
        p.Bonds.put_raw((index, uid), compact(len(row) // 4) + row)


def _store_subnet(p: Subtensor, netuid: int, result: rules.EpochResult) -> None:
    p.Active[netuid] = list(result.active)
    p.Emission[netuid] = list(result.emission)
    p.Consensus[netuid] = list(result.consensus)
    p.Dividends[netuid] = list(result.dividends)
    p.ValidatorTrust[netuid] = list(result.validator_trust)
    p.ValidatorPermit[netuid] = list(result.permits)
    p.StakeWeight[netuid] = list(result.stake_weight)


def _update_voting_power(p: Subtensor, subnet: _Subnet, result: rules.EpochResult, mechanisms: int) -> None:
    """A validator's stake weight counts once for each mechanism, as on chain."""
    if not p.VotingPowerTrackingEnabled[subnet.netuid]:
        return
    rows = list(zip(subnet.hotkeys, result.permits, subnet.stake, strict=True))
    validators = {hotkey: mechanisms * (stake >> 64) for hotkey, permit, stake in rows if permit}
    voting_power.update(p, subnet.netuid, validators, {hotkey for hotkey, permit, _ in rows if not permit})
