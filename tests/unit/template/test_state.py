"""A neuron's folder: one process, one subnet, one chain."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from template.errors import StateUnavailable
from template.state import claimed

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
