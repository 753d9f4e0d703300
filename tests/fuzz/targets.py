"""What any bytes may do to the decoders: be refused with the right error, or come out as they went in.

Each target takes bytes and raises AssertionError (or whatever broke) when a decoder misbehaves. The suite feeds them
from hypothesis (tests/unit/localnet/codec/test_decoders.py); `python -m tests.fuzz.run TARGET` feeds them from atheris,
guided by coverage, for as long as one likes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

from localnet.codec import metadata
from localnet.codec.scale import read_compact
from localnet.errors import ChainError, ExtrinsicFormat, MetadataError, RuntimeTrap, ScaleError
from localnet.node import extrinsic as envelope
from localnet.node.blocks import Header
from localnet.node.store import decode_journal, encode_journal
from localnet.node.validity import read_apply_result, read_validity
from localnet.runtime import extrinsic as xt
from localnet.runtime.runtime import SpecRuntime
from tests.support.extrinsics import Draft


@lru_cache(maxsize=1)
def runtime() -> SpecRuntime:
    return SpecRuntime.in_memory()


@lru_cache(maxsize=1)
def type_ids() -> list[int]:
    """Every type that bytes from outside are decoded with: storage, keys, calls, arguments and answers of APIs."""
    document = runtime().document
    ids = {document.call_type, runtime()._error_type, runtime()._digest_type, runtime()._event_type}
    for entry in document.storage.values():
        ids.update((entry.value, *entry.keys))
    for api in document.apis.values():
        ids.update((api.output, *api.inputs))
    return sorted(ids)


def round_trip(type_id: int, data: bytes) -> None:
    registry = runtime().document.registry
    try:
        value = registry.decode(type_id, data)
    except ScaleError:
        return
    assert registry.encode(type_id, value) == data, f"{registry.name(type_id)}: {data.hex()} -> {value!r}"


def call(data: bytes) -> None:
    """A RuntimeCall."""
    round_trip(runtime().document.call_type, data)


def any_type(data: bytes) -> None:
    """A value of the type that the first two bytes choose."""
    if len(data) >= 2:
        ids = type_ids()
        round_trip(ids[int.from_bytes(data[:2], "little") % len(ids)], data[2:])


def document(data: bytes) -> None:
    """Runtime metadata."""
    try:
        tree = metadata.decode(data)
    except MetadataError:
        return
    assert metadata.encode(tree) == data


def extrinsic(data: bytes) -> None:
    """Both parsers of the envelope: what both take they read the same way."""
    try:
        outer = envelope.parse(data)
    except ExtrinsicFormat:
        outer = None
    try:
        inner = xt.parse(data)
    except ScaleError:
        inner = None
    if inner is None or outer is None:
        assert inner is None or inner.who is None, "the runtime takes a signed extrinsic that the node refuses"
        return
    same = (outer.who, outer.nonce, outer.tip) == (inner.who, inner.nonce, inner.tip)
    eras = outer.era is None if inner.era is None else outer.era is not None and (
        (outer.era.period, outer.era.phase) == (inner.era.period, inner.era.phase)
    )  # fmt: skip
    assert same and eras, data.hex()


def validate(data: bytes) -> None:
    """An extrinsic at the pool's door: an answer that can be read, or a trap, and no trace."""
    rt = runtime()
    before = rt.state.get(rt.system.Number.entry.prefix)
    try:
        answer = rt.call("TaggedTransactionQueue_validate_transaction", b"\2" + data + bytes(32), rt.state)
    except RuntimeTrap:
        answer = None
    if answer is not None:
        read_validity(answer)
    assert rt.state.get(rt.system.Number.entry.prefix) == before


def signed_call(data: bytes) -> None:
    """A call as Alice signs it, applied to a block and undone: nothing breaks off."""
    rt = runtime()
    nonce = rt.system.Account[ALICE]["nonce"]
    raw = Draft(rt, "//Alice", data, nonce, rt.system.BlockHash[0]).sign()
    rt.state.begin()
    mark = len(rt.events)
    try:
        refusal, _ = read_apply_result(rt.call("BlockBuilder_apply_extrinsic", raw, rt.state))
        assert refusal is not None or len(rt.events) > mark
    finally:
        rt.state.rollback()
        del rt.events[mark:]


