"""What is known to differ between versions of the chain's rules, as data: what, from which spec version on, by what
source.

`EPOCH_RULES` are the rules of an epoch that came with some version. A comparison takes them out of the subnets that it
makes: `without` gives the same subnet with nothing in it that the rule decides. `VERSIONED` explains differences that a
whole chain shows: storage items and calls whose values two versions are expected to disagree on.

A spec version is the one that stands in the runtime of the commit named as source, in the public repository of the
chain (opentensor/subtensor); the first release that has the change is that one or the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from localnet.codec.document import Document
from localnet.rehearsal.subnet_states import PALLET, Subnet

RULE_SOURCE = "pallets/subtensor/src/epoch/run_epoch.rs"


@dataclass(frozen=True)
class EpochRule:
    """`since`: the first spec version that has the rule; `signs`: storage items of SubtensorModule that came with it
    and decide where there are any, since builds from branches carry numbers of the main line. `silent`: results that
    cannot be compared across it."""

    name: str
    since: int
    what: str
    source: str
    without: Callable[[Subnet], Subnet]
    signs: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()

    def holds(self, spec: int, document: Document) -> bool:
        """Does a runtime have it?"""
        if self.signs:
            return any((PALLET, sign) in document.storage for sign in self.signs)
        return spec >= self.since


def _plain_owner(subnet: Subnet) -> Subnet:
    """An owner that is permitted and has the most stake needs no exemption."""
    if subnet.owner is None:
        return subnet
    stakes, permits = list(subnet.stakes), list(subnet.permits)
    others = [stake for uid, stake in enumerate(stakes) if uid != subnet.owner]
    stakes[subnet.owner], permits[subnet.owner] = max(*others, subnet.hyper.stake_threshold, 0) * 2 + 1, True
    children = {uid: given for uid, given in subnet.children.items() if uid != subnet.owner}
    return replace(subnet, stakes=stakes, permits=permits, children=children, root=[])


def _plain_permits(subnet: Subnet) -> Subnet:
    """Everybody has some stake, so that permits to nobody's stake do not show."""
    return replace(subnet, stakes=[max(stake, 10**9) for stake in subnet.stakes])


def _old_neurons(subnet: Subnet) -> Subnet:
    """Everybody was there long before the last epoch, and has set weights since."""
    registered = [1_000] * subnet.size
    updated = [max(block, 1_001) for block in subnet.last_update]
    return replace(subnet, registered_at=registered, last_update=updated)


def _steep_enough(subnet: Subnet) -> Subnet:
    """Exponents within +-20: steepness/100 times a distance of at most 1/2."""
    limit = 4_000
    return replace(subnet, hyper=replace(subnet.hyper, steepness=max(-limit, min(limit, subnet.hyper.steepness))))


