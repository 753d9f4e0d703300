"""Hyperparameters: who may set which, when, within what bounds, and what tells the world."""

from __future__ import annotations

from typing import Any

import pytest

from localnet.runtime.framework import StorageMap
from localnet.runtime.pallets.settings import CHAIN_SETTINGS, OWNER_SETTINGS, ROOT_SETTINGS, SETTINGS, Setting
from localnet.runtime.subtensor import limits, staking
from tests.support.market import ALICE, BOB, CHARLIE, HOT, TAO, Market, fresh

ONE = 1 << 64
ODD_VALUES: dict[str, Any] = {  # values inside the bounds where 3 is not, by call
    "sudo_set_max_allowed_uids": 128,
    "sudo_set_activity_cutoff": 400,
    "sudo_set_min_burn": 400_000,
    "sudo_set_max_burn": 200_000_000,
    "sudo_set_burn_increase_mult": {"bits": 2 * ONE},
    "sudo_set_min_allowed_uids": 1,
    "sudo_set_recycle_or_burn": "Recycle",
    "sudo_set_subnet_moving_alpha": {"bits": 5},
    "sudo_set_tao_flow_cutoff": {"bits": 5},
    "sudo_set_tao_flow_normalization_exponent": {"bits": ONE + 1},
    "sudo_set_collateral_drain_ratio": {"bits": ONE // 2},
    "sudo_set_emission_bar_quantile": {"bits": ONE // 5},
    "sudo_set_emission_gate_exponent": {"bits": 7 * ONE},
    "sudo_set_liquid_alpha_consensus_mode": "Previous",
}
BOOLEAN = {
    "sudo_set_bonds_reset_enabled", "sudo_set_liquid_alpha_enabled", "sudo_set_toggle_transfer",
    "sudo_set_owner_cut_enabled", "sudo_set_commit_reveal_weights_enabled", "sudo_set_yuma3_enabled",
    "sudo_set_network_registration_allowed", "sudo_set_subtoken_enabled", "sudo_set_subnet_emission_enabled",
    "sudo_set_net_tao_flow_enabled", "sudo_set_owner_cut_auto_lock_enabled", "sudo_set_basket_trading_enabled",
}  # fmt: skip


@pytest.fixture
def m() -> Market:
    return fresh()


def value_for(m: Market, setting: Setting) -> Any:
    """A value that differs from the present one and lies within the bounds."""
    if setting.call in BOOLEAN:
        return not stored(m, setting)
    return ODD_VALUES.get(setting.call, 3)


def stored(m: Market, setting: Setting) -> Any:
    item = getattr(m.p, setting.item)
    return item[m.net] if isinstance(item, StorageMap) else item.get()


def arguments(m: Market, setting: Setting, value: Any) -> dict[str, Any]:
    return {**({"netuid": m.net} if setting.per_subnet else {}), setting.argument: value}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.call)
def test_root_sets_everything_and_an_event_says_so(m: Market, setting: Setting) -> None:
    value = value_for(m, setting)
    assert stored(m, setting) != value
    m.rt.events.clear()
    m.root("AdminUtils", setting.call, **arguments(m, setting, value))
    assert stored(m, setting) == value
    pallet = "AdminUtils" if setting.named_event else "SubtensorModule"
    assert [name for name, _ in m.events(pallet)] == ([] if setting.event is None else [setting.event])


@pytest.mark.parametrize("setting", OWNER_SETTINGS, ids=lambda setting: setting.call)
def test_owners_set_theirs_once_in_two_tempos(m: Market, setting: Setting) -> None:
    given = arguments(m, setting, value_for(m, setting))
    assert m.refusal(BOB, setting.call, pallet="AdminUtils", **given) == "BadOrigin"
    m.admin(ALICE, setting.call, **given)
    assert stored(m, setting) == given[setting.argument]
    if setting.limit is None:
        return
    wait = setting.limit.blocks(m.p, m.net)
    assert wait in (2 * 10, 5 * 10)
    m.at(m.rt.number + wait - 1)
    assert m.refusal(ALICE, setting.call, pallet="AdminUtils", **given) == "TxRateLimitExceeded"
    m.root("AdminUtils", setting.call, **given)  # root is not limited
    m.at(m.rt.number + 1)
    m.admin(ALICE, setting.call, **given)


@pytest.mark.parametrize("setting", ROOT_SETTINGS + CHAIN_SETTINGS, ids=lambda setting: setting.call)
def test_owners_do_not_set_what_is_roots(m: Market, setting: Setting) -> None:
    given = arguments(m, setting, value_for(m, setting))
    assert m.refusal(ALICE, setting.call, pallet="AdminUtils", **given) == "BadOrigin"


@pytest.mark.parametrize(
    "call, given, error",
    [
        ("max_allowed_uids", {"max_allowed_uids": 63}, "MaxAllowedUidsLessThanMinAllowedUids"),
        ("max_allowed_uids", {"max_allowed_uids": 257}, "MaxAllowedUidsGreaterThanDefaultMaxAllowedUids"),
        ("max_allowed_validators", {"max_allowed_validators": 257}, "MaxValidatorsLargerThanMaxUIds"),
        ("min_allowed_uids", {"min_allowed_uids": 256}, "MinAllowedUidsGreaterThanMaxAllowedUids"),
        ("min_allowed_uids", {"min_allowed_uids": 2}, "MinAllowedUidsGreaterThanCurrentUids"),
        ("activity_cutoff", {"activity_cutoff": 359}, "ActivityCutoffTooLow"),
        ("collateral_lock_share", {"lock_share": 62_259}, "CollateralLockShareTooHigh"),
        ("collateral_lock_share", {"lock_share": 1, "netuid": 0}, "NotPermittedOnRootSubnet"),
        ("collateral_drain_ratio", {"drain_ratio": {"bits": 0}}, "CollateralDrainRatioOutOfBounds"),
        ("collateral_drain_ratio", {"drain_ratio": {"bits": 10 * ONE + 1}}, "CollateralDrainRatioOutOfBounds"),
        ("owner_cut_auto_lock_enabled", {"enabled": True, "netuid": 0}, "NotPermittedOnRootSubnet"),
        ("min_burn", {"min_burn": TAO}, "ValueNotInBounds"),
        ("max_burn", {"max_burn": TAO // 10}, "ValueNotInBounds"),
        ("burn_half_life", {"burn_half_life": 0}, "InvalidValue"),
        ("burn_half_life", {"burn_half_life": 36_101}, "InvalidValue"),
        ("burn_increase_mult", {"burn_increase_mult": {"bits": ONE - 1}}, "InvalidValue"),
        ("burn_increase_mult", {"burn_increase_mult": {"bits": 3 * ONE + 1}}, "InvalidValue"),
        ("commit_reveal_weights_interval", {"interval": 0}, "RevealPeriodTooSmall"),
        ("commit_reveal_weights_interval", {"interval": 101}, "RevealPeriodTooLarge"),
        ("min_childkey_take_per_subnet", {"take": 11_797}, "InvalidValue"),
        ("owner_immune_neuron_limit", {"immune_neurons": 0}, "InvalidValue"),
        ("owner_immune_neuron_limit", {"immune_neurons": 11}, "InvalidValue"),
        ("kappa", {"kappa": 1, "netuid": 99}, "SubnetDoesNotExist"),
        ("burn_half_life", {"burn_half_life": 1, "netuid": 0}, "NotPermittedOnRootSubnet"),
        ("subnet_emission_enabled", {"enabled": True, "netuid": 0}, "NotPermittedOnRootSubnet"),
        ("network_pow_registration_allowed", {"registration_allowed": True}, "POWRegistrationDisabled"),
        ("alpha_values", {"alpha_low": 2_000, "alpha_high": 3_000}, "LiquidAlphaDisabled"),
        ("mechanism_count", {"mechanism_count": 0}, "InvalidValue"),
        ("mechanism_count", {"mechanism_count": 3}, "InvalidValue"),
        ("mechanism_count", {"mechanism_count": 2}, "TooManyUIDsPerMechanism"),
        ("mechanism_emission_split", {"maybe_split": [65_534]}, "InvalidValue"),
        ("mechanism_emission_split", {"maybe_split": [65_534, 1]}, "InvalidValue"),
    ],
)
def test_values_out_of_bounds(m: Market, call: str, given: dict[str, Any], error: str) -> None:
    given = {"netuid": m.net, **given}
    assert m.refusal(None, f"sudo_set_{call}", pallet="AdminUtils", **given) == error


def test_chain_wide_bounds(m: Market) -> None:
    refuse = lambda call, **given: m.refusal(None, call, pallet="AdminUtils", **given)  # noqa: E731
    assert refuse("sudo_set_max_epochs_per_block", max_epochs_per_block=0) == "ValueNotInBounds"
    assert refuse("sudo_set_max_mechanism_count", max_mechanism_count=17) == "InvalidValue"
    assert refuse("sudo_set_total_issuance", total_issuance=1) == "Deprecated"


@pytest.mark.parametrize(
    "call, given, error",
    [
        ("sudo_set_bonds_moving_average", {"bonds_moving_average": 975_001}, "BondsMovingAverageMaxReached"),
        ("sudo_set_alpha_sigmoid_steepness", {"steepness": -1}, "NegativeSigmoidSteepness"),
    ],
)
def test_some_bounds_bind_owners_only(m: Market, call: str, given: dict[str, Any], error: str) -> None:
    assert m.refusal(ALICE, call, pallet="AdminUtils", netuid=m.net, **given) == error
    m.root("AdminUtils", call, netuid=m.net, **given)


def test_settings_are_frozen_before_an_epoch(m: Market) -> None:
    m.p.Tempo[m.net] = 360
    m.root("AdminUtils", "sudo_set_admin_freeze_window", window=10)
    last = m.p.LastEpochBlock[m.net]
    m.at(last + 360 - 9)
    frozen = "AdminActionProhibitedDuringWeightsWindow"
    assert m.refusal(ALICE, "sudo_set_rho", pallet="AdminUtils", netuid=m.net, rho=3) == frozen
    assert m.refusal(ALICE, "sudo_set_tempo", pallet="AdminUtils", netuid=m.net, tempo=400) == frozen
    late = {"netuid": m.net, "factor_milli": 2_000}
    assert m.refusal(ALICE, "sudo_set_activity_cutoff_factor", pallet="AdminUtils", **late) == frozen
    m.root("AdminUtils", "sudo_set_activity_cutoff_factor", **late)  # binds the owner only
    m.root("AdminUtils", "sudo_set_kappa", netuid=m.net, kappa=3)  # not a setting the window covers
    m.at(last + 360 - 10)
    m.admin(ALICE, "sudo_set_rho", netuid=m.net, rho=3)


def test_a_new_tempo_starts_its_cycle_now(m: Market) -> None:
    m.at(50)
    m.root("AdminUtils", "sudo_set_tempo", netuid=m.net, tempo=0)
    assert (m.p.Tempo[m.net], m.p.LastEpochBlock[m.net]) == (0, 50)
    assert m.last("TempoSet") == (m.net, 0)
    assert not limits.is_frozen(m.p, m.net)


def test_owners_set_a_tempo_within_bounds_once_in_a_tempo(m: Market) -> None:
    refuse = lambda who, tempo, netuid=m.net: m.refusal(  # noqa: E731
        who, "sudo_set_tempo", pallet="AdminUtils", netuid=netuid, tempo=tempo
    )
    assert refuse(BOB, 400) == "BadOrigin"
    assert refuse(None, 400, 99) == "SubnetNotExists"
    assert refuse(ALICE, 359) == refuse(ALICE, 50_401) == "TempoOutOfBounds"
    m.at(1_000)
    m.admin(ALICE, "sudo_set_tempo", netuid=m.net, tempo=400)
    assert (m.p.Tempo[m.net], m.p.LastEpochBlock[m.net]) == (400, 1_000)
    m.at(1_359)
    assert refuse(ALICE, 500) == "TxRateLimitExceeded"
    m.at(1_360)
    m.admin(ALICE, "sudo_set_tempo", netuid=m.net, tempo=500)


def test_owners_set_the_cutoff_factor_once_in_two_tempos(m: Market) -> None:
    given = {"netuid": m.net, "factor_milli": 2_000}
    refuse = lambda who, **change: m.refusal(  # noqa: E731
        who, "sudo_set_activity_cutoff_factor", pallet="AdminUtils", **{**given, **change}
    )
    assert refuse(BOB) == "BadOrigin"
    bounds = "ActivityCutoffFactorMilliOutOfBounds"
    assert refuse(None, factor_milli=999) == refuse(ALICE, factor_milli=50_001) == bounds
    m.at(1_000)
    m.admin(ALICE, "sudo_set_activity_cutoff_factor", **given)
    assert m.p.ActivityCutoffFactorMilli[m.net] == 2_000
    assert m.last("ActivityCutoffFactorMilliSet") == given
    m.at(1_019)
    assert refuse(ALICE) == "TxRateLimitExceeded"
    m.root("AdminUtils", "sudo_set_activity_cutoff_factor", **given)
    m.at(1_020)
    m.admin(ALICE, "sudo_set_activity_cutoff_factor", **given)


def test_the_former_calls_of_owners_change_nothing(m: Market) -> None:
    before = m.contents()
    m.call(BOB, "set_tempo", netuid=m.net, tempo=3)
    m.call(BOB, "set_activity_cutoff_factor", netuid=m.net, factor_milli=3)
    assert m.contents() == before


def test_liquid_alpha_bounds(m: Market) -> None:
    m.admin(ALICE, "sudo_set_liquid_alpha_enabled", netuid=m.net, enabled=True)
    refuse = lambda low, high: m.refusal(  # noqa: E731
        ALICE, "sudo_set_alpha_values", pallet="AdminUtils", netuid=m.net, alpha_low=low, alpha_high=high
    )
    assert refuse(1_638, 1_637) == "AlphaHighTooLow"
    assert refuse(1_637, 1_638) == "AlphaLowOutOfRange"
    assert refuse(1_640, 1_639) == "AlphaLowOutOfRange"
    m.admin(ALICE, "sudo_set_alpha_values", netuid=m.net, alpha_low=1_638, alpha_high=1_638)
    assert m.p.AlphaValues[m.net] == (1_638, 1_638)
    assert refuse(1_638, 1_638) == "TxRateLimitExceeded"


def test_fewer_mechanisms_lose_their_weights_and_the_split(m: Market) -> None:
    m.p.MaxAllowedUids[m.net] = 128
    m.admin(ALICE, "sudo_set_mechanism_count", netuid=m.net, mechanism_count=2)
    m.admin(ALICE, "sudo_set_mechanism_emission_split", netuid=m.net, maybe_split=[60_000, 5_535])
    assert m.p.MechanismEmissionSplit[m.net] == [60_000, 5_535]
    m.p.Weights[4096 + m.net, 0] = [(1, 1)]
    m.p.Weights[m.net, 0] = [(1, 1)]
    again = {"pallet": "AdminUtils", "netuid": m.net, "mechanism_count": 1}
    m.at(m.rt.number + 1)
    m.admin(ALICE, "sudo_set_mechanism_count", netuid=m.net, mechanism_count=1)
    assert (4096 + m.net, 0) not in m.p.Weights and m.p.Weights[m.net, 0] == [(1, 1)]
    assert m.p.MechanismEmissionSplit[m.net] is None
    assert m.refusal(BOB, "sudo_set_mechanism_count", **again) == "BadOrigin"


def test_raising_the_nomination_minimum_pays_small_nominations_out(m: Market) -> None:
    m.call(CHARLIE, "add_stake", hotkey=HOT, netuid=m.net, amount_staked=TAO)
    m.call(ALICE, "add_stake", hotkey=HOT, netuid=m.net, amount_staked=TAO)
    m.root("AdminUtils", "sudo_set_nominator_min_required_stake", min_stake=10**9)  # 2 TAO
    assert staking.stake_of(m.p, HOT, CHARLIE, m.net) == 0
    assert staking.stake_of(m.p, HOT, ALICE, m.net) > 0  # owners may hold as little as they like


def test_small_nominations_go_in_the_order_of_the_accounts(m: Market) -> None:
    """Not in that of a Python set, which differs from run to run."""
    holders = [bytes([number]) * 32 for number in range(1, 9)]
    for holder in holders:
        m.rt.balances.mint(holder, 10 * TAO)
        m.call(holder, "add_stake", hotkey=HOT, netuid=m.net, amount_staked=TAO)
    m.root("AdminUtils", "sudo_set_nominator_min_required_stake", min_stake=10**9)  # 2 TAO
    assert [value[0] for name, value in m.events() if name == "StakeRemoved"] == holders


def test_the_owners_hotkey_changes_once_a_week(m: Market) -> None:
    other = bytes(31) + b"\4"
    m.admin(ALICE, "sudo_set_sn_owner_hotkey", netuid=m.net, hotkey=other)
    assert m.p.SubnetOwnerHotkey[m.net] == other
    m.at(m.rt.number + 50_399)
    given = {"pallet": "AdminUtils", "netuid": m.net, "hotkey": HOT}
    assert m.refusal(ALICE, "sudo_set_sn_owner_hotkey", **given) == "TxRateLimitExceeded"


def test_a_setting_without_an_effect_here_is_refused_by_name(m: Market) -> None:
    refused = m.refusal(None, "sudo_set_evm_chain_id", pallet="AdminUtils", chain_id=5)
    assert refused == "AdminUtils.sudo_set_evm_chain_id is not implemented"


def test_events_that_released_runtimes_deposit_and_those_that_they_only_declare(m: Market) -> None:
    said = len(m.rt.events)
    m.root("AdminUtils", "sudo_set_rho", netuid=m.net, rho=20)
    m.root("AdminUtils", "sudo_set_alpha_sigmoid_steepness", netuid=m.net, steepness=900)
    assert len(m.rt.events) == said and (m.p.Rho[m.net], m.p.AlphaSigmoidSteepness[m.net]) == (20, 900)
    m.root("AdminUtils", "sudo_set_bonds_reset_enabled", netuid=m.net, enabled=True)
    assert m.last("BondsResetOnSet") == (m.net, True)
    assert m.last("BondsResetToggled", "AdminUtils") == {"netuid": m.net, "enabled": True}
