"""A subnet's epoch on a fork: as it was, and as it would have been with other weights of one validator.

An epoch runs at the start of its block, so its results follow from the state one block earlier. The fork begins there
(or is mined there, for an epoch to come), and the epoch's block is made twice: as things are, and with the validator's
row replaced. The row is the runtime's own: `set_weights` is applied to a copy of the state as the hotkey's last word in
that block, and what it stores is taken over. So its rules are those of the version that runs there; what is lifted are
the rate limit and the need to commit first.

`check` says whether the fork is to be believed: the real block's extrinsics are applied, too, and every value that this
writes must be the one that the node has after the block.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from localnet.abi import Runtime
from localnet.client import Client
from localnet.codec.scale import read_compact
from localnet.developer import Developer
from localnet.errors import ChainError, ConfigError, ForkError, LocalnetError, MetadataError, RuntimeApiMissing
from localnet.explain import sentences
from localnet.fork import answers, start
from localnet.fork.base import Base
from localnet.fork.transport import Refused
from localnet.node.blocks import Block, Header
from localnet.node.clock import ChainClock
from localnet.node.marks import Impersonated, impersonated_at, unsigned
from localnet.node.mining import Miner
from localnet.node.replay import Workbench, bare_header, next_header
from localnet.node.runtime_api import read_version
from localnet.node.state import StateView
from localnet.node.validity import INVALID_CUSTOM, read_apply_result
from localnet.rules.weights import storage_index
from localnet.vocabulary import public_key
from localnet.whatif.rules import RESULTS, Named, Results, Row, by_uid, cell, find_uid, scaled

PALLET = "SubtensorModule"
STEP, SINCE = "LastMechansimStepBlock", "BlocksSinceLastStep"
COMMITS = ("TimelockedWeightCommits", "CRV3WeightCommitsV2", "CRV3WeightCommits")  # what a chain opens by itself
ROOTED = (("Ethereum", "CurrentBlock"), ("Ethereum", "BlockHash"), ("System", "Digest"))

Edits: TypeAlias = "dict[bytes, bytes | None]"
Say: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class Question:
    """`who`: the validator, a uid in digits or a hotkey's address. `ahead`: the coming epoch, not the last one."""

    netuid: int
    weights: Named
    who: str
    mecid: int = 0
    epochs: int = 1
    ahead: bool = False
    explain: int | None = None

    @property
    def index(self) -> int:
        return storage_index(self.netuid, self.mecid)


@dataclass(frozen=True)
class Epoch:
    """What an epoch left behind. `weights`, `bonds`: the validator's rows."""

    block: int
    results: Results
    weights: Row
    bonds: Row


@dataclass(frozen=True)
class Check:
    """The epoch's block made again with its extrinsics, against what the node has after it.

    `undone`: why it could not be. `rooted`: of the `values`, those that differ by the state's root alone, which a fork
    does not have. `results`: names of results that the node has otherwise than the epoch left them.
    """

    undone: str | None = None
    extrinsics: int = 0
    values: int = 0
    rooted: int = 0
    differing: tuple[dict[str, Any], ...] = ()
    results: tuple[str, ...] = ()

    @property
    def faithful(self) -> bool:
        return self.undone is None and self.values > 0 and not self.differing


@dataclass(frozen=True)
class Answer:
    """`before` and `after`: the epochs, one after another. `row`: as set_weights stores it."""

    question: Question
    spec: int
    fork: dict[str, Any]
    uid: int
    hotkeys: list[bytes]
    owner: int | None
    row: Row
    before: list[Epoch]
    after: list[Epoch]
    check: Check
    opened: int  # commits of the validator's own that this epoch opens, and that were left out
    explained: dict[str, Any] = field(default_factory=dict)


