"""Compiled modules on disk, and compiling in a process of its own."""

from __future__ import annotations

import io
import logging
import os
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from localnet.errors import ConfigError, RuntimeCodeError
from localnet.runtime.memory import MemoryState
from localnet.wasm import cache, compiling, engine
from localnet.wasm.cache import CompiledCache
from localnet.wasm.limits import Limits
from localnet.wasm.runtime import WasmRuntime
from tests.support import wat_runtime as wat


def run(compiled: CompiledCache) -> None:
    made = WasmRuntime(wat.code(), compiled=compiled)
    assert made.call("Core_version", b"", MemoryState()) == wat.runtime_version(1)


def forbid_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> bytes:
        raise AssertionError("compiled again")

    monkeypatch.setattr(engine, "compile_code", fail)


def test_what_was_compiled_is_not_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = tmp_path / "made" / "runtimes"
    run(CompiledCache(where))
    assert stat.S_IMODE(where.stat().st_mode) == 0o700
    files = sorted(where.iterdir())
    assert len(files) == 2 and all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    forbid_compiling(monkeypatch)
    run(CompiledCache(where))
    with pytest.raises(AssertionError, match="compiled again"):  # other settings are another file
        WasmRuntime(wat.code(), compiled=CompiledCache(where), limits=Limits(stack=1 << 19))


@pytest.mark.parametrize("damage", ["cut", "changed", "emptied", "replaced"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    where = tmp_path / "runtimes"
    run(CompiledCache(where))
    files = sorted(where.iterdir())
    before = [file.read_bytes() for file in files]
    for file, data in zip(files, before, strict=True):
        middle = len(data) // 2
        changed = data[:middle] + bytes((data[middle] ^ 1,)) + data[middle + 1 :]
        file.write_bytes({"cut": data[:-1], "changed": changed, "emptied": b"", "replaced": b"\x7fELF" * 99}[damage])
    with caplog.at_level(logging.WARNING):
        run(CompiledCache(where))
    assert sum("is made again" in record.getMessage() for record in caplog.records) == 2
    assert [file.read_bytes() for file in files] == before


def test_machine_code_of_another_engine_is_made_again(tmp_path: Path) -> None:
    """A checksum says that a file is whole, not that it is for this engine."""
    store = CompiledCache(tmp_path / "runtimes")
    run(store)
    for file in (tmp_path / "runtimes").iterdir():
        store.store(file.name.removesuffix(".compiled"), b"\x7fELF not machine code of this engine")
    run(store)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners and modes here")
@pytest.mark.parametrize("how", ["open to others", "a file", "a link"])
def test_a_directory_that_is_not_private_is_not_used(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    where = tmp_path / "runtimes"
    if how == "a file":
        where.touch()
    elif how == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        where.symlink_to(tmp_path / "elsewhere")
    else:
        where.mkdir()
        where.chmod(0o755)
    with caplog.at_level(logging.WARNING):
        run(CompiledCache(where))
    assert sum("are not kept" in record.getMessage() for record in caplog.records) == 1
    assert where.is_file() or not list(where.iterdir())


def test_the_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TOUCHSTONE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.default_directory() == tmp_path / "touchstone" / "runtimes"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.default_directory() == Path.home() / ".cache" / "touchstone" / "runtimes"
    monkeypatch.setenv("TOUCHSTONE_CACHE", str(tmp_path / "mine"))
    assert cache.default_directory() == tmp_path / "mine" / "runtimes"


def test_only_so_many_files_are_kept(tmp_path: Path) -> None:
    store = CompiledCache(tmp_path / "runtimes")
    for number in range(cache.KEPT + 3):
        store.store(f"{number:064x}", b"x")
        os.utime(tmp_path / "runtimes" / f"{number:064x}.compiled", (number, number))
    assert store.load(f"{0:064x}") is None and store.load(f"{cache.KEPT + 2:064x}") == b"x"
    assert len(list((tmp_path / "runtimes").iterdir())) == cache.KEPT


def test_files_that_nobody_finished_go_and_a_directory_that_was_exchanged_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CompiledCache(tmp_path / "runtimes")
    store.store("a", b"x")
    left, fresh = (tmp_path / "runtimes" / f"{cache.WRITING}{name}" for name in ("left", "fresh"))
    for path in (left, fresh):
        path.write_bytes(b"half")
    os.utime(left, (1, 1))
    store.store("b", b"y")
    assert not left.exists() and fresh.exists() and store.load("a") == b"x"
    if hasattr(os, "geteuid"):
        somebody = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: somebody)
        assert store.load("a") is None


def test_a_user_without_a_home_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("TOUCHSTONE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ConfigError, match="TOUCHSTONE_CACHE"):
        cache.default_directory()


def test_what_a_compiler_may_choke_on_is_compiled_in_a_process_of_its_own() -> None:
    """6 kB that take this process 20 seconds: every loop has every variable."""
    count = 300
    change = "".join(f"(local.set {i + 1} (i64.add (local.get {i + 1}) (i64.const 1)))" for i in range(count))
    body = "(loop " * count + change + "(br_if 0 (local.get 0)))" * count
    code = wat.code(extra=f"(func (param i32) (local{' i64' * count}) {body})")
    assert len(code) < 16_000
    with pytest.raises(RuntimeCodeError, match=r"does not compile within 0\.5 seconds"):
        WasmRuntime(code, compiled=False, limits=Limits(compile_seconds=0.5))


def test_the_compilers_process_imports_nothing_from_where_the_user_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "struct.py").write_text("raise SystemExit('taken')")
    (tmp_path / "wasmtime.py").write_text("raise SystemExit('taken')")
    monkeypatch.chdir(tmp_path)
    assert engine.compile_code(b"\0asm\1\0\0\0", Limits())


def test_large_code_is_compiled_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "LITTLE", 0)
    said: list[str] = []
    made = WasmRuntime(wat.code(), compiled=False, progress=said.append)
    assert made.call("Core_version", b"", MemoryState()) == wat.runtime_version(1)
    assert len(said) == 1 and "compiling" in said[0]


@pytest.mark.parametrize(
    ("limits", "code", "said"),
    [
        (Limits(compile_seconds=0.01), wat.code(), "does not compile within"),
        # Without memory for its threads the compiler panics, or (seen with Python 3.10) stops: time bounds that, too.
        (
            Limits(compile_memory=1 << 20, compile_seconds=10.0),
            wat.code(),
            "cannot be compiled|does not compile within",
        ),
        (Limits(), b"\0asm\1\0\0\0garbage", "cannot be compiled"),
    ],
)
def test_a_compiler_that_fails_takes_nothing_with_it(limits: Limits, code: bytes, said: str) -> None:
    with pytest.raises(RuntimeCodeError, match=said):
        engine.compile_code(code, limits)


def test_limits_that_make_no_sense_are_refused() -> None:
    for wrong in ({"seconds": 0}, {"seconds": -1.0}, {"memory": 1}, {"memory": 1 << 40}):
        with pytest.raises(ConfigError):
            Limits(**wrong)


def test_machine_code_without_end_stays_in_the_compilers_process(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(compiling, "MAX_COMPILED", 1000)
    monkeypatch.setattr(sys, "argv", ["", str(1 << 20), str(1 << 62)])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\0asm\1\0\0\0")))
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows: the limits of the tests' process stay
    assert compiling.main() == 1
    out, err = capfdbinary.readouterr()
    assert out == b"" and b"of machine code, more than 1,000" in err
