"""Figures of the chain: who owns what at genesis, what the first subnets look like, hyperparameter defaults, profiles.

The genesis builder and the conformance vectors both read this module, so a figure is written once. Amounts are rao or
alpha-rao. Sources: the storage defaults of the spec 461 metadata, the recorded state of a spec 461 local node, and the
public chain specification for local networks.

    GENESIS_BALANCES, EVM_ACCOUNTS            development accounts: `//Alice` and so on, and two given by address
    SUDO, AUTHOR                              which of them rules, and which authors blocks
    Hyperparameters                           per-subnet settings; the dataclass defaults are the chain's
    ROOT, SUBNET_1, REGISTERED                the settings of netuid 0, of netuid 1 at genesis, of a new subnet
    GenesisPool                               what netuid 1 holds at genesis
    FAST, MAINNET                             the limits that differ between fast blocks and production
    genesis_figures()                         the recorded facts a vector can ask for
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from localnet.rules.coinbase import activity_cutoff
from localnet.rules.fixed import ONE64, U64_MAX, U64F64, from_float64

SS58_PREFIX = 42
SUDO = "Alice"
AUTHOR = "One"  # whose key sealed the recorded block

GENESIS_BALANCES: Mapping[str, int] = {
    "Alice": 10**15,
    "Bob": 10**15,
    "Charlie": 10**15,
    "Dave": 2 * 10**12,
    "Eve": 2 * 10**12,
    "Ferdie": 2 * 10**12,
    "One": 2 * 10**12,
    "Two": 2 * 10**12,
    "Three": 2 * 10**12,
    "Alith": 2 * 10**12,
    "Baltathar": 2 * 10**12,
}
"""Free balance of each development account. The key of `Alice` is derived from `//Alice`, except for EVM_ACCOUNTS."""

EVM_ACCOUNTS: Mapping[str, str] = {
    "Alith": "5Fghzk1AJt88PeFEzuRfXzbPchiBbsVGTTXcdx599VdZzkTA",
    "Baltathar": "5GeqNhKWj1KG78VHzbmo3ZjZgUTrCuWeamdgiA114XHGdaEr",
}
"""Genesis accounts that no key file derives: the substrate side of two well-known EVM keys."""

ZERO_ACCOUNT = bytes(32)
"""Owner, owner hotkey and uid 0 of netuid 1 at genesis: nobody's key."""
ROOT_OWNER_HOTKEY = "//Alice_hk"
"""Owner hotkey of netuid 0 on builds with fast blocks (its owner is Alice)."""
TOTAL_NETWORKS = 2


BURN_INCREASE_MULT: U64F64 = from_float64(1.26)


@dataclass(frozen=True)
class Hyperparameters:
    """Settings of one subnet. Defaults are the chain's storage defaults; `tempo` is mainnet's (fast blocks: 10)."""

    rho: int = 10
    kappa: int = 32_767
    immunity_period: int = 4_096
    tempo: int = 360
    weights_version: int = 0
    weights_rate_limit: int = 100
    activity_cutoff_factor: int = 13_889
    """Per mille of the tempo."""
    legacy_activity_cutoff: int = 5_000
    """Stored and settable, no longer used by any rule."""
    registration_allowed: bool = True
    target_regs: int = 2
    max_regs_per_block: int = 1
    burn: int = 100_000_000
    min_burn: int = 500_000
    max_burn: int = 100_000_000_000
    burn_half_life: int = 360
    burn_increase_mult: U64F64 = BURN_INCREASE_MULT
    bonds_moving_avg: int = 900_000
    bonds_penalty: int = 65_535
    bonds_reset: bool = False
    serving_rate_limit: int = 50
    min_allowed_weights: int = 1_024
    max_weights_limit: int = 65_535
    min_uids: int = 64
    max_uids: int = 256
    max_validators: int = 128
    commit_reveal: bool = True
    commit_reveal_period: int = 1
    liquid_alpha: bool = False
    alpha_low: int = 45_875
    alpha_high: int = 58_982
    alpha_sigmoid_steepness: int = 1_000
    yuma3: bool = False
    transfers: bool = True
    owner_cut: bool = True
    owner_cut_auto_lock: bool = False
    min_childkey_take: int = 0
    immune_owner_uids: int = 1
    min_non_immune_uids: int = 10
    mechanisms: int = 1
    difficulty: int = 10_000_000
    min_difficulty: int = 10_000_000
    max_difficulty: int = U64_MAX // 4
    adjustment_alpha: int = 0
    adjustment_interval: int = 100

    @property
    def activity_cutoff(self) -> int:
        """Blocks a neuron may be silent, from the factor and the tempo."""
        return activity_cutoff(self.activity_cutoff_factor, self.tempo)


