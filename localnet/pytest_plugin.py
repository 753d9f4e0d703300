"""Fixtures: a fresh chain for every test.

    async def test_transfer(localnet): ...           # async, on the test's event loop
    def test_with_a_blocking_client(sync_localnet)   # the chain in a thread of its own

    @pytest.mark.localnet(mining="manual", profile="mainnet")      # any argument of Localnet

Default is `mining="instant"`: a block as soon as something was submitted, nothing to wait for. Each test has a chain
and a port of its own, so tests run in parallel (xdist) without knowing of each other; making one takes about as long
as undoing a test on a shared one would, because the runtime's parsed metadata is kept between tests.

Enable with `pytest_plugins = ["localnet.pytest_plugin"]` in the top-level conftest.py, or `-p localnet.pytest_plugin`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from localnet.net import Localnet, SyncLocalnet

DEFAULTS: dict[str, Any] = {"mining": "instant"}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "localnet(**options): arguments of the Localnet that a test's fixture makes")


def _options(request: pytest.FixtureRequest) -> dict[str, Any]:
    marker = request.node.get_closest_marker("localnet")
    return {**DEFAULTS, **(marker.kwargs if marker else {})}


@pytest_asyncio.fixture
async def localnet(request: pytest.FixtureRequest) -> AsyncIterator[Localnet]:
    """A running `Localnet`."""
    from localnet.net import Localnet

    async with Localnet(**_options(request)) as net:
        yield net


@pytest.fixture
def sync_localnet(request: pytest.FixtureRequest) -> Iterator[SyncLocalnet]:
    """A running `SyncLocalnet`, for tests that block."""
    from localnet.net import SyncLocalnet

    with SyncLocalnet(**_options(request)) as net:
        yield net
