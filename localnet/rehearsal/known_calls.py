"""How calls of the scenario are known to end differently with different versions of the chain's rules: the rows for
calls, by the names that the scenario gives them. See `changes`."""

from __future__ import annotations

from localnet.rehearsal.changes import Versioned, ends, refused, tells

REGISTRATION = "pallets/subtensor/src/subnets/registration.rs"
STAKING = "e2b8367b8, pallets/subtensor/src/staking"

_STAKE = (
    Versioned(
        ("add_stake",), 233, "stake may be put on any known hotkey; before, on others' only if they are delegates",
        f"{STAKING}/add_stake.rs",
        exact=ends(("NonAssociatedColdKey", None), ("HotKeyNotDelegateAndSignerNotOwnHotKey", None)),
    ),
    Versioned(
        ("add_stake of too much",), 424, "what is put into a pool is at most a thousand times what it holds, which is "
        "looked at first; before, whether the hotkey is a delegate, then the balance",
        "1ad16880f, pallets/subtensor/src/staking/add_stake.rs",
        exact=ends(
            ("NotEnoughBalanceToStake", "InsufficientLiquidity"), ("NonAssociatedColdKey", "InsufficientLiquidity")
        ),
    ),
    Versioned(
        ("remove_stake",), 233, "an amount too small is looked at first; before, whether the hotkey is registered",
        f"{STAKING}/stake_utils.rs", exact=ends(("NotRegistered", "AmountTooLow")),
    ),
    Versioned(
        ("add_stake",), 186, "another name of the error", "751f834ce, pallets/subtensor/src/staking.rs",
        exact=ends(("NotRegistered", "HotKeyAccountNotExists")),
    ),
    Versioned(
        ("add_stake on root", "remove_stake"), 233,
        "an account may change its stake as often as it likes; before, TargetStakesPerInterval times in an interval",
        f"{STAKING}/add_stake.rs and remove_stake.rs; 1416248b7 brought it",
        exact=ends(("StakeRateLimitExceeded", None), ("UnstakeRateLimitExceeded", None)),
    ),
    Versioned(
        ("add_stake of too much", "swap_stake"), 301,
        "staking calls that cannot succeed get into a block and fail there; before, the pool refused them",
        "082615f29, pallets/subtensor/src/transaction_extension.rs", exact=refused,
    ),
    Versioned(
        ("transfer of too much",), 149, "balances move as fungibles of the SDK 1.0; before, as a currency of 0.9.39",
        "3ddd88ae7, Cargo.lock", exact=ends(("InsufficientBalance", "Arithmetic.Underflow")),
    ),
)  # fmt: skip
_SUBNETS = (
    Versioned(
        ("sudo_add_network",), 133, "a subnet is bought; before, root added it (for the newer one it is written)",
        "d2d24a5cf, pallets/subtensor/src/lib.rs", exact=tells(gone=["NetworkAdded"]),
    ),
    Versioned(
        ("burned_register",), 111, "neurons register; before the launch nobody could",
        "2bd4a4770, pallets/subtensor/src/registration.rs", exact=ends(("RegistrationDisabled", None)),
    ),
    Versioned(
        ("register_network",), 394, "settings that no rule reads any more are not made, so no events for them; one for "
        "the owner's hotkey", "baae57289, commits before it, and e97adb8a5, pallets/subtensor/src/subnets/subnet.rs",
        exact=tells(
            gone=["MaxWeightLimitSet", "AdjustmentIntervalSet", "RegistrationPerIntervalSet", "AdjustmentAlphaSet",
                  "MinBurnSet", "MinDifficultySet", "MaxDifficultySet"],
            come=["SubnetOwnerHotkeySet"],
        ),
    ),
    Versioned(
        ("burned_register",), 371, "no event of what was recycled: the price goes to the pool",
        f"115c42049, {REGISTRATION}", exact=tells(gone=["RAORecycledForRegistrationSet"]),
    ),
    Versioned(
        ("burned_register",), 186, "another name of the error", f"5cdf439bc, {REGISTRATION}",
        exact=ends(("AlreadyRegistered", "HotKeyAlreadyRegisteredInSubNet")),
    ),
    Versioned(
        ("root_register",), 396, "who joins root is given the owners' hotkeys as children; and there is no senate",
        "c64ff727e, pallets/subtensor/src/coinbase/root.rs; f5e11478a",
        exact=tells(gone=["SenateMembers.MemberAdded"], come=["SetChildren"]),
    ),
    Versioned(
        ("serve_axon",), 272, "an axon may be at the address 0", "842108c75, pallets/subtensor/src/subnets/serving.rs",
        exact=ends(("InvalidIpAddress", None)),
    ),
    Versioned(
        ("serve_axon", "serve_prometheus"), 396, "the pool refuses it from who is not registered; before, it failed in "
        "its block", "2a3154627, pallets/subtensor/src/extensions/subtensor.rs",
        exact=ends(("NotRegistered", "refused: Custom error: 10")),
    ),
)  # fmt: skip
_WEIGHTS = (
    Versioned(
        ("commit_weights", "reveal_weights"), 197, "events for committed and revealed weights",
        "b07c1ffa9, pallets/subtensor/src/macros/events.rs", exact=tells(come=["WeightsCommitted", "WeightsRevealed"]),
    ),
    Versioned(
        ("commit_weights",), 186, "commit-reveal can be switched off, and is; before, whoever liked could commit",
        "b263c1e25, pallets/subtensor/src/weights.rs", exact=ends((None, "CommitRevealDisabled")),
    ),
    Versioned(
        ("reveal_weights",), 197, "the reveal is an epoch after the commit; before, an interval of blocks after it",
        "c22c3c553, pallets/subtensor/src/subnets/weights.rs", exact=ends(("InvalidRevealCommitTempo", None)),
    ),
    Versioned(
        ("set_weights",), 186, "other names of the errors", "5cdf439bc, pallets/subtensor/src/subnets/weights.rs",
        exact=ends(("InvalidUid", "UidVecContainInvalidOne"), ("NotRegistered", "HotKeyNotRegisteredInSubNet"),
                   ("TooManyUids", "UidsLengthExceedUidsInSubNet")),
    ),
)  # fmt: skip
_SETTINGS = (
    Versioned(
        ("sudo_set_max_allowed_uids",), 121, "a subnet may be made smaller; before, only larger",
        "b1b75581d, pallets/subtensor/src/utils.rs", exact=ends(("MaxAllowedUIdsNotAllowed", None)),
    ),
    Versioned(
        ("sudo_set_rho",), 136, "no event for it in the pallet that sets hyperparameters now",
        "26a8ea642, pallets/admin-utils/src/lib.rs", exact=tells(gone=["RhoSet"]),
    ),
    Versioned(
        ("sudo_set_commit_reveal_weights_enabled", "sudo_set_commit_reveal_weights_interval"), 259,
        "events for the settings of commit-reveal", "d0d01f8fa, pallets/subtensor/src/macros/events.rs",
        exact=tells(come=["CommitRevealEnabled", "CommitRevealPeriodsSet"]),
    ),
    Versioned(
        ("sudo_set_network_pow_registration_allowed",), 371, "there is no registration by work",
        "115c42049, pallets/admin-utils/src/lib.rs", exact=ends((None, "POWRegistrationDisabled")),
    ),
)  # fmt: skip
KNOWN_CALLS = (*_STAKE, *_SUBNETS, *_WEIGHTS, *_SETTINGS)
