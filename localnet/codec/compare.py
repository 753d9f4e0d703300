"""What changed between two runtimes, by their metadata: pallets, calls, storage, constants, errors, events, runtime
APIs and transaction extensions, added, removed or changed.

    compare(old, new)                  everything
    compare_storage(old, new, items)   these storage items only

Types are compared by what their values are made of, not by their numbers or names: `u16` and a `NetUid` that holds
nothing but a u16 are the same, a struct with a new field is not. So an item that is not listed has the same bytes for
the same value in both. The enums of all calls, events and errors are taken as one thing wherever a value holds one
(`RuntimeCall` in a proxy's argument): what became of them is listed by their variants, once.

`Change.before` and `after` show the item as one would write it down, `detail` says what differs where names do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from localnet.codec.document import ApiMethod, Document, StorageEntry

Kind = Literal["pallet", "call", "storage", "constant", "error", "event", "api", "extension", "extrinsic"]
What = Literal["added", "removed", "changed"]

OPAQUE = ("RuntimeCall", "RuntimeEvent", "RuntimeError", "OriginCaller", "Call", "Event", "Error")
NEW_DEFAULT = "another default"  # detail of storage whose keys and values are what they were
MAX_TEXT = 160  # characters of a type or value that is shown


@dataclass(frozen=True)
class Change:
    """One item. `name`: "Pallet", "Pallet.item", "Api_method", or an extension's name; `before` is None for what was
    added, `after` for what was removed."""

    kind: Kind
    name: str
    what: What
    before: str | None
    after: str | None
    detail: str = ""

    def __str__(self) -> str:
        shown = {"added": self.after, "removed": self.before}.get(self.what, f"{self.before} -> {self.after}")
        return f"{self.what} {self.kind} {self.name}: {shown}{f' ({self.detail})' if self.detail else ''}"


@dataclass(frozen=True)
class Comparison:
    """All changes, by kind and name. `apis_known` is False when one of the documents does not describe runtime APIs:
    then none of them is compared, and no change among `changes` says anything about them."""

    changes: tuple[Change, ...]
    apis_known: bool

    def of(self, kind: Kind) -> list[Change]:
        return [change for change in self.changes if change.kind == kind]

    def touching(self, used: Iterable[tuple[Kind, str]]) -> list[Change]:
        """The changes of items that somebody uses, given as (kind, name)."""
        wanted = set(used)
        return [change for change in self.changes if (change.kind, change.name) in wanted]

    def json(self) -> dict[str, Any]:
        return {"apis_known": self.apis_known, "changes": [asdict(change) for change in self.changes]}


def compare(old: Document, new: Document) -> Comparison:
    """Everything that differs."""
    types = Types(old, new)
    apis_known = old.describes_apis and new.describes_apis
    kinds: list[tuple[Kind, Callable[[Document], Mapping[str, Item]]]] = [
        ("extrinsic", _extrinsic), ("extension", _extensions), ("pallet", _pallets), ("call", _variants("calls")),
        ("storage", _storage), ("constant", _constants), ("event", _variants("event")), ("error", _variants("error")),
    ]  # fmt: skip
    if apis_known:
        kinds.append(("api", _apis))
    changes = [change for kind, items in kinds for change in _changes(kind, items(old), items(new), types)]
    return Comparison(tuple(changes), apis_known)


def compare_storage(old: Document, new: Document, items: Iterable[tuple[str, str]]) -> list[Change]:
    """What differs among these storage items. One that both lack is no difference."""
    names = {f"{pallet}.{item}" for pallet, item in items}
    before, after = ({n: one for n, one in _storage(of).items() if n in names} for of in (old, new))
    return list(_changes("storage", before, after, Types(old, new)))


# -- types ----------------------------------------------------------------------------------------------------------


class Types:
    """The types of two documents in classes of the same content: `same(a, b)` for a type of each.

    Every type starts in the class of its own outermost layer, and classes are divided by the classes of the parts until
    that changes nothing. It ends for types that contain themselves, too.
    """

    def __init__(self, old: Document, new: Document) -> None:
        self.old, self.new = old, new
        layers = [(_layer(document, index)) for document in (old, new) for index in range(len(document.tree["types"]))]
        offset = len(old.tree["types"])
        parts = [[one + (offset if at >= offset else 0) for one in inside] for at, (_, inside) in enumerate(layers)]
        classes = _numbered([own for own, _ in layers])
        while True:
            finer = _numbered(
                [(own, *(classes[one] for one in inside)) for own, inside in zip(classes, parts, strict=True)]
            )
            if max(finer, default=0) == max(classes, default=0):
                break
            classes = finer
        self._old, self._new = classes[:offset], classes[offset:]

    def same(self, a: int, b: int) -> bool:
        """`a` of the old document, `b` of the new one."""
        return self._old[a] == self._new[b]

    def detail(self, a: int, b: int, depth: int = 0) -> str:
        """Where two types first differ."""
        before, after = _solid(self.old, a), _solid(self.new, b)
        own, theirs = _layer(self.old, before), _layer(self.new, after)
        if own[0] != theirs[0] or depth > 16:
            return _layer_detail(show_type(self.old, before), show_type(self.new, after), own[0], theirs[0])
        for one, other in zip(own[1], theirs[1], strict=True):
            if not self.same(one, other):
                return self.detail(one, other, depth + 1)
        return ""


def _numbered(labels: list[Any]) -> list[int]:
    numbers: dict[Any, int] = {}
    return [numbers.setdefault(label, len(numbers)) for label in labels]


def _solid(document: Document, index: int) -> int:
    """The type behind those that only hold it: a value of theirs is the inner value."""
    types = document.tree["types"]
    for _ in range(len(types)):
        body = types[index]["def"].get("composite")
        if body is None or len(body) != 1 or body[0]["name"] is not None:
            return index
        index = int(body[0]["type"])
    return index


def _layer(document: Document, index: int) -> tuple[tuple[Any, ...], list[int]]:
    """A type without its parts, and the parts."""
    entry = document.tree["types"][_solid(document, index)]
    kind, body = next(iter(entry["def"].items()))
    last = entry["path"][-1] if entry["path"] else ""
    if kind == "variant" and last in OPAQUE:
        return (kind, last), []
    if kind == "composite":
        return (kind, tuple(field["name"] for field in body)), [field["type"] for field in body]
    if kind == "variant":
        variants = [(v["name"], v["index"], tuple(field["name"] for field in v["fields"])) for v in body]
        inside = [field["type"] for variant in body for field in variant["fields"]]
        return (kind, last == "Option", *variants), inside
    if kind == "array":
        return (kind, body["len"]), [body["type"]]
    if kind == "sequence":
        return (kind,), [body["type"]]
    if kind == "primitive":
        return (kind, body), []
    inside = [body] if kind == "compact" else list(body)
    return (kind, len(inside)), inside


def _layer_detail(before: str, after: str, own: tuple[Any, ...], theirs: tuple[Any, ...]) -> str:
    if own[0] == theirs[0] == "composite":
        return f"{after}: {_listed(own[1], theirs[1], 'field')}"
    if own[0] == theirs[0] == "variant" and len(own) > 2 and len(theirs) > 2:
        return f"{after}: {_listed([v[0] for v in own[2:]], [v[0] for v in theirs[2:]], 'variant')}"
    return f"{before} became {after}"


def _listed(before: Iterable[Any], after: Iterable[Any], what: str) -> str:
    old, new = list(before), list(after)
    stays = {*old} & {*new}
    gone, come = ([one for one in names if one not in stays] for names in (old, new))
    said = [
        f"{what} {', '.join(map(str, names))} {verb}" for names, verb in ((gone, "removed"), (come, "added")) if names
    ]
    return "; ".join(said) or f"the {what}s stand in another order or have other contents"


def show_type(document: Document, index: int, depth: int = 0) -> str:
    """A type as one would write it down: a name where it has one."""
    entry = document.tree["types"][index]
    kind, body = next(iter(entry["def"].items()))
    if depth > 6:
        return ".."

    def inner(one: int) -> str:
        return show_type(document, one, depth + 1)

    if entry["path"]:
        given = [one for _, one in entry["params"] if one is not None] if entry["path"][-1] in HOLDERS else []
        name = entry["path"][-1]
        return _cut(f"{name}<{_joined(map(inner, given))}>" if given else name)
    if kind in ("sequence", "array"):
        return _cut(f"Vec<{inner(body['type'])}>" if kind == "sequence" else f"[{inner(body['type'])}; {body['len']}]")
    if kind == "tuple":
        return _cut(f"({_joined(map(inner, body))})")
    return _cut(f"Compact<{inner(body)}>") if kind == "compact" else str(body) if kind == "primitive" else kind


HOLDERS = ("Option", "Result", "BoundedVec", "WeakBoundedVec", "BTreeMap", "BTreeSet", "BoundedBTreeMap")


def _joined(parts: Iterable[str]) -> str:
    """As many as are shown. The others are not even made: in a tuple of tuples they are without number."""
    out, length = [], 0
    for part in parts:
        out.append(part)
        length += len(part) + 2
        if length > MAX_TEXT:
            break
    return ", ".join(out)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 2] + ".."


# -- items ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """What is compared of an item: `own` by value, the types by content, then the `default` of storage. `text` shows
    it."""

    text: str
    own: tuple[Any, ...] = ()
    types: tuple[int, ...] = ()
    default: bytes = b""


def _changes(kind: Kind, old: Mapping[str, Item], new: Mapping[str, Item], types: Types) -> Iterator[Change]:
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            what: What = "added" if before is None else "removed"
            yield Change(kind, name, what, before and before.text, after and after.text)  # type: ignore[arg-type]
        elif before.own != after.own or len(before.types) != len(after.types):
            yield Change(kind, name, "changed", before.text, after.text)
        else:
            pairs = zip(before.types, after.types, strict=True)
            detail = next((types.detail(a, b) for a, b in pairs if not types.same(a, b)), None)
            if detail is None and before.default != after.default:
                detail = NEW_DEFAULT
            if detail is not None:
                yield Change(kind, name, "changed", before.text, after.text, detail)


def _extrinsic(document: Document) -> dict[str, Item]:
    version = document.extrinsic_version
    parts = ("address", "signature")
    types = tuple(document.extrinsic_type(part) for part in parts)
    shown = _joined(show_type(document, one) for one in types)
    return {"format": Item(f"{version} ({shown})", (version,), types)}


def _extensions(document: Document) -> dict[str, Item]:
    return {
        one.name: Item(
            f"{position}. ({show_type(document, one.extra)}; {show_type(document, one.additional)})",
            (position,), (one.extra, one.additional),
        )
        for position, one in enumerate(document.signed_extensions)
    }  # fmt: skip


def _pallets(document: Document) -> dict[str, Item]:
    return {name: Item(f"index {index}", (index,)) for name, index in document.pallet_index.items()}


def _variants(part: str) -> Callable[[Document], dict[str, Item]]:
    """Of each pallet's "calls", "event" or "error"."""

    def items(document: Document) -> dict[str, Item]:
        return {
            f"{pallet['name']}.{variant['name']}": _variant(document, variant)
            for pallet in document.tree["pallets"]
            if pallet[part] is not None
            for variant in document.tree["types"][pallet[part]]["def"]["variant"]
        }

    return items


