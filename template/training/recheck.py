"""A verdict of mechanism 1, recomputed from its evidence by anyone who can read the chain.

    found = await recheck(evidence, chain, peers, folder)        -> protocol.training.findings.Assessment

Two questions. Is the evidence about what happened? The chain is asked for the recipe, the hashes that the data came
from, what the miner had committed, and the records that lead to the model. Does the verdict follow? Form and training
are judged again (recompute.py). What the chain contradicts is refused, what gives another verdict disagrees, and
whatever could not be had leaves it unchecked: agreement is only said when both questions have a whole answer.

A recipe that is not the subnet owner's is not followed: it might ask for any amount of work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from protocol.errors import MalformedMessage
from protocol.locations import LOCATION_PREFIX
from protocol.training.evidence import Code, Problem, TrainEvidence, check
from protocol.training.findings import Assessment, compare, conclude, refused, unchecked
from protocol.training.recipe import COMMITMENT_PREFIX as RECIPE_PREFIX
from protocol.training.recipe import MAX_BYTES as MAX_RECIPE
from protocol.training.recipe import Recipe, recipe_commitment
from protocol.training.records import MAX_BYTES as MAX_RECORD
from protocol.training.records import WindowRecord
from protocol.training.windows import Phase
from template.chain import Chain, ChainError
from template.errors import TemplateError
from template.keys import verify
from template.training.chain_view import WindowView
from template.training.peers import Peers
from template.training.recompute import Contradiction, Machine, Recomputation


async def recheck(
    evidence: TrainEvidence, chain: Chain, peers: Peers, folder: Path, machine: Machine | None = None
) -> Assessment:
    """What this machine finds. Takes as long as training one window when the verdict is one of an audit.

    `folder`: where shards of the dataset are kept, by their content. Whatever the evidence, the chain or a store is
    like is a finding, and raises nothing.
    """
    problems = check(evidence, verify)
    if problems:
        return refused(problems)
    try:
        if (await chain.block_hash(0)).removeprefix("0x") != evidence.genesis:
            return unchecked(f"the chain at {chain.endpoint} is not the one that the evidence is about")
        owners = await _owners_place(evidence, chain)
        recipe = Recipe.parse(await peers.fetch(evidence.recipe, (owners, *evidence.locations), MAX_RECIPE))
        view = WindowView(chain, evidence.netuid, recipe.clock.schedule)
        places = (*evidence.locations, owners, *await view.validator_locations())
    except Contradiction as error:
        return refused([error.problem])
    except (TemplateError, MalformedMessage) as error:
        return unchecked(str(error))
    asked = ChainCheck(evidence, view, peers, places)
    await asked.run()
    try:
        found = await Recomputation(evidence, recipe, peers, places, folder, machine or Machine()).verdict()
    except Contradiction as error:
        return refused([*asked.contradicted, error.problem])
    except (TemplateError, MalformedMessage) as error:
        if asked.contradicted:
            return refused(asked.contradicted)
        return unchecked(f"not recomputed: {error}", *asked.unknown)
    compared = compare(evidence.verdict, found, recipe.limit)
    return conclude(compared, asked.contradicted, asked.unknown, found)


async def _owners_place(evidence: TrainEvidence, chain: Chain) -> str:
    """Where the subnet's owner keeps its artifacts, once it is clear that the recipe was the owner's: now, or as of the
    block at which the commitment was read. Raises Contradiction, and ChainError when the chain does not say."""
    wanted = recipe_commitment(evidence.recipe)
    for block in (None, evidence.promise.read_at):
        owner = (await chain.metagraph(evidence.netuid, block)).owner_hotkey
        held = (await chain.commitments(evidence.netuid, block)).get(owner)
        location = held.find(LOCATION_PREFIX) if held else None
        if held is not None and held.find(RECIPE_PREFIX) == wanted and location is not None:
            return location
    raise Contradiction(Code.CHAIN, "the recipe is not the one that the subnet's owner had committed")


@dataclass
class ChainCheck:
    """What the chain says otherwise than the evidence, and what it does not say any more."""

    evidence: TrainEvidence
    view: WindowView
    peers: Peers
    places: Sequence[str]
    contradicted: list[Problem] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    async def run(self) -> None:
        for what, part in (
            ("the hashes of the blocks", self._hashes),
            ("what was committed", self._commitments),
            ("the records of the model", self._records),
        ):
            try:
                await part()
            except (TemplateError, MalformedMessage) as error:
                self.unknown.append(f"not checked: {what}: {error}")

    def _differs(self, code: Code, detail: str) -> None:
        self.contradicted.append(Problem(code, detail))

    async def _hashes(self) -> None:
        evidence, schedule = self.evidence, self.view.schedule
        for phase, claimed in ((Phase.ASSIGN, evidence.assign), (Phase.REVEAL, evidence.reveal)):
            block = schedule.block_of(evidence.window, phase)
            text = (await self.view.chain.block_hash(block)).removeprefix("0x")
            if len(text) != 64:
                raise ChainError(f"there is no block {block} yet")
            if text != claimed:
                self._differs(Code.CHAIN, f"block {block} has the hash {text}, the evidence says {claimed}")

    async def _commitments(self) -> None:
        evidence, promise = self.evidence, self.evidence.promise
        last = self.view.schedule.block_of(evidence.window, Phase.REVEAL) - 1
        if promise.read_at != last:
            self._differs(Code.PROMISE, f"the commit phase ended with block {last}, not {promise.read_at}")
            return
        try:
            due = await self.view.due(evidence.window)
        except ChainError as error:
            if evidence.answer is None or evidence.like is not None:
                raise ChainError(f"{error}; the state as of block {last} is with archive nodes") from None
            return  # the miner has signed what its statement is
        held = due.get(evidence.miner)
        if held is None or (held.statement, held.block) != (promise.statement, promise.block):
            said = f"{held.statement} in block {held.block}" if held else "nothing"
            self._differs(Code.CHAIN, f"the miner had committed {said} as of block {last}")
        like = evidence.like
        if like is not None and (like.miner not in due or due[like.miner].statement != like.statement):
            self._differs(Code.CHAIN, f"{like.miner} had not committed what it is said to be copied from")

    async def _records(self) -> None:
        """Back from the record that validators stand behind now to the one before the window: each names the one before
        it, and their windows fall by one, so this ends."""
        evidence = self.evidence
        if evidence.window == 0:
            return
        stands = await self.view.agreed()
        if stands is None or stands.window < evidence.window - 1:
            raise ChainError(f"validators do not stand behind a record of window {evidence.window - 1} yet")
        cid: str | None = stands.record
        places = (*stands.locations, *self.places)
        for window in range(stands.window, evidence.window - 1, -1):
            record = WindowRecord.parse(await self.peers.fetch(cid or "", places, MAX_RECORD))
            if record.window != window:
                raise ChainError(f"the records do not lead back from window {stands.window}")
            cid = record.previous
        if cid != evidence.record:
            self._differs(Code.CHAIN, f"the record of window {evidence.window - 1} is {cid}, not {evidence.record}")
