"""What host functions see of the runtime that calls them.

A group of host functions is a module with `functions(host)`: {import name: function}. A function takes the raw integers
of the Wasm signature and returns one or None. Two forms of arguments recur: a *pointer* (i32), and a *span* (i64),
which is a pointer in the low 32 bits and a size in the high ones. Whatever a runtime passes is hostile: `Host` checks
bounds and raises `HostTrap`, which breaks off the call and nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

from localnet.abi import State
from localnet.errors import LocalnetError

if TYPE_CHECKING:
    from localnet.wasm.host.keystore import Keystore

Functions: TypeAlias = Mapping[str, Callable[..., "int | None"]]


class HostTrap(LocalnetError):
    """A host function cannot do what it was asked: the runtime call breaks off."""


class Host(Protocol):
    """The running instance: its memory, and the state of the call under way.

    Before a call the engine sets `state` and `room`, empties `lines` and sets `transactions` to 0; behind it, returned
    or trapped, it rolls back as many transactions as are still counted, as a released node does.
    """

    state: State
    transactions: int  # storage transactions that the runtime opened and has not closed
    room: int  # bytes that the call may still write to storage
    impersonating: bool  # is `marks.FAKE_SIGNATURE` anybody's signature
    lines: deque[str]  # the last lines that the runtime logged
    keystore: Keystore  # keys that a runtime may sign with; empty unless somebody filled it

    def read(self, span: int) -> bytes:
        """The bytes of a span. Raises HostTrap when they are out of bounds."""

    def read_at(self, pointer: int, size: int) -> bytes:
        """Raises HostTrap."""

    def poke(self, pointer: int, data: bytes) -> None:
        """Overwrite memory that the runtime owns. Raises HostTrap."""

    def give(self, data: bytes) -> int:
        """Allocate, copy, and return the pointer. Raises HostTrap."""

    def give_span(self, data: bytes) -> int:
        """The same as a span."""
