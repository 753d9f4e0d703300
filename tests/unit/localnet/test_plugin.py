"""The pytest plugin as another repository uses it: its own conftest, marks, options, and what it leaves behind."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy  # noqa: F401  pytester forgets modules that its runs load, and this one cannot be loaded twice
import pytest

from localnet.net import TAO
from localnet.pytest_plugin import SharedChains

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[3]

CONFTEST = """
    import pytest

    @pytest.fixture(scope="session")
    def localnet_options():
        return {"mining": "manual"}

    @pytest.fixture(scope="session")
    def subnet(localnet_session):
        return localnet_session.subnet(miners=1, validators=1)
"""
TESTS = """
    import pytest

    SEEN = []

    @pytest.mark.parametrize("turn", range(3))
    def test_each_starts_from_the_subnet(subnet, shared_localnet, turn):
        net = shared_localnet
        weights = net.query("SubtensorModule", "Weights", subnet.netuid, 1)
        SEEN.append((net.url, net.block, net.balance("//Zoe"), weights))
        assert SEEN == SEEN[:1] * (turn + 1) and SEEN[0][2] == 0 and SEEN[0][3] == []
        net.fund("//Zoe", 5000)
        subnet.set_weights(0, {2: 1})
        net.travel(4_000_000_000_000)

    @pytest.mark.localnet(history=100)
    def test_a_mark_gets_another_chain(shared_localnet, subnet):
        assert shared_localnet.url != SEEN[0][0] and shared_localnet.net.chain.history == 100
        assert subnet.netuid not in shared_localnet.query_map("SubtensorModule", "NetworksAdded")

    def test_a_chain_of_its_own(sync_localnet):
        assert sync_localnet.block == 0 and sync_localnet.url != SEEN[0][0]

    async def test_on_the_tests_loop(localnet):
        await localnet.fund("//Zoe", 7000)
        assert localnet.balance("//Zoe") == 7000 and localnet.block == 1

    def test_that_cannot_be_undone(shared_localnet):
        shared_localnet.revert(0)

    def test_after_it(shared_localnet):
        assert shared_localnet.block == 0 and shared_localnet.url != SEEN[0][0]

    def test_what_was_built_before_says_who_broke_it(subnet, shared_localnet):
        with pytest.raises(Exception, match="::test_that_cannot_be_undone could not be undone"):
            subnet.metagraph()
"""


@pytest.fixture(autouse=True)
def _one_loop_mode(pytester: pytest.Pytester) -> Iterator[None]:
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    yield


def test_another_repository_uses_it(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    done = pytester.runpytest_inprocess("-p", "localnet.pytest_plugin", "-p", "no:cacheprovider")
    done.assert_outcomes(passed=9, errors=1)  # a test that cannot be undone passes, and its teardown says so
    done.stdout.fnmatch_lines(["*test_that_cannot_be_undone*", "*this test cannot be undone, use sync_localnet*"])


def test_coroutines_need_no_configuration(pytester: pytest.Pytester) -> None:
    """In pytest-asyncio's strict mode, its default; a coroutine that has nothing to do with a chain stays as it was."""
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile("""
        async def test_a_chain(localnet):
            assert await localnet.mine() == 3

        class TestInAClass:
            async def test_a_chain(self, shared_localnet):
                assert shared_localnet.block == 2

        async def test_something_else(): ...
    """)
    done = pytester.runpytest_inprocess("-p", "localnet.pytest_plugin", "-p", "no:cacheprovider")
    done.assert_outcomes(passed=2, failed=1)
    done.stdout.fnmatch_lines(["FAILED *test_something_else*"])


@pytest.mark.skipif(not importlib.util.find_spec("py_arkworks_bls12381"), reason="there is none for Python 3.10")
def test_the_readme_is_true(pytester: pytest.Pytester) -> None:
    """Every block of Python in it, as it stands there: tests in pytest-asyncio's strict mode, the program in a loop.
    But for the one that needs a released runtime: test_wasm_localnet.py does the same with one of our own."""
    every = re.findall(r"```python\n(.*?)```", (ROOT / "localnet" / "README.md").read_text(), re.DOTALL)
    blocks = [block for block in every if '"finney.wasm"' not in block]
    assert len(every) == len(blocks) + 1
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    tests = [block for block in blocks if "def test" in block]
    programs = [textwrap.indent(block, "    ") for block in blocks if "def test" not in block]
    assert len(tests) == 2 and len(programs) == 1
    tests.append(f"import asyncio\n\nasync def program():\n{programs[0]}\ndef test_it(): asyncio.run(program())\n")
    pytester.makepyfile(**{f"test_{number}": text for number, text in enumerate(tests)})
    pytester.runpytest_inprocess("-p", "localnet.pytest_plugin", "-p", "no:cacheprovider").assert_outcomes(passed=4)


def test_several_chains_live_in_one_process() -> None:
    chains = SharedChains()
    try:
        first, second = chains.get({"mining": "manual"}), chains.get({"mining": "manual", "history": 9})
        assert chains.get({"mining": "manual"}) is first and first.url != second.url
        first.fund("//Zoe", TAO)
        second.mine(3)
        assert (first.balance("//Zoe"), second.balance("//Zoe")) == (TAO, 0)
        assert (first.block, second.block) == (1, 3)
    finally:
        chains.stop()


def test_it_loads_without_pytest_asyncio(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        blocker="import sys\nsys.modules['pytest_asyncio'] = None\n",
        test_it="def test_sync(sync_localnet):\n    assert sync_localnet.block >= 0\n\ndef test_async(localnet): ...\n",
    )
    pytester.makeini("[pytest]\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "blocker",
        "-p",
        "localnet.pytest_plugin",
        "-p",
        "no:asyncio",
        "-q",
    ]
    environment = {"PYTHONPATH": f"{pytester.path}:{ROOT}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=pytester.path, env=environment, timeout=120)
    assert "1 passed" in done.stdout and "1 error" in done.stdout, done.stdout + done.stderr
    assert "needs pytest-asyncio: install it, or use `sync_localnet`" in done.stdout


def test_the_entry_point_names_the_module() -> None:
    """Named otherwise, a conftest.py that lists the module in pytest_plugins could not be loaded beside it."""
    captured: dict[str, Any] = {}
    program = (ROOT / "setup.py").read_text()
    import setuptools

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **options: captured.update(options))
        patch.setattr(setuptools, "find_packages", lambda **options: [])
        exec(compile(program, "setup.py", "exec"), {})
    assert captured["entry_points"]["pytest11"] == ["localnet.pytest_plugin = localnet.pytest_plugin"]
