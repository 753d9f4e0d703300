"""One epoch of the same subnet on two runtimes, compared item by item.

A runtime is asked for nothing but `Core_initialize_block`: the hooks of a block run the epoch when it is due. The state
holds the subnet (`subnet_states`) and the little that a block cannot do without, no genesis and no other pallet's
doing, so that what differs afterwards was computed differently by the epoch.

What the rules of two versions are known to differ in (`versioned.EPOCH_RULES`) is taken out of the subnets beforehand:
a runtime without the rule meets no subnet that needs it. Everything that is left has to agree to the last unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from localnet.abi import Runtime, State
from localnet.codec.scale import compact
from localnet.errors import ConfigError, LocalnetError, ScaleError
from localnet.node.blocks import slot_item
from localnet.node.documents import document_of
from localnet.node.runtime_api import read_version
from localnet.rehearsal.known_epochs import EPOCH_RULES, EpochRule
from localnet.rehearsal.random_subnets import random_subnet
from localnet.rehearsal.subnet_states import NETUID, PALLET, UNTOUCHED, Subnet, hotkey, write
from localnet.runtime.memory import MemoryState
from localnet.vocabulary import Vocabulary

RESULTS = (
    "Active", "Rank", "Trust", "Consensus", "Incentive", "Dividends", "ValidatorTrust", "ValidatorPermit",
    "PruningScores", "StakeWeight", "Emission", "Bonds", "TotalHotkeyAlpha", "AlphaDividendsPerSubnet",
)  # fmt: skip
"""What an epoch leaves behind: vectors over all uids, rows of bonds, and what every hotkey is paid."""
MAPS: Mapping[str, Callable[[int], tuple[Any, ...]]] = {
    "Bonds": lambda uid: (NETUID, uid),
    "TotalHotkeyAlpha": lambda uid: (hotkey(uid), NETUID),
    "AlphaDividendsPerSubnet": lambda uid: (NETUID, hotkey(uid)),
}
"""The results that are no vectors: keys of a uid's entry."""
AUTHORITY = bytes(32)  # Aura divides the slot by the number of authorities


@dataclass(frozen=True)
class Side:
    """A runtime, its metadata and its version, ready to run epochs."""

    runtime: Runtime
    words: Vocabulary
    spec: int
    name: str

    @classmethod
    def of(cls, runtime: Runtime, name: str = "") -> Side:
        """Raises MetadataError, RuntimeTrap."""
        state = MemoryState()
        spec = read_version(runtime.call("Core_version", b"", state))["specVersion"]
        return cls(runtime, Vocabulary(document_of(runtime, state)), spec, name or f"spec {spec}")

    def holds(self, rule: EpochRule) -> bool:
        return rule.holds(self.spec, self.words.document)


@dataclass(frozen=True)
class Difference:
    """One item that two epochs left differently. `keys`: of the map's entry, or the uid in a vector."""

    seed: int
    item: str
    uid: int | None
    values: tuple[Any, Any]

    def text(self, names: Sequence[str]) -> str:
        at = "" if self.uid is None else f" of uid {self.uid}"
        return f"seed {self.seed}: {self.item}{at} is {self.values[0]} on {names[0]}, {self.values[1]} on {names[1]}"


@dataclass
class Compared:
    """What came out of many epochs."""

    names: tuple[str, str]
    states: int = 0
    items: dict[str, int] = field(default_factory=dict)
    """Item -> values compared."""
    differences: list[Difference] = field(default_factory=list)
    unlike: dict[str, int] = field(default_factory=dict)
    """Item -> values that differ."""
    failures: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Runtime -> items of facts that it has no storage for, or in another form."""
    rules: list[EpochRule] = field(default_factory=list)
    """Rules that one side does not have, taken out of the subnets."""

    @property
    def agree(self) -> bool:
        return self.states > 0 and not self.differences and not self.failures


MAX_TOLD = 1000  # differences kept; all are counted


def compare(first: Side, second: Side, seeds: Sequence[int]) -> Compared:
    """Run every seed's subnet through one epoch of both. Raises ConfigError when they have no result in common."""
    items = [item for item in RESULTS if _comparable(first, second, item)]
    if not items:
        raise ConfigError(f"{first.name} and {second.name} have no result of an epoch in common")
    rules = [rule for rule in EPOCH_RULES if first.holds(rule) != second.holds(rule)]
    silent = {item for rule in rules for item in rule.silent}
    compared = Compared((first.name, second.name), items={item: 0 for item in items if item not in silent}, rules=rules)
    for seed in seeds:
        subnet = random_subnet(seed)
        for rule in compared.rules:
            subnet = rule.without(subnet)
        _compare_one(first, second, seed, subnet, compared)
    return compared


def _comparable(first: Side, second: Side, item: str) -> bool:
    return all((PALLET, item) in side.words.document.storage for side in (first, second))


def _compare_one(first: Side, second: Side, seed: int, subnet: Subnet, compared: Compared) -> None:
    results = []
    for side in (first, second):
        try:
            state, left_out = run_epoch(side, subnet)
            compared.left_out[side.name] = sorted({*compared.left_out.get(side.name, ()), *left_out})
            results.append({item: _result(side, state, item, subnet.size) for item in compared.items})
        except (LocalnetError, ScaleError) as error:
            compared.failures.append(f"seed {seed}: no epoch on {side.name}: {type(error).__name__}: {error}")
            return
    compared.states += 1
    for item in compared.items:
        for difference in _differences(seed, item, results[0][item], results[1][item], compared):
            compared.unlike[item] = compared.unlike.get(item, 0) + 1
            if len(compared.differences) < MAX_TOLD:
                compared.differences.append(difference)


def _differences(seed: int, item: str, one: list[Any], other: list[Any], compared: Compared) -> Iterator[Difference]:
    if len(one) != len(other):
        yield Difference(seed, item, None, (f"{len(one)} long", f"{len(other)} long"))
    for uid, values in enumerate(zip(one, other, strict=False)):
        compared.items[item] += 1
        if values[0] != values[1]:
            yield Difference(seed, item, uid, values)


def run_epoch(side: Side, subnet: Subnet) -> tuple[State, list[str]]:
    """The state after the subnet's epoch, and the facts that the runtime has no storage for.

    Raises RuntimeTrap; ConfigError when the block did not run the epoch.
    """
    state = MemoryState()
    _put(side, state, "System", "LastRuntimeUpgrade", {"spec_version": side.spec, "spec_name": "node-subtensor"})
    _put(side, state, "Aura", "Authorities", [AUTHORITY])
    left_out = write(subnet, side.words, side.spec, state)
    header = bytes(32) + compact(subnet.block) + bytes(64) + compact(1) + slot_item(subnet.block)
    side.runtime.call("Core_initialize_block", header, state)
    if (PALLET, "Emission") not in side.words.document.storage or UNTOUCHED in _result(
        side, state, "Emission", subnet.size
    ):
        raise ConfigError(f"{side.name} ran no epoch in block {subnet.block}")
    return state, left_out


def _put(side: Side, state: MemoryState, pallet: str, item: str, value: Any) -> None:
    if (pallet, item) in side.words.document.storage:
        state.put(*side.words.storage_write(pallet, item, (), value))


def _result(side: Side, state: State, item: str, size: int) -> list[Any]:
    """Of an item that the runtime has."""
    entry = side.words.entry(PALLET, item)

    def read(*keys: Any) -> Any:
        return side.words.stored(entry, state.get(side.words.key_of(entry, keys)))

    return [read(*MAPS[item](uid)) for uid in range(size)] if item in MAPS else list(read(NETUID))
