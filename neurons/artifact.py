"""`touchstone artifact`: put a file into a store, get it back by its address, or read through it.

touchstone artifact put weights.safetensors --store ~/artifacts      prints the address
touchstone artifact get bafyr4i... copy.safetensors --store @bucket.txt   goes on where an earlier try ended
touchstone artifact verify bafyr4i... --store "touchstone-artifacts/1 https://..."   0 whole, 1 damaged, 2 not checked

A store is a folder, a bucket as a location of protocol/locations.py, or @FILE with one of the two.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from neurons.output import console, print_json
from protocol.artifacts import Manifest, require_artifact
from protocol.errors import MalformedMessage
from template.artifacts.errors import ArtifactCorrupt, ArtifactError
from template.artifacts.opening import open_store
from template.artifacts.store import ArtifactLimits
from template.errors import TemplateError

MIB = 2**20
PAUSE = 2.0  # seconds between two lines of progress


@dataclass(frozen=True)
class Place:
    """Which store, and whether a bucket may be in the own network."""

    store: str
    allow_local: bool = False


async def put(file: Path, place: Place, *, resend: bool, as_json: bool) -> int:
    """Store a file and print its address. Raises TemplateError."""
    async with open_store(place.store, allow_local=place.allow_local) as store:
        cid = await store.put_file(file.expanduser(), resend=resend, progress=Line("sent"))
        where = str(store.backend)
    if as_json:
        print_json({"cid": cid, "file": str(file), "store": where})
    else:
        console.print(cid, markup=False, soft_wrap=True)
    return 0


async def get(cid: str, out: Path, place: Place, limits: ArtifactLimits, *, as_json: bool) -> int:
    """Fetch an artifact into a file. Raises TemplateError."""
    _require(cid)
    async with open_store(place.store, allow_local=place.allow_local) as store:
        manifest = await store.fetch(cid, out.expanduser(), limits, Line("fetched"))
    if as_json:
        print_json({**_figures(cid, manifest), "file": str(out)})
    else:
        console.print(f"{out}: {manifest.size:,} bytes", markup=False, soft_wrap=True)
    return 0


async def verify(cid: str, place: Place, limits: ArtifactLimits, *, as_json: bool) -> int:
    """Read through an artifact: 0 when it is whole, 1 when it is damaged, 2 when that could not be found out."""
    _require(cid)
    found: dict[str, object] = {"cid": cid, "whole": None}
    async with open_store(place.store, allow_local=place.allow_local) as store:
        try:
            manifest = await store.verify(cid, limits, Line("verified"))
        except ArtifactCorrupt as error:
            found.update(whole=False, problem=error.message, remedy=error.remedy)
            code, text = 1, f"damaged: {error}"
        except ArtifactError as error:
            found.update(problem=error.message, remedy=error.remedy)
            code, text = 2, f"not checked: {error}"
        else:
            found.update(whole=True, **_figures(cid, manifest))
            code, text = 0, f"whole: {manifest.size:,} bytes in {len(manifest.chunks)} chunks"
    if as_json:
        print_json(found)
    else:
        console.print(text, markup=False, soft_wrap=True)
    return code


def _require(cid: str) -> None:
    try:
        require_artifact(cid)
    except MalformedMessage as error:
        raise TemplateError(str(error), remedy="give the address that `touchstone artifact put` printed") from None


def _figures(cid: str, manifest: Manifest) -> dict[str, object]:
    return {"cid": cid, "bytes": manifest.size, "chunks": len(manifest.chunks)}


@dataclass
class Line:
    """A line on standard error every few seconds."""

    what: str
    started: float = 0.0
    first: int = 0
    said: float = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if not self.started:
            self.started, self.first, self.said = now, done, now
        if now - self.said < PAUSE:
            return
        self.said = now
        speed = (done - self.first) / MIB / (now - self.started)
        print(
            f"{self.what} {done / MIB:,.0f} of {total / MIB:,.0f} MiB, {speed:.1f} MiB/s", file=sys.stderr, flush=True
        )
