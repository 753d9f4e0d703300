"""Where drand pulses come from: a file, a beacon of the chain's own, drand's HTTP API with hosts that lie."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from localnet import Localnet, SyncLocalnet
from localnet.abi import State
from localnet.client import keypair, public_key
from localnet.errors import ConfigError, PulseError, RuntimeApiMissing
from localnet.node import pulses
from localnet.node.marks import marked
from localnet.node.pulses import LocalBeacon, Network, PulseFile, read_pulse
from localnet.rules.timelock import Beacon, round_time
from localnet.runtime.runtime import SpecRuntime
from tests.support.drand import (
    QUICKNET_KEY,
    ROUND,
    SIGNATURE,
    answer,
    payload,
    pulse,
    pulse_file,
    sdk_sealed,
    signed_by,
)

pytest.importorskip("py_arkworks_bls12381", reason="there is no BLS12-381 library for Python 3.10")

BEACON = Beacon(b"tests")
START = 1_800_000_000_000  # ms: chain time of the first block in the tests with their own clock
FIRST = 35_732_212  # the round at that time


def own_time(**options: Any) -> Localnet:
    return Localnet(mining="manual", clock="step", genesis_time=START, **options)


# -- what a pulse is --------------------------------------------------------------------------------------------------


GOOD = answer(1, SIGNATURE)
BAD: list[Any] = [
    None, [], "x", {}, {"round": 1}, {**GOOD, "round": True}, {**GOOD, "round": "1"}, {**GOOD, "round": 0},
    {**GOOD, "round": 2**64}, {**GOOD, "signature": "zz"}, {**GOOD, "signature": 5}, answer(1, b"short"),
    answer(1, bytes(4000)), {**GOOD, "randomness": "00" * 32}, {**GOOD, "randomness": 1},
]  # fmt: skip


@pytest.mark.parametrize("value", BAD)
def test_what_is_not_a_pulse_is_refused(value: Any) -> None:
    with pytest.raises(PulseError):
        read_pulse(value)


def test_a_pulse_may_leave_out_what_can_be_computed() -> None:
    given = answer(ROUND, SIGNATURE)
    assert read_pulse(given) == read_pulse({"round": ROUND, "signature": given["signature"]})
    assert read_pulse(given).randomness.hex() == given["randomness"]


# -- a file -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("\n", "has no pulses"),
        ("{}", "line 1: a pulse has a signature"),
        (json.dumps(answer(1, SIGNATURE)) + "\nnonsense", "line 2"),
        ("[" * 5000, "line 1"),
        ("\n".join(json.dumps(answer(n, SIGNATURE)) for n in (1, 3)), "round 1 is followed by 3"),
    ],
)
async def test_a_file_that_cannot_serve_stops_the_start(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "pulses"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        await Localnet(mining="manual", drand=path).start()


async def test_a_files_pulses_are_stored_in_the_first_blocks_and_once(tmp_path: Path) -> None:
    async with Localnet(mining="manual", drand=pulse_file(tmp_path / "pulses")) as net:
        await net.mine()
        assert net.query("Drand", "Pulses", ROUND) == pulse(ROUND, SIGNATURE)
        assert [e["fields"] for e in net.events() if e["name"] == "NewPulse"] == [{"rounds": [ROUND]}]
        await net.mine(3)
        assert len(net.chain.pool) == 0
        assert not [e for e in net.events() if e["pallet"] == "Drand"]


async def test_pulses_of_another_beacon_are_not_sent_and_said_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = pulse_file(tmp_path / "pulses", signed_by(BEACON, 1, 2))
    async with Localnet(mining="manual", drand=file) as net:
        await net.mine(3)
        assert net.query("Drand", "LastStoredRound") == 0 and len(net.chain.pool) == 0
    assert caplog.text.count("round 1 is not signed by the beacon that the chain follows") == 1


def test_a_file_goes_on_where_the_chain_is(tmp_path: Path) -> None:
    file = PulseFile(pulse_file(tmp_path / "pulses", signed_by(BEACON, *range(10, 80))))
    assert [one.round for one in file.pulses(0, 0)] == list(range(10, 10 + pulses.MAX_PER_BLOCK))
    assert [one.round for one in file.pulses(59, 0)] == list(range(60, 80))
    assert file.pulses(79, 0) == file.pulses(10**9, 0) == []
    with pytest.raises(PulseError, match="begins with round 10, the chain needs 9 next"):
        file.pulses(8, 0)


# -- a beacon of the chain's own --------------------------------------------------------------------------------------


async def test_a_local_beacon_signs_every_round_of_chain_time(caplog: pytest.LogCaptureFixture) -> None:
    async with own_time(drand="local") as net:
        assert net.query("Drand", "BeaconConfig")["metadata"] == {"beacon_id": b"localnet"}
        await net.mine(40)  # 0.25 s each
        rounds = sorted(net.query_map("Drand", "Pulses"))
        assert rounds == list(range(FIRST, FIRST + 4))
        assert net.query("Drand", "OldestStoredRound") == FIRST
        await net.travel(net.timestamp + 240_000)
        await net.mine()
        assert net.query("Drand", "LastStoredRound") == FIRST + 3 + pulses.MAX_PER_BLOCK
        await net.mine()
        assert net.query("Drand", "LastStoredRound") == FIRST + 3 + 80
        snapshot = net.snapshot()
        await net.mine(12)
        await net.revert(snapshot)
        await net.mine(12)
        assert net.query("Drand", "LastStoredRound") == FIRST + 84
    assert "drand" not in caplog.text


async def test_what_is_no_round_stops_the_pulses_and_not_the_chain(caplog: pytest.LogCaptureFixture) -> None:
    async with own_time(drand="local") as net:
        await net.mine(10)
        key, last = net.client.entry("Drand", "LastStoredRound").prefix, net.query("Drand", "LastStoredRound")
        await net.developer.write({key: b"\1"})
        await net.mine(20)
        assert caplog.text.count("no more drand pulses") == 1
        await net.developer.write({key: last.to_bytes(8, "little")})
        await net.mine(20)
        assert net.query("Drand", "LastStoredRound") > last


def test_a_leap_of_chain_time_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    source = LocalBeacon(b"seed")
    now = round_time(FIRST, LocalBeacon.GENESIS, LocalBeacon.PERIOD)
    last = FIRST - pulses.MAX_BEHIND
    assert source.pulses(last, now) and not caplog.text
    for _ in range(2):
        assert len(source.pulses(last - 1, now)) == pulses.MAX_PER_BLOCK
    assert caplog.text.count("2401 drand rounds ahead of the chain: it catches up in 49 blocks") == 1
    source.pulses(last, now)
    source.pulses(last - 1, now)
    assert caplog.text.count("rounds ahead") == 2


async def test_weights_sealed_to_the_local_beacon_are_set_when_its_round_comes() -> None:
    async with own_time(drand="local") as net:
        await net.mine()
        await net.extrinsic("//Alice", "SubtensorModule", "register_network", hotkey="//Hot")
        await net.extrinsic("//Alice", "SubtensorModule", "start_call", netuid=2)
        await net.sudo("AdminUtils", "sudo_set_weights_set_rate_limit", netuid=2, weights_set_rate_limit=0)
        await net.mine_epoch(2)
        number = net.drand_round()
        assert round_time(number, LocalBeacon.GENESIS, LocalBeacon.PERIOD) * 1000 > net.timestamp
        sealed = net.seal(payload(public_key("//Hot"), [0], [65535]), number)
        arguments = {"netuid": 2, "commit": sealed, "reveal_round": number, "commit_reveal_version": 4}
        await net.extrinsic("//Hot", "SubtensorModule", "commit_timelocked_weights", **arguments)
        await net.mine_epoch(2)
        for _ in range(9):
            await net.mine()
            if net.query("SubtensorModule", "Weights", 2, 0):
                break
        assert net.query("SubtensorModule", "Weights", 2, 0) == [(0, 65535)]
        assert net.query("Drand", "LastStoredRound") >= number


class NoRoot(SpecRuntime):
    def call(self, method: str, data: bytes, state: State) -> bytes:
        if method == "DevApi_apply_extrinsic":
            raise RuntimeApiMissing("this runtime has no way to be root")
        return super().call(method, data, state)


async def test_a_local_beacon_is_set_by_root_whoever_has_the_sudo_key() -> None:
    genesis = {"sudo": {"key": keypair("//Bob").ss58_address}}
    async with Localnet(mining="manual", drand="local", genesis=genesis) as net:
        assert net.query("Drand", "BeaconConfig")["public_key"] != QUICKNET_KEY
        assert [origin for _, origin in marked(net.chain.head.header)["impersonated"]] == ["root"]
    with pytest.raises(ConfigError, match=r"does not take a beacon of its own from root: .*no way to be root"):
        await Localnet(mining="manual", drand="local", runtime=NoRoot()).start()


def test_a_chain_from_a_file_keeps_its_beacon(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "mining": "manual", "clock": "step", "genesis_time": START, "drand": "local", "state": tmp_path / "state"
    }  # fmt: skip
    with SyncLocalnet(**options) as first:
        first.mine(14)
        key, last = first.query("Drand", "BeaconConfig")["public_key"], first.query("Drand", "LastStoredRound")
        assert last and key not in (QUICKNET_KEY, LocalBeacon(bytes(32)).beacon.public_key)
        sealed = first.seal(b"later", first.drand_round())
    with SyncLocalnet(**options) as again:
        assert again.query("Drand", "BeaconConfig")["public_key"] == key and again.block == 15
        again.mine(12)
        assert again.query("Drand", "LastStoredRound") == last + 1
        assert len(sealed) > 200 and again.drand_round() == last + 2


# -- none -------------------------------------------------------------------------------------------------------------


async def test_without_a_source_what_is_sealed_waits_where_it_can_be_seen(caplog: pytest.LogCaptureFixture) -> None:
    async with own_time() as net:
        await net.mine()
        await net.extrinsic("//Alice", "SubtensorModule", "register_network", hotkey="//Hot")
        await net.sudo("AdminUtils", "sudo_set_weights_set_rate_limit", netuid=2, weights_set_rate_limit=0)
        with caplog.at_level(logging.WARNING, "localnet.runtime"):
            await net.extrinsic(
                "//Hot", "SubtensorModule", "commit_timelocked_weights", netuid=2,
                commit=sdk_sealed(b"x"), reveal_round=ROUND, commit_reveal_version=4,
            )  # fmt: skip
        assert f"waits for drand round {ROUND}, and this chain has no pulses yet" in caplog.text
        (row,) = net.query_map("SubtensorModule", "TimelockedWeightCommits", 2).values()
        assert [(entry[0], entry[3]) for entry in row] == [(public_key("//Hot"), ROUND)]


# -- the network ------------------------------------------------------------------------------------------------------

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """The drand API of our own beacon on loopback; `latest` can be moved, `asked` says what was wanted."""

    def __init__(self, latest: int) -> None:
        self.latest = latest
        self.asked: list[str] = []

    async def serve(self, request: web.Request) -> web.StreamResponse:
        what = request.match_info["what"]
        self.asked.append(what)
        number = self.latest if what == "latest" else int(what)
        return web.json_response(answer(number, BEACON.sign(number)))


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """Starts a server on loopback for a handler; its address."""
    servers = []

    async def start(handler: Handler) -> str:
        app = web.Application()
        app.router.add_get("/{hash}/public/{what}", handler)
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        return str(server.make_url("/")).rstrip("/")

    yield start
    for server in servers:
        await server.close()


async def until(condition: Callable[[], Any]) -> None:
    for _ in range(400):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen within 2 s")


def network(hosts: list[str], newest: int = 0) -> Network:
    """A source that follows our own beacon at 200 rounds a second; by its clock, round `newest` is the newest one."""
    config = {"hash": b"\1" * 32, "public_key": BEACON.public_key, "period": 0.005, "genesis_time": 0}
    return Network(config, hosts, lambda: 0.005 * (newest - 0.5))


def liar(make: Callable[[int], web.StreamResponse]) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        what = request.match_info["what"]
        return make(100 if what == "latest" else int(what))

    return handler


LIES: dict[str, Callable[[int], web.StreamResponse]] = {
    "an error": lambda number: web.Response(status=500),
    "a redirect": lambda number: web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"}),
    "not JSON": lambda number: web.Response(text="[" * 3000),
    "too much": lambda number: web.Response(text=json.dumps(answer(number, BEACON.sign(number))) + " " * 10_000),
    "another beacon": lambda number: web.json_response(answer(number, Beacon(b"liar").sign(number))),
    "compressed": lambda number: web.Response(
        body=gzip.compress(json.dumps(answer(number, BEACON.sign(number))).encode()),
        headers={"Content-Encoding": "gzip"},
    ),
    "no point": lambda number: web.json_response(answer(number, bytes(48))),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_host_that_lies_is_passed_over_for_one_that_does_not(
    lie: str, serve: Callable[[Handler], Awaitable[str]]
) -> None:
    api = Api(latest=100)
    hosts = [await serve(liar(LIES[lie])), await serve(api.serve)]
    source = network(hosts)
    task = asyncio.ensure_future(source.run())
    try:
        await until(lambda: source.pulses(0, 0))
        assert [one.round for one in source.pulses(0, 0)] == [100]
        api.latest = 103
        await until(lambda: len(source.pulses(100, 0)) == 3)
        assert [one.round for one in source.pulses(101, 0)] == [102, 103]
    finally:
        task.cancel()
    assert source._hosts[0] == hosts[1]  # the good one is asked first from now on


async def test_a_host_that_stands_still_is_passed_over_for_one_that_does_not(
    serve: Callable[[Handler], Awaitable[str]], caplog: pytest.LogCaptureFixture
) -> None:
    still, good = Api(latest=100), Api(latest=100 + pulses.MAX_STALE + 1)
    hosts = [await serve(still.serve), await serve(good.serve)]
    source = network(hosts, newest=good.latest)
    source.pulses(100, 0)
    task = asyncio.ensure_future(source.run())
    await until(lambda: len(source.pulses(100, 0)) == pulses.MAX_STALE + 1)
    task.cancel()
    assert source._hosts[0] == hosts[1] and "no drand pulses" not in caplog.text
    alone = network(hosts[:1], newest=good.latest)
    alone.pulses(100, 0)
    task = asyncio.ensure_future(alone.run())
    await until(lambda: caplog.text)
    task.cancel()
    assert "the newest round it has is 100, 11 rounds behind our clock" in caplog.text


async def test_hosts_are_asked_for_plain_answers_and_told_nothing(
    serve: Callable[[Handler], Awaitable[str]],
) -> None:
    asked: list[tuple[str | None, str | None]] = []

    async def curious(request: web.Request) -> web.StreamResponse:
        asked.append((request.headers.get("Accept-Encoding"), request.headers.get("Cookie")))
        response = web.json_response(answer(100, BEACON.sign(100)))
        response.set_cookie("who", "you")
        return response

    host = (await serve(curious)).replace("127.0.0.1", "localhost")  # no jar keeps cookies of bare addresses
    task = asyncio.ensure_future(network([host]).run())
    await until(lambda: len(asked) > 2)
    task.cancel()
    assert set(asked) == {("identity", None)}


async def test_without_a_host_that_answers_nothing_is_sent_and_it_is_said_once(
    serve: Callable[[Handler], Awaitable[str]], caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    async def broken(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=503)

    source = network([await serve(broken), "http://127.0.0.1:1"])
    task = asyncio.ensure_future(source.run())
    await until(lambda: len(asked) > 3)
    task.cancel()
    assert asked[0] == f"/{'01' * 32}/public/latest" and source.pulses(0, 0) == []
    assert caplog.text.count("no drand pulses") == 1 and "status 503" in caplog.text


async def test_a_chain_left_far_behind_does_not_fetch_everything(
    serve: Callable[[Handler], Awaitable[str]], caplog: pytest.LogCaptureFixture
) -> None:
    api = Api(latest=10_000)
    source = network([await serve(api.serve)])
    source.pulses(10, 0)
    task = asyncio.ensure_future(source.run())
    await until(lambda: len(api.asked) > 2)
    assert set(api.asked) == {"latest"} and "the chain is 9990 rounds behind" in caplog.text
    source.pulses(9_940, 0)
    await until(lambda: len(source.pulses(9_940, 0)) == pulses.MAX_PER_BLOCK)
    task.cancel()
    assert len(api.asked) < 100


async def test_a_chain_is_fed_from_the_network(
    serve: Callable[[Handler], Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """End to end, with hosts that publish the one real pulse there is."""

    async def quicknet(request: web.Request) -> web.StreamResponse:
        return web.json_response(answer(ROUND, SIGNATURE))

    monkeypatch.setattr(pulses, "HOSTS", [await serve(quicknet)])
    monkeypatch.setattr(pulses, "MAX_STALE", 1 << 40)  # it is of 2023
    async with Localnet(mining="manual", drand="network") as net:
        for _ in range(200):
            await net.mine()
            if net.query("Drand", "LastStoredRound"):
                break
            await asyncio.sleep(0.005)
        assert net.query("Drand", "Pulses", ROUND) == pulse(ROUND, SIGNATURE)


async def test_the_network_knows_nothing_of_a_local_beacon(tmp_path: Path) -> None:
    async with own_time(drand="local", state=tmp_path / "state"):
        pass
    with pytest.raises(ConfigError, match="a beacon of its own"):
        await own_time(drand="network", state=tmp_path / "state").start()
