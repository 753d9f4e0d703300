"""What accounts for a difference that two runtimes show: a change that came between their versions, or a fee.

The changes are data, by area: known_items.py has those that storage items show, known_calls.py the calls that end
differently, known_epochs.py the rules of an epoch. What a row of theirs means is told in changes.py.
"""

from __future__ import annotations

from typing import Any

from localnet.rehearsal.changes import Ended, Versioned
from localnet.rehearsal.known_calls import KNOWN_CALLS
from localnet.rehearsal.known_items import KNOWN_ITEMS

VERSIONED = (*KNOWN_ITEMS, *KNOWN_CALLS)


def explain(
    item: str, cause: str, specs: tuple[int, int], values: tuple[Any, Any], keys: tuple[Any, ...] = ()
) -> Versioned | None:
    """The row that accounts for a storage item that differs, one that looks at the values before one that does not."""
    rows = [row for row in KNOWN_ITEMS if row.covers(item, cause, specs, values, keys)]
    return min(rows, key=lambda row: not row.checked, default=None)


def explain_call(what: str, specs: tuple[int, int], ended: tuple[Ended, Ended]) -> Versioned | None:
    """The row that accounts for a call that ends differently, on the reference and on the other."""
    return next((row for row in KNOWN_CALLS if row.covers(what, "", specs, ended)), None)


ISSUANCE = ("Balances.TotalIssuance", "SubtensorModule.TotalIssuance")
FEE = Versioned(
    ("System.Account", *ISSUANCE), 0,
    "the fee of a call, which every version weighs anew: the balances differ by exactly what the fees do",
    "TransactionPayment.TransactionFeePaid in the events of both",
)  # fmt: skip
SUDO = Versioned(
    ("System.Account",), 0,
    "a call of root goes through the sudo account where the runtime has no other way: its nonce, and its fee",
    "localnet.abi, DevApi_apply_extrinsic",
)  # fmt: skip


def explain_money(item: str, values: tuple[Any, Any], origin: str, fees: tuple[int, int]) -> Versioned | None:
    """What fees alone account for: the difference of two balances is exactly that of two fees."""
    if item in ISSUANCE and int(values[0]) + fees[0] == int(values[1]) + fees[1]:
        return FEE
    if item != "System.Account" or not all(isinstance(value, dict) for value in values):
        return None
    free = [int(value["data"]["free"]) for value in values]
    rest = [{**value, "data": {**value["data"], "free": 0}, "nonce": 0} for value in values]
    if rest[0] != rest[1] or free[0] + fees[0] != free[1] + fees[1]:
        return None
    if values[0]["nonce"] == values[1]["nonce"]:
        return FEE
    return SUDO if origin == "root" else None
