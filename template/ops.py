"""Health and metrics of a neuron: one object that holds them, one small listener that shows them.

    ops = Ops(lambda: {"ok": chain.connected, "block": chain.block})
    requests = Counter("touchstone_...", "...", registry=ops.registry)
    async with OpsServer(ops, port=9100): ...          # GET /health, GET /metrics

`/health` answers 200 when "ok" is true and 503 when not, with the rest of the mapping as JSON. `/metrics` is the
Prometheus text format. The listener binds loopback unless told otherwise: figures about an operator's machine are the
operator's. `SynapseServer` shows the same two paths on its own port, in full to loopback and only "ok" to others.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from template.listener import listen

PATHS = ("/health", "/metrics")


class Ops:
    """`health` returns a JSON-able mapping with a boolean "ok"; `registry` collects the neuron's metrics."""

    def __init__(
        self, health: Callable[[], Mapping[str, Any]] | None = None, registry: CollectorRegistry | None = None
    ) -> None:
        self.health = health or (lambda: {"ok": True})
        self.registry = registry or CollectorRegistry()

    def answer(self, path: str, *, full: bool = True) -> web.Response:
        """Response to GET `path`. `full` false hides everything but "ok"."""
        if path == "/health":
            health = dict(self.health())
            shown = health if full else {"ok": health["ok"]}
            body = json.dumps(shown).encode()
            return web.Response(status=200 if health["ok"] else 503, body=body, content_type="application/json")
        if path == "/metrics" and full:
            headers = {"Content-Type": CONTENT_TYPE_LATEST}
            return web.Response(body=generate_latest(self.registry), headers=headers)
        return web.Response(status=404)


class OpsServer:
    """Listens for operators' tools. `port` 0 picks one; read `port` after start."""

    def __init__(self, ops: Ops, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.ops = ops
        self.host = host
        self.port = port
        self._http: web.Server | None = None
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        self._http = web.Server(self._serve, access_log=None, keepalive_timeout=10.0, max_field_size=4096)
        self._listener = await listen(self._http, self.host, self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._listener is not None and self._http is not None:
            self._listener.close()
            self._http.pre_shutdown()
            await self._http.shutdown(1.0)
            self._listener = None

    async def __aenter__(self) -> OpsServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method != "GET":
            return web.Response(status=405)
        return self.ops.answer(request.path)
