"""Who may use the gateway, and how much.

    access = Access(path, open_quota)
    access.check_exposure(host)              # without keys it listens on loopback only
    key = access.authorize(header)           # ApiError (401)
    meter = Meter(access.used); ticket = meter.enter(key, now); ticket.reserve(tokens, now); ticket.leave(used, now)

While there is no key file everybody on this machine shares one nameless key. The file is looked for at every request,
so that the first key that is made closes the door at once, and its loss does not open it again.

`Meter` counts in memory: requests of the last minute, requests in work, tokens of the day (UTC). Tokens are reserved
for the longest answer that was asked for and settled afterwards, so that many requests at once cannot pass the quota
together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from template.errors import TemplateError
from template.gateway.errors import ApiError
from template.gateway.keys import ApiKey, KeyStore, Quota
from template.listener import is_loopback

MINUTE, DAY = 60.0, 86400
OPEN_ID = "local"  # of the nameless key; no key of a file has it, those are hexadecimal


class GatewayExposed(TemplateError):
    """The gateway would serve strangers without keys."""


class Access:
    """The door. `open_quota` is what everybody on this machine shares while there is no key file."""

    def __init__(self, path: Path, open_quota: Quota) -> None:
        self.path = path
        self._open_key = ApiKey(OPEN_ID, "everybody on this machine", open_quota, 0.0)
        self._store: KeyStore | None = None

    @property
    def store(self) -> KeyStore | None:
        """The key file, once there is one. Raises KeysUnusable when it cannot be read."""
        if self._store is None and self.path.exists():
            self._store = KeyStore(self.path)
        return self._store

    def check_exposure(self, host: str) -> None:
        """Raises GatewayExposed for an address that others can reach while there are no keys."""
        if self.store is None and not is_loopback("127.0.0.1" if host == "localhost" else host):
            raise GatewayExposed(
                f"without API keys the gateway does not listen on {host}",
                remedy="make a key with `touchstone gateway-keys create`, or use --host 127.0.0.1",
            )

    def authorize(self, header: str | None) -> ApiKey:
        """The key of an Authorization header. Raises ApiError (401), the same whatever is wrong with it."""
        if self.store is None:
            return self._open_key
        scheme, _, secret = (header or "").partition(" ")
        key = self.store.find(secret.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            detail = "send a valid API key: Authorization: Bearer sk-ts-..."
            raise ApiError(401, detail, code="invalid_api_key")
        return key

    def used(self, key_id: str, day: int) -> int:
        """Tokens of the day that are in the file."""
        return 0 if key_id == OPEN_ID or self.store is None else self.store.used(key_id, day)[0]

    async def spend(self, key: ApiKey, tokens: int, now: float) -> None:
        """Write a request's tokens down."""
        if key.id != OPEN_ID and self.store is not None:
            await asyncio.to_thread(self.store.add_usage, key.id, int(now // DAY), tokens)

    def close(self) -> None:
        if self._store is not None:
            self._store.close()


@dataclass
class _Account:
    """What one key has used lately."""

    day: int
    tokens: int  # used and settled on `day`
    reserved: int = 0
    in_work: int = 0
    recent: deque[float] = field(default_factory=deque)  # starts of the requests of the last minute


class Meter:
    """Holds every key to its quota. Belongs to the event loop. `now` is in seconds since the epoch."""

    def __init__(self, used: Callable[[str, int], int]) -> None:
        """`used(key id, day)`: tokens that an earlier process counted."""
        self._used = used
        self._accounts: dict[str, _Account] = {}

    def enter(self, key: ApiKey, now: float) -> Ticket:
        """One request begins. Raises ApiError (429)."""
        account = self._account(key, now)
        recent, quota = account.recent, key.quota
        while recent and recent[0] <= now - MINUTE:
            recent.popleft()
        if len(recent) >= quota.requests_per_minute:
            wait = max(0.0, recent[0] + MINUTE - now) if recent else MINUTE
            message = f"{quota.requests_per_minute} requests a minute are allowed"
            raise ApiError(429, message, code="rate_limit_exceeded", retry_after=wait)
        if account.in_work >= quota.concurrency:
            message = f"{quota.concurrency} requests at a time are allowed"
            raise ApiError(429, message, code="concurrency_limit_exceeded", retry_after=1.0)
        recent.append(now)
        account.in_work += 1
        return Ticket(self, key, account)

    def _account(self, key: ApiKey, now: float) -> _Account:
        day = int(now // DAY)
        account = self._accounts.get(key.id)
        if account is None:
            account = self._accounts[key.id] = _Account(day, self._used(key.id, day))
        elif account.day != day:
            account.day, account.tokens = day, 0
        return account


@dataclass
class Ticket:
    """One request of one key, from `Meter.enter` to `leave`, which must be called."""

    meter: Meter
    key: ApiKey
    account: _Account
    reserved: int = 0

    def reserve(self, tokens: int, now: float) -> None:
        """Set aside what the request may use at most. Raises ApiError (429) when the day's tokens do not suffice."""
        account = self.meter._account(self.key, now)
        left = self.key.quota.tokens_per_day - account.tokens - account.reserved
        if tokens > left:
            message = f"{self.key.quota.tokens_per_day} tokens a day are allowed; {max(left, 0)} are left, "
            message += f"and this request may use {tokens}"
            raise ApiError(429, message, code="insufficient_quota", retry_after=DAY - now % DAY, retry=False)
        account.reserved += tokens
        self.reserved += tokens

    def leave(self, used: int, now: float) -> None:
        """The request has ended and used so many tokens."""
        account = self.meter._account(self.key, now)
        account.reserved -= self.reserved
        account.tokens += used
        account.in_work -= 1
        self.reserved = 0
