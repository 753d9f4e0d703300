"""A subnet as data, everything that one epoch reads, and how it is written into any runtime's storage.

`Subnet.storage` names each fact once, as a storage item with keys and value; `write` stores those that a runtime's
metadata has. What older runtimes keep under another name is listed under every name: a runtime reads only its own.
`random_subnets` makes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, TypeAlias

from localnet.abi import State
from localnet.errors import ScaleError
from localnet.vocabulary import Vocabulary

PALLET = "SubtensorModule"
NETUID = 7
BLOCK = 5_000_000  # about where the epochs run: late enough for every age that a state names
EMISSION = 150_000_000_000  # alpha-rao to divide
EPOCH_IN_COMMITS = 404  # spec version from which a commit holds its epoch and block (d30a76f38), before block and range
UNTOUCHED = (1 << 64) - 1  # in Emission, where no epoch puts it: what still has it ran none
BONDS_MAX = 65_535
Pairs: TypeAlias = "list[tuple[int, int]]"


def hotkey(uid: int) -> bytes:
    """A neuron's hotkey: in another order than the uids, as on chain."""
    return blake2b(b"hotkey %d" % uid, digest_size=32).digest()


def coldkey(uid: int) -> bytes:
    return blake2b(b"coldkey %d" % uid, digest_size=32).digest()


