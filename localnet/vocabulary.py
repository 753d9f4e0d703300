"""Names and values under one runtime's metadata: calls, storage keys, events and errors.

Values are those of `localnet.codec.scale`. On the way in, an account may also be an SS58 address or a secret URI
("//Alice"), wherever the metadata wants an AccountId or a MultiAddress, and a call inside a call (proxy, batch) is
("Pallet", "call", {argument: value}). Nothing here asks a chain; `localnet.client` does, and chooses the vocabulary of
the block it asks about.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any

import bittensor_core
import xxhash

from localnet.codec.document import ApiMethod, Document, StorageEntry
from localnet.codec.plain import SS58, Names, Plain
from localnet.errors import MetadataError, ScaleError
from localnet.node.documents import layout_of
from localnet.node.extrinsic import Layout, parse


def _blake2(size: int) -> Callable[[bytes], bytes]:
    return lambda data: blake2b(data, digest_size=size).digest()


def _twox(words: int) -> Callable[[bytes], bytes]:
    return lambda data: b"".join(xxhash.xxh64_intdigest(data, seed).to_bytes(8, "little") for seed in range(words))


HASHERS: dict[str, tuple[Callable[[bytes], bytes], int, bool]] = {  # hash, its size, whether the key follows it
    "Identity": (lambda data: b"", 0, True),
    "Twox64Concat": (_twox(1), 8, True),
    "Blake2_128Concat": (_blake2(16), 16, True),
    "Blake2_128": (_blake2(16), 16, False),
    "Blake2_256": (_blake2(32), 32, False),
    "Twox128": (_twox(2), 16, False),
    "Twox256": (_twox(4), 32, False),
}
SIGNED_FORMAT = 4  # of signed extrinsics; format 5 has none


@lru_cache(maxsize=4096)
def keypair(uri: str) -> bittensor_core.Keypair:
    """The sr25519 keypair of a secret URI ("//Alice") or mnemonic. Raises ValueError."""
    return bittensor_core.Keypair.create_from_uri(uri)


def public_key(account: str | bytes | bittensor_core.Keypair) -> bytes:
    """Account id of an SS58 address, a secret URI ("//Alice", "word word ..//hard"), a keypair, or 32 bytes.

    Raises ValueError.
    """
    if isinstance(account, str):
        try:
            if "/" in account or " " in account:
                return bytes(keypair(account).public_key)
            return bytes(bittensor_core.ss58_decode(account))
        except ValueError as error:
            raise ValueError(
                f"{account!r} is no account, neither SS58 nor a secret URI as //Alice is: {error}"
            ) from error
    if isinstance(account, bytes):
        return account
    if not hasattr(account, "public_key"):
        raise ValueError(f"{account!r} is no account: give an SS58 address, a secret URI, a keypair or 32 bytes")
    return bytes(account.public_key)


def near(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that does not exist: those that look like it."""
    alike = difflib.get_close_matches(name, known, 3)
    return f": {' or '.join(alike)}?" if alike else ""


