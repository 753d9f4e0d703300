"""The released SDK on a chain without network: wallets from secret URIs, and weights that it seals itself."""

from __future__ import annotations

import importlib.util

import bittensor as bt
import bittensor_core
import pytest

from localnet.errors import ConfigError
from localnet.net import Localnet
from localnet.sdk import SEALS, Wallet, timelocks
from localnet.sync import SyncLocalnet

needs_bls = pytest.mark.skipif(not importlib.util.find_spec("py_arkworks_bls12381"), reason="there is none for 3.10")


@needs_bls
@pytest.mark.localnet(drand="local")
@pytest.mark.parametrize("later", [0, 60_000], ids=["now", "a minute ahead"])
async def test_weights_that_the_sdk_seals_are_opened(localnet: Localnet, later: int) -> None:
    subnet = await localnet.subnet(
        miners=2, validators=1, tempo=20, hyperparameters={"commit_reveal_weights_enabled": True}
    )
    if later:
        await localnet.travel(localnet.next_timestamp + later)
        await localnet.mine_to(localnet.block + 2)  # which takes the rounds between
    good, bad = subnet.uids("miner")
    who = subnet.validators[0]
    with timelocks(localnet):
        async with bt.Subtensor(localnet.url) as client:
            intent = bt.SetWeights(netuid=subnet.netuid, weights={good: 0.75, bad: 0.25})
            sent = (await client.execute(intent, who.wallet)).raise_for_failure()
    assert localnet.query("Drand", "LastStoredRound") < sent.data["reveal_round"]
    assert localnet.query("SubtensorModule", "Weights", subnet.netuid, who.uid) == []
    await subnet.epochs(2)
    assert localnet.query("SubtensorModule", "Weights", subnet.netuid, who.uid) == [(good, 65535), (bad, 21845)]
    await subnet.epochs()
    incentives = subnet.metagraph()["incentives"]
    assert incentives[good] > 2 * incentives[bad] > 0


def test_only_for_a_beacon_of_the_chains_own_and_only_inside(sync_localnet: SyncLocalnet) -> None:
    original = getattr(bittensor_core, SEALS)
    with pytest.raises(ConfigError, match='start it with drand="local"'), timelocks(sync_localnet):
        pass
    with SyncLocalnet(mining="manual", drand="local") as net, timelocks(net):
        assert getattr(bittensor_core, SEALS) is not original
    assert getattr(bittensor_core, SEALS) is original


def test_wallets_are_the_keys_of_their_secret_uris() -> None:
    wallet = Wallet("//Zoe")
    assert (
        wallet.coldkeypub.ss58_address == wallet.coldkey.ss58_address == Wallet("//Zoe", "//Other").coldkey.ss58_address
    )
    assert wallet.hotkey.ss58_address == Wallet("//Zoe//hot").coldkey.ss58_address
    assert Wallet("//Zoe", "//Other").hotkey.ss58_address == Wallet("//Other").coldkey.ss58_address
