"""The specification's explanation of another runtime's state.

Only the specification runtime can look at an epoch while it runs. `explain` has it run an epoch of a chain with another
runtime, on a view of that chain's state, and notes which storage items it asks for. The answer counts only when the
other runtime has every one of them in the same shape; else it is refused, and the items are named. Whether both follow
the same rules is for the caller to see, from what the chain stored (`Developer.explain`: "as_on_chain").
"""

from __future__ import annotations

from collections.abc import Iterator

from localnet.abi import State
from localnet.codec.compare import compare_storage
from localnet.codec.document import Document
from localnet.errors import ChainError, LocalnetError
from localnet.runtime.profile import FAST, MAINNET, Profile
from localnet.runtime.runtime import SpecRuntime

MOST_NAMED = 5


class Watched:
    """Another state, and the 32-byte prefixes of what was asked of it."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.asked: set[bytes] = set()

    def get(self, key: bytes) -> bytes | None:
        self.asked.add(key[:32])
        return self._state.get(key)

    def put(self, key: bytes, value: bytes | None) -> None:
        self.asked.add(key[:32])
        self._state.put(key, value)

    def keys(self, prefix: bytes) -> Iterator[bytes]:
        self.asked.add(prefix[:32])
        return self._state.keys(prefix)

    def next_key(self, key: bytes) -> bytes | None:
        self.asked.add(key[:32])
        return self._state.next_key(key)

    def settled(self, key: bytes) -> bytes | None:
        self.asked.add(key[:32])
        return self._state.settled(key)

    def settled_keys(self, prefix: bytes) -> Iterator[bytes]:
        self.asked.add(prefix[:32])
        return self._state.settled_keys(prefix)

    def root(self, version: int) -> bytes:
        return self._state.root(version)

    def begin(self) -> None:
        self._state.begin()

    def commit(self) -> None:
        self._state.commit()

    def rollback(self) -> None:
        self._state.rollback()


def explain(document: Document, state: State, data: bytes) -> bytes:
    """`DevApi_explain` with `data`, for a runtime with this metadata, on a state whose writes are not kept.

    Raises ChainError that names what the two runtimes do not have in common, or says why there is nothing to explain.
    """
    specification = SpecRuntime(_profile(document))
    watched = Watched(state)
    answer, failure = b"", None
    try:
        answer = specification.call("DevApi_explain", data, watched)
    except LocalnetError as error:
        failure = error
    except Exception as error:  # it reads what another runtime wrote: whatever that breaks, the shapes say why
        failure = ChainError(f"the specification's rules cannot read this state: {type(error).__name__}: {error}")
    asked = [name for name, entry in specification.document.storage.items() if entry.prefix in watched.asked]
    differences = list(map(str, compare_storage(document, specification.document, asked)))
    if differences:
        rest = f"; and {len(differences) - MOST_NAMED} more" if len(differences) > MOST_NAMED else ""
        raise ChainError(
            f"this runtime's epochs cannot be explained: of what the explanation reads, the specification (spec "
            f"{specification.spec_version}) has {len(differences)} items otherwise: "
            f"{'; '.join(differences[:MOST_NAMED])}{rest}"
        )
    if failure is not None:
        raise failure
    return answer


def _profile(document: Document) -> Profile:
    """Constants that differ between profiles, as this runtime has them; no epoch asks for those that it does not have.
    Limits that are no constants are those of the profile with the same slot."""
    known = {one: int(document.constants[one]) for one in MAINNET.constants if one in document.constants}
    slot = known.get(("Aura", "SlotDuration"), MAINNET.slot_ms)
    return Profile(FAST.name if slot == FAST.slot_ms else MAINNET.name, slot, known)
