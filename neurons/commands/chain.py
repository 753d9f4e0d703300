"""What a subnet's owner and its members do on the chain, and how they look at it; and at this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neurons.commands.shared import (
    DATA_DIR,
    WALLETS,
    DType,
    HotkeyName,
    Json,
    LedgersIn,
    ModelName,
    ModelRevision,
    ModelSource,
    Netuid,
    Network,
    Wallet,
    WalletPath,
    chosen_model,
    perform,
)


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

    perform(run, network, netuid, wallet, hotkey, wallet_path, yes=yes, as_json=as_json)


def mechanisms(
    netuid: Netuid,
    split: Annotated[str, typer.Option(help="New parts of inference and training, such as 0.7,0.3.")] = "",
    network: Network = "local",
    wallet: Wallet = "default",
    wallet_path: WalletPath = WALLETS,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before changing it.")] = False,
    as_json: Json = False,
) -> None:
    """Show or set how a subnet's emission is divided between inference and training."""
    from neurons.mechanisms import mechanisms as run

    perform(run, network, netuid, split, wallet, wallet_path, yes=yes, as_json=as_json)


def wallets(
    network: Annotated[str | None, typer.Option(help="Also read balances from this network.")] = None,
    wallet_path: WalletPath = WALLETS,
    create: Annotated[str | None, typer.Option(help="Create this wallet: NAME or NAME/HOTKEY.")] = None,
    password: Annotated[bool, typer.Option(help="Encrypt a created coldkey; off is for a local chain only.")] = True,
    as_json: Json = False,
) -> None:
    """List wallets and their hotkeys, or create one."""
    from neurons.wallets import wallets as run

    perform(run, network, wallet_path, create=create, password=password, as_json=as_json)


def status(
    netuid: Netuid,
    network: Network = "local",
    ledger: Annotated[
        list[Path] | None, typer.Option(help="A validator's ledger file, for scores; may be repeated.")
    ] = None,
    data_dir: LedgersIn = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Show the subnet: role, stake, score, weight, incentive, dividends, emission."""
    from neurons.status import status as run

    perform(run, network, netuid, ledgers=ledger, data_dir=data_dir, as_json=as_json)


def doctor(
    network: Network = "local",
    netuid: Annotated[int | None, typer.Option(help="Also check the registration on this subnet.")] = None,
    wallet: Wallet = "default",
    hotkey: HotkeyName = "default",
    wallet_path: WalletPath = WALLETS,
    port: Annotated[int, typer.Option(help="Axon port to check.")] = 8091,
    role: Annotated[str, typer.Option(help="miner, validator, train-miner or train-validator.")] = "miner",
    as_json: Json = False,
) -> None:
    """Check machine, wallet, port, clock, chain and model, and say what to do."""
    from neurons.doctor import doctor as run

    perform(run, network, netuid, wallet, hotkey, wallet_path, port=port, role=role, as_json=as_json)


def model(
    netuid: Annotated[
        int | None, typer.Option(envvar="TOUCHSTONE_NETUID", min=1, max=65535, help="Compare with this subnet's owner.")
    ] = None,
    network: Network = "local",
    wallet: Wallet = "default",
    hotkey: HotkeyName = "default",
    wallet_path: WalletPath = WALLETS,
    commit: Annotated[bool, typer.Option("--commit", help="Commit the root, as the subnet's owner.")] = False,
    tensor: Annotated[str | None, typer.Option(help="Print the proof that this tensor is under the root.")] = None,
    model_source: ModelSource = None,
    model_name: ModelName = None,
    model_revision: ModelRevision = None,
    dtype: DType = None,
    as_json: Json = False,
) -> None:
    """Show the model and its root, compare it with what the subnet's owner committed on chain, or commit it."""
    from neurons.model_command import model as run

    given = chosen_model(model_source, model_name, model_revision, dtype, None)
    perform(run, network, netuid, wallet, hotkey, wallet_path, given, commit=commit, tensor=tensor, as_json=as_json)


def audit(
    netuid: Netuid,
    epoch: Annotated[int | None, typer.Option(help="Epoch index; default: the newest that was paid.")] = None,
    network: Network = "local",
    as_json: Json = False,
) -> None:
    """Recompute an epoch from chain data and compare it with what the chain paid."""
    from neurons.audit import audit as run

    perform(run, network, netuid, epoch=epoch, as_json=as_json)
