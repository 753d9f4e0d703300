"""The `touchstone` command. Every command imports what it needs when it runs, so that `--help` is instant.

localnet                       a Subtensor in this process
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
up                             the main job: a whole subnet on this machine
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import click
import typer
from typer.core import TyperGroup

from localnet.cli import localnet
from neurons.options import fail, settings_command
from protocol.artifacts import MAX_BYTES as MAX_ARTIFACT_BYTES
from protocol.generation import MAX_ANSWER_TOKENS
from template.settings import (
    EngineServerSettings,
    GatewaySettings,
    MinerSettings,
    TrainMinerSettings,
    TrainValidatorSettings,
    ValidatorSettings,
)

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
ModelSource = Annotated[str | None, typer.Option(help="auto, package, hub or path; default: as for a neuron.")]
ModelName = Annotated[str | None, typer.Option(help="Hub repository, or folder.")]
ModelRevision = Annotated[str | None, typer.Option(help="Hub revision (commit).")]
DType = Annotated[str | None, typer.Option(help="Number format of the weights.")]
Device = Annotated[str | None, typer.Option(help="Where the model runs: cpu, cuda, mps.")]
WALLETS = Path("~/.bittensor/wallets")


app.command("localnet")(localnet)


def _start_miner(settings: MinerSettings) -> int:
    from neurons.miner import start

    return start(settings)


def _start_engine(settings: EngineServerSettings) -> int:
    from neurons.engine import start

    return start(settings)


def _start_validator(settings: ValidatorSettings) -> int:
    from neurons.validator import start

    return start(settings)


def _start_gateway(settings: GatewaySettings) -> int:
    from neurons.gateway import start

    return start(settings)


app.command("miner", help="Run a miner: serve the model to validators.")(settings_command(MinerSettings, _start_miner))
app.command("engine", help="Run an engine server: the model for one or several miners.")(
    settings_command(EngineServerSettings, _start_engine)
)
app.command("validator", help="Run a validator: challenge, verify, score, set weights.")(
    settings_command(ValidatorSettings, _start_validator)
)
app.command("gateway", help="Run a gateway: OpenAI's API in front of the subnet's miners.")(
    settings_command(GatewaySettings, _start_gateway)
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

    _run(run, network, netuid, split, wallet, wallet_path, yes=yes, as_json=as_json)


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
    role: Annotated[str, typer.Option(help="miner, validator, train-miner or train-validator.")] = "miner",
    as_json: Json = False,
) -> None:
    """Check machine, wallet, port, clock, chain and model, and say what to do."""
    from neurons.doctor import doctor as run

    _run(run, network, netuid, wallet, hotkey, wallet_path, port=port, role=role, as_json=as_json)


@app.command()
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

    given = _chosen(model_source, model_name, model_revision, dtype, None)
    _run(run, network, netuid, wallet, hotkey, wallet_path, given, commit=commit, tensor=tensor, as_json=as_json)


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


@app.command()
def evidence(
    digest: Annotated[str | None, typer.Argument(help="One piece of evidence, by its digest.")] = None,
    miner: Annotated[str | None, typer.Option(help="Only about this miner's hotkey.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only accept, or only reject.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=256, help="Most lines of a list.")] = 20,
    ledger: Annotated[list[Path] | None, typer.Option(help="A validator's ledger file; may be repeated.")] = None,
    data_dir: Annotated[Path, typer.Option(help="Where ledgers are looked for.")] = Path("~/.touchstone"),
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
    chosen = _chosen(model_source, model_name, model_revision, dtype, device)
    _run(
        run,
        Query(digest, miner, outcome, limit),
        ledgers=ledger,
        data_dir=data_dir,
        peer=peer,
        out=out,
        recompute=Means(chosen, network, data_dir) if check else None,
        as_json=as_json,
    )


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="Evidence, as `touchstone evidence DIGEST --out FILE` writes it.")],
    network: Network = "local",
    data_dir: Annotated[Path, typer.Option(help="Where data of a training may stay.")] = Path("~/.touchstone"),
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

    chosen = _chosen(model_source, model_name, model_revision, dtype, device)
    _run(run, file, Means(chosen, network, data_dir), as_json=as_json)


@app.command()
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
    _run(run, _chosen(model_source, model_name, model_revision, dtype, device), aim, out=out, as_json=as_json)


@app.command("challenge-bench")
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
    _run(run, _chosen(model_source, model_name, model_revision, dtype, device), options, as_json=as_json)


def _chosen(source: str | None, name: str | None, revision: str | None, dtype: str | None, device: str | None) -> Any:
    """The model settings that were given as flags."""
    given = {"model_source": source, "model_name": name, "model_revision": revision, "dtype": dtype, "device": device}
    return {field: value for field, value in given.items() if value is not None}


@app.command(context_settings=_PASS_THROUGH)
def up(ctx: typer.Context) -> None:
    """Run the main job (same as scripts/up.sh)."""
    import subprocess

    script = Path(__file__).resolve().parent.parent / "scripts" / "main_job.py"
    if not script.exists():
        fail("the main job is part of the source checkout; clone the repository and run ./scripts/up.sh")
    raise typer.Exit(subprocess.call([sys.executable, str(script), *ctx.args]))


keys_app = typer.Typer(help="API keys of a gateway: create, list, revoke.", no_args_is_help=True)
app.add_typer(keys_app, name="gateway-keys")
KeysFile = Annotated[
    Path | None, typer.Option("--keys-file", envvar="TOUCHSTONE_KEYS_FILE", help="Default: in the neuron's folder.")
]
DataDir = Annotated[Path, typer.Option(envvar="TOUCHSTONE_DATA_DIR", help="Where neurons keep their folders.")]
DATA_DIR = Path("~/.touchstone")


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
    _run(run, wallet, hotkey, data_dir, keys_file, label, quota, as_json=as_json)


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

    _run(run, wallet, hotkey, data_dir, keys_file, as_json=as_json)


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

    _run(run, wallet, hotkey, data_dir, keys_file, key_id, as_json=as_json)


def _start_train_miner(settings: TrainMinerSettings) -> int:
    from neurons.train_miner import start

    return start(settings)


def _start_train_validator(settings: TrainValidatorSettings) -> int:
    from neurons.train_validator import start

    return start(settings)


train_app = typer.Typer(help="Mechanism 1: a model grown by strangers.", no_args_is_help=True)
app.add_typer(train_app, name="train")
train_app.command("miner", help="Run a miner of mechanism 1: train the shared model.")(
    settings_command(TrainMinerSettings, _start_train_miner)
)
train_app.command("validator", help="Run a validator of mechanism 1: score, audit, vote, set weights.")(
    settings_command(TrainValidatorSettings, _start_train_validator)
)


@train_app.command("start")
def train_start(
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
    _run(start_training, network, netuid, wallet, hotkey, wallet_path, given, artifacts, published, as_json=as_json)


@train_app.command("status")
def train_status(
    ledger: Annotated[
        Path | None, typer.Option(help="A validator's ledger; default: the one in the data folder.")
    ] = None,
    data_dir: Annotated[Path, typer.Option(help="Where ledgers are looked for.")] = Path("~/.touchstone"),
    last: Annotated[int, typer.Option(min=1, help="Windows to list.")] = 20,
    picture: Annotated[Path | None, typer.Option(help="Draw all windows into this file, a PNG.")] = None,
    names: Annotated[Path | None, typer.Option(help="JSON object {hotkey: name}, for the picture.")] = None,
    as_json: Json = False,
) -> None:
    """Show a training as one validator sees it: loss, contributions, ratings, verdicts."""
    from neurons.train_history import status as run

    _run(run, ledger, data_dir, last=last, as_json=as_json, picture=picture, names=names)


@train_app.command("privacy")
def train_privacy(
    netuid: Annotated[int | None, typer.Option(min=1, max=65535, help="A subnet whose recipe asks for it.")] = None,
    network: Network = "local",
    noise: Annotated[float | None, typer.Option(help="Instead: deviation of the sum's noise, in clips.")] = None,
    delta: Annotated[float, typer.Option(help="With --noise.")] = 1e-6,
    windows: Annotated[list[int] | None, typer.Option(min=0, max=10**9, help="May be repeated.")] = None,
    data_dir: Annotated[Path, typer.Option(help="Where fetched artifacts may be found again.")] = Path("~/.touchstone"),
    as_json: Json = False,
) -> None:
    """Show what clipping and noise are worth, as epsilon at delta, and against whom."""
    from neurons.train_privacy import privacy as run

    _run(run, network, netuid, data_dir, noise, delta, tuple(windows or ()), as_json=as_json)


@train_app.command("replay")
def train_replay(
    netuid: Netuid,
    network: Network = "local",
    data_dir: Annotated[Path, typer.Option(help="Where fetched artifacts may be found again.")] = Path("~/.touchstone"),
    as_json: Json = False,
) -> None:
    """Compute the shared model again from every contribution on record, and compare it with the chain."""
    from neurons.train_history import replay as run

    _run(run, network, netuid, data_dir, as_json=as_json)


@app.command()
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
    data_dir: Annotated[Path, typer.Option(help="Where fetched artifacts are kept.")] = Path("~/.touchstone"),
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
        _run(recheck, check, subnet, where, as_json=as_json)
    if window is None or miner is None or subnet is None:
        fail("a dispute takes --netuid, --window and --miner; a check takes --check FILE")
    asking = Asking(wallet, hotkey, wallet_path, against, patience)
    _run(run, subnet, window, miner, asking, where, out=out, as_json=as_json)


@train_app.command("attack-bench")
def train_attack_bench(
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
    _run(attack_bench, options, as_json=as_json)


class ScenarioGroup(TyperGroup):
    """What is not the name of a command is a scenario: `simulate copier` is `simulate scenario copier`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = not args or args[0] in self.commands or args[0].startswith("-")
        return super().resolve_command(ctx, args if known else ["scenario", *args])


