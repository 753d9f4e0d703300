"""The second half of `recheck`: what the rules say about a contribution, from artifacts that are named by hash.

    found = await Recomputation(evidence, recipe, peers, places, folder, Machine()).verdict()

The same functions judge as in the validator: protocol/training/judging.py, and `audit` of evaluation.py. The model is
computed from the records (following.py), the data is assigned anew. A verdict that needed no audit is recomputed
without one, and needs no model and no data.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.artifacts import Manifest
from protocol.dataset import MAX_MANIFEST_BYTES, decode_manifest
from protocol.errors import MalformedMessage
from protocol.training import statement as statements
from protocol.training.assignment import Work, assign, window_seed
from protocol.training.buffers import WINDOWS
from protocol.training.copies import alike, compared_chunks
from protocol.training.evidence import Code, Problem, TrainEvidence
from protocol.training.judging import Due, Opened, Reason, Verdict, among_alike, check, check_statement, read_opened
from protocol.training.payload import Contribution, Floats, decode, encoded_size
from protocol.training.recipe import Recipe
from protocol.training.records import MAX_BYTES as MAX_RECORD
from protocol.training.records import Included, WindowRecord
from protocol.training.statement import Statement
from protocol.verdicts import Outcome
from template.artifacts.errors import ArtifactTooLarge
from template.errors import TemplateError
from template.training.checkpoint import build
from template.training.dataset import Dataset
from template.training.evaluation import audit
from template.training.following import after_oldest, first_model, history, replayed
from template.training.inner import Trainer
from template.training.layout import Layout
from template.training.peers import Peers

FORM = frozenset({Reason.STATEMENT, Reason.STALE, Reason.PAYLOAD, Reason.EMPTY})  # no audit gives these


class Contradiction(TemplateError):
    """The evidence says something else than the artifacts it names, or than the chain."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.problem = Problem(code, detail)


@dataclass(frozen=True)
class Machine:
    """Where training is repeated; see `Trainer`."""

    device: str = "cpu"
    threads: int | None = None


