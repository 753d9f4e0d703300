"""A host without an engine: real memory with bump allocation, so that host functions run as a runtime would call them.

host.call("ext_storage_get_version_1", host.span(b"key"))     what the function returns
host.result(..)                                               the same, read as a span
"""

from __future__ import annotations

from collections import deque

from localnet.abi import State
from localnet.node.state import VersionedState
from localnet.wasm.host import bls, child, crypto, hashing, log, misc, offchain, storage, trie
from localnet.wasm.host.interface import HostTrap
from localnet.wasm.host.keystore import Keystore

GROUPS = (storage, child, trie, hashing, crypto, bls, misc, log, offchain)
FIRST = 16  # address 0 is nobody's
MOST = 1 << 26  # bytes


class MemoryHost:
    def __init__(self, state: State | None = None) -> None:
        self.state: State = VersionedState() if state is None else state
        self.transactions = 0
        self.room = 1 << 32
        self.impersonating = False
        self.lines: deque[str] = deque(maxlen=20)
        self.keystore = Keystore()
        self.memory = bytearray(FIRST)
        self.functions = {name: one for group in GROUPS for name, one in group.functions(self).items()}

    # -- Host

    def read(self, span: int) -> bytes:
        return self.read_at(span & 0xFFFFFFFF, span >> 32 & 0xFFFFFFFF)

    def read_at(self, pointer: int, size: int) -> bytes:
        pointer &= 0xFFFFFFFF
        if pointer + size > len(self.memory):
            raise HostTrap(f"{size} bytes at {pointer} are out of bounds")
        return bytes(self.memory[pointer : pointer + size])

    def poke(self, pointer: int, data: bytes) -> None:
        self.read_at(pointer, len(data))
        self.memory[pointer : pointer + len(data)] = data

    def give(self, data: bytes) -> int:
        if len(self.memory) + len(data) > MOST:
            raise HostTrap("out of memory")
        pointer = len(self.memory)
        self.memory += data
        return pointer

    def give_span(self, data: bytes) -> int:
        return self.give(data) | len(data) << 32

    # -- what a runtime does

    pointer, span = give, give_span

    def call(self, name: str, *arguments: int) -> int:
        found = self.functions[name](*arguments)
        assert found is None or (type(found) is int and 0 <= found < 1 << 64)
        return 0 if found is None else found

    def result(self, name: str, *arguments: int) -> bytes:
        return self.read(self.call(name, *arguments))

    def spans(self, name: str, *arguments: bytes) -> bytes:
        """A function of spans only that returns one."""
        return self.result(name, *map(self.span, arguments))
