"""What a cheating miner works with: an engine, the right model, and means to prove tokens it did not sample honestly.

    async with opened(loaded, hotkey, models.int8) as kitchen: ...     # the engine runs what the change makes of it
    await kitchen.answer(request, sampler=..., seed=...)                # generated with what was not asked for
    await kitchen.proved(request, tokens, "length")                     # any tokens, with the fingerprint due to them
    async with with_upstream(kitchen, hotkey, seeds_of) as kitchen      # somebody else to forward to
    Text(model, prompt_ids)                                             # one sequence: read on, look, take back

`proved` is the strongest thing a cheat can do about its fingerprint: one prefill of the right model over prompt and
tokens, projected with the right seed. All work outside the engine runs in one thread, so that many requests at once do
not fight for the cores.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

import torch
from transformers import DynamicCache

from protocol.fingerprint import Fingerprinter
from protocol.inference import (
    INFERENCE_GENERATE,
    GenerateRequest,
    GenerateResponse,
    Proof,
    Sampler,
    Timings,
    derive_seed,
)
from template.client import SynapseClient, Target
from template.inference.engine import ContinuousBatchingEngine, EngineSettings
from template.inference.models import LoadedModel
from template.inference.readout import Readout
from template.inference.service import GenerateService
from template.keys import Hotkey
from template.limits import OpenPolicy
from template.server import SynapseServer

T = TypeVar("T")
ModelChange: TypeAlias = Callable[[LoadedModel], LoadedModel]
Larder: TypeAlias = dict[tuple[object, ...], GenerateResponse]

NO_TIMINGS = Timings(queue_ms=0.0, first_token_ms=0.0, total_ms=0.0)
_COOK = ThreadPoolExecutor(1, thread_name_prefix="cheat")


@dataclass(frozen=True)
class Upstream:
    """Another miner, asked over the real protocol."""

    client: SynapseClient
    target: Target


@dataclass(frozen=True)
class Kitchen:
    """`loaded` is the right model; `runs` is what the engine runs when that is another. `delay_s`: how late the late
    one is. `larder`, when given, keeps answers, so that cheats which begin with the same work do it once.
    """

    engine: ContinuousBatchingEngine
    loaded: LoadedModel
    hotkey: str
    delay_s: float = 60.0
    runs: LoadedModel | None = None
    upstream: Upstream | None = None
    larder: Larder | None = None

    async def answer(
        self, request: GenerateRequest, *, sampler: Sampler | None = None, seed: bytes | None = None
    ) -> GenerateResponse:
        """An answer generated with a sampler or seed that may not be the ones asked for."""
        used, key = sampler or request.sampler, seed or derive_seed(request, self.hotkey)
        order = (id(self.engine), request.prompt_ids, request.max_tokens, used, key)
        if self.larder is None or order not in self.larder:
            async with await self.engine.submit(request.prompt_ids, used, key, request.max_tokens) as generation:
                tokens = tuple([token async for token in generation])
                assert generation.finish_reason is not None
                proof = Proof(fingerprint=generation.fingerprint)
                response = _response(tokens, generation.finish_reason, proof)
            if self.larder is None:
                return response
            self.larder[order] = response
        return self.larder[order]

    async def proved(self, request: GenerateRequest, tokens: Sequence[int], finish_reason: Any) -> GenerateResponse:
        """These tokens with the fingerprint that the right model, prompt and seed give for them."""
        return await in_kitchen(self._proved, request, tuple(tokens), finish_reason)

    def _proved(self, request: GenerateRequest, tokens: tuple[int, ...], finish_reason: Any) -> GenerateResponse:
        prints = Fingerprinter(derive_seed(request, self.hotkey), self.readout.width)
        with torch.inference_mode():
            ids = torch.tensor([[*request.prompt_ids, *tokens[:-1]]], device=self.loaded.model.device)
            hidden, _ = self.readout.all_of_one(ids, len(tokens))
        for row in hidden.float().cpu().numpy():
            prints.add(row)
        return _response(tokens, finish_reason, Proof(fingerprint=prints.encode()))

    @property
    def cheap_model(self) -> Any:
        """The model that the engine runs, for work outside of it."""
        return (self.runs or self.loaded).model

    @cached_property
    def readout(self) -> Readout:
        return Readout(self.loaded.model)


def _response(tokens: tuple[int, ...], finish_reason: Any, proof: Proof) -> GenerateResponse:
    return GenerateResponse(token_ids=tokens, finish_reason=finish_reason, proof=proof, timings=NO_TIMINGS)


async def in_kitchen(work: Callable[..., T], *args: object) -> T:
    """Run `work(*args)` in the one thread that all cheats share."""
    return await asyncio.get_running_loop().run_in_executor(_COOK, work, *args)


@asynccontextmanager
async def opened(
    loaded: LoadedModel,
    hotkey: str,
    change: ModelChange | None = None,
    settings: EngineSettings | None = None,
    **more: Any,
) -> AsyncIterator[Kitchen]:
    """A kitchen whose engine runs `change(loaded)`. `more`: other fields of the kitchen."""
    served = await asyncio.to_thread(change, loaded) if change else loaded
    async with ContinuousBatchingEngine(served, settings) as engine:
        yield Kitchen(engine, loaded, hotkey, runs=served, **more)


@asynccontextmanager
async def with_upstream(kitchen: Kitchen, signs: Hotkey, seeds_of: str) -> AsyncIterator[Kitchen]:
    """The kitchen with another miner behind it: a server on loopback that signs with `signs` and answers honestly, as
    if for the hotkey `seeds_of`."""
    server = SynapseServer(signs, policy=OpenPolicy(), host="127.0.0.1")
    server.attach_stream(INFERENCE_GENERATE, GenerateService(kitchen.engine, kitchen.loaded.identity, seeds_of))
    async with server, SynapseClient(Hotkey.from_uri("//relay-client"), allow_local=True) as client:
        yield replace(kitchen, upstream=Upstream(client, Target(signs.ss58, "127.0.0.1", server.port)))


class Text:
    """One sequence of one model with its key/value cache. `length` counts the tokens read."""

    def __init__(self, model: Any, prompt_ids: Sequence[int]) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)
        self.next = self.read(prompt_ids)[-1]  # logits of the token that comes next, [vocabulary]

    @property
    def length(self) -> int:
        return int(self._cache.get_seq_length())

    @torch.inference_mode()
    def read(self, tokens: Sequence[int]) -> torch.Tensor:
        """Append tokens; float32 logits after each of them, [tokens, vocabulary]."""
        ids = torch.tensor([list(tokens)], device=self._model.device)
        logits: torch.Tensor = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True).logits[0].float()
        self.next = logits[-1]
        return logits

    @torch.inference_mode()
    def forget(self, length: int) -> None:
        """Take back everything after the first `length` tokens. `next` is then stale until something is read."""
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[..., :length, :], layer.values[..., :length, :]