EPOCH_RULES = (
    EpochRule(
        "consensus mode", 426,
        "liquid alpha may measure by the previous epoch's consensus (LiquidAlphaConsensusMode)",
        "storage item in the metadata of spec 461, absent at spec 425",
        lambda subnet: replace(subnet, consensus_mode="Current"), ("LiquidAlphaConsensusMode",),
    ),
    EpochRule(
        "owner validates", 393,
        "the owner's hotkey passes the stake threshold and always has a permit",
        f"69627c0d5, {RULE_SOURCE}", _plain_owner,
    ),
    EpochRule(
        "bounded sigmoid", 364,
        "the exponent of liquid alpha's sigmoid is clamped to +-20; before, one that overflows gave 0",
        f"daf6ad84d, {RULE_SOURCE}", _steep_enough,
    ),
    EpochRule(
        "commit mask", 294,
        "with commit-reveal, weights on neurons that came after the commit are masked",
        f"e2b0a0bfd, {RULE_SOURCE}", lambda subnet: replace(subnet, commits={}),
        ("CRV3WeightCommitsV2", "TimelockedWeightCommits"),
    ),
    EpochRule(
        "stake threshold", 268,
        "stake below StakeThreshold does not count, and nobody without stake gets a permit",
        f"2ecebb194, {RULE_SOURCE}",
        lambda subnet: _plain_permits(replace(subnet, hyper=replace(subnet.hyper, stake_threshold=0))),
        ("StakeThreshold",),
    ),
    EpochRule(
        "Yuma 3", 261,
        "Yuma3On, and liquid alpha by a sigmoid per bond as a part of it",
        f"e18b9dce0 and be623f009, {RULE_SOURCE}",
        lambda subnet: replace(subnet, hyper=replace(subnet.hyper, yuma3=False, liquid_alpha=False)), ("Yuma3On",),
    ),
    EpochRule(
        "owner's own weight", 246,
        "the owner's weight on itself counts",
        f"05f063150, {RULE_SOURCE}", lambda subnet: replace(subnet, owner=None),
    ),
    EpochRule(
        "bonds penalty", 233,
        "BondsPenalty mixes raw and clipped weights for bonds; before, clipped ones bought them",
        f"e2b8367b8, {RULE_SOURCE}",
        lambda subnet: replace(subnet, hyper=replace(subnet.hyper, bonds_penalty=65_535)), ("BondsPenalty",),
    ),
    EpochRule(
        "dynamic TAO", 233,
        "stake is alpha with TAO on root at a weight, and is inherited from parents",
        "e2b8367b8, pallets/subtensor/src/staking/stake_utils.rs",
        lambda subnet: replace(subnet, root=[], tao_weight=0, children={}), ("SubnetMovingPrice",),
    ),
    EpochRule(
        "bonds of newcomers", 253,
        "a bond on a neuron is masked when that was registered after the last epoch; before, when it was registered "
        "after the validator's last update",
        f"2b674c71a, {RULE_SOURCE}", _old_neurons,
    ),
    EpochRule(
        "upscaled bonds", 121,
        "bonds are stored with the largest of a column at 1, and read as integers; before, as fractions of the column",
        "ce6302e97, pallets/subtensor/src/epoch.rs", lambda subnet: replace(subnet, bonds={}), silent=("Bonds",),
    ),
    EpochRule(
        "whole weights", 121,
        "weights are read as integers; before, as fractions of 65535, whose rounding shows in the last bit of 32",
        "7cd068fb5, pallets/subtensor/src/epoch.rs", lambda subnet: subnet, silent=("Emission",),
    ),
    EpochRule(
        "stake of permitted validators", 110,
        "stake of validators without a permit does not count in consensus",
        "45646e0af, pallets/subtensor/src/epoch.rs",
        lambda subnet: replace(subnet, permits=[True] * subnet.size),
    ),
)  # fmt: skip


# -- a whole chain --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Versioned:
    """A difference that two versions are expected to show, one below `since` and one from it on.

    `items`: of SubtensorModule, or "Pallet.Item"; or calls as reports name them, which then may end differently.
    `causes`: what changes the items, as in a difference; nothing: whatever does. `exact`: whether two values, of the
    older version and of the newer one, are apart as the change has it; None: they are not looked at, and the row
    accounts for any two, a mistake among them too.
    """

    items: tuple[str, ...]
    since: int
    what: str
    source: str
    causes: tuple[str, ...] = ()
    exact: Callable[[Any, Any], bool] | None = None

    @property
    def checked(self) -> bool:
        """Whether it looks at the values. Rows of no version (`since` 0) are `explain_money`'s, which does."""
        return self.exact is not None or self.since == 0

    def covers(self, item: str, cause: str, specs: tuple[int, int], values: tuple[Any, Any] | None = None) -> bool:
        """`values`: of the reference and of the other; None for a call."""
        named = item in self.items or item.removeprefix(f"{PALLET}.") in self.items
        between = (specs[0] < self.since) != (specs[1] < self.since)
        if not named or not between or (self.causes and cause not in self.causes):
            return False
        if self.exact is None or values is None:
            return True
        return self.exact(*(values if specs[0] < specs[1] else values[::-1]))


