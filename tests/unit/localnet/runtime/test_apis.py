"""Runtime APIs: recorded answers are reproduced byte for byte, and what they say agrees with storage.

The recorded bytes come from a public local node of spec 461 (block 67 of a fresh chain; nothing these APIs read had
changed since genesis).
"""

from __future__ import annotations

from typing import Any

import pytest

from localnet.errors import RuntimeApiMissing
from localnet.rules.swap import Pool, buy
from localnet.runtime.apis import API_FUNCTIONS
from localnet.runtime.apis.metagraph import NUMBERED, WHOLE
from localnet.runtime.apis.names import built_in_name
from localnet.runtime.runtime import SpecRuntime
from localnet.runtime.subtensor import registration, staking

ALICE = bytes.fromhex("d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d")
BOB = bytes.fromhex("8eaf04151687736326c9fea17e25fc5287613693c912909cb226aa4794f26a48")
STRANGER = bytes.fromhex("b220508024ce70b0dd91910806fbda4614701cb762f669276fe978636c4ff80c")
TAO = 10**9

RECORDED = {
    ("NeuronInfoRuntimeApi_get_neurons_lite", "0100"): (
        "04" + "00" * 65 + "0401" + "00" * 65 + "04" + "00" * 32 + "02286bee" + "00" * 9 + "feff0300"
    ),
    ("SubnetInfoRuntimeApi_get_subnet_hyperparams", "0100"): (
        "0128feff0100014000feff03009101025a620213ffffffffffffff3f0091019101b115010882841e000700e876481782ee360004c80101"
        "00025a620204019a990300cecc020000"
    ),
    ("StakeInfoRuntimeApi_get_stake_info_for_hotkey_coldkey_netuid", STRANGER.hex() + ALICE.hex() + "0100"): (
        "01" + STRANGER.hex() + ALICE.hex() + "04" + "00" * 6
    ),
}


@pytest.fixture
def rt() -> SpecRuntime:
    return SpecRuntime.in_memory()


def call(rt: SpecRuntime, name: str, *arguments: Any) -> Any:
    """Through bytes, as a node calls it."""
    method, registry = rt.document.apis[name], rt.document.registry
    data = b"".join(registry.encode(kind, value) for kind, value in zip(method.inputs, arguments, strict=True))
    return registry.decode(method.output, rt.call(name, data, rt.state))


def settle(rt: SpecRuntime, count: int) -> list[bytes]:
    """Neurons on subnet 1 with stake on it and on root; returns their hotkeys by uid."""
    p = rt.subtensor
    for number in range(1, count):
        hotkey, coldkey = bytes((number,)) * 32, bytes((number + 100,)) * 32
        p.Owner[hotkey] = coldkey
        registration.append_neuron(p, 1, hotkey)
        staking.increase_stake(p, hotkey, coldkey, 1, 7 * TAO + number)
        staking.increase_stake(p, hotkey, coldkey, 0, 3 * TAO + number)
    return [p.Keys[1, uid] for uid in range(count)]


@pytest.mark.parametrize(("name", "data"), RECORDED, ids=[name for name, _ in RECORDED])
def test_recorded_answers_are_reproduced(rt: SpecRuntime, name: str, data: str) -> None:
    assert rt.call(name, bytes.fromhex(data), rt.state).hex() == RECORDED[name, data]


def test_every_registered_api_is_one_of_the_metadata(rt: SpecRuntime) -> None:
    assert set(API_FUNCTIONS) <= set(rt.document.apis)


def test_an_api_without_a_function_is_refused_by_name(rt: SpecRuntime) -> None:
    with pytest.raises(RuntimeApiMissing, match="ContractsApi_get_storage"):
        rt.call("ContractsApi_get_storage", b"", rt.state)


def test_the_fields_of_a_metagraph_are_the_metadata_s(rt: SpecRuntime) -> None:
    def fields(name: str) -> list[str]:
        types = rt.document.tree["types"]
        inner = types[rt.document.apis[name].output]["def"]["variant"][1]["fields"][0]["type"]
        return [field["name"] for field in types[inner]["def"]["composite"]]

    assert fields("SubnetInfoRuntimeApi_get_metagraph") == list(WHOLE)
    assert fields("SubnetInfoRuntimeApi_get_selective_metagraph") == list(NUMBERED)


