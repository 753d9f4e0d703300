"""What verdicts stand on: evidence of them, its recomputation, and disputes about a window's training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neurons.commands.shared import (
    DATA_DIR,
    WALLETS,
    Device,
    DType,
    HotkeyName,
    Json,
    LedgersIn,
    ModelName,
    ModelRevision,
    ModelSource,
    Network,
    Wallet,
    WalletPath,
    chosen_model,
    perform,
)
from neurons.options import fail


def evidence(
    digest: Annotated[str | None, typer.Argument(help="One piece of evidence, by its digest.")] = None,
    miner: Annotated[str | None, typer.Option(help="Only about this miner's hotkey.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only accept, or only reject.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=256, help="Most lines of a list.")] = 20,
    ledger: Annotated[list[Path] | None, typer.Option(help="A validator's ledger file; may be repeated.")] = None,
    data_dir: LedgersIn = DATA_DIR,
    validator: Annotated[
        str | None, typer.Option("--from", help="Ask the validator with this hotkey instead of ledgers.")
    ] = None,
    netuid: Annotated[
        int | None, typer.Option(envvar="TOUCHSTONE_NETUID", min=1, max=65535, help="Its subnet, for --from.")
    ] = None,
    network: Network = "local",
    wallet: Wallet = "default",
    hotkey: HotkeyName = "default",
    wallet_path: WalletPath = WALLETS,
    out: Annotated[Path | None, typer.Option(help="Write the evidence to this file.")] = None,
    check: Annotated[bool, typer.Option("--verify", help="Recompute the verdict, as `verify` does.")] = False,
    model_source: ModelSource = None,
    model_name: ModelName = None,
    model_revision: ModelRevision = None,
    dtype: DType = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """List the verdicts that evidence is kept of, export one, or ask another validator for it."""
    from neurons.evidence import Means, Peer, Query
    from neurons.evidence import evidence as run

    if outcome not in (None, "accept", "reject"):
        fail("--outcome is accept or reject")
    if validator is not None and netuid is None:
        fail("--from needs --netuid")
    peer = Peer(validator, network, netuid, wallet, hotkey, wallet_path) if validator and netuid else None
    chosen = chosen_model(model_source, model_name, model_revision, dtype, device)
    perform(
        run,
        Query(digest, miner, outcome, limit),
        ledgers=ledger,
        data_dir=data_dir,
        peer=peer,
        out=out,
        recompute=Means(chosen, network, data_dir) if check else None,
        as_json=as_json,
    )


def verify(
    file: Annotated[Path, typer.Argument(help="Evidence, as `touchstone evidence DIGEST --out FILE` writes it.")],
    network: Network = "local",
    data_dir: Annotated[Path, typer.Option(help="Where data of a training may stay.")] = DATA_DIR,
    model_source: ModelSource = None,
    model_name: ModelName = None,
    model_revision: ModelRevision = None,
    dtype: DType = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Recompute a verdict from its evidence and the model, or for training the chain. Status 0: it agrees, 1: it does
    not, 2: not checked."""
    from neurons.evidence import Means
    from neurons.evidence import verify as run

    chosen = chosen_model(model_source, model_name, model_revision, dtype, device)
    perform(run, file, Means(chosen, network, data_dir), as_json=as_json)


def dispute(
    window: Annotated[int | None, typer.Option(min=0, help="The window.")] = None,
    miner: Annotated[str | None, typer.Option(help="Hotkey whose training of it is disputed.")] = None,
    against: Annotated[
        str | None, typer.Option(help="Hotkey of a miner that repeats the window; default: it is trained again here.")
    ] = None,
    netuid: Annotated[
        int | None, typer.Option(envvar="TOUCHSTONE_NETUID", min=1, max=65535, help="Subnet number.")
    ] = None,
    network: Network = "local",
    wallet: Wallet = "default",
    hotkey: HotkeyName = "default",
    wallet_path: WalletPath = WALLETS,
    out: Annotated[Path | None, typer.Option(help="Write what was asked and answered to this file.")] = None,
    check: Annotated[Path | None, typer.Option(help="Check such a file instead; with --netuid its re-run too.")] = None,
    data_dir: Annotated[Path, typer.Option(help="Where fetched artifacts are kept.")] = DATA_DIR,
    device: Annotated[str, typer.Option(help="Where training is repeated: cpu, cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's own choice.")] = None,
    patience: Annotated[float, typer.Option(min=1.0, help="Seconds for one answer, computing included.")] = 600.0,
    as_json: Json = False,
) -> None:
    """Find out who is wrong about a window's training: bisect its states, and train the disputed steps again.

    The statement is the one on record when the contribution entered the model, else the miner's commitment on chain;
    one that was overwritten there can be disputed no more. Miners answer validators: give the hotkey of one. Status 0:
    nobody was wrong, 1: somebody was, 2: not found out. With --check, 0: it holds, 1: it does not, 2: not all checked.
    """
    from neurons.dispute import Asking, Subnet, Where, recheck
    from neurons.dispute import dispute as run

    subnet, where = Subnet(network, netuid) if netuid is not None else None, Where(data_dir, device, threads)
    if check is not None:
        perform(recheck, check, subnet, where, as_json=as_json)
    if window is None or miner is None or subnet is None:
        fail("a dispute takes --netuid, --window and --miner; a check takes --check FILE")
    asking = Asking(wallet, hotkey, wallet_path, against, patience)
    perform(run, subnet, window, miner, asking, where, out=out, as_json=as_json)
