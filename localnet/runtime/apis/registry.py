"""Runtime APIs by name: `@api("SubnetInfoRuntimeApi_get_metagraph")` puts a function into `API_FUNCTIONS`.

A function gets the runtime and the decoded arguments, and returns the value that the metadata's output type encodes. An
API without a function is answered with an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

API_FUNCTIONS: dict[str, Callable[..., Any]] = {}


def api(name: str) -> Callable[[F], F]:
    """Register a runtime API under the name clients call it by."""

    def register(function: F) -> F:
        if name in API_FUNCTIONS:
            raise ValueError(f"runtime API {name} is registered twice")
        API_FUNCTIONS[name] = function
        return function

    return register
