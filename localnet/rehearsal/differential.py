"""The same scenario on two chains, block by block: where does what they hold differ, and what caused it?

`Pair` is a stage of two chains at the same block, with the same time in it. After every block the states are compared
item by item: items that both runtimes have under one name, with keys and values of one shape (`codec.compare`), decoded
by each runtime's own metadata, a missing value standing for its default. The first chain is the reference. With
`align` the second is then given the reference's value, at the end of the same block and marked there as a developer's
doing: so an early difference is told once, not in everything that follows from it.

A difference names its block, the step of the scenario, what changed the value in that block (a call, or the block's
hooks), the item with its keys, and both values; `explained` is the row of `versioned.VERSIONED` that accounts for it.
Few rows check amounts (`Versioned.exact`): one that does not accounts for any value of its items.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from localnet.errors import ConfigError
from localnet.net import Localnet
from localnet.node.marks import marked
from localnet.node.state import VersionedState
from localnet.rehearsal.causes import CALL, Causes
from localnet.rehearsal.changes import Versioned
from localnet.rehearsal.comparable import Bridge, Items
from localnet.rehearsal.scenario import Played, Step, perform
from localnet.rehearsal.stage import Notes, Said, Want, play, prepared, spec_version
from localnet.rehearsal.versioned import explain, explain_call, explain_money

POT, ACCOUNT = b"modl", 48  # what accounts of pallets begin with, and where in a key of System.Account
FRAME = ("Balances", "TransactionPayment", "Sudo", "System")
MAX_TOLD = 20_000  # differences kept; all are counted


@dataclass(frozen=True)
class StateDifference:
    """`values`: of the reference, then of the other; `cause`: the call as the scenario names it, or the hooks' name."""

    block: int
    step: str
    cause: str
    item: str
    keys: tuple[Any, ...]
    values: tuple[Any, Any]
    events: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    explained: Versioned | None = None


@dataclass(frozen=True)
class OutcomeDifference:
    """A call that ended differently."""

    block: int
    step: str
    call: str
    errors: tuple[str | None, str | None]
    events: tuple[tuple[str, ...], tuple[str, ...]]
    explained: Versioned | None = None


Difference = StateDifference | OutcomeDifference


@dataclass
class Findings:
    """What a differential found. `compared`: storage items; `apart`: items that cannot be compared, and why."""

    names: tuple[str, str]
    specs: tuple[int, int]
    compared: tuple[str, ...] = ()
    apart: dict[str, str] = field(default_factory=dict)
    aligned: int = 0
    """Values that the second chain was given before the first step."""
    values: int = 0
    """Values compared, all blocks together."""
    blocks: int = 0
    differences: list[Difference] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    played: list[Played] = field(default_factory=list)
    unknown: tuple[str, ...] = ()
    """Hyperparameters that one of the two does not know: left as they are on both."""
    stopped: bool = False
    """At the first unexplained difference."""

    @property
    def unexplained(self) -> list[Difference]:
        return [one for one in self.differences if one.explained is None]

    @property
    def agree(self) -> bool:
        broke = any(step.broke for step in self.played)
        return self.blocks > 0 and not self.unexplained and not broke


class Stopped(Exception):
    """The first unexplained difference was found, and no more was asked for."""


Apart: TypeAlias = "dict[bytes, tuple[bytes | None, bytes | None]]"


