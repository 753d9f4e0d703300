"""What a miner keeps of its windows: work under way, what was promised, the buffer for the next window.

    state = WorkState(folder, size)
    before = state.buffer(earlier)                   float32 [size]: what that statement left; None when it is not here
    state.save_progress(window, progress) / state.progress(window)
    state.keep(window, Kept(...), source)            before anything is committed
    state.kept(window)                               Kept, to reveal and to open

One folder a window. Every file is written beside its place and renamed, so a killed miner finds a whole one or none.
Which window the buffer goes on from is not remembered here: the records of what entered the model say it.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from protocol.training.payload import Floats
from protocol.training.statement import Statement
from template.training.inner import State
from template.training.windows import Progress

STATEMENT, PAYLOAD, BEFORE, AFTER = "statement.json", "payload.bin", "before.f32", "after.f32"
PROGRESS = "progress.safetensors"
KEPT_WINDOWS = 3  # beside the one that the buffer comes from; audits ask for the newest


@dataclass(frozen=True, eq=False)
class Kept:
    """A finished window. `before` is None when the buffer was empty."""

    statement: bytes
    payload: bytes
    before: bytes | None
    after: bytes


class WorkState:
    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size

    def buffer(self, earlier: Statement | None) -> Floats | None:
        """What the statement left; None when it is not here, or there is none."""
        kept = self.kept(earlier.window) if earlier is not None else None
        if earlier is None or kept is None or kept.statement != earlier.encode():
            return None
        return np.frombuffer(kept.after, "<f4").astype(np.float32)

    def keep(self, window: int, kept: Kept, source: int | None = None) -> None:
        """Keep a window that is done, and forget what nobody will ask for. `source`: the window that its buffer came
        from, which stays, because this one may not enter."""
        folder = self._folder(window)
        for name, data in ((PAYLOAD, kept.payload), (BEFORE, kept.before), (AFTER, kept.after)):
            if data is not None:
                _write(folder / name, data)
        _write(folder / STATEMENT, kept.statement)  # last: its presence says that the others are there
        (folder / PROGRESS).unlink(missing_ok=True)
        for old in self._folders()[:-KEPT_WINDOWS]:
            if source is None or old != self._folder(source):
                shutil.rmtree(old)

    def kept(self, window: int) -> Kept | None:
        folder = self._folder(window)
        if not (folder / STATEMENT).exists():
            return None
        before = (folder / BEFORE).read_bytes() if (folder / BEFORE).exists() else None
        return Kept(
            (folder / STATEMENT).read_bytes(), (folder / PAYLOAD).read_bytes(), before, (folder / AFTER).read_bytes()
        )

    def save_progress(self, window: int, progress: Progress) -> None:
        state = progress.state
        tensors = {"parameters": state.parameters, "first": state.first, "second": state.second}
        said = {
            "step": state.step,
            "digests": [digest.hex() for digest in progress.digests],
            "losses": progress.losses,
        }
        data = save({name: part.cpu().contiguous() for name, part in tensors.items()}, {"said": json.dumps(said)})
        _write(self._folder(window) / PROGRESS, data)

    def progress(self, window: int, device: str = "cpu") -> Progress | None:
        """Where a window was left; None when it was not begun, or what was saved cannot be read."""
        path = self._folder(window) / PROGRESS
        try:
            with safe_open(path, framework="pt", device=device) as file:
                said = json.loads((file.metadata() or {})["said"])
                parts = [file.get_tensor(name) for name in ("parameters", "first", "second")]
        except (OSError, SafetensorError, ValueError, KeyError):
            return None
        if any(part.shape != (self.size,) or part.dtype != torch.float32 for part in parts):
            return None
        return Progress(State(said["step"], *parts), [bytes.fromhex(text) for text in said["digests"]], said["losses"])

    def _folder(self, window: int) -> Path:
        return self.folder / f"{window:010d}"

    def _folders(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]" * 10)) if self.folder.exists() else []


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_bytes(data)
    scratch.replace(path)
