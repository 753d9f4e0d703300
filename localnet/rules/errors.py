"""What can go wrong while a rule is applied.

    RuleError             (a LocalnetError) a rule was given something it does not define
    ├── SwapError         the pool refuses a trade; `name` is the chain's own error name
    └── TimelockError     sealed bytes that do not open; `reason` is the chain's own name for why

A rule never repairs bad input and never returns a default in its place: it raises, and the pallet turns the error into
the dispatch error of the same name.
"""

from __future__ import annotations

from localnet.errors import LocalnetError


class RuleError(LocalnetError):
    """A rule was given something it does not define (a shape that does not fit, a share that cannot be represented)."""


class SwapError(RuleError):
    """The pool refuses a trade.

    `name`: SwapInputTooLarge, ReservesTooLow, PriceLimitExceeded or InsufficientLiquidity.
    """

    def __init__(self, name: str, detail: str) -> None:
        self.name = name
        super().__init__(f"{name}: {detail}")


class TimelockError(RuleError):
    """Sealed bytes that do not open, or a signature that is no point of its curve.

    `reason`: a variant of the chain's RevealFailure: SignatureDeserialize, CiphertextDeserialize, Decrypt,
    EmptyPlaintext, PulseExpired or RoundMismatch.
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}: {detail}")
