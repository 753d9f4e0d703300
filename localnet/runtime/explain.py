"""Why a neuron has what it has: an epoch run again, and looked at while it runs.

`explain(rt, data)` is `DevApi_explain`. The node calls it on the state before the block in which the epoch ran (or will
run), with that block's header: the block's start is executed once more, by the same code, while `watch_epoch` shows the
terms and `watch_dividends` what they become in money. So every number here is the chain's own; `localnet.explain` puts
them into words.

Shares are fractions of 1 (the chain's 32 binary digits as a float), `u16` values are what is stored (of 65535), amounts
are alpha-rao.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import bittensor_core
import numpy as np

from localnet.errors import ScaleError
from localnet.rules import coinbase
from localnet.rules import epoch as rules
from localnet.rules.fixed import ONE32, to_u64
from localnet.rules.sparse import build
from localnet.rules.weights import storage_index
from localnet.runtime.subtensor import clock, commits, distribution, networks, staking

if TYPE_CHECKING:
    from localnet.runtime.runtime import SpecRuntime
    from localnet.runtime.subtensor.pallet import Subtensor

Terms = list[tuple[rules.EpochInput, rules.EpochTerms]]  # by mechanism
Dividends = Mapping[bytes, coinbase.Dividends]  # by hotkey
U16_ONE = 65535


def explain(rt: SpecRuntime, data: bytes) -> dict[str, Any]:
    """(netuid u16, uid u16, forced bool, header) -> the report. `forced`: make the epoch due in this block.

    Raises ScaleError when there is no such neuron, or no epoch of the subnet runs in the block, or one without terms.
    """
    netuid, uid = int.from_bytes(data[:2], "little"), int.from_bytes(data[2:4], "little")
    p = rt.subtensor
    if not p.NetworksAdded[netuid] or uid >= p.SubnetworkN[netuid]:
        raise ScaleError(f"subnet {netuid} has {p.SubnetworkN[netuid]} neurons and none with uid {uid}")
    if data[4]:
        p.PendingEpochAt[netuid] = rt.number + 1
        p.BlocksSinceLastStep[netuid] = 0
    before = _holdings(p, netuid, uid)
    seen, dividends = _watch(rt, netuid, data[5:])
    if not seen and clock.decides_alone(p, netuid):
        raise ScaleError(f"subnet {netuid} has Null consensus: one validator's weights decide, there are no Yuma terms")
    if not seen:
        raise ScaleError(f"no epoch of subnet {netuid} runs in block {rt.number}: its tempo is {p.Tempo[netuid]}")
    return {
        **_who(p, netuid, uid),
        "mechanisms": [_mechanism(p, netuid, uid, mecid, *terms) for mecid, terms in enumerate(seen)],
        "stored": {name: _cell(getattr(p, item)[netuid], uid) for name, item in STORED.items()},
        "paid": _paid(p, netuid, uid, before, dividends),
        "hyperparameters": asdict(seen[0][0].hyper),
    }


STORED = {  # per subnet; the incentive is mechanism 0's, whose index is the netuid
    "consensus": "Consensus", "incentive": "Incentive", "dividends": "Dividends", "validator_trust": "ValidatorTrust",
    "emission": "Emission", "permit": "ValidatorPermit",
}  # fmt: skip


def _cell(vector: list[Any], uid: int) -> Any:
    return vector[uid] if uid < len(vector) else 0


def _watch(rt: SpecRuntime, netuid: int, header: bytes) -> tuple[Terms, Dividends]:
    """Start the block and look on."""
    seen: Terms = []
    paid: dict[bytes, coinbase.Dividends] = {}

    def watch(epoch_of: int, mecid: int, inputs: rules.EpochInput, terms: rules.EpochTerms) -> None:
        if epoch_of == netuid:
            seen.append((inputs, terms))

    def watch_dividends(epoch_of: int, dividends: Dividends) -> None:
        if epoch_of == netuid:
            paid.update(dividends)

    rt.subtensor.watch_epoch, rt.subtensor.watch_dividends = watch, watch_dividends
    try:
        rt.call("Core_initialize_block", header, rt.state)
    finally:
        rt.subtensor.watch_epoch = rt.subtensor.watch_dividends = None
    return seen, paid


def _who(p: Subtensor, netuid: int, uid: int) -> dict[str, Any]:
    hotkey = p.Keys[netuid, uid]
    return {
        "netuid": netuid,
        "uid": uid,
        "block": p.rt.number,
        "hotkey": bittensor_core.ss58_encode(hotkey, 42),
        "coldkey": bittensor_core.ss58_encode(p.Owner[hotkey], 42),
        "registered_at": p.BlockAtRegistration[netuid, uid],
        "owner_uid": networks.owner_uid(p, netuid),
        "commit_reveal": {
            "enabled": p.CommitRevealWeightsEnabled[netuid],
            "period_epochs": p.RevealPeriodEpochs[netuid],
            "waiting": [
                {"block": block, "epoch": epoch, "expired": commits.is_expired(p, netuid, epoch)}
                for _, epoch, block, _ in p.WeightCommits[storage_index(netuid, 0), hotkey] or ()
            ],
        },
    }


# -- one mechanism --------------------------------------------------------------------------------------------------


def _share(bits: Any) -> float:
    return int(bits) / ONE32


def _mechanism(
    p: Subtensor, netuid: int, uid: int, mecid: int, inputs: rules.EpochInput, terms: rules.EpochTerms
) -> dict[str, Any]:
    result = rules.result_of(inputs, terms)
    return {
        "mecid": mecid,
        "alpha": inputs.emission,
        "activity": {
            "active": terms.active[uid], "last_update": inputs.last_update[uid],
            "silent_for": inputs.block - inputs.last_update[uid], "cutoff": inputs.hyper.activity_cutoff,
        },
        "stake": {
            "weight": inputs.stake[uid] >> 64, "threshold": inputs.hyper.stake_threshold,
            "share": _share(terms.stake[uid]), "heard": _share(terms.active_stake[uid]),
        },
        "permit": _permit(uid, inputs, terms),
        "received": _received(uid, inputs, terms),
        "sent": _sent(uid, inputs, terms),
        "bonds": _bonds(uid, terms),
        "consensus": _share(terms.consensus[uid]),
        "incentive": _share(terms.incentive[uid]),
        "dividends": _share(terms.dividends[uid]),
        "emission_share": _share(terms.shares.combined[uid]),
        "by_stake": not bool((terms.incentive + terms.dividends).any()),
        "server_alpha": result.server_emission[uid],
        "dividend_share": result.validator_emission[uid] / max(sum(result.validator_emission), 1),
        "u16": {
            name: getattr(result, name)[uid]
            for name in ("consensus", "incentive", "dividends", "validator_trust", "stake_weight")
        },
    }  # fmt: skip


def _permit(uid: int, inputs: rules.EpochInput, terms: rules.EpochTerms) -> dict[str, Any]:
    stakes = terms.stake.tolist()
    return {
        "had": bool(terms.permits[uid]),
        "has": bool(terms.new_permits[uid]),
        "rank": 1 + sum((share, other) > (stakes[uid], uid) for other, share in enumerate(stakes)),
        "places": inputs.hyper.max_validators,
        "as_owner": uid == inputs.owner_uid,
    }


def _raw(inputs: rules.EpochInput, uids: list[int]) -> Any:
    """All rows as they are stored, as fractions of their sum; and where there is an entry."""
    raw = build(inputs.weights, uids, inputs.n, "weights")
    sums = raw.values.sum(axis=1, keepdims=True)
    return np.divide(raw.values, sums, out=np.zeros(raw.values.shape), where=sums > 0), raw.present


def _unheard(inputs: rules.EpochInput, terms: rules.EpochTerms, sender: int, receiver: int) -> str | None:
    """Why a weight does not count; None when it does."""
    if not terms.permits[sender]:
        return "no permit"
    for reason, holds in rules.conditions(inputs, [sender]).items():
        if not bool(np.broadcast_to(holds, (1, inputs.n))[0, receiver]):
            return reason
    if not terms.active[sender]:
        return "inactive"
    return None if terms.active_stake[sender] else "no stake"


def _entry(
    inputs: rules.EpochInput, terms: rules.EpochTerms, sender: int, receiver: int, stored: float
) -> dict[str, Any]:
    """One weight: as stored, as heard, and what consensus left of it."""
    row = terms.uids.index(sender) if sender in terms.uids else None
    heard = 0.0 if row is None else _share(terms.weights.values[row, receiver])
    clipped = 0.0 if row is None else _share(terms.clipped.values[row, receiver])
    return {
        "stored": float(stored), "normalised": heard, "clipped": clipped,
        "stake": _share(terms.active_stake[sender]), "unheard": _unheard(inputs, terms, sender, receiver),
    }  # fmt: skip


def _received(uid: int, inputs: rules.EpochInput, terms: rules.EpochTerms) -> list[dict[str, Any]]:
    senders = sorted(inputs.weights)
    stored, present = _raw(inputs, senders)
    return [
        {"from": sender, **_entry(inputs, terms, sender, uid, stored[row, uid])}
        for row, sender in enumerate(senders)
        if present[row, uid]
    ]


def _sent(uid: int, inputs: rules.EpochInput, terms: rules.EpochTerms) -> list[dict[str, Any]]:
    stored, present = _raw(inputs, [uid])
    return [
        {"to": to, **_entry(inputs, terms, uid, to, stored[0, to]), "consensus": _share(terms.consensus[to])}
        for to in np.flatnonzero(present[0]).tolist()
    ]


def _bonds(uid: int, terms: rules.EpochTerms) -> list[dict[str, Any]]:
    """The neuron's own bonds: its share of all bonds on each uid, and what that uid earned."""
    if uid not in terms.uids:
        return []
    row, bonds = terms.uids.index(uid), terms.bonds.values
    totals = bonds.sum(axis=0)
    return [
        {
            "on": on, "bond": _share(bonds[row, on]), "share": float(bonds[row, on] / totals[on]),
            "incentive": _share(terms.incentive[on]),
        }
        for on in np.flatnonzero(bonds[row]).tolist()
    ]  # fmt: skip


