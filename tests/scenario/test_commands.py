"""Commands against a real chain in this process: register, status, audit."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from localnet.net import Localnet
from neurons.audit import CannotAudit, audit
from neurons.mechanisms import _shares, mechanisms
from neurons.register import register
from neurons.status import status
from template.chain import Chain, ChainRefused
from template.errors import TemplateError
from template.keys import Hotkey, create_wallet, open_wallet
from template.operations import Operator

ALICE = Hotkey.from_uri("//Alice")
VALIDATORS = (Hotkey.from_uri("//v1"), Hotkey.from_uri("//v2"))
MINERS = (Hotkey.from_uri("//m1"), Hotkey.from_uri("//m2"))
TEMPO = 12


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


async def subnet(chain: Chain) -> int:
    alice = Operator(chain, ALICE.keypair)
    netuid = await alice.create_subnet(Hotkey.from_uri("//owner").ss58)
    await alice.admin("sudo_set_admin_freeze_window", {"window": 0})
    await alice.tune(netuid, {"tempo": TEMPO, "weights_rate_limit": 0, "commit_reveal": False})
    for hotkey in (*VALIDATORS, *MINERS):
        await alice.register(netuid, hotkey.ss58)
    for hotkey, tao in zip(VALIDATORS, (600.0, 250.0), strict=True):
        await alice.stake(netuid, hotkey.ss58, tao)
    return netuid


async def paid_subnet(net: Localnet, chain: Chain) -> int:
    """A subnet with two validators that disagree, after several epochs; owned by a stranger to the miners' coldkey."""
    netuid = await subnet(chain)
    await net.mine_epoch(netuid)
    for shares in ((0.7, 0.3), (0.2, 0.8)):
        for validator, share in zip(VALIDATORS, shares, strict=True):
            weights = {MINERS[0].ss58: share, MINERS[1].ss58: 1 - share}
            assert (await chain.set_weights(netuid, validator, weights)).ok
        await net.mine_epoch(netuid)
    return netuid


