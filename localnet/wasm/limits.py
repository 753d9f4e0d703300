"""What a runtime may use before it is stopped: foreign code runs in this process, so everything is bounded."""

from __future__ import annotations

from dataclasses import dataclass

from localnet.errors import ConfigError

PAGE = 64 * 1024  # bytes of a Wasm page
MAX_CODE = 50 * 1024 * 1024  # bytes of uncompressed code: sp_maybe_compressed_blob's CODE_BLOB_BOMB_LIMIT
MAX_COMPILED = 256 * 1024 * 1024  # bytes of machine code; of a released runtime they are three times its own
MAX_STATIC = 64 * 1024 * 1024  # bytes below __heap_base: a snapshot of them is restored before every call
MAX_ALLOCATION = 32 * 1024 * 1024  # bytes of one allocation: sp_core's MAX_POSSIBLE_ALLOCATION
MAX_TRANSACTIONS = 1024  # storage transactions open at once; frame_support opens 255 (TRANSACTIONAL_LIMIT)


@dataclass(frozen=True)
class Limits:
    """seconds: wall clock of one call. memory: bytes of linear memory. table: elements. stack: bytes of Wasm stack,
    which lies on the thread's own (8 MiB on Linux, 2 MB on Windows), below the Python frames of host functions.
    written: bytes of keys and values that one call may write to storage. compile_seconds, compile_memory: for turning
    the code into machine code, in a process of its own."""

    seconds: float = 60.0
    memory: int = 1024 * 1024 * 1024
    table: int = 1_000_000
    stack: int = 1024 * 1024
    written: int = 4 * 1024 * 1024 * 1024
    compile_seconds: float = 120.0
    compile_memory: int = 4 * 1024 * 1024 * 1024

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= 86_400:
            raise ConfigError(f"a call may take more than 0 and at most 86,400 seconds, not {self.seconds}")
        if not PAGE <= self.memory <= 4 * 1024 * 1024 * 1024:
            raise ConfigError(f"the memory of a runtime is 64 KiB to 4 GiB, not {self.memory} bytes")

    @property
    def pages(self) -> int:
        return self.memory // PAGE
