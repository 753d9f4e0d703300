"""The command: `python -m localnet`, also mounted as `touchstone localnet`. Which options go together is in
cli_options.py; its sub-commands are in cli_dev.py and cli_runtime.py.

Runs a chain until SIGINT or SIGTERM, then flushes the state file, releases the port and removes the ready file. With
`--json` everything on standard output is JSON, one object a line; logs go to standard error either way.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from localnet import cli_options
from localnet.cli_dev import COMMANDS
from localnet.cli_options import of_fork, of_output, of_runtime, of_start
from localnet.cli_runtime import runtime as show_runtime
from localnet.errors import ConfigError, LocalnetError

if TYPE_CHECKING:
    from localnet.net import Localnet

LEVELS = ("debug", "info", "warning", "error")


def localnet(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 9944,
    mining: Annotated[
        str,
        typer.Option(help="interval: every --block-time; instant: when something comes in; manual: on request."),
    ] = "interval",
    block_time: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=86_400,
            help="Seconds between blocks. Default: 0.25; 12 with --profile mainnet; the slot of a --runtime "
            "or a --fork.",
        ),
    ] = None,
    profile: Annotated[str, of_start(help="The specification's constants: fast or mainnet.")] = "fast",
    runtime: Annotated[
        str | None,
        of_runtime(
            metavar="FILE|CHAINSPEC|URL",
            help="Run a released Wasm runtime in place of the specification: a file, a chain specification (brings its "
            "genesis), or a node whose runtime is fetched, once: wss://node, or wss://node@block for an older one.",
        ),
    ] = None,
    runtime_hash: Annotated[
        str | None, of_runtime(metavar="0x..", help="BLAKE2b-256 of the --runtime's code; refuse any other.")
    ] = None,
    preset: Annotated[
        str | None, of_runtime(help="Genesis preset of the --runtime, by name. Default: its own.")
    ] = None,
    dev_accounts: Annotated[
        bool | None,
        of_runtime(
            help="Money for //Alice and the others at the --runtime's genesis, and //Alice as sudo. Default: yes, but "
            "not where a chain specification says who has what."
        ),
    ] = None,
    genesis: Annotated[
        Path | None, of_start(help="JSON file: patch of the genesis, as plain chain specifications have it.")
    ] = None,
    import_file: Annotated[
        Path | None,
        of_start(
            "--import", help="Exported state to go on from, once the chain is there (`localnet export` wrote it)."
        ),
    ] = None,
    fork: Annotated[
        str | None,
        of_fork(
            metavar="URL[@BLOCK]",
            help="Go on from a block of a live chain, with its state and its runtime: the newest finalized one, or "
            "@number, or @0xhash. ws(s):// or http(s)://. State is read when it is needed, and kept.",
        ),
    ] = None,
    fork_cache: Annotated[
        Path | None,
        of_fork(
            help="File that keeps what --fork read. Default: forks.sqlite in $TOUCHSTONE_CACHE or ~/.cache/touchstone."
        ),
    ] = None,
    fork_offline: Annotated[
        bool, of_fork("--fork-offline", help="Ask no node: --fork the block of last time, from the cache.")
    ] = False,
    fork_rate: Annotated[
        float, of_fork(min=0.1, help="Requests a second that --fork sends at most, after a burst.")
    ] = 20.0,
    fork_verify: Annotated[
        bool,
        of_fork("--fork-verify", help="Believe the node of --fork no value without a proof (state_getReadProof)."),
    ] = False,
    state: Annotated[Path | None, typer.Option(help="File the chain lives in. Without it: memory only.")] = None,
    history: Annotated[int, typer.Option(min=0, help="Blocks whose state stays readable; 0 keeps all.")] = 16_384,
    drand: Annotated[
        str | None,
        typer.Option(
            help="Drand pulses, which open timelocked weights: network, local (a beacon of this chain's own), or a "
            "file of published ones. Without it they wait."
        ),
    ] = None,
    finality_lag: Annotated[
        int,
        typer.Option(min=0, help="Blocks from the head to the finalized one. polkadot.js shows InBlock from 1 on."),
    ] = 0,
    ready_file: Annotated[Path | None, of_output(help="Write the ws:// address here once it answers.")] = None,
    json_output: Annotated[bool, of_output("--json", help="JSON on standard output, one object a line.")] = False,
    quiet: Annotated[bool, of_output("--quiet", "-q", help="Print nothing but errors.")] = False,
    log_level: Annotated[str, of_output(help="debug, info, warning or error.")] = "warning",
    dev_token: Annotated[
        str | None,
        typer.Option(envvar="LOCALNET_DEV_TOKEN", help="Developer methods also answer other machines that have it."),
    ] = None,
    features: Annotated[
        bool, of_output("--features", help="List what of the chain is here and what is not, and why; run nothing.")
    ] = False,
) -> None:
    """Run a local Subtensor until interrupted. With a command: ask one that runs, or look at runtimes."""
    if context.invoked_subcommand is not None:
        gc.enable()  # no chain starts here: see __main__.py
    try:
        cli_options.ensure_together(cli_options.given(context), context.invoked_subcommand)
    except ConfigError as error:
        _failed(error, json_output)
    if context.invoked_subcommand is not None:
        return
    if features:
        _print_features(json_output)
        return
    if log_level not in LEVELS:
        raise typer.BadParameter(f"choose one of {', '.join(LEVELS)}", param_hint="--log-level")
    logging.basicConfig(
        level=logging.ERROR if quiet else log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    options: dict[str, Any] = {
        "host": host, "port": port, "mining": mining, "profile": profile, "state": state, "history": history,
        "drand": drand, "finality_lag": finality_lag, "dev_token": dev_token,
        "block_time": 12.0 if block_time is None and profile == "mainnet" else block_time,
        "fork": fork, "fork_cache": fork_cache, "fork_offline": fork_offline, "fork_rate": fork_rate,
        "fork_verify": fork_verify,
    }  # fmt: skip
    try:
        if fork is not None and log_level == "warning" and not quiet:
            logging.getLogger("localnet.fork").setLevel(logging.INFO)  # a first start takes a while: say how far it is
        options["runtime"] = cli_options.runtime_source(runtime, runtime_hash, preset, dev_accounts, quiet)
        options["genesis"] = cli_options.read_patch(genesis)
        exported = cli_options.read_exported(import_file)
        asyncio.run(_serve(options, ready_file, json_output, quiet, exported))
    except LocalnetError as error:
        _failed(error, json_output)


def _failed(error: LocalnetError, json_output: bool) -> NoReturn:
    facts = {"event": "error", "error": type(error).__name__, "message": str(error)}
    _say(json_output, facts, f"error: {error}", True)
    raise typer.Exit(1)


async def _serve(
    options: dict[str, Any], ready_file: Path | None, json_output: bool, quiet: bool, exported: Any = None
) -> None:
    from localnet.net import Localnet

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    net = Localnet(**options)

    def end(*signal: object) -> None:  # not the loop's: it may be waiting for the node forked from
        loop.call_soon_threadsafe(stop.set)
        net.interrupt()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if not await _started(net, exported, stop):
            return
        gc.freeze()  # what exists now stays: later collections need not look at it
        gc.enable()
        if ready_file is not None:
            write_ready_file(ready_file, net.url)
        if not quiet:
            _announce(net, options, json_output)
        await _wait(net, stop)
    finally:
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
        await net.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
    if not quiet:
        _say(json_output, {"event": "stopped", "block": net.block}, f"stopped at block {net.block}")


async def _started(net: Localnet, exported: Any, stop: asyncio.Event) -> bool:
    """False when a signal came first. Raises what `Localnet.start` and `import_state` do."""

    async def start() -> None:
        await net.start()
        if exported is not None:
            await net.import_state(exported)

    starting, stopping = asyncio.ensure_future(start()), asyncio.ensure_future(stop.wait())
    await asyncio.wait([starting, stopping], return_when="FIRST_COMPLETED")
    if stop.is_set():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return False
    stopping.cancel()
    await starting
    return True


async def _wait(net: Localnet, stop: asyncio.Event) -> None:
    """Until a signal, or until the chain cannot go on. Raises StateFileError."""
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait([stopping, *net.tasks] if net.mining != "manual" else [stopping], return_when="FIRST_COMPLETED")
    stopping.cancel()
    if net.miner.failure is not None:
        raise net.miner.failure


def _print_features(json_output: bool) -> None:
    from localnet.features import as_json, as_text, features

    parts = features()
    print(json.dumps(as_json(parts), indent=1) if json_output else "\n".join(as_text(parts)))


def write_ready_file(path: Path, url: str) -> None:
    """Write atomically: whoever sees the file sees all of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(url + "\n")
    temporary.replace(path)


