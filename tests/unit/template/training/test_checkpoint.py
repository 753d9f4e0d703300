"""A checkpoint is the same file for everybody, and its root is that of its numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from template.training.checkpoint import BadCheckpoint, build, from_file, model_root, to_file
from template.training.layout import Layout
from tests.support.training import TINY, genesis


def test_a_checkpoint_reads_back_and_its_bytes_do_not_vary(tmp_path: Path) -> None:
    layout, vector = genesis()
    data = to_file(layout, vector)
    assert data == to_file(layout, vector.copy())
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    assert from_file(path, layout).tobytes() == vector.tobytes()
    assert Layout.of(build(TINY)).shapes == layout.shapes


def test_the_root_covers_architecture_names_and_every_number() -> None:
    layout, vector = genesis()
    root = model_root(TINY, layout, vector)
    other = vector.copy()
    other[-1] = np.nextafter(other[-1], np.float32(9))
    renamed = Layout({name + "x": shape for name, shape in layout.shapes.items()})
    roots = {
        root,
        model_root(TINY, layout, other),
        model_root(TINY.model_copy(update={"rope_theta": 5.0}), layout, vector),
        model_root(TINY, renamed, vector),
    }
    assert len(roots) == 4 and model_root(TINY, layout, vector.copy()) == root


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    layout, vector = genesis()
    data = to_file(layout, vector)
    nan = vector.copy()
    nan[3] = np.nan
    views = layout.tensors(torch.from_numpy(vector))
    save_file({name: view.half() for name, view in views.items()}, tmp_path / "half")
    save_file({"a": torch.zeros(3)}, tmp_path / "other")
    files = {"cut": data[:-5], "empty": b"", "nan": to_file(layout, nan), "text": b"{}" * 50}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name in (*files, "half", "other", "absent"):
        with pytest.raises(BadCheckpoint):
            from_file(tmp_path / name, layout)
