"""What commands of several groups share: their options, and how a command's coroutine is run.

    def audit(netuid: Netuid, network: Network = "local", as_json: Json = False) -> None:
        from neurons.audit import audit as run

        perform(run, network, netuid, as_json=as_json)

A command imports what it does only when it runs, so that `--help` is instant.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from neurons.options import fail

WALLETS = Path("~/.bittensor/wallets")
DATA_DIR = Path("~/.touchstone")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

# The chain, and who speaks to it
Network = Annotated[str, typer.Option(envvar="TOUCHSTONE_NETWORK", help="local, test, finney, or a ws:// URL.")]
Netuid = Annotated[int, typer.Option(envvar="TOUCHSTONE_NETUID", min=1, max=65535, help="Subnet number.")]
Wallet = Annotated[str, typer.Option(envvar="TOUCHSTONE_WALLET", help="Wallet name.")]
HotkeyName = Annotated[str, typer.Option("--hotkey", envvar="TOUCHSTONE_HOTKEY", help="Hotkey name in the wallet.")]
WalletPath = Annotated[Path, typer.Option(envvar="TOUCHSTONE_WALLET_PATH", help="Folder that holds the wallets.")]

# The model
ModelSource = Annotated[str | None, typer.Option(help="auto, package, hub or path; default: as for a neuron.")]
ModelName = Annotated[str | None, typer.Option(help="Hub repository, or folder.")]
ModelRevision = Annotated[str | None, typer.Option(help="Hub revision (commit).")]
DType = Annotated[str | None, typer.Option(help="Number format of the weights.")]
Device = Annotated[str | None, typer.Option(help="Where the model runs: cpu, cuda, mps.")]

# Folders
DataDir = Annotated[Path, typer.Option(envvar="TOUCHSTONE_DATA_DIR", help="Where neurons keep their folders.")]
LedgersIn = Annotated[Path, typer.Option(help="Where ledgers are looked for.")]


def chosen_model(
    source: str | None, name: str | None, revision: str | None, dtype: str | None, device: str | None
) -> Any:
    """The model settings that were given as flags."""
    given = {"model_source": source, "model_name": name, "model_revision": revision, "dtype": dtype, "device": device}
    return {field: value for field, value in given.items() if value is not None}


def perform(command: Any, *args: Any, **kwargs: Any) -> NoReturn:
    """Run one command's coroutine; errors of the house are one line and status 1, an int is the exit status."""
    import asyncio

    from localnet.errors import LocalnetError
    from template.errors import TemplateError

    try:
        code = asyncio.run(command(*args, **kwargs))
    except (TemplateError, LocalnetError) as error:
        fail(error)
    except KeyboardInterrupt:
        code = 130
    raise typer.Exit(int(code or 0))