simulate_app = typer.Typer(
    help="What strategies earn under the rules, epoch after epoch: touchstone simulate SCENARIO, or a command below.",
    no_args_is_help=True,
    cls=ScenarioGroup,
)
app.add_typer(simulate_app, name="simulate")


@simulate_app.command("scenario")
def simulate_scenario(
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

    _run(simulate, scenario, epochs, seeds, seed, out, as_json=as_json)


@simulate_app.command("training")
def simulate_training(
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
        _run(simulate_fit.fit, aim, as_json=as_json)
    given = simulate.Options(
        peers, windows, mix or simulate.MIX, validators, friendly, emission, price, collateral, hold, seed, losses, out
    )
    _run(simulate.training, given, as_json=as_json)


dataset_app = typer.Typer(help="Tokens that models are trained on: make a dataset, look at one.", no_args_is_help=True)
app.add_typer(dataset_app, name="dataset")


@dataset_app.command("build")
def dataset_build(
    out: Annotated[Path, typer.Option(help="The dataset's folder; it must not hold anything yet.")],
    texts: Annotated[list[Path] | None, typer.Argument(help="Text files, JSON lines, or folders of them.")] = None,
    separator: Annotated[str | None, typer.Option(help="What stands between documents; default: files do.")] = None,
    corpus: Annotated[str | None, typer.Option(help="The corpus that is shipped instead: small-english.")] = None,
    hub: Annotated[str | None, typer.Option(help="A data set of a hub instead.")] = None,
    hub_revision: Annotated[str, typer.Option(help="Its commit, 40 hex digits.")] = "",
    hub_part: Annotated[str | None, typer.Option(help="Its configuration.")] = None,
    hub_split: Annotated[str, typer.Option(help="Its split.")] = "train",
    hub_column: Annotated[str, typer.Option(help="Its column of texts.")] = "text",
    tokenizer: Annotated[
        Path | None, typer.Option(help="tokenizer.json, or a model's folder; default: the served model's.")
    ] = None,
    eos: Annotated[str | None, typer.Option(help="The token that ends a document; default: the folder's own.")] = None,
    vocab: Annotated[int | None, typer.Option(min=257, max=2**24, help="Train a tokenizer of this size.")] = None,
    name: Annotated[str | None, typer.Option(help="The dataset's name; default: the folder's.")] = None,
    shard_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a shard.")] = 2**18,
    validation: Annotated[float, typer.Option(min=0.0, max=0.5, help="Share of documents for validation.")] = 0.02,
    source: Annotated[list[str] | None, typer.Option(help="Said in the manifest; may be repeated.")] = None,
    licence: Annotated[list[str] | None, typer.Option(help="Said in the manifest; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """Make a dataset of tokens from texts. The same texts and options make the same dataset."""
    from neurons.dataset import Shape, Texts, Tokens
    from neurons.dataset import build as run
    from template.training.hub import HubTexts

    named = HubTexts(hub, hub_revision, hub_part, hub_split, hub_column) if hub else None
    shape = Shape(name, shard_tokens, validation, tuple(source or ()), tuple(licence or ()))
    chosen = Texts(tuple(texts or ()), separator, corpus, named)
    _run(run, chosen, Tokens(tokenizer, eos, vocab), shape, out=out, as_json=as_json)


@dataset_app.command("show")
def dataset_show(
    folder: Annotated[Path, typer.Argument(help="A dataset's folder.")],
    as_json: Json = False,
) -> None:
    """Read a dataset, check every shard, and show what it holds."""
    from neurons.dataset import show as run

    _run(run, folder, as_json=as_json)


artifact_app = typer.Typer(help="Large files, addressed by their hash: put, get, verify.", no_args_is_help=True)
app.add_typer(artifact_app, name="artifact")
Store = Annotated[
    str, typer.Option(envvar="TOUCHSTONE_ARTIFACT_STORE", help="A folder, a bucket's location, or @FILE with either.")
]
Cid = Annotated[str, typer.Argument(help="The artifact's address, as `artifact put` prints it.")]
MaxBytes = Annotated[int, typer.Option(min=0, help="Largest artifact; a larger one is left where it is.")]
Seconds = Annotated[float, typer.Option(min=0.001, help="Longest time for all of it.")]
AllowLocal = Annotated[bool, typer.Option("--allow-local", help="The bucket may be on this machine or network.")]


@artifact_app.command("put")
def artifact_put(
    file: Annotated[Path, typer.Argument(help="The file.")],
    store: Store,
    resend: Annotated[bool, typer.Option("--resend", help="Send chunks that are there again: mends damage.")] = False,
    as_json: Json = False,
) -> None:
    """Put a file into a store and print its address. What is there already is not sent again."""
    from neurons.artifact import Place
    from neurons.artifact import put as run

    _run(run, file, Place(store), resend=resend, as_json=as_json)


@artifact_app.command("get")
def artifact_get(
    cid: Cid,
    out: Annotated[Path, typer.Argument(help="The file to make; it appears when it is whole.")],
    store: Store,
    max_bytes: MaxBytes = MAX_ARTIFACT_BYTES,
    seconds: Seconds = 86400.0,
    allow_local: AllowLocal = False,
    as_json: Json = False,
) -> None:
    """Get an artifact, every chunk checked. An interrupted one goes on where it was."""
    from neurons.artifact import ArtifactLimits, Place
    from neurons.artifact import get as run

    _run(run, cid, out, Place(store, allow_local), ArtifactLimits(max_bytes, seconds), as_json=as_json)


@artifact_app.command("verify")
def artifact_verify(
    cid: Cid,
    store: Store,
    max_bytes: MaxBytes = MAX_ARTIFACT_BYTES,
    seconds: Seconds = 86400.0,
    allow_local: AllowLocal = False,
    as_json: Json = False,
) -> None:
    """Read through an artifact in a store. Status 0: it is whole, 1: it is damaged, 2: not checked."""
    from neurons.artifact import ArtifactLimits, Place
    from neurons.artifact import verify as run

    _run(run, cid, Place(store, allow_local), ArtifactLimits(max_bytes, seconds), as_json=as_json)


def _run(command: Any, *args: Any, **kwargs: Any) -> NoReturn:
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


def main() -> None:
    app()


def run_command(*names: str) -> None:
    """One command under its own file name: `python neurons/miner.py ...` is `touchstone miner ...`."""
    sys.argv[1:1] = names
    app()


if __name__ == "__main__":
    main()
