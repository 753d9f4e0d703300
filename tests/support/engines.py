"""A real engine server in a process of its own, for tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

LISTENING = re.compile(r"serving .* on 127\.0\.0\.1:(\d+)")


class EngineProcess:
    """`touchstone engine` with the tiny model below `path` (made by tests.support.inference.tiny_model)."""

    def __init__(self, path: Path, *flags: str, port: int = 0, key: str = "") -> None:
        command = [sys.executable, "-m", "neurons.cli", "engine", "--port", str(port), "--threads", "1"]
        command += ["--model-source", "path", "--model-name", str(path / "origin"), *flags]
        given = {name: value for name, value in os.environ.items() if not name.startswith("TOUCHSTONE_")}
        environ = {**given, "TOUCHSTONE_CACHE": str(path / "cache"), "TOUCHSTONE_ENGINE_KEY": key}
        root = Path(__file__).parents[2]
        self.process = subprocess.Popen(command, cwd=root, env=environ, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._listening = threading.Event()
        self.port = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._listening.wait(120) or not self.port:
            self.stop()
            raise AssertionError("the engine did not start:\n" + "\n".join(self.lines))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self, *, kill: bool = False) -> int:
        """The exit status."""
        if kill:
            self.process.kill()
        else:
            self.process.terminate()
        status = self.process.wait(30)
        self._reader.join(10)
        return status

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            found = LISTENING.search(line)
            if found:
                self.port = int(found[1])
                self._listening.set()
        self._listening.set()
