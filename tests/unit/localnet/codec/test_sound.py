"""Metadata that a runtime brings: what would make a reader of values hang or overflow is refused when it is read."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from localnet.codec import metadata
from localnet.codec.document import Document
from localnet.errors import MetadataError


@pytest.fixture(scope="module")
def tree() -> metadata.Tree:
    """A small document: the types of the shipped one are cut to those that nothing refers to."""
    small = copy.deepcopy({**metadata.decode(Document.load().v14), "types": [], "pallets": []})
    small["extrinsic"] = {"type": 0, "version": 4, "extensions": []}
    small["runtime_type"] = 0
    return small


def named(index: int, definition: dict[str, Any], *path: str, params: Any = ()) -> dict[str, Any]:
    return {"id": index, "path": list(path), "params": list(params), "def": definition, "docs": []}


def field(type_id: int, name: str | None = None) -> dict[str, Any]:
    return {"name": name, "type": type_id, "type_name": None, "docs": []}


U8, NOTHING = {"primitive": "u8"}, {"tuple": []}


def chain_of(length: int) -> list[dict[str, Any]]:
    return [U8, *({"tuple": [inner, inner]} for inner in range(length))]


HOSTILE: dict[str, tuple[list[dict[str, Any]], str]] = {
    "a struct in itself": ([{"composite": [field(0)]}], "contains itself"),
    "two structs in each other": ([{"tuple": [1]}, {"tuple": [0]}], "contains itself"),
    "an array of an array of nothing": (
        [NOTHING, *({"array": {"len": 60, "type": inner}} for inner in range(3))], "take no bytes",
    ),
    "a tree of pairs of nothing": ([NOTHING, *({"tuple": [i, i]} for i in range(40))], "take no bytes"),
    "a list of nothing": ([NOTHING, {"sequence": {"type": 0}}], "take no bytes"),
    "too deep": (chain_of(150), "nested deeper"),
    "a type that is not there": ([{"sequence": {"type": 9}}], "does not exist"),
    "a compact text": ([{"primitive": "str"}, {"compact": 0}], "no number"),
    "a compact of itself": ([{"composite": [field(0)]}, {"compact": 0}], "no number"),
    "two fields of one name": ([U8, {"composite": [field(0, "a"), field(0, "a")]}], "two of one name"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_types_are_refused(tree: metadata.Tree, what: str) -> None:
    definitions, said = HOSTILE[what]
    types = [named(index, definition) for index, definition in enumerate(definitions)]
    with pytest.raises(MetadataError, match=said):
        Document.read(metadata.encode({**tree, "types": types}))


def test_an_option_that_is_none_is_refused(tree: metadata.Tree) -> None:
    types = [named(0, U8), named(1, {"composite": [field(0)]}, "Option")]
    with pytest.raises(MetadataError, match="called Option"):
        Document.read(metadata.encode({**tree, "types": types}))


def test_a_long_but_shallow_document_is_read_fast_and_too_large_a_one_is_not(tree: metadata.Tree) -> None:
    call = named(0, U8)
    holder = named(1, U8, "UncheckedExtrinsic", params=[["Call", 0], ["Address", 0], ["Signature", 0]])
    document = Document.read(metadata.encode({**tree, "types": [call, holder], "extrinsic": {
        "type": 1, "version": 4, "extensions": []}}))  # fmt: skip
    assert document.call_type == 0 and not document.describes_apis
    with pytest.raises(MetadataError, match="more than"):
        Document.read(b"meta\x0e" + bytes(5 << 20))


def broken(change: Callable[[metadata.Tree], None]) -> bytes:
    tree = metadata.decode(Document.load().v14)
    change(tree)
    return metadata.encode(tree)


def _calls_are_a_number(tree: metadata.Tree) -> None:
    tree["pallets"][0]["calls"] = next(entry["id"] for entry in tree["types"] if entry["def"] == U8)


def _events_are_a_number(tree: metadata.Tree) -> None:
    tree["pallets"][0]["event"] = next(entry["id"] for entry in tree["types"] if entry["def"] == U8)


def _a_constant_is_no_character(tree: metadata.Tree) -> None:
    constant = next(pallet for pallet in tree["pallets"] if pallet["constants"])["constants"][0]
    number = len(tree["types"])
    tree["types"].append({"id": number, "path": [], "params": [], "def": {"primitive": "char"}, "docs": []})
    constant["type"], constant["value"] = number, b"\xff\xff\xff\xff"


def _a_constant_is_cut(tree: metadata.Tree) -> None:
    next(pallet for pallet in tree["pallets"] if pallet["constants"])["constants"][0]["value"] = b""


def _keys_do_not_fit(tree: metadata.Tree) -> None:
    entries = next(pallet["storage"]["entries"] for pallet in tree["pallets"] if pallet["storage"])
    next(entry for entry in entries if entry["hashers"])["hashers"] = []


@pytest.mark.parametrize(
    "change",
    [_calls_are_a_number, _events_are_a_number, _a_constant_is_cut, _a_constant_is_no_character, _keys_do_not_fit],
)
def test_a_document_at_odds_with_itself_is_refused(change: Callable[[metadata.Tree], None]) -> None:
    with pytest.raises(MetadataError):
        Document.read(broken(change))
