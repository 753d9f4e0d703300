"""Documents out of text files: streamed, bounded, and in an order that depends on nothing but the texts.

    files(paths)                     the files behind paths that a person gave: folders opened, in a fixed order
    read(path, separator)            the documents of one file, stripped, the empty ones left out
    mixed(texts)                     the same documents with their digests, in batches, shuffled by digest
    is_validation(digest, share)     which split a document belongs to

A file of JSON lines has a document in the "text" of each line. Any other file is UTF-8 text: one document, or several
with `separator` between them. The split follows from the document alone, so it stays when other documents come or go,
and two copies of a document never lie on both sides.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from blake3 import blake3

from template.errors import TemplateError

SUFFIXES = (".txt", ".text", ".md", ".rst", ".jsonl")  # what is taken from a folder; a file that is named is taken
JSON_LINES = ".jsonl"
MAX_DOCUMENT = 2**26  # characters; memory for a few documents of this size is all that reading takes
MIXED = 2**26  # characters that are shuffled together; a larger text is shuffled part by part
_PIECE = 2**20


class TextUnreadable(TemplateError):
    """A file is not there, is not UTF-8, or has no documents in the form it should."""


@dataclass(frozen=True)
class Document:
    """`digest` is BLAKE3 over the text in UTF-8."""

    text: str
    digest: bytes


def files(paths: Sequence[Path]) -> list[Path]:
    """Files in the order given, and those of a folder in the order of their names. Raises TextUnreadable."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            found += sorted(inside, key=lambda file: file.relative_to(path).as_posix())
        elif path.is_file():
            found.append(path)
        else:
            raise TextUnreadable(f"there is no file or folder {path}", remedy="check the path")
    if not found:
        raise TextUnreadable("no text files are there", remedy=f"a folder is searched for {', '.join(SUFFIXES)}")
    return found


def read(path: Path, separator: str | None = None) -> Iterator[str]:
    """Documents of a file. Raises TextUnreadable."""
    lines = path.suffix.lower() == JSON_LINES
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, piece in enumerate(_pieces(file, "\n" if lines else separator), 1):
                text = piece.strip()
                if text and lines:
                    text = _text_of(text, number).strip()
                if text:
                    yield text
    except OSError as error:
        raise TextUnreadable(f"{path} cannot be read: {error.strerror}", remedy="check the path") from None
    except UnicodeDecodeError as error:
        raise TextUnreadable(f"{path} is not UTF-8: {error.reason}", remedy="convert it to UTF-8") from None
    except _BadText as error:
        raise TextUnreadable(f"{path}: {error}", remedy=error.remedy) from None


def mixed(texts: Iterable[str], together: int = MIXED) -> Iterator[list[Document]]:
    """Batches of documents, each of about `together` characters and sorted by digest, so that every part of a dataset
    has some of every source."""
    batch: list[Document] = []
    size = 0
    for text in texts:
        batch.append(Document(text, blake3(text.encode()).digest()))
        size += len(text)
        if size >= together:
            yield sorted(batch, key=lambda document: document.digest)
            batch, size = [], 0
    if batch:
        yield sorted(batch, key=lambda document: document.digest)


def is_validation(digest: bytes, share: float) -> bool:
    """Whether a document is for validation; `share` of all documents are."""
    return int.from_bytes(digest[:8], "little") < share * 2.0**64


class _BadText(Exception):
    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def _pieces(file: TextIO, separator: str | None) -> Iterator[str]:
    held = ""
    while piece := file.read(_PIECE):
        held += piece
        if separator:
            *whole, held = held.split(separator)
            yield from whole
        if len(held) > MAX_DOCUMENT:
            raise _BadText(
                f"a document has more than {MAX_DOCUMENT} characters",
                "say with --separator what stands between documents, or use JSON lines",
            )
    yield held


def _text_of(line: str, number: int) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(text, str) or not _is_unicode(text):
        raise _BadText(f"line {number} is no JSON object with a text", 'a line reads {"text": "..."}')
    return text


def _is_unicode(text: str) -> bool:
    """False for half a surrogate pair, which JSON can spell and UTF-8 cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
