"""How a validator makes, keeps and hands out evidence."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.disputes import VERDICT_EVIDENCE, AskEvidence, EvidenceAnswer
from protocol.errors import EvidenceError, FailureCode
from protocol.evidence import SignedAnswer, decode_evidence
from protocol.verdicts import Outcome, Pool, PooledAnswer, Reason, Verdict
from template.client import SynapseClient, Target
from template.errors import CallFailed
from template.evidence import (
    EvidenceService,
    EvidenceUnavailable,
    ask_evidence,
    ask_list,
    keep_round,
    make_evidence,
    pool_answers,
)
from template.inference.models import LoadedModel
from template.keys import Hotkey
from template.ledger import Ledger, LedgerError
from template.limits import OpenPolicy
from template.rounds import Judged
from template.server import SynapseServer
from tests.support import signed
from tests.support.evidence import MINER, VALIDATOR, newest, play, pool_thresholds
from tests.support.inference import tiny_model
from tests.support.plans import calibration_of

SECOND = Hotkey.from_uri("//second")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def ledger(tmp_path: Path):
    with Ledger(tmp_path / "ledger.sqlite") as found:
        yield found


def test_nothing_is_signed_that_would_not_hold_elsewhere() -> None:
    asked = signed.challenge()
    answer = SignedAnswer(challenge=asked, exchange=signed.exchange(asked))
    calibration = calibration_of(signed.MODEL)
    assert make_evidence(VALIDATOR, [answer], signed.ACCEPT, calibration, 1.7e9).to_json()
    unsure = Verdict(Outcome.INCONCLUSIVE, Reason.NOT_RECOMPUTED, "no memory")
    for verdict, thresholds, hotkey in (
        (unsure, calibration, VALIDATOR),
        (signed.ACCEPT, calibration.model_copy(update={"request_mean": 1.0}), VALIDATOR),
        (signed.ACCEPT, None, VALIDATOR),
        (signed.ACCEPT, calibration, SECOND),
    ):
        with pytest.raises(EvidenceError):
            make_evidence(hotkey, [answer], verdict, thresholds, 1.7e9)


async def test_a_pooled_reject_shows_every_answer_it_stands_on(loaded: LoadedModel, ledger: Ledger) -> None:
    thresholds = pool_thresholds(calibration_of(loaded.identity))
    judged = await play(loaded, ledger, "hotter", thresholds, range(20))
    found = newest(ledger)
    assert found.verdict.reason is Reason.POOLED_MARGIN
    assert tuple(answer.challenge.digest for answer in found.answers) == judged.stood_on[MINER.ss58]
    tokens = [int(entry.verdict.numbers["tokens"]) for entry in map(ledger.entry, judged.stood_on[MINER.ss58][:-1])]
    assert sum(tokens) < found.verdict.numbers["tokens"] < sum(tokens) + 25


async def test_answers_that_a_pool_counts_outlive_their_rounds(loaded: LoadedModel, ledger: Ledger) -> None:
    await play(loaded, ledger, "honest", calibration_of(loaded.identity), range(3))
    kept = [row.digest for row in ledger.list_evidence()]
    digests = [ledger.evidence(digest).answers[0].challenge.digest for digest in kept]
    pool = Pool((PooledAnswer(digests[0], 24, 0.0),))
    identity = loaded.identity
    ledger.commit_round(0, 2, {}, [], {(identity.root, identity.dtype, MINER.ss58): pool})
    assert ledger.prune(before_round=100) == 2
    assert len(pool_answers(ledger, [digests[0]])) == 1
    assert [row.digest for row in ledger.list_evidence()] == kept[:1], "evidence goes with the answer it is about"
    with pytest.raises(EvidenceError, match="not in the ledger"):
        pool_answers(ledger, digests)


async def test_a_verdict_without_its_answers_is_said_and_not_signed(
    loaded: LoadedModel, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    calibration = calibration_of(loaded.identity)
    await play(loaded, ledger, "honest", calibration)
    before = ledger.list_evidence()
    entry = ledger.entry(newest(ledger).answers[0].challenge.digest)
    pooled = replace(entry.verdict, outcome=Outcome.REJECT, reason=Reason.POOLED_MARGIN)
    judged = Judged({MINER.ss58: pooled}, {}, stood_on={MINER.ss58: ("ab" * 32,)})

    class Answered:
        challenge, reply, received_at = entry.challenge, object(), 1.0

    with caplog.at_level(logging.ERROR):
        assert keep_round(ledger, VALIDATOR, [Answered()], judged, calibration) == 0
    assert "no evidence of the reject" in caplog.text and ledger.list_evidence() == before


def test_evidence_needs_its_challenge_in_the_ledger(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="not in the ledger"):
        ledger.record_evidence([signed.evidence()])
    ledger.record_challenge(signed.challenge(), 1.0)
    found = signed.evidence()
    ledger.record_evidence([found])
    again = found.model_copy(update={"signature": VALIDATOR.sign(found.signed_payload)})
    ledger.record_evidence([again])  # the same evidence with another signature of the same hotkey: kept once
    assert len(ledger.list_evidence()) == 1
    assert ledger.list_evidence(miner=VALIDATOR.ss58) == ledger.list_evidence(outcome="reject") == []
    assert len(ledger.list_evidence(miner=signed.MINER.ss58, outcome="accept")) == 1
    assert ledger.evidence("ab" * 32) is None


async def test_what_a_validator_is_told_is_what_it_asked_for(ledger: Ledger) -> None:
    ledger.record_challenge(signed.challenge(), 1.0)
    ledger.record_evidence([signed.evidence()])
    server = SynapseServer(signed.VALIDATOR, policy=OpenPolicy(), host="127.0.0.1")
    EvidenceService(ledger).attach_to(server)
    async with server, SynapseClient(SECOND, allow_local=True) as client:
        target = Target(signed.VALIDATOR.ss58, "127.0.0.1", server.port)
        (row,) = await ask_list(client, target, signed.MINER.ss58)
        found = await ask_evidence(client, target, row.digest)
        assert decode_evidence(found.to_json()) == newest(ledger)
        assert await ask_list(client, target, SECOND.ss58) == ()
        with pytest.raises(EvidenceUnavailable, match="has no evidence"):
            await ask_evidence(client, target, "ab" * 32)


@pytest.mark.parametrize("changes", [{"judged_at": 5.0}, {"validator": SECOND.ss58}])
async def test_other_evidence_than_was_asked_for_is_not_taken(changes: dict[str, object]) -> None:
    asked, other = signed.evidence(), signed.evidence().model_copy(update=changes)

    async def give(request: AskEvidence, caller: object) -> EvidenceAnswer:
        return EvidenceAnswer(evidence=other)

    server = SynapseServer(signed.VALIDATOR, policy=OpenPolicy(), host="127.0.0.1")
    server.attach(VERDICT_EVIDENCE, give)
    async with server, SynapseClient(SECOND, allow_local=True) as client:
        target = Target(signed.VALIDATOR.ss58, "127.0.0.1", server.port)
        for digest in (asked.digest, other.digest if "validator" in changes else asked.digest):
            with pytest.raises(EvidenceUnavailable, match="other evidence"):
                await ask_evidence(client, target, digest)


async def test_a_validator_that_is_away_is_a_failure_with_a_code() -> None:
    async with SynapseClient(SECOND, allow_local=True) as client:
        with pytest.raises(CallFailed) as failed:
            await asyncio.wait_for(ask_list(client, Target(VALIDATOR.ss58, "127.0.0.1", 9), MINER.ss58), 30)
    assert failed.value.failure.code is FailureCode.UNREACHABLE
