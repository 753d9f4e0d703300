"""A chain in memory for every test."""

from __future__ import annotations

import pytest

from tests.support.spec_chain import Chain


@pytest.fixture
def chain() -> Chain:
    return Chain()
