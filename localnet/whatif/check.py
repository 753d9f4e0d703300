"""Is the fork to be believed? The epoch's block made again must be what the node has.

The real block's extrinsics are applied, too, and every value that this writes must be the one that the node has after
the block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localnet.errors import ChainError, ForkError, LocalnetError
from localnet.fork import answers
from localnet.fork.remote import Remote
from localnet.node.blocks import Block, Header
from localnet.node.marks import Impersonated, impersonated_at
from localnet.node.replay import Workbench, bare_header
from localnet.whatif.answer import PALLET, Check
from localnet.whatif.fork import Fork
from localnet.whatif.rules import Results

ROOTED = (("Ethereum", "CurrentBlock"), ("Ethereum", "BlockHash"), ("System", "Digest"))


def checked(fork: Fork, results: Results) -> Check:
    """The block after the head as the node has it, against itself. `results`: of the epoch."""
    remote = fork.base.remote
    assert remote is not None  # `replay` refuses to be offline
    try:
        digest, header, body = _block(remote, fork.chain.head.number + 1)
        bench = _again(fork, header, body)
        written = sorted(bench.view.written())
        theirs = remote.values(written, digest)
        keys = {name: fork.client.storage_key(PALLET, item, key) for name, (item, key) in fork.items().items()}
        stored = remote.values(list(keys.values()), digest)
    except LocalnetError as error:  # what the check finds out is no reason to keep the answer back
        return Check(str(error))
    changes = {key: (bench.view.get(key), theirs[key]) for key in written if bench.view.get(key) != theirs[key]}
    shown = fork.client.names.show_all(changes)
    differing = without_root(shown)
    other = tuple(name for name, key in keys.items() if _vector(fork, name, stored[key]) != list(results[name]))
    return Check(None, len(body), len(written), len(shown) - len(differing), tuple(differing), other)


def _block(remote: Remote, number: int) -> tuple[bytes, Header, list[bytes]]:
    """Hash, header, extrinsics. Raises ForkError."""
    digest = remote.block_hash(number)
    if digest is None:
        raise ForkError(f"the node has no block {number} any more")
    return digest, remote.header(digest), answers.body(remote.ask(("chain_getBlock", "0x" + digest.hex()))[0], digest)


def _again(fork: Fork, header: Header, body: list[bytes]) -> Workbench:
    """Raises ChainError for a block that this runtime does not make."""
    bench = Workbench(fork.chain, header.number - 1)
    bench.call("Core_initialize_block", bare_header(Block(header, body, 0)).encode())
    try:
        origins = impersonated_at(header)
    except (ValueError, TypeError, AttributeError) as error:  # anybody may write into a digest
        raise ChainError(f"block {header.number} says what a localnet does not say: {error}") from error
    for index, raw in enumerate(body):
        refusal, _ = bench.apply(index, Impersonated(origins[index], raw) if index in origins else raw)
        if refusal is not None:
            raise ChainError(f"extrinsic {index} of block {header.number} is refused on the fork: {refusal.text}")
    bench.call("BlockBuilder_finalize_block", b"")
    return bench


def without_root(shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Differences without those that follow from the state's root: the Ethereum pallet puts it into its block, and that
    block's hash into the header's digest."""
    for one in shown:
        blocks = one["before"], one["after"]
        if _name(one) == ROOTED[0] and all(isinstance(block, dict) for block in blocks):
            mine, theirs = ({**block, "header": {**block["header"], "state_root": None}} for block in blocks)
            if mine == theirs:
                return [other for other in shown if _name(other) not in ROOTED]
    return shown


def _name(shown: Mapping[str, Any]) -> tuple[Any, Any]:
    return shown.get("pallet"), shown.get("item")


def _vector(fork: Fork, name: str, raw: bytes | None) -> list[int]:
    entry = fork.client.entry(PALLET, fork.items()[name][0])
    return [int(value) for value in fork.client.vocabulary.stored(entry, raw) or ()]
