"""`localnet runtime FILE | CHAINSPEC.json | URL`: what a released runtime is, before a chain runs on it.

localnet runtime wss://node --save finney.wasm      today's rules of a chain, in a file: from then on
localnet --runtime finney.wasm                      a chain of one's own with them, without a network
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localnet.cli_dev import fail
from localnet.errors import LocalnetError

if TYPE_CHECKING:
    from localnet.wasm.loading import Loaded


def runtime(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|CHAINSPEC|URL", help="URL: ws(s)://node or http(s)://node, @block for an older one."
        ),
    ],
    save: Annotated[Path | None, typer.Option(help="Write the code into this file, as the chain stores it.")] = None,
    runtime_hash: Annotated[
        str | None, typer.Option(metavar="0x..", help="BLAKE2b-256 of the code; refuse any other.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Everything, as one JSON document.")] = False,
) -> None:
    """Show a released Wasm runtime: version, hashes, APIs, what is missing in it and here. --save keeps its code."""
    from localnet.wasm.loading import load

    try:
        loaded = load(source, pin=runtime_hash)
        facts = _facts(loaded)
    except LocalnetError as error:
        fail(str(error))
    if save is not None:
        write_code(save, loaded.code.stored)
        facts["saved"] = str(save)
    if json_output:
        print(json.dumps(facts, indent=1))
        return
    from localnet.wasm.report import as_text

    print("\n".join(as_text(facts)))
    if save is not None:
        print(f"saved     {save}; start a chain on it: localnet --runtime {save} --runtime-hash {facts['hash']}")


def _facts(loaded: Loaded) -> dict[str, Any]:
    """Raises RuntimeCodeError, RuntimeTrap, MetadataError."""
    from localnet.wasm.report import report
    from localnet.wasm.runtime import WasmRuntime

    made = WasmRuntime(loaded.code.stored, progress=lambda text: print(text, file=sys.stderr, flush=True))
    return report(loaded, made)


def write_code(path: Path, code: bytes) -> None:
    """Whoever sees the file sees all of it. Ends the command when it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(code)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        fail(f"cannot write {path}: {error}")
