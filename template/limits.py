"""What a server allows: sizes and times, rates, remembered nonces, and who may call.

Everything is on by default; a caller has to ask in words to turn something off (`OpenPolicy`). All memory here is
bounded: rate buckets and nonces are dropped when the freshness window has made them useless, and full tables refuse
instead of forgetting what keeps replays out.

    limits = Limits(rate_per_hotkey=5)                           # requests per second
    policy = StakePolicy(lambda: latest_metagraph, min_stake=1000)   # validators with permit and stake
    replay = ReplayStore(path=state_dir / "nonces")              # survives a restart
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from protocol.errors import Refusal, RefusalCode
from protocol.metagraph import Metagraph, Neuron
from template.keys import ALLOWED_SKEW, MAX_AGE


@dataclass(frozen=True)
class Limits:
    """Bounds of one server. Times in seconds, sizes in bytes, rates in requests per second."""

    max_age: float = MAX_AGE  # how old a signed request may be
    allowed_skew: float = ALLOWED_SKEW  # how far ahead a sender's clock may run
    body_timeout: float = 10.0  # from the end of the headers to the end of the body
    header_timeout: float = 30.0  # an idle connection, or one whose headers do not complete, is closed after this
    write_timeout: float = 30.0  # a reader's time to take one whole response
    drain_timeout: float = 5.0  # how long `stop` waits for requests in work
    max_connections: int = 1024
    max_connections_per_address: int = 256
    max_buffered_bytes: int = 64 * 1024 * 1024  # bodies held in memory at once, all connections together
    concurrency: int = 64  # requests in work
    queue: int = 256  # requests waiting for a slot; above that: busy
    concurrency_per_hotkey: int = 64  # in work or waiting, for one caller
    rate_per_hotkey: float = 50.0
    burst_per_hotkey: int = 100
    rate_per_address: float = 200.0  # before authentication; several callers may share an address
    burst_per_address: int = 400
    max_tracked: int = 65536  # addresses and hotkeys whose rate is remembered
    max_nonces: int = 1_000_000  # nonces remembered inside the freshness window


class RateLimiter:
    """Token buckets by key. `take` is the only operation; time is an argument, in seconds of any steady clock."""

    def __init__(self, rate: float, burst: int, max_keys: int = 65536) -> None:
        self.rate = rate
        self.burst = burst
        self.max_keys = max_keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> (tokens, time)

    def take(self, key: str, now: float) -> float:
        """0.0 when the request may pass, else the seconds until one may. The least recently seen key is forgotten."""
        tokens, then = self._buckets.pop(key, (float(self.burst), now))
        tokens = min(float(self.burst), tokens + (now - then) * self.rate)
        wait = 0.0 if tokens >= 1.0 else (1.0 - tokens) / self.rate
        self._buckets[key] = (tokens - 1.0 if wait == 0.0 else tokens, now)
        if len(self._buckets) > self.max_keys:
            self._buckets.popitem(last=False)
        return wait

    def __len__(self) -> int:
        return len(self._buckets)


def address_key(address: str) -> str:
    """What an address counts as for rates: IPv4 as it is, IPv6 by its /64 (one customer has at least that)."""
    if ":" not in address:
        return address
    try:
        packed = ip_address(address.split("%", 1)[0]).packed
    except ValueError:
        return address
    return packed[:8].hex()


class ReplayStore:
    """Remembers used (hotkey, nonce) pairs for the freshness window, also across a restart.

    With `path`, accepted nonces are journaled in two files there (the current window and the one before), one short
    line each, and read back at start. Without it nothing is known about what an earlier process accepted, so nonces
    from before `started_ns` are refused as stale; a nonce dated ahead by a fast clock could then be used once more
    after a restart within the allowed skew, which is why neurons give a path. A line is handed to the operating system
    before the request is served: a crash of the process loses nothing, a crash of the machine may lose the last lines.
    """

    def __init__(
        self,
        *,
        retention: float = MAX_AGE + ALLOWED_SKEW,
        max_nonces: int = 1_000_000,
        path: Path | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.retention = retention  # read by bittensor.http_auth: must cover the verifier's window
        self.max_nonces = max_nonces
        self._clock_ns = clock_ns
        self._seen: set[tuple[str, int]] = set()
        self._order: deque[tuple[int, tuple[str, int]]] = deque()  # (forget at, pair)
        self._not_before = 0 if path else clock_ns()
        self._journal = _Journal(path, retention, clock_ns()) if path else None
        for pair in self._journal.fresh if self._journal else ():
            self._remember(pair, clock_ns())

    def check_and_store(self, hotkey_ss58: str, nonce_ns: int) -> bool:
        """True once per pair. Raises Refusal: stale (from before this store), busy (full)."""
        now = self._clock_ns()
        while self._order and self._order[0][0] <= now:
            self._seen.discard(self._order.popleft()[1])
        pair = (hotkey_ss58, nonce_ns)
        if pair in self._seen:
            return False
        if nonce_ns < self._not_before:
            raise Refusal(RefusalCode.STALE, "signed before this server started; sign again")
        if len(self._seen) >= self.max_nonces:
            raise Refusal(RefusalCode.BUSY, "too many requests inside the freshness window", retry_after=self.retention)
        if self._journal:
            self._journal.append(pair, now)
        self._remember(pair, now)
        return True

    def seen(self, hotkey_ss58: str, nonce_ns: int) -> bool:
        """Whether the pair is remembered; changes nothing."""
        return (hotkey_ss58, nonce_ns) in self._seen

    def close(self) -> None:
        if self._journal:
            self._journal.close()

    def __len__(self) -> int:
        return len(self._seen)

    def _remember(self, pair: tuple[str, int], now: int) -> None:
        # Kept for twice the window from now: a nonce may be dated ahead by the skew, and clocks step.
        self._seen.add(pair)
        self._order.append((now + int(2 * self.retention * 1e9), pair))


class _Journal:
    """Two append-only files, switched every other window, so that they stay small and always cover the last window."""

    def __init__(self, path: Path, retention: float, now: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._current, self._previous = path.with_suffix(".current"), path.with_suffix(".previous")
        self._period = int(2 * retention * 1e9)
        self._switch_at = now + self._period
        pairs = [*self._read(self._previous), *self._read(self._current)]
        self.fresh = [pair for pair in pairs if pair[1] >= now - self._period]  # older ones are stale anyway
        # Start with a file of only these, whole before it takes the old one's place.
        scratch = path.with_suffix(".new")
        scratch.write_text("".join(f"{hotkey} {nonce}\n" for hotkey, nonce in self.fresh))
        os.replace(scratch, self._current)
        self._previous.unlink(missing_ok=True)
        self._fd = self._open()

    def append(self, pair: tuple[str, int], now: int) -> None:
        if now >= self._switch_at:
            os.close(self._fd)
            os.replace(self._current, self._previous)
            self._fd = self._open()
            self._switch_at = now + self._period
        os.write(self._fd, f"{pair[0]} {pair[1]}\n".encode())

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        return os.open(self._current, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    @staticmethod
    def _read(path: Path) -> list[tuple[str, int]]:
        if not path.exists():
            return []
        pairs = []
        for line in path.read_bytes().decode(errors="replace").splitlines():
            hotkey, _, nonce = line.partition(" ")
            if nonce.isascii() and nonce.isdigit() and len(nonce) < 40:  # a line cut by a crash was never served
                pairs.append((hotkey, int(nonce)))
        return pairs


class Policy(Protocol):
    """Who may call. `check` returns the caller's neuron if it has one, or raises Refusal."""

    def check(self, hotkey: str) -> Neuron | None: ...


