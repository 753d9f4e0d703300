"""The `touchstone` command. Every command imports what it needs when it runs, so that `--help` is instant.

localnet                       a Subtensor in this process
miner, validator               the neurons
register, wallets              once, with a coldkey
status, doctor, audit          look at the subnet, at this machine, at what the chain paid
up                             the main job: a whole subnet on this machine
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from localnet.cli import localnet
from neurons.options import fail, settings_command
from template.settings import MinerSettings, ValidatorSettings

app = typer.Typer(
    name="touchstone",
    help="A Bittensor subnet in which work is proven, not trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

Network = Annotated[str, typer.Option(envvar="TOUCHSTONE_NETWORK", help="local, test, finney, or a ws:// URL.")]
Netuid = Annotated[int, typer.Option(envvar="TOUCHSTONE_NETUID", min=1, max=65535, help="Subnet number.")]
Wallet = Annotated[str, typer.Option(envvar="TOUCHSTONE_WALLET", help="Wallet name.")]
HotkeyName = Annotated[str, typer.Option("--hotkey", envvar="TOUCHSTONE_HOTKEY", help="Hotkey name in the wallet.")]
WalletPath = Annotated[Path, typer.Option(envvar="TOUCHSTONE_WALLET_PATH", help="Folder that holds the wallets.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
WALLETS = Path("~/.bittensor/wallets")


app.command("localnet")(localnet)


def _start_miner(settings: MinerSettings) -> int:
    from neurons.miner import start

    return start(settings)


def _start_validator(settings: ValidatorSettings) -> int:
    from neurons.validator import start

    return start(settings)


app.command("miner", help="Run a miner: serve the model to validators.")(settings_command(MinerSettings, _start_miner))
app.command("validator", help="Run a validator: challenge, verify, score, set weights.")(
    settings_command(ValidatorSettings, _start_validator)
)


@app.command()
def register(
    netuid: Netuid,
    network: Network = "local",
    wallet: Wallet = "default",
    hotkey: HotkeyName = "default",
    wallet_path: WalletPath = WALLETS,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before paying.")] = False,
    as_json: Json = False,
) -> None:
    """Register a hotkey on a subnet, paid by the wallet's coldkey."""
    from neurons.register import register as run

    _run(run, network, netuid, wallet, hotkey, wallet_path, yes=yes, as_json=as_json)


@app.command()
def wallets(
    network: Annotated[str | None, typer.Option(help="Also read balances from this network.")] = None,
    wallet_path: WalletPath = WALLETS,
    create: Annotated[str | None, typer.Option(help="Create this wallet: NAME or NAME/HOTKEY.")] = None,
    password: Annotated[bool, typer.Option(help="Encrypt a created coldkey; off is for a local chain only.")] = True,
    as_json: Json = False,
) -> None:
    """List wallets and their hotkeys, or create one."""
    from neurons.wallets import wallets as run

    _run(run, network, wallet_path, create=create, password=password, as_json=as_json)


@app.command()
def status(
    netuid: Netuid,
    network: Network = "local",
    ledger: Annotated[
        list[Path] | None, typer.Option(help="A validator's ledger file, for scores; may be repeated.")
    ] = None,
    data_dir: Annotated[Path, typer.Option(help="Where ledgers are looked for.")] = Path("~/.touchstone"),
    as_json: Json = False,
) -> None:
    """Show the subnet: role, stake, score, weight, incentive, dividends, emission."""
    from neurons.status import status as run

    _run(run, network, netuid, ledgers=ledger, data_dir=data_dir, as_json=as_json)


@app.command()
def doctor(
    network: Network = "local",
    netuid: Annotated[int | None, typer.Option(help="Also check the registration on this subnet.")] = None,
    wallet: Wallet = "default",
    hotkey: HotkeyName = "default",
    wallet_path: WalletPath = WALLETS,
    port: Annotated[int, typer.Option(help="Axon port to check.")] = 8091,
    role: Annotated[str, typer.Option(help="miner or validator.")] = "miner",
    as_json: Json = False,
) -> None:
    """Check machine, wallet, port, clock, chain and model, and say what to do."""
    from neurons.doctor import doctor as run

    _run(run, network, netuid, wallet, hotkey, wallet_path, port=port, role=role, as_json=as_json)


@app.command()
def audit(
    netuid: Netuid,
    epoch: Annotated[int | None, typer.Option(help="Epoch index; default: the newest that was paid.")] = None,
    network: Network = "local",
    as_json: Json = False,
) -> None:
    """Recompute an epoch from chain data and compare it with what the chain paid."""
    from neurons.audit import audit as run

    _run(run, network, netuid, epoch=epoch, as_json=as_json)


@app.command(context_settings=_PASS_THROUGH)
def up(ctx: typer.Context) -> None:
    """Run the main job (same as scripts/up.sh)."""
    import subprocess

    script = Path(__file__).resolve().parent.parent / "scripts" / "main_job.py"
    if not script.exists():
        fail("the main job is part of the source checkout; clone the repository and run ./scripts/up.sh")
    raise typer.Exit(subprocess.call([sys.executable, str(script), *ctx.args]))


def _run(command: Any, *args: Any, **kwargs: Any) -> None:
    """Run one command's coroutine; errors of the house are one line and status 1, an int is the exit status."""
    import asyncio

    from template.errors import TemplateError

    try:
        code = asyncio.run(command(*args, **kwargs))
    except TemplateError as error:
        fail(error)
    except KeyboardInterrupt:
        code = 130
    raise typer.Exit(int(code or 0))


def main() -> None:
    app()


def run_command(name: str) -> None:
    """One command under its own file name: `python neurons/miner.py ...` is `touchstone miner ...`."""
    sys.argv.insert(1, name)
    app()


if __name__ == "__main__":
    main()
