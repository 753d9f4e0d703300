"""A chain by name, through its runtime's metadata: what `Localnet` gives tests and scripts.

How values look and what may stand for an account: `localnet.vocabulary`, which has the names. A runtime may be replaced
while its chain goes on, so there is one vocabulary for each that the chain has had: calls are encoded for the next
block, events and storage of a block are read as the runtime wrote them that made it. Extrinsics are signed immortal, by
any keypair of bittensor_core, and handed to the pool like those that come over the wire.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import bittensor_core

from localnet.codec.document import Document, StorageEntry
from localnet.codec.plain import Names, Plain
from localnet.codec.scale import Registry, compact, opaque
from localnet.errors import CallFailed, MetadataError, PoolRejected
from localnet.node.blocks import Block, blake2_256
from localnet.node.chain import Chain
from localnet.node.pool import Watcher
from localnet.node.runtime_api import CODE, read_version
from localnet.vocabulary import HASHERS, Vocabulary, keypair, near, public_key

__all__ = ["HASHERS", "Client", "Outcome", "Vocabulary", "keypair", "near", "public_key"]

MAX_KEPT = 8  # vocabularies
SR25519 = 1  # MultiSignature variant


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
        self._known: dict[int, Vocabulary] = {}  # by the identity of their document, which they hold
        self._version: tuple[bytes | None, bytes, bytes] | None = None

    # -- vocabularies

    @property
    def vocabulary(self) -> Vocabulary:
        """Of the runtime that makes the next block. Raises MetadataError, as everything here does for a runtime whose
        metadata cannot be used."""
        return self._of(self.chain.documents.head)

    def made(self, block: int | None) -> Vocabulary:
        """Of the runtime that made a block (default: the head). Raises StateDiscarded."""
        documents = self.chain.documents
        if documents.shared is not None:
            return self._of(documents.shared)
        number = self.chain.head.number if block is None else block
        return self._of(documents.made(number, self.chain.state.oldest))

    def after(self, block: int | None) -> Vocabulary:
        """Of the runtime that makes, or would make, the block after this one (default: the head).

        Raises StateDiscarded.
        """
        return self._of(self.chain.documents.at(block))

    def _of(self, document: Document) -> Vocabulary:
        known = self._known.get(id(document))
        if known is None:
            if len(self._known) >= MAX_KEPT:
                del self._known[next(iter(self._known))]
            known = self._known[id(document)] = Vocabulary(document)
        return known

    @property
    def document(self) -> Document:
        return self.vocabulary.document

    @property
    def registry(self) -> Registry:
        return self.vocabulary.registry

    @property
    def plain(self) -> Plain:
        return self.vocabulary.plain

    @property
    def names(self) -> Names:
        return self.vocabulary.names

    # -- calls: see Vocabulary

    def call_value(self, pallet: str, call: str, arguments: Mapping[str, Any]) -> Any:
        return self.vocabulary.call_value(pallet, call, arguments)

    def argument_type(self, pallet: str, call: str, argument: str) -> int:
        return self.vocabulary.argument_type(pallet, call, argument)

    def read_call(self, value: Any) -> bytes:
        return self.vocabulary.read_call(value)

    def encode_call(self, pallet: str, call: str, arguments: Mapping[str, Any]) -> bytes:
        return self.vocabulary.encode_call(pallet, call, arguments)

    # -- storage

    def entry(self, pallet: str, item: str) -> StorageEntry:
        return self.vocabulary.entry(pallet, item)

    def storage_key(self, pallet: str, item: str, *keys: Any) -> bytes:
        return self.vocabulary.storage_key(pallet, item, *keys)

    def raw_key(self, entry: StorageEntry, keys: Sequence[Any]) -> bytes:
        return self.vocabulary.raw_key(entry, keys)

    def storage_write(self, pallet: str, item: str, keys: Sequence[Any], value: Any) -> tuple[bytes, bytes | None]:
        return self.vocabulary.storage_write(pallet, item, keys, value)

    def query(self, pallet: str, item: str, *keys: Any, block: int | None = None) -> Any:
        """Raises MetadataError, ScaleError, StateDiscarded."""
        words = self.made(block)
        entry = words.entry(pallet, item)
        if len(keys) != len(entry.hashers):
            raise MetadataError(f"{pallet}.{item} has {len(entry.hashers)} keys, {len(keys)} were given")
        return words.stored(entry, self.chain.storage(words.key_of(entry, keys), block))

    def query_map(self, pallet: str, item: str, *keys: Any, block: int | None = None) -> dict[Any, Any]:
        """Raises MetadataError, ScaleError, StateDiscarded."""
        words = self.made(block)
        entry = words.entry(pallet, item)
        prefix = words.storage_key(pallet, item, *keys)
        number = self.chain.head.number if block is None else block
        out = {}
        for raw in self.chain.state.at(number).keys(prefix):
            value = self.chain.storage(raw, number)
            if value is not None:
                left = words.document.read_keys(entry, raw, len(prefix), len(keys))
                out[left[0] if len(left) == 1 else left] = words.registry.decode(entry.value, value)
        return out

    def call(self, api: str, method: str, *arguments: Any, block: int | None = None) -> Any:
        """A runtime API by name. Raises MetadataError, RuntimeApiMissing, RuntimeTrap."""
        words = self.after(block)
        entry = words.api(api, method)
        if len(arguments) != len(entry.inputs):
            raise MetadataError(f"{entry.name} takes {len(entry.inputs)} arguments, {len(arguments)} were given")
        data = b"".join(words.encode(of, value) for of, value in zip(entry.inputs, arguments, strict=True))
        return words.registry.decode(entry.output, self.chain.call(entry.name, data, block))

    # -- extrinsics

    def sign(self, signer: str | bittensor_core.Keypair, call: bytes, nonce: int, tip: int = 0) -> bytes:
        """A signed extrinsic of format 4, immortal, without a metadata hash. Raises MetadataError: see `extensions`."""
        pair = keypair(signer) if isinstance(signer, str) else signer
        extra, additional = self.extensions(nonce, tip)
        payload = call + extra + additional
        signature = pair.sign(payload if len(payload) <= 256 else blake2_256(payload))
        who = bytes(pair.public_key)
        return opaque(b"\x84\0" + who + bytes((SR25519,)) + bytes(signature) + extra + call)

    def extensions(self, nonce: int, tip: int) -> tuple[bytes, bytes]:
        """What the extensions put into the extrinsic, and what they add to the signed payload.

        Raises MetadataError for an extension that is not known here and wants something.
        """
        spec, transaction = self._versions()
        genesis = self.chain.genesis_hash
        mortality, fee = (b"\0", genesis), (compact(tip), b"")
        return self.vocabulary.signed_parts(
            {
                "CheckSpecVersion": (b"", spec),
                "CheckTxVersion": (b"", transaction),
                "CheckGenesis": (b"", genesis),
                "CheckMortality": mortality,
                "CheckEra": mortality,
                "CheckNonce": (compact(nonce), b""),
                "ChargeTransactionPayment": fee,
                "ChargeTransactionPaymentWrapper": fee,
                "CheckMetadataHash": (b"\0", b"\0"),
            }
        )

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
        out, words = [], self.made(block.number)
        for index in positions:
            digest, events = blake2_256((block.extrinsics or [])[index]), told.get(index, [])
            error = words.failure(events)
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
        return self.made(block).event_list(self.query("System", "Events", block=block))

    def show_events(self, events: Sequence[Mapping[str, Any]], block: int | None = None) -> list[dict[str, Any]]:
        """Events of a block (default: the head) with their fields as JSON."""
        return self.made(block).show_events(events)

    def show_call(self, raw: bytes, block: int | None = None) -> dict[str, Any]:
        """The call in an extrinsic, one of a block's or of the next one's: see Vocabulary."""
        return (self.vocabulary if block is None else self.made(block)).show_call(raw)
