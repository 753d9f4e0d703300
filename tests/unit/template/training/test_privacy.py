"""Epsilon is what the theory of the Gaussian mechanism says, from above."""

from __future__ import annotations

import math
import sys

import pytest

from protocol.training.recipe import Privacy
from template.training.privacy import NoAccountant, epsilon


def exact(apart: float, delta: float) -> float:
    """The least epsilon, from the closed form of one Gaussian mechanism (Balle and Wang, arXiv 1805.06530, theorem 8);
    n windows are one with `apart` = sqrt(n) / noise."""

    def phi(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    low, high = 0.0, apart**2 + 20 * apart
    for _ in range(100):
        middle = (low + high) / 2
        missing = phi(apart / 2 - middle / apart) - math.exp(middle) * phi(-apart / 2 - middle / apart)
        low, high = (middle, high) if missing > delta else (low, middle)
    return high


@pytest.mark.parametrize(
    ("noise", "windows", "delta"), [(1.0, 1, 1e-5), (1.0, 100, 1e-6), (20.0, 1000, 1e-6), (5.0, 10, 1e-9)]
)
def test_windows_compose_as_gaussians_do(noise: float, windows: int, delta: float) -> None:
    found = epsilon(Privacy(clip=1.0, noise=noise, delta=delta), windows)
    least = exact(math.sqrt(windows) / noise, delta)
    assert least <= found < 1.001 * least


def test_figures_and_ends() -> None:
    assert epsilon(Privacy(clip=1.0, noise=1.0, delta=1e-5), 1) == pytest.approx(4.377, abs=1e-3)
    assert epsilon(Privacy(clip=9.0, noise=1.0, delta=1e-5), 1) == pytest.approx(4.377, abs=1e-3), "clips do not matter"
    assert epsilon(Privacy(clip=1.0, noise=1.0), 0) == 0.0
    assert epsilon(Privacy(clip=1.0, noise=0.01), 10**6) == math.inf


def test_without_the_library_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(NoAccountant, match=r"touchstone-subnet\[privacy\]"):
        epsilon(Privacy(clip=1.0, noise=1.0), 1)
