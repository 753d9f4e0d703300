"""Genesis: the chain's state before the first block.

A patch, JSON in the form chain specifications use, adds to it or replaces:

    {"balances": {"balances": [[address, rao], ...]}, "sudo": {"key": address}}

`build_genesis` writes what a freshly started public localnet holds: funded development accounts, the root network and
one dynamic subnet that has not been started, One as author and Alice as sudo key. The figures are in
`localnet.rules.constants`. Where a profile's limits differ from the metadata's storage defaults (which are those of
fast blocks), `_limits` writes them down.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import bittensor_core

from localnet.errors import ConfigError
from localnet.rules import constants as figures
from localnet.rules.coinbase import TOTAL_SUPPLY
from localnet.runtime.pallets.balances import EXISTENTIAL_DEPOSIT, NEW_LOGIC_FLAG
from localnet.runtime.subtensor import networks, registration, staking
from localnet.runtime.subtensor.symbols import symbols

if TYPE_CHECKING:
    from localnet.runtime.runtime import SpecRuntime
    from localnet.runtime.subtensor.pallet import Subtensor

FIRST = 1  # netuid of the subnet that exists from the start


@lru_cache(maxsize=64)
def dev_account(uri: str) -> bytes:
    """Public key of a development key, e.g. "//Alice"."""
    return bytes(bittensor_core.Keypair.create_from_uri(uri).public_key)


def account_of(name: str) -> bytes:
    """Public key of a genesis account: Alice, Bob, ..., Alith, Baltathar."""
    address = figures.EVM_ACCOUNTS.get(name)
    return dev_account(f"//{name}") if address is None else bytes(bittensor_core.ss58_decode(address))


def _address(value: Any) -> bytes:
    try:
        return bytes(bittensor_core.ss58_decode(value))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"genesis patch: {value!r} is not an SS58 address") from error


def _patched_balance(entry: Any) -> tuple[bytes, int]:
    match entry:
        case [str() as address, int() as free] if EXISTENTIAL_DEPOSIT <= free <= TOTAL_SUPPLY:
            return _address(address), free
    raise ConfigError(
        f"genesis patch: {entry!r} is not [address, rao] with {EXISTENTIAL_DEPOSIT} (the existential deposit) "
        f"to {TOTAL_SUPPLY} rao"
    )


def _read_patch(patch: Any) -> tuple[dict[bytes, int], bytes]:
    """(free balances, sudo key) of genesis with the patch applied. Raises ConfigError."""
    balances = {account_of(name): free for name, free in figures.GENESIS_BALANCES.items()}
    sudo = account_of(figures.SUDO)
    if not isinstance(patch, Mapping) or not all(isinstance(fields, Mapping) for fields in patch.values()):
        raise ConfigError("genesis patch: not an object of objects")
    entries = {f"{pallet}.{name}": value for pallet, fields in patch.items() for name, value in fields.items()}
    for entry, value in entries.items():
        if entry == "balances.balances" and isinstance(value, list):
            balances.update(_patched_balance(one) for one in value)
        elif entry == "sudo.key":
            sudo = _address(value)
        else:
            raise ConfigError(
                f"genesis patch: {entry} cannot be set; a list balances.balances and an address sudo.key can. "
                "Use dev_setStorage after the start for anything else."
            )
    return balances, sudo


def build_genesis(rt: SpecRuntime, patch: Any) -> None:
    """Write the state of block 0. Raises ConfigError for a patch that asks for something else than is listed above."""
    balances, sudo = _read_patch(patch)
    for who, free in balances.items():
        data = {"free": free, "reserved": 0, "frozen": 0, "flags": NEW_LOGIC_FLAG}
        rt.system.Account[who] = {"nonce": 0, "consumers": 0, "providers": 1, "sufficients": 0, "data": data}
    issued = sum(balances.values())
    rt.balances.TotalIssuance.put(issued)
    rt.subtensor.TotalIssuance.put(issued)
    rt.sudo.Key.put(sudo)
    rt.aura.Authorities.put([account_of(figures.AUTHOR)])
    _limits(rt.subtensor)
    _root(rt.subtensor)
    _first_subnet(rt.subtensor)


def _limits(p: Subtensor) -> None:
    """Chain-wide limits of the profile."""
    limits = figures.LIMITS[p.rt.profile.name]
    for item, value in (
        (p.MaxEpochsPerBlock, limits.max_epochs_per_block),
        (p.TxChildkeyTakeRateLimit, limits.childkey_take_rate_limit),
        (p.PendingChildKeyCooldown, limits.pending_childkey_cooldown),
        (p.ColdkeySwapAnnouncementDelay, limits.coldkey_swap_announcement_delay),
        (p.ColdkeySwapReannouncementDelay, limits.coldkey_swap_reannouncement_delay),
    ):
        if item.get() != value:
            item.put(value)
    if p.rt.profile.name == "fast":
        p.NetworkRateLimit.put(0)  # as on builds for development: subnets may be created one after the other


def _root(p: Subtensor) -> None:
    p.NetworksAdded[networks.ROOT] = True
    p.TotalNetworks.put(1)
    p.SubnetOwner[networks.ROOT] = account_of(figures.SUDO)
    p.SubnetOwnerHotkey[networks.ROOT] = dev_account(figures.ROOT_OWNER_HOTKEY)
    p.SubnetworkN[networks.ROOT] = 0
    p.TokenSymbol[networks.ROOT] = symbols()[0]
    networks.write_settings(p, networks.ROOT, figures.ROOT)


def _first_subnet(p: Subtensor) -> None:
    pool, nobody = figures.SUBNET_1_POOL, figures.ZERO_ACCOUNT
    p.NetworksAdded[FIRST] = True
    p.TotalNetworks.put(figures.TOTAL_NETWORKS)
    p.SubnetMechanism[FIRST] = networks.DYNAMIC
    p.Owner[nobody] = nobody
    p.SubnetOwner[FIRST] = nobody
    p.SubnetTAO[FIRST] = pool.tao
    p.SubnetAlphaIn[FIRST] = pool.alpha_in
    p.SubnetAlphaOut[FIRST] = pool.alpha_out
    p.SubnetLocked[FIRST] = p.LargestLocked[FIRST] = pool.locked
    p.SubnetworkN[FIRST] = 0
    p.TokenSymbol[FIRST] = symbols()[FIRST]
    networks.write_settings(p, FIRST, figures.SUBNET_1)
    staking.increase_stake(p, nobody, nobody, FIRST, pool.alpha_out)
    registration.append_neuron(p, FIRST, nobody)
