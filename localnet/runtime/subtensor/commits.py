"""Commit and reveal: a validator publishes the hash of its weights first and the weights an epoch or more later.

    commit_*           the hash joins a queue per (storage index, hotkey), at most ten long
    reveal_*           allowed in exactly one epoch: that of the commit plus RevealPeriodEpochs

The hash is `localnet.rules.weights.commit_hash`. A failed reveal leaves the queue as it was, expired entries included.
Commits that open by themselves, when a drand round is published, are in `timelocked`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from localnet.errors import DispatchError
from localnet.rules.weights import commit_hash as hash_of
from localnet.rules.weights import storage_index
from localnet.runtime.framework import Origin, call, ensure_signed
from localnet.runtime.subtensor import clock, registration, weights

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

MAX_UNREVEALED = 10
Entry: TypeAlias = "tuple[bytes, int, int, int]"  # hash, epoch, block, unused


@dataclass(frozen=True)
class Reveal:
    """What a reveal shows."""

    uids: Sequence[int]
    values: Sequence[int]
    salt: Sequence[int]
    version: int

    def hash(self, hotkey: bytes, index: int) -> bytes:
        return hash_of(hotkey, index, self.uids, self.values, self.salt, self.version)


def is_expired(p: Subtensor, netuid: int, epoch: int) -> bool:
    """The epoch in which the commit could be revealed is over."""
    return clock.current_epoch(p, netuid) > epoch + p.RevealPeriodEpochs[netuid]


def is_revealable(p: Subtensor, netuid: int, epoch: int) -> bool:
    """This is the epoch in which the commit may be revealed."""
    return clock.current_epoch(p, netuid) == epoch + p.RevealPeriodEpochs[netuid]


def ensure_enabled(p: Subtensor, netuid: int) -> None:
    """Raises CommitRevealDisabled."""
    if not p.CommitRevealWeightsEnabled[netuid]:
        raise p.error("CommitRevealDisabled")


def _split_expired(p: Subtensor, netuid: int, queue: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """(expired entries at the front, the rest)."""
    first = next((at for at, entry in enumerate(queue) if not is_expired(p, netuid, entry[1])), len(queue))
    return list(queue[:first]), list(queue[first:])


# -- commit ---------------------------------------------------------------------------------------------------------


def commit(p: Subtensor, hotkey: bytes, netuid: int, mecid: int, digest: bytes) -> None:
    weights.ensure_mechanism(p, netuid, mecid)
    ensure_enabled(p, netuid)
    uid = p.Uids[netuid, hotkey]
    if uid is None:
        raise p.error("HotKeyNotRegisteredInSubNet")
    weights.ensure_rate(p, netuid, mecid, uid, "CommittingWeightsTooFast")
    index = storage_index(netuid, mecid)
    _, queue = _split_expired(p, netuid, p.WeightCommits[index, hotkey] or [])
    if len(queue) >= MAX_UNREVEALED:
        raise p.error("TooManyUnrevealedCommits")
    p.WeightCommits[index, hotkey] = [*queue, (digest, clock.current_epoch(p, netuid), p.rt.number, 0)]
    registration.touch(p, netuid, index, uid)
    p.emit("WeightsCommitted", hotkey, index, digest)


@call(pays=False)
def commit_weights(p: Subtensor, origin: Origin, netuid: int, commit_hash: bytes) -> None:
    commit(p, ensure_signed(origin), netuid, weights.MAIN, commit_hash)


@call(pays=False)
def commit_mechanism_weights(p: Subtensor, origin: Origin, netuid: int, mecid: int, commit_hash: bytes) -> None:
    commit(p, ensure_signed(origin), netuid, mecid, commit_hash)


@call(pays=False)
def batch_commit_weights(p: Subtensor, origin: Origin, netuids: list[int], commit_hashes: list[bytes]) -> None:
    hotkey = ensure_signed(origin)
    if len(netuids) != len(commit_hashes):
        raise p.error("InputLengthsUnequal")
    weights.run_batch(
        p, hotkey, netuids, lambda item: commit(p, hotkey, netuids[item], weights.MAIN, commit_hashes[item])
    )


# -- reveal ---------------------------------------------------------------------------------------------------------


def _no_match(p: Subtensor, digest: bytes, expired: Sequence[Entry], otherwise: str) -> DispatchError:
    was_there = any(entry[0] == digest for entry in expired)
    return p.error("ExpiredWeightCommit" if was_there else otherwise)


def _store_queue(p: Subtensor, index: int, hotkey: bytes, queue: list[Entry]) -> None:
    if queue:
        p.WeightCommits[index, hotkey] = queue
    else:
        del p.WeightCommits[index, hotkey]


def reveal(p: Subtensor, hotkey: bytes, netuid: int, mecid: int, shown: Reveal) -> None:
    ensure_enabled(p, netuid)
    index = storage_index(netuid, mecid)
    stored = p.WeightCommits[index, hotkey]
    if stored is None:
        raise p.error("NoWeightsCommitFound")
    expired, queue = _split_expired(p, netuid, stored)
    digest = shown.hash(hotkey, index)
    if not queue:
        raise _no_match(p, digest, expired, "NoWeightsCommitFound")
    position = next((at for at, entry in enumerate(queue) if entry[0] == digest), None)
    if position is None:
        raise _no_match(p, digest, expired, "InvalidRevealCommitHashNotMatch")
    if not is_revealable(p, netuid, queue[position][1]):
        raise p.error("RevealTooEarly")
    _store_queue(p, index, hotkey, queue[position + 1 :])
    weights.store(p, hotkey, netuid, mecid, shown.uids, shown.values, shown.version)
    p.emit("WeightsRevealed", hotkey, index, digest)


@call(pays=False)
def reveal_weights(
    p: Subtensor, origin: Origin, netuid: int, uids: list[int], values: list[int], salt: list[int], version_key: int
) -> None:
    reveal(p, ensure_signed(origin), netuid, weights.MAIN, Reveal(uids, values, salt, version_key))


@call(pays=False)
def reveal_mechanism_weights(
    p: Subtensor,
    origin: Origin,
    netuid: int,
    mecid: int,
    uids: list[int],
    values: list[int],
    salt: list[int],
    version_key: int,
) -> None:
    reveal(p, ensure_signed(origin), netuid, mecid, Reveal(uids, values, salt, version_key))


@call(pays=False)
def batch_reveal_weights(
    p: Subtensor,
    origin: Origin,
    netuid: int,
    uids_list: list[list[int]],
    values_list: list[list[int]],
    salts_list: list[list[int]],
    version_keys: list[int],
) -> None:
    """All of them or none."""
    hotkey, index = ensure_signed(origin), storage_index(netuid, weights.MAIN)
    if not len(uids_list) == len(values_list) == len(salts_list) == len(version_keys):
        raise p.error("InputLengthsUnequal")
    ensure_enabled(p, netuid)
    stored = p.WeightCommits[index, hotkey]
    if stored is None:
        raise p.error("NoWeightsCommitFound")
    expired, queue = _split_expired(p, netuid, stored)
    shown = [Reveal(*parts) for parts in zip(uids_list, values_list, salts_list, version_keys, strict=True)]
    digests = [one.hash(hotkey, index) for one in shown]
    for digest in digests:
        entry = next((entry for entry in queue if entry[0] == digest), None)
        if entry is None:
            raise _no_match(p, digest, expired, "InvalidRevealCommitHashNotMatch")
        if not is_revealable(p, netuid, entry[1]):
            raise p.error("RevealTooEarly")
    for digest, one in zip(digests, shown, strict=True):
        position = next((at for at, entry in enumerate(queue) if entry[0] == digest), None)
        if position is None:  # the same reveal twice in one batch
            raise _no_match(p, digest, expired, "InvalidRevealCommitHashNotMatch")
        del queue[position]
        weights.store(p, hotkey, netuid, weights.MAIN, one.uids, one.values, one.version)
    _store_queue(p, index, hotkey, queue)
    p.emit("WeightsBatchRevealed", hotkey, netuid, digests)
