"""Leased subnets: a crowdloan pays for a subnet, its contributors share in the owner's cut.

    register_leased_network    the call of a crowdloan that is being finalized: its funds buy the subnet
    terminate_lease            at the lease's end the beneficiary, the crowdloan's creator, takes the subnet over
    on_owner_cut               after every epoch: part of the cut is put aside and now and then divided

The subnet belongs to an account without a key; the beneficiary runs it through a proxy of type SubnetLeaseBeneficiary.
The arithmetic is `localnet.rules.leases`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from localnet.errors import DispatchError
from localnet.rules import leases as rules
from localnet.rules.accounts import lease_account
from localnet.rules.fixed import sub_floor0
from localnet.runtime.framework import Origin, call, ensure_signed
from localnet.runtime.subtensor import conviction, creation, networks, positions, registration, staking

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

log = logging.getLogger("localnet.runtime")

PROXY_TYPE = "SubnetLeaseBeneficiary"
Lease = dict[str, Any]


@call()
def register_leased_network(p: Subtensor, origin: Origin, emissions_share: int, end_block: int | None) -> None:
    who = ensure_signed(origin)
    crowdloan_id = p.rt.crowdloan.CurrentCrowdloanId.get()
    crowdloan = p.rt.crowdloan.info(crowdloan_id)
    if who != crowdloan["creator"]:
        raise p.error("InvalidLeaseBeneficiary")
    if end_block is not None and end_block <= p.rt.number:
        raise p.error("LeaseCannotEndInThePast")
    lease_id = p.NextSubnetLeaseId.get()
    p.NextSubnetLeaseId.put(lease_id + 1)
    coldkey, hotkey = lease_account("coldkey", lease_id), lease_account("hotkey", lease_id)
    p.rt.system.inc_providers(coldkey)
    p.rt.system.inc_providers(hotkey)
    positions.transfer_tao(p, crowdloan["funds_account"], coldkey, crowdloan["raised"])
    netuid = creation.create(p, coldkey, hotkey, None)
    if netuid is None:  # the registration waits for a place
        raise p.error("LeaseNetuidNotFound")
    p.rt.proxy.add(coldkey, who, PROXY_TYPE, 0)
    leftover = p.rt.balances.free(coldkey)
    p.SubnetLeases[lease_id] = {
        "beneficiary": who, "coldkey": coldkey, "hotkey": hotkey, "emissions_share": emissions_share,
        "end_block": end_block, "netuid": netuid, "cost": sub_floor0(crowdloan["raised"], leftover),
    }  # fmt: skip
    p.SubnetUidToLeaseId[netuid] = lease_id
    p.Delegates[hotkey] = 0  # contributors get their dividends whole
    shares = _store_shares(p, lease_id, crowdloan_id, crowdloan)
    _give_back(p, coldkey, who, shares, leftover)
    p.emit("SubnetLeaseCreated", beneficiary=who, lease_id=lease_id, netuid=netuid, end_block=end_block)


def _store_shares(p: Subtensor, lease_id: int, crowdloan_id: int | None, crowdloan: Lease) -> dict[bytes, int]:
    """Shares of all contributors but the beneficiary, whose own is what the others leave."""
    shares = {
        who: rules.share(amount or 0, crowdloan["raised"])
        for who, amount in p.rt.crowdloan.Contributions.items(crowdloan_id)
        if who != crowdloan["creator"]
    }
    for who, bits in shares.items():
        p.SubnetLeaseShares[lease_id, who] = {"bits": bits}
    return shares


def _give_back(p: Subtensor, coldkey: bytes, beneficiary: bytes, shares: dict[bytes, int], leftover: int) -> None:
    each, rest = rules.refunds(shares, leftover)
    for who, amount in each.items():
        positions.transfer_tao(p, coldkey, who, amount)
    positions.transfer_tao(p, coldkey, beneficiary, rest)


@call()
def terminate_lease(p: Subtensor, origin: Origin, lease_id: int, hotkey: bytes) -> None:
    who = ensure_signed(origin)
    lease = p.SubnetLeases[lease_id]
    if lease is None:
        raise p.error("LeaseDoesNotExist")
    if lease["beneficiary"] != who:
        raise p.error("ExpectedBeneficiaryOrigin")
    if lease["end_block"] is None:
        raise p.error("LeaseHasNoEndBlock")
    if p.rt.number < lease["end_block"]:
        raise p.error("LeaseHasNotEnded")
    if not staking.owns(p, who, hotkey):
        raise p.error("BeneficiaryDoesNotOwnHotkey")
    registration.ensure_not_system(p, hotkey)
    netuid = lease["netuid"]
    conviction.swap_sums(p, netuid, p.SubnetOwnerHotkey[netuid], hotkey)
    p.SubnetOwner[netuid] = who
    networks.set_owner_hotkey(p, netuid, hotkey)
    _let_go(p, lease)
    p.SubnetLeaseShares.clear(lease_id)
    del p.AccumulatedLeaseDividends[lease_id]
    del p.SubnetLeases[lease_id]
    del p.SubnetUidToLeaseId[netuid]
    p.rt.proxy.remove(lease["coldkey"], who, PROXY_TYPE, 0)
    p.emit("SubnetLeaseTerminated", beneficiary=who, netuid=netuid)


def _let_go(p: Subtensor, lease: Lease) -> None:
    """The lease's accounts live by their balances from here on."""
    for account in (lease["coldkey"], lease["hotkey"]):
        try:
            p.rt.system.dec_providers(account)
        except DispatchError:  # the proxy's deposit keeps the coldkey; the chain lets it be, too
            log.debug("lease account %s stays: it has a reserved balance", account.hex())


# -- dividends ------------------------------------------------------------------------------------------------------


def on_owner_cut(p: Subtensor, netuid: int, owner_cut: int) -> None:
    """The owner's cut of an epoch was credited: put the contributors' part aside, divide it when it is time."""
    lease_id = p.SubnetUidToLeaseId[netuid]
    lease = None if lease_id is None else p.SubnetLeases[lease_id]
    if lease_id is None or lease is None or (lease["end_block"] is not None and lease["end_block"] <= p.rt.number):
        return
    cut = p.AccumulatedLeaseDividends[lease_id] + rules.contributors_cut(owner_cut, lease["emissions_share"])
    interval = p.rt.document.constants[p.name, "LeaseDividendsDistributionInterval"]
    paid = p.rt.number % interval == 0 and _divide(p, lease_id, lease, cut)
    p.AccumulatedLeaseDividends[lease_id] = 0 if paid else cut


def _divide(p: Subtensor, lease_id: int, lease: Lease, cut: int) -> bool:
    """Pay everybody, or nobody when one payment fails (it may be too small to move)."""
    shares = {who: share["bits"] for who, share in p.SubnetLeaseShares.items(lease_id)}
    each, rest = rules.dividends(shares, cut)
    try:
        with p.rt.transaction():
            for who, alpha in (*each.items(), (lease["beneficiary"], rest)):
                source, target = (lease["coldkey"], lease["hotkey"]), (who, lease["hotkey"])
                positions.move_within_subnet(p, source, target, lease["netuid"], alpha)
                p.emit("SubnetLeaseDividendsDistributed", lease_id=lease_id, contributor=who, alpha=alpha)
    except DispatchError as error:
        log.debug("dividends of lease %d wait: %s", lease_id, error.name)
        return False
    return True
