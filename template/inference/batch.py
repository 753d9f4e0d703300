"""Several sequences of different age in one forward pass: the synchronous core of the engine.

Each sequence owns a row of the key/value cache and fills it from the left; rows are as long as their own sequence,
and a mask hides what lies behind. So new sequences are prefilled straight into free rows without touching the
others, and a finished one is replaced by the last row. Nothing is shifted, and each row computes what it would alone.

    batch = Batch(model, slots)
    view = batch.admit(prompt_ids)          prefill; what the next token is sampled from, one row
    view = batch.admit_group(prompts)       several at once, padded on the right
    view = batch.step(tokens)               one token a row; all rows
    batch.remove(row)                       the last row takes its place
    batch.fits([tokens, ...])               whether the cache may hold more rows, of these lengths in the end

The cache is rectangular, rows x columns, and changes in both directions as needed; `cache_tokens` bounds the product.
Whatever raises leaves the sequences as they were, so that running out of memory can be answered with a smaller batch.
Only models whose layers all use full attention are supported; others raise `UnsupportedModel` rather than being wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from protocol.sampling import Sampler, shortlist_size
from template.errors import TemplateError
from template.inference.readout import Readout

GROWTH = 256  # tokens by which the cache grows; a multiple of what most answers need

Shortlist: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


class UnsupportedModel(TemplateError):
    """The engine cannot run this architecture."""


@dataclass(frozen=True)
class View:
    """What next tokens are sampled from: float32 logits [rows, vocabulary] and the hidden states [rows, width]."""

    logits: torch.Tensor
    hidden: torch.Tensor

    def hidden_rows(self) -> npt.NDArray[np.float32]:
        """The hidden states on the host, [rows, width]."""
        rows: npt.NDArray[np.float32] = self.hidden.float().cpu().numpy()
        return rows

    def read(self, samplers: Sequence[Sampler]) -> tuple[list[Shortlist], npt.NDArray[np.float32]]:
        """Shortlists and hidden states of all rows, with one wait for the device."""
        return _read(self.logits, samplers, self.hidden)


class SlotLayer(CacheLayerMixin):
    """Keys and values of one attention layer: [rows, heads, columns, head size]."""

    is_sliding = False

    def __init__(self, book: Book) -> None:
        super().__init__()
        self.book = book

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys, self.values = self._room(key_states), self._room(value_states)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._ensure_room()
        book = self.book
        if book.prefill_row is not None:
            first, length = book.prefill_row, key_states.shape[2]
            self.keys[first : first + len(key_states), :, :length] = key_states
            self.values[first : first + len(value_states), :, :length] = value_states
            return key_states, value_states
        rows = len(book.lengths)
        self.keys[book.row_index, :, book.positions] = key_states[:, :, 0]
        self.values[book.row_index, :, book.positions] = value_states[:, :, 0]
        return self.keys[:rows, :, : book.longest], self.values[:rows, :, : book.longest]

    def _room(self, states: torch.Tensor) -> torch.Tensor:
        # Zeros, not empty: what the mask hides is still multiplied by 0, and 0 * NaN is NaN.
        return states.new_zeros((self.book.rows, states.shape[1], self.book.columns, states.shape[3]))

    def _ensure_room(self) -> None:
        if (self.keys.shape[0], self.keys.shape[2]) == (self.book.rows, self.book.columns):
            return
        self.keys, self.values = self._moved(self.keys), self._moved(self.values)

    def _moved(self, old: torch.Tensor) -> torch.Tensor:
        new, rows = self._room(old), len(self.book.lengths)
        columns = min(old.shape[2], self.book.columns)
        new[:rows, :, :columns] = old[:rows, :, :columns]
        return new

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

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rows, self.columns = 0, 0  # of the cache
        self.lengths: list[int] = []  # tokens of each row, and
        self.finals: list[int] = []  # what room is kept for
        self.prefill_row: int | None = None
        self.row_index = torch.zeros(0, dtype=torch.long, device=device)
        self.positions = torch.zeros(0, dtype=torch.long, device=device)

    @property
    def longest(self) -> int:
        """Columns visible in a decoding pass, the one being written included."""
        return max(self.lengths) + 1

    def widest(self, more: Sequence[int] = ()) -> int:
        """Columns needed for all rows, and `more`, to grow as far as room is kept for them."""
        return round_up(max([*self.finals, *self.lengths, *more]) + 1)


def round_up(tokens: int) -> int:
    """Columns that the cache has when a row needs `tokens`."""
    return -(-tokens // GROWTH) * GROWTH


class Batch:
    """Up to `slots` sequences of one model. Not thread-safe; one thread owns it."""

    def __init__(self, model: Any, slots: int, cache_tokens: int | None = None) -> None:
        plain = DynamicCache(config=model.config)
        if not plain.layers or any(type(layer) is not DynamicLayer for layer in plain.layers):
            raise UnsupportedModel(
                f"{type(model).__name__} has layers without plain full attention",
                remedy="choose a model with full attention in every layer",
            )
        self.model = model
        self.slots = slots
        self.cache_tokens = cache_tokens
        self.readout = Readout(model)
        self._layers = len(plain.layers)
        self._reset()

    def _reset(self) -> None:
        self.book = Book(self.model.device)
        self.layers = [SlotLayer(self.book) for _ in range(self._layers)]
        self.cache = Cache(layers=self.layers)

    def __len__(self) -> int:
        return len(self.book.lengths)

    @property
    def takes_groups(self) -> bool:
        """Whether `admit_group` may get several prompts: the last position of each row must be readable."""
        return self.readout.plain

    def fits(self, tokens: Sequence[int]) -> bool:
        """Whether rows that grow to `tokens` each may join, beside those here as they will have grown by then."""
        rows = len(self.book.lengths) + len(tokens)
        return rows <= self.slots and self._allowed(rows, self.book.widest(tokens))

    def could_ever_fit(self, tokens: int) -> bool:
        """Whether a row of so many tokens in the end may have the cache for itself."""
        return self._allowed(1, round_up(tokens + 1))

    def _allowed(self, rows: int, columns: int) -> bool:
        return self.cache_tokens is None or rows * columns <= self.cache_tokens

    def admit(self, prompt_ids: Sequence[int]) -> View:
        """Prefill into the next free row, which becomes row `len(self) - 1`."""
        return self.admit_group([prompt_ids])

    @torch.inference_mode()
    def admit_group(self, prompts: Sequence[Sequence[int]], finals: Sequence[int] = ()) -> View:
        """Prefill into the next free rows, in order. `finals`: tokens that each will have in the end; room for them is
        made now."""
        book = self.book
        first, lengths = len(book.lengths), [len(prompt) for prompt in prompts]
        if first + len(prompts) > self.slots:
            raise ValueError(f"{len(prompts)} more rows do not fit into {self.slots}, {first} of them taken")
        room = book.rows, book.columns
        finals = finals or lengths
        self._make_room(first + len(prompts), book.widest([*finals, *lengths]))
        book.prefill_row = first
        longest = max(lengths)
        # Padding on the right: with causal attention it cannot reach back, and the next token overwrites it.
        table = [[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts]
        last = [length - 1 for length in lengths]
        try:
            ids = self._to_device(table)
            at = self._to_device(last) if min(lengths) < longest else None
            view = self._forward(ids, torch.arange(longest, device=book.device)[None], None, at)
        except BaseException:
            book.rows, book.columns = room
            raise
        finally:
            book.prefill_row = None
        book.lengths.extend(lengths)
        book.finals.extend(finals)
        return view

    def _make_room(self, rows: int, columns: int) -> None:
        """Twice as many rows as before, so that arrivals one by one are not all a move; no more than needed when that
        would be too much."""
        book = self.book
        many = min(self.slots, max(rows, 2 * book.rows)) if rows > book.rows else book.rows
        generous = (many, max(columns, book.columns))
        book.rows, book.columns = generous if self._allowed(*generous) else (rows, columns)

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> View:
        """Append one token to every row; what the token after it is sampled from."""
        book = self.book
        rows = len(book.lengths)
        if len(tokens) != rows:
            raise ValueError(f"{len(tokens)} tokens for {rows} rows")
        room = book.columns
        book.columns = max(book.columns, book.widest())
        ids, book.positions = self._to_device([list(tokens), book.lengths])
        book.row_index = torch.arange(rows, device=book.device)
        mask = None
        if min(book.lengths) != max(book.lengths):
            mask = (torch.arange(book.longest, device=book.device)[None] <= book.positions[:, None])[:, None, None]
        try:
            view = self._forward(ids[:, None], book.positions[:, None], mask)
        except BaseException:
            book.columns = room
            raise
        book.lengths = [length + 1 for length in book.lengths]
        return view

    @torch.inference_mode()
    def remove(self, row: int) -> None:
        """Drop `row`; the last row moves into its place. An empty batch gives its memory back."""
        last = len(self.book.lengths) - 1
        if row != last:
            for layer in self.layers:
                layer.move(last, row, self.book.lengths[last])
            self.book.lengths[row], self.book.finals[row] = self.book.lengths[last], self.book.finals[last]
        self.book.lengths.pop()
        self.book.finals.pop()
        if not self.book.lengths:
            self._reset()

    def _to_device(self, numbers: Any) -> torch.Tensor:
        """A tensor of token ids or positions, sent without waiting for the device."""
        on_gpu = self.book.device.type == "cuda"
        return torch.tensor(numbers, dtype=torch.long, pin_memory=on_gpu).to(self.book.device, non_blocking=on_gpu)

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, at: torch.Tensor | None = None
    ) -> View:
        hidden, logits = self.readout.last(
            at, input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=self.cache, use_cache=True
        )
        return View(logits, hidden)


def shortlists(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[Shortlist]:
    """For each row of [rows, vocabulary] the (token ids, logits) that its sampler may need."""
    return _read(logits, samplers, logits[:0])[0]


def _read(
    logits: torch.Tensor, samplers: Sequence[Sampler], hidden: torch.Tensor
) -> tuple[list[Shortlist], npt.NDArray[np.float32]]:
    vocabulary = logits.shape[-1]
    sizes = [shortlist_size(sampler, vocabulary) for sampler in samplers]
    narrow = max((size for size in sizes if size < vocabulary), default=0)
    whole = [row for row, size in enumerate(sizes) if size == vocabulary]
    top = torch.topk(logits, narrow, dim=-1)
    complete = logits if len(whole) == len(sizes) else logits[whole]
    ids, values, complete, states = _to_host(top.indices, top.values, complete, hidden.float())
    everything = np.arange(vocabulary, dtype=np.int64)
    place = {row: index for index, row in enumerate(whole)}
    lists = [
        (everything, complete[place[row]]) if row in place else (ids[row, :size], values[row, :size])
        for row, size in enumerate(sizes)
    ]
    return lists, states


def _to_host(*tensors: torch.Tensor) -> list[npt.NDArray[Any]]:
    """Copies for numpy. On a GPU they go into pinned memory, side by side, and are waited for once."""
    device = tensors[0].device
    copies = [tensor.to("cpu", non_blocking=device.type == "cuda") for tensor in tensors]
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    return [copy.numpy() for copy in copies]
