"""Fixtures every test may use: `localnet` and `sync_localnet`, a fresh chain per test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest_plugins = ["localnet.pytest_plugin"]


@pytest.fixture(scope="session", autouse=True)
def symbols_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The SDK keeps token symbols by address in the user's home, for a week: our addresses are gone in seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BTCLI_TOKEN_SYMBOLS_CACHE", str(tmp_path_factory.mktemp("sdk") / "symbols.json"))
        yield
