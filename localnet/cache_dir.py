"""Where this machine keeps what can be fetched or worked out again: compiled runtimes, remote state."""

from __future__ import annotations

import os
from pathlib import Path

from localnet.errors import ConfigError


def cache_directory() -> Path:
    """$TOUCHSTONE_CACHE, else `touchstone` in $XDG_CACHE_HOME (an absolute path, by its specification, or it does not
    count), else ~/.cache/touchstone. It may not be there yet. Raises ConfigError."""
    chosen, home = os.environ.get("TOUCHSTONE_CACHE", ""), os.environ.get("XDG_CACHE_HOME", "")
    if chosen:
        return Path(chosen)
    if os.path.isabs(home):
        return Path(home) / "touchstone"
    try:
        return Path.home() / ".cache" / "touchstone"
    except RuntimeError as error:  # a user without a home, as in some containers
        raise ConfigError(f"there is no place for a cache ({error}): name a directory in TOUCHSTONE_CACHE") from error
