"""What a developer may do to a chain: one implementation behind `Localnet`, `SyncLocalnet` and the dev_* methods.

    impersonate      calls of any origin in one block, marked in its header (see localnet.node.marks)
    dry_run          what an extrinsic or a call would do, without doing it
    set_storage      values by name or raw, written at the end of a new block
    trace            what every extrinsic of a block changed and reported
    explain          why a neuron has what it has (localnet.explain puts it into words)
    export, restore  the state as a document (localnet.state_file)

An origin is "root", "none" or an account: SS58, a secret URI ("//Alice") or 32 bytes. A call of an account costs its
fee and raises its nonce, as if the account had signed it; only the signature is missing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from localnet import calls as calls_of
from localnet import state_file
from localnet.client import Client, Outcome, Vocabulary, public_key
from localnet.codec.document import StorageEntry
from localnet.codec.scale import read_compact
from localnet.errors import ChainError, ConfigError, RuntimeApiMissing, RuntimeTrap, ScaleError
from localnet.node import replay
from localnet.node.blocks import Block
from localnet.node.chain import Chain
from localnet.node.marks import Impersonated, Origin, impersonated_at, marked, unsigned
from localnet.node.mining import Miner
from localnet.node.runtime_api import RuntimeApi
from localnet.snapshots import Snapshots

SUBTENSOR = "SubtensorModule"

Account = str | bytes
Calls = Sequence[tuple[Origin, bytes]]  # encoded calls, each with its origin


@dataclass
class Trial:
    """What an extrinsic would do. `error`: the chain's name for a failure, or the text with which it is refused;
    `valid` is False for one that would not get into a block. `fee` in rao; `storage`: values before and after."""

    valid: bool
    success: bool
    error: str | None
    fee: int = 0
    tip: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    storage: list[dict[str, Any]] = field(default_factory=list)


def origin_of(name: Account) -> Origin:
    """ "root", "none", or an account. Raises ConfigError."""
    if name == "root" or name == "none":
        return name  # type: ignore[return-value]
    try:
        account = public_key(name)
    except ValueError as error:
        raise ConfigError(f"{name!r} is no origin: root, none, an SS58 address or a URI such as //Alice") from error
    if len(account) != 32:
        raise ConfigError(f"an account has 32 bytes, not {len(account)}")
    return account


def in_rhythm(netuid: int, tempo: int, block: int) -> int:
    """The first block from `block` on with an epoch, where nothing but the block's number decides: one in which
    tempo - (block + netuid + 1) % (tempo + 1) is 0 (`blocks_until_next_epoch` in the pallet's run_coinbase.rs)."""
    return block + tempo - (block + netuid + 1) % (tempo + 1)


class Developer:
    def __init__(self, chain: Chain, miner: Miner) -> None:
        self.chain, self.miner = chain, miner
        self.snapshots = Snapshots(chain)
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """Names and values of the runtime's metadata."""
        if self._client is None:
            self._client = Client(self.chain)
        return self._client

    async def revert(self, serial: int) -> Block:
        """Back to a snapshot; its block. Raises ChainError when that is gone, StateDiscarded."""
        async with self.miner.hold():
            taken = self.snapshots.check(serial)
            await self.miner.revert(taken.number)
            self.snapshots.restore(taken)
        if self.chain.pool.has_ready:
            self.miner.poke()
        return self.chain.head

    # -- impersonation ----------------------------------------------------------------------------------------------

    def _unsigned(self, origin: Origin, call: bytes, ahead: int = 0, block: int | None = None) -> Impersonated:
        if isinstance(origin, str):
            return unsigned(origin, call, bare=self.client.after(block).document.extrinsic_version)
        raw = self.chain.call("AccountNonceApi_account_nonce", origin, block)
        nonce = int.from_bytes(raw, "little") + ahead
        return unsigned(origin, call, nonce, self.client.extensions(nonce, 0)[0])

    async def impersonate(self, calls: Calls | Callable[[], Calls], *, alone: bool = False) -> list[Outcome]:
        """Encoded calls (or a function that makes them when their block is next), each with its origin, in this order
        in one new block, before the pool's transactions, or without these (`alone`). An account's nonce grows by it:
        what it has signed with that nonce and is still waiting becomes invalid.

        Raises PoolRejected when one of them cannot get into a block (no block is made then), RuntimeApiMissing when the
        runtime cannot do without signatures.
        """

        def prepare() -> list[Impersonated]:
            sent: Counter[Origin] = Counter()
            prepared = []
            for origin, call in calls() if callable(calls) else calls:
                prepared.append(self._unsigned(origin, call, sent[origin]))
                sent[origin] += 1
            return prepared

        block = await self.miner.mine(1, None, prepare, alone=alone)
        return self.client.outcomes(block, list(impersonated_at(block.header)))

    async def call_as(self, origin: Account, pallet: str, call: str, arguments: Mapping[str, Any]) -> Outcome:
        """One call by name."""
        return (await self.impersonate([(origin_of(origin), self.client.encode_call(pallet, call, arguments))]))[0]

    async def fund(self, account: Account, rao: int) -> int:
        """Add to an account's free balance, as root; total issuance grows. The new balance.

        Raises ConfigError for less than nothing, for parts of a rao, and for a balance below the existential deposit.
        """
        if not isinstance(rao, int):
            raise ConfigError(f"money is a whole number of rao, not {rao!r}: int(1.5 * TAO)")
        words = self.client.vocabulary
        who, least = public_key(account), words.constant("Balances", "ExistentialDeposit")

        def calls() -> list[tuple[Origin, bytes]]:
            wanted = self._free(who) + rao
            if rao < 0 or wanted < least:
                raise ConfigError(f"cannot add {rao} rao: funding only adds, and an account holds {least} rao or more")
            form = calls_of.balance(words, who, wanted, self.client.query("System", "Account", who))
            return [("root", words.encode_call(*form))]

        (await self.impersonate(calls))[0].checked()
        return self._free(who)

    def _free(self, who: bytes) -> int:
        return int(self.client.query("System", "Account", who)["data"]["free"])

    # -- subnets ----------------------------------------------------------------------------------------------------

    def ensure_subnet(self, netuid: int, block: int | None = None) -> None:
        """Raises ChainError when there is no such subnet. A runtime that knows no subnets has its own say."""
        known = (SUBTENSOR, "NetworksAdded") in self.client.document.storage
        if known and not (0 <= netuid < 1 << 16 and self.client.query(SUBTENSOR, "NetworksAdded", netuid, block=block)):
            raise ChainError(f"there is no subnet {netuid}")

    def next_epoch(self, netuid: int) -> int:
        """The block in which the subnet's next epoch runs. Raises ChainError.

        Runtimes that say so themselves are asked; those from before the scheduler that remembers `LastEpochBlock` have
        a fixed rhythm (`in_rhythm`).
        """
        self.ensure_subnet(netuid)
        try:
            return RuntimeApi(self.chain).next_epoch(netuid)
        except RuntimeApiMissing:
            if (SUBTENSOR, "LastEpochBlock") in self.client.document.storage:
                raise  # neither the one nor the other
        tempo = self.client.query(SUBTENSOR, "Tempo", netuid)
        if tempo == 0:
            raise ChainError(f"subnet {netuid} has no next epoch: its tempo is 0")
        return in_rhythm(netuid, tempo, self.chain.head.number + 1)

    # -- trying -----------------------------------------------------------------------------------------------------

    def try_call(self, origin: Account, call: bytes, block: int | None = None) -> Trial:
        """An encoded call of `origin` on top of a block (default: the head)."""
        one = self._unsigned(origin_of(origin), call, block=block)
        return self._tried(replay.try_out(self.chain, one, block), block)

    def try_extrinsic(self, raw: bytes, block: int | None = None) -> Trial:
        """A whole extrinsic on top of a block. Raises RuntimeTrap for one that cannot be decoded."""
        return self._tried(replay.try_out(self.chain, raw, block), block)

    def _tried(self, tried: replay.Tried, block: int | None) -> Trial:
        if tried.refusal is not None:
            return Trial(False, False, tried.refusal.text)
        words = self.client.after(block)
        entry = words.entry("System", "Events")
        records = words.registry.decode(entry.value, tried.view.get(entry.prefix) or entry.default)
        events = [one for one in words.event_list(records) if one["phase"] == tried.index]
        paid = next((one["fields"] for one in events if one["name"] == "TransactionFeePaid"), None)
        fee, tip = (0, 0) if paid is None else (paid["actual_fee"], paid["tip"])  # nobody signed it
        error, storage = words.failure(events), words.names.show_all(tried.changes)
        return Trial(True, error is None, error, fee, tip, events, storage)

    # -- storage ----------------------------------------------------------------------------------------------------

    def typed(self, values: Any) -> dict[bytes, bytes | None]:
        """Storage by name as raw keys and values: {"Pallet": {"Item": value}}, for maps {"Item": [[keys, value], ..]}.

        Null removes. Fields left out of an object keep what they have. Raises MetadataError, ScaleError.
        """
        changes: dict[bytes, bytes | None] = {}
        for pallet, items in _object(values, "pallets").items():
            for item, given in _object(items, f"items of {pallet}").items():
                entry = self.client.entry(pallet, item)
                for keys, value in _entries(given, f"{pallet}.{item}") if entry.hashers else [([], given)]:
                    raw = self.client.raw_key(entry, keys)
                    changes[raw] = None if value is None else self._value(entry, raw, value)
        return changes

    def _value(self, entry: StorageEntry, raw: bytes, value: Any) -> bytes:
        plain, registry = self.client.plain, self.client.registry
        if isinstance(value, dict):
            present = registry.decode(entry.value, self.chain.storage(raw) or entry.default)
            value = _merged(plain.show(entry.value, present), value)
        return registry.encode(entry.value, plain.read(entry.value, value))

    async def write(self, changes: Mapping[bytes, bytes | None]) -> Block:
        """Raw storage, at the end of a new block."""
        return await self.miner.mine(1, changes)

    # -- looking ----------------------------------------------------------------------------------------------------

    def trace(self, number: int | None = None) -> dict[str, Any]:
        """A block step by step (default: the head). Raises ChainError, UnknownBlock, StateDiscarded."""
        block = self.chain.head if number is None else self.chain.block(number)
        events, words = self.client.events(block.number), self.client.made(block.number)
        return {
            "block": block.number,
            "hash": "0x" + block.hash.hex(),
            "marks": marked(block.header),
            "steps": [_step(words, step, events) for step in replay.trace(self.chain, block.number)],
        }

    def explain(self, netuid: int, uid: int, block: int | None = None, preview: bool = False) -> dict[str, Any]:
        """Why the neuron has what it has: by the subnet's newest epoch at `block` (default: the head), or with
        `preview` (and when none has run yet) by the epoch as it would run in the block after it.

        Raises ChainError when there is no such neuron or it came later, StateDiscarded when the epoch is older than the
        history.
        """
        if not (0 <= netuid < 1 << 16 and 0 <= uid < 1 << 16):
            raise ConfigError("netuid and uid are numbers from 0 to 65535")
        at = self.chain.head.number if block is None else self.chain.block(block).number
        self.ensure_subnet(netuid, at)
        ran = self.client.query(SUBTENSOR, "LastMechansimStepBlock", netuid, block=at)
        preview = preview or not 0 < ran <= at
        if preview:
            header, on = replay.next_header(self.chain, self.chain.block(at))[0], at
        else:
            header, on = replay.bare_header(self.chain.block(ran)), ran - 1
            first, now = (self.client.query(SUBTENSOR, "SubnetworkN", netuid, block=number) for number in (on, at))
            if first <= uid < now:
                raise ChainError(f"uid {uid} came after the newest epoch, of block {ran}: a preview shows its next one")
        which = b"".join(number.to_bytes(2, "little") for number in (netuid, uid)) + bytes((preview,))
        answer = self._explained(which + header.encode(), on)
        report = {"preview": preview, **json.loads(answer[read_compact(answer, 0)[1] :])}
        return {**report, "as_on_chain": None if preview else self._agrees(report, at)}

    def _explained(self, data: bytes, on: int) -> bytes:
        """The report as JSON: the runtime's own, or the specification's of this runtime's state. Raises ChainError."""
        try:
            return self.chain.call("DevApi_explain", data, on)
        except RuntimeApiMissing:
            from localnet.runtime.borrowed import explain  # brings the whole specification runtime

            view = self.chain.state.at(on)
            view.begin()
            try:
                return explain(self.chain.documents.at(on), view, data)
            except RuntimeTrap as error:
                raise ChainError(str(error).removeprefix("DevApi_explain: ")) from error
        except RuntimeTrap as error:
            raise ChainError(str(error).removeprefix("DevApi_explain: ")) from error

    def _agrees(self, report: Mapping[str, Any], block: int) -> bool:
        """Whether the epoch, run again, gives the neuron what the chain holds after a block."""
        netuid, uid, told = report["netuid"], report["uid"], report["stored"]
        for name in ("Consensus", "Incentive", "Dividends"):
            stored = self.client.query(SUBTENSOR, name, netuid, block=block)
            if (stored[uid] if uid < len(stored) else 0) != told[name.lower()]:
                return False
        return True

    # -- keeping ----------------------------------------------------------------------------------------------------

    def export(self, block: int | None = None) -> dict[str, Any]:
        """The state after a block as a document. Raises UnknownBlock, StateDiscarded."""
        return state_file.export(self.chain, block)

    async def restore(self, document: Any) -> Block:
        """Go on from an exported state; the block that holds it. Raises StateFileError and its kinds, ChainError."""
        exported = state_file.check(document, self.chain)
        return await self.miner.overwrite(exported.block, exported.timestamp, exported.changes)


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ScaleError(f"expected an object of {what}, not {value!r}")
    return value


def _entries(given: Any, name: str) -> list[tuple[list[Any], Any]]:
    """[[keys, value], ..] of a map; a single key needs no list around it."""
    if not isinstance(given, list) or not all(isinstance(one, list) and len(one) == 2 for one in given):
        raise ScaleError(f"{name} is a map: expected [[keys, value], ..], not {given!r}")
    return [(keys if isinstance(keys, list) else [keys], value) for keys, value in given]


def _merged(present: Any, given: Any) -> Any:
    """`given` over `present`, object by object, as far as both have the same fields."""
    if not (isinstance(present, dict) and isinstance(given, dict) and set(given) <= set(present)):
        return given
    return {name: _merged(value, given[name]) if name in given else value for name, value in present.items()}


def _step(words: Vocabulary, step: replay.Step, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    phase: Any = step.name.capitalize() if step.index is None else step.index
    told = [one for one in events if one["phase"] == phase]
    shown: dict[str, Any] = {"step": step.name}
    if step.index is not None:
        error, call = words.failure(told), words.show_call(step.extrinsic)
        shown |= {"index": step.index, "extrinsic": call, "error": error}
    return {**shown, "events": words.show_events(told), "storage": words.names.show_all(step.changes)}
