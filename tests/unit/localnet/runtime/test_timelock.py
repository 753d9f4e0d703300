"""Drand pulses, timelocked weights and timelocked commitments in the specification runtime.

Named after the behaviour; where the public chain has a test of the same thing, the docstring names it.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import bittensor_core
import pytest

from localnet.codec.scale import opaque
from localnet.errors import ConfigError, DispatchError, RuntimeTrap, ScaleError
from localnet.node.validity import Refusal, Validity, read_apply_result, read_validity
from localnet.rules import timelock
from localnet.rules.weights import storage_index
from localnet.runtime import extrinsic as xt
from localnet.runtime.framework import Unsigned
from localnet.runtime.memory import MemoryState
from tests.support.drand import BAD_SIGNATURE, ROUND, SIGNATURE, payload, pulse, sdk_envelope, sdk_sealed
from tests.support.spec_chain import TAO, Chain, key

pytest.importorskip("py_arkworks_bls12381", reason="there is no BLS12-381 library for Python 3.10")

BEACON = timelock.Beacon(b"tests")
SR25519_KEY = bittensor_core.Keypair.create_from_uri("//Alice")


@lru_cache(maxsize=1)
def template() -> tuple[Chain, dict[bytes, bytes | None], list[bytes]]:
    """Making a chain takes longer than most tests do: one is made, and its state handed out again and again."""
    chain = Chain()
    netuid = chain.subnet()
    for name in ("miner1", "miner2"):
        chain.neuron(netuid, name)
    chain.neuron(netuid, "validator", "Charlie")
    chain.stake(netuid, "validator", 100 * TAO, "Charlie")
    chain.p.CommitRevealWeightsEnabled[netuid] = True
    chain.next_to(12)
    chain.p.ValidatorPermit[netuid] = [False, False, False, True]
    return chain, {raw: chain.rt.state.get(raw) for raw in chain.rt.state.keys(b"")}, list(chain.rt.events)


@pytest.fixture
def chain() -> Chain:
    chain, state, events = template()
    chain.rt.state = MemoryState()
    for raw, value in state.items():
        chain.rt.state.put(raw, value)
    chain.rt.events = list(events)
    return chain


@pytest.fixture
def netuid(chain: Chain) -> int:
    """Commit-reveal on, tempo 10, second epoch (block 12); owner 0, miners 1 and 2, validator 3 with a permit."""
    return max(chain.p.NetworksAdded.keys())


def write(chain: Chain, *pulses: dict[str, Any]) -> None:
    fields = {"block_number": chain.block, "pulses": list(pulses), "public": ("Sr25519", bytes(32))}
    chain.dispatch(Unsigned(), "write_pulse", "Drand", pulses_payload=fields, signature=None)


def write_fails(chain: Chain, error: str, *pulses: dict[str, Any]) -> None:
    with pytest.raises(DispatchError) as caught:
        write(chain, *pulses)
    assert caught.value.name == error


def follow(chain: Chain) -> None:
    """Make the chain follow a beacon whose every round can be signed here."""
    config = {**chain.rt.drand.BeaconConfig.get(), "public_key": BEACON.public_key}
    fields = {"block_number": chain.block, "config": config, "public": ("Sr25519", bytes(32))}
    chain.root("set_beacon_config", "Drand", config_payload=fields, signature=None)


def publish(chain: Chain, *rounds: int) -> None:
    """Pulses of our own beacon, put where `write_pulse` would put them."""
    for number in rounds:
        write(chain, pulse(number, BEACON.sign(number)))


def seal(plaintext: bytes, number: int) -> bytes:
    return timelock.seal(plaintext, BEACON.public_key, number)


def no_library() -> None:
    raise ConfigError("no BLS library")


class TestPulses:
    def test_a_published_pulse_is_stored_and_announced(self, chain: Chain) -> None:
        """it_can_submit_valid_pulse_when_beacon_config_exists"""
        write(chain, pulse(ROUND, SIGNATURE))
        drand = chain.rt.drand
        assert drand.Pulses[ROUND] == pulse(ROUND, SIGNATURE)
        assert (drand.LastStoredRound.get(), drand.OldestStoredRound.get()) == (ROUND, ROUND)
        assert drand.NextUnsignedAt.get() == chain.block
        assert chain.events()[-1] == ("Drand.NewPulse", {"rounds": [ROUND]})

    def test_bytes_that_are_no_signature_fail_and_another_rounds_signature_is_passed_over(self, chain: Chain) -> None:
        """it_rejects_invalid_pulse_due_to_bad_signature"""
        write_fails(chain, "PulseVerificationError", pulse(ROUND, BAD_SIGNATURE))
        before = len(chain.rt.events)
        write(chain, pulse(ROUND + 1, SIGNATURE))
        assert chain.rt.drand.Pulses[ROUND + 1] is None and chain.rt.drand.LastStoredRound.get() == 0
        assert len(chain.rt.events) == before

    def test_rounds_follow_each_other(self, chain: Chain) -> None:
        """it_rejects_pulses_with_non_incremental_round_numbers, and no round is ever skipped"""
        follow(chain)
        publish(chain, 500, 501)
        for number in (501, 503):
            write_fails(chain, "InvalidRoundNumber", pulse(number, BEACON.sign(number)))
        write(chain, *[pulse(number, BEACON.sign(number)) for number in (502, 503)])
        assert chain.rt.drand.LastStoredRound.get() == 503 and chain.rt.drand.OldestStoredRound.get() == 500
        assert chain.events()[-1] == ("Drand.NewPulse", {"rounds": [502, 503]})

    def test_a_call_prunes_a_hundred_rounds_at_most(self, chain: Chain) -> None:
        """test_prune_maximum_of_100_pulses_per_call"""
        follow(chain)
        drand = chain.rt.drand
        for number in (1, 100, 101):
            drand.Pulses[number] = pulse(number, b"")
        drand.OldestStoredRound.put(1)
        drand.LastStoredRound.put(300_000)
        publish(chain, 300_001)
        assert sorted(drand.Pulses.keys()) == [101, 300_001]
        assert drand.OldestStoredRound.get() == 101
        drand.OldestStoredRound.put(84_001)
        publish(chain, 300_002)
        assert drand.OldestStoredRound.get() == 84_003  # 216,000 rounds are kept

    def test_only_root_sets_the_beacon(self, chain: Chain) -> None:
        """it_blocks_non_root_from_submit_beacon_info"""
        config = chain.rt.drand.BeaconConfig.get()
        fields = {"block_number": 1, "config": config, "public": ("Sr25519", bytes(32))}
        arguments = {"config_payload": fields, "signature": None}
        with pytest.raises(DispatchError, match="BadOrigin"):
            chain.do("Alice", "set_beacon_config", "Drand", **arguments)
        chain.root("set_beacon_config", "Drand", **arguments)
        assert chain.rt.drand.NextUnsignedAt.get() == chain.block + 1
        assert chain.events()[-1] == ("Drand.BeaconConfigChanged", None)

    def test_what_the_chains_types_do_not_hold_is_refused(self, chain: Chain) -> None:
        """The bounds of Pulse and BeaconConfiguration (pallets/drand/src/types.rs)."""
        good = pulse(ROUND, SIGNATURE)
        for name, most in (("signature", 144), ("randomness", 32)):
            with pytest.raises(DispatchError, match=f"{name} holds at most {most} bytes, not {most + 1}"):
                write(chain, {**good, name: good[name].ljust(most + 1, b"J")})
        config = chain.rt.drand.BeaconConfig.get()
        for changes in ({"public_key": bytes(97)}, {"hash": bytes(33)}, {"metadata": {"beacon_id": bytes(33)}}):
            fields = {"block_number": 1, "config": {**config, **changes}, "public": ("Sr25519", bytes(32))}
            with pytest.raises(DispatchError, match="holds at most"):
                chain.root("set_beacon_config", "Drand", config_payload=fields, signature=None)
        assert chain.rt.drand.BeaconConfig.get() == config
        padded = {**good, "signature": SIGNATURE.ljust(144, b"J")}
        write(chain, padded)
        assert chain.rt.drand.Pulses[ROUND] == padded

    def test_what_comes_in_front_of_a_signature_is_not_passed_over(self, chain: Chain) -> None:
        """The chain reads a pulse's point from its first byte on; only where it opens something it skips b"0x"."""
        write_fails(chain, "PulseVerificationError", pulse(ROUND, b"0x" + SIGNATURE))


