"""Blocks made again, to look at them: what an extrinsic would do, and what each extrinsic of a block did.

Everything happens on a view of the state before the block, whose writes are never kept; the code is the runtime's own.

    try_out(extrinsic)     on top of a block: the next block is opened, the extrinsic applied, the block closed
    trace(number)          a block of the chain, step by step: initialisation, each extrinsic, finalisation, and what a
                           developer wrote at its end; the result is compared with what the chain has

A step's changes are (before, after) by raw key.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from localnet.errors import ChainError
from localnet.node.author import inherent_data
from localnet.node.blocks import PRE_RUNTIME, ZERO, Block, Header, slot_item
from localnet.node.chain import Chain
from localnet.node.extrinsic import split_vector
from localnet.node.marks import Impersonated, impersonated_at, marked
from localnet.node.shield import INHERENT as SHIELD_INHERENT
from localnet.node.validity import Refusal, read_apply_result
from localnet.node.view import StateView

Changes = dict[bytes, tuple["bytes | None", "bytes | None"]]


@dataclass
class Step:
    """One part of a block. `index`: position of the extrinsic, None for what the block itself does."""

    name: str
    changes: Changes
    index: int | None = None
    extrinsic: bytes = b""


@dataclass
class Tried:
    """What became of an extrinsic that was tried. `refusal`: it would not get into a block at all."""

    index: int
    refusal: Refusal | None
    success: bool
    changes: Changes
    view: StateView = field(repr=False)  # after the block was closed: its events are in there


class Workbench:
    """A view in which one block is made. `steps` collects what each part of it changed."""

    def __init__(self, chain: Chain, on: int) -> None:
        """Raises UnknownBlock, StateDiscarded."""
        chain.block(on)
        self.chain, self.view = chain, chain.state.at(on)
        self.view.begin()
        self.steps: list[Step] = []

    def call(self, method: str, data: bytes) -> bytes:
        return self.chain.run(method, data, self.view)

    def step(self, name: str, method: str, data: bytes, index: int | None = None, extrinsic: bytes = b"") -> bytes:
        """Call the runtime and note what it changed."""
        self.view.begin()
        answer = self.call(method, data)
        written = self.view.take()
        changes = {key: (before, after) for key, after in written.items() if (before := self.view.get(key)) != after}
        for key, after in written.items():
            self.view.put(key, after)
        self.steps.append(Step(name, changes, index, extrinsic))
        return answer

    def apply(self, index: int, one: bytes | Impersonated) -> tuple[Refusal | None, bool]:
        if isinstance(one, Impersonated):
            answer = self.step("extrinsic", "DevApi_apply_extrinsic", one.argument, index, one.raw)
        else:
            answer = self.step("extrinsic", "BlockBuilder_apply_extrinsic", one, index, one)
        return read_apply_result(answer)


def bare_header(block: Block) -> Header:
    """The header that a block's making starts from: its slot, without marks, seal and roots."""
    digest = tuple(item for item in block.header.digest if item[0] == PRE_RUNTIME)
    return Header(block.header.parent_hash, block.number, ZERO, ZERO, digest)


def next_header(chain: Chain, on: Block) -> tuple[Header, int]:
    """Header of the block that would follow, and its timestamp in ms."""
    timestamp = chain.clock.next(on.timestamp, chain.slot_ms)
    slot = timestamp // chain.slot_ms
    return Header(on.hash, on.number + 1, ZERO, ZERO, (slot_item(slot),)), timestamp


def try_out(chain: Chain, one: bytes | Impersonated, on: int | None = None) -> Tried:
    """Apply an extrinsic on top of block `on` (default: the head) and forget it.

    Raises UnknownBlock, StateDiscarded, RuntimeTrap, RuntimeApiMissing.
    """
    block = chain.head if on is None else chain.block(on)
    bench = Workbench(chain, block.number)
    header, timestamp = next_header(chain, block)
    bench.call("Core_initialize_block", header.encode())
    items = {
        b"timstap0": timestamp.to_bytes(8, "little"),
        b"auraslot": (timestamp // chain.slot_ms).to_bytes(8, "little"),
        SHIELD_INHERENT: chain.shield.inherent(header.number),
    }
    inherents = split_vector(bench.call("BlockBuilder_inherent_extrinsics", inherent_data(items)))
    for raw in inherents:
        bench.call("BlockBuilder_apply_extrinsic", raw)
    refusal, success = bench.apply(len(inherents), one)
    changes = bench.steps[-1].changes if refusal is None else {}
    if refusal is None:
        bench.call("BlockBuilder_finalize_block", b"")
    return Tried(len(inherents), refusal, success, changes, bench.view)


def trace(chain: Chain, number: int) -> list[Step]:
    """A block's steps. Raises ChainError for genesis and for a block that does not come out as it is on the chain,
    UnknownBlock, StateDiscarded."""
    block = chain.block(number)
    if number == 0 or block.extrinsics is None:
        raise ChainError(f"block {number} was not built from extrinsics, or its body is older than the history kept")
    bench = Workbench(chain, number - 1)
    bench.step("initialization", "Core_initialize_block", bare_header(block).encode())
    origins = impersonated_at(block.header)
    for index, raw in enumerate(block.extrinsics):
        refusal, _ = bench.apply(index, Impersonated(origins[index], raw) if index in origins else raw)
        if refusal is not None:
            raise ChainError(f"block {number}: extrinsic {index} is refused when applied again: {refusal.text}")
    bench.step("finalization", "BlockBuilder_finalize_block", b"")
    written = _difference(chain, number, bench.view)
    if written and "storage" not in marked(block.header):
        raise ChainError(f"block {number} comes out differently when it is made again: {len(written)} values differ")
    if written:
        bench.steps.append(Step("storage", written))
    return bench.steps


def _difference(chain: Chain, number: int, view: StateView) -> Changes:
    """Where the chain's state after the block is not what the view has."""
    state = chain.state
    keys = {*view.written(), *state.changed_in(number)}
    return {
        key: (mine, theirs)
        for key in sorted(keys)
        if (mine := view.get(key)) != (theirs := state.value_at(key, number))
    }
