"""How a dispute is carried out: ask both parties, find the interval, train it again, rule.

    referee = Referee(trainer, base, batches, recipe, terms, store)
    transcript = await referee.settle(first, second)             a protocol.training.transcripts.Transcript
    reruns = await referee.again(transcript, fetch)              the same re-runs, from the states it names

The rules are in protocol/training/dispute.py. Here it is seen that a state is the one that was committed to, before
anything is made of it; every state that was looked at is put into `store`, so that others can look at it too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from protocol.artifacts import Manifest
from protocol.errors import MalformedMessage
from protocol.synapse import safe_text
from protocol.training.dispute import Answer, By, Claim, Dispute, Rerun, Reruns, Round, Terms, Wrong, apart, settle
from protocol.training.payload import Floats
from protocol.training.recipe import Recipe
from protocol.training.trace import state_digest
from protocol.training.transcripts import Transcript
from template.artifacts.errors import ArtifactError
from template.artifacts.store import ArtifactStore
from template.errors import TemplateError
from template.training.inner import Trainer
from template.training.parties import NotShown, Party
from template.training.retrace import STATE_BYTES, arrays, from_bytes, interval, to_bytes
from template.training.windows import Batches

Fetch = Callable[[str, int], Awaitable[bytes]]  # CID, most bytes
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Referee:
    """`base`: the shared model that the window began from, float32 [size]; `batches`: the miner's data of the window.
    The trainer is used by one of the awaited methods at a time."""

    trainer: Trainer
    base: Floats
    batches: Batches
    recipe: Recipe
    terms: Terms
    store: ArtifactStore
    tell: Tell = lambda text: None

    async def settle(self, first: Party, second: Party) -> Transcript:
        """By digests, and when these part and nobody was wrong, by states. Raises ArtifactError when the own store
        cannot keep a state."""
        for by in By:
            dispute = await self._search(Dispute(self.terms, (first.claim, second.claim), by), first, second)
            reruns = await self._reruns(dispute, first, second)
            if settle(dispute, reruns).wrong is not Wrong.NEITHER or dispute.interval is None:
                break
        return Transcript.of(dispute, reruns)

    async def again(self, transcript: Transcript, fetch: Fetch) -> Reruns:
        """The re-runs of a transcript. What cannot be fetched is missing. Raises ValueError for no transcript."""
        dispute = transcript.dispute
        first, second = (_Stored(dispute, transcript.reruns[k], k, self._states(fetch)) for k in range(2))
        return await self._reruns(dispute, first, second)

    def _states(self, fetch: Fetch) -> Callable[[str], Awaitable[bytes]]:
        return lambda cid: fetch(cid, STATE_BYTES * len(self.base))

    async def _search(self, dispute: Dispute, first: Party, second: Party) -> Dispute:
        while (index := dispute.asks) is not None:
            self.tell(f"by {dispute.by}: state {index} of {self.terms.states - 1}")
            parties = (first, second)
            shown = await asyncio.gather(*(self._opening(party, index) for party in parties))
            found = Round(index=index, answers=(shown[0][0], shown[1][0]), missing=(shown[0][1], shown[1][1]))
            if dispute.looks(found):
                found = await self._compared(found, parties)
            dispute = dispute.after(found)
        return dispute

    async def _opening(self, party: Party, index: int) -> tuple[Answer | None, str]:
        try:
            answer = await party.opening(index)
        except NotShown as error:
            return None, _short(error)
        if not answer.under(party.claim, index, self.terms.states):
            return answer, f"what it showed as state {index} is not under its root"
        return answer, ""

    async def _compared(self, found: Round, parties: tuple[Party, Party]) -> Round:
        states: list[bytes] = []
        missing: list[str] = []
        for party, answer in zip(parties, found.answers, strict=True):
            assert answer is not None  # the dispute does not look at one that is not there
            try:
                states.append(await self._state(party, found.index, answer.digest))
                missing.append("")
            except NotShown as error:
                missing.append(_short(error))
        if any(missing):
            return found.model_copy(update={"missing": tuple(missing)})
        far = await asyncio.to_thread(self._apart, self.base, states[0], states[1], self.terms.step(found.index))
        return found.model_copy(update={"apart": far})

    async def _reruns(self, dispute: Dispute, first: Party, second: Party) -> Reruns:
        if dispute.interval is None:
            return None, None
        before, after = (dispute.seen(index) for index in dispute.interval)
        done: dict[str, tuple[Rerun, bytes, bytes]] = {}  # by the digest that it starts from
        reruns: list[Rerun | None] = []
        for k, party in enumerate((first, second)):
            start, end = before.answers[k], after.answers[k]
            assert start is not None and end is not None  # else there is no interval
            if dispute.interval[0] == 0 and start.digest != self.terms.start:
                reruns.append(None)  # it is wrong already
                continue
            if start.digest not in done:
                same = [
                    p
                    for p, one in zip((first, second), before.answers, strict=True)
                    if one and one.digest == start.digest
                ]
                done[start.digest] = await self._rerun(dispute, start.digest, same)
            reruns.append(await self._held_against(party, dispute.interval[1], end.digest, *done[start.digest]))
        return reruns[0], reruns[1]

    async def _rerun(self, dispute: Dispute, digest: str, parties: Sequence[Party]) -> tuple[Rerun, bytes, bytes]:
        """From the state with this digest, which any of `parties` may show: what it gave, the start, and the end."""
        assert dispute.interval is not None
        index, until = dispute.interval
        start, problem = b"", ""
        for party in sorted(parties, key=lambda party: party.claim.hotkey != ""):  # the own one costs nothing
            try:
                start = await self._state(party, index, digest)
                break
            except NotShown as error:
                problem = problem or _short(error)
        if not start:
            return Rerun(missing=problem), b"", b""
        self.tell(f"training steps {self.terms.step(index)} to {self.terms.step(until)} again")
        cid = Manifest.of(start).cid
        try:
            end = await asyncio.to_thread(self._trained, start, index, until)
        except FloatingPointError as error:
            return Rerun(start=cid, missing=f"the training has no result: {error}"), start, b""
        return Rerun(start=cid, found=_digest(end, self.terms.step(until))), start, end

    async def _held_against(
        self, party: Party, index: int, digest: str, rerun: Rerun, start: bytes, end: bytes
    ) -> Rerun:
        """With the state that a party claims, where the digest alone does not clear it."""
        if rerun.found is None or rerun.found == digest:
            return rerun
        try:
            claimed = await self._state(party, index, digest)
        except NotShown as error:
            return rerun.model_copy(update={"missing": _short(error)})
        parameters = arrays(from_bytes(start, 0, len(self.base)))[0]
        far = await asyncio.to_thread(self._apart, parameters, claimed, end, self.terms.step(index))
        return rerun.model_copy(update={"claimed": Manifest.of(claimed).cid, "apart": far})

    async def _state(self, party: Party, index: int, digest: str) -> bytes:
        """The state that was committed to, kept. Raises NotShown for anything else."""
        data = await party.state(index)
        whole = len(data) == STATE_BYTES * len(self.base)
        if not whole or await asyncio.to_thread(_digest, data, self.terms.step(index)) != digest:
            raise NotShown(f"what it gave as state {index} is not what it had committed to")
        await self.store.put_bytes(data)
        return data

    # Blocking

    def _trained(self, start: bytes, index: int, until: int) -> bytes:
        state = self.trainer.resume(from_bytes(start, self.terms.step(index), len(self.base)))
        interval(self.trainer, state, self.terms.step(until), self.batches, self.recipe, self.terms.window)
        if not all(bool(part.isfinite().all()) for part in (state.parameters, state.first, state.second)):
            raise FloatingPointError("the referee's own training gave numbers that are none")
        return to_bytes(state)

    def _apart(self, start: Floats, claimed: bytes, found: bytes, step: int) -> float:
        size = len(self.base)
        return apart(start, arrays(from_bytes(claimed, step, size)), arrays(from_bytes(found, step, size)))


@dataclass(frozen=True)
class _Stored:
    """A party of a transcript: its states are those that were looked at."""

    dispute: Dispute
    rerun: Rerun | None
    party: int
    fetch: Callable[[str], Awaitable[bytes]]

    @property
    def claim(self) -> Claim:
        return self.dispute.claims[self.party]

    async def opening(self, index: int) -> Answer:
        raise NotShown("a transcript is asked for nothing new")

    async def state(self, index: int) -> bytes:
        interval = self.dispute.interval
        assert self.rerun is not None and interval is not None  # a re-run is repeated where there was one
        cid = self.rerun.start if index == interval[0] else self.rerun.claimed
        if cid is None:
            raise NotShown(f"the transcript names no state {index}")
        try:
            return await self.fetch(cid)
        except (ArtifactError, MalformedMessage) as error:
            raise NotShown(f"state {index} cannot be had: {error}") from None


def _digest(data: bytes, step: int) -> str:
    third = len(data) // 3
    view = memoryview(data)
    return state_digest(step, [view[at : at + third] for at in (0, third, 2 * third)]).hex()


def _short(error: TemplateError) -> str:
    return safe_text(str(error))