class Pair:
    """Two chains as one stage. Raises ConfigError when they cannot be at the same block and time."""

    def __init__(
        self, reference: Localnet, other: Localnet, findings: Findings, *, align: bool = True, first_only: bool = False
    ) -> None:
        self.net, self.other, self.findings = reference, other, findings
        self.align, self.first_only = align, first_only
        self.notes = Notes()
        self.said: list[Said] = []
        self._found: Apart = {}  # in the newest block, by raw key
        self._told: Apart = {}  # what is told already
        if reference.chain.slot_ms != other.chain.slot_ms:
            raise ConfigError(
                f"{findings.names[0]} has slots of {reference.chain.slot_ms} ms, {findings.names[1]} of "
                f"{other.chain.slot_ms} ms: two chains in lockstep have one time"
            )
        self._bridge = Bridge(reference, other)
        self._items = Items(reference.client.vocabulary, other.client.vocabulary)
        findings.compared, findings.apart = tuple(sorted(self._items.names)), self._items.apart

    # -- stage

    async def send(self, want: Want) -> Said:
        """The call on both. Raises NoForm when either has none, Stopped."""
        prepared(self.other, want)  # before the reference makes a block that the other could not follow
        first = await play(self.net, want)
        second = await play(self.other, want, self._compare)
        self.said.append(first)
        self._tell(want, (first, second))
        events = essential(first.events), essential(second.events)
        if first.error != second.error or events[0] != events[1]:
            errors = first.error, second.error
            ended = (errors[0], events[0]), (errors[1], events[1])
            explained = explain_call(want.what, self.findings.specs, ended)
            self._note(OutcomeDifference(first.block, self.notes.step, want.what, errors, events, explained), want.what)
        return first

    async def mine(self, blocks: int) -> None:
        for _ in range(blocks):
            await self.net.mine()
            await self.other.miner.mine(1, self._compare)
            self._tell(None, None)

    async def meet(self) -> None:
        """The first block of both, after which the other holds what the reference does."""
        await self.net.mine()
        await self.other.miner.mine(1, lambda state: {key: one for key, (one, _) in self._apart(state)})
        self.findings.aligned = int(marked(self.other.chain.head.header).get("storage", 0))

    # -- comparing

    def _apart(self, state: VersionedState) -> Iterator[tuple[bytes, tuple[bytes | None, bytes | None]]]:
        """Keys of comparable items under which the two hold different values."""
        mine = self.net.chain.state.head
        for key in {*mine, *state.head, *self._items.plain}:
            pair = self._items.by_prefix.get(key[:32])
            if pair is None:
                continue
            self.findings.values += 1
            one, other = mine.get(key), state.head.get(key)
            if one is None and pair[0].name == "Account" and key.startswith(POT, ACCOUNT):
                continue  # a purse that only newer runtimes keep: see Bridge
            if one is None:
                one = self._items.unwritten.get(key[:32])  # the default in writing, which the other has another of
            if one != other and not self._items.same(pair, one, other):
                yield key, (one, other)

    def _compare(self, state: VersionedState) -> Mapping[bytes, bytes | None]:
        """At the end of the other's block: what the reference holds, where it holds something else."""
        self._found = dict(self._apart(state))
        if not self.align:
            return {}
        return {key: one for key, (one, _) in self._found.items()} | self._bridge.writes(self.net.block)

    def _tell(self, want: Want | None, said: tuple[Said, Said] | None) -> None:
        """Note what the newest block has brought apart."""
        self.findings.blocks += 1
        fresh = {key: pair for key, pair in self._found.items() if self._told.get(key) != pair}
        self._told = {} if self.align else self._found
        if not fresh:
            return
        causes = Causes(self.net, self.other, self.net.block)
        for key in sorted(fresh):
            item, keys, values = self._items.show(key, fresh[key])
            cause = causes.of(key, self._items)
            if cause == CALL and want is not None and said is not None:
                name, events = want.what, (said[0].events, said[1].events)
                explained = explain_money(item, values, want.origin, (said[0].fee, said[1].fee))
            else:
                name, events, explained = cause, causes.said(cause), None
            explained = explained or explain(item, name, self.findings.specs, values, keys)
            step = self.notes.step
            self._note(StateDifference(self.net.block, step, name, item, keys, values, events, explained), item)

    def _note(self, difference: Difference, name: str) -> None:
        self.findings.counts[name] = self.findings.counts.get(name, 0) + 1
        if len(self.findings.differences) < MAX_TOLD:
            self.findings.differences.append(difference)
        if self.first_only and difference.explained is None:
            raise Stopped(name)


def essential(events: tuple[str, ...]) -> tuple[str, ...]:
    """Without those of paying and of getting into a block, whose names and order every version has anew."""
    return tuple(event for event in events if event.partition(".")[0] not in FRAME)


async def differential(
    reference: Localnet, other: Localnet, names: tuple[str, str], *, align: bool = True, first_only: bool = False,
    steps: Sequence[Step] = (),
) -> Findings:  # fmt: skip
    """Play the scenario on both, which run in manual mode by the same clock and are at genesis. Raises ConfigError."""
    findings = Findings(names, (spec_version(reference), spec_version(other)))
    pair = Pair(reference, other, findings, align=align, first_only=first_only)
    await pair.meet()
    try:
        await perform(pair, steps, findings.played)
    except Stopped:
        findings.stopped = True
    findings.unknown = tuple(sorted(pair.notes.unknown))
    return findings
