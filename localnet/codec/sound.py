"""What metadata that came from somewhere else must be before values are read by it.

A runtime brings its own metadata, and a hostile one could describe types that no reader survives: of infinite size,
nested a thousand levels deep, or made of a billion parts that take no bytes. `check(tree)` goes through every type
once and raises MetadataError, with the type, at the first of these. What passes can be given to `Registry`: decoding
takes time in proportion to the bytes, and recursion ends where the value does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from localnet.codec.metadata import Tree
from localnet.errors import MetadataError

MAX_TYPES = 20_000  # spec 461 has 610
MAX_HEIGHT = 100  # types inside types, recursion left out; spec 461 has fewer than 30
MAX_PARTS = 1024  # of a value that takes no bytes
COMPACT = ("u8", "u16", "u32", "u64", "u128", "u256")


def check(tree: Tree) -> None:
    """Raises MetadataError."""
    types = tree["types"]
    if len(types) > MAX_TYPES:
        raise MetadataError(f"the metadata has {len(types)} types, more than {MAX_TYPES}")
    for index, entry in enumerate(types):
        _check_entry(types, index, entry)
    outside = next((one for one in _used(tree) if one >= len(types)), None)
    if outside is not None:
        raise MetadataError(f"the metadata speaks of type {outside}, which does not exist")
    for pallet in tree["pallets"]:
        for part in ("calls", "event", "error"):
            if pallet[part] is not None and "variant" not in types[pallet[part]]["def"]:
                raise MetadataError(f"pallet {pallet['name']}: its {part} is type {pallet[part]}, which is no enum")
    heights, nothing = _Heights(types), _Nothing(types)
    for index, entry in enumerate(types):
        heights.of(index)
        nothing.of(index)
        if "sequence" in entry["def"] and nothing.of(entry["def"]["sequence"]["type"]):
            raise MetadataError(f"type {index} of the metadata is a list of items that take no bytes")


def inner(entry: Tree) -> list[int]:
    """Ids of the types that a type is made of."""
    kind, body = next(iter(entry["def"].items()))
    if kind == "composite":
        return [int(field["type"]) for field in body]
    if kind == "variant":
        return [int(field["type"]) for variant in body for field in variant["fields"]]
    if kind in ("sequence", "array"):
        return [int(body["type"])]
    if kind == "compact":
        return [int(body)]
    return [int(one) for one in body] if kind in ("tuple", "bitsequence") else []


def _used(tree: Tree) -> Iterator[int]:
    """Ids of the types that pallets, extrinsics and runtime APIs are described with."""
    for pallet in tree["pallets"]:
        yield from (pallet[part] for part in ("calls", "event", "error") if pallet[part] is not None)
        yield from (constant["type"] for constant in pallet["constants"])
        for entry in (pallet["storage"] or {"entries": []})["entries"]:
            yield from (entry[part] for part in ("key", "value") if entry[part] is not None)
    extrinsic = tree["extrinsic"]
    yield from (extrinsic[part] for part in ("type", "address", "call", "signature", "extra") if part in extrinsic)
    yield from (extension[part] for extension in extrinsic["extensions"] for part in ("type", "additional"))
    for api in tree.get("apis", ()):
        for method in api["methods"]:
            yield from (argument["type"] for argument in method["inputs"])
            yield method["output"]


def _check_entry(types: list[Tree], index: int, entry: Tree) -> None:
    if entry["id"] != index:
        raise MetadataError(f"the metadata's type {index} says that it is type {entry['id']}")
    outside = next((one for one in inner(entry) if one >= len(types)), None)
    if outside is not None:
        raise MetadataError(f"type {index} of the metadata is made of type {outside}, which does not exist")
    kind, body = next(iter(entry["def"].items()))
    if kind == "compact" and not _is_compact(types, body):
        raise MetadataError(f"type {index} of the metadata is a Compact of something that is no number")
    if kind in ("composite", "variant"):
        _check_names(index, [body] if kind == "composite" else [variant["fields"] for variant in body])
    if entry["path"] == ["Option"]:
        shape = [(v["index"], len(v["fields"])) for v in body] if kind == "variant" else []
        if shape != [(0, 0), (1, 1)]:
            raise MetadataError(f"type {index} of the metadata is called Option, and is none")


def _check_names(index: int, groups: Iterable[list[Tree]]) -> None:
    for fields in groups:
        names = {field["name"] for field in fields}
        if fields and names != {None} and (None in names or len(names) < len(fields)):
            raise MetadataError(f"type {index} of the metadata has fields with and without names, or two of one name")


def _is_compact(types: list[Tree], inside: int) -> bool:
    for _ in range(MAX_HEIGHT):
        kind, body = next(iter(types[inside]["def"].items()))
        if kind == "primitive":
            return body in COMPACT
        if kind not in ("composite", "tuple"):
            return False
        if not body:
            return True  # Compact<()>
        if kind == "tuple" or len(body) > 1 or body[0]["type"] >= len(types):
            return False
        inside = body[0]["type"]
    return False


class _Heights:
    """How many types a type has inside each other, a recursion counted once."""

    def __init__(self, types: list[Tree]) -> None:
        self._types = types
        self._known: dict[int, int] = {}
        self._open: set[int] = set()

    def of(self, index: int) -> int:
        known = self._known.get(index)
        if known is not None or index in self._open:
            return known or 0
        self._open.add(index)
        if len(self._open) > MAX_HEIGHT:
            raise MetadataError(f"type {index} of the metadata is nested deeper than {MAX_HEIGHT} levels")
        height = 1 + max((self.of(one) for one in inner(self._types[index])), default=0)
        self._open.discard(index)
        if height > MAX_HEIGHT:
            raise MetadataError(f"type {index} of the metadata is nested deeper than {MAX_HEIGHT} levels")
        self._known[index] = height
        return height


class _Nothing:
    """Values that may take no bytes: how many parts they have. 0 for a type whose every value takes a byte or more."""

    def __init__(self, types: list[Tree]) -> None:
        self._types = types
        self._known: dict[int, int] = {}
        self._open: set[int] = set()

    def of(self, index: int) -> int:
        if index in self._known:
            return self._known[index]
        if index in self._open:
            raise MetadataError(f"type {index} of the metadata contains itself: its values have no end")
        self._open.add(index)
        parts = self._parts(*next(iter(self._types[index]["def"].items())))
        self._open.discard(index)
        if parts > MAX_PARTS:
            raise MetadataError(f"type {index} of the metadata has {parts} parts that take no bytes")
        self._known[index] = parts
        return parts

    def _parts(self, kind: str, body: Any) -> int:
        if kind in ("composite", "tuple"):
            parts = [self.of(field["type"] if kind == "composite" else field) for field in body]
            return 0 if 0 in parts else 1 + sum(parts)
        if kind == "array":
            return body["len"] * self.of(body["type"]) if body["len"] else 1
        if kind == "compact":
            return self.of(body)
        return 0  # a number, a length or a variant's index is there in any case
