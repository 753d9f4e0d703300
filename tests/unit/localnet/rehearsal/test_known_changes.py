"""What accounts for a difference: a row of the right item, versions, cause and values, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from localnet.calls import PALLET
from localnet.rehearsal.changes import BEGIN, NOBODY
from localnet.rehearsal.known_calls import KNOWN_CALLS
from localnet.rehearsal.versioned import VERSIONED, explain, explain_call

MAIN = (148, 461)  # the versions that are compared, unless another is named


def test_known_changes_explain_what_lies_between_two_versions_only() -> None:
    row = next(row for row in VERSIONED if "Burn" in row.items and "burned_register" in row.causes)
    for specs in ((row.since - 1, row.since), (row.since, row.since - 1)):
        assert explain(f"{PALLET}.Burn", "burned_register", specs, (1, 2)) is row
        assert explain(f"{PALLET}.Burn", "set_weights", specs, (1, 2)) is None
    assert explain(f"{PALLET}.Burn", "burned_register", (row.since, row.since + 1), (1, 2)) is None
    assert all(one.what and one.source and one.since > 0 for one in VERSIONED)


def test_a_known_change_that_looks_at_values_accounts_for_none_but_its_own() -> None:
    """By version: the newer one's value is the one that is nothing, whichever of the two is the reference."""
    item, some, none = f"{PALLET}.Alpha", {"bits": 5}, {"bits": 0}
    assert explain(item, "add_stake", (365, 366), (some, none)) is not None
    assert explain(item, "add_stake", (366, 365), (none, some)) is not None
    assert explain(item, "add_stake", (365, 366), (some, {"bits": 4})) is None
    assert explain(item, "add_stake", (365, 366), (none, some)) is None
    for item, older, newer, wrong in (
        ("LastTxBlockDelegateTake", 70, 0, 71), ("LastColdkeyHotkeyStakeBlock", 70, None, 71),
        ("ValidatorPermit", [False, True], [True, True], [True, False]),
        ("Commitments.UsedSpaceOf", {"last_epoch": 7, "used_space": 1}, {"last_epoch": 5, "used_space": 1},
         {"last_epoch": 5, "used_space": 2}),
    ):  # fmt: skip
        name = item if "." in item else f"{PALLET}.{item}"
        assert explain(name, "hooks before the extrinsics", (293, 461), (older, newer)) is not None
        assert explain(name, "hooks before the extrinsics", (293, 461), (older, wrong)) is None


def of(item: str, values: tuple[Any, Any], *keys: Any, cause: str = BEGIN, older: int = 148) -> bool:
    """Whether a row that looks at the values accounts for it, both ways round."""
    name = f"{PALLET}.{item}"
    found = explain(name, cause, (older, 461), values, keys)
    assert explain(name, cause, (461, older), values[::-1], keys) is found
    return found is not None and found.checked


def test_a_price_that_only_decays_is_told_from_one_that_went_elsewhere() -> None:
    assert of("Burn", (10**9, 998_076_443), 1) and not of("Burn", (10**9, 998_076_444), 1)


def test_a_block_s_tao_is_told_from_another_amount() -> None:
    assert of("TotalIssuance", (7, 10**9 + 7)) and not of("TotalIssuance", (7, 10**9 + 8))
    assert not of("TotalIssuance", (7, 10**9 + 7), older=293)


def test_what_a_test_network_s_builds_had_is_no_other_build_s() -> None:
    """Root has epochs with spec 181; a subnet without registrations has none with spec 185."""
    assert of("BlocksSinceLastStep", (5, 4), 0, older=181) and of("BlocksSinceLastStep", (0, 100), 0, older=181)
    assert not of("BlocksSinceLastStep", (5, 4), 1, older=181) and not of("BlocksSinceLastStep", (5, 4), 0)
    assert not of("BlocksSinceLastStep", (6, 4), 0, older=181)
    assert of("LastMechansimStepBlock", (99, 0), 0, older=181) and of("LastMechansimStepBlock", (200, 99), 0, older=181)
    assert not of("LastMechansimStepBlock", (100, 0), 0, older=181)
    assert of("BlocksSinceLastStep", (0, 1), 3, older=185) and not of("BlocksSinceLastStep", (0, 1), 3, older=184)
    assert of("LastMechansimStepBlock", (0, 95), 3, older=185) and not of(
        "LastMechansimStepBlock", (1, 95), 3, older=185
    )


