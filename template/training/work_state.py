"""What a miner keeps of its windows: work under way, what was promised, the buffer for the next window.

    state = WorkState(folder, size)
    before = state.buffer(earlier)                   float32 [size]: what that statement left; None when it is not here
    state.save_progress(window, progress) / state.progress(window)
    state.keep(window, Kept(...), source, base)      before anything is committed
    state.kept(window)                               Kept, to reveal and to open
    state.trace(window), state.base(window)          digests of the training, and where it began: for a dispute

The digests take 32 bytes each, a state 12 bytes a parameter. So the digests are kept, and the shared model that the
training began from; a state is trained again when somebody asks for it.

One folder a window. Every file is written beside its place and renamed, so a killed miner finds a whole one or none.
Which window the buffer goes on from is not remembered here: the records of what entered the model say it.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from protocol.training.payload import Floats
from protocol.training.statement import Statement
from protocol.training.trace import trace_root
from template.training.inner import State
from template.training.windows import Progress

STATEMENT, PAYLOAD, BEFORE, AFTER = "statement.json", "payload.bin", "before.f32", "after.f32"
PROGRESS, TRACE, BASE = "progress.safetensors", "trace.bin", "base.f32"
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

    def keep(self, window: int, kept: Kept, source: int | None = None, base: Floats | None = None) -> None:
        """Keep a window that is done, and forget what nobody will ask for. `source`: the window that its buffer came
        from, which stays, because this one may not enter. `base`: the shared model of the window. The digests of the
        trace are those of the last progress that was saved."""
        folder = self._folder(window)
        said = _said(folder / PROGRESS)
        trace = b"".join(bytes.fromhex(digest) for digest in said["digests"]) if said is not None else None
        model = None if base is None else base.astype("<f4", copy=False).tobytes()
        files = {PAYLOAD: kept.payload, BEFORE: kept.before, AFTER: kept.after, TRACE: trace, BASE: model}
        for name, data in files.items():
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
        statement, payload, after = ((folder / name).read_bytes() for name in (STATEMENT, PAYLOAD, AFTER))
        return Kept(statement, payload, _read(folder / BEFORE), after)

    def statement(self, window: int) -> bytes | None:
        return _read(self._folder(window) / STATEMENT)

    def trace(self, window: int) -> tuple[bytes, ...] | None:
        """The digests that the statement of a finished window has the root of; None when they are not here."""
        statement, data = self.statement(window), _read(self._folder(window) / TRACE)
        if statement is None or not data or len(data) % 32:
            return None
        found = tuple(data[at : at + 32] for at in range(0, len(data), 32))
        return found if trace_root(found).hex() == Statement.parse(statement).trace else None

    def base(self, window: int) -> Floats | None:
        """The shared model that a finished window began from, float32 [size]; None when it is not here."""
        data = _read(self._folder(window) / BASE)
        return None if data is None else np.frombuffer(data, "<f4").astype(np.float32)

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


def _said(path: Path) -> dict[str, Any] | None:
    """What is said beside the tensors of a saved progress; None when that cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            found: dict[str, Any] = json.loads((file.metadata() or {})["said"])
    except (OSError, SafetensorError, ValueError, KeyError):
        return None
    return found


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_bytes(data)
    scratch.replace(path)
