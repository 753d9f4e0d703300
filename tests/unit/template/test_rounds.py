"""A whole round over real sockets: honest, dishonest, silent and broken miners beside each other, with a tiny model."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import FailureCode
from protocol.fingerprint import CHUNK
from protocol.inference import (
    INFERENCE_GENERATE,
    MECHANISM,
    Challenge,
    ChallengePolicy,
    GenerateChunk,
    Outcome,
    Pool,
    PooledAnswer,
    Reason,
    Recomputed,
    Unchecked,
    plan_challenge,
)
from protocol.scoring import fold_round, weights
from protocol.synapse import encode
from template.client import SynapseClient, Target
from template.inference.engine import ContinuousBatchingEngine, EngineSettings
from template.inference.models import LoadedModel
from template.inference.service import GenerateService
from template.inference.verifier import Verifier
from template.keys import Hotkey
from template.ledger import Ledger
from template.limits import OpenPolicy
from template.rounds import Answer, answer_bytes, ask_all, draw, judge_all, observations, record
from template.server import SynapseServer
from tests.adversary import cheats
from tests.support.inference import tiny_model
from tests.support.plans import calibration_of
from tests.support.transport import peer

VALIDATOR = Hotkey.from_uri("//validator")
NAMES = ("honest", "tampered", "two_faced", "wrong_seed", "silent", "broken", "absent")
HOTKEYS = {name: Hotkey.from_uri(f"//{name}") for name in NAMES}
DEADLINE = 2.0


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def challenges(loaded: LoadedModel, number: int = 0) -> dict[str, Challenge]:
    policy = ChallengePolicy(samplers=ChallengePolicy().samplers[:1], max_tokens=(24,), length_classes=("short",))
    return {
        name: plan_challenge(
            block_hash="0x" + "11" * 32,
            secret=b"s" * 32,
            validator=VALIDATOR.ss58,
            miner=hotkey.ss58,
            round=number,
            model=loaded.identity,
            tokenize=loaded.tokenize,
            policy=policy,
        )
        for name, hotkey in HOTKEYS.items()
    }


@contextlib.asynccontextmanager
async def miners(loaded: LoadedModel) -> AsyncIterator[dict[str, Target]]:
    """Seven addresses behind which seven kinds of miner live."""
    async with contextlib.AsyncExitStack() as stack:
        engine = await stack.enter_async_context(ContinuousBatchingEngine(loaded, EngineSettings()))
        targets: dict[str, Target] = {}
        for name in ("honest", "tampered", "two_faced", "wrong_seed", "silent"):
            hotkey = HOTKEYS[name]
            handler: Callable[..., Any] = (
                GenerateService(engine, loaded.identity, hotkey.ss58)
                if name == "honest"
                else cheats.make(name, cheats.Kitchen(engine, loaded, hotkey.ss58))
            )
            server = SynapseServer(hotkey, policy=OpenPolicy(), host="127.0.0.1")
            server.attach_stream(INFERENCE_GENERATE, handler)
            await stack.enter_async_context(server)
            targets[name] = Target(hotkey.ss58, "127.0.0.1", server.port)

        async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, digest: bytes) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{NaN")
            await writer.drain()

        broken = await stack.enter_async_context(peer(garbage))
        targets["broken"] = Target(HOTKEYS["broken"].ss58, broken.ip, broken.port)
        targets["absent"] = Target(HOTKEYS["absent"].ss58, "127.0.0.1", 9)
        yield targets


async def ask(loaded: LoadedModel, plan: dict[str, Challenge]) -> dict[str, Answer]:
    async with miners(loaded) as targets, SynapseClient(VALIDATOR, allow_local=True) as client:
        asked = {targets[name]: challenge for name, challenge in plan.items()}
        answers = await ask_all(client, asked, deadline=DEADLINE, concurrency=8)
    names = {hotkey.ss58: name for name, hotkey in HOTKEYS.items()}
    return {names[answer.challenge.miner]: answer for answer in answers}


async def test_one_round_pays_the_honest_miner_and_nobody_else(loaded: LoadedModel, tmp_path: Path) -> None:
    plan = challenges(loaded)
    answers = await ask(loaded, plan)
    verifier = Verifier(loaded)
    judged = await judge_all(verifier, calibration_of(loaded.identity), list(answers.values()), {})
    verdicts = {name: judged.verdicts.get(HOTKEYS[name].ss58) for name in NAMES}
    verifier.close()

    assert verdicts["honest"] is not None and verdicts["honest"].outcome is Outcome.ACCEPT
    for name in ("tampered", "two_faced", "wrong_seed"):
        verdict = verdicts[name]
        assert verdict is not None and verdict.outcome is Outcome.REJECT, name
    assert verdicts["two_faced"] is not None and verdicts["two_faced"].reason is Reason.STREAM_MISMATCH
    for name in ("silent", "broken", "absent"):
        assert verdicts[name] is None and answers[name].failure is not None, name
    honest = answers["honest"]
    assert honest.first_token_s is not None and honest.reply is not None
    assert 0 < honest.first_token_s <= honest.reply.timing.total
    assert honest.streamed == honest.reply.response.token_ids

    seen = observations(list(answers.values()), judged)
    states = fold_round({}, seen, 0)
    assert weights(states, 0) == {HOTKEYS["honest"].ss58: 1.0}
    assert set(judged.pools) == {HOTKEYS[n].ss58 for n in ("honest",)}, "a reject counts once"

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for challenge in plan.values():
            ledger.record_challenge(challenge, 1.0)
        record(ledger, list(answers.values()), judged)
        ledger.commit_round(MECHANISM, 0, states, seen)
        counts = ledger.verdict_counts()
        assert counts[HOTKEYS["honest"].ss58]["accept"] == 1
        assert counts[HOTKEYS["tampered"].ss58]["reject"] == 1
        assert counts[HOTKEYS["silent"].ss58]["failure"] == 1
        assert ledger.reasons(HOTKEYS["silent"].ss58) == {"deadline": 1}


class Broken:
    """A verifier that cannot run."""

    async def recompute(self, pairs: Any) -> list[Unchecked]:
        return [Unchecked("no memory") for _ in pairs]


async def test_what_could_not_be_checked_neither_earns_nor_costs(loaded: LoadedModel) -> None:
    plan = {name: challenge for name, challenge in challenges(loaded).items() if name in ("honest", "tampered")}
    answers = list((await ask(loaded, plan)).values())
    before = {HOTKEYS["honest"].ss58: Pool((PooledAnswer("", 10, 0.0),))}
    judged = await judge_all(Broken(), calibration_of(loaded.identity), answers, before)
    verdict = judged.verdicts[HOTKEYS["honest"].ss58]
    assert verdict.outcome is Outcome.INCONCLUSIVE and verdict.reason is Reason.NOT_RECOMPUTED
    assert judged.pools == {}
    states = fold_round({}, observations(answers, judged), 0)
    assert states[HOTKEYS["honest"].ss58].score == 0.0 and not states[HOTKEYS["honest"].ss58].rejects


async def test_without_thresholds_nothing_passes(loaded: LoadedModel) -> None:
    plan = {name: challenge for name, challenge in challenges(loaded).items() if name in ("honest", "tampered")}
    answers = list((await ask(loaded, plan)).values())
    verifier = Verifier(loaded)
    judged = await judge_all(verifier, None, answers, {})
    verifier.close()
    assert judged.verdicts[HOTKEYS["honest"].ss58].reason is Reason.NO_CALIBRATION
    assert not any(verdict.outcome is Outcome.ACCEPT for verdict in judged.verdicts.values())


class Measured:
    """A verifier whose every recomputation finds the same margin for each token."""

    def __init__(self, loaded: LoadedModel, margin: float) -> None:
        self.loaded = loaded
        self.margin = margin

    async def recompute(self, pairs: Any) -> list[Recomputed]:
        return [
            Recomputed(
                self.loaded.identity.root,
                self.loaded.identity.dtype,
                challenge.request.prompt_ids,
                (self.margin,) * len(response.token_ids),
                response.token_ids,
                (False,) * len(response.token_ids),
                (0.0,) * -(-len(response.token_ids) // CHUNK),
            )
            for challenge, response in pairs
        ]


async def test_every_answer_is_held_against_a_hotkey_once(loaded: LoadedModel) -> None:
    calibration = calibration_of(loaded.identity)
    honest = HOTKEYS["honest"].ss58
    plan = {name: challenge for name, challenge in challenges(loaded).items() if name == "honest"}
    answers = list((await ask(loaded, plan)).values())
    clean = Pool((PooledAnswer("", calibration.pool_tokens, 0.0),))

    judged = await judge_all(Measured(loaded, 5.0), calibration, answers, {honest: clean})
    assert judged.verdicts[honest].outcome is Outcome.REJECT
    judged = await judge_all(Measured(loaded, 0.0), calibration, answers, {honest: clean, **judged.pools})
    assert judged.verdicts[honest].outcome is Outcome.ACCEPT, "the reject of the round before was counted again"

    lossy = Pool((PooledAnswer("", calibration.pool_tokens, calibration.pool_tokens * calibration.pool_mean * 2),))
    judged = await judge_all(Measured(loaded, 0.0), calibration, answers, {honest: lossy})
    assert judged.verdicts[honest].reason is Reason.POOLED_MARGIN and judged.pools[honest].tokens == 0


@pytest.mark.parametrize("offsets", [(0, 0), (1,), (0, 2), tuple(range(25))])
async def test_chunks_out_of_place_or_beyond_the_limit_end_the_call(
    loaded: LoadedModel, offsets: tuple[int, ...]
) -> None:
    challenge = challenges(loaded)["honest"]

    async def handler(request: Any, caller: Any) -> AsyncIterator[Any]:
        for offset in offsets:
            yield GenerateChunk(offset=offset, token_ids=(7,))
        await asyncio.Event().wait()  # whoever reads on waits for the deadline

    server = SynapseServer(HOTKEYS["honest"], policy=OpenPolicy(), host="127.0.0.1")
    server.attach_stream(INFERENCE_GENERATE, handler)
    async with SynapseClient(VALIDATOR, allow_local=True) as client, server:
        target = Target(HOTKEYS["honest"].ss58, "127.0.0.1", server.port)
        (answer,) = await ask_all(client, {target: challenge}, deadline=20.0, concurrency=1)
    assert answer.failure is not None and answer.failure.code is FailureCode.MALFORMED, answer.failure


async def test_the_fastest_of_a_kind_is_always_audited(loaded: LoadedModel) -> None:
    plan = {name: challenge for name, challenge in challenges(loaded).items() if name in ("honest", "tampered")}
    answers = list((await ask(loaded, plan)).values())
    never = dict.fromkeys((answer.challenge.miner for answer in answers), 0.0)
    fastest = max(answers, key=lambda answer: answer.tokens_per_s or 0.0).challenge.miner
    assert draw(answers, b"s" * 32, never) == {fastest}
    assert draw(answers[:1], b"s" * 32, never) == set(), "whoever is alone is measured against nobody"
    assert draw(answers, b"s" * 32, {}) == set(never), "a hotkey nothing is known of is audited"


async def test_an_answer_padded_with_white_space_is_not_kept(loaded: LoadedModel) -> None:
    challenge = challenges(loaded)["honest"]
    async with miners(loaded) as targets, SynapseClient(VALIDATOR, allow_local=True) as client:
        (whole,) = await ask_all(client, {targets["honest"]: challenge}, deadline=20.0, concurrency=1)
    assert whole.reply is not None
    size = len(whole.reply.exchange.response_body)
    assert size < answer_bytes(challenge.request.max_tokens) < 20 * size

    async def handler(request: Any, caller: Any) -> AsyncIterator[Any]:
        yield whole.reply.response

    server = SynapseServer(HOTKEYS["honest"], policy=OpenPolicy(), host="127.0.0.1")
    server.attach_stream(INFERENCE_GENERATE, handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("template.answers.encode", lambda message: encode(message) + b" " * 20_000)
        async with SynapseClient(VALIDATOR, allow_local=True) as client, server:
            target = Target(HOTKEYS["honest"].ss58, "127.0.0.1", server.port)
            (answer,) = await ask_all(client, {target: challenge}, deadline=20.0, concurrency=1)
    assert answer.failure is not None and answer.failure.code is FailureCode.TOO_LARGE
