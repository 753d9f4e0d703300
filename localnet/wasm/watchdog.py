"""Stopping a call that takes too long.

Wasm looks at its engine's epoch at every loop and function; somebody has to advance it. While a call runs it holds the
GIL, so no Python thread can. On Linux a POSIX timer does: its notification function is the engine's own C function, its
argument the engine, and no Python is involved. Elsewhere calls release the GIL, and a thread waits.

A limit is TICKS ticks long. A notification of an earlier call that comes late costs one of them, so it can make a limit
a little shorter; it cannot end a call. For the same reason no two calls that may overlap share an engine (see `Lane` in
engine.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys
import threading
import time
from typing import Any, Protocol

from wasmtime import Engine
from wasmtime._ffi import dll

log = logging.getLogger(__name__)

TICKS = 16  # of one time limit
SIGEV_THREAD, CLOCK_MONOTONIC = 2, 1  # <signal.h>, <time.h> of Linux


class Ticker(Protocol):
    """Advances the engine's epoch every `seconds` between `start` and `stop`."""

    holds_gil: bool  # works while Wasm runs with the GIL held

    def start(self, seconds: float) -> None: ...

    def stop(self) -> None: ...


class _Sigevent(ctypes.Structure):
    """struct sigevent of glibc and musl on 64-bit Linux: 64 bytes."""

    _fields_ = [
        ("value", ctypes.c_void_p), ("signo", ctypes.c_int), ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p), ("attributes", ctypes.c_void_p), ("rest", ctypes.c_char * 32),
    ]  # fmt: skip


class _Itimerspec(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "after_s", "after_ns")]


class PosixTicker:
    """A timer of the kernel. It keeps the engine's address for good, so the engine must never be freed.

    Raises OSError when there is no such timer to be had.
    """

    holds_gil = True

    def __init__(self, engine: Engine) -> None:
        self._libc = _library_with_timers()
        self._event = _Sigevent(notify=SIGEV_THREAD)
        self._event.value = ctypes.cast(engine.ptr(), ctypes.c_void_p).value
        self._event.function = ctypes.cast(dll.wasmtime_engine_increment_epoch, ctypes.c_void_p).value
        self._spec, self._never = _Itimerspec(), _Itimerspec()
        self._specs = ctypes.byref(self._spec), ctypes.byref(self._never)
        self._seconds = 0.0
        self._create()

    def _create(self) -> None:
        self._timer, self._process = ctypes.c_void_p(), os.getpid()
        create = self._libc.timer_create
        create.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
        if create(CLOCK_MONOTONIC, ctypes.byref(self._event), ctypes.byref(self._timer)) != 0:
            raise OSError("timer_create failed")
        self._set = self._libc.timer_settime
        self._set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]

    def start(self, seconds: float) -> None:
        if os.getpid() != self._process:  # a child process does not inherit timers
            self._create()
        if seconds != self._seconds:
            self._seconds, spec = seconds, self._spec
            spec.after_s = spec.every_s = int(seconds)
            spec.after_ns = spec.every_ns = max(int(seconds % 1 * 1e9), 1)
        if self._set(self._timer, 0, self._specs[0], None) != 0:
            raise OSError("timer_settime failed")

    def stop(self) -> None:
        self._set(self._timer, 0, self._specs[1], None)


def _library_with_timers() -> Any:
    for name in (None, "librt.so.1"):  # glibc before 2.34 has them in librt
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.PyDLL(name)
            library.timer_create, library.timer_settime  # noqa: B018
            return library
    raise OSError("the C library has no timers")


class ThreadTicker:
    """A thread that waits; it gets its turn because calls release the GIL."""

    holds_gil = False

    def __init__(self, engine: Engine) -> None:
        self._engine, self._every = engine, 0.0
        self._due: float | None = None
        self._changed = threading.Condition()
        self._process = 0

    def start(self, seconds: float) -> None:
        with self._changed:
            self._every, self._due = seconds, time.monotonic() + seconds
            if self._process == os.getpid():
                self._changed.notify()
                return
            self._process = os.getpid()
            threading.Thread(target=self._run, name="wasm-watchdog", daemon=True).start()

    def stop(self) -> None:
        with self._changed:
            self._due = None

    def _run(self) -> None:
        with self._changed:
            while True:
                if self._due is not None and time.monotonic() >= self._due:
                    self._engine.increment_epoch()
                    self._due += self._every
                self._changed.wait(None if self._due is None else max(self._due - time.monotonic(), 0))


def ticker(engine: Engine, kernel_timer: bool) -> Ticker:
    """The kernel's timer if it is wanted and there is one, else a thread. Who calls Wasm goes by its `holds_gil`."""
    if kernel_timer and sys.platform.startswith("linux"):
        try:
            return PosixTicker(engine)
        except OSError as error:
            log.warning("calls are timed by a thread, and slower for it: %s", error)
    return ThreadTicker(engine)
