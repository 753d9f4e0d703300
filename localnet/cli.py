"""The command: `python -m localnet`, also mounted as `touchstone localnet`. Its sub-commands are in cli_dev.py.

Runs a chain until SIGINT or SIGTERM, then flushes the state file, releases the port and removes the ready file. With
`--json` everything on standard output is JSON, one object a line; logs go to standard error either way.
"""

from __future__ import annotations

import asyncio
import contextlib
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
from localnet.errors import LocalnetError

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
        typer.Option(min=0.01, help="Seconds between blocks. Default: 0.25; 12 with --profile mainnet."),
    ] = None,
    profile: Annotated[str, typer.Option(help="The chain's constants: fast or mainnet.")] = "fast",
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
        "block_time": block_time if block_time is not None else (12.0 if profile == "mainnet" else 0.25),
    }  # fmt: skip
    try:
        asyncio.run(_serve(options, ready_file, json_output, quiet))
    except LocalnetError as error:
        _say(
            json_output,
            {"event": "error", "error": type(error).__name__, "message": str(error)},
            f"error: {error}",
            True,
        )
        raise typer.Exit(1) from None


async def _serve(options: dict[str, Any], ready_file: Path | None, json_output: bool, quiet: bool) -> None:
    from localnet.net import Localnet

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows has no handlers: Ctrl-C raises KeyboardInterrupt
            loop.add_signal_handler(number, stop.set)
    net = Localnet(**options)
    try:
        await net.start()
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
    if not quiet:
        _say(json_output, {"event": "stopped", "block": net.block}, f"stopped at block {net.block}")


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
    how = f"every {options['block_time']} s" if net.mining == "interval" else net.mining
    facts = {
        "event": "ready", "url": net.url, "block": net.block, "genesis": net.genesis_hash, "mining": net.mining,
        "block_time": options["block_time"], "profile": options["profile"],
        "state": None if options["state"] is None else str(options["state"]),
    }  # fmt: skip
    where = options["state"] or "memory"
    _say(json_output, facts, f"localnet {net.url}  blocks: {how}  state: {where}  (Ctrl-C stops it)")


def _say(json_output: bool, facts: dict[str, Any], text: str, error: bool = False) -> None:
    stream = sys.stderr if error and not json_output else sys.stdout
    print(json.dumps(facts) if json_output else text, file=stream, flush=True)


app = typer.Typer(add_completion=False, invoke_without_command=True, pretty_exceptions_enable=False)
app.callback()(localnet)
for name, command in COMMANDS.items():
    app.command(name)(command)


def main() -> None:
    app()
