"""`touchstone dataset`: from files of text to a folder, and one clear sentence for everything else."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from neurons.cli import app
from template.training import corpus
from template.training.tokens import EOS

runner = CliRunner()


def invoke(*arguments: object) -> tuple[int, str]:
    result = runner.invoke(app, ["dataset", *map(str, arguments)])
    return result.exit_code, result.output


def made(*arguments: object) -> dict:
    result = runner.invoke(app, ["dataset", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("<end>".join(f"Document {number} of the first file." for number in range(100)))
    lines = [json.dumps({"text": f"Document {number} of the second."}) for number in range(100)]
    (folder / "b.jsonl").write_text("\n".join(lines))
    return folder


def test_texts_become_a_dataset_that_show_reads(texts: Path, tmp_path: Path) -> None:
    options = (texts, "--separator", "<end>", "--vocab", 300, "--shard-tokens", 256, "--validation", 0.2)
    notes = ("--source", "two files", "--licence", "CC0", "--licence", "public domain")
    first = made("build", *options, *notes, "--out", tmp_path / "Mine")
    assert first["documents"] == 200 and first["manifest"]["name"] == "mine" and first["bytes_per_token"] > 1
    assert first["manifest"]["sources"] == ["two files"] and len(first["manifest"]["licences"]) == 2
    second = made("build", *options, *notes, "--name", "mine", "--out", tmp_path / "again")
    assert second["dataset_id"] == first["dataset_id"] and second["address"] == first["address"]
    shown = made("show", tmp_path / "Mine")
    assert shown["manifest"] == first["manifest"] and shown["tokens"] == first["tokens"]
    code, output = invoke("show", tmp_path / "Mine")
    assert code == 0 and first["dataset_id"] in output and "two files" in output
    damaged = next(path for path in (tmp_path / "Mine" / "artifacts").iterdir() if path.stat().st_size == 512)
    damaged.write_bytes(bytes(512))
    code, output = invoke("show", tmp_path / "Mine")
    assert code == 1 and "damaged" in output


def test_a_tokenizer_at_hand_is_used_as_it_is(texts: Path, tmp_path: Path) -> None:
    trained = made("build", texts, "--vocab", 300, "--validation", 0.2, "--out", tmp_path / "one")
    options = ("--tokenizer", tmp_path / "one" / "tokenizer.json", "--eos", EOS, "--name", "one", "--validation", 0.2)
    again = made("build", texts, *options, "--out", tmp_path / "two")
    assert again["dataset_id"] == trained["dataset_id"]


def test_the_default_tokenizer_is_the_models_or_an_error(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOUCHSTONE_CACHE", str(tmp_path / "nothing"))
    code, output = invoke("build", texts, "--out", tmp_path / "out")
    assert code == 1 and "`touchstone model`" in output and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["build"], "one place"),
        (["build", "TEXTS", "--corpus", corpus.NAME], "one place"),
        (["build", "--corpus", "english"], corpus.NAME),
        (["build", "nowhere.txt", "--vocab", "300"], "nowhere.txt"),
        (["build", "TEXTS", "--vocab", "300", "--eos", "x"], "leave out"),
        (["build", "TEXTS", "--vocab", "300", "--name", "No Name"], "name"),
        (["build", "TEXTS", "--tokenizer", "nothing.json"], "nothing.json"),
        (["build", "--hub", "owner/name", "--vocab", "300"], "--hub-revision"),
        (["show", "nowhere"], "touchstone dataset build"),
    ],
)
def test_what_cannot_be_done_is_one_line(texts: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    given = [str(texts) if argument == "TEXTS" else argument for argument in arguments]
    out = ["--out", str(tmp_path / "out")] if arguments[0] == "build" else []
    code, output = invoke(*given, *out)
    assert code == 1 and output.splitlines()[-1].startswith("error: ") and said in output
    assert not (tmp_path / "out").exists()


def test_a_used_folder_is_refused_before_anything_is_read(texts: Path) -> None:
    code, output = invoke("build", "nowhere.txt", "--vocab", 300, "--out", texts)
    assert code == 1 and "there already" in output
