"""Tokenizers: trained the same twice, and deaf to special tokens that texts spell."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from template.training import tokens
from template.training.tokens import EOS, TokenizerUnusable, load, train

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "été 漢字 \U0001f600\n\ttabs"] * 5


def test_training_is_the_same_in_every_process_and_on_any_number_of_threads() -> None:
    program = f"from template.training.tokens import train; print(train({TEXTS!r}, 280).digest)"
    digests = {train(TEXTS, 280).digest}
    for threads in ("1", "2"):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
        digests.add(done.stdout.strip())
    assert len(digests) == 1


def test_every_text_comes_back_from_its_tokens() -> None:
    trained = train(TEXTS, 300)
    assert trained.eos == 0 and 257 < trained.vocabulary <= 300
    assert trained.digest == hashlib.sha256(trained.definition).hexdigest()
    strange = ["  two  spaces ", "\x00\x7f", "שלום", EOS]
    for text, ids in zip(TEXTS + strange, trained.encode(TEXTS + strange), strict=True):
        assert trained.decode(ids) == text and int(ids.max()) < trained.vocabulary


def test_a_text_cannot_spell_the_end_of_a_document() -> None:
    trained = train(TEXTS, 300)
    (ids,) = trained.encode([f"one {EOS} two"])
    assert trained.eos not in ids


def test_a_tokenizer_is_loaded_from_a_file_or_a_models_folder(tmp_path: Path) -> None:
    trained = train(TEXTS, 300)
    (tmp_path / tokens.FILE).write_bytes(trained.definition)
    assert load(tmp_path / tokens.FILE, EOS) == trained
    for named in (EOS, {"content": EOS}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": named}))
        assert load(tmp_path) == trained
    assert load(tmp_path).encode(TEXTS)[0].tolist() == trained.encode(TEXTS)[0].tolist()


def test_settings_of_a_model_do_not_cut_or_fill_texts(tmp_path: Path) -> None:
    trained = train(TEXTS, 300)
    definition = json.loads(trained.definition)
    definition["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    definition["padding"] = {
        **{"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None},
        **{"pad_id": 0, "pad_type_id": 0, "pad_token": EOS},
    }
    (tmp_path / tokens.FILE).write_text(json.dumps(definition))
    assert load(tmp_path, EOS).encode(TEXTS)[2].tolist() == trained.encode(TEXTS)[2].tolist()


def test_what_is_no_tokenizer_says_what_to_do(tmp_path: Path) -> None:
    trained = train(TEXTS, 300)
    (tmp_path / "good.json").write_bytes(trained.definition)
    (tmp_path / "bad.json").write_text("{}")
    for path, eos, what in (
        (tmp_path / "none", EOS, "cannot read"),
        (tmp_path / "bad.json", EOS, "is no tokenizer"),
        (tmp_path / "good.json", None, "does not say which token"),
        (tmp_path / "good.json", "<end>", "no token <end>"),
    ):
        with pytest.raises(TokenizerUnusable, match=what):
            load(path, eos)
    with pytest.raises(TokenizerUnusable, match="at least 257"):
        train(TEXTS, 256)


def test_an_ordinary_token_for_the_end_is_refused_when_texts_have_it(tmp_path: Path) -> None:
    (tmp_path / tokens.FILE).write_bytes(train(TEXTS, 300).definition)
    with pytest.raises(TokenizerUnusable, match="contains the end-of-sequence token"):
        load(tmp_path, "c").encode(["cat c c"])
