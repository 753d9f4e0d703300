"""Where drand pulses come from.

    PulseFile      published pulses, one JSON object a line, as the drand API gives them: {"round", "signature"}
    LocalBeacon    signs every round of chain time itself, for a chain that follows a beacon of its own
    Network        the drand HTTP API of several hosts; asked only when a chain was started with it

A source gets the newest round that the chain has stored and answers with what it has behind it. Everything here comes
from outside: sizes are bounded, and `read_pulse` lets nothing through that does not look like a pulse. Whether one is
the beacon's, its signature says (`verified`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from localnet.errors import ConfigError, PulseError
from localnet.rules import timelock
from localnet.rules.errors import TimelockError

log = logging.getLogger(__name__)

HOSTS = ("https://api.drand.sh", "https://api2.drand.sh", "https://api3.drand.sh", "https://drand.cloudflare.com")
REQUEST_TIMEOUT = 3.0  # seconds
MAX_ANSWER = 4096  # bytes; a pulse is 250
MAX_FILE = 64 * 2**20  # bytes
MAX_PER_BLOCK = 50  # pulses, 3 ms each; the pool takes none further ahead of the chain
MAX_BEHIND = 2400  # rounds, two hours: a chain left behind further does not fetch them all from a public service
MAX_STALE = 10  # rounds, half a minute: a host whose newest pulse is older stands still, or our clock is ahead
QUICKNET = b"quicknet"


@dataclass(frozen=True)
class Pulse:
    round: int
    signature: bytes

    @property
    def randomness(self) -> bytes:
        return sha256(self.signature).digest()


def read_pulse(value: Any) -> Pulse:
    """A pulse in the form of the drand API; "randomness" may be missing. Raises PulseError."""
    if not isinstance(value, dict):
        raise PulseError("a pulse is a JSON object")
    number, randomness = value.get("round"), value.get("randomness")
    try:
        signature = bytes.fromhex(value["signature"])
        stated = None if randomness is None else bytes.fromhex(randomness)
    except (KeyError, TypeError, ValueError) as error:
        raise PulseError("a pulse has a signature, in hexadecimal") from error
    if type(number) is not int or not 0 < number < 1 << 63:
        raise PulseError("a pulse has a round, an integer above 0")
    if len(signature) != timelock.SIGNATURE_SIZE:
        raise PulseError(f"a pulse's signature has {timelock.SIGNATURE_SIZE} bytes, not {len(signature)}")
    pulse = Pulse(number, signature)
    if stated not in (None, pulse.randomness):
        raise PulseError(f"round {number}: the randomness is not the SHA-256 of the signature")
    return pulse


def verified(public_key: bytes, pulse: Pulse) -> bool:
    """Did the beacon with this key sign it?"""
    try:
        return timelock.verify(public_key, pulse.round, pulse.signature)
    except TimelockError:
        return False


class Source(Protocol):
    def pulses(self, last: int, seconds: float) -> Sequence[Pulse]:
        """What is known behind round `last` (0: the chain has none), in order, at chain time `seconds`.

        Raises PulseError when it can never go on from there.
        """

    async def run(self) -> None:
        """What it does besides, until cancelled."""


# -- sources --------------------------------------------------------------------------------------------------------


class PulseFile:
    """Pulses of a file, in the order of their rounds and without a gap between them."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError for a file that is not there, too large, or not made of pulses in order."""
        self._name = str(path)
        try:
            if path.stat().st_size > MAX_FILE:
                raise ConfigError(f"{path} has more than {MAX_FILE} bytes")
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read as a file of drand pulses: {error}") from error
        self._pulses = [self._read(at, line) for at, line in enumerate(lines, start=1) if line.strip()]
        if not self._pulses:
            raise ConfigError(f"{path} has no pulses in it")
        for before, after in zip(self._pulses, self._pulses[1:], strict=False):
            if after.round != before.round + 1:
                raise ConfigError(
                    f"{path}: round {before.round} is followed by {after.round}; the chain takes rounds without a gap"
                )

    def _read(self, at: int, line: str) -> Pulse:
        try:
            return read_pulse(json.loads(line))
        except (ValueError, RecursionError, PulseError) as error:
            raise ConfigError(f"{self._name}, line {at}: {error}") from error

    def pulses(self, last: int, seconds: float) -> Sequence[Pulse]:
        first = self._pulses[0].round
        if last and last + 1 < first:
            raise PulseError(f"{self._name} begins with round {first}, the chain needs {last + 1} next")
        skip = max(last + 1 - first, 0)
        return self._pulses[skip : skip + MAX_PER_BLOCK]

    async def run(self) -> None:
        return


