"""`replay`: what other weights of a validator would have changed in a subnet's last epoch, and why.

    replay --fork wss://node --netuid 4 --hotkey 5F3s.. --weights mine.json

Status 1 when the replayed block is not what the chain has, 2 when there is no answer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localnet.errors import ConfigError, LocalnetError
from localnet.muted import runtimes_muted

if TYPE_CHECKING:
    from rich.table import Table

    from localnet.whatif.answer import Answer


def replay(
    fork: Annotated[
        str,
        typer.Option(
            metavar="URL[@BLOCK]", help="The node: ws(s):// or http(s)://; @number or @0xhash for an older epoch."
        ),
    ],
    netuid: Annotated[int, typer.Option(min=0, max=65535, help="Subnet number.")],
    weights: Annotated[
        Path, typer.Option(metavar="FILE", help='JSON {"uid or hotkey": weight}, or CSV lines of the two. "-": stdin.')
    ],
    hotkey: Annotated[str | None, typer.Option(metavar="SS58", help="The validator whose weights these are.")] = None,
    uid: Annotated[int | None, typer.Option(min=0, max=65535, help="The same by its uid.")] = None,
    mechanism: Annotated[int, typer.Option(min=0, max=15, help="Of the subnet, that the weights are for.")] = 0,
    epochs: Annotated[int, typer.Option(min=1, max=1000, help="Go on for that many; nothing else happens then.")] = 1,
    coming: Annotated[
        bool, typer.Option("--next", help="The coming epoch instead of the last one: needs no old state.")
    ] = False,
    explain: Annotated[
        int | None, typer.Option(min=0, max=65535, metavar="UID", help="Why this neuron has what it has, both times.")
    ] = None,
    profile: Annotated[str, typer.Option(help="Constants of a chain that runs the specification runtime.")] = "fast",
    fork_cache: Annotated[
        Path | None, typer.Option(help="File that keeps what was read. Default: forks.sqlite in $TOUCHSTONE_CACHE.")
    ] = None,
    fork_rate: Annotated[float, typer.Option(min=0.1, help="Requests a second, sustained.")] = 20.0,
    json_output: Annotated[bool, typer.Option("--json", help="Everything, as one JSON document.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write that document into this file.")] = None,
) -> None:
    """What would my weights have changed in the last epoch? On a fork of the chain, by the chain's own rules."""
    from localnet.beginning import load_runtime
    from localnet.fork.start import Options
    from localnet.whatif import report
    from localnet.whatif.answer import Question
    from localnet.whatif.rules import read_weights
    from localnet.whatif.run import replay as run

    try:
        if (hotkey is None) == (uid is None):
            raise ConfigError("whose weights? Give --hotkey or --uid, one of them")
        if out is not None and not out.absolute().parent.is_dir():  # now, not after all the epochs
            raise ConfigError(f"there is no folder for {out}: make it, or name another file")
        named = read_weights(_text(weights), "standard input" if str(weights) == "-" else str(weights))
        question = Question(netuid, named, hotkey or str(uid), mechanism, epochs, coming, explain)
        options = Options(fork_cache, rate=fork_rate)
        with runtimes_muted():
            answer = run(fork, question, options, cache(lambda: load_runtime(profile)), _say)
        document = json.dumps(report.as_json(answer), indent=1)
        if out is not None:
            _write(out, document)
    except LocalnetError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    if json_output:
        print(document)
    else:
        _show(answer)
    raise typer.Exit(0 if coming or answer.check.faithful else 1)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _text(path: Path) -> str:
    """Raises ConfigError."""
    from localnet.whatif.rules import MAX_FILE

    try:
        if str(path) == "-":
            return sys.stdin.read(MAX_FILE + 1)
        with path.open(encoding="utf-8-sig") as file:
            return file.read(MAX_FILE + 1)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"the weights cannot be read from {path}: {error}") from error


def _write(path: Path, document: str) -> None:
    """Raises ConfigError."""
    try:
        path.write_text(document + "\n")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error}") from error


def _show(answer: Answer) -> None:
    from rich.console import Console

    from localnet.whatif import report

    # What is piped has no width of its own; it should not be cut for it.
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)
    console.print("\n".join(report.sentences(answer)), soft_wrap=True)
    columns, rows = report.table(answer)
    if rows:
        console.print(drawn(columns, rows))
    for name, told in answer.explained.items():
        _show_words(console, f"uid {answer.question.explain} {name}:", told)


def drawn(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Values may break at the arrow, so that a narrow terminal cuts none."""
    from rich.table import Table

    title = f"{len(rows)} neurons, before -> after (emission: whole units an epoch)"
    shown = Table(title=title, title_justify="left", box=None, padding=(0, 1))
    for column in columns:
        named = column in ("uid", "hotkey")
        shown.add_column(column, justify="left" if column == "hotkey" else "right", no_wrap=named)
    for row in rows:
        shown.add_row(*row)
    return shown


def _show_words(console: Any, title: str, told: dict[str, Any]) -> None:
    words = told.get("words") or [f"no explanation: {told.get('unavailable')}"]
    console.print("\n".join(["", title, *words]), soft_wrap=True)
