"""The table of hyperparameters that AdminUtils sets: call, item, who, limit, bounds, event.

`SETTINGS` is data; `localnet.runtime.pallets.admin_utils` carries a row out. Bounds are checked in their order, and the
first that does not hold names the error. Constants come from the metadata where it has them.

A setting whose effect is not implemented has no row, so that setting it is refused instead of going unheeded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localnet.rules.collateral import MAX_DRAIN_RATIO, MAX_LOCK_SHARE
from localnet.runtime.subtensor import limits
from localnet.runtime.subtensor.limits import Limit

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

Test = Callable[["Subtensor", int, Any], bool]  # (pallet, netuid, value) -> does the bound hold?


@dataclass(frozen=True)
class Bound:
    """`ours`: the error belongs to AdminUtils, else to SubtensorModule. `owner_only`: root is not bound by it."""

    error: str
    holds: Test
    ours: bool = True
    owner_only: bool = False


@dataclass(frozen=True)
class Setting:
    """One call `call(origin, [netuid,] argument)` that writes `item` of SubtensorModule."""

    call: str
    item: str
    argument: str
    event: str | None = None
    who: str = "root"  # or "owner"
    limit: Limit | None = None
    per_subnet: bool = True
    window: bool = True  # not shortly before an epoch
    exists: bool = True  # the subnet has to exist
    not_root: bool = False  # not on the root network
    bounds: tuple[Bound, ...] = ()
    named_event: bool = False  # an event of AdminUtils with named fields
    stale: str | None = None  # an item that is worked out anew after the change: it is deleted
    first_event: str | None = None  # of SubtensorModule, in front of one of AdminUtils


def _constant(p: Subtensor, name: str) -> int:
    return int(p.rt.document.constants[p.name, name])


def _one_to(most: int) -> Test:
    return lambda p, netuid, value: 1 <= value <= most


def _owner(
    name: str,
    item: str,
    event: str | None,
    *bounds: Bound,
    limit: str | Limit | None,
    argument: str | None = None,
    exists: bool = True,
    not_root: bool = False,
    named_event: bool = False,
    first_event: str | None = None,
) -> Setting:
    """A setting of the subnet's owner. `limit`: the variant of Hyperparameter that is rate limited."""
    return Setting(
        f"sudo_set_{name}", item, argument or name, event, "owner",
        limits.hyperparameter(limit) if isinstance(limit, str) else limit,
        exists=exists, not_root=not_root, bounds=bounds, named_event=named_event, first_event=first_event,
    )  # fmt: skip


def _root(
    name: str,
    item: str,
    event: str | None,
    *bounds: Bound,
    argument: str | None = None,
    window: bool = True,
    exists: bool = True,
    not_root: bool = False,
    named_event: bool = False,
) -> Setting:
    """A subnet's setting that only root changes."""
    return Setting(
        f"sudo_set_{name}", item, argument or name, event,
        window=window, exists=exists, not_root=not_root, bounds=bounds, named_event=named_event,
    )  # fmt: skip


def _chain(
    name: str,
    item: str,
    event: str | None,
    *bounds: Bound,
    argument: str | None = None,
    named_event: bool = False,
    stale: str | None = None,
) -> Setting:
    """A setting of the whole chain, by root."""
    return Setting(
        f"sudo_set_{name}", item, argument or name, event,
        per_subnet=False, window=False, exists=False, bounds=bounds, named_event=named_event, stale=stale,
    )  # fmt: skip


ONE_U64F64 = 1 << 64
MAX_BURN_HALF_LIFE = 36_100  # blocks
MAX_BONDS_MOVING_AVERAGE = 975_000  # of a million, for owners
MAX_REVEAL_PERIOD = 100  # epochs
MAX_IMMUNE_OWNER_UIDS = 10
MAX_MECHANISMS = 16  # the storage index has room for no more
MAX_GATE_EXPONENT = 8

