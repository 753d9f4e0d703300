"""Voting power: a moving average of each validator's stake weight, kept per subnet for those who count votes.

    enable_voting_power_tracking     by the subnet's owner or root
    disable_voting_power_tracking    takes effect 14 days later, at an epoch
    sudo_set_voting_power_ema_alpha  how fast the average follows, by root
    update                           every epoch, for all validators with a permit

Nothing here counts votes: the numbers are kept for contracts and clients that do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from localnet.rules.fixed import U64_MAX, sub_floor0
from localnet.runtime.framework import Origin, call, ensure_root
from localnet.runtime.subtensor import networks

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

GRACE_PERIOD = 100_800
"""Blocks between asking for the end of tracking and the end: 14 days of 12 s."""
ONE = 10**18
"""An EMA alpha of 1."""


def ema(stake: int, before: int, alpha: int) -> int:
    """alpha*stake + (1-alpha)*before, floored, with 18 decimals."""
    return min((alpha * stake + (ONE - alpha) * before) // ONE, U64_MAX)


@call()
def enable_voting_power_tracking(p: Subtensor, origin: Origin, netuid: int) -> None:
    """Also calls a pending end off."""
    networks.ensure_owner_or_root(p, origin, netuid)
    networks.ensure_exists(p, netuid)
    p.VotingPowerTrackingEnabled[netuid] = True
    del p.VotingPowerDisableAtBlock[netuid]
    p.emit("VotingPowerTrackingEnabled", netuid=netuid)


@call()
def disable_voting_power_tracking(p: Subtensor, origin: Origin, netuid: int) -> None:
    networks.ensure_owner_or_root(p, origin, netuid)
    networks.ensure_exists(p, netuid)
    if not p.VotingPowerTrackingEnabled[netuid]:
        raise p.error("VotingPowerTrackingNotEnabled")
    at = p.rt.number + GRACE_PERIOD
    p.VotingPowerDisableAtBlock[netuid] = at
    p.emit("VotingPowerTrackingDisableScheduled", netuid=netuid, disable_at_block=at)


@call()
def sudo_set_voting_power_ema_alpha(p: Subtensor, origin: Origin, netuid: int, alpha: int) -> None:
    ensure_root(origin)
    networks.ensure_exists(p, netuid)
    if alpha > ONE:
        raise p.error("InvalidVotingPowerEmaAlpha")
    p.VotingPowerEmaAlpha[netuid] = alpha
    p.emit("VotingPowerEmaAlphaSet", netuid=netuid, alpha=alpha)


def _set(p: Subtensor, netuid: int, hotkey: bytes, power: int) -> None:
    """Keeps the subnet's total."""
    before = p.VotingPower[netuid, hotkey]
    if power:
        p.VotingPower[netuid, hotkey] = power
    elif (netuid, hotkey) in p.VotingPower:
        del p.VotingPower[netuid, hotkey]
    if power != before:
        total = sub_floor0(p.TotalVotingPower[netuid], before) + power
        p.TotalVotingPower[netuid] = min(total, U64_MAX)


def update(p: Subtensor, netuid: int, validators: Mapping[bytes, int], others: set[bytes]) -> None:
    """After an epoch. `validators`: hotkey with a new permit -> its stake weight (summed over mechanisms, floored);
    `others`: the subnet's hotkeys without a permit. For subnets that track.

    A power that was at or above the stake threshold and falls below it is dropped; one that grows from below is kept.
    """
    end = p.VotingPowerDisableAtBlock[netuid]
    if end and p.rt.number >= end:
        _finish(p, netuid)
        return
    alpha, threshold = p.VotingPowerEmaAlpha[netuid], p.StakeThreshold.get()
    for hotkey, stake in validators.items():
        before = p.VotingPower[netuid, hotkey]
        power = ema(stake, before, alpha)
        if power < threshold <= before:
            _set(p, netuid, hotkey, 0)
        elif power:
            _set(p, netuid, hotkey, power)
    for hotkey in list(p.VotingPower.keys(netuid)):
        if hotkey in others or not p.IsNetworkMember[hotkey, netuid]:
            _set(p, netuid, hotkey, 0)


def _finish(p: Subtensor, netuid: int) -> None:
    p.VotingPower.clear(netuid)
    del p.TotalVotingPower[netuid]
    p.VotingPowerTrackingEnabled[netuid] = False
    del p.VotingPowerDisableAtBlock[netuid]
    p.emit("VotingPowerTrackingDisabled", netuid=netuid)
