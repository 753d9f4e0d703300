"""Runtime metadata, versions 14 and 15: bytes to a plain tree and back.

The tree is dicts, lists and numbers, close to how the document is laid out, so that a script can strip or add to it and
write it again. `decode(encode(tree)) == tree` and `encode(decode(data)) == data`.

    tree["types"][i]            {"path", "params", "def": {kind: body}, "docs"}; i is the type id
    tree["pallets"][i]          {"name", "storage", "calls", "event", "constants", "error", "index", "docs"}
    tree["apis"]                version 15 only: runtime APIs with their inputs and outputs

`Reader` refuses to run past the end; a damaged document raises MetadataError. What a document means is not looked at
here: whoever did not write it himself lets `localnet.codec.sound` do that first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from localnet.codec.scale import compact, opaque, read_compact
from localnet.errors import MetadataError, ScaleError

T = TypeVar("T")
Tree = dict[str, Any]

MAGIC = b"meta"
MAX_SIZE = 4 * 1024 * 1024  # bytes of a document: 10 times what spec 461 has with all its documentation
PRIMITIVES = [
    "bool", "char", "str", "u8", "u16", "u32", "u64", "u128", "u256", "i8", "i16", "i32", "i64", "i128", "i256",
]  # fmt: skip
HASHERS = ["Blake2_128", "Blake2_256", "Blake2_128Concat", "Twox128", "Twox256", "Twox64Concat", "Identity"]
MODIFIERS = ["Optional", "Default", "Required"]


class Reader:
    """A cursor over the document."""

    def __init__(self, data: bytes) -> None:
        self.data, self.offset = data, 0

    def take(self, n: int) -> bytes:
        end = self.offset + n
        if end > len(self.data):
            raise MetadataError("metadata ends too early")
        piece = self.data[self.offset : end]
        self.offset = end
        return piece

    def u8(self) -> int:
        return self.take(1)[0]

    def flag(self) -> bool:
        value = self.u8()
        if value > 1:
            raise MetadataError(f"metadata is damaged near byte {self.offset}: {value} is neither 0 nor 1")
        return value == 1

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def compact(self) -> int:
        data, offset = self.data, self.offset
        if offset < len(data) and data[offset] & 3 == 0:  # nearly all of them
            self.offset = offset + 1
            return data[offset] >> 2
        value, self.offset = read_compact(data, offset)
        return value

    def bytes(self) -> bytes:
        return self.take(self.compact())

    def str(self) -> str:
        return self.take(self.compact()).decode()

    def list(self, item: Callable[[], T]) -> list[T]:
        return [item() for _ in range(self.compact())]

    def option(self, item: Callable[[], T]) -> T | None:
        return item() if self.flag() else None

    def strings(self) -> list[str]:  # type: ignore[valid-type]
        return [self.str() for _ in range(self.compact())]


def decode(data: bytes) -> Tree:
    """Parse a metadata document (without the outer Option and length of the runtime API)."""
    if len(data) > MAX_SIZE:
        raise MetadataError(f"the metadata has {len(data)} bytes, more than {MAX_SIZE}")
    reader = Reader(data)
    try:
        if reader.take(4) != MAGIC:
            raise MetadataError("this is not runtime metadata: it does not start with 'meta'")
        version = reader.u8()
        if version not in (14, 15):
            raise MetadataError(f"metadata version {version} is not supported, only 14 and 15")
        tree = _read_body(reader, version)
    except (ScaleError, UnicodeDecodeError, IndexError) as error:
        raise MetadataError(f"metadata is damaged near byte {reader.offset}: {error}") from error
    if reader.offset != len(data):
        raise MetadataError(f"{len(data) - reader.offset} bytes left over after the metadata")
    return tree


def _read_body(r: Reader, version: int) -> Tree:
    tree: Tree = {"version": version, "types": r.list(lambda: _read_type(r))}
    tree["pallets"] = r.list(lambda: _read_pallet(r, version))
    if version == 14:
        tree["extrinsic"] = {"type": r.compact(), "version": r.u8()}
    else:
        tree["extrinsic"] = {"version": r.u8()}
        for part in ("address", "call", "signature", "extra"):
            tree["extrinsic"][part] = r.compact()
    tree["extrinsic"]["extensions"] = r.list(lambda: {"id": r.str(), "type": r.compact(), "additional": r.compact()})
    tree["runtime_type"] = r.compact()
    if version == 15:
        tree["apis"] = r.list(
            lambda: {"name": r.str(), "methods": r.list(lambda: _read_method(r)), "docs": r.strings()}
        )
        tree["outer"] = [r.compact(), r.compact(), r.compact()]
        tree["custom"] = r.list(lambda: {"name": r.str(), "type": r.compact(), "value": r.bytes()})
    return tree


def _read_field(r: Reader) -> Tree:
    return {"name": r.option(r.str), "type": r.compact(), "type_name": r.option(r.str), "docs": r.strings()}


def _read_type(r: Reader) -> Tree:
    type_id, path = r.compact(), r.strings()
    params = r.list(lambda: [r.str(), r.option(r.compact)])
    return {"id": type_id, "path": path, "params": params, "def": _read_definition(r), "docs": r.strings()}


def _read_definition(r: Reader) -> Tree:
    kind = r.u8()
    if kind == 0:
        return {"composite": r.list(lambda: _read_field(r))}
    if kind == 1:
        return {"variant": r.list(lambda: _read_variant(r))}
    if kind == 2:
        return {"sequence": {"type": r.compact()}}
    if kind == 3:
        return {"array": {"len": r.u32(), "type": r.compact()}}
    if kind == 4:
        return {"tuple": r.list(r.compact)}
    if kind == 5:
        return {"primitive": PRIMITIVES[r.u8()]}
    if kind == 6:
        return {"compact": r.compact()}
    if kind == 7:
        return {"bitsequence": [r.compact(), r.compact()]}
    raise MetadataError(f"unknown kind of type: {kind}")


def _read_variant(r: Reader) -> Tree:
    return {"name": r.str(), "fields": r.list(lambda: _read_field(r)), "index": r.u8(), "docs": r.strings()}


def _read_pallet(r: Reader, version: int) -> Tree:
    pallet: Tree = {"name": r.str()}
    pallet["storage"] = r.option(lambda: {"prefix": r.str(), "entries": r.list(lambda: _read_entry(r))})
    pallet["calls"], pallet["event"] = r.option(r.compact), r.option(r.compact)
    pallet["constants"] = r.list(
        lambda: {"name": r.str(), "type": r.compact(), "value": r.bytes(), "docs": r.strings()}
    )
    pallet["error"], pallet["index"] = r.option(r.compact), r.u8()
    pallet["docs"] = r.strings() if version == 15 else []
    return pallet


def _read_entry(r: Reader) -> Tree:
    entry: Tree = {"name": r.str(), "modifier": MODIFIERS[r.u8()]}
    if not r.flag():
        entry.update(hashers=[], key=None, value=r.compact())
    else:
        entry.update(hashers=r.list(lambda: HASHERS[r.u8()]), key=r.compact(), value=r.compact())
    entry.update(default=r.bytes(), docs=r.strings())
    return entry


def _read_method(r: Reader) -> Tree:
    name, inputs = r.str(), r.list(lambda: {"name": r.str(), "type": r.compact()})
    return {"name": name, "inputs": inputs, "output": r.compact(), "docs": r.strings()}


# -- writing --------------------------------------------------------------------------------------------------------


def _text(value: str) -> bytes:
    return opaque(value.encode())


def _each(items: list[Any], write: Callable[[Any], bytes]) -> bytes:
    return compact(len(items)) + b"".join([write(item) for item in items])


def _maybe(value: Any, write: Callable[[Any], bytes]) -> bytes:
    return b"\0" if value is None else b"\1" + write(value)


def _docs(item: Tree) -> bytes:
    return _each(item["docs"], _text)


def encode(tree: Tree) -> bytes:
    """Write a tree from `decode` back to bytes."""
    version, extrinsic = tree["version"], tree["extrinsic"]
    out = MAGIC + bytes((version,)) + _each(tree["types"], _write_type)
    out += _each(tree["pallets"], lambda pallet: _write_pallet(pallet, version))
    if version == 14:
        out += compact(extrinsic["type"]) + bytes((extrinsic["version"],))
    else:
        out += bytes((extrinsic["version"],))
        out += b"".join(compact(extrinsic[part]) for part in ("address", "call", "signature", "extra"))
    out += _each(
        extrinsic["extensions"], lambda x: _text(x["id"]) + compact(x["type"]) + compact(x["additional"])
    ) + compact(tree["runtime_type"])
    if version == 15:
        out += _each(tree["apis"], lambda api: _text(api["name"]) + _each(api["methods"], _write_method) + _docs(api))
        out += b"".join(map(compact, tree["outer"]))
        out += _each(tree["custom"], lambda c: _text(c["name"]) + compact(c["type"]) + opaque(c["value"]))
    return out


def _write_field(field: Tree) -> bytes:
    return _maybe(field["name"], _text) + compact(field["type"]) + _maybe(field["type_name"], _text) + _docs(field)


def _write_variant(variant: Tree) -> bytes:
    return _text(variant["name"]) + _each(variant["fields"], _write_field) + bytes((variant["index"],)) + _docs(variant)


def _write_type(entry: Tree) -> bytes:
    params = _each(entry["params"], lambda p: _text(p[0]) + _maybe(p[1], compact))
    definition = _write_definition(*next(iter(entry["def"].items())))
    return compact(entry["id"]) + _each(entry["path"], _text) + params + definition + _docs(entry)


def _write_definition(kind: str, body: Any) -> bytes:
    writers: dict[str, Callable[[], bytes]] = {
        "composite": lambda: b"\0" + _each(body, _write_field),
        "variant": lambda: b"\1" + _each(body, _write_variant),
        "sequence": lambda: b"\2" + compact(body["type"]),
        "array": lambda: b"\3" + body["len"].to_bytes(4, "little") + compact(body["type"]),
        "tuple": lambda: b"\4" + _each(body, compact),
        "primitive": lambda: b"\5" + bytes((PRIMITIVES.index(body),)),
        "compact": lambda: b"\6" + compact(body),
        "bitsequence": lambda: b"\7" + compact(body[0]) + compact(body[1]),
    }
    return writers[kind]()


def _write_pallet(pallet: Tree, version: int) -> bytes:
    out = _text(pallet["name"])
    out += _maybe(pallet["storage"], lambda s: _text(s["prefix"]) + _each(s["entries"], _write_entry))
    out += _maybe(pallet["calls"], compact) + _maybe(pallet["event"], compact)
    out += _each(pallet["constants"], lambda c: _text(c["name"]) + compact(c["type"]) + opaque(c["value"]) + _docs(c))
    out += _maybe(pallet["error"], compact) + bytes((pallet["index"],))
    return out + (_docs(pallet) if version == 15 else b"")


def _write_entry(entry: Tree) -> bytes:
    out = _text(entry["name"]) + bytes((MODIFIERS.index(entry["modifier"]),))
    if entry["key"] is None:
        out += b"\0" + compact(entry["value"])
    else:
        hashers = _each(entry["hashers"], lambda h: bytes((HASHERS.index(h),)))
        out += b"\1" + hashers + compact(entry["key"]) + compact(entry["value"])
    return out + opaque(entry["default"]) + _docs(entry)


def _write_method(method: Tree) -> bytes:
    inputs = _each(method["inputs"], lambda i: _text(i["name"]) + compact(i["type"]))
    return _text(method["name"]) + inputs + compact(method["output"]) + _docs(method)


def strip_docs(node: Any) -> Any:
    """The same tree without any documentation strings."""
    if isinstance(node, dict):
        return {key: [] if key == "docs" else strip_docs(value) for key, value in node.items()}
    if isinstance(node, list):
        return [strip_docs(item) for item in node]
    return node
