"""Where a neuron can be reached: every check, at dispatch and in the pool."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from tests.support.spec_chain import Chain, key

GOOD: dict[str, Any] = {
    "version": 7, "ip": int(ipaddress.ip_address("10.0.0.1")), "port": 8091, "ip_type": 4, "protocol": 4,
    "placeholder1": 1, "placeholder2": 2,
}  # fmt: skip
PROMETHEUS = {name: GOOD[name] for name in ("version", "ip", "port", "ip_type")}


@pytest.fixture
def netuid(chain: Chain) -> int:
    netuid = chain.subnet()
    chain.neuron(netuid, "miner")
    return netuid


def test_an_axon_is_stored_with_the_block_it_was_served_in(chain: Chain, netuid: int) -> None:
    chain.accepted("miner", "serve_axon", netuid=netuid, **GOOD)
    chain.do("miner", "serve_axon", netuid=netuid, **GOOD)
    assert chain.p.Axons[netuid, key("miner")] == {"block": chain.block, **GOOD}
    assert chain.events()[-1] == ("SubtensorModule.AxonServed", (netuid, key("miner")))


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"ip_type": 5}, "InvalidIpType", 255),
        ({"ip": int(ipaddress.ip_address("127.0.0.1"))}, "InvalidIpAddress", 11),
        ({"ip": 2**32 - 1}, "InvalidIpAddress", 11),
        ({"ip": 2**40}, "InvalidIpAddress", 11),
        ({"ip_type": 6, "ip": 1}, "InvalidIpAddress", 11),
        ({"ip_type": 6, "ip": 2**128 - 1}, "InvalidIpAddress", 11),
        ({"port": 0}, "InvalidPort", 13),
    ],
)
def test_bad_addresses_are_refused(chain: Chain, netuid: int, change: dict[str, int], error: str, code: int) -> None:
    chain.fails(error, "miner", "serve_axon", netuid=netuid, **{**GOOD, **change})
    chain.refused(code, "miner", "serve_axon", netuid=netuid, **{**GOOD, **change})
    chain.fails(error, "miner", "serve_prometheus", netuid=netuid, **{**PROMETHEUS, **change})


def test_a_stranger_cannot_serve(chain: Chain, netuid: int) -> None:
    chain.fails("HotKeyNotRegisteredInNetwork", "stranger", "serve_axon", netuid=netuid, **GOOD)
    chain.refused(10, "stranger", "serve_axon", netuid=netuid, **GOOD)
    chain.fails("HotKeyNotRegisteredInNetwork", "stranger", "serve_prometheus", netuid=netuid, **PROMETHEUS)


def test_an_axon_may_be_reset_to_zero_but_prometheus_may_not(chain: Chain, netuid: int) -> None:
    reset = {**GOOD, "version": 0, "ip": 0, "port": 1}
    chain.do("miner", "serve_axon", netuid=netuid, **reset)
    chain.fails("InvalidIpAddress", "miner", "serve_prometheus", netuid=netuid, **{**PROMETHEUS, "ip": 0})


@pytest.mark.parametrize(("function", "arguments"), [("serve_axon", GOOD), ("serve_prometheus", PROMETHEUS)])
def test_serving_again_has_to_wait(chain: Chain, netuid: int, function: str, arguments: dict[str, Any]) -> None:
    chain.do("miner", function, netuid=netuid, **arguments)
    chain.next(49)
    chain.fails("ServingRateLimitExceeded", "miner", function, netuid=netuid, **arguments)
    chain.refused(12, "miner", function, netuid=netuid, **arguments)
    chain.next()
    chain.do("miner", function, netuid=netuid, **arguments)
    chain.p.ServingRateLimit[netuid] = 0
    chain.do("miner", function, netuid=netuid, **arguments)


def test_a_certificate_is_kept_beside_the_axon_and_a_bad_one_dropped(chain: Chain, netuid: int) -> None:
    chain.p.ServingRateLimit[netuid] = 0
    chain.do("miner", "serve_axon_tls", netuid=netuid, **GOOD, certificate=b"\1" + bytes(65))
    assert chain.p.NeuronCertificates[netuid, key("miner")] is None
    chain.do("miner", "serve_axon_tls", netuid=netuid, **GOOD, certificate=b"\1public")
    assert chain.p.NeuronCertificates[netuid, key("miner")] == {"public_key": b"public", "algorithm": 1}
