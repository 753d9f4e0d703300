"""Virtual environments of the programs that benchmarks compare with: made on first use, run with nothing of ours.

They live below $TOUCHSTONE_CACHE (default ~/.cache/touchstone).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def environment(name: str, requirement: str) -> Path:
    """A peer's virtual environment, installed on first use; its `bin` directory is returned."""
    cache = Path(os.environ.get("TOUCHSTONE_CACHE") or Path.home() / ".cache" / "touchstone")
    venv = cache / "bench" / name
    done = venv / ".installed"
    if not done.exists() or done.read_text() != requirement:
        print(f"installing {requirement} into {venv} ...", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run([str(venv / "bin" / "pip"), "install", "-q", requirement], check=True, stdout=sys.stderr)
        done.write_text(requirement)
    return venv / "bin"


def run(command: list[str], timeout: float = 600.0) -> str:
    """Standard output of a peer; what it writes to standard error is shown only when it fails."""
    with tempfile.TemporaryFile("w+") as errors, tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "HOME": home, "PYTHONPATH": ""}  # some would make files in the user's home
        finished = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=timeout, env=env, cwd=home
        )
        if finished.returncode != 0:
            errors.seek(0)
            raise SystemExit(f"{command[0]} failed ({finished.returncode}):\n{errors.read()[-3000:]}")
        return finished.stdout


def script(python: Path, name: str, options: Sequence[str] = ()) -> dict[str, Any]:
    """Run a script of this folder and read the JSON on its last line."""
    return dict(json.loads(run([str(python), str(HERE / name), *options]).strip().splitlines()[-1]))
