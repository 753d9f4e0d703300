"""From texts to token ids: a tokenizer that is at hand, or one trained on the texts.

    load(path, eos)                a tokenizer.json, or a model's folder with one
    train(texts, vocabulary)       byte-level BPE (Sennrich et al. 2016, 1508.07909), the same for the same texts
    TextTokenizer                  encode, decode, and what a manifest says of it

Text never becomes the end-of-sequence token, even where it spells it: only the end of a document does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from template.errors import TemplateError

EOS = "<|endoftext|>"
FILE = "tokenizer.json"
LEAST_VOCABULARY = 257  # every byte and the end of a sequence


class TokenizerUnusable(TemplateError):
    """A tokenizer is not there, cannot be read, or lacks an end-of-sequence token."""


@dataclass(frozen=True)
class TextTokenizer:
    """`definition` is the whole tokenizer.json; `vocabulary` is one more than the largest id."""

    definition: bytes = field(repr=False)
    eos: int
    vocabulary: int
    _tokenizer: Any = field(repr=False, compare=False)

    @property
    def digest(self) -> str:
        """SHA-256, 64 hex digits: the tokenizer's identity in a manifest."""
        return hashlib.sha256(self.definition).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[npt.NDArray[np.uint32]]:
        """Token ids of each text, without an end of sequence. Raises TokenizerUnusable when a text has one in it."""
        found = [
            np.array(encoded.ids, dtype=np.uint32)
            for encoded in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        ]
        if any(self.eos in ids for ids in found):
            raise TokenizerUnusable("a text contains the end-of-sequence token", remedy="name another token with --eos")
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, ends of sequences as they are written."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))


def load(path: Path, eos: str | None = None) -> TextTokenizer:
    """From a file or a model's folder; `eos` is the token's text, else the folder's own. Raises TokenizerUnusable."""
    file = path / FILE if path.is_dir() else path
    try:
        definition = file.read_bytes()
    except OSError as error:
        remedy = f"give a {FILE}, or a folder that holds one"
        raise TokenizerUnusable(f"cannot read {file}: {error.strerror}", remedy=remedy) from None
    return _from(definition, eos or _named_eos(file.parent), str(file))


def train(texts: Iterable[str], vocabulary: int) -> TextTokenizer:
    """A tokenizer with at most `vocabulary` tokens, EOS first; fewer when the texts have no more to merge."""
    if vocabulary < LEAST_VOCABULARY:
        raise TokenizerUnusable(f"a vocabulary has at least {LEAST_VOCABULARY} tokens", remedy="ask for more")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _from(tokenizer.to_str().encode(), EOS, "the trained tokenizer")


def _from(definition: bytes, eos: str | None, where: str) -> TextTokenizer:
    try:
        tokenizer = Tokenizer.from_buffer(definition)
    except Exception as error:  # the library raises nothing narrower
        raise TokenizerUnusable(f"{where} is no tokenizer: {error}", remedy=f"give a {FILE}") from None
    found = tokenizer.token_to_id(eos) if eos else None
    if found is None:
        special = sorted(token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special)
        said = f"{where} has no token {eos}" if eos else f"{where} does not say which token ends a sequence"
        raise TokenizerUnusable(said, remedy=f"name one with --eos; its special tokens: {' '.join(special) or 'none'}")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True  # a special token spelled in a text is ordinary text
    return TextTokenizer(definition, found, max(tokenizer.get_vocab().values()) + 1, tokenizer)


def _named_eos(folder: Path) -> str | None:
    """What the model's tokenizer_config.json calls the end of a sequence, if it is there and says so."""
    try:
        config = json.loads((folder / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError):
        return None
    named = config.get("eos_token") if isinstance(config, dict) else None
    if isinstance(named, dict):
        named = named.get("content")
    return named if isinstance(named, str) else None
