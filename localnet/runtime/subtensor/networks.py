"""Subnets: which there are, whose they are, what the next one costs and which one would go for it.

    start_call                  the owner starts emission; before that nobody can stake

Creating subnets is in `creation`, their end in `dissolution`, names and symbols in `identity`, the epoch clock in
`clock`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from localnet.errors import DispatchError
from localnet.rules import coinbase, constants
from localnet.rules import registration as rules
from localnet.runtime.framework import Origin, Root, call, ensure_signed
from localnet.runtime.subtensor import registration, staking

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

ROOT = staking.ROOT
DYNAMIC = 1  # SubnetMechanism of a subnet with a market
LAST_REGISTERED = "NetworkLastRegistered"  # key of LastRateLimitedBlock
ANNOUNCED = (  # a new subnet's settings that the chain makes events of
    ("RegistrationAllowed", "NetworkRegistrationAllowed"), ("MaxAllowedUidsSet", "MaxAllowedUids"),
    ("MaxAllowedValidatorsSet", "MaxAllowedValidators"), ("MinAllowedWeightSet", "MinAllowedWeights"),
    ("ImmunityPeriodSet", "ImmunityPeriod"),
)  # fmt: skip
EXPLICIT = frozenset(("tempo", "kappa", "registration_allowed", "max_uids", "legacy_activity_cutoff"))


# -- what others ask ------------------------------------------------------------------------------------------------


def netuids(p: Subtensor) -> list[int]:
    """All subnets, root included, ascending."""
    return sorted(netuid for netuid, added in p.NetworksAdded.items() if added)


def ensure_exists(p: Subtensor, netuid: int) -> None:
    """Raises SubnetNotExists."""
    if not p.NetworksAdded[netuid]:
        raise p.error("SubnetNotExists")


def ensure_owner(p: Subtensor, origin: Origin, netuid: int) -> bytes:
    """The owner's coldkey, when it signed. Raises BadOrigin."""
    who = ensure_signed(origin)
    if netuid not in p.SubnetOwner or p.SubnetOwner[netuid] != who:
        raise DispatchError("BadOrigin")
    return who


def ensure_owner_or_root(p: Subtensor, origin: Origin, netuid: int) -> None:
    """Raises BadOrigin unless the subnet's owner or the chain itself asks."""
    if not isinstance(origin, Root):
        ensure_owner(p, origin, netuid)


def owner_uid(p: Subtensor, netuid: int) -> int | None:
    """Uid of the subnet's owner hotkey, if it has one there."""
    if netuid not in p.SubnetOwnerHotkey:
        return None
    return p.Uids[netuid, p.SubnetOwnerHotkey[netuid]]


def lock_cost(p: Subtensor) -> int:
    """What the next subnet costs, rao."""
    emission = coinbase.block_emission(p.TotalIssuance.get())  # BlockEmission may be that of some subnet's alpha
    interval = rules.lock_reduction_interval(p.NetworkLockReductionInterval.get(), emission)
    last_block = p.LastRateLimitedBlock[LAST_REGISTERED]
    return rules.lock_cost(p.rt.number, p.NetworkLastLockCost.get(), last_block, p.NetworkMinLockCost.get(), interval)


def registration_rate_limited(p: Subtensor) -> bool:
    """Was the last subnet created too recently?"""
    last = p.LastRateLimitedBlock[LAST_REGISTERED]
    return not rules.rate_limit_passed(last, p.rt.number, p.NetworkRateLimit.get())


def subnet_to_prune(p: Subtensor) -> int | None:
    """The subnet that would have to make room: lowest moving price, past its immunity."""
    subnets = [
        (netuid, staking.moving_price(p, netuid), p.NetworkRegisteredAt[netuid])
        for netuid in netuids(p)
        if netuid != ROOT
    ]
    return rules.subnet_to_prune(subnets, p.rt.number, p.NetworkImmunityPeriod.get())


# -- settings and owner ---------------------------------------------------------------------------------------------


def write_settings(p: Subtensor, netuid: int, settings: constants.Hyperparameters) -> None:
    """Write the settings that are not the chain's defaults, and those that clients read from storage directly."""
    for field, item in constants.STORAGE_NAMES.items():
        value = getattr(settings, field)
        if field in EXPLICIT or value != getattr(constants.DEFAULTS, field):
            getattr(p, item)[netuid] = value


def initialise(p: Subtensor, netuid: int) -> None:
    """What a new subnet starts from. The epoch clocks of subnets are staggered by netuid."""
    tempo = constants.LIMITS[p.rt.profile.name].default_tempo
    p.SubnetworkN[netuid] = 0
    p.NetworksAdded[netuid] = True
    p.LastEpochBlock[netuid] = max(p.rt.number - netuid % max(tempo, 1), 0)
    p.TotalNetworks.put(p.TotalNetworks.get() + 1)
    write_settings(p, netuid, replace(constants.REGISTERED, tempo=tempo))
    p.RegistrationsThisInterval[netuid] = 0
    for event, item in ANNOUNCED:
        p.emit(event, netuid, getattr(p, item)[netuid])


def set_owner_hotkey(p: Subtensor, netuid: int, hotkey: bytes) -> None:
    """Raises CannotUseSystemAccount."""
    registration.ensure_not_system(p, hotkey)
    p.SubnetOwnerHotkey[netuid] = hotkey
    p.emit("SubnetOwnerHotkeySet", netuid, hotkey)


@call()
def start_call(p: Subtensor, origin: Origin, netuid: int) -> None:
    ensure_exists(p, netuid)
    ensure_owner(p, origin, netuid)
    if p.FirstEmissionBlockNumber[netuid] is not None:
        raise p.error("FirstEmissionBlockNumberAlreadySet")
    if p.rt.number < p.NetworkRegisteredAt[netuid] + p.StartCallDelay.get():
        raise p.error("StartCallNotReady")
    first = p.rt.number + 1
    p.FirstEmissionBlockNumber[netuid] = first
    p.SubtokenEnabled[netuid] = True
    p.emit("FirstEmissionBlockNumberSet", netuid, first)
