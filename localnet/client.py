"""Calls, storage, events and errors of a chain by name, through its metadata: what `Localnet` gives tests and scripts.

Values are those of `localnet.codec.scale`. On the way in, an account may also be an SS58 address or a secret URI
("//Alice"), wherever the metadata wants an AccountId or a MultiAddress, and a call inside a call (proxy, batch) is
("Pallet", "call", {argument: value}). Extrinsics are signed immortal, by any
keypair of bittensor_core, and handed to the pool like those that come over the wire.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import bittensor_core
import xxhash

from localnet.codec import metadata
from localnet.codec.document import Document, StorageEntry
from localnet.codec.plain import SS58, Names, Plain
from localnet.codec.scale import compact, opaque, read_compact
from localnet.errors import CallFailed, MetadataError, PoolRejected, ScaleError
from localnet.node.blocks import Block, blake2_256
from localnet.node.chain import Chain
from localnet.node.extrinsic import parse
from localnet.node.pool import Watcher
from localnet.node.runtime_api import CODE, read_version

SR25519 = 1  # MultiSignature variant


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


@dataclass(frozen=True)
class Outcome:
    """What became of an extrinsic. `error` is the chain's name for the failure, or the pool's text for a refusal.

    A batch, sudo or proxy call whose inner call failed counts as failed although its own dispatch succeeded.
    """

    success: bool
    error: str | None
    extrinsic_hash: str
    block: int | None = None  # None: in no block
    block_hash: str | None = None
    index: int | None = None  # position in the block
    events: list[dict[str, Any]] = field(default_factory=list)

    def checked(self) -> Outcome:
        """This outcome. Raises CallFailed unless it is a success."""
        if not self.success:
            where = "not included" if self.block is None else f"in block {self.block}"
            raise CallFailed(self.error or "unknown", where)
        return self


class Client:
    """Names and values for one chain."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.document = _document(chain)
        self.registry = self.document.registry
        self._version: tuple[bytes | None, bytes, bytes] | None = None
        self._pallets = {index: name for name, index in self.document.pallet_index.items()}
        self.plain = Plain(self.document, public_key)
        self.names = Names(self.plain)

    # -- values

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

    # -- storage

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
        return self._key(entry, [self._adapt(type_id, key) for type_id, key in zip(entry.keys, keys, strict=False)])

    def raw_key(self, entry: StorageEntry, keys: Sequence[Any]) -> bytes:
        """The full key of one entry, its keys given as JSON. Raises MetadataError, ScaleError."""
        if len(keys) != len(entry.hashers):
            raise MetadataError(f"{entry.pallet}.{entry.name} has {len(entry.hashers)} keys, {len(keys)} were given")
        return self._key(entry, [self.plain.read(type_id, key) for type_id, key in zip(entry.keys, keys, strict=True)])

    def _key(self, entry: StorageEntry, keys: Sequence[Any]) -> bytes:
        out = entry.prefix
        for hasher, type_id, key in zip(entry.hashers, entry.keys, keys, strict=False):
            digest, _, follows = HASHERS[hasher]
            raw = self.registry.encode(type_id, key)
            out += digest(raw) + (raw if follows else b"")
        return out

    def query(self, pallet: str, item: str, *keys: Any, block: int | None = None) -> Any:
        entry = self.entry(pallet, item)
        if len(keys) != len(entry.hashers):
            raise MetadataError(f"{pallet}.{item} has {len(entry.hashers)} keys, {len(keys)} were given")
        raw = self.chain.storage(self.storage_key(pallet, item, *keys), block)
        if raw is not None:
            return self.registry.decode(entry.value, raw)
        return None if entry.optional else self.registry.decode(entry.value, entry.default)

    def query_map(self, pallet: str, item: str, *keys: Any, block: int | None = None) -> dict[Any, Any]:
        entry = self.entry(pallet, item)
        prefix = self.storage_key(pallet, item, *keys)
        number = self.chain.head.number if block is None else block
        out = {}
        for raw in self.chain.state.at(number).keys(prefix):
            value = self.chain.storage(raw, number)
            if value is not None:
                out[self._decode_key(entry, raw, len(prefix), len(keys))] = self.registry.decode(entry.value, value)
        return out

    def _decode_key(self, entry: StorageEntry, raw: bytes, offset: int, skip: int) -> Any:
        parts = []
        for hasher, type_id in zip(entry.hashers[skip:], entry.keys[skip:], strict=True):
            _, size, follows = HASHERS[hasher]
            if not follows:
                raise MetadataError(f"{entry.pallet}.{entry.name}: keys cannot be read back from {hasher}")
            part, offset = self.registry.decode_from(type_id, raw, offset + size)
            parts.append(part)
        return parts[0] if len(parts) == 1 else tuple(parts)

    def storage_write(self, pallet: str, item: str, keys: Sequence[Any], value: Any) -> tuple[bytes, bytes | None]:
        """Raw key and value of a storage write."""
        entry = self.entry(pallet, item)
        raw = None if value is None else self.registry.encode(entry.value, self._adapt(entry.value, value))
        return self.storage_key(pallet, item, *keys), raw

    def call(self, api: str, method: str, *arguments: Any, block: int | None = None) -> Any:
        """A runtime API by name. Raises MetadataError, RuntimeApiMissing, RuntimeTrap."""
        entry = self.document.apis.get(f"{api}_{method}")
        if entry is None:
            raise MetadataError(f"there is no runtime API {api}_{method}")
        if len(arguments) != len(entry.inputs):
            raise MetadataError(f"{entry.name} takes {len(entry.inputs)} arguments, {len(arguments)} were given")
        pairs = zip(entry.inputs, arguments, strict=True)
        data = b"".join(self.registry.encode(type_id, self._adapt(type_id, value)) for type_id, value in pairs)
        return self.registry.decode(entry.output, self.chain.call(entry.name, data, block))

    # -- extrinsics

    def sign(self, signer: str | bittensor_core.Keypair, call: bytes, nonce: int, tip: int = 0) -> bytes:
        """A signed extrinsic of format 4, immortal, without a metadata hash."""
        pair = keypair(signer) if isinstance(signer, str) else signer
        extra, additional = self.extensions(nonce, tip)
        payload = call + extra + additional
        signature = pair.sign(payload if len(payload) <= 256 else blake2_256(payload))
        who = bytes(pair.public_key)
        return opaque(b"\x84\0" + who + bytes((SR25519,)) + bytes(signature) + extra + call)

    def extensions(self, nonce: int, tip: int) -> tuple[bytes, bytes]:
        """What the extensions put into the extrinsic, and what they add to the signed payload."""
        spec, transaction = self._versions()
        genesis = self.chain.genesis_hash
        known = {
            "CheckSpecVersion": (b"", spec),
            "CheckTxVersion": (b"", transaction),
            "CheckGenesis": (b"", genesis),
            "CheckMortality": (b"\0", genesis),
            "CheckNonce": (compact(nonce), b""),
            "ChargeTransactionPayment": (compact(tip), b""),
            "CheckMetadataHash": (b"\0", b"\0"),
        }
        pairs = [known.get(name, (b"", b"")) for name in self.document.extensions]
        return b"".join(extra for extra, _ in pairs), b"".join(additional for _, additional in pairs)

    def _versions(self) -> tuple[bytes, bytes]:
        """Spec and transaction version, asked again only when the code changed."""
        code = self.chain.storage(CODE)
        if self._version is None or self._version[0] != code:
            version = read_version(self.chain.call("Core_version", b""))
            spec, transaction = (version[name].to_bytes(4, "little") for name in ("specVersion", "transactionVersion"))
            self._version = (code, spec, transaction)
        return self._version[1:]

    def submit(self, raw: bytes, watcher: Watcher) -> Outcome | None:
        """Hand an extrinsic to the pool; the outcome if it is refused."""
        try:
            self.chain.submit(raw, watcher)
        except PoolRejected as error:
            return Outcome(False, error.data or error.message, "0x" + blake2_256(raw).hex())
        return None

    def not_included(self, status: Any) -> Outcome | None:
        """The outcome for a last status that is not inclusion."""
        if isinstance(status, dict) and ("inBlock" in status or "finalized" in status):
            return None
        name = next(iter(status)) if isinstance(status, dict) else str(status)
        return Outcome(False, name, "")

    def outcome(self, raw: bytes, chain: Chain) -> Outcome:
        """What the newest block that carries an extrinsic says about it."""
        block = self._carrier(raw)
        return self.outcomes(block, [(block.extrinsics or []).index(raw)])[0]

    def outcomes(self, block: Block, positions: Sequence[int]) -> list[Outcome]:
        """What a block says about the extrinsics at these positions."""
        told: dict[Any, list[dict[str, Any]]] = {}
        for event in self.events(block.number):
            told.setdefault(event["phase"], []).append(event)
        out = []
        for index in positions:
            digest, events = blake2_256((block.extrinsics or [])[index]), told.get(index, [])
            error = self.failure(events)
            place = (block.number, "0x" + block.hash.hex(), index)
            out.append(Outcome(error is None, error, "0x" + digest.hex(), *place, events))
        return out

    def _carrier(self, raw: bytes) -> Block:
        for block in reversed(self.chain.blocks):
            if block.extrinsics is not None and raw in block.extrinsics:
                return block
        raise MetadataError("no kept block carries this extrinsic")

    # -- events and errors

    def events(self, block: int | None = None) -> list[dict[str, Any]]:
        """Events of a block: phase is the extrinsic's position, or "Initialization", "Finalization"."""
        return self.event_list(self.query("System", "Events", block=block))

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
        envelope, type_id = parse(raw), self.document.call_type
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


def _document(chain: Chain) -> Document:
    """The runtime's metadata, parsed; a runtime that already holds it parsed shares it."""
    shared = getattr(chain.runtime, "document", None)
    if isinstance(shared, Document):
        return shared
    documents = []
    for version in (14, 15):
        raw = chain.call("Metadata_metadata_at_version", version.to_bytes(4, "little"))
        if raw[:1] != b"\1":
            raise MetadataError(f"the runtime has no metadata of version {version}")
        try:
            size, offset = read_compact(raw, 1)
        except ScaleError as error:
            raise MetadataError(f"the runtime's metadata has no length: {error}") from error
        documents.append(raw[offset : offset + size])
    return Document(documents[0], documents[1], metadata.decode(documents[1]))
