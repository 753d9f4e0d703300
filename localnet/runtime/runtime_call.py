"""A decoded RuntimeCall taken apart, and what may not be inside it."""

from __future__ import annotations

from typing import Any

CARRIED = ("call", "main", "fallback")  # arguments that are a call themselves; `calls` is a list of them
BATCHES = frozenset(("batch", "batch_all", "force_batch"))


def split_call(value: Any) -> tuple[str, str, dict[str, Any]]:
    """`(pallet, (function, arguments))` or `(pallet, function)` as (pallet, function, arguments)."""
    pallet, call = value
    return (pallet, call, {}) if isinstance(call, str) else (pallet, call[0], call[1])


def inner_calls(arguments: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """The calls that a batch, a sudo, a proxy or a multisig call carries in its arguments."""
    values = arguments.get("calls") or [arguments[name] for name in CARRIED if name in arguments]
    return [split_call(value) for value in values if isinstance(value, tuple)]


def nests_batches(pallet: str, function: str, arguments: dict[str, Any]) -> bool:
    """A batch directly inside a batch: the chain's base filter admits it for root only."""
    if pallet != "Utility" or function not in BATCHES:
        return False
    return any(inner[0] == "Utility" and inner[1] in BATCHES for inner in map(split_call, arguments["calls"]))