@dataclass(frozen=True)
class Recomputation:
    """`places`: where artifacts may be. `folder`: of shards, which stay in `peers.own` too."""

    evidence: TrainEvidence
    recipe: Recipe
    peers: Peers
    places: Sequence[str]
    folder: Path
    machine: Machine

    async def verdict(self) -> Verdict | None:
        """None when the form was rejected and nothing is wrong with it. Raises Contradiction, and TemplateError or
        MalformedMessage for what could not be had."""
        evidence = self.evidence
        await self._check_start()
        said = _parsed(evidence.statement)
        earlier = await self._earlier(said)
        size = (await asyncio.to_thread(lambda: self._layout)).size
        due = Due(evidence.window, evidence.base, size, self.recipe, earlier)
        if said is None or check_statement(due, evidence.miner, said) is not None:
            return check(due, evidence.miner, evidence.statement, b"")[1]
        payload = await self._shown(said.payload, encoded_size(size))
        contribution, verdict = check(due, evidence.miner, evidence.statement, payload)
        if contribution is None or evidence.verdict.reason in FORM:
            return verdict
        return await self._audited(due, said, contribution)

    async def _audited(self, due: Due, said: Statement, contribution: Contribution) -> Verdict:
        before = await self._shown(said.before, 4 * due.size) if said.before else bytes(4 * due.size)
        opened = read_opened(due.size, before, await self._shown(said.after, 4 * due.size))
        if isinstance(opened, Verdict):
            return opened
        dataset, work = await self._data()
        base = await self._base()
        verdict = await asyncio.to_thread(self._replay, base, dataset, work, due, said, contribution, opened)
        like = self.evidence.like
        if like is None:
            return verdict
        await self._check_like(contribution, like)
        return among_alike(verdict, [like.miner])

    def _replay(
        self,
        base: Floats,
        dataset: Dataset,
        work: Work,
        due: Due,
        said: Statement,
        contribution: Contribution,
        opened: Opened,
    ) -> Verdict:
        """Blocking."""
        inner, machine = self.recipe.inner, self.machine
        trainer = Trainer(self._module, inner, device=machine.device, threads=machine.threads, **self.recipe.precision)

        def batches(step: int) -> npt.NDArray[np.int64]:
            return dataset.batch(work.batch(step), self.recipe.tasks.length)

        try:
            return audit(trainer, base, batches, due, said, contribution, opened)
        except FloatingPointError as error:
            return Verdict(Outcome.REJECT, Reason.REPLAY, f"the training has no result: {error}")

    # What it starts from

    async def _check_start(self) -> None:
        """The record leads to the base, or the recipe does."""
        evidence, recipe = self.evidence, self.recipe
        if evidence.record is None:
            leads = evidence.base == recipe.model
        else:
            record = await self._record(evidence.record)
            leads = (record.window, record.root, record.recipe) == (evidence.window - 1, evidence.base, recipe.id)
        if not leads:
            raise Contradiction(Code.RECORD, f"what is on record does not lead to the model {evidence.base[:16]}")

    async def _earlier(self, said: Statement | None) -> Statement | None:
        """The last statement of the miner that entered the model, if its buffer goes on from one. Raises Contradiction
        when the evidence names another."""
        found = await self._last_entered() if said is not None and said.before is not None else None
        if (Manifest.of(found.encode()).cid if found else None) != self.evidence.earlier:
            raise Contradiction(Code.RECORD, "the miner's earlier statement is another one by the records")
        return found

    async def _last_entered(self) -> Statement | None:
        evidence, cid = self.evidence, self.evidence.record
        for _ in range(WINDOWS):
            if cid is None:
                break
            record = await self._record(cid)
            for one in record.contributions:
                if one.miner == evidence.miner:
                    return Statement.parse(await self._get(one.statement, statements.MAX_BYTES))
            cid = record.previous
        return None

    async def _base(self) -> Floats:
        """The shared model of the window, computed from the last checkpoint before it."""
        recipe, fetch, places, newest = self.recipe, self.peers.fetch, self.places, self.evidence.record
        if newest is None:
            return (await first_model(recipe, self._layout, fetch, places)).vector
        records = await history(newest, fetch, places, most=recipe.checkpoint_every + 1)
        start = await after_oldest(records[0], recipe, self._layout, fetch, places)
        rest = [record for record in records if record.window >= start.window]
        return (await replayed(start, rest, recipe, self._layout, fetch, places)).vector

    async def _data(self) -> tuple[Dataset, Work]:
        """The shards that the miner was given, ready to be read, and its places in them."""
        evidence, own = self.evidence, self.peers.own
        manifest = decode_manifest(await self._get(self.recipe.dataset, MAX_MANIFEST_BYTES))
        dataset = Dataset(manifest, own, self.folder)
        seed = window_seed(bytes.fromhex(evidence.assign), evidence.window)
        work = assign(seed, evidence.miner, dataset.tokens_of(), self.recipe.tasks.plan)
        for shard in (manifest.training[number] for number in work.shards):
            await own.put_bytes(await self._get(shard.cid, shard.tokens * manifest.token_bytes))
        await dataset.fetch(work.shards)
        return dataset, work

    async def _check_like(self, contribution: Contribution, like: Included) -> None:
        """Raises Contradiction unless `like` is what it is said to be, and keeps what the contribution keeps."""
        evidence = self.evidence
        said = Statement.parse(await self._get(like.statement, statements.MAX_BYTES))
        if (said.window, said.miner, said.payload) != (evidence.window, like.miner, like.payload):
            raise Contradiction(Code.LIKE, f"what {like.miner} is said to have sent is not what its statement says")
        other = decode(await self._get(like.payload, encoded_size(contribution.size)), contribution.size)
        chunks = compared_chunks(window_seed(bytes.fromhex(evidence.reveal), evidence.window), contribution.size)
        both = {evidence.miner: contribution, like.miner: other}
        if evidence.miner not in alike(both, chunks, self.recipe.alike_from):
            raise Contradiction(Code.LIKE, f"it does not keep what {like.miner} keeps")

    # Fetching

    @cached_property
    def _module(self) -> Any:
        return build(self.recipe.architecture)

    @cached_property
    def _layout(self) -> Layout:
        return Layout.of(self._module)

    async def _record(self, cid: str) -> WindowRecord:
        return WindowRecord.parse(await self._get(cid, MAX_RECORD))

    async def _get(self, cid: str, most: int) -> bytes:
        return await self.peers.fetch(cid, self.places, most)

    async def _shown(self, cid: str, most: int) -> bytes:
        """As a validator takes it: what is larger than it may be is as good as nothing."""
        try:
            return await self._get(cid, most)
        except ArtifactTooLarge:
            return b""


def _parsed(statement: bytes) -> Statement | None:
    try:
        return Statement.parse(statement)
    except MalformedMessage:
        return None
