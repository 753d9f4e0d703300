"""Creating subnets: what it takes, what a new subnet starts from, and waiting for a place.

    register_network            pay the lock cost, get a netuid, a pool and uid 0
    admit_queued                the end of every block: a registration that waited for a place gets it

At the limit of subnets a registration removes the one with the lowest moving price that is past its immunity. The place
is free when that one's data are gone (`dissolution`); until then the registration waits in NetworkRegistrationQueue,
the cost locked on the coldkey's account. Its own cost and the pool's first price are settled when it begins to wait;
the next subnet's price, the rate limit and the hotkey's owner follow when it is admitted. Locks of Balances overlap, so
two registrations of one coldkey that wait share the larger one, as on chain: what it does not cover can be spent, and
an admission pays what can leave the account, or waits while that is nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from localnet.errors import DispatchError
from localnet.rules import registration as rules
from localnet.rules.fixed import U64F64
from localnet.runtime.framework import Origin, call, ensure_signed
from localnet.runtime.subtensor import children, dissolution, networks, positions, registration, staking
from localnet.runtime.subtensor import identity as identities
from localnet.runtime.subtensor.symbols import symbols

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

log = logging.getLogger("localnet.runtime")

LAST_LOCK_ID = (1 << 32) - 1


# -- the calls ------------------------------------------------------------------------------------------------------


@call()
def register_network(p: Subtensor, origin: Origin, hotkey: bytes) -> None:
    create(p, ensure_signed(origin), hotkey, None)


@call()
def register_network_with_identity(
    p: Subtensor, origin: Origin, hotkey: bytes, identity: dict[str, Any] | None
) -> None:
    create(p, ensure_signed(origin), hotkey, identity)


def create(p: Subtensor, coldkey: bytes, hotkey: bytes, identity: dict[str, Any] | None) -> int | None:
    """Create a subnet for `coldkey`; its netuid, or None when it has to wait for a place.

    Raises what `_check_creation` raises, CannotAffordLockCost, and what the payment raises.
    """
    _check_creation(p, coldkey, hotkey, identity)
    full, pruned = _make_room(p)
    cost = networks.lock_cost(p)
    if p.rt.balances.reducible(coldkey, keep_alive=False) < cost:
        raise p.error("CannotAffordLockCost")
    if pruned is not None:
        dissolution.dissolve(p, pruned)
    if full:
        _queue(p, coldkey, hotkey, identity, cost)
        return None
    median = _median_price(p)
    netuid, paid = _open(p, coldkey, cost)
    _furnish(p, netuid, coldkey, hotkey, identity, paid, median)
    return netuid


def _check_creation(p: Subtensor, coldkey: bytes, hotkey: bytes, identity: dict[str, Any] | None) -> None:
    if staking.hotkey_exists(p, hotkey) and not staking.owns(p, coldkey, hotkey):
        raise p.error("NonAssociatedColdKey")
    registration.ensure_not_system(p, hotkey)
    if p.rt.number < p.NetworkRegistrationStartBlock.get():
        raise p.error("SubNetRegistrationDisabled")
    if networks.registration_rate_limited(p):
        raise p.error("NetworkTxRateLimitExceeded")
    if identity is not None:
        identities.check_lengths(p, identity, identities.SUBNET_LIMITS)


def _is_full(p: Subtensor) -> bool:
    """Are all places taken, by subnets or by what is left of them?"""
    subnets = len(networks.netuids(p)) - p.NetworksAdded[networks.ROOT]
    return subnets + len(p.DissolveCleanupQueue.get()) >= p.SubnetLimit.get()


def _make_room(p: Subtensor) -> tuple[bool, int | None]:
    """(does the newcomer have to wait, the subnet that goes for it). Raises SubnetLimitReached."""
    if not _is_full(p):
        return False, None
    if len(p.DissolveCleanupQueue.get()) > len(p.NetworkRegistrationQueue.get()):
        return True, None  # a place that nobody waits for yet is being cleared
    pruned = networks.subnet_to_prune(p)
    if pruned is None:
        raise p.error("SubnetLimitReached")
    return True, pruned


# -- waiting --------------------------------------------------------------------------------------------------------


def _lock_identifier(lock_id: int) -> bytes:
    return b"rglk" + lock_id.to_bytes(4, "little")


def _queue(p: Subtensor, coldkey: bytes, hotkey: bytes, identity: dict[str, Any] | None, cost: int) -> None:
    """Lock the cost and wait. The cost and the pool's price are settled now."""
    lock_id = p.NetworkRegistrationLockId.get()
    if lock_id == LAST_LOCK_ID:
        raise p.error("LockIdOverFlow")
    p.rt.balances.set_lock(_lock_identifier(lock_id), coldkey, cost)
    p.NetworkRegistrationLockId.put(lock_id + 1)
    entry = {
        "coldkey": coldkey,
        "hotkey": hotkey,
        "mechid": networks.DYNAMIC,
        "identity": identity,
        "lock_amount": cost,
        "median_subnet_alpha_price": {"bits": _median_price(p)},
        "registration_block": p.rt.number,
    }
    p.NetworkRegistrationQueue.put([*p.NetworkRegistrationQueue.get(), {**entry, "lock_id": lock_id}])
    p.emit("NetworkRegistrationQueued", **entry)


