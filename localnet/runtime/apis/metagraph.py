"""SubnetInfoRuntimeApi, metagraphs: a subnet and everyone on it in one record.

`FIELDS` says, field by field, where a value comes from, in the order of the record, which is also the numbering of
`get_selective_metagraph`. A whole metagraph asks for all fields up to 71 plus the collateral; a selective one for the
fields named, the others stay None. A `_View` computes what several fields share (members, stake weights) once.

A mechagraph is the metagraph of one mechanism: the same record with the mechanism's storage index as netuid, and the
incentives and last updates kept under that index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from localnet.codec.scale import Some
from localnet.rules.weights import storage_index
from localnet.runtime.apis import common
from localnet.runtime.apis.names import subnet_name
from localnet.runtime.apis.registry import api
from localnet.runtime.subtensor import staking

if TYPE_CHECKING:
    from localnet.runtime.runtime import SpecRuntime


class _View:
    """One subnet while its metagraph is put together."""

    def __init__(self, rt: SpecRuntime, netuid: int) -> None:
        self.rt, self.p, self.netuid = rt, rt.subtensor, netuid

    @cached_property
    def members(self) -> common.Members:
        return common.members(self.p, self.netuid)

    @cached_property
    def weights(self) -> list[tuple[int, int, int]]:
        """(total in I64F64, alpha, root TAO), children and parents counted, by uid."""
        return staking.inherited_weights(self.p, self.netuid, self.members.hotkeys)

    @cached_property
    def collateral(self) -> list[dict[str, Any] | None]:
        """What each miner's owner has locked as registration collateral."""
        p = self.p
        if next(iter(p.MinerCollateral.keys(self.netuid)), None) is None:
            return [None] * len(self.members.hotkeys)
        pairs = zip(self.members.hotkeys, self.members.coldkeys, strict=True)
        return [p.MinerCollateral[self.netuid, hotkey, coldkey] for hotkey, coldkey in pairs]

    def stored(self, item: str) -> Any:
        return getattr(self.p, item)[self.netuid]

    def per_hotkey(self, item: str, absent: Any) -> list[Any]:
        entries, netuid = getattr(self.p, item), self.netuid
        values = (entries[netuid, hotkey] for hotkey in self.members.hotkeys)
        return [absent if value is None else value for value in values]

    def of_collateral(self, field: str) -> list[int]:
        return [state[field] if state else 0 for state in self.collateral]

    def commitments(self) -> list[tuple[bytes, list[int]]]:
        """(account, its whole commitment as stored) of everyone with one."""
        entries = self.rt.commitments.CommitmentOf
        raw = ((who, self.rt.state.get(entries.key((self.netuid, who)))) for who in entries.keys(self.netuid))
        return [(who, list(data)) for who, data in raw if data is not None]


Source = Callable[[_View], Any]


def _stored(item: str) -> Source:
    return lambda view: view.stored(item)


