"""Children of the main job end with it, however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

SCRIPTS = Path(__file__).parents[3] / "scripts"
PARENT = """
import sys, time
sys.path.insert(0, {scripts!r})
from pathlib import Path
from processes import Household
with Household(Path({logs!r})) as house:
    for name in ("a", "b"):
        child = house.start(name, [sys.executable, "-c", {child!r}])
        print(child.process.pid, flush=True)
    print("ready", flush=True)
    {end}
"""
OBEDIENT = "import time; time.sleep(600)"


def start(tmp_path: Path, end: str, child: str = OBEDIENT) -> tuple[subprocess.Popen[str], list[int]]:
    program = PARENT.format(scripts=str(SCRIPTS), logs=str(tmp_path), child=child, end=end)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(process.stdout.readline()) for _ in range(2)]
    assert process.stdout.readline() == "ready\n"
    return process, pids


def gone(pids: list[int], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
            return True
        time.sleep(0.05)
    return False


def test_children_end_with_the_block(tmp_path: Path) -> None:
    process, pids = start(tmp_path, "pass")
    assert process.wait(20) == 0
    assert gone(pids, 0.5)


def test_children_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    process, pids = start(tmp_path, "time.sleep(600)")
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    assert gone(pids)


def test_a_child_keeps_its_log_and_the_one_before(tmp_path: Path) -> None:
    sys.path.insert(0, str(SCRIPTS))
    from processes import Household

    for word in ("first", "second"):
        with Household(tmp_path) as house:
            child = house.start("talker", [sys.executable, "-c", f"print('{word}')"])
            child.process.wait(20)
            assert house.last_words("talker") == [word]
            assert [dead.name for dead in house.dead()] == ["talker"]
    assert (tmp_path / "talker.log.old").read_text() == "first\n"