class TestPulsesFromOutside:
    def raw(
        self,
        chain: Chain,
        *rounds: int,
        block: int | None = None,
        sign: bool = True,
        spoil: bool = False,
        behind: bytes = b"",
    ) -> bytes:
        fields = {
            "block_number": block or chain.block,
            "pulses": [pulse(number, BEACON.sign(number) + behind) for number in rounds],
            "public": ("Sr25519", bytes(SR25519_KEY.public_key)),
        }
        type_id = chain.rt.document.type_id("pallet_drand", "types", "PulsesPayload")
        signed = chain.rt.document.registry.encode(type_id, fields) + b"x" * spoil
        proof = ("Sr25519", bytes(SR25519_KEY.sign(signed))) if sign else None
        call = chain.rt.encode_call("Drand", "write_pulse", {"pulses_payload": fields, "signature": proof})
        return xt.bare(call)

    def verdict(self, chain: Chain, raw: bytes) -> Validity | str:
        answer = read_validity(
            chain.rt.call("TaggedTransactionQueue_validate_transaction", b"\2" + raw + bytes(32), chain.rt.state)
        )
        return answer.text if isinstance(answer, Refusal) else answer

    def test_the_lowest_round_goes_first(self, chain: Chain) -> None:
        """test_validate_unsigned_write_pulse; tag and priority as in lib.rs"""
        low, high = (self.verdict(chain, self.raw(chain, number)) for number in (2_000_000, 2_000_001))
        assert isinstance(low, Validity) and isinstance(high, Validity)
        assert low.priority == high.priority + 1 == 2**64 - 1 - 2_000_000 + 1_048_576
        digest = blake2b(b"drand" + (2_000_000).to_bytes(8, "little"), digest_size=32).digest()
        assert low.provides == (opaque(b"DrandOffchainWorker") + digest,)
        assert (low.longevity, low.requires) == (3, ())

    def test_what_is_not_a_workers_pulse_is_refused(self, chain: Chain) -> None:
        """test_not_validate_unsigned_write_pulse_with_bad_proof, .._with_no_payload_signature, .._future_block.."""
        follow(chain)
        publish(chain, 500)
        chain.next()
        for raw, text in (
            (self.raw(chain, 501, spoil=True), "Transaction has a bad signature"),
            (self.raw(chain, 501, sign=False), "Invalid signing address"),
            (self.raw(chain, 501, block=chain.block + 2), "Transaction will be valid in the future"),
            (self.raw(chain, 501, 502), "Transaction call is not expected"),
            (self.raw(chain), "Transaction call is not expected"),
            (self.raw(chain, 500), "Transaction is outdated"),
            (self.raw(chain, 551), "Transaction is outdated"),
        ):
            assert self.verdict(chain, raw) == text
        assert isinstance(self.verdict(chain, self.raw(chain, 550)), Validity)
        remark = xt.bare(chain.rt.encode_call("System", "remark", {"remark": b""}))
        assert "unsigned validator" in str(self.verdict(chain, remark))

    def test_a_signature_with_a_long_tail_does_not_decode_and_is_not_remembered(self, chain: Chain) -> None:
        follow(chain)
        chain.next()
        raw, known = self.raw(chain, 500, behind=bytes(97)), timelock._verify.cache_info().currsize
        with pytest.raises(RuntimeTrap, match="signature holds at most 144 bytes"):
            self.verdict(chain, raw)
        with pytest.raises(RuntimeTrap, match="signature holds at most 144 bytes"):
            chain.rt.call("BlockBuilder_apply_extrinsic", raw, chain.rt.state)
        assert timelock._verify.cache_info().currsize == known
        assert isinstance(self.verdict(chain, self.raw(chain, 500, behind=bytes(96))), Validity)

    def test_a_block_takes_it_and_refuses_it_the_second_time(self, chain: Chain) -> None:
        follow(chain)
        chain.next()
        raw = self.raw(chain, 500)
        apply = chain.rt.call("BlockBuilder_apply_extrinsic", raw, chain.rt.state)
        assert read_apply_result(apply) == (None, True)
        assert [name for name, _ in chain.events()][-2:] == ["Drand.NewPulse", "System.ExtrinsicSuccess"]
        refusal, _ = read_apply_result(chain.rt.call("BlockBuilder_apply_extrinsic", raw, chain.rt.state))
        assert refusal is not None and refusal.text == "Transaction is outdated"
        assert chain.rt.drand.LastStoredRound.get() == 500


