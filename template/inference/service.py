"""The miner's side of `inference.generate`: from a validated request to streamed chunks and the closing response.

    service = GenerateService(engine, engine.identity, hotkey)        # any Engine of backend.py
    async for frame in service(request): ...     # GenerateChunk, GenerateChunk, ..., GenerateResponse
    server.attach_stream(INFERENCE_GENERATE, service)

The seed follows from the request and this miner's hotkey, so the service adds nothing of its own. A request it cannot
serve is declined with a `Refusal`, whose code tells the validator why. Closing the generator early (the client left)
cancels the work.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from typing import TypeAlias

from protocol.challenges import ModelIdentity
from protocol.errors import Refusal, RefusalCode
from protocol.generation import GenerateChunk, GenerateRequest, GenerateResponse, Proof, Timings, derive_seed
from template.inference.backend import (
    Engine,
    EngineBusy,
    EngineError,
    EngineOutOfMemory,
    EngineRefused,
    EngineStopped,
    Generation,
)

log = logging.getLogger(__name__)

Frame: TypeAlias = GenerateChunk | GenerateResponse

RETRY_AFTER_S = 2.0


class GenerateService:
    """Callable handler; one for all requests of a miner."""

    def __init__(self, engine: Engine, identity: ModelIdentity, hotkey: str) -> None:
        self.engine = engine
        self.identity = identity
        self.hotkey = hotkey

    async def __call__(self, request: GenerateRequest, caller: object = None) -> AsyncIterator[Frame]:
        """Chunks as tokens arrive, then the response. Raises Refusal. Who may ask is the server's business."""
        if (request.model_root, request.dtype) != (self.identity.root, self.identity.dtype):
            raise Refusal(
                RefusalCode.MALFORMED,
                f"this miner serves {self.identity.name} with root {self.identity.root[:16]}, {self.identity.dtype}",
            )
        started = time.perf_counter()
        try:
            seed = derive_seed(request, self.hotkey)
            generation = await self.engine.submit(request.prompt_ids, request.sampler, seed, request.max_tokens)
            async with generation:
                offset = 0
                while fresh := await generation.next_tokens():
                    yield GenerateChunk(offset=offset, token_ids=tuple(fresh))
                    offset += len(fresh)
                yield respond(generation, started)
        except EngineError as error:
            raise refusal_for(error) from error


def respond(generation: Generation, started: float) -> GenerateResponse:
    """The closing response of a finished generation; `started` is perf_counter when the request arrived."""
    if generation.finish_reason is None or generation.finished is None:
        raise EngineStopped("the generation has not finished")
    admitted = generation.admitted or generation.finished
    first = generation.first_token or generation.finished
    timings = Timings(
        queue_ms=max(0.0, 1e3 * (admitted - started)),
        first_token_ms=max(0.0, 1e3 * (first - started)),
        total_ms=max(0.0, 1e3 * (generation.finished - started)),
    )
    return GenerateResponse(
        token_ids=tuple(generation.token_ids),
        finish_reason=generation.finish_reason,
        proof=Proof(fingerprint=generation.fingerprint),
        timings=timings,
    )


def refusal_for(error: EngineError) -> Refusal:
    """The safe sentence that a peer gets for an engine error."""
    if isinstance(error, EngineBusy):
        return Refusal(RefusalCode.BUSY, "too many requests are waiting", retry_after=RETRY_AFTER_S)
    if isinstance(error, EngineOutOfMemory):
        return Refusal(RefusalCode.BUSY, "no memory for this request at the moment", retry_after=RETRY_AFTER_S)
    if isinstance(error, EngineRefused):
        return Refusal(RefusalCode.MALFORMED, error.message)
    log.error("generation failed: %s", error)
    return Refusal(RefusalCode.INTERNAL, "the engine failed; the operator finds the reason in the log")
