"""SubnetInfoRuntimeApi, hyperparameters: version 1 and 2 are records, version 3 is a list of named, typed values.

`_values` reads all of them once under the names the APIs use; each version picks its fields, in its order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localnet.runtime.apis import common
from localnet.runtime.apis.registry import api

if TYPE_CHECKING:
    from localnet.runtime.runtime import SpecRuntime
    from localnet.runtime.subtensor.pallet import Subtensor

V1 = (
    "rho", "kappa", "immunity_period", "min_allowed_weights", "max_weights_limit", "tempo", "min_difficulty",
    "max_difficulty", "weights_version", "weights_rate_limit", "adjustment_interval", "activity_cutoff",
    "registration_allowed", "target_regs_per_interval", "min_burn", "max_burn", "bonds_moving_avg",
    "max_regs_per_block", "serving_rate_limit", "max_validators", "adjustment_alpha", "difficulty",
    "commit_reveal_period", "commit_reveal_weights_enabled", "alpha_high", "alpha_low", "liquid_alpha_enabled",
)  # fmt: skip
V2 = (
    *V1, "alpha_sigmoid_steepness", "yuma_version", "subnet_is_active", "transfers_enabled", "bonds_reset_enabled",
    "user_liquidity_enabled",
)  # fmt: skip
V3 = {  # name -> type
    "kappa": "U16", "immunity_period": "U16", "min_allowed_weights": "U16", "max_weights_limit": "U16", "tempo": "U16",
    "weights_version": "U64", "weights_rate_limit": "U64", "activity_cutoff": "U64", "activity_cutoff_factor": "U32",
    "registration_allowed": "Bool", "target_regs_per_interval": "U16", "min_burn": "TaoBalance",
    "max_burn": "TaoBalance", "burn_half_life": "U16", "burn_increase_mult": "U64F64", "bonds_moving_avg": "U64",
    "max_regs_per_block": "U16", "serving_rate_limit": "U64", "max_validators": "U16", "commit_reveal_period": "U64",
    "commit_reveal_weights_enabled": "Bool", "alpha_high": "U16", "alpha_low": "U16", "liquid_alpha_enabled": "Bool",
    "alpha_sigmoid_steepness": "I32F32", "yuma_version": "U16", "subnet_is_active": "Bool", "transfers_enabled": "Bool",
    "bonds_reset_enabled": "Bool", "user_liquidity_enabled": "Bool", "owner_cut_enabled": "Bool",
    "owner_cut_auto_lock_enabled": "Bool", "min_childkey_take": "U16",
}  # fmt: skip


def _values(p: Subtensor, netuid: int) -> dict[str, Any]:
    alpha_low, alpha_high = p.AlphaValues[netuid]
    return {
        "rho": p.Rho[netuid],
        "kappa": p.Kappa[netuid],
        "immunity_period": p.ImmunityPeriod[netuid],
        "min_allowed_weights": p.MinAllowedWeights[netuid],
        "max_weights_limit": p.MaxWeightsLimit[netuid],
        "tempo": p.Tempo[netuid],
        "min_difficulty": p.MinDifficulty[netuid],
        "max_difficulty": p.MaxDifficulty[netuid],
        "weights_version": p.WeightsVersionKey[netuid],
        "weights_rate_limit": p.WeightsSetRateLimit[netuid],
        "adjustment_interval": p.AdjustmentInterval[netuid],
        "activity_cutoff": common.activity_cutoff(p, netuid),
        "activity_cutoff_factor": p.ActivityCutoffFactorMilli[netuid],
        "registration_allowed": p.NetworkRegistrationAllowed[netuid],
        "target_regs_per_interval": p.TargetRegistrationsPerInterval[netuid],
        "min_burn": p.MinBurn[netuid],
        "max_burn": p.MaxBurn[netuid],
        "burn_half_life": p.BurnHalfLife[netuid],
        "burn_increase_mult": p.BurnIncreaseMult[netuid],
        "bonds_moving_avg": p.BondsMovingAverage[netuid],
        "max_regs_per_block": p.MaxRegistrationsPerBlock[netuid],
        "serving_rate_limit": p.ServingRateLimit[netuid],
        "max_validators": p.MaxAllowedValidators[netuid],
        "adjustment_alpha": p.AdjustmentAlpha[netuid],
        "difficulty": p.Difficulty[netuid],
        "commit_reveal_period": p.RevealPeriodEpochs[netuid],
        "commit_reveal_weights_enabled": p.CommitRevealWeightsEnabled[netuid],
        "alpha_high": alpha_high,
        "alpha_low": alpha_low,
        "liquid_alpha_enabled": p.LiquidAlphaOn[netuid],
        "alpha_sigmoid_steepness": {"bits": p.AlphaSigmoidSteepness[netuid] << 32},  # an integer, answered as I32F32
        "yuma_version": 3 if p.Yuma3On[netuid] else 2,
        "subnet_is_active": p.SubtokenEnabled[netuid],
        "transfers_enabled": p.TransferToggle[netuid],
        "bonds_reset_enabled": p.BondsResetOn[netuid],
        "user_liquidity_enabled": False,  # the chain has no user liquidity positions any more and says so
        "owner_cut_enabled": p.OwnerCutEnabled[netuid],
        "owner_cut_auto_lock_enabled": p.OwnerCutAutoLockEnabled[netuid],
        "min_childkey_take": max(p.MinChildkeyTake.get(), p.MinChildkeyTakePerSubnet[netuid]),
    }


def _record(p: Subtensor, netuid: int, names: tuple[str, ...]) -> dict[str, Any] | None:
    if not common.exists(p, netuid):
        return None
    values = _values(p, netuid)
    return {name: values[name] for name in names}


@api("SubnetInfoRuntimeApi_get_subnet_hyperparams")
def get_subnet_hyperparams(rt: SpecRuntime, netuid: int) -> dict[str, Any] | None:
    return _record(rt.subtensor, netuid, V1)


@api("SubnetInfoRuntimeApi_get_subnet_hyperparams_v2")
def get_subnet_hyperparams_v2(rt: SpecRuntime, netuid: int) -> dict[str, Any] | None:
    return _record(rt.subtensor, netuid, V2)


@api("SubnetInfoRuntimeApi_get_subnet_hyperparams_v3")
def get_subnet_hyperparams_v3(rt: SpecRuntime, netuid: int) -> list[dict[str, Any]] | None:
    record = _record(rt.subtensor, netuid, tuple(V3))
    if record is None:
        return None
    return [{"name": name.encode(), "value": (V3[name], value)} for name, value in record.items()]
