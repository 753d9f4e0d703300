"""The trace of a window's training: digests of its states, one root over them, and how a dispute finds one step.

    digest = state_digest(step, [parameters, first_moments, second_moments])    after a step; before the first: step 0
    root = trace_root(digests)                       in the statement
    opening = open_state(digests, index)             shown on request; `opening.under(root, states)` checks it
    search = Search.over(states)                     bisection: ask about `search.middle`, then search.narrowed(agree)

The digests stand for states after every `every`-th step. Two parties who disagree about the last state agree about the
first, the model that training started from. So there is a pair of neighbours of which they agree about the one and not
about the other; ceil(log2(states - 1)) questions find it, and a referee repeats the steps between them from the state
they agree on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from blake3 import blake3

from protocol import merkle
from protocol.errors import MalformedMessage

TAG = b"touchstone/training/state/v1\x00"
MAX_STATES = 2**20


@dataclass(frozen=True)
class Opening:
    """One digest of a trace and its way to the root. `index` counts states, not steps."""

    index: int
    digest: bytes
    path: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if len(self.digest) != 32 or len(self.path) > MAX_STATES.bit_length() or any(len(p) != 32 for p in self.path):
            raise MalformedMessage("an opening has a digest and a path of 32-byte hashes")

    def under(self, root: bytes, states: int) -> bool:
        """Whether this is state `index` of the `states` that the root was made of."""
        return merkle.follows(root, _leaf(self.digest), self.index, states, self.path)


@dataclass(frozen=True)
class Search:
    """States `agreed` and `disputed` of a trace: the parties agree about the one and not about the other."""

    agreed: int
    disputed: int

    @staticmethod
    def over(states: int) -> Search:
        """The whole trace. Raises ValueError for fewer than two states: then there is no step to dispute."""
        if states < 2:
            raise ValueError("a trace of one state has no step")
        return Search(0, states - 1)

    @property
    def middle(self) -> int | None:
        """The state to ask about next; None when the two are neighbours."""
        return (self.agreed + self.disputed) // 2 if self.disputed - self.agreed > 1 else None

    def narrowed(self, agree: bool) -> Search:
        """After the answer about `middle`. Raises ValueError when there is nothing to ask."""
        middle = self.middle
        if middle is None:
            raise ValueError("the disputed step is found")
        return Search(middle, self.disputed) if agree else Search(self.agreed, middle)


def state_digest(step: int, parts: Iterable[bytes | memoryview]) -> bytes:
    """BLAKE3 over a training state after `step` steps: the bytes of its tensors, little-endian float32, in their order:
    parameters, first moments, second moments."""
    found = blake3(TAG + step.to_bytes(8, "little"))
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.digest()


def trace_root(digests: Sequence[bytes]) -> bytes:
    """32 bytes. Raises ValueError for none or too many."""
    if not 0 < len(digests) <= MAX_STATES:
        raise ValueError(f"a trace has 1 to {MAX_STATES} states")
    return merkle.root([_leaf(digest) for digest in digests])


def open_state(digests: Sequence[bytes], index: int) -> Opening:
    """Raises ValueError when there is no such state."""
    return Opening(index, digests[index], tuple(merkle.path(index, [_leaf(digest) for digest in digests])))


def _leaf(digest: bytes) -> bytes:
    return merkle.leaf_hash(TAG + digest)
