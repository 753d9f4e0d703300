"""The SCALE registry: exact both ways, and strict about what it reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localnet.codec.document import Document
from localnet.codec.scale import Registry, Some, compact, read_compact
from localnet.errors import ScaleError


@pytest.fixture(scope="module")
def document() -> Document:
    return Document.load()


def entry(definition: dict[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"path": list(path), "def": definition}


def field(type_id: int, name: str | None = None) -> dict[str, Any]:
    return {"name": name, "type": type_id}


def option(inner: int) -> dict[str, Any]:
    none = {"name": "None", "index": 0, "fields": []}
    return entry({"variant": [none, {"name": "Some", "index": 1, "fields": [field(inner)]}]}, ("Option",))


U8, U16, BOOL, PAIR, PAIRS, OPTION, NESTED, FLAGS = range(8)
TYPES = [
    entry({"primitive": "u8"}),
    entry({"primitive": "u16"}),
    entry({"primitive": "bool"}),
    entry({"tuple": [U16, U16]}),
    entry({"sequence": {"type": PAIR}}),
    option(U8),
    option(OPTION),
    entry({"sequence": {"type": BOOL}}),
]


@given(st.integers(0, (1 << 536) - 1))
def test_compact_round_trips(value: int) -> None:
    data = compact(value)
    assert read_compact(data, 0) == (value, len(data))


@pytest.mark.parametrize("data", ["0100", "02000000", "0300000000", "070000004000", "01", "02ff", "03"])
def test_a_compact_that_is_too_long_or_cut_is_refused(data: str) -> None:
    with pytest.raises(ScaleError):
        read_compact(bytes.fromhex(data), 0)


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 65535)), max_size=300))
def test_rows_of_integers_round_trip(rows: list[tuple[int, int]]) -> None:
    registry = Registry(TYPES)
    data = registry.encode(PAIRS, rows)
    assert registry.decode(PAIRS, data) == rows
    assert len(data) == len(compact(len(rows))) + 4 * len(rows)


@pytest.mark.parametrize(("value", "data"), [(None, "00"), (Some((None,)), "0100"), (Some((7,)), "010107")])
def test_nested_options_keep_their_layers(value: Any, data: str) -> None:
    registry = Registry(TYPES)
    assert registry.encode(NESTED, value).hex() == data
    assert registry.decode(NESTED, bytes.fromhex(data)) == value


@pytest.mark.parametrize(
    ("type_id", "data"), [(BOOL, "02"), (FLAGS, "0402"), (OPTION, "02"), (PAIRS, "0400"), (U16, "000000")]
)
def test_bytes_no_encoder_writes_are_refused(type_id: int, data: str) -> None:
    with pytest.raises(ScaleError):
        Registry(TYPES).decode(type_id, bytes.fromhex(data))


@pytest.mark.parametrize("value", [70_000, -1, "x", None])
def test_a_value_that_does_not_fit_is_refused(value: Any) -> None:
    with pytest.raises(ScaleError):
        Registry(TYPES).encode(U16, value)


def test_a_call_round_trips(document: Document) -> None:
    value = (
        "Utility",
        ("batch", {"calls": [("Balances", ("transfer_keep_alive", {"dest": ("Id", bytes(32)), "value": 5}))] * 3}),
    )
    data = document.registry.encode(document.call_type, value)
    assert document.registry.decode(document.call_type, data) == value


def test_a_recorded_transfer_call_encodes_to_the_recorded_bytes(document: Document) -> None:
    """Recorded from a spec-461 node: transfer_keep_alive(Bob, 12345)."""
    bob = bytes.fromhex("8eaf04151687736326c9fea17e25fc5287613693c912909cb226aa4794f26a48")
    call = ("Balances", ("transfer_keep_alive", {"dest": ("Id", bob), "value": 12345}))
    assert document.registry.encode(document.call_type, call).hex() == f"050300{bob.hex()}e5c0"


def test_a_tower_of_batches_is_refused_without_a_stack_overflow(document: Document) -> None:
    layer = document.registry.encode(document.call_type, ("Utility", ("batch", {"calls": []})))[:2]
    tower = (layer + compact(1)) * 10_000 + layer + compact(0)
    with pytest.raises(ScaleError):
        document.registry.decode(document.call_type, tower)


@given(st.binary(max_size=200))
def test_random_bytes_decode_or_are_refused(data: bytes) -> None:
    document = _document()
    try:
        value, end = document.registry.decode_from(document.call_type, data, 0)
    except ScaleError:
        return
    assert document.registry.encode(document.call_type, value) == data[:end]


_cached: list[Document] = []


def _document() -> Document:
    if not _cached:
        _cached.append(Document.load())
    return _cached[0]
