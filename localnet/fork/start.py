"""From an address to a block that a chain can go on from: `ws://node`, `wss://node@5123456`, `https://node@0x1f..`.

Without a block it is the node's newest finalized one. Offline it is the block that the cache was last used with.

    open_fork       the block: header, body, code, from the cache or the node
    runtime_for     the runtime its code asks for
    prepare         what the first blocks will read
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localnet.abi import Runtime
from localnet.errors import ConfigError, ForkError
from localnet.fork import answers
from localnet.fork.base import Base, Source
from localnet.fork.cache import Cache, Point, default_path
from localnet.fork.chain import ForkedChain
from localnet.fork.prefetch import Advisor, prefetch
from localnet.fork.remote import RATE, SCHEMES, Remote
from localnet.node.blocks import blake2_256
from localnet.node.documents import CODE

log = logging.getLogger(__name__)

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
    """`rate`: requests a second; `cache`: a file, None for the usual one."""

    cache: Path | None = None
    offline: bool = False
    rate: float = RATE


def open_fork(text: str, options: Options, connect: Callable[..., Remote] = Remote) -> Base:
    """Everything that a chain needs of the block it goes on from. Raises ConfigError, ForkError."""
    target = Target.parse(text)
    if not options.rate > 0:
        raise ConfigError(f"the fork rate must be above 0 requests a second, not {options.rate}")
    cache = Cache(options.cache or default_path())
    remote: Remote | None = None
    try:
        if options.offline:
            point = _remembered(cache, target)
        else:
            remote = connect(target.url, rate=options.rate)
            point = _found(cache, remote, target)
        code = _code(cache, remote, point)
        cache.remember(target.url, point)
        base = Base(Source(point, cache, remote))
        base.values[CODE] = code
    except BaseException:
        cache.close()
        if remote is not None:
            remote.close()
        raise
    log.info("forking %s at block %d, 0x%s", target.url, point.number, point.hash.hex())
    return base


def _remembered(cache: Cache, target: Target) -> Point:
    """Offline: the block in the cache."""
    last = cache.last(target.url)
    if last is None:
        raise ForkError(
            f"offline, and the cache {cache.path} knows no block of {target.url}: fork it once with a network"
        )
    digest: bytes | None = last[1]
    if isinstance(target.block, int):
        digest = cache.hash_of(last[0], target.block)
    elif target.block is not None:
        digest = target.block
    point = None if digest is None else cache.point(digest)
    if point is None:
        raise ForkError(f"offline, and the cache {cache.path} does not have that block of {target.url}")
    return point


def _found(cache: Cache, remote: Remote, target: Target) -> Point:
    """The block, from the cache when the node agrees that it is on its chain."""
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
    point = cache.point(digest)
    if point is not None and point.genesis != genesis:
        raise ForkError(f"block 0x{digest.hex()} is of a chain with another genesis than {target.url} says it has")
    if point is None:
        point = _fetched(remote, genesis, digest)
    return point


def _fetched(remote: Remote, genesis: bytes, digest: bytes) -> Point:
    at = "0x" + digest.hex()
    state = ("state_getStorageHash", "0x" + CODE.hex(), at)
    try:
        head, block, code = remote.ask(("chain_getHeader", at), ("chain_getBlock", at), state)
    except ForkError:
        if remote.ask(("chain_getHeader", at))[0] is not None:
            raise
        head = block = code = None
    if head is None or block is None:
        raise ForkError(f"{remote.url} has no block {at}: name one of its chain, by number or hash")
    if code is None:
        raise ForkError(f"block {at} of {remote.url} holds no runtime: there is nothing under :code")
    header = answers.header(head, digest)
    if header.number == 0 and digest != genesis:
        raise ForkError(f"{remote.url} has two blocks of number 0")
    return Point(genesis, digest, header, answers.body(block, digest), answers.block_hash(code))


def _code(cache: Cache, remote: Remote | None, point: Point) -> bytes:
    """The runtime's code, which hashes to what the node said it does."""
    known = cache.code(point.code)
    if known is not None:
        return known
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
