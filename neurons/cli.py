"""The `touchstone` command. Every command imports what it needs when it runs, so that `--help` is instant.

localnet                       a Subtensor in this process; explain, timeline, export, import: ask one that runs
miner, validator, gateway      the neurons, and the way in for users
gateway-keys                   who may use a gateway, and how much
engine                         the model behind one or several miners
register, wallets              once, with a coldkey
mechanisms                     how a subnet's emission is divided between inference and training
model                          the model root; the owner commits it on chain, everybody else compares
status, doctor, audit          look at the subnet, at this machine, at what the chain paid
calibrate                      measure honest answers, and draw the judge's thresholds from them
challenge-bench                every known cheat against the judge: how soon each is found out
train                          mechanism 1: start a training, mine, validate, look at it, replay it
simulate                       what strategies earn: on a subnet's epochs (copier, cabal, ..), or in training
dataset                        make the tokens that models are trained on, and look at them
artifact                       large files by their hash: put one into a store, get it, read through it
dispute                        who was wrong about a window's training, and at which step
evidence, verify               what verdicts stand on: list, export, ask another validator, recompute
rehearse                       an upgrade of the chain's runtime before it happens: what would break
replay                         a subnet's last epoch with other weights of a validator: what would they have changed
up                             the main job: a whole subnet on this machine

What each takes and says is in neurons/commands, by what it is about; here is the order in which `--help` has them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from localnet.cli import app as localnet_app
from localnet.rehearsal.cli import rehearse_with
from localnet.whatif.cli import replay
from neurons.commands import artifacts, chain, evidence, inference, simulation, training
from neurons.options import fail

app = typer.Typer(
    name="touchstone",
    help="A Bittensor subnet in which work is proven, not trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def up(ctx: typer.Context) -> None:
    """Run the main job (same as scripts/up.sh)."""
    import subprocess

    script = Path(__file__).resolve().parent.parent / "scripts" / "main_job.py"
    if not script.exists():
        fail("the main job is part of the source checkout; clone the repository and run ./scripts/up.sh")
    raise typer.Exit(subprocess.call([sys.executable, str(script), *ctx.args]))


for command in (
    inference.miner,
    inference.engine,
    inference.validator,
    inference.gateway,
    chain.register,
    chain.mechanisms,
    chain.wallets,
    chain.status,
    chain.doctor,
    chain.model,
    chain.audit,
    evidence.evidence,
    evidence.verify,
    inference.calibrate,
    inference.challenge_bench,
    up,
    evidence.dispute,
):
    app.command(context_settings=_PASS_THROUGH if command is up else None)(command)

_HOME = Path(__file__).resolve().parents[1]
OURS = [_HOME / name for name in ("template", "neurons", "localnet") if (_HOME / name).is_dir()]
app.command("rehearse")(rehearse_with({"this project": OURS}))
app.command("replay")(replay)

for name, group in {
    "localnet": localnet_app,
    "gateway-keys": inference.keys_app,
    "train": training.app,
    "simulate": simulation.app,
    "dataset": artifacts.dataset_app,
    "artifact": artifacts.artifact_app,
}.items():
    app.add_typer(group, name=name)


def main() -> None:
    app()


def run_command(*names: str) -> None:
    """One command under its own file name: `python neurons/miner.py ...` is `touchstone miner ...`."""
    sys.argv[1:1] = names
    app()


if __name__ == "__main__":
    main()
