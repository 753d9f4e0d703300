"""A decoded RuntimeCall taken apart."""

from __future__ import annotations

from typing import Any


def split_call(value: Any) -> tuple[str, str, dict[str, Any]]:
    """`(pallet, (function, arguments))` or `(pallet, function)` as (pallet, function, arguments)."""
    pallet, call = value
    return (pallet, call, {}) if isinstance(call, str) else (pallet, call[0], call[1])


def inner_calls(arguments: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """The calls that a batch, a sudo or a proxy call carries in its arguments."""
    values = arguments.get("calls") or ([arguments["call"]] if "call" in arguments else [])
    return [split_call(value) for value in values if isinstance(value, tuple)]
