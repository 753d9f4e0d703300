"""Child processes that cannot outlive the program that started them.

    with Household(logs) as house:
        house.start("miner-1", [python, "neurons/miner.py", ...])
        house.alive("miner-1"), house.last_words("miner-1")
    # here every child has ended: SIGTERM, some seconds, SIGKILL; in reverse order of starting

Each child leads a session of its own, so Ctrl-C on the terminal reaches only the parent, which then stops the children
in order. A guard process holds one end of a pipe and the list of children: when the parent is gone, even by `kill -9`,
the pipe closes and the guard ends them. It is the same on Linux and macOS.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil

GRACE = 12.0  # seconds from SIGTERM to SIGKILL; a server drains for 5
_GUARD = """
import os, signal, sys, time
groups = []
for line in sys.stdin:
    word, pid = line.split()
    groups.append(int(pid)) if word == "+" else groups.remove(int(pid))
def tell(number):
    for group in reversed(groups):
        try: os.killpg(group, number)
        except (ProcessLookupError, PermissionError): pass
tell(signal.SIGTERM)
if groups:
    time.sleep(GRACE)
    tell(signal.SIGKILL)
""".replace("GRACE", str(GRACE))


@dataclass
class Child:
    name: str
    process: subprocess.Popen[bytes]
    log: Path
    started: float = field(default_factory=time.monotonic)


class Household:
    """Starts children, watches them, and ends them."""

    def __init__(self, logs: Path, env: Mapping[str, str] | None = None) -> None:
        self.logs = logs
        self.env = {**os.environ, **(env or {})}
        self.children: dict[str, Child] = {}
        self.peak_memory = 0  # bytes, the most that `measure` has found
        self._guard: subprocess.Popen[str] | None = None

    def __enter__(self) -> Household:
        self.logs.mkdir(parents=True, exist_ok=True)
        self._guard = subprocess.Popen(
            [sys.executable, "-c", _GUARD], stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.close()
            self._guard.wait(GRACE + 5)

    def start(self, name: str, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> Child:
        """Start a child; its output goes to <logs>/<name>.log, the run before to <name>.log.old."""
        log = self.logs / f"{name}.log"
        if log.exists():
            log.replace(log.with_suffix(".log.old"))
        with log.open("wb") as output:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**self.env, **(env or {})},
                start_new_session=True,
            )
        self._tell_guard("+", process.pid)
        self.children[name] = child = Child(name, process, log)
        return child

    def alive(self, name: str) -> bool:
        return self.children[name].process.poll() is None

    def dead(self) -> list[Child]:
        """Children that ended by themselves."""
        return [child for child in self.children.values() if child.process.poll() is not None]

    def last_words(self, name: str, lines: int = 1) -> list[str]:
        """The last non-empty lines of a child's log."""
        with self.children[name].log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - 8192))
            text = log.read().decode("utf-8", errors="replace")
        return [line for line in text.splitlines() if line.strip()][-lines:]

    def measure(self) -> None:
        """Look at the memory of all children, for `peak_memory`."""
        self.peak_memory = max(self.peak_memory, self.memory())

    def memory(self) -> int:
        """Bytes used by all children together; pages they share (the model's weights) count once."""
        total = 0
        for child in self.children.values():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                process = psutil.Process(child.process.pid)
                for one in (process, *process.children(recursive=True)):
                    info = one.memory_full_info()
                    total += getattr(info, "pss", 0) or info.rss
        return total

    def stop(self, names: Sequence[str] | None = None) -> None:
        """End children, the last started first; all of one call share the grace."""
        chosen = [self.children[name] for name in (names if names is not None else list(self.children))]
        for child in reversed(chosen):
            if child.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.process.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        for child in reversed(chosen):
            try:
                child.process.wait(max(0.05, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.process.pid, signal.SIGKILL)
                child.process.wait()
            self._tell_guard("-", child.process.pid)
            del self.children[child.name]

    def _tell_guard(self, word: str, pid: int) -> None:
        assert self._guard is not None and self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(f"{word} {pid}\n")
            self._guard.stdin.flush()