def admit_queued(p: Subtensor) -> None:
    """Create the first waiting subnet that can be; one a block. Costs one read when nobody waits."""
    queue = p.NetworkRegistrationQueue.get()
    for index, entry in enumerate(queue):
        try:
            with p.rt.transaction():
                _admit(p, entry)
        except DispatchError as error:
            log.info("a subnet of %s still waits: %s", entry["coldkey"].hex(), error)
            continue
        p.NetworkRegistrationQueue.put([*queue[:index], *queue[index + 1 :]])
        return


def _admit(p: Subtensor, entry: dict[str, Any]) -> None:
    if _is_full(p):
        raise p.error("SubnetLimitReached")
    p.rt.balances.remove_lock(_lock_identifier(entry["lock_id"]), entry["coldkey"])
    netuid, paid = _open(p, entry["coldkey"], entry["lock_amount"])
    median = entry["median_subnet_alpha_price"]["bits"]
    _furnish(p, netuid, entry["coldkey"], entry["hotkey"], entry["identity"], paid, median)


# -- the new subnet -------------------------------------------------------------------------------------------------


def _open(p: Subtensor, coldkey: bytes, cost: int) -> tuple[int, int]:
    """(netuid, what was paid) of a subnet that has nothing but its settings yet; what was paid sets the next price."""
    netuid = _next_netuid(p)
    networks.initialise(p, netuid)
    paid = positions.pay_subnet(p, netuid, coldkey, cost)
    p.NetworkLastLockCost.put(paid)
    p.LastRateLimitedBlock[networks.LAST_REGISTERED] = p.rt.number
    return netuid, paid


def _furnish(
    p: Subtensor,
    netuid: int,
    coldkey: bytes,
    hotkey: bytes,
    identity: dict[str, Any] | None,
    paid: int,
    median: U64F64,
) -> None:
    """Owner, first neuron, pool, names."""
    registration.create_account(p, coldkey, hotkey)
    registration.append_neuron(p, netuid, hotkey)
    p.SubnetMechanism[netuid] = networks.DYNAMIC
    p.NetworkRegisteredAt[netuid] = p.rt.number
    p.RegisteredSubnetCounter[netuid] = p.RegisteredSubnetCounter[netuid] + 1
    p.TokenSymbol[netuid] = _free_symbol(p, netuid)
    _open_pool(p, netuid, paid, median)
    p.SubnetOwner[netuid] = coldkey
    networks.set_owner_hotkey(p, netuid, hotkey)
    if identity is not None:
        p.SubnetIdentitiesV3[netuid] = identity
        p.emit("SubnetIdentitySet", netuid)
    for _, validator in p.Keys.items(networks.ROOT):
        children.follow_owner(p, validator, netuid)
    p.emit("NetworkAdded", netuid, networks.DYNAMIC)
    p.SubnetEmissionEnabled[netuid] = False  # root switches TAO emission on


def _next_netuid(p: Subtensor) -> int:
    taken = {*networks.netuids(p), *p.DissolveCleanupQueue.get()}
    netuid = 1
    while netuid in taken:
        netuid += 1
    return netuid


def _median_price(p: Subtensor) -> U64F64:
    return rules.median_price(
        [staking.spot_price(p, netuid) for netuid in networks.netuids(p) if netuid != networks.ROOT]
    )


def _free_symbol(p: Subtensor, netuid: int) -> bytes:
    """The netuid-th symbol, else the first free one, else root's."""
    used = {symbol for _, symbol in p.TokenSymbol.items()}
    every = symbols()
    own = every[netuid] if netuid < len(every) else every[0]
    return next((symbol for symbol in (own, *every[1:]) if symbol not in used), every[0])


def _open_pool(p: Subtensor, netuid: int, paid: int, median: U64F64) -> None:
    pool = rules.initial_pool(paid, p.NetworkMinLockCost.get(), median)
    p.SubnetTAO[netuid] = pool.tao
    p.SubnetAlphaIn[netuid] = pool.alpha
    p.SubnetLocked[netuid] = paid
    p.SubnetAlphaOut[netuid] = 0
    p.SubnetVolume[netuid] = 0
    p.RAORecycledForRegistration[netuid] = pool.recycled
    p.TotalStake.put(p.TotalStake.get() + pool.tao)
