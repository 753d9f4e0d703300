"""The validator's rounds against a real chain, real servers and a tiny model, all in this process."""

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from localnet.net import Localnet
from neurons.metrics import ValidatorMetrics
from neurons.runtime import ChainWatch
from neurons.validator import Validator, read_secret
from protocol.inference import INFERENCE_GENERATE, MECHANISM
from template.chain import Chain
from template.client import SynapseClient
from template.inference.engine import ContinuousBatchingEngine, EngineSettings
from template.inference.models import LoadedModel
from template.inference.service import GenerateService
from template.inference.verifier import Verifier, calibration_for
from template.keys import Hotkey
from template.ledger import Ledger
from template.limits import StakePolicy
from template.operations import Operator
from template.server import SynapseServer
from template.settings import ValidatorSettings
from tests.adversary import cheats
from tests.support.inference import tiny_model

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
        network=chain.network, netuid=netuid, deadline=5.0, min_tokens=32, max_tokens=32, prompts="short"
    )
    watch = ChainWatch(chain, netuid, VALIDATOR.ss58)
    verifier = Verifier(loaded)
    async with SynapseClient(VALIDATOR, allow_local=True) as client:
        with Ledger(home / "ledger.sqlite") as ledger:
            yield Validator(
                settings,
                VALIDATOR,
                chain,
                watch,
                client,
                loaded,
                verifier,
                calibration_for(loaded.identity),
                ledger,
                read_secret(home / "secret"),
                ValidatorMetrics(CollectorRegistry()),
            )
    verifier.close()


@contextlib.asynccontextmanager
async def mining(chain: Chain, netuid: int, loaded: LoadedModel) -> AsyncIterator[None]:
    """An honest and a cheating miner, serving and published."""
    graph = await chain.metagraph(netuid)
    async with contextlib.AsyncExitStack() as stack:
        engine = await stack.enter_async_context(ContinuousBatchingEngine(loaded, EngineSettings()))
        handlers = {
            HONEST: GenerateService(engine, loaded.identity, HONEST.ss58),
            CHEAT: cheats.make("tampered", cheats.Kitchen(engine, loaded, CHEAT.ss58)),
        }
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
                secret, before = first.secret, first.ledger.scores(MECHANISM)
            async with validating(chain, netuid, loaded, tmp_path) as second:
                assert second.secret == secret
                assert second.ledger.scores(MECHANISM) == before
                await second.round()
                assert second.ledger.last_round(MECHANISM) == 2
                assert second.ledger.scores(MECHANISM)[HONEST.ss58].score > before[HONEST.ss58].score
