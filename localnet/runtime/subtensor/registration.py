"""Registration: how a hotkey gets its uid, what it pays, and who has to go when a subnet is full.

    burned_register, register, register_limit    pay the subnet's price; the TAO buys alpha that nobody gets
    root_register                                a seat on the root network, for its price too
    append_neuron, replace_neuron                the per-uid storage of a subnet
    at_block_start                               prices fall, counters restart

The price rules are `localnet.rules.registration`. Of the price a subnet may have a part locked instead of burned
(`collateral`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localnet.rules import registration as rules
from localnet.rules.fixed import U64_MAX
from localnet.rules.weights import storage_index
from localnet.runtime.framework import Origin, StorageMap, call, ensure_signed
from localnet.runtime.subtensor import baskets, children, clock, collateral, evm_keys, networks, positions, staking

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

ROOT_TAKE = 11_796  # of 65535: what a new root validator takes from its nominators
PER_UID = ("Emission", "Consensus", "Dividends", "ValidatorTrust", "StakeWeight")  # number vectors zeroed with a uid


# -- accounts -------------------------------------------------------------------------------------------------------


def ensure_not_system(p: Subtensor, hotkey: bytes) -> None:
    """A subnet's own account is no hotkey, nor that of a subnet to come. Raises CannotUseSystemAccount."""
    if hotkey == staking.subnet_account(p, int.from_bytes(hotkey[12:14], "little")):
        raise p.error("CannotUseSystemAccount")


def create_account(p: Subtensor, coldkey: bytes, hotkey: bytes) -> None:
    """Make `coldkey` the owner of a hotkey nobody owns yet. Raises CannotUseSystemAccount."""
    ensure_not_system(p, hotkey)
    if staking.hotkey_exists(p, hotkey):
        return
    p.Owner[hotkey] = coldkey
    for known in (p.OwnedHotkeys, p.StakingHotkeys):
        if hotkey not in known[coldkey]:
            known[coldkey] = [*known[coldkey], hotkey]


# -- calls ----------------------------------------------------------------------------------------------------------


@call()
def burned_register(p: Subtensor, origin: Origin, netuid: int, hotkey: bytes) -> None:
    register_neuron(p, ensure_signed(origin), netuid, hotkey)


@call()
def register(
    p: Subtensor,
    origin: Origin,
    netuid: int,
    block_number: int,
    nonce: int,
    work: bytes,
    hotkey: bytes,
    coldkey: bytes,
) -> None:
    """The call of the proof-of-work days: pays like `burned_register`, the proof is ignored."""
    register_neuron(p, ensure_signed(origin), netuid, hotkey)


@call()
def register_limit(p: Subtensor, origin: Origin, netuid: int, hotkey: bytes, limit_price: int) -> None:
    coldkey = ensure_signed(origin)
    _ensure_subnet(p, netuid)
    if p.Burn[netuid] > limit_price:
        raise p.error("RegistrationPriceLimitExceeded")
    register_neuron(p, coldkey, netuid, hotkey)


@call()
def try_associate_hotkey(p: Subtensor, origin: Origin, hotkey: bytes) -> None:
    """Own a hotkey without registering it. One that has an owner already is left alone, without an error."""
    create_account(p, ensure_signed(origin), hotkey)


def _ensure_subnet(p: Subtensor, netuid: int) -> None:
    if netuid == networks.ROOT:
        raise p.error("RegistrationNotPermittedOnRootSubnet")
    networks.ensure_exists(p, netuid)


def register_neuron(p: Subtensor, coldkey: bytes, netuid: int, hotkey: bytes) -> int:
    """Register for the current price; the uid. Raises the errors named in order below."""
    _ensure_subnet(p, netuid)
    if not p.NetworkRegistrationAllowed[netuid]:
        raise p.error("SubNetRegistrationDisabled")
    if p.Uids[netuid, hotkey] is not None:
        raise p.error("HotKeyAlreadyRegisteredInSubNet")
    price = p.Burn[netuid]
    cost = collateral.charge(p, netuid, hotkey, coldkey, price)
    if p.rt.balances.reducible(coldkey) < cost.total:
        raise p.error("NotEnoughBalanceToStake")
    create_account(p, coldkey, hotkey)
    if not staking.owns(p, coldkey, hotkey):
        raise p.error("NonAssociatedColdKey")
    _place(p, netuid)
    collateral.pay(p, netuid, hotkey, coldkey, cost)
    uid = seat(p, netuid, hotkey)
    _bump_price(p, netuid)
    p.RegistrationsThisBlock[netuid] = p.RegistrationsThisBlock[netuid] + 1
    p.RAORecycledForRegistration[netuid] = min(p.RAORecycledForRegistration[netuid] + cost.burned, U64_MAX)
    p.emit("NeuronRegistered", netuid, uid, hotkey)
    return uid


