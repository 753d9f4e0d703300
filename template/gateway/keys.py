"""API keys of the gateway: one file with what each may use and has used.

    store = KeyStore(path, create=True)
    key, secret = store.create("alice", Quota(requests_per_minute=60), now)     # the secret is shown this once
    store.find(secret)                     # the key, or None: unknown, revoked or altered
    store.revoke(key.id, now)

One SQLite file, readable by its owner only, holds the SHA-256 of each secret and the tokens used by day. A secret is 32
random bytes, so that a fast hash is enough: nobody can try 2**256 of them. Its first part names the row; the hash is
then compared in constant time. The gateway reads the row at every request, so a revoked key stops at the next one.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import sqlite3
import threading
from dataclasses import dataclass, fields
from pathlib import Path

from template.errors import TemplateError

PREFIX = "sk-ts-"
ID_HEX = 12  # of the key's name inside the secret
SECRET_BYTES = 32
LONGEST_SECRET = 128  # characters that are looked at

SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, hash BLOB NOT NULL, label TEXT NOT NULL, created_at REAL NOT NULL, revoked_at REAL,
    requests_per_minute INTEGER NOT NULL, tokens_per_day INTEGER NOT NULL, concurrency INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS usage (
    id TEXT NOT NULL REFERENCES keys, day INTEGER NOT NULL, tokens INTEGER NOT NULL, requests INTEGER NOT NULL,
    PRIMARY KEY (id, day)
);
"""


class KeysUnusable(TemplateError):
    """The key file cannot be opened, or there is none."""


class UnknownKey(TemplateError):
    """No key of that id."""


@dataclass(frozen=True)
class Quota:
    """What one key may use."""

    requests_per_minute: int = 60
    tokens_per_day: int = 1_000_000  # prompt and answer together, by UTC day
    concurrency: int = 16  # requests in work at once


@dataclass(frozen=True)
class ApiKey:
    """One key without its secret. Times in seconds since the epoch."""

    id: str
    label: str
    quota: Quota
    created_at: float
    revoked_at: float | None = None


class KeyStore:
    """One key file. Methods take microseconds to milliseconds and may be called from any thread."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Raises KeysUnusable."""
        self.path = path
        self._lock = threading.RLock()
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            elif not path.is_file():
                raise KeysUnusable(f"there is no key file at {path}", remedy="make one: touchstone gateway-keys create")
            self._db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")  # a crash of the machine may forget the last usage
            self._db.executescript(SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise KeysUnusable(f"{path} cannot be used: {error}", remedy="check the path and its owner") from None

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def create(self, label: str, quota: Quota, now: float) -> tuple[ApiKey, str]:
        """A new key and its secret, which is not kept."""
        key = ApiKey(secrets.token_hex(ID_HEX // 2), label, quota, now)
        secret = f"{PREFIX}{key.id}-{secrets.token_urlsafe(SECRET_BYTES)}"
        row = (key.id, _hash(secret), label, now, quota.requests_per_minute, quota.tokens_per_day, quota.concurrency)
        with self._lock:
            self._db.execute("INSERT INTO keys VALUES (?, ?, ?, ?, NULL, ?, ?, ?)", row)
        return key, secret

    def find(self, secret: str) -> ApiKey | None:
        """The key of a secret; None when it is none of ours, or revoked."""
        name = secret[len(PREFIX) : len(PREFIX) + ID_HEX]
        if not secret.startswith(PREFIX) or len(secret) > LONGEST_SECRET or not name.isalnum() or not secret.isascii():
            return None
        with self._lock:
            row = self._db.execute(f"SELECT hash, {_COLUMNS} FROM keys WHERE id = ?", (name,)).fetchone()
        # An unknown name is compared as well, so that time does not tell which names exist.
        same = hmac.compare_digest(row[0] if row else bytes(32), _hash(secret))
        return _key(row[1:]) if row and same and row[3] is None else None

    def all(self) -> list[ApiKey]:
        """Every key, oldest first, revoked ones included."""
        with self._lock:
            rows = self._db.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY created_at, id").fetchall()
        return [_key(row) for row in rows]

    def revoke(self, key_id: str, now: float) -> None:
        """From now on the key opens nothing. Raises UnknownKey."""
        with self._lock:
            query = "UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?"
            if not self._db.execute(query, (now, key_id)).rowcount:
                raise UnknownKey(f"no key has the id {key_id}", remedy="see touchstone gateway-keys list")

    def used(self, key_id: str, day: int) -> tuple[int, int]:
        """(tokens, requests) of one UTC day, counted from the epoch."""
        with self._lock:
            query = "SELECT tokens, requests FROM usage WHERE id = ? AND day = ?"
            row = self._db.execute(query, (key_id, day)).fetchone()
        return (int(row[0]), int(row[1])) if row else (0, 0)

    def add_usage(self, key_id: str, day: int, tokens: int) -> None:
        """One request more, and its tokens."""
        with self._lock:
            self._db.execute(
                "INSERT INTO usage VALUES (?, ?, ?, 1) ON CONFLICT (id, day)"
                " DO UPDATE SET tokens = tokens + excluded.tokens, requests = requests + 1",
                (key_id, day, tokens),
            )


_COLUMNS = "id, label, revoked_at, created_at, " + ", ".join(f.name for f in fields(Quota))


def _key(row: tuple[str, str, float | None, float, int, int, int]) -> ApiKey:
    key_id, label, revoked_at, created_at, *quota = row
    return ApiKey(key_id, label, Quota(*quota), created_at, revoked_at)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(b"touchstone/gateway-key/v1" + secret.encode()).digest()