async def test_a_hotkey_is_registered_once_and_paid_for_once(
    localnet: Localnet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wallet = create_wallet("mine", path=tmp_path, password=False)
    await localnet.fund(wallet.coldkeypub.ss58_address, 100 * 10**9)
    async with Chain(localnet.url) as chain:
        netuid = await subnet(chain)
    arguments = (localnet.url, netuid, "mine", "default", tmp_path)
    with pytest.raises(TemplateError, match="--yes"):
        await register(*arguments, yes=False, as_json=True)
    assert await register(*arguments, yes=True, as_json=True) == 0
    first = printed(capsys)
    assert first["uid"] == 5 and first["paid_tao"] > 0
    assert await register(*arguments, yes=True, as_json=True) == 0
    assert printed(capsys) == {**first, "paid_tao": 0.0}


async def test_the_owner_divides_the_emission_between_inference_and_training(
    localnet: Localnet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wallet = create_wallet("owner", path=tmp_path, password=False)
    await localnet.fund(wallet.coldkeypub.ss58_address, 2_000 * 10**9)
    async with Chain(localnet.url) as chain:
        owner = Operator(chain, open_wallet("owner", path=tmp_path))
        netuid = await owner.create_subnet(wallet.hotkey.ss58_address)
        await Operator(chain, ALICE.keypair).admin("sudo_set_admin_freeze_window", {"window": 0})
        asked = (localnet.url, netuid)
        assert await mechanisms(*asked, "", "owner", tmp_path, yes=False, as_json=True) == 0
        assert printed(capsys) == {"netuid": netuid, "mechanisms": 1, "emission": {"inference": 1.0}}
        with pytest.raises(TemplateError, match="--yes"):
            await mechanisms(*asked, "0.7,0.3", "owner", tmp_path, yes=False, as_json=True)
        assert await mechanisms(*asked, "0.7,0.3", "owner", tmp_path, yes=True, as_json=True) == 0
        told = printed(capsys)
        assert told["mechanisms"] == 2 and told["emission"] == pytest.approx(
            {"inference": 0.7, "training": 0.3}, abs=1e-4
        )
        assert not await owner.split_emission(netuid, (0.7, 0.3)), "what is so already costs no extrinsic"
        assert await chain.query("MechanismEmissionSplit", netuid) == [45874, 19661]
        with pytest.raises(ChainRefused):
            await Operator(chain, ALICE.keypair).split_emission(netuid + 1, (0.5, 0.5))


@pytest.mark.parametrize("split", ["", "0.7,", "1,-1", "a,b", "0,0", "1,1,1"])
def test_a_split_is_one_or_two_positive_numbers(split: str) -> None:
    with pytest.raises(TemplateError, match="no division"):
        _shares(split)


async def test_status_shows_what_the_chain_holds(
    localnet: Localnet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Chain(localnet.url) as chain:
        netuid = await paid_subnet(localnet, chain)
        await chain.serve_axon(netuid, MINERS[0], "127.0.0.2", 999)
        graph = await chain.metagraph(netuid)
    assert await status(localnet.url, netuid, ledgers=None, data_dir=tmp_path, as_json=True) == 0
    rows = {row["hotkey"]: row for row in printed(capsys)["neurons"]}
    assert rows[MINERS[0].ss58]["axon"] == "127.0.0.2:999"
    assert rows[MINERS[0].ss58]["score"] is None, "a score without a ledger would be made up"
    assert rows[VALIDATORS[0].ss58]["dividends"] == graph.by_hotkey[VALIDATORS[0].ss58].dividends > 0
    assert sum(rows[miner.ss58]["weight"] for miner in MINERS) == pytest.approx(1.0, abs=1e-3)


async def test_an_honest_epoch_passes_the_audit(localnet: Localnet, capsys: pytest.CaptureFixture[str]) -> None:
    async with Chain(localnet.url) as chain:
        netuid = await paid_subnet(localnet, chain)
        newest = int(await chain.query("SubnetEpochIndex", netuid))
    for epoch in (None, newest - 1):
        assert await audit(localnet.url, netuid, epoch=epoch, as_json=True) == 0
        result = printed(capsys)
        assert result["ok"] and result["epoch"] == (epoch or newest)
    with pytest.raises(CannotAudit, match="has not run"):
        await audit(localnet.url, netuid, epoch=newest + 1, as_json=True)


async def test_a_chain_that_pays_other_than_by_its_weights_fails_the_audit(
    localnet: Localnet, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Chain(localnet.url) as chain:
        netuid = await paid_subnet(localnet, chain)
        last = int(await chain.query("LastEpochBlock", netuid))
        uids = (await chain.metagraph(netuid)).uids(h.ss58 for h in (*VALIDATORS, *MINERS))
    await localnet.mine_to(last + TEMPO - 1)
    # Written at the end of the epoch's own block: what the epoch made of the weights is not what the chain says.
    favoured = [
        65535 if uid == uids[MINERS[0].ss58] else 0
        for uid in range(len(localnet.query("SubtensorModule", "Active", netuid)))
    ]
    await localnet.set_storage("SubtensorModule", "Incentive", netuid, value=favoured)
    assert await audit(localnet.url, netuid, epoch=None, as_json=True) == 1
    result = printed(capsys)
    assert result["block"] == last + TEMPO and not result["ok"]
    assert {n["uid"] for n in result["neurons"] if not n["agrees"]} >= {uids[m.ss58] for m in MINERS}


async def test_what_cannot_be_audited_is_named(localnet: Localnet) -> None:
    with pytest.raises(CannotAudit, match="subnet 9 does not exist"):
        await audit(localnet.url, 9, epoch=None, as_json=True)
    async with Chain(localnet.url) as chain:
        netuid = await paid_subnet(localnet, chain)
        await Operator(chain, ALICE.keypair).tune(netuid, {"commit_reveal": True})
    await localnet.mine_epoch(netuid)
    with pytest.raises(CannotAudit, match="commit-reveal is on"):
        await asyncio.wait_for(audit(localnet.url, netuid, epoch=None, as_json=True), 60)