_MAX_UIDS = (
    Bound("MaxAllowedUidsLessThanMinAllowedUids", lambda p, n, v: v >= p.MinAllowedUids[n]),
    Bound("MaxAllowedUIdsLessThanCurrentUIds", lambda p, n, v: v >= p.SubnetworkN[n]),
    Bound("MaxAllowedUidsGreaterThanDefaultMaxAllowedUids", lambda p, n, v: v <= _constant(p, "InitialMaxAllowedUids")),
    Bound(
        "TooManyUIDsPerMechanism",
        lambda p, n, v: v * p.MechanismCountCurrent[n] <= _constant(p, "InitialMaxAllowedUids"),
        ours=False,
    ),
)
_MIN_UIDS = (
    Bound("MinAllowedUidsGreaterThanMaxAllowedUids", lambda p, n, v: v < p.MaxAllowedUids[n]),
    Bound("MinAllowedUidsGreaterThanCurrentUids", lambda p, n, v: v < p.SubnetworkN[n]),
)
_MIN_BURN = (
    Bound("ValueNotInBounds", lambda p, n, v: v < _constant(p, "MinBurnUpperBound")),
    Bound("ValueNotInBounds", lambda p, n, v: v < p.MaxBurn[n]),
)
_MAX_BURN = (
    Bound("ValueNotInBounds", lambda p, n, v: v > _constant(p, "MaxBurnLowerBound")),
    Bound("ValueNotInBounds", lambda p, n, v: v > p.MinBurn[n]),
)
_REVEAL_PERIOD = (
    Bound("RevealPeriodTooLarge", lambda p, n, v: v <= MAX_REVEAL_PERIOD, ours=False),
    Bound("RevealPeriodTooSmall", lambda p, n, v: v >= 1, ours=False),
)
_CHILDKEY_TAKE = Bound("InvalidValue", lambda p, n, v: p.MinChildkeyTake.get() <= v <= p.MaxChildkeyTake.get())
_CUTOFF = Bound("ActivityCutoffTooLow", lambda p, n, v: v >= p.MinActivityCutoff.get(), ours=False)
_BONDS = Bound("BondsMovingAverageMaxReached", lambda p, n, v: v <= MAX_BONDS_MOVING_AVERAGE, owner_only=True)
_STEEPNESS = Bound("NegativeSigmoidSteepness", lambda p, n, v: v >= 0, owner_only=True)
_BURN_MULT = Bound("InvalidValue", lambda p, n, v: ONE_U64F64 <= v["bits"] <= 3 * ONE_U64F64)
_EXPONENT = Bound("InvalidValue", lambda p, n, v: ONE_U64F64 <= v["bits"] <= 2 * ONE_U64F64)
_GATE_EXPONENT = Bound("InvalidValue", lambda p, n, v: ONE_U64F64 <= v["bits"] <= MAX_GATE_EXPONENT * ONE_U64F64)
_QUANTILE = Bound("InvalidValue", lambda p, n, v: 0 < v["bits"] < ONE_U64F64)
_CAP = Bound("ValueNotInBounds", lambda p, n, v: v > 0)
_LOCK_SHARE = Bound("CollateralLockShareTooHigh", lambda p, n, v: v <= MAX_LOCK_SHARE)
_DRAIN_RATIO = Bound("CollateralDrainRatioOutOfBounds", lambda p, n, v: 0 < v["bits"] <= MAX_DRAIN_RATIO)
_MECHANISMS = Bound("InvalidValue", _one_to(MAX_MECHANISMS), ours=False)

