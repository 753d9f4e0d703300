"""Options of the command that go together, that do not, and what they are read into.

Only what stands on the command line counts as given: a default never contradicts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from localnet.errors import ConfigError

# Options in their group of --help.
of_start: Callable[..., Any] = partial(typer.Option, rich_help_panel="What the chain begins with")
of_runtime: Callable[..., Any] = partial(typer.Option, rich_help_panel="A released runtime")
of_fork: Callable[..., Any] = partial(typer.Option, rich_help_panel="A fork of a live chain")
of_output: Callable[..., Any] = partial(typer.Option, rich_help_panel="What it says")

if TYPE_CHECKING:
    from localnet.wasm.source import RuntimeSource

ABOUT = {
    "runtime": ("runtime_hash", "preset", "dev_accounts"),
    "fork": ("fork_cache", "fork_offline", "fork_rate", "fork_verify"),
}
"""Option -> those that are about it, and mean nothing without it."""
ITS_OWN = "a fork goes on with the code and the state of the block that it is forked from"
AGAINST = (
    *(("fork", other, ITS_OWN) for other in ("runtime", *ABOUT["runtime"])),
    ("fork", "genesis", "a fork has its genesis already; change storage after the start"),
    ("fork", "import", "a fork has its state already; import into a chain of its own"),
    ("fork", "state", "a fork is not kept in a state file; what was read of the remote block is in --fork-cache"),
    ("runtime", "profile", "the profile sets constants of the specification runtime, a released one has its own"),
)
"""Two options that do not go together, and why."""


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def given(context: typer.Context) -> set[str]:
    """Names of the options that stand on the command line."""
    names = {**{name: name for name in context.params}, "json_output": "json", "import_file": "import"}
    return {
        shown
        for name, shown in names.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }


def ensure_together(names: Collection[str], command: str | None = None) -> None:
    """`names`: options given; `command`: the sub-command behind them. Raises ConfigError that names what to leave out,
    or to add."""
    if command is not None and names:
        told = ", ".join(sorted(map(flag, names)))
        raise ConfigError(f"{told} would be of a chain that starts, and `{command}` starts none: its options follow it")
    for one, other, why in AGAINST:
        if one in names and other in names:
            raise ConfigError(f"{flag(one)} and {flag(other)} do not go together: {why}. Leave one of them out")
    for one, others in ABOUT.items():
        lonely = [flag(other) for other in others if other in names]
        if lonely and one not in names:
            raise ConfigError(f"{', '.join(lonely)}: about a {flag(one)}, so name one, or leave it out")


def runtime_source(
    where: str | None, code_hash: str | None, preset: str | None, dev_accounts: bool | None, quiet: bool
) -> RuntimeSource | None:
    if where is None:
        return None
    from localnet.wasm.source import RuntimeSource

    def progress(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    return RuntimeSource(where, code_hash, preset, dev_accounts, progress)


def read_patch(path: Path | None) -> Any:
    """Raises ConfigError."""
    if path is None:
        return None
    try:
        patch = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"the genesis patch cannot be read from {path}: {error}") from error
    if not isinstance(patch, dict):
        raise ConfigError(f'{path} is no genesis patch: a JSON object such as {{"balances": {{..}}}}')
    from localnet.state_file import FORMAT

    if patch.get("format") == FORMAT:
        raise ConfigError(
            f"{path} is an exported state, full of the numbers of blocks, and no genesis: --import takes it"
        )
    return patch


def read_exported(path: Path | None) -> Any:
    """Raises StateFileError."""
    if path is None:
        return None
    from localnet.state_file import read

    return read(path)
