"""One miner in several processes: who leads, what the others are asked to do, and how gradients are added up.

    team = Team.of_torchrun(timeout=...)       in every process that torchrun started; rank 0 leads, the others help
    team.order("begin", data, sharded=False)   the leader: what all do next; `order_ids` with tokens
    order = team.awaited(stop)                 a helper: the same, as soon as it is given
    team.connect("cpu")                        all of them: from here on tensors can be exchanged
    team.meet("built")                         nobody goes on before all have got there
    team.share(rows)                           which rows of a batch are this process's
    team.total(value)                          a number added up, for everybody
    team.summed(vector)                        a vector added up, for the leader
    team.close()                               the leader sends the helpers home

Only the leader is a neuron. A helper has no key, no chain and no folder, and does what it is told until it is told to
stop. Orders go through the store of torchrun, where waiting has no limit, because a miner waits for its window for as
long as the chain likes; tensors go through collectives, where waiting means that somebody is lost, and has `timeout`.
Sums are made in the order of the ranks, so that the same number of processes gives the same bits whatever the network
does.

`DistributedDataParallel` is not used. It would give every process a copy of the optimizer's state to keep alike, where
here the leader alone holds any, so that a killed miner resumes with another number of processes and a helper has
nothing to lose; it adds gradients in an order that the backend chooses; and it keeps gradients in buckets of its own,
where a model here is one vector already, sent whole.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.rendezvous import rendezvous

from template.errors import TemplateError

TIMEOUT = 300.0  # seconds; the slowest process may be so far behind the fastest
GRACE = 20.0  # seconds that a helper waits for the leader after it is told to stop; torchrun kills after 30
STOP = "stop"
BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


class TeamLost(TemplateError):
    """The processes of this miner cannot reach each other any more. There is no way back in the same processes."""


class NoTeam(TemplateError):
    """The processes cannot work together as they were started."""


@dataclass(frozen=True)
class Order:
    """What all processes do next. `said` and `data` are what it takes."""

    do: str
    said: dict[str, Any]
    data: bytes

    def encode(self) -> bytes:
        return json.dumps({"do": self.do, **self.said}).encode() + b"\n" + self.data

    @staticmethod
    def parse(text: bytes) -> Order:
        head, _, data = text.partition(b"\n")
        said = json.loads(head)
        return Order(said.pop("do"), said, data)

    def ids(self) -> npt.NDArray[np.int64]:
        """The tokens that `Team.order_ids` gave, [batch, length + 1]."""
        return np.frombuffer(self.data, "<i8").reshape(self.said["shape"]).astype(np.int64)


@dataclass
class Team:
    """This process's place among them."""

    rank: int
    size: int
    store: dist.Store
    timeout: float = TIMEOUT
    _given: int = field(default=0, init=False)  # orders so far
    _connected: bool = field(default=False, init=False)

    @staticmethod
    def of_torchrun(timeout: float = TIMEOUT) -> Team:
        """From the environment that torchrun sets. `timeout`: seconds for one exchange of tensors. Raises TeamLost."""
        with lost_on_error():
            store, rank, size = next(iter(rendezvous("env://", timeout=timedelta(seconds=TIMEOUT))))
        life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun may keep its store from one to the next
        return Team(rank, size, dist.PrefixStore(f"life/{life}", store), timeout)

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def order(self, do: str, data: bytes = b"", **said: Any) -> None:
        """Tell the helpers. Raises TeamLost."""
        with lost_on_error():
            self.store.set(f"order/{self._given}", Order(do, said, data).encode())
            if self._given > 1:  # everybody took part in the one before the last
                self.store.delete_key(f"order/{self._given - 2}")
        self._given += 1

    def order_ids(self, do: str, ids: npt.NDArray[np.int64], **said: Any) -> None:
        self.order(do, ids.astype("<i8").tobytes(), shape=ids.shape, **said)

    def awaited(self, stop: threading.Event, grace: float = GRACE) -> Order:
        """The next order. After `stop` it is waited for `grace` seconds only: the leader was told to stop too, and ends
        what it is at. Raises TeamLost when none comes, or the store is gone, which torchrun keeps."""
        key, began, stopped = f"order/{self._given}", time.monotonic(), None
        with lost_on_error():
            while not self.store.check([key]):
                now = time.monotonic()
                if stop.is_set():
                    if self._given == 0:
                        return Order(STOP, {}, b"")  # it has not begun
                    stopped = stopped or now
                    if now - stopped > grace:
                        raise TeamLost("told to stop, and the leading process gives no more orders")
                time.sleep(min(max((now - began) / 100, 1e-4), 0.05))  # a hundredth of the wait is added to it
            text = self.store.get(key)
        self._given += 1
        return Order.parse(text)

    def meet(self, where: str) -> None:
        """Go on when all have come to this point of the present order. Raises TeamLost after TIMEOUT."""
        keys = [f"{where}/{self._given}/{rank}" for rank in range(self.size)]
        with lost_on_error():
            self.store.set(keys[self.rank], b"")
            self.store.wait(keys, timedelta(seconds=TIMEOUT))

    def connect(self, device: str) -> None:
        """Once; `device`: cpu or cuda. Raises TeamLost and NoTeam."""
        if self._connected:
            return
        if device not in BACKENDS:
            raise NoTeam(f"several processes cannot train on {device}", remedy="start one process, without torchrun")
        self.meet("connect")
        with lost_on_error():
            dist.init_process_group(
                BACKENDS[device],
                store=dist.PrefixStore("group", self.store),
                rank=self.rank,
                world_size=self.size,
                timeout=timedelta(seconds=self.timeout),
            )
        self._connected = True

    def share(self, rows: int) -> slice:
        """Contiguous, as even as it goes; empty for some when there are more processes than rows."""
        return slice(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def from_leader(self, values: torch.Tensor) -> None:
        """The leader's tensor, in place, for everybody. Raises TeamLost."""
        with lost_on_error():
            dist.broadcast(values, src=0)

    def total(self, value: float, device: torch.device) -> float:
        """The same sum in every process, in the order of the ranks. Raises TeamLost."""
        mine = torch.tensor([value], dtype=torch.float64, device=device)
        each = [torch.empty_like(mine) for _ in range(self.size)]
        with lost_on_error():
            dist.all_gather(each, mine)
            return sum(float(one) for one in each)

    def summed(self, values: torch.Tensor) -> torch.Tensor:
        """Elementwise sum of every process's vector, in the order of the ranks, for the leader; the others get their
        own back. Each adds up its part of the vector. Raises TeamLost."""
        part = -(-values.numel() // self.size)
        sent = F.pad(values, (0, part * self.size - values.numel()))
        parts = torch.empty_like(sent)
        with lost_on_error():
            dist.all_to_all_single(parts, sent)
            rows = parts.view(self.size, part)
            for row in rows[1:]:
                rows[0] += row
            dist.gather(rows[0].clone(), list(sent.view(self.size, part)) if self.leads else None, dst=0)
        return sent[: values.numel()] if self.leads else values

    def to_leader(self, values: torch.Tensor, size: int) -> torch.Tensor | None:
        """Everybody's vectors one after the other, each filled up to `size`, on the CPU of the leader; None elsewhere.
        Raises TeamLost."""
        sent = F.pad(values, (0, size - values.numel()))
        whole = torch.empty(self.size, size, dtype=sent.dtype, device=sent.device) if self.leads else None
        with lost_on_error():
            dist.gather(sent, None if whole is None else list(whole), dst=0)
        return None if whole is None else whole.cpu().reshape(-1)

    def close(self) -> None:
        """The leader's helpers end. Nothing is raised: they may have ended already."""
        if self.leads:
            with suppress(TeamLost):  # the store went with whoever kept it, and helpers see that themselves
                self.order(STOP)
        if self._connected:
            dist.destroy_process_group()
            self._connected = False


def local_device(device: str) -> str:
    """This process's own accelerator when the setting says cuda. Raises NoTeam when there are not enough."""
    if device != "cuda":
        return device
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number >= torch.cuda.device_count():
        raise NoTeam(
            f"process {number} of this machine has no GPU of its own: there are {torch.cuda.device_count()}",
            remedy="give torchrun --nproc-per-node the number of GPUs",
        )
    torch.cuda.set_device(number)
    return f"cuda:{number}"


@contextmanager
def lost_on_error() -> Iterator[None]:
    """TeamLost instead of RuntimeError, which torch raises, in several kinds, when store or collectives fail. A process
    that lacks memory has lost nobody."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise TeamLost(
            f"the processes of this miner lost each other: {str(error).splitlines()[0]}",
            remedy="start it again; with torchrun --max-restarts=N that happens by itself",
        ) from error
