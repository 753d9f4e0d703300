"""Reads: everything the SDK can ask is answered from the chain's state, at the head and at older blocks.

The values recorded from a public local node of the same version (spec 461) are reproduced exactly on a fresh chain
of ours; on somebody else's chain those comparisons are skipped.
"""

from __future__ import annotations

import asyncio
from typing import Any

import bittensor as bt
import pytest

from tests.conformance.clients.base import ALICE, TAO, Actor
from tests.conformance.clients.btcli import Btcli
from tests.conformance.clients.substrate import Substrate, as_root

NOBODY = "5C4hrfjw9DjXZTzV3MwzrrAr9P1MJhSrvWGWqi1eSuyUpnhM"
PARAMETERS: dict[str, Any] = {
    "coldkey_ss58": ALICE.cold, "hotkey_ss58": ALICE.hot, "account_ss58": ALICE.cold, "coldkey_ss58s": [ALICE.cold],
    "hotkey_ss58s": [ALICE.hot], "netuid": 1, "netuids": [0, 1], "uid": 0, "mechid": 0, "lite": False, "block": 1,
    "amount_tao": 1.0, "amount_alpha": 0.5, "crowdloan_id": 0, "lease_id": 0, "call_hash": "0x" + "00" * 32,
}  # fmt: skip
RECORDED_BLOCK = 67
READS = {str(entry["name"]): tuple(entry.get("params") or ()) for entry in bt.Client("ws://127.0.0.1:1").reads()}


@pytest.fixture(scope="module")
def fresh(observer: Substrate, foreign: bool) -> None:
    """Skips unless subnet 1 is as genesis left it."""
    if foreign:
        pytest.skip("recorded values are compared on a chain of ours only")
    assert observer.storage("SubtensorModule", "SubnetOwner", 1) == NOBODY


async def test_every_read_of_the_sdk_is_answered(sdk: bt.Client) -> None:
    view = await sdk.at()

    async def ask(name: str) -> str | None:
        try:
            await view.read(name, **{key: PARAMETERS[key] for key in READS[name]})
        except Exception as error:  # collected: one message names all reads that fail
            return f"{name}: {error}"
        return None

    assert len(READS) > 80
    problems = [await ask(name) for name in READS]
    assert not [text for text in problems if text]


async def test_subnet_one_reads_as_recorded(sdk: bt.Client, fresh: None) -> None:
    block = min(await sdk.block(), RECORDED_BLOCK)  # later the only neuron has been silent for too long to be active
    settings = await sdk.runtime(bt.runtime_api.SubnetInfoRuntimeApi.get_subnet_hyperparams, [1], block=block)
    recorded = {
        "rho": 10, "kappa": 32767, "immunity_period": 4096, "min_allowed_weights": 0, "max_weights_limit": 65535,
        "tempo": 100, "min_difficulty": 10_000_000, "max_difficulty": 4_611_686_018_427_387_903, "weights_version": 0,
        "weights_rate_limit": 100, "adjustment_interval": 100, "activity_cutoff": 1388, "registration_allowed": True,
        "target_regs_per_interval": 2, "min_burn": 500_000, "max_burn": 100_000_000_000, "bonds_moving_avg": 900_000,
        "max_regs_per_block": 1, "serving_rate_limit": 50, "max_validators": 64, "adjustment_alpha": 0,
        "difficulty": 10_000_000, "commit_reveal_period": 1, "commit_reveal_weights_enabled": True,
        "alpha_high": 58982, "alpha_low": 45875, "liquid_alpha_enabled": False,
    }  # fmt: skip
    assert settings == recorded
    (neuron,) = await sdk.runtime(bt.runtime_api.NeuronInfoRuntimeApi.get_neurons_lite, [1], block=block)
    expected = {"hotkey": NOBODY, "coldkey": NOBODY, "active": True, "stake": [(NOBODY, 10**9)], "pruning_score": 65535}
    assert {name: neuron[name] for name in expected} == expected


async def test_a_position_that_does_not_exist_reads_as_recorded(observer: Substrate, fresh: None) -> None:
    account = bytes(ALICE.coldkey.public_key).hex()
    hotkey = "b220508024ce70b0dd91910806fbda4614701cb762f669276fe978636c4ff80c"
    answer = observer.chain.rpc_request(
        "state_call", ["StakeInfoRuntimeApi_get_stake_info_for_hotkey_coldkey_netuid", "0x" + hotkey + account + "0100"]
    )
    assert answer["result"] == "0x01" + hotkey + account + "04" + "00" * 6


