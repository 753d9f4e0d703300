"""Mechanism 0 on the command line: its neurons, the keys of a gateway, and two commands that try the judge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neurons.commands.shared import (
    DATA_DIR,
    DataDir,
    Device,
    DType,
    HotkeyName,
    Json,
    ModelName,
    ModelRevision,
    ModelSource,
    Wallet,
    chosen_model,
    perform,
)
from neurons.options import settings_command
from protocol.generation import MAX_ANSWER_TOKENS
from template.settings import EngineServerSettings, GatewaySettings, MinerSettings, ValidatorSettings


@settings_command(MinerSettings)
def miner(settings: MinerSettings) -> int:
    """Run a miner: serve the model to validators."""
    from neurons.miner import start

    return start(settings)


@settings_command(EngineServerSettings)
def engine(settings: EngineServerSettings) -> int:
    """Run an engine server: the model for one or several miners."""
    from neurons.engine import start

    return start(settings)


@settings_command(ValidatorSettings)
def validator(settings: ValidatorSettings) -> int:
    """Run a validator: challenge, verify, score, set weights."""
    from neurons.validator import start

    return start(settings)


@settings_command(GatewaySettings)
def gateway(settings: GatewaySettings) -> int:
    """Run a gateway: OpenAI's API in front of the subnet's miners."""
    from neurons.gateway import start

    return start(settings)


def calibrate(
    model_source: ModelSource = None,
    model_name: ModelName = None,
    model_revision: ModelRevision = None,
    dtype: DType = None,
    device: Device = None,
    tokens: Annotated[int, typer.Option(min=1, help="Honest tokens to measure.")] = 100_000,
    target: Annotated[
        float, typer.Option(min=1e-6, max=0.5, help="False positives of one answer to stay below.")
    ] = 1e-3,
    check: Annotated[bool, typer.Option("--check", help="Judge fresh honest answers instead, and count.")] = False,
    answers: Annotated[int, typer.Option(min=0, help="Answers instead of tokens; 10,000 for --check.")] = 0,
    out: Annotated[Path | None, typer.Option(help="File to write; with --check, to judge by.")] = None,
    as_json: Json = False,
) -> None:
    """Measure how far honest answers are from the rule, and write the judge's thresholds. Goes on where it stopped."""
    from neurons.calibrate import Aim
    from neurons.calibrate import calibrate as run

    aim = Aim(tokens, answers, target, check)
    perform(run, chosen_model(model_source, model_name, model_revision, dtype, device), aim, out=out, as_json=as_json)


def challenge_bench(
    model_source: ModelSource = None,
    model_name: ModelName = None,
    model_revision: ModelRevision = None,
    dtype: DType = None,
    device: Device = None,
    cheats: Annotated[str, typer.Option(help="Names, with commas between them; empty: all.")] = "",
    answers: Annotated[int, typer.Option(min=1, help="Answers of each cheat.")] = 16,
    max_tokens: Annotated[int, typer.Option(min=16, max=MAX_ANSWER_TOKENS, help="Longest answer, in tokens.")] = 64,
    honest: Annotated[int, typer.Option(min=1, help="Honest answers, for false positives.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of the simulated validator.")] = 2000,
    prompts: Annotated[str, typer.Option(help="Length of the prompts: short, medium or long.")] = "short",
    seed: Annotated[int, typer.Option(help="Of questions, samples and simulations.")] = 0,
    calibration: Annotated[Path | None, typer.Option(help="Thresholds; default: those in force here.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the result as JSON.")] = None,
    table: Annotated[Path | None, typer.Option(help="Write the table as Markdown.")] = None,
    journal: Annotated[Path | None, typer.Option(help="Finished cheats, to go on from; default: beside --out.")] = None,
    as_json: Json = False,
) -> None:
    """Run every known cheat against the judge, and show how soon each is found out and what it keeps."""
    from neurons.challenge_bench import Options
    from neurons.challenge_bench import challenge_bench as run

    names = tuple(name.strip() for name in cheats.split(",") if name.strip())
    options = Options(names, answers, max_tokens, honest, rounds, prompts, seed, calibration, out, table, journal)
    perform(run, chosen_model(model_source, model_name, model_revision, dtype, device), options, as_json=as_json)


keys_app = typer.Typer(help="API keys of a gateway: create, list, revoke.", no_args_is_help=True)

KeysFile = Annotated[
    Path | None, typer.Option("--keys-file", envvar="TOUCHSTONE_KEYS_FILE", help="Default: in the neuron's folder.")
]


@keys_app.command("create")
def keys_create(
    label: Annotated[str, typer.Argument(help="Whom the key is for.")],
    requests_per_minute: Annotated[int, typer.Option(min=1, help="Requests in any minute.")] = 60,
    tokens_per_day: Annotated[int, typer.Option(min=1, help="Prompt and answer tokens in a UTC day.")] = 1_000_000,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in work at the same time.")] = 16,
    wallet: Wallet = "default",
    hotkey: HotkeyName = "default",
    data_dir: DataDir = DATA_DIR,
    keys_file: KeysFile = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it, this once: only its hash is kept."""
    from neurons.gateway_keys import create as run

    quota = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_day": tokens_per_day,
        "concurrency": concurrency,
    }
    perform(run, wallet, hotkey, data_dir, keys_file, label, quota, as_json=as_json)


@keys_app.command("list")
def keys_list(
    wallet: Wallet = "default",
    hotkey: HotkeyName = "default",
    data_dir: DataDir = DATA_DIR,
    keys_file: KeysFile = None,
    as_json: Json = False,
) -> None:
    """List the keys, their quotas and what they used today."""
    from neurons.gateway_keys import show as run

    perform(run, wallet, hotkey, data_dir, keys_file, as_json=as_json)


@keys_app.command("revoke")
def keys_revoke(
    key_id: Annotated[str, typer.Argument(help="The id, as `list` shows it.")],
    wallet: Wallet = "default",
    hotkey: HotkeyName = "default",
    data_dir: DataDir = DATA_DIR,
    keys_file: KeysFile = None,
    as_json: Json = False,
) -> None:
    """Close a key at once and for ever."""
    from neurons.gateway_keys import revoke as run

    perform(run, wallet, hotkey, data_dir, keys_file, key_id, as_json=as_json)
