"""The command: `python -m localnet`, also mounted as `touchstone localnet`. Its sub-commands are in cli_dev.py and
cli_runtime.py.

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
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localnet.cli_dev import COMMANDS
from localnet.cli_runtime import runtime as show_runtime
from localnet.errors import ConfigError, LocalnetError

if TYPE_CHECKING:
    from localnet.net import Localnet
    from localnet.wasm.source import RuntimeSource

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
            help="Seconds between blocks. Default: 0.25; 12 with --profile mainnet; the slot of a --runtime "
            "or a --fork.",
        ),
    ] = None,
    profile: Annotated[str, typer.Option(help="The specification's constants: fast or mainnet.")] = "fast",
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|CHAINSPEC|URL",
            help="Run a released Wasm runtime in place of the specification: a file, a chain specification (brings its "
            "genesis), or a node whose runtime is fetched, once: wss://node, or wss://node@block for an older one.",
        ),
    ] = None,
    runtime_hash: Annotated[
        str | None, typer.Option(metavar="0x..", help="BLAKE2b-256 of the --runtime's code; refuse any other.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Genesis preset of the --runtime, by name. Default: its own.")
    ] = None,
    dev_accounts: Annotated[
        bool | None,
        typer.Option(
            help="Money for //Alice and the others at the --runtime's genesis, and //Alice as sudo. Default: yes, but "
            "not where a chain specification says who has what."
        ),
    ] = None,
    genesis: Annotated[
        Path | None, typer.Option(help="JSON file: patch of the genesis, as plain chain specifications have it.")
    ] = None,
    fork: Annotated[
        str | None,
        typer.Option(
            metavar="URL[@BLOCK]",
            help="Go on from a block of a live chain, with its state and its runtime: the newest finalized one, or "
            "@number, or @0xhash. ws(s):// or http(s)://. State is read when it is needed, and kept.",
        ),
    ] = None,
    fork_cache: Annotated[
        Path | None,
        typer.Option(
            help="File that keeps what --fork read. Default: forks.sqlite in $TOUCHSTONE_CACHE or ~/.cache/touchstone."
        ),
    ] = None,
    fork_offline: Annotated[
        bool, typer.Option("--fork-offline", help="Ask no node: --fork the block of last time, from the cache.")
    ] = False,
    fork_rate: Annotated[
        float, typer.Option(min=0.1, help="Requests a second that --fork sends at most, after a burst.")
    ] = 20.0,
    fork_verify: Annotated[
        bool,
        typer.Option("--fork-verify", help="Believe the node of --fork no value without a proof (state_getReadProof)."),
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
    ready_file: Annotated[Path | None, typer.Option(help="Write the ws:// address here once it answers.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="JSON on standard output, one object a line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "warning",
    dev_token: Annotated[
        str | None,
        typer.Option(envvar="LOCALNET_DEV_TOKEN", help="Developer methods also answer other machines that have it."),
    ] = None,
    features: Annotated[
        bool, typer.Option("--features", help="List what of the chain is here and what is not, and why; run nothing.")
    ] = False,
) -> None:
    """Run a local Subtensor until interrupted. With a command: ask one that runs."""
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
        if fork is None and (fork_cache is not None or fork_offline or fork_verify):
            raise ConfigError("--fork-cache, --fork-offline and --fork-verify are about a --fork: name a node")
        if fork is not None and log_level == "warning" and not quiet:
            logging.getLogger("localnet.fork").setLevel(logging.INFO)  # a first start takes a while: say how far it is
        options["runtime"] = _runtime_source(runtime, runtime_hash, preset, dev_accounts, profile, quiet)
        options["genesis"] = None if genesis is None else _read_patch(genesis)
        asyncio.run(_serve(options, ready_file, json_output, quiet))
    except LocalnetError as error:
        _say(
            json_output,
            {"event": "error", "error": type(error).__name__, "message": str(error)},
            f"error: {error}",
            True,
        )
        raise typer.Exit(1) from None


def _runtime_source(
    where: str | None, code_hash: str | None, preset: str | None, dev_accounts: bool | None, profile: str, quiet: bool
) -> RuntimeSource | None:
    """Raises ConfigError for options that need a runtime, or do not go with one."""
    if where is None:
        if (code_hash, preset, dev_accounts) != (None, None, None):
            raise ConfigError("--runtime-hash, --preset and --dev-accounts are about a --runtime: name one")
        return None
    if profile != "fast":
        raise ConfigError("--profile sets constants of the specification runtime; a --runtime has its own")
    from localnet.wasm.source import RuntimeSource

    def progress(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    return RuntimeSource(where, code_hash, preset, dev_accounts, progress)


def _read_patch(path: Path) -> Any:
    """Raises ConfigError."""
    try:
        patch = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"the genesis patch cannot be read from {path}: {error}") from error
    if not isinstance(patch, dict):
        raise ConfigError(f'{path} is no genesis patch: a JSON object such as {{"balances": {{..}}}}')
    return patch


async def _serve(options: dict[str, Any], ready_file: Path | None, json_output: bool, quiet: bool) -> None:
    from localnet.net import Localnet

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    net = Localnet(**options)

    def end(*signal: object) -> None:  # not the loop's: it may be waiting for the node forked from
        loop.call_soon_threadsafe(stop.set)
        net.interrupt()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if not await _started(net, stop):
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


async def _started(net: Localnet, stop: asyncio.Event) -> bool:
    """False when a signal came first. Raises what `Localnet.start` does."""
    starting, stopping = asyncio.ensure_future(net.start()), asyncio.ensure_future(stop.wait())
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
    how = f"every {net.block_time} s" if net.mining == "interval" else net.mining
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
