import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from neurons.runtime import Stopped, in_thread, sleep_or_stop, together, until


async def test_until_gives_the_result_or_stops() -> None:
    stop = asyncio.Event()
    assert await until(stop, asyncio.sleep(0, "done")) == "done"
    asyncio.get_running_loop().call_later(0.05, stop.set)
    cancelled = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(Stopped):
        await until(stop, endless())
    assert cancelled.is_set()


async def test_until_passes_errors_through() -> None:
    async def broken() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await until(asyncio.Event(), broken())


async def test_of_works_done_together_none_dies_unseen() -> None:
    ended = []

    async def lasting() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("lasting")

    async def broken() -> None:
        await asyncio.sleep(0.01)
        raise KeyError("x")

    with pytest.raises(KeyError):
        await asyncio.wait_for(together(broken(), lasting()), 10)
    assert ended == ["lasting"]


async def test_in_thread_hands_back_results_and_errors() -> None:
    assert await in_thread(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)


async def test_sleep_or_stop_tells_which() -> None:
    stop = asyncio.Event()
    assert await sleep_or_stop(stop, 0.01) is False
    stop.set()
    assert await sleep_or_stop(stop, 60) is True


PROGRAM = """
import asyncio, sys, time
from neurons.runtime import in_thread, run, until
from template.errors import TemplateError

async def main(stop):
    print("ready", flush=True)
    {body}

sys.exit(run(main))
"""


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("await stop.wait()", 0),
        ("await until(stop, asyncio.sleep(600))", 0),
        ("await until(stop, in_thread(lambda: time.sleep(600)))", 0),  # a thread that blocks does not hold the stop up
    ],
)
def test_sigterm_ends_a_neuron_whatever_it_waits_for(body: str, status: int) -> None:
    program = textwrap.dedent(PROGRAM).format(body=body)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=os.getcwd())
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == status


def test_an_error_of_the_house_is_one_line_and_status_1() -> None:
    program = textwrap.dedent(PROGRAM).format(body='raise TemplateError("no wallet", remedy="make one")')
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert process.returncode == 1
    assert "no wallet (make one)" in process.stderr and "Traceback" not in process.stderr
