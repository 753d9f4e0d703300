"""EVM keys: a neuron shows that an Ethereum-style address is its own.

    associate_evm_key    the hotkey sends what the EVM key signed: EIP-191 over the hotkey and a block number's hash
    forget, renumber     a uid that changes hands loses its address; one that changes its number keeps it

AssociatedEvmAddress[netuid, uid] and AssociatedUidsByEvmAddress[netuid, address] are the two sides of one relation;
`_connect` and `forget` keep them equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from localnet.rules import constants
from localnet.rules.fixed import sub_floor0
from localnet.runtime.framework import Origin, call, ensure_signed
from localnet.runtime.subtensor import networks

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

MOST_UIDS = 32  # of one address on a subnet; the bound of the storage item's type, which the metadata does not carry
LEGACY_V = 27  # wallets add it to the recovery id, the last byte of a signature
HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
"""Half of secp256k1's group order: the chain's library refuses signatures with a larger s."""


def keccak_256(data: bytes) -> bytes:
    from Crypto.Hash import keccak  # 25 ms, a tenth of a chain's start, for a call that few make

    return keccak.new(data=data, digest_bits=256).digest()


def message_hash(hotkey: bytes, block_number: int) -> bytes:
    """What the EVM key signs: personal_sign (EIP-191) of the hotkey and the hash of the block's number as u64."""
    message = hotkey + keccak_256(block_number.to_bytes(8, "little"))
    return keccak_256(b"\x19Ethereum Signed Message:\n%d" % len(message) + message)


def recover_address(digest: bytes, signature: bytes) -> bytes | None:
    """The address whose key signed, from r, s and the recovery id (65 bytes); None when there is none."""
    import coincurve

    recovery_id = signature[64] - LEGACY_V if signature[64] >= LEGACY_V else signature[64]
    if recovery_id > 3 or int.from_bytes(signature[32:64], "big") > HALF_ORDER:
        return None
    try:
        public = coincurve.PublicKey.from_signature_and_message(
            signature[:64] + bytes((recovery_id,)), digest, hasher=None
        )
    except ValueError:  # numbers that are no signature of anything
        return None
    return keccak_256(public.format(compressed=False)[1:])[12:]


def ensure_rate(p: Subtensor, netuid: int, uid: int) -> None:
    """Raises EvmKeyAssociateRateLimitExceeded. A uid without an address counts as associated at block 0."""
    known = p.AssociatedEvmAddress[netuid, uid]
    last = known[1] if known is not None else 0
    if sub_floor0(p.rt.number, last) < constants.LIMITS[p.rt.profile.name].evm_key_associate_rate_limit:
        raise p.error("EvmKeyAssociateRateLimitExceeded")


def uid_of(p: Subtensor, netuid: int, hotkey: bytes) -> int:
    """Raises HotKeyNotRegisteredInSubNet."""
    uid = p.Uids[netuid, hotkey]
    if uid is None:
        raise p.error("HotKeyNotRegisteredInSubNet")
    return uid


@call(pays=False, ref_time=130_000_000)
def associate_evm_key(
    p: Subtensor, origin: Origin, netuid: int, evm_key: bytes, block_number: int, signature: bytes
) -> None:
    hotkey = ensure_signed(origin)
    networks.ensure_exists(p, netuid)
    if p.Owner[hotkey] == bytes(32):
        raise p.error("NonAssociatedColdKey")
    uid = uid_of(p, netuid, hotkey)
    ensure_rate(p, netuid, uid)
    address = recover_address(message_hash(hotkey, block_number), signature)
    if address is None:
        raise p.error("InvalidIdentity")
    if address != evm_key:
        raise p.error("InvalidRecoveredPublicKey")
    uids = [known for known, _ in p.AssociatedUidsByEvmAddress[netuid, evm_key]]
    if uid not in uids and len(uids) >= MOST_UIDS:
        raise p.error("EvmKeyAssociationLimitExceeded")
    _connect(p, netuid, uid, evm_key)
    p.emit("EvmKeyAssociated", netuid=netuid, hotkey=hotkey, evm_key=evm_key, block_associated=p.rt.number)


def _connect(p: Subtensor, netuid: int, uid: int, address: bytes) -> None:
    before = p.AssociatedEvmAddress[netuid, uid]
    if before is not None and before[0] != address:
        _drop_uid(p, netuid, before[0], uid)
    now = p.rt.number
    known = p.AssociatedUidsByEvmAddress[netuid, address]
    if any(other == uid for other, _ in known):
        known = [(other, now if other == uid else at) for other, at in known]
    else:
        known = [*known, (uid, now)]
    p.AssociatedUidsByEvmAddress[netuid, address] = known
    p.AssociatedEvmAddress[netuid, uid] = (address, now)


def forget(p: Subtensor, netuid: int, uid: int) -> None:
    """The uid has no address any more."""
    known = p.AssociatedEvmAddress[netuid, uid]
    if known is not None:
        del p.AssociatedEvmAddress[netuid, uid]
        _drop_uid(p, netuid, known[0], uid)


def renumber(p: Subtensor, netuid: int, numbers: Mapping[int, int]) -> None:
    """The uids of a trimmed subnet have new numbers (old -> new); those that went were forgotten before."""
    before = dict(p.AssociatedEvmAddress.items(netuid))
    p.AssociatedEvmAddress.clear(netuid)
    for old, new in numbers.items():
        if old in before:
            p.AssociatedEvmAddress[netuid, new] = before[old]
    for address, uids in list(p.AssociatedUidsByEvmAddress.items(netuid)):
        p.AssociatedUidsByEvmAddress[netuid, address] = [(numbers[uid], at) for uid, at in uids]


def _drop_uid(p: Subtensor, netuid: int, address: bytes, uid: int) -> None:
    left = [entry for entry in p.AssociatedUidsByEvmAddress[netuid, address] if entry[0] != uid]
    if left:
        p.AssociatedUidsByEvmAddress[netuid, address] = left
    else:
        del p.AssociatedUidsByEvmAddress[netuid, address]
