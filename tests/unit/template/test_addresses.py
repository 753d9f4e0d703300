"""Addresses from the chain: only global unicast is called, loopback and private ones on a local network too."""

import pytest

from template.addresses import check_address
from template.errors import AddressRefused

LOCAL = ["127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "::1", "fd00::1"]
NEVER = [
    "0.0.0.0",
    "100.64.0.1",
    "169.254.169.254",
    "192.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1%eth0",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "2001:db8::1",
    "2001::1",
    "2002:7f00:1::",
    "localhost",
    "example.com",
    "127.1",
    "0177.0.0.1",
    "2130706433",
    "0x7f.0.0.1",
    "",
    " 8.8.8.8",
    "8.8.8.8:80",
    "8.8.8.8/32",
]
GLOBAL = ["8.8.8.8", "1.1.1.1", "172.15.0.1", "172.32.0.1", "100.128.0.1", "223.255.255.1", "2606:4700::1111"]


@pytest.mark.parametrize("ip", GLOBAL)
@pytest.mark.parametrize("allow_local", [False, True])
def test_global_addresses_may_be_called(ip, allow_local):
    check_address(ip, 8091, allow_local=allow_local)


@pytest.mark.parametrize("ip", LOCAL)
def test_local_addresses_only_on_a_local_network(ip):
    check_address(ip, 8091, allow_local=True)
    with pytest.raises(AddressRefused, match="set the network to local"):
        check_address(ip, 8091)


@pytest.mark.parametrize("ip", NEVER)
@pytest.mark.parametrize("allow_local", [False, True])
def test_the_rest_never(ip, allow_local):
    with pytest.raises(AddressRefused):
        check_address(ip, 8091, allow_local=allow_local)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_ports_that_do_not_exist(port):
    with pytest.raises(AddressRefused, match="port"):
        check_address("8.8.8.8", port)
