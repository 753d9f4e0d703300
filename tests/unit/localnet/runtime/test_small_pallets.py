"""Commitments, MEV shield, swap fees, drand."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import pytest

from localnet.codec.document import twox128
from localnet.codec.scale import compact, opaque, read_compact
from localnet.errors import DispatchError, ScaleError
from localnet.runtime.framework import Signed, Unsigned
from localnet.runtime.pallets.mev_shield import KEY_SIZE
from localnet.runtime.subtensor import staking
from tests.support.extrinsics import Draft
from tests.support.market import ALICE, BOB, BOB_HOT, CHARLIE, HOT, TAO, Market, fresh


@pytest.fixture
def m() -> Market:
    return fresh()


# -- balances ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pallet", ["Balances", "Crowdloan"])
def test_dust_leaves_both_records_of_the_issuance(m: Market, pallet: str) -> None:
    """SubtensorDustRemoval, in whatever pallet an account is closed."""
    poor, balances = b"\x77" * 32, m.rt.balances
    m.dispatch(Signed(ALICE), "Balances", "transfer_allow_death", dest=("Id", poor), value=TAO)
    terms = {"deposit": 10 * TAO, "min_contribution": TAO // 10, "cap": 100 * TAO, "end": m.rt.number + 60}
    m.dispatch(Signed(ALICE), "Crowdloan", "create", **terms, call=None, target_address=BOB)
    before = balances.TotalIssuance.get(), m.p.TotalIssuance.get()
    if pallet == "Balances":
        m.dispatch(Signed(poor), pallet, "transfer_allow_death", dest=("Id", BOB), value=TAO - 400)
    else:
        m.dispatch(Signed(poor), pallet, "contribute", crowdloan_id=0, amount=TAO - 400)
    assert m.last("DustLost", "Balances") == {"account": poor, "amount": 400}
    assert (balances.TotalIssuance.get(), m.p.TotalIssuance.get()) == (before[0] - 400, before[1] - 400)


def test_more_than_there_is_altogether_underflows(m: Market) -> None:
    """What an account lacks is a matter of funds; what the whole chain lacks, of arithmetic (as released runtimes)."""
    issued = m.rt.balances.TotalIssuance.get()
    for amount, error in ((issued, "FundsUnavailable"), (issued + 1, "Arithmetic.Underflow")):
        with pytest.raises(DispatchError, match=error):
            m.dispatch(Signed(BOB), "Balances", "transfer_keep_alive", dest=("Id", ALICE), value=amount)


# -- commitments ------------------------------------------------------------------------------------------------------


def commit(m: Market, *fields: Any, netuid: int | None = None) -> dict[str, Any]:
    return {"pallet": "Commitments", "netuid": m.net if netuid is None else netuid, "info": {"fields": list(fields)}}


def set_commitment(m: Market, who: bytes, *fields: Any) -> None:
    m.dispatch(Signed(who), function="set_commitment", **commit(m, *fields))


def raw(text: bytes) -> tuple[str, bytes]:
    return (f"Raw{len(text)}", text)


def test_a_commitment_replaces_the_one_before(m: Market) -> None:
    set_commitment(m, HOT, raw(b"hello"))
    m.at(7)
    set_commitment(m, HOT, raw(b"there"), ("Sha256", bytes(32)))
    expected = {"fields": [raw(b"there"), ("Sha256", bytes(32))]}
    assert m.rt.commitments.CommitmentOf[m.net, HOT] == {"deposit": 0, "block": 7, "info": expected}
    assert m.rt.commitments.LastCommitment[m.net, HOT] == 7
    assert m.last("Commitment", "Commitments") == {"netuid": m.net, "who": HOT}
    assert m.rt.calls["Commitments", "set_commitment"].call_info.pays is False  # type: ignore[attr-defined]


def test_only_neurons_commit_and_only_three_fields(m: Market) -> None:
    assert m.refusal(ALICE, "set_commitment", **commit(m, raw(b"x"))) == "AccountNotAllowedCommit"
    assert m.refusal(HOT, "set_commitment", **commit(m, raw(b"x"), netuid=1)) == "AccountNotAllowedCommit"
    four = commit(m, *[raw(b"x")] * 4)
    assert m.refusal(HOT, "set_commitment", **four) == "TooManyFieldsInCommitmentInfo"


def test_space_is_rationed_per_epoch(m: Market) -> None:
    for _ in range(6):
        set_commitment(m, HOT, ("BigRaw", bytes(512)))  # 3072 of 3100
    small = commit(m, raw(b"x"))  # counts for 100
    assert m.refusal(HOT, "set_commitment", **small) == "SpaceLimitExceeded"
    with pytest.raises(DispatchError, match="at most 512 bytes"):
        set_commitment(m, BOB_HOT, ("BigRaw", bytes(513)))
    with pytest.raises(ScaleError):  # as at a node whose type does not hold more
        m.rt.commitments.validate(BOB_HOT, "set_commitment", commit(m, ("BigRaw", bytes(513))))
    set_commitment(m, BOB_HOT, raw(b"x"))
    m.p.SubnetEpochIndex[m.net] = 1
    set_commitment(m, HOT, raw(b"x"))
    assert m.rt.commitments.UsedSpaceOf[m.net, HOT] == {"last_epoch": 1, "used_space": 100}
    m.root("Commitments", "set_max_space", new_limit=100)
    assert m.refusal(HOT, "set_commitment", **small) == "SpaceLimitExceeded"


def test_a_reset_flag_clears_the_neurons_bonds_where_allowed(m: Market) -> None:
    m.p.Bonds[m.net, 0] = [(0, 5), (1, 9)]
    set_commitment(m, BOB_HOT, "ResetBondsFlag")
    assert m.p.Bonds[m.net, 0] == [(0, 5), (1, 9)]
    m.root("AdminUtils", "sudo_set_bonds_reset_enabled", netuid=m.net, enabled=True)
    set_commitment(m, BOB_HOT, "ResetBondsFlag", raw(b"x"))
    assert m.p.Bonds[m.net, 0] == [(0, 5)]
    assert m.rt.commitments.LastBondsReset[m.net, BOB_HOT] == m.rt.number


def test_only_the_chain_writes_that_a_reveal_failed(m: Market) -> None:
    sealed = {"encrypted": b"abc", "reveal_round": 5}
    failed = commit(m, ("TimelockRevealFailed", sealed))
    assert m.refusal(HOT, "set_commitment", **failed) == "TimelockRevealFailedNotAllowed"


# -- MEV shield -------------------------------------------------------------------------------------------------------


def announce(m: Market, key: bytes | None) -> None:
    m.dispatch(Unsigned(), "MevShield", "announce_next_key", enc_key=key)


def test_keys_move_up_block_by_block(m: Market) -> None:
    shield = m.rt.mev_shield
    keys = [bytes((n,)) * KEY_SIZE for n in range(1, 5)]
    for number, key in enumerate(keys, start=1):
        m.at(number)
        announce(m, key)
    assert (shield.NextKey.get(), shield.PendingKey.get(), shield.CurrentKey.get()) == (keys[2], keys[1], keys[0])
    assert (shield.PendingKeyExpiresAt.get(), shield.NextKeyExpiresAt.get()) == (6, 7)
    announce(m, None)
    announce(m, None)
    assert shield.NextKey.get() is None and shield.NextKeyExpiresAt.get() is None


def test_a_key_of_the_wrong_size_is_refused(m: Market) -> None:
    with pytest.raises(DispatchError, match="BadEncKeyLen"):
        announce(m, bytes(KEY_SIZE - 1))
    assert m.refusal(ALICE, "announce_next_key", pallet="MevShield", enc_key=None) == "BadOrigin"


def test_the_inherent_reads_an_optional_key(m: Market) -> None:
    inherent, key = m.rt.mev_shield.inherent, bytes(KEY_SIZE)
    assert inherent({}) is None
    assert inherent({b"shieldpk": b"\0"}) == ("MevShield", "announce_next_key", {"enc_key": None})
    made = inherent({b"shieldpk": b"\1" + opaque(key)})
    assert made == ("MevShield", "announce_next_key", {"enc_key": key})
    assert m.rt.decode_call(m.rt.encode_call(*made)) == made
    with pytest.raises(ScaleError):
        inherent({b"shieldpk": b"\1" + opaque(key) + b"x"})


def carrier(m: Market, ciphertext: bytes) -> bytes:
    call = m.rt.encode_call("MevShield", "submit_encrypted", {"ciphertext": ciphertext})
    return Draft(m.rt, "//Bob", call, nonce=0, genesis=m.rt.system.BlockHash[0]).sign()


def test_a_carrier_is_recognised_and_taken_apart(m: Market) -> None:
    name, kem, nonce, body = bytes(range(16)), bytes(1088), bytes(range(24)), b"sealed" * 9
    sealed = name + len(kem).to_bytes(2, "little") + kem + nonce + body
    answer = m.rt.call("ShieldApi_try_decode_shielded_tx", carrier(m, sealed), m.rt.state)
    assert answer == b"\1" + name + opaque(kem) + opaque(body) + nonce
    assert m.rt.call("ShieldApi_try_decode_shielded_tx", carrier(m, sealed[:20]), m.rt.state) == b"\0"
    remark = Draft(m.rt, "//Bob", m.rt.encode_call("System", "remark", {"remark": sealed}), 0, m.rt.system.BlockHash[0])
    assert m.rt.call("ShieldApi_try_decode_shielded_tx", remark.sign(), m.rt.state) == b"\0"


def test_the_pending_key_is_the_current_authors(m: Market) -> None:
    key = b"\5" * KEY_SIZE
    m.rt.mev_shield.PendingKey.put(key)
    ask = lambda name: m.rt.call("ShieldApi_is_shielded_using_current_key", name, m.rt.state)  # noqa: E731
    assert ask(twox128(key)) == b"\1"
    assert ask(bytes(16)) == b"\0"


def test_submitting_is_an_event_with_the_hash_of_sender_and_contents(m: Market) -> None:
    m.dispatch(Signed(BOB), "MevShield", "submit_encrypted", ciphertext=b"abc")
    expected = blake2b(BOB + compact(3) + b"abc", digest_size=32).digest()
    assert m.last("EncryptedSubmitted", "MevShield") == {"id": expected, "who": BOB}
    assert read_compact(opaque(b"abc"), 0) == (3, 1)


# -- swap, drand ------------------------------------------------------------------------------------------------------


def test_root_sets_a_subnets_swap_fee(m: Market) -> None:
    assert m.refusal(ALICE, "set_fee_rate", pallet="Swap", netuid=m.net, rate=1) == "BadOrigin"
    assert m.refusal(None, "set_fee_rate", pallet="Swap", netuid=99, rate=1) == "MechanismDoesNotExist"
    assert m.refusal(None, "set_fee_rate", pallet="Swap", netuid=m.net, rate=10_001) == "FeeRateTooHigh"
    m.root("Swap", "set_fee_rate", netuid=m.net, rate=0)
    assert m.last("FeeRateSet", "Swap") == {"netuid": m.net, "rate": 0}
    m.call(CHARLIE, "add_stake", hotkey=HOT, netuid=m.net, amount_staked=TAO)
    assert m.last("StakeAdded")[5] == 0


def test_the_weight_of_a_pool_decides_its_price(m: Market) -> None:
    m.rt.swap.SwapBalancer[m.net] = {"quote": 25 * 10**16}
    m.p.SubnetTAO[m.net] = m.p.SubnetAlphaIn[m.net] = 100 * TAO
    assert staking.spot_price(m.p, m.net) >> 64 == 3


def test_users_liquidity_is_gone(m: Market) -> None:
    assert m.refusal(ALICE, "toggle_user_liquidity", pallet="Swap", netuid=m.net, enable=True) == "Deprecated"


def test_root_sets_the_oldest_round(m: Market) -> None:
    assert m.refusal(ALICE, "set_oldest_stored_round", pallet="Drand", oldest_round=9) == "BadOrigin"
    m.root("Drand", "set_oldest_stored_round", oldest_round=9)
    assert m.rt.drand.OldestStoredRound.get() == 9
