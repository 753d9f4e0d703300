"""`touchstone simulate`: what strategies earn, on a subnet's epochs or in a training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import click
import typer
from typer.core import TyperGroup

from neurons.commands.shared import Json, perform


class ScenarioGroup(TyperGroup):
    """What is not the name of a command is a scenario: `simulate copier` is `simulate scenario copier`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = not args or args[0] in self.commands or args[0].startswith("-")
        return super().resolve_command(ctx, args if known else ["scenario", *args])


app = typer.Typer(
    help="What strategies earn under the rules, epoch after epoch: touchstone simulate SCENARIO, or a command below.",
    no_args_is_help=True,
    cls=ScenarioGroup,
)


@app.command()
def scenario(
    scenario: Annotated[
        str, typer.Argument(help="cabal, copier, lazy, self_weighting, sybils, or a Python file (which is run).")
    ],
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of each variant; default: the scenario's.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of each variant, averaged.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The first seed; the same gives the same result.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write a picture: a .png or .svg file.")] = None,
    as_json: Json = False,
) -> None:
    """Strategies on one subnet (copiers, cabals, sybils) under the chain's own epoch code, and what each earned."""
    from neurons.simulate_scenario import simulate

    perform(simulate, scenario, epochs, seeds, seed, out, as_json=as_json)


@app.command()
def training(
    peers: Annotated[int, typer.Option(min=1, max=4096, help="Peers that train.")] = 300,
    windows: Annotated[int, typer.Option(min=1, help="Windows.")] = 2000,
    mix: Annotated[
        str | None, typer.Option(help="Shares of the peers by strategy, as honest=0.9,lazy=0.1; default: some of each.")
    ] = None,
    validators: Annotated[int, typer.Option(min=1, max=64, help="Honest validators, of equal stake.")] = 3,
    friendly: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Share of all stake of one that votes and pays for `friend`s.")
    ] = 0.0,
    emission: Annotated[float, typer.Option(min=0.0, help="Alpha to the mechanism's miners in a window.")] = 12.3,
    price: Annotated[float, typer.Option(min=0.0, help="Alpha of a registration after a peer's first.")] = 1.0,
    collateral: Annotated[float, typer.Option(min=0.0, help="Alpha that every hotkey has locked.")] = 0.0,
    hold: Annotated[float | None, typer.Option(help="Keep the model at this loss; default: it learns.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")] = 0,
    losses: Annotated[Path | None, typer.Option(help="A fit of the losses; default: the shipped one.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the result as JSON.")] = None,
    fit: Annotated[Path | None, typer.Option(help="Instead: fit the losses to real trainings, into this file.")] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="For --fit: a dataset's folder; default: the corpus in the cache.")
    ] = None,
    fit_windows: Annotated[int, typer.Option(min=16, help="For --fit: windows of a training.")] = 80,
    fit_seeds: Annotated[int, typer.Option(min=1, help="For --fit: trainings.")] = 2,
    as_json: Json = False,
) -> None:
    """Does cheating pay? Many peers and windows under the rules of mechanism 1, with losses as in real trainings."""
    from neurons import simulate

    if fit is not None:
        from neurons import simulate_fit

        aim = simulate_fit.FitOptions(fit, dataset, fit_seeds, {"windows": fit_windows})
        perform(simulate_fit.fit, aim, as_json=as_json)
    given = simulate.Options(
        peers, windows, mix or simulate.MIX, validators, friendly, emission, price, collateral, hold, seed, losses, out
    )
    perform(simulate.training, given, as_json=as_json)
