"""What was learned of remote blocks, in a SQLite file: the next run asks for less, and needs no network for the rest.

    blocks    a block forked from, and whose word its storage is: the genesis it descends from, header, body, hash of
              its code
    entries   its storage values; NULL where there is none
    pages     stretches of its key space of which all keys are known
    codes     runtime code by its blake2b-256
    hashes    block hashes by number
    sources   the block last forked from an address
    touched   by chain: keys that blocks read, and prefixes they iterated over, newest use last

Nothing gets in that did not pass the checks of answers.py, and headers and code are hashed again on the way out. What
one address said is not served to who forks from another, and nothing but what was proven to who wants proofs. The file
may be used by several processes. One that is damaged, of another program or in another format is refused.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

from localnet.cache_dir import cache_directory
from localnet.codec.scale import opaque, read_compact
from localnet.errors import ForkError, LocalnetError, ScaleError
from localnet.node.blocks import Header, blake2_256
from localnet.node.extrinsic import join_vector, split_vector

log = logging.getLogger(__name__)

APPLICATION_ID = 0x546F7546  # "TouF" in SQLite's header
FORMAT = 2
BUSY_TIME = 10.0  # seconds to wait for another process that writes
MAX_TOUCHED = 100_000  # keys remembered per chain; those not used for longest go first
REMEDY = "delete it, or name another file with --fork-cache"
SCHEMA = """
CREATE TABLE blocks (id INTEGER PRIMARY KEY, hash BLOB NOT NULL, origin TEXT NOT NULL, genesis BLOB NOT NULL,
                     header BLOB NOT NULL, body BLOB NOT NULL, code BLOB NOT NULL, UNIQUE (hash, origin));
CREATE TABLE entries (block INTEGER NOT NULL, key BLOB NOT NULL, value BLOB, PRIMARY KEY (block, key)) WITHOUT ROWID;
CREATE TABLE pages (block INTEGER NOT NULL, lo BLOB NOT NULL, hi BLOB NOT NULL, keys BLOB NOT NULL,
                    PRIMARY KEY (block, lo, hi)) WITHOUT ROWID;
CREATE TABLE codes (hash BLOB PRIMARY KEY, code BLOB NOT NULL);
CREATE TABLE hashes (url TEXT NOT NULL, genesis BLOB NOT NULL, number INTEGER NOT NULL, hash BLOB NOT NULL,
                     PRIMARY KEY (url, genesis, number)) WITHOUT ROWID;
