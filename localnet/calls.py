"""Calls whose form changed with the chain's versions: chosen by what the runtime's metadata has, never by its number.

Each function gives (pallet, call, arguments) for `Vocabulary.encode_call`, and raises MetadataError that names the
forms it knows when the runtime has none of them.

    balance            Balances.force_set_balance, before that set_balance_deprecated, before that set_balance
    register_network   with the owner's hotkey, before that without, with a kind of mechanism in between
    add_stake          with a netuid; before subnets had a currency of their own, without
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from localnet.errors import MetadataError
from localnet.vocabulary import Vocabulary

PALLET = "SubtensorModule"
DYNAMIC = 1  # mechanism of a subnet that has a currency of its own

Form: TypeAlias = tuple[str, str, dict[str, Any]]


def chosen(words: Vocabulary, forms: Sequence[Form]) -> Form:
    """The first form that the runtime has with exactly these arguments. Raises MetadataError."""
    for pallet, call, arguments in forms:
        if set(words.document.calls.get(pallet, {}).get(call, ("",))) == set(arguments):
            return pallet, call, arguments
    known = " or ".join(f"{pallet}.{call}({', '.join(arguments)})" for pallet, call, arguments in forms)
    raise MetadataError(f"the runtime has none of the calls that are known here for this: {known}")


def balance(words: Vocabulary, who: bytes, free: int, account: Mapping[str, Any]) -> Form:
    """Set a free balance, as root. `account`: its `System.Account`; what is reserved stays reserved."""
    target, reserved = {"who": ("Id", who), "new_free": free}, account["data"]["reserved"]
    forms: list[Form] = [
        ("Balances", "force_set_balance", target),
        ("Balances", "set_balance_deprecated", {**target, "old_reserved": reserved}),
        ("Balances", "set_balance", {**target, "new_reserved": reserved}),
    ]
    return chosen(words, forms)


def register_network(words: Vocabulary, hotkey: bytes) -> Form:
    """Found a subnet, as its owner."""
    forms: list[Form] = [
        (PALLET, "register_network", {"hotkey": hotkey}),
        (PALLET, "register_network", {"hotkey": hotkey, "mechid": DYNAMIC}),
        (PALLET, "register_network", {}),
    ]
    return chosen(words, forms)


def add_stake(words: Vocabulary, netuid: int, hotkey: bytes, rao: int) -> Form:
    """Stake on a subnet's hotkey, or on the hotkey everywhere where stake has no subnet."""
    stake = {"hotkey": hotkey, "amount_staked": rao}
    return chosen(words, [(PALLET, "add_stake", {**stake, "netuid": netuid}), (PALLET, "add_stake", stake)])
