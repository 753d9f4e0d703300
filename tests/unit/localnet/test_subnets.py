"""The subnet builder: who is there, with which keys and settings, and that nothing else has changed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from localnet.client import Outcome, keypair, public_key
from localnet.errors import CallFailed, ConfigError
from localnet.net import TAO, Localnet
from localnet.sync import SyncLocalnet

MANUAL = pytest.mark.localnet(mining="manual")
HELD = ("AdminFreezeWindow", "StartCallDelay", "NetworkRateLimit")


@MANUAL
def test_everybody_is_there_with_documented_keys(shared_localnet: SyncLocalnet) -> None:
    net = shared_localnet
    held = [net.query("SubtensorModule", item) for item in HELD]
    subnet = net.subnet(miners=3, validators=2, stake=[50 * TAO, 20 * TAO], tempo=7, hyperparameters={"kappa": 40_000})
    metagraph = subnet.metagraph()
    assert [one.uid for one in subnet.neurons] == subnet.uids() == list(range(6))
    assert (subnet.uids("owner"), subnet.uids("validator"), subnet.uids("miner")) == ([0], [1, 2], [3, 4, 5])
    assert [bytes(hotkey) for hotkey in metagraph["hotkeys"]] == [public_key(one.hotkey) for one in subnet.neurons]
    assert [bytes(coldkey) for coldkey in metagraph["coldkeys"]] == [public_key(one.coldkey) for one in subnet.neurons]
    assert subnet.validators[1].hotkey == f"//Subnet{subnet.netuid}//validator1//hot"
    assert subnet.miners[2].address == keypair(f"//Subnet{subnet.netuid}//miner2//hot").ss58_address
    assert metagraph["validator_permit"] == [True, True, True, False, False, False]
    alpha = metagraph["alpha_stake"]
    assert alpha[1] > 2 * alpha[2] > 0 == alpha[3] == alpha[4]
    assert metagraph["tempo"] == 7 and net.query("SubtensorModule", "Kappa", subnet.netuid) == 40_000
    assert net.query("SubtensorModule", "SubnetEmissionEnabled", subnet.netuid)
    assert [net.query("SubtensorModule", item) for item in HELD] == held
    fresh = net.net.client.entry("SubtensorModule", "BurnIncreaseMult")
    growth = net.net.client.registry.decode(fresh.value, fresh.default)
    assert net.query("SubtensorModule", "BurnIncreaseMult", subnet.netuid) == growth


@MANUAL
def test_weights_epochs_and_a_second_subnet(shared_localnet: SyncLocalnet) -> None:
    net = shared_localnet
    subnets = [net.subnet(miners=2, validators=1), net.subnet(miners=1, validators=1, label="Other")]
    assert subnets[1].netuid == subnets[0].netuid + 1 and subnets[1].owner.coldkey == "//Other//owner"
    for subnet in subnets:
        assert subnet.set_weights(0, {uid: uid for uid in subnet.uids("miner")}).success
        before = net.block
        assert subnet.epochs(2) == net.block > before + 2
    with pytest.raises(ConfigError, match="there are 1 validators"):
        subnets[0].set_weights(1, {2: 1})
    with pytest.raises(ConfigError, match="by uid"):
        subnets[0].set_weights(0, [1, 2])  # type: ignore[arg-type]
    assert subnets[0].metagraph()["incentives"][2:] == pytest.approx([65535 * 2 / 5, 65535 * 3 / 5], abs=1)
    assert net.query("SubtensorModule", "Weights", subnets[0].netuid, 1) == [(2, 43690), (3, 65535)]
    failed = subnets[0].set_weights(0, {99: 1}, check=False)
    assert (failed.success, failed.error) == (False, "UidVecContainInvalidOne")
    with pytest.raises(CallFailed, match="UidVecContainInvalidOne"):
        subnets[0].set_weights(subnets[0].validators[0], {99: 1})
    with pytest.raises(ConfigError, match="not negative"):
        subnets[0].set_weights(0, {3: 0})


@MANUAL
@pytest.mark.parametrize(
    ("plan", "error", "text"),
    [
        ({"hyperparameters": {"kapa": 1}}, ConfigError, "'kapa': kappa"),
        ({"hyperparameters": {"alpha_values": 5}}, ConfigError, "takes alpha_low, alpha_high"),
        ({"hyperparameters": {"alpha_values": (1, 2)}}, CallFailed, "LiquidAlphaDisabled: AdminUtils.sudo_set_alpha"),
        ({"miners": -1}, ConfigError, "cannot be negative"),
        ({"stake": [1, 2, 3]}, ConfigError, "2 of them"),
        ({"validators": 64, "miners": 300}, ConfigError, "365 neurons do not fit"),
        ({"hyperparameters": {"max_allowed_uids": 5}}, ConfigError, "at most 5"),
    ],
)
def test_a_plan_that_fails_leaves_the_chain_as_it_was(
    shared_localnet: SyncLocalnet, plan: dict[str, Any], error: type[Exception], text: str
) -> None:
    before = shared_localnet.block_hash
    with pytest.raises(error) as caught:
        shared_localnet.subnet(**plan)
    assert text in str(caught.value) and shared_localnet.block_hash == before


async def test_it_works_with_mainnet_constants_and_while_blocks_come_by_themselves() -> None:
    async with Localnet(block_time=0.05, profile="mainnet") as net:
        subnet = await net.subnet(
            miners=1, validators=1, tempo=20, hyperparameters={"burn_increase_mult": {"bits": 3 << 63}}
        )
        again = await net.subnet(miners=0, validators=1, epochs=0)
        assert (await subnet.set_weights(0, {2: 1})).success and again.netuid == subnet.netuid + 1
        assert net.query("SubtensorModule", "BurnIncreaseMult", subnet.netuid) == {"bits": 3 << 63}
        assert subnet.explain(1)["words"] and net.query("SubtensorModule", "NetworkRateLimit") > 0


async def test_a_plan_that_fails_takes_nobody_elses_transactions_with_it(tmp_path: Path) -> None:
    async with Localnet(mining="manual", state=tmp_path / "chain.db") as net:  # writing it lets others in

        async def others() -> list[Outcome]:
            return [await net.extrinsic("//Bob", "System", "remark", remark=b"") for _ in range(5)]

        net.snapshot()
        late = net.client.sign("//Alice", net.client.encode_call("System", "remark", {"remark": b""}), 7)
        net.client.submit(late, lambda status: None)  # waits for nonces before its own
        plan = {"hyperparameters": {"min_burn": 10**18}}
        both = asyncio.gather(net.subnet(**plan), others(), return_exceptions=True)
        failed, sent = await asyncio.wait_for(both, 20)
        assert isinstance(failed, CallFailed) and isinstance(sent, list) and len(sent) == 5
        assert all("0x" + net.chain.block(one.block).hash.hex() == one.block_hash for one in sent)
        assert net.query("System", "Account", "//Bob")["nonce"] == 5 == net.block
        assert [entry.xt.raw for entry in net.chain.pool.entries.values()] == [late]
