"""What the noise of a recipe with privacy is worth, in epsilon at delta. Whom it protects: `protocol.training.privacy`.

    epsilon(privacy, windows)        after so many windows, for a client that may have been in every one

By privacy loss distributions (Koskela et al., arXiv 1906.03049), as the library `dp-accounting` computes them: an upper
bound. It is installed with touchstone-subnet[privacy], because it brings scipy.
"""

from __future__ import annotations

import math

from protocol.training.recipe import Privacy
from template.errors import TemplateError

MOST_APART = 1000.0  # deviations; no bound worth its computation


class NoAccountant(TemplateError):
    """The library is not installed."""


def epsilon(privacy: Privacy, windows: int) -> float:
    """Of `windows` Gaussian mechanisms in a row, at `privacy.delta`, for neighbours of which one has zeros for all that
    one client sent; inf where it would be more than 500,000. The clip is what the sum changes by at most, for rounding
    makes no contribution larger. Raises NoAccountant."""
    try:
        from dp_accounting import GaussianDpEvent, NeighboringRelation
        from dp_accounting.pld import PLDAccountant
    except ImportError:
        remedy = "pip install 'touchstone-subnet[privacy]'"
        raise NoAccountant("the privacy accountant is not installed", remedy=remedy) from None
    if windows == 0:
        return 0.0
    apart = math.sqrt(windows) / privacy.noise  # of the two models, in deviations of their noise
    if apart > MOST_APART:
        return math.inf
    # The privacy loss is apart**2 / 2, give or take some `apart`; of that a thousandth is lost at most.
    accountant = PLDAccountant(NeighboringRelation.REPLACE_SPECIAL, value_discretization_interval=1e-3 * apart)
    accountant.compose(GaussianDpEvent(privacy.noise), windows)
    return float(accountant.get_epsilon(privacy.delta))
