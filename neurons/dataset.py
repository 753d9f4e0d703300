"""`touchstone dataset`: make the tokens that a model is trained on, and look at them.

touchstone dataset build --corpus small-english --out english       the shipped corpus, downloaded; 2,048 tokens
touchstone dataset build texts/ more.jsonl --vocab 8192 --out mine  own texts, and a tokenizer trained on them
touchstone dataset build texts/ --tokenizer model/ --out mine       ... or the tokenizer of a model at hand
touchstone dataset show mine                                        what it holds; every shard is read and checked

The same texts and options make the same dataset, byte for byte, so its id is the same on every machine. The folder's
`artifacts` is a store of files named by their content, to be put wherever miners can read it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurons.output import console, print_json
from protocol.dataset import DatasetManifest, Split, dataset_id
from template.errors import TemplateError

if TYPE_CHECKING:
    from template.training.building import Built
    from template.training.hub import HubTexts
    from template.training.tokens import TextTokenizer

SPLITS: tuple[Split, Split] = ("training", "validation")


@dataclass(frozen=True)
class Texts:
    """Where documents come from: files and folders, the shipped corpus of that name, or a hub; one of the three."""

    paths: tuple[Path, ...] = ()
    separator: str | None = None
    corpus: str | None = None
    hub: HubTexts | None = None


@dataclass(frozen=True)
class Tokens:
    """Which tokenizer: a file or folder, or one trained to `vocabulary` tokens; with neither the default model's."""

    tokenizer: Path | None = None
    eos: str | None = None
    vocabulary: int | None = None


@dataclass(frozen=True)
class Shape:
    """The rest of what determines a dataset; sources and licences are said in its manifest."""

    name: str | None = None
    shard_tokens: int = 2**18  # half a megabyte at two bytes: the shipped corpus gives some twenty shards
    validation: float = 0.02  # of the documents
    sources: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()


Documents = Callable[[], Iterator[str]]  # each call reads them from the start


async def build(texts: Texts, tokens: Tokens, shape: Shape, *, out: Path, as_json: bool) -> int:
    """Make a dataset in `out`. Raises TemplateError."""
    from template.training import building, corpus
    from template.training.texts import mixed

    if (bool(texts.paths), bool(texts.corpus), bool(texts.hub)).count(True) != 1:
        raise TemplateError("texts come from one place", remedy="give files or folders, or --corpus, or --hub")
    shipped = (texts, tokens, shape) == (Texts(corpus=corpus.NAME), Tokens(), Shape())
    if texts.corpus and tokens == Tokens():
        tokens = Tokens(vocabulary=corpus.VOCABULARY)
    building.refuse_used(out)
    with _documents(texts) as (documents, sources, licences):
        aim = building.Aim(
            name=shape.name or texts.corpus or out.resolve().name.lower(),
            tokenizer=_tokenizer(tokens, documents, shape.validation),
            sources=(*sources, *shape.sources),
            licences=(*licences, *shape.licences),
            shard_tokens=shape.shard_tokens,
            validation=shape.validation,
            expected_id=corpus.DATASET_ID if shipped else None,
        )
        built = await building.build(aim, mixed(documents()), out, _say)
    _show_built(built, out, as_json)
    return 0


async def show(folder: Path, *, as_json: bool) -> int:
    """Read every shard of a dataset, and say what it holds. Raises TemplateError."""
    from template.training.dataset import verify

    _show(await verify(folder), {"folder": str(folder)}, as_json)
    return 0


@contextmanager
def _documents(texts: Texts) -> Iterator[tuple[Documents, tuple[str, ...], tuple[str, ...]]]:
    """How to read the documents, and what the manifest says of their sources and licences."""
    from template.training import corpus, hub
    from template.training.texts import files, read

    if texts.hub:
        named = texts.hub
        yield lambda: hub.documents(named), (f"hub {named.name} at {named.revision}",), ()
    elif texts.corpus:
        if texts.corpus != corpus.NAME:
            raise TemplateError(f"there is no corpus {texts.corpus}", remedy=f"the one that is shipped: {corpus.NAME}")
        with tempfile.TemporaryDirectory() as scratch:
            packages = corpus.fetch(Path(scratch), _say)
            yield lambda: corpus.documents(packages), corpus.sources(), corpus.licences()
    else:
        found = files(texts.paths)
        yield lambda: (text for file in found for text in read(file, texts.separator)), (), ()


def _tokenizer(tokens: Tokens, documents: Documents, validation: float) -> TextTokenizer:
    """The chosen tokenizer; one that is trained sees only what the model will be trained on."""
    from template.training.texts import is_validation, mixed
    from template.training.tokens import load, train

    if tokens.vocabulary is None:
        return load(tokens.tokenizer or _default_model(), tokens.eos)
    if tokens.tokenizer or tokens.eos:
        raise TemplateError("--vocab trains a tokenizer of its own", remedy="leave out --tokenizer and --eos")
    _say(f"training a tokenizer of {tokens.vocabulary:,} tokens")
    batches = mixed(documents())
    return train(
        (each.text for batch in batches for each in batch if not is_validation(each.digest, validation)),
        tokens.vocabulary,
    )


def _default_model() -> Path:
    """Where the default model lies. Raises TemplateError when it is not on this machine yet."""
    from neurons import models
    from template.inference.manifest import find_prepared

    prepared = find_prepared(models.default_settings())
    if prepared is None:
        raise TemplateError(
            "the default model is not on this machine, so its tokenizer is not either",
            remedy="prepare it with `touchstone model`, or choose with --tokenizer or --vocab",
        )
    return prepared.path


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show_built(built: Built, out: Path, as_json: bool) -> None:
    counts = {
        "folder": str(out),
        "address": built.address,
        "documents": built.documents,
        "text_bytes": built.text_bytes,
        "bytes_per_token": round(built.text_bytes / built.tokens, 4),
        "seconds": round(built.seconds, 1),
    }
    _show(built.manifest, counts, as_json)


def _show(manifest: DatasetManifest, more: dict[str, Any], as_json: bool) -> None:
    tokens = {split: sum(shard.tokens for shard in manifest.shards(split)) for split in SPLITS}
    if as_json:
        plain = manifest.model_dump(mode="json")
        print_json({"dataset_id": dataset_id(manifest), "tokens": tokens, **more, "manifest": plain})
        return
    rows = [("dataset", f"{manifest.name}, id {dataset_id(manifest)}")]
    rows += [(split, f"{tokens[split]:,} tokens in {len(manifest.shards(split))} shards") for split in SPLITS]
    rows.append(("tokens", f"{manifest.token_bytes} bytes each, below {manifest.vocabulary:,}; {manifest.eos} ends"))
    rows.append(("tokenizer", manifest.tokenizer))
    rows += [("source", source) for source in manifest.sources]
    rows += [("licence", licence) for licence in manifest.licences]
    rows += [
        (name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value)) for name, value in more.items()
    ]
    for name, text in rows:
        console.print(f"{name:<16}{text}", markup=False, soft_wrap=True)