def _nothing(older: Any, newer: Any) -> bool:
    """The newer version keeps it elsewhere."""
    return newer in (None, 0, {"bits": 0}) and newer != older


def _earlier(older: Any, newer: Any) -> bool:
    """A block's number that the newer version does not write here any more."""
    return int(newer or 0) < int(older)


def _one_more(older: Any, newer: Any) -> bool:
    """One permit more, and all others as they are."""
    if len(older) != len(newer):
        return False
    return [pair for pair in zip(older, newer, strict=True) if pair[0] != pair[1]] == [(False, True)]


def _same_space(older: Any, newer: Any) -> bool:
    return bool(older["used_space"] == newer["used_space"])


BEGIN = "hooks before the extrinsics"
FOUNDING = ("register_network", "sudo_add_network", "")  # "": the call itself, which ends differently
TRADES = (
    "add_stake", "add_stake of too much", "add_stake on root", "remove_stake", "unstake_all", "move_stake",
    "transfer_stake", "swap_stake", "burned_register", "register_network", "root_register",
)  # fmt: skip
POOL = ("SubnetTAO", "SubnetAlphaIn", "SubnetAlphaOut", "SubnetVolume", "TotalStake", "TotalHotkeyAlpha")
VERSIONED = (
    Versioned(
        POOL, 365, "a pool is a weighted product of its reserves; before, of ranges of prices, with its own rounding",
        "5fdc9f9e0, pallets/swap/src/pallet/balancer.rs", TRADES,
    ),
    Versioned(
        ("Alpha", "TotalHotkeyShares"), 366, "shares of stake are in AlphaV2 and TotalHotkeySharesV2, as floats",
        "136f007a8, pallets/subtensor/src/lib.rs", exact=_nothing,
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
        ("TotalHotkeyAlpha", "TotalHotkeyAlphaLastEpoch", "AlphaDividendsPerSubnet", "Emission", "System.Account"), 343,
        "what an epoch divides is collected apart for miners, validators and root, and root's part is alpha",
        "abef5e022 and c579597d9, pallets/subtensor/src/coinbase/run_coinbase.rs", (BEGIN,),
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
         "MaxRegistrationsPerBlock", "Yuma3On", "register_network"), 371,
        "defaults of a new subnet", "pallets/subtensor/src/subnets/subnet.rs", FOUNDING,
    ),
    Versioned(
        ("LastTxBlockDelegateTake", "LastTxBlockChildKeyTake"), 301,
        "last blocks of rate limits are in LastRateLimitedBlock",
        "94fca5763, pallets/subtensor/src/utils/rate_limiting.rs", exact=_earlier,
    ),
    Versioned(
        ("Consensus", "Incentive", "Dividends", "ValidatorTrust", "StakeWeight", "Bonds", "LoadedEmission", "Weights",
         "LastUpdate", "ValidatorPermit", "LastTxBlock", "add_stake", "add_stake on root", "set_weights", "root"), 233,
        "stake is on a subnet, as alpha; before, on a hotkey as TAO: the one kind does not show to the other's rules",
        "e2b8367b8, pallets/subtensor/src/staking/stake_utils.rs",
    ),
    Versioned(
        ("Keys", "Uids", "IsNetworkMember", "BlockAtRegistration", "SubnetworkN", "Owner", "OwnedHotkeys",
         "StakingHotkeys", "Active", "Emission", "Consensus", "Incentive", "Dividends", "ValidatorTrust",
         "ValidatorPermit", "LastUpdate", "Tempo", "MinBurn", "MaxBurn", "RegistrationsThisBlock"), 233,
        "the owner has a neuron from the founding on, and a subnet of its own begins with other settings",
        "e2b8367b8, pallets/subtensor/src/subnets/subnet.rs", ("register_network", "sudo_add_network"),
    ),
    Versioned(
        ("sudo_set_commit_reveal_weights_enabled", "sudo_set_commit_reveal_weights_interval"), 259,
        "events for the settings of commit-reveal", "d0d01f8fa, pallets/subtensor/src/macros/events.rs",
    ),
    Versioned(
        ("commit_weights", "reveal_weights"), 197, "events for committed and revealed weights",
        "b07c1ffa9, pallets/subtensor/src/macros/events.rs",
    ),
    Versioned(
        ("serve_axon", "Axons"), 272, "an axon may be at the address 0",
        "842108c75, pallets/subtensor/src/subnets/serving.rs", ("", "serve_axon"),
    ),
    Versioned(
        ("ValidatorPermit",), 393, "the owner's hotkey always has a permit", f"69627c0d5, {RULE_SOURCE}", (BEGIN,),
        _one_more,
    ),
    Versioned(
        ("NetworkPowRegistrationAllowed", "sudo_set_network_pow_registration_allowed"), 371,
        "there is no registration by work", "115c42049, pallets/admin-utils/src/lib.rs",
    ),
    Versioned(
        ("burned_register",), 371, "no event of what was recycled: the price goes to the pool",
        "115c42049, pallets/subtensor/src/subnets/registration.rs",
    ),
    Versioned(
        ("add_stake of too much", "swap_stake"), 301,
        "staking calls that cannot succeed get into a block and fail there; before, the pool refused them",
        "082615f29, pallets/subtensor/src/transaction_extension.rs",
    ),
    Versioned(
        ("root_register", "ChildKeys", "ParentKeys"), 396, "who joins root is given the owners' hotkeys as children",
        "c64ff727e, pallets/subtensor/src/coinbase/root.rs", (*TRADES, ""),
    ),
    Versioned(
        ("Commitments.UsedSpaceOf",), 404, "epochs are counted, not derived from the block's number",
        "d30a76f38, pallets/commitments/src/lib.rs", exact=_same_space,
    ),
    Versioned(
        ("LastColdkeyHotkeyStakeBlock",), 426, "noted for stake on root only",
        "absent from the staking calls at spec 425", exact=_earlier,
    ),
)  # fmt: skip


