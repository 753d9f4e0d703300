"""Files by their hash: `touchstone dataset`, what models are trained on, and `touchstone artifact`, anything large."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neurons.commands.shared import Json, perform
from protocol.artifacts import MAX_BYTES as MAX_ARTIFACT_BYTES

dataset_app = typer.Typer(help="Tokens that models are trained on: make a dataset, look at one.", no_args_is_help=True)
artifact_app = typer.Typer(help="Large files, addressed by their hash: put, get, verify.", no_args_is_help=True)

Store = Annotated[
    str, typer.Option(envvar="TOUCHSTONE_ARTIFACT_STORE", help="A folder, a bucket's location, or @FILE with either.")
]
Cid = Annotated[str, typer.Argument(help="The artifact's address, as `artifact put` prints it.")]
MaxBytes = Annotated[int, typer.Option(min=0, help="Largest artifact; a larger one is left where it is.")]
Seconds = Annotated[float, typer.Option(min=0.001, help="Longest time for all of it.")]
AllowLocal = Annotated[bool, typer.Option("--allow-local", help="The bucket may be on this machine or network.")]


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
    perform(run, chosen, Tokens(tokenizer, eos, vocab), shape, out=out, as_json=as_json)


@dataset_app.command("show")
def dataset_show(
    folder: Annotated[Path, typer.Argument(help="A dataset's folder.")],
    as_json: Json = False,
) -> None:
    """Read a dataset, check every shard, and show what it holds."""
    from neurons.dataset import show as run

    perform(run, folder, as_json=as_json)


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

    perform(run, file, Place(store), resend=resend, as_json=as_json)


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

    perform(run, cid, out, Place(store, allow_local), ArtifactLimits(max_bytes, seconds), as_json=as_json)


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

    perform(run, cid, Place(store, allow_local), ArtifactLimits(max_bytes, seconds), as_json=as_json)