@dataclass
class StakePolicy:
    """Registered callers with a validator permit and at least `min_stake`, read from the latest metagraph.

    `metagraph` returns the newest snapshot, or None while the chain has not been read: then nobody is let in.
    `allow` are hotkeys let in regardless (an operator's own probe), `deny` are kept out regardless.
    """

    metagraph: Callable[[], Metagraph | None]
    min_stake: float = 0.0  # the unit of Neuron.stake
    require_permit: bool = True
    allow: Collection[str] = field(default_factory=frozenset)
    deny: Collection[str] = field(default_factory=frozenset)

    def check(self, hotkey: str) -> Neuron | None:
        if hotkey in self.deny:
            raise Refusal(RefusalCode.NOT_PERMITTED, "this hotkey is not served here")
        snapshot = self.metagraph()
        neuron = snapshot.by_hotkey.get(hotkey) if snapshot else None
        if hotkey in self.allow:
            return neuron
        if snapshot is None:
            raise Refusal(RefusalCode.BUSY, "the chain has not been read yet; try again shortly", retry_after=5.0)
        if neuron is None:
            raise Refusal(RefusalCode.NOT_PERMITTED, f"not registered on subnet {snapshot.netuid}")
        if self.require_permit and not neuron.validator_permit:
            raise Refusal(RefusalCode.NOT_PERMITTED, "only validators with a permit are served")
        if neuron.stake < self.min_stake:
            raise Refusal(RefusalCode.NOT_PERMITTED, f"stake is below this miner's minimum of {self.min_stake:g}")
        return neuron


class OpenPolicy:
    """Lets every signed caller in. For tools and tests; a neuron that uses it works for the whole internet."""

    def check(self, hotkey: str) -> Neuron | None:
        return None
