"""JSON-RPC 2.0 as a table of typed methods.

    class Api(Methods):
        @method("state_getStorage", "chain_getStorageAlias")
        def get_storage(self, connection, key: bytes, at: Block | None = None): ...

A method's parameters are read by their annotations (`PARSERS`): what does not fit is answered with -32602 before the
method runs. Methods may be coroutines. Whatever a method raises becomes an error answer with a code and a safe
sentence; an exception nobody expected is logged and answered with -32603.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeVar

import orjson

from localnet.errors import (
    ChainError,
    ConfigError,
    LocalnetError,
    RpcError,
    RuntimeApiMissing,
    RuntimeTrap,
    StateFileError,
)

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])
MAX_ERROR = 2000  # characters
HEX_NUMBER = re.compile("0x[0-9a-fA-F]+")
Parser = Callable[[Any, Any], Any]  # (the api object, JSON value) -> argument; ValueError when it does not fit

INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR, CLIENT_ERROR = -32600, -32601, -32602, -32603, 4003


def method(*names: str, dev: bool = False) -> Callable[[F], F]:
    """Register a function under these method names. `dev`: answers on this machine, or to the dev token."""

    def mark(function: F) -> F:
        function.rpc_names, function.rpc_dev = names, dev  # type: ignore[attr-defined]
        return function

    return mark


@dataclass(frozen=True)
class Parameter:
    name: str
    parse: Callable[[Any], Any]
    required: bool


@dataclass(frozen=True)
class Method:
    function: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    required: int
    dev: bool


def hex_bytes(value: Any) -> bytes:
    """Raises ValueError unless `value` is hex digits, with or without 0x (the SDK's `state_call` has none)."""
    if not isinstance(value, str):
        raise ValueError("expected a string of hex digits")
    data = bytes.fromhex(value.removeprefix("0x"))
    if 2 * len(data) != len(value.removeprefix("0x")):  # fromhex passes over white space
        raise ValueError("expected hex digits and nothing between them")
    return data


def integer(value: Any) -> int:
    """Raises ValueError unless `value` is a number from 0 on, or a string of hex digits with 0x in front."""
    if isinstance(value, str) and 2 < len(value) <= 18 and HEX_NUMBER.fullmatch(value):
        return int(value, 16)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("expected a whole number of at most 64 bits that is not negative")
    return value


def error_body(error: LocalnetError) -> tuple[int, str, str | None]:
    """Code, message and data that a client sees for an expected error."""
    if isinstance(error, RpcError):
        return error.code, error.message, error.data
    if isinstance(error, RuntimeApiMissing):
        return CLIENT_ERROR, f"Client error: Execution failed: Other: {error}", None
    if isinstance(error, RuntimeTrap):
        return CLIENT_ERROR, "Client error: Execution failed: Execution aborted due to trap", str(error)
    if isinstance(error, ConfigError):
        return INVALID_PARAMS, "Invalid params", str(error)
    if isinstance(error, ChainError | StateFileError):
        return CLIENT_ERROR, f"Client error: {error}", None
    return CLIENT_ERROR, "Client error", str(error)


class Methods:
    """Base of an object whose `@method` functions are callable by JSON-RPC."""

    PARSERS: ClassVar[Mapping[str, Parser]] = {}  # annotation (as written, without "| None") -> parser

    def __init__(self) -> None:
        self.methods: dict[str, Method] = {}
        for _, function in inspect.getmembers(self, lambda value: hasattr(value, "rpc_names")):
            parameters = tuple(map(self._parameter, list(inspect.signature(function).parameters.values())[1:]))
            entry = Method(function, parameters, sum(p.required for p in parameters), function.rpc_dev)
            self.methods.update(dict.fromkeys(function.rpc_names, entry))

    def _parameter(self, parameter: inspect.Parameter) -> Parameter:
        parse = self.PARSERS[parameter.annotation.removesuffix(" | None")]
        return Parameter(parameter.name, partial(parse, self), parameter.default is inspect.Parameter.empty)

    def handle(self, connection: Any, request: Any) -> bytes | Awaitable[bytes] | None:
        """Answer one request; None when it is a notification. An awaitable when the method takes its time."""
        if not isinstance(request, dict):
            return _error(None, INVALID_REQUEST, "Invalid request", "a request is a JSON object")
        identifier = request.get("id")
        if isinstance(identifier, bool) or not isinstance(identifier, int | str | float | None):
            return _error(None, INVALID_REQUEST, "Invalid request", "the id must be a number or a string")
        if not isinstance(request.get("method"), str):  # no notification either: those name a method
            return _error(identifier, INVALID_REQUEST, "Invalid request", "the method must be a string")
        try:
            result = self._invoke(connection, request)
        except Exception as error:  # every error becomes an answer; the unexpected ones are logged there
            answer = self._failed(identifier, request, error)
            return answer if "id" in request else None
        if inspect.iscoroutine(result):
            return self._finish(identifier, request, result)
        if "id" not in request:
            return None
        return orjson.dumps({"jsonrpc": "2.0", "id": identifier, "result": result})

    async def _finish(self, identifier: Any, request: Any, result: Coroutine[Any, Any, Any]) -> bytes:
        try:
            return orjson.dumps({"jsonrpc": "2.0", "id": identifier, "result": await result})
        except Exception as error:  # as in handle
            return self._failed(identifier, request, error)

    def _failed(self, identifier: Any, request: Any, error: Exception) -> bytes:
        if isinstance(error, LocalnetError):
            return _error(identifier, *error_body(error))
        log.error("%s failed", request.get("method"), exc_info=error)
        return _error(identifier, INTERNAL_ERROR, "Internal error", "the node's log says more")

    def _invoke(self, connection: Any, request: Mapping[str, Any]) -> Any:
        name = request["method"]
        entry = self.methods.get(name)
        if entry is None:
            raise RpcError(METHOD_NOT_FOUND, "Method not found", name[:100])
        if entry.dev and not connection.local:
            raise RpcError(
                METHOD_NOT_FOUND, "Method not found", f"{name} answers on the node's own machine, or to its dev token"
            )
        return entry.function(connection, *self._arguments(entry, request.get("params")))

    def _arguments(self, entry: Method, params: Any) -> list[Any]:
        given: Sequence[Any]
        if params is None:
            given = ()
        elif isinstance(params, list):
            given = params
        elif isinstance(params, dict):
            unknown = set(params) - {parameter.name for parameter in entry.parameters}
            if unknown:
                raise RpcError(INVALID_PARAMS, "Invalid params", f"unknown parameter {min(unknown)[:100]!r}")
            given = [params.get(parameter.name) for parameter in entry.parameters]
        else:
            raise RpcError(INVALID_PARAMS, "Invalid params", "params must be a list or an object")
        if not entry.required <= len(given) <= len(entry.parameters):
            wanted = ", ".join(p.name if p.required else f"{p.name}?" for p in entry.parameters) or "none"
            raise RpcError(INVALID_PARAMS, "Invalid params", f"{len(given)} parameters given, expected: {wanted}")
        return [self._argument(p, value) for p, value in zip(entry.parameters, given, strict=False)]

    def _argument(self, parameter: Parameter, value: Any) -> Any:
        if value is None and not parameter.required:
            return None
        try:
            return parameter.parse(value)
        except ValueError as error:
            raise RpcError(INVALID_PARAMS, "Invalid params", f"{parameter.name}: {error}") from error


def _cut(text: str) -> str:
    """What is wrong with a request may be said by repeating it, and a request may be 16 MiB."""
    return text if len(text) <= MAX_ERROR else text[:MAX_ERROR] + ".."


def _error(identifier: Any, code: int, message: str, data: str | None) -> bytes:
    body: dict[str, Any] = {"code": code, "message": _cut(message)}
    if data is not None:
        body["data"] = _cut(data)
    return orjson.dumps({"jsonrpc": "2.0", "id": identifier, "error": body})
