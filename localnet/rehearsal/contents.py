"""What a state holds, by name: storage versions, items, and what the metadata cannot make sense of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from localnet.codec.document import Document, twox128
from localnet.errors import ScaleError
from localnet.net import Localnet
from localnet.rehearsal.documents import Named

VERSION_KEY = twox128(b":__STORAGE_VERSION__:")
MAX_EXAMPLES = 3  # values shown of an item that cannot be decoded


@dataclass(frozen=True)
class Contents:
    """What a state holds, by name. `undecodable`: item -> (how many values, what was said of some)."""

    versions: Mapping[str, int]
    items: Mapping[str, int]
    unknown: Mapping[str, int]
    undecodable: Mapping[str, tuple[int, tuple[str, ...]]]


def contents(net: Localnet) -> Contents:
    """All of the head's state, under the metadata of the runtime that makes the next block."""
    named = Named(net.client.document)
    pallets = _pallet_prefixes(named.document)
    versions, items, unknown = {}, Counter[str](), Counter[str]()
    bad: dict[str, list[str]] = {}
    for key, value in net.chain.state.head.items():
        pallet = pallets.get(key[:16])
        if pallet is not None and key[16:] == VERSION_KEY:
            versions[pallet] = int.from_bytes(value, "little")
            continue
        entry = named.by_prefix.get(key[:32])
        if entry is None:
            if not key.startswith(b":"):  # the state's own keys, such as :code
                unknown[pallet or "0x" + key[:16].hex()] += 1
            continue
        name = f"{entry.pallet}.{entry.name}"
        items[name] += 1
        try:
            named.keys_of(entry, key)
            named.decode(entry, value)
        except ScaleError as error:
            bad.setdefault(name, []).append(f"0x{key.hex()} holds 0x{value[:32].hex()}: {error}")
    undecodable = {name: (len(said), tuple(said[:MAX_EXAMPLES])) for name, said in sorted(bad.items())}
    return Contents(versions, items, unknown, undecodable)


def _pallet_prefixes(document: Document) -> dict[bytes, str]:
    """The first 16 bytes of a pallet's keys -> its name."""
    prefixes = {twox128(name.encode()): name for name in document.pallet_index}
    return prefixes | {entry.prefix[:16]: entry.pallet for entry in document.storage.values()}
