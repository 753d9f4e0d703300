"""Scheduler: root's calls for later blocks, under a name or not, once or periodically, with retries.

    schedule(_named)(_after), cancel(_named)    place a task in a block's agenda, take it out
    set_retry(_named), cancel_retry(_named)     what happens when it fails

A task is known by its address (block, place in the agenda). At the start of a block its agenda is worked off by
priority, lowest number first. Weight is not metered here: a block's agenda is always finished, so `IncompleteSince`,
which the released chain writes every block, stays empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localnet.errors import DispatchError
from localnet.rules.fixed import U32_MAX
from localnet.runtime.framework import HASHERS, Origin, Pallet, StorageMap, call, ensure_root
from localnet.runtime.pallets.utility import origin_of

_hash = HASHERS["Twox64Concat"][0]  # of the agenda's key
ROOT = ("system", "Root")  # the only origin that may schedule
Task = Mapping[str, Any]  # maybe_id, priority, call (stored), maybe_periodic, origin
Address = tuple[int, int]
Period = tuple[int, int]  # blocks between runs, runs


class Scheduler(Pallet):
    name = "Scheduler"

    Agenda = StorageMap[list[Task | None]]()  # block
    Lookup = StorageMap[Address | None]()  # name
    Retries = StorageMap[dict[str, int] | None]()  # address

    # -- placing ----------------------------------------------------------------------------------------------------

    def _schedule(self, when: int, periodic: Period | None, priority: int, inner: Any, name: bytes | None) -> None:
        """Raises FailedToSchedule (the name is taken), TargetBlockNumberInPast, Exhausted."""
        stored = self.rt.preimage.bound(inner)
        if name is not None and name in self.Lookup:
            raise self.error("FailedToSchedule")
        if when <= self.rt.number:
            raise self.error("TargetBlockNumberInPast")
        repeats = None if periodic is None or periodic[1] <= 1 or not periodic[0] else (periodic[0], periodic[1] - 1)
        task = {"maybe_id": name, "priority": priority, "call": stored, "maybe_periodic": repeats, "origin": ROOT}
        self._place(when, task)
        if stored[0] == "Lookup":
            self.rt.preimage.request(stored[1]["hash"])

    def _place(self, when: int, task: Task) -> Address:
        """Into the first free place once the agenda has its full length; no later than the last block there can be.

        Raises Exhausted.
        """
        when = min(when, U32_MAX)
        agenda = list(self.Agenda[when])
        if len(agenda) < self.rt.document.constants[self.name, "MaxScheduledPerBlock"]:
            agenda.append(task)
            index = len(agenda) - 1
        elif None in agenda:
            index = agenda.index(None)
            agenda[index] = task
        else:
            raise DispatchError("Exhausted")
        self.Agenda[when] = agenda
        if task["maybe_id"] is not None:
            self.Lookup[task["maybe_id"]] = (when, index)
        self.emit("Scheduled", when=when, index=index)
        return when, index

    @call()
    def schedule(self, origin: Origin, when: int, maybe_periodic: Period | None, priority: int, call: Any) -> None:
        ensure_root(origin)
        self._schedule(when, maybe_periodic, priority, call, None)

    @call()
    def schedule_named(
        self, origin: Origin, id: bytes, when: int, maybe_periodic: Period | None, priority: int, call: Any
    ) -> None:
        ensure_root(origin)
        self._schedule(when, maybe_periodic, priority, call, id)

    @call()
    def schedule_after(
        self, origin: Origin, after: int, maybe_periodic: Period | None, priority: int, call: Any
    ) -> None:
        """`after` 0: in the next block."""
        ensure_root(origin)
        self._schedule(self.rt.number + after + 1, maybe_periodic, priority, call, None)

    @call()
    def schedule_named_after(
        self, origin: Origin, id: bytes, after: int, maybe_periodic: Period | None, priority: int, call: Any
    ) -> None:
        ensure_root(origin)
        self._schedule(self.rt.number + after + 1, maybe_periodic, priority, call, id)

    # -- taking out -------------------------------------------------------------------------------------------------

    def _task(self, address: Address) -> Task:
        """Raises NotFound."""
        when, index = address
        agenda = self.Agenda[when]
        task = agenda[index] if index < len(agenda) else None
        if task is None:
            raise self.error("NotFound")
        return task

    def _named(self, name: bytes) -> Address:
        """Raises NotFound."""
        address = self.Lookup[name]
        if address is None:
            raise self.error("NotFound")
        return address

    def _cancel(self, address: Address) -> None:
        """Raises NotFound."""
        task, (when, index) = self._task(address), address
        self.rt.preimage.drop(task["call"])
        if task["maybe_id"] is not None:
            del self.Lookup[task["maybe_id"]]
        del self.Retries[address]
        agenda = list(self.Agenda[when])
        agenda[index] = None
        while agenda and agenda[-1] is None:
            agenda.pop()
        self._put_agenda(when, agenda)
        self.emit("Canceled", when=when, index=index)

    def _put_agenda(self, when: int, agenda: list[Task | None]) -> None:
        if agenda:
            self.Agenda[when] = agenda
        else:
            del self.Agenda[when]

    @call()
    def cancel(self, origin: Origin, when: int, index: int) -> None:
        ensure_root(origin)
        self._cancel((when, index))

    @call()
    def cancel_named(self, origin: Origin, id: bytes) -> None:
        ensure_root(origin)
        self._cancel(self._named(id))

    # -- retries ----------------------------------------------------------------------------------------------------

    def _set_retry(self, address: Address, name: bytes | None, retries: int, period: int) -> None:
        self._task(address)
        self.Retries[address] = {"total_retries": retries, "remaining": retries, "period": period}
        self.emit("RetrySet", task=address, id=name, period=period, retries=retries)

    def _cancel_retry(self, address: Address, name: bytes | None) -> None:
        self._task(address)
        del self.Retries[address]
        self.emit("RetryCancelled", task=address, id=name)

    @call()
    def set_retry(self, origin: Origin, task: Address, retries: int, period: int) -> None:
        ensure_root(origin)
        self._set_retry(task, None, retries, period)

    @call()
    def set_retry_named(self, origin: Origin, id: bytes, retries: int, period: int) -> None:
        ensure_root(origin)
        self._set_retry(self._named(id), id, retries, period)

    @call()
    def cancel_retry(self, origin: Origin, task: Address) -> None:
        ensure_root(origin)
        self._cancel_retry(task, None)

    @call()
    def cancel_retry_named(self, origin: Origin, id: bytes) -> None:
        ensure_root(origin)
        self._cancel_retry(self._named(id), id)

    # -- running ----------------------------------------------------------------------------------------------------

    def on_initialize(self, number: int) -> None:
        """Work the block's agenda off. A block without one costs one look-up of a key not worth remembering."""
        if self.rt.state.get(self.Agenda.entry.prefix + _hash(number.to_bytes(4, "little"))) is None:
            return
        agenda = list(self.Agenda[number])
        lost: list[Task | None] = [None] * len(agenda)  # what could not be run stays for the record
        for index, task in sorted(enumerate(agenda), key=lambda one: 0 if one[1] is None else one[1]["priority"]):
            if task is not None and not self._run(number, index, task):
                lost[index] = task
        self._put_agenda(number, lost if any(lost) else [])

    def _run(self, number: int, index: int, task: Task) -> bool:
        """Dispatch a task and place its next run; False when its call is not there any more."""
        name, address = task["maybe_id"], (number, index)
        if name is not None:
            del self.Lookup[name]
        try:
            inner = self.rt.preimage.peek(task["call"])
        except DispatchError:
            self.emit("CallUnavailable", task=address, id=name)
            self.rt.preimage.drop(task["call"])
            return False
        result: Any = ("Ok", ())
        try:
            self.rt.dispatch_inner(origin_of(task["origin"]), inner)
        except DispatchError as error:
            result = ("Err", error.value)
        retry = self.Retries[address]
        del self.Retries[address]
        self.emit("Dispatched", task=address, id=name, result=result)
        if retry is not None and result[0] == "Err":
            self._retry(address, task, retry)
        self._repeat(address, task, retry)
        return True

    def _retry(self, address: Address, task: Task, retry: dict[str, int]) -> None:
        """Place a nameless copy that runs once. Keeps nothing when no attempt is left."""
        if not retry["remaining"]:
            return
        again = {**task, "maybe_id": None, "maybe_periodic": None}
        try:
            placed = self._place(address[0] + retry["period"], again)
        except DispatchError:
            self.rt.preimage.drop(task["call"])
            self.emit("RetryFailed", task=address, id=task["maybe_id"])
            return
        self.Retries[placed] = {**retry, "remaining": retry["remaining"] - 1}

    def _repeat(self, address: Address, task: Task, retry: dict[str, int] | None) -> None:
        """Place a periodic task's next run."""
        if task["maybe_periodic"] is None:
            self.rt.preimage.drop(task["call"])
            return
        period, left = task["maybe_periodic"]
        following = {**task, "maybe_periodic": (period, left - 1) if left > 1 else None}
        try:
            placed = self._place(address[0] + period, following)
        except DispatchError:
            self.rt.preimage.drop(task["call"])
            self.emit("PeriodicFailed", task=address, id=task["maybe_id"])
            return
        if retry is not None:
            self.Retries[placed] = retry