class LocalBeacon:
    """A beacon of this chain alone: a round every `PERIOD` s of chain time, counted as quicknet counts its own.

    What the SDK seals is sealed to quicknet, whose key is compiled into it: this beacon never opens that. Seal with
    `localnet.rules.timelock.seal` (or `Localnet.seal`) and the key in `Drand.BeaconConfig`.

    The chain takes every round, so after a leap of chain time it catches up at `MAX_PER_BLOCK` rounds a block: a day
    is 576 blocks of it. A leap over more than `MAX_BEHIND` rounds is named in the log.
    """

    GENESIS, PERIOD = 1_692_803_367, 3  # seconds since 1970; seconds

    def __init__(self, seed: bytes) -> None:
        self.beacon = timelock.Beacon(seed)
        self._far_behind = False

    @property
    def config(self) -> dict[str, Any]:
        """The value of `Drand.BeaconConfig` that makes the chain follow it."""
        beacon = self.beacon
        return {
            "public_key": beacon.public_key, "period": self.PERIOD, "genesis_time": self.GENESIS, "hash": beacon.hash,
            "group_hash": beacon.hash, "scheme_id": b"bls-unchained-g1-rfc9380", "metadata": {"beacon_id": b"localnet"},
        }  # fmt: skip

    def pulses(self, last: int, seconds: float) -> Sequence[Pulse]:
        newest = timelock.round_at(seconds, self.GENESIS, self.PERIOD)
        if not newest:
            raise PulseError(f"the beacon's first round is at {self.GENESIS} s, and chain time is {seconds:.0f} s")
        first = last + 1 if last else newest
        self._note_gap(newest - first + 1)
        rounds = range(first, min(newest, first + MAX_PER_BLOCK - 1) + 1)
        return [Pulse(number, self.beacon.sign(number)) for number in rounds]

    def _note_gap(self, behind: int) -> None:
        """Say once that the chain is far behind its beacon."""
        if behind > MAX_BEHIND and not self._far_behind:
            blocks = -(-behind // MAX_PER_BLOCK)
            log.warning("chain time is %d drand rounds ahead of the chain: it catches up in %d blocks", behind, blocks)
        self._far_behind = behind > MAX_BEHIND

    async def run(self) -> None:
        return


class Network:
    """The drand HTTP API. `run` fetches into a small store, `pulses` takes from there: blocks wait for no host.

    `config` is the beacon (`Drand.BeaconConfig`), `clock` gives seconds since 1970, by which rounds are due.
    """

    def __init__(self, config: dict[str, Any], hosts: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        self._hash, self._key, self._period = config["hash"].hex(), config["public_key"], config["period"]
        self._genesis, self._hosts, self._clock = config["genesis_time"], list(hosts), clock
        self._known: dict[int, Pulse] = {}
        self._last = 0

    def pulses(self, last: int, seconds: float) -> Sequence[Pulse]:
        self._last = last
        for number in [number for number in self._known if number <= last]:
            del self._known[number]
        found: list[Pulse] = []
        number = last + 1 if last else min(self._known, default=0)
        while number in self._known and len(found) < MAX_PER_BLOCK:
            found.append(self._known[number])
            number += 1
        return found

    async def run(self) -> None:
        silent = False
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,  # or a small answer could unpack to any size
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session:
            while True:
                try:
                    await self._fetch_new(session)
                    silent = False
                except PulseError as error:
                    if not silent:
                        text = "no drand pulses: %s; trying again every %s s. Without network: drand local, or a file"
                        log.warning(text, error, self._period)
                    silent = True
                await asyncio.sleep(self._period)

    async def _fetch_new(self, session: aiohttp.ClientSession) -> None:
        """Raises PulseError when no host has an answer, or the chain is too far behind."""
        latest = await self._fetch(session, "latest")
        if not self._last:
            self._known = {latest.round: latest}
            return
        if latest.round - self._last > MAX_BEHIND:
            raise PulseError(
                f"the chain is {latest.round - self._last} rounds behind, more than the {MAX_BEHIND} it may fetch"
            )
        for number in range(self._last + 1, min(latest.round, self._last + MAX_PER_BLOCK) + 1):
            if number not in self._known:
                self._known[number] = await self._fetch(session, str(number))

    async def _fetch(self, session: aiohttp.ClientSession, what: str) -> Pulse:
        """One pulse from the first host that has it; a host that fails goes to the end of the row."""
        failures = []
        for host in list(self._hosts):
            try:
                pulse = await self._ask(session, f"{host}/{self._hash}/public/{what}")
                if what not in ("latest", str(pulse.round)):
                    raise PulseError(f"asked for round {what}, got {pulse.round}")
                if not verified(self._key, pulse):
                    raise PulseError(f"round {pulse.round} is not signed by the beacon")
                if what == "latest":
                    self._check_fresh(pulse)
                return pulse
            except PulseError as error:
                failures.append(f"{host}: {error}")
                self._hosts.remove(host)
                self._hosts.append(host)
        raise PulseError("; ".join(failures))

    def _check_fresh(self, latest: Pulse) -> None:
        """An old pulse is as genuine as a new one. Raises PulseError."""
        behind = timelock.round_at(self._clock(), self._genesis, self._period) - latest.round
        if behind > MAX_STALE:
            raise PulseError(f"the newest round it has is {latest.round}, {behind} rounds behind our clock")

    async def _ask(self, session: aiohttp.ClientSession, url: str) -> Pulse:
        try:
            async with session.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    raise PulseError(f"answers with status {response.status}")
                body = b""
                async for chunk in response.content.iter_chunked(MAX_ANSWER):
                    body += chunk
                    if len(body) > MAX_ANSWER:
                        raise PulseError(f"answers with more than {MAX_ANSWER} bytes")
            return read_pulse(json.loads(body))
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise PulseError(f"cannot be reached: {type(error).__name__} {error}".rstrip()) from error
        except (ValueError, RecursionError) as error:
            raise PulseError(f"does not answer in JSON: {error}") from error


def make_source(choice: str | Path, config: dict[str, Any], seed: bytes) -> Source:
    """The source that a choice stands for: "network", "local", or the path of a file.

    `config` is the chain's beacon, `seed` what a beacon of its own is derived from. Raises ConfigError.
    """
    if choice == "local":
        return LocalBeacon(seed)
    timelock.curve()
    if choice != "network":
        return PulseFile(Path(choice))
    if config["metadata"]["beacon_id"] != QUICKNET:
        raise ConfigError("this chain follows a beacon of its own, which the drand network knows nothing of")
    return Network(config, HOSTS)