FIELDS: dict[str, Source] = {
    "netuid": lambda v: v.netuid,
    "name": lambda v: list(subnet_name(v.p, v.netuid)),
    "symbol": lambda v: list(v.stored("TokenSymbol")),
    "identity": _stored("SubnetIdentitiesV3"),
    "network_registered_at": _stored("NetworkRegisteredAt"),
    "owner_hotkey": _stored("SubnetOwnerHotkey"),
    "owner_coldkey": _stored("SubnetOwner"),
    "block": lambda v: v.rt.number,
    "tempo": _stored("Tempo"),
    "last_step": _stored("LastMechansimStepBlock"),
    "blocks_since_last_step": lambda v: common.blocks_since_last_step(v.rt, v.netuid),
    "subnet_emission": lambda v: 0,  # the chain's own answer: kept for old clients
    "alpha_in": _stored("SubnetAlphaIn"),
    "alpha_out": _stored("SubnetAlphaOut"),
    "tao_in": _stored("SubnetTAO"),
    "alpha_out_emission": _stored("SubnetAlphaOutEmission"),
    "alpha_in_emission": _stored("SubnetAlphaInEmission"),
    "tao_in_emission": _stored("SubnetTaoInEmission"),
    "pending_alpha_emission": lambda v: common.pending_alpha(v.p, v.netuid),
    "pending_root_emission": lambda v: 0,  # the chain's own answer
    "subnet_volume": _stored("SubnetVolume"),
    "moving_price": _stored("SubnetMovingPrice"),
    "rho": _stored("Rho"),
    "kappa": _stored("Kappa"),
    "min_allowed_weights": _stored("MinAllowedWeights"),
    "max_weights_limit": _stored("MaxWeightsLimit"),
    "weights_version": _stored("WeightsVersionKey"),
    "weights_rate_limit": _stored("WeightsSetRateLimit"),
    "activity_cutoff": lambda v: common.activity_cutoff(v.p, v.netuid),
    "max_validators": _stored("MaxAllowedValidators"),
    "num_uids": _stored("SubnetworkN"),
    "max_uids": _stored("MaxAllowedUids"),
    "burn": _stored("Burn"),
    "difficulty": _stored("Difficulty"),
    "registration_allowed": _stored("NetworkRegistrationAllowed"),
    "pow_registration_allowed": _stored("NetworkPowRegistrationAllowed"),
    "immunity_period": _stored("ImmunityPeriod"),
    "min_difficulty": _stored("MinDifficulty"),
    "max_difficulty": _stored("MaxDifficulty"),
    "min_burn": _stored("MinBurn"),
    "max_burn": _stored("MaxBurn"),
    "adjustment_alpha": _stored("AdjustmentAlpha"),
    "adjustment_interval": _stored("AdjustmentInterval"),
    "target_regs_per_interval": _stored("TargetRegistrationsPerInterval"),
    "max_regs_per_block": _stored("MaxRegistrationsPerBlock"),
    "serving_rate_limit": _stored("ServingRateLimit"),
    "commit_reveal_weights_enabled": _stored("CommitRevealWeightsEnabled"),
    "commit_reveal_period": _stored("RevealPeriodEpochs"),
    "liquid_alpha_enabled": _stored("LiquidAlphaOn"),
    "alpha_high": lambda v: v.stored("AlphaValues")[1],
    "alpha_low": lambda v: v.stored("AlphaValues")[0],
    "bonds_moving_avg": _stored("BondsMovingAverage"),
    "hotkeys": lambda v: v.members.hotkeys,
    "coldkeys": lambda v: v.members.coldkeys,
    "identities": lambda v: [v.p.IdentitiesV2[coldkey] for coldkey in v.members.coldkeys],
    "axons": lambda v: v.per_hotkey("Axons", common.NO_AXON),
    "active": _stored("Active"),
    "validator_permit": _stored("ValidatorPermit"),
    "pruning_score": lambda v: [],  # no longer computed by the chain, like trust and rank
    "last_update": _stored("LastUpdate"),
    "emission": _stored("Emission"),
    "dividends": _stored("Dividends"),
    "incentives": _stored("Incentive"),
    "consensus": _stored("Consensus"),
    "trust": lambda v: [],
    "rank": lambda v: [],
    "block_at_registration": lambda v: [
        v.p.BlockAtRegistration[v.netuid, uid] for uid in range(len(v.members.hotkeys))
    ],
    "alpha_stake": lambda v: [alpha for _, alpha, _ in v.weights],
    "tao_stake": lambda v: [tao for _, _, tao in v.weights],
    "total_stake": lambda v: [total >> 64 for total, _, _ in v.weights],
    "tao_dividends_per_hotkey": lambda v: [(hotkey, 0) for hotkey in v.members.hotkeys],  # the chain pays none
    "alpha_dividends_per_hotkey": lambda v: list(
        zip(v.members.hotkeys, v.per_hotkey("AlphaDividendsPerSubnet", 0), strict=True)
    ),
    "validators": lambda v: [uid for uid, permit in enumerate(v.stored("ValidatorPermit")) if permit],
    "commitments": lambda v: v.commitments(),
    "collateral_locked": lambda v: v.of_collateral("locked"),
    "collateral_min": lambda v: v.of_collateral("min_locked"),
    "collateral_earned": lambda v: v.of_collateral("earned"),
}
NUMBERED = tuple(FIELDS)
SELECTIVE_ONLY = ("validators", "commitments")
WHOLE = tuple(name for name in FIELDS if name not in SELECTIVE_ONLY)
IDENTITY = "identity"  # itself optional: inside a selective metagraph "asked for, none there" is Some(None)


