"""Connections and their subscriptions.

`Subscriptions` is who wants to hear what: by kind, the connection, the subscription id, and an argument. A notification
for a subscription made by the request being answered is held back until `flush`, which the server calls once the answer
is queued: clients drop notifications for ids they have not seen yet.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import orjson

from localnet.errors import RpcError

MAX_SUBSCRIPTIONS = 1024  # per connection
MAX_SUBSCRIBED = 4 * 2**20  # bytes that the arguments of a connection's subscriptions may take


class Connection:
    """One client. `local`: it may use dev methods (this machine, or the dev token). `subscribes`: it can be sent
    notifications (not over POST)."""

    def __init__(self, *, local: bool, subscribes: bool) -> None:
        self.local, self.subscribes = local, subscribes
        self.subscriptions: dict[str, str] = {}  # id -> kind
        self.subscribed = 0  # bytes of their arguments
        self.held_bytes = 0  # of notifications that wait for `flush`
        self._fresh: set[str] = set()
        self._held: list[bytes] = []

    def send(self, message: bytes) -> None:
        """Queue a message; a connection that cannot take any ignores it."""

    def flush(self) -> None:
        """The answer is queued: let the notifications held back follow it."""
        if self._fresh:
            self._fresh.clear()
            held, self._held, self.held_bytes = self._held, [], 0
            for message in held:
                self.send(message)

    def notify(self, name: str, identifier: str, result: bytes) -> None:
        """Send a notification; `result` is JSON."""
        message = b'{"jsonrpc":"2.0","method":"%s","params":{"subscription":"%s","result":%s}}' % (
            name.encode(), identifier.encode(), result,
        )  # fmt: skip
        if identifier in self._fresh:
            self._held.append(message)
            self.held_bytes += len(message)
        else:
            self.send(message)


class Subscriptions:
    def __init__(self) -> None:
        self._kinds: dict[str, dict[str, tuple[Connection, Any]]] = {}
        self._sizes: dict[str, int] = {}  # of arguments that have one

    def add(self, connection: Connection, kind: str, argument: Any = None, size: int = 0) -> str:
        """Subscribe; returns the id. `size`: bytes that the argument takes. Raises RpcError over POST and beyond the
        limits.
        """
        if not connection.subscribes:
            raise RpcError(-32601, "Method not found", "subscriptions need a WebSocket connection")
        if len(connection.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise RpcError(
                -32006, "Too many subscriptions on the connection", f"Exceeded max limit of {MAX_SUBSCRIPTIONS}"
            )
        if connection.subscribed + size > MAX_SUBSCRIBED:
            limit = f"Exceeded max limit of {MAX_SUBSCRIBED} bytes of keys"
            raise RpcError(-32006, "Too many subscriptions on the connection", limit)
        identifier = secrets.token_hex(8)
        if size:
            self._sizes[identifier] = size
            connection.subscribed += size
        connection.subscriptions[identifier] = kind
        connection._fresh.add(identifier)
        self._kinds.setdefault(kind, {})[identifier] = (connection, argument)
        return identifier

    def remove(self, connection: Connection, identifier: str) -> bool:
        kind = connection.subscriptions.pop(identifier, None)
        if kind is None:
            return False
        del self._kinds[kind][identifier]
        connection.subscribed -= self._sizes.pop(identifier, 0)
        return True

    def forget(self, connection: Connection) -> None:
        """The connection is gone."""
        for identifier in list(connection.subscriptions):
            self.remove(connection, identifier)

    def of(self, kind: str) -> Iterator[tuple[str, Connection, Any]]:
        for identifier, (connection, argument) in list(self._kinds.get(kind, {}).items()):
            yield identifier, connection, argument

    def publish(self, kind: str, name: str, result: Any) -> None:
        """Tell everyone subscribed to `kind`."""
        if self._kinds.get(kind):
            message = orjson.dumps(result)
            for identifier, connection, _ in self.of(kind):
                connection.notify(name, identifier, message)
