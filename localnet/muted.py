"""Commands that run chains for a result of their own, and keep to themselves what the runtimes log meanwhile."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def runtimes_muted() -> Iterator[None]:
    """Nothing but critical lines from runtimes inside."""
    logger = logging.getLogger("localnet.runtime")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
