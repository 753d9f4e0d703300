"""The metagraph as the rules see it: a frozen snapshot of one subnet at one block.

`template/chain.py` builds it from the chain; everything else (serving policy, challenge planning, weights) only reads
it. A snapshot never changes: a newer block gives a new one. Identity is the hotkey; the uid is where the hotkey happens
to sit at that block, and is only used to speak to the chain.

    neuron = metagraph.by_hotkey["5F..."]      # KeyError for a stranger
    metagraph.miners                           # neurons without a validator permit that serve work
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

HTTP = 4  # axon protocol id of whoever serves this subnet's work; what the SDK publishes by default
EVIDENCE_ONLY = 5
"""Axon protocol id of a validator that serves evidence and no work. The chain stores the number without reading it and
leaves its meaning to the subnet. Nobody asks such an axon for inference, and it earns no score."""
TRAINING = 6
"""Axon protocol id of a miner of mechanism 1, which opens its work to audits there and serves no inference."""


@dataclass(frozen=True)
class Neuron:
    """One registered hotkey. Amounts are in the unit the chain's consensus uses: stake weight in TAO-equivalents."""

    uid: int
    hotkey: str  # SS58
    coldkey: str  # SS58
    stake: float  # inherited stake weight (alpha + root share), not rao
    validator_permit: bool
    active: bool
    ip: str  # dotted or colon form; "0.0.0.0" when no axon is served
    port: int
    protocol: int  # axon protocol id: HTTP, EVIDENCE_ONLY or TRAINING
    last_update: int  # block of the last weights set or commit
    incentive: float = 0.0  # 0..1, mechanism 0
    dividends: float = 0.0  # 0..1
    emission: int = 0  # alpha-rao per tempo
    consensus: float = 0.0
    validator_trust: float = 0.0
    registered_at: int = 0  # block
    collateral: int = 0  # alpha-rao locked as miner collateral

    @property
    def is_serving(self) -> bool:
        return self.port != 0 and self.ip not in ("0.0.0.0", "::")

    @property
    def serves_work(self) -> bool:
        """Whether it may be asked for inference: it has an address, and the address is not for something else alone."""
        return self.is_serving and self.protocol not in (EVIDENCE_ONLY, TRAINING)


@dataclass(frozen=True)
class Metagraph:
    """Snapshot of subnet `netuid` at `block`; `neurons` are ordered by uid without gaps."""

    netuid: int
    block: int
    block_hash: str  # 0x-prefixed, 32 bytes
    tempo: int  # blocks
    neurons: tuple[Neuron, ...]
    owner_hotkey: str = ""

    @cached_property
    def by_hotkey(self) -> dict[str, Neuron]:
        return {neuron.hotkey: neuron for neuron in self.neurons}

    @cached_property
    def miners(self) -> tuple[Neuron, ...]:
        return tuple(n for n in self.neurons if n.serves_work and not n.validator_permit)

    @cached_property
    def validators(self) -> tuple[Neuron, ...]:
        return tuple(n for n in self.neurons if n.validator_permit)

    def uids(self, hotkeys: Iterable[str]) -> dict[str, int]:
        """uid of each hotkey that is registered at this block; strangers are left out."""
        return {h: self.by_hotkey[h].uid for h in hotkeys if h in self.by_hotkey}
