"""The main job's way in: help without an installation, a runtime examined before there is anything to stop."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Any

import main_job
import pytest
import typer
from fit import Misfit

SCRIPTS = Path(main_job.__file__).parent


def test_help_installs_nothing(tmp_path: Path) -> None:
    shutil.copytree(SCRIPTS, tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__", "*.png", "*.svg"))
    command = ["bash", str(tmp_path / "scripts" / "up.sh"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "") and "--runtime FILE|CHAINSPEC|URL" in done.stdout
    assert [entry.name for entry in tmp_path.iterdir()] == ["scripts"]


def test_a_runtime_is_examined_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of the loop, whose end would wait for it: Ctrl-C ends a node that does not answer."""
    asked: list[Any] = []

    def examine(where: str, say: object, slot: float | None) -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        asked.append((where, slot))
        raise Misfit("too old")

    monkeypatch.setattr(main_job, "examine", examine)
    for mechanism in ("inference", "training"):
        with pytest.raises(typer.Exit) as ended:
            main_job.main(mechanism, home=tmp_path / "home", fresh=True, runtime="old.wasm")
        assert ended.value.exit_code == 2
    assert asked == [("old.wasm", None), ("old.wasm", main_job.BLOCK_SECONDS)]
    assert not (tmp_path / "home").exists()
