"""Inner training: the steps that a miner takes in a window, and that an audit repeats.

    trainer = Trainer(module, recipe.inner, profile="tolerant", device="cpu")
    state = trainer.start(parameters)                       float32 [size]; moments are zero
    state = trainer.resume(state)                           one that was saved
    loss = trainer.step(state, ids, rate)                   one AdamW step; ids int64 [batch, length + 1]
    digest = state.digest()                                 what the trace is made of

The state is float32. What a step computes with is a copy of it, and the result is rounded into the state again:

    profile    compute     model      AdamW
    tolerant   float32     float32    float32    a replay on another instruction set differs in the last bits
    tolerant   bfloat16    bfloat16   float32    half the memory of a pass, and a replay differs by some percent
    exact                  float64    float64    2.6 times slower: rounding hides those bits, and a replay has the
                                                 same state

Everything a step depends on is in its arguments, so a run that was interrupted goes on from a saved state, and a
referee starts at any step of a dispute. In several processes: template/training/joined.py and sharded.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from protocol.training.recipe import Inner
from protocol.training.trace import state_digest
from template.training.layout import Layout
from template.training.wide import widen

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PARTS = ("parameters", "first", "second")


@dataclass
class State:
    """Training after `step` steps of a window. Tensors are float32 [size], on the trainer's device."""

    step: int
    parameters: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor

    def digest(self) -> bytes:
        """32 bytes; see protocol/training/trace.py."""
        return state_digest(self.step, (_bytes(getattr(self, part)) for part in PARTS))

    def copy(self) -> State:
        return State(self.step, self.parameters.clone(), self.first.clone(), self.second.clone())


@dataclass(frozen=True)
class Precision:
    """`model`: of parameters and gradients in a pass. `update`: of the optimizer, and of a sum of gradients."""

    model: torch.dtype
    update: torch.dtype

    @staticmethod
    def of(profile: str, compute: str = "float32") -> Precision:
        """Raises ValueError when there is no such precision."""
        if profile == "exact" and compute == "float32":
            return Precision(torch.float64, torch.float64)
        if profile == "tolerant" and compute in DTYPES:
            return Precision(DTYPES[compute], torch.float32)
        raise ValueError(f"no training in {compute} with profile {profile}")


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
        compute: str = "float32",
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        self.inner = inner
        self.layout = Layout.of(module)
        self.precision = Precision.of(profile, compute)
        self._threads = threads
        self.device = torch.device(device)
        self._module = module
        module.train()
        if self.precision.model == torch.float64:
            widen(module)
        self._place()

    def _place(self) -> None:
        self._module.to(device=self.device)
        self._work = torch.zeros(self.layout.size, dtype=self.precision.model, device=self.device)
        self._gradient = self.layout.attach(self._module, self._work)

    def start(self, parameters: np.ndarray | torch.Tensor) -> State:
        """The state before the first step, from float32 [size]."""
        given = torch.as_tensor(parameters, dtype=torch.float32).to(self.device, copy=True)
        return State(0, given, torch.zeros_like(given), torch.zeros_like(given))

    def resume(self, state: State) -> State:
        """A saved state, made ready for this trainer; `state` itself is not to be used any more."""
        return State(state.step, *(getattr(state, part).to(self.device) for part in PARTS))

    def step(self, state: State, ids: np.ndarray, rate: float) -> float:
        """One AdamW step in place, at the learning rate `rate`. `ids`: int64 [batch, length + 1]. Returns the mean
        loss before the step, in nats a token. Raises FloatingPointError when the loss is not finite: the state is
        then as it was."""
        use_threads(self._threads)
        value, gradient = self._slope(state.parameters, ids)
        require_finite(value, state.step)
        state.step += 1
        parts = state.parameters, state.first, state.second
        adamw(self.inner, state.step, rate, gradient, norm_of(gradient), parts)
        return value

    @torch.no_grad()
    def losses(self, parameters: torch.Tensor, batches: list[np.ndarray]) -> list[float]:
        """Mean loss of each batch, int64 [batch, length + 1], under float32 [size] parameters."""
        use_threads(self._threads)
        self._work.copy_(parameters)
        return [float(self._loss(ids)) for ids in batches]

    def _slope(self, parameters: torch.Tensor, ids: np.ndarray) -> tuple[float, torch.Tensor]:
        """Mean loss, and its gradient, [size] in the precision of the update."""
        return self._passes(parameters, ids)

    def _passes(self, parameters: torch.Tensor, ids: np.ndarray, weight: float = 1.0) -> tuple[float, torch.Tensor]:
        """`weight` times the loss of `ids`, forward and backward."""
        self._work.copy_(parameters)
        self._gradient.zero_()
        loss = self._loss(ids) * weight
        loss.backward()
        return float(loss.detach()), self._gradient.to(self.precision.update)

    def _loss(self, ids: np.ndarray) -> torch.Tensor:
        return mean_loss(self._module, torch.as_tensor(ids, dtype=torch.int64, device=self.device))


def mean_loss(module: Any, ids: torch.Tensor) -> torch.Tensor:
    """Cross entropy of each next token, int64 [batch, length + 1], in float32 or wider."""
    logits = module(input_ids=ids[:, :-1], use_cache=False).logits
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(wide.reshape(-1, wide.shape[-1]), ids[:, 1:].reshape(-1))


def norm_of(gradient: torch.Tensor) -> float:
    """Summed in float64."""
    return float(torch.linalg.vector_norm(gradient, dtype=torch.float64))


@torch.no_grad()
def adamw(
    inner: Inner,
    step: int,
    rate: float,
    gradient: torch.Tensor,
    norm: float,
    parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    """Step number `step`, from 1, in place on (parameters, first, second), float32 and shaped like `gradient`. The
    arithmetic is in the dtype of the gradient. `norm`: of the whole model's gradient."""
    parameters, first, second = parts
    dtype = gradient.dtype
    if norm > inner.clip:
        gradient = gradient * (inner.clip / norm)
    first_correction, second_correction = inner.corrections(step)
    mean = first.to(dtype) * inner.beta1 + gradient * (1.0 - inner.beta1)
    variance = second.to(dtype) * inner.beta2 + gradient * gradient * (1.0 - inner.beta2)
    scale = (variance / second_correction).sqrt() + inner.epsilon
    moved = parameters.to(dtype) * (1.0 - rate * inner.decay) - (rate / first_correction) * mean / scale
    parameters.copy_(moved)
    first.copy_(mean)
    second.copy_(variance)


def require_finite(loss: float, step: int) -> None:
    """Raises FloatingPointError."""
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss of step {step} is {loss}")


def use_threads(threads: int | None) -> None:
    """CPU threads of the calling thread; None leaves them."""
    if threads is not None and torch.get_num_threads() != threads:  # it is a setting of each thread
        torch.set_num_threads(threads)


def _bytes(part: torch.Tensor) -> memoryview:
    return memoryview(part.detach().cpu().contiguous().numpy().astype("<f4", copy=False).data).cast("B")
