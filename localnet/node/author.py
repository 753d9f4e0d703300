"""Building one block: initialize, inherents, what the pool has, finalize.

`build` runs on the open journal of the state and returns a `Draft`; the chain seals it. An extrinsic the runtime
refuses, or breaks off in, is rolled back and costs only itself. What the draft says about each pool entry is acted
upon after the block is sealed, so a block that has to be built again has had no effect.

A MEV-shield carrier is followed by the extrinsic sealed inside it (see shield.py). What a developer adds (unsigned
extrinsics before those of the pool, storage written at the very end) is marked in the header (see marks.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from localnet.codec.scale import compact, opaque
from localnet.errors import ChainError, RuntimeApiMissing, RuntimeTrap, ScaleError
from localnet.node.blocks import ZERO, Header, slot_item
from localnet.node.extrinsic import split_vector
from localnet.node.marks import Impersonated, mark
from localnet.node.pool import Entry
from localnet.node.repeats import Repeats
from localnet.node.shield import INHERENT as SHIELD_INHERENT
from localnet.node.shield import MIN_CARRIER, Shield, decode_sealed
from localnet.node.state import VersionedState
from localnet.node.validity import Refusal, read_apply_result

log = logging.getLogger(__name__)

MAX_BODY = 7_864_320  # bytes of pool extrinsics in a block: 75 % of 10 MiB, as the released chain has it
MAX_EXTRINSICS = 4096  # keeps one block below about a second of work
MAX_EXHAUSTED = 16  # extrinsics that do not fit before the author stops looking for one that does

Call = Callable[[str, bytes], bytes]
Changes: TypeAlias = "Mapping[bytes, bytes | None] | Callable[[VersionedState], Mapping[bytes, bytes | None]]"


@dataclass
class Draft:
    """A block before it is sealed, and what became of each pool entry that was tried."""

    header: Header
    extrinsics: list[bytes] = field(default_factory=list)
    included: list[Entry] = field(default_factory=list)
    refused: list[tuple[Entry, Refusal | None]] = field(default_factory=list)  # None: the runtime broke off
    unsealed: int = 0  # inner extrinsics of carriers


def inherent_data(items: Mapping[bytes, bytes]) -> bytes:
    """SCALE `InherentData`: a map of 8-byte identifiers to bytes, ascending."""
    return compact(len(items)) + b"".join(key + opaque(items[key]) for key in sorted(items))


class Author:
    """`call` runs a runtime function on the open block; `state` gives it transactions."""

    def __init__(self, call: Call, state: VersionedState, shield: Shield) -> None:
        self._call, self.state, self._shield = call, state, shield
        self._shielding = True  # until the runtime says it has no shield
        self._dropped = Repeats()  # why extrinsics were, logged already

    def build(
        self,
        parent: bytes,
        number: int,
        timestamp: int,
        slot: int,
        entries: Iterable[Entry],
        changes: Changes,
        impersonated: Sequence[Impersonated] = (),
    ) -> Draft:
        """Build block `number`. `impersonated` are applied before the pool's; `changes` are raw storage writes made
        when everything else is done, or a function that works them out then. Both are a developer's, not the chain's.

        Raises RuntimeTrap when the block cannot be built whatever its extrinsics, PoolRejected when an impersonated
        one is refused; the caller then abandons the state.
        """
        draft = Draft(Header(parent, number, ZERO, ZERO, (slot_item(slot),)))
        self._call("Core_initialize_block", draft.header.encode())
        items = {
            b"timstap0": timestamp.to_bytes(8, "little"),
            b"auraslot": slot.to_bytes(8, "little"),
            SHIELD_INHERENT: self._shield.inherent(number),
        }
        for raw in split_vector(self._call("BlockBuilder_inherent_extrinsics", inherent_data(items))):
            refusal, dispatched = self._apply(raw)
            if refusal is not None or not dispatched:
                raise ChainError(f"block {number}: an inherent failed: {refusal.text if refusal else raw.hex()}")
            draft.extrinsics.append(raw)
        placed = [(self._impersonate(draft, one), one) for one in impersonated]
        self._fill(draft, entries)
        header = Header.decode(self._call("BlockBuilder_finalize_block", b""))
        written = changes(self.state) if callable(changes) else changes
        for key, value in written.items():
            self.state.put(key, value)
        draft.header = replace(header, digest=header.digest + mark(placed, len(written)))
        return draft

    def _impersonate(self, draft: Draft, one: Impersonated) -> int:
        """Put an extrinsic that nobody signed into the block; its position. Raises PoolRejected."""
        refusal, _ = self._apply(one.argument, "DevApi_apply_extrinsic")
        if refusal is not None:
            raise refusal.rejected()
        draft.extrinsics.append(one.raw)
        return len(draft.extrinsics) - 1

    def _fill(self, draft: Draft, entries: Iterable[Entry]) -> None:
        size = exhausted = 0
        for entry in entries:
            if len(draft.extrinsics) >= MAX_EXTRINSICS or exhausted >= MAX_EXHAUSTED:
                return
            raw = entry.xt.raw
            if size + len(raw) > MAX_BODY:
                exhausted += 1
                continue
            try:
                refusal, _ = self._apply(raw)
            except (RuntimeTrap, RuntimeApiMissing) as error:
                level = self._dropped.level(str(error), logging.ERROR)
                log.log(level, "block %d: extrinsic 0x%s dropped: %s", draft.header.number, entry.xt.hash.hex(), error)
                draft.refused.append((entry, None))
                continue
            if refusal is None:
                draft.extrinsics.append(raw)
                draft.included.append(entry)
                size += len(raw)
                self._unseal(draft, raw)
            elif refusal.exhausted:
                exhausted += 1
            else:
                draft.refused.append((entry, refusal))

    def _apply(self, raw: bytes, method: str = "BlockBuilder_apply_extrinsic") -> tuple[Refusal | None, bool]:
        """Apply an extrinsic in a transaction of its own, kept unless the runtime refuses it or breaks off."""
        depth = self.state.depth
        self.state.begin()
        try:
            result = read_apply_result(self._call(method, raw))
        except BaseException:
            while self.state.depth > depth:
                self.state.rollback()
            raise
        if result[0] is None:
            self.state.commit()
        else:
            self.state.rollback()
        return result

    def _unseal(self, draft: Draft, raw: bytes) -> None:
        """Append the extrinsic sealed inside `raw`, if it is a carrier."""
        if not self._shielding or len(raw) < MIN_CARRIER:
            return
        number = draft.header.number
        try:
            sealed = decode_sealed(self._read("ShieldApi_try_decode_shielded_tx", raw))
            if sealed is None:
                return
            inner = self._shield.open(sealed, number)
            if inner is None:
                log.warning("block %d: a shielded extrinsic was not sealed to a current key", number)
                return
            refusal, _ = self._apply(inner)
        except RuntimeApiMissing:
            self._shielding = False
            log.info("the runtime has no MEV shield: carriers are not opened")
            return
        except (RuntimeTrap, ScaleError) as error:
            log.warning("block %d: a shielded extrinsic was dropped: %s", number, error)
            return
        if refusal is not None:
            log.warning("block %d: a shielded extrinsic was refused: %s", number, refusal.text)
            return
        draft.extrinsics.append(inner)
        draft.unsealed += 1

    def _read(self, method: str, data: bytes) -> bytes:
        depth = self.state.depth
        self.state.begin()
        try:
            return self._call(method, data)
        finally:
            while self.state.depth > depth:
                self.state.rollback()
