"""The list of what is here and what is not: computed, complete, and true for each absent thing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from localnet import SyncLocalnet
from localnet.cli import app
from localnet.codec.document import Document
from localnet.errors import PoolRejected, RuntimeApiMissing
from localnet.features import GAP, REASONS, Part, as_json, as_text, features
from localnet.node.connection import Connection

UNSPEAKABLE = {
    "Grandpa.report_equivocation",
    "Grandpa.report_equivocation_unsigned",
}  # an argument has no values at all
ABSENT_FAMILY_EXAMPLES = {"eth": "chainId", "chainHead": "v1_follow", "grandpa": "roundState", "archive": "v1_call"}


@pytest.fixture(scope="module")
def parts() -> list[Part]:
    return features()


@pytest.fixture(scope="module")
def net() -> Iterator[SyncLocalnet]:
    with SyncLocalnet(mining="manual") as chain:
        yield chain


def absent(parts: list[Part], kind: str, separator: str) -> list[str]:
    return [f"{part.name}{separator}{name}" for part in parts if part.kind == kind for name in part.absent]


def smallest(document: Document, type_id: int) -> Any:
    """A value of the type: zero, nobody, nothing, the first of several, a list without items. Raises IndexError for
    a type without values."""
    if document.registry.is_option(type_id):
        return None
    ((kind, body),) = document.tree["types"][type_id]["def"].items()
    if kind == "primitive":
        return {"bool": False, "str": "", "char": "\0"}.get(body, 0)
    if kind in ("compact", "sequence"):
        return 0 if kind == "compact" else []
    if kind == "array":
        return [smallest(document, body["type"])] * body["len"]
    if kind == "tuple":
        return tuple(smallest(document, inner) for inner in body)
    if kind == "composite":
        return fields(document, body)
    return (body[0]["name"], fields(document, body[0]["fields"])) if body[0]["fields"] else body[0]["name"]


def fields(document: Document, entries: list[dict[str, Any]]) -> Any:
    values = [smallest(document, entry["type"]) for entry in entries]
    if entries and entries[0]["name"] is not None:
        return dict(zip((entry["name"] for entry in entries), values, strict=True))
    return values[0] if len(values) == 1 else tuple(values)


def smallest_call(document: Document, pallet: str, function: str) -> bytes:
    calls = next(p["calls"] for p in document.tree["pallets"] if p["name"] == pallet)
    variant = next(v for v in document.tree["types"][calls]["def"]["variant"] if v["name"] == function)
    arguments = fields(document, variant["fields"])
    value = (pallet, (function, arguments) if variant["fields"] else function)
    return document.registry.encode(document.call_type, value)


def test_every_absent_call_is_refused_by_name(parts: list[Part], net: SyncLocalnet) -> None:
    names = absent(parts, "calls", ".")
    assert len(names) > 30
    for full in set(names) - UNSPEAKABLE:
        pallet, _, function = full.partition(".")
        call = smallest_call(net.net.client.document, pallet, function)
        signed = net.net.client.sign("//Alice", call, 0, 0)
        with pytest.raises(PoolRejected) as caught:
            net.net.chain.submit(signed)
        assert f"{full} is not implemented" in str(caught.value.data)


def test_every_present_call_and_api_is_answered_by_the_runtime(parts: list[Part], net: SyncLocalnet) -> None:
    registered = {f"{pallet}.{name}" for pallet, name in net.net.runtime.calls}  # type: ignore[attr-defined]
    present = {f"{part.name}.{name}" for part in parts if part.kind == "calls" for name in part.present}
    assert present == registered


def test_every_absent_runtime_api_is_refused_by_name(parts: list[Part], net: SyncLocalnet) -> None:
    names = absent(parts, "runtime APIs", "_")
    assert "EthereumRuntimeRPCApi_chain_id" in names
    for full in names:
        with pytest.raises(RuntimeApiMissing, match=full):
            net.net.chain.call(full, b"")


def test_every_absent_method_is_not_found(parts: list[Part], net: SyncLocalnet) -> None:
    here = set(net.net.rpc.methods)
    connection = Connection(local=True, subscribes=False)
    for part in parts:
        if part.kind != "methods":
            continue
        assert {f"{part.name}_{name}" for name in part.present} <= here
        for name in part.absent:
            method = ABSENT_FAMILY_EXAMPLES.get(part.name, "anything") if name == "*" else name
            answer = net.net.rpc.handle(connection, {"id": 1, "method": f"{part.name}_{method}"})
            assert isinstance(answer, bytes) and json.loads(answer)["error"]["code"] == -32601


def test_whatever_is_absent_has_a_reason_and_no_reason_is_left_over(parts: list[Part]) -> None:
    separators = {"calls": ".", "runtime APIs": "_", "methods": "_"}
    gaps, used = [], set()
    for part in parts:
        for name, why in part.absent.items():
            full = part.name + separators[part.kind] + name
            used.add(full if full in REASONS else part.name)
            if why == GAP:
                gaps.append(full)
    assert not gaps, "absent without a reason: implement it, or say why not in localnet.features.REASONS"
    assert not set(REASONS) - used, "these are here now: take their reasons out of localnet.features.REASONS"


def test_the_command_prints_it(parts: list[Part]) -> None:
    runner = CliRunner()
    printed = json.loads(runner.invoke(app, ["--features", "--json"]).stdout)
    assert printed == as_json(parts)
    assert printed["calls"]["EVM"]["present"] == [] and "withdraw" in printed["calls"]["EVM"]["absent"]
    text = runner.invoke(app, ["--features"]).stdout
    assert text.splitlines() == "\n".join(as_text(parts)).splitlines()
