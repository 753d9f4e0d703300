"""The chain: blocks, their states, the pool, and one way forward, `author`.

Nothing here waits or does I/O. Genesis comes from the runtime (`GenesisBuilder_build_state`), and so does its root
(`DevApi_state_root`): a Merkle root makes the genesis hash the one that every node gives this state, zeros stand for a
digest. Either covers `:code`, so a chain with other metadata has another genesis hash (clients cache metadata by it).
Finality follows the head at a fixed lag, 0 by default.

    author()            one block from the pool (see author.py), sealed and announced to the listeners
    submit(raw)         validate on top of the head and take into the pool
    call(method, ..)    a runtime function at any block, leaving no trace
    revert(number)      back to an older block: states, blocks, and what the pool thinks of its transactions
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from localnet.abi import Runtime, State
from localnet.codec.scale import opaque
from localnet.errors import (
    ChainError,
    ExtrinsicFormat,
    ForkError,
    LocalnetError,
    PoolRejected,
    RuntimeApiMissing,
    RuntimeTrap,
    UnknownBlock,
)
from localnet.node.author import Author, Changes, Draft
from localnet.node.blocks import ZERO, Block, Blocks, Header, extrinsics_digest, sealed, slot_of, state_digest
from localnet.node.clock import ChainClock
from localnet.node.documents import CODE, Documents
from localnet.node.extrinsic import parse
from localnet.node.marks import Impersonated
from localnet.node.pool import BAN_BLOCKS, Entry, Pool, Watcher
from localnet.node.shield import Shield
from localnet.node.state import Journal, VersionedState
from localnet.node.trie import EMPTY_ROOT
from localnet.node.validity import Validity, bad_format, not_verifiable, read_validity

log = logging.getLogger(__name__)

SOURCE_EXTERNAL = b"\2"  # TransactionSource::External
DISCARD_STEP = 64  # blocks between discarding old states
DEFAULT_HISTORY = 16_384  # blocks whose states and bodies are kept

Listener = Callable[[Block, Journal], None]


class Chain:
    def __init__(
        self,
        runtime: Runtime,
        *,
        genesis: Mapping[str, Any] | None = None,
        secret: bytes = bytes(32),
        clock: ChainClock | None = None,
        finality_lag: int = 0,
        history: int = DEFAULT_HISTORY,
        pool: Pool | None = None,
    ) -> None:
        """`genesis`: the runtime's genesis patch. `secret`: 32 bytes for the shield's keys. `history`: 0 keeps all.

        Raises ChainError when the runtime refuses the genesis patch or makes no Aura blocks, RuntimeApiMissing when
        it has no genesis or no state root, RuntimeTrap.
        """
        self.runtime, self.clock = runtime, clock or ChainClock()
        self.finality_lag, self.history = finality_lag, history
        self.pool = pool or Pool()
        self.shield = Shield(secret)
        self.blocks = Blocks()
        self.by_hash: dict[bytes, int] = {}
        self.listeners: list[Listener] = []
        self.reverted: list[Listener] = []  # called with the new head and the storage a revert changed
        self._failed: set[tuple[str, type[Exception]]] = set()  # runtime functions and how they broke, logged already
        self._unfinal: deque[tuple[int, bytes, list[Entry]]] = deque()
        self.state = VersionedState()
        self.documents = Documents(runtime, self.call, self.storage)
        self._author = Author(self._run_open, self.state, self.shield)
        self._create(genesis or {})
        self.slot_ms = self._slot_duration()

    # -- genesis and restart

    def _create(self, genesis: Mapping[str, Any]) -> None:
        answer = self.run("GenesisBuilder_build_state", opaque(json.dumps(genesis).encode()), self.state)
        if answer[:1] != b"\0":
            raise ChainError(f"the runtime refuses the genesis state: {answer[2:].decode(errors='replace')}")
        root, extrinsics = self.run("DevApi_state_root", b"", self.state), EMPTY_ROOT
        if len(root) != len(ZERO):
            raise ChainError(f"the runtime's state root has {len(root)} bytes, not {len(ZERO)}")
        diff = self.state.seal(0)
        if root == ZERO:
            root, extrinsics = state_digest(ZERO, diff), extrinsics_digest([])
        self._append(Block(Header(ZERO, 0, root, extrinsics), [], 0))

    def _slot_duration(self) -> int:
        """Milliseconds. Raises ChainError for a chain whose blocks are not made by Aura.

        Runtimes that were to change from Aura to BABE (spec 300) have both; their blocks are Aura's here. Given BABE's
        slot, too, they end a session in every block, since there are no validators to begin one, and have no weight
        left for extrinsics.
        """
        try:
            raw = self.call("AuraApi_slot_duration", b"")
        except RuntimeApiMissing as error:
            raise ChainError(f"{self._consensus()}: the blocks made here are Aura's") from error
        slot = int.from_bytes(raw, "little")
        if slot <= 0:
            raise ChainError("the runtime's slot duration is 0")
        return slot

    def _consensus(self) -> str:
        """What a runtime without AuraApi has instead."""
        try:
            self.call("BabeApi_configuration", b"")
        except RuntimeApiMissing:
            return "the runtime exports neither AuraApi nor BabeApi"
        except RuntimeTrap:  # it is there
            pass
        return "the runtime's consensus is BABE (it exports BabeApi, and no AuraApi)"

    def _follow_code(self, changed: Journal) -> None:
        """Slots are as long as the code in the state has them: it may have been replaced."""
        if CODE not in changed:
            return
        try:
            self.slot_ms = self._slot_duration()
        except LocalnetError as error:  # the block is made: what is wrong with the code shows at the next one
            log.error("block %d: no blocks can be made with the code that is in place now: %s", self.head.number, error)

    def restore(self, state: VersionedState, blocks: Sequence[Block]) -> None:
        """Go on from a stored chain with the same genesis."""
        self.state = self._author.state = state
        self.blocks, self.by_hash = Blocks(), {}
        for block in blocks:
            self._append(block)
        self.blocks.fold(state.oldest)
        self._follow_code({CODE: self.storage(CODE)})

    def _append(self, block: Block) -> None:
        self.blocks.append(block)
        self.by_hash[block.hash] = block.number

    # -- what there is

    @property
    def head(self) -> Block:
        return self.blocks[-1]

    @property
    def finalized(self) -> Block:
        return self.blocks[max(self.blocks.first, len(self.blocks) - 1 - self.finality_lag)]

    @property
    def genesis_hash(self) -> bytes:
        return self.blocks[0].hash

    def block(self, number: int) -> Block:
        """Raises UnknownBlock."""
        if not 0 <= number < len(self.blocks):
            raise UnknownBlock(f"there is no block {number}, the head is {self.head.number}")
        return self.blocks[number]

    def hash_of(self, number: int) -> bytes:
        """Raises UnknownBlock."""
        return self.block(number).hash

    def block_by_hash(self, digest: bytes) -> Block | None:
        number = self.by_hash.get(digest)
        return None if number is None else self.blocks[number]

    # -- the runtime

    def run(self, method: str, data: bytes, state: State) -> bytes:
        """Run a runtime function against a state. Raises RuntimeApiMissing, RuntimeTrap."""
        try:
            return self.runtime.call(method, data, state)
        except LocalnetError:
            raise
        except Exception as error:  # a runtime is foreign code: whatever breaks in it must not break the node
            kind = method, type(error)
            level = logging.DEBUG if kind in self._failed else logging.ERROR  # anybody can call it with bad bytes
            log.log(level, "the runtime failed in %s", method, exc_info=True)
            self._failed.add(kind)
            raise RuntimeTrap(f"{method}: {type(error).__name__}: {error}") from error

    def _run_open(self, method: str, data: bytes) -> bytes:
        return self.run(method, data, self.state)

    def call(self, method: str, data: bytes, number: int | None = None) -> bytes:
        """Run a runtime function on the state after a block (default: the head); nothing it writes is kept.

        Raises RuntimeApiMissing, RuntimeTrap, StateDiscarded.
        """
        if number is not None and number != self.head.number:
            view = self.state.at(number)
            view.begin()
            return self.run(method, data, view)
        state = self.state
        depth = state.depth
        state.begin()
        try:
            return self.run(method, data, state)
        finally:
            while state.depth > depth:
                state.rollback()

    def storage(self, key: bytes, number: int | None = None) -> bytes | None:
        """A raw value after a block (default: the head). Raises StateDiscarded."""
        if number is None or number == self.head.number:
            return self.state.get(key)
        return self.state.at(number).get(key)

    # -- the pool

    def validate(self, raw: bytes) -> Validity:
        """What the runtime says about an extrinsic on top of the head. Raises PoolRejected."""
        try:
            answer = self.call("TaggedTransactionQueue_validate_transaction", SOURCE_EXTERNAL + raw + self.head.hash)
        except (RuntimeTrap, RuntimeApiMissing) as error:
            raise not_verifiable(error) from error
        verdict = read_validity(answer)
        if isinstance(verdict, Validity):
            return verdict
        raise verdict.rejected()

    def submit(self, raw: bytes, watcher: Watcher | None = None) -> Entry:
        """Take an extrinsic into the pool. Raises PoolRejected."""
        try:
            xt = parse(raw, self.documents.layout)
        except ExtrinsicFormat as error:
            raise bad_format(error) from error
        self.pool.check_new(xt.hash, self.head.number)
        return self.pool.add(xt, self.validate(raw), self.head.number, watcher)

    def _revalidate(self, entries: Sequence[Entry]) -> None:
        """Ask the runtime again, in order; who is still valid starts over with the answer."""
        for entry in entries:
            if entry.xt.hash in self.pool.entries:
                try:
                    self.pool.renew(entry, self.validate(entry.xt.raw), self.head.number)
                except ForkError as error:  # says nothing about the extrinsic
                    log.warning("extrinsic 0x%s could not be checked again: %s", entry.xt.hash.hex(), error)
                except LocalnetError as error:
                    log.debug("extrinsic 0x%s left the pool: %s", entry.xt.hash.hex(), error)
                    self.pool.drop(entry, "invalid")

    # -- blocks

    def author(
        self, changes: Changes | None = None, impersonated: Sequence[Impersonated] = (), alone: bool = False
    ) -> Block:
        """Build, seal and announce the next block. `changes` are raw storage writes at its end (see `Author.build`),
        `impersonated` extrinsics that nobody signed: a developer's means, marked in the header. With `alone` nothing
        is taken from the pool.

        Raises RuntimeTrap or ChainError when the runtime cannot build a block at all, PoolRejected when it refuses an
        impersonated extrinsic; nothing is changed then.
        """
        timestamp = self.clock.next(self.head.timestamp, self.slot_ms)
        draft = self._draft(timestamp, changes or {}, impersonated, [] if alone else list(self.pool.ordered()))
        self.clock.stamped()
        block, diff = self._seal(draft, timestamp)
        self._follow_code(diff)
        if self.history and block.number % DISCARD_STEP == 0:
            self._discard(block.number - self.history)
        self._settle(draft, block)
        self._announce(self.listeners, block, diff)
        self._finalize()
        return block

    def rehearse(self) -> None:
        """Build the next block without the pool and forget it: what it reads is at hand then. Raises as `author`."""
        try:
            self._draft(self.clock.next(self.head.timestamp, self.slot_ms), {}, (), [])
        finally:
            self.state.abandon()

    def _announce(self, listeners: Sequence[Listener], block: Block, diff: Journal) -> None:
        for listener in listeners:
            try:
                listener(block, diff)
            except Exception:  # the block is made: whoever cannot take the news must not keep it from the state file
                log.exception("block %d: a listener failed", block.number)

    def _draft(
        self, timestamp: int, changes: Changes, impersonated: Sequence[Impersonated], entries: list[Entry]
    ) -> Draft:
        number, slot, parent = self.head.number + 1, self._slot(timestamp), self.head.hash
        try:
            return self._author.build(parent, number, timestamp, slot, entries, changes, impersonated)
        except LocalnetError as error:
            self.state.abandon()
            if not entries or isinstance(error, PoolRejected | ForkError):
                raise
            log.error("block %d could not be built: %s; trying without its extrinsics", number, error)
        try:
            draft = self._author.build(parent, number, timestamp, slot, (), changes, impersonated)
        except LocalnetError:
            self.state.abandon()
            raise
        log.error("block %d: %d extrinsics dropped: the block cannot be finished with them", number, len(entries))
        draft.refused = [(entry, None) for entry in entries]
        return draft

    def _slot(self, timestamp: int) -> int:
        """Raises ChainError when it is not after that of the head: an upgrade made slots longer."""
        slot, last = timestamp // self.slot_ms, slot_of(self.head.header)
        if last and slot <= last:
            raise ChainError(
                f"no block can be made: since the runtime was upgraded slots are {self.slot_ms} ms long, so this is "
                f"slot {slot}, and the block before it was in slot {last}. Go on at {(last + 1) * self.slot_ms} ms of "
                "chain time (dev_timeTravel), or revert the upgrade"
            )
        return slot

    def _seal(self, draft: Draft, timestamp: int) -> tuple[Block, Journal]:
        diff = self.state.seal(draft.header.number)
        header = replace(draft.header, parent_hash=self.head.hash)  # the same bytes, held once
        if header.state_root == ZERO:
            header = replace(header, state_root=state_digest(self.head.header.state_root, diff))
        if header.extrinsics_root == ZERO:
            header = replace(header, extrinsics_root=extrinsics_digest(draft.extrinsics))
        block = Block(sealed(header), self._shared(draft.extrinsics), timestamp)
        self._append(block)
        return block, diff

    def _shared(self, extrinsics: list[bytes]) -> list[bytes]:
        """The same body, holding the previous block's copy of an inherent that has not changed."""
        for index, before in enumerate((self.head.extrinsics or [])[: len(extrinsics)]):
            if before == extrinsics[index]:
                extrinsics[index] = before
        return extrinsics

    def _settle(self, draft: Draft, block: Block) -> None:
        """Tell the pool and the watchers what the block did."""
        for entry in draft.included:
            self.pool.included(entry)
            entry.tell({"inBlock": "0x" + block.hash.hex()})
        self._unfinal.append((block.number, block.hash, draft.included))
        again = []
        for entry, refusal in draft.refused:
            if refusal is not None and refusal.future:
                again.append(entry)
            elif refusal is None:
                self.pool.drop(entry, "dropped", block.number + BAN_BLOCKS)
            else:
                log.info("extrinsic 0x%s refused: %s", entry.xt.hash.hex(), refusal.text)
                self.pool.drop(entry, "invalid", block.number + BAN_BLOCKS)
        for entry in self.pool.expired(block.number):
            self.pool.drop(entry, "invalid")
        if draft.unsealed:  # their nonces moved without the pool's doing
            again.extend(self.pool.futures())
        if again:
            self._revalidate(again)

    def _finalize(self) -> None:
        finalized = self.finalized.number
        while self._unfinal and self._unfinal[0][0] <= finalized:
            _, digest, entries = self._unfinal.popleft()
            for entry in entries:
                entry.tell({"finalized": "0x" + digest.hex()})

    def _discard(self, below: int) -> None:
        if below <= self.state.oldest:
            return
        self.blocks.fold(below)
        self.state.discard(below)

    def revert(self, number: int) -> Journal:
        """Back to block `number`; returns the storage this changed. Raises StateDiscarded, UnknownBlock."""
        self.block(number)
        undone = self.state.revert(number)
        for block in self.blocks[number + 1 :]:
            del self.by_hash[block.hash]
        self.blocks.truncate(number + 1)
        while self._unfinal and self._unfinal[-1][0] > number:
            for entry in self._unfinal.pop()[2]:
                entry.tell({"retracted": "0x" + self.head.hash.hex()})
        self.pool.forgive()
        self._follow_code(undone)
        self._revalidate(list(self.pool.entries.values()))
        self._announce(self.reverted, self.head, undone)
        return undone
