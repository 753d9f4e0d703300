"""A small cast: what these tests are about does not need ten actors."""

from __future__ import annotations

import pytest

from localnet.rehearsal import acts


@pytest.fixture(autouse=True)
def small_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "VALIDATORS", ())
    monkeypatch.setattr(acts, "MINERS", acts.MINERS[:2])
    monkeypatch.setattr(acts, "EVERYBODY", (acts.OWNER, *acts.MINERS[:2]))
