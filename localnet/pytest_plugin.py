"""Fixtures: a chain for every test.

    def test_with_a_blocking_client(sync_localnet): ...    # a fresh chain, in a thread of its own
    async def test_transfer(localnet): ...                 # a fresh chain on the test's event loop (pytest-asyncio)
    def test_often(shared_localnet): ...                   # one chain for the session; each test is undone after it

    @pytest.mark.localnet(mining="manual", profile="mainnet")      # any argument of Localnet, for all three

Default is `mining="instant"`: a block as soon as something was submitted, nothing to wait for. `shared_localnet` takes
a snapshot before the test and goes back to it afterwards, which costs a millisecond or two instead of a start; there is
one such chain for each set of options that is asked for. What all tests start from can be built once, on it:

    @pytest.fixture(scope="session")
    def subnet(localnet_session):                          # the chain behind `shared_localnet`, default options
        return localnet_session.subnet(miners=3, validators=2)

    def test_weights(subnet, shared_localnet): ...

Every chain has a port of its own, so tests run in parallel (xdist: a chain per worker) and beside each other in one
process. The plugin is found by itself where this package is installed; elsewhere it is enabled with
`pytest_plugins = ["localnet.pytest_plugin"]` in the top-level conftest.py. Options for a whole repository:

    @pytest.fixture(scope="session")
    def localnet_options():
        return {"mining": "manual"}
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

try:
    import pytest_asyncio
except ImportError:  # only the asynchronous fixture needs it
    pytest_asyncio = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from localnet.net import Localnet
    from localnet.sync import SyncLocalnet

DEFAULTS: Mapping[str, Any] = {"mining": "instant"}
CHAINS = {"localnet", "sync_localnet", "shared_localnet"}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "localnet(**options): arguments of the Localnet that a test's fixture makes")


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: object) -> None:
    """A coroutine that asks for one of these chains is pytest-asyncio's to run, in its strict mode, too."""
    if pytest_asyncio is None or not inspect.iscoroutinefunction(obj) or not name.startswith("test"):
        return
    marks = {mark.name for mark in [*getattr(obj, "pytestmark", []), *collector.iter_markers()]}
    if not marks & {"asyncio", "anyio"} and CHAINS & set(inspect.signature(obj).parameters):
        pytest.mark.asyncio(obj)


@pytest.fixture(scope="session")
def localnet_options() -> Mapping[str, Any]:
    """Arguments of every chain, where a test's mark does not say otherwise. Override it in a conftest.py."""
    return DEFAULTS


def _options(request: pytest.FixtureRequest, base: Mapping[str, Any]) -> dict[str, Any]:
    marker = request.node.get_closest_marker("localnet")
    return {**base, **(marker.kwargs if marker else {})}


@pytest.fixture
def sync_localnet(request: pytest.FixtureRequest, localnet_options: Mapping[str, Any]) -> Iterator[SyncLocalnet]:
    """A fresh, running `SyncLocalnet`."""
    from localnet.sync import SyncLocalnet

    with SyncLocalnet(**_options(request, localnet_options)) as net:
        yield net


class SharedChains:
    """The chains of a session, started when they are first asked for: one for each set of options."""

    def __init__(self) -> None:
        self._chains: dict[str, SyncLocalnet] = {}

    def get(self, options: Mapping[str, Any]) -> SyncLocalnet:
        from localnet.sync import SyncLocalnet

        name = repr(sorted(options.items()))
        if name not in self._chains:
            self._chains[name] = SyncLocalnet(**options).start()
        return self._chains[name]

    def replace(self, net: SyncLocalnet, why: str | None = None) -> None:
        """Stop a chain; the next test that wants its like gets a fresh one. `why` is what those hear who still use the
        old one."""
        self._chains = {name: chain for name, chain in self._chains.items() if chain is not net}
        net.stop(why)

    def stop(self) -> None:
        for net in list(self._chains.values()):
            self.replace(net)


@pytest.fixture(scope="session")
def localnet_chains() -> Iterator[SharedChains]:
    """The session's chains by their options."""
    chains = SharedChains()
    yield chains
    chains.stop()


@pytest.fixture(scope="session")
def localnet_session(localnet_chains: SharedChains, localnet_options: Mapping[str, Any]) -> SyncLocalnet:
    """The chain behind `shared_localnet`. What is done to it here stays: for session fixtures to build on.
    Ask for those as parameters: one that `request.getfixturevalue` makes inside a test is undone with the test."""
    return localnet_chains.get(localnet_options)


@pytest.fixture
def shared_localnet(
    request: pytest.FixtureRequest, localnet_chains: SharedChains, localnet_options: Mapping[str, Any]
) -> Iterator[SyncLocalnet]:
    """The session's chain; whatever the test does to it is undone. A test that cannot be undone (it went back further
    than where it started, mined past the history, or stopped the chain) fails: give it a chain of its own. Later tests
    get a fresh chain; what session fixtures built on the old one is gone, and says which test that was."""
    from localnet.errors import LocalnetError

    net = localnet_chains.get(_options(request, localnet_options))
    snapshot = net.snapshot()
    yield net
    try:
        net.revert(snapshot)
    except LocalnetError as error:
        test = request.node.nodeid
        why = f"{test} could not be undone: its chain is stopped, with what session fixtures built on it"
        localnet_chains.replace(net, why)
        pytest.fail(f"this test cannot be undone, use sync_localnet for it: {error}", pytrace=False)


if pytest_asyncio is not None:

    @pytest_asyncio.fixture
    async def localnet(request: pytest.FixtureRequest, localnet_options: Mapping[str, Any]) -> AsyncIterator[Localnet]:
        """A fresh, running `Localnet`, on the test's event loop."""
        from localnet.net import Localnet

        async with Localnet(**_options(request, localnet_options)) as net:
            yield net

else:

    @pytest.fixture
    def localnet() -> None:
        pytest.fail("the fixture `localnet` needs pytest-asyncio: install it, or use `sync_localnet`", pytrace=False)
