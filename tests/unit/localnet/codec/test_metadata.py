"""The metadata documents: read, indexed, written back, and refused when damaged."""

from __future__ import annotations

import pytest

from localnet.codec import metadata
from localnet.codec.document import Document
from localnet.errors import MetadataError


@pytest.fixture(scope="module")
def document() -> Document:
    return Document.load()


@pytest.mark.parametrize("version", ["v14", "v15"])
def test_decode_and_encode_are_inverse(document: Document, version: str) -> None:
    data = getattr(document, version)
    assert metadata.encode(metadata.decode(data)) == data


@pytest.mark.parametrize("version", ["v14", "v15"])
def test_only_errors_carry_documentation(document: Document, version: str) -> None:
    tree = metadata.decode(getattr(document, version))
    errors = {pallet["error"] for pallet in tree["pallets"]}
    for entry in tree["types"]:
        assert entry["docs"] == []
        for variant in entry["def"].get("variant", []):
            assert bool(variant["docs"]) == (entry["id"] in errors)


def test_constants_can_be_replaced_in_both_versions(document: Document) -> None:
    slow = Document.load({("Aura", "SlotDuration"): 12_000})
    assert document.constants["Aura", "SlotDuration"] == 250
    assert slow.constants["Aura", "SlotDuration"] == 12_000
    assert slow.v15 != document.v15 and slow.v14 != document.v14


def test_an_unknown_constant_is_refused() -> None:
    with pytest.raises(MetadataError, match="NoSuchThing"):
        Document.load({("Aura", "NoSuchThing"): 1})


def test_storage_prefixes_are_the_well_known_ones(document: Document) -> None:
    """System.Account: the prefix every Substrate tool knows by heart."""
    prefix = document.storage["System", "Account"].prefix.hex()
    assert prefix == "26aa394eea5630e07c48ae0c9558cef7b99d880ec681799c0cf30e8886371da9"


def test_what_the_sdk_asks_for_beyond_spec_461_is_there(document: Document) -> None:
    entry = document.storage["SubtensorModule", "SubnetEpochConsensus"]
    assert document.registry.decode(entry.value, entry.default) == "Yuma"


@pytest.mark.parametrize("cut", [0, 3, 4, 5, 100, -1])
def test_a_damaged_document_is_refused(document: Document, cut: int) -> None:
    with pytest.raises(MetadataError):
        metadata.decode(document.v15[:cut])


def test_an_option_is_there_or_not(document: Document) -> None:
    """A 2 where 0 or 1 belongs would come out as 1 when written again."""
    data = bytearray(document.v15)
    at = data.index(b"\x18System\x01\x18System") + 7
    data[at] = 2
    with pytest.raises(MetadataError, match="neither 0 nor 1"):
        metadata.decode(bytes(data))


def test_leftover_bytes_are_refused(document: Document) -> None:
    with pytest.raises(MetadataError, match="left over"):
        metadata.decode(document.v15 + b"\0")