class Fork:
    """A chain on top of a remote block, for one question."""

    def __init__(self, base: Base, question: Question, specification: Callable[[], Runtime]) -> None:
        self.base, self.question = base, question
        runtime = start.runtime_for(base, None, specification)
        self.chain = start.forked_chain(base, runtime, {"clock": ChainClock("step"), "history": 0})
        self.developer = Developer(self.chain, Miner(self.chain, "manual", 1.0))

    @property
    def client(self) -> Client:
        return self.developer.client

    def has(self, item: str) -> bool:
        return (PALLET, item) in self.client.document.storage

    def query(self, item: str, *keys: Any) -> Any:
        return self.client.query(PALLET, item, *keys)

    def last_epoch(self) -> int:
        """The block of the subnet's newest epoch. Raises ChainError when there was none, MetadataError."""
        netuid, head = self.question.netuid, self.chain.head.number
        self.developer.ensure_subnet(netuid)
        ran = self.query(STEP, netuid) if self.has(STEP) else head - self.query(SINCE, netuid)
        if not 0 < ran <= head:
            raise ChainError(f"no epoch of subnet {netuid} has run up to block {head}: --next looks at the coming one")
        return int(ran)

    def epoch(self, block: int, uid: int) -> Epoch:
        """Author up to `block`, in which an epoch is due; its results. Raises ChainError when none ran, ForkError."""
        while self.chain.head.number < block:
            self.chain.author(alone=True)
        if self.last_epoch() != block:
            raise ChainError(f"block {block} ran no epoch of subnet {self.question.netuid} when it was made again")
        index = self.question.index
        rows = [[(int(to), int(value)) for to, value in self.query(item, index, uid)] for item in ("Weights", "Bonds")]
        return Epoch(block, self.results(), *rows)

    def results(self) -> Results:
        return {name: [int(value) for value in self.query(item, key)] for name, (item, key) in self._items().items()}

    def _items(self) -> dict[str, tuple[str, int]]:
        """Result -> storage item and key."""
        netuid, index = self.question.netuid, self.question.index
        found = {name: (name, index if name == "Incentive" else netuid) for name in RESULTS if self.has(name)}
        if self.question.mecid and self.has("ConsensusByMechanism"):
            found["Consensus"] = ("ConsensusByMechanism", index)
        return found

    def copy(self, edits: Edits) -> StateView:
        """The head's state with these writes, to try things on."""
        view = self.chain.state.at(self.chain.head.number)
        view.begin()
        for key, value in edits.items():
            view.put(key, value)
        return view


def replay(
    where: str, question: Question, options: start.Options, specification: Callable[[], Runtime], say: Say
) -> Answer:
    """`where`: ws(s)://node or http(s)://node, @block behind it for an older one than the newest finalized.
    `specification`: makes the runtime of a chain that runs on a specification runtime.

    Raises ConfigError for weights that would not be accepted; ForkError, ChainError, MetadataError.
    """
    if question.epochs < 1:
        raise ConfigError("at least one epoch has to run")
    with _forked(where, question, options, specification) as fork:
        ran = None if question.ahead else fork.last_epoch()
        if ran is None:
            start.prepare(fork.base, fork.chain)
            block = fork.developer.next_epoch(question.netuid)
            say(f"mining to block {block - 1}, before the coming epoch of subnet {question.netuid}")
            while fork.chain.head.number < block - 1:
                fork.chain.author(alone=True)
            return _answer(fork, block, say)
    try:
        with _forked(f"{start.Target.parse(where).url}@{ran - 1}", question, options, specification) as fork:
            say(f"the last epoch of subnet {question.netuid} ran in block {ran}: forking before it")
            start.prepare(fork.base, fork.chain)
            return _answer(fork, ran, say)
    except ForkError as error:
        if isinstance(error.__cause__, Refused):
            raise ForkError(f"{error}. Without the state of block {ran - 1}: --next, the coming epoch") from error
        raise


@contextlib.contextmanager
def _forked(
    where: str, question: Question, options: start.Options, specification: Callable[[], Runtime]
) -> Iterator[Fork]:
    base = start.open_fork(where, options)
    try:
        yield Fork(base, question, specification)
    finally:
        base.close()


