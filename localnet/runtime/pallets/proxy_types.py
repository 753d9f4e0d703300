"""Which calls a proxy of each type may make for the account it acts for.

Calls are sorted into groups, as the released chain does it; a type allows whole groups, and what it does not list it
denies. A few calls are allowed only up to an amount, or only around a certain other call (`Rule`).

    table = make_table(document.calls)                                  type -> its rules; Any has none
    allows(table, "Staking", "SubtensorModule", "add_stake", arguments)
    is_superset("Transfer", "SmallTransfer")                            who may hand out what

The groups are those of the public source next to spec 461 (runtime/src/proxy_filters), with what spec 459 changed:
calls that spend or lock value apart from the rest, no Sudo, Multisig, Crowdloan and owner key through a broad type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localnet.runtime.runtime_call import split_call

Calls = Mapping[str, Mapping[str, Any]]  # pallet -> its calls by name

TYPES = (  # by their index on the chain
    "Any", "Owner", "NonCritical", "NonTransfer", "Senate", "NonFungible", "Triumvirate", "Governance", "Staking",
    "Registration", "Transfer", "SmallTransfer", "RootWeights", "ChildKeys", "SudoUncheckedSetCode", "SwapHotkey",
    "SubnetLeaseBeneficiary", "RootClaim", "BasketTrading",
)  # fmt: skip
DEPRECATED = frozenset(("Senate", "Triumvirate", "Governance", "RootWeights"))  # allow nothing
SMALL = 500_000_000  # rao or alpha-rao: what SmallTransfer stays below

GROUPS: Mapping[str, str] = {  # "Pallet: call call"; a pallet without calls stands for all its calls but the excluded
    "infrastructure": """
        System Timestamp Grandpa Utility Preimage Scheduler Proxy Commitments SafeMode Ethereum BaseFee Drand Swap
        MevShield-store_encrypted LimitOrders""",
    "contracts": "EVM Contracts",
    "balance transfers": "Balances: transfer_keep_alive transfer_allow_death transfer_all",
    "balance maintenance": """Balances: force_transfer force_unreserve upgrade_accounts force_set_balance
        force_adjust_total_issuance burn""",
    "stake": """SubtensorModule: add_stake add_stake_limit remove_stake remove_stake_limit remove_stake_full_limit
        unstake_all unstake_all_alpha move_stake move_stake_limit swap_stake swap_stake_limit stake_into_basket
        add_collateral set_min_collateral""",
    "stake transfers": "SubtensorModule: transfer_stake transfer_stake_and_hotkey",
    "registration": "SubtensorModule: register register_limit",
    "burned registration": "SubtensorModule: burned_register",
    "root registration": "SubtensorModule: root_register",
    "hotkey swap": "SubtensorModule: swap_hotkey swap_hotkey_v2",
    "coldkey swap": """SubtensorModule: schedule_swap_coldkey swap_coldkey announce_coldkey_swap swap_coldkey_announced
        clear_coldkey_swap_announcement dispute_coldkey_swap reset_coldkey_swap""",
    "dissolution": "SubtensorModule: dissolve_network root_dissolve_network",
    "child keys": "SubtensorModule: set_children set_childkey_take",
    "root claims": "SubtensorModule: claim_root claim_root_with_hotkey",
    "basket trading": "SubtensorModule: swap_basket",
    "subnet identity": "SubtensorModule: set_subnet_identity update_symbol",
    "subnet start": "SubtensorModule: start_call",
    "value": """SubtensorModule: add_stake_burn lock_stake move_lock set_perpetual_lock recycle_alpha burn_alpha
        register_network register_network_with_identity register_leased_network""",
    "neurons": """SubtensorModule: set_weights set_mechanism_weights batch_set_weights commit_weights
        commit_mechanism_weights batch_commit_weights commit_crv3_mechanism_weights commit_timelocked_weights
        commit_timelocked_mechanism_weights reveal_weights reveal_mechanism_weights batch_reveal_weights
        set_reject_locked_alpha decrease_take increase_take serve_axon serve_axon_tls serve_prometheus set_identity
        try_associate_hotkey associate_evm_key set_coldkey_auto_stake_hotkey set_pending_childkey_cooldown
        set_auto_parent_delegation_enabled sudo_set_tx_childkey_take_rate_limit sudo_set_min_childkey_take
        sudo_set_max_childkey_take terminate_lease trigger_epoch sudo_set_root_claim_threshold
        enable_voting_power_tracking disable_voting_power_tracking sudo_set_voting_power_ema_alpha""",
    "subnet management": """SubtensorModule: set_tempo set_activity_cutoff_factor
        AdminUtils: sudo_set_serving_rate_limit sudo_set_max_difficulty sudo_set_weights_version_key
        sudo_set_adjustment_alpha sudo_set_immunity_period sudo_set_min_allowed_weights sudo_set_rho
        sudo_set_activity_cutoff sudo_set_activity_cutoff_factor sudo_set_tempo sudo_set_min_burn sudo_set_max_burn
        sudo_set_bonds_moving_average sudo_set_bonds_penalty sudo_set_min_childkey_take_per_subnet
        sudo_set_commit_reveal_weights_enabled sudo_set_liquid_alpha_enabled sudo_set_alpha_values
        sudo_set_liquid_alpha_consensus_mode sudo_set_commit_reveal_weights_interval sudo_set_toggle_transfer
        sudo_set_recycle_or_burn sudo_set_alpha_sigmoid_steepness sudo_set_yuma3_enabled sudo_set_bonds_reset_enabled
        sudo_set_owner_immune_neuron_limit sudo_set_mechanism_count sudo_set_mechanism_emission_split
        sudo_trim_to_max_allowed_uids sudo_set_max_allowed_uids sudo_set_burn_half_life sudo_set_burn_increase_mult
        sudo_set_owner_cut_enabled sudo_set_owner_cut_auto_lock_enabled sudo_set_collateral_lock_share
        sudo_set_collateral_drain_ratio""",
    "root settings": """AdminUtils: swap_authorities schedule_grandpa_change sudo_set_default_take
        sudo_set_tx_rate_limit sudo_set_min_difficulty sudo_set_weights_set_rate_limit sudo_set_adjustment_interval
        sudo_set_kappa sudo_set_network_registration_allowed sudo_set_network_pow_registration_allowed
        sudo_set_target_registrations_per_interval sudo_set_difficulty sudo_set_max_allowed_validators
        sudo_set_max_registrations_per_block sudo_set_subnet_owner_cut sudo_set_network_rate_limit
        sudo_set_total_issuance sudo_set_network_immunity_period sudo_set_network_min_lock_cost sudo_set_subnet_limit
        sudo_set_lock_reduction_interval sudo_set_rao_recycled sudo_set_stake_threshold
        sudo_set_nominator_min_required_stake sudo_set_tx_delegate_take_rate_limit sudo_set_min_delegate_take
        sudo_set_dissolve_network_schedule_duration sudo_set_evm_chain_id sudo_toggle_evm_precompile
        sudo_set_subnet_moving_alpha sudo_set_ema_price_halving_period sudo_set_subtoken_enabled
        sudo_set_commit_reveal_version sudo_set_ck_burn sudo_set_admin_freeze_window sudo_set_owner_hparam_rate_limit
        sudo_set_min_allowed_uids sudo_set_min_non_immune_uids sudo_set_tao_flow_cutoff
        sudo_set_tao_flow_normalization_exponent sudo_set_emission_bar_quantile sudo_set_emission_bar_rank
        sudo_set_emission_gate_exponent sudo_set_tao_flow_smoothing_factor sudo_set_net_tao_flow_enabled
        sudo_set_max_mechanism_count sudo_set_start_call_delay sudo_set_coldkey_swap_announcement_delay
        sudo_set_coldkey_swap_reannouncement_delay sudo_set_subnet_emission_enabled sudo_set_max_epochs_per_block
        sudo_set_basket_concentration_cap sudo_set_basket_trading_enabled sudo_set_basket_trading_frozen
        sudo_set_basket_daily_turnover_cap sudo_set_basket_liquidity_cap""",
    "granted to Any only": "Sudo Multisig Crowdloan MevShield: store_encrypted AdminUtils: sudo_set_sn_owner_hotkey",
}  # fmt: skip

_COMMON = (
    "infrastructure", "subnet management", "root settings", "registration", "child keys", "root claims",
    "subnet identity", "subnet start", "neurons",
)  # fmt: skip
ALLOWED: Mapping[str, tuple[str, ...]] = {  # type -> groups
    "Owner": ("subnet identity", "subnet management"),
    "NonCritical": (
        *_COMMON, "contracts", "balance transfers", "balance maintenance", "stake", "stake transfers", "hotkey swap",
        "value",
    ),
    "NonTransfer": (
        *_COMMON, "stake", "burned registration", "root registration", "hotkey swap", "dissolution", "value",
    ),
    "NonFungible": (*_COMMON, "dissolution"),
    "Staking": ("stake",),
    "Registration": ("registration", "burned registration"),
    "Transfer": ("balance transfers", "stake transfers"),
    "ChildKeys": ("child keys",),
    "SwapHotkey": ("hotkey swap",),
    "SubnetLeaseBeneficiary": ("subnet start", "subnet identity", "subnet management"),
    "RootClaim": ("root claims",),
    "BasketTrading": ("basket trading",),
}  # fmt: skip
_UNDER_NON_TRANSFER = frozenset((
    "Owner", "Senate", "NonFungible", "Triumvirate", "Governance", "Staking", "Registration", "RootWeights",
    "ChildKeys", "SwapHotkey", "SubnetLeaseBeneficiary", "RootClaim",
))  # fmt: skip


Table = dict[str, dict[tuple[str, str], "Rule"]]


@dataclass(frozen=True)
class Rule:
    """One allowed call. `below`: (argument, exclusive limit); `around`: (argument, pallet, function) it must carry."""

    pallet: str
    function: str
    below: tuple[str, int] | None = None
    around: tuple[str, str, str] | None = None

    def holds(self, arguments: Mapping[str, Any]) -> bool:
        if self.below is not None and arguments[self.below[0]] >= self.below[1]:
            return False
        return self.around is None or split_call(arguments[self.around[0]])[:2] == self.around[1:]


CONDITIONAL: Mapping[str, tuple[Rule, ...]] = {
    "SmallTransfer": (
        Rule("Balances", "transfer_keep_alive", below=("value", SMALL)),
        Rule("Balances", "transfer_allow_death", below=("value", SMALL)),
        Rule("SubtensorModule", "transfer_stake", below=("alpha_amount", SMALL)),
        Rule("SubtensorModule", "transfer_stake_and_hotkey", below=("alpha_amount", SMALL)),
    ),
    "SudoUncheckedSetCode": (Rule("Sudo", "sudo_unchecked_weight", around=("call", "System", "set_code")),),
}


def group(calls: Calls, name: str) -> list[tuple[str, str]]:
    """The (pallet, function) pairs of a group; `calls`: every call, by pallet."""
    pairs: list[tuple[str, str]] = []
    pallet = ""
    for word in GROUPS[name].split():
        if word.endswith(":"):
            pallet = word[:-1]
        elif word[0].isupper():
            whole, *excluded = word.split("-")
            pairs += [(whole, function) for function in calls[whole] if function not in excluded]
        else:
            pairs.append((pallet, word))
    return pairs


def make_table(calls: Calls) -> Table:
    """What each type but Any allows."""
    table: Table = {}
    for kind in TYPES[1:]:
        pairs = [pair for name in ALLOWED.get(kind, ()) for pair in group(calls, name)]
        found = [Rule(*pair) for pair in pairs] + list(CONDITIONAL.get(kind, ()))
        table[kind] = {(rule.pallet, rule.function): rule for rule in found}
    return table


def allows(table: Table, kind: str, pallet: str, function: str, arguments: Mapping[str, Any]) -> bool:
    """May a proxy of this type make this call?"""
    if kind == "Any":
        return True
    rule = table[kind].get((pallet, function))
    return rule is not None and rule.holds(arguments)


def is_superset(kind: str, other: str) -> bool:
    """May a proxy of type `kind` add and remove proxies of type `other`?"""
    if kind == other or kind == "Any":
        return True
    return (kind == "NonTransfer" and other in _UNDER_NON_TRANSFER) or (kind, other) == ("Transfer", "SmallTransfer")
