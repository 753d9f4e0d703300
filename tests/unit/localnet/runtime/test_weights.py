"""Setting weights openly, committing and revealing them: every check, at dispatch and in the pool."""

from __future__ import annotations

from typing import Any

import pytest

from localnet.rules.weights import commit_hash, storage_index
from tests.support.spec_chain import TAO, Chain, key


@pytest.fixture
def netuid(chain: Chain) -> int:
    """Owner uid 0, miners 1 and 2, validator uid 3 with a permit."""
    netuid = chain.subnet()
    for name in ("miner1", "miner2"):
        chain.neuron(netuid, name)
    chain.neuron(netuid, "validator", "Charlie")
    chain.stake(netuid, "validator", 100 * TAO, "Charlie")
    chain.p.ValidatorPermit[netuid] = [False, False, False, True]
    return netuid


def vector(netuid: int, dests: list[int], weights: list[int], version: int = 0) -> dict[str, Any]:
    return {"netuid": netuid, "dests": dests, "weights": weights, "version_key": version}


class TestOpenWeights:
    def test_the_largest_becomes_65535_and_zeros_stay(self, chain: Chain, netuid: int) -> None:
        chain.next()
        chain.do("validator", "set_weights", **vector(netuid, [1, 2, 0], [1, 2, 0]))
        assert chain.p.Weights[netuid, 3] == [(1, 32768), (2, 65535), (0, 0)]
        assert chain.p.LastUpdate[netuid][3] == chain.block
        assert chain.events()[-1] == ("SubtensorModule.WeightsSet", (netuid, 3))

    @pytest.mark.parametrize(
        ("who", "dests", "weights", "error"),
        [
            ("validator", [1, 2], [1], "WeightVecNotEqualSize"),
            ("validator", [0, 1, 2, 3, 1], [1] * 5, "UidsLengthExceedUidsInSubNet"),
            ("stranger", [1], [1], "HotKeyNotRegisteredInSubNet"),
            ("miner1", [2], [1], "NeuronNoValidatorPermit"),
            ("validator", [1, 1], [1, 1], "DuplicateUids"),
            ("validator", [1, 4], [1, 1], "UidVecContainInvalidOne"),
            ("validator", [1], [1], "WeightVecLengthIsLow"),
        ],
    )
    def test_a_bad_vector_is_refused(
        self, chain: Chain, netuid: int, who: str, dests: list[int], weights: list[int], error: str
    ) -> None:
        chain.p.MinAllowedWeights[netuid] = 2
        chain.fails(error, who, "set_weights", **vector(netuid, dests, weights))

    def test_root_and_commit_reveal_and_missing_mechanisms_have_their_own_errors(
        self, chain: Chain, netuid: int
    ) -> None:
        chain.p.CommitRevealWeightsEnabled[0] = False
        chain.fails("CanNotSetRootNetworkWeights", "validator", "set_weights", **vector(0, [], []))
        chain.fails("MechanismDoesNotExist", "validator", "set_mechanism_weights", mecid=1, **vector(netuid, [1], [1]))
        chain.p.CommitRevealWeightsEnabled[netuid] = True
        chain.fails("CommitRevealEnabled", "validator", "set_weights", **vector(netuid, [1], [1]))

    def test_a_miner_may_weight_itself(self, chain: Chain, netuid: int) -> None:
        chain.do("miner1", "set_weights", **vector(netuid, [1], [1]))
        assert chain.p.Weights[netuid, 1] == [(1, 65535)]

    def test_stake_below_the_threshold_is_refused_by_pool_and_chain_but_not_for_the_owner(
        self, chain: Chain, netuid: int
    ) -> None:
        chain.p.StakeThreshold.put(200 * TAO)
        arguments = vector(netuid, [1], [1])
        chain.refused(1, "validator", "set_weights", **arguments)
        chain.fails("NotEnoughStakeToSetWeights", "validator", "set_weights", **arguments)
        chain.accepted("owner_hot", "set_weights", **arguments)
        chain.do("owner_hot", "set_weights", **arguments)

    def test_the_version_key_must_be_as_new_as_the_subnet_s(self, chain: Chain, netuid: int) -> None:
        chain.p.WeightsVersionKey[netuid] = 5
        chain.fails("IncorrectWeightVersionKey", "validator", "set_weights", **vector(netuid, [1], [1], 4))
        chain.do("validator", "set_weights", **vector(netuid, [1], [1], 5))

    def test_too_fast_is_refused_by_the_pool_first(self, chain: Chain, netuid: int) -> None:
        chain.p.WeightsSetRateLimit[netuid] = 20
        arguments = vector(netuid, [1], [1])
        chain.next_to(21)
        chain.do("validator", "set_weights", **arguments)
        chain.next(19)
        chain.refused(6, "validator", "set_weights", **arguments)
        chain.fails("SettingWeightsTooFast", "validator", "set_weights", **arguments)
        chain.next()
        chain.accepted("validator", "set_weights", **arguments)
        chain.do("validator", "set_weights", **arguments)

    def test_mechanisms_have_their_own_weights_and_clock(self, chain: Chain, netuid: int) -> None:
        chain.p.MechanismCountCurrent[netuid] = 2
        chain.p.WeightsSetRateLimit[netuid] = 20
        chain.next_to(21)
        chain.do("validator", "set_weights", **vector(netuid, [1], [1]))
        chain.do("validator", "set_mechanism_weights", mecid=1, **vector(netuid, [2], [1]))
        assert chain.p.Weights[4096 + netuid, 3] == [(2, 65535)]
        assert chain.p.LastUpdate[4096 + netuid] == [0, 0, 0, chain.block]

    def test_a_new_mechanism_s_clock_has_a_cell_for_everyone(self, chain: Chain, netuid: int) -> None:
        chain.p.MechanismCountCurrent[netuid] = 2
        chain.next()
        chain.do("miner1", "set_mechanism_weights", mecid=1, **vector(netuid, [1], [1]))
        assert chain.p.LastUpdate[4096 + netuid] == [0, chain.block, 0, 0]

    @pytest.mark.parametrize("mecid", [1, 20, 255])
    def test_a_mechanism_that_is_not_there_is_refused_by_the_pool(self, chain: Chain, netuid: int, mecid: int) -> None:
        """Also one whose storage index would not fit 16 bits."""
        weights = vector(netuid, [1], [1])
        chain.refused(6, "validator", "set_mechanism_weights", mecid=mecid, **weights)
        chain.fails("MechanismDoesNotExist", "validator", "set_mechanism_weights", mecid=mecid, **weights)
        chain.p.CommitRevealWeightsEnabled[netuid] = True
        chain.refused(6, "validator", "commit_mechanism_weights", netuid=netuid, mecid=mecid, commit_hash=bytes(32))
        chain.refused(16, "validator", "reveal_mechanism_weights", mecid=mecid, **shown(netuid, [1], [1]))
        chain.fails("NoWeightsCommitFound", "validator", "reveal_mechanism_weights", mecid=mecid,
                    **shown(netuid, [1], [1]))  # fmt: skip
        request = netuid.to_bytes(2, "little") + bytes((mecid,)) + b"\4\x3b\0"  # field 59: last update
        assert chain.rt.call("SubnetInfoRuntimeApi_get_selective_mechagraph", request, chain.rt.state)[0] == 1

    def test_a_batch_goes_on_past_a_failure_and_says_so(self, chain: Chain, netuid: int) -> None:
        chain.do("validator", "batch_set_weights", netuids=[netuid, 1], weights=[[(1, 1)], [(0, 1)]],
                 version_keys=[0, 0])  # fmt: skip
        names = [name for name, _ in chain.events()][-4:]
        assert names == [f"SubtensorModule.{event}" for event in (
            "WeightsSet", "BatchCompletedWithErrors", "BatchWeightItemFailed", "BatchWeightsCompleted")]  # fmt: skip
        arguments = {"netuids": [netuid], "weights": [], "version_keys": [0]}
        chain.refused(18, "validator", "batch_set_weights", **arguments)
        chain.fails("InputLengthsUnequal", "validator", "batch_set_weights", **arguments)


