"""Errors of the machinery. Each says what happened and what to do.

    TemplateError
    ├── KeyUnavailable        a hotkey cannot be loaded
    ├── AddressRefused        an address from the chain may not be called from here
    ├── CannotListen          an address or port of this machine cannot be bound
    ├── StateUnavailable      a neuron's own folder is in use, of another subnet, or may not be written
    └── CallFailed            a call gave no usable answer; `.failure` holds code, sentence and the peer's refusal

Errors of other modules of this room derive from TemplateError in the module that raises them, and are listed here:
nothing in this room raises a bare exception on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.errors import FailureCode, Refusal


class TemplateError(Exception):
    """Root of this room. `remedy`, when known, is one imperative sentence for the operator."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(f"{message} ({remedy})" if remedy else message)
        self.message = message
        self.remedy = remedy


class KeyUnavailable(TemplateError):
    """The hotkey file is missing, unreadable, or encrypted without a password at hand."""


class AddressRefused(TemplateError):
    """The address is not one this machine should send requests to."""


class CannotListen(TemplateError):
    """The address or port cannot be bound on this machine."""


class StateUnavailable(TemplateError):
    """The neuron's folder cannot be used by this process."""


@dataclass(frozen=True)
class Failure:
    """Why a call gave no usable answer.

    `refusal` is set for `refused` (signed by the miner, so it is the miner's word) and, as a mere claim, for
    `unsigned` when the body was a refusal: a server does not sign before it knows the caller.
    """

    code: FailureCode
    detail: str
    refusal: Refusal | None = None

    def __str__(self) -> str:
        claim = f" [{self.refusal.code}: {self.refusal.message}]" if self.refusal else ""
        return f"{self.code}: {self.detail}{claim}"


class CallFailed(TemplateError):
    """Raised by `SynapseClient.call` and by streams."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure
