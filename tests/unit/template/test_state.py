"""A neuron's folder: one process, one subnet, one chain."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from template.errors import StateUnavailable
from template.state import claimed, read_secret

GENESIS = "0x" + "11" * 32


def test_a_folder_is_taken_once_and_free_again_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "mine.default"
    with claimed(folder, "miner", GENESIS, 2, "5Hot"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        with (
            pytest.raises(StateUnavailable, match="another miner process"),
            claimed(folder, "miner", GENESIS, 2, "5Hot"),
        ):
            pass
        with claimed(folder, "validator", GENESIS, 2, "5Hot"):
            pass
    with claimed(folder, "miner", GENESIS, 2, "5Hot"):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    program = (
        "import os, signal; from pathlib import Path; from template.state import claimed\n"
        f"with claimed(Path({str(tmp_path)!r}), 'miner', {GENESIS!r}, 2, '5Hot'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=30).returncode == -9
    with claimed(tmp_path, "miner", GENESIS, 2, "5Hot"):
        pass


@pytest.mark.parametrize(
    ("owner", "what"),
    [(("0x22", 2, "5Hot"), "genesis"), ((GENESIS, 3, "5Hot"), "netuid"), ((GENESIS, 2, "5Other"), "hotkey")],
)
def test_the_history_of_another_subnet_is_not_gone_on_with(
    tmp_path: Path, owner: tuple[str, int, str], what: str
) -> None:
    with claimed(tmp_path, "validator", GENESIS, 2, "5Hot"):
        pass
    with pytest.raises(StateUnavailable, match=f"another {what}"), claimed(tmp_path, "validator", *owner):
        pass


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StateUnavailable, match="cannot be used"),
        claimed(tmp_path / "file" / "x", "miner", GENESIS, 2, "5Hot"),
    ):
        pass


def test_a_secret_is_made_once_for_all_who_read_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "secret"
    program = "import sys, pathlib, template.state as s; print(s.read_secret(pathlib.Path(sys.argv[1])).hex())"
    readers = [
        subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    printed = {reader.communicate(timeout=60)[0].strip() for reader in readers}
    assert printed == {path.read_bytes().hex()}
    assert len(path.read_bytes()) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_secret_of_another_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"short")
    with pytest.raises(StateUnavailable, match="32 bytes"):
        read_secret(path)