SALT = [1, 2, 3]


def digest(netuid: int, uids: list[int], values: list[int], mecid: int = 0, who: str = "validator") -> bytes:
    return commit_hash(key(who), storage_index(netuid, mecid), uids, values, SALT, 0)


def shown(netuid: int, uids: list[int], values: list[int]) -> dict[str, Any]:
    return {"netuid": netuid, "uids": uids, "values": values, "salt": SALT, "version_key": 0}


class TestCommitReveal:
    @pytest.fixture
    def hidden(self, chain: Chain, netuid: int) -> int:
        """The same subnet with commit-reveal on, in its second epoch."""
        chain.p.CommitRevealWeightsEnabled[netuid] = True
        chain.next_to(12)
        chain.p.ValidatorPermit[netuid] = [False, False, False, True]
        return netuid

    def test_what_was_committed_can_be_revealed_one_epoch_later(self, chain: Chain, hidden: int) -> None:
        commit = digest(hidden, [1, 2], [10, 20])
        chain.do("validator", "commit_weights", netuid=hidden, commit_hash=commit)
        assert chain.p.WeightCommits[hidden, key("validator")] == [(commit, 1, 12, 0)]
        assert chain.p.LastUpdate[hidden][3] == 12
        arguments = shown(hidden, [1, 2], [10, 20])
        chain.refused(17, "validator", "reveal_weights", **arguments)
        chain.fails("RevealTooEarly", "validator", "reveal_weights", **arguments)
        chain.next_to(20)
        chain.accepted("validator", "reveal_weights", **arguments)
        chain.do("validator", "reveal_weights", **arguments)
        assert chain.p.Weights[hidden, 3] == [(1, 32768), (2, 65535)]
        assert chain.p.WeightCommits[hidden, key("validator")] is None
        assert chain.p.LastUpdate[hidden][3] == 12  # a reveal is not an update

    def test_a_missed_epoch_is_an_expired_commit_and_the_queue_stays_as_it_was(self, chain: Chain, hidden: int) -> None:
        chain.do("validator", "commit_weights", netuid=hidden, commit_hash=digest(hidden, [1], [1]))
        chain.next_to(30)
        chain.fails("ExpiredWeightCommit", "validator", "reveal_weights", **shown(hidden, [1], [1]))
        chain.fails("NoWeightsCommitFound", "validator", "reveal_weights", **shown(hidden, [2], [1]))
        assert len(chain.p.WeightCommits[hidden, key("validator")] or []) == 1

    def test_another_vector_does_not_match(self, chain: Chain, hidden: int) -> None:
        chain.do("validator", "commit_weights", netuid=hidden, commit_hash=digest(hidden, [1], [1]))
        chain.next_to(20)
        chain.refused(16, "validator", "reveal_weights", **shown(hidden, [2], [1]))
        chain.fails("InvalidRevealCommitHashNotMatch", "validator", "reveal_weights", **shown(hidden, [2], [1]))

    def test_revealing_a_later_commit_drops_the_earlier_ones(self, chain: Chain, hidden: int) -> None:
        for value in (1, 2, 3):
            chain.do("validator", "commit_weights", netuid=hidden, commit_hash=digest(hidden, [1, 2], [value, 9]))
        chain.next_to(20)
        chain.do("validator", "reveal_weights", **shown(hidden, [1, 2], [2, 9]))
        assert [entry[0] for entry in chain.p.WeightCommits[hidden, key("validator")] or []] == [
            digest(hidden, [1, 2], [3, 9])
        ]

    def test_ten_open_commits_are_the_most(self, chain: Chain, hidden: int) -> None:
        for value in range(10):
            chain.do("validator", "commit_weights", netuid=hidden, commit_hash=bytes([value]) * 32)
        chain.fails("TooManyUnrevealedCommits", "validator", "commit_weights", netuid=hidden, commit_hash=bytes(32))

    def test_commits_obey_the_switch_the_registration_and_the_rate(self, chain: Chain, hidden: int) -> None:
        chain.fails("MechanismDoesNotExist", "validator", "commit_mechanism_weights", netuid=hidden, mecid=2,
                    commit_hash=bytes(32))  # fmt: skip
        chain.fails("HotKeyNotRegisteredInSubNet", "stranger", "commit_weights", netuid=hidden, commit_hash=bytes(32))
        chain.p.WeightsSetRateLimit[hidden] = 5
        chain.do("validator", "commit_weights", netuid=hidden, commit_hash=bytes(32))
        chain.refused(6, "validator", "commit_weights", netuid=hidden, commit_hash=bytes(32))
        chain.fails("CommittingWeightsTooFast", "validator", "commit_weights", netuid=hidden, commit_hash=bytes(32))
        chain.p.CommitRevealWeightsEnabled[hidden] = False
        chain.fails("CommitRevealDisabled", "validator", "commit_weights", netuid=hidden, commit_hash=bytes(32))
        chain.fails("CommitRevealDisabled", "validator", "reveal_weights", **shown(hidden, [1], [1]))

    def test_a_mechanism_commits_under_its_own_index(self, chain: Chain, hidden: int) -> None:
        chain.p.MechanismCountCurrent[hidden] = 2
        commit = digest(hidden, [2], [1], mecid=1)
        chain.do("validator", "commit_mechanism_weights", netuid=hidden, mecid=1, commit_hash=commit)
        chain.next_to(20)
        chain.do("validator", "reveal_mechanism_weights", mecid=1, **shown(hidden, [2], [1]))
        assert chain.p.Weights[4096 + hidden, 3] == [(2, 65535)] and chain.p.Weights[hidden, 3] == []

    def test_a_batch_of_reveals_is_all_or_nothing(self, chain: Chain, hidden: int) -> None:
        commits = [digest(hidden, [1, 2], [value, 9]) for value in (1, 2)]
        chain.do("validator", "batch_commit_weights", netuids=[hidden, hidden], commit_hashes=commits)
        chain.next_to(20)

        def batch(*values: int) -> dict[str, Any]:
            return {"netuid": hidden, "uids_list": [[1, 2]] * len(values), "values_list": [[v, 9] for v in values],
                    "salts_list": [SALT] * len(values), "version_keys": [0] * len(values)}  # fmt: skip

        chain.fails("InvalidRevealCommitHashNotMatch", "validator", "batch_reveal_weights", **batch(1, 5))
        chain.refused(16, "validator", "batch_reveal_weights", **batch(1, 5))
        chain.do("validator", "batch_reveal_weights", **batch(1, 2))
        assert chain.p.WeightCommits[hidden, key("validator")] is None
        assert chain.events()[-1] == ("SubtensorModule.WeightsBatchRevealed", (key("validator"), hidden, commits))
