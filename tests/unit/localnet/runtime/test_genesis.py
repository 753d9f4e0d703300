"""Block 0 is what a freshly started public localnet holds."""

from __future__ import annotations

import json

import bittensor_core
import pytest

from localnet.codec.scale import opaque
from localnet.rules import constants
from localnet.runtime.profile import MAINNET
from localnet.runtime.runtime import SpecRuntime
from tests.support.spec_chain import TAO, Chain, key


def test_development_accounts_are_funded_and_issuance_is_their_sum(chain: Chain) -> None:
    assert chain.rt.balances.free(key("Alice")) == 1_000_000 * TAO
    assert chain.rt.balances.free(key("Ferdie")) == 2_000 * TAO
    alith = bytes(bittensor_core.ss58_decode("5Fghzk1AJt88PeFEzuRfXzbPchiBbsVGTTXcdx599VdZzkTA"))
    assert chain.rt.balances.free(alith) == 2_000 * TAO
    assert len(list(chain.rt.system.Account.keys())) == 11
    assert chain.rt.balances.TotalIssuance.get() == chain.p.TotalIssuance.get() == 3_016_000 * TAO
    assert chain.rt.sudo.Key.get() == key("Alice")


def test_subnet_1_is_the_recorded_one(chain: Chain) -> None:
    p = chain.p
    assert (p.SubnetTAO[1], p.SubnetAlphaIn[1], p.SubnetAlphaOut[1]) == (10**10, 10**10, 10**9)
    assert p.TotalHotkeyAlpha[bytes(32), 1] == 10**9
    assert (p.Keys[1, 0], p.SubnetworkN[1], p.SubnetOwner[1]) == (bytes(32), 1, bytes(32))
    assert (p.Tempo[1], p.MaxAllowedUids[1], p.MaxAllowedValidators[1], p.MinAllowedWeights[1]) == (100, 256, 64, 0)
    assert p.CommitRevealWeightsEnabled[1] and not p.Yuma3On[1] and p.SubnetEmissionEnabled[1]
    assert (p.Burn[1], p.WeightsSetRateLimit[1], p.ImmunityPeriod[1]) == (10**8, 100, 4096)
    assert p.TokenSymbol[1].decode() == "α" and p.TotalNetworks.get() == 2


def test_subnet_1_cannot_be_started_by_anybody_and_takes_no_stake(chain: Chain) -> None:
    chain.fails("BadOrigin", "Alice", "start_call", netuid=1)
    chain.fails("SubtokenDisabled", "Alice", "add_stake", hotkey=bytes(32), netuid=1, amount_staked=TAO)


def test_the_root_network_has_64_seats_and_alice_owns_it(chain: Chain) -> None:
    p = chain.p
    assert (p.Tempo[0], p.MaxAllowedUids[0], p.SubnetworkN[0]) == (100, 64, 0)
    assert (p.SubnetOwner[0], p.SubnetOwnerHotkey[0]) == (key("Alice"), key("//Alice_hk"))


@pytest.mark.parametrize(("profile", "limits"), [(None, constants.FAST), (MAINNET, constants.MAINNET)])
def test_profiles_differ_in_their_limits(profile: object, limits: constants.Limits) -> None:
    chain = Chain() if profile is None else Chain(MAINNET)
    assert chain.p.MaxEpochsPerBlock.get() == limits.max_epochs_per_block
    assert chain.p.PendingChildKeyCooldown.get() == limits.pending_childkey_cooldown
    assert chain.p.Tempo[chain.subnet()] == limits.default_tempo
    second = chain.rt.number
    assert chain.p.LastRateLimitedBlock["NetworkLastRegistered"] == second


class TestPatch:
    CHARLIE = bittensor_core.ss58_encode(key("Charlie"), 42)
    NEW = bittensor_core.ss58_encode(key("New"), 42)

    def build(self, patch: object) -> tuple[SpecRuntime, bytes]:
        runtime = SpecRuntime()
        return runtime, runtime.call("GenesisBuilder_build_state", opaque(json.dumps(patch).encode()), runtime.state)

    def test_adds_accounts_and_changes_the_sudo_key(self) -> None:
        patch = {"balances": {"balances": [[self.NEW, 7 * TAO], [self.CHARLIE, TAO]]}, "sudo": {"key": self.CHARLIE}}
        runtime, answer = self.build(patch)
        assert answer == b"\0" and runtime.sudo.Key.get() == key("Charlie")
        assert (runtime.balances.free(key("New")), runtime.balances.free(key("Charlie"))) == (7 * TAO, TAO)
        assert runtime.balances.TotalIssuance.get() == (3_016_000 - 1_000_000 + 8) * TAO

    @pytest.mark.parametrize(
        ("patch", "word"),
        [
            ({"subtensorModule": {"tempo": 5}}, "subtensorModule.tempo cannot be set"),
            ({"balances": {"balances": [["nonsense", TAO]]}}, "not an SS58 address"),
            ({"balances": {"balances": [[NEW, 5]]}}, "existential deposit"),
            ({"balances": 5}, "not an object of objects"),
            ({"balances": {"balances": 5}}, "balances.balances cannot be set"),
            ([], "not an object of objects"),
        ],
    )
    def test_what_it_cannot_set_is_refused_by_name(self, patch: object, word: str) -> None:
        answer = self.build(patch)[1]
        assert answer[0] == 1 and word in answer.decode(errors="replace")
