"""NeuronInfoRuntimeApi: neurons by uid, lite or with weights and bonds (those of mechanism 0, zeros left out)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localnet.runtime.apis import common
from localnet.runtime.apis.registry import api

if TYPE_CHECKING:
    from localnet.runtime.runtime import SpecRuntime
    from localnet.runtime.subtensor.pallet import Subtensor

PRUNING_SCORE = 0xFFFF  # no longer computed by the chain: it answers the maximum, and 0 for rank and trust


def _lite(p: Subtensor, netuid: int, uid: int) -> dict[str, Any]:
    hotkey = p.Keys[netuid, uid]
    coldkey = p.Owner[hotkey]
    return {
        "hotkey": hotkey,
        "coldkey": coldkey,
        "uid": uid,
        "netuid": netuid,
        "active": common.at(p.Active[netuid], uid, False),
        "axon_info": p.Axons[netuid, hotkey] or common.NO_AXON,
        "prometheus_info": p.Prometheus[netuid, hotkey] or common.NO_PROMETHEUS,
        "stake": [(coldkey, p.TotalHotkeyAlpha[hotkey, netuid])],
        "rank": 0,
        "emission": common.at(p.Emission[netuid], uid),
        "incentive": common.at(p.Incentive[netuid], uid),
        "consensus": common.at(p.Consensus[netuid], uid),
        "trust": 0,
        "validator_trust": common.at(p.ValidatorTrust[netuid], uid),
        "dividends": common.at(p.Dividends[netuid], uid),
        "last_update": common.at(p.LastUpdate[netuid], uid),
        "validator_permit": common.at(p.ValidatorPermit[netuid], uid, False),
        "pruning_score": PRUNING_SCORE,
    }


def _full(p: Subtensor, netuid: int, uid: int) -> dict[str, Any]:
    rows = {"weights": p.Weights[netuid, uid], "bonds": p.Bonds[netuid, uid]}
    return {**_lite(p, netuid, uid), **{name: [cell for cell in row if cell[1]] for name, row in rows.items()}}


def _uids(p: Subtensor, netuid: int) -> range:
    return range(p.SubnetworkN[netuid]) if common.exists(p, netuid) else range(0)


@api("NeuronInfoRuntimeApi_get_neurons_lite")
def get_neurons_lite(rt: SpecRuntime, netuid: int) -> list[dict[str, Any]]:
    return [_lite(rt.subtensor, netuid, uid) for uid in _uids(rt.subtensor, netuid)]


@api("NeuronInfoRuntimeApi_get_neuron_lite")
def get_neuron_lite(rt: SpecRuntime, netuid: int, uid: int) -> dict[str, Any] | None:
    return _lite(rt.subtensor, netuid, uid) if uid in _uids(rt.subtensor, netuid) else None


@api("NeuronInfoRuntimeApi_get_neurons")
def get_neurons(rt: SpecRuntime, netuid: int) -> list[dict[str, Any]]:
    return [_full(rt.subtensor, netuid, uid) for uid in _uids(rt.subtensor, netuid)]


@api("NeuronInfoRuntimeApi_get_neuron")
def get_neuron(rt: SpecRuntime, netuid: int, uid: int) -> dict[str, Any] | None:
    return _full(rt.subtensor, netuid, uid) if uid in _uids(rt.subtensor, netuid) else None
