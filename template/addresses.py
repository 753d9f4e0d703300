"""Which addresses from the chain may be called.

Anyone can put any address on chain. Calling whatever stands there would make every validator a tool against its own
network (cloud metadata services, routers, databases on loopback), so only globally routable unicast addresses are
called. On a local network (a setting) loopback and private ranges are allowed as well; multicast, broadcast,
documentation and reserved ranges never are.

The ranges are the IANA special-purpose registries (IPv4 and IPv6, RFC 6890 and successors), written out here because
`ipaddress.is_global` changed between Python versions. IPv6 forms that carry an IPv4 address inside (mapped, NAT64,
6to4, Teredo) are refused as a whole: a miner reachable by IPv4 serves its IPv4 address.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from template.errors import AddressRefused

_Network = IPv4Network | IPv6Network


def _networks(*specs: tuple[str, str]) -> tuple[tuple[_Network, str], ...]:
    return tuple((ip_network(cidr), what) for cidr, what in specs)


# Allowed only when the network is local.
_LOCAL = _networks(
    ("127.0.0.0/8", "loopback"),
    ("10.0.0.0/8", "private"),
    ("172.16.0.0/12", "private"),
    ("192.168.0.0/16", "private"),
    ("::1/128", "loopback"),
    ("fc00::/7", "private"),
)
_NEVER = _networks(
    ("0.0.0.0/8", "unspecified"),
    ("100.64.0.0/10", "carrier-grade NAT"),
    ("169.254.0.0/16", "link-local"),
    ("192.0.0.0/24", "protocol assignments"),
    ("192.0.2.0/24", "documentation"),
    ("192.31.196.0/24", "AS112"),
    ("192.52.193.0/24", "AMT"),
    ("192.88.99.0/24", "6to4 relay"),
    ("192.175.48.0/24", "AS112"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved or broadcast"),
    ("2001::/23", "protocol assignments and Teredo"),
    ("2001:db8::/32", "documentation"),
    ("2002::/16", "6to4"),
    ("3fff::/20", "documentation"),
)
_GLOBAL_V6 = ip_network("2000::/3")  # the only global unicast space; mapped, NAT64, fe80::/10, ff00::/8 lie outside


@lru_cache(maxsize=8192)
def _refusal(ip: str, allow_local: bool) -> str | None:
    """What kind of refused address `ip` is, or None when it may be called."""
    try:
        address: IPv4Address | IPv6Address = ip_address(ip)
    except ValueError:
        return "not an IP address"
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return "scoped"
    for ranges, allowed in ((_NEVER, False), (_LOCAL, allow_local)):
        for network, what in ranges:
            if address.version == network.version and address in network:
                return None if allowed else what
    if isinstance(address, IPv6Address) and address not in _GLOBAL_V6:
        return "outside global unicast"
    return None


def check_address(ip: str, port: int, *, allow_local: bool = False) -> None:
    """Raise AddressRefused unless `ip`:`port` may be called. `allow_local` is true only for a local network."""
    if not 1 <= port <= 65535:
        raise AddressRefused(f"port {port} cannot be called", remedy="the miner must serve a port 1..65535")
    what = _refusal(ip, allow_local)
    if what is not None:
        remedy = "" if allow_local else "if this chain is local, set the network to local"
        raise AddressRefused(f"address {ip!r} is refused: {what}", remedy=remedy)
