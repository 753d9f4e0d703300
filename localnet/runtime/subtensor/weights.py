"""Weights: a validator's opinion of every uid, set openly. All calls are free and signed by the hotkey.

    set_weights, set_mechanism_weights, batch_set_weights
    store                the checks in the chain's order, then the scaled vector; the reveal calls come in here too

What a vector must satisfy is `localnet.rules.weights.check_weights`. Commits and reveals are in `commits`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from localnet.errors import DispatchError
from localnet.rules import weights as rules
from localnet.rules.fixed import to_u64
from localnet.runtime.framework import Origin, call, ensure_signed
from localnet.runtime.subtensor import clock, networks, registration, staking

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

MAIN = 0  # the mechanism that calls without a mechanism id mean


# -- what the pool asks too -----------------------------------------------------------------------------------------


def has_mechanism(p: Subtensor, netuid: int, mecid: int) -> bool:
    return p.NetworksAdded[netuid] and mecid < p.MechanismCountCurrent[netuid]


def ensure_mechanism(p: Subtensor, netuid: int, mecid: int) -> None:
    """Raises MechanismDoesNotExist."""
    if not has_mechanism(p, netuid, mecid):
        raise p.error("MechanismDoesNotExist")


def stake_weight(p: Subtensor, netuid: int, hotkey: bytes) -> int:
    """What the hotkey's stake counts for on the subnet, whole alpha-rao."""
    return to_u64(staking.inherited_weights(p, netuid, [hotkey])[0][0], 64)


def ensure_min_stake(p: Subtensor, netuid: int, hotkey: bytes) -> None:
    """The subnet owner's hotkey is exempt. Raises NotEnoughStakeToSetWeights."""
    threshold = p.StakeThreshold.get()
    if not threshold:
        return
    owner = networks.owner_uid(p, netuid)
    if owner is not None and p.Uids[netuid, hotkey] == owner:
        return
    if stake_weight(p, netuid, hotkey) < threshold:
        raise p.error("NotEnoughStakeToSetWeights")


def last_update(p: Subtensor, index: int, uid: int) -> int:
    blocks = p.LastUpdate[index]
    return blocks[uid] if uid < len(blocks) else 0


def ensure_rate(p: Subtensor, netuid: int, mecid: int, uid: int, error: str) -> None:
    """Raises `error` when the uid's last update on this mechanism is too recent, or there is no such mechanism."""
    if not has_mechanism(p, netuid, mecid):
        raise p.error(error)
    last = last_update(p, rules.storage_index(netuid, mecid), uid)
    if last and p.rt.number - last < p.WeightsSetRateLimit[netuid]:
        raise p.error(error)


# -- storing a vector -----------------------------------------------------------------------------------------------


def _rules_of(p: Subtensor, netuid: int) -> rules.WeightRules:
    return rules.WeightRules(
        n=p.SubnetworkN[netuid],
        min_allowed_weights=p.MinAllowedWeights[netuid],
        max_weights_limit=p.MaxWeightsLimit[netuid],
        weights_version=p.WeightsVersionKey[netuid],
        rate_limit=p.WeightsSetRateLimit[netuid],
        stake_threshold=p.StakeThreshold.get(),
        owner_uid=networks.owner_uid(p, netuid),
    )


def store(
    p: Subtensor, hotkey: bytes, netuid: int, mecid: int, uids: Sequence[int], values: Sequence[int], version: int
) -> None:
    """Check and store a vector. With commit-reveal on this is a reveal: it leaves rate limit and LastUpdate alone."""
    if netuid == networks.ROOT:
        raise p.error("CanNotSetRootNetworkWeights")
    if len(uids) != len(values):
        raise p.error("WeightVecNotEqualSize")
    ensure_mechanism(p, netuid, mecid)
    if len(uids) > p.SubnetworkN[netuid]:
        raise p.error("UidsLengthExceedUidsInSubNet")
    uid = p.Uids[netuid, hotkey]
    if uid is None:
        raise p.error("HotKeyNotRegisteredInSubNet")
    index, revealing = rules.storage_index(netuid, mecid), p.CommitRevealWeightsEnabled[netuid]
    permits, subnet = p.ValidatorPermit[netuid], _rules_of(p, netuid)
    scaled, broken = rules.check_weights(
        subnet,
        uid,
        stake_weight(p, netuid, hotkey) if subnet.stake_threshold else 0,
        uid < len(permits) and permits[uid],
        last_update(p, index, uid),
        p.rt.number,
        uids,
        values,
        version,
        check_rate=not revealing,
    )
    if broken is not None:
        raise p.error(broken)
    row = values if clock.decides_alone(p, netuid) else scaled  # one that decides alone is kept as it was written
    p.Weights[index, uid] = list(zip(uids, row, strict=True))
    if not revealing:
        registration.touch(p, netuid, index, uid)
    p.emit("WeightsSet", index, uid)


# -- calls ----------------------------------------------------------------------------------------------------------


def ensure_open_weights(p: Subtensor, netuid: int) -> None:
    """Raises CommitRevealEnabled where weights have to be committed first."""
    if p.CommitRevealWeightsEnabled[netuid]:
        raise p.error("CommitRevealEnabled")


@call(pays=False)
def set_weights(
    p: Subtensor, origin: Origin, netuid: int, dests: list[int], weights: list[int], version_key: int
) -> None:
    set_mechanism_weights(p, origin, netuid, MAIN, dests, weights, version_key)


@call(pays=False)
def set_mechanism_weights(
    p: Subtensor, origin: Origin, netuid: int, mecid: int, dests: list[int], weights: list[int], version_key: int
) -> None:
    ensure_open_weights(p, netuid)
    store(p, ensure_signed(origin), netuid, mecid, dests, weights, version_key)


@call(pays=False)
def batch_set_weights(
    p: Subtensor,
    origin: Origin,
    netuids: list[int],
    weights: list[list[tuple[int, int]]],
    version_keys: list[int],
) -> None:
    hotkey = ensure_signed(origin)
    if not len(netuids) == len(weights) == len(version_keys):
        raise p.error("InputLengthsUnequal")

    def one(item: int) -> None:
        ensure_open_weights(p, netuids[item])
        uids, values = [uid for uid, _ in weights[item]], [value for _, value in weights[item]]
        store(p, hotkey, netuids[item], MAIN, uids, values, version_keys[item])

    run_batch(p, hotkey, netuids, one)


def run_batch(p: Subtensor, hotkey: bytes, netuids: Sequence[int], one: Callable[[int], None]) -> None:
    """Do every item; a failed one is reported in an event and the rest goes on."""
    failed: list[tuple[int, Any]] = []
    for item, netuid in enumerate(netuids):
        try:
            one(item)
        except DispatchError as error:
            failed.append((netuid, error.value))
    if failed:
        p.emit("BatchCompletedWithErrors")
    for netuid, reason in failed:
        p.emit("BatchWeightItemFailed", netuid, reason)
    p.emit("BatchWeightsCompleted", list(netuids), hotkey)
