"""Inner training of a model that one GPU cannot hold: every process has a part of each tensor, and of the state.

    trainer = ShardedTrainer(module, inner, team=team, ...)    in every process; see template/training/joined.py
    state = trainer.start(vector)                              the leader: sent out in parts
    trainer.step(state, ids, rate)
    state.parameters, state.digest(), state.copy()             put together again, on the leader's CPU

Tensors are cut along their first dimension, as FSDP2 (`fully_shard`) does, which puts a layer together when a pass
needs it and adds up gradients. AdamW works on a process's own part. The leader's main memory holds whole vectors all
the same, because contribution and error buffer are made there; no GPU does.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from protocol.training.recipe import Inner
from template.training.distributed import Order, Team, lost_on_error
from template.training.inner import PARTS, State, Trainer, adamw, mean_loss, norm_of, require_finite, use_threads


class ShardedState(State):
    """A state that lies in parts, or did: one lies there at a time, and the leader keeps what another one displaced.
    Reading raises TeamLost."""

    def __init__(self, trainer: ShardedTrainer, step: int) -> None:
        self.step = step
        self._trainer = trainer
        self.kept: dict[str, torch.Tensor] = {}  # float32 [size] by part, once it was displaced

    def _part(self, part: str) -> torch.Tensor:
        return self.kept[part] if self.kept else self._trainer.gather(part)

    parameters = property(lambda self: self._part("parameters"))  # type: ignore[assignment]
    first = property(lambda self: self._part("first"))  # type: ignore[assignment]
    second = property(lambda self: self._part("second"))  # type: ignore[assignment]


class ShardedTrainer(Trainer):
    """`device`, as others see it, is where states are put together: the CPU. All methods raise TeamLost."""

    def __init__(self, module: Any, inner: Inner, *, team: Team, **options: Any) -> None:
        self._team = team
        self._held: Callable[[], ShardedState | None] = lambda: None  # the state that lies in parts
        super().__init__(module, inner, **options)

    def _place(self) -> None:
        self._where, self.device = self.device, torch.device("cpu")
        low = self.precision.model == torch.bfloat16
        for parameter in self._module.parameters():  # buffers stay as they are, like those of a Trainer
            parameter.data = parameter.data.to(self.precision.update)
        options: dict[str, Any] = {
            "mesh": init_device_mesh(self._where.type, (self._team.size,)),
            "mp_policy": MixedPrecisionPolicy(torch.bfloat16, torch.float32) if low else MixedPrecisionPolicy(),
            "reshard_after_forward": True,  # of the outermost too: its tensors change between two passes
        }
        for layer in self._module.model.layers:
            fully_shard(layer, **options)
        fully_shard(self._module, **options)
        named = dict(self._module.named_parameters())
        self._tensors = {name: named[name] for name in self.layout.shapes}
        self._sizes = [tensor.to_local().numel() for tensor in self._tensors.values()]
        self._parts = {part: self._empty() for part in PARTS}

    def start(self, parameters: np.ndarray | torch.Tensor) -> State:
        self._displace()
        self._team.order("start")
        self._all_start(torch.as_tensor(parameters, dtype=torch.float32))
        return self._hold(ShardedState(self, 0))

    def resume(self, state: State) -> State:
        return self._load(state, ShardedState(self, state.step))

    def step(self, state: State, ids: np.ndarray, rate: float) -> float:
        """As a Trainer does; a state that does not lie in parts is sent out before and fetched back after."""
        if not isinstance(state, ShardedState):
            held = self.resume(state)
            value = self.step(held, ids, rate)
            for part in PARTS:
                getattr(state, part).copy_(getattr(held, part))
            state.step = held.step
            return value
        if state.kept:
            self._load(state, state)
        self._team.order_ids("step", ids, step=state.step, rate=rate)
        value = self._all_step(ids, state.step, rate)
        require_finite(value, state.step)
        state.step += 1
        return value

    def losses(self, parameters: torch.Tensor, batches: list[np.ndarray]) -> list[float]:
        self._team.order("write")
        self._all_write(parameters)
        found = []
        for ids in batches:
            self._team.order_ids("loss", ids)
            found.append(self._all_loss(ids))
        return found

    def gather(self, part: str) -> torch.Tensor:
        """Of the state that lies in parts: float32 [size] on the CPU."""
        self._team.order("gather", part=part)
        return self._all_gather(part)

    def take_part(self, order: Order) -> None:
        """A helper's part of what the leader's methods do."""
        said = order.said
        if order.do == "start":
            self._all_start(None)
        elif order.do == "resume":
            self._all_resume([None] * len(PARTS))
        elif order.do == "step":
            self._all_step(order.ids(), said["step"], said["rate"])
        elif order.do == "write":
            self._all_write(None)
        elif order.do == "loss":
            self._all_loss(order.ids())
        elif order.do == "gather":
            self._all_gather(said["part"])

    def _load(self, state: State, held: ShardedState) -> State:
        """Send `state` out as `held`."""
        vectors = [getattr(state, part) for part in PARTS]
        self._displace()
        self._team.order("resume")
        self._all_resume(vectors)
        held.kept = {}
        return self._hold(held)

    def _displace(self) -> None:
        """Keep what lies in parts if anybody has a use for it."""
        held = self._held()
        if held is not None:
            held.kept = {part: self.gather(part) for part in PARTS}

    def _hold(self, state: ShardedState) -> State:
        self._held = weakref.ref(state)
        return state

    def _all_start(self, vector: torch.Tensor | None) -> None:
        self._all_scatter(vector, self._parts["parameters"])
        self._parts["first"].zero_()
        self._parts["second"].zero_()

    def _all_resume(self, vectors: list[torch.Tensor | None]) -> None:
        for part, vector in zip(PARTS, vectors, strict=True):
            self._all_scatter(vector, self._parts[part])

    def _all_step(self, ids: np.ndarray, step: int, rate: float) -> float:
        """The loss, which is the same everywhere; when it is not finite, nothing else is done."""
        self._write(self._parts["parameters"])
        self._module.zero_grad(set_to_none=True)
        with lost_on_error():
            loss = self._share_of_loss(ids)
            value = self._total(loss.detach())
            if not math.isfinite(value):
                return value
            (loss * self._team.size).backward()  # FSDP2 divides by the number of processes
        slopes = [tensor.grad.to_local().reshape(-1) for tensor in self._tensors.values()]
        gradient = torch.cat(slopes).to(self.precision.update)
        norm = math.sqrt(self._total(norm_of(gradient) ** 2))
        parts = self._parts["parameters"], self._parts["first"], self._parts["second"]
        adamw(self.inner, step + 1, rate, gradient, norm, parts)
        return value

    def _all_write(self, vector: torch.Tensor | None) -> None:
        """The model from the leader's vector; the state stays."""
        given = self._empty()
        self._all_scatter(vector, given)
        self._write(given)

    @torch.no_grad()
    def _all_loss(self, ids: np.ndarray) -> float:
        with lost_on_error():
            return self._total(self._share_of_loss(ids))

    def _all_scatter(self, vector: torch.Tensor | None, into: torch.Tensor) -> None:
        """From the leader's float32 [size] to everybody's own part of each tensor."""
        whole = self.layout.tensors(vector) if vector is not None else {}
        for (name, shape), own in zip(self.layout.shapes.items(), into.split(self._sizes), strict=True):
            sent = whole[name].to(self._where, copy=True) if whole else torch.empty(shape, device=self._where)
            self._team.from_leader(sent)
            rows = -(-shape[0] // self._team.size)
            own.copy_(sent[rows * self._team.rank : rows * (self._team.rank + 1)].reshape(-1))

    def _all_gather(self, part: str) -> torch.Tensor:
        """The inverse, on the leader; nothing of use elsewhere."""
        found = torch.empty(self.layout.size if self._team.leads else 0)
        start = 0
        for shape, own in zip(self.layout.shapes.values(), self._parts[part].split(self._sizes), strict=True):
            rows, wide = -(-shape[0] // self._team.size), math.prod(shape[1:])
            whole = self._team.to_leader(own, rows * wide)
            if whole is not None:
                end = start + math.prod(shape)
                found[start:end] = whole[: end - start]
                start = end
        return found

    def _share_of_loss(self, ids: np.ndarray) -> torch.Tensor:
        """Weighed by this process's part of the batch. One that has none takes part with a loss of zero, because every
        pass is everybody's."""
        use_threads(self._threads)
        mine = ids[self._team.share(len(ids))]
        given = torch.as_tensor(mine if len(mine) else ids[:1], dtype=torch.int64, device=self._where)
        return mean_loss(self._module, given) * (len(mine) / len(ids))

    def _total(self, value: torch.Tensor | float) -> float:
        return self._team.total(float(value), self._where)

    @torch.no_grad()
    def _write(self, own: torch.Tensor) -> None:
        for tensor, values in zip(self._tensors.values(), own.split(self._sizes), strict=True):
            local = tensor.to_local()
            local.copy_(values.view(local.shape))

    def _empty(self) -> torch.Tensor:
        return torch.zeros(sum(self._sizes), device=self._where)
