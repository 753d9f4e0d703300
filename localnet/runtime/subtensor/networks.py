"""Subnets: creating, starting, naming them, and their schedule.

    register_network            pay the lock cost, get a netuid, a pool and uid 0
    start_call                  the owner starts emission; before that nobody can stake

Names and symbols are in `identity`, the epoch clock in `clock`.
Registering above the subnet limit would have to dismantle the cheapest subnet first; that is not implemented and is
refused with an error that says so, and so is dissolving a subnet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from localnet.errors import DispatchError
from localnet.rules import coinbase, constants
from localnet.rules import registration as rules
from localnet.rules.fixed import U64F64
from localnet.runtime.framework import Origin, Root, Signed, call, ensure_root, ensure_signed
from localnet.runtime.subtensor import identity as identities
from localnet.runtime.subtensor import positions, registration, staking
from localnet.runtime.subtensor.symbols import symbols

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


def not_implemented(what: str) -> DispatchError:
    """The answer to a request that this runtime understands and cannot carry out."""
    return DispatchError("Other", f"NotImplemented: {what}")


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


# -- creating a subnet ----------------------------------------------------------------------------------------------


@call()
def register_network(p: Subtensor, origin: Origin, hotkey: bytes) -> None:
    create(p, ensure_signed(origin), hotkey, None)


@call()
def register_network_with_identity(
    p: Subtensor, origin: Origin, hotkey: bytes, identity: dict[str, Any] | None
) -> None:
    create(p, ensure_signed(origin), hotkey, identity)


def create(p: Subtensor, coldkey: bytes, hotkey: bytes, identity: dict[str, Any] | None) -> int:
    """Create a subnet for `coldkey`; its netuid. Raises what `_check_creation` and the payment raise."""
    cost = _check_creation(p, coldkey, hotkey, identity)
    median = _median_price(p)
    netuid = _next_netuid(p)
    initialise(p, netuid)
    paid = positions.pay_subnet(p, netuid, coldkey, cost)
    p.NetworkLastLockCost.put(paid)
    p.LastRateLimitedBlock[LAST_REGISTERED] = p.rt.number
    registration.create_account(p, coldkey, hotkey)
    registration.append_neuron(p, netuid, hotkey)
    p.SubnetMechanism[netuid] = DYNAMIC
    p.NetworkRegisteredAt[netuid] = p.rt.number
    p.RegisteredSubnetCounter[netuid] = p.RegisteredSubnetCounter[netuid] + 1
    p.TokenSymbol[netuid] = _free_symbol(p, netuid)
    _open_pool(p, netuid, paid, median)
    p.SubnetOwner[netuid] = coldkey
    set_owner_hotkey(p, netuid, hotkey)
    if identity is not None:
        p.SubnetIdentitiesV3[netuid] = identity
        p.emit("SubnetIdentitySet", netuid)
    _make_root_validators_parents(p, netuid, hotkey)
    p.emit("NetworkAdded", netuid, DYNAMIC)
    p.SubnetEmissionEnabled[netuid] = False  # root switches TAO emission on
    return netuid


def _check_creation(p: Subtensor, coldkey: bytes, hotkey: bytes, identity: dict[str, Any] | None) -> int:
    """The lock cost, when the subnet may be created."""
    if staking.hotkey_exists(p, hotkey) and not staking.owns(p, coldkey, hotkey):
        raise p.error("NonAssociatedColdKey")
    registration.ensure_not_system(p, hotkey)
    if p.rt.number < p.NetworkRegistrationStartBlock.get():
        raise p.error("SubNetRegistrationDisabled")
    if registration_rate_limited(p):
        raise p.error("NetworkTxRateLimitExceeded")
    if identity is not None:
        identities.check_lengths(p, identity, identities.SUBNET_LIMITS)
    if len(netuids(p)) - 1 >= p.SubnetLimit.get():
        if subnet_to_prune(p) is None:
            raise p.error("SubnetLimitReached")
        raise not_implemented("dismantling the cheapest subnet to make room for a new one; raise SubnetLimit instead")
    cost = lock_cost(p)
    if p.rt.balances.reducible(coldkey) < cost:
        raise p.error("CannotAffordLockCost")
    return cost


def subnet_to_prune(p: Subtensor) -> int | None:
    """The subnet that would have to make room: lowest moving price, past its immunity."""
    subnets = [
        (netuid, p.SubnetMovingPrice[netuid]["bits"], p.NetworkRegisteredAt[netuid])
        for netuid in netuids(p)
        if netuid != ROOT
    ]
    return rules.subnet_to_prune(subnets, p.rt.number, p.NetworkImmunityPeriod.get())


def _next_netuid(p: Subtensor) -> int:
    taken = set(netuids(p))
    netuid = 1
    while netuid in taken:
        netuid += 1
    return netuid


def _median_price(p: Subtensor) -> U64F64:
    return rules.median_price([staking.spot_price(p, netuid) for netuid in netuids(p) if netuid != ROOT])


def _free_symbol(p: Subtensor, netuid: int) -> bytes:
    """The netuid-th symbol, else the first free one, else root's."""
    used = {symbol for _, symbol in p.TokenSymbol.items()}
    every = symbols()
    own = every[netuid] if netuid < len(every) else every[0]
    return next((symbol for symbol in (own, *every[1:]) if symbol not in used), every[0])


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


