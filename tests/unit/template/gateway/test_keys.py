"""API keys and quotas. Time is an argument."""

import stat
from pathlib import Path

import pytest

from template.gateway.access import DAY, Access, GatewayExposed, Meter
from template.gateway.errors import ApiError
from template.gateway.keys import ApiKey, KeyStore, KeysUnusable, Quota, UnknownKey

NOW = 20_000 * DAY + 3600.0


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys.sqlite", create=True)


def test_a_key_opens_until_it_is_revoked_and_only_as_it_was_given(store: KeyStore) -> None:
    key, secret = store.create("alice", Quota(requests_per_minute=5), NOW)
    other, other_secret = store.create("bob", Quota(), NOW)
    assert store.find(secret) == key and store.find(other_secret) == other
    altered = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    for wrong in (
        altered,
        secret.upper(),
        secret[:-1],
        secret + "a",
        "",
        "sk-ts-",
        f"sk-ts-{key.id}-",
        "é" * 40,
        "x" * 10_000,
    ):
        assert store.find(wrong) is None, wrong
    assert store.find(f"sk-ts-{other.id}{secret[len('sk-ts-') + 12 :]}") is None, "one key's secret with another's id"
    store.revoke(key.id, NOW + 1)
    assert store.find(secret) is None and store.find(other_secret) == other
    assert {k.label: k.revoked_at for k in store.all()} == {"alice": NOW + 1, "bob": None}
    with pytest.raises(UnknownKey):
        store.revoke("nobody", NOW)


def test_the_file_holds_no_secret_and_is_its_owners_alone(store: KeyStore) -> None:
    _, secret = store.create("alice", Quota(), NOW)
    store.close()
    content = b"".join(path.read_bytes() for path in store.path.parent.iterdir())
    hidden = secret.split("-", 3)[3]  # it may hold dashes of its own
    assert len(hidden) > 40 and secret.encode() not in content and hidden.encode() not in content
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


def test_usage_survives_a_restart(store: KeyStore, tmp_path: Path) -> None:
    key, _ = store.create("alice", Quota(), NOW)
    store.add_usage(key.id, 20_000, 30)
    store.add_usage(key.id, 20_000, 12)
    store.close()
    again = KeyStore(store.path)
    assert again.used(key.id, 20_000) == (42, 2) and again.used(key.id, 20_001) == (0, 0)


def test_a_file_that_is_none_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(KeysUnusable):
        KeyStore(tmp_path / "missing")
    (tmp_path / "text").write_text("these are not keys" * 100)
    with pytest.raises(KeysUnusable):
        KeyStore(tmp_path / "text")


def meter(used: int = 0) -> Meter:
    return Meter(lambda key_id, day: used)


def key(**quota: int) -> ApiKey:
    return ApiKey("abc", "alice", Quota(**quota), NOW)


def test_requests_a_minute() -> None:
    counted, alice = meter(), key(requests_per_minute=3)
    for second in range(3):
        counted.enter(alice, NOW + second).leave(0, NOW + second)
    with pytest.raises(ApiError) as caught:
        counted.enter(alice, NOW + 10)
    assert (
        caught.value.status == 429 and caught.value.code == "rate_limit_exceeded" and caught.value.retry_after == 50.0
    )
    counted.enter(ApiKey("other", "bob", Quota(requests_per_minute=1), NOW), NOW + 10)
    counted.enter(alice, NOW + 60).leave(0, NOW + 60)


def test_requests_at_a_time() -> None:
    counted, alice = meter(), key(concurrency=2)
    first, _ = counted.enter(alice, NOW), counted.enter(alice, NOW)
    with pytest.raises(ApiError) as caught:
        counted.enter(alice, NOW)
    assert caught.value.code == "concurrency_limit_exceeded"
    first.leave(0, NOW)
    counted.enter(alice, NOW)


def test_tokens_a_day_cannot_be_passed_by_many_at_once() -> None:
    counted, alice = meter(used=20), key(tokens_per_day=100)
    first = counted.enter(alice, NOW)
    first.reserve(50, NOW)
    second = counted.enter(alice, NOW)
    with pytest.raises(ApiError) as caught:
        second.reserve(31, NOW)
    assert caught.value.code == "insufficient_quota" and not caught.value.retry
    assert caught.value.retry_after == DAY - 3600
    second.leave(0, NOW)
    first.leave(10, NOW)  # shorter than it might have been
    third = counted.enter(alice, NOW)
    third.reserve(70, NOW)
    third.leave(70, NOW)
    with pytest.raises(ApiError):
        counted.enter(alice, NOW).reserve(1, NOW)
    counted.enter(alice, NOW + DAY).reserve(100, NOW + DAY)


def test_a_request_over_midnight_counts_once_on_the_day_it_ends() -> None:
    counted, alice = meter(), key(tokens_per_day=100)
    late = counted.enter(alice, NOW)
    late.reserve(60, NOW)
    late.leave(60, NOW + DAY)
    counted.enter(alice, NOW + DAY).reserve(40, NOW + DAY)
    with pytest.raises(ApiError):
        counted.enter(alice, NOW + DAY).reserve(1, NOW + DAY)


def test_without_keys_only_this_machine_is_served_and_the_first_key_closes_the_door(tmp_path: Path) -> None:
    access = Access(tmp_path / "keys.sqlite", Quota())
    for host in ("127.0.0.1", "::1", "localhost"):
        access.check_exposure(host)
    for host in ("0.0.0.0", "::", "192.0.2.7", "example.org"):
        with pytest.raises(GatewayExposed):
            access.check_exposure(host)
    assert access.authorize(None).id == "local"
    _, secret = KeyStore(tmp_path / "keys.sqlite", create=True).create("alice", Quota(), NOW)
    access.check_exposure("0.0.0.0")
    assert access.authorize(f"Bearer {secret}").label == "alice"
    for header in (None, "", "Bearer", "Bearer x", f"Basic {secret}", secret):
        with pytest.raises(ApiError) as caught:
            access.authorize(header)
        assert caught.value.status == 401
    (tmp_path / "keys.sqlite").unlink()
    with pytest.raises(ApiError):
        access.authorize(None)
