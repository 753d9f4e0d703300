"""SCALE: bytes to plain Python values and back, compiled from a type registry.

`Registry(types)` takes the portable type list of a metadata document and turns each type id into one encoder and one
decoder closure, on first use. A decoder is `(data, offset) -> (value, offset)`, an encoder `value -> bytes`. Both are
exact: what is decoded encodes to the same bytes, and bytes that no encoder would write (a long form of a compact
number, a bool of 2) are refused with `ScaleError`.

How values look:

    integers, bool, str        int, bool, str (Compact is transparent)
    [u8; N], Vec<u8>           bytes (AccountId32 and H256 are newtypes of [u8; 32], so bytes too)
    Vec<T>, [T; N]             list
    tuple, unnamed fields      tuple; a single unnamed field is the inner value itself
    named fields               dict
    enum                       "Name", or ("Name", fields) when the variant carries data
    Option<T>                  None or the value; Option<Option<T>> wraps the inner one as Some((value,))

Runs of fixed-size integers (weights, bonds, per-uid vectors) go through `struct` in one step.
"""

from __future__ import annotations

import reprlib
import struct
from collections.abc import Callable
from typing import Any

from localnet.errors import ScaleError

Encoder = Callable[[Any], bytes]
Decoder = Callable[[bytes, int], "tuple[Any, int]"]

INT_BYTES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "u128": 16, "u256": 32}
STRUCT_CODE = {
    "bool": "?", "u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i8": "b", "i16": "h", "i32": "i", "i64": "q",
}  # fmt: skip
MAX_DEPTH = 96  # nested decoders in one value: a batch of batches of ... stops here instead of in Python's stack


class Some(tuple):  # type: ignore[type-arg]
    """The outer layer of a nested Option: `Some((None,))` is Some(None)."""

    __slots__ = ()


def compact(n: int) -> bytes:
    """Compact encoding of a non-negative integer below 2^536."""
    if n < 0:
        raise ScaleError(f"compact integers are not negative: {n}")
    if n < 1 << 6:
        return bytes((n << 2,))
    if n < 1 << 14:
        return (n << 2 | 1).to_bytes(2, "little")
    if n < 1 << 30:
        return (n << 2 | 2).to_bytes(4, "little")
    size = (n.bit_length() + 7) // 8
    if size > 67:
        raise ScaleError("compact integer is too large")
    return bytes(((size - 4) << 2 | 3,)) + n.to_bytes(size, "little")


def read_compact(data: bytes, offset: int) -> tuple[int, int]:
    """Inverse of `compact`; refuses a number that is written longer than needed."""
    if offset >= len(data):
        raise ScaleError("input ends inside a compact integer")
    mode = data[offset] & 3
    if mode == 0:
        return data[offset] >> 2, offset + 1
    size = (2, 4)[mode - 1] if mode < 3 else (data[offset] >> 2) + 5
    end = offset + size
    if end > len(data):
        raise ScaleError("input ends inside a compact integer")
    if mode < 3:
        value = int.from_bytes(data[offset:end], "little") >> 2
        low = 1 << (6 if mode == 1 else 14)
    else:
        value = int.from_bytes(data[offset + 1 : end], "little")
        low = max(1 << 30, 1 << 8 * (size - 2))
    if value < low:
        raise ScaleError("compact integer is not in its shortest form")
    return value, end


def opaque(data: bytes) -> bytes:
    """A byte string with its compact length in front."""
    return compact(len(data)) + data


