"""`localnet differential` and `localnet rehearse`: two runtimes side by side, from the command line.

A runtime is named as `localnet --runtime` takes it: a Wasm file, a chain specification, or a node; "spec" is the
specification runtime. Both commands end with status 0 when all is well, 1 when there is something to look at, 2 when
they could not look.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localnet.errors import ConfigError, LocalnetError
from localnet.muted import runtimes_muted

if TYPE_CHECKING:
    from localnet.net import Localnet
    from localnet.rehearsal.epochs import Side

SPEC = "spec"
NAMED = "a Wasm file, a chain specification, or a node's address"
START = 1_760_000_000_000  # ms: chain time of block 1, the same on every chain
Sources = Mapping[str, Sequence[Path]]


def differential(
    runtime: Annotated[
        str, typer.Argument(metavar="RUNTIME", help=f"The reference: {NAMED}; spec: the specification runtime.")
    ],
    other: Annotated[str, typer.Option("--with", help="What is compared with it, named alike.")] = SPEC,
    seeds: Annotated[int, typer.Option(min=0, help="Random subnets whose epoch is compared; 0 for none.")] = 200,
    scenario: Annotated[bool, typer.Option(help="Play the scenario on both, block by block.")] = True,
    every: Annotated[bool, typer.Option("--all", help="Go on after the first unexplained difference.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Everything, as one JSON document.")] = False,
) -> None:
    """Does one runtime compute what another one does? Epochs of random subnets, and a whole scenario.

    Ends with status 0 when every difference is accounted for, 1 when one is not, 2 when they cannot be compared.
    """
    from localnet.rehearsal import report

    def work() -> tuple[dict[str, Any], list[str], bool]:
        if not seeds and not scenario:
            raise ConfigError("with --seeds 0 and --no-scenario there is nothing to compare: leave one of them out")
        document: dict[str, Any] = {"reference": runtime, "other": other}
        lines, agree = [], True
        if seeds:
            _say(f"an epoch of {seeds} random subnets on both")
            compared = _epochs(runtime, other, seeds)
            document["epochs"], agree = report.epochs_json(compared), compared.agree
            lines += report.epochs_text(compared)
        if scenario and (agree or every):
            _say("the scenario on both, block by block")
            found = asyncio.run(_differential(runtime, other, every))
            document["scenario"], agree = report.scenario_json(found), agree and found.agree
            lines += report.scenario_text(found)
        elif scenario:
            lines.append("scenario: not played, as the epochs differ already: --all plays it")
        return document, lines, agree

    _finish(work, json_output)


def rehearse_with(sources: Sources) -> Callable[..., None]:
    """The command, for a project whose own sources are these."""

    def rehearse(
        old: Annotated[str, typer.Option("--from", help=f"The runtime that the chain runs: {NAMED}.")],
        new: Annotated[str, typer.Option("--to", help="The one that it is upgraded to, named alike.")],
        source: Annotated[
            list[Path] | None,
            typer.Option(help="Python code whose use of the chain is looked for, a file or a folder."),
        ] = None,
        json_output: Annotated[bool, typer.Option("--json", help="Everything, as one JSON document.")] = False,
    ) -> None:
        """A runtime upgrade before it happens: what breaks, in the state, in the calls, in the code that uses them?

        Ends with status 0 when nothing breaks, 1 when something does, 2 when it cannot be rehearsed.
        """
        from localnet.rehearsal import report as words
        from localnet.rehearsal.uses import sdk_sources

        looked_at = {**sources, "the SDK": sdk_sources(), **({"--source": source} if source else {})}

        def work() -> tuple[dict[str, Any], list[str], bool]:
            report = asyncio.run(_rehearse(old, new, looked_at))
            return words.rehearsal_json(report), words.rehearsal_text(report), not report.broken

        _finish(work, json_output)

    return rehearse


def _finish(work: Callable[[], tuple[dict[str, Any], list[str], bool]], json_output: bool) -> None:
    try:
        with runtimes_muted():
            document, lines, good = work()
    except LocalnetError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    print(json.dumps(document, indent=1, default=_plain) if json_output else "\n".join(lines))
    if not good:
        raise typer.Exit(1)


def _plain(value: Any) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# -- chains ---------------------------------------------------------------------------------------------------------


def _name(where: str) -> str:
    return "the specification" if where == SPEC else where.rpartition("/")[2] or where


def _chain(where: str, slot_ms: int | None = None) -> Localnet:
    """A chain on this runtime, not started. `slot_ms`: what the specification takes for its slot."""
    from localnet.net import Localnet
    from localnet.runtime.profile import FAST, Profile
    from localnet.runtime.runtime import SpecRuntime
    from localnet.wasm.source import RuntimeSource

    options: dict[str, Any] = {"mining": "manual", "clock": "step", "genesis_time": START, "history": 0}
    if where != SPEC:
        return Localnet(runtime=RuntimeSource(where, dev_accounts=True, progress=_say), **options)
    slot = FAST.slot_ms if slot_ms is None else slot_ms
    constants = {("Aura", "SlotDuration"): slot, ("Timestamp", "MinimumPeriod"): slot // 2}
    return Localnet(runtime=SpecRuntime(Profile(FAST.name, slot, constants)), **options)


async def _differential(runtime: str, other: str, every: bool) -> Any:
    from localnet.rehearsal.differential import differential as compare

    async with _chain(runtime) as first, _chain(other, first.chain.slot_ms) as second:
        return await compare(first, second, (_name(runtime), _name(other)), first_only=not every)


def _epochs(runtime: str, other: str, seeds: int) -> Any:
    from localnet.rehearsal.epochs import compare

    return compare(_side(runtime), _side(other), range(seeds))


def _side(where: str) -> Side:
    from localnet.rehearsal.epochs import Side

    if where == SPEC:
        from localnet.runtime.runtime import SpecRuntime

        return Side.of(SpecRuntime(), _name(where))
    from localnet.wasm.loading import load
    from localnet.wasm.runtime import WasmRuntime

    return Side.of(WasmRuntime(load(where).code.stored, progress=_say), _name(where))


async def _rehearse(old: str, new: str, sources: Sources) -> Any:
    from localnet.rehearsal.rehearse import rehearse
    from localnet.wasm.loading import load

    if SPEC in (old, new):
        raise ConfigError("the specification runtime is no code that a chain can be upgraded from or to: name Wasm")
    code = load(new).code.stored
    async with _chain(old) as net:
        return await rehearse(net, code, (_name(old), _name(new)), sources, progress=_say)