CREATE TABLE sources (url TEXT PRIMARY KEY, genesis BLOB NOT NULL, block BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE touched (genesis BLOB NOT NULL, key BLOB NOT NULL, kind INTEGER NOT NULL, run INTEGER NOT NULL,
                      PRIMARY KEY (genesis, key, kind)) WITHOUT ROWID;
"""

VALUE, SCANNED, WALKED = 0, 1, 2  # kinds of touched keys: read; prefix listed; prefix iterated and passed by


Stretch: TypeAlias = tuple[bytes, bytes, list[bytes]]
"""From a key up to but without another: all keys between them."""


def default_path() -> Path:
    """In the cache directory."""
    return cache_directory() / "forks.sqlite"


@dataclass(frozen=True)
class Point:
    """A block to fork from. `code`: the hash of its runtime's code. `url`: who tells of it; `proven`: and proves
    what its state holds."""

    genesis: bytes
    hash: bytes
    header: Header
    body: list[bytes]
    code: bytes
    url: str
    proven: bool = False

    @property
    def origin(self) -> str:
        """Whose word its storage is; nobody's when it is proven."""
        return "" if self.proven else self.url

    @property
    def number(self) -> int:
        return self.header.number


class Cache:
    def __init__(self, path: Path) -> None:
        """Open or create. Raises ForkError."""
        self.path = path
        with self._readable():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIME, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise ForkError(f"cannot use the fork cache {self.path}: {error}; {REMEDY}") from error
        except ForkError:
            raise
        except (sqlite3.DatabaseError, LocalnetError, TypeError, ValueError) as error:  # whatever damage can hold
            raise ForkError(f"the fork cache {self.path} is damaged ({error}): {REMEDY}") from error
        except OSError as error:
            raise ForkError(f"cannot use the fork cache {self.path}: {error}") from error

    def _prepare(self) -> None:
        db = self._db
        application = db.execute("PRAGMA application_id").fetchone()[0]
        if application == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            db.execute("PRAGMA journal_mode = WAL")
            with self._transaction():
                if db.execute("PRAGMA application_id").fetchone()[0] == 0:  # nobody was faster
                    for statement in SCHEMA.split(";"):
                        db.execute(statement)
                    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    db.execute(f"PRAGMA user_version = {FORMAT}")
        elif application != APPLICATION_ID:
            raise ForkError(f"{self.path} is no fork cache: name another file with --fork-cache")
        db.execute("PRAGMA synchronous = NORMAL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version != FORMAT:
            raise ForkError(f"the fork cache {self.path} has format {version}, this program writes {FORMAT}: {REMEDY}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()

    # -- blocks

    def last(self, url: str) -> tuple[bytes, bytes] | None:
        """Genesis hash, and hash of the block last forked from an address."""
        with self._readable():
            row = self._db.execute("SELECT genesis, block FROM sources WHERE url = ?", (url,)).fetchone()
            return None if row is None else (row[0], row[1])

    def point(self, digest: bytes, url: str, proven: bool = False) -> Point | None:
        """A block that was forked from before. Raises ForkError when what the file holds is not that block."""
        with self._readable():
            row = self._db.execute(
                "SELECT genesis, header, body, code FROM blocks WHERE hash = ? AND origin = ?",
                (digest, "" if proven else url),
            ).fetchone()
            if row is None:
                return None
            header = Header.decode(row[1])
            if header.hash() != digest:
                raise ScaleError("a header that is not its block's")
            return Point(row[0], digest, header, split_vector(row[2]), row[3], url, proven)

    def remember(self, point: Point) -> None:
        body, url, genesis = join_vector(point.body), point.url, point.genesis
        row = (point.hash, point.origin, genesis, point.header.encode(), body, point.code)
        with self._readable(), self._transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO blocks (hash, origin, genesis, header, body, code) VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )
            db.execute("INSERT OR REPLACE INTO sources VALUES (?, ?, ?)", (url, genesis, point.hash))
            db.execute("INSERT OR REPLACE INTO hashes VALUES (?, ?, 0, ?)", (url, genesis, genesis))
            db.execute("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?)", (url, genesis, point.number, point.hash))

    def hash_of(self, url: str, genesis: bytes, number: int) -> bytes | None:
        with self._readable():
            row = self._db.execute(
                "SELECT hash FROM hashes WHERE url = ? AND genesis = ? AND number = ?", (url, genesis, number)
            ).fetchone()
            return None if row is None else row[0]

    def keep_hash(self, url: str, genesis: bytes, number: int, digest: bytes) -> None:
        with self._readable():
            self._db.execute("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?)", (url, genesis, number, digest))

    # -- code

    def code(self, digest: bytes) -> bytes | None:
        """Raises ForkError when what the file holds does not hash to it."""
        with self._readable():
            row = self._db.execute("SELECT code FROM codes WHERE hash = ?", (digest,)).fetchone()
            if row is not None and blake2_256(row[0]) != digest:
                raise ScaleError("code that does not hash to its name")
            return None if row is None else row[0]

    def keep_code(self, code: bytes) -> None:
        with self._readable():
            self._db.execute("INSERT OR IGNORE INTO codes VALUES (?, ?)", (blake2_256(code), code))

    # -- storage of a block

    def _id(self, point: Point) -> int:
        row = self._db.execute(
            "SELECT id FROM blocks WHERE hash = ? AND origin = ?", (point.hash, point.origin)
        ).fetchone()
        if row is None:
            raise ScaleError("the block forked from is not in it any more")
        return int(row[0])

    def load(self, point: Point) -> tuple[dict[bytes, bytes | None], list[Stretch]]:
        """All that is known of a block's storage."""
        with self._readable():
            block = self._id(point)
            values = dict(self._db.execute("SELECT key, value FROM entries WHERE block = ?", (block,)))
            rows = self._db.execute("SELECT lo, hi, keys FROM pages WHERE block = ? ORDER BY lo", (block,))
            return values, [(lo, hi, _unpack(keys)) for lo, hi, keys in rows]

    def keep(self, point: Point, values: Mapping[bytes, bytes | None], pages: Iterable[Stretch]) -> None:
        with self._readable(), self._transaction() as db:
            block = self._id(point)
            rows = [(block, key, value) for key, value in values.items()]
            db.executemany("INSERT OR IGNORE INTO entries VALUES (?, ?, ?)", rows)
            stretches = [(block, lo, hi, b"".join(map(opaque, keys))) for lo, hi, keys in pages]
            db.executemany("INSERT OR IGNORE INTO pages VALUES (?, ?, ?, ?)", stretches)

    # -- what blocks touch

    def touched(self, genesis: bytes) -> list[tuple[bytes, int]]:
        """Keys and prefixes that blocks of this chain used, with their kinds."""
        with self._readable():
            return self._db.execute("SELECT key, kind FROM touched WHERE genesis = ?", (genesis,)).fetchall()

    def next_run(self, genesis: bytes) -> int:
        """A number above those of all runs on this chain so far."""
        with self._readable():
            newest = self._db.execute("SELECT max(run) FROM touched WHERE genesis = ?", (genesis,)).fetchone()[0]
            return int(newest or 0) + 1

    def touch(self, genesis: bytes, used: Iterable[tuple[bytes, int]], run: int) -> None:
        """These were used in run number `run`."""
        with self._readable(), self._transaction() as db:
            rows = [(genesis, key, kind, run) for key, kind in used]
            db.executemany("INSERT OR REPLACE INTO touched VALUES (?, ?, ?, ?)", rows)
            db.execute(
                "DELETE FROM touched WHERE genesis = ?1 AND run < (SELECT run FROM touched WHERE genesis = ?1 "
                "ORDER BY run DESC LIMIT 1 OFFSET ?2)",
                (genesis, MAX_TOUCHED - 1),
            )


def _unpack(data: bytes) -> list[bytes]:
    """The keys of a page. Raises ScaleError."""
    keys, offset = [], 0
    while offset < len(data):
        size, offset = read_compact(data, offset)
        keys.append(data[offset : offset + size])
        offset += size
    if offset != len(data) or any(a >= b for a, b in pairwise(keys)):
        raise ScaleError("a page of keys that is none")
    return keys
