"""`touchstone dispute`: who was wrong about a window's training, and at which step.

    touchstone dispute --netuid 2 --window 7 --miner HOTKEY                  against an own training of the window
    touchstone dispute --netuid 2 --window 7 --miner HOTKEY --against OTHER  against another miner, who repeats it
    touchstone dispute --check FILE --netuid 2                               a transcript that --out wrote, again

A dispute: status 0 says that nobody was wrong, 1 that somebody was, 2 that it could not be found out. --check: 0 the
transcript holds and so does its re-run, 1 it does not, 2 not everything could be checked; without --netuid the re-run
is not repeated, and nothing is fetched.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurons.output import console, print_json
from neurons.training import read_recipe
from protocol.artifacts import Manifest
from protocol.disputes import Finding
from protocol.errors import MalformedMessage
from protocol.metagraph import Metagraph
from protocol.training.dispute import Claim, Wrong, settle
from protocol.training.statement import Statement
from protocol.training.transcripts import MAX_BYTES, Transcript, check
from template.artifacts.errors import ArtifactError
from template.artifacts.opening import open_store
from template.chain import Chain
from template.client import SynapseClient, Target
from template.errors import TemplateError
from template.keys import Hotkey, verify

if TYPE_CHECKING:
    from template.training.disputed import Case, Place
    from template.training.parties import Line, Party

EXIT_STATUS = {Wrong.NEITHER: 0, Wrong.FIRST: 1, Wrong.SECOND: 1, Wrong.BOTH: 1, Wrong.UNCHECKED: 2}
CHECK_STATUS = {Finding.AGREES: 0, Finding.DISAGREES: 1, Finding.REFUSED: 1, Finding.UNCHECKED: 2}


@dataclass(frozen=True)
class Subnet:
    network: str
    netuid: int


@dataclass(frozen=True)
class Where:
    """Folder for what is fetched, and where training is repeated."""

    data_dir: Path
    device: str = "cpu"
    threads: int | None = None


@dataclass(frozen=True)
class Asking:
    """Who asks. `against`: hotkey of the second party, None for an own training; `patience`: seconds for one answer."""

    wallet: str
    hotkey: str
    wallet_path: Path
    against: str | None = None
    patience: float = 600.0


@dataclass
class Cost:
    """What a dispute has taken."""

    lines: list[Line] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def figures(self) -> dict[str, Any]:
        total = {name: sum(getattr(line, name) for line in self.lines) for name in ("requests", "sent", "received")}
        states = sum(line.fetched for line in self.lines)
        return {**total, "states": states, "seconds": round(time.monotonic() - self.started, 2)}


async def dispute(
    subnet: Subnet, window: int, miner: str, asking: Asking, where: Where, *, out: Path | None, as_json: bool
) -> int:
    """Settle a dispute and show how it went. Raises TemplateError."""
    hotkey = Hotkey.load(asking.wallet, asking.hotkey, asking.wallet_path.expanduser())
    cost = Cost()
    async with AsyncExitStack() as stack:
        place = await _place(subnet, where, stack)
        client = await stack.enter_async_context(SynapseClient(hotkey, allow_local=place.chain.is_local))
        case = await _case(place, window, miner, None)
        graph = await place.chain.metagraph(subnet.netuid)
        first, second = await _parties(place, case, client, graph, asking, cost)
        transcript = await case.referee(place.peers, _say).settle(first, second)
    if out is not None:
        _write(out, transcript)
    _show(transcript, cost, asking.against, as_json=as_json)
    return EXIT_STATUS[transcript.wrong]


async def recheck(file: Path, subnet: Subnet | None, where: Where, *, as_json: bool) -> int:
    """Check a transcript, and repeat its re-run where the chain is at hand. Raises TemplateError."""
    transcript = _read(file)
    problems = check(transcript, verify)
    if problems:
        finding, why = Finding.REFUSED, problems
    elif subnet is None:
        finding, why = Finding.UNCHECKED, ["the re-run was not repeated: that takes --netuid and a network"]
    else:
        finding, why = await _repeated(transcript, subnet, where)
    if as_json:
        print_json({"finding": finding.value, "why": why, **_figures(transcript)})
    else:
        _print(f"{finding}: {'; '.join(why) or _sentence(transcript)}")
    return CHECK_STATUS[finding]


async def _repeated(transcript: Transcript, subnet: Subnet, where: Where) -> tuple[Finding, list[str]]:
    """Whether the chain has the same terms and statement, and the re-run gives the same ruling."""
    terms, claims = transcript.terms, transcript.claims
    statement = next((claim.statement for claim in claims if claim.hotkey == terms.miner), None)
    async with AsyncExitStack() as stack:
        try:
            place = await _place(subnet, where, stack)
            case = await _case(place, terms.window, terms.miner, statement)
        except (TemplateError, MalformedMessage) as error:
            return Finding.UNCHECKED, [f"the re-run was not repeated: {error}"]
        if case.terms != terms:
            return Finding.REFUSED, ["the terms are not those of the chain"]

        interval = transcript.dispute.interval
        agreed = interval[0] if interval is not None else 0

        async def fetch(cid: str, most: int) -> bytes:
            try:
                return await place.peers.fetch(cid, [case.location], most)
            except ArtifactError:  # the miner may never have uploaded the agreed state, which follows from the rules
                data = await asyncio.to_thread(_state, case, agreed)
                if Manifest.of(data).cid != cid:
                    raise
                return data

        reruns = await case.referee(place.peers, _say).again(transcript, fetch)
    found = settle(transcript.dispute, reruns)
    if found.wrong is transcript.wrong:
        return Finding.AGREES, []
    unsure = Wrong.UNCHECKED in (found.wrong, transcript.wrong)
    return Finding.UNCHECKED if unsure else Finding.DISAGREES, [f"here it is {found.wrong}: {found.why}"]


def _state(case: Case, index: int) -> bytes:
    """A state of the window, trained here; empty when the training has no result. Blocking."""
    from template.training.retrace import to_bytes

    try:
        return to_bytes(case.retrace().state(index))
    except FloatingPointError:
        return b""


async def _place(subnet: Subnet, where: Where, stack: AsyncExitStack) -> Place:
    from template.training.disputed import Place
    from template.training.peers import Peers
    from template.training.recompute import Machine

    chain = await stack.enter_async_context(Chain(subnet.network))
    await chain.wait_ready(longest=30.0)
    folder = where.data_dir.expanduser() / "disputes" / f"subnet-{subnet.netuid}"
    own = await stack.enter_async_context(open_store(str(folder / "artifacts")))
    peers = await stack.enter_async_context(Peers(own, allow_local=chain.is_local))
    owner = (await chain.metagraph(subnet.netuid)).owner_hotkey
    recipe, owners = await read_recipe(chain, subnet.netuid, owner, peers)
    machine = Machine(where.device, where.threads)
    return Place(chain, subnet.netuid, recipe, owners, peers, folder / "data", machine, stack, _say)


async def _case(place: Place, window: int, miner: str, statement: bytes | None) -> Case:
    from template.training.disputed import read_case

    try:
        return await read_case(place, window, miner, statement)
    except MalformedMessage as error:
        raise TemplateError(f"what was fetched cannot be read: {error}") from None


async def _parties(
    place: Place, case: Case, client: SynapseClient, graph: Metagraph, asking: Asking, cost: Cost
) -> tuple[Party, Party]:
    from template.training.disputed import NoDispute, location_of
    from template.training.parties import Line, NotShown, Own, Remote

    async def line(hotkey: str, location: str) -> Line:
        neuron = graph.by_hotkey.get(hotkey)
        if neuron is None or not neuron.is_serving:
            what = "is not registered" if neuron is None else "serves nothing"
            raise NoDispute(f"{hotkey} {what} on subnet {place.netuid}", remedy="check the hotkey")

        async def fetch(cid: str, most: int) -> bytes:
            return await place.peers.fetch(cid, [location], most)

        made = Line(client, Target.of(neuron), fetch, asking.patience)
        cost.lines.append(made)
        return made

    terms, size, miner = case.terms, len(case.base), case.terms.miner
    claim = Claim(hotkey=miner, trace=Statement.parse(case.statement).trace, statement=case.statement)
    first = Remote(await line(miner, case.location), claim, terms, size)
    if asking.against is None:
        _say(f"training window {terms.window} of {miner}: {terms.steps} steps")
        try:
            return first, await Own.of(case.retrace())
        except FloatingPointError as error:
            raise NoDispute(f"an own training of the window has no result: {error}") from None
    other = await line(asking.against, await location_of(place, asking.against))
    _say(f"waiting for {asking.against} to repeat the window")
    try:
        return first, Remote(other, await other.repetition(terms), terms, size)
    except NotShown as error:
        raise NoDispute(f"{asking.against} did not repeat the window: {error.message}") from None


def _figures(transcript: Transcript) -> dict[str, Any]:
    terms, interval = transcript.terms, transcript.dispute.interval
    steps = None if interval is None else [terms.step(index) for index in interval]
    return {
        "window": terms.window,
        "miner": terms.miner,
        "against": transcript.claims[1].hotkey or None,
        "wrong": transcript.wrong.value,
        "absent": list(transcript.ruling.absent),
        "why": transcript.why,
        "by": transcript.by.value,
        "questions": len(transcript.rounds),
        "states": terms.states,
        "interval": None if interval is None else list(interval),
        "steps": steps,
    }


def _show(transcript: Transcript, cost: Cost, against: str | None, *, as_json: bool) -> None:
    spent = cost.figures()
    if as_json:
        print_json({**_figures(transcript), "cost": spent})
        return
    _print(_sentence(transcript))
    bodies = spent["sent"] + spent["received"]
    told = f"{spent['requests']} requests, {bodies:,} bytes, {spent['states']:,} bytes of states, {spent['seconds']} s"
    _print(told)


def _sentence(transcript: Transcript) -> str:
    terms, found, interval = transcript.terms, transcript.ruling, transcript.dispute.interval
    names = {
        Wrong.FIRST: f"{terms.miner} was",
        Wrong.SECOND: f"{transcript.claims[1].hotkey or 'the own training'} was",
    }
    who = {**names, Wrong.BOTH: "both were", Wrong.NEITHER: "nobody was"}.get(found.wrong)
    said = f"{who} wrong" if who else "not found out who was wrong"
    where = "" if interval is None else f" between steps {terms.step(interval[0])} and {terms.step(interval[1])}"
    return f"window {terms.window}: {said}{where}: {found.why}"


def _read(file: Path) -> Transcript:
    try:
        with file.expanduser().open("rb") as stream:
            data = stream.read(MAX_BYTES + 2)
        transcript = Transcript.parse(data)
        _ = transcript.ruling  # raises for rounds that no dispute has
        return transcript
    except OSError as error:
        raise TemplateError(f"cannot read {file}: {error.strerror}", remedy="give what --out wrote") from None
    except (MalformedMessage, ValueError) as error:
        raise TemplateError(f"{file} is no transcript: {error}", remedy="give what --out wrote") from None


def _write(path: Path, transcript: Transcript) -> None:
    try:
        path.expanduser().write_bytes(transcript.encode() + b"\n")
    except OSError as error:
        raise TemplateError(f"cannot write {path}: {error.strerror}", remedy="choose another --out") from None
    _say(f"wrote {path}")


def _print(text: str) -> None:
    """Reasons were written by others."""
    console.print("".join(c if c.isprintable() else "?" for c in text), markup=False, soft_wrap=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
