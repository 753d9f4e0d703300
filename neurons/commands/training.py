"""Mechanism 1 on the command line, `touchstone train`: start a training, take part, look at it, put it to the test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neurons.commands.shared import (
    DATA_DIR,
    WALLETS,
    HotkeyName,
    Json,
    LedgersIn,
    Netuid,
    Network,
    Wallet,
    WalletPath,
    perform,
)
from neurons.options import fail, settings_command
from template.settings import TrainMinerSettings, TrainValidatorSettings

app = typer.Typer(help="Mechanism 1: a model grown by strangers.", no_args_is_help=True)

FetchedIn = Annotated[Path, typer.Option(help="Where fetched artifacts may be found again.")]


@app.command()
@settings_command(TrainMinerSettings)
def miner(settings: TrainMinerSettings) -> int:
    """Run a miner of mechanism 1: train the shared model."""
    from neurons.train_miner import start

    return start(settings)


@app.command()
@settings_command(TrainValidatorSettings)
def validator(settings: TrainValidatorSettings) -> int:
    """Run a validator of mechanism 1: score, audit, vote, set weights."""
    from neurons.train_validator import start

    return start(settings)


@app.command()
def start(
    netuid: Netuid,
    dataset: Annotated[Path, typer.Option(help="A folder that `touchstone dataset build` made.")],
    artifacts: Annotated[str, typer.Option(envvar="TOUCHSTONE_ARTIFACTS", help="The owner's bucket, or @FILE.")],
    published: Annotated[str, typer.Option(envvar="TOUCHSTONE_PUBLISHED", help="It, with keys that only read.")],
    network: Network = "local",
    wallet: Wallet = "default",
    hotkey: HotkeyName = "default",
    wallet_path: WalletPath = WALLETS,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of the recipe; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the model that window 0 starts from.")] = 0,
    blocks: Annotated[int, typer.Option("--in", min=1, help="Blocks from now until the first window.")] = 10,
    as_json: Json = False,
) -> None:
    """Begin a training as the subnet's owner: put data, model and recipe into a bucket and commit them on chain."""
    from neurons.train_start import Start, start_training

    pairs = [tuple(text.split("=", 1)) for text in change or []]
    if any(len(pair) != 2 for pair in pairs):
        fail("--set takes NAME=VALUE")
    given = Start(dataset, seed, blocks, tuple(pairs))  # type: ignore[arg-type]
    perform(start_training, network, netuid, wallet, hotkey, wallet_path, given, artifacts, published, as_json=as_json)


@app.command()
def status(
    ledger: Annotated[
        Path | None, typer.Option(help="A validator's ledger; default: the one in the data folder.")
    ] = None,
    data_dir: LedgersIn = DATA_DIR,
    last: Annotated[int, typer.Option(min=1, help="Windows to list.")] = 20,
    picture: Annotated[Path | None, typer.Option(help="Draw all windows into this file, a PNG.")] = None,
    names: Annotated[Path | None, typer.Option(help="JSON object {hotkey: name}, for the picture.")] = None,
    as_json: Json = False,
) -> None:
    """Show a training as one validator sees it: loss, contributions, ratings, verdicts."""
    from neurons.train_history import status as run

    perform(run, ledger, data_dir, last=last, as_json=as_json, picture=picture, names=names)


@app.command()
def privacy(
    netuid: Annotated[int | None, typer.Option(min=1, max=65535, help="A subnet whose recipe asks for it.")] = None,
    network: Network = "local",
    noise: Annotated[float | None, typer.Option(help="Instead: deviation of the sum's noise, in clips.")] = None,
    delta: Annotated[float, typer.Option(help="With --noise.")] = 1e-6,
    windows: Annotated[list[int] | None, typer.Option(min=0, max=10**9, help="May be repeated.")] = None,
    data_dir: FetchedIn = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Show what clipping and noise are worth, as epsilon at delta, and against whom."""
    from neurons.train_privacy import privacy as run

    perform(run, network, netuid, data_dir, noise, delta, tuple(windows or ()), as_json=as_json)


@app.command()
def replay(
    netuid: Netuid,
    network: Network = "local",
    data_dir: FetchedIn = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Compute the shared model again from every contribution on record, and compare it with the chain."""
    from neurons.train_history import replay as run

    perform(run, network, netuid, data_dir, as_json=as_json)


@app.command()
def attack_bench(
    dataset: Annotated[Path, typer.Option(help="A folder that `touchstone dataset build` made.")],
    attacks: Annotated[str, typer.Option(help="Names, with commas between them; empty: all.")] = "",
    shares: Annotated[str, typer.Option(help="Shares of attackers among all miners, with commas.")] = "0.25,0.4",
    honest: Annotated[int, typer.Option(min=2, help="Honest miners.")] = 6,
    windows: Annotated[int, typer.Option(min=1, help="Windows of each run.")] = 10,
    hidden: Annotated[int, typer.Option(min=8, help="Width of the model; a multiple of 8.")] = 64,
    layers: Annotated[int, typer.Option(min=1, help="Layers of the model.")] = 2,
    steps: Annotated[int, typer.Option(min=2, help="Inner steps of a window.")] = 10,
    batch: Annotated[int, typer.Option(min=1, help="Sequences of a batch.")] = 4,
    length: Annotated[int, typer.Option(min=16, help="Tokens of a sequence.")] = 64,
    rate: Annotated[float, typer.Option(min=1e-6, help="Learning rate of an inner step.")] = 2e-3,
    seed: Annotated[int, typer.Option(help="Of the first model, the data and the draws.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the result as JSON.")] = None,
    table: Annotated[Path | None, typer.Option(help="Write the table as Markdown.")] = None,
    journal: Annotated[Path | None, typer.Option(help="Finished runs, to go on from; default: beside --out.")] = None,
    as_json: Json = False,
) -> None:
    """Run every known attack on a training, and show what it earns and what it does to the loss."""
    from neurons.train_attack_bench import Options, attack_bench

    try:
        parts = tuple(float(part) for part in shares.split(",") if part.strip())
    except ValueError:
        fail("--shares takes numbers with commas between them")
    names = tuple(name.strip() for name in attacks.split(",") if name.strip())
    model = (hidden, layers, steps, batch, length, rate)
    options = Options(dataset, names, parts, honest, windows, *model, seed, out, table, journal)
    perform(attack_bench, options, as_json=as_json)
