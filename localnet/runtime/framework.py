"""How a pallet is written: storage items, calls, events and errors by the names in the metadata.

    class Balances(Pallet):
        name = "Balances"
        TotalIssuance = StorageValue[int]()
        Account = StorageMap[dict[str, Any]]()

        @call(ref_time=115_000_000)
        def transfer_keep_alive(self, origin: Origin, dest: Any, value: int) -> None: ...

Each class attribute that is a storage item is bound to the metadata when the pallet is constructed, and each `@call` is
compared with it: a misspelt name, or an argument the chain does not have, stops the runtime at start.

Decoded values are cached by the bytes they came from and must not be changed: copy, then put.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import xxhash

from localnet.errors import DispatchError, MetadataError

if TYPE_CHECKING:
    from localnet.codec.document import StorageEntry
    from localnet.runtime.runtime import SpecRuntime

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

CallFilter = Callable[[str, str, dict[str, Any]], bool]

FEE_WAIVED = "fee waived"  # what a call returns to give a paid fee back, tip aside
CACHE_LIMIT = 50_000  # entries of each key or value cache before it starts afresh


@dataclass(frozen=True)
class Signed:
    """Origin: an account that signed the extrinsic, or that another one acts for.

    `filters`: (pallet, function, arguments) -> may it be called? A call must pass all of them; they go along when the
    call dispatches others under this origin.
    """

    who: bytes
    filters: tuple[CallFilter, ...] = ()


@dataclass(frozen=True)
class Root:
    """Origin: the chain itself, through Sudo."""


@dataclass(frozen=True)
class Unsigned:
    """Origin: an inherent or an unsigned extrinsic."""


Origin = Signed | Root | Unsigned


def ensure_signed(origin: Origin) -> bytes:
    """The account behind a signed origin. Raises BadOrigin."""
    if isinstance(origin, Signed):
        return origin.who
    raise DispatchError("BadOrigin")


def ensure_root(origin: Origin) -> None:
    """Raises BadOrigin unless the origin is Root."""
    if not isinstance(origin, Root):
        raise DispatchError("BadOrigin")


def ensure_none(origin: Origin) -> None:
    """Raises BadOrigin unless the extrinsic is an inherent."""
    if not isinstance(origin, Unsigned):
        raise DispatchError("BadOrigin")


# -- storage --------------------------------------------------------------------------------------------------------


def _twox64_concat(data: bytes) -> bytes:
    return xxhash.xxh64_intdigest(data, 0).to_bytes(8, "little") + data


def _blake2_128_concat(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest() + data


HASHERS: dict[str, tuple[Callable[[bytes], bytes], int]] = {  # hash of a key, bytes in front of the key itself
    "Identity": (lambda data: data, 0),
    "Twox64Concat": (_twox64_concat, 8),
    "Blake2_128Concat": (_blake2_128_concat, 16),
}


class _Storage(Generic[T]):
    """What values and maps share: the entry, the codec, and a cache of decoded values."""

    rt: SpecRuntime
    entry: StorageEntry
    _values: dict[bytes, tuple[bytes, Any]]

    def bind(self: _S, rt: SpecRuntime, entry: StorageEntry) -> _S:
        bound = copy.copy(self)
        bound.rt, bound.entry, bound._values = rt, entry, {}
        registry = rt.document.registry
        bound._decode = lambda raw: registry.decode(entry.value, raw)  # type: ignore[method-assign]
        bound._encode = registry.encoder(entry.value)  # type: ignore[method-assign, assignment]
        bound._setup()
        return bound

    def _setup(self) -> None:
        self._default: Any = None if self.entry.optional else self._decode(self.entry.default)

    def _decode(self, raw: bytes) -> T:
        raise NotImplementedError("bound by bind()")

    def _encode(self, value: T) -> bytes:
        raise NotImplementedError("bound by bind()")

    def _read(self, key: bytes) -> T:
        raw = self.rt.state.get(key)
        if raw is None:
            return self._default  # type: ignore[no-any-return]
        cached = self._values.get(key)
        if cached is not None and cached[0] == raw:
            return cached[1]  # type: ignore[no-any-return]
        value = self._decode(raw)
        self._remember(key, raw, value)
        return value

    def _write(self, key: bytes, value: T) -> None:
        raw = self._encode(value)
        self.rt.state.put(key, raw)
        if key in self._values:
            self._values[key] = (raw, value)
        else:
            self._remember(key, raw, value)

    def _remember(self, key: bytes, raw: bytes, value: T) -> None:
        if len(self._values) >= CACHE_LIMIT:
            self._values.clear()
        self._values[key] = (raw, value)


_S = TypeVar("_S", bound="_Storage[Any]")


class StorageValue(_Storage[T]):
    """A single value. Reads give the metadata's default, or None for an optional item, when nothing is stored."""

    def get(self) -> T:
        return self._read(self.entry.prefix)

    def put(self, value: T) -> None:
        self._write(self.entry.prefix, value)

    def kill(self) -> None:
        self.rt.state.put(self.entry.prefix, None)

    def exists(self) -> bool:
        return self.rt.state.get(self.entry.prefix) is not None


