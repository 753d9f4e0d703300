"""ProxyFilterRuntimeApi: the proxy types and which calls each of them allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localnet.runtime.apis.registry import api
from localnet.runtime.pallets.proxy_types import DEPRECATED, TYPES, Rule

if TYPE_CHECKING:
    from localnet.runtime.runtime import SpecRuntime


@api("ProxyFilterRuntimeApi_get_proxy_types")
def get_proxy_types(rt: SpecRuntime) -> list[dict[str, Any]]:
    return [
        {"name": kind.encode(), "index": index, "deprecated": kind in DEPRECATED} for index, kind in enumerate(TYPES)
    ]


@api("ProxyFilterRuntimeApi_get_proxy_filters")
def get_proxy_filters(rt: SpecRuntime, proxy_types: bytes | None) -> list[dict[str, Any]]:
    """`proxy_types`: indexes of the types asked for; None: all."""
    return [
        {"proxy_type": index, "name": kind.encode(), "deprecated": kind in DEPRECATED, "filter_mode": _mode(rt, kind)}
        for index, kind in enumerate(TYPES)
        if proxy_types is None or index in proxy_types
    ]


def _mode(rt: SpecRuntime, kind: str) -> Any:
    if kind == "Any":
        return "AllowAll"
    return ("Allow", [_call_info(rt, rule) for rule in rt.proxy.table[kind].values()])


def _call_info(rt: SpecRuntime, rule: Rule) -> dict[str, Any]:
    document = rt.document
    return {
        "pallet_name": rule.pallet.encode(),
        "pallet_index": document.pallet_index[rule.pallet],
        "call_name": rule.function.encode(),
        "call_index": document.call_index[rule.pallet, rule.function],
        "constraint": _constraint(rule),
    }


def _constraint(rule: Rule) -> Any:
    if rule.below is not None:
        return ("ParamLessThan", {"param_name": rule.below[0].encode(), "limit": rule.below[1]})
    if rule.around is not None:
        names = ("param_name", "pallet_name", "call_name")
        return ("NestedCallMustBe", {name: part.encode() for name, part in zip(names, rule.around, strict=True)})
    return None
