"""Evidence of real verdicts: a tiny model behind a real server, asked by a real client, judged, signed, and kept."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from protocol.calibration import Calibration
from protocol.challenges import ChallengePolicy, plan_challenge
from protocol.disputes import Assessment
from protocol.evidence import Evidence
from protocol.generation import INFERENCE_GENERATE
from protocol.sampling import Sampler, Slack
from protocol.verdicts import Pool, Recomputation
from template.client import SynapseClient, Target
from template.evidence import Pair, keep_round, recheck
from template.inference.engine import ContinuousBatchingEngine, EngineSettings
from template.inference.models import LoadedModel
from template.inference.service import GenerateService
from template.inference.verifier import Verifier
from template.keys import Hotkey
from template.ledger import Ledger
from template.limits import OpenPolicy
from template.rounds import Judged, ask_all, judge_all, record
from template.server import SynapseServer
from tests.adversary import cheats

VALIDATOR = Hotkey.from_uri("//validator")
MINER = Hotkey.from_uri("//miner")
TOKENS = 24  # of every answer that does not end by itself
# Warm enough that the tiny model does not end its answers after a token or two, which leaves a cheat nothing to change.
WARM = Sampler(temperature=2.0, top_k=0, top_p=1.0)
SAMPLED = ChallengePolicy(samplers=(WARM,), max_tokens=(TOKENS,), length_classes=("short",))

_verifiers: dict[tuple[int, Slack], Verifier] = {}  # one for each model and slack: making one costs two forward passes


@contextlib.asynccontextmanager
async def serving(loaded: LoadedModel, kind: str) -> AsyncIterator[Target]:
    """MINER on loopback: "honest", or one of the cheats."""
    async with ContinuousBatchingEngine(loaded, EngineSettings()) as engine:
        kitchen = cheats.Kitchen(engine, loaded, MINER.ss58)
        honest = GenerateService(engine, loaded.identity, MINER.ss58)
        server = SynapseServer(MINER, policy=OpenPolicy(), host="127.0.0.1")
        server.attach_stream(INFERENCE_GENERATE, honest if kind == "honest" else cheats.make(kind, kitchen))
        async with server:
            yield Target(MINER.ss58, "127.0.0.1", server.port)


async def play(
    loaded: LoadedModel, ledger: Ledger, kind: str, calibration: Calibration, rounds: Sequence[int] = (0,)
) -> Judged:
    """Rounds with one miner of this kind, all audited, at most until its pool is rejected; what became of the last.
    Evidence is in the ledger."""
    pools: Mapping[str, Pool] = {}
    verifier = Verifier(loaded, slack=calibration.slack)
    async with serving(loaded, kind) as target, SynapseClient(VALIDATOR, allow_local=True) as client:
        for number in rounds:
            challenge = plan_challenge(
                block_hash="0x" + "11" * 32,
                secret=b"s" * 32,
                validator=VALIDATOR.ss58,
                miner=MINER.ss58,
                round=number,
                model=loaded.identity,
                tokenize=loaded.tokenize,
                policy=SAMPLED,
            )
            ledger.record_challenge(challenge, 1.0)
            answers = await ask_all(client, {target: challenge}, deadline=20.0, concurrency=1)
            judged = await judge_all(verifier, calibration, answers, pools)
            record(ledger, answers, judged)
            keep_round(ledger, VALIDATOR, answers, judged, calibration)
            pools = judged.pools
            if judged.stood_on:
                break
    verifier.close()
    return judged


def newest(ledger: Ledger) -> Evidence:
    found = ledger.evidence(ledger.list_evidence()[0].digest)
    assert found is not None
    return found


def pool_thresholds(calibration: Calibration) -> Calibration:
    """Thresholds under which no single answer is rejected for its margins, and three steadily wrong ones are."""
    blunt: dict[str, Any] = {"eos_margin": 10.0, "lost_margin": 10.0, "request_mean": 10.0}
    return calibration.model_copy(update={**blunt, "pool_mean": 0.001, "pool_tokens": 2 * TOKENS + 1})


def look_again(loaded: LoadedModel, evidence: Evidence, own: Calibration | None) -> Assessment:
    """`recheck` as another machine with this model does it."""

    def recompute(slack: Slack, pairs: Sequence[Pair]) -> Sequence[Recomputation]:
        key = (id(loaded), slack)
        if key not in _verifiers:
            _verifiers[key] = Verifier(loaded, slack=slack)
        return _verifiers[key].recompute_now(pairs)

    return recheck(evidence, loaded.identity, own, recompute)