class Vocabulary:
    """Names and values under one document."""

    def __init__(self, document: Document) -> None:
        self.document, self.registry = document, document.registry
        self.plain = Plain(document, public_key)
        self.names = Names(self.plain)
        self._pallets = {index: name for name, index in document.pallet_index.items()}

    @cached_property
    def layout(self) -> Layout:
        """Of a signed extrinsic. Raises MetadataError."""
        return layout_of(self.document)

    # -- calls

    def _adapt(self, type_id: int, value: Any) -> Any:
        """Replace account names by account ids where the type says so."""
        entry = self.document.tree["types"][type_id]
        kind, body = next(iter(entry["def"].items()))
        last = entry["path"][-1] if entry["path"] else ""
        if last == "AccountId32":
            return public_key(value)
        if last == "MultiAddress" and not isinstance(value, tuple):
            return ("Id", public_key(value))
        if last == "RuntimeCall" and isinstance(value, tuple) and len(value) == 3:
            return self.call_value(*value)
        if last == "Option" and value is not None:
            return self._adapt(body[1]["fields"][0]["type"], value)
        if kind == "sequence" and isinstance(value, list):
            return [self._adapt(body["type"], item) for item in value]
        if kind == "tuple" and isinstance(value, tuple) and len(value) == len(body):
            return tuple(self._adapt(inner, item) for inner, item in zip(body, value, strict=True))
        if kind == "composite" and isinstance(value, dict):
            inner_types = {f["name"]: f["type"] for f in body}
            return {k: self._adapt(inner_types[k], v) if k in inner_types else v for k, v in value.items()}
        return value

    def call_value(self, pallet: str, call: str, arguments: Mapping[str, Any]) -> Any:
        """A RuntimeCall value, also as an argument of batch and sudo calls. Raises MetadataError."""
        variants = self._call_variants(pallet)
        if call not in variants:
            raise MetadataError(f"there is no call {pallet}.{call}{near(call, variants)}")
        fields = {f["name"]: f["type"] for f in variants[call]["fields"]}
        if set(fields) != set(arguments):
            raise MetadataError(
                f"{pallet}.{call} takes {', '.join(fields) or 'nothing'}; given: {', '.join(arguments)}"
            )
        adapted = {name: self._adapt(type_id, arguments[name]) for name, type_id in fields.items()}
        return (pallet, (call, adapted) if adapted else call)

    def _call_variants(self, pallet: str) -> dict[str, Any]:
        for entry in self.document.tree["pallets"]:
            if entry["name"] == pallet and entry["calls"] is not None:
                return {v["name"]: v for v in self.document.tree["types"][entry["calls"]]["def"]["variant"]}
        known = [entry["name"] for entry in self.document.tree["pallets"] if entry["calls"] is not None]
        raise MetadataError(f"there is no pallet {pallet} with calls{near(pallet, known)}")

    def argument_type(self, pallet: str, call: str, argument: str) -> int:
        """The type of a call's argument."""
        return next(int(f["type"]) for f in self._call_variants(pallet)[call]["fields"] if f["name"] == argument)

    def read_call(self, value: Any) -> bytes:
        """A call from JSON: "0x.." (encoded), or {"pallet": .., "call": .., "arguments": {..}}.

        Raises MetadataError, ScaleError.
        """
        if isinstance(value, str):
            raw = bytes.fromhex(value.removeprefix("0x"))
            self.registry.decode(self.document.call_type, raw)
            return raw
        if not isinstance(value, dict) or not {"pallet", "call"} <= set(value) <= {"pallet", "call", "arguments"}:
            raise ScaleError('a call is "0x.." or {"pallet": .., "call": .., "arguments": {..}}')
        pallet, name, arguments = value["pallet"], value["call"], value.get("arguments") or {}
        if name not in self._call_variants(pallet):
            raise MetadataError(f"there is no call {pallet}.{name}{near(name, self._call_variants(pallet))}")
        shown = {pallet: {name: arguments} if arguments else name}
        return self.registry.encode(self.document.call_type, self.plain.read(self.document.call_type, shown))

    def encode_call(self, pallet: str, call: str, arguments: Mapping[str, Any]) -> bytes:
        """Raises MetadataError, ScaleError (naming the argument that does not fit), ValueError (no account)."""
        value = self.call_value(pallet, call, arguments)
        try:
            return self.registry.encode(self.document.call_type, value)
        except ScaleError as error:
            raise self._misfit(pallet, call, value[1][1]) or error from error

    def _misfit(self, pallet: str, call: str, arguments: Mapping[str, Any]) -> ScaleError | None:
        """The error of the first argument that cannot be encoded."""
        for name, value in arguments.items():
            try:
                self.registry.encode(self.argument_type(pallet, call, name), value)
            except ScaleError as error:
                return ScaleError(f"{pallet}.{call}, {name}: {error}")
        return None

    def encode(self, type_id: int, value: Any) -> bytes:
        """A value of any type, with names of accounts in it. Raises ScaleError, ValueError."""
        return self.registry.encode(type_id, self._adapt(type_id, value))

    def api(self, api: str, method: str) -> ApiMethod:
        """A runtime API. Raises MetadataError."""
        name = f"{api}_{method}"
        found = self.document.apis.get(name)
        if found is not None:
            return found
        if not self.document.describes_apis:
            raise MetadataError(
                f"{name} cannot be called by name: the runtime's metadata is of version 14, which does not say what "
                "runtime APIs take and give"
            )
        raise MetadataError(f"there is no runtime API {name}{near(name, self.document.apis)}")

    def has_call(self, pallet: str, call: str, *arguments: str) -> bool:
        """Whether there is this call, with these arguments among its own."""
        known = self.document.calls.get(pallet, {}).get(call)
        return known is not None and set(arguments) <= set(known)

    def signed_parts(self, values: Mapping[str, tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
        """What the transaction extensions put into an extrinsic, and what they add to the bytes that are signed.

        `values`: of each extension that is known; the others must want nothing. Raises MetadataError that names one
        that wants something else, and for a runtime without signed extrinsics of format 4.
        """
        if self.document.extrinsic_version != SIGNED_FORMAT:
            version = self.document.extrinsic_version
            raise MetadataError(f"the runtime has extrinsics of format {version}: only format {SIGNED_FORMAT} is known")
        extra = self.extension_bytes({name: pair[0] for name, pair in values.items()})
        return extra, self.extension_bytes({name: pair[1] for name, pair in values.items()}, signed_only=True)

    def extension_bytes(self, values: Mapping[str, bytes], signed_only: bool = False) -> bytes:
        """What the transaction extensions put into an extrinsic, or with `signed_only` add to the signed bytes.

        `values` as for `signed_parts`. Raises MetadataError.
        """
        out = b""
        for one in self.document.signed_extensions:
            mine = values.get(one.name, b"")
            try:
                self.registry.decode(one.additional if signed_only else one.extra, mine)
            except ScaleError as error:
                raise MetadataError(
                    f"the runtime's transaction extension {one.name} wants what is not known here: {error}"
                ) from error
            out += mine
        return out

    # -- storage and constants

    def constant(self, pallet: str, name: str) -> Any:
        """Raises MetadataError."""
        if (pallet, name) not in self.document.constants:
            known = [constant for of, constant in self.document.constants if of == pallet]
            raise MetadataError(f"there is no constant {pallet}.{name}{near(name, known)}")
        return self.document.constants[pallet, name]

    def entry(self, pallet: str, item: str) -> StorageEntry:
        """A storage item. Raises MetadataError."""
        entry = self.document.storage.get((pallet, item))
        if entry is None:
            items = [name for of, name in self.document.storage if of == pallet]
            if not items:
                pallets = {of for of, _ in self.document.storage}
                raise MetadataError(f"there is no pallet {pallet} with storage{near(pallet, pallets)}")
            raise MetadataError(f"there is no storage item {pallet}.{item}{near(item, items)}")
        return entry

    def storage_key(self, pallet: str, item: str, *keys: Any) -> bytes:
        """The full key with all keys given, a prefix with fewer. Raises MetadataError."""
        entry = self.entry(pallet, item)
        if len(keys) > len(entry.hashers):
            raise MetadataError(f"{pallet}.{item} has {len(entry.hashers)} keys, {len(keys)} were given")
        return self.key_of(entry, keys)

    def raw_key(self, entry: StorageEntry, keys: Sequence[Any]) -> bytes:
        """The full key of one entry, its keys given as JSON. Raises MetadataError, ScaleError."""
        if len(keys) != len(entry.hashers):
            raise MetadataError(f"{entry.pallet}.{entry.name} has {len(entry.hashers)} keys, {len(keys)} were given")
        read = [self.plain.read(type_id, key) for type_id, key in zip(entry.keys, keys, strict=True)]
        return self.key_of(entry, read)

    def key_of(self, entry: StorageEntry, keys: Sequence[Any]) -> bytes:
        """The same of an entry that is looked up already. Raises ScaleError, ValueError (no account)."""
        out = entry.prefix
        for hasher, type_id, key in zip(entry.hashers, entry.keys, keys, strict=False):
            digest, _, follows = HASHERS[hasher]
            raw = self.encode(type_id, key)
            out += digest(raw) + (raw if follows else b"")
        return out

    def stored(self, entry: StorageEntry, raw: bytes | None) -> Any:
        """A stored value; without one the item's default, None where it is optional. Raises ScaleError."""
        if raw is None:
            return None if entry.optional else self.registry.decode(entry.value, entry.default)
        return self.registry.decode(entry.value, raw)

    def storage_write(self, pallet: str, item: str, keys: Sequence[Any], value: Any) -> tuple[bytes, bytes | None]:
        """Raw key and value of a storage write."""
        entry = self.entry(pallet, item)
        raw = None if value is None else self.encode(entry.value, value)
        return self.storage_key(pallet, item, *keys), raw

    # -- events and errors

    def event_list(self, records: Sequence[Any]) -> list[dict[str, Any]]:
        """The same of a decoded `System.Events`."""
        out = []
        for record in records:
            phase, (pallet, event) = record["phase"], record["event"]
            name, fields = (event, ()) if isinstance(event, str) else event
            out.append(
                {
                    "phase": phase[1] if isinstance(phase, tuple) else phase,
                    "pallet": pallet,
                    "name": name,
                    "fields": fields,
                }
            )
        return out

    def show_events(self, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Events with their fields as JSON."""
        return [{**event, "fields": self._show_fields(event)} for event in events]

    def _show_fields(self, event: Mapping[str, Any]) -> Any:
        pallet, name, fields = event["pallet"], event["name"], event["fields"]
        types, events = self.document.tree["types"], self.document.storage["System", "Events"].value
        parts = types[types[events]["def"]["sequence"]["type"]]["def"]["composite"]
        type_id = next(part["type"] for part in parts if part["name"] == "event")
        shown = self.plain.show(type_id, (pallet, name if fields == () else (name, fields)))[pallet]
        return [] if isinstance(shown, str) else shown[name]

    def show_call(self, raw: bytes) -> dict[str, Any]:
        """The call in an extrinsic, as JSON: {"pallet", "call", "arguments", "signer"}. Raises ScaleError."""
        envelope, type_id = parse(raw, self.layout), self.document.call_type
        shown = self.plain.show(type_id, self.registry.decode(type_id, envelope.call))
        pallet, call = next(iter(shown.items()))
        name, arguments = (call, {}) if isinstance(call, str) else next(iter(call.items()))
        signer = None if envelope.who is None else bittensor_core.ss58_encode(envelope.who, SS58)
        return {"pallet": pallet, "call": name, "arguments": arguments, "signer": signer}

    def error_name(self, error: Any) -> str:
        """What people call a DispatchError: "NotEnoughBalanceToStake", "BadOrigin", "Token.FundsUnavailable"."""
        if isinstance(error, str):
            return error
        kind, value = error
        if kind != "Module":
            return f"{kind}.{value}" if isinstance(value, str) else str(kind)
        pallet = self._pallets.get(value["index"], "?")
        names = {index: name for name, index in self.document.errors.get(pallet, {}).items()}
        return names.get(value["error"][0], f"{pallet}.{value['error'][0]}")

    def failure(self, events: Sequence[Mapping[str, Any]]) -> str | None:
        """Name of the first error that an extrinsic's events report."""
        return next((error for error in map(self._failure, events) if error is not None), None)

    def _failure(self, event: Mapping[str, Any]) -> str | None:
        name, fields = event["name"], event["fields"]
        if name in ("ExtrinsicFailed", "BatchInterrupted"):
            named = fields if isinstance(fields, dict) else {}
            return self.error_name(named.get("dispatch_error", named.get("error")))
        if name in ("Sudid", "SudoAsDone", "ProxyExecuted", "ItemFailed"):
            values = list(fields.values()) if isinstance(fields, dict) else [fields]
            for value in values:
                if isinstance(value, tuple) and value and value[0] == "Err":
                    return self.error_name(value[1])
                if name == "ItemFailed":
                    return self.error_name(value)
        return None