def _variant(document: Document, variant: Mapping[str, Any]) -> Item:
    fields = variant["fields"]
    named = (
        f"{f['name']}: {show_type(document, f['type'])}" if f["name"] else show_type(document, f["type"])
        for f in fields
    )
    own = (variant["index"], tuple(field["name"] for field in fields))
    return Item(_cut(f"{variant['index']}({_joined(named)})"), own, tuple(field["type"] for field in fields))


def _storage(document: Document) -> dict[str, Item]:
    return {f"{entry.pallet}.{entry.name}": _entry(document, entry) for entry in document.storage.values()}


def _entry(document: Document, entry: StorageEntry) -> Item:
    keys = _joined(f"{h} {show_type(document, key)}" for h, key in zip(entry.hashers, entry.keys, strict=True))
    value = show_type(document, entry.value)
    own = (entry.prefix, entry.hashers, entry.optional)
    text = f"({keys}) -> {value}" if keys else value
    return Item(
        _cut(text + ("?" if entry.optional else f" = 0x{entry.default[:16].hex()}")), own, (*entry.keys, entry.value),
        b"" if entry.optional else entry.default,
    )  # fmt: skip


def _constants(document: Document) -> dict[str, Item]:
    out = {}
    for pallet in document.tree["pallets"]:
        for one in pallet["constants"]:
            value = document.constants[pallet["name"], one["name"]]
            text = _cut(f"{show_type(document, one['type'])} = {value!r}")
            out[f"{pallet['name']}.{one['name']}"] = Item(text, (one["value"],), (one["type"],))
    return out


def _apis(document: Document) -> dict[str, Item]:
    return {name: _api(document, method) for name, method in document.apis.items()}


def _api(document: Document, method: ApiMethod) -> Item:
    given = _joined(show_type(document, one) for one in method.inputs)
    types = (*method.inputs, method.output)
    return Item(_cut(f"({given}) -> {show_type(document, method.output)}"), (len(method.inputs),), types)
