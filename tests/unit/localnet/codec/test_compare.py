"""Two documents compared: by content, not by the numbers and names of types."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from localnet.codec import metadata
from localnet.codec.compare import Change, compare, compare_storage
from localnet.codec.document import Document


@pytest.fixture(scope="module")
def old() -> Document:
    return Document.load()


def changed(change: Callable[[metadata.Tree], None]) -> Document:
    tree = metadata.decode(Document.load().v15)
    change(tree)
    return Document(b"", b"", tree)


def pallet(tree: metadata.Tree, name: str = "SubtensorModule") -> Any:
    return next(one for one in tree["pallets"] if one["name"] == name)


def entry(tree: metadata.Tree, name: str) -> Any:
    return next(one for one in pallet(tree)["storage"]["entries"] if one["name"] == name)


def add_type(tree: metadata.Tree, definition: dict[str, Any], *path: str) -> int:
    number = len(tree["types"])
    tree["types"].append({"id": number, "path": list(path), "params": [], "def": definition, "docs": []})
    return number


def test_a_document_is_the_same_as_itself_and_with_other_profile_constants_only_these_differ(old: Document) -> None:
    assert compare(old, old).changes == ()
    slow = Document.load({("Aura", "SlotDuration"): 12_000})
    assert [(one.kind, one.name, one.what) for one in compare(old, slow).changes] == [
        ("constant", "Aura.SlotDuration", "changed")
    ]


def test_renumbered_and_renamed_types_are_no_change(old: Document) -> None:
    def change(tree: metadata.Tree) -> None:
        number = entry(tree, "Tempo")["value"]
        field = {"name": None, "type": number, "type_name": None, "docs": []}
        entry(tree, "Tempo")["value"] = add_type(tree, {"composite": [field]}, "fresh", "Blocks")

    assert compare(old, changed(change)).changes == ()


def test_a_new_field_deep_inside_is_found_and_said(old: Document) -> None:
    def change(tree: metadata.Tree) -> None:
        axon = tree["types"][entry(tree, "Axons")["value"]]
        fields = axon["def"]["composite"]
        fields.append({**fields[0], "name": "colour"})

    changes = compare_storage(old, changed(change), [("SubtensorModule", "Axons"), ("SubtensorModule", "Tempo")])
    assert [(one.name, one.what) for one in changes] == [("SubtensorModule.Axons", "changed")]
    assert "field colour added" in changes[0].detail


def test_a_tuple_of_tuples_is_not_written_out(old: Document) -> None:
    """A few lines of metadata describe more fields than there are atoms."""

    def change(tree: metadata.Tree) -> None:
        number = entry(tree, "Tempo")["value"]
        for _ in range(7):
            number = add_type(tree, {"tuple": [number] * 1_000})
        entry(tree, "Tempo").update(value=number, modifier="Optional")

    (found,) = compare(old, changed(change)).changes
    assert found.name == "SubtensorModule.Tempo" and len(str(found.after)) <= 170


def test_every_kind_of_item_is_compared(old: Document) -> None:
    def change(tree: metadata.Tree) -> None:
        module = pallet(tree)
        calls = tree["types"][module["calls"]]["def"]["variant"]
        calls[:] = [one for one in calls if one["name"] != "add_stake"]
        next(one for one in calls if one["name"] == "set_weights")["index"] = 250
        tree["types"][module["event"]]["def"]["variant"].pop()
        tree["types"][module["error"]]["def"]["variant"][0]["name"] = "Fresh"
        entry(tree, "Kappa").update(hashers=["Twox64Concat"])
        entry(tree, "Rho").update(default=b"\7\0")
        module["storage"]["entries"] = [one for one in module["storage"]["entries"] if one["name"] != "Tempo"]
        pallet(tree, "Sudo")["index"] = 99
        tree["apis"][0]["methods"].pop()
        tree["extrinsic"]["extensions"].pop()

    found = {(one.kind, one.name.rsplit(".")[-1], one.what) for one in compare(old, changed(change)).changes}
    assert {
        ("call", "add_stake", "removed"), ("call", "set_weights", "changed"), ("error", "Fresh", "added"),
        ("storage", "Kappa", "changed"), ("storage", "Rho", "changed"), ("storage", "Tempo", "removed"),
        ("pallet", "Sudo", "changed"), ("extension", "CheckMetadataHash", "removed"),
    } <= found  # fmt: skip
    assert sum(kind == "event" for kind, *_ in found) == 1 == sum(kind == "api" for kind, *_ in found)


def test_a_call_that_carries_calls_does_not_change_with_them(old: Document) -> None:
    def change(tree: metadata.Tree) -> None:
        tree["types"][pallet(tree)["calls"]]["def"]["variant"].pop()

    assert [one.kind for one in compare(old, changed(change)).changes] == ["call"]


def test_apis_are_not_compared_with_a_document_that_does_not_describe_them(old: Document) -> None:
    comparison = compare(Document.read(old.v14), old)
    assert not comparison.apis_known and comparison.changes == ()
    assert compare(old, old).apis_known


def test_what_somebody_uses_is_picked_out_and_all_of_it_is_json(old: Document) -> None:
    slow = Document.load({("Aura", "SlotDuration"): 12_000, ("Timestamp", "MinimumPeriod"): 6_000})
    comparison = compare(old, slow)
    touched = comparison.touching([("constant", "Aura.SlotDuration"), ("call", "System.remark")])
    assert [one.name for one in touched] == ["Aura.SlotDuration"]
    told = json.loads(json.dumps(comparison.json()))
    assert [Change(**one) for one in told["changes"]] == list(comparison.changes)
    assert str(touched[0]) == "changed constant Aura.SlotDuration: u64 = 250 -> u64 = 12000"
