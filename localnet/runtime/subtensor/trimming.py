"""Trimming: a subnet gives up uids, keeps those that earned most, and numbers them anew without gaps.

`trim` lowers MaxAllowedUids and removes the lowest earners until as many are left; neurons in their immunity period and
the owner's immortal ones stay. What belongs to a uid moves to its new number: vectors, weights, bonds and the uids that
weights and bonds name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from localnet.rules.weights import storage_index
from localnet.runtime.framework import StorageMap
from localnet.runtime.subtensor import baskets, children, evm_keys, networks, registration

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

PER_UID = ("Emission", "Active", "Consensus", "Dividends", "ValidatorTrust", "ValidatorPermit", "StakeWeight")
PER_UID_AND_MECHANISM = ("Incentive", "LastUpdate", "ConsensusByMechanism")


def trim(p: Subtensor, netuid: int, most: int) -> None:
    """Leave at most `most` uids. Raises SubnetNotExists, InvalidValue (below MinAllowedUids, above MaxAllowedUids),
    TrimmingWouldExceedMaxImmunePercentage."""
    networks.ensure_exists(p, netuid)
    if not p.MinAllowedUids[netuid] <= most <= p.MaxAllowedUids[netuid]:
        raise p.error("InvalidValue")
    p.MaxAllowedUids[netuid] = most
    n = p.SubnetworkN[netuid]
    if n <= most:
        return
    removed = _to_remove(p, netuid, n, most)
    for uid in removed:
        _remove(p, netuid, uid)
    _move(p, netuid, sorted({*range(n)} - {*removed}))
    p.SubnetworkN[netuid] = most


def _to_remove(p: Subtensor, netuid: int, n: int, most: int) -> list[int]:
    """The lowest earners that are not immune, lowest first; among equals the higher uid goes first."""
    immortal, period = set(registration.immortal_uids(p, netuid)), p.ImmunityPeriod[netuid]
    immune = immortal | {uid for uid in range(n) if p.rt.number - p.BlockAtRegistration[netuid, uid] < period}
    if not most or len(immune) * 100 // most >= p.rt.document.constants[p.name, "MaxImmuneUidsPercentage"]:
        raise p.error("TrimmingWouldExceedMaxImmunePercentage")
    emission = [*p.Emission[netuid], *[0] * n][:n]
    mortal = sorted((uid for uid in range(n) if uid not in immune), key=lambda uid: (emission[uid], -uid))
    return mortal[: n - most]


def _remove(p: Subtensor, netuid: int, uid: int) -> None:
    hotkey = p.Keys[netuid, uid]
    p.rt.commitments.purge(netuid, hotkey)
    if netuid == networks.ROOT:
        baskets.flush(p, hotkey)  # as in registration.replace_neuron: once with the seat, once without
        children.unfollow_owners(p, hotkey)
    for item in (p.Uids, p.AlphaDividendsPerSubnet, p.Axons, p.NeuronCertificates, p.Prometheus):
        del item[netuid, hotkey]
    del p.IsNetworkMember[hotkey, netuid]
    del p.LastHotkeyEmissionOnNetuid[hotkey, netuid]
    evm_keys.forget(p, netuid, uid)
    if netuid == networks.ROOT:
        baskets.flush(p, hotkey)


def _move(p: Subtensor, netuid: int, kept: Sequence[int]) -> None:
    numbers = {old: new for new, old in enumerate(kept)}
    for name in PER_UID:
        _pick(getattr(p, name), netuid, kept)
    for mechanism in range(p.MechanismCountCurrent[netuid]):
        index = storage_index(netuid, mechanism)
        for name in PER_UID_AND_MECHANISM:
            _pick(getattr(p, name), index, kept)
        for rows in (p.Weights, p.Bonds):
            _renumber_rows(rows, index, numbers)
    for item in (p.Keys, p.BlockAtRegistration):
        _renumber(item, netuid, numbers)
    evm_keys.renumber(p, netuid, numbers)
    p.Uids.clear(netuid)
    for uid in range(len(kept)):
        p.Uids[netuid, p.Keys[netuid, uid]] = uid


def _pick(item: StorageMap[list[Any]], key: int, kept: Sequence[int]) -> None:
    """A per-uid vector without the removed uids; cells it never had are its type's zero."""
    vector = item[key]
    if vector:
        zero = type(vector[0])()
        item[key] = [vector[uid] if uid < len(vector) else zero for uid in kept]


def _renumber(item: StorageMap[Any], netuid: int, numbers: Mapping[int, int]) -> None:
    """Entries under (netuid, uid): those of kept uids under their new numbers, no others."""
    before = dict(item.items(netuid))
    item.clear(netuid)
    for old, new in numbers.items():
        if old in before:
            item[netuid, new] = before[old]


def _renumber_rows(rows: StorageMap[list[tuple[int, int]]], index: int, numbers: Mapping[int, int]) -> None:
    """Rows under (index, uid) that name uids themselves."""
    _renumber(rows, index, numbers)
    for uid, row in list(rows.items(index)):
        rows[index, uid] = [(numbers[dest], value) for dest, value in row if dest in numbers]
