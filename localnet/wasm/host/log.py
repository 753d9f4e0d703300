"""What a runtime logs: to Python's logging as `localnet.runtime.wasm`, and the last lines for who explains a trap.

Levels of the interface are 0 (error) to 4 (trace); a runtime formats only what `max_level` says somebody reads. A
panic logs its message as an error and then executes `unreachable`: without the kept lines a trap says nothing.
Lines are text from outside, so control characters are escaped and length is bounded. What is a warning or worse is
shown once, whatever numbers are in it: every extrinsic can make a runtime panic, and some runtimes complain in every
block (spec 300 of a BABE slot that blocks of Aura do not have).
"""

from __future__ import annotations

import logging
import re

from localnet.node.repeats import Repeats
from localnet.wasm.host.interface import Functions, Host, HostTrap
from localnet.wasm.host.wire import U8, U64

log = logging.getLogger("localnet.runtime.wasm")

TRACE = 5  # below DEBUG; Python has no name for it
LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG, TRACE)
MAX_LINE = 2000  # characters; a panic with its place in the source has 200
MAX_TARGET = 100
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def readable(raw: bytes, size: int = MAX_LINE) -> str:
    """Text from a runtime as one line that is safe to show."""
    text = raw[: 4 * size].decode("utf-8", "replace")
    shown = _CONTROL.sub(lambda found: ascii(found.group())[1:-1], text[:size])
    return shown if len(text) <= size and len(raw) <= 4 * size else shown + ".."


def functions(host: Host) -> Functions:
    """`ext_logging_*` and `ext_misc_print_*`."""
    read, repeats = host.read, Repeats()

    def keep(level: int, target: str, line: str) -> None:
        host.lines.append(f"{target}: {line}")
        if level >= logging.WARNING:
            level = repeats.level(f"{target}: {line}", level)
        log.log(level, "%s: %s", target, line)

    def log_1(level: int, target: int, message: int) -> None:
        number = level & U8
        if number >= len(LEVELS):
            raise HostTrap(f"log level {number} is not known")
        keep(LEVELS[number], readable(read(target), MAX_TARGET), readable(read(message)))

    def max_level() -> int:
        """LogLevelFilter: 1 (errors only) to 5. Warnings are always wanted, they explain traps."""
        wanted = log.getEffectiveLevel()
        return next((5 - at for at, level in enumerate(reversed(LEVELS[1:])) if level >= wanted), 2)

    return {
        "ext_logging_log_version_1": log_1,
        "ext_logging_max_level_version_1": max_level,
        "ext_misc_print_num_version_1": lambda number: keep(logging.DEBUG, "runtime", str(number & U64)),
        "ext_misc_print_utf8_version_1": lambda text: keep(logging.DEBUG, "runtime", readable(read(text))),
        "ext_misc_print_hex_version_1": lambda data: keep(
            logging.DEBUG, "runtime", readable(read(data)[:MAX_LINE].hex().encode())
        ),
    }
