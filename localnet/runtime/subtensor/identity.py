"""Identities: free text about a coldkey or a subnet, and the symbol of a subnet's token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from localnet.runtime.framework import Origin, call, ensure_signed
from localnet.runtime.subtensor import networks
from localnet.runtime.subtensor.symbols import symbols

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

LIMITS = {
    "name": 256, "url": 256, "github_repo": 256, "image": 1024, "discord": 256, "description": 1024, "additional": 1024,
}  # fmt: skip
"""Most bytes per field of a coldkey's identity."""
SUBNET_LIMITS = {
    "subnet_name": 256, "github_repo": 1024, "subnet_contact": 1024, "subnet_url": 1024, "discord": 256,
    "description": 1024, "logo_url": 1024, "additional": 1024,
}  # fmt: skip
"""Most bytes per field of a subnet's identity."""


def check_lengths(p: Subtensor, identity: Mapping[str, Any], limits: Mapping[str, int]) -> None:
    """Raises InvalidIdentity when a field is too long."""
    if any(len(identity[field]) > limit for field, limit in limits.items()):
        raise p.error("InvalidIdentity")


@call()
def set_identity(
    p: Subtensor,
    origin: Origin,
    name: bytes,
    url: bytes,
    github_repo: bytes,
    image: bytes,
    discord: bytes,
    description: bytes,
    additional: bytes,
) -> None:
    coldkey = ensure_signed(origin)
    netuids = networks.netuids(p)
    if not any(p.IsNetworkMember[hotkey, netuid] for hotkey in p.OwnedHotkeys[coldkey] for netuid in netuids):
        raise p.error("HotKeyNotRegisteredInNetwork")
    identity = {
        "name": name, "url": url, "github_repo": github_repo, "image": image, "discord": discord,
        "description": description, "additional": additional,
    }  # fmt: skip
    check_lengths(p, identity, LIMITS)
    p.IdentitiesV2[coldkey] = identity
    p.emit("ChainIdentitySet", coldkey)


@call()
def set_subnet_identity(
    p: Subtensor,
    origin: Origin,
    netuid: int,
    subnet_name: bytes,
    github_repo: bytes,
    subnet_contact: bytes,
    subnet_url: bytes,
    discord: bytes,
    description: bytes,
    logo_url: bytes,
    additional: bytes,
) -> None:
    coldkey = ensure_signed(origin)
    if netuid not in p.SubnetOwner or p.SubnetOwner[netuid] != coldkey:
        raise p.error("NotSubnetOwner")
    identity = {
        "subnet_name": subnet_name, "github_repo": github_repo, "subnet_contact": subnet_contact,
        "subnet_url": subnet_url, "discord": discord, "description": description, "logo_url": logo_url,
        "additional": additional,
    }  # fmt: skip
    check_lengths(p, identity, SUBNET_LIMITS)
    p.SubnetIdentitiesV3[netuid] = identity
    p.emit("SubnetIdentitySet", netuid)


@call()
def update_symbol(p: Subtensor, origin: Origin, netuid: int, symbol: bytes) -> None:
    networks.ensure_owner_or_root(p, origin, netuid)
    if symbol not in symbols()[1:]:
        raise p.error("SymbolDoesNotExist")
    if any(used == symbol for _, used in p.TokenSymbol.items()):
        raise p.error("SymbolAlreadyInUse")
    p.TokenSymbol[netuid] = symbol
    p.emit("SymbolUpdated", netuid=netuid, symbol=symbol)