class Registry:
    """Encoders and decoders for the types of one metadata document. `types[i]` has keys `path` and `def`."""

    def __init__(self, types: list[dict[str, Any]]) -> None:
        self.types = types
        self._encoders: dict[int, Encoder] = {}
        self._decoders: dict[int, Decoder] = {}
        self._depth = 0

    def encode(self, type_id: int, value: Any) -> bytes:
        try:
            return self.encoder(type_id)(value)
        except ScaleError:
            raise
        except (TypeError, ValueError, KeyError, IndexError, OverflowError, AttributeError, struct.error) as error:
            shown = reprlib.repr(value)
            raise ScaleError(f"value {shown} does not fit type {self.name(type_id)}: {error!r}") from error

    def decode(self, type_id: int, data: bytes) -> Any:
        """Decode exactly all of `data`."""
        value, end = self.decode_from(type_id, data, 0)
        if end != len(data):
            raise ScaleError(f"{len(data) - end} bytes left over after {self.name(type_id)}")
        return value

    def decode_from(self, type_id: int, data: bytes, offset: int) -> tuple[Any, int]:
        try:
            return self.decoder(type_id)(data, offset)
        except ScaleError:
            raise
        except (IndexError, KeyError, ValueError, struct.error, RecursionError, OverflowError) as error:
            raise ScaleError(f"bytes are not a {self.name(type_id)}: {error!r}") from error
        finally:
            self._depth = 0

    def name(self, type_id: int) -> str:
        kind, body = next(iter(self.types[type_id]["def"].items()))
        return "::".join(self.types[type_id]["path"]) or (str(body) if kind == "primitive" else f"type {type_id}")

    def encoder(self, type_id: int) -> Encoder:
        found = self._encoders.get(type_id)
        if found is None:
            self._encoders[type_id] = lambda value: self._encoders[type_id](value)  # for recursive types
            found = self._encoders[type_id] = self._build_encoder(type_id)
        return found

    def decoder(self, type_id: int) -> Decoder:
        found = self._decoders.get(type_id)
        if found is None:
            self._decoders[type_id] = self._guarded(type_id)
            found = self._decoders[type_id] = self._build_decoder(type_id)
        return found

    def _guarded(self, type_id: int) -> Decoder:
        """What a recursive type refers to while it is being built: the same decoder, counting its own depth."""

        def decode(data: bytes, offset: int) -> tuple[Any, int]:
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise ScaleError("value is nested too deeply")
            result = self._decoders[type_id](data, offset)
            self._depth -= 1
            return result

        return decode

    # -- what kind of type it is ------------------------------------------------------------------------------------

    def _kind(self, type_id: int) -> tuple[str, Any]:
        kind, body = next(iter(self.types[type_id]["def"].items()))
        return kind, body

    def empty(self, type_id: int) -> bool:
        """Whether the type's only value takes no bytes: (), a struct without fields, PhantomData."""
        kind, body = self._kind(type_id)
        if kind == "composite":
            return all(self.empty(field["type"]) for field in body)
        return kind == "tuple" and all(self.empty(inner) for inner in body)

    def is_option(self, type_id: int) -> bool:
        return bool(self.types[type_id]["path"] == ["Option"])

    def inner_of_option(self, type_id: int) -> int:
        return int(self.types[type_id]["def"]["variant"][1]["fields"][0]["type"])

    def _struct_codes(self, type_id: int) -> str | None:
        """`struct` codes of a type made only of fixed-size integers, in the form the plain decoder would give."""
        kind, body = self._kind(type_id)
        if kind == "primitive":
            return STRUCT_CODE.get(body)
        if kind == "composite" and len(body) == 1 and body[0]["name"] is None:
            return self._struct_codes(body[0]["type"])
        return None

    def _tuple_codes(self, type_id: int) -> str | None:
        kind, body = self._kind(type_id)
        if kind != "tuple" or not body:
            return None
        codes = [self._struct_codes(inner) for inner in body]
        return "".join(codes) if all(code is not None for code in codes) else None  # type: ignore[arg-type]

    # -- encoders ---------------------------------------------------------------------------------------------------

    def _build_encoder(self, type_id: int) -> Encoder:
        kind, body = self._kind(type_id)
        if kind == "primitive":
            return _primitive_encoder(body)
        if kind == "compact":
            return compact if self._compact_bits(body) else lambda value: b""
        if kind in ("sequence", "array"):
            return self._list_encoder(body["type"], body.get("len"))
        if kind == "tuple":
            return self._fields_encoder([{"name": None, "type": inner} for inner in body], unwrap=False)
        if kind == "composite":
            return self._fields_encoder(body)
        if kind == "variant":
            return self._option_encoder(type_id) if self.is_option(type_id) else self._enum_encoder(body)
        raise ScaleError(f"type {type_id}: {kind} is not supported")

    def _list_encoder(self, item: int, length: int | None) -> Encoder:
        def prefix(n: int) -> bytes:
            if length is None:
                return compact(n)
            if n != length:
                raise ScaleError(f"an array of {length} got {n} items")
            return b""

        if self._kind(item) == ("primitive", "u8"):
            return lambda value: prefix(len(value)) + bytes(value)
        codes = self._struct_codes(item)
        if codes:
            return lambda value: prefix(len(value)) + struct.pack(f"<{len(value)}{codes}", *value)
        codes = self._tuple_codes(item)
        if codes:
            pack = struct.Struct("<" + codes).pack
            return lambda value: prefix(len(value)) + b"".join([pack(*row) for row in value])
        encode = self.encoder(item)
        return lambda value: prefix(len(value)) + b"".join([encode(x) for x in value])

    def _fields_encoder(self, fields: list[dict[str, Any]], unwrap: bool = True) -> Encoder:
        if not fields:
            return lambda value: b""
        encoders = [self.encoder(field["type"]) for field in fields]
        if fields[0]["name"] is not None:
            named = list(zip([field["name"] for field in fields], encoders, strict=True))
            return lambda value: b"".join([encode(value[name]) for name, encode in named])
        if len(fields) == 1 and unwrap:
            return encoders[0]

        def encode_tuple(value: Any) -> bytes:
            return b"".join([encode(x) for encode, x in zip(encoders, value, strict=True)])

        return encode_tuple

    def _option_encoder(self, type_id: int) -> Encoder:
        inner = self.inner_of_option(type_id)
        encode = self.encoder(inner)
        if self.is_option(inner):
            return lambda value: b"\0" if value is None else b"\1" + encode(value[0])
        return lambda value: b"\0" if value is None else b"\1" + encode(value)

    def _enum_encoder(self, variants: list[dict[str, Any]]) -> Encoder:
        units = {v["name"]: bytes((v["index"],)) for v in variants if not v["fields"]}
        carriers = {
            v["name"]: (bytes((v["index"],)), self._fields_encoder(v["fields"])) for v in variants if v["fields"]
        }

        def encode(value: Any) -> bytes:
            if isinstance(value, str):
                return units[value]
            index, fields = carriers[value[0]]
            return index + fields(value[1])

        return encode

    # -- decoders ---------------------------------------------------------------------------------------------------

    def _build_decoder(self, type_id: int) -> Decoder:
        kind, body = self._kind(type_id)
        if kind == "primitive":
            return _primitive_decoder(body)
        if kind == "compact":
            return self._compact_decoder(body)
        if kind in ("sequence", "array"):
            return self._list_decoder(body["type"], body.get("len"))
        if kind == "tuple":
            return self._fields_decoder([{"name": None, "type": inner} for inner in body], unwrap=False)
        if kind == "composite":
            return self._fields_decoder(body)
        if kind == "variant":
            return self._option_decoder(type_id) if self.is_option(type_id) else self._enum_decoder(body)
        raise ScaleError(f"type {type_id}: {kind} is not supported")

    def _compact_bits(self, inner: int) -> int:
        """Bits of the integer that a Compact holds; 0 for Compact<()>, which takes no bytes at all."""
        kind, body = self._kind(inner)
        while kind == "composite" and body:
            kind, body = self._kind(body[0]["type"])
        return 8 * INT_BYTES[body] if kind == "primitive" else 0

    def _compact_decoder(self, inner: int) -> Decoder:
        bits = self._compact_bits(inner)
        if not bits:
            return lambda data, offset: ((), offset)
        limit = 1 << bits

        def decode(data: bytes, offset: int) -> tuple[int, int]:
            value, offset = read_compact(data, offset)
            if value >= limit:
                raise ScaleError("compact integer is out of range")
            return value, offset

        return decode

    def _list_decoder(self, item: int, length: int | None) -> Decoder:
        if self._kind(item) == ("primitive", "u8"):
            return _bytes_decoder(length)
        single, row = self._struct_codes(item), self._tuple_codes(item)
        if single and single != "?":  # struct accepts any byte as a bool, SCALE does not
            return _struct_list_decoder(single, length)
        if row and "?" not in row:
            return _struct_rows_decoder(row, length)
        decode = self.decoder(item)

        def decode_list(data: bytes, offset: int) -> tuple[list[Any], int]:
            count, offset = read_compact(data, offset) if length is None else (length, offset)
            if count > 4 * (len(data) - offset) + 16:  # items of zero bytes exist, millions of them do not
                raise ScaleError("list is longer than its input")
            values = []
            for _ in range(count):
                value, offset = decode(data, offset)
                values.append(value)
            return values, offset

        return decode_list

    def _fields_decoder(self, fields: list[dict[str, Any]], unwrap: bool = True) -> Decoder:
        if not fields:
            return lambda data, offset: ((), offset)
        decoders = [self.decoder(field["type"]) for field in fields]
        if fields[0]["name"] is not None:
            named = list(zip([field["name"] for field in fields], decoders, strict=True))

            def decode_named(data: bytes, offset: int) -> tuple[dict[str, Any], int]:
                values = {}
                for name, decode in named:
                    values[name], offset = decode(data, offset)
                return values, offset

            return decode_named
        if len(fields) == 1 and unwrap:
            return decoders[0]

        def decode_tuple(data: bytes, offset: int) -> tuple[tuple[Any, ...], int]:
            values = []
            for decode in decoders:
                value, offset = decode(data, offset)
                values.append(value)
            return tuple(values), offset

        return decode_tuple

    def _option_decoder(self, type_id: int) -> Decoder:
        inner = self.inner_of_option(type_id)
        decode = self.decoder(inner)
        nested = self.is_option(inner)

        def decode_option(data: bytes, offset: int) -> tuple[Any, int]:
            if data[offset] == 0:
                return None, offset + 1
            if data[offset] != 1:
                raise ScaleError("an Option starts with 0 or 1")
            value, offset = decode(data, offset + 1)
            return (Some((value,)) if nested else value), offset

        return decode_option

    def _enum_decoder(self, variants: list[dict[str, Any]]) -> Decoder:
        table = {v["index"]: (v["name"], self._fields_decoder(v["fields"]) if v["fields"] else None) for v in variants}

        def decode(data: bytes, offset: int) -> tuple[Any, int]:
            found = table.get(data[offset])
            if found is None:
                raise ScaleError(f"no variant has index {data[offset]}")
            name, fields = found
            if fields is None:
                return name, offset + 1
            value, offset = fields(data, offset + 1)
            return (name, value), offset

        return decode