OWNER_SETTINGS = (
    _owner("serving_rate_limit", "ServingRateLimit", "ServingRateLimitSet", limit="ServingRateLimit", exists=False),
    _owner("max_difficulty", "MaxDifficulty", "MaxDifficultySet", limit="MaxDifficulty"),
    _owner("weights_version_key", "WeightsVersionKey", "WeightsVersionKeySet", limit=limits.WEIGHTS_VERSION_KEY),
    _owner("adjustment_alpha", "AdjustmentAlpha", "AdjustmentAlphaSet", limit="AdjustmentAlpha"),
    _owner("immunity_period", "ImmunityPeriod", "ImmunityPeriodSet", limit="ImmunityPeriod"),
    _owner("min_allowed_weights", "MinAllowedWeights", "MinAllowedWeightSet", limit="MinAllowedWeights"),
    _owner("max_allowed_uids", "MaxAllowedUids", "MaxAllowedUidsSet", *_MAX_UIDS, limit="MaxAllowedUids"),
    _owner("rho", "Rho", None, limit="Rho"),  # RhoSet is declared, and never deposited
    _owner("activity_cutoff", "ActivityCutoff", "ActivityCutoffSet", _CUTOFF, limit="ActivityCutoff"),
    _owner("min_burn", "MinBurn", "MinBurnSet", *_MIN_BURN, limit="MinBurn"),
    _owner("max_burn", "MaxBurn", "MaxBurnSet", *_MAX_BURN, limit="MaxBurn"),
    _owner(
        "burn_half_life", "BurnHalfLife", "BurnHalfLifeSet", Bound("InvalidValue", _one_to(MAX_BURN_HALF_LIFE)),
        limit="BurnHalfLife", not_root=True, named_event=True,
    ),
    _owner(
        "burn_increase_mult", "BurnIncreaseMult", "BurnIncreaseMultSet", _BURN_MULT,
        limit="BurnIncreaseMult", not_root=True, named_event=True,
    ),
    _owner("bonds_moving_average", "BondsMovingAverage", "BondsMovingAverageSet", _BONDS, limit="BondsMovingAverage"),
    _owner("bonds_penalty", "BondsPenalty", "BondsPenaltySet", limit="BondsPenalty"),
    _owner(
        "bonds_reset_enabled", "BondsResetOn", "BondsResetToggled",
        limit="BondsResetEnabled", argument="enabled", exists=False, named_event=True, first_event="BondsResetOnSet",
    ),
    _owner("liquid_alpha_enabled", "LiquidAlphaOn", None, limit="LiquidAlphaEnabled", argument="enabled", exists=False),
    _owner(
        "yuma3_enabled", "Yuma3On", "Yuma3EnableToggled",
        limit="Yuma3Enabled", argument="enabled", exists=False, named_event=True,
    ),
    _owner("alpha_sigmoid_steepness", "AlphaSigmoidSteepness", None, _STEEPNESS,  # neither is its event
           limit="AlphaSigmoidSteepness", argument="steepness"),
    _owner("toggle_transfer", "TransferToggle", "TransferToggle",
           limit="TransferEnabled", argument="toggle", exists=False),
    _owner("liquid_alpha_consensus_mode", "LiquidAlphaConsensusMode", "LiquidAlphaConsensusModeSet",
           limit="LiquidAlphaConsensusMode", argument="mode", exists=False),
    _owner("owner_cut_enabled", "OwnerCutEnabled", None, limit=None, argument="enabled", not_root=True),
    _owner("owner_cut_auto_lock_enabled", "OwnerCutAutoLockEnabled", None,
           limit=None, argument="enabled", not_root=True),
    _owner("collateral_lock_share", "CollateralLockShare", "CollateralLockShareSet", _LOCK_SHARE,
           limit="CollateralLockShare", argument="lock_share", not_root=True, named_event=True),
    _owner("collateral_drain_ratio", "CollateralDrainRatio", "CollateralDrainRatioSet", _DRAIN_RATIO,
           limit="CollateralDrainRatio", argument="drain_ratio", not_root=True, named_event=True),
    _owner("commit_reveal_weights_enabled", "CommitRevealWeightsEnabled", "CommitRevealEnabled",
           limit="CommitRevealEnabled", argument="enabled"),
    _owner("commit_reveal_weights_interval", "RevealPeriodEpochs", "CommitRevealPeriodsSet", *_REVEAL_PERIOD,
           limit="WeightCommitInterval", argument="interval"),
    _owner("min_childkey_take_per_subnet", "MinChildkeyTakePerSubnet", "MinChildKeyTakePerSubnetSet", _CHILDKEY_TAKE,
           limit="MinChildkeyTake", argument="take"),
    _owner("owner_immune_neuron_limit", "ImmuneOwnerUidsLimit", None,
           Bound("InvalidValue", _one_to(MAX_IMMUNE_OWNER_UIDS), ours=False),
           limit="ImmuneNeuronLimit", argument="immune_neurons", exists=False),
    _owner("recycle_or_burn", "RecycleOrBurn", None, limit="RecycleOrBurn", exists=False),
)  # fmt: skip

ROOT_SETTINGS = (
    _root("min_difficulty", "MinDifficulty", "MinDifficultySet"),
    _root("weights_set_rate_limit", "WeightsSetRateLimit", "WeightsSetRateLimitSet", window=False),
    _root("adjustment_interval", "AdjustmentInterval", "AdjustmentIntervalSet", window=False),
    _root("kappa", "Kappa", "KappaSet", window=False),
    _root("network_registration_allowed", "NetworkRegistrationAllowed", "RegistrationAllowed",
          argument="registration_allowed", window=False, exists=False),
    _root("target_registrations_per_interval", "TargetRegistrationsPerInterval", "RegistrationPerIntervalSet"),
    _root("max_registrations_per_block", "MaxRegistrationsPerBlock", "MaxRegistrationsPerBlockSet"),
    _root("difficulty", "Difficulty", "DifficultySet"),
    _root("max_allowed_validators", "MaxAllowedValidators", "MaxAllowedValidatorsSet",
          Bound("MaxValidatorsLargerThanMaxUIds", lambda p, n, v: v <= p.MaxAllowedUids[n])),
    _root("min_allowed_uids", "MinAllowedUids", "MinAllowedUidsSet", *_MIN_UIDS),
    _root("min_non_immune_uids", "MinNonImmuneUids", "MinNonImmuneUidsSet", argument="min", window=False, exists=False),
    _root("rao_recycled", "RAORecycledForRegistration", "RAORecycledForRegistrationSet", window=False),
    _root("subtoken_enabled", "SubtokenEnabled", None, exists=False),
    _root("subnet_emission_enabled", "SubnetEmissionEnabled", "SubnetEmissionEnabledSet",
          argument="enabled", window=False, not_root=True, named_event=True),
    _root("ema_price_halving_period", "EMAPriceHalvingBlocks", None,
          argument="ema_halving", window=False, exists=False),
)  # fmt: skip

