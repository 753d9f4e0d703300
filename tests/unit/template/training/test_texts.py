"""Documents out of files: bounded, in a fixed order, and each on its side of the split for good."""

import json
from pathlib import Path

import pytest

from template.training import texts
from template.training.texts import TextUnreadable, files, is_validation, mixed, read


def written(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_file_is_one_document_or_several_with_a_separator(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "\ufeffone\r\ntwo\n\n<end>\n\n three <end>\n<end>")
    assert list(read(path)) == ["one\ntwo\n\n<end>\n\n three <end>\n<end>"]
    assert list(read(path, "<end>")) == ["one\ntwo", "three"]


def test_a_separator_is_found_wherever_the_file_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.txt", "été<end>two<end>three")
    for piece in range(1, 12):
        monkeypatch.setattr(texts, "_PIECE", piece)
        assert list(read(path, "<end>")) == ["été", "two", "three"]


def test_json_lines_have_a_document_each(tmp_path: Path) -> None:
    lines = [{"text": "one\ntwo"}, {"text": "  "}, {"text": "three", "from": "elsewhere"}]
    path = written(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n")
    assert list(read(path)) == ["one\ntwo", "three"]


@pytest.mark.parametrize("line", ["{", "[]", '{"texts": ""}', '{"text": 3}', '{"text": "\\ud800"}', "[" * 100_000])
def test_a_line_that_is_no_document_is_named(tmp_path: Path, line: str) -> None:
    path = written(tmp_path / "a.jsonl", '{"text": "one"}\n' + line)
    with pytest.raises(TextUnreadable, match="line 2"):
        list(read(path))


def test_what_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TextUnreadable, match="not UTF-8"):
        list(read(written(tmp_path / "a.txt", b"caf\xe9 noir")))
    with pytest.raises(TextUnreadable, match="cannot be read"):
        list(read(tmp_path / "nothing.txt"))
    monkeypatch.setattr(texts, "MAX_DOCUMENT", 100)
    monkeypatch.setattr(texts, "_PIECE", 10)
    long = written(tmp_path / "long.txt", "word " * 30)
    with pytest.raises(TextUnreadable, match="--separator"):
        list(read(long))
    assert len(list(read(long, " "))) == 30


def test_a_folder_gives_its_text_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = ["b/c.txt", "b.md", "a.jsonl", "b/a.RST", "picture.png"]
    for name in names:
        written(tmp_path / name, "x")
    found = [file.relative_to(tmp_path).as_posix() for file in files([tmp_path])]
    assert found == ["a.jsonl", "b.md", "b/a.RST", "b/c.txt"]
    assert files([tmp_path / "picture.png"]) == [tmp_path / "picture.png"]
    for missing in ([tmp_path / "no"], [tmp_path / "b" / "empty"]):
        with pytest.raises(TextUnreadable):
            files(missing)


def test_batches_are_shuffled_by_content_and_lose_nothing() -> None:
    given = [f"document {number}" for number in range(300)]
    whole = [document.text for batch in mixed(given) for document in batch]
    again = [document.text for batch in mixed(reversed(given)) for document in batch]
    assert whole == again != given and sorted(whole) == sorted(given)
    parts = list(mixed(given, together=1000))
    assert len(parts) == 4 and sorted(d.text for part in parts for d in part) == sorted(given)


def test_the_split_follows_from_the_document_alone() -> None:
    def validation(documents: list[str], share: float = 0.2) -> set[str]:
        return {d.text for batch in mixed(documents) for d in batch if is_validation(d.digest, share)}

    given = [f"document {number}" for number in range(1000)]
    chosen = validation(given)
    assert 150 < len(chosen) < 250
    assert validation(given[::3]) == chosen & set(given[::3]), "other documents change the split"
    assert validation(given, 0.1) < chosen
    assert validation(given, 0.0) == set()
