"""A local chain in this process.

    async with Localnet() as net:                       # a free port, a block every 0.25 s
        print(net.url)
        await net.fund("5F3s..", 1000 * TAO)
        outcome = await net.extrinsic("//Alice", "Balances", "transfer_keep_alive", dest="5F3s..", value=1)
        await net.mine(10)

`Localnet` is the node put together (chain, miner, store, server) plus what tests and scenarios need: sending extrinsics
in process, reading storage by name. What the chain begins with (a runtime and its genesis, or a fork) is in
beginning.py; what a developer may do beyond a chain's rules (snapshots, impersonation, explanations) in powers.py; the
twin for code without asyncio in sync.py. Names are looked up in the metadata of whatever runtime runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

import bittensor_core

from localnet.abi import Runtime
from localnet.beginning import Beginning, fork_of
from localnet.client import Client, Outcome, public_key
from localnet.developer import Developer
from localnet.errors import ChainError, ConfigError
from localnet.node.blocks import Block, blake2_256
from localnet.node.chain import DEFAULT_HISTORY, Chain
from localnet.node.clock import ChainClock, ClockMode
from localnet.node.connection import Subscriptions
from localnet.node.mining import Miner, MiningMode
from localnet.node.rpc import Node, Rpc
from localnet.node.rpc_dev import DevMethods
from localnet.node.rpc_dev_look import DevLookMethods
from localnet.node.rpc_dev_state import DevStateMethods
from localnet.node.rpc_info import InfoMethods
from localnet.node.runtime_api import RuntimeApi
from localnet.node.server import Server
from localnet.node.store import Store, Stored
from localnet.powers import Powers
from localnet.subnets import Plan, Subnet, build
from localnet.wasm.source import RuntimeSource

if TYPE_CHECKING:
    from localnet.fork.base import Base
    from localnet.wasm.loading import Loaded

TAO = 10**9  # rao
SUDO = "//Alice"  # the sudo key of the development genesis
DEFAULT_BLOCK_TIME = 0.25  # seconds: the public localnet's fast blocks
FIRST_BLOCKS = 2  # authored before serving: the MEV shield's first key is open to clients from block 2 on

NOT_RUNNING = "the localnet is not running: use it inside `async with` (SyncLocalnet: `with`), or call start()"

Signer: TypeAlias = str | bittensor_core.Keypair  # a secret URI such as "//Alice", or a keypair
Account: TypeAlias = str | bytes  # an SS58 address, a secret URI such as "//Alice", or 32 bytes


class Localnet(Powers):
    """A chain, its node and its server, on the running event loop."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        mining: MiningMode = "interval",
        block_time: float | None = None,
        profile: str = "fast",
        state: str | Path | None = None,
        history: int = DEFAULT_HISTORY,
        finality_lag: int = 0,
        clock: ClockMode = "wall",
        genesis_time: int | None = None,
        genesis: Mapping[str, Any] | None = None,
        secret: bytes | None = None,
        drand: str | Path | None = None,
        dev_token: str | None = None,
        runtime: Runtime | RuntimeSource | str | Path | None = None,
        fork: str | None = None,
        fork_cache: str | Path | None = None,
        fork_offline: bool = False,
        fork_rate: float | None = None,
        fork_verify: bool = False,
    ) -> None:
        """
        host, port: where to listen; port 0 takes a free one (see `url`)
        mining: "interval" (every `block_time` seconds), "instant" (when something was submitted), "manual" (`mine`)
        block_time: seconds; default: `DEFAULT_BLOCK_TIME`, with a Wasm runtime that one's slot
        profile: "fast" or "mainnet", the constants of the specification runtime (ignored with `runtime`)
        state: file that the chain lives in; None keeps it in memory
        history: blocks whose state stays readable, 0 for all
        finality_lag: blocks between the head and the finalized head
        clock, genesis_time: chain time, see localnet.node.clock; genesis_time in ms since 1970
        genesis: the runtime's genesis patch
        secret: 32 bytes the MEV shield's keys come from; default: zeros in memory, random in a state file
        drand: where pulses come from, which timelocked weights and commitments open with. None: nowhere, they wait;
            "network": drand's quicknet over HTTP; "local": a beacon of this chain's own (see `seal`); else a file
            of published pulses. See localnet.node.pulses
        dev_token: whoever has it may use developer methods from elsewhere; without it only this machine may
        runtime: the chain's rules. None: the specification runtime; a path or a node's address: the released Wasm
            runtime that is there, loaded by `start` (see `RuntimeSource` for a pin and for genesis)
        fork: go on from a block of another node, "wss://node" (its newest finalized one) or "wss://node@number" or
            "..@0xhash"; state is read from there as it is needed, see localnet.fork
        fork_cache: file that keeps what was read; default: forks.sqlite in $TOUCHSTONE_CACHE or ~/.cache/touchstone
        fork_offline: read from the cache only; what is not there is an error that names it
        fork_rate: requests a second to that node, sustained; default 20
        fork_verify: believe that node nothing about the block's state without a proof (state_getReadProof)
        """
        if not 0 <= port <= 65535:
            raise ConfigError(f"port {port} does not exist: 0 (any free one) to 65535")
        if history < 0 or finality_lag < 0:
            raise ConfigError("history and finality_lag cannot be negative")
        if mining not in ("interval", "instant", "manual"):
            raise ConfigError(f"unknown mining mode {mining!r}: choose interval, instant or manual")
        if block_time is not None and not 0 < block_time < math.inf:
            raise ConfigError(f"blocks cannot be {block_time} s apart")
        reading = (state, fork_cache, fork_offline, fork_rate, fork_verify)
        self._beginning = Beginning(runtime, profile, genesis, None if fork is None else fork_of(fork, *reading))
        if self._beginning.runtime is not None:
            self.runtime = self._beginning.runtime
        self.loaded: Loaded | None = None  # the code of a Wasm runtime, and where it came from
        self.forked: Base | None = None  # what is known of the block forked from; `forked.stats`: what it has cost
        self.mining, self.block_time = mining, DEFAULT_BLOCK_TIME if block_time is None else block_time
        self.by_slot = block_time is None and self._beginning.keeps_its_time
        self._host, self._port, self._dev_token = host, port, dev_token
        self._file = None if state is None else Path(state)
        self._options: dict[str, Any] = {
            "finality_lag": finality_lag, "history": history, "clock": ChainClock(clock, genesis_time),
            "secret": secret or bytes(32),
        }  # fmt: skip
        self.tasks: list[asyncio.Task[None]] = []  # what runs in the background: ends only when mining cannot go on
        self._store: Store | None = None
        self._server: Server | None = None
        self._drand = drand
        self._feeding: asyncio.Task[None] | None = None

    # -- life

    async def start(self) -> Localnet:
        """Make or load the chain, author its first two blocks unless mining is manual, and serve.

        Raises ConfigError (address in use), StateFileError, ChainError for one that runs already.
        """
        if self._server is not None:
            raise ChainError(f"the localnet runs already, at {self.url}: start() is part of `async with`")
        stored = await self._open_store()
        try:
            self.chain = await self._make_chain()
            if self._store is not None and stored is not None:
                self._store.check_genesis(stored, self.chain.genesis_hash)
                self.chain.restore(stored.state, stored.blocks)
            elif self._store is not None:
                await self._store.create(self.chain.head, self.chain.state.head)
            self.miner = Miner(self.chain, self.mining, self.block_time, self._store)
            self.developer = Developer(self.chain, self.miner)
            self.rpc = self._wire()
            if self.mining != "manual" and (self.chain.head.number == 0 or self.forked is not None):
                await self.miner.mine(FIRST_BLOCKS)
            if self._drand is not None:
                await self._feed(self._drand)
            self._server = Server(self.rpc, self._host, self._port, self._dev_token)
            await self._server.start()
        except BaseException:
            await self.stop()
            raise
        self.tasks = [asyncio.ensure_future(self.miner.run())]
        return self

    async def _make_chain(self) -> Chain:
        begun = await self._beginning.chain(self._options)
        self.runtime, self.loaded, self.forked = begun.runtime, begun.loaded, begun.forked
        self.block_time = begun.chain.slot_ms / 1000 if self.by_slot else self.block_time
        return begun.chain

    async def _open_store(self) -> Stored | None:
        if self._file is None:
            return None
        store, stored = await asyncio.to_thread(Store.open, self._file)
        self._store, self._options["secret"] = store, store.secret
        return stored

    async def _feed(self, drand: str | Path) -> None:
        from localnet.node.drand import follow

        feeder = await follow(self.client, self.miner, drand, self._options["secret"], SUDO)
        self._feeding = asyncio.ensure_future(feeder.source.run())

    def _wire(self) -> Rpc:
        node = Node(self.chain, self.miner, Subscriptions(), RuntimeApi(self.chain))
        return Rpc(
            node,
            InfoMethods(node),
            *(group(node, self.developer) for group in (DevMethods, DevStateMethods, DevLookMethods)),
        )

    def interrupt(self, for_good: bool = True) -> None:
        """End what waits for the node forked from, which holds up everything else; with `for_good` the chain does not
        read from that node any more. From any thread, or a signal handler."""
        if self.forked is not None and self.forked.remote is not None:
            self.forked.remote.interrupt(for_good)

    async def stop(self) -> None:
        """Close connections, stop mining, flush the state file. Safe to call twice."""
        if self._server is not None:
            await self._server.stop()
            self._server = None
        running = [*self.tasks, *([self._feeding] if self._feeding is not None else [])]
        for task in running:
            task.cancel()
        for task in running:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self.tasks, self._feeding = [], None
        if self._store is not None:
            store, self._store = self._store, None
            await store.close()
        if self.forked is not None:
            self.forked.close()

    async def __aenter__(self) -> Localnet:
        return await self.start()

    if not TYPE_CHECKING:  # to a type checker the parts are there from the beginning

        def __getattr__(self, name: str) -> Any:
            """The parts are made by `start`."""
            if name in ("chain", "miner", "developer", "rpc", "runtime"):
                raise ChainError(NOT_RUNNING)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        await self.stop()

    # -- where it is

    @property
    def url(self) -> str:
        """ws:// address; the same port answers HTTP POST."""
        if self._server is None:
            raise ChainError(NOT_RUNNING)
        return self._server.url

    @property
    def block(self) -> int:
        """Number of the newest block."""
        return self.chain.head.number

    @property
    def block_hash(self) -> str:
        return "0x" + self.chain.head.hash.hex()

    @property
    def genesis_hash(self) -> str:
        return "0x" + self.chain.genesis_hash.hex()

    @property
    def timestamp(self) -> int:
        """Chain time of the newest block, ms since 1970."""
        return self.chain.head.timestamp

    @property
    def next_timestamp(self) -> int:
        """Chain time that a block has when it is authored now, ms since 1970."""
        return self.chain.clock.next(self.chain.head.timestamp, self.chain.slot_ms)

    @property
    def client(self) -> Client:
        """Names and values of the runtime's metadata: encoding calls, decoding storage."""
        return self.developer.client

    # -- time and blocks

    async def mine(self, blocks: int = 1) -> int:
        """Author that many blocks now; the number of the last."""
        return (await self.miner.mine(blocks)).number

    async def mine_to(self, number: int) -> int:
        """Author blocks until `number` is the head (nothing if it already is or was)."""
        return await self.mine(number - self.block) if number > self.block else self.block

    async def mine_epoch(self, netuid: int) -> int:
        """Author blocks up to the one in which the subnet's next epoch runs; its number. Raises ChainError."""
        return await self.mine_to(self.developer.next_epoch(netuid))

    async def travel(self, timestamp: int) -> int:
        """Author a block stamped `timestamp` (ms since 1970); its number."""
        await self.miner.travel(timestamp)
        return self.block

    # -- reading

    def query(self, pallet: str, item: str, *keys: Any, block: int | None = None) -> Any:
        """A storage value, decoded; its default (or None) when nothing is stored. Accounts may be SS58 addresses."""
        return self.client.query(pallet, item, *keys, block=block)

    def query_map(self, pallet: str, item: str, *keys: Any, block: int | None = None) -> dict[Any, Any]:
        """All entries under the given keys: remaining key (a tuple when several remain) -> value."""
        return self.client.query_map(pallet, item, *keys, block=block)

    def call(self, api: str, method: str, *arguments: Any, block: int | None = None) -> Any:
        """A runtime API, arguments encoded and the answer decoded by the metadata."""
        return self.client.call(api, method, *arguments, block=block)

    def events(self, block: int | None = None) -> list[dict[str, Any]]:
        """The events of a block (default: the newest): {"phase", "pallet", "name", "fields"}."""
        return self.client.events(block)

    def balance(self, account: Account) -> int:
        """Free balance in rao."""
        return int(self.query("System", "Account", public_key(account))["data"]["free"])

    # -- writing

    async def extrinsic(
        self, signer: Signer, pallet: str, call: str, /, *, check: bool = True, tip: int = 0, **arguments: Any
    ) -> Outcome:
        """Sign a call, send it through the pool, and return what the block that carries it says.

        In manual mode a block is authored for it. Raises CallFailed (refused by the pool, or failed on chain) unless
        `check` is False; the outcome's `error` then has the name.
        """
        return await self._send(signer, self.client.encode_call(pallet, call, arguments), check, tip)

    async def sudo(self, pallet: str, call: str, /, *, check: bool = True, **arguments: Any) -> Outcome:
        """The same as root: signed by //Alice where she has the sudo key, as on a chain for developers.

        Elsewhere (a chain specification's own sudo key, a fork) nobody here could sign: it is then a call of "root"
        without a signature, in a new block that says so, and raises what `impersonate` does.
        """
        if self._sudo_key() != public_key(SUDO):
            return await self.impersonate("root", pallet, call, check=check, **arguments)
        inner = self.client.call_value(pallet, call, arguments)
        return await self._send(SUDO, self.client.encode_call("Sudo", "sudo", {"call": inner}), check, 0)

    def _sudo_key(self) -> bytes | None:
        """None where the runtime has no sudo, or nobody has its key."""
        known = ("Sudo", "Key") in self.client.document.storage
        return self.query("Sudo", "Key") if known else None

    async def _send(self, signer: Signer, call: bytes, check: bool, tip: int) -> Outcome:
        included: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def watch(status: Any) -> None:
            final = status in ("invalid", "dropped") or (isinstance(status, dict) and "retracted" not in status)
            if final and not included.done():
                included.set_result(status)

        raw = self.client.sign(signer, call, self.rpc.node.api.next_nonce(public_key(signer)), tip)
        refused = self.client.submit(raw, watch)
        if refused is None:
            self.miner.poke()
            if self.mining == "manual":
                await self.miner.mine()
            if self.mining == "manual" and not included.done():  # nobody makes the next block: it would wait for ever
                waits = "the block made for it did not take it; it waits in the pool for the next"
                refused = Outcome(False, waits, "0x" + blake2_256(raw).hex())
            else:
                refused = self.client.not_included(await included)
        outcome = refused or self.client.outcome(raw, self.chain)
        return outcome.checked() if check else outcome

    # -- making -----------------------------------------------------------------------------------------------------

    async def subnet(
        self,
        *,
        miners: int = 3,
        validators: int = 2,
        stake: int | Sequence[int] = 100 * TAO,
        tempo: int | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        label: str | None = None,
        epochs: int = 1,
    ) -> Subnet:
        """A running subnet with its neurons; see `localnet.subnets` for keys and `Plan` for the arguments.

        Raises ConfigError, CallFailed; the chain is as it was then.
        """
        plan = Plan(miners, validators, stake, tempo, hyperparameters or {}, label, epochs)
        return await build(self, plan)


__all__ = ["TAO", "Account", "Block", "Localnet", "Outcome", "RuntimeSource", "Signer"]
