"""What is known to differ between versions in the rules of an epoch, as data: what, from which spec version on, by what
source.

A comparison takes these rules out of the subnets that it makes: `without` gives the same subnet with nothing in it that
the rule decides. Where spec versions come from is told in `changes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from localnet.codec.document import Document
from localnet.rehearsal.changes import RULE_SOURCE
from localnet.rehearsal.subnet_states import PALLET, Subnet


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