def test_a_metagraph_says_what_storage_says(rt: SpecRuntime) -> None:
    hotkeys = settle(rt, 5)
    p = rt.subtensor
    p.Axons[1, hotkeys[2]] = axon = {
        "block": 9, "version": 1, "ip": 134_744_072, "port": 8091, "ip_type": 4, "protocol": 4, "placeholder1": 0,
        "placeholder2": 0,
    }  # fmt: skip
    graph = call(rt, "SubnetInfoRuntimeApi_get_metagraph", 1)
    assert graph["hotkeys"] == hotkeys
    assert graph["coldkeys"] == [p.Owner[hotkey] for hotkey in hotkeys]
    assert (graph["num_uids"], graph["tempo"], graph["burn"]) == (5, p.Tempo[1], p.Burn[1])
    assert graph["axons"][2] == axon
    assert graph["axons"][1]["port"] == 0
    assert bytes(graph["name"]) == b"apex"
    assert len(graph["active"]) == len(graph["emission"]) == len(graph["block_at_registration"]) == 5
    assert graph["alpha_stake"] == [TAO, *(7 * TAO + n for n in range(1, 5))]
    assert graph["tao_stake"] == [0, *(3 * TAO + n for n in range(1, 5))]
    weight = p.TaoWeight.get() / 2**64
    for alpha, tao, total in zip(graph["alpha_stake"], graph["tao_stake"], graph["total_stake"], strict=True):
        assert total == pytest.approx(alpha + tao * weight, abs=2)


def test_children_and_parents_move_stake_in_the_metagraph(rt: SpecRuntime) -> None:
    hotkeys = settle(rt, 3)
    p, half = rt.subtensor, 2**63
    p.ChildKeys[hotkeys[1], 1] = [(half, hotkeys[2])]
    p.ParentKeys[hotkeys[2], 1] = [(half, hotkeys[1])]
    graph = call(rt, "SubnetInfoRuntimeApi_get_metagraph", 1)
    assert graph["alpha_stake"][1] == pytest.approx((7 * TAO + 1) / 2, abs=2)
    assert graph["alpha_stake"][2] == pytest.approx(7 * TAO + 2 + (7 * TAO + 1) / 2, abs=2)


def test_a_selective_metagraph_answers_the_numbered_fields(rt: SpecRuntime) -> None:
    settle(rt, 4)
    whole = call(rt, "SubnetInfoRuntimeApi_get_metagraph", 1)
    everything = call(rt, "SubnetInfoRuntimeApi_get_selective_metagraph", 1, list(range(80)))
    for name in WHOLE:
        expected = (whole[name],) if name == "identity" else whole[name]
        assert everything[name] == expected, name
    assert everything["validators"] == [] and everything["commitments"] == []
    little = call(rt, "SubnetInfoRuntimeApi_get_selective_metagraph", 1, [NUMBERED.index("burn")])
    assert {name for name, value in little.items() if value is not None} == {"netuid", "burn"}


def test_a_mechagraph_reads_the_mechanism_s_vectors(rt: SpecRuntime) -> None:
    settle(rt, 3)
    p, index = rt.subtensor, 4096 + 1
    assert call(rt, "SubnetInfoRuntimeApi_get_mechagraph", 1, 1) is None
    p.MechanismCountCurrent[1] = 2
    p.Incentive[index], p.LastUpdate[index] = [1, 2, 3], [4, 5, 6]
    graph = call(rt, "SubnetInfoRuntimeApi_get_mechagraph", 1, 1)
    assert (graph["netuid"], graph["incentives"], graph["last_update"]) == (index, [1, 2, 3], [4, 5, 6])
    assert call(rt, "SubnetInfoRuntimeApi_get_mechagraph", 1, 0) == call(rt, "SubnetInfoRuntimeApi_get_metagraph", 1)
    assert [g["netuid"] for g in call(rt, "SubnetInfoRuntimeApi_get_all_mechagraphs")] == [0, 1, index]


def test_subnets_that_do_not_exist_answer_nothing(rt: SpecRuntime) -> None:
    for name in ("get_metagraph", "get_dynamic_info", "get_subnet_info", "get_subnet_info_v2", "get_subnet_state",
                 "get_subnet_hyperparams", "get_subnet_hyperparams_v2", "get_subnet_hyperparams_v3"):  # fmt: skip
        assert call(rt, f"SubnetInfoRuntimeApi_{name}", 99) is None, name
    assert call(rt, "NeuronInfoRuntimeApi_get_neurons", 99) == []
    assert call(rt, "NeuronInfoRuntimeApi_get_neuron", 1, 7) is None
    assert call(rt, "SwapRuntimeApi_sim_swap_tao_for_alpha", 99, TAO)["alpha_amount"] == 0


