"""Rates, remembered nonces and who may call: bounded, and closed across a restart."""

import pytest

from protocol.errors import Refusal, RefusalCode
from protocol.metagraph import Metagraph, Neuron
from template.limits import OpenPolicy, RateLimiter, ReplayStore, StakePolicy, address_key

SECOND = 10**9


def test_a_bucket_empties_and_refills():
    limiter = RateLimiter(rate=2.0, burst=3)
    assert [limiter.take("a", 0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert limiter.take("a", 0.0) == pytest.approx(0.5)
    assert limiter.take("b", 0.0) == 0.0
    assert limiter.take("a", 0.5) == 0.0
    assert limiter.take("a", 0.5) > 0.0
    assert [limiter.take("a", 100.0) for _ in range(4)] == [0.0, 0.0, 0.0, pytest.approx(0.5)]


def test_a_limiter_forgets_the_least_recent_key_only():
    limiter = RateLimiter(rate=1.0, burst=1, max_keys=2)
    for key in ("a", "b", "a", "c"):  # b is least recent when c comes
        limiter.take(key, 0.0)
    assert len(limiter) == 2
    assert limiter.take("a", 0.0) > 0.0
    assert limiter.take("b", 0.0) == 0.0


def test_addresses_count_by_ipv4_and_by_ipv6_network():
    assert address_key("1.2.3.4") == "1.2.3.4"
    assert address_key("2606:4700:1:2::1") == address_key("2606:4700:1:2:ffff::9%eth0")
    assert address_key("2606:4700:1:2::1") != address_key("2606:4700:1:3::1")


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> int:
        return int(self.now * SECOND)


def test_a_nonce_passes_once():
    clock = Clock(1000)
    store = ReplayStore(clock_ns=clock)
    assert store.check_and_store("a", 1000 * SECOND)
    assert not store.check_and_store("a", 1000 * SECOND)
    assert store.check_and_store("b", 1000 * SECOND)
    assert store.check_and_store("a", 1000 * SECOND + 1)


def test_nonces_are_forgotten_only_after_the_window_and_memory_is_bounded():
    clock = Clock(1000)
    store = ReplayStore(retention=12, max_nonces=2, clock_ns=clock)
    assert store.check_and_store("a", 1001 * SECOND) and store.check_and_store("a", 1002 * SECOND)
    with pytest.raises(Refusal) as refused:
        store.check_and_store("a", 1003 * SECOND)
    assert refused.value.code == RefusalCode.BUSY and refused.value.retry_after
    clock.now = 1014.0
    assert not store.check_and_store("a", 1002 * SECOND)
    clock.now = 1025.0
    assert store.check_and_store("a", 1025 * SECOND)
    assert len(store) == 1


def test_without_a_journal_a_restart_refuses_what_was_signed_before_it():
    store = ReplayStore(clock_ns=Clock(1000))
    with pytest.raises(Refusal) as refused:
        store.check_and_store("a", 1000 * SECOND - 1)
    assert refused.value.code == RefusalCode.STALE


def test_with_a_journal_a_restart_knows_the_used_nonces(tmp_path):
    clock = Clock(1000)
    store = ReplayStore(path=tmp_path / "nonces", clock_ns=clock)
    assert store.check_and_store("a", 1001 * SECOND)  # no close: as after a crash
    clock.now = 1002
    again = ReplayStore(path=tmp_path / "nonces", clock_ns=clock)
    assert not again.check_and_store("a", 1001 * SECOND)
    assert again.check_and_store("a", 999 * SECOND)  # signed before the restart and never used
    again.close()


def test_a_journal_covers_the_window_through_switches_and_stays_small(tmp_path):
    clock = Clock(1000)
    store = ReplayStore(retention=12, path=tmp_path / "nonces", clock_ns=clock)
    for second in range(1000, 1200):
        clock.now = second
        assert store.check_and_store("a", second * SECOND)
        if second % 7 == 0:  # a restart at any moment knows every nonce that is still fresh
            copy = tmp_path / f"copy{second}"
            copy.mkdir()
            for file in tmp_path.glob("nonces.*"):
                (copy / file.name).write_bytes(file.read_bytes())
            reader = ReplayStore(retention=12, path=copy / "nonces", clock_ns=clock)
            for fresh in range(max(1000, second - 12), second + 1):
                assert not reader.check_and_store("a", fresh * SECOND)
            reader.close()
    lines = sum(len(f.read_text().splitlines()) for f in tmp_path.glob("nonces.*"))
    assert lines <= 50
    store.close()


def test_a_damaged_journal_line_is_skipped(tmp_path):
    (tmp_path / "nonces.current").write_bytes(b"a 1000000000000\n\xff\xfe\nb 10000")
    store = ReplayStore(path=tmp_path / "nonces", clock_ns=Clock(1000))
    assert not store.check_and_store("a", 1000 * SECOND)
    store.close()


def neuron(hotkey: str, *, stake: float = 10.0, permit: bool = True) -> Neuron:
    return Neuron(
        uid=0,
        hotkey=hotkey,
        coldkey="c",
        stake=stake,
        validator_permit=permit,
        active=True,
        ip="0.0.0.0",
        port=0,
        protocol=4,
        last_update=0,
    )


def test_policy_wants_registration_permit_and_stake():
    metagraph = Metagraph(
        1, 1, "0x", 360, (neuron("rich"), neuron("poor", stake=1.0), neuron("miner", permit=False), neuron("bad"))
    )
    policy = StakePolicy(lambda: metagraph, min_stake=5.0, allow={"probe"}, deny={"bad"})
    assert policy.check("rich").hotkey == "rich"
    assert policy.check("probe") is None
    for hotkey in ("poor", "miner", "stranger", "bad"):
        with pytest.raises(Refusal) as refused:
            policy.check(hotkey)
        assert refused.value.code == RefusalCode.NOT_PERMITTED
    assert StakePolicy(lambda: metagraph, require_permit=False).check("miner").hotkey == "miner"


def test_policy_lets_nobody_in_before_the_chain_is_read():
    with pytest.raises(Refusal) as refused:
        StakePolicy(lambda: None).check("rich")
    assert refused.value.code == RefusalCode.BUSY


def test_open_policy_has_no_neuron():
    assert OpenPolicy().check("anyone") is None
