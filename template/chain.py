"""The chain, as a neuron sees it: the only module that talks to Subtensor through the SDK.

    async with Chain("local") as chain:
        await chain.wait_ready(on_wait=print)              # with backoff, for as long as it takes
        graph = await chain.metagraph(2)                   # protocol.metagraph.Metagraph
        await chain.serve_axon(2, hotkey, "203.0.113.7", 8091)         # only when it differs from what the chain holds
        outcome = await chain.set_weights(2, hotkey, {"5F...": 0.7})   # by hotkey; read back afterwards
        await chain.commit(2, hotkey, "text")              # public; commitment(2, "5F...") reads it

Every call has a time limit and raises a ChainError of this module. The SDK's connection is dropped after any
transport failure or time-out and opened anew by the next call: a connection that outlives a chain restart keeps
account nonces of the chain that was, and its submissions then wait for ever. For the same reason the SDK's
`retry_forever` is off: waiting is done here, visibly.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Any, TypeVar
from urllib.parse import urlsplit

import bittensor as bt
from bittensor import metagraph as sdk_metagraph
from bittensor.result import BittensorError, ConnectionNotReady, RpcConnectionError
from bittensor.result import ChainError as SdkChainError
from bittensor.settings import NETWORKS, RAO_PER_TAO, resolve_endpoint

from protocol.metagraph import HTTP, Metagraph, Neuron
from template.commitments import Committed, from_record, to_fields
from template.errors import TemplateError
from template.keys import Hotkey

log = logging.getLogger(__name__)

T = TypeVar("T")
MECHANISM_STRIDE = 4096  # storage index of mechanism m on netuid: m * 4096 + netuid (chain constant)
U16 = 65535
_NONCE_RACES = 3  # extrinsics that are signed anew because another process used their nonce
_NONCE_TAKEN = ("Stale", "Future")  # what the pool says then
_POOL_RETRIES = 2  # resubmissions after a transient refusal of the pool, such as a nonce race
_LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
_PALLET = "SubtensorModule"


class ChainError(TemplateError):
    """Root of what this module raises.

    ChainError
    ├── ChainUnreachable      no connection, or it broke
    ├── ChainTimeout          the chain did not answer in time; what was submitted may still happen
    ├── ChainRefused          the chain said no; `.code` is the SDK's stable word, `.name` the chain's own error name
    ├── NoSuchSubnet          the subnet does not exist
    └── NotRegistered         the hotkey has no uid on the subnet
    """


class ChainUnreachable(ChainError):
    """No connection, or it broke."""


class ChainTimeout(ChainError):
    """No answer in time."""


class ChainRefused(ChainError):
    """The chain declined a call or an extrinsic."""

    def __init__(self, message: str, *, code: str = "unknown", name: str = "", remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.code = code
        self.name = name


class NoSuchSubnet(ChainError):
    """The subnet does not exist."""


class NotRegistered(ChainError):
    """The hotkey has no uid on the subnet."""


class Taken(str, Enum):
    """What became of a weights submission."""

    HELD = "held"  # the chain holds these weights
    COMMITTED = "committed"  # commit-reveal: the chain holds the sealed commit
    NOT_DUE = "not_due"  # the rate limit has not passed; nothing was sent
    NO_PERMIT = "no_permit"  # no validator permit yet; nothing was sent
    NOTHING = "nothing"  # nobody to give weight to; nothing was sent
    REFUSED = "refused"  # the chain said no
    NOT_TAKEN = "not_taken"  # the chain accepted the extrinsic and holds something else


@dataclass(frozen=True)
class WeightsOutcome:
    """`asked` and `held` map uid to a share of 1. `detail` is one sentence for the log."""

    taken: Taken
    detail: str
    asked: Mapping[int, float] = field(default_factory=dict)
    held: Mapping[int, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.taken in (Taken.HELD, Taken.COMMITTED)


@dataclass(frozen=True)
class WeightsDue:
    """Why weights may or may not be set now. Blocks."""

    permit: bool
    wait: int  # blocks until the rate limit has passed; 0 = may set now
    last_update: int
    commit_reveal: bool


@dataclass(frozen=True)
class Receipt:
    """An extrinsic that succeeded."""

    message: str
    block_hash: str
    data: Mapping[str, Any]


def endpoint_of(network: str) -> str:
    """The WebSocket URL of a network name or URL. Raises ChainError for anything else."""
    try:
        return resolve_endpoint(network)[1]
    except ValueError:
        known = ", ".join(sorted(NETWORKS))
        raise ChainError(f"unknown network {network!r}", remedy=f"use one of {known}, or a ws:// URL") from None


def is_local_network(network: str) -> bool:
    """Whether the chain runs on this machine, so that neurons at loopback and private addresses are neighbours."""
    return (urlsplit(endpoint_of(network)).hostname or "") in _LOOPBACK


class Chain:
    """One connection to one network; safe to share between tasks of one event loop."""

    def __init__(self, network: str, *, timeout: float = 12.0) -> None:
        self.network = network
        self.endpoint = endpoint_of(network)
        self.timeout = timeout
        self.is_local = is_local_network(network)
        self._client: bt.Client | None = None
        self._connecting = asyncio.Lock()

    # Connection

    @property
    def connected(self) -> bool:
        return self._client is not None

    async def __aenter__(self) -> Chain:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            # A connection that is being given up may fail while closing; there is nothing left to do about it.
            with contextlib.suppress(BittensorError, OSError, AssertionError, asyncio.TimeoutError):
                await asyncio.wait_for(client.close(), 5.0)

    async def wait_ready(self, *, on_wait: Callable[[str], None] | None = None, longest: float | None = None) -> int:
        """Wait until the chain answers, and return its block. Raises ChainUnreachable after `longest` seconds."""
        loop = asyncio.get_running_loop()
        started, pause = loop.time(), 0.25
        while True:
            try:
                return await self.block()
            except (ChainUnreachable, ChainTimeout) as error:
                if longest is not None and loop.time() - started + pause > longest:
                    raise
                if on_wait is not None:
                    on_wait(f"waiting for the chain at {self.endpoint}: {error.message}")
                await asyncio.sleep(pause)
                pause = min(pause * 2, 15.0)

    async def _connected(self) -> bt.Client:
        async with self._connecting:
            if self._client is None:
                client = bt.Client(self.network, retry_forever=False)
                try:
                    await client.connect()
                except BaseException:
                    with contextlib.suppress(BittensorError, OSError):
                        await client.close()
                    raise
                self._client = client
            return self._client

    async def _run(self, what: str, op: Callable[[bt.Client], Awaitable[T]], timeout: float | None = None) -> T:
        """Run one operation within its time, and turn every failure into a ChainError."""
        client: bt.Client | None = None

        async def run() -> T:
            nonlocal client
            client = await self._connected()
            return await op(client)

        limit = timeout or self.timeout
        try:
            return await asyncio.wait_for(run(), limit)
        except asyncio.TimeoutError:
            await self._drop(client)
            remedy = "check the node, or raise --chain-timeout"
            raise ChainTimeout(f"{what}: no answer from {self.endpoint} in {limit:g} s", remedy=remedy) from None
        except (RpcConnectionError, ConnectionNotReady, OSError, AssertionError) as error:
            # AssertionError: what SDK 11.3 makes of a node that says goodbye (WebSocket close 1001).
            await self._drop(client)
            remedy = "start a chain (touchstone localnet) or check --network"
            raise ChainUnreachable(f"{what}: cannot reach {self.endpoint}: {error}", remedy=remedy) from None
        except SdkChainError as error:
            if client is not self._client:  # another task gave this connection up while we were waiting on it
                raise ChainUnreachable(f"{what}: the connection to {self.endpoint} was lost") from None
            raise _refused(what, error) from None
        except BittensorError as error:
            raise ChainRefused(f"{what}: {error}") from None
        except Exception as error:
            # The SDK does not check what a node sends before it reads it: a reply of another form ends in a KeyError,
            # a TypeError or whatever decoding meets. A node that answers nonsense once must not end a neuron.
            await self._drop(client)
            log.debug("%s failed inside the SDK", what, exc_info=error)
            detail = f"{what}: the SDK cannot read the answer of {self.endpoint}: {type(error).__name__}: {error}"
            raise ChainUnreachable(detail, remedy="check the node; --log-level debug shows where") from None

    async def _drop(self, client: bt.Client | None) -> None:
        if client is not None and client is self._client:
            await self.close()

    # Reads

    async def block(self) -> int:
        return await self._run("read the block number", lambda c: c.block())

    async def finalized_block(self) -> int:
        """The newest block that no reorganisation can take back."""
        return await self._run("finalized block", lambda client: client.finalized_block())

    async def block_hash(self, block: int) -> str:
        """0x-prefixed hash of a block."""
        return str(await self._run(f"read the hash of block {block}", lambda c: c._substrate.block_hash(block)))

    async def block_seconds(self) -> float:
        """Seconds from block to block that the chain aims at."""
        return float(await self._run("read the block time", lambda c: c.block_time()))

    async def timestamp(self) -> float:
        """Unix time of the newest block."""
        return float((await self._run("read the chain's time", lambda c: c.timestamp())).timestamp())

    async def query(self, item: str, *params: Any, block: int | None = None, pallet: str = _PALLET) -> Any:
        """One storage value, decoded."""
        return await self._run(f"read {item}", lambda c: c.query((pallet, item), list(params), block=block))

    async def balance(self, address: str) -> int:
        """Free balance in rao."""
        account = await self.query("Account", address, pallet="System")
        return int(account["data"]["free"])

    async def metagraph(self, netuid: int, block: int | None = None) -> Metagraph:
        """The subnet at a block (default: the newest). Raises NoSuchSubnet."""

        async def read(client: bt.Client) -> tuple[Any, Any, Any]:
            view = await client.at(block)
            return await asyncio.gather(
                sdk_metagraph.fetch(view, netuid, commitments=False),
                view.query((_PALLET, "ValidatorTrust"), [netuid]),
                client._substrate.block_hash(view.block),
            )

        graph, trust, block_hash = await self._run(f"read the metagraph of subnet {netuid}", read)
        if graph is None:
            raise NoSuchSubnet(
                f"subnet {netuid} does not exist on {self.network}", remedy="check --netuid and --network"
            )
        return _metagraph(graph, trust or [], str(block_hash))

    async def uid(self, netuid: int, hotkey: str) -> int | None:
        value = await self.query("Uids", netuid, hotkey)
        return None if value is None else int(value)

    async def require_registered(self, netuid: int, hotkey: str, wallet: str = "", hotkey_name: str = "") -> int:
        """The uid. Raises NotRegistered with the command that registers it."""
        uid = await self.uid(netuid, hotkey)
        if uid is None:
            names = f" --wallet {wallet} --hotkey {hotkey_name}" if wallet else ""
            raise NotRegistered(
                f"hotkey {hotkey} is not registered on subnet {netuid} of {self.network}",
                remedy=f"run: touchstone register --network {self.network} --netuid {netuid}{names}",
            )
        return uid

    async def commitment(self, netuid: int, hotkey: str) -> Committed | None:
        """What a hotkey committed, or None when that is no texts (template/commitments.py)."""
        return from_record(await self.query("CommitmentOf", netuid, hotkey, pallet="Commitments"))

    async def commitments(self, netuid: int, block: int | None = None) -> dict[str, Committed]:
        """What everybody had committed as of `block` (None: now), by hotkey; who left the subnet is among them."""

        async def read(client: bt.Client) -> Any:
            view = await client.at(block)
            return await view.query_map(bt.storage.Commitments.CommitmentOf, [netuid])

        entries = await self._run("commitments", read)
        found = {str(hotkey): from_record(record) for hotkey, record in entries}
        return {hotkey: committed for hotkey, committed in found.items() if committed is not None}

    # What a neuron writes, with its hotkey

    async def serve_axon(
        self, netuid: int, hotkey: Hotkey, ip: str, port: int, *, version: int = 1, protocol: int = HTTP
    ) -> bool:
        """Publish ip:port, for the work that `protocol` says (protocol/metagraph.py); False when the chain holds it
        already. Raises ChainRefused."""
        neuron = (await self.metagraph(netuid)).by_hotkey.get(hotkey.ss58)
        if neuron is not None and (neuron.ip, neuron.port, neuron.protocol) == (ip, port, protocol):
            return False
        args = {"netuid": netuid, "ip": ip, "port": port, "version": version, "protocol": protocol}
        await self.execute("serve_axon", args, hotkey.keypair)
        return True

    async def commit(self, netuid: int, hotkey: Hotkey, *texts: str) -> Receipt:
        """Commit texts (template/commitments.py) in place of what the hotkey committed before.

        Free of fees. Raises ValueError for texts that do not fit; ChainRefused when the hotkey has no uid on the
        subnet, when its space of this epoch is used up, or when the chain holds something else afterwards.
        """
        info = {"fields": to_fields(texts)}

        async def submit(client: bt.Client) -> Any:
            return await client.submit_call(bt.calls.Commitments.set_commitment(netuid, info), hotkey.keypair)

        receipt = await self._signed("commit", submit)
        held = await self.commitment(netuid, hotkey.ss58)
        if held is None or held.texts != texts:
            raise ChainRefused(f"the chain took the commitment and holds {held}", remedy="read it again, then repeat")
        return receipt

    async def weights_due(self, netuid: int, hotkey: str, *, mechanism: int = 0) -> WeightsDue:
        """Whether weights may be set now. Raises NotRegistered."""
        uid = await self.require_registered(netuid, hotkey)
        now, updates, limit, permits, sealed = await asyncio.gather(
            self.block(),
            self.query("LastUpdate", mechanism * MECHANISM_STRIDE + netuid),
            self.query("WeightsSetRateLimit", netuid),
            self.query("ValidatorPermit", netuid),
            self.query("CommitRevealWeightsEnabled", netuid),
        )
        last = int(updates[uid]) if uid < len(updates or ()) else 0
        wait = 0 if last == 0 else max(0, last + int(limit or 0) - now)
        return WeightsDue(bool(uid < len(permits or ()) and permits[uid]), wait, last, bool(sealed))

    async def set_weights(
        self, netuid: int, hotkey: Hotkey, weights: Mapping[str, float], *, mechanism: int = 0, version_key: int = 0
    ) -> WeightsOutcome:
        """Set weights given by hotkey when that is due, then read back what the chain holds.

        Never raises for a "no" of the chain: the outcome says it. Raises ChainUnreachable and ChainTimeout.
        """
        due = await self.weights_due(netuid, hotkey.ss58, mechanism=mechanism)
        if not due.permit:
            return WeightsOutcome(Taken.NO_PERMIT, "no validator permit: it comes at an epoch, with enough stake")
        if due.wait:
            return WeightsOutcome(Taken.NOT_DUE, f"the rate limit passes in {due.wait} blocks")
        by_uid = (await self.metagraph(netuid)).uids(weights)
        positive = {by_uid[h]: w for h, w in weights.items() if h in by_uid and w > 0}
        if not positive:
            return WeightsOutcome(Taken.NOTHING, "nobody has earned weight yet; the chain keeps what it holds")
        asked = {uid: w / sum(positive.values()) for uid, w in sorted(positive.items())}
        args = {
            "netuid": netuid,
            "uids": list(asked),
            "weights": list(asked.values()),
            "mechid": mechanism,
            "version_key": version_key,
        }
        try:
            await self.execute("set_weights", args, hotkey.keypair)
        except ChainRefused as error:
            return WeightsOutcome(Taken.REFUSED, str(error), asked)
        if due.commit_reveal:
            return await self._read_commit(netuid, hotkey.ss58, mechanism, due, asked)
        held = await self.weights_of(netuid, await self.require_registered(netuid, hotkey.ss58), mechanism=mechanism)
        now = (await self.metagraph(netuid)).uids(weights)
        moved = sorted(uid for hotkey, uid in by_uid.items() if uid in asked and now.get(hotkey) != uid)
        if moved:  # a uid was given to a stranger between our read and the block that took the weights
            detail = f"uid {moved[0]} changed hands while the weights were under way; they are set again when due"
            return WeightsOutcome(Taken.NOT_TAKEN, detail, asked, held)
        return _compare(asked, held)

    async def weights_of(self, netuid: int, uid: int, *, mechanism: int = 0) -> dict[int, float]:
        """uid -> share of 1 that the chain holds for this validator."""
        row = await self.query("Weights", mechanism * MECHANISM_STRIDE + netuid, uid)
        total = sum(int(value) for _, value in row or ())
        return {int(to): int(value) / total for to, value in row or ()} if total else {}

    async def _read_commit(
        self, netuid: int, hotkey: str, mechanism: int, before: WeightsDue, asked: dict[int, float]
    ) -> WeightsOutcome:
        after = await self.weights_due(netuid, hotkey, mechanism=mechanism)
        if after.last_update <= before.last_update:
            return WeightsOutcome(Taken.NOT_TAKEN, "the chain recorded no new commit for this hotkey", asked)
        return WeightsOutcome(Taken.COMMITTED, f"sealed commit recorded at block {after.last_update}", asked)

    # Extrinsics by name

    async def execute(self, op: str, args: Mapping[str, Any], signer: Any, *, timeout: float | None = None) -> Receipt:
        """Run one of the SDK's operations by its name ("burned_register", "add_stake", ...) and wait for its block.

        `signer` is a wallet, or a keypair where the operation is signed with the hotkey. Raises ChainRefused.
        """

        async def submit(client: bt.Client) -> Any:
            return await client.execute_tool(op, dict(args), signer, retries=_POOL_RETRIES)

        receipt = await self._signed(op, submit, timeout)
        if receipt.data.get("shielded"):
            await self.close()  # a shielded call uses two nonces and the SDK's cache counts one; a new connection asks
        return receipt

    async def submit(self, pallet: str, function: str, params: Mapping[str, Any], signer: Any) -> Receipt:
        """`pallet.function(params)` signed by a coldkey, for what the SDK has no operation for. Raises ChainRefused."""

        async def submit(client: bt.Client) -> Any:
            return await client.submit_call(bt.calls.Call(pallet, function, dict(params)), signer)

        return await self._signed(f"{pallet}.{function}", submit)

    async def sudo(self, pallet: str, function: str, params: Mapping[str, Any], signer: Any) -> Receipt:
        """`Sudo.sudo(pallet.function(params))`; on a local chain only, where the sudo key is a development key.

        The outer extrinsic succeeds whatever the inner call did, so the inner result is read from the event.
        """

        async def submit(client: bt.Client) -> Any:
            inner = await client.compose(bt.calls.Call(pallet, function, dict(params)))
            return await client.submit_call(bt.calls.Sudo.sudo(call=inner), signer)

        what = f"sudo {pallet}.{function}"
        result = await self._run(what, submit, max(self.timeout, 60.0))
        receipt = self._receipt(what, result)
        inner_error = _sudo_error(result.events)
        if inner_error:
            raise ChainRefused(f"{what}: the call inside failed: {inner_error}", code="sudo_inner", name=inner_error)
        return receipt

    async def _signed(
        self, what: str, submit: Callable[[bt.Client], Awaitable[Any]], timeout: float | None = None
    ) -> Receipt:
        """Submit, and sign anew with a fresh nonce when another process of the same key was faster: a validator of both
        mechanisms is two."""
        for left in reversed(range(1 + _NONCE_RACES)):
            try:
                return self._receipt(what, await self._run(what, submit, timeout or max(self.timeout, 60.0)))
            except ChainRefused as error:
                if error.name not in _NONCE_TAKEN or not left:  # a refused nonce is forgotten by the SDK
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _receipt(self, what: str, result: Any) -> Receipt:
        if not result.success:
            if result.error is not None:
                raise _refused(what, result.error)
            raise ChainRefused(f"{what}: {result.message or 'the extrinsic failed without a reason'}")
        return Receipt(result.message, str(result.block_hash or ""), dict(result.data))


def _refused(what: str, error: SdkChainError) -> ChainRefused:
    remedy = error.remediation if error.code.value != "unknown" else ""
    return ChainRefused(f"{what}: {error.message}", code=error.code.value, name=error.name or "", remedy=remedy)


def _sudo_error(events: list[Any]) -> str:
    """The inner error of a `Sudo.Sudid` event, or "" when the inner call succeeded."""
    for event in events:
        record = event.get("event", event) if isinstance(event, dict) else getattr(event, "value", {}).get("event", {})
        if record.get("event_id") != "Sudid":
            continue
        attributes = record.get("attributes")
        result = attributes.get("sudo_result", attributes) if isinstance(attributes, dict) else attributes
        if isinstance(result, dict) and "Err" in result:
            return str(result["Err"])
    return ""


def _compare(asked: dict[int, float], held: dict[int, float]) -> WeightsOutcome:
    """Weights are quantised to 16 bits on their way; a share may move by that much, plus rounding of the largest."""
    worst = max((abs(held.get(uid, 0.0) - asked.get(uid, 0.0)) for uid in {*asked, *held}), default=0.0)
    if worst <= 2.0 / U16 * max(1, len(asked)):
        return WeightsOutcome(Taken.HELD, f"the chain holds weights for {len(held)} neurons", asked, held)
    detail = f"the chain accepted the weights and holds others (largest difference {worst:.4f})"
    return WeightsOutcome(Taken.NOT_TAKEN, detail, asked, held)


def _metagraph(graph: Any, trust: Sequence[int], block_hash: str) -> Metagraph:
    axons = list(graph.raw.get("axons") or [])
    trusts = [int(value) / U16 for value in trust]
    return Metagraph(
        netuid=graph.netuid,
        block=graph.block,
        block_hash=block_hash,
        tempo=graph.tempo,
        neurons=tuple(
            _neuron(n, axons[n.uid] if n.uid < len(axons) else {}, trusts[n.uid] if n.uid < len(trusts) else 0.0)
            for n in graph.neurons
        ),
        owner_hotkey=graph.owner_hotkey,
    )


def _neuron(n: Any, axon: Mapping[str, Any], trust: float) -> Neuron:
    number, version = int(axon.get("ip") or 0), int(axon.get("ip_type") or 4)
    ip = str(IPv6Address(number)) if version == 6 else str(IPv4Address(number & 0xFFFFFFFF))
    return Neuron(
        uid=n.uid,
        hotkey=n.hotkey,
        coldkey=n.coldkey,
        stake=n.total_stake.rao / RAO_PER_TAO,
        validator_permit=n.validator_permit,
        active=n.active,
        ip=ip,
        port=int(axon.get("port") or 0),
        protocol=int(axon.get("protocol") or 0),
        last_update=n.last_update,
        incentive=n.incentive,
        dividends=n.dividends,
        emission=n.emission.rao,
        consensus=n.consensus,
        validator_trust=trust,
        registered_at=n.block_at_registration,
        collateral=n.collateral_locked.rao if n.collateral_locked is not None else 0,
    )
