"""What several runtime APIs share: which subnets there are, who is on one, and the values of absent entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localnet.rules import coinbase

if TYPE_CHECKING:
    from localnet.runtime.runtime import SpecRuntime
    from localnet.runtime.subtensor.pallet import Subtensor

ROOT = 0
NO_PROMETHEUS = {"block": 0, "version": 0, "ip": 0, "port": 0, "ip_type": 0}
NO_AXON = {**NO_PROMETHEUS, "protocol": 0, "placeholder1": 0, "placeholder2": 0}


def exists(p: Subtensor, netuid: int) -> bool:
    """A subnet that was registered and not dissolved; the root network counts."""
    return p.NetworksAdded[netuid]


def netuids(p: Subtensor) -> list[int]:
    """All subnets, in the order the chain walks its storage."""
    return list(p.NetworksAdded.keys())


@dataclass(frozen=True)
class Members:
    """Who is on a subnet, by uid."""

    hotkeys: list[bytes]
    coldkeys: list[bytes]


def members(p: Subtensor, netuid: int) -> Members:
    hotkeys = [p.Keys[netuid, uid] for uid in range(p.SubnetworkN[netuid])]
    return Members(hotkeys, [p.Owner[hotkey] for hotkey in hotkeys])


def at(values: list[Any], uid: int, absent: Any = 0) -> Any:
    """Cell of a per-uid vector; vectors may be shorter than the subnet until the first epoch."""
    return values[uid] if uid < len(values) else absent


def activity_cutoff(p: Subtensor, netuid: int) -> int:
    """Blocks without an update after which a neuron is inactive, from the subnet's factor and tempo."""
    return coinbase.activity_cutoff(p.ActivityCutoffFactorMilli[netuid], p.Tempo[netuid])


def blocks_since_last_step(rt: SpecRuntime, netuid: int) -> int:
    """Counted from the last epoch's block; the storage counter of the same name is not used by these reads."""
    return max(rt.number - rt.subtensor.LastMechansimStepBlock[netuid], 0)


def pending_alpha(p: Subtensor, netuid: int) -> int:
    """Alpha collected for the next epoch's validators and miners."""
    return p.PendingValidatorEmission[netuid] + p.PendingServerEmission[netuid]