def _whole(rt: SpecRuntime, netuid: int, mecid: int = 0) -> dict[str, Any] | None:
    if not common.exists(rt.subtensor, netuid):
        return None
    view = _View(rt, netuid)
    graph = {name: FIELDS[name](view) for name in WHOLE}
    return {**graph, **_of_mechanism(rt, netuid, mecid)} if mecid else graph


def _of_mechanism(rt: SpecRuntime, netuid: int, mecid: int) -> dict[str, Any]:
    index = storage_index(netuid, mecid)
    return {"netuid": index, "last_update": rt.subtensor.LastUpdate[index], "incentives": rt.subtensor.Incentive[index]}


def _has_mechanism(rt: SpecRuntime, netuid: int, mecid: int) -> bool:
    return common.exists(rt.subtensor, netuid) and mecid < rt.subtensor.MechanismCountCurrent[netuid]


def _selective(rt: SpecRuntime, netuid: int, indices: Iterable[int], mecid: int = 0) -> dict[str, Any] | None:
    if not common.exists(rt.subtensor, netuid):
        return None
    view = _View(rt, netuid)
    graph: dict[str, Any] = dict.fromkeys(NUMBERED)
    for name in {NUMBERED[index] for index in indices if index < len(NUMBERED)}:  # unknown numbers select nothing
        value = FIELDS[name](view)
        graph[name] = Some((value,)) if name == IDENTITY else value
    if mecid:
        special = _of_mechanism(rt, netuid, mecid)
        graph.update({name: value for name, value in special.items() if graph[name] is not None})
    graph["netuid"] = netuid  # always there and never the storage index, asked for or not
    return graph


@api("SubnetInfoRuntimeApi_get_metagraph")
def get_metagraph(rt: SpecRuntime, netuid: int) -> dict[str, Any] | None:
    return _whole(rt, netuid)


@api("SubnetInfoRuntimeApi_get_all_metagraphs")
def get_all_metagraphs(rt: SpecRuntime) -> list[dict[str, Any] | None]:
    return [_whole(rt, netuid) for netuid in common.netuids(rt.subtensor)]


@api("SubnetInfoRuntimeApi_get_mechagraph")
def get_mechagraph(rt: SpecRuntime, netuid: int, mecid: int) -> dict[str, Any] | None:
    return _whole(rt, netuid, mecid) if _has_mechanism(rt, netuid, mecid) else None


@api("SubnetInfoRuntimeApi_get_all_mechagraphs")
def get_all_mechagraphs(rt: SpecRuntime) -> list[dict[str, Any] | None]:
    p = rt.subtensor
    pairs = [(netuid, mecid) for netuid in common.netuids(p) for mecid in range(p.MechanismCountCurrent[netuid])]
    return [_whole(rt, netuid, mecid) for netuid, mecid in pairs]


@api("SubnetInfoRuntimeApi_get_selective_metagraph")
def get_selective_metagraph(rt: SpecRuntime, netuid: int, indices: list[int]) -> dict[str, Any] | None:
    return _selective(rt, netuid, indices)


@api("SubnetInfoRuntimeApi_get_selective_mechagraph")
def get_selective_mechagraph(rt: SpecRuntime, netuid: int, mecid: int, indices: list[int]) -> dict[str, Any] | None:
    return _selective(rt, netuid, indices, mecid)
