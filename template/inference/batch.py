"""Several sequences of different age in one forward pass: the synchronous core of the engine.

Each sequence owns a row of the key/value cache and fills it from the left; rows are as long as their own sequence,
and a mask hides what lies behind. So a new sequence is prefilled straight into a free row without touching the
others, and a finished one is replaced by the last row. Nothing is shifted or padded, and each row computes what it
would alone.

    batch = Batch(model, slots)
    logits = batch.admit(prompt_ids)        prefill; float32 logits of the next token, [vocabulary]
    logits = batch.step(tokens)             one token a row; [rows, vocabulary]
    batch.remove(row)                       the last row takes its place

Only models whose layers all use full attention are supported; others raise `UnsupportedModel` rather than being wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from protocol.sampling import Sampler, shortlist_size
from template.errors import TemplateError

GROWTH = 256  # tokens by which the cache grows; a multiple of what most answers need


class UnsupportedModel(TemplateError):
    """The engine cannot run this architecture."""


class SlotLayer(CacheLayerMixin):
    """Keys and values of one attention layer: [slots, heads, capacity, head size]."""

    is_sliding = False

    def __init__(self, book: Book) -> None:
        super().__init__()
        self.book = book

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        def room(states: torch.Tensor) -> torch.Tensor:
            # Zeros, not empty: what the mask hides is still multiplied by 0, and 0 * NaN is NaN.
            shape = (self.book.slots, states.shape[1], self.book.capacity, states.shape[3])
            return torch.zeros(shape, dtype=states.dtype, device=states.device)

        self.keys, self.values = room(key_states), room(value_states)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._ensure_capacity()
        book = self.book
        if book.prefill_row is not None:
            row, length = book.prefill_row, key_states.shape[2]
            self.keys[row, :, :length] = key_states[0]
            self.values[row, :, :length] = value_states[0]
            return key_states, value_states
        rows = len(book.lengths)
        self.keys[book.row_index, :, book.columns] = key_states[:, :, 0]
        self.values[book.row_index, :, book.columns] = value_states[:, :, 0]
        return self.keys[:rows, :, : book.longest], self.values[:rows, :, : book.longest]

    def _ensure_capacity(self) -> None:
        missing = self.book.capacity - self.keys.shape[2]
        if missing > 0:
            self.keys = torch.nn.functional.pad(self.keys, (0, 0, 0, missing))
            self.values = torch.nn.functional.pad(self.values, (0, 0, 0, missing))

    def move(self, source: int, target: int, length: int) -> None:
        if self.is_initialized:
            self.keys[target, :, :length] = self.keys[source, :, :length]
            self.values[target, :, :length] = self.values[source, :, :length]

    def get_seq_length(self) -> int:
        return 0  # masks and positions are given explicitly, so transformers never needs it

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_max_length(self) -> int:
        return -1


class Book:
    """Which row holds how many tokens, and where the current pass writes; shared by all layers."""

    def __init__(self, slots: int, device: torch.device) -> None:
        self.slots = slots
        self.device = device
        self.capacity = GROWTH
        self.lengths: list[int] = []
        self.prefill_row: int | None = None
        self.row_index = torch.zeros(0, dtype=torch.long, device=device)
        self.columns = torch.zeros(0, dtype=torch.long, device=device)

    @property
    def longest(self) -> int:
        """Columns visible in a decoding pass, the one being written included."""
        return max(self.lengths) + 1

    def reserve(self, tokens: int) -> None:
        while self.capacity < tokens:
            self.capacity += GROWTH


class Batch:
    """Up to `slots` sequences of one model. Not thread-safe; one thread owns it."""

    def __init__(self, model: Any, slots: int) -> None:
        plain = DynamicCache(config=model.config)
        if not plain.layers or any(type(layer) is not DynamicLayer for layer in plain.layers):
            raise UnsupportedModel(
                f"{type(model).__name__} has layers without plain full attention",
                remedy="choose a model with full attention in every layer",
            )
        self.model = model
        self.slots = slots
        self._layers = len(plain.layers)
        self._reset()

    def _reset(self) -> None:
        self.book = Book(self.slots, self.model.device)
        self.layers = [SlotLayer(self.book) for _ in range(self._layers)]
        self.cache = Cache(layers=self.layers)

    def __len__(self) -> int:
        return len(self.book.lengths)

    @torch.inference_mode()
    def admit(self, prompt_ids: Sequence[int]) -> torch.Tensor:
        """Prefill into the next free row, which becomes row `len(self) - 1`. Leaves the batch as it was on error."""
        book = self.book
        if len(book.lengths) >= self.slots:
            raise ValueError("all rows of the batch are taken")
        book.reserve(len(prompt_ids) + 1)
        book.prefill_row = len(book.lengths)
        try:
            ids = torch.tensor([list(prompt_ids)], dtype=torch.long, device=book.device)
            logits = self._forward(ids, torch.arange(ids.shape[1], device=book.device)[None], None)
        finally:
            book.prefill_row = None
        book.lengths.append(len(prompt_ids))
        return logits[0]

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Append one token to every row; logits of the token after it, [rows, vocabulary]."""
        book = self.book
        if len(tokens) != len(book.lengths):
            raise ValueError(f"{len(tokens)} tokens for {len(book.lengths)} rows")
        book.reserve(book.longest)
        book.columns = torch.tensor(book.lengths, dtype=torch.long, device=book.device)
        book.row_index = torch.arange(len(tokens), device=book.device)
        mask = None
        if min(book.lengths) != max(book.lengths):
            mask = (torch.arange(book.longest, device=book.device)[None] <= book.columns[:, None])[:, None, None]
        ids = torch.tensor(list(tokens), dtype=torch.long, device=book.device)[:, None]
        logits = self._forward(ids, book.columns[:, None], mask)
        book.lengths = [length + 1 for length in book.lengths]
        return logits

    @torch.inference_mode()
    def remove(self, row: int) -> None:
        """Drop `row`; the last row moves into its place. An empty batch gives its memory back."""
        last = len(self.book.lengths) - 1
        if row != last:
            for layer in self.layers:
                layer.move(last, row, self.book.lengths[last])
            self.book.lengths[row] = self.book.lengths[last]
        self.book.lengths.pop()
        if not self.book.lengths:
            self._reset()

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        output = self.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits


def shortlists(
    logits: torch.Tensor, samplers: Sequence[Sampler]
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """For each row of [rows, vocabulary] the (token ids, logits) that its sampler may need."""
    vocabulary = logits.shape[-1]
    sizes = [shortlist_size(sampler, vocabulary) for sampler in samplers]
    narrow = max((size for size in sizes if size < vocabulary), default=0)
    everything = np.arange(vocabulary, dtype=np.int64)
    if narrow:
        top = torch.topk(logits, narrow, dim=-1)
        top_ids, top_values = top.indices.cpu().numpy(), top.values.cpu().numpy()
    result = []
    for row, size in enumerate(sizes):
        if size == vocabulary:
            result.append((everything, logits[row].cpu().numpy()))
        else:
            result.append((top_ids[row, :size], top_values[row, :size]))
    return result