def explain(item: str, cause: str, specs: tuple[int, int], values: tuple[Any, Any]) -> Versioned | None:
    """The row that accounts for a storage item that differs, one that looks at the values before one that does not."""
    rows = [row for row in VERSIONED if row.covers(item, cause, specs, values)]
    return min(rows, key=lambda row: not row.checked, default=None)


def explain_call(what: str, specs: tuple[int, int]) -> Versioned | None:
    """The row that accounts for a call that ends differently."""
    return next((row for row in VERSIONED if row.covers(what, "", specs)), None)


ISSUANCE = ("Balances.TotalIssuance", "SubtensorModule.TotalIssuance")
FEE = Versioned(
    ("System.Account", *ISSUANCE), 0,
    "the fee of a call, which every version weighs anew: the balances differ by exactly what the fees do",
    "TransactionPayment.TransactionFeePaid in the events of both",
)  # fmt: skip
SUDO = Versioned(
    ("System.Account",), 0,
    "a call of root goes through the sudo account where the runtime has no other way: its nonce, and its fee",
    "localnet.abi, DevApi_apply_extrinsic",
)  # fmt: skip


def explain_money(item: str, values: tuple[Any, Any], origin: str, fees: tuple[int, int]) -> Versioned | None:
    """What fees alone account for: the difference of two balances is exactly that of two fees."""
    if item in ISSUANCE and int(values[0]) + fees[0] == int(values[1]) + fees[1]:
        return FEE
    if item != "System.Account" or not all(isinstance(value, dict) for value in values):
        return None
    free = [int(value["data"]["free"]) for value in values]
    rest = [{**value, "data": {**value["data"], "free": 0}, "nonce": 0} for value in values]
    if rest[0] != rest[1] or free[0] + fees[0] != free[1] + fees[1]:
        return None
    if values[0]["nonce"] == values[1]["nonce"]:
        return FEE
    return SUDO if origin == "root" else None