CHAIN_SETTINGS = (
    _chain("default_take", "MaxDelegateTake", "MaxDelegateTakeSet"),
    _chain("tx_rate_limit", "TxRateLimit", "TxRateLimitSet"),
    _chain("tx_delegate_take_rate_limit", "TxDelegateTakeRateLimit", "TxDelegateTakeRateLimitSet",
           argument="tx_rate_limit"),
    _chain("min_delegate_take", "MinDelegateTake", "MinDelegateTakeSet", argument="take"),
    _chain("subnet_owner_cut", "SubnetOwnerCut", "SubnetOwnerCutSet"),
    _chain("network_rate_limit", "NetworkRateLimit", "NetworkRateLimitSet", argument="rate_limit"),
    _chain("network_immunity_period", "NetworkImmunityPeriod", "NetworkImmunityPeriodSet", argument="immunity_period"),
    _chain("network_min_lock_cost", "NetworkMinLockCost", "NetworkMinLockCostSet", argument="lock_cost"),
    _chain("subnet_limit", "SubnetLimit", "SubnetLimitSet", argument="max_subnets"),
    _chain("lock_reduction_interval", "NetworkLockReductionInterval", "NetworkLockCostReductionIntervalSet",
           argument="interval"),
    _chain("stake_threshold", "StakeThreshold", "StakeThresholdSet", argument="min_stake"),
    _chain("dissolve_network_schedule_duration", "DissolveNetworkScheduleDuration",
           "DissolveNetworkScheduleDurationSet", argument="duration"),
    _chain("subnet_moving_alpha", "SubnetMovingAlpha", None, argument="alpha"),
    _chain("commit_reveal_version", "CommitRevealWeightsVersion", "CommitRevealVersionSet", argument="version"),
    _chain("ck_burn", "CKBurn", None, argument="burn"),
    _chain("admin_freeze_window", "AdminFreezeWindow", "AdminFreezeWindowSet", argument="window"),
    _chain("owner_hparam_rate_limit", "OwnerHyperparamRateLimit", "OwnerHyperparamRateLimitSet", argument="epochs"),
    _chain("tao_flow_cutoff", "TaoFlowCutoff", None, argument="flow_cutoff"),
    _chain("tao_flow_normalization_exponent", "FlowNormExponent", None, _EXPONENT, argument="exponent"),
    _chain("tao_flow_smoothing_factor", "FlowEmaSmoothingFactor", None, argument="smoothing_factor"),
    _chain("net_tao_flow_enabled", "NetTaoFlowEnabled", None, argument="enabled"),
    _chain("max_mechanism_count", "MaxMechanismCount", None, _MECHANISMS),
    _chain("start_call_delay", "StartCallDelay", "StartCallDelaySet", argument="delay"),
    _chain("coldkey_swap_announcement_delay", "ColdkeySwapAnnouncementDelay", "ColdkeySwapAnnouncementDelaySet",
           argument="duration"),
    _chain("coldkey_swap_reannouncement_delay", "ColdkeySwapReannouncementDelay", "ColdkeySwapReannouncementDelaySet",
           argument="duration"),
    _chain("emission_bar_quantile", "EmissionBarQuantile", None, _QUANTILE,
           argument="quantile", stale="EmissionGateBar"),
    _chain("emission_bar_rank", "EmissionBarRank", None, argument="rank", stale="EmissionGateBar"),
    _chain("emission_gate_exponent", "EmissionGateExponent", None, _GATE_EXPONENT, argument="exponent"),
    _chain("basket_trading_enabled", "BasketTradingEnabled", "BasketTradingToggled",
           argument="enabled", named_event=True),
    _chain("basket_concentration_cap", "BasketConcentrationCap", "BasketConcentrationCapSet", _CAP,
           argument="cap", named_event=True),
    _chain("basket_daily_turnover_cap", "BasketDailyTurnoverCap", "BasketDailyTurnoverCapSet", _CAP,
           argument="cap", named_event=True),
    _chain("basket_liquidity_cap", "BasketLiquidityCap", "BasketLiquidityCapSet", _CAP,
           argument="cap", named_event=True),
    _chain("max_epochs_per_block", "MaxEpochsPerBlock", "MaxEpochsPerBlockSet",
           Bound("ValueNotInBounds", lambda p, n, v: v >= 1)),
)  # fmt: skip

SETTINGS = OWNER_SETTINGS + ROOT_SETTINGS + CHAIN_SETTINGS