# -- what was paid --------------------------------------------------------------------------------------------------


def _holdings(p: Subtensor, netuid: int, uid: int) -> int:
    return p.TotalHotkeyAlpha[p.Keys[netuid, uid], netuid]


def _dividend(name: str, whole: int, take: int) -> dict[str, int]:
    """What the pools gave a hotkey, its owner's take of it, and what is left for those who staked."""
    taken, rest = coinbase.take_split(whole, take)
    return {f"{name}_dividend": to_u64(whole, 32), f"{name}_take": taken, f"to_{name}_stakers": rest}


def _paid(p: Subtensor, netuid: int, uid: int, before: int, dividends: Dividends) -> dict[str, Any]:
    hotkey = p.Keys[netuid, uid]
    owner = p.Owner[hotkey]
    destination = p.AutoStakeDestination[owner, netuid]
    dividend = dividends.get(hotkey, coinbase.Dividends(0, 0))
    return {
        "hotkey_alpha_before": before,
        "hotkey_alpha_after": _holdings(p, netuid, uid),
        **_dividend("alpha", dividend.alpha, p.Delegates[hotkey]),
        **_dividend("root", dividend.root, p.Delegates[hotkey]),
        "take": p.Delegates[hotkey] / U16_ONE,
        "parents": len(p.ParentKeys[hotkey, netuid]),
        "children": len(p.ChildKeys[hotkey, netuid]),
        "is_owners": hotkey in distribution.owner_hotkeys(p, netuid),
        "withheld_is": p.RecycleOrBurn[netuid],
        "miner_burned": _share(p.MinerBurned[netuid]["bits"]),
        "incentive_to": None if destination is None else bittensor_core.ss58_encode(destination, 42),
        "alpha_price": staking.spot_price(p, netuid) / (1 << 64),
    }
