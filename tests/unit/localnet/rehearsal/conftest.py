"""A small cast: what these tests are about does not need ten actors."""

from __future__ import annotations

import pytest

from localnet.rehearsal import steps


@pytest.fixture(autouse=True)
def small_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "VALIDATORS", ())
    monkeypatch.setattr(steps, "MINERS", steps.MINERS[:2])
    monkeypatch.setattr(steps, "EVERYBODY", (steps.OWNER, *steps.MINERS[:2]))