@dataclass(frozen=True)
class Hyper:
    """As the chain stores them. `activity_tempos`: thousandths of a tempo, which older runtimes have as blocks."""

    tempo: int = 360
    kappa: int = 32_767
    bonds_moving_average: int = 900_000
    bonds_penalty: int = 65_535
    max_validators: int = 64
    activity_tempos: int = 13_889
    stake_threshold: int = 0
    liquid_alpha: bool = False
    yuma3: bool = False
    alpha_values: tuple[int, int] = (45_875, 58_982)
    steepness: int = 1_000

    @property
    def activity_cutoff(self) -> int:
        """Blocks."""
        return max(self.activity_tempos * self.tempo // 1000, 1)


@dataclass(frozen=True)
class Subnet:
    """One subnet before its epoch. Per-uid lists have one entry per neuron; stakes in alpha-rao, `root` in rao."""

    stakes: list[int]
    last_update: list[int]
    registered_at: list[int]
    permits: list[bool]
    weights: dict[int, Pairs]
    bonds: dict[int, Pairs]
    hyper: Hyper = field(default_factory=Hyper)
    root: list[int] = field(default_factory=list)
    tao_weight: int = 0
    children: dict[int, Pairs] = field(default_factory=dict)
    """uid -> (share of 2^64 - 1, uid of the child)."""
    owner: int | None = None
    commits: dict[int, int] = field(default_factory=dict)
    """uid -> block of its weight commit; commit-reveal is on when there is one."""
    previous_consensus: list[int] = field(default_factory=list)
    consensus_mode: str = "Current"

    @property
    def size(self) -> int:
        return len(self.stakes)

    @property
    def block(self) -> int:
        """Of the epoch: the first from BLOCK on in which runtimes that count by block number have it, too."""
        period = self.hyper.tempo + 1
        return BLOCK + (self.hyper.tempo - (BLOCK + NETUID + 1)) % period

    def epoch_of(self, block: int) -> int:
        """Number of the epoch that a block belongs to: the next one runs at its end."""
        return (block + NETUID + 1) // (self.hyper.tempo + 1)

    def storage(self, spec: int) -> Iterator[tuple[str, tuple[Any, ...], Any]]:
        """Every fact as (item of SubtensorModule, keys, value), as a spec version stores it."""
        yield from _frame(self)
        yield from _hyperparameters(self)
        for uid in range(self.size):
            yield from _neuron(self, uid)
        for uid, row in self.weights.items():
            yield "Weights", (NETUID, uid), row
        for uid, row in self.bonds.items():
            yield "Bonds", (NETUID, uid), row
        yield from _family(self)
        for uid, block in self.commits.items():
            yield "WeightCommits", (NETUID, hotkey(uid)), [_commit(self, block, spec)]


def _frame(s: Subnet) -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    """The subnet itself, its clock and its vectors."""
    at = (NETUID,)
    yield "NetworksAdded", at, True
    yield "NetworksAdded", (0,), True
    yield "NetworkRegistrationAllowed", at, True  # some builds run no epoch without
    yield "TotalNetworks", (), 2
    yield "SubnetworkN", at, s.size
    yield "MaxAllowedUids", at, 256
    yield "BlocksSinceLastStep", at, s.hyper.tempo
    yield "LastMechansimStepBlock", at, s.block - s.hyper.tempo - 1
    yield "LastEpochBlock", at, s.block - s.hyper.tempo - 1
    yield "SubnetEpochIndex", at, s.epoch_of(s.block) - 1  # the epoch that is due counts as begun
    yield "PendingEmission", at, EMISSION
    yield "PendingServerEmission", at, EMISSION // 2
    yield "PendingValidatorEmission", at, EMISSION - EMISSION // 2
    yield "SubnetOwnerCut", (), 0
    yield "LastUpdate", at, s.last_update
    yield "ValidatorPermit", at, s.permits
    yield "Active", at, [True] * s.size
    for item in ("Rank", "Trust", "Consensus", "Incentive", "Dividends", "ValidatorTrust", "PruningScores"):
        yield item, at, [0] * s.size
    yield "Emission", at, [UNTOUCHED] * s.size
    yield "ConsensusByMechanism", at, s.previous_consensus
    if s.owner is not None:
        yield "SubnetOwner", at, coldkey(s.owner)
        yield "SubnetOwnerHotkey", at, hotkey(s.owner)


def _hyperparameters(s: Subnet) -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    at, hyper = (NETUID,), s.hyper
    yield "Tempo", at, hyper.tempo
    yield "Kappa", at, hyper.kappa
    yield "BondsMovingAverage", at, hyper.bonds_moving_average
    yield "BondsPenalty", at, hyper.bonds_penalty
    yield "MaxAllowedValidators", at, hyper.max_validators
    yield "ActivityCutoff", at, hyper.activity_cutoff
    yield "ActivityCutoffFactorMilli", at, hyper.activity_tempos
    yield "StakeThreshold", (), hyper.stake_threshold
    yield "WeightsMinStake", (), hyper.stake_threshold
    yield "LiquidAlphaOn", at, hyper.liquid_alpha
    yield "Yuma3On", at, hyper.yuma3
    yield "AlphaValues", at, hyper.alpha_values
    yield "AlphaSigmoidSteepness", at, hyper.steepness
    yield "LiquidAlphaConsensusMode", at, s.consensus_mode
    yield "TaoWeight", (), s.tao_weight
    yield "CommitRevealWeightsEnabled", at, bool(s.commits)


def _neuron(s: Subnet, uid: int) -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    key, stake = hotkey(uid), s.stakes[uid]
    yield "Keys", (NETUID, uid), key
    yield "Uids", (NETUID, key), uid
    yield "IsNetworkMember", (key, NETUID), True
    yield "BlockAtRegistration", (NETUID, uid), s.registered_at[uid]
    yield "Owner", (key,), coldkey(uid)
    for item in ("TotalHotkeyAlpha", "TotalHotkeySubStake"):
        yield item, (key, NETUID), stake
    yield "TotalHotkeyStake", (key,), stake
    if s.root:
        yield "TotalHotkeyAlpha", (key, 0), s.root[uid]


def _commit(s: Subnet, block: int, spec: int) -> tuple[bytes, int, int, int]:
    digest = blake2b(b"commit %d" % block, digest_size=32).digest()
    return (digest, s.epoch_of(block), block, 0) if spec >= EPOCH_IN_COMMITS else (digest, block, block, block)


def _family(s: Subnet) -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    parents: dict[int, Pairs] = {}
    for uid, given in s.children.items():
        yield "ChildKeys", (hotkey(uid), NETUID), [(share, hotkey(child)) for share, child in given]
        for share, child in given:
            parents.setdefault(child, []).append((share, uid))
    for uid, taken in parents.items():
        yield "ParentKeys", (hotkey(uid), NETUID), [(share, hotkey(parent)) for share, parent in taken]


def write(subnet: Subnet, words: Vocabulary, spec: int, state: State) -> list[str]:
    """Store what the runtime has a place for; the names of the items that it does not have, or has in another form."""
    left_out = set()
    for item, keys, value in subnet.storage(spec):
        entry = words.document.storage.get((PALLET, item))
        if entry is None or len(entry.keys) != len(keys):
            left_out.add(item)
            continue
        try:
            state.put(words.key_of(entry, keys), words.registry.encode(entry.value, value))
        except ScaleError:
            left_out.add(item)
    return sorted(left_out)