STORAGE_NAMES: Mapping[str, str] = {
    "rho": "Rho",
    "kappa": "Kappa",
    "immunity_period": "ImmunityPeriod",
    "tempo": "Tempo",
    "weights_version": "WeightsVersionKey",
    "weights_rate_limit": "WeightsSetRateLimit",
    "activity_cutoff_factor": "ActivityCutoffFactorMilli",
    "legacy_activity_cutoff": "ActivityCutoff",
    "registration_allowed": "NetworkRegistrationAllowed",
    "target_regs": "TargetRegistrationsPerInterval",
    "max_regs_per_block": "MaxRegistrationsPerBlock",
    "burn": "Burn",
    "min_burn": "MinBurn",
    "max_burn": "MaxBurn",
    "burn_half_life": "BurnHalfLife",
    "burn_increase_mult": "BurnIncreaseMult",
    "bonds_moving_avg": "BondsMovingAverage",
    "bonds_penalty": "BondsPenalty",
    "bonds_reset": "BondsResetOn",
    "serving_rate_limit": "ServingRateLimit",
    "min_allowed_weights": "MinAllowedWeights",
    "max_weights_limit": "MaxWeightsLimit",
    "min_uids": "MinAllowedUids",
    "max_uids": "MaxAllowedUids",
    "max_validators": "MaxAllowedValidators",
    "commit_reveal": "CommitRevealWeightsEnabled",
    "commit_reveal_period": "RevealPeriodEpochs",
    "liquid_alpha": "LiquidAlphaOn",
    "alpha_sigmoid_steepness": "AlphaSigmoidSteepness",
    "yuma3": "Yuma3On",
    "transfers": "TransferToggle",
    "owner_cut": "OwnerCutEnabled",
    "owner_cut_auto_lock": "OwnerCutAutoLockEnabled",
    "immune_owner_uids": "ImmuneOwnerUidsLimit",
    "min_non_immune_uids": "MinNonImmuneUids",
    "mechanisms": "MechanismCountCurrent",
    "difficulty": "Difficulty",
    "min_difficulty": "MinDifficulty",
    "max_difficulty": "MaxDifficulty",
    "adjustment_alpha": "AdjustmentAlpha",
    "adjustment_interval": "AdjustmentInterval",
}
"""Hyperparameters field -> storage item of SubtensorModule, for those that are one value each."""

DEFAULTS = Hyperparameters()
ROOT = replace(DEFAULTS, tempo=100, max_uids=64, max_validators=64, min_allowed_weights=0, target_regs=1)
SUBNET_1 = replace(DEFAULTS, tempo=100, max_validators=64, min_allowed_weights=0)
REGISTERED = replace(
    DEFAULTS, max_validators=64, min_allowed_weights=1, immunity_period=5_000, yuma3=True, burn=1_000_000_000
)
"""A subnet bought with register_network; its tempo is the profile's default."""


@dataclass(frozen=True)
class GenesisPool:
    """Reserves and supply of a subnet at genesis."""

    tao: int = 10**10
    alpha_in: int = 10**10
    alpha_out: int = 10**9
    locked: int = 1
    neurons: int = 1


SUBNET_1_POOL = GenesisPool()
"""All of alpha_out is staked on the zero hotkey. The subnet is not started and its token is not enabled."""


