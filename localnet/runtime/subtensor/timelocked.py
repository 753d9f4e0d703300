"""Timelocked commits: weights sealed to a drand round, which the chain itself opens when the round's pulse arrives.

    commit_*       the ciphertext joins the bucket of (storage index, epoch); at most ten of a hotkey there
    reveal_subnet  part of every block step, before the epochs: a bucket has its turn RevealPeriodEpochs later, from the
                   block on in which that epoch starts, so that what is opened there already counts in it

A commit whose pulse is not there stays where it is until its epoch is over; what does not open, is not its sender's, or
breaks a rule for weights is dropped. The chain says nothing of either; here the log does.
"""

from __future__ import annotations

import logging
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias

from localnet.errors import ConfigError, LocalnetError, ScaleError
from localnet.rules import timelock
from localnet.rules.constants import NETWORK
from localnet.rules.weights import read_opened_commit, storage_index
from localnet.runtime.framework import Origin, call, ensure_signed
from localnet.runtime.subtensor import clock, commits, registration, weights

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

log = logging.getLogger("localnet.runtime")

Entry: TypeAlias = "tuple[bytes, int, bytes, int]"  # hotkey, block, ciphertext, round


# -- commit ---------------------------------------------------------------------------------------------------------


def check_size(sealed: bytes) -> None:
    """The type's own bound, which the metadata does not carry. Raises ScaleError."""
    if len(sealed) > NETWORK.max_commit_bytes:
        raise ScaleError(f"a timelocked commit holds at most {NETWORK.max_commit_bytes} bytes, not {len(sealed)}")


def ensure_round(p: Subtensor, reveal_round: int) -> None:
    """Only the pool asks this. Raises InvalidRevealRound for a round older than the newest pulse."""
    if reveal_round < p.rt.drand.LastStoredRound.get():
        raise p.error("InvalidRevealRound")


def _commit(p: Subtensor, origin: Origin, netuid: int, mecid: int, sealed: bytes, round_: int, version: int) -> None:
    check_size(sealed)
    weights.ensure_mechanism(p, netuid, mecid)
    hotkey = ensure_signed(origin)
    commits.ensure_enabled(p, netuid)
    if version != p.CommitRevealWeightsVersion.get():
        raise p.error("IncorrectCommitRevealVersion")
    uid = p.Uids[netuid, hotkey]
    if uid is None:
        raise p.error("HotKeyNotRegisteredInSubNet")
    weights.ensure_rate(p, netuid, mecid, uid, "CommittingWeightsTooFast")
    index, epoch = storage_index(netuid, mecid), clock.current_epoch(p, netuid)
    queue = p.TimelockedWeightCommits[index, epoch]
    if sum(entry[0] == hotkey for entry in queue) >= commits.MAX_UNREVEALED:
        raise p.error("TooManyUnrevealedCommits")
    p.TimelockedWeightCommits[index, epoch] = [*queue, (hotkey, p.rt.number, sealed, round_)]
    digest = blake2b(sealed, digest_size=32).digest()
    p.emit("TimelockedWeightsCommitted", hotkey, index, digest, round_)
    registration.touch(p, netuid, index, uid)
    if not p.rt.drand.LastStoredRound.get():
        log.warning("subnet %d: a commit waits for drand round %d, and this chain has no pulses yet", netuid, round_)


@call(pays=False)
def commit_timelocked_weights(
    p: Subtensor, origin: Origin, netuid: int, commit: bytes, reveal_round: int, commit_reveal_version: int
) -> None:
    _commit(p, origin, netuid, weights.MAIN, commit, reveal_round, commit_reveal_version)


@call(pays=False)
def commit_timelocked_mechanism_weights(
    p: Subtensor, origin: Origin, netuid: int, mecid: int, commit: bytes, reveal_round: int, commit_reveal_version: int
) -> None:
    _commit(p, origin, netuid, mecid, commit, reveal_round, commit_reveal_version)


@call(pays=False, ref_time=77_750_000)
def commit_crv3_mechanism_weights(
    p: Subtensor, origin: Origin, netuid: int, mecid: int, commit: bytes, reveal_round: int
) -> None:
    _commit(p, origin, netuid, mecid, commit, reveal_round, NETWORK.commit_version)


# -- reveal ---------------------------------------------------------------------------------------------------------


def has_commits(p: Subtensor) -> bool:
    """Does any subnet have a sealed commit?"""
    return next(p.TimelockedWeightCommits.keys(), None) is not None


def reveal_subnet(p: Subtensor, netuid: int) -> None:
    """Open what can be opened of the bucket whose turn it is, and drop the buckets before it."""
    period, current = p.RevealPeriodEpochs[netuid], clock.current_epoch(p, netuid)
    due = max(current - period, 0)
    for mecid in range(p.MechanismCountCurrent[netuid]):
        index = storage_index(netuid, mecid)
        for epoch in [epoch for epoch in p.TimelockedWeightCommits.keys(index) if epoch < due]:
            lost = len(p.TimelockedWeightCommits[index, epoch])
            log.warning("subnet %d: %d commits of epoch %d expired before their pulse came", netuid, lost, epoch)
            del p.TimelockedWeightCommits[index, epoch]
        if current < period:
            return
        queue = p.TimelockedWeightCommits[index, due]
        waiting = [entry for entry in queue if not _revealed(p, netuid, mecid, entry)]
        if not waiting and queue:
            del p.TimelockedWeightCommits[index, due]
        elif len(waiting) < len(queue):
            p.TimelockedWeightCommits[index, due] = waiting


def _revealed(p: Subtensor, netuid: int, mecid: int, entry: Entry) -> bool:
    """True when the commit is dealt with, one way or the other; False when it waits."""
    hotkey, block, sealed, round_ = entry
    pulse = p.rt.drand.Pulses[round_]
    if pulse is None:
        return False
    try:
        ciphertext, _ = timelock.read_sealed(sealed)
        shown = read_opened_commit(timelock.unseal(ciphertext, pulse["signature"]), hotkey)
        weights.store(p, hotkey, netuid, mecid, shown.uids, shown.values, shown.version)
    except ConfigError as error:  # no BLS library: nothing is wrong with the commit
        log.error("subnet %d: the commit of 0x%s in block %d waits: %s", netuid, hotkey.hex(), block, error)
        return False
    except LocalnetError as error:  # whatever is wrong with it: it came from outside, and the block goes on
        log.warning("subnet %d: the commit of 0x%s in block %d is dropped: %s", netuid, hotkey.hex(), block, error)
        return True
    p.emit("TimelockedWeightsRevealed", storage_index(netuid, mecid), hotkey)
    return True