@pytest.mark.parametrize(
    "item, cause, right, wrong",
    [
        ("Axons", "serve_axon", (None, {"ip": 0}), (None, {"ip": 1})),
        ("LastUpdate", "commit_weights", ([3, 4], [9, 4]), ([3, 4], [9, 5])),
        ("NetworkPowRegistrationAllowed", "sudo_set_network_pow_registration_allowed", (False, True), (True, False)),
        ("LastTxBlock", "add_stake", (57, 0), (57, 58)),
        ("MaxWeightsLimit", "sudo_add_network", (1_000, 65_535), (1_000, 65_534)),
    ],
)
def test_a_row_for_an_item_knows_what_the_newer_version_leaves(
    item: str, cause: str, right: tuple[Any, Any], wrong: tuple[Any, Any]
) -> None:
    assert of(item, right, 1, cause=cause) and not of(item, wrong, 1, cause=cause)


def test_what_was_before_the_launch_is_no_later_build_s() -> None:
    stored = (("Active", [], [True]), ("Uids", None, 0), ("Owner", NOBODY, "5DLb"), ("SubnetworkN", 0, 1))
    for item, older, newer in stored:
        assert of(item, (older, newer), 1, cause="burned_register", older=103)
        assert not of(item, (newer, older), 1, cause="burned_register", older=103)
        assert not of(item, (older, newer), 1, cause="burned_register")
    assert of("MaxAllowedUids", (4_096, 64), 1, cause="sudo_set_max_allowed_uids", older=120)
    assert not of("MaxAllowedUids", (64, 4_096), 1, cause="sudo_set_max_allowed_uids", older=120)


def ended(error: str | None, *events: str) -> tuple[str | None, tuple[str, ...]]:
    return error, tuple(f"{PALLET}.{event}" if "." not in event else event for event in events)


def test_a_call_is_accounted_for_by_how_it_ends_on_both() -> None:
    limited, done = ended("UnstakeRateLimitExceeded"), ended(None, "StakeRemoved")
    assert explain_call("remove_stake", MAIN, (limited, done)) is not None
    assert explain_call("remove_stake", MAIN[::-1], (done, limited)) is not None
    assert explain_call("remove_stake", MAIN, (done, limited)) is None
    assert explain_call("add_stake", MAIN, (ended("NotEnoughBalanceToStake"), done)) is None
    assert explain_call("remove_stake", (233, 461), (limited, done)) is None
    refused, failed = ended("refused: Custom error: 255"), ended("SubtokenDisabled")
    assert explain_call("swap_stake", (300, 461), (refused, failed)) is not None
    assert explain_call("swap_stake", (300, 461), (refused, done)) is None
    assert explain_call("swap_stake", (300, 461), (failed, refused)) is None


def test_events_that_came_or_went_are_all_that_may_differ() -> None:
    older = ended(None, "SenateMembers.MemberAdded", "NeuronRegistered")
    assert explain_call("root_register", MAIN, (older, ended(None, "NeuronRegistered", "SetChildren"))) is not None
    assert explain_call("root_register", MAIN, (older, ended(None, "SetChildren"))) is None
    assert explain_call("root_register", MAIN, (older, ended("StakingOperationRateLimitExceeded"))) is None


def test_no_row_accounts_for_a_call_that_a_runtime_could_not_carry_out() -> None:
    good = ended(None, "NeuronRegistered")
    for row in KNOWN_CALLS:
        assert row.exact is not None
        for broken in (ended("Corruption"), ended("Unavailable")):
            for name in row.items:
                assert explain_call(name, (row.since - 1, 461), (good, broken)) is None
                assert explain_call(name, (row.since - 1, 461), (broken, good)) is None