def _place(p: Subtensor, netuid: int) -> int | None:
    """The uid that makes room, None when there is room. Raises NoNeuronIdAvailable."""
    if p.SubnetworkN[netuid] < p.MaxAllowedUids[netuid]:
        return None
    uid = uid_to_prune(p, netuid) if p.MaxAllowedUids[netuid] else None
    if uid is None:
        raise p.error("NoNeuronIdAvailable")
    return uid


def seat(p: Subtensor, netuid: int, hotkey: bytes) -> int:
    """Give a hotkey the next uid, or one that is not needed; the uid. Raises NoNeuronIdAvailable."""
    replaced, uid = _place(p, netuid), p.SubnetworkN[netuid]
    if replaced is None:
        append_neuron(p, netuid, hotkey)
        return int(uid)
    replace_neuron(p, netuid, replaced, hotkey)
    return replaced


@call()
def root_register(p: Subtensor, origin: Origin, hotkey: bytes) -> None:
    """A seat costs root's price, which is recycled. A full root gives up the member with the least stake that is not
    immune any more. Subnets' owners become children of the new member unless it opted out."""
    coldkey, root = ensure_signed(origin), networks.ROOT
    if not p.NetworksAdded[root]:
        raise p.error("RootNetworkDoesNotExist")
    if p.RegistrationsThisBlock[root] >= p.MaxRegistrationsPerBlock[root]:
        raise p.error("TooManyRegistrationsThisBlock")
    if p.RegistrationsThisInterval[root] >= 3 * p.TargetRegistrationsPerInterval[root]:
        raise p.error("TooManyRegistrationsThisInterval")
    if p.Uids[root, hotkey] is not None:
        raise p.error("HotKeyAlreadyRegisteredInSubNet")
    create_account(p, coldkey, hotkey)
    replaced, uid = _root_seat(p)
    _pay_root(p, coldkey)
    if replaced:
        replace_neuron(p, root, uid, hotkey)
    else:
        append_neuron(p, root, hotkey)
    if hotkey not in p.Delegates:
        p.Delegates[hotkey] = ROOT_TAKE
    p.RegistrationsThisInterval[root] = p.RegistrationsThisInterval[root] + 1
    p.RegistrationsThisBlock[root] = p.RegistrationsThisBlock[root] + 1
    p.emit("NeuronRegistered", root, uid, hotkey)
    for netuid in networks.netuids(p):
        children.follow_owner(p, hotkey, netuid)


def _root_seat(p: Subtensor) -> tuple[bool, int]:
    """(does somebody have to go for it, uid). Raises NoNeuronIdAvailable while all members are immune."""
    root, n = networks.ROOT, p.SubnetworkN[networks.ROOT]
    if n < p.MaxAllowedUids[root]:
        return False, n
    stakes = [p.TotalHotkeyAlpha[p.Keys[root, seat], root] for seat in range(n)]
    registered = [p.BlockAtRegistration[root, seat] for seat in range(n)]
    uid = rules.root_uid_to_replace(stakes, registered, p.rt.number, p.ImmunityPeriod[root])
    if uid is None:
        raise p.error("NoNeuronIdAvailable")
    return True, uid


def _pay_root(p: Subtensor, coldkey: bytes) -> None:
    """Raises InsufficientTaoBalance."""
    root, price = networks.ROOT, p.Burn[networks.ROOT]
    if price:
        positions.recycle_tao(p, coldkey, price)
        p.RAORecycledForRegistration[root] = min(p.RAORecycledForRegistration[root] + price, U64_MAX)
    _bump_price(p, root)


def _bump_price(p: Subtensor, netuid: int) -> None:
    """The next one pays more."""
    multiplier = p.BurnIncreaseMult[netuid]["bits"]
    p.Burn[netuid] = rules.bump_price(p.Burn[netuid], multiplier, p.MinBurn[netuid], p.MaxBurn[netuid])


# -- pruning --------------------------------------------------------------------------------------------------------


def _registrations_of(p: Subtensor, netuid: int, coldkey: bytes) -> list[tuple[int, int]]:
    """(registration block, uid) of a coldkey's hotkeys on a subnet."""
    uids = [p.Uids[netuid, hotkey] for hotkey in p.OwnedHotkeys[coldkey]]
    return [(p.BlockAtRegistration[netuid, uid], uid) for uid in uids if uid is not None]


def immortal_uids(p: Subtensor, netuid: int) -> list[int]:
    """The owner's uids that are never replaced."""
    owned = _registrations_of(p, netuid, p.SubnetOwner[netuid])
    return rules.immortal_uids(owned, networks.owner_uid(p, netuid), p.ImmuneOwnerUidsLimit[netuid])


def uid_to_prune(p: Subtensor, netuid: int) -> int | None:
    """Which uid a newcomer would replace; None when nobody may be replaced."""
    n = p.SubnetworkN[netuid]
    emission = [*p.Emission[netuid], *[0] * n][:n]
    registered = [p.BlockAtRegistration[netuid, uid] for uid in range(n)]
    immunity, floor = p.ImmunityPeriod[netuid], p.MinNonImmuneUids[netuid]
    return rules.uid_to_prune(emission, registered, p.rt.number, immunity, floor, immortal_uids(p, netuid))


