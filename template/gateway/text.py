"""From token ids to text piece by piece, without ever showing half a character.

    text = Detokenizer(loaded.decode)
    for ids in chunks: send(text.push(ids))
    send(text.finish())                 # the pieces together are loaded.decode(all ids)

A character may be spread over several tokens; decoding shows a replacement character for what has arrived of it. So
the last `UNFINISHED` replacement characters wait until later tokens complete them, or the end shows that they stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

REPLACEMENT = "\ufffd"
UNFINISHED = 3  # bytes of an unfinished UTF-8 character, each of which a decoder may show as one replacement
WINDOW = 32  # tokens decoded at once, so that the cost of a token does not grow with the answer
OVERLAP = 8  # of them that stay when the window moves: decoders look at the token before


@dataclass
class Detokenizer:
    """Incremental decoding of one answer. `decode` turns token ids into text."""

    decode: Callable[[Sequence[int]], str]
    _ids: list[int] = field(default_factory=list)  # the window
    _shown: str = ""  # text of the window that has been given out

    def push(self, ids: Sequence[int]) -> str:
        """The text that became certain with `ids`."""
        self._ids.extend(ids)
        text = self.decode(self._ids)
        held = min(len(text) - len(text.rstrip(REPLACEMENT)), UNFINISHED)
        ready = text[: len(text) - held]
        if not ready.startswith(self._shown):
            return ""  # later tokens changed what was shown: wait until it is longer again, or ends
        fresh = ready[len(self._shown) :]
        self._shown = ready
        if not held and len(self._ids) > WINDOW:
            self._ids = self._ids[-OVERLAP:]
            self._shown = self.decode(self._ids)
        return fresh

    def finish(self) -> str:
        """What was held back."""
        text = self.decode(self._ids)
        fresh = text[len(self._shown) :]
        self._shown = text
        return fresh
