"""SubnetInfoRuntimeApi and SubnetRegistrationRuntimeApi: the subnet as a whole, everything but metagraph and settings.

Fields that the chain keeps for old clients and answers with zero are zero here for the same reason: emission, network
modality, pending root emission.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localnet.rules import coinbase
from localnet.runtime.apis import common
from localnet.runtime.apis.names import subnet_name
from localnet.runtime.apis.registry import api
from localnet.runtime.subtensor import networks, staking

if TYPE_CHECKING:
    from localnet.runtime.runtime import SpecRuntime


@api("SubnetInfoRuntimeApi_get_dynamic_info")
def get_dynamic_info(rt: SpecRuntime, netuid: int) -> dict[str, Any] | None:
    p = rt.subtensor
    if not common.exists(p, netuid):
        return None
    return {
        "netuid": netuid,
        "owner_hotkey": p.SubnetOwnerHotkey[netuid],
        "owner_coldkey": p.SubnetOwner[netuid],
        "subnet_name": list(subnet_name(p, netuid)),
        "token_symbol": list(p.TokenSymbol[netuid]),
        "tempo": p.Tempo[netuid],
        "last_step": p.LastMechansimStepBlock[netuid],
        "blocks_since_last_step": common.blocks_since_last_step(rt, netuid),
        "emission": 0,
        "alpha_in": p.SubnetAlphaIn[netuid],
        "alpha_out": p.SubnetAlphaOut[netuid],
        "tao_in": p.SubnetTAO[netuid],
        "alpha_out_emission": p.SubnetAlphaOutEmission[netuid],
        "alpha_in_emission": p.SubnetAlphaInEmission[netuid],
        "tao_in_emission": p.SubnetTaoInEmission[netuid],
        "pending_alpha_emission": common.pending_alpha(p, netuid),
        "pending_root_emission": 0,
        "subnet_volume": p.SubnetVolume[netuid],
        "network_registered_at": p.NetworkRegisteredAt[netuid],
        "subnet_identity": p.SubnetIdentitiesV3[netuid],
        "moving_price": p.SubnetMovingPrice[netuid],
    }


@api("SubnetInfoRuntimeApi_get_all_dynamic_info")
def get_all_dynamic_info(rt: SpecRuntime) -> list[dict[str, Any] | None]:
    return [get_dynamic_info(rt, netuid) for netuid in common.netuids(rt.subtensor)]


@api("SubnetInfoRuntimeApi_get_subnet_info")
def get_subnet_info(rt: SpecRuntime, netuid: int) -> dict[str, Any] | None:
    p = rt.subtensor
    if not common.exists(p, netuid):
        return None
    return {
        "netuid": netuid,
        "rho": p.Rho[netuid],
        "kappa": p.Kappa[netuid],
        "difficulty": p.Difficulty[netuid],
        "immunity_period": p.ImmunityPeriod[netuid],
        "max_allowed_validators": p.MaxAllowedValidators[netuid],
        "min_allowed_weights": p.MinAllowedWeights[netuid],
        "max_weights_limit": p.MaxWeightsLimit[netuid],
        "scaling_law_power": p.ScalingLawPower[netuid],
        "subnetwork_n": p.SubnetworkN[netuid],
        "max_allowed_uids": p.MaxAllowedUids[netuid],
        "blocks_since_last_step": p.BlocksSinceLastStep[netuid],  # here the stored counter is what the chain answers
        "tempo": p.Tempo[netuid],
        "network_modality": 0,
        "network_connect": [],
        "emission_values": 0,
        "burn": p.Burn[netuid],
        "owner": p.SubnetOwner[netuid],
    }


@api("SubnetInfoRuntimeApi_get_subnets_info")
def get_subnets_info(rt: SpecRuntime) -> list[dict[str, Any] | None]:
    return [get_subnet_info(rt, netuid) for netuid in sorted(common.netuids(rt.subtensor))]


@api("SubnetInfoRuntimeApi_get_subnet_info_v2")
def get_subnet_info_v2(rt: SpecRuntime, netuid: int) -> dict[str, Any] | None:
    info = get_subnet_info(rt, netuid)
    if info is None:
        return None
    info["emission_value"] = info.pop("emission_values")
    return {**info, "identity": rt.subtensor.SubnetIdentitiesV3[netuid]}


@api("SubnetInfoRuntimeApi_get_subnets_info_v2")
def get_subnets_info_v2(rt: SpecRuntime) -> list[dict[str, Any] | None]:
    return [get_subnet_info_v2(rt, netuid) for netuid in sorted(common.netuids(rt.subtensor))]


@api("SubnetInfoRuntimeApi_get_subnet_state")
def get_subnet_state(rt: SpecRuntime, netuid: int) -> dict[str, Any] | None:
    p = rt.subtensor
    if not common.exists(p, netuid):
        return None
    who = common.members(p, netuid)
    weights = staking.inherited_weights(p, netuid, who.hotkeys)
    return {
        "netuid": netuid,
        "hotkeys": who.hotkeys,
        "coldkeys": who.coldkeys,
        "active": p.Active[netuid],
        "validator_permit": p.ValidatorPermit[netuid],
        "pruning_score": [],
        "last_update": p.LastUpdate[netuid],
        "emission": p.Emission[netuid],
        "dividends": p.Dividends[netuid],
        "incentives": p.Incentive[netuid],
        "consensus": p.Consensus[netuid],
        "trust": [],
        "rank": [],
        "block_at_registration": [p.BlockAtRegistration[netuid, uid] for uid in range(len(who.hotkeys))],
        "alpha_stake": [alpha for _, alpha, _ in weights],
        "tao_stake": [tao for _, _, tao in weights],
        "total_stake": [total >> 64 for total, _, _ in weights],
        "emission_history": [
            [p.LastHotkeyEmissionOnNetuid[hotkey, other] for hotkey in who.hotkeys] for other in common.netuids(p)
        ],
    }


@api("SubnetInfoRuntimeApi_get_next_epoch_start_block")
def get_next_epoch_start_block(rt: SpecRuntime, netuid: int) -> int | None:
    p = rt.subtensor
    return coinbase.next_epoch_block(p.Tempo[netuid], p.LastEpochBlock[netuid], p.PendingEpochAt[netuid])


@api("SubnetInfoRuntimeApi_get_subnet_account_id")
def get_subnet_account_id(rt: SpecRuntime, netuid: int) -> bytes | None:
    known = netuid == common.ROOT or netuid in rt.subtensor.NetworksAdded
    return staking.subnet_account(rt.subtensor, netuid) if known else None


@api("SubnetInfoRuntimeApi_get_coldkey_auto_stake_hotkey")
def get_coldkey_auto_stake_hotkey(rt: SpecRuntime, coldkey: bytes, netuid: int) -> bytes | None:
    return rt.subtensor.AutoStakeDestination[coldkey, netuid]


@api("SubnetInfoRuntimeApi_get_subnet_to_prune")
def get_subnet_to_prune(rt: SpecRuntime) -> int | None:
    """The subnet that would make room for a new one now; None while all are immune."""
    return networks.subnet_to_prune(rt.subtensor)


@api("SubnetInfoRuntimeApi_get_block_emission")
def get_block_emission(rt: SpecRuntime) -> int:
    """Rao the next block mints at the present issuance."""
    return coinbase.block_emission(rt.subtensor.TotalIssuance.get())


@api("SubnetRegistrationRuntimeApi_get_network_registration_cost")
def get_network_registration_cost(rt: SpecRuntime) -> int:
    """What registering a subnet costs now, rao."""
    return networks.lock_cost(rt.subtensor)
