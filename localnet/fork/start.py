"""From an address to a block that a chain can go on from: `ws://node`, `wss://node@5123456`, `https://node@0x1f..`.

Without a block it is the node's newest finalized one. Offline it is the block that the cache was last used with.

    open_fork       the block: header, body, code, from the cache or the node
    runtime_for     the runtime its code asks for
    prepare         what the first blocks will read
    started         all of it in a thread, for a loop that has others to serve; hangs up when it is cancelled

With `verify` what the state holds is proven against the block's header, the hash of the genesis among it. Which block
that is, unless it is named by its hash, and the hashes of older ones remain the node's word.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localnet.abi import Runtime
from localnet.codec.document import twox128
from localnet.errors import ConfigError, ForkError, LocalnetError
from localnet.fork import answers
from localnet.fork.base import Base, Source
from localnet.fork.cache import Cache, Point, default_path
from localnet.fork.chain import ForkedChain
from localnet.fork.prefetch import Advisor, prefetch
from localnet.fork.remote import RATE, REMEDY, SCHEMES, Remote
from localnet.node.blocks import blake2_256
from localnet.node.documents import CODE
from localnet.vocabulary import HASHERS

log = logging.getLogger(__name__)

GENESIS = twox128(b"System") + twox128(b"BlockHash") + HASHERS["Twox64Concat"][0](bytes(4)) + bytes(4)
"""Where a state keeps the hash of its block 0 (frame-system never removes that one)."""
MARKER = 32  # bytes of :code where a specification runtime runs: a digest of its metadata, no Wasm


@dataclass(frozen=True)
class Target:
    """Where to fork from. `block`: a number, a hash, or None for the newest finalized one."""

    url: str
    block: int | bytes | None

    @classmethod
    def parse(cls, text: str) -> Target:
        """Raises ConfigError."""
        scheme, found, rest = text.partition("://")
        if scheme not in SCHEMES or not found or not rest:
            raise ConfigError(f"{text!r} is no node to fork from: ws(s):// or http(s)://, @block behind it if you like")
        place, _, block = rest.rpartition("@")
        if not place or "/" in block or "." in block or ":" in block:  # user@host
            return cls(text, None)
        try:
            if block.startswith("0x"):
                digest = bytes.fromhex(block[2:])
                if len(digest) != 32:
                    raise ValueError("a hash has 32 bytes")
                return cls(f"{scheme}://{place}", digest)
            return cls(f"{scheme}://{place}", int(block) if block.isdecimal() else _wrong(block))
        except ValueError as error:
            raise ConfigError(f"{block!r} is no block, neither a number nor a hash (0x..): {error}") from error


def _wrong(block: str) -> int:
    raise ValueError(f"{block} is no number")


@dataclass(frozen=True)
class Options:
    """`rate`: requests a second; `cache`: a file, None for the usual one; `verify`: believe nothing without a proof."""

    cache: Path | None = None
    offline: bool = False
    rate: float = RATE
    verify: bool = False


def open_fork(text: str, options: Options, connect: Callable[..., Remote] = Remote) -> Base:
    """Everything that a chain needs of the block it goes on from. Raises ConfigError, ForkError."""
    target = Target.parse(text)
    if not options.rate > 0:
        raise ConfigError(f"the fork rate must be above 0 requests a second, not {options.rate}")
    cache = Cache(options.cache or default_path())
    remote: Remote | None = None
    try:
        if options.offline:
            point, known = _remembered(cache, target, options.verify), True
        else:
            remote = connect(target.url, rate=options.rate)
            point, known = _found(cache, remote, target, options.verify)
            if options.verify:
                remote.prove(point.header.state_root)
                if point.number and not known:
                    _check_genesis(remote, point)
        code = _code(cache, remote, point, known)
        cache.remember(point)
        base = Base(Source(point, cache, remote))
        base.values[CODE] = code
    except BaseException:
        cache.close()
        if remote is not None:
            remote.close()
        raise
    log.info("forking %s at block %d, 0x%s", target.url, point.number, point.hash.hex())
    return base


def _remembered(cache: Cache, target: Target, verify: bool) -> Point:
    """Offline: the block in the cache."""
    last = cache.last(target.url)
    if last is None:
        raise ForkError(
            f"offline, and the cache {cache.path} knows no block of {target.url}: fork it once with a network"
        )
    digest: bytes | None = last[1]
    if isinstance(target.block, int):
        digest = cache.hash_of(target.url, last[0], target.block)
    elif target.block is not None:
        digest = target.block
    point = None if digest is None else cache.point(digest, target.url, verify)
    if point is None:
        how = ", proven" if verify else ""
        raise ForkError(f"offline, and the cache {cache.path} does not have that block of {target.url}{how}")
    return point


def _found(cache: Cache, remote: Remote, target: Target, verify: bool) -> tuple[Point, bool]:
    """The block, and whether the cache knew it. The node has to have the same genesis."""
    wanted: tuple[object, ...] = ("chain_getFinalizedHead",)
    if target.block is not None:
        wanted = ("chain_getBlockHash", target.block) if isinstance(target.block, int) else ("chain_getBlockHash", 0)
    first, second = remote.ask(("chain_getBlockHash", 0), wanted)
    genesis = answers.block_hash(first)
    if second is None:
        raise ForkError(f"{target.url} has no block {target.block!r}: its chain is not that long")
    digest = target.block if isinstance(target.block, bytes) else answers.block_hash(second)
    last = cache.last(target.url)
    if last is not None and last[0] != genesis:
        log.warning("%s serves another chain than before: genesis 0x%s", target.url, genesis.hex())
    point = cache.point(digest, target.url, verify)
    if point is not None and point.genesis != genesis:
        raise ForkError(f"block 0x{digest.hex()} is of a chain with another genesis than {target.url} says it has")
    if point is None:
        return _fetched(remote, genesis, digest, verify), False
    return point, True


def _fetched(remote: Remote, genesis: bytes, digest: bytes, verify: bool) -> Point:
    at = "0x" + digest.hex()
    head = remote.ask(("chain_getHeader", at))[0]
    if head is None:
        raise ForkError(f"{remote.url} has no block {at}: name one of its chain, by number or hash")
    block, code = remote.ask(("chain_getBlock", at), ("state_getStorageHash", "0x" + CODE.hex(), at))
    if block is None:
        raise ForkError(f"{remote.url} does not keep block {at} any more, only its header; {REMEDY}")
    if code is None:
        raise ForkError(f"block {at} of {remote.url} holds no runtime: there is nothing under :code")
    header = answers.header(head, digest)
    if header.number == 0 and digest != genesis:
        raise ForkError(f"{remote.url} has two blocks of number 0")
    body = answers.body(block, digest)
    return Point(genesis, digest, header, body, answers.block_hash(code), remote.url, verify)


def _check_genesis(remote: Remote, point: Point) -> None:
    """Raises ForkError."""
    told = remote.values([GENESIS], point.hash)[GENESIS]
    if told != point.genesis:
        shown = "no genesis" if told is None else f"the genesis 0x{told.hex()}"
        raise ForkError(f"the state of {remote.url} is that of a chain with {shown}, not 0x{point.genesis.hex()}")


def _code(cache: Cache, remote: Remote | None, point: Point, known: bool) -> bytes:
    """The runtime's code, which hashes to what the node said it does. `known`: the hash is not news, so that it was
    proven where that is wanted."""
    kept = cache.code(point.code) if known or not point.proven else None
    if kept is not None:
        return kept
    if remote is None:
        raise ForkError(f"offline, and the cache {cache.path} does not have the code of block {point.number}")
    log.info("fetching the runtime of block %d", point.number)
    code = remote.values([CODE], point.hash)[CODE]
    if code is None or blake2_256(code) != point.code:
        raise ForkError(f"the code that {remote.url} answers does not hash to 0x{point.code.hex()}, as it says it does")
    cache.keep_code(code)
    return code


def runtime_for(base: Base, given: Runtime | None, specification: Callable[[], Runtime]) -> Runtime:
    """The runtime for the block's code. `given`: the caller's choice, for a chain that a specification runtime made;
    `specification`: makes the one of the chosen profile.

    Raises ForkError when code and runtime do not belong together.
    """
    code = base.values[CODE] or b""
    if len(code) != MARKER:
        if given is not None:
            raise ForkError("the block forked from brings its runtime along: leave `runtime` out")
        from localnet.wasm.runtime import WasmRuntime

        wasm: Runtime = WasmRuntime(code)
        return wasm
    runtime = given or specification()
    document = getattr(runtime, "document", None)
    if document is None or blake2_256(document.v15) != code:
        raise ForkError(
            "the block forked from was made by a specification runtime with other constants or another version: "
            "use the profile (--profile) and the release that it runs with"
        )
    return runtime


def forked_chain(base: Base, runtime: Runtime, options: Mapping[str, Any]) -> ForkedChain:
    """Raises ConfigError, ForkError, ChainError."""
    return ForkedChain(runtime, base, **options)


def prepare(base: Base, chain: ForkedChain) -> None:
    """Fetch ahead what the first blocks will read. Raises ForkError, MetadataError."""
    if base.remote is None:
        return
    advisor = Advisor(chain.documents.head, base)
    prefetch(base, advisor)
    base.advisor = advisor


def _rehearse(chain: ForkedChain) -> None:
    """Raises ForkError."""
    begin, asked = time.monotonic(), chain.base.stats.requests
    try:
        chain.rehearse()
    except ForkError:
        raise
    except LocalnetError as error:  # of the chain, not of the fork: it shows when the block is made
        log.info("the next block cannot be made: %s", error)
    log.info(
        "read what the next block needs: %d requests, %.1f s",
        chain.base.stats.requests - asked,
        time.monotonic() - begin,
    )


async def started(
    text: str,
    options: Options,
    given: Runtime | None,
    specification: Callable[[], Runtime],
    chain_options: Mapping[str, Any],
) -> ForkedChain:
    """A chain that is ready to go on. Its next block has been made for trial: while the first one reads what is not at
    hand yet, nobody else gets the loop. Raises ConfigError, ForkError, ChainError, MetadataError."""
    remotes: list[Remote] = []

    def connect(url: str, **arguments: Any) -> Remote:
        remotes.append(Remote(url, **arguments))
        return remotes[-1]

    def work() -> ForkedChain:
        base = open_fork(text, options, connect)
        try:
            chain = forked_chain(base, runtime_for(base, given, specification), chain_options)
            base.ready = False
            prepare(base, chain)
            if base.remote is not None:
                _rehearse(chain)
            base.ready = True
            return chain
        except BaseException:
            base.close()
            raise

    task = asyncio.get_running_loop().run_in_executor(None, work)  # not a task, which others could cancel
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():  # it may connect only now
            for remote in remotes:
                remote.interrupt()
            with contextlib.suppress(asyncio.CancelledError):  # once more
                await asyncio.wait([task], timeout=0.1)
        if task.exception() is None:
            task.result().base.close()
        raise
