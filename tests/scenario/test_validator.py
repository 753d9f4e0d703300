"""The validator's rounds against a real chain, real servers and a tiny model, all in this process."""

import contextlib
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from localnet.net import Localnet
from neurons.joining import Checking, Joined
from neurons.metrics import ValidatorMetrics
from neurons.models import CommittedModel
from neurons.runtime import ChainWatch
from neurons.validator import Validator
from protocol.inference import INFERENCE_GENERATE, MECHANISM, GenerateRequest, Outcome, Reason, Verdict
from protocol.scoring import ScoreState
from template.chain import Chain
from template.client import SynapseClient
from template.inference.engine import ContinuousBatchingEngine, EngineSettings
from template.inference.models import LoadedModel
from template.inference.service import Frame, GenerateService
from template.inference.verifier import Verifier
from template.keys import Hotkey
from template.ledger import Ledger, Received
from template.limits import StakePolicy
from template.operations import Operator
from template.server import StreamHandler, SynapseServer
from template.settings import ValidatorSettings
from template.state import read_secret
from tests.adversary import cheats
from tests.support.inference import tiny_model
from tests.support.plans import calibration_of, plan

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127/8 on loopback")

ALICE = Hotkey.from_uri("//Alice")
OWNER = Hotkey.from_uri("//owner")
VALIDATOR = Hotkey.from_uri("//validator")
HONEST = Hotkey.from_uri("//honest")
CHEAT = Hotkey.from_uri("//cheat")
IP = "127.0.0.2"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


async def subnet(net: Localnet, chain: Chain) -> int:
    alice = Operator(chain, ALICE.keypair)
    netuid = await alice.create_subnet(OWNER.ss58)
    await alice.admin("sudo_set_admin_freeze_window", {"window": 0})
    await alice.tune(netuid, {"tempo": 10, "weights_rate_limit": 0, "serving_rate_limit": 0, "commit_reveal": False})
    for hotkey in (VALIDATOR, HONEST, CHEAT):
        await alice.register(netuid, hotkey.ss58)
    await alice.stake(netuid, VALIDATOR.ss58, 500.0)
    return netuid


@contextlib.asynccontextmanager
async def validating(chain: Chain, netuid: int, loaded: LoadedModel, home: Path) -> AsyncIterator[Validator]:
    settings = ValidatorSettings(
        network=chain.network, netuid=netuid, deadline=30.0, min_tokens=32, max_tokens=32, prompts="short"
    )
    watch = ChainWatch(chain, netuid, VALIDATOR.ss58)
    verifier = Verifier(loaded)
    async with SynapseClient(VALIDATOR, allow_local=True) as client:
        with Ledger(home / "ledger.sqlite") as ledger:
            checking = Checking(loaded, verifier, calibration_of(loaded.identity), client, read_secret(home / "secret"))
            joined = Joined(VALIDATOR, chain, watch, CommittedModel(watch))
            yield Validator(settings, joined, checking, ledger, ValidatorMetrics(CollectorRegistry()))
    verifier.close()


@contextlib.asynccontextmanager
async def mining(chain: Chain, netuid: int, loaded: LoadedModel) -> AsyncIterator[None]:
    """An honest and a cheating miner, serving and published."""
    async with ContinuousBatchingEngine(loaded, EngineSettings()) as engine:
        handlers = {
            HONEST: GenerateService(engine, loaded.identity, HONEST.ss58),
            CHEAT: cheats.make("canned", cheats.Kitchen(engine, loaded, CHEAT.ss58)),
        }
        async with serving(chain, netuid, handlers):
            yield


@contextlib.asynccontextmanager
async def serving(chain: Chain, netuid: int, handlers: Mapping[Hotkey, StreamHandler]) -> AsyncIterator[None]:
    """Serve each hotkey's handler, and publish where."""
    graph = await chain.metagraph(netuid)
    async with contextlib.AsyncExitStack() as stack:
        for hotkey, handler in handlers.items():
            server = SynapseServer(hotkey, policy=StakePolicy(lambda: graph), host=IP)
            server.attach_stream(INFERENCE_GENERATE, handler)
            await stack.enter_async_context(server)
            await chain.serve_axon(netuid, hotkey, IP, server.port)
        yield


