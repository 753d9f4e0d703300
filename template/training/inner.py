"""Inner training: the steps that a miner takes in a window, and that an audit repeats.

    trainer = Trainer(module, recipe.inner, profile="tolerant", device="cpu")
    state = trainer.start(parameters)                       float32 [size]; moments are zero
    loss = trainer.step(state, ids, rate)                   one AdamW step; ids int64 [batch, length + 1]
    digest = state.digest()                                 what the trace is made of

The state is float32. What a step computes with is a copy of it in the dtype of the profile, and the result is rounded
into the state again:

    tolerant    float32: a replay on another instruction set differs in the last bits
    exact       float64, 2.6 times slower: rounding hides those bits, and a replay has the same state

Everything a step depends on is in its arguments, so a run that was interrupted goes on from a saved state, and a
referee starts at any step of a dispute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from protocol.training.recipe import Inner
from protocol.training.trace import state_digest
from template.training.layout import Layout

DTYPES = {"tolerant": torch.float32, "exact": torch.float64}


@dataclass
class State:
    """Training after `step` steps of a window. Tensors are float32 [size], on the trainer's device."""

    step: int
    parameters: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor

    def digest(self) -> bytes:
        """32 bytes; see protocol/training/trace.py."""
        return state_digest(self.step, [_bytes(part) for part in (self.parameters, self.first, self.second)])

    def copy(self) -> State:
        return State(self.step, self.parameters.clone(), self.first.clone(), self.second.clone())


class Trainer:
    """Trains one module; its parameters belong to the trainer from then on. Use it from one thread at a time.

    `threads`: CPU threads, of whichever thread uses it; None leaves torch's own choice.
    """

    def __init__(
        self,
        module: Any,
        inner: Inner,
        *,
        profile: str,
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        self.inner = inner
        self.layout = Layout.of(module)
        self._threads = threads
        self.device = torch.device(device)
        module.to(device=self.device)
        module.train()
        self._module = module
        self._work = torch.zeros(self.layout.size, dtype=DTYPES[profile], device=self.device)
        self._gradient = self.layout.attach(module, self._work)

    def start(self, parameters: np.ndarray | torch.Tensor) -> State:
        """The state before the first step, from float32 [size]."""
        given = torch.as_tensor(parameters, dtype=torch.float32).to(self.device, copy=True)
        return State(0, given, torch.zeros_like(given), torch.zeros_like(given))

    def step(self, state: State, ids: np.ndarray, rate: float) -> float:
        """One AdamW step in place, at the learning rate `rate`. `ids`: int64 [batch, length + 1]. Returns the mean
        loss before the step, in nats a token. Raises FloatingPointError when the loss is not finite: the state is
        then as it was."""
        self._use_threads()
        self._work.copy_(state.parameters)
        self._gradient.zero_()
        loss = self._loss(ids)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise FloatingPointError(f"the loss of step {state.step} is {value}")
        loss.backward()
        self._update(state, rate)
        return value

    @torch.no_grad()
    def losses(self, parameters: torch.Tensor, batches: list[np.ndarray]) -> list[float]:
        """Mean loss of each batch, int64 [batch, length + 1], under float32 [size] parameters."""
        self._use_threads()
        self._work.copy_(parameters)
        return [float(self._loss(ids)) for ids in batches]

    def _use_threads(self) -> None:
        if self._threads is not None and torch.get_num_threads() != self._threads:  # it is a setting of each thread
            torch.set_num_threads(self._threads)

    def _loss(self, ids: np.ndarray) -> torch.Tensor:
        given = torch.as_tensor(ids, dtype=torch.int64, device=self.device)
        logits = self._module(input_ids=given[:, :-1], use_cache=False).logits
        wide = logits if logits.dtype == torch.float64 else logits.float()
        return F.cross_entropy(wide.reshape(-1, wide.shape[-1]), given[:, 1:].reshape(-1))

    @torch.no_grad()
    def _update(self, state: State, rate: float) -> None:
        """AdamW in the dtype of the computation; the state takes the rounded result."""
        inner, dtype, gradient = self.inner, self._work.dtype, self._gradient
        norm = float(torch.linalg.vector_norm(gradient, dtype=torch.float64))
        if norm > inner.clip:
            gradient = gradient * (inner.clip / norm)
        state.step += 1
        first_correction, second_correction = inner.corrections(state.step)
        first = state.first.to(dtype) * inner.beta1 + gradient * (1.0 - inner.beta1)
        second = state.second.to(dtype) * inner.beta2 + gradient * gradient * (1.0 - inner.beta2)
        scale = (second / second_correction).sqrt() + inner.epsilon
        moved = state.parameters.to(dtype) * (1.0 - rate * inner.decay) - (rate / first_correction) * first / scale
        state.parameters.copy_(moved)
        state.first.copy_(first)
        state.second.copy_(second)


def _bytes(part: torch.Tensor) -> memoryview:
    return memoryview(part.detach().cpu().contiguous().numpy().astype("<f4", copy=False).data).cast("B")