def test_neurons_have_weights_and_bonds_without_zeros(rt: SpecRuntime) -> None:
    settle(rt, 3)
    p = rt.subtensor
    p.Weights[1, 1] = [(0, 0), (2, 65535)]
    p.Bonds[1, 1] = [(2, 7), (0, 0)]
    neuron = call(rt, "NeuronInfoRuntimeApi_get_neuron", 1, 1)
    assert (neuron["weights"], neuron["bonds"]) == ([(2, 65535)], [(2, 7)])
    lite = call(rt, "NeuronInfoRuntimeApi_get_neuron_lite", 1, 1)
    assert lite == {name: value for name, value in neuron.items() if name not in ("weights", "bonds")}


def test_settings_of_all_versions_agree(rt: SpecRuntime) -> None:
    one, two = (call(rt, f"SubnetInfoRuntimeApi_get_subnet_hyperparams{v}", 1) for v in ("", "_v2"))
    three = {
        entry["name"].decode(): entry["value"][1]
        for entry in call(rt, "SubnetInfoRuntimeApi_get_subnet_hyperparams_v3", 1)
    }
    assert {name: two[name] for name in one} == one
    shared = set(two) & set(three)
    assert {name: two[name] for name in shared} == {name: three[name] for name in shared}
    assert two["alpha_sigmoid_steepness"] == {"bits": 1000 << 32}
    assert three["activity_cutoff_factor"] == 13_889
    assert list(three)[:3] == ["kappa", "immunity_period", "min_allowed_weights"]


def test_quotes_come_from_the_pool(rt: SpecRuntime) -> None:
    p = rt.subtensor
    swap = buy(Pool(p.SubnetTAO[1], p.SubnetAlphaIn[1]), TAO)
    quote = call(rt, "SwapRuntimeApi_sim_swap_tao_for_alpha", 1, TAO)
    assert (quote["tao_amount"], quote["alpha_amount"], quote["tao_fee"]) == (swap.paid_in, swap.paid_out, swap.fee)
    assert quote["alpha_slippage"] == TAO - swap.paid_out  # the price of a fresh pool is one
    assert call(rt, "SwapRuntimeApi_current_alpha_price", 1) == TAO
    assert call(rt, "SwapRuntimeApi_sim_swap_alpha_for_tao", 1, 10**18)["tao_amount"] == 0  # the pool would refuse
    root = call(rt, "SwapRuntimeApi_sim_swap_tao_for_alpha", 0, TAO)
    assert (root["alpha_amount"], root["tao_fee"]) == (TAO, 0)
    assert call(rt, "StakeInfoRuntimeApi_get_stake_fee", None, ALICE, (BOB, 1), ALICE, TAO) == swap.fee
    assert call(rt, "StakeInfoRuntimeApi_get_stake_fee", (BOB, 1), ALICE, (BOB, 1), ALICE, TAO) == 0


def test_positions_and_delegates_are_read_from_the_share_pools(rt: SpecRuntime) -> None:
    hotkeys = settle(rt, 3)
    p, owner = rt.subtensor, rt.subtensor.Owner[hotkeys[1]]
    staking.increase_stake(p, hotkeys[1], ALICE, 1, 21 * TAO)
    staking.distribute_to_hotkey(p, hotkeys[1], 1, 28 * TAO)  # doubles everybody's part, up to rounding
    (position,) = call(rt, "StakeInfoRuntimeApi_get_stake_info_for_coldkey", ALICE)
    assert (position["hotkey"], position["netuid"], position["is_registered"]) == (hotkeys[1], 1, True)
    assert position["stake"] == pytest.approx(42 * TAO, abs=100)
    ((who, rows),) = call(rt, "StakeInfoRuntimeApi_get_stake_availability_for_coldkeys", [ALICE], None)
    assert (who, rows) == (ALICE, [(1, {"total": position["stake"], "locked": 0, "available": position["stake"]})])
    assert call(rt, "StakeInfoRuntimeApi_get_stake_availability_for_coldkeys", [ALICE], []) == [(ALICE, [])]

    assert call(rt, "DelegateInfoRuntimeApi_get_delegate", hotkeys[1]) is None
    p.Delegates[hotkeys[1]] = 11_796
    delegate = call(rt, "DelegateInfoRuntimeApi_get_delegate", hotkeys[1])
    assert dict(delegate["nominators"])[ALICE] == [(1, position["stake"])]
    assert [netuid for netuid, _ in dict(delegate["nominators"])[owner]] == [0, 1]
    assert (delegate["registrations"], delegate["validator_permits"]) == ([1], [])
    p.Emission[1], p.ValidatorPermit[1] = [0, 5 * TAO, 0], [False, True, False]
    delegate = call(rt, "DelegateInfoRuntimeApi_get_delegate", hotkeys[1])
    assert delegate["validator_permits"] == [1]
    assert delegate["total_daily_return"] == 5 * TAO * 72  # 7200 blocks a day, tempo 100
    assert delegate["return_per_1000"] == pytest.approx(5 * TAO * 72 * 0.82 / (3 * TAO + 1) * 1000 * TAO, rel=1e-4)
    ((_, (netuid, stake)),) = call(rt, "DelegateInfoRuntimeApi_get_delegated", ALICE)
    assert (netuid, stake) == (1, position["stake"])
    legacy = p.AlphaV2[hotkeys[1], ALICE, 1]  # shares written by an older chain
    p.Alpha[hotkeys[1], ALICE, 1] = {"bits": int(float(legacy["mantissa"]) * 10.0 ** legacy["exponent"]) << 64}
    del p.AlphaV2[hotkeys[1], ALICE, 1]
    ((_, (netuid, stake)),) = call(rt, "DelegateInfoRuntimeApi_get_delegated", ALICE)
    assert netuid == 1 and stake == pytest.approx(position["stake"], rel=1e-9)
    delegate = call(rt, "DelegateInfoRuntimeApi_get_delegate", hotkeys[1])
    assert dict(delegate["nominators"])[ALICE] == [(1, stake)]


