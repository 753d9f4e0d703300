"""SCALE values as JSON and back, by their type: what developer methods take and show.

    numbers                 JSON numbers; above 2^53 decimal strings, because many readers of JSON would round them
    bytes                   "0x.."
    accounts                SS58 addresses; on the way in also "//Alice" or 32 bytes in hex
    tuples, lists           arrays
    named fields            objects
    enums                   "Name", or {"Name": fields}

On the way in numbers may be strings too ("5", "0x05"), and an account stands for the MultiAddress that holds it.
`Names` turns raw storage keys into pallet, item and keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import bittensor_core

from localnet.codec.document import Document
from localnet.codec.scale import Some
from localnet.errors import MetadataError, ScaleError

EXACT = 1 << 53  # the first number that a double, and so JavaScript, may round
SS58 = 42

Account = Callable[[str], bytes]  # an account's name -> its 32 bytes; ValueError


class Plain:
    """`account` reads the names of accounts on the way in."""

    def __init__(self, document: Document, account: Account) -> None:
        self.document, self._account = document, account

    def _shape(self, type_id: int) -> tuple[str, Any, str]:
        entry = self.document.tree["types"][type_id]
        kind, body = next(iter(entry["def"].items()))
        return kind, body, entry["path"][-1] if entry["path"] else ""

    # -- out --------------------------------------------------------------------------------------------------------

    def show(self, type_id: int, value: Any) -> Any:
        """A decoded value as JSON."""
        kind, body, last = self._shape(type_id)
        if last == "AccountId32":
            return bittensor_core.ss58_encode(value, SS58)
        if isinstance(value, bytes | bytearray):
            return "0x" + bytes(value).hex()
        if kind in ("primitive", "compact"):
            big = isinstance(value, int) and not isinstance(value, bool) and abs(value) >= EXACT
            return str(value) if big else value
        if kind in ("sequence", "array"):
            return [self.show(body["type"], item) for item in value]
        if kind == "tuple":
            return [self.show(inner, item) for inner, item in zip(body, value, strict=True)]
        if kind == "composite":
            return self._show_fields(body, value)
        if last == "Option":
            inner = self.document.registry.inner_of_option(type_id)
            if value is None:
                return None
            return {"Some": self.show(inner, value[0])} if isinstance(value, Some) else self.show(inner, value)
        return self._show_enum(body, value)

    def _show_fields(self, fields: list[dict[str, Any]], value: Any) -> Any:
        if not fields:
            return []
        if fields[0]["name"] is not None:
            return {field["name"]: self.show(field["type"], value[field["name"]]) for field in fields}
        if len(fields) == 1:
            return self.show(fields[0]["type"], value)
        return [self.show(field["type"], item) for field, item in zip(fields, value, strict=True)]

    def _show_enum(self, variants: list[dict[str, Any]], value: Any) -> Any:
        if isinstance(value, str):
            return value
        name, inner = value
        return {name: self._show_fields(next(v["fields"] for v in variants if v["name"] == name), inner)}

    # -- in ---------------------------------------------------------------------------------------------------------

    def read(self, type_id: int, value: Any) -> Any:
        """JSON as a value to encode. Raises ScaleError that says what was expected."""
        kind, body, last = self._shape(type_id)
        if last == "AccountId32":
            return self._read_account(value)
        if last == "MultiAddress" and isinstance(value, str):
            return ("Id", self._read_account(value))
        if last == "Option":
            return self._read_option(type_id, value)
        if kind == "primitive":
            return _read_primitive(body, value)
        if kind == "compact":
            return _read_primitive("u128", value)
        if kind in ("sequence", "array"):
            return self._read_list(body["type"], value)
        if kind == "tuple":
            return self._read_tuple(body, value)
        if kind == "composite":
            return self._read_fields(body, value)
        return self._read_enum(type_id, body, value)

    def _read_account(self, value: Any) -> bytes:
        if not isinstance(value, str):
            raise ScaleError(f"expected an account (SS58, //Name or 32 bytes in hex), not {value!r}")
        try:
            account = bytes.fromhex(value[2:]) if value.startswith("0x") else self._account(value)
        except ValueError as error:
            raise ScaleError(f"{value!r} is not an account: {error}") from error
        if len(account) != 32:
            raise ScaleError(f"{value!r} is not an account: it has {len(account)} bytes, 32 are needed")
        return account

    def _read_option(self, type_id: int, value: Any) -> Any:
        inner = self.document.registry.inner_of_option(type_id)
        if value is None:
            return None
        if not self.document.registry.is_option(inner):
            return self.read(inner, value)
        if not isinstance(value, dict) or set(value) != {"Some"}:
            raise ScaleError('an option inside an option is null or {"Some": value}')
        return Some((self.read(inner, value["Some"]),))

    def _read_list(self, item: int, value: Any) -> Any:
        if self._shape(item)[:2] == ("primitive", "u8") and isinstance(value, str):
            return _hex(value)
        if not isinstance(value, list):
            raise ScaleError(f"expected a list, not {value!r}")
        return [self.read(item, one) for one in value]

    def _read_tuple(self, types: list[int], value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(types):
            raise ScaleError(f"expected a list of {len(types)} values, not {value!r}")
        return tuple(self.read(inner, one) for inner, one in zip(types, value, strict=True))

    def _read_fields(self, fields: list[dict[str, Any]], value: Any) -> Any:
        if not fields:
            return ()
        if fields[0]["name"] is None:
            if len(fields) == 1:
                return self.read(fields[0]["type"], value)
            return self._read_tuple([field["type"] for field in fields], value)
        names = [field["name"] for field in fields]
        if not isinstance(value, dict) or set(value) != set(names):
            raise ScaleError(f"expected an object with {', '.join(names)}, not {value!r}")
        return {field["name"]: self.read(field["type"], value[field["name"]]) for field in fields}

    def _read_enum(self, type_id: int, variants: list[dict[str, Any]], value: Any) -> Any:
        name, inner = next(iter(value.items())) if isinstance(value, dict) and len(value) == 1 else (value, None)
        variant = next((v for v in variants if v["name"] == name), None)
        if variant is None or bool(variant["fields"]) != isinstance(value, dict):
            known = ", ".join(v["name"] if not v["fields"] else f"{{{v['name']}: ..}}" for v in variants[:12])
            raise ScaleError(f"{value!r} is no {self.document.registry.name(type_id)}: {known}")
        return (name, self._read_fields(variant["fields"], inner)) if variant["fields"] else name


def _hex(value: str) -> bytes:
    if not value.startswith("0x"):
        raise ScaleError(f"bytes are given in hex with 0x in front, not as {value!r}")
    try:
        return bytes.fromhex(value[2:])
    except ValueError as error:
        raise ScaleError(f"{value!r} is not hex") from error


def _read_primitive(name: str, value: Any) -> Any:
    wanted = {"bool": bool, "str": str, "char": str}.get(name, int)
    if wanted is int and isinstance(value, str):
        try:
            return int(value, 16 if value.startswith("0x") else 10)
        except ValueError as error:
            raise ScaleError(f"expected a {name}, not {value!r}") from error
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise ScaleError(f"expected a {name}, not {value!r}")
    return value


class Names:
    """Raw storage by name."""

    def __init__(self, plain: Plain) -> None:
        self.plain, self.document = plain, plain.document

    def show(self, key: bytes, before: bytes | None, after: bytes | None) -> dict[str, Any]:
        """One change of storage. What the metadata does not know, or is no value of its type, is shown raw."""
        entry = self.document.by_prefix.get(key[:32])
        raw = [None if value is None else "0x" + value.hex() for value in (before, after)]
        if entry is None:
            return {"key": "0x" + key.hex(), "before": raw[0], "after": raw[1]}
        decode = self.document.registry.decode
        try:
            read = zip(entry.keys, self.document.read_keys(entry, key), strict=True)
            keys = [self.plain.show(type_id, one) for type_id, one in read]
            values = [None if value is None else self.plain.show(entry.value, decode(entry.value, value))
                      for value in (before, after)]  # fmt: skip
        except (ScaleError, MetadataError):  # a developer can write any bytes anywhere, and some keys are hashes
            return {"pallet": entry.pallet, "item": entry.name, "key": "0x" + key.hex(),
                    "before": raw[0], "after": raw[1]}  # fmt: skip
        return {"pallet": entry.pallet, "item": entry.name, "keys": keys, "before": values[0], "after": values[1]}

    def show_all(self, changes: Mapping[bytes, tuple[bytes | None, bytes | None]]) -> list[dict[str, Any]]:
        """Changes (before, after) by key, in the order of the keys' names."""
        shown = [self.show(key, *values) for key, values in changes.items()]
        return sorted(shown, key=lambda one: (one.get("pallet", ""), one.get("item", ""), str(one.get("keys"))))
