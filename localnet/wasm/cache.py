"""Compiled modules on disk: compiling a runtime takes seconds, loading it takes milliseconds.

What lies here is machine code that this process will execute. So the directory has to be ours and nobody else's (0700),
or it is not used, which is said once. A file carries a checksum; a damaged one is deleted and made again. The name is
the BLAKE2b-256 of everything the machine code depends on: the code, the engine's version and settings, the processor.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import tempfile
import time
from hashlib import blake2b
from pathlib import Path

import xxhash

from localnet.cache_dir import cache_directory
from localnet.wasm.limits import MAX_COMPILED

log = logging.getLogger(__name__)

MAGIC = b"localnet compiled 1\n"
CHECKSUM = 16  # bytes: XXH3-128, against accidents; against others there is the directory's mode
KEPT = 16  # files; the least recently used go first
WRITING = ".writing-"  # files that somebody writes at the moment begin with it
ABANDONED = 3600.0  # seconds after which nobody does any more


def default_directory() -> Path:
    """Raises ConfigError when there is no place for one."""
    return cache_directory() / "runtimes"


def write(path: Path, *parts: bytes) -> None:
    """A file, whole or not at all. Raises OSError; nothing is left then."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=WRITING)
    try:
        with open(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def trim(where: Path, pattern: str, most: int) -> None:
    """Keep the `most` files of this pattern that were used last, and nothing that a killed process left half written.
    Others may do the same at the same time."""
    ages: list[tuple[float, Path]] = []
    for path in where.glob(pattern):
        with contextlib.suppress(OSError):  # gone meanwhile
            ages.append((path.stat().st_mtime, path))
    old = [path for _, path in sorted(ages)[:-most]]
    for path in where.glob(f"{WRITING}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED:
                old.append(path)
    for path in old:
        with contextlib.suppress(OSError):
            path.unlink()


def key(*parts: bytes) -> str:
    """Of what the machine code depends on."""
    digest = blake2b(digest_size=32)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


class CompiledCache:
    """`directory` None: the default one."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = default_directory() if directory is None else directory
        self._usable: bool | None = None

    @property
    def usable(self) -> bool:
        """Whether the directory is there, ours, and closed to others; found out once."""
        if self._usable is None:
            problem = self._problem()
            self._usable = not problem
            if problem:
                log.warning("compiled runtimes are not kept in %s: %s", self.directory, problem)
        return self._usable

    def _problem(self) -> str:
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            found = os.lstat(self.directory)
        except OSError as error:
            return str(error)
        if not stat.S_ISDIR(found.st_mode):
            return "it is not a directory"
        if hasattr(os, "geteuid"):  # Windows: a user's profile is closed to others
            if found.st_uid != os.geteuid():
                return "it belongs to somebody else"
            if found.st_mode & 0o077:
                return f"others may use it (mode {stat.S_IMODE(found.st_mode):o}); chmod 700 it"
        return ""

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.compiled"

    def load(self, name: str) -> bytes | None:
        """None when there is nothing that can be used."""
        if not self.usable:
            return None
        path = self._path(name)
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
            with open(descriptor, "rb") as file:
                found = os.fstat(descriptor)
                if found.st_size > len(MAGIC) + CHECKSUM + MAX_COMPILED:
                    raise ValueError("it is too large")
                if hasattr(os, "geteuid") and found.st_uid != os.geteuid():  # the directory was exchanged meanwhile
                    raise ValueError("it belongs to somebody else")
                data = file.read()
            start = len(MAGIC) + CHECKSUM
            payload = data[start:]
            if data[: len(MAGIC)] != MAGIC or xxhash.xxh3_128_digest(payload) != data[len(MAGIC) : start]:
                raise ValueError("it is damaged")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("a compiled runtime is made again: %s: %s", path, error)
            self.drop(name)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return payload

    def drop(self, name: str) -> None:
        with contextlib.suppress(OSError):
            self._path(name).unlink()

    def store(self, name: str, payload: bytes) -> None:
        """Atomically; a failure is logged and costs nothing but time."""
        if not self.usable:
            return
        try:
            write(self._path(name), MAGIC + xxhash.xxh3_128_digest(payload), payload)
        except OSError as error:
            log.warning("a compiled runtime is not kept: %s", error)
            return
        trim(self.directory, "*.compiled", KEPT)