ALICE = bytes.fromhex("d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d")


def node_bytes(data: bytes) -> None:
    """Headers, lists of extrinsics, undo records, compact numbers, answers of a runtime."""
    for decode, encode, error in (
        (Header.decode, Header.encode, ScaleError),
        (envelope.split_vector, envelope.join_vector, ExtrinsicFormat),
    ):  # type: Callable[..., object], Callable[..., bytes], type[LocalnetError]
        try:
            value = decode(data)
        except error:
            continue
        assert encode(value) == data
    for read in (decode_journal, read_validity, read_apply_result, lambda raw: read_compact(raw, 0)):
        try:
            read(data)
        except (ScaleError, ChainError):
            continue
        except IndexError:
            assert read is decode_journal  # the store reports damage for it
    try:
        journal = decode_journal(data)
    except (ScaleError, IndexError):
        return
    assert decode_journal(encode_journal(journal)) == journal


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (call, any_type, document, extrinsic, validate, signed_call, node_bytes)
}


def seeds(name: str) -> Iterator[bytes]:
    """Bytes that mean something to a target, to start from."""
    rt = runtime()
    calls = [
        rt.encode_call("Balances", "transfer_keep_alive", {"dest": ("Id", ALICE), "value": 10**9}),
        rt.encode_call("SubtensorModule", "set_weights", {"netuid": 1, "dests": [0], "weights": [1], "version_key": 0}),
        rt.encode_call("Utility", "batch", {"calls": [("System", ("remark", {"remark": b"x"}))] * 2}),
    ]
    signed = [Draft(rt, "//Alice", one, 0, rt.system.BlockHash[0]).sign() for one in calls]
    if name in ("call", "signed_call"):
        yield from calls
    elif name == "any_type":
        yield from (index.to_bytes(2, "little") + bytes(40) for index in range(0, len(type_ids()), 7))
    elif name == "document":
        yield small_document()
    elif name in ("extrinsic", "validate"):
        yield from signed
    else:
        header = Header(bytes(32), 7, digest=(b"\x06aura\x20" + bytes(8),))
        yield from (header.encode(), envelope.join_vector(signed), encode_journal({b"k": None, b"key": b"value" * 20}))


def small_document() -> bytes:
    """A metadata document with one of everything."""
    field = {"name": "f", "type": 0, "type_name": None, "docs": ["d"]}
    variant = {"name": "V", "fields": [field], "index": 3, "docs": []}
    definitions = [
        {"primitive": "u8"}, {"composite": [field]}, {"variant": [variant]}, {"sequence": {"type": 0}},
        {"array": {"len": 4, "type": 0}}, {"tuple": [0, 1]}, {"compact": 0}, {"bitsequence": [0, 1]},
    ]  # fmt: skip
    types = [
        {"id": index, "path": ["a", "B"], "params": [["T", None]], "def": definition, "docs": []}
        for index, definition in enumerate(definitions)
    ]
    entries = [
        {"name": "E", "modifier": "Default", "hashers": [], "key": None, "value": 0, "default": b"\0", "docs": []},
        {
            "name": "M",
            "modifier": "Optional",
            "hashers": ["Identity"],
            "key": 0,
            "value": 1,
            "default": b"",
            "docs": [],
        },
    ]
    constant = {"name": "C", "type": 0, "value": b"\1", "docs": []}
    pallet = {
        "name": "P", "storage": {"prefix": "P", "entries": entries}, "calls": 2, "event": None,
        "constants": [constant], "error": 2, "index": 9, "docs": [],
    }  # fmt: skip
    api_method = {"name": "m", "inputs": [{"name": "i", "type": 0}], "output": 1, "docs": []}
    return metadata.encode({
        "version": 15, "types": types, "pallets": [pallet],
        "extrinsic": {"version": 4, "address": 0, "call": 2, "signature": 0, "extra": 0,
                      "extensions": [{"id": "X", "type": 0, "additional": 0}]},
        "runtime_type": 0, "apis": [{"name": "A", "methods": [api_method], "docs": []}],
        "outer": [2, 2, 2], "custom": [{"name": "c", "type": 0, "value": b"\0"}],
    })  # fmt: skip
