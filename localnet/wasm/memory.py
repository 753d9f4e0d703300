"""Wasm memory and a call's state, as host functions see them: the `Host` of localnet.wasm.host.interface.

Memory is a memoryview as long as the memory was when it was last looked at. A slice never reaches beyond a view, so an
access out of bounds shows as a slice that is too short; only then the memory's size is asked for again, which can only
have grown. Its address never changes (see engine.py).
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable
from typing import NoReturn, cast

from localnet.abi import State
from localnet.wasm.companion import SPARE, SPARE_SIZE
from localnet.wasm.host.interface import HostTrap
from localnet.wasm.host.keystore import Keystore

LINES = 20  # of a runtime's log that are kept for who explains a trap
MASK = 0xFFFFFFFF
NOTHING = memoryview(b"")


class _NoState:
    """What a module finds that wants storage while nobody calls it: in its start function."""

    def __getattr__(self, name: str) -> NoReturn:
        raise HostTrap("the module uses storage outside of a call")


NO_STATE = cast(State, _NoState())


class WasmHost:
    """Attached to one instance at a time."""

    def __init__(self, keystore: Keystore | None = None) -> None:
        self.state: State = NO_STATE
        self.transactions = self.room = 0
        self.impersonating = False
        self.lines: deque[str] = deque(maxlen=LINES)
        self.keystore = Keystore() if keystore is None else keystore
        self.failure: BaseException | None = None  # what a host function raised
        self.desk = NOTHING
        self.view = NOTHING
        self._base = 0
        self._size: Callable[[], int] = lambda: 0
        self._malloc: Callable[[int], int] = lambda size: 0

    def attach(self, base: int, size: Callable[[], int], malloc: Callable[[int], int], desk: memoryview) -> None:
        """`base`: the memory's address; `size`: asks for its size in bytes; `desk`: the companion's page as u64."""
        self._base, self._size, self._malloc, self.desk = base, size, malloc, desk
        self.view = self._look()

    def detach(self) -> None:
        """Forget the memory: it is about to be freed."""
        self.view = self.desk = NOTHING
        self._base, self._size = 0, lambda: 0

    def _look(self) -> memoryview:
        size = self._size()
        return memoryview((ctypes.c_ubyte * size).from_address(self._base)).cast("B") if size else NOTHING

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self, span: int) -> bytes:
        start, size = span & MASK, span >> 32
        data = self.view[start : start + size].tobytes()
        if len(data) != size:
            return self._read_again(start, size)
        return data

    def read_at(self, pointer: int, size: int) -> bytes:
        pointer &= MASK
        if size < 0:
            raise HostTrap(f"a size of {size} bytes")
        data = self.view[pointer : pointer + size].tobytes()
        if len(data) != size or pointer > len(self.view):
            return self._read_again(pointer, size)
        return data

    def _read_again(self, start: int, size: int) -> bytes:
        self.view = self._look()
        if start + size > len(self.view) or size < 0:
            raise HostTrap(f"bytes {start:,} to {start + size:,} are not in the memory of {len(self.view):,}")
        return self.view[start : start + size].tobytes()

    # -- writing --------------------------------------------------------------------------------------------------

    def poke(self, pointer: int, data: bytes) -> None:
        start, size = pointer & MASK, len(data)
        if start + size > len(self.view):
            self.view = self._look()
            if start + size > len(self.view):
                raise HostTrap(f"bytes {start:,} to {start + size:,} are not in the memory of {len(self.view):,}")
        self.view[start : start + size] = data

    def give(self, data: bytes) -> int:
        return self.give_span(data) & MASK

    def give_span(self, data: bytes) -> int:
        size, desk = len(data), self.desk
        pointer = desk[SPARE]
        if size <= SPARE_SIZE and pointer:
            desk[SPARE] = 0
        else:
            pointer = self._malloc(size)
        end = pointer + size
        if end > len(self.view):
            self.view = self._look()
        self.view[pointer:end] = data
        return pointer | size << 32
