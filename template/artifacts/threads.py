"""Threads for what blocks: disks and hashes, an own bucket, name look-ups. Each kind has its own few, so that neither a
slow bucket nor a peer's slow name server holds up the rest of the process.

    data = await on_disk(path.read_bytes)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

Result = TypeVar("Result")

_DISK = ThreadPoolExecutor(4, thread_name_prefix="artifact-disk")
_BUCKET = ThreadPoolExecutor(8, thread_name_prefix="artifact-bucket")
_NAMES = ThreadPoolExecutor(8, thread_name_prefix="artifact-names")


async def on_disk(work: Callable[..., Result], *args: Any) -> Result:
    """Run what reads, writes or hashes up to a chunk at a time."""
    return await _run(_DISK, work, args)


async def on_bucket(work: Callable[..., Result], *args: Any) -> Result:
    """Run a call of boto3, to a bucket that this neuron's operator has named."""
    return await _run(_BUCKET, work, args)


async def on_names(work: Callable[..., Result], *args: Any) -> Result:
    """Run a name look-up, which takes as long as its server likes."""
    return await _run(_NAMES, work, args)


async def _run(threads: ThreadPoolExecutor, work: Callable[..., Result], args: tuple[Any, ...]) -> Result:
    return await asyncio.get_running_loop().run_in_executor(threads, partial(work, *args))
