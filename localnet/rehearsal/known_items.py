"""What versions of the chain's rules are known to keep differently: the rows for storage items. See `changes`."""

from __future__ import annotations

from localnet.rehearsal.changes import (
    BEGIN,
    FOUNDING,
    RULE_SOURCE,
    TRADES,
    Versioned,
    at_zero,
    counted,
    decayed,
    earlier,
    later_in_one,
    never,
    nobody_there,
    not_counted,
    nothing,
    one_more,
    one_tao_more,
    root_epoch,
    same_space,
    smaller,
    stays_on,
    unlimited,
)

POOL = ("SubnetTAO", "SubnetAlphaIn", "SubnetAlphaOut", "SubnetVolume", "TotalStake", "TotalHotkeyAlpha")
CLOSED = "a subnet that takes no registrations has epochs too; for some weeks of test networks it had none"
KNOWN_ITEMS = (
    Versioned(
        POOL, 365, "a pool is a weighted product of its reserves; before, of ranges of prices, with its own rounding",
        "5fdc9f9e0, pallets/swap/src/pallet/balancer.rs", TRADES,
    ),
    Versioned(
        ("Alpha", "TotalHotkeyShares"), 366, "shares of stake are in AlphaV2 and TotalHotkeySharesV2, as floats",
        "136f007a8, pallets/subtensor/src/lib.rs", exact=nothing,
    ),
    Versioned(
        ("System.Account", "Balances.TotalIssuance", "TotalIssuance"), 391,
        "TAO in a pool stays in an account of the subnet's; before, it was taken out of circulation",
        "836eab509, pallets/subtensor/src/coinbase/tao.rs", TRADES,
    ),
    Versioned(
        ("SubnetTaoInEmission", "SubnetAlphaInEmission", "SubnetAlphaOutEmission", "SubnetTAO", "SubnetAlphaIn",
         "SubnetAlphaOut", "SubnetVolume", "TotalStake", "TotalIssuance", "Balances.TotalIssuance",
         "SubnetMovingPrice", "PendingOwnerCut", "BlockEmission"), 330,
        "a block's TAO is divided by flow or price through a gate, and the alpha put into a pool is capped by root's "
        "share", "1b392d594 and later, pallets/subtensor/src/coinbase/subnet_emissions.rs", (BEGIN,),
    ),
    Versioned(
        ("TotalIssuance", "Balances.TotalIssuance", "TotalStake"), 233,
        "a block's TAO is issued into pools in that block; before, to neurons, an epoch's at once",
        "e2b8367b8, pallets/subtensor/src/coinbase/run_coinbase.rs", (BEGIN,), one_tao_more,
    ),
    Versioned(
        ("TotalHotkeyAlpha", "TotalHotkeyAlphaLastEpoch", "AlphaDividendsPerSubnet", "Emission", "System.Account"), 343,
        "what an epoch divides is collected apart for miners, validators and root, and root's part is alpha",
        "abef5e022 and c579597d9, pallets/subtensor/src/coinbase/run_coinbase.rs", (BEGIN,),
    ),
    Versioned(
        ("Burn",), 371, "a registration's price decays with every block; before, it stayed until it was adjusted",
        "41d67e5a7, pallets/subtensor/src/subnets/registration.rs", (BEGIN,), decayed,
    ),
    Versioned(
        ("Burn", "LastAdjustmentBlock", "Difficulty", "BurnRegistrationsThisInterval", "RegistrationsThisInterval",
         "RegistrationsThisBlock", "POWRegistrationsThisInterval", "RAORecycledForRegistration", "SubnetLocked"), 371,
        "a registration's price rises with each and decays with every block; before, it was adjusted by counts per "
        "interval", "41d67e5a7 and 115c42049, pallets/subtensor/src/subnets/registration.rs",
        (BEGIN, "burned_register", "root_register", *FOUNDING),
    ),
    Versioned(
        ("AdjustmentAlpha", "AdjustmentInterval", "MinDifficulty", "MaxDifficulty", "TargetRegistrationsPerInterval",
         "MaxRegistrationsPerBlock", "Yuma3On"), 371,
        "defaults of a new subnet", "pallets/subtensor/src/subnets/subnet.rs", FOUNDING,
    ),
    Versioned(
        ("LastTxBlockDelegateTake", "LastTxBlockChildKeyTake"), 301,
        "last blocks of rate limits are in LastRateLimitedBlock",
        "94fca5763, pallets/subtensor/src/utils/rate_limiting.rs", exact=earlier,
    ),
    Versioned(
        ("Consensus", "Incentive", "Dividends", "ValidatorTrust", "StakeWeight", "Bonds", "LoadedEmission", "Weights",
         "ValidatorPermit"), 233,
        "stake is on a subnet, as alpha; before, on a hotkey as TAO: the one kind does not show to the other's rules",
        "e2b8367b8, pallets/subtensor/src/staking/stake_utils.rs", (BEGIN,),
    ),
    Versioned(
        ("LastTxBlock",), 233, "changing stake does not count as a transaction whose rate is limited",
        "e2b8367b8, pallets/subtensor/src/staking/add_stake.rs and remove_stake.rs", TRADES, earlier,
    ),
    Versioned(
        ("Weights",), 197, "the reveal is an epoch after the commit; before, an interval of blocks after it",
        "c22c3c553, pallets/subtensor/src/subnets/weights.rs", ("reveal_weights",),
    ),
    Versioned(
        ("LastUpdate",), 197, "a commit counts as an update; before, the reveal did",
        "498d30ae0, pallets/subtensor/src/subnets/weights.rs", ("commit_weights",), later_in_one,
    ),
    Versioned(
        ("Keys", "Uids", "IsNetworkMember", "BlockAtRegistration", "SubnetworkN", "Owner", "OwnedHotkeys",
         "StakingHotkeys", "Active", "Emission", "Consensus", "Incentive", "Dividends", "ValidatorTrust",
         "ValidatorPermit", "LastUpdate", "Tempo", "MinBurn", "MaxBurn", "RegistrationsThisBlock"), 233,
        "the owner has a neuron from the founding on, and a subnet of its own begins with other settings",
        "e2b8367b8, pallets/subtensor/src/subnets/subnet.rs", ("register_network", "sudo_add_network"),
    ),
    Versioned(
        ("Axons",), 272, "an axon may be at the address 0", "842108c75, pallets/subtensor/src/subnets/serving.rs",
        ("serve_axon",), at_zero,
    ),
    Versioned(
        ("ValidatorPermit",), 393, "the owner's hotkey always has a permit", f"69627c0d5, {RULE_SOURCE}", (BEGIN,),
        one_more,
    ),
    Versioned(
        ("NetworkPowRegistrationAllowed",), 371,
        "there is no registration by work", "115c42049, pallets/admin-utils/src/lib.rs",
        exact=stays_on,
    ),
    Versioned(
        ("ChildKeys", "ParentKeys"), 396, "who joins root is given the owners' hotkeys as children",
        "c64ff727e, pallets/subtensor/src/coinbase/root.rs", TRADES,
    ),
    Versioned(
        ("Commitments.UsedSpaceOf",), 404, "epochs are counted, not derived from the block's number",
        "d30a76f38, pallets/commitments/src/lib.rs", exact=same_space,
    ),
    Versioned(
        ("LastColdkeyHotkeyStakeBlock",), 426, "noted for stake on root only",
        "absent from the staking calls at spec 425", exact=earlier,
    ),
    Versioned(
        ("BlocksSinceLastStep",), 186, CLOSED, "2aba3ebfa, pallets/subtensor/src/block_step.rs, after 46990bdfe",
        (BEGIN,), not_counted, only=(185,),
    ),
    Versioned(
        ("LastMechansimStepBlock",), 186, CLOSED, "2aba3ebfa, pallets/subtensor/src/block_step.rs, after 46990bdfe",
        (BEGIN,), never, only=(185,),
    ),
    Versioned(
        ("BlocksSinceLastStep",), 182, "on the branch of the first dynamic TAO root has epochs as subnets have",
        "26183d548 of the branch dynamic, pallets/subtensor/src/block_step.rs", (BEGIN,), counted, (0,), (181,),
    ),
    Versioned(
        ("LastMechansimStepBlock",), 182, "on the branch of the first dynamic TAO root has epochs as subnets have",
        "26183d548 of the branch dynamic, pallets/subtensor/src/block_step.rs", (BEGIN,), root_epoch, (0,), (181,),
    ),
    Versioned(
        ("Keys", "Uids", "IsNetworkMember", "BlockAtRegistration", "SubnetworkN", "Owner", "Active", "Emission",
         "Consensus", "Incentive", "Dividends", "ValidatorTrust", "ValidatorPermit", "LastUpdate"), 111,
        "neurons register; before the launch nobody could", "2bd4a4770, pallets/subtensor/src/registration.rs",
        ("burned_register",), nobody_there,
    ),
    Versioned(
        ("MaxAllowedUids",), 121, "a subnet may be made smaller; before, only larger",
        "b1b75581d, pallets/subtensor/src/utils.rs", ("sudo_set_max_allowed_uids",), smaller,
    ),
    Versioned(
        ("MaxWeightsLimit",), 330, "there is no limit of one weight any more",
        "be7c2d467, pallets/subtensor/src/lib.rs", FOUNDING, unlimited,
    ),
)  # fmt: skip