@dataclass(frozen=True)
class Network:
    """Chain-wide settings that do not depend on the profile; defaults are the chain's."""

    existential_deposit: int = 500
    total_supply: int = 21_000_000_000_000_000
    min_stake: int = 2_000_000
    min_transfer: int = 100_000
    default_take: int = 11_796
    max_delegate_take: int = 11_796
    max_childkey_take: int = 11_796
    owner_cut: int = 11_796
    tao_weight: int = 971_718_665_099_567_868
    stake_threshold: int = 0
    nominator_min_required_stake: int = 0
    fee_rate: int = 33
    max_fee_rate: int = 10_000
    minimum_reserve: int = 1_000_000
    key_swap_cost: int = 100_000_000
    key_swap_on_subnet_cost: int = 1_000_000
    price_halving_blocks: int = 201_600
    moving_alpha: int = 12_885
    """3e-6 with 32 fraction bits, as stored; shift left by 32 for `coinbase.moving_price`."""
    tx_rate_limit: int = 1_000
    tx_delegate_take_rate_limit: int = 216_000
    network_rate_limit: int = 7_200
    """0 on builds with the faucet, which the local network is."""
    min_lock_cost: int = 1_000_000_000_000
    lock_reduction_interval: int = 100_800
    subnet_limit: int = 128
    network_immunity_period: int = 1_296_000
    admin_freeze_window: int = 10
    owner_hyperparam_rate_limit: int = 2
    """In tempos."""
    faucet_reward: int = 1_000_000_000_000
    faucet_difficulty: int = 1_000_000
    block_hash_count: int = 2_400
    operational_priority: int = 10_000_000_000
    drand_pulse_priority: int = 10_000
    owner_min_tempo: int = 360
    owner_max_tempo: int = 50_400
    commit_version: int = 4
    max_pending_commits: int = 10
    max_commit_bytes: int = 5_000
    max_mechanisms: int = 2
    collateral_lock_share: int = 0
    collateral_drain_ratio: U64F64 = ONE64


NETWORK = Network()


@dataclass(frozen=True)
class Limits:
    """What differs between fast blocks and production. Blocks unless named otherwise."""

    slot_ms: int
    timestamp_minimum_period_ms: int
    default_tempo: int
    max_epochs_per_block: int
    childkey_take_rate_limit: int
    pending_childkey_cooldown: int
    coldkey_swap_announcement_delay: int
    coldkey_swap_reannouncement_delay: int
    hotkey_swap_on_subnet_interval: int
    evm_key_associate_rate_limit: int
    max_uids_trimming_rate_limit: int
    mechanism_count_rate_limit: int
    mechanism_emission_rate_limit: int


FAST = Limits(
    slot_ms=250,
    timestamp_minimum_period_ms=125,
    default_tempo=10,
    max_epochs_per_block=32,
    childkey_take_rate_limit=5,
    pending_childkey_cooldown=15,
    coldkey_swap_announcement_delay=50,
    coldkey_swap_reannouncement_delay=10,
    hotkey_swap_on_subnet_interval=1,
    evm_key_associate_rate_limit=1,
    max_uids_trimming_rate_limit=1,
    mechanism_count_rate_limit=1,
    mechanism_emission_rate_limit=1,
)
MAINNET = Limits(
    slot_ms=12_000,
    timestamp_minimum_period_ms=6_000,
    default_tempo=360,
    max_epochs_per_block=2,
    childkey_take_rate_limit=216_000,
    pending_childkey_cooldown=7_200,
    coldkey_swap_announcement_delay=36_000,
    coldkey_swap_reannouncement_delay=7_200,
    hotkey_swap_on_subnet_interval=7_200,
    evm_key_associate_rate_limit=7_200,
    max_uids_trimming_rate_limit=216_000,
    mechanism_count_rate_limit=7_200,
    mechanism_emission_rate_limit=7_200,
)
LIMITS: Mapping[str, Limits] = {"fast": FAST, "mainnet": MAINNET}


def genesis_figures() -> dict[str, dict[str, Any]]:
    """Recorded facts by topic, as a client would read them from block 0: balances, netuid 1's pool and size, the
    settings of netuids 0 and 1, and of the network."""
    pool = {
        "tempo": SUBNET_1.tempo,
        "tao_reserve": SUBNET_1_POOL.tao,
        "alpha_in": SUBNET_1_POOL.alpha_in,
        "alpha_out": SUBNET_1_POOL.alpha_out,
        "max_uids": SUBNET_1.max_uids,
        "max_validators": SUBNET_1.max_validators,
        "n": SUBNET_1_POOL.neurons,
    }
    return {
        "accounts": dict(GENESIS_BALANCES),
        "subnet1": pool,
        "hyper1": {**asdict(SUBNET_1), "activity_cutoff": SUBNET_1.activity_cutoff},
        "hyper0": {**asdict(ROOT), "activity_cutoff": ROOT.activity_cutoff},
        "network": asdict(NETWORK),
    }
