"""Serving: where a neuron can be reached. All calls are free and signed by the hotkey.

`validate_axon` and `validate_prometheus` are the checks in the chain's order; the pool runs them before it accepts an
extrinsic, the dispatch runs them again.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from localnet.runtime.framework import Origin, call, ensure_signed

if TYPE_CHECKING:
    from localnet.runtime.subtensor.pallet import Subtensor

PUBLIC_KEY_BYTES = 64  # most bytes of the public key in a certificate
_LOOPBACK = {4: int(ipaddress.IPv4Address("127.0.0.1")), 6: int(ipaddress.IPv6Address("::1"))}
_TOP = {4: (1 << 32) - 1, 6: (1 << 128) - 1}  # broadcast; an IPv4 address must also fit 32 bits


def _is_valid_ip(ip_type: int, ip: int, *, allow_zero: bool) -> bool:
    return (ip != 0 or allow_zero) and ip < _TOP[ip_type] and ip != _LOOPBACK[ip_type]


def _rate_limited(p: Subtensor, netuid: int, last: int) -> bool:
    limit = p.ServingRateLimit[netuid]
    return bool(limit and last and p.rt.number - last < limit)


def validate_axon(p: Subtensor, hotkey: bytes, netuid: int, ip: int, port: int, ip_type: int) -> None:
    """Raises HotKeyNotRegisteredInNetwork, InvalidIpType, InvalidIpAddress, ServingRateLimitExceeded, InvalidPort."""
    if p.Uids[netuid, hotkey] is None:
        raise p.error("HotKeyNotRegisteredInNetwork")
    if ip_type not in _TOP:
        raise p.error("InvalidIpType")
    if not _is_valid_ip(ip_type, ip, allow_zero=True):
        raise p.error("InvalidIpAddress")
    before = p.Axons[netuid, hotkey]
    if before is not None and _rate_limited(p, netuid, before["block"]):
        raise p.error("ServingRateLimitExceeded")
    if port == 0:
        raise p.error("InvalidPort")


def validate_prometheus(p: Subtensor, hotkey: bytes, netuid: int, ip: int, port: int, ip_type: int) -> None:
    """Raises InvalidIpType, InvalidIpAddress, HotKeyNotRegisteredInNetwork, ServingRateLimitExceeded, InvalidPort."""
    if ip_type not in _TOP:
        raise p.error("InvalidIpType")
    if not _is_valid_ip(ip_type, ip, allow_zero=False):
        raise p.error("InvalidIpAddress")
    if p.Uids[netuid, hotkey] is None:
        raise p.error("HotKeyNotRegisteredInNetwork")
    before = p.Prometheus[netuid, hotkey]
    if before is not None and _rate_limited(p, netuid, before["block"]):
        raise p.error("ServingRateLimitExceeded")
    if port == 0:
        raise p.error("InvalidPort")


@call(pays=False)
def serve_axon(
    p: Subtensor,
    origin: Origin,
    netuid: int,
    version: int,
    ip: int,
    port: int,
    ip_type: int,
    protocol: int,
    placeholder1: int,
    placeholder2: int,
) -> None:
    hotkey = ensure_signed(origin)
    validate_axon(p, hotkey, netuid, ip, port, ip_type)
    p.Axons[netuid, hotkey] = {
        "block": p.rt.number, "version": version, "ip": ip, "port": port, "ip_type": ip_type, "protocol": protocol,
        "placeholder1": placeholder1, "placeholder2": placeholder2,
    }  # fmt: skip
    p.emit("AxonServed", netuid, hotkey)


@call(pays=False)
def serve_axon_tls(
    p: Subtensor,
    origin: Origin,
    netuid: int,
    version: int,
    ip: int,
    port: int,
    ip_type: int,
    protocol: int,
    placeholder1: int,
    placeholder2: int,
    certificate: bytes,
) -> None:
    """`serve_axon` with a certificate: its algorithm, one byte, then its public key. The chain drops one that is empty
    or too long without an error."""
    serve_axon(p, origin, netuid, version, ip, port, ip_type, protocol, placeholder1, placeholder2)
    if 1 <= len(certificate) <= PUBLIC_KEY_BYTES + 1:
        stored = {"public_key": certificate[1:], "algorithm": certificate[0]}
        p.NeuronCertificates[netuid, ensure_signed(origin)] = stored


@call(pays=False)
def serve_prometheus(p: Subtensor, origin: Origin, netuid: int, version: int, ip: int, port: int, ip_type: int) -> None:
    hotkey = ensure_signed(origin)
    validate_prometheus(p, hotkey, netuid, ip, port, ip_type)
    p.Prometheus[netuid, hotkey] = {
        "block": p.rt.number, "version": version, "ip": ip, "port": port, "ip_type": ip_type
    }  # fmt: skip
    p.emit("PrometheusServed", netuid, hotkey)
