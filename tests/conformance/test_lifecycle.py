"""The life of a subnet, done by each client from the first transfer to the last unstaking.

The steps of `TestLifecycle` run in order and build on each other; they are the same for every client. What a step needs
from earlier ones is in `Stage`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import pytest

from tests.conformance.clients.base import ALICE, TAO, Actor, Client
from tests.conformance.clients.sdk import AsyncSdk, SyncSdk
from tests.conformance.clients.substrate import Substrate
from tests.support.drand import ROUND, payload, sdk_sealed

TEMPO = 8
REVEAL_TEMPO = 20  # an epoch has to be long enough for a client to start, sign and send
LONG = 50_000  # blocks: a rate limit that does not pass while a test runs
PATIENCE = 60.0  # seconds until something the chain does by itself must have happened


@dataclass
class Stage:
    """One client's subnet and the accounts on it."""

    client: Client
    observer: Substrate
    token: str
    owner: Actor
    validator: Actor
    miners: list[Actor]
    netuid: int = -1
    uids: dict[str, int] = field(default_factory=dict)

    def settle(self, *calls: tuple[str, dict[str, Any]]) -> None:
        """AdminUtils calls as root, by the observer: what is not what the client is tested with."""
        for function, args in calls:
            self.observer.call("AdminUtils", function, args, ALICE, sudo=True).expect()

    def balance(self, actor: Actor) -> int:
        return self.observer.balance(actor.cold)

    def item(self, name: str, *keys: Any) -> Any:
        return self.observer.storage("SubtensorModule", name, *keys)

    def until(self, what: str, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE} s"
            time.sleep(0.1)
        return value

    def next_epoch(self, count: int = 1) -> None:
        """Wait until the subnet ran `count` more epochs."""
        start = self.item("SubnetEpochIndex", self.netuid)
        self.until("an epoch", lambda: self.item("SubnetEpochIndex", self.netuid) >= start + count)


@pytest.fixture(scope="class")
def stage(client: Client, observer: Substrate, money: None, sudo: None) -> Stage:
    token = f"{client.name}-{secrets.token_hex(3)}"
    actors = [Actor.named(f"{token}-{role}") for role in ("owner", "validator", "miner1", "miner2")]
    return Stage(client, observer, token, actors[0], actors[1], actors[2:])


def commit_hash(
    account: bytes, netuid: int, uids: list[int], values: list[int], salt: list[int], version: int
) -> bytes:
    """blake2b-256 over the SCALE encoding of what is committed to; lists shorter than 64 have a one-byte length."""

    def vector(numbers: list[int]) -> bytes:
        return bytes((len(numbers) << 2,)) + b"".join(number.to_bytes(2, "little") for number in numbers)

    whole = account + netuid.to_bytes(2, "little") + vector(uids) + vector(values) + vector(salt)
    return blake2b(whole + version.to_bytes(8, "little"), digest_size=32).digest()