class StorageMap(_Storage[T]):
    """A map with one or more keys: `m[a]`, `m[a, b]`."""

    def _setup(self) -> None:
        super()._setup()
        registry = self.rt.document.registry
        self._hashers: list[tuple[Callable[[bytes], bytes], int]] = []
        for name in self.entry.hashers:
            if name not in HASHERS:
                raise MetadataError(f"{self.entry.pallet}.{self.entry.name}: hasher {name} is not supported")
            self._hashers.append(HASHERS[name])
        self._key_encoders = [registry.encoder(type_id) for type_id in self.entry.keys]
        self._key_decoders = [registry.decoder(type_id) for type_id in self.entry.keys]
        self._keys: dict[Any, bytes] = {}

    def key(self, keys: Any) -> bytes:
        """Full storage key of one entry; `keys` is the key itself or a tuple of keys."""
        found = self._keys.get(keys)
        if found is None:
            found = self.prefix(*(keys if len(self._hashers) > 1 else (keys,)))
            if len(self._keys) >= CACHE_LIMIT:
                self._keys.clear()
            self._keys[keys] = found
        return found

    def prefix(self, *keys: Any) -> bytes:
        """Storage prefix of all entries that start with these keys."""
        return self.entry.prefix + b"".join(
            hasher(encode(key))
            for (hasher, _), encode, key in zip(self._hashers, self._key_encoders, keys, strict=False)
        )

    def __getitem__(self, keys: Any) -> T:
        key = self._keys.get(keys) or self.key(keys)
        raw = self.rt.state.get(key)  # `_read` spelled out: a block reads by the thousand
        if raw is None:
            return self._default  # type: ignore[no-any-return]
        cached = self._values.get(key)
        if cached is not None and cached[0] == raw:
            return cached[1]  # type: ignore[no-any-return]
        return self._read(key)

    def __setitem__(self, keys: Any, value: T) -> None:
        self._write(self.key(keys), value)

    def __delitem__(self, keys: Any) -> None:
        key = self.key(keys)
        if self._values.pop(key, None) is not None:  # else the caches fill with what comes once, as a block's hash
            self._keys.pop(keys, None)
        self.rt.state.put(key, None)

    def __contains__(self, keys: Any) -> bool:
        return self.rt.state.get(self.key(keys)) is not None

    def keys(self, *prefix: Any) -> Iterator[Any]:
        """The remaining key (a tuple when several remain) of each entry under `prefix`, in storage order."""
        start = self.prefix(*prefix)
        for raw in self.rt.state.keys(start):
            yield self._decode_key(raw, len(start), len(prefix))

    def keys_after(self, cursor: bytes | None) -> Iterator[Any]:
        """Keys in storage order from behind the full storage key `cursor` on; what lies before it is not decoded."""
        start = self.entry.prefix
        for raw in self.rt.state.keys(start):
            if cursor is None or raw > cursor:
                yield self._decode_key(raw, len(start), 0)

    def items(self, *prefix: Any) -> Iterator[tuple[Any, T]]:
        start = self.prefix(*prefix)
        for raw in self.rt.state.keys(start):
            yield self._decode_key(raw, len(start), len(prefix)), self._read(raw)

    def raw_items(self, *prefix: Any) -> Iterator[tuple[Any, bytes]]:
        """`items` with the values as stored: for values that are cheaper to read in bulk than one by one."""
        start = self.prefix(*prefix)
        for raw in self.rt.state.keys(start):
            yield self._decode_key(raw, len(start), len(prefix)), self.rt.state.get(raw) or b""

    def put_raw(self, keys: Any, raw: bytes) -> None:
        """Store a value that is encoded already."""
        self.rt.state.put(self.key(keys), raw)

    def clear(self, *prefix: Any) -> None:
        """Remove every entry under `prefix`."""
        for raw in list(self.rt.state.keys(self.prefix(*prefix))):
            self.rt.state.put(raw, None)

    def _decode_key(self, raw: bytes, offset: int, skip: int) -> Any:
        parts = []
        for (_, hash_size), decode in zip(self._hashers[skip:], self._key_decoders[skip:], strict=True):
            part, offset = decode(raw, offset + hash_size)
            parts.append(part)
        return parts[0] if len(parts) == 1 else tuple(parts)