async def test_metagraph_and_neurons_agree(sdk: bt.Client) -> None:
    view = await sdk.at()
    graph = await view.subnets.metagraph(1)
    neurons = await view.neurons.all(1, lite=False)
    assert [n.hotkey for n in neurons] == graph.hotkeys
    assert [n.coldkey for n in neurons] == graph.coldkeys
    assert [n.validator_permit for n in neurons] == [n.validator_permit for n in graph.neurons]
    assert len(graph) == (await view.read("subnet", netuid=1)).neuron_count


async def test_a_selective_metagraph_has_the_asked_fields_of_the_whole(sdk: bt.Client) -> None:
    api = bt.runtime_api.SubnetInfoRuntimeApi
    block = await sdk.block()
    whole = await sdk.runtime(api.get_metagraph, [1], block=block)
    some = await sdk.runtime(api.get_selective_metagraph, [1, [1, 7, 52, 53, 67]], block=block)
    asked = ("netuid", "name", "block", "hotkeys", "coldkeys", "alpha_stake")
    assert {name: some[name] for name in asked} == {name: whole[name] for name in asked}
    assert all(value is None for name, value in some.items() if name not in asked)


async def test_the_past_stays_readable(sdk: bt.Client, money: None) -> None:
    actor = Actor.named("conformance-past")
    before = await sdk.block()
    known = (await sdk.read("balance", coldkey_ss58=actor.cold)).rao
    intent = bt.Transfer(dest_ss58=actor.cold, amount_tao=2)
    (await sdk.execute(intent, ALICE)).raise_for_failure()
    old = await sdk.at(before)
    assert (await old.read("balance", coldkey_ss58=actor.cold)).rao == known
    assert (await sdk.read("balance", coldkey_ss58=actor.cold)).rao == known + 2 * TAO


async def test_quotes_are_what_the_trade_then_does(
    sdk: bt.Client, observer: Substrate, money: None, sudo: None
) -> None:
    """Staking on subnet 1 after root enabled it: the simulated amount of alpha is the credited one."""
    await as_root(observer, "sudo_set_subtoken_enabled", netuid=1, subtoken_enabled=True)
    try:
        quote = await sdk.read("quote_stake", netuid=1, amount_tao=0.1)
        before = await sdk.read("stake", coldkey_ss58=ALICE.cold, hotkey_ss58=NOBODY, netuid=1)
        intent = bt.AddStake(hotkey_ss58=NOBODY, netuid=1, amount_tao=0.1)
        (await sdk.execute(intent, ALICE)).raise_for_failure()
        after = await sdk.read("stake", coldkey_ss58=ALICE.cold, hotkey_ss58=NOBODY, netuid=1)
        assert abs(after.rao - before.rao - quote.alpha.rao) <= 1
        positions = await sdk.read("stake_for_coldkey", coldkey_ss58=ALICE.cold)
        assert [p.hotkey for p in positions if p.netuid == 1] == [NOBODY]
    finally:
        await as_root(observer, "sudo_set_subtoken_enabled", netuid=1, subtoken_enabled=False)


def test_the_blocking_sdk_reads_on_its_own_thread(endpoint: str) -> None:
    with bt.Subtensor(endpoint) as client:
        assert client.subnets.metagraph(1).netuid == 1
        assert client.block > 0
        assert client.spec_version == 461
        assert client.at(1).read("timestamp")["block"] == 1


def test_btcli_shows_the_chain(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    btcli = Btcli(endpoint, tmp_path_factory.mktemp("home"))
    try:
        commands = {
            ("subnets", "list"): lambda value: {0, 1} <= {row["netuid"] for row in value},
            ("subnets", "show", "1"): lambda value: value["netuid"] == 1,
            ("subnets", "hyperparameters", "1"): lambda value: value["kappa"] == 32767,
            ("subnets", "price", "--netuid", "1"): lambda value: value["price_rao"] > 0,
            ("subnets", "burn-cost", "1"): lambda value: value["tao"] > 0,
            ("subnets", "create-cost"): lambda value: value["tao"] >= 1000,
            ("wallet", "balance", ALICE.cold): lambda value: value["coldkey"] == ALICE.cold,
            ("stake", "list", "--coldkey", ALICE.cold): lambda value: isinstance(value, list),
        }
        for command, holds in commands.items():
            status, value, errors = btcli.run(*command)
            assert status == 0, f"btcli {' '.join(command)}: {errors}"
            assert holds(value), f"btcli {' '.join(command)}: {value}"
    finally:
        btcli.close()


async def test_many_reads_at_once_come_back_to_their_askers(sdk: bt.Client) -> None:
    view = await sdk.at()
    tempos, prices = await asyncio.gather(
        asyncio.gather(*(view.query(bt.storage.SubtensorModule.Tempo, [netuid]) for netuid in (0, 1) * 20)),
        asyncio.gather(*(view.read("alpha_price", netuid=1) for _ in range(10))),
    )
    assert len(tempos) == 40 and len({str(price) for price in prices}) == 1
