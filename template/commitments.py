"""What a hotkey commits on chain: up to three short texts, each with a prefix of its own.

    held = await chain.commitment(netuid, hotkey)             Committed(texts, block), or None
    held.find("touchstone-model/")                            the text that begins so, or None
    replaced(texts, "touchstone-model/", text)                the texts with one of them exchanged

The chain keeps one record for each hotkey and subnet; a new one replaces it whole. A record of anything else than
printable ASCII texts is none of ours, whoever wrote it, and is read as nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MAX_TEXTS = 3  # fields of one record (chain constant)
MAX_RAW = 128  # bytes in a Raw field (chain constant)
MAX_TEXT = 512  # bytes in a BigRaw field (chain constant)
_HEX = re.compile(rf"0x(?:[0-9a-f]{{2}}){{1,{MAX_RAW}}}")  # how the SDK gives a Raw field


@dataclass(frozen=True)
class Committed:
    """The texts of one hotkey and the block they were committed in."""

    texts: tuple[str, ...]
    block: int

    def find(self, prefix: str) -> str | None:
        return next((text for text in self.texts if text.startswith(prefix)), None)


def replaced(texts: Sequence[str], prefix: str, text: str) -> tuple[str, ...]:
    """`texts` with `text` in place of the one that begins with `prefix`, or behind the others."""
    return (*(one for one in texts if not one.startswith(prefix)), text)


def to_fields(texts: Sequence[str]) -> list[dict[str, bytes]]:
    """The fields of a record. Raises ValueError for texts that do not fit."""
    if not 0 < len(texts) <= MAX_TEXTS or not all(map(_is_plain, texts)):
        raise ValueError(f"a commitment is 1 to {MAX_TEXTS} texts of 1 to {MAX_TEXT} printable ASCII characters")
    return [{f"Raw{len(text)}" if len(text) <= MAX_RAW else "BigRaw": text.encode("ascii")} for text in texts]


def from_record(record: Any) -> Committed | None:
    """The texts in a decoded `CommitmentOf` entry. Every neuron may have written it: nothing is taken on trust."""
    info = record.get("info") if isinstance(record, dict) else None
    fields = info.get("fields") if isinstance(info, dict) else None
    if not isinstance(fields, list | tuple) or not 0 < len(fields) <= MAX_TEXTS:
        return None
    texts = [_text(field) for field in fields]
    if not all(texts):
        return None
    return Committed(tuple(text for text in texts if text), int(record["block"]))


def _text(field: Any) -> str | None:
    if not isinstance(field, dict) or len(field) != 1:
        return None
    ((kind, content),) = field.items()
    if not isinstance(content, str):
        return None
    if kind == "BigRaw":  # given as text, or in hex when it is none, which no prefix of ours begins with
        return content if _is_plain(content) else None
    raw = bytes.fromhex(content[2:]) if _HEX.fullmatch(content) else b""
    text = raw.decode("latin-1")  # never fails; what is not ASCII is refused next
    return text if kind == f"Raw{len(raw)}" and _is_plain(text) else None


def _is_plain(text: str) -> bool:
    return 0 < len(text) <= MAX_TEXT and text.isascii() and text.isprintable()