# -- calls and pallets ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CallInfo:
    """Weight and fee class of a call. `ref_time` in picoseconds; `refunded`: a success gives the fee back; `own_fee`:
    it is paid for even when the calls it carries are free.
    """

    ref_time: int = 200_000_000
    proof_size: int = 4_000
    pays: bool = True
    dispatch_class: str = "Normal"
    refunded: bool = False
    own_fee: bool = False


def call(
    *,
    pays: bool = True,
    ref_time: int = 200_000_000,
    proof_size: int = 4_000,
    dispatch_class: str = "Normal",
    refunded: bool = False,
    own_fee: bool = False,
) -> Callable[[F], F]:
    """Mark a method as a dispatchable call. Weights other than the released chain's known ones are nominal."""

    def mark(function: F) -> F:
        function.call_info = CallInfo(  # type: ignore[attr-defined]
            ref_time, proof_size, pays, dispatch_class, refunded, own_fee
        )
        return function

    return mark


@dataclass(frozen=True)
class Validity:
    """A valid transaction: its place in the queue, the tags it gives, the blocks for which that holds, and whether
    it is passed on to other nodes."""

    priority: int
    provides: tuple[bytes, ...]
    longevity: int
    propagate: bool = True


def _is_call(value: Any) -> bool:
    return inspect.isroutine(value) and hasattr(value, "call_info")


class Pallet:
    """Base of all pallets: binds storage, registers calls, raises errors and emits events by name."""

    name: ClassVar[str] = ""
    modules: ClassVar[tuple[ModuleType, ...]] = ()  # calls may also be functions `(pallet, origin, ...)` of modules

    def __init__(self, rt: SpecRuntime) -> None:
        self.rt = rt
        document = rt.document
        if self.name not in document.pallet_index:
            raise MetadataError(f"the metadata has no pallet {self.name}")
        for attribute, item in inspect.getmembers(type(self), lambda value: isinstance(value, _Storage)):
            entry = document.storage.get((self.name, attribute))
            if entry is None:
                raise MetadataError(f"the metadata has no storage item {self.name}.{attribute}")
            if isinstance(item, StorageMap) != bool(entry.hashers):
                raise MetadataError(
                    f"{self.name}.{attribute} is a {'map' if entry.hashers else 'value'} in the metadata"
                )
            setattr(self, attribute, item.bind(rt, entry))
        for attribute, function in inspect.getmembers(self, _is_call):
            self._check_call(attribute, function)
        for module in self.modules:
            for attribute, function in inspect.getmembers(module, _is_call):
                bound = functools.partial(function, self)
                bound.call_info = function.call_info  # type: ignore[attr-defined]
                self._check_call(attribute, bound)

    def _check_call(self, attribute: str, function: Callable[..., Any]) -> None:
        name = attribute.rstrip("_")  # a call that is named like something Python or the pallet has already
        expected = self.rt.document.calls[self.name].get(name)
        have = tuple(parameter.rstrip("_") for parameter in list(inspect.signature(function).parameters)[1:])
        if expected is None or tuple(argument.rstrip("_") for argument in expected) != have:
            raise MetadataError(f"call {self.name}.{name} has arguments {have}, the metadata says {expected}")
        self.rt.calls[self.name, name] = function

    def error(self, name: str) -> DispatchError:
        """This pallet's error of that name, with its index in the metadata."""
        index = self.rt.document.errors[self.name][name]
        module = {"index": self.rt.document.pallet_index[self.name], "error": bytes((index, 0, 0, 0))}
        return DispatchError(("Module", module), name)

    def emit(self, event: str, *values: Any, **fields: Any) -> None:
        """Deposit an event: positional values for unnamed fields, keyword values for named ones."""
        if fields:
            self.rt.deposit_event((self.name, (event, fields)))
        elif values:
            self.rt.deposit_event((self.name, (event, values if len(values) > 1 else values[0])))
        else:
            self.rt.deposit_event((self.name, event))

    def validate(self, who: bytes, function: str, arguments: dict[str, Any]) -> None:
        """Pool-level checks on a call of this pallet. Raises InvalidTransaction."""

    def validate_unsigned(self, function: str, arguments: dict[str, Any]) -> Validity | None:
        """What the pool makes of a call of this pallet that nobody signed; None: it does not take any.

        Raises InvalidTransaction.
        """
        return None

    def on_initialize(self, number: int) -> None:
        """Runs at the start of block `number`, before its extrinsics."""

    def on_finalize(self, number: int) -> None:
        """Runs at the end of block `number`."""
