"""A chain on top of a remote block, for one question: which epoch, whose weights, and what an epoch leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from localnet.abi import Runtime
from localnet.client import Client
from localnet.developer import Developer
from localnet.errors import ChainError, ConfigError
from localnet.fork import start
from localnet.fork.base import Base
from localnet.node.clock import ChainClock
from localnet.node.mining import Miner
from localnet.node.state import StateView
from localnet.vocabulary import public_key
from localnet.whatif.answer import PALLET, Asked, Edits, Epoch, Question
from localnet.whatif.rules import RESULTS, Results, by_uid, find_uid, scaled

STEP, SINCE = "LastMechansimStepBlock", "BlocksSinceLastStep"
ROOT = 0


class Fork:
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

    # -- the question -----------------------------------------------------------------------------------------------

    def ensure(self) -> None:
        """Raises ConfigError, ChainError for a subnet or mechanism that has no epochs to ask about."""
        netuid, mecid = self.question.netuid, self.question.mecid
        if netuid == ROOT:
            raise ConfigError("subnet 0 is the root network, where nobody is weighed: name another --netuid")
        self.developer.ensure_subnet(netuid)
        count = self.query("MechanismCountCurrent", netuid) if self.has("MechanismCountCurrent") else 1
        if mecid >= count:
            raise ConfigError(f"there is no mechanism {mecid}: subnet {netuid} has {count}, counted from 0")

    def asked(self) -> Asked:
        """Raises ConfigError for a validator, a weighed neuron or one to explain that is not there, ChainError."""
        question = self.question
        keys = self.client.query_map(PALLET, "Keys", question.netuid)
        if sorted(keys) != list(range(self.query("SubnetworkN", question.netuid))):
            raise ChainError(f"subnet {question.netuid} has no hotkey for one of its uids")
        hotkeys = [keys[uid] for uid in sorted(keys)]
        uids = {hotkey: uid for uid, hotkey in enumerate(hotkeys)}
        if question.explain is not None:
            find_uid(str(question.explain), uids, public_key)
        uid = find_uid(question.who, uids, public_key)
        return Asked(hotkeys, uid, scaled(by_uid(question.weights, hotkeys, public_key)))

    # -- epochs -----------------------------------------------------------------------------------------------------

    def last_epoch(self) -> int:
        """The block of the subnet's newest epoch. Raises ChainError when there was none, MetadataError."""
        netuid, head = self.question.netuid, self.chain.head.number
        ran = self.query(STEP, netuid) if self.has(STEP) else head - self.query(SINCE, netuid)
        if not 0 < ran <= head:
            raise ChainError(f"no epoch of subnet {netuid} has run up to block {head}: --next looks at the coming one")
        return int(ran)

    def mine_to(self, block: int) -> None:
        while self.chain.head.number < block:
            self.chain.author(alone=True)

    def epoch(self, block: int, uid: int) -> Epoch:
        """Author up to `block`, in which an epoch is due; its results. Raises ChainError when none ran, ForkError."""
        self.mine_to(block)
        if self.last_epoch() != block:
            raise ChainError(f"block {block} ran no epoch of subnet {self.question.netuid} when it was made again")
        index = self.question.index
        rows = [[(int(to), int(value)) for to, value in self.query(item, index, uid)] for item in ("Weights", "Bonds")]
        return Epoch(block, self.results(), *rows)

    def results(self) -> Results:
        return {name: [int(value) for value in self.query(item, key)] for name, (item, key) in self.items().items()}

    def items(self) -> dict[str, tuple[str, int]]:
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