def _announce(net: Localnet, options: dict[str, Any], json_output: bool) -> None:
    how = f"every {net.block_time:g} s" if net.mining == "interval" else net.mining
    if net.by_slot and net.mining == "interval":
        how += ", as in chain time (--block-time 0.25: faster)"
    facts = {
        "event": "ready", "url": net.url, "block": net.block, "genesis": net.genesis_hash, "mining": net.mining,
        "block_time": net.block_time, "profile": None if net.loaded or net.forked else options["profile"],
        "state": None if options["state"] is None else str(options["state"]),
        "runtime": None if net.loaded is None else net.loaded.facts(),
        "fork": None if net.forked is None else net.forked.facts(),
    }  # fmt: skip
    where = options["state"] or "memory"
    if net.forked is not None:
        where = f"fork of block {net.forked.point.number}, {net.forked.stats.requests} requests so far"
    _say(json_output, facts, f"localnet {net.url}  blocks: {how}  state: {where}  (Ctrl-C stops it)")


def _say(json_output: bool, facts: dict[str, Any], text: str, error: bool = False) -> None:
    stream = sys.stderr if error and not json_output else sys.stdout
    print(json.dumps(facts) if json_output else text, file=stream, flush=True)


app = typer.Typer(add_completion=False, invoke_without_command=True, pretty_exceptions_enable=False)
app.callback()(localnet)
for name, command in {**COMMANDS, "runtime": show_runtime}.items():
    app.command(name)(command)


def main() -> None:
    app()