# -- per-uid storage ------------------------------------------------------------------------------------------------


def _indices(p: Subtensor, netuid: int) -> list[int]:
    return [storage_index(netuid, mecid) for mecid in range(p.MechanismCountCurrent[netuid])]


def set_at(item: StorageMap[list[Any]], key: int, uid: int, value: Any, fill: Any = 0) -> None:
    """Set one cell of a per-uid vector; a vector that is too short is filled up."""
    vector = [*item[key], *[fill] * (uid + 1 - len(item[key]))]
    vector[uid] = value
    item[key] = vector


def touch(p: Subtensor, netuid: int, index: int, uid: int) -> None:
    """The uid's last update on a mechanism is now. The vector has a cell for everyone on the subnet from then on."""
    blocks = [*p.LastUpdate[index], *[0] * (p.SubnetworkN[netuid] - len(p.LastUpdate[index]))]
    blocks[uid] = p.rt.number
    p.LastUpdate[index] = blocks


def _seat(p: Subtensor, netuid: int, uid: int, hotkey: bytes) -> None:
    p.Keys[netuid, uid] = hotkey
    p.Uids[netuid, hotkey] = uid
    p.BlockAtRegistration[netuid, uid] = p.rt.number
    p.IsNetworkMember[hotkey, netuid] = True
    del p.HotkeySuccessor[netuid, hotkey]  # whatever it was renamed to in an earlier life


def append_neuron(p: Subtensor, netuid: int, hotkey: bytes) -> None:
    """Give `hotkey` the next uid of the subnet."""
    uid = p.SubnetworkN[netuid]
    p.SubnetworkN[netuid] = uid + 1
    p.Active[netuid] = [*p.Active[netuid], True]
    p.ValidatorPermit[netuid] = [*p.ValidatorPermit[netuid], False]
    for item in (p.Emission, p.Consensus, p.Dividends, p.ValidatorTrust):
        item[netuid] = [*item[netuid], 0]
    for index in _indices(p, netuid):
        p.Incentive[index] = [*p.Incentive[index], 0]
        touch(p, netuid, index, uid)
    _seat(p, netuid, uid, hotkey)


def replace_neuron(p: Subtensor, netuid: int, uid: int, hotkey: bytes) -> None:
    """Give `hotkey` an occupied uid. The subnet owner's hotkey stays: then nothing happens. Stake is not touched."""
    old = p.Keys[netuid, uid]
    if netuid in p.SubnetOwnerHotkey and p.SubnetOwnerHotkey[netuid] == old:
        return
    if netuid == networks.ROOT:
        baskets.flush(p, old)  # what it earned while it had its seat
        children.unfollow_owners(p, old)
    p.rt.commitments.purge(netuid, old)
    del p.Uids[netuid, old]
    evm_keys.forget(p, netuid, uid)
    del p.IsNetworkMember[old, netuid]
    for item in (p.Axons, p.NeuronCertificates, p.Prometheus):
        del item[netuid, old]
    if netuid == networks.ROOT:
        baskets.flush(p, old)  # the rest was too small to deposit: without a seat it is recycled, what it has stays
    set_at(p.Active, netuid, uid, True, False)
    _seat(p, netuid, uid, hotkey)
    _clear_neuron(p, netuid, uid)
    for index in _indices(p, netuid):
        touch(p, netuid, index, uid)


def _clear_neuron(p: Subtensor, netuid: int, uid: int) -> None:
    """Forget what the uid earned, set and received. Bond columns stay: the epoch masks them by registration block."""
    for name in PER_UID:
        item = getattr(p, name)
        if uid < len(item[netuid]):
            set_at(item, netuid, uid, 0)
    set_at(p.ValidatorPermit, netuid, uid, False, False)
    for index in _indices(p, netuid):
        set_at(p.Incentive, index, uid, 0)
        if uid < len(p.ConsensusByMechanism[index]):
            set_at(p.ConsensusByMechanism, index, uid, 0)
        del p.Bonds[index, uid]
        del p.Weights[index, uid]
        for other, row in list(p.Weights.items(index)):
            if any(dest == uid and value for dest, value in row):
                p.Weights[index, other] = [(dest, 0 if dest == uid else value) for dest, value in row]


# -- every block ----------------------------------------------------------------------------------------------------


def at_block_start(p: Subtensor, netuid: int) -> None:
    """The price decays and registration counters restart; root's interval ends with its tempo."""
    price = p.Burn[netuid]
    decayed = rules.decay_price(price, p.BurnHalfLife[netuid], p.MinBurn[netuid], p.MaxBurn[netuid], p.rt.number)
    if decayed != price:
        p.Burn[netuid] = decayed
    if netuid == networks.ROOT and p.RegistrationsThisInterval[netuid] and clock.epoch_due(p, netuid):
        p.RegistrationsThisInterval[netuid] = 0
    if p.RegistrationsThisBlock[netuid]:
        p.RegistrationsThisBlock[netuid] = 0