def _primitive_encoder(name: str) -> Encoder:
    if name == "bool":
        return lambda value: b"\1" if value else b"\0"
    if name == "str":
        return lambda value: opaque(value.encode())
    if name == "char":
        return lambda value: ord(value).to_bytes(4, "little")
    size, signed = INT_BYTES[name.replace("i", "u")], name[0] == "i"
    return lambda value: int(value).to_bytes(size, "little", signed=signed)


def _primitive_decoder(name: str) -> Decoder:
    if name == "bool":

        def decode_bool(data: bytes, offset: int) -> tuple[bool, int]:
            if data[offset] > 1:
                raise ScaleError("a bool is 0 or 1")
            return data[offset] == 1, offset + 1

        return decode_bool
    if name == "str":

        def decode_str(data: bytes, offset: int) -> tuple[str, int]:
            raw, offset = _bytes_decoder(None)(data, offset)
            return raw.decode(), offset

        return decode_str
    size, signed = (4, False) if name == "char" else (INT_BYTES[name.replace("i", "u")], name[0] == "i")

    def decode_int(data: bytes, offset: int) -> tuple[Any, int]:
        end = offset + size
        if end > len(data):
            raise ScaleError("input ends inside an integer")
        value = int.from_bytes(data[offset:end], "little", signed=signed)
        return (chr(value) if name == "char" else value), end

    return decode_int


def _bytes_decoder(length: int | None) -> Decoder:
    def decode(data: bytes, offset: int) -> tuple[bytes, int]:
        count, offset = read_compact(data, offset) if length is None else (length, offset)
        end = offset + count
        if end > len(data):
            raise ScaleError("input ends inside a byte string")
        return data[offset:end], end

    return decode


def _struct_list_decoder(code: str, length: int | None) -> Decoder:
    size = struct.calcsize("<" + code)

    def decode(data: bytes, offset: int) -> tuple[list[int], int]:
        count, offset = read_compact(data, offset) if length is None else (length, offset)
        end = offset + count * size
        if end > len(data):
            raise ScaleError("input ends inside a list")
        return list(struct.unpack_from(f"<{count}{code}", data, offset)), end

    return decode


def _struct_rows_decoder(codes: str, length: int | None) -> Decoder:
    row = struct.Struct("<" + codes)

    def decode(data: bytes, offset: int) -> tuple[list[tuple[int, ...]], int]:
        count, offset = read_compact(data, offset) if length is None else (length, offset)
        end = offset + count * row.size
        if end > len(data):
            raise ScaleError("input ends inside a list")
        return list(row.iter_unpack(data[offset:end])), end

    return decode
