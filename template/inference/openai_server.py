"""Serves an engine over HTTP, so that a miner need not hold the model: the server side of engine_api.py.

    server = EngineServer(engine, key="...", host="127.0.0.1", port=8090, max_context=4096)
    async with server: ...                  # server.port is known now; leaving cancels what is in work

One server may work for several miners: it holds no key of theirs and signs nothing. Whoever reaches it can use it, so
an address that others can reach needs an API key. Requests that are cancelled, or whose client hangs up, leave the
batch at its next pass.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import logging
import time
import uuid
from types import TracebackType
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from protocol.sampling import Sampler
from protocol.synapse import safe_text
from template.errors import TemplateError
from template.inference.backend import (
    Engine,
    EngineBusy,
    EngineError,
    EngineOutOfMemory,
    EngineRefused,
    EngineStopped,
    Generation,
)
from template.inference.engine_api import (
    COMPLETIONS,
    FINGERPRINT_FORM,
    KEEP_ALIVE_S,
    MAX_BODY_BYTES,
    MODELS,
    SAMPLER_FORM,
    STATUS,
    Code,
    CompletionRequest,
    Demands,
    IdentityBody,
)
from template.limits import Limits
from template.listener import Door

log = logging.getLogger(__name__)

HEALTH = "/health"
RETRY_AFTER_S = 2


class Exposed(TemplateError):
    """Strangers could use the engine."""


class ApiError(Exception):
    """An error of the contract, on its way to the client."""

    def __init__(self, code: Code, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status or STATUS[code]

    def body(self) -> bytes:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return json.dumps({"error": {"message": self.message, "type": kind, "code": self.code}}).encode()

    def response(self) -> web.Response:
        headers = {"Retry-After": str(RETRY_AFTER_S)} if self.status == STATUS["busy"] else None
        return web.Response(status=self.status, body=self.body(), content_type="application/json", headers=headers)


class EngineServer:
    """Serves one engine. `port` 0 picks one; read `port` after start."""

    def __init__(
        self, engine: Engine, *, max_context: int, key: str = "", host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.engine = engine
        self.max_context = max_context
        self._key = key.encode()
        self._limits = Limits()
        self._door = Door(
            self._serve,
            host,
            port,
            most=self._limits.max_connections,
            header_timeout=self._limits.header_timeout,
        )

    @property
    def port(self) -> int:
        return self._door.port

    async def __aenter__(self) -> EngineServer:
        """Bind and serve. Raises CannotListen, and Exposed."""
        if not self._key and not _is_loopback(self._door.host):
            raise Exposed(
                f"{self._door.host} can be reached by others and no API key is set",
                remedy="set TOUCHSTONE_ENGINE_KEY, for the engine and for its miners, or listen on 127.0.0.1",
            )
        await self._door.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._door.close()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._route(request)
        except ApiError as error:
            return error.response()
        except ConnectionError:
            raise
        except Exception:  # the client gets the code; the operator finds the reason here
            log.exception("a request failed")
            return ApiError("failed", "the engine server failed to answer").response()

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = (request.method, request.path)
        if asked == ("GET", HEALTH):
            health = {"ok": self.engine.running, "model": self.engine.identity.name}
            return web.json_response(health, status=200 if self.engine.running else 503)
        self._authorize(request)
        if asked == ("GET", MODELS):
            return web.json_response(self._models())
        if asked != ("POST", COMPLETIONS):
            raise ApiError("refused", f"nothing is served at {safe_text(request.path[:100])}", status=404)
        wanted = _parse(await self._body(request))
        self._check_model(wanted.touchstone)
        sampler = Sampler(temperature=wanted.temperature, top_k=wanted.top_k, top_p=wanted.top_p)
        try:
            seed = bytes.fromhex(wanted.touchstone.seed)
            generation = await self.engine.submit(wanted.prompt, sampler, seed, wanted.max_tokens)
        except EngineError as error:
            raise api_error(error) from None
        async with generation:
            return await self._stream(request, generation)

    def _authorize(self, request: web.BaseRequest) -> None:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").encode(errors="replace")
        if self._key and not hmac.compare_digest(given, self._key):
            raise ApiError("unauthorized", "this engine needs its API key as Authorization: Bearer KEY")

    async def _body(self, request: web.BaseRequest) -> bytes:
        if request.content_length is None or request.content_length > MAX_BODY_BYTES:
            raise ApiError("refused", f"send a body of known length, at most {MAX_BODY_BYTES} bytes", status=413)
        try:
            return await asyncio.wait_for(request.read(), self._limits.body_timeout)
        except asyncio.TimeoutError:
            raise ApiError("refused", "the body did not arrive in time", status=408) from None

    def _models(self) -> dict[str, Any]:
        identity = self.engine.identity
        offered = {
            "sampler": SAMPLER_FORM,
            "fingerprint": FINGERPRINT_FORM,
            "identity": IdentityBody.of(identity).model_dump(),
        }
        entry = {"id": identity.name, "object": "model", "created": 0, "owned_by": "touchstone", "touchstone": offered}
        entry["max_model_len"] = min(self.max_context, identity.context_length)
        return {"object": "list", "data": [entry]}

    def _check_model(self, demands: Demands) -> None:
        identity = self.engine.identity
        if (demands.root, demands.dtype) != (identity.root, identity.dtype):
            raise ApiError("other_model", f"this engine runs root {identity.root}, {identity.dtype}")
        if (demands.sampler, demands.fingerprint) != (SAMPLER_FORM, FINGERPRINT_FORM):
            raise ApiError(
                "other_model", f"this engine knows sampler {SAMPLER_FORM} and fingerprint {FINGERPRINT_FORM}"
            )

    async def _stream(self, request: web.BaseRequest, generation: Generation) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        frame = {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time())}
        frame["model"] = self.engine.identity.name
        try:
            while fresh := await _next(generation, response):
                await self._write(response, json.dumps({**frame, **_chunk(generation, fresh)}).encode())
            await self._write(response, b"[DONE]")
        except EngineError as error:
            await self._write(response, api_error(error).body())
        return response

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        """One event; a client that does not read is cut off."""
        try:
            await asyncio.wait_for(response.write(b"data: " + data + b"\n\n"), self._limits.write_timeout)
        except asyncio.TimeoutError:
            raise ConnectionResetError("the client does not read") from None


async def _next(generation: Generation, response: web.StreamResponse) -> list[int]:
    """As `next_tokens`, with signs of life while nothing comes."""
    task = asyncio.ensure_future(generation.next_tokens())
    try:
        while not (await asyncio.wait({task}, timeout=KEEP_ALIVE_S))[0]:
            await response.write(b": waiting\n\n")
        return task.result()
    finally:
        task.cancel()


def _chunk(generation: Generation, fresh: list[int]) -> dict[str, Any]:
    last = generation.finish_reason is not None and generation.all_read
    reason = {"eos": "stop", "length": "length"}[generation.finish_reason] if last else None
    choice = {"index": 0, "text": "", "token_ids": fresh, "logprobs": None, "finish_reason": reason}
    if not last:
        return {"choices": [choice]}
    queued = 1e3 * ((generation.admitted or generation.submitted) - generation.submitted)
    closing = {"fingerprint": generation.fingerprint, "queue_ms": round(max(0.0, queued), 3)}
    return {"choices": [choice], "touchstone": closing}


def _parse(body: bytes) -> CompletionRequest:
    try:
        return CompletionRequest.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "body"
        raise ApiError("refused", safe_text(f"{where[:100]}: {problem['msg'][:200]}")) from None


def api_error(error: EngineError) -> ApiError:
    if isinstance(error, EngineBusy):
        return ApiError("busy", error.message)
    if isinstance(error, EngineOutOfMemory):
        return ApiError("out_of_memory", error.message)
    if isinstance(error, EngineRefused):
        return ApiError("refused", error.message)
    log.error("generation failed: %s", error)
    if isinstance(error, EngineStopped):
        return ApiError("stopped", "the engine is closing, or failed; its operator finds the reason in the log")
    return ApiError("failed", "generation failed; the engine's operator finds the reason in the log")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