class TestLifecycle:
    """Names of the steps say what is proven; each step needs the ones before it."""

    def test_a_transfer_arrives_and_costs_its_fee(self, stage: Stage) -> None:
        before = stage.client.balance(ALICE.cold)
        amount = stage.observer.subnet_cost() // TAO + 100  # it doubles with every subnet
        stage.client.do("transfer", ALICE, dest_ss58=stage.owner.cold, amount_tao=float(amount)).expect()
        assert stage.client.balance(stage.owner.cold) == amount * TAO
        fee = before - stage.balance(ALICE) - amount * TAO
        assert 100_000 < fee < 500_000, "a transfer costs about 166 thousand rao"
        for actor in (stage.validator, *stage.miners):
            stage.observer.do("transfer", ALICE, dest_ss58=actor.cold, amount_tao=1000.0).expect()

    def test_a_transfer_of_more_than_there_is_fails_by_name(self, stage: Stage) -> None:
        outcome = stage.client.do("transfer", stage.miners[0], dest_ss58=ALICE.cold, amount_tao=2000.0)
        assert not outcome.ok
        assert outcome.error in ("FundsUnavailable", "InsufficientBalance", "insufficient_balance"), outcome
        assert stage.balance(stage.miners[0]) > 999 * TAO

    def test_a_subnet_is_registered_by_its_owner(self, stage: Stage) -> None:
        known = {netuid.value for netuid, _ in stage.observer.chain.query_map("SubtensorModule", "NetworksAdded")}
        cost = stage.observer.subnet_cost()
        before = stage.balance(stage.owner)
        stage.client.do("register_subnet", stage.owner).expect()
        now = {netuid.value for netuid, _ in stage.observer.chain.query_map("SubtensorModule", "NetworksAdded")}
        (stage.netuid,) = now - known
        assert stage.item("SubnetOwner", stage.netuid) == stage.owner.cold
        assert stage.client.uid(stage.netuid, stage.owner.hot) == 0
        assert cost * 0.999 <= before - stage.balance(stage.owner) <= cost + TAO, "the cost falls from block to block"

    def test_a_subnet_that_is_not_started_takes_no_stake(self, stage: Stage) -> None:
        outcome = stage.client.call(
            "SubtensorModule", "add_stake",
            {"hotkey": stage.owner.hot, "netuid": stage.netuid, "amount_staked": TAO}, stage.owner,
        )  # fmt: skip
        assert (outcome.ok, outcome.error) == (False, "SubtokenDisabled")

    def test_the_owner_starts_the_subnet(self, stage: Stage) -> None:
        stage.client.do("start_call", stage.owner, netuid=stage.netuid).expect()
        assert stage.item("FirstEmissionBlockNumber", stage.netuid)
        assert stage.item("SubtokenEnabled", stage.netuid) is True

    def test_root_sets_what_only_root_may_set(self, stage: Stage) -> None:
        netuid = stage.netuid
        stage.client.call("AdminUtils", "sudo_set_admin_freeze_window", {"window": 0}, ALICE, sudo=True).expect()
        stage.client.call("AdminUtils", "sudo_set_tempo", {"netuid": netuid, "tempo": TEMPO}, ALICE, sudo=True).expect()
        assert stage.item("Tempo", netuid) == TEMPO
        stage.settle(
            ("sudo_set_owner_hparam_rate_limit", {"epochs": 0}),
            ("sudo_set_commit_reveal_weights_enabled", {"netuid": netuid, "enabled": False}),
            ("sudo_set_subnet_emission_enabled", {"netuid": netuid, "enabled": True}),
            ("sudo_set_weights_set_rate_limit", {"netuid": netuid, "weights_set_rate_limit": 0}),
            ("sudo_set_serving_rate_limit", {"netuid": netuid, "serving_rate_limit": LONG}),
            ("sudo_set_subtoken_enabled", {"netuid": 0, "subtoken_enabled": True}),  # a fresh root takes no stake
        )

    def test_nobody_else_is_root(self, stage: Stage) -> None:
        outcome = stage.client.call(
            "AdminUtils", "sudo_set_tempo", {"netuid": stage.netuid, "tempo": 1}, stage.miners[0]
        )
        assert (outcome.ok, outcome.error) == (False, "BadOrigin")
        outcome = stage.client.call(
            "AdminUtils", "sudo_set_tempo", {"netuid": stage.netuid, "tempo": 1}, stage.miners[0], sudo=True
        )
        assert not outcome.ok
        assert outcome.error in ("BadSigner", "Invalid signing address"), outcome  # the pool knows who may use sudo
        assert stage.item("Tempo", stage.netuid) == TEMPO

    def test_the_owner_sets_a_hyperparameter(self, stage: Stage) -> None:
        stage.client.do(
            "set_hyperparameter", stage.owner, netuid=stage.netuid, name="immunity_period", value=7
        ).expect()
        assert int(stage.client.hyperparameter(stage.netuid, "immunity_period")) == 7

    def test_neurons_register_by_paying(self, stage: Stage) -> None:
        for actor in (stage.validator, *stage.miners):
            before = stage.balance(actor)
            stage.client.do("burned_register", actor, netuid=stage.netuid).expect()
            assert before - stage.balance(actor) >= 500_000
        for actor in (stage.owner, stage.validator, *stage.miners):
            uid = stage.observer.uid(stage.netuid, actor.hot)
            assert uid is not None
            stage.uids[actor.hot] = uid
        assert sorted(stage.uids.values()) == [0, 1, 2, 3]

    def test_a_hotkey_registers_once(self, stage: Stage) -> None:
        outcome = stage.client.call(
            "SubtensorModule",
            "burned_register",
            {"netuid": stage.netuid, "hotkey": stage.validator.hot},
            stage.validator,
        )
        assert (outcome.ok, outcome.error) == (False, "HotKeyAlreadyRegisteredInSubNet")

    def test_a_hotkey_registers_on_root(self, stage: Stage) -> None:
        """Not the validator's: on every subnet a root validator's stake is put behind the owner."""
        stage.until("a free root slot", lambda: stage.item("RegistrationsThisInterval", 0) < 3)
        newcomer, owner = stage.miners[1], stage.item("SubnetOwnerHotkey", stage.netuid)
        stage.client.do("root_register", newcomer).expect()
        assert stage.client.uid(0, newcomer.hot) is not None
        assert stage.observer.children(stage.netuid, newcomer.hot) == [owner]

    def test_stake_is_added(self, stage: Stage) -> None:
        hotkey, cold = stage.validator.hot, stage.validator.cold
        stage.client.do("add_stake", stage.validator, hotkey_ss58=hotkey, netuid=stage.netuid, amount_tao=20.0).expect()
        stage.client.do("add_stake", stage.validator, hotkey_ss58=hotkey, netuid=0, amount_tao=50.0).expect()
        assert stage.client.stake(cold, hotkey, stage.netuid) > 15 * TAO
        assert stage.client.stake(cold, hotkey, 0) == pytest.approx(50 * TAO, abs=2)
        assert stage.balance(stage.validator) < 930 * TAO
        # So far the owner earned alone; consensus needs a validator with more than half of all stake.
        large = {"hotkey_ss58": hotkey, "netuid": stage.netuid, "amount_tao": 200.0}
        stage.observer.do("add_stake", stage.validator, **large).expect()

    def test_a_purchase_beyond_its_limit_price_is_refused(self, stage: Stage) -> None:
        price = stage.item("SubnetTAO", stage.netuid) * TAO // stage.item("SubnetAlphaIn", stage.netuid)
        args = {
            "hotkey": stage.validator.hot, "netuid": stage.netuid, "amount_staked": 400 * TAO,
            "limit_price": price * 102 // 100, "allow_partial": False,
        }  # fmt: skip
        outcome = stage.client.call("SubtensorModule", "add_stake_limit", args, stage.validator)
        assert (outcome.ok, outcome.error) == (False, "SlippageTooHigh")

    def test_stake_is_removed(self, stage: Stage) -> None:
        hotkey, cold = stage.validator.hot, stage.validator.cold
        before, free = stage.client.stake(cold, hotkey, stage.netuid), stage.balance(stage.validator)
        stage.client.do(
            "remove_stake", stage.validator, hotkey_ss58=hotkey, netuid=stage.netuid, amount_alpha=5.0
        ).expect()
        assert before > 5 * TAO
        assert stage.balance(stage.validator) - free > 4 * TAO

    def test_stake_moves_to_another_hotkey_and_to_another_coldkey(self, stage: Stage) -> None:
        validator, miner, netuid = stage.validator, stage.miners[0], stage.netuid
        stage.client.do(
            "move_stake", validator, origin_hotkey_ss58=validator.hot, origin_netuid=netuid,
            dest_hotkey_ss58=miner.hot, dest_netuid=netuid, amount_alpha=2.0,
        ).expect()  # fmt: skip
        moved = stage.client.stake(validator.cold, miner.hot, netuid)
        assert 2 * TAO - 2 <= moved < 5 * TAO, "what was moved, and what epochs paid on it since"
        stage.client.do(
            "transfer_stake", validator, dest_coldkey_ss58=miner.cold, hotkey_ss58=miner.hot, origin_netuid=netuid,
            dest_netuid=netuid, amount_alpha=1.0,
        ).expect()  # fmt: skip
        assert stage.observer.stake(miner.cold, miner.hot, netuid) >= TAO - 2

    def test_a_miner_serves_its_axon(self, stage: Stage) -> None:
        miner = stage.miners[0]
        stage.client.do("serve_axon", miner, netuid=stage.netuid, ip="8.8.4.4", port=8091).expect()
        row = stage.client.neurons(stage.netuid)[stage.uids[miner.hot]]
        assert (row.hotkey, row.axon) == (miner.hot, "8.8.4.4:8091")

    def test_serving_again_at_once_is_refused(self, stage: Stage) -> None:
        args = {
            "netuid": stage.netuid, "version": 1, "ip": 134_743_044, "port": 8092, "ip_type": 4, "protocol": 4,
            "placeholder1": 0, "placeholder2": 0,
        }  # fmt: skip
        outcome = stage.client.call("SubtensorModule", "serve_axon", args, stage.miners[0], hot=True)
        assert (outcome.ok, outcome.error) == (False, "ServingRateLimitExceeded")

    def test_an_epoch_gives_the_validator_its_permit(self, stage: Stage) -> None:
        stage.next_epoch()
        assert stage.client.neurons(stage.netuid)[stage.uids[stage.validator.hot]].permit

    def test_weights_are_set_and_read_back(self, stage: Stage) -> None:
        wanted = {stage.uids[miner.hot]: share for miner, share in zip(stage.miners, (3.0, 1.0), strict=True)}
        stage.client.do(
            "set_weights", stage.validator, netuid=stage.netuid, uids=list(wanted), weights=list(wanted.values())
        ).expect()
        row = stage.client.weights(stage.netuid)[stage.uids[stage.validator.hot]]
        assert row == pytest.approx({uid: share / 4 for uid, share in wanted.items()}, abs=1e-4)

    def test_weights_too_soon_are_refused_by_name(self, stage: Stage) -> None:
        stage.settle(("sudo_set_weights_set_rate_limit", {"netuid": stage.netuid, "weights_set_rate_limit": LONG}))
        args = {"netuid": stage.netuid, "dests": [0], "weights": [1], "version_key": 0}
        outcome = stage.client.call("SubtensorModule", "set_weights", args, stage.validator, hot=True)
        assert not outcome.ok
        assert outcome.error in ("RateLimitExceeded", "SettingWeightsTooFast"), outcome

    def test_a_stranger_cannot_set_weights(self, stage: Stage) -> None:
        args = {"netuid": stage.netuid, "dests": [0], "weights": [1], "version_key": 0}
        stranger = Actor(stage.miners[0].cold_uri, f"//{stage.token}-stranger")
        outcome = stage.client.call("SubtensorModule", "set_weights", args, stranger, hot=True)
        assert not outcome.ok
        assert outcome.error == "HotKeyNotRegisteredInSubNet", outcome

    def test_epochs_pay_incentive_dividends_and_emission(self, stage: Stage) -> None:
        validator, (first, second) = stage.uids[stage.validator.hot], [stage.uids[m.hot] for m in stage.miners]
        before = stage.observer.stake(stage.miners[0].cold, stage.miners[0].hot, stage.netuid)
        stage.until("incentive", lambda: stage.item("Incentive", stage.netuid)[first] > 0)
        stage.next_epoch()
        rows = stage.client.neurons(stage.netuid)
        assert rows[first].incentive == pytest.approx(0.75, abs=0.01)
        assert rows[second].incentive == pytest.approx(0.25, abs=0.01)
        assert rows[validator].dividends > 0.9
        assert rows[first].emission > rows[second].emission > 0
        assert rows[validator].emission > 0
        assert stage.client.stake(stage.miners[0].cold, stage.miners[0].hot, stage.netuid) > before

    def test_identities_are_published(self, stage: Stage) -> None:
        stage.client.do("set_identity", stage.validator, name="Touch Stone", url="https://example.org").expect()
        assert stage.client.identity(stage.validator.cold) == "Touch Stone"
        stage.client.do("set_subnet_identity", stage.owner, netuid=stage.netuid, subnet_name="whetstone").expect()
        assert stage.item("SubnetIdentitiesV3", stage.netuid)["subnet_name"] == "whetstone"

    def test_a_commitment_is_set_and_read(self, stage: Stage) -> None:
        info = {"fields": [[{"Raw11": "0x" + b"artifact:42".hex()}]]}
        args = {"netuid": stage.netuid, "info": info}
        stage.client.call("Commitments", "set_commitment", args, stage.miners[0], hot=True).expect()
        assert stage.client.commitment(stage.netuid, stage.miners[0].hot) == "artifact:42"

    def test_a_sealed_commitment_is_opened_by_the_chain(self, stage: Stage, foreign: bool) -> None:
        if foreign:
            pytest.skip("what is sealed to a round of the past is no good on a chain that has newer pulses")
        pytest.importorskip("py_arkworks_bls12381", reason="there is no BLS12-381 library for Python 3.10")
        sealed = {"encrypted": "0x" + sdk_sealed(b"artifact:43").hex(), "reveal_round": ROUND}
        args = {"netuid": stage.netuid, "info": {"fields": [[{"TimelockEncrypted": sealed}]]}}
        miner = stage.miners[1]
        stage.client.call("Commitments", "set_commitment", args, miner, hot=True).expect()
        item = ("Commitments", "RevealedCommitments", stage.netuid, miner.hot)
        ((plain, _),) = stage.until("the reveal", lambda: stage.observer.storage(*item))
        assert plain in ("artifact:43", "0x" + b"artifact:43".hex())

    def test_a_take_is_lowered(self, stage: Stage) -> None:
        stage.client.do("set_take", stage.validator, take=0.1).expect()
        assert stage.client.take(stage.validator.hot) == pytest.approx(0.1, abs=0.001)

    def test_a_child_hotkey_takes_over_after_the_cooldown(self, stage: Stage) -> None:
        child = stage.miners[1].hot
        stage.client.do("set_children", stage.validator, netuid=stage.netuid, children=[[0.5, child]]).expect()
        stage.until("the child", lambda: stage.observer.children(stage.netuid, stage.validator.hot))
        assert stage.client.children(stage.netuid, stage.validator.hot) == [child]

    def test_weights_are_committed_and_revealed(self, stage: Stage) -> None:
        stage.settle(
            ("sudo_set_weights_set_rate_limit", {"netuid": stage.netuid, "weights_set_rate_limit": 0}),
            ("sudo_set_commit_reveal_weights_enabled", {"netuid": stage.netuid, "enabled": True}),
            ("sudo_set_tempo", {"netuid": stage.netuid, "tempo": REVEAL_TEMPO}),
        )
        validator, target, salt = stage.validator, stage.uids[stage.miners[1].hot], [7, 11]
        account = bytes(validator.hotkey.public_key)
        digest = commit_hash(account, stage.netuid, [target], [65535], salt, 0)
        commit = {"netuid": stage.netuid, "commit_hash": "0x" + digest.hex()}
        reveal = {"netuid": stage.netuid, "uids": [target], "weights": [65535], "salt": salt}
        for _ in range(5):  # the reveal counts in one epoch only: a busy machine may miss it
            stage.client.call("SubtensorModule", "commit_weights", commit, validator, hot=True).expect()
            epoch = stage.item("WeightCommits", stage.netuid, validator.hot)[-1][1]
            stage.until("the epoch to reveal in", lambda e=epoch: stage.item("SubnetEpochIndex", stage.netuid) > e)
            outcome = stage.client.do("reveal_weights", validator, **reveal)
            if outcome.error != "ExpiredWeightCommit":
                break
        outcome.expect()
        assert stage.client.weights(stage.netuid)[stage.uids[validator.hot]] == {target: 1.0}

    def test_a_reveal_without_commit_is_refused(self, stage: Stage) -> None:
        args = {"netuid": stage.netuid, "uids": [0], "values": [1], "salt": [1], "version_key": 0}
        outcome = stage.client.call("SubtensorModule", "reveal_weights", args, stage.validator, hot=True)
        assert (outcome.ok, outcome.error) == (False, "NoWeightsCommitFound")

    def test_weights_are_sealed_where_commit_reveal_is_on(self, stage: Stage) -> None:
        if isinstance(stage.client, Substrate):
            pytest.skip("substrate-interface cannot seal: timelock encryption is the SDK's")
        target = stage.uids[stage.miners[0].hot]
        outcome = stage.client.do("set_weights", stage.validator, netuid=stage.netuid, uids=[target], weights=[1.0])
        rows = stage.observer.chain.query_map("SubtensorModule", "TimelockedWeightCommits", [stage.netuid])
        sealed = [(entry[0], entry[3]) for _, row in rows for entry in row.value]
        assert (stage.validator.hot, outcome.expect().data["reveal_round"]) in sealed

    def test_sealed_weights_are_opened_by_the_chain(
        self, stage: Stage, foreign: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The SDK seals to a round that is yet to come. Here it is told to take one whose pulse our node was given."""
        if foreign:
            pytest.skip("what is sealed to a round of the past is no good on a chain that has newer pulses")
        if not isinstance(stage.client, SyncSdk | AsyncSdk):
            pytest.skip("only a client in this process can be told to seal to a round of the past")

        pytest.importorskip("py_arkworks_bls12381", reason="there is no BLS12-381 library for Python 3.10")

        def seal(hotkey: bytes, uids: list[int], weights: list[int], version_key: int, **_: Any) -> tuple[bytes, int]:
            return sdk_sealed(payload(hotkey, uids, weights, version_key)), ROUND

        monkeypatch.setattr("bittensor.intents.weights._core.get_encrypted_commit_v2", seal)
        target, uid = stage.uids[stage.miners[0].hot], stage.uids[stage.validator.hot]
        assert stage.client.weights(stage.netuid)[uid] != {target: 1.0}
        outcome = stage.client.do("set_weights", stage.validator, netuid=stage.netuid, uids=[target], weights=[1.0])
        assert outcome.expect().data["reveal_round"] == ROUND
        stage.until("the reveal", lambda: stage.client.weights(stage.netuid)[uid] == {target: 1.0})

    def test_everything_is_unstaked(self, stage: Stage) -> None:
        validator = stage.validator
        before = stage.balance(validator)
        stage.client.do("unstake_all", validator, hotkey_ss58=validator.hot).expect()
        assert stage.balance(validator) > before
        assert stage.client.stake(validator.cold, validator.hot, 0) == 0
