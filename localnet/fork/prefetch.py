"""What to ask for beside what is asked for: storage is read in families, and a round trip costs more than many keys.

A runtime that starts a block reads the same keys as in the block before, so a cache that has seen this chain knows most
of them (`prefetch`). The first time, the metadata says what there is (`Advisor.cold`): single values, whose keys have
no unknown part, and maps by subnet, whose keys follow from the list of subnets.

After that `Advisor` answers one missed key with its siblings, by the shape of the item's keys:

    (subnet)                       the same item of every subnet
    (subnet, uid)                  ... of every neuron of the subnet
    (subnet, hotkey), (hotkey, subnet), (hotkey)
                                   ... of every hotkey of the subnet; for a coldkey of all that own one
    (hotkey, coldkey, subnet)      ... of every hotkey with the coldkey that owns it
    (subnet, anything else)        ... of every subnet with the same rest
    (a pallet's account of a subnet)
                                   ... of every subnet
    (block)                        ... of the blocks that follow

so an epoch over 256 neurons costs a round trip for each item it reads and not for each neuron. Whoever misses an item
in one subnet after another gets those of more and more subnets at once. A subnet's number and a uid are both u16 in the
metadata; a storage index counts as its subnet's, as the released chain computes it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from localnet.codec.document import Document, StorageEntry
from localnet.errors import ForkError
from localnet.fork.base import ITEM, MOST, Base
from localnet.fork.cache import SCANNED, VALUE, WALKED
from localnet.fork.transport import Interrupted
from localnet.vocabulary import HASHERS

log = logging.getLogger(__name__)

SUBTENSOR = "SubtensorModule"
SUBNETS, NEURONS, OWNER = "NetworksAdded", "Keys", "Owner"  # subnet -> bool; (subnet, uid) -> hotkey; hotkey -> coldkey
MAX_SUBNETS = 1 << 12  # a storage index is subnet + 4096 x mechanism (subtensor, GLOBAL_MAX_SUBNET_COUNT)
MAX_SIBLINGS = 4096  # keys fetched beside one
AHEAD = 512  # blocks
WHOLE = 3  # subnets beside one of which an item is listed before all of the item is
PALLET, SUBNET_AT = b"modl", 12  # accounts of pallets: 4 bytes, pallet id of 8, what it is for (frame, PalletId)
U16, U32, ACCOUNT, OTHER = "subnet", "block", "account", "other"
"""Shapes of a key."""
SIZES = {U16: 2, U32: 4, ACCOUNT: 32}
FAMILIES = ((U16, U16), (U16, ACCOUNT), (ACCOUNT, U16), (ACCOUNT,), (ACCOUNT, ACCOUNT, U16))

T = TypeVar("T")
HASHES = {name: size for name, (_, size, follows) in HASHERS.items() if follows}  # bytes in front of the key itself


@dataclass(frozen=True)
class Item:
    """A storage map whose keys are understood, or at least that the first one is a u16."""

    entry: StorageEntry
    shapes: tuple[str, ...]

    @property
    def readable(self) -> bool:
        return OTHER not in self.shapes and all(hasher in HASHES for hasher in self.entry.hashers)

    def key(self, parts: Sequence[bytes]) -> bytes:
        out = self.entry.prefix
        for hasher, part in zip(self.entry.hashers, parts, strict=True):
            out += HASHERS[hasher][0](part) + part
        return out

    def prefix(self, first: int) -> bytes:
        """Of all keys whose first part is this u16."""
        return self.entry.prefix + HASHERS[self.entry.hashers[0]][0](_u16(first)) + _u16(first)

    def parts(self, key: bytes) -> tuple[bytes, ...] | None:
        """The keys in a full storage key, encoded; None when it is not one."""
        found, offset = [], ITEM
        for hasher, shape in zip(self.entry.hashers, self.shapes, strict=True):
            offset += HASHES[hasher]
            size = SIZES[shape]
            found.append(key[offset : offset + size])
            offset += size
        return tuple(found) if offset == len(key) else None


def _u16(number: int) -> bytes:
    return number.to_bytes(2, "little")


def _moved(index: int, subnet: int) -> int:
    """A storage index of the same mechanism in another subnet."""
    return index - index % MAX_SUBNETS + subnet


def items(document: Document) -> dict[bytes, Item]:
    """By prefix."""
    found = {}
    for entry in document.storage.values():
        shapes = tuple(_shape(document, type_id) or OTHER for type_id in entry.keys)
        readable = shapes and OTHER not in shapes and all(hasher in HASHES for hasher in entry.hashers)
        if readable or (shapes[:1] == (U16,) and entry.hashers[0] in HASHES):
            found[entry.prefix] = Item(entry, shapes)
    return found


def _shape(document: Document, type_id: int) -> str | None:
    """U16 and U32 for such a number or a newtype of it, ACCOUNT for an account id."""
    for _ in range(8):
        entry = document.tree["types"][type_id]
        kind, body = next(iter(entry["def"].items()))
        if entry["path"][-1:] == ["AccountId32"]:
            return ACCOUNT
        if kind == "primitive":
            return {"u16": U16, "u32": U32}.get(str(body).lower())
        if kind != "composite" or len(body) != 1:
            return None
        type_id = body[0]["type"]
    return None


class Advisor:
    """Called with a key that is missed; gives the keys to fetch with it. `stretches`: the same of prefixes."""

    def __init__(self, document: Document, base: Base) -> None:
        self._document, self._base = document, base
        self._items = items(document)
        self._busy = False  # what is read in here is not advised upon
        self._hotkeys: dict[int, list[bytes]] = {}  # by subnet, in the order of uids
        self._coldkeys: dict[int, list[bytes]] = {}  # the owner of each
        self._met: dict[bytes, tuple[bool, int]] = {}  # account -> whether it is a hotkey, the subnet it was met in
        self._asked: set[tuple[bytes, int, bytes]] = set()  # families that were fetched: item, subnet, constant part
        self._ahead: dict[bytes, int] = {}  # item -> further subnets to fetch it for the next time that it is missed

    def __call__(self, key: bytes) -> list[bytes]:
        item = self._items.get(key[:ITEM])
        if item is not None and not item.readable:
            rest = key[len(item.prefix(0)) :]  # each part is hashed alone
            return self._advise(lambda: [item.prefix(subnet) + rest for subnet in self.subnets()])
        parts = None if item is None else item.parts(key)
        return [] if item is None or parts is None else self._advise(lambda: self._siblings(item, parts))

    def stretches(self, prefix: bytes) -> list[bytes]:
        """The same prefix in other subnets, when it is that of a subnet in an item."""
        item = self._items.get(prefix[:ITEM])
        if item is None or item.shapes[0] != U16 or len(item.shapes) == 1:
            return []
        if len(prefix) != ITEM + HASHES[item.entry.hashers[0]] + 2:
            return []
        if self._ahead.get(item.entry.prefix + b"listed", 0) >= WHOLE:
            return [item.entry.prefix]
        index = int.from_bytes(prefix[-2:], "little")
        group = self._advise(lambda: self._group(item, index % MAX_SUBNETS, b"listed"))
        return [item.prefix(_moved(index, subnet)) for subnet in group]

    def _advise(self, work: Callable[[], list[T]]) -> list[T]:
        if self._busy:
            return []
        self._busy = True
        try:
            return work()
        except Interrupted:
            raise
        except ForkError:
            self._base.take_failure()  # the missed key itself is asked for next, and says what is wrong
            return []
        finally:
            self._busy = False

    def _siblings(self, item: Item, parts: tuple[bytes, ...]) -> list[bytes]:
        if item.shapes == (U16,):
            return [item.key((_u16(subnet),)) for subnet in self.subnets()]
        if item.shapes == (U32,):
            first = int.from_bytes(parts[0], "little")
            return [item.key((number.to_bytes(4, "little"),)) for number in range(first, min(first + AHEAD, 1 << 32))]
        if item.shapes == (ACCOUNT,) and parts[0].startswith(PALLET) and not any(parts[0][SUBNET_AT + 2 :]):
            own = parts[0][:SUBNET_AT]
            return [item.key(((own + _u16(subnet)).ljust(32, b"\0"),)) for subnet in self.subnets()]
        if item.shapes not in FAMILIES:
            return []
        index = next((int.from_bytes(p, "little") for s, p in zip(item.shapes, parts, strict=True) if s == U16), None)
        account = next((part for shape, part in zip(item.shapes, parts, strict=True) if shape == ACCOUNT), None)
        hotkeys, subnet = self._place(index, account)
        if subnet is None:
            return []
        constant = None if index is None or index % MAX_SUBNETS == subnet else index  # as the root subnet's is
        group = self._group(item, subnet, b"" if constant is None else _u16(constant))
        self._load(group)
        found: list[bytes] = []
        for one in group:
            place = constant if constant is not None else one if index is None else _moved(index, one)
            found += self._family(item, one, _u16(place), hotkeys)
        return found[:MAX_SIBLINGS]

    def _place(self, index: int | None, account: bytes | None) -> tuple[bool, int | None]:
        """Whether it is about hotkeys, and of which subnet."""
        if index is not None:
            subnet = index % MAX_SUBNETS
            self._load([subnet])
            if account is None or account in self._hotkeys[subnet] or account not in self._met:
                return True, subnet
        return self._met.get(account or b"", (True, None))

    def _group(self, item: Item, subnet: int, constant: bytes) -> list[int]:
        """The subnet and others near it, more each time; none when the subnet's family was fetched before."""
        prefix = item.entry.prefix
        if (prefix, subnet, constant) in self._asked:
            return []
        ahead = self._ahead.get(prefix + constant, 0)
        self._ahead[prefix + constant] = 2 * ahead + 1
        near = sorted((one for one in self.subnets() if one != subnet), key=lambda one: abs(one - subnet))
        group = [subnet, *[one for one in near if (prefix, one, constant) not in self._asked][:ahead]]
        self._asked.update((prefix, one, constant) for one in group)
        return group

    def _family(self, item: Item, subnet: int, place: bytes, hotkeys: bool) -> list[bytes]:
        """The keys of an item for everybody in a subnet, with `place` as the subnet's number in them."""
        accounts = self._hotkeys[subnet] if hotkeys else list(dict.fromkeys(self._coldkeys[subnet]))
        if item.shapes == (U16, U16):
            return [item.key((place, _u16(uid))) for uid in range(len(self._hotkeys[subnet]))]
        if item.shapes == (ACCOUNT, ACCOUNT, U16):
            pairs = zip(self._hotkeys[subnet], self._coldkeys[subnet], strict=True)
            return [item.key((hotkey, coldkey, place)) for hotkey, coldkey in pairs]
        if item.shapes == (ACCOUNT,):
            return [item.key((account,)) for account in accounts]
        first = item.shapes[0] == U16
        return [item.key((place, account) if first else (account, place)) for account in accounts]

    # -- who is where

    def _item(self, name: str, shapes: tuple[str, ...]) -> Item | None:
        entry = self._document.storage.get((SUBTENSOR, name))
        item = None if entry is None else self._items.get(entry.prefix)
        return item if item is not None and item.shapes == shapes else None

    def subnets(self) -> list[int]:
        """Numbers of the subnets; none where the runtime knows no subnets."""
        item = self._item(SUBNETS, (U16,))
        if item is None:
            return []
        found = (item.parts(key) for key in self._base.keys(item.entry.prefix))
        return [int.from_bytes(parts[0], "little") for parts in found if parts is not None]

    def _load(self, subnets: Iterable[int]) -> None:
        """Learn who is on these subnets, in three round trips."""
        wanted = [subnet for subnet in subnets if subnet not in self._hotkeys]
        neurons, owner = self._item(NEURONS, (U16, U16)), self._item(OWNER, (ACCOUNT,))
        if neurons is None or owner is None:
            self._hotkeys.update((subnet, []) for subnet in wanted)
            self._coldkeys.update((subnet, []) for subnet in wanted)
            return
        prefixes = {subnet: neurons.prefix(subnet) for subnet in wanted}
        self._base.scan(prefixes.values() if len(wanted) <= WHOLE else [neurons.entry.prefix], MOST)
        keys = {subnet: list(self._base.keys(prefix)) for subnet, prefix in prefixes.items()}
        self._base.fetch(key for found in keys.values() for key in found)
        for subnet, found in keys.items():
            values = map(self._base.get, found)
            self._hotkeys[subnet] = [value for value in values if value is not None and len(value) == 32]
        self._base.fetch(owner.key((hotkey,)) for subnet in wanted for hotkey in self._hotkeys[subnet])
        for subnet in wanted:
            owners = [self._base.get(owner.key((hotkey,))) or bytes(32) for hotkey in self._hotkeys[subnet]]
            self._coldkeys[subnet] = owners
            self._met.update(dict.fromkeys(owners, (False, subnet)))
            self._met.update(dict.fromkeys(self._hotkeys[subnet], (True, subnet)))

    def crowded(self, prefixes: Iterable[bytes]) -> list[bytes]:
        """Items that are listed subnet by subnet so often that one list of all is less."""
        counts = Counter(one[:ITEM] for one in prefixes if len(one) > ITEM and not self._base.listed(one))
        items = ((self._items.get(prefix), number) for prefix, number in counts.items())
        return [
            item.entry.prefix
            for item, number in items
            if item is not None and number > WHOLE and item.shapes[0] == U16 and len(item.shapes) > 1
        ]

    def cold(self) -> list[bytes]:
        """Keys that every block may read: single values, and what each subnet has one of."""
        single = [entry.prefix for entry in self._document.storage.values() if not entry.hashers]
        self._base.fetch(single)
        subnets = self.subnets()
        by_subnet = [item for item in self._items.values() if item.shapes == (U16,)]
        return [item.key((_u16(subnet),)) for item in by_subnet for subnet in subnets]


def prefetch(base: Base, advisor: Advisor) -> None:
    """Fetch ahead what the next blocks will read. Raises ForkError."""
    if base.remote is None:
        return
    begin, stats = time.monotonic(), base.remote.stats
    asked = stats.requests
    known = base.cache.touched(base.point.genesis)
    if known:
        listed = [key for key, kind in known if kind != VALUE]
        base.scan(advisor.crowded(listed), MOST)
        base.scan((key for key, kind in known if kind == SCANNED), MOST)
        base.walk(key for key, kind in known if kind == WALKED)
        base.fetch(key for key, kind in known if kind == VALUE)
    else:
        base.fetch(advisor.cold())
    base.save()
    log.info(
        "fetched ahead of the first block: %d requests, %d values known, %.1f s",
        stats.requests - asked, len(base.values), time.monotonic() - begin,
    )  # fmt: skip