def test_schedule_cost_and_accounts(rt: SpecRuntime) -> None:
    p = rt.subtensor
    assert call(rt, "SubnetInfoRuntimeApi_get_next_epoch_start_block", 1) == 100
    p.PendingEpochAt[1] = 42
    assert call(rt, "SubnetInfoRuntimeApi_get_next_epoch_start_block", 1) == 42
    p.Tempo[1] = 0
    assert call(rt, "SubnetInfoRuntimeApi_get_next_epoch_start_block", 1) is None
    assert call(rt, "SubnetRegistrationRuntimeApi_get_network_registration_cost") == 1000 * TAO
    assert call(rt, "SubnetInfoRuntimeApi_get_block_emission") == TAO
    assert call(rt, "SubnetInfoRuntimeApi_get_subnet_account_id", 1) == b"modlsubtensr\1".ljust(32, b"\0")
    assert call(rt, "SubnetInfoRuntimeApi_get_subnet_account_id", 99) is None
    assert call(rt, "SubnetInfoRuntimeApi_get_subnet_to_prune") is None
    p.NetworkImmunityPeriod.put(0)
    assert call(rt, "SubnetInfoRuntimeApi_get_subnet_to_prune") == 1


def test_fees_are_quoted_as_they_are_charged(rt: SpecRuntime) -> None:
    transfer = ("Balances", ("transfer_keep_alive", {"dest": ("Id", BOB), "value": TAO}))
    info = call(rt, "TransactionPaymentCallApi_query_call_info", transfer, 144)
    assert (info["weight"]["ref_time"], info["class"], info["partial_fee"]) == (224_051_000, "Normal", 166_247)
    details = call(rt, "TransactionPaymentCallApi_query_call_fee_details", transfer, 144)
    parts = details["inclusion_fee"]
    assert sum(parts.values()) == info["partial_fee"]
    assert (parts["base_fee"], parts["len_fee"]) == (54_078, 144)
    free = ("SubtensorModule", ("set_weights", {"netuid": 1, "dests": [], "weights": [], "version_key": 0}))
    assert call(rt, "TransactionPaymentCallApi_query_call_info", free, 144)["partial_fee"] == 0
    assert call(rt, "TransactionPaymentCallApi_query_call_fee_details", free, 144)["inclusion_fee"] is None
    assert call(rt, "AccountNonceApi_account_nonce", ALICE) == 0


def test_subnets_have_a_name_before_their_owner_gives_one(rt: SpecRuntime) -> None:
    assert [built_in_name(n) for n in (0, 1, 64, 61, 117, 128, 500)] == [
        b"root", b"apex", b"chutes", b"red team", b"alfa", b"la", b"unknown",
    ]  # fmt: skip
    texts = ("github_repo", "subnet_contact", "subnet_url", "discord", "description", "logo_url", "additional")
    rt.subtensor.SubnetIdentitiesV3[1] = {"subnet_name": b"whetstone", **dict.fromkeys(texts, b"")}
    info = call(rt, "SubnetInfoRuntimeApi_get_dynamic_info", 1)
    assert bytes(info["subnet_name"]) == b"whetstone"
    assert info["subnet_identity"]["subnet_name"] == b"whetstone"
    assert len(call(rt, "SubnetInfoRuntimeApi_get_all_dynamic_info")) == 2