async def test_work_is_paid_cheating_is_not_and_who_leaves_loses_everything(
    localnet: Localnet, loaded: LoadedModel, tmp_path: Path
) -> None:
    async with Chain(localnet.url) as chain:
        netuid = await subnet(localnet, chain)
        async with validating(chain, netuid, loaded, tmp_path) as validator:
            assert await validator.round() is False, "miners refuse a validator without permit, so nobody is asked"
            assert validator.ledger.last_round(MECHANISM) is None
            await localnet.mine_epoch(netuid)
            assert await validator.round() is False, "nobody serves yet"

            async with mining(chain, netuid, loaded):
                assert await validator.round() is True
            uids = (await chain.metagraph(netuid)).uids((VALIDATOR.ss58, HONEST.ss58, CHEAT.ss58, OWNER.ss58))
            held = await chain.weights_of(netuid, uids[VALIDATOR.ss58])
            assert held == {uids[HONEST.ss58]: 1.0}
            score = validator.ledger.scores(MECHANISM)
            assert score[HONEST.ss58].score > 0 and score[CHEAT.ss58].rejected == 1

            await localnet.mine_epoch(netuid)
            paid = (await chain.metagraph(netuid)).by_hotkey
            assert paid[HONEST.ss58].incentive == 1.0 and paid[CHEAT.ss58].incentive == 0.0

            for _ in range(80):  # the address on chain leads nowhere any more
                await validator.round()
                if validator.ledger.scores(MECHANISM)[HONEST.ss58].score < 1e-6:
                    break
            held = await chain.weights_of(netuid, uids[VALIDATOR.ss58])
            assert held == {uids[OWNER.ss58]: 1.0}, "the weight of a miner that is gone was not taken back"


async def test_a_trusted_miner_is_audited_less_until_it_cheats(
    localnet: Localnet, loaded: LoadedModel, tmp_path: Path
) -> None:
    dishonest = False

    async def turning(request: GenerateRequest, caller: object) -> AsyncIterator[Frame]:
        async for frame in (tampered if dishonest else honest)(request, caller):
            yield frame

    async with Chain(localnet.url) as chain, ContinuousBatchingEngine(loaded, EngineSettings()) as engine:
        netuid = await subnet(localnet, chain)
        await localnet.mine_epoch(netuid)
        honest = GenerateService(engine, loaded.identity, HONEST.ss58)
        tampered = cheats.make("tampered", cheats.Kitchen(engine, loaded, HONEST.ss58))
        async with validating(chain, netuid, loaded, tmp_path) as validator, serving(chain, netuid, {HONEST: turning}):

            def standing() -> ScoreState:
                return validator.ledger.scores(MECHANISM)[HONEST.ss58]

            for _ in range(60):
                await validator.round()
            before = standing()
            assert before.rejected == before.failed == 0 and before.score > 0.5
            assert before.audits + before.unaudited == 60, "an answer was neither audited nor passed over"
            assert before.unaudited >= 5 and before.audits >= 15, before

            dishonest = True
            for _ in range(200):
                await validator.round()
                if standing().rejected:
                    break
            assert standing().rejected == 1 and standing().score == 0.0 and standing().audits == 0, "it was not caught"
            assert standing().accepted <= before.accepted + 2, "more than the answers too short to tamper with"

            dishonest = False
            await validator.round()
            assert standing().audits == 1, "after a reject every answer is audited again"


async def test_a_reject_of_a_users_answer_counts_once(localnet: Localnet, loaded: LoadedModel, tmp_path: Path) -> None:
    async with Chain(localnet.url) as chain:
        netuid = await subnet(localnet, chain)
        await localnet.mine_epoch(netuid)
        async with validating(chain, netuid, loaded, tmp_path) as validator, mining(chain, netuid, loaded):
            await validator.round()
            assert validator.ledger.scores(MECHANISM)[HONEST.ss58].score > 0
            challenge = plan(loaded.identity, loaded.tokenize, round=999, miner=HONEST.ss58)
            verdict = Verdict(Outcome.REJECT, Reason.LOST_TOKENS, "two tokens", {"lost": 2.0}, "cal")
            received = Received(b"body", b"envelope", 1.0, 0.1, 0.2, 100.0)
            validator.ledger.record_organic(challenge, received, drawn=True, verdict=verdict, now=1.0)
            for rejected in (1, 1):
                await validator.round()
                assert validator.ledger.scores(MECHANISM)[HONEST.ss58].rejected == rejected
            assert validator.ledger.scores(MECHANISM)[HONEST.ss58].score == 0.0


async def test_a_restarted_validator_goes_on_where_it_was(
    localnet: Localnet, loaded: LoadedModel, tmp_path: Path
) -> None:
    async with Chain(localnet.url) as chain:
        netuid = await subnet(localnet, chain)
        await localnet.mine_epoch(netuid)
        async with mining(chain, netuid, loaded):
            async with validating(chain, netuid, loaded, tmp_path) as first:
                await first.round()
                await first.round()
                secret, before = first.checking.secret, first.ledger.scores(MECHANISM)
            async with validating(chain, netuid, loaded, tmp_path) as second:
                assert second.checking.secret == secret
                assert second.ledger.scores(MECHANISM) == before
                await second.round()
                assert second.ledger.last_round(MECHANISM) == 2
                assert second.ledger.scores(MECHANISM)[HONEST.ss58].score > before[HONEST.ss58].score