def _answer(fork: Fork, block: int, say: Say) -> Answer:
    """The fork's head is the block before `block`."""
    question, client, begin = fork.question, fork.client, fork.chain.head.number
    keys = client.query_map(PALLET, "Keys", question.netuid)
    hotkeys = [keys[uid] for uid in sorted(keys)]
    if sorted(keys) != list(range(fork.query("SubnetworkN", question.netuid))):
        raise ChainError(f"subnet {question.netuid} has no hotkey for one of its uids")
    uids = {hotkey: uid for uid, hotkey in enumerate(hotkeys)}
    uid = find_uid(question.who, uids, public_key)
    edits = accepted(fork, uid, hotkeys[uid], scaled(by_uid(question.weights, hotkeys, public_key)))
    explained = {} if question.explain is None else {"before": _explained(fork, {})}

    say("the epoch as it was" if not question.ahead else "the epoch as it would run")
    before = _epochs(fork, block, uid, say)
    opened = opened_commits(fork, hotkeys[uid], begin, block)
    fork.chain.revert(begin)
    check = Check("the epoch is to come") if question.ahead else checked(fork, before[0].results)

    say("the epoch with these weights")
    edits |= opened
    if question.explain is not None:
        failed = "unavailable" in explained["before"]
        explained["after"] = explained["before"] if failed else _explained(fork, edits)
    for key, value in edits.items():
        fork.chain.state.put(key, value)  # into the block that runs the epoch, before it begins
    after = _epochs(fork, block, uid, say)
    _judge(explained, question.explain, before[0], after[0])
    entry = client.entry(PALLET, "Weights")
    row = client.registry.decode(entry.value, edits[client.storage_key(PALLET, "Weights", question.index, uid)] or b"")
    spec = read_version(fork.chain.call("Core_version", b""))["specVersion"]
    owner = uids.get(fork.query("SubnetOwnerHotkey", question.netuid)) if fork.has("SubnetOwnerHotkey") else None
    return Answer(
        question, spec, fork.base.facts(), uid, hotkeys, owner, list(row), before, after, check, len(opened), explained
    )


def _epochs(fork: Fork, block: int, uid: int, say: Say) -> list[Epoch]:
    found = [fork.epoch(block, uid)]
    while len(found) < fork.question.epochs:
        block = fork.developer.next_epoch(fork.question.netuid)
        say(f"  then block {block}")
        found.append(fork.epoch(block, uid))
    return found


# -- the row --------------------------------------------------------------------------------------------------------


def accepted(fork: Fork, uid: int, hotkey: bytes, row: Row) -> Edits:
    """What set_weights writes: the row, and the block of the update. Raises ConfigError with the chain's name for what
    is wrong with it."""
    question, client = fork.question, fork.client
    updates = [int(block) for block in fork.query("LastUpdate", question.index)]
    lifted = [
        client.storage_write(PALLET, "LastUpdate", (question.index,), [*updates[:uid], 0, *updates[uid + 1 :]]),
        client.storage_write("System", "BlockWeight", (), None),  # there is room for one more
    ]
    if fork.has("CommitRevealWeightsEnabled"):
        lifted.append(client.storage_write(PALLET, "CommitRevealWeightsEnabled", (question.netuid,), False))
    arguments = {
        "netuid": question.netuid, "dests": [to for to, _ in row], "weights": [value for _, value in row],
        "version_key": fork.query("WeightsVersionKey", question.netuid),
    }  # fmt: skip
    name = "set_mechanism_weights" if question.mecid else "set_weights"
    call = client.encode_call(PALLET, name, arguments | ({"mecid": question.mecid} if question.mecid else {}))
    nonce = int.from_bytes(fork.chain.call("AccountNonceApi_account_nonce", hotkey), "little")
    one = unsigned(hotkey, call, nonce, client.extensions(nonce, 0)[0])
    view = fork.copy(dict(lifted))
    answer = fork.chain.run("DevApi_apply_extrinsic", one.argument, view)
    refusal, good = read_apply_result(answer)
    if refusal is not None:
        usual = " (in most versions: too little stake to set weights)" if refusal.variant == INVALID_CUSTOM else ""
        raise ConfigError(f"the chain would not take these weights from uid {uid}: {refusal.text}{usual}")
    if not good:
        raise ConfigError(f"the chain would not take these weights from uid {uid}: {_error_name(client, answer[2:])}")
    keys = client.storage_key(PALLET, "Weights", question.index, uid), lifted[0][0]
    return {key: view.get(key) for key in keys}