def _open_pool(p: Subtensor, netuid: int, paid: int, median: U64F64) -> None:
    pool = rules.initial_pool(paid, p.NetworkMinLockCost.get(), median)
    p.SubnetTAO[netuid] = pool.tao
    p.SubnetAlphaIn[netuid] = pool.alpha
    p.SubnetLocked[netuid] = paid
    p.SubnetAlphaOut[netuid] = 0
    p.SubnetVolume[netuid] = 0
    p.RAORecycledForRegistration[netuid] = pool.recycled
    p.TotalStake.put(p.TotalStake.get() + pool.tao)


def set_owner_hotkey(p: Subtensor, netuid: int, hotkey: bytes) -> None:
    """Raises CannotUseSystemAccount."""
    registration.ensure_not_system(p, hotkey)
    p.SubnetOwnerHotkey[netuid] = hotkey
    p.emit("SubnetOwnerHotkeySet", netuid, hotkey)


def _make_root_validators_parents(p: Subtensor, netuid: int, hotkey: bytes) -> None:
    """Root validators put their stake behind a new subnet's owner, unless they opted out. One that may not: skipped."""
    for _, validator in p.Keys.items(ROOT):
        if validator == hotkey or not p.AutoParentDelegationEnabled[validator]:
            continue
        arguments = {"hotkey": validator, "netuid": netuid, "children": [((1 << 64) - 1, hotkey)]}
        try:
            p.rt.dispatch(Signed(p.Owner[validator]), p.name, "set_children", arguments)
        except DispatchError:
            continue  # its own rate limit or children stand against it; the subnet is created all the same


@call()
def dissolve_network(p: Subtensor, origin: Origin, coldkey: bytes, netuid: int) -> None:
    ensure_root(origin)
    ensure_exists(p, netuid)
    raise not_implemented("dissolving a subnet")


@call()
def root_dissolve_network(p: Subtensor, origin: Origin, netuid: int) -> None:
    ensure_root(origin)
    ensure_exists(p, netuid)
    raise not_implemented("dissolving a subnet")


@call()
def start_call(p: Subtensor, origin: Origin, netuid: int) -> None:
    ensure_exists(p, netuid)
    ensure_owner(p, origin, netuid)
    if p.FirstEmissionBlockNumber[netuid] is not None:
        raise p.error("FirstEmissionBlockNumberAlreadySet")
    if p.rt.number < p.NetworkRegisteredAt[netuid] + p.StartCallDelay.get():
        raise p.error("NeedWaitingMoreBlocksToStarCall")
    first = p.rt.number + 1
    p.FirstEmissionBlockNumber[netuid] = first
    p.SubtokenEnabled[netuid] = True
    p.emit("FirstEmissionBlockNumberSet", netuid, first)