def commit(chain: Chain, netuid: int, sealed: bytes, number: int, who: str = "validator") -> None:
    chain.do(who, "commit_timelocked_weights", **timelocked(netuid, sealed, number))


def timelocked(netuid: int, sealed: bytes = b"x", number: int = ROUND, version: int = 4) -> dict[str, Any]:
    return {"netuid": netuid, "commit": sealed, "reveal_round": number, "commit_reveal_version": version}


def weights_of(who: str, values: list[int], uids: list[int] | None = None) -> bytes:
    return payload(key(who), uids or [1, 2], values)


class TestWeights:
    def test_what_the_sdk_seals_opens_with_the_published_pulse_and_counts_in_that_very_epoch(
        self, chain: Chain, netuid: int
    ) -> None:
        """test_reveal_crv3_commits_success"""
        sealed = sdk_sealed(weights_of("validator", [10, 20]))
        commit(chain, netuid, sealed, ROUND)
        assert chain.p.TimelockedWeightCommits[netuid, 1] == [(key("validator"), 12, sealed, ROUND)]
        digest = blake2b(sealed, digest_size=32).digest()
        assert chain.events()[-1] == (
            "SubtensorModule.TimelockedWeightsCommitted", (key("validator"), netuid, digest, ROUND),
        )  # fmt: skip
        write(chain, pulse(ROUND, SIGNATURE))
        chain.next_to(19)
        assert chain.p.Weights[netuid, 3] == [] and chain.p.Incentive[netuid] == [0, 0, 0, 0]
        chain.next()
        assert chain.p.Weights[netuid, 3] == [(1, 32768), (2, 65535)]
        assert [round(3 * share / 65535) for share in chain.p.Incentive[netuid]] == [0, 1, 2, 0]
        names = [name for name, _ in chain.events()]
        revealed = names.index("SubtensorModule.TimelockedWeightsRevealed")
        assert names[revealed - 1] == "SubtensorModule.WeightsSet"
        assert chain.events()[revealed][1] == (netuid, key("validator"))
        assert revealed < names.index("SubtensorModule.IncentiveAlphaEmittedToMiners")
        assert chain.p.TimelockedWeightCommits[netuid, 1] == []
        assert chain.p.LastUpdate[netuid][3] == 12  # a reveal is not an update

    def test_a_commit_waits_for_its_pulse_as_long_as_its_epoch_lasts(
        self, chain: Chain, netuid: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        """test_reveal_crv3_commits_retry_on_missing_pulse, .._cannot_reveal_after_reveal_epoch"""
        follow(chain)
        with caplog.at_level(logging.WARNING, "localnet.runtime"):
            commit(chain, netuid, seal(weights_of("validator", [1, 2]), 500), 500)
            assert "waits for drand round 500, and this chain has no pulses yet" in caplog.text
            commit(chain, netuid, seal(weights_of("validator", [7, 7]), 502), 502)
            publish(chain, 499)
            chain.next_to(25)
            assert len(chain.p.TimelockedWeightCommits[netuid, 1]) == 2 and chain.p.Weights[netuid, 3] == []
            publish(chain, 500)
            chain.next()
            assert [entry[3] for entry in chain.p.TimelockedWeightCommits[netuid, 1]] == [502]
            assert chain.p.Weights[netuid, 3] == [(1, 32768), (2, 65535)]
            chain.next_to(30)
            assert "1 commits of epoch 1 expired" in caplog.text
        assert list(chain.p.TimelockedWeightCommits.keys()) == []
        publish(chain, 501, 502)
        chain.next()
        assert chain.p.Weights[netuid, 3] == [(1, 32768), (2, 65535)]

    @pytest.mark.parametrize(
        ("what", "sealed"),
        [
            ("not a ciphertext", lambda: b"rubbish"),
            ("damaged", lambda: seal(weights_of("validator", [1, 2]), 500)[:-30] + bytes(30)),
            ("another round's", lambda: seal(weights_of("validator", [1, 2]), 501)),
            ("somebody else's", lambda: seal(weights_of("miner1", [1, 2]), 500)),
            ("not a payload", lambda: seal(b"\xff" * 9, 500)),
            ("empty", lambda: seal(b"", 500)),
            ("an unknown uid", lambda: seal(weights_of("validator", [1, 2], [1, 9]), 500)),
        ],
    )
    def test_what_does_not_open_or_breaks_a_rule_is_dropped_and_the_next_one_counts(
        self, chain: Chain, netuid: int, what: str, sealed: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """test_reveal_crv3_commits_multiple_commits_some_fail_some_succeed, .._decryption_failure,
        .._do_set_weights_failure, .._payload_decoding_failure, .._with_incorrect_identity_message"""
        follow(chain)
        commit(chain, netuid, sealed(), 500)
        commit(chain, netuid, seal(payload(b"", [1, 2], [3, 3])[1:], 500), 500)  # the form without a hotkey
        publish(chain, 500)
        chain.next_to(20)
        assert chain.p.Weights[netuid, 3] == [(1, 65535), (2, 65535)]
        assert len(chain.events("SubtensorModule.TimelockedWeightsRevealed")) == 1
        assert list(chain.p.TimelockedWeightCommits.keys()) == []
        assert caplog.text.count("is dropped") == 1

    def test_without_the_library_a_commit_waits(
        self, chain: Chain, netuid: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        follow(chain)
        commit(chain, netuid, seal(weights_of("validator", [1, 2]), 500), 500)
        publish(chain, 500)
        with monkeypatch.context() as without:
            without.setattr(timelock, "curve", no_library)
            chain.next_to(20)
        assert "waits: no BLS library" in caplog.text and len(chain.p.TimelockedWeightCommits[netuid, 1]) == 1
        chain.next()
        assert chain.p.Weights[netuid, 3] == [(1, 32768), (2, 65535)]

    def test_commits_are_checked_in_the_chains_order(self, chain: Chain, netuid: int) -> None:
        """test_do_commit_crv3_weights_disabled, .._hotkey_not_registered, .._committing_too_fast,
        .._too_many_unrevealed_commits, .._commit_size_exceeds_limit"""
        name, wrong = "commit_timelocked_weights", {**timelocked(netuid, version=3)}
        chain.p.CommitRevealWeightsEnabled[netuid] = False
        chain.fails("MechanismDoesNotExist", "stranger", name, **{**wrong, "netuid": 99})
        chain.fails("CommitRevealDisabled", "stranger", name, **wrong)
        chain.p.CommitRevealWeightsEnabled[netuid] = True
        chain.fails("IncorrectCommitRevealVersion", "stranger", name, **wrong)
        chain.fails("HotKeyNotRegisteredInSubNet", "stranger", name, **timelocked(netuid))
        with pytest.raises(DispatchError, match="at most 5000 bytes, not 5001"):
            commit(chain, netuid, bytes(5001), ROUND)
        with pytest.raises(ScaleError):  # a node's type does not hold more
            chain.accepted("validator", name, **timelocked(netuid, bytes(5001)))
        commit(chain, netuid, bytes(5000), ROUND)
        chain.p.WeightsSetRateLimit[netuid] = 5
        chain.fails("CommittingWeightsTooFast", "validator", name, **timelocked(netuid))
        chain.p.WeightsSetRateLimit[netuid] = 0
        for number in range(9):
            commit(chain, netuid, b"x", number)
        chain.fails("TooManyUnrevealedCommits", "validator", name, **timelocked(netuid))
        commit(chain, netuid, b"x", ROUND, who="miner1")
        chain.next_to(20)  # the next epoch has room again
        commit(chain, netuid, b"x", ROUND)

    def test_the_pool_refuses_rounds_that_are_over(self, chain: Chain, netuid: int) -> None:
        write(chain, pulse(ROUND, SIGNATURE))
        for name in ("commit_timelocked_weights", "commit_timelocked_mechanism_weights"):
            more = {"mecid": 0} if "mechanism" in name else {}
            chain.refused(15, "validator", name, **timelocked(netuid, number=ROUND - 1), **more)
            chain.accepted("validator", name, **timelocked(netuid, number=ROUND), **more)
        plain = {"netuid": netuid, "mecid": 0, "commit": b"x"}
        chain.refused(15, "validator", "commit_crv3_mechanism_weights", reveal_round=ROUND - 1, **plain)

    def test_each_mechanism_has_buckets_and_the_older_call_names_no_version(self, chain: Chain, netuid: int) -> None:
        follow(chain)
        chain.p.MechanismCountCurrent[netuid] = 2
        sealed = seal(weights_of("validator", [5, 5]), 500)
        arguments = {"netuid": netuid, "commit": sealed, "reveal_round": 500}
        chain.fails("MechanismDoesNotExist", "validator", "commit_crv3_mechanism_weights", mecid=2, **arguments)
        chain.do("validator", "commit_crv3_mechanism_weights", mecid=1, **arguments)
        chain.do("validator", "commit_timelocked_mechanism_weights", mecid=0, **timelocked(netuid, sealed, 500))
        index = storage_index(netuid, 1)
        assert len(chain.p.TimelockedWeightCommits[index, 1]) == len(chain.p.TimelockedWeightCommits[netuid, 1]) == 1
        publish(chain, 500)
        chain.next_to(20)
        assert chain.p.Weights[index, 3] == chain.p.Weights[netuid, 3] == [(1, 65535), (2, 65535)]

    def test_a_subnet_whose_epoch_is_put_off_opens_its_commits_with_it(self, chain: Chain, netuid: int) -> None:
        other = chain.subnet("Bob", "other_hot")
        chain.p.CommitRevealWeightsEnabled[other] = True
        chain.p.MaxEpochsPerBlock.put(1)
        chain.p.LastEpochBlock[netuid] = chain.p.LastEpochBlock[other] = 10
        chain.p.SubnetEpochIndex[other] = 1
        follow(chain)
        commit(chain, netuid, seal(payload(key("owner_hot"), [0], [1]), 500), 500, who="owner_hot")
        commit(chain, other, seal(payload(key("other_hot"), [0], [1]), 500), 500, who="other_hot")
        publish(chain, 500)
        chain.next_to(20)
        assert chain.p.Weights[netuid, 0] == [(0, 65535)] and chain.p.Weights[other, 0] == []
        chain.next()
        assert chain.p.Weights[other, 0] == [(0, 65535)]
        assert chain.p.LastEpochBlock[other] == 21


class TestCommitments:
    def put(self, chain: Chain, netuid: int, *fields: Any, who: str = "miner1") -> None:
        chain.do(who, "set_commitment", "Commitments", netuid=netuid, info={"fields": list(fields)})

    def field(self, encrypted: bytes, number: int) -> tuple[str, Any]:
        return "TimelockEncrypted", {"encrypted": encrypted, "reveal_round": number}

    def revealed(self, chain: Chain, netuid: int, who: str = "miner1") -> list[tuple[bytes, int]]:
        return chain.rt.commitments.RevealedCommitments[netuid, key(who)] or []

    @pytest.mark.parametrize("wrap", [sdk_sealed, sdk_envelope])
    def test_a_sealed_field_is_revealed_in_the_block_after_its_pulse(
        self, chain: Chain, netuid: int, wrap: Any
    ) -> None:
        """happy_path_timelock_commitments (pallets/commitments/src/tests.rs)"""
        self.put(chain, netuid, self.field(wrap(b"a secret model"), ROUND))
        fields = {"netuid": netuid, "who": key("miner1")}
        assert chain.events()[-1] == ("Commitments.TimelockCommitment", {**fields, "reveal_round": ROUND})
        assert chain.rt.commitments.TimelockedIndex.get() == [(netuid, key("miner1"))]
        chain.next(2)
        assert self.revealed(chain, netuid) == []
        write(chain, pulse(ROUND, SIGNATURE))
        block = chain.next()
        assert self.revealed(chain, netuid) == [(b"a secret model", block)]
        assert chain.events("Commitments.CommitmentRevealed") == [("Commitments.CommitmentRevealed", fields)]
        assert chain.rt.commitments.CommitmentOf[netuid, key("miner1")] is None
        assert chain.rt.commitments.TimelockedIndex.get() == []

    def test_other_fields_stay_and_later_rounds_wait(self, chain: Chain, netuid: int) -> None:
        """two_timelocks_partial_then_full_reveal, mixed_timelocked_and_raw_fields_works"""
        follow(chain)
        later = self.field(seal(b"two", 501), 501)
        self.put(chain, netuid, ("Raw5", b"plain"), self.field(seal(b"one", 500), 500), later)
        self.put(chain, netuid, self.field(seal(b"x", 501), 501), who="miner2")
        publish(chain, 500)
        chain.next()
        stored = chain.rt.commitments.CommitmentOf[netuid, key("miner1")]
        assert stored is not None and stored["info"]["fields"] == [("Raw5", b"plain"), later]
        assert len(chain.rt.commitments.TimelockedIndex.get()) == 2
        publish(chain, 501)
        chain.next()
        stored = chain.rt.commitments.CommitmentOf[netuid, key("miner1")]
        assert stored is not None and stored["info"]["fields"] == [("Raw5", b"plain")]
        assert [plain for plain, _ in self.revealed(chain, netuid)] == [b"one", b"two"]
        assert chain.rt.commitments.TimelockedIndex.get() == []

    @pytest.mark.parametrize(
        ("error", "encrypted"),
        [
            ("CiphertextDeserialize", lambda: b"rubbish"),
            ("Decrypt", lambda: seal(b"x", 501)),
            ("EmptyPlaintext", lambda: seal(b"", 500)),
            ("RoundMismatch", lambda: opaque(seal(b"x", 500)) + (501).to_bytes(8, "little")),
        ],
    )
    def test_what_does_not_open_is_kept_as_failed(self, chain: Chain, netuid: int, error: str, encrypted: Any) -> None:
        """A failed field was removed before spec 446; see pull request 3080 of the chain's repository."""
        follow(chain)
        name, value = self.field(encrypted(), 500)
        self.put(chain, netuid, ("Raw1", b"a"), (name, value))
        publish(chain, 500)
        chain.next()
        stored = chain.rt.commitments.CommitmentOf[netuid, key("miner1")]
        assert stored is not None
        assert stored["info"]["fields"] == [("Raw1", b"a"), ("TimelockRevealFailed", value)]
        ((_, fields),) = chain.events("Commitments.CommitmentRevealFailed")
        assert fields == {"netuid": netuid, "who": key("miner1"), "reveal_round": 500, "error": error}
        assert self.revealed(chain, netuid) == [] and chain.rt.commitments.TimelockedIndex.get() == []
        chain.next()
        assert chain.events("Commitments.CommitmentRevealFailed") == []

    def test_a_round_that_is_no_longer_kept_has_expired(self, chain: Chain, netuid: int) -> None:
        follow(chain)
        publish(chain, 500)
        self.put(chain, netuid, self.field(seal(b"x", 499), 499))
        chain.next()
        ((_, fields),) = chain.events("Commitments.CommitmentRevealFailed")
        assert fields["error"] == "PulseExpired"

    def test_the_last_ten_reveals_are_kept(self, chain: Chain, netuid: int) -> None:
        """revealed_commitments_keeps_only_10_items"""
        follow(chain)
        publish(chain, 500)
        for start in range(0, 12, 3):
            self.put(chain, netuid, *[self.field(seal(b"%d" % n, 500), 500) for n in range(start, start + 3)])
            chain.next()
        assert [plain for plain, _ in self.revealed(chain, netuid)] == [b"%d" % n for n in range(2, 12)]

    def test_a_plain_commitment_takes_the_sealed_ones_place(self, chain: Chain, netuid: int) -> None:
        self.put(chain, netuid, self.field(b"sealed", ROUND))
        self.put(chain, netuid, ("Raw1", b"a"))
        assert chain.rt.commitments.TimelockedIndex.get() == []
        assert chain.events()[-1][0] == "Commitments.Commitment"

    def test_space_counts_the_ciphertext_and_a_field_has_a_bound(self, chain: Chain, netuid: int) -> None:
        self.put(chain, netuid, *[self.field(bytes(1024), ROUND)] * 3)
        usage = chain.rt.commitments.UsedSpaceOf[netuid, key("miner1")]
        assert usage is not None and usage["used_space"] == 3072
        with pytest.raises(DispatchError, match="SpaceLimitExceeded"):
            self.put(chain, netuid, self.field(bytes(29), ROUND))
        with pytest.raises(DispatchError, match="at most 1024 bytes"):
            self.put(chain, netuid, self.field(bytes(1025), ROUND), who="miner2")

    def test_many_fields_opened_in_one_block_cost_one_change_of_the_index(
        self, chain: Chain, netuid: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commitments = chain.rt.commitments
        self.put(chain, netuid, self.field(b"rubbish", ROUND))
        stored = commitments.CommitmentOf[netuid, key("miner1")]
        waiting = {"deposit": 0, "block": 1, "info": {"fields": [self.field(b"x", ROUND + 1)]}}
        who = [bytes(30) + number.to_bytes(2, "big") for number in range(20)]
        for account in who:
            commitments.CommitmentOf[netuid, account] = waiting if account == who[3] else stored
        commitments.TimelockedIndex.put([(netuid, account) for account in who])
        written: list[Any] = []
        monkeypatch.setattr(commitments.TimelockedIndex, "put", written.append)
        commitments.on_initialize(chain.block)
        assert written == []  # nothing opens
        write(chain, pulse(ROUND, SIGNATURE))
        commitments.on_initialize(chain.block)
        assert written == [[(netuid, who[3])]]
        assert len(chain.events("Commitments.CommitmentRevealFailed")) == 19

    def test_the_index_is_in_order(self, chain: Chain, netuid: int) -> None:
        for who in ("miner1", "miner2", "validator"):
            self.put(chain, netuid, self.field(b"x", ROUND), who=who)
        index = chain.rt.commitments.TimelockedIndex.get()
        assert index == sorted(index) and len(index) == 3
