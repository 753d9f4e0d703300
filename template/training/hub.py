"""Documents of a data set on a hub, streamed by the `datasets` library, which need not be installed otherwise.

    documents(HubTexts("owner/name", revision))      the text column, row by row

The revision is a commit, so that the same texts come next year. Only data files are read: a data set that brings a
program of its own is refused by the library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from template.errors import TemplateError

_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubUnavailable(TemplateError):
    """The data set cannot be had, or has no such column."""


@dataclass(frozen=True)
class HubTexts:
    """`part` is what the hub calls a configuration; `split` is the hub's, ours is made anew."""

    name: str
    revision: str
    part: str | None = None
    split: str = "train"
    column: str = "text"


def documents(texts: HubTexts) -> Iterator[str]:
    """Stripped documents, without empty ones. Raises HubUnavailable."""
    if not _COMMIT.fullmatch(texts.revision):
        raise HubUnavailable(
            f"revision {texts.revision!r} is not a commit", remedy="pin the 40-digit commit with --hub-revision"
        )
    if Path(texts.name).exists():
        raise HubUnavailable(f"{texts.name} is on this machine", remedy="give files and folders without --hub")
    try:
        import datasets
    except ImportError:
        raise HubUnavailable(
            "reading a data set from a hub takes the datasets package", remedy="pip install datasets"
        ) from None
    try:
        rows = datasets.load_dataset(texts.name, texts.part, revision=texts.revision, split=texts.split, streaming=True)
        for row in rows:
            text = row.get(texts.column)
            if not isinstance(text, str):
                columns = ", ".join(row)
                raise HubUnavailable(f"{texts.name} has no text in {texts.column!r}", remedy=f"it has: {columns}")
            if text := text.strip():
                yield text
    except (OSError, ValueError, RuntimeError) as error:  # all that the library raises for networks and names
        raise HubUnavailable(
            f"{texts.name} cannot be read: {error}", remedy="check the name, the part, the split and the connection"
        ) from error
