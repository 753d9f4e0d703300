"""Where a scenario is played: one chain, or two in lockstep.

A scenario asks for one call at a time, each in a block of its own, and for empty blocks. Which form of a call fits is a
runtime's own affair: a `Want` has a function that makes the form by a chain's vocabulary, so that two chains may be
asked in different words for the same thing. What the call did there is a `Said`.

    Solo(net)                one chain, for a rehearsal
    differential.Pair        two chains, block by block, with their states compared after each

A call that a runtime has no form for raises `NoForm`: the step of the scenario that asked ends there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from localnet.calls import Form, chosen
from localnet.client import Outcome
from localnet.developer import origin_of
from localnet.errors import LocalnetError, MetadataError, PoolRejected, ScaleError
from localnet.net import Localnet
from localnet.node.author import Changes
from localnet.node.blocks import Block
from localnet.node.marks import Impersonated, Origin, impersonated_at, unsigned
from localnet.node.runtime_api import read_version

MakeForm: TypeAlias = "Callable[[Localnet], Form]"


class NoForm(LocalnetError):
    """The runtime has no call for what a step wants."""


@dataclass(frozen=True)
class Want:
    """One call. `what` names it in reports; `origin`: "root" or a secret URI."""

    what: str
    origin: str
    form: MakeForm


@dataclass(frozen=True)
class Said:
    """What became of a call: `error` is the chain's name for a failure, "refused: .." from before it got into a block;
    `events`: names, in order; `fee`: rao that it cost its sender."""

    what: str
    block: int
    error: str | None
    events: tuple[str, ...] = ()
    fee: int = 0


@dataclass
class Notes:
    """What later steps need from earlier ones. `step`: the name of the one that is played; `unknown`: hyperparameters
    that were left alone because a runtime does not know them."""

    netuid: int = 0
    step: str = ""
    unknown: set[str] = field(default_factory=set)


class Stage(Protocol):
    notes: Notes
    said: list[Said]

    async def send(self, want: Want) -> Said:
        """The call, in a block of its own. Raises NoForm."""

    async def mine(self, blocks: int) -> None: ...

    @property
    def net(self) -> Localnet:
        """The chain to look things up on."""


def prepared(net: Localnet, want: Want) -> list[Impersonated]:
    """The extrinsic that nobody signed. Raises NoForm."""
    try:
        pallet, call, arguments = want.form(net)
        encoded = net.client.encode_call(pallet, call, arguments)
    except (MetadataError, ScaleError) as error:
        raise NoForm(f"{want.what}: {error}") from error
    origin: Origin = origin_of(want.origin)
    if isinstance(origin, str):
        return [unsigned(origin, encoded, bare=net.client.document.extrinsic_version)]
    nonce = int.from_bytes(net.chain.call("AccountNonceApi_account_nonce", origin), "little")
    return [unsigned(origin, encoded, nonce, net.client.extensions(nonce, 0)[0])]


async def play(net: Localnet, want: Want, changes: Changes | None = None) -> Said:
    """The call in a block of its own, or, when it cannot get into one, a block without it. Raises NoForm."""
    ready = prepared(net, want)
    try:
        block = await net.miner.mine(1, changes, ready, alone=True)
    except PoolRejected as error:
        block = await net.miner.mine(1, changes, alone=True)
        return Said(want.what, block.number, f"refused: {error.data or error.message}")
    return told(net, want.what, block)


def told(net: Localnet, what: str, block: Block) -> Said:
    """What a block says about the one call that it carries."""
    outcome: Outcome = net.client.outcomes(block, list(impersonated_at(block.header)))[0]
    paid = [e["fields"] for e in outcome.events if e["name"] == "TransactionFeePaid"]
    events = tuple(f"{e['pallet']}.{e['name']}" for e in outcome.events)
    return Said(what, block.number, outcome.error, events, sum(int(one["actual_fee"]) for one in paid))


class Solo:
    """One chain."""

    def __init__(self, net: Localnet) -> None:
        self.net, self.notes = net, Notes()
        self.said: list[Said] = []

    async def send(self, want: Want) -> Said:
        said = await play(self.net, want)
        self.said.append(said)
        return said

    async def mine(self, blocks: int) -> None:
        await self.net.mine(blocks)


def spec_version(net: Localnet) -> int:
    """Of the runtime that makes the next block."""
    return int(read_version(net.chain.call("Core_version", b""))["specVersion"])


def by_names(pallet: str, call: str, **arguments: Any) -> MakeForm:
    """A call that has had one form ever since it exists."""
    return lambda net: (pallet, call, arguments)


def first_of(forms: Sequence[Form]) -> MakeForm:
    """The first form that the runtime has with exactly these arguments."""

    return lambda net: chosen(net.client.vocabulary, forms)