def _error_name(client: Client, raw: bytes) -> str:
    types = client.document.tree["types"]
    kind = next((number for number, one in enumerate(types) if one["path"] == ["sp_runtime", "DispatchError"]), None)
    if kind is None:
        raise MetadataError("the metadata has no sp_runtime::DispatchError")
    return str(client.vocabulary.error_name(client.registry.decode_from(kind, raw, 0)[0]))


def opened_commits(fork: Fork, hotkey: bytes, begin: int, block: int) -> Edits:
    """The hotkey's timelocked commits that were there after `begin` and are not after the epoch's `block`: their
    weights would replace the row before the epoch reads it. As writes that take them away."""
    client, found = fork.client, {}
    for item in filter(fork.has, COMMITS):
        left = client.query_map(PALLET, item, fork.question.index, block=block)
        for epoch, queue in client.query_map(PALLET, item, fork.question.index, block=begin).items():
            kept = [one for one in queue if one[0] != hotkey or one in left.get(epoch, [])]
            if len(kept) < len(queue):
                key, value = client.storage_write(PALLET, item, (fork.question.index, epoch), kept or None)
                found[key] = value
    return found


# -- is it what the chain has ---------------------------------------------------------------------------------------


def checked(fork: Fork, results: Results) -> Check:
    """The block after the head as the node has it, against itself. `results`: of the epoch."""
    remote = fork.base.remote
    if remote is None:
        return Check("offline: the node's own block is not at hand")
    number = fork.chain.head.number + 1
    try:
        digest = remote.block_hash(number)
        if digest is None:
            return Check(f"the node has no block {number} any more")
        header = remote.header(digest)
        body = answers.body(remote.ask(("chain_getBlock", "0x" + digest.hex()))[0], digest)
        bench = _again(fork, header, body)
        written = sorted(bench.view.written())
        theirs = remote.values(written, digest)
        keys = {name: fork.client.storage_key(PALLET, item, key) for name, (item, key) in fork._items().items()}
        stored = remote.values(list(keys.values()), digest)
    except LocalnetError as error:  # what the check finds out is no reason to keep the answer back
        return Check(str(error))
    changes = {key: (bench.view.get(key), theirs[key]) for key in written if bench.view.get(key) != theirs[key]}
    shown = fork.client.names.show_all(changes)
    differing = _without_root(shown)
    other = tuple(name for name, key in keys.items() if _vector(fork, name, stored[key]) != list(results[name]))
    return Check(None, len(body), len(written), len(shown) - len(differing), tuple(differing), other)


def _without_root(shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
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
    entry = fork.client.entry(PALLET, fork._items()[name][0])
    return [int(value) for value in fork.client.registry.decode(entry.value, raw or entry.default)]


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


# -- why ------------------------------------------------------------------------------------------------------------


def _explained(fork: Fork, edits: Edits) -> dict[str, Any]:
    """The next block's epoch, explained on the head's state with these writes; or why that cannot be."""
    uid = fork.question.explain or 0
    header = next_header(fork.chain, fork.chain.head)[0]
    which = b"".join(number.to_bytes(2, "little") for number in (fork.question.netuid, uid)) + b"\0"
    data = which + header.encode()
    try:
        try:
            answer = fork.chain.run("DevApi_explain", data, fork.copy(edits))
        except RuntimeApiMissing:
            from localnet.runtime.borrowed import explain  # brings the whole specification runtime

            answer = explain(fork.chain.documents.head, fork.copy(edits), data)
    except ForkError:
        raise
    except LocalnetError as error:
        return {"unavailable": str(error).removeprefix("DevApi_explain: ")}
    return {"preview": fork.question.ahead, **json.loads(answer[read_compact(answer, 0)[1] :])}


def _judge(explained: Mapping[str, Any], uid: int | None, before: Epoch, after: Epoch) -> None:
    """Put into words, and compared with what the epochs gave: a specification may explain another version's rules."""
    for name, epoch in (("before", before), ("after", after)):
        report = explained.get(name, {})
        if "stored" in report and uid is not None:
            told = {"Consensus": "consensus", "Incentive": "incentive", "Dividends": "dividends"}
            agrees = all(cell(epoch.results[item], uid) == report["stored"][key] for item, key in told.items())
            report["as_on_chain"] = agrees
            report["words"] = sentences(report)
