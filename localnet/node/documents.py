"""The metadata of a chain's runtime, parsed, as the runtime changes.

    head          of the code that the next block runs with: what calls are encoded by
    at(number)    of the code after a block: what a runtime API called there answers by
    made(number)  of the code that made a block: what its events and the state it left are read by

A runtime that holds its metadata parsed (`document`) shares it: `shared`. Others are asked: for version 14, which all
have, and for 15, which old ones do not. Documents are kept by the hash of the code; the same metadata is parsed once a
process. What the node itself needs to know of it is the layout of a signed extrinsic (`layout`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from localnet.abi import Runtime, State
from localnet.codec.document import Document, Extension
from localnet.codec.scale import read_compact
from localnet.errors import MetadataError, RuntimeApiMissing, RuntimeTrap, ScaleError
from localnet.node.blocks import blake2_256
from localnet.node.extrinsic import Layout, Part

log = logging.getLogger(__name__)

CODE = b":code"
MAX_KEPT = 8  # documents: runtimes that a chain has had
PARTS: dict[str, str] = {  # extension -> what it puts into an extrinsic
    "CheckMortality": "era", "CheckEra": "era", "CheckNonce": "nonce", "CheckMetadataHash": "mode",
    "ChargeTransactionPayment": "tip", "ChargeTransactionPaymentWrapper": "tip",
}  # fmt: skip

Call = Callable[[str, bytes, "int | None"], bytes]
Storage = Callable[[bytes, "int | None"], "bytes | None"]


def layout_of(document: Document) -> Layout:
    """What a signed extrinsic has between signature and call. Raises MetadataError for an address of another kind."""
    address = document.tree["types"][document.extrinsic_type("address")]["path"]
    if address[-1:] != ["MultiAddress"]:
        raise MetadataError(f"the runtime's extrinsics are signed by a {'::'.join(address)}, not by a MultiAddress")
    return tuple(_part(document, one) for one in document.signed_extensions if not document.registry.empty(one.extra))


def document_of(runtime: Runtime, state: State) -> Document:
    """The metadata that a runtime gives on a state, outside of any chain. Raises MetadataError."""
    return Documents(
        runtime, lambda method, data, _: runtime.call(method, data, state), lambda key, _: state.get(key)
    ).head


def _part(document: Document, extension: Extension) -> Part:
    known = PARTS.get(extension.name)
    if known is not None:
        return known
    return lambda data, offset: document.registry.decode_from(extension.extra, data, offset)[1]


class Documents:
    """`call` runs a runtime function after a block, `storage` reads a raw value there; None is the head."""

    def __init__(self, runtime: Runtime, call: Call, storage: Storage) -> None:
        shared = getattr(runtime, "document", None)
        self.shared = shared if isinstance(shared, Document) else None
        self._call, self._storage = call, storage
        self._kept: dict[bytes, Document] = {}
        self._newest: tuple[bytes | None, Document] | None = None
        self._layout: tuple[bytes | None, Layout | None] | None = None

    @property
    def head(self) -> Document:
        """Raises MetadataError."""
        return self._of_code(None)

    def at(self, number: int | None) -> Document:
        """Raises MetadataError, StateDiscarded."""
        return self._of_code(number)

    def made(self, number: int, oldest: int = 0) -> Document:
        """The block before the oldest one whose state is kept has no code any more: that one goes by its own.

        Raises MetadataError, StateDiscarded.
        """
        return self._of_code(max(number - 1, oldest))

    @property
    def layout(self) -> Layout | None:
        """Of the next block's extrinsics; None, and a line in the log, where the metadata does not tell. The runtime
        checks them either way."""
        code = None if self.shared is not None else self._storage(CODE, None)
        if self._layout is None or self._layout[0] != code:
            self._layout = (code, self._read_layout())
        return self._layout[1]

    def _read_layout(self) -> Layout | None:
        try:
            return layout_of(self.head)
        except MetadataError as error:
            log.warning("extrinsics are not looked into before the runtime gets them: %s", error)
            return None

    def _of_code(self, number: int | None) -> Document:
        if self.shared is not None:
            return self.shared
        code = self._storage(CODE, number)
        if self._newest is None or self._newest[0] != code:
            self._newest = (code, self._find(blake2_256(code or b""), number))
        return self._newest[1]

    def _find(self, digest: bytes, number: int | None) -> Document:
        found = self._kept.get(digest)
        if found is None:
            found = self._ask(number)
            if len(self._kept) >= MAX_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[digest] = found
        return found

    def _ask(self, number: int | None) -> Document:
        try:
            return Document.read(_unwrapped(self._call("Metadata_metadata", b"", number), 0), self._v15(number))
        except MetadataError:
            raise
        except ScaleError as error:
            raise MetadataError(f"the runtime's metadata has no length: {error}") from error
        except (RuntimeApiMissing, RuntimeTrap) as error:
            raise MetadataError(f"the runtime gives no metadata: {error}") from error

    def _v15(self, number: int | None) -> bytes:
        """Empty where the runtime has no metadata of version 15."""
        try:
            raw = self._call("Metadata_metadata_at_version", (15).to_bytes(4, "little"), number)
        except RuntimeApiMissing:
            return b""
        return _unwrapped(raw, 1) if raw[:1] == b"\1" else b""


def _unwrapped(raw: bytes, offset: int) -> bytes:
    """The bytes of an OpaqueMetadata. Raises ScaleError, MetadataError."""
    size, offset = read_compact(raw, offset)
    if size != len(raw) - offset:
        raise MetadataError(f"the runtime's metadata should have {size} bytes and has {len(raw) - offset}")
    return raw[offset:]
